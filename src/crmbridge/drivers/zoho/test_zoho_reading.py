"""Queries and their quoting, pages, look-ups, metadata, and what refusals mean."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

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
from crmbridge.core.wire import HttpResponse
from crmbridge.drivers.zoho.coql import AllOf, AnyOf, Compare, In, Like, Select
from crmbridge.drivers.zoho.emulated_fields import Defined, definitions
from crmbridge.drivers.zoho.emulated_query import Criteria, QueryRefused, parse
from crmbridge.drivers.zoho.emulator import ZohoEmulator
from crmbridge.drivers.zoho.messages import error_of
from crmbridge.drivers.zoho.test_kit import connected, fixture, person, sent, write

HOSTILE = (
    "' or id is not null or City = '",
    "''",
    "'",
    '"',
    "x') limit 0, 2000 --",
    "O'Brien",
    "%",
    "a,b(c)",
    "ё 🏙️",
)


def columns(module: str) -> dict[str, str]:
    return {name: one.kind for name, one in definitions(module).items()}


@pytest.fixture
def zoho() -> ZohoEmulator:
    return ZohoEmulator()


# -- queries -----------------------------------------------------------------------------------------------------


@given(st.text(max_size=40), st.text(max_size=10))
@example("' or id is not null or City = '", "x")
@example("'", "'")
@example("\\", "' or 'a' = 'a")
def test_query_when_values_are_hostile_then_they_stay_values_or_are_refused(value: str, other: str) -> None:
    where = AllOf(
        (Compare("Last_Name", "=", value), AnyOf((Compare("City", "=", other), In("State", (other,)))))
    )
    select = Select(module="Leads", fields=("id", "Email"), where=where, limit=7)
    try:
        text = select.text()
    except ValidationError:
        assert re.search(r"[\x00-\x1f\x7f\\\ud800-\udfff]", value + other)
        return
    query = parse(text, columns)
    assert (query.module, query.fields, query.limit) == ("Leads", ["id", "Email"], 7)
    assert query.accepts({"Last_Name": value, "City": other})
    assert not query.accepts({"Last_Name": value + "x", "City": other, "State": other})
    assert not query.accepts({"Last_Name": value, "City": other + "x", "id": "1"})


@pytest.mark.parametrize("value", HOSTILE)
async def test_search_when_values_are_hostile_then_only_the_equal_record_is_found(
    zoho: ZohoEmulator, value: str
) -> None:
    driver = await connected(zoho)
    made = await driver.write_batch(
        [write(n, {"Last_Name": text}) for n, text in enumerate((value, "Other"))]
    )
    found = await driver.search_records(Object.LEAD, Filter(equals={"Last_Name": value}))
    assert [one.remote_id for one in found.records] == [made[0].remote_id]
    found = await driver.search_records(Object.LEAD, Filter(text=value)) if value != "%" else found
    assert [one.remote_id for one in found.records] == [made[0].remote_id]


@pytest.mark.parametrize("value", ["back\\slash", "line\nbreak", "nul\x00"])
async def test_search_when_coql_has_no_way_to_say_it_then_refused_before_a_call(
    zoho: ZohoEmulator, value: str
) -> None:
    driver = await connected(zoho)
    for filter in (Filter(equals={"Last_Name": value}), Filter(text=value)):
        with pytest.raises(ValidationError):
            await driver.search_records(Object.LEAD, filter)
    assert not zoho.requests


@pytest.mark.parametrize("name", ["Last_Name = 'x' or id", "id from Leads --", "", "1x", "a" * 200, "Näme"])
async def test_search_when_a_name_is_no_name_then_refused_before_a_call(
    zoho: ZohoEmulator, name: str
) -> None:
    driver = await connected(zoho)
    with pytest.raises(ValidationError):
        await driver.search_records(Object.LEAD, Filter(equals={name: "x"}))
    assert not zoho.requests


async def test_search_when_text_has_a_percent_sign_then_the_rest_is_looked_at_here(
    zoho: ZohoEmulator,
) -> None:
    driver = await connected(zoho)
    names = ("Up 50% today", "Up 50 percent today", "Else")
    await driver.write_batch([write(n, {"Last_Name": name}) for n, name in enumerate(names)])
    found = await driver.search_records(Object.LEAD, Filter(text="50% today"))
    assert [one.native["Full_Name"] for one in found.records] == ["Up 50% today"]
    with pytest.raises(ValidationError):
        await driver.search_records(Object.LEAD, Filter(text=" % "))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("Amount", "12.5", "Amount = 12.5"),
        ("Amount", 1250000.5, "Amount = 1250000.5"),
        ("Closing_Date", "2027-02-28", "Closing_Date = '2027-02-28'"),
        ("Modified_Time", "2027-02-28T10:00:00+04:00", "Modified_Time = '2027-02-28T06:00:00+00:00'"),
        ("Contact_Name", {"id": "55"}, "Contact_Name = '55'"),
        ("Deal_Name", "", "Deal_Name is null"),
        ("Deal_Name", None, "Deal_Name is null"),
    ],
)
async def test_search_when_fields_have_kinds_then_values_are_written_so(
    zoho: ZohoEmulator, path: str, value: Any, said: str
) -> None:
    driver = await connected(zoho)
    await driver.search_records(Object.DEAL, Filter(equals={path: value}))
    assert f" where {said} order by id desc" in sent(zoho, "/coql")[0]["select_query"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("Amount", "12 or 1"),
        ("Closing_Date", "soon"),
        ("Modified_Time", "now"),
        ("Description", "long"),
        ("Contact_Name", "Mei"),
    ],
)
async def test_search_when_the_value_is_not_of_the_kind_then_refused_before_a_call(
    zoho: ZohoEmulator, path: str, value: str
) -> None:
    driver = await connected(zoho)
    with pytest.raises(ValidationError) as caught:
        await driver.search_records(Object.DEAL, Filter(equals={path: value}))
    assert caught.value.fields[0].field == path
    assert not zoho.requests


def test_select_when_conditions_are_many_then_grouped_in_pairs_and_capped() -> None:
    three = AllOf(tuple(Compare(name, "=", "x") for name in ("City", "State", "Country")))
    text = Select(module="Leads", fields=("id",), where=three).text()
    assert "((City = 'x' and State = 'x') and Country = 'x')" in text
    with pytest.raises(ValidationError):
        Select(module="Leads", fields=("id",), where=AnyOf((Compare("City", "=", "x"),) * 26)).text()
    with pytest.raises(ValidationError):
        Select(module="Leads", fields=("id",), where=In("City", ("x",) * 51)).text()
    with pytest.raises(ValidationError):
        Select(module="Leads", fields=("id",), where=Compare("City", "in (1) or City =", "x")).text()
    assert "like '%x'" in Select(module="Leads", fields=("id",), where=Like("City", "x", is_end=True)).text()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("select id from Leads", "SYNTAX_ERROR"),
        ("select id from Leads where City = 'a' and City = 'b' and City = 'c'", "SYNTAX_ERROR"),
        ("select id from Leads where Description = 'a'", "INVALID_QUERY"),
        ("select id from Notes where id is not null", "INVALID_QUERY"),
        ("select Nothing from Leads where id is not null", "INVALID_QUERY"),
        ("select id from Leads where City like 'a%b%'", "INVALID_QUERY"),
        ("select id from Leads where id is not null order by id, id", "DUPLICATE_DATA"),
        ("select id from Leads where id is not null limit 0, 2001", "LIMIT_EXCEEDED"),
        ("delete from Leads", "SYNTAX_ERROR"),
    ],
)
async def test_emulated_query_when_zoho_would_refuse_it_then_refused(
    zoho: ZohoEmulator, text: str, code: str
) -> None:
    with pytest.raises(QueryRefused) as caught:
        parse(text, zoho._columns)
    assert caught.value.code == code


def test_emulated_criteria_when_escaped_then_values_are_told_from_signs() -> None:
    criteria = Criteria(r"((Company:equals:A \(B\)\, C)or(City:starts_with:Du))", columns("Leads"))
    assert criteria.accepts({"Company": "A (B), C"})
    assert criteria.accepts({"City": "Dubai"})
    assert not criteria.accepts({"Company": "A", "City": "Abu Dhabi"})
    for broken in ("(Company:equals)", "((Company:equals:x)and", "(Nothing:equals:x)", "(Company:like:x)"):
        with pytest.raises(QueryRefused):
            Criteria(broken, columns("Leads"))


# -- lists and look-ups --------------------------------------------------------------------------------------------


async def test_search_when_the_index_lags_then_coql_sees_the_record_at_once(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    zoho.store.search_lag_seconds = 3600.0
    made = await driver.create_record(write(1, person(1)))
    found = await driver.search_records(Object.LEAD, Filter(equals={"Email": "mei.1@example.com"}))
    assert [one.remote_id for one in found.records] == [made.remote_id]


async def test_notes_when_listed_beyond_a_page_then_tokens_keep_their_page_size(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    customer = await driver.create_record(write(0, person(0), Object.CUSTOMER))
    notes = [
        write(n, {"Note_Content": f"Note {n}"}, Object.NOTE, links={"customer": customer.remote_id})
        for n in range(1, 8)
    ]
    await driver.write_batch(notes)
    first = await driver.list_recent(Object.NOTE, limit=3)
    second = await driver.list_recent(Object.NOTE, limit=50, cursor=first.next_cursor)
    assert len({one.remote_id for one in [*first.records, *second.records]}) == 6
    for cursor in ("3", "3.", "9999.abc", "x.y", "3.a b"):
        with pytest.raises(ValidationError):
            await driver.list_recent(Object.NOTE, cursor=cursor)
    assert (await driver.list_recent(Object.NOTE, since="2999-01-01T00:00:00Z")).records == []


@pytest.mark.parametrize("obj", [Object.LEAD, Object.NOTE])
async def test_list_when_nothing_is_there_then_a_204_is_an_empty_page(
    zoho: ZohoEmulator, obj: Object
) -> None:
    driver = await connected(zoho)
    page = await driver.list_recent(obj)
    assert (page.records, page.next_cursor) == ([], "")


@pytest.mark.parametrize("cursor", ["x", "2026-01-01T00:00:00Z|5", "2026-01-01T00:00:00+00:00|5' or", "5"])
async def test_list_when_the_cursor_is_not_ours_then_refused(zoho: ZohoEmulator, cursor: str) -> None:
    driver = await connected(zoho)
    with pytest.raises(ValidationError):
        await driver.list_recent(Object.LEAD, cursor=cursor)
    assert not zoho.requests


@pytest.mark.parametrize(
    "typed", ["+14155550123", "(415) 555-0123", "415.555.01.23", "1 415 555 01 23", "415-555-01-23"]
)
async def test_lookup_when_phones_are_typed_by_people_then_found(zoho: ZohoEmulator, typed: str) -> None:
    driver = await connected(zoho)
    rows = [{**person(1), "Mobile": typed}, {**person(2), "Phone": "+14165550123"}]
    made = await driver.write_batch([write(n, row, Object.CUSTOMER) for n, row in enumerate(rows)])
    found = await driver.lookup_customer(phone="+14155550123")
    assert [one.remote_id for one in found] == [made[0].remote_id]


async def test_lookup_when_both_fit_one_then_that_one_is_first(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    rows = [
        {**person(1), "Phone": "+14155550123"},
        {**person(2), "Secondary_Email": "MEI.9@example.com", "Phone": "+14155550123"},
        {**person(3), "Email": "mei.9@example.com"},
    ]
    made = await driver.write_batch([write(n, row, Object.CUSTOMER) for n, row in enumerate(rows)])
    found = await driver.lookup_customer(phone="+14155550123", email="mei.9@example.com")
    assert found[0].remote_id == made[1].remote_id
    assert len(found) == 3
    assert await driver.lookup_customer() == []


async def test_describe_when_read_then_types_choices_and_what_the_layouts_want(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    facts = {one.path: one for one in await driver.describe(Object.CASE)}
    assert facts["Subject"].is_required
    assert not facts["Case_Origin"].is_required, "the driver fills it in"
    assert facts["Priority"].options == ["High", "Medium", "Low"]
    assert facts["Case_Number"].is_read_only
    assert facts["crmbridge_mark"].is_read_only
    zoho.missing_scopes = {"ZohoCRM.settings.layouts.READ"}
    facts = {one.path: one for one in await driver.describe(Object.LEAD)}
    assert facts["Last_Name"].is_required
    assert facts["Email"].type == "email"
    assert "full_name" in facts


async def test_own_fields_when_prepared_then_lists_and_searches_read_them(zoho: ZohoEmulator) -> None:
    zoho.records.add_field("Leads", Defined(77, "Budget_Max", "currency", 16, "c", "Budget Max"))
    driver = await connected(zoho)
    await driver.create_record(write(1, {**person(1), "Budget_Max": 5.5}))
    (record,) = (await driver.list_recent(Object.LEAD)).records
    assert record.native["Budget_Max"] == 5.5
    assert "crmbridge_mark" not in record.native


async def test_own_fields_when_named_by_a_word_of_coql_then_left_out_of_lists_and_read_alone(
    zoho: ZohoEmulator,
) -> None:
    zoho.records.add_field("Leads", Defined(77, "External", "text", 16, "c", "External"))
    driver = await connected(zoho)
    made = await driver.create_record(write(1, {**person(1), "External": "5"}))
    (record,) = (await driver.list_recent(Object.LEAD)).records
    assert "External" not in record.native
    assert (await driver.get_record(Object.LEAD, made.remote_id)).native["External"] == "5"


async def test_get_when_zoho_answers_another_record_then_unexpected(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    zoho.faults.add("wrong_shape", operation="get", times=0, body={"data": [{"id": "5545974000010000002"}]})
    with pytest.raises(UnexpectedResponse):
        await driver.get_record(Object.LEAD, "5545974000010000001")


# -- refusals ------------------------------------------------------------------------------------------------------


def read(name: str, status: int, operation: str = "create", **headers: str) -> CrmError:
    response = HttpResponse.of_json(status, fixture(name), headers)
    error = error_of(response, operation=operation, is_write=operation != "get", hide=lambda text: text)
    assert error is not None
    return error


@pytest.mark.parametrize("name", ["error.token", "error.token.other"])
def test_refusal_when_the_token_is_old_then_it_can_be_renewed(name: str) -> None:
    error = read(name, 401)
    assert isinstance(error, AuthError)
    assert error.subcode == "expired"


@pytest.mark.parametrize("status", [401, 403])
def test_refusal_when_a_scope_is_missing_then_it_is_named_and_not_renewed(status: int) -> None:
    error = read("error.scope", status, "search")
    assert isinstance(error, AuthError)
    assert error.subcode == "insufficient_scope"
    assert "ZohoCRM.coql.READ" in error.fix.hint
    assert read("error.scope", status).provider_facts["scope"] == "ZohoCRM.modules.ALL"


def test_refusal_when_the_user_lacks_a_right_then_it_is_named() -> None:
    error = read("error.permission", 403)
    assert isinstance(error, AuthError)
    assert error.provider_facts["permissions"] == "Crm_Implied_View_Leads"
    assert error.fix.action == "grant_right"


@pytest.mark.parametrize("name", ["error.duplicate", "error.duplicate.older"])
def test_refusal_when_a_value_is_taken_then_conflict_although_400(name: str) -> None:
    error = read(name, 400)
    assert isinstance(error, Conflict)
    assert error.existing_remote_id == "5545974000010000077"


def test_refusal_when_the_path_has_no_such_id_then_not_found_although_400() -> None:
    assert isinstance(read("error.id_of_path", 400, "get"), NotFound)


def test_refusal_when_a_text_is_too_long_then_the_field_and_its_limit() -> None:
    error = read("error.too_long", 400)
    assert isinstance(error, ValidationError)
    assert error.fields[0].field == "Last_Name"
    assert "at most 80" in error.fields[0].message


def test_refusal_when_there_are_too_many_calls_then_a_pause_of_our_own_or_zohos() -> None:
    error = read("error.rate", 429)
    assert isinstance(error, RateLimited)
    assert (error.outcome, error.retry_safe, error.retry_after_seconds) == (Outcome.NOT_APPLIED, True, 10.0)
    assert read("error.rate", 429, **{"retry-after": "7"}).retry_after_seconds == 7.0
    assert read("error.rate", 429, **{"x-api-credits-remaining": "0"}).retry_after_seconds == 900.0


@pytest.mark.parametrize("status", [200, 400, 500])
def test_refusal_when_zoho_failed_inside_then_the_outcome_of_a_write_is_unknown(status: int) -> None:
    error = read("error.internal", status)
    assert isinstance(error, Unavailable)
    assert (error.outcome, error.retry_safe) == (Outcome.UNKNOWN, False)


def test_refusal_when_the_address_is_wrong_then_no_record_is_said_to_be_missing() -> None:
    tree = {"code": "INVALID_URL_PATTERN", "details": {}, "message": "…", "status": "error"}
    error = error_of(HttpResponse.of_json(404, tree), operation="delete", is_write=True, hide=str)
    assert isinstance(error, UnexpectedResponse)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=12),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["code", "data", "details", "message", "status", "fields", "id"]), inner
            )
        ),
        max_leaves=12,
    ),
    st.sampled_from([200, 207, 400, 401, 403, 404, 409, 429, 500, 502]),
)
def test_refusal_when_the_body_is_anything_then_an_error_or_nothing_and_no_crash(
    tree: Any, status: int
) -> None:
    response = HttpResponse.of_json(status, tree)
    error = error_of(response, operation="create", is_write=True, hide=lambda text: text)
    assert error is None or isinstance(error, CrmError)
    if error is not None and status >= 500:
        assert error.outcome is Outcome.UNKNOWN or error.code != "unavailable"


async def test_errors_when_zoho_repeats_what_was_sent_then_it_is_not_shown(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    row = {**fixture("error.too_long"), "message": "invalid value Mei.Secret.Lin for mei.1@example.com"}
    zoho.faults.add("status", operation="create", status=400, body={"data": [row]})
    with pytest.raises(ValidationError) as caught:
        await driver.create_record(write(1, {**person(1), "Last_Name": "Mei.Secret.Lin"}))
    assert "Secret" not in str(caught.value.to_dict())
    assert "example.com" not in str(caught.value.to_dict())
