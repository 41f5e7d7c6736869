"""Connecting, consent, sessions that end, refreshing, revoking."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec
import pytest

from crmbridge.core.errors import (
    AuthError,
    CrmError,
    RateLimited,
    UnexpectedResponse,
)
from crmbridge.core.operations import Outcome
from crmbridge.core.records import Object
from crmbridge.core.secret import Secret
from crmbridge.core.wire import HttpRequest
from crmbridge.drivers.salesforce.emulator import SalesforceEmulator
from crmbridge.drivers.salesforce.test_kit import connected, person, write

FIXTURES = Path(__file__).parent / "fixtures"


# -- connecting ----------------------------------------------------------------------------------------------------


async def test_connection_when_the_user_lacks_rights_then_they_are_named() -> None:
    org = SalesforceEmulator()
    driver = await connected(org)
    org.denied = {"Case"}
    org.daily_limit, org.daily_used = 1000, 950
    proof = await driver.test_connection()
    assert proof.missing_rights == ["create Case", "update Case", "delete Case"]
    assert proof.facts["org_id"] == "00DHu0000000001"
    assert proof.facts["budget.daily-remaining"] == "49"
    assert "49 of 1000" in proof.warnings[0]


async def test_connection_when_the_list_of_objects_cannot_be_read_then_a_warning_and_not_a_failure() -> None:
    org = SalesforceEmulator()
    driver = await connected(org)
    bodies: list[Any] = [[], {"sobjects": 5}, {"sobjects": None}]
    for body in bodies:
        org.faults.add("wrong_shape", operation="sobjects", body=body)
        assert (await driver.test_connection()).warnings
    org.faults.add("html", operation="sobjects")
    proof = await driver.test_connection()
    assert proof.missing_rights == []
    assert "could not be read" in proof.warnings[0]


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"name": "Lead"},
        {"name": "Lead", "fields": [{"name": 5}]},
        {"name": "Lead", "fields": [None]},
        "text",
        None,
    ],
)
async def test_describe_when_it_has_another_shape_then_unexpected(body: Any) -> None:
    org = SalesforceEmulator()
    driver = await connected(org)
    org.faults.add("wrong_shape", operation="describe", body=body)
    with pytest.raises(UnexpectedResponse):
        await driver.describe(Object.LEAD)


async def test_connection_when_the_token_is_of_another_org_then_refused() -> None:
    driver = await connected(SalesforceEmulator())
    driver.access.facts["org_id"] = "00DHu0000000002"
    with pytest.raises(AuthError) as caught:
        await driver.test_connection()
    assert caught.value.subcode == "invalid_credentials"


async def test_connection_when_the_day_is_used_up_then_limited_and_told() -> None:
    org = SalesforceEmulator()
    driver = await connected(org)
    org.daily_limit = org.daily_used
    with pytest.raises(RateLimited) as caught:
        await driver.get_record(Object.LEAD, "00QHu0000000001MAA")
    assert caught.value.retry_after_seconds == 900.0


# -- sessions ------------------------------------------------------------------------------------------------------


def page_form(page: str) -> dict[str, str]:
    return dict(re.findall(r'name="([^"]+)" value="([^"]*)"', page))


async def ask(org: SalesforceEmulator, **form: str) -> dict[str, Any]:
    client = {"client_id": org.client_id, "client_secret": org.secret("client_secret")}
    request = HttpRequest(method="POST", url=f"{org.base_url}/services/oauth2/token", form={**client, **form})
    tree = (await org.handle(request)).json()
    assert isinstance(tree, dict)
    return tree


async def consent(org: SalesforceEmulator, verifier: str) -> str:
    """The code after a person has pressed Allow."""
    digest = hashlib.sha256(verifier.encode()).digest()
    query = {
        "response_type": "code",
        "client_id": org.client_id,
        "redirect_uri": "https://bridge.example/oauth/callback",
        "state": "s",
        "scope": "api refresh_token",
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }
    url = f"{org.base_url}/services/oauth2/authorize"
    page = await org.handle(HttpRequest(method="GET", url=f"{url}?{urlencode(query)}"))
    assert page.status == 200
    form = {**page_form(page.body.decode()), "decision": "allow"}
    answer = await org.handle(HttpRequest(method="POST", url=url, form=form))
    return parse_qs(urlsplit(answer.header("location")).query)["code"][0]


async def tokens(org: SalesforceEmulator) -> dict[str, Any]:
    code = await consent(org, "v" * 50)
    back = "https://bridge.example/oauth/callback"
    return await ask(
        org, grant_type="authorization_code", code=code, redirect_uri=back, code_verifier="v" * 50
    )


async def test_consent_when_the_verifier_is_wrong_or_the_code_used_then_refused() -> None:
    org = SalesforceEmulator()
    code = await consent(org, "v" * 50)
    back = "https://bridge.example/oauth/callback"
    given = {"grant_type": "authorization_code", "code": code, "redirect_uri": back}
    assert (await ask(org, **given, code_verifier="w" * 50))["error"] == "invalid_grant"
    assert (await ask(org, **given, code_verifier="v" * 50))["error"] == "invalid_grant"
    answer = await tokens(org)
    assert "expires_in" not in answer
    assert answer["instance_url"] == org.base_url


async def test_session_when_it_ends_then_renewed_once_and_the_write_goes_once() -> None:
    org = SalesforceEmulator()
    driver = await connected(org)
    answer = await tokens(org)
    org.expire_sessions()
    renewals = []

    async def renew() -> bool:
        fresh = await ask(org, grant_type="refresh_token", refresh_token=answer["refresh_token"])
        driver.access.secrets["access_token"] = Secret(fresh["access_token"])
        renewals.append(fresh)
        return True

    driver.access.renew = renew
    made = await driver.create_record(write(1, person(1)))
    assert made.outcome is Outcome.APPLIED
    assert len(renewals) == 1
    assert "refresh_token" not in renewals[0]
    assert len(org.table("Lead")) == 1
    org.clock.advance(7201)
    await driver.get_record(Object.LEAD, made.remote_id)
    assert len(renewals) == 2


async def test_session_when_rest_is_closed_to_it_then_no_renewal() -> None:
    org = SalesforceEmulator()
    driver = await connected(org)
    calls = []

    async def renew() -> bool:
        calls.append(1)
        return True

    driver.access.renew = renew
    body = msgspec.json.decode((FIXTURES / "error.session_not_for_rest.json").read_bytes())
    org.faults.add("status", status=401, body=body, times=0)
    with pytest.raises(AuthError) as caught:
        await driver.create_record(write(1, person(1)))
    assert caught.value.subcode == "insufficient_scope"
    assert not calls


async def test_refresh_tokens_when_they_rotate_and_an_old_one_returns_then_the_grant_dies() -> None:
    org = SalesforceEmulator()
    first = (await tokens(org))["refresh_token"]
    org.rotates = True
    second = (await ask(org, grant_type="refresh_token", refresh_token=first))["refresh_token"]
    assert second != first
    refused = await ask(org, grant_type="refresh_token", refresh_token=first)
    assert refused == {"error": "invalid_grant", "error_description": "expired access/refresh token"}
    assert (await ask(org, grant_type="refresh_token", refresh_token=second))["error"] == "invalid_grant"


async def test_revoke_when_called_then_the_refresh_token_is_dead_and_a_second_one_is_false() -> None:
    org = SalesforceEmulator()
    driver = await connected(org)
    answer = await tokens(org)
    driver.access.secrets["refresh_token"] = Secret(answer["refresh_token"])
    assert await driver.revoke() is True
    assert (await ask(org, grant_type="refresh_token", refresh_token=answer["refresh_token"]))["error"]
    assert all(answer["refresh_token"] not in one.full_url() for one in org.requests)
    with pytest.raises(CrmError):
        await driver.revoke()
