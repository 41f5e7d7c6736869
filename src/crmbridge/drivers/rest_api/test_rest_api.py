"""Generic REST: the contract over auth types and ways of paging, bad documents, and one test per oddity."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from crmbridge.conformance import DriverContract
from crmbridge.core.driver import Access
from crmbridge.core.errors import CrmError, NotConfigured, UnexpectedResponse, Unsupported, ValidationError
from crmbridge.core.manifest import AuthKind, IdempotencyKind
from crmbridge.core.operations import DeleteLevel, Operation, Outcome, SupportLevel
from crmbridge.core.records import Filter, Object, Write
from crmbridge.core.secret import Secret
from crmbridge.core.wire import HttpRequest, HttpResponse, TransportFailure, TransportFault
from crmbridge.drivers.rest_api.driver import RestApi
from crmbridge.drivers.rest_api.emulator import RestApiEmulator

PIPELINE = (Path(__file__).parent / "fixtures" / "pipeline.manifest.json").read_text("utf-8")
REFUSED = {Object.CUSTOMER: {"no_such_field": 1}}


class ApiKeyAndPages(RestApiEmulator):
    auth_type = "api_key"
    paging_kind = "page"


class BasicAndOffsets(RestApiEmulator):
    auth_type = "basic"
    paging_kind = "offset"
    keeps_deleted = True


class OpenAndLinks(RestApiEmulator):
    auth_type = "none"
    paging_kind = "link"


class TestRestApi(DriverContract):
    driver = RestApi
    emulator = RestApiEmulator
    refused: ClassVar = REFUSED


class TestRestApiWithApiKeyAndPages(DriverContract):
    driver = RestApi
    emulator = ApiKeyAndPages
    refused: ClassVar = REFUSED


class TestRestApiWithBasicAndOffsets(DriverContract):
    driver = RestApi
    emulator = BasicAndOffsets
    refused: ClassVar = REFUSED


class TestRestApiOpenWithLinks(DriverContract):
    driver = RestApi
    emulator = OpenAndLinks
    refused: ClassVar = REFUSED
    gaps: ClassVar = {
        "test_secrecy_urls_of_reads_hold_no_person": "provider: this service searches by GET; prefer a POST search"
    }


class Scripted:
    """Answers in turn; keeps what was asked."""

    def __init__(self, *answers: HttpResponse | TransportFailure) -> None:
        self.answers = list(answers)
        self.requests: list[HttpRequest] = []

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, TransportFailure):
            raise answer
        return answer


def pipeline(*answers: HttpResponse | TransportFailure) -> tuple[RestApi, Scripted]:
    transport = Scripted(*answers)
    access = Access(
        settings={"manifest": PIPELINE}, secrets={"secret": Secret("tok-123456")}, transport=transport
    )
    return RestApi(access), transport


def customer(**changes: Any) -> Write:
    facts: dict[str, Any] = {
        "target_id": "11111111-2222-4333-8444-555555555555",
        "operation": Operation.CREATE,
        "object": Object.CUSTOMER,
        "fields": {"full_name": "Zoë Ångström", "email": "ZOE@example.com"},
    }
    return Write(**{**facts, **changes})


async def refusal(call: Any) -> CrmError:
    with pytest.raises(CrmError) as caught:
        await call
    return caught.value


# -- documents ---------------------------------------------------------------------------------------------


def document() -> dict[str, Any]:
    return {
        "name": "Acme",
        "auth": {"type": "bearer"},
        "test": {"method": "GET", "path": "/me"},
        "objects": {"lead": {"path": "/leads", "create": True, "get": True}},
    }


def _lead(verb: str, call: Any) -> Callable[[dict[str, Any]], None]:
    return lambda tree: tree["objects"]["lead"].__setitem__(verb, call)


def _top(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda tree: tree.__setitem__(name, value)


BAD_DOCUMENTS: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("unknown word at the top", _top("baseurl", "https://x.example"), "manifest"),
    ("no name", _top("name", " "), "manifest.name"),
    ("no objects", _top("objects", {}), "manifest.objects"),
    ("unknown object", _top("objects", {"contact": {}}), "manifest.objects"),
    ("unknown auth type", _top("auth", {"type": "oauth"}), "manifest.auth.type"),
    ("secret in the document", _top("auth", {"type": "bearer", "token": "abc"}), "manifest.auth"),
    ("API key nowhere", _top("auth", {"type": "api_key"}), "manifest.auth"),
    ("API key twice", _top("auth", {"type": "api_key", "header": "X", "query": "k"}), "manifest.auth"),
    ("header injection", _top("auth", {"type": "api_key", "header": "X\r\nY"}), "manifest.auth.header"),
    ("base URL with a query", _top("baseUrl", "https://x.example/?a=b"), "manifest.baseUrl"),
    ("base URL with a user", _top("baseUrl", "https://a:b@x.example"), "manifest.baseUrl"),
    ("base URL of another scheme", _top("baseUrl", "file:///etc/passwd"), "manifest.baseUrl"),
    ("paging without its parameter", _top("paging", {"kind": "page"}), "manifest.paging.cursor"),
    ("cursor paging without next", _top("paging", {"kind": "cursor", "cursor": "c"}), "manifest.paging.next"),
    ("pages too large", _top("paging", {"kind": "none", "maxSize": 10**6}), "manifest.paging.maxSize"),
    ("a pattern that can run for ever", _top("idPattern", "(a+)+"), "manifest.idPattern"),
    ("a pattern with slashes", _top("idPattern", "[a/]{1,9}"), "manifest.idPattern"),
    ("broken JMESPath", _top("errors", {"message": "a[?"}), "manifest.errors.message"),
    ("too many in flight", _top("inFlight", 1000), "manifest.inFlight"),
    ("no time at all", _top("timeoutSeconds", 0), "manifest.timeoutSeconds"),
    ("rate of nothing", _top("rate", {"limit": 0, "perSeconds": 1}), "manifest.rate"),
    ("deleteIsHard as a text", _top("deleteIsHard", "yes"), "manifest.deleteIsHard"),
    ("true without a path", lambda tree: tree["objects"]["lead"].pop("path"), "manifest.objects.lead.create"),
    ("no call", _top("objects", {"lead": {"path": "/leads"}}), "manifest.objects.lead"),
    ("unknown verb", _lead("remove", True), "manifest.objects.lead"),
    (
        "unknown method",
        _lead("get", {"method": "FETCH", "path": "/l/{{ id }}"}),
        "manifest.objects.lead.get.method",
    ),
    ("call without path", _lead("get", {"method": "GET"}), "manifest.objects.lead.get"),
    (
        "absolute path",
        _lead("get", {"method": "GET", "path": "https://evil.example/{{ id }}"}),
        "manifest.objects.lead.get.path",
    ),
    (
        "path to another host",
        _lead("get", {"method": "GET", "path": "//evil.example/{{ id }}"}),
        "manifest.objects.lead.get.path",
    ),
    (
        "get without an id",
        _lead("get", {"method": "GET", "path": "/leads/1"}),
        "manifest.objects.lead.get",
    ),
    (
        "create without a record",
        _lead("create", {"method": "POST", "path": "/leads", "body": {"a": 1}}),
        "manifest.objects.lead.create",
    ),
    (
        "search without a filter",
        _lead("search", {"method": "GET", "path": "/leads"}),
        "manifest.objects.lead.search",
    ),
    (
        "unclosed template",
        _lead("create", {"method": "POST", "path": "/leads", "body": {"mail": "{{ record.email"}}),
        "manifest.objects.lead.create.body.mail",
    ),
    (
        "unknown filter",
        _lead("create", {"method": "POST", "path": "/leads", "body": {"mail": "{{ record.email | exec }}"}}),
        "manifest.objects.lead.create.body.mail",
    ),
    (
        "secret in a template",
        _lead(
            "create",
            {"method": "POST", "path": "/leads", "body": {"a": "{{ secrets.secret }} {{ record.b }}"}},
        ),
        "manifest.objects.lead.create.body.a",
    ),
    (
        "own Authorization header",
        _lead("get", {"method": "GET", "path": "/l/{{ id }}", "headers": {"authorization": "x"}}),
        "manifest.objects.lead.get.headers",
    ),
    (
        "body and form",
        _lead("create", {"method": "POST", "path": "/l", "body": "{{ record }}", "form": {"a": "b"}}),
        "manifest.objects.lead.create",
    ),
    (
        "GET with a body",
        _lead("get", {"method": "GET", "path": "/l/{{ id }}", "body": {}}),
        "manifest.objects.lead.get",
    ),
    (
        "a server error as fine",
        _lead("get", {"method": "GET", "path": "/l/{{ id }}", "ok": [500]}),
        "manifest.objects.lead.get.ok",
    ),
    (
        "broken result path",
        _lead("get", {"method": "GET", "path": "/l/{{ id }}", "result": "data["}),
        "manifest.objects.lead.get",
    ),
    ("broken id path", _lead("id", "a["), "manifest.objects.lead.id"),
    ("lookup of leads", _lead("lookup", True), "manifest.objects.lead.lookup"),
    ("a link to nothing", _lead("links", {"contact": "x"}), "manifest.objects.lead.links"),
    (
        "external id without search",
        _lead("idempotency", {"kind": "external_id", "field": "ref"}),
        "manifest.objects.lead.idempotency",
    ),
    (
        "natural key without keys",
        _lead("idempotency", {"kind": "natural_key"}),
        "manifest.objects.lead.idempotency",
    ),
    (
        "key sent but not sent",
        _lead("idempotency", {"kind": "key_sent"}),
        "manifest.objects.lead.create",
    ),
    ("unknown field type", _lead("fields", {"a": {"type": "blob"}}), "manifest.objects.lead.fields.a.type"),
]


@pytest.mark.parametrize(("what", "spoil", "place"), BAD_DOCUMENTS, ids=[row[0] for row in BAD_DOCUMENTS])
def test_document_when_bad_then_place_and_fix_are_named(
    what: str, spoil: Callable[[dict[str, Any]], Any], place: str
) -> None:
    tree = document()
    RestApi.manifest_for({"manifest": json.dumps(tree)})
    spoil(tree)
    with pytest.raises(ValidationError) as caught:
        RestApi.manifest_for({"manifest": json.dumps(tree)})
    assert place in [field.field for field in caught.value.fields]
    assert all(len(field.message) > 10 for field in caught.value.fields)


@pytest.mark.parametrize("text", ["{", "[]", "null", '"x"', "[" * 100_000, "{}", " " * 300_000 + "{}"])
def test_document_when_no_document_then_refused(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RestApi.manifest_for({"manifest": text} if text.strip() else {"manifest": "{"})
    assert caught.value.fields[0].field.startswith("manifest")


def test_document_when_several_problems_then_all_are_told() -> None:
    tree = document()
    tree |= {"name": "", "inFlight": 0}
    tree["objects"]["lead"]["lookup"] = True
    with pytest.raises(ValidationError) as caught:
        RestApi.manifest_for({"manifest": json.dumps(tree)})
    assert {"manifest.name", "manifest.inFlight", "manifest.objects.lead.lookup"} <= {
        field.field for field in caught.value.fields
    }


@pytest.mark.parametrize(
    ("told", "level", "is_usable"),
    [(True, DeleteLevel.HARD, True), (False, DeleteLevel.SOFT, True), (None, DeleteLevel.UNSUPPORTED, False)],
)
async def test_delete_is_hard_when_told_or_not_then_level_follows(
    told: bool | None, level: DeleteLevel, is_usable: bool
) -> None:
    tree = document()
    tree["objects"]["lead"]["delete"] = True
    if told is not None:
        tree["deleteIsHard"] = told
    settings = {"manifest": json.dumps(tree), "base_url": "https://x.example"}
    manifest = RestApi.manifest_for(settings)
    assert manifest.objects[Object.LEAD].delete_level is level
    assert manifest.supports(Object.LEAD, Operation.DELETE).is_usable is is_usable
    if not is_usable:
        driver = RestApi(Access(settings=settings, secrets={}, transport=Scripted()))
        error = await refusal(driver.delete_record(Object.LEAD, "1"))
        assert isinstance(error, Unsupported)
        assert error.subcode == "delete_unsupported"


def test_manifest_when_document_is_read_then_says_what_it_says() -> None:
    manifest = RestApi.manifest_for({"manifest": PIPELINE})
    assert manifest.display_name == "Pipeline service with envelopes"
    assert (manifest.auth.kind, manifest.auth.query) == (AuthKind.API_KEY, "api_token")
    assert manifest.supports(Object.CUSTOMER, Operation.UPSERT).level is SupportLevel.COMPOSED
    assert manifest.supports(Object.CUSTOMER, Operation.LOOKUP).level is SupportLevel.COMPOSED
    assert manifest.supports(Object.LEAD, Operation.UPDATE).level is SupportLevel.NOT_YET
    assert manifest.objects[Object.LEAD].idempotency.kind is IdempotencyKind.KEY_SENT
    assert RestApi.manifest_for({"manifest": PIPELINE}) is manifest


def test_driver_when_document_is_missing_then_not_configured() -> None:
    with pytest.raises(NotConfigured):
        RestApi(Access(settings={"base_url": "https://x.example"}, secrets={}, transport=Scripted()))


# -- calls -------------------------------------------------------------------------------------------------


async def test_create_when_form_is_declared_then_sent_as_form_with_the_key_in_the_query() -> None:
    driver, transport = pipeline(HttpResponse.of_json(201, {"success": True, "data": {"id": 7}}))
    result = await driver.create_record(customer())
    request = transport.requests[0]
    assert (result.remote_id, result.was_created) == ("7", True)
    assert request.full_url() == "https://pipeline.example.com/api/persons?api_token=tok-123456"
    assert request.encoded_body() == b"name=Zo%C3%AB+%C3%85ngstr%C3%B6m&email=zoe%40example.com"


async def test_create_when_a_required_value_is_missing_then_refused_before_sending() -> None:
    driver, transport = pipeline()
    error = await refusal(driver.create_record(customer(fields={"email": "a@example.com"})))
    assert isinstance(error, ValidationError)
    assert error.fields[0].field.endswith("form.name")
    assert transport.requests == []


async def test_update_when_a_field_is_not_named_then_it_is_not_sent_and_null_is() -> None:
    driver, transport = pipeline(HttpResponse.of_json(200, {"success": True}))
    await driver.update_record(customer(operation=Operation.UPDATE, remote_id="7", fields={"email": None}))
    assert json.loads(transport.requests[0].encoded_body()) == {"email": None}


async def test_create_when_200_holds_an_error_then_outcome_is_unknown_and_values_are_hidden() -> None:
    answer = {"success": False, "error": "zoe@example.com exists, Zoë Ångström too, key tok-123456"}
    driver, _ = pipeline(HttpResponse.of_json(200, answer))
    error = await refusal(driver.create_record(customer()))
    assert isinstance(error, UnexpectedResponse)
    assert error.outcome is Outcome.UNKNOWN
    shown = str(error) + str(error.to_dict())
    assert not any(text in shown.lower() for text in ("zoe@", "ångström", "tok-123456"))


async def test_create_when_answer_has_no_id_then_unexpected_and_unknown() -> None:
    shapes: list[Any] = [{}, {"id": None}, {"id": True}, {"id": {"a": 1}}, {"id": "a/b"}, [], None]
    for data in shapes:
        driver, _ = pipeline(HttpResponse.of_json(200, {"success": True, "data": data}))
        error = await refusal(driver.create_record(customer()))
        assert (type(error), error.outcome) == (UnexpectedResponse, Outcome.UNKNOWN)


async def test_create_when_key_is_sent_and_answer_is_lost_then_repeat_is_safe() -> None:
    cut = TransportFailure(TransportFault.CUT, "cut", was_sent=True)
    driver, transport = pipeline(cut, HttpResponse.of_json(201, {"data": {"id": "l-1"}}))
    write = customer(object=Object.LEAD, fields={"title": "Flat"}, links={"customer": "7"})
    error = await refusal(driver.create_record(write))
    assert (error.outcome, error.retry_safe) == (Outcome.UNKNOWN, True)
    assert (await driver.find_written(write)).outcome is Outcome.UNKNOWN
    assert (await driver.create_record(write)).remote_id == "l-1"
    first, again = transport.requests
    assert first.headers["X-Request-Id"] == again.headers["X-Request-Id"] != ""
    assert json.loads(first.encoded_body()) == {"title": "Flat", "person_id": "7"}


async def test_delete_when_status_is_declared_fine_then_applied() -> None:
    driver, _ = pipeline(HttpResponse(status=404))
    assert await driver.delete_record(Object.CUSTOMER, "7") is DeleteLevel.SOFT


async def test_get_when_result_reshapes_then_native_is_flat() -> None:
    answer = {"data": {"id": 7, "name": "Mei", "emails": [{"value": "mei@example.com"}]}}
    driver, transport = pipeline(HttpResponse.of_json(200, answer))
    record = await driver.get_record(Object.CUSTOMER, "7")
    assert record.native == {"id": 7, "full_name": "Mei", "email": "mei@example.com"}
    assert transport.requests[0].url.endswith("/persons/7")


async def test_upsert_when_service_ignores_the_filter_then_strangers_are_not_touched() -> None:
    everybody = {"data": [{"id": n, "email": f"p{n}@example.com"} for n in range(3)]}
    driver, transport = pipeline(
        HttpResponse.of_json(200, everybody), HttpResponse.of_json(201, {"data": {"id": 99}})
    )
    write = customer(operation=Operation.UPSERT, match={"email": "zoe@example.com"})
    assert (await driver.upsert_record(write)).remote_id == "99"
    assert [request.method for request in transport.requests] == ["GET", "POST"]


async def test_upsert_when_two_records_match_then_conflict_and_nothing_is_written() -> None:
    twins = {"data": [{"id": n, "email": "Zoe@Example.com"} for n in (4, 5)]}
    driver, transport = pipeline(HttpResponse.of_json(200, twins))
    write = customer(operation=Operation.UPSERT, match={"email": "zoe@example.com"})
    error = await refusal(driver.upsert_record(write))
    assert (error.code, error.existing_remote_id, error.outcome) == ("conflict", "4", Outcome.NOT_APPLIED)
    assert len(transport.requests) == 1


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        ([{"id": 3, "email": "zoe@example.com", "full_name": "Zoë Ångström"}], Outcome.APPLIED),
        ([{"id": 3, "email": "zoe@example.com", "full_name": "Somebody else"}], Outcome.UNKNOWN),
        ([], Outcome.NOT_APPLIED),
        ([{"id": n, "email": "zoe@example.com"} for n in (3, 4)], Outcome.UNKNOWN),
    ],
)
async def test_find_written_when_natural_key_then_only_the_same_values_prove_it(
    found: list[dict[str, Any]], outcome: Outcome
) -> None:
    tree = json.loads(PIPELINE)
    tree["objects"]["customer"]["search"]["result"] = "data"
    transport = Scripted(HttpResponse.of_json(200, {"data": found}))
    access = Access(
        settings={"manifest": json.dumps(tree)}, secrets={"secret": Secret("tok-123456")}, transport=transport
    )
    assert (await RestApi(access).find_written(customer())).outcome is outcome


async def test_link_without_a_place_when_written_then_refused() -> None:
    driver, transport = pipeline()
    error = await refusal(driver.create_record(customer(links={"lead": "3"})))
    assert error.fields[0].field == "links.lead"
    assert transport.requests == []


async def test_free_text_when_search_has_no_place_for_it_then_refused() -> None:
    driver, transport = pipeline()
    error = await refusal(driver.search_records(Object.CUSTOMER, Filter(text="Mei")))
    assert error.fields[0].field == "text"
    assert transport.requests == []


async def test_base_url_when_set_by_the_operator_then_it_wins() -> None:
    transport = Scripted(HttpResponse.of_json(200, {"data": {"company": "Acme"}}))
    settings = {"manifest": PIPELINE, "base_url": "https://other.example.com/x/"}
    driver = RestApi(Access(settings=settings, secrets={"secret": Secret("tok-123456")}, transport=transport))
    assert (await driver.test_connection()).account == "Acme"
    assert transport.requests[0].url == "https://other.example.com/x/users/me"


async def test_preview_when_planned_then_shows_the_request_without_the_secret() -> None:
    driver, transport = pipeline()
    shown = driver.preview(customer())
    assert shown["method"] == "POST"
    assert shown["body"]["email"] == "zoe@example.com"
    assert "tok-123456" not in str(shown)
    assert transport.requests == []
