"""The contract on the emulated Odoo 19 and 14, then one test per oddity."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.conformance import DriverContract
from crmbridge.conformance.samples import SAMPLES
from crmbridge.core.driver import Access, CrmDriver
from crmbridge.core.errors import (
    AuthError,
    Conflict,
    CrmError,
    NotConfigured,
    NotFound,
    Unavailable,
    ValidationError,
)
from crmbridge.core.operations import DeleteLevel, Operation, Outcome
from crmbridge.core.records import Object, Write
from crmbridge.core.secret import Secret
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.odoo import recency
from crmbridge.drivers.odoo.cells import mark
from crmbridge.drivers.odoo.driver import Odoo
from crmbridge.drivers.odoo.emulator import Odoo14Emulator, OdooEmulator
from crmbridge.emulation import Emulator, InProcessTransport

LINKED: dict[Object, tuple[Object, ...]] = {
    Object.NOTE: (Object.CUSTOMER,),
    Object.ACTIVITY: (Object.LEAD,),
    Object.APPOINTMENT: (Object.CUSTOMER,),
}
# The general sample's location is also its person's street; here the customer is linked and stays.
VISIT = {**SAMPLES[Object.APPOINTMENT], "location": "Room 4, first floor"}
VISIT = {name: VISIT[name] for name in ("title", "start_at", "end_at", "location", "notes")}


class TestOdoo(DriverContract):
    driver: ClassVar[type[CrmDriver]] = Odoo
    emulator: ClassVar[type[Emulator] | None] = OdooEmulator
    samples: ClassVar[dict[Object, dict[str, Any]]] = {Object.APPOINTMENT: VISIT}
    linked: ClassVar[dict[Object, tuple[Object, ...]]] = LINKED
    refused: ClassVar[dict[Object, dict[str, Any]]] = {
        Object.CUSTOMER: {"country_id": {"code": "XX"}},
        Object.LEAD: {"stage_id": {"name": "No such stage"}},
    }
    server_error_is_certain: ClassVar[str] = "an error object means that the transaction was rolled back"


class TestOdoo14(TestOdoo):
    emulator: ClassVar[type[Emulator] | None] = Odoo14Emulator


async def connected(emulator: Emulator, **settings: str) -> Odoo:
    """A driver as a connection has it: tested, with the facts learned."""
    access = Access(
        settings={**emulator.settings(), **settings},
        secrets={name: Secret(text) for name, text in emulator.secrets().items()},
        transport=InProcessTransport(emulator),
        mark_prefix="t1",
    )
    access.facts.update((await Odoo(access).test_connection()).facts)
    emulator.requests.clear()
    emulator.calls.clear()
    return Odoo(access)


def write(number: int, fields: dict[str, Any], obj: Object = Object.LEAD, **more: Any) -> Write:
    given = {"target_id": f"target-{number}", "operation": Operation.CREATE, **more}
    return Write(object=obj, fields=fields, **given)


@pytest.fixture(params=[OdooEmulator, Odoo14Emulator], ids=["19", "14"])
def odoo(request: pytest.FixtureRequest) -> OdooEmulator:
    emulator: OdooEmulator = request.param()
    return emulator


@pytest.mark.parametrize(
    "typed",
    ["  https://odoo.emulator.test/ ", "https://odoo.emulator.test/web/login", "odoo.emulator.test/odoo/crm"],
)
async def test_url_when_typed_with_slash_blank_or_page_then_trimmed(odoo: OdooEmulator, typed: str) -> None:
    driver = await connected(odoo, url=typed)
    assert driver.rpc.url == "https://odoo.emulator.test"


@pytest.mark.parametrize(
    "typed", ["", "ftp://x.example", "https://x.example/shop", "https://a b", "https://u:p@x.example"]
)
async def test_url_when_unusable_then_the_setting_is_named(typed: str) -> None:
    with pytest.raises(ValidationError) as caught:
        access = Access(settings={"url": typed}, secrets={}, transport=InProcessTransport(OdooEmulator()))
        await Odoo(access).test_connection()
    assert [field.field for field in caught.value.fields] == ["url"]
    assert "u:p" not in str(caught.value)


async def test_database_when_unknown_then_not_configured_names_it(odoo: OdooEmulator) -> None:
    with pytest.raises(NotConfigured) as caught:
        await connected(odoo, database="nope")
    assert [field.field for field in caught.value.fields] == ["database"]


async def test_rights_when_missing_then_named_at_connect_time(odoo: OdooEmulator) -> None:
    odoo.orm.denied = {("crm.lead", "create"), ("res.partner", "unlink")}
    access = (await connected(odoo)).access
    proof = await Odoo(access).test_connection()
    assert proof.missing_rights == ["res.partner: unlink", "crm.lead: create"]


async def test_app_when_not_installed_then_named_at_connect_time(odoo: OdooEmulator) -> None:
    del odoo.orm.models["crm.lead"]
    proof = await Odoo((await connected(odoo)).access).test_connection()
    assert proof.missing_rights == ["crm.lead: the CRM app is not installed"]


async def test_key_when_about_to_end_then_a_warning() -> None:
    odoo = OdooEmulator()
    odoo.store.numbered("res.users.apikeys").update(1, {"expiration_date": "2026-01-01 00:00:00"})
    proof = await Odoo((await connected(odoo)).access).test_connection()
    assert "ends on 2026-01-01" in proof.warnings[0]


async def test_create_when_right_missing_then_scope_names_the_model(odoo: OdooEmulator) -> None:
    driver = await connected(odoo)
    odoo.orm.denied = {("crm.lead", "create")}
    with pytest.raises(AuthError) as caught:
        await driver.create_record(write(1, {"name": "A"}))
    assert caught.value.subcode == "insufficient_scope"
    assert caught.value.provider_facts == {"model": "crm.lead"}


async def test_batch_when_one_row_is_bad_then_the_others_stand(odoo: OdooEmulator) -> None:
    driver = await connected(odoo)
    writes = [write(n, {"name": f"L{n}", "expected_revenue": "x" if n == 7 else str(n)}) for n in range(200)]
    results = await driver.write_batch(writes)
    assert [n for n, result in enumerate(results) if result.error] == [7]
    assert isinstance(results[7].error, ValidationError)
    assert results[7].error.fields[0].field == "expected_revenue"
    assert len({result.remote_id for result in results if not result.error}) == 199
    assert odoo.calls["crm.lead.load"] == 2


async def test_batch_when_fields_differ_then_few_calls_and_the_same_records(odoo: OdooEmulator) -> None:
    """Rows that lack a plain column get an empty cell, which leaves the field as if never named."""
    driver = await connected(odoo)
    optional = ("phone", "city", "contact_name", "description")
    writes = []
    for n in range(64):
        given = {name: f"{name} {n}" for bit, name in enumerate(optional) if n >> bit & 1}
        writes.append(write(n, {"name": f"L{n}", "type": "lead", **given}))
    results = await driver.write_batch(writes)
    assert odoo.calls["crm.lead.load"] == 1
    for sent, result in zip(writes, results, strict=True):
        native = (await driver.get_record(Object.LEAD, result.remote_id)).native
        assert {name for name in optional if native[name]} == sent.fields.keys() & set(optional)


async def test_backlog_when_10000_leads_then_50_calls() -> None:
    odoo = OdooEmulator()
    driver = await connected(odoo)
    for start in range(0, 10_000, 200):
        batch = [
            write(
                n,
                {"name": f"L{n}", "type": "lead", "email_from": f"{n}@example.com"}
                | ({"city": "X"} if n % 3 else {}),
            )
            for n in range(start, start + 200)
        ]
        assert not any(result.error for result in await driver.write_batch(batch))
    assert len(odoo.requests) == 50
    assert len(odoo.store.numbered("crm.lead")) == 10_000


async def test_update_when_fields_differ_then_no_field_is_cleared(odoo: OdooEmulator) -> None:
    driver = await connected(odoo)
    made = await driver.write_batch([write(n, {"name": "L", "phone": "1", "city": "C"}) for n in range(2)])
    changes: list[dict[str, Any]] = [{"phone": "2"}, {"city": None}]
    updates = [
        write(n, fields, operation=Operation.UPDATE, remote_id=made[n].remote_id)
        for n, fields in enumerate(changes)
    ]
    assert all(not result.error for result in await driver.write_batch(updates))
    first, second = [(await driver.get_record(Object.LEAD, result.remote_id)).native for result in made]
    assert (first["phone"], first["city"], second["phone"], second["city"]) == ("2", "C", "1", False)


async def test_update_when_the_same_record_twice_then_in_order(odoo: OdooEmulator) -> None:
    driver = await connected(odoo)
    made = await driver.create_record(write(1, {"name": "L"}))
    both = [{"city": "A", "phone": "1"}, {"city": "B"}]
    await driver.write_batch(
        [write(n, each, operation=Operation.UPDATE, remote_id=made.remote_id) for n, each in enumerate(both)]
    )
    native = (await driver.get_record(Object.LEAD, made.remote_id)).native
    assert (native["city"], native["phone"]) == ("B", "1")


async def test_conflict_in_load_when_told_in_a_200_then_retry_safe(odoo: OdooEmulator) -> None:
    driver = await connected(odoo)
    message = {"type": "error", "record": 0, "message": "could not serialize access due to concurrent update"}
    answer: Any = {"ids": False, "messages": [message], "nextrow": 0}
    if not odoo.has_json2:
        answer = {"jsonrpc": "2.0", "id": 1, "result": answer}
    odoo.faults.add("wrong_shape", operation="crm.lead.load", body=answer)
    with pytest.raises(Unavailable) as caught:
        await driver.create_record(write(1, {"name": "L"}))
    assert caught.value.retry_safe
    assert caught.value.outcome is Outcome.NOT_APPLIED


async def test_note_when_written_twice_then_one_message_and_applied(odoo: OdooEmulator) -> None:
    driver = await connected(odoo)
    lead = (await driver.create_record(write(1, {"name": "L"}))).remote_id
    notes = [write(n, {"body": f"<p>{n}</p>"}, Object.NOTE, links={"lead": lead}) for n in range(2, 5)]
    first = await driver.create_record(notes[0])
    results = await driver.write_batch(notes)
    assert [result.outcome for result in results] == [Outcome.APPLIED] * 3
    assert results[0].remote_id == first.remote_id
    assert len(odoo.store.numbered("mail.message")) == 3


async def test_note_when_without_a_link_then_refused_before_a_call(odoo: OdooEmulator) -> None:
    driver = await connected(odoo)
    with pytest.raises(ValidationError) as caught:
        await driver.create_record(write(1, {"body": "x"}, Object.NOTE))
    assert caught.value.fields[0].field == "links"
    assert not odoo.calls["mail.message.load"]


async def test_activity_when_read_back_then_facts_and_text_are_apart(odoo: OdooEmulator) -> None:
    driver = await connected(odoo)
    lead = (await driver.create_record(write(1, {"name": "L"}))).remote_id
    fields = {"body": "Agent: hi<br>Caller: a &lt; b", "facts": {"kind": "chat", "result": "booked & <done>"}}
    made = await driver.create_record(write(2, fields, Object.ACTIVITY, links={"lead": lead}))
    native = (await driver.get_record(Object.ACTIVITY, made.remote_id)).native
    assert native["facts"] == fields["facts"]
    assert native["body"] == fields["body"]
    assert [r.remote_id for r in (await driver.list_recent(Object.ACTIVITY)).records] == [made.remote_id]
    assert (await driver.list_recent(Object.NOTE)).records == []


async def test_tags_when_unknown_then_made_once(odoo: OdooEmulator) -> None:
    driver = await connected(odoo)
    writes = [write(n, {"name": "L", "tag_ids": {"name": ["Hot", f"T{n % 2}"]}}) for n in range(10)]
    results = await driver.write_batch(writes)
    assert sorted(row.fields["name"] for row in odoo.store.numbered("crm.tag")) == ["Hot", "T0", "T1"]
    native = (await driver.get_record(Object.LEAD, results[3].remote_id)).native
    assert sorted(native["tag_ids"]["name"]) == ["Hot", "T1"]


async def test_delete_when_refused_then_archived_and_said_so(odoo: OdooEmulator) -> None:
    driver = await connected(odoo)
    lead = (await driver.create_record(write(1, {"name": "L"}))).remote_id
    odoo.orm.denied = {("crm.lead", "unlink")}
    assert await driver.delete_record(Object.LEAD, lead) is DeleteLevel.SOFT
    assert (await driver.get_record(Object.LEAD, lead)).is_archived
    with pytest.raises(AuthError):
        await driver.erase_record(Object.LEAD, lead)


async def test_delete_when_contact_is_a_user_then_validation_error(odoo: OdooEmulator) -> None:
    driver = await connected(odoo)
    with pytest.raises(ValidationError):
        await driver.erase_record(Object.CUSTOMER, "2")


async def test_delete_batch_when_one_is_gone_then_the_others_are_deleted(odoo: OdooEmulator) -> None:
    driver = await connected(odoo)
    made = await driver.write_batch([write(n, {"name": "L"}) for n in range(3)])
    ids = [made[0].remote_id, "424242", made[2].remote_id]
    results = await driver.write_batch(
        [write(n, {}, operation=Operation.DELETE, remote_id=each) for n, each in enumerate(ids)]
    )
    assert [result.outcome for result in results] == [Outcome.APPLIED, Outcome.NOT_APPLIED, Outcome.APPLIED]
    assert isinstance(results[1].error, NotFound)


async def test_upsert_batch_when_one_email_twice_then_one_record(odoo: OdooEmulator) -> None:
    driver = await connected(odoo)
    emails = ["a@example.com", "b@example.com", "A@Example.com"]
    results = await driver.write_batch(
        [
            write(
                n,
                {"name": f"P{n}", "email": each},
                Object.CUSTOMER,
                operation=Operation.UPSERT,
                match={"email": each},
            )
            for n, each in enumerate(emails)
        ]
    )
    assert [result.was_created for result in results] == [True, True, False]
    assert results[0].remote_id == results[2].remote_id
    assert (await driver.get_record(Object.CUSTOMER, results[0].remote_id)).native["name"] == "P2"


async def test_upsert_when_two_match_then_conflict(odoo: OdooEmulator) -> None:
    driver = await connected(odoo)
    twice = [write(n, {"name": "P", "email": "a@example.com"}, Object.CUSTOMER) for n in range(2)]
    await driver.write_batch(twice)
    again = write(
        3, {"name": "Q"}, Object.CUSTOMER, operation=Operation.UPSERT, match={"email": "a@example.com"}
    )
    with pytest.raises(Conflict):
        await driver.upsert_record(again)


async def test_appointment_when_no_end_then_one_hour(odoo: OdooEmulator) -> None:
    driver = await connected(odoo)
    made = await driver.create_record(
        write(1, {"name": "V", "start": "2026-12-31 23:30:00"}, Object.APPOINTMENT)
    )
    assert (await driver.get_record(Object.APPOINTMENT, made.remote_id)).native[
        "stop"
    ] == "2027-01-01 00:30:00"


async def test_list_when_many_share_a_second_then_each_comes_once(odoo: OdooEmulator) -> None:
    odoo.clock.freeze()
    driver = await connected(odoo)
    await driver.write_batch([write(n, {"name": "L", "type": "lead"}) for n in range(23)])
    odoo.clock.advance(0.4)
    await driver.write_batch([write(n, {"name": "L", "type": "lead"}) for n in range(30, 35)])
    seen: list[str] = []
    cursor = ""
    for _ in range(20):
        page = await driver.list_recent(Object.LEAD, cursor=cursor, limit=5)
        seen += [record.remote_id for record in page.records]
        cursor = page.next_cursor
        if not cursor:
            break
    assert len(seen) == len(set(seen)) == 28


async def test_context_when_any_call_then_no_mail_and_utc(odoo: OdooEmulator) -> None:
    driver = await connected(odoo)
    await driver.create_record(write(1, {"name": "L"}))
    sent = msgspec.json.decode(odoo.requests[-1].body or b"")
    context = sent["context"] if odoo.has_json2 else sent["params"]["args"][6]["context"]
    assert context["tz"] == "UTC"
    assert context["tracking_disable"] and context["no_mail_to_attendees"]


def test_mark_when_prefix_is_odd_then_still_a_module_of_our_own() -> None:
    for prefix in ("crmbridge", "base", "A.b-C", "", "crmbridge-t1"):
        module, name = mark(prefix, "0b1c-22")
        assert module.startswith("crmbridge_") and "." not in module + name
    assert mark("x", "a.b")[1] != mark("x", "a_b")[1]


@given(st.lists(st.integers(1, 400), unique=True, min_size=1), st.integers(1, 30))
def test_cursor_when_parsed_then_the_ids_come_back(ids: list[int], page: int) -> None:
    second = "2026-01-02 03:04:05"
    last, given_ids = "", set[int]()
    for start in range(0, len(ids), page):
        text = recency.cursor(last, given_ids, [(second, number) for number in ids[start : start + page]])
        last, given_ids = recency.parse(text)
    assert (last, given_ids) == (second, set(ids))


@given(st.text(max_size=60))
def test_cursor_when_foreign_then_refused(text: str) -> None:
    if text:
        with pytest.raises(ValidationError):
            recency.parse(text)


FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("*.json"))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
async def test_answer_when_recorded_from_a_real_server_then_understood(path: Path) -> None:
    recorded = msgspec.json.decode(path.read_bytes())

    class Recorded:
        async def send(self, request: HttpRequest) -> HttpResponse:
            return HttpResponse.of_json(recorded["status"], recorded["body"])

    facts = {"server_version": "19.0", "uid": "5"}
    access = Access(
        settings=OdooEmulator().settings(),
        secrets={"api_key": Secret("k" * 40)},
        transport=Recorded(),
        facts=facts,
    )
    with pytest.raises(CrmError) as caught:
        await Odoo(access).create_record(write(1, {"name": "L"}))
    error = caught.value
    assert error.full_code == recorded["expected"]["code"]
    assert [field.field for field in error.fields] == recorded["expected"]["fields"]
    assert error.outcome is Outcome.NOT_APPLIED
    texts = msgspec.json.encode(error.to_dict()).decode()
    assert "Traceback" not in texts
    assert not any(value in texts for value in ("zzz", "abc", "Nowhereland", "No CRM Rights"))
