"""Credentials on requests."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from crmbridge.core.driver import Access
from crmbridge.core.errors import AuthError, NotConfigured
from crmbridge.core.manifest import Auth, AuthKind
from crmbridge.core.secret import Secret
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.toolkit.auth import SecretRef, apply, redactor


class NoTransport:
    async def send(self, request: HttpRequest) -> HttpResponse:
        raise AssertionError("auth sends nothing")


def _access(settings: dict[str, str] | None = None, **secrets: str) -> Access:
    return Access(
        settings=settings or {},
        secrets={name: Secret(text) for name, text in secrets.items()},
        transport=NoTransport(),
    )


async def _applied(auth: Auth, access: Access, **request: Any) -> HttpRequest:
    built = HttpRequest(method="POST", url="https://crm.example.com/x", **request)
    await apply(auth, access, built)
    return built


@pytest.mark.parametrize(
    ("auth", "headers", "query"),
    [
        (Auth(kind=AuthKind.API_KEY, secret="key"), {"X-Api-Key": "k1"}, {}),
        (Auth(kind=AuthKind.API_KEY, secret="key", header="Api-Token"), {"Api-Token": "k1"}, {}),
        (
            Auth(kind=AuthKind.API_KEY, secret="key", header="Authorization", prefix="Token "),
            {"Authorization": "Token k1"},
            {},
        ),
        (Auth(kind=AuthKind.API_KEY, secret="key", query="apikey"), {}, {"apikey": "k1"}),
        (Auth(kind=AuthKind.BEARER, secret="key"), {"Authorization": "Bearer k1"}, {}),
        (Auth(kind=AuthKind.BEARER, secret="key", prefix="bearer "), {"Authorization": "bearer k1"}, {}),
        (Auth(kind=AuthKind.OAUTH_CODE), {"Authorization": "Bearer t1"}, {}),
        (
            Auth(kind=AuthKind.OAUTH_CODE, prefix="Zoho-oauthtoken "),
            {"Authorization": "Zoho-oauthtoken t1"},
            {},
        ),
        (Auth(kind=AuthKind.CLIENT_CREDENTIALS, secret="key"), {"Authorization": "Bearer t1"}, {}),
        (Auth(kind=AuthKind.SIGN_IN), {"Authorization": "Bearer t1"}, {}),
        (Auth(kind=AuthKind.NONE), {}, {}),
        (Auth(kind=AuthKind.HMAC, secret="key"), {}, {}),
    ],
)
async def test_apply_when_scheme_is_declared_then_header_or_query(
    auth: Auth, headers: dict[str, str], query: dict[str, str]
) -> None:
    request = await _applied(auth, _access(key=" k1\n", access_token="t1"))
    assert (request.headers, request.query) == (headers, query)


async def test_apply_when_basic_then_user_and_password_in_utf8() -> None:
    auth = Auth(kind=AuthKind.BASIC, user="user", secret="password")
    request = await _applied(auth, _access({"user": "zoë"}, password="pä:ss"))
    scheme, _, pair = request.headers["Authorization"].partition(" ")
    assert (scheme, base64.b64decode(pair).decode()) == ("Basic", "zoë:pä:ss")


async def test_apply_when_basic_user_is_a_secret_without_password_then_key_and_colon() -> None:
    request = await _applied(Auth(kind=AuthKind.BASIC, user="key"), _access(key="k1"))
    assert base64.b64decode(request.headers["Authorization"][6:]) == b"k1:"


async def test_apply_when_basic_user_holds_a_colon_then_auth_error() -> None:
    auth = Auth(kind=AuthKind.BASIC, user="user", secret="password")
    with pytest.raises(AuthError, match="colon"):
        await _applied(auth, _access({"user": "a:b"}, password="p"))


@pytest.mark.parametrize(
    "auth",
    [
        Auth(kind=AuthKind.API_KEY, secret="missing"),
        Auth(kind=AuthKind.BEARER, secret="missing"),
        Auth(kind=AuthKind.OAUTH_CODE),
        Auth(kind=AuthKind.BASIC, user="missing", secret="key"),
        Auth(kind=AuthKind.BASIC, user="key", secret="missing"),
    ],
)
async def test_apply_when_secret_is_missing_then_not_configured_names_it(auth: Auth) -> None:
    with pytest.raises(NotConfigured, match="missing"):
        await _applied(auth, _access(key="k1"))


@pytest.mark.parametrize("text", ["a\r\nX-Evil: 1", "a\nb", "schlüssel", "a\0b"])
async def test_apply_when_secret_cannot_stand_in_a_header_then_auth_error_without_it(text: str) -> None:
    with pytest.raises(AuthError) as caught:
        await _applied(Auth(kind=AuthKind.BEARER, secret="key"), _access(key=text))
    assert caught.value.subcode == "invalid_credentials"
    assert text not in str(caught.value.to_dict())


async def test_apply_when_caller_has_set_the_header_then_it_stays() -> None:
    auth = Auth(kind=AuthKind.BEARER, secret="key")
    request = await _applied(auth, _access(key="k1"), headers={"authorization": "Custom x"})
    assert request.headers == {"authorization": "Custom x"}


async def test_apply_when_sign_in_body_refers_to_secrets_then_filled() -> None:
    body = {"user": "u", "args": ["db", 2, SecretRef("password")], "deep": {"k": SecretRef("key")}}
    request = await _applied(
        Auth(kind=AuthKind.SIGN_IN),
        _access(password="p1", key="k1"),
        json=body,
        form={"secret": SecretRef("key")},
        query={"q": SecretRef("key")},
        headers={"X-Site": SecretRef("key")},
    )
    assert request.json == {"user": "u", "args": ["db", 2, "p1"], "deep": {"k": "k1"}}
    assert (request.form, request.query, request.headers) == ({"secret": "k1"}, {"q": "k1"}, {"X-Site": "k1"})


def test_secret_ref_when_never_filled_then_cannot_be_encoded() -> None:
    with pytest.raises(TypeError):
        msgspec.json.encode({"password": SecretRef("password")})


def test_redactor_when_provider_echoes_a_secret_then_hidden_plain_and_encoded() -> None:
    hide = redactor(_access(key="hush-hush"))
    encoded = base64.b64encode(b"hush-hush").decode()
    shown = hide(f"bad key hush-hush / {encoded}")
    assert "hush" not in shown and encoded not in shown
