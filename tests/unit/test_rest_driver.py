"""RestDriver: a manifest alone makes a driver; every failure has its outcome."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crmbridge.core.driver import Access
from crmbridge.core.errors import (
    Conflict,
    CrmError,
    NotConfigured,
    NotFound,
    Unavailable,
    UnexpectedResponse,
    Unsupported,
    ValidationError,
)
from crmbridge.core.manifest import (
    Auth,
    AuthKind,
    Call,
    Idempotency,
    IdempotencyKind,
    Manifest,
    ObjectSpec,
    Paging,
    PagingKind,
)
from crmbridge.core.operations import COMPOSED, FULL, DeleteLevel, Operation, Outcome, Support
from crmbridge.core.records import Filter, Object, RelatedWrite, Write
from crmbridge.core.secret import Secret
from crmbridge.core.wire import HttpRequest, HttpResponse, TransportFailure, TransportFault
from crmbridge.toolkit.rest import RestDriver

ALL: dict[Operation, Support] = {
    each: FULL
    for each in Operation
    if each not in (Operation.DESCRIBE, Operation.CHANGES, Operation.LOOKUP, Operation.UPSERT)
}
MANIFEST = Manifest(
    slug="acme",
    display_name="Acme",
    api_version="1",
    pages=("https://acme.example.com/docs",),
    read_on="2026-11-22",
    auth=Auth(kind=AuthKind.BEARER, secret="token"),
    base_url="https://{region}.acme.example.com/{account}/api",
    paging=Paging(kind=PagingKind.PAGE, cursor_param="page", size_param="size"),
    test_call=Call(method="GET", path="/me", result="user.name"),
    objects={
        Object.CUSTOMER: ObjectSpec(
            native="contact",
            path="/contacts",
            updated_field="changed",
            url="https://{region}.acme.example.com/c/{id}",
            operations={
                **ALL,
                Operation.UPSERT: COMPOSED("search first"),
                Operation.LOOKUP: COMPOSED("search"),
            },
            delete_level=DeleteLevel.SOFT,
            erase_level=DeleteLevel.HARD,
            idempotency=Idempotency(kind=IdempotencyKind.EXTERNAL_ID, field="ref"),
        ),
        Object.NOTE: ObjectSpec(
            native="note",
            path="notes",
            operations={Operation.CREATE: FULL},
            links={Object.CUSTOMER: "about.id"},
            calls={
                Operation.CREATE: Call(
                    method="POST",
                    path="/notes/{{ links.customer }}",
                    body={"text": "{{ record.body }}"},
                    id="note.id",
                )
            },
        ),
    },
)


class Acme(RestDriver):
    MANIFEST = MANIFEST

    def lookup_paths(self) -> dict[str, list[str]]:
        return {"phone": ["phone", "mobile"], "email": ["email"]}


class Scripted:
    def __init__(self, *answers: HttpResponse | TransportFailure) -> None:
        self.answers = list(answers)
        self.requests: list[HttpRequest] = []

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, TransportFailure):
            raise answer
        return answer


def acme(*answers: Any, settings: dict[str, str] | None = None) -> tuple[Acme, Scripted]:
    made = [
        answer if isinstance(answer, (HttpResponse, TransportFailure)) else HttpResponse.of_json(200, answer)
        for answer in answers
    ]
    transport = Scripted(*made)
    access = Access(
        settings={"region": "eu", "account": "a/b"} if settings is None else settings,
        secrets={"token": Secret("canary-token-1")},
        transport=transport,
        mark_prefix="crmb-t1",
    )
    return Acme(access), transport


def customer(**changes: Any) -> Write:
    facts: dict[str, Any] = {
        "target_id": "w-1",
        "operation": Operation.CREATE,
        "object": Object.CUSTOMER,
        "fields": {"email": "mei@example.com", "name": "Mei"},
    }
    return Write(**{**facts, **changes})


async def refusal(call: Any) -> CrmError:
    with pytest.raises(CrmError) as caught:
        await call
    return caught.value


async def test_create_when_defaults_then_post_with_auth_base_url_and_mark() -> None:
    driver, transport = acme(HttpResponse.of_json(201, {"id": 12}))
    result = await driver.create_record(customer())
    request = transport.requests[0]
    assert (request.method, request.url) == ("POST", "https://eu.acme.example.com/a%2Fb/api/contacts")
    assert request.headers["Authorization"] == "Bearer canary-token-1"
    assert json.loads(request.encoded_body()) == {
        "email": "mei@example.com",
        "name": "Mei",
        "ref": "crmb-t1-w-1",
    }
    assert (result.remote_id, result.url, result.was_created) == (
        "12",
        "https://eu.acme.example.com/c/12",
        True,
    )
    assert (request.idempotent, request.timeout_seconds) == (False, 30.0)


async def test_create_when_201_has_a_location_only_then_id_is_its_end() -> None:
    driver, _ = acme(HttpResponse(status=201, headers={"location": "/a/api/contacts/c-9"}))
    assert (await driver.create_record(customer())).remote_id == "c-9"


@pytest.mark.parametrize(
    ("failure", "outcome", "retry_safe"),
    [
        (TransportFailure(TransportFault.CUT, "cut", was_sent=True), Outcome.UNKNOWN, False),
        (TransportFailure(TransportFault.TIMEOUT, "slow", was_sent=True), Outcome.UNKNOWN, False),
        (TransportFailure(TransportFault.CONNECT_FAILED, "no", was_sent=False), Outcome.NOT_APPLIED, True),
        (TransportFailure(TransportFault.TOO_LARGE, "big", was_sent=True), Outcome.UNKNOWN, False),
        (HttpResponse(status=500), Outcome.UNKNOWN, False),
        (HttpResponse(status=200, body=b"<html>"), Outcome.UNKNOWN, False),
        (HttpResponse(status=200, body=b""), Outcome.UNKNOWN, False),
        (HttpResponse.of_json(200, {"no": "id"}), Outcome.UNKNOWN, False),
        (HttpResponse.of_json(422, {}), Outcome.NOT_APPLIED, False),
        (HttpResponse.of_json(302, {}), Outcome.UNKNOWN, False),
        (HttpResponse.of_json(429, {}), Outcome.NOT_APPLIED, True),
    ],
)
async def test_create_when_it_fails_then_outcome_is_told_and_nothing_is_repeated(
    failure: Any, outcome: Outcome, retry_safe: bool
) -> None:
    driver, transport = acme(failure)
    error = await refusal(driver.create_record(customer()))
    assert (error.outcome, error.retry_safe, error.provider) == (outcome, retry_safe, "acme")
    assert len(transport.requests) == 1


async def test_error_when_provider_echoes_then_values_and_token_are_hidden() -> None:
    words = {"message": "Mei <mei@example.com> exists; token canary-token-1"}
    driver, _ = acme(HttpResponse.of_json(409, words))
    error = await refusal(driver.create_record(customer()))
    assert isinstance(error, Conflict)
    shown = str(error) + repr(error) + str(error.to_dict())
    assert not any(text in shown for text in ("Mei", "mei@", "canary"))
    assert "exists" in shown


@pytest.mark.parametrize("remote_id", ["../x", "a/b", "", ".", "..", "a b", "1?x", "é", "1" * 201])
async def test_remote_id_when_not_strict_then_refused_before_sending(remote_id: str) -> None:
    driver, transport = acme()
    calls = (
        driver.get_record(Object.CUSTOMER, remote_id),
        driver.update_record(customer(operation=Operation.UPDATE, remote_id=remote_id)),
        driver.delete_record(Object.CUSTOMER, remote_id),
        driver.erase_record(Object.CUSTOMER, remote_id),
    )
    for call in calls:
        assert isinstance(await refusal(call), ValidationError)
    assert transport.requests == []


async def test_base_url_when_a_setting_is_missing_then_not_configured() -> None:
    driver, transport = acme(settings={"region": "eu"})
    error = await refusal(driver.test_connection())
    assert isinstance(error, NotConfigured)
    assert "account" in error.message
    assert transport.requests == []


async def test_test_connection_when_it_passes_then_account_is_named() -> None:
    driver, _ = acme({"user": {"name": "Operator"}})
    assert (await driver.test_connection()).account == "Operator"


async def test_get_when_read_then_record_has_stamp_and_url() -> None:
    driver, transport = acme({"id": "7", "email": "mei@example.com", "changed": "2026-03-01 10:30:00"})
    record = await driver.get_record(Object.CUSTOMER, "7")
    assert (record.remote_id, record.updated_at) == ("7", "2026-03-01T10:30:00Z")
    assert record.url == "https://eu.acme.example.com/c/7"
    assert transport.requests[0].idempotent


@pytest.mark.parametrize("tree", [[], "x", None, {"email": "a"}, {"id": {"a": 1}}, {"id": "a/b"}])
async def test_get_when_wrong_shape_then_unexpected(tree: Any) -> None:
    driver, _ = acme(tree)
    error = await refusal(driver.get_record(Object.CUSTOMER, "7"))
    assert (type(error), error.outcome) == (UnexpectedResponse, Outcome.NOT_APPLIED)


@pytest.mark.parametrize("tree", [{}, {"data": []}, ["x"], "x", None])
async def test_list_when_not_a_list_of_records_then_unexpected(tree: Any) -> None:
    driver, _ = acme(tree)
    assert isinstance(await refusal(driver.list_recent(Object.CUSTOMER)), UnexpectedResponse)


async def test_list_when_since_then_older_ones_are_left_out_and_page_goes_on() -> None:
    rows = [{"id": n, "changed": f"2026-03-0{n}T00:00:00Z"} for n in (3, 2, 1)]
    driver, transport = acme(rows)
    page = await driver.list_recent(Object.CUSTOMER, since="2026-03-02T00:00:00+00:00", limit=3)
    assert [one.remote_id for one in page.records] == ["3", "2"]
    assert page.next_cursor == "2"
    assert transport.requests[0].query == {"size": "3", "page": "1"}


async def test_search_when_defaults_then_equals_are_query_parameters() -> None:
    driver, transport = acme([])
    await driver.search_records(
        Object.CUSTOMER, Filter(equals={"email": "a@example.com", "vip": True}, limit=9)
    )
    query = transport.requests[0].query
    assert query == {"email": "a@example.com", "vip": "true", "size": "9", "page": "1"}


async def test_lookup_when_phone_and_email_then_best_match_first_and_strangers_dropped() -> None:
    both = {"id": 1, "email": "mei@example.com", "mobile": "+971 50 123-4567"}
    driver, transport = acme(
        [{"id": 9, "phone": "+15550000000"}],
        [both],
        [{"id": 2, "email": "MEI@example.com"}, both, {"id": 3, "email": "other@example.com"}],
    )
    found = await driver.lookup_customer(phone="+971501234567", email="mei@example.com")
    assert [one.remote_id for one in found] == ["1", "2"]
    assert len(transport.requests) == 3


async def test_upsert_when_one_matches_then_updated_else_created() -> None:
    driver, transport = acme([{"id": 5, "email": "Mei@example.com"}], {"id": 5})
    write = customer(operation=Operation.UPSERT, match={"email": "mei@example.com"})
    result = await driver.upsert_record(write)
    assert (result.remote_id, result.was_created) == ("5", False)
    assert (transport.requests[1].method, transport.requests[1].url[-11:]) == ("PATCH", "/contacts/5")
    driver, transport = acme([], HttpResponse.of_json(201, {"id": 6}))
    result = await driver.upsert_record(write)
    assert (result.remote_id, result.was_created) == ("6", True)


async def test_upsert_when_no_match_is_named_then_refused() -> None:
    driver, transport = acme()
    error = await refusal(driver.upsert_record(customer(operation=Operation.UPSERT)))
    assert error.fields[0].field == "match"
    assert transport.requests == []


async def test_upsert_when_pages_never_end_then_conflict_not_a_guess() -> None:
    full = [{"id": n, "email": f"x{n}@example.com"} for n in range(1, 51)]
    driver, transport = acme(*[full] * 5)
    write = customer(operation=Operation.UPSERT, match={"email": "mei@example.com"})
    assert isinstance(await refusal(driver.upsert_record(write)), Conflict)
    assert len(transport.requests) == 5


async def test_delete_and_erase_when_done_then_declared_levels() -> None:
    driver, transport = acme(HttpResponse(status=204), HttpResponse(status=204))
    assert await driver.delete_record(Object.CUSTOMER, "5") is DeleteLevel.SOFT
    assert await driver.erase_record(Object.CUSTOMER, "5") is DeleteLevel.HARD
    assert [request.method for request in transport.requests] == ["DELETE", "DELETE"]


async def test_undeclared_when_called_then_unsupported_before_sending() -> None:
    driver, transport = acme()
    calls = (
        driver.get_record(Object.NOTE, "1"),
        driver.create_record(customer(object=Object.DEAL)),
        driver.delete_record(Object.NOTE, "1"),
        driver.describe(Object.CUSTOMER),
    )
    codes = [(await refusal(call)).subcode for call in calls]
    assert codes == [
        "operation_unsupported",
        "object_unsupported",
        "delete_unsupported",
        "operation_unsupported",
    ]
    assert transport.requests == []


async def test_declared_call_when_link_stands_in_the_path_then_quoted_there() -> None:
    driver, transport = acme(HttpResponse.of_json(201, {"note": {"id": "n-1"}}))
    write = customer(object=Object.NOTE, fields={"body": "hi"}, links={"customer": "c:1"})
    assert (await driver.create_record(write)).remote_id == "n-1"
    assert transport.requests[0].url.endswith("/notes/c%3A1")
    assert json.loads(transport.requests[0].encoded_body()) == {"text": "hi"}


async def test_declared_call_when_a_path_value_is_missing_then_validation_error() -> None:
    driver, transport = acme()
    error = await refusal(driver.create_record(customer(object=Object.NOTE, fields={"body": "hi"})))
    assert isinstance(error, ValidationError)
    assert "path" in error.fields[0].field
    assert transport.requests == []


async def test_related_write_when_driver_has_no_place_then_refused_not_dropped() -> None:
    driver, transport = acme()
    related = [RelatedWrite(native_object="deal", fields={"a": 1})]
    assert isinstance(await refusal(driver.create_record(customer(related=related))), ValidationError)
    assert transport.requests == []


@pytest.mark.parametrize(
    ("rows", "outcome", "remote_id"),
    [
        ([{"id": 8, "ref": "crmb-t1-w-1"}], Outcome.APPLIED, "8"),
        ([{"id": 8, "ref": "crmb-t1-w-2"}], Outcome.NOT_APPLIED, ""),
        ([], Outcome.NOT_APPLIED, ""),
    ],
)
async def test_find_written_when_external_id_then_only_our_mark_counts(
    rows: list[Any], outcome: Outcome, remote_id: str
) -> None:
    driver, _ = acme(rows)
    found = await driver.find_written(customer())
    assert (found.outcome, found.remote_id) == (outcome, remote_id)


async def test_find_written_when_the_look_up_fails_then_unknown_with_its_error() -> None:
    driver, _ = acme(HttpResponse(status=503))
    found = await driver.find_written(customer())
    assert found.outcome is Outcome.UNKNOWN
    assert isinstance(found.error, Unavailable)


@pytest.mark.parametrize(
    ("operation", "answer", "outcome"),
    [
        (Operation.UPDATE, {"id": 5, "email": "mei@example.com", "name": "Mei"}, Outcome.APPLIED),
        (Operation.UPDATE, {"id": 5, "email": "mei@example.com", "name": "MEI"}, Outcome.NOT_APPLIED),
        (Operation.UPDATE, {"id": 5, "email": "mei@example.com", "name": "Old"}, Outcome.NOT_APPLIED),
        (Operation.UPDATE, HttpResponse(status=404), Outcome.NOT_APPLIED),
        (Operation.DELETE, HttpResponse(status=404), Outcome.APPLIED),
        (Operation.DELETE, {"id": 5}, Outcome.NOT_APPLIED),
    ],
)
async def test_find_written_when_update_or_delete_then_by_the_records_state(
    operation: Operation, answer: Any, outcome: Outcome
) -> None:
    driver, _ = acme(answer)
    found = await driver.find_written(customer(operation=operation, remote_id="5"))
    assert found.outcome is outcome


async def test_write_batch_when_one_fails_then_others_pass() -> None:
    driver, _ = acme(HttpResponse.of_json(201, {"id": 1}), HttpResponse(status=404), HttpResponse(status=204))
    results = await driver.write_batch(
        [
            customer(),
            customer(operation=Operation.UPDATE, remote_id="2"),
            customer(operation=Operation.DELETE, remote_id="3"),
        ]
    )
    assert [one.outcome for one in results] == [Outcome.APPLIED, Outcome.NOT_APPLIED, Outcome.APPLIED]
    assert isinstance(results[1].error, NotFound)
    assert results[2].delete_level == "soft"


async def test_preview_when_planned_then_nothing_leaves_and_no_token_shows() -> None:
    driver, transport = acme()
    shown = driver.preview(customer(operation=Operation.UPSERT, match={"email": "mei@example.com"}))
    assert (shown["method"], shown["path"], shown["match"]) == (
        "POST",
        "/contacts",
        {"email": "mei@example.com"},
    )
    assert "canary" not in str(shown)
    assert transport.requests == []


async def test_unavailable_driver_when_called_then_unsupported() -> None:
    class Gone(Acme):
        MANIFEST = Manifest(
            slug="gone",
            display_name="Gone",
            api_version="0",
            pages=(),
            read_on="2026-11-22",
            auth=Auth(kind=AuthKind.NONE),
            why_unavailable="gone for good",
        )

    driver = Gone(Access(settings={}, secrets={}, transport=Scripted()))
    error = await refusal(driver.create_record(customer()))
    assert isinstance(error, Unsupported)
    assert error.subcode == "driver_unavailable"
