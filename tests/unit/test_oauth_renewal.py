"""The toolkit's exchange on a refused token: one renewal, one repetition of exactly the refused call."""

from __future__ import annotations

import pytest

from crmbridge.core.driver import Access
from crmbridge.core.errors import AuthError, RateLimited, ValidationError
from crmbridge.core.manifest import Auth, AuthKind, Manifest
from crmbridge.core.secret import Secret
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.toolkit.exchange import HttpDriver


class Provider:
    """Accepts one token; keeps what was sent."""

    def __init__(self, good: str = "new", body_status: int = 200) -> None:
        self.good = good
        self.body_status = body_status
        self.seen: list[HttpRequest] = []

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.seen.append(request)
        if request.headers.get("Authorization") != f"Bearer {self.good}":
            return HttpResponse.of_json(401, {"message": "expired"})
        return HttpResponse.of_json(self.body_status, {"ok": True})


class Driver(HttpDriver):
    MANIFEST = Manifest(
        slug="acme",
        display_name="Acme",
        api_version="1",
        pages=(),
        read_on="",
        auth=Auth(kind=AuthKind.OAUTH_CODE),
        base_url="{instance}",
    )


def driver(provider: Provider, *, renews: bool | Exception | None = True) -> tuple[Driver, list[int]]:
    access = Access(
        settings={},
        secrets={"access_token": Secret("old")},
        transport=provider,
        facts={"instance": "https://one.acme.example"},
    )
    calls: list[int] = []

    async def renew() -> bool:
        calls.append(1)
        if isinstance(renews, Exception):
            raise renews
        access.secrets = {"access_token": Secret("new")}
        access.facts = {"instance": "https://two.acme.example"}
        return bool(renews)

    access.renew = None if renews is None else renew
    return Driver(access), calls


def post() -> HttpRequest:
    return HttpRequest(method="POST", url="/contacts", json={"a": 1}, headers={"X-Own": "1"})


async def test_exchange_when_refused_then_renewed_and_sent_again_whole_to_the_new_instance() -> None:
    provider = Provider()
    made, calls = driver(provider)
    answer = await made.exchange(post(), operation="create", is_write=True)
    assert answer.status == 200 and calls == [1]
    first, second = provider.seen
    assert (
        first.url == "https://one.acme.example/contacts" and second.url == "https://two.acme.example/contacts"
    )
    assert second.json == {"a": 1} and second.headers["X-Own"] == "1"
    assert second.headers["Authorization"] == "Bearer new"


async def test_exchange_when_refused_again_then_a_missing_right_and_no_third_call() -> None:
    provider = Provider(good="other")
    made, calls = driver(provider)
    with pytest.raises(AuthError) as caught:
        await made.exchange(post(), operation="create", is_write=True)
    assert caught.value.subcode == "insufficient_scope" and caught.value.http_status == 403
    assert len(provider.seen) == 2 and calls == [1]


async def test_exchange_when_the_repetition_fails_otherwise_then_that_error() -> None:
    made, _ = driver(Provider(body_status=422))
    with pytest.raises(ValidationError):
        await made.exchange(post(), operation="create", is_write=True)


async def test_exchange_when_nothing_can_be_renewed_then_the_refusal_itself() -> None:
    for renews in (None, False):
        provider = Provider()
        made, _ = driver(provider, renews=renews)
        with pytest.raises(AuthError) as caught:
            await made.exchange(post(), operation="create", is_write=True)
        assert caught.value.subcode == "invalid_credentials" and len(provider.seen) == 1


async def test_exchange_when_the_renewal_fails_then_its_error_and_no_repetition() -> None:
    provider = Provider()
    made, _ = driver(provider, renews=RateLimited("slow down"))
    with pytest.raises(RateLimited):
        await made.exchange(post(), operation="create", is_write=True)
    assert len(provider.seen) == 1
