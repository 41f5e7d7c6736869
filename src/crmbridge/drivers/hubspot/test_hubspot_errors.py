"""Errors, connecting, consent."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.core.driver import Access
from crmbridge.core.errors import (
    AuthError,
    Conflict,
    CrmError,
    NotFound,
    RateLimited,
    Unavailable,
    UnexpectedResponse,
    ValidationError,
)
from crmbridge.core.operations import Outcome
from crmbridge.core.records import Filter, Object
from crmbridge.core.secret import Secret
from crmbridge.core.tokens import TokenFault
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.hubspot.driver import HubSpot
from crmbridge.drivers.hubspot.emulator import HubSpotEmulator
from crmbridge.drivers.hubspot.messages import error_of
from crmbridge.drivers.hubspot.test_kit import connected, person, write
from crmbridge.emulation import InProcessTransport

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def hubspot() -> HubSpotEmulator:
    return HubSpotEmulator()


# -- errors --------------------------------------------------------------------------------------------------------


def read(name: str, status: int, **more: Any) -> CrmError:
    tree = msgspec.json.decode((FIXTURES / f"{name}.json").read_bytes())
    response = HttpResponse.of_json(status, tree, more.pop("headers", None))
    facts = {"time_zone": "Asia/Dubai", **more}
    return error_of(response, operation="create", is_write=True, hide=lambda text: text, facts=facts)


def test_error_when_property_unknown_then_the_field_is_named() -> None:
    error = read("error.property_unknown", 400)
    assert isinstance(error, ValidationError)
    assert [(one.field, one.provider_code) for one in error.fields] == [
        ("no_such_property", "PROPERTY_DOESNT_EXIST")
    ]


def test_error_when_unique_value_is_taken_then_conflict_although_400() -> None:
    error = read("error.unique_value_taken", 400)
    assert isinstance(error, Conflict)
    assert error.existing_remote_id == "20101"


def test_error_when_contact_exists_then_the_id_is_taken_from_prose() -> None:
    error = read("error.contact_exists", 409)
    assert isinstance(error, Conflict)
    assert error.existing_remote_id == "10101"


@pytest.mark.parametrize(
    "name", ["error.scope_missing.top", "error.scope_missing.nested", "error.scope_missing.prose"]
)
def test_error_when_scope_is_missing_then_it_is_named(name: str) -> None:
    error = read(name, 403)
    assert isinstance(error, AuthError)
    assert error.subcode == "insufficient_scope"
    assert error.provider_facts["missing_scopes"] == ["crm.objects.deals.write"]
    assert "crm.objects.deals.write" in error.fix.hint


def test_error_when_token_expired_then_subcode_says_so() -> None:
    assert read("error.token_expired", 401).subcode == "expired"


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("error.rate.ten_secondly", 10, 10), ("error.rate.search", 1, 1), ("error.rate.daily", 1, 86_400)],
)
def test_error_when_limited_without_a_header_then_the_policys_window(
    name: str, least: float, most: float
) -> None:
    error = read(name, 429)
    assert isinstance(error, RateLimited)
    assert error.retry_after_seconds is not None
    assert least <= error.retry_after_seconds <= most


def test_error_when_limited_then_the_window_is_read_from_the_headers() -> None:
    headers = {"X-HubSpot-RateLimit-Interval-Milliseconds": "4000"}
    assert read("error.rate.ten_secondly", 429, headers=headers).retry_after_seconds == 4.0


@pytest.mark.parametrize(("status", "seconds"), [(423, 2.0), (477, None)])
async def test_error_when_account_is_locked_or_moves_then_nothing_was_done(
    status: int, seconds: float | None
) -> None:
    hubspot = HubSpotEmulator()
    driver = await connected(hubspot)
    hubspot.faults.add("status", status=status)
    with pytest.raises(Unavailable) as caught:
        await driver.create_record(write(1, person(1)))
    assert (caught.value.outcome, caught.value.retry_safe) == (Outcome.NOT_APPLIED, True)
    assert caught.value.retry_after_seconds == seconds


async def test_error_when_404_is_a_page_then_not_found(hubspot: HubSpotEmulator) -> None:
    driver = await connected(hubspot)
    hubspot.faults.add("html", status=404, times=0)
    with pytest.raises(NotFound):
        await driver.get_record(Object.CUSTOMER, "12345")


_NAMES = (
    st.sampled_from(["message", "errors", "context", "category", "propertyName", "existingId"]) | st.text()
)
_TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda leaf: st.lists(leaf) | st.dictionaries(_NAMES, leaf),
)


@given(_TREES)
def test_error_when_any_body_then_one_of_our_errors(tree: Any) -> None:
    for status in (400, 401, 403, 404, 409, 429, 500):
        response = HttpResponse.of_json(status, tree)
        assert isinstance(
            error_of(response, operation="x", is_write=True, hide=lambda text: text, facts={}), CrmError
        )


async def test_search_when_its_own_budget_is_used_up_then_one_second(hubspot: HubSpotEmulator) -> None:
    driver = await connected(hubspot)
    hubspot.clock.freeze()
    for _ in range(5):
        await driver.search_records(Object.CUSTOMER, Filter(text="x"))
    with pytest.raises(RateLimited) as caught:
        await driver.search_records(Object.CUSTOMER, Filter(text="x"))
    assert caught.value.retry_after_seconds == 1.0
    await driver.lookup_customer(email="a@example.com")


@pytest.mark.parametrize("named", [5, "12", [None, {"a": 1}], {"0": "1"}, ["99999999999999"]])
async def test_batch_when_an_errors_context_is_oddly_shaped_then_unknown_for_all(
    hubspot: HubSpotEmulator, named: Any
) -> None:
    driver = await connected(hubspot)
    error = {
        "status": "error",
        "category": "CONFLICT",
        "message": "x",
        "context": {"objectWriteTraceId": named},
    }
    hubspot.faults.add("wrong_shape", operation="batch.create", body={"results": [], "errors": [error]})
    results = await driver.write_batch([write(n, person(n)) for n in range(3)])
    assert all(isinstance(result.error, Conflict) for result in results)


async def test_erase_when_associations_answer_is_oddly_shaped_then_one_of_our_errors(
    hubspot: HubSpotEmulator,
) -> None:
    driver = await connected(hubspot)
    made = await driver.create_record(write(1, person(1), Object.CUSTOMER))
    bodies: tuple[Any, ...] = (
        {"results": [5]},
        {"results": [{"to": {"a": 1}}]},
        [],
        {"results": [{"to": [None]}]},
    )
    for body in bodies:
        hubspot.faults.add("wrong_shape", operation="associate", body=body)
        with pytest.raises(UnexpectedResponse):
            await driver.erase_record(Object.CUSTOMER, made.remote_id)
    assert hubspot.store.numbered("contacts").get(int(made.remote_id)) is not None


# -- connecting ----------------------------------------------------------------------------------------------------


async def test_test_call_when_passed_then_account_zone_and_budget_are_known(hubspot: HubSpotEmulator) -> None:
    driver = await connected(hubspot)
    facts = driver.access.facts
    assert (facts["portal_id"], facts["time_zone"], facts["currency"]) == ("62515", "Asia/Dubai", "AED")
    assert (facts["budget.max"], facts["budget.interval-milliseconds"]) == ("110", "10000")
    made = await driver.create_record(write(1, person(1)))
    assert made.url == f"https://app.hubspot.com/contacts/62515/record/0-1/{made.remote_id}"


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        ("BAD_REFRESH_TOKEN", TokenFault.REVOKED),
        ("BAD_HUB", TokenFault.REVOKED),
        ("BAD_CLIENT_SECRET", TokenFault.MISCONFIGURED),
        ("BAD_CODE_VERIFIER", TokenFault.MISCONFIGURED),
        ("BAD_AUTH_CODE", None),
    ],
)
def test_token_refusal_when_older_then_classed_by_hubspots_status(
    status: str, fault: TokenFault | None
) -> None:
    assert HubSpot.token_fault(400, {"status": status, "message": "x"}) is fault


async def test_consent_when_allowed_then_code_tokens_and_expiry(hubspot: HubSpotEmulator) -> None:
    verifier = "v" * 50
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    back = "https://crm.example.com/oauth/callback"
    query = {"client_id": hubspot.client_id, "redirect_uri": back, "scope": "oauth tickets", "state": "s1"}
    query |= {"code_challenge": digest, "code_challenge_method": "S256"}
    page = await hubspot.handle(
        HttpRequest(method="GET", url=f"{hubspot.base_url}/oauth/authorize", query=query)
    )
    hidden = dict(re.findall(r'name="([a-z_]+)" value="([^"]*)"', page.body.decode()))
    allow = HttpRequest(
        method="POST", url=f"{hubspot.base_url}/oauth/authorize", form={**hidden, "decision": "allow"}
    )
    location = (await hubspot.handle(allow)).header("location")
    found = parse_qs(urlsplit(location).query)
    assert found["state"] == ["s1"]

    async def token(**form: str) -> tuple[int, Any]:
        known = {"client_id": hubspot.client_id, "client_secret": hubspot.secret("client_secret")}
        url = f"{hubspot.base_url}/oauth/2026-09/token"
        response = await hubspot.handle(HttpRequest(method="POST", url=url, form={**known, **form}))
        return response.status, response.json()

    grant = {"grant_type": "authorization_code", "code": found["code"][0], "redirect_uri": back}
    status, tokens = await token(**grant, code_verifier=verifier)
    assert (status, tokens["expires_in"], tokens["scopes"]) == (200, 1800, ["oauth", "tickets"])
    assert (await token(**grant))[1]["status"] == "BAD_AUTH_CODE"
    access = Access(
        settings=hubspot.settings(),
        secrets={"access_token": Secret(tokens["access_token"])},
        transport=InProcessTransport(hubspot),
    )
    await HubSpot(access).test_connection()
    hubspot.clock.advance(1801)
    with pytest.raises(AuthError) as caught:
        await HubSpot(access).test_connection()
    assert caught.value.subcode == "expired"
    status, tokens = await token(grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert HubSpot.token_facts(tokens) == {"portal_id": "62515"}
    access.secrets["access_token"] = Secret(tokens["access_token"])
    await HubSpot(access).test_connection()
