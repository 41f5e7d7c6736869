"""The token endpoint's protocol without network or database."""

from __future__ import annotations

import string
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.core.driver import CrmDriver
from crmbridge.core.errors import NotConfigured, UnexpectedResponse
from crmbridge.core.manifest import Auth, AuthKind, Manifest
from crmbridge.core.secret import Secret
from crmbridge.core.tokens import TokenFault
from crmbridge.core.wire import HttpRequest, HttpResponse, TransportFailure, TransportFault
from crmbridge.services.oauth import protocol
from crmbridge.services.oauth.model import Client, TokenRefused
from crmbridge.toolkit.auth import SecretRef

CLIENT = Client(client_id=Secret("the-id"), client_secret=Secret("the-secret"), is_tenants=False)
REFRESH = {"grant_type": "refresh_token", "refresh_token": SecretRef("refresh_token")}


def manifest(**auth: Any) -> Manifest:
    facts: dict[str, Any] = {
        "kind": AuthKind.OAUTH_CODE,
        "authorize_url": "{host}/authorize",
        "token_url": "https://acme.example/{centre}/token",
        "scopes": ("a b", "c"),
        **auth,
    }
    return Manifest(
        slug="acme", display_name="Acme", api_version="1", pages=(), read_on="", auth=Auth(**facts)
    )


class Driver(CrmDriver):
    MANIFEST: ClassVar[Manifest] = manifest()


class Answering:
    """A transport with one answer; keeps what was sent."""

    def __init__(self, answer: HttpResponse | TransportFailure) -> None:
        self.answer = answer
        self.seen: list[HttpRequest] = []

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.seen.append(request)
        if isinstance(self.answer, TransportFailure):
            raise self.answer
        return self.answer


async def asked(transport: Answering, driver: type[CrmDriver] = Driver) -> dict[str, Any]:
    return await protocol.ask(
        driver,
        REFRESH,
        client=CLIENT,
        secrets={"refresh_token": Secret("old&one")},
        settings={},
        facts={"centre": "eu/../x"},
        transport=transport,
    )


def test_challenge_when_the_verifier_of_rfc_7636_then_its_challenge() -> None:
    # RFC 7636 appendix B.
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert protocol.challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_authorize_url_when_built_then_spaces_are_percent_20_and_names_are_filled() -> None:
    url = protocol.authorize_url(
        manifest(scope_separator=",", authorize_extra={"prompt": "consent"}),
        "id&1",
        {"host": "https://login.acme.example/"},
        redirect_uri="https://crm.example/oauth/callback",
        state="s",
        code_challenge="c",
    )
    assert url.startswith("https://login.acme.example/authorize?") and "+" not in url
    query = parse_qs(urlsplit(url).query)
    assert query["scope"] == ["a b,c"] and query["client_id"] == ["id&1"] and query["prompt"] == ["consent"]
    assert query["code_challenge_method"] == ["S256"]


def test_authorize_url_when_a_setting_is_missing_then_named() -> None:
    with pytest.raises(NotConfigured, match="'host'"):
        protocol.authorize_url(manifest(), "id", {}, redirect_uri="", state="")


async def test_ask_when_the_client_goes_in_the_body_then_nothing_secret_in_the_url() -> None:
    transport = Answering(HttpResponse.of_json(200, {"access_token": "new"}))
    assert await asked(transport) == {"access_token": "new"}
    sent = transport.seen[0]
    assert sent.url == "https://acme.example/eu%2F..%2Fx/token" and sent.query == {}
    assert parse_qs(sent.encoded_body().decode()) == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["old&one"],
        "client_id": ["the-id"],
        "client_secret": ["the-secret"],
    }


async def test_ask_when_the_client_goes_by_basic_then_not_in_the_body() -> None:
    class Basic(Driver):
        MANIFEST: ClassVar[Manifest] = manifest(client_auth="basic")

    transport = Answering(HttpResponse.of_json(200, {"access_token": "new"}))
    await asked(transport, Basic)
    assert transport.seen[0].headers["Authorization"] == "Basic dGhlLWlkOnRoZS1zZWNyZXQ="
    assert b"the-secret" not in transport.seen[0].encoded_body()


@pytest.mark.parametrize(
    ("status", "tree", "fault"),
    [
        (400, {"error": "invalid_grant"}, TokenFault.REVOKED),
        (200, {"error": "invalid_grant"}, TokenFault.REVOKED),
        (503, {"error": "invalid_grant"}, TokenFault.TRANSIENT),
        (401, {"error": "invalid_client"}, TokenFault.MISCONFIGURED),
        (401, {}, TokenFault.MISCONFIGURED),
        (400, {"error": "something_new"}, TokenFault.TRANSIENT),
        (429, {"error": "invalid_grant"}, TokenFault.THROTTLED),
        (200, {"access_token": ""}, TokenFault.TRANSIENT),
        (302, {"access_token": "from a redirect"}, TokenFault.TRANSIENT),
    ],
)
async def test_refusal_when_read_then_only_invalid_grant_is_death(
    status: int, tree: dict[str, Any], fault: TokenFault
) -> None:
    with pytest.raises(TokenRefused) as caught:
        await asked(Answering(HttpResponse.of_json(status, tree)))
    assert caught.value.fault is fault
    assert caught.value.error.outcome.value == "not_applied"


