"""Errors by their codes, where calls go, what a token answer says, previews."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.core.driver import Access
from crmbridge.core.errors import (
    AuthError,
    Conflict,
    CrmError,
    EgressRefused,
    NotConfigured,
    NotFound,
    RateLimited,
    Unavailable,
    ValidationError,
)
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.tokens import TokenFault
from crmbridge.core.wire import HttpResponse
from crmbridge.drivers.salesforce import hosts
from crmbridge.drivers.salesforce.driver import MANIFEST, Salesforce
from crmbridge.drivers.salesforce.emulator import SalesforceEmulator
from crmbridge.drivers.salesforce.messages import error_of, read_usage, row_error
from crmbridge.drivers.salesforce.test_kit import connected, person, write
from crmbridge.emulation import InProcessTransport

FIXTURES = Path(__file__).parent / "fixtures"


def hide(text: str) -> str:
    return text


def tree_of(name: str) -> Any:
    return msgspec.json.decode((FIXTURES / f"{name}.json").read_bytes())


def read(name: str, status: int, headers: dict[str, str] | None = None) -> CrmError:
    response = HttpResponse.of_json(status, tree_of(name), headers)
    error = error_of(response, operation="create", is_write=True, hide=hide)
    assert error is not None
    return error


@pytest.mark.parametrize("name", ["error.duplicates_detected", "error.duplicates_detected.misspelt"])
def test_error_when_a_duplicate_rule_strikes_then_conflict_with_the_id(name: str) -> None:
    error = read(name, 400)
    assert isinstance(error, Conflict)
    assert error.existing_remote_id == "003Hu0000000007AAA"


def test_error_when_a_unique_value_is_taken_then_the_id_is_read_from_prose() -> None:
    error = read("error.duplicate_value", 400)
    assert isinstance(error, Conflict)
    assert error.existing_remote_id == "00QHu0000000001"


def test_error_when_a_row_is_locked_then_certainly_not_applied_and_retry_safe() -> None:
    error = read("error.row_locked", 400)
    assert isinstance(error, Unavailable)
    assert (error.outcome, error.retry_safe) == (Outcome.NOT_APPLIED, True)


def test_error_when_the_session_ended_then_renewable_and_else_not() -> None:
    assert read("error.session_expired", 401).full_code == "auth_error/expired"
    assert read("error.session_not_for_rest", 401).full_code == "auth_error/insufficient_scope"


@pytest.mark.parametrize(
    ("text", "subcode"), [("Bad_OAuth_Token", "expired"), ("Missing_OAuth_Token", "invalid_credentials")]
)
def test_error_when_userinfo_answers_plain_text_then_auth_error(text: str, subcode: str) -> None:
    response = HttpResponse(status=403, headers={"content-type": "text/html"}, body=text.encode())
    error = error_of(response, operation="test", is_write=False, hide=hide)
    assert isinstance(error, AuthError)
    assert error.subcode == subcode


@pytest.mark.parametrize(
    ("name", "headers", "seconds"),
    [
        ("error.limit.daily", {}, 900.0),
        ("error.limit.concurrent", {}, 10.0),
        ("error.limit.daily", {"Retry-After": "7"}, 7.0),
    ],
)
def test_error_when_limited_then_hours_and_seconds_are_told_apart(
    name: str, headers: dict[str, str], seconds: float
) -> None:
    error = read(name, 403, {**headers, "Sforce-Limit-Info": "api-usage=15000/15000"})
    assert isinstance(error, RateLimited)
    assert (error.retry_after_seconds, error.retry_safe) == (seconds, True)
    assert error.provider_facts["daily_calls"] == {"limit": 15000, "remaining": 0}


@pytest.mark.parametrize(
    ("header", "limit", "remaining"),
    [
        ("api-usage=18/5000", 5000, 4982),
        ("api-usage=18/5000; per-app-api-usage=17/250(appName=x)", 5000, 4982),
        ("per-app-api-usage=17/250(appName=x)", None, None),
        ("api-usage=9/5", 5, 0),
        ("api-usage=-1/x", None, None),
        ("", None, None),
    ],
)
def test_usage_when_read_from_the_header_then_the_orgs_own(
    header: str, limit: int | None, remaining: int | None
) -> None:
    reading = read_usage(HttpResponse(status=200, headers={"sforce-limit-info": header}))
    assert (reading.limit, reading.remaining) == (limit, remaining)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("error.required_missing", ["LastName", "Company"]),
        ("error.column_unknown.write", ["Budget_Max__c"]),
        ("error.column_unknown.read", ["Budget__c"]),
        ("error.validation_rule", ["CloseDate"]),
        ("error.query_malformed", []),
        ("error.external_id_unknown", []),
    ],
)
def test_error_when_content_is_refused_then_validation_error_names_the_fields(
    name: str, fields: list[str]
) -> None:
    error = read(name, 404 if name.endswith("id_unknown") else 400)
    assert isinstance(error, ValidationError)
    assert [one.field for one in error.fields] == fields
    assert error.outcome is Outcome.NOT_APPLIED


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("error.record_deleted", 404, NotFound),
        ("error.no_right", 403, AuthError),
        ("error.no_right", 400, AuthError),
        ("error.edition_without_api", 403, AuthError),
        ("error.unexpected", 500, Unavailable),
    ],
)
def test_error_when_the_code_is_known_then_its_class(name: str, status: int, kind: type[CrmError]) -> None:
    error = read(name, status)
    assert isinstance(error, kind)
    assert error.outcome is (Outcome.UNKNOWN if status == 500 else Outcome.NOT_APPLIED)


def test_error_when_it_is_of_a_row_then_certainly_not_applied() -> None:
    problems = [{"statusCode": "UNKNOWN_EXCEPTION", "message": "An unexpected error occurred", "fields": []}]
    error = row_error(problems, operation="create", hide=hide)
    assert isinstance(error, Unavailable)
    assert (error.outcome, error.retry_safe) == (Outcome.NOT_APPLIED, True)


def test_error_when_several_records_have_the_external_id_then_conflict() -> None:
    response = HttpResponse.of_json(300, ["/services/data/v67.0/sobjects/Lead/00QHu0000000001MAA"])
    error = error_of(response, operation="upsert", is_write=True, hide=hide)
    assert isinstance(error, Conflict)
    assert error.fix.action == "narrow_match"


def test_error_when_routing_failed_then_nothing_was_done() -> None:
    error = error_of(HttpResponse(status=420, body=b"<html>"), operation="create", is_write=True, hide=hide)
    assert isinstance(error, Unavailable)
    assert (error.outcome, error.retry_safe) == (Outcome.NOT_APPLIED, True)


def test_error_when_the_code_is_new_then_the_status_decides_and_the_code_is_kept() -> None:
    response = HttpResponse.of_json(400, [{"message": "m", "errorCode": "CANNOT_EXECUTE_FLOW_TRIGGER"}])
    error = error_of(response, operation="create", is_write=True, hide=hide)
    assert isinstance(error, ValidationError)
    assert error.provider_facts["provider_code"] == "CANNOT_EXECUTE_FLOW_TRIGGER"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "errorCode",
                    "message",
                    "fields",
                    "duplicateResult",
                    "matchResults",
                    "matchRecords",
                    "record",
                    "Id",
                    "x",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(JSON, st.sampled_from([300, 400, 401, 403, 404, 420, 500, 503]))
def test_error_when_the_body_is_anything_then_one_of_our_errors_or_none(body: Any, status: int) -> None:
    response = HttpResponse.of_json(status, body)
    error = error_of(response, operation="create", is_write=True, hide=hide)
    assert error is None or isinstance(error, CrmError)
    assert isinstance(row_error(body, operation="create", hide=hide), CrmError)


# -- where calls go ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "is_theirs"),
    [
        ("https://acme.my.salesforce.com", True),
        ("https://acme--dev.sandbox.my.salesforce.com/", True),
        ("https://na139.salesforce.com", True),
        ("https://login.salesforce.com:443", True),
        ("http://acme.my.salesforce.com", False),
        ("https://acme.my.salesforce.com.evil.example", False),
        ("https://evilsalesforce.com", False),
        ("https://salesforce.com", False),
        ("https://evil.example/.salesforce.com", False),
        ("https://a.salesforce.com@evil.example", False),
        ("https://evil.example\\.salesforce.com", False),
        ("https://acme.my.salesforce.com:8443", False),
        ("https://acme.my.salesforce.com/x", False),
        ("https://acme.my.salesforce.com?x", False),
        ("https://[::1]", False),
        ("https://a.salesforce.com:x", False),
        ("", False),
    ],
)
def test_host_when_asked_then_only_bare_addresses_of_salesforce_pass(url: str, is_theirs: bool) -> None:
    assert hosts.is_salesforce(url) is is_theirs
    facts = hosts.token_facts({"instance_url": url})
    assert ("instance_url" in facts) is is_theirs


def driver_with(settings: dict[str, str], facts: dict[str, str]) -> Salesforce:
    org = SalesforceEmulator()
    access = Access(settings=settings, secrets={}, transport=InProcessTransport(org), facts=facts)
    return Salesforce(access)


def test_instance_when_pinned_then_calls_go_there() -> None:
    facts = {"instance_url": "https://acme.my.salesforce.com"}
    for login in ("", "https://test.salesforce.com", "https://acme.my.salesforce.com"):
        assert driver_with({"login_url": login}, facts).base_url() == "https://acme.my.salesforce.com"


def test_instance_when_unknown_then_not_configured_and_when_foreign_then_refused() -> None:
    with pytest.raises(NotConfigured):
        driver_with({}, {}).base_url()
    with pytest.raises(EgressRefused):
        driver_with({}, {"instance_url": "https://evil.example"}).base_url()


def test_instance_when_the_operator_names_a_host_of_its_own_then_that_host_alone() -> None:
    driver = driver_with(
        {"login_url": "http://127.0.0.1:20001/salesforce/"}, {"instance_url": "https://evil.example"}
    )
    assert driver.base_url() == "http://127.0.0.1:20001/salesforce"


@pytest.mark.parametrize(
    ("url", "passes"),
    [
        ("https://test.salesforce.com", True),
        ("https://acme.my.salesforce.com", True),
        ("https://acme.lightning.force.com", False),
        ("https://acme.lightning.force.com/lightning/page", False),
        ("ftp://login.salesforce.com", False),
    ],
)
def test_login_address_when_it_is_a_lightning_page_then_the_form_refuses_it(url: str, passes: bool) -> None:
    pattern = next(one for one in MANIFEST.settings if one.name == "login_url").pattern
    assert (re.fullmatch(pattern, url) is not None) is passes


def test_token_answer_when_read_then_instance_and_org_and_at_a_refresh_anew() -> None:
    answer = {
        "instance_url": "https://Old.my.salesforce.com/",
        "id": "https://login.salesforce.com/id/00DHu0000000001EAA/005x",
    }
    assert Salesforce.token_facts(answer) == {
        "instance_url": "https://old.my.salesforce.com",
        "org_id": "00DHu0000000001",
    }
    for odd in (
        {"instance_url": 5, "id": ["x"]},
        {"id": "https://[/id/x/y"},
        {"id": "/id/00D/x"},
        {"instance_url": "https://["},
    ):
        assert Salesforce.token_facts(odd) == {}


@pytest.mark.parametrize(
    ("granted", "missing"),
    [
        ("api refresh_token", []),
        ("full offline_access", []),
        ("api id", ["refresh_token"]),
        ("refresh_token web", ["api"]),
    ],
)
def test_scopes_when_granted_by_other_names_then_only_real_gaps_are_told(
    granted: str, missing: list[str]
) -> None:
    assert Salesforce.missing_scopes(frozenset(granted.split())) == missing


@pytest.mark.parametrize(
    ("error", "description", "fault"),
    [
        ("invalid_grant", "expired access/refresh token", None),
        ("invalid_grant", "token request is already being processed", TokenFault.TRANSIENT),
        ("invalid_grant", "expired authorization code", TokenFault.TRANSIENT),
        ("inactive_user", "user is inactive", TokenFault.REVOKED),
        ("invalid_client_id", "client identifier invalid", TokenFault.MISCONFIGURED),
        ("OAUTH_EC_APP_NOT_FOUND", "", TokenFault.MISCONFIGURED),
        ("rate_limit_exceeded", "login rate exceeded", TokenFault.THROTTLED),
    ],
)
def test_token_refusal_when_judged_then_only_dead_grants_are_revoked(
    error: str, description: str, fault: TokenFault | None
) -> None:
    assert Salesforce.token_fault(400, {"error": error, "error_description": description}) is fault


# -- the preview ---------------------------------------------------------------------------------------------------


async def test_preview_when_asked_then_the_request_with_its_mark_and_nothing_leaves() -> None:
    org = SalesforceEmulator()
    driver = await connected(org)
    shown = driver.preview(write(1, person(1)))
    assert (shown["method"], shown["path"]) == ("POST", "/services/data/v67.0/sobjects/Lead")
    assert shown["body"]["crmbridge_mark__c"].startswith("crmbridge_0123456789ab-")
    update = write(1, {"City": "X"}, operation=Operation.UPDATE, remote_id="00QHu0000000001MAA")
    assert driver.preview(update)["body"] == {"City": "X"}
    assert not org.calls
