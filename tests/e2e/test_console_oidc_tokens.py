"""What a false or broken OpenID provider may sign, and how its keys change."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tests.e2e.console_visitor import Visitor
from tests.e2e.oidc_house import (
    Clock,
    assert_refused,
    clock,
    go,
    guest,
    last_row,
    provider,
    services,
)
from tests.e2e.oidc_provider import CLIENT_ID, Provider

from crmbridge.services import Services

__all__ = ["clock", "guest", "provider", "services"]

pytestmark = pytest.mark.postgres


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"nonce": "n" * 43}, "claim_nonce"),
        ({"nonce": None}, "claim_nonce"),
        ({"iss": "https://evil.example"}, "claim_iss"),
        ({"iss": None}, "claim_missing"),
        ({"aud": "another-client"}, "claim_aud"),
        ({"aud": ["another-client"]}, "claim_aud"),
        ({"aud": [CLIENT_ID, "another-client"]}, "claim_azp"),
        ({"azp": "another-client"}, "claim_azp"),
        ({"exp": int(time.time()) - 120}, "token_expired"),
        ({"exp": "tomorrow"}, "claim_exp"),
        ({"exp": None}, "claim_missing"),
        ({"iat": int(time.time()) + 3600, "exp": int(time.time()) + 7200}, "claim_iat"),
        ({"iat": int(time.time()) - 3600}, "claim_iat"),
        ({"iat": None}, "claim_missing"),
        ({"sub": 7}, "claim_sub"),
        ({"sub": "ü"}, "claim_sub"),
        ({"email_verified": False}, "email_unverified"),
        ({"email_verified": "true"}, "email_unverified"),
        ({"email_verified": None}, "email_unverified"),
        ({"email": "eve@example.com"}, "nobody"),
        ({"email": None}, "nobody"),
        ({"email": ["ann@example.com"]}, "nobody"),
    ],
)
async def test_claims_when_one_is_wrong_then_refused(
    services: Services, provider: Provider, guest: Visitor, claims: dict[str, Any], reason: str
) -> None:
    provider.claims = claims
    await assert_refused(services, guest, await go(guest, provider), reason)
    provider.claims = {"aud": [CLIENT_ID, "another-client"], "azp": CLIENT_ID}
    assert (await go(guest, provider)).status_code == 303


async def test_token_when_its_algorithm_or_signature_is_wrong_then_refused(
    services: Services, provider: Provider, guest: Visitor
) -> None:
    genuine = provider.sign
    stranger = Provider(0)
    for make, reason in (
        (provider.unsigned, "token_algorithm"),
        (provider.confused, "token_algorithm"),
        (stranger.sign, "token_signature"),
        (lambda claims: genuine(claims)[:-9] + "AAAAAAAAA", "token_signature"),
        (lambda claims: "a.b.c", "token_unreadable"),
        (lambda claims: "x" * 40_000, "token_unreadable"),
        (lambda claims: "W10.e30.AA", "token_unreadable"),
    ):
        provider.make = make
        await assert_refused(services, guest, await go(guest, provider), reason)
    provider.make = genuine
    for header in ({"crit": ["exp"]}, {"typ": "at+jwt"}):
        provider.header = header
        provider.make = provider.loose
        await assert_refused(services, guest, await go(guest, provider), "token_header")


async def test_token_when_the_key_is_of_another_kind_or_use_then_refused(
    services: Services, provider: Provider, guest: Visitor, clock: Clock
) -> None:
    genuine = dict(provider.published[0])
    for changed in (
        {**genuine, "use": "enc"},
        {**genuine, "alg": "RS512"},
        {**genuine, "kty": "oct", "k": "AAAA"},
        {**genuine, "key_ops": ["encrypt"]},
    ):
        provider.published = [changed]
        clock.ahead += 61
        await assert_refused(services, guest, await go(guest, provider), "key_unknown")
    for changed in ({**genuine, "n": "AAAA"}, {**genuine, "n": 7}):
        provider.published = [changed]
        clock.ahead += 61
        page = await go(guest, provider)
        assert page.status_code == 401 and (await last_row(services)).details["reason"].startswith("key_")
        services.operators.oidc._keys = None  # type: ignore[union-attr]


async def test_token_when_without_a_key_id_then_only_one_fitting_key_will_do(
    services: Services, provider: Provider, guest: Visitor, clock: Clock
) -> None:
    provider.header = {"kid": None}
    assert (await go(guest, provider)).status_code == 303
    guest.http.cookies.clear()
    provider.published.append(dict(Provider(0).published[0]))
    clock.ahead += 3601
    await assert_refused(services, guest, await go(guest, provider), "token_without_kid")


async def test_keys_when_rotated_then_read_again_and_not_for_every_unknown_one(
    services: Services, provider: Provider, guest: Visitor, clock: Clock
) -> None:
    assert (await go(guest, provider)).status_code == 303
    assert provider.seen["/keys"] == 1
    guest.http.cookies.clear()
    provider.use("RS256", "k2")
    clock.ahead += 61
    assert (await go(guest, provider)).status_code == 303
    assert provider.seen["/keys"] == 2
    guest.http.cookies.clear()
    provider.kid = "never published"
    for _ in range(3):
        await assert_refused(services, guest, await go(guest, provider), "key_unknown")
    assert provider.seen["/keys"] == 2
    provider.kid = "k2"
    clock.ahead += 3601
    assert (await go(guest, provider)).status_code == 303
    assert provider.seen["/keys"] == 3 and provider.seen["/.well-known/openid-configuration"] == 2