async def test_refusal_when_the_provider_writes_prose_then_not_repeated() -> None:
    tree = {"error": "the-secret of ann@example.com <script>", "error_description": "old&one"}
    with pytest.raises(TokenRefused) as caught:
        await asked(Answering(HttpResponse.of_json(400, tree)))
    shown = str(caught.value.error.to_dict())
    assert "the-secret" not in shown and "ann@" not in shown and "old&one" not in shown


async def test_refusal_when_the_answer_is_html_then_transient() -> None:
    page = HttpResponse(status=502, headers={"content-type": "text/html"}, body=b"<h1>oops</h1>")
    with pytest.raises(TokenRefused) as caught:
        await asked(Answering(page))
    assert caught.value.fault is TokenFault.TRANSIENT and caught.value.error.retry_safe


async def test_refusal_when_no_answer_comes_then_transient_and_not_applied() -> None:
    cut = TransportFailure(TransportFault.CUT, "cut", was_sent=True)
    with pytest.raises(TokenRefused) as caught:
        await asked(Answering(cut))
    assert caught.value.fault is TokenFault.TRANSIENT
    assert caught.value.error.outcome.value == "not_applied"


async def test_throttled_when_no_time_is_told_then_the_declared_pace_decides() -> None:
    class Slow(Driver):
        MANIFEST: ClassVar[Manifest] = manifest(token_calls_per_minute=5)

    with pytest.raises(TokenRefused) as caught:
        await asked(Answering(HttpResponse.of_json(429, {})), Slow)
    assert caught.value.error.retry_after_seconds == 12.0
    with pytest.raises(TokenRefused) as caught:
        await asked(Answering(HttpResponse.of_json(429, {}, {"Retry-After": "600"})), Slow)
    assert caught.value.error.retry_after_seconds == 600.0


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [
        (1800, 1800.0),
        ("3600", 3600.0),
        (None, None),
        ("soon", None),
        (-5, None),
        (0, None),
        (float("inf"), None),
        ([1], None),
    ],
)
def test_tokens_when_read_then_a_number_or_a_text_of_one_is_a_life(
    expires_in: Any, seconds: float | None
) -> None:
    read = protocol.read_tokens(manifest().auth, {"access_token": "t", "expires_in": expires_in})
    assert read.expires_in == seconds


def test_tokens_when_no_life_is_told_then_the_declared_one() -> None:
    assert protocol.read_tokens(manifest(access_seconds=60).auth, {"access_token": "t"}).expires_in == 60.0


@pytest.mark.parametrize("token", [None, 7, "", " ", "two\nlines", "ünicode", "x" * 20_000])
def test_tokens_when_the_access_token_cannot_be_one_then_refused(token: Any) -> None:
    with pytest.raises(UnexpectedResponse):
        protocol.read_tokens(manifest().auth, {"access_token": token})


@pytest.mark.parametrize(
    ("answer", "scopes"),
    [
        ({"scope": "a b"}, ["a", "b"]),
        ({"scope": "a,b"}, ["a", "b"]),
        ({"scopes": ["a", "b"]}, ["a", "b"]),
        ({"scope": ""}, None),
        ({}, None),
        ({"scope": 7}, None),
    ],
)
def test_scopes_when_spelled_in_any_of_the_known_ways_then_the_same(
    answer: dict[str, Any], scopes: list[str] | None
) -> None:
    assert protocol.read_tokens(manifest().auth, {"access_token": "t", **answer}).scopes == scopes


@given(
    st.dictionaries(st.text(string.printable, max_size=8), st.text(max_size=30), max_size=4),
    st.integers(200, 599),
)
def test_refusal_when_the_tree_is_anything_then_a_fault_and_an_error(
    tree: dict[str, str], status: int
) -> None:
    refusal = protocol.refused(Driver, Driver.MANIFEST, HttpResponse.of_json(status, tree), tree, CLIENT)
    assert refusal.fault in TokenFault and refusal.error.provider == "acme"
    if refusal.fault is TokenFault.REVOKED:
        assert tree["error"] == "invalid_grant"


def test_facts_when_the_driver_fails_at_a_refresh_then_the_tokens_are_not_lost() -> None:
    class Broken(Driver):
        @classmethod
        def token_facts(cls, answer: Any) -> dict[str, str]:
            return {"instance": answer["not there"]}

    assert protocol.renewed_facts(Broken, {"access_token": "t"}) == {}
