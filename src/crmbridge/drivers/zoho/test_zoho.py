"""The contract on the emulated Zoho CRM, then one test per oddity of writes, marks and erasure."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest

from crmbridge.conformance import DriverContract
from crmbridge.core.driver import CrmDriver
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
from crmbridge.core.operations import DeleteLevel, Operation, Outcome
from crmbridge.core.records import Object, RelatedWrite
from crmbridge.drivers.zoho.driver import MANIFEST, Zoho
from crmbridge.drivers.zoho.emulated_fields import Defined
from crmbridge.drivers.zoho.emulator import ZohoEmulator
from crmbridge.drivers.zoho.test_kit import UNKNOWN, access_to, connected, fixture, person, sent, write
from crmbridge.emulation import Emulator


class TestZoho(DriverContract):
    driver: ClassVar[type[CrmDriver]] = Zoho
    emulator: ClassVar[type[Emulator] | None] = ZohoEmulator
    refused: ClassVar[dict[Object, dict[str, Any]]] = dict.fromkeys(Object, UNKNOWN)

    def free_texts(self, obj: Object) -> list[str]:
        """First names take 40 characters at Zoho, postal codes 30: fewer than the contract's texts have."""
        return [slot for slot in super().free_texts(obj) if slot not in ("first_name", "postal_code")]


class TestZohoWithoutAutomations(TestZoho):
    settings: ClassVar[dict[str, str]] = {"automations": "skip"}


@pytest.fixture
def zoho() -> ZohoEmulator:
    return ZohoEmulator()


# -- batches ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [207, 202, 200, 400])
async def test_batch_when_some_rows_are_bad_then_each_has_its_own_error_at_any_status(status: int) -> None:
    zoho = ZohoEmulator()
    driver = await connected(zoho)
    zoho.mixed_status = status
    bad = [{"First_Name": "No name"}, {"Last_Name": "x" * 81}, {"Last_Name": "Lin", "Email": "no address"}]
    results = await driver.write_batch([write(n, one) for n, one in enumerate([person(1), *bad, person(2)])])
    assert [result.outcome.value for result in results] == ["applied", *["not_applied"] * 3, "applied"]
    named = [error.fields[0] for one in results[1:4] if isinstance(error := one.error, ValidationError)]
    assert [(one.field, one.provider_code) for one in named] == [
        ("Last_Name", "MANDATORY_NOT_FOUND"),
        ("Last_Name", "INVALID_DATA"),
        ("Email", "INVALID_DATA"),
    ]
    assert "at most 80 characters" in named[1].message
    assert zoho.calls == {"create": 1}


async def test_batch_answer_when_published_rows_come_then_one_outcome_each(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    zoho.faults.add("status", operation="create", status=207, body=fixture("batch.create.mixed"))
    results = await driver.write_batch([write(n, person(n)) for n in range(4)])
    assert [one.remote_id for one in results] == ["5545974000010000001", "", "", ""]
    assert [type(one.error) for one in results[1:]] == [ValidationError, ValidationError, Conflict]
    assert isinstance(results[3].error, Conflict)
    assert results[3].error.existing_remote_id == "5545974000010000077"


@pytest.mark.parametrize(
    "body",
    [
        {"data": []},
        {"data": [{"status": "success", "details": {"id": "1"}}] * 3},
        {"data": [{"status": "maybe"}, {"status": "success", "details": []}]},
        {"data": "none"},
        {"data": [None, None]},
        [],
    ],
)
async def test_batch_when_the_answer_has_other_rows_then_every_outcome_is_unknown(
    zoho: ZohoEmulator, body: Any
) -> None:
    driver = await connected(zoho)
    zoho.faults.add("wrong_shape", operation="create", body=body)
    results = await driver.write_batch([write(n, person(n)) for n in range(2)])
    assert {one.outcome for one in results} == {Outcome.UNKNOWN}
    assert all(isinstance(one.error, UnexpectedResponse) for one in results)


async def test_batch_when_one_row_fails_inside_zoho_then_that_one_is_unknown(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    good = fixture("batch.create.mixed")["data"][0]
    zoho.faults.add(
        "status", operation="create", status=207, body={"data": [good, fixture("error.internal")]}
    )
    results = await driver.write_batch([write(n, person(n)) for n in range(2)])
    assert [one.outcome for one in results] == [Outcome.APPLIED, Outcome.UNKNOWN]
    assert isinstance(results[1].error, Unavailable)
    assert results[1].error.retry_safe is False


async def test_updates_when_one_record_twice_then_in_order_and_in_two_calls(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    ids = [one.remote_id for one in await driver.write_batch([write(n, person(n)) for n in range(3)])]
    zoho.calls.clear()
    changes = [(ids[0], "A"), (ids[1], "B"), (ids[0], "C")]
    writes = [
        write(n, {"City": city}, operation=Operation.UPDATE, remote_id=one)
        for n, (one, city) in enumerate(changes)
    ]
    assert {one.outcome for one in await driver.write_batch(writes)} == {Outcome.APPLIED}
    assert (await driver.get_record(Object.LEAD, ids[0])).native["City"] == "C"
    assert zoho.calls["update"] == 2


async def test_updates_when_a_row_answers_for_another_record_then_unknown(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    made = await driver.create_record(write(1, person(1)))
    body = {"data": [{"status": "success", "code": "SUCCESS", "details": {"id": "5545974000010000099"}}]}
    zoho.faults.add("wrong_shape", operation="update", body=body)
    with pytest.raises(UnexpectedResponse) as caught:
        await driver.update_record(
            write(2, {"City": "Dubai"}, operation=Operation.UPDATE, remote_id=made.remote_id)
        )
    assert caught.value.outcome is Outcome.UNKNOWN


async def test_update_when_the_id_is_refused_then_not_found(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    zoho.faults.add("status", operation="update", status=400, body=fixture("batch.update.missing"))
    with pytest.raises(NotFound):
        await driver.update_record(write(1, {"City": "X"}, operation=Operation.UPDATE, remote_id="5545974"))


async def test_update_when_a_lookup_leads_nowhere_then_a_field_error_and_not_not_found(
    zoho: ZohoEmulator,
) -> None:
    driver = await connected(zoho)
    made = await driver.create_record(write(1, {"Deal_Name": "A"}, Object.DEAL))
    change = write(
        2,
        {},
        Object.DEAL,
        operation=Operation.UPDATE,
        remote_id=made.remote_id,
        links={"customer": "5545974000099999999"},
    )
    with pytest.raises(ValidationError) as caught:
        await driver.update_record(change)
    assert caught.value.fields[0].field == "Contact_Name"


async def test_deletes_in_a_batch_when_some_are_missing_then_not_found_for_those(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    made = [one.remote_id for one in await driver.write_batch([write(n, person(n)) for n in range(2)])]
    writes = [
        write(n, {}, operation=Operation.DELETE, remote_id=one)
        for n, one in enumerate([made[0], "999999", made[1], "not an id"])
    ]
    results = await driver.write_batch(writes)
    assert [result.delete_level for result in results] == ["soft", "", "soft", ""]
    assert [type(results[n].error) for n in (1, 3)] == [NotFound, ValidationError]
    assert zoho.calls == {"create": 1, "delete": 1}


async def test_backlog_of_10000_leads_when_sent_then_100_calls(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    for start in range(0, 10_000, 500):
        results = await driver.write_batch([write(n, person(n)) for n in range(start, start + 500)])
        assert all(result.outcome is Outcome.APPLIED for result in results)
    assert sum(zoho.calls.values()) == 100


# -- what is sent ------------------------------------------------------------------------------------------------


async def test_create_when_a_field_is_not_there_then_refused_because_zoho_would_pass_over_it(
    zoho: ZohoEmulator,
) -> None:
    driver = await connected(zoho)
    with pytest.raises(ValidationError) as caught:
        await driver.create_record(write(1, {**person(1), "Budget_Max": 5}))
    assert caught.value.fields[0].field == "Budget_Max"
    assert "no field of Leads" in caught.value.fields[0].message
    with pytest.raises(ValidationError, match="read-only"):
        await driver.create_record(write(2, {**person(2), "Full_Name": "Mei Lin"}))
    assert not len(zoho.records.table("Leads"))


async def test_create_when_a_field_was_made_since_then_it_is_written(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    zoho.records.add_field("Leads", Defined(77, "Budget_Max", "currency", 16, "c", "Budget Max"))
    made = await driver.create_record(write(1, {**person(1), "Budget_Max": 1250000.5}))
    assert (await driver.get_record(Object.LEAD, made.remote_id)).native["Budget_Max"] == 1250000.5
    assert zoho.calls["fields.list"] == 1


async def test_create_when_nobody_said_company_or_stage_then_the_layout_has_what_it_wants(
    zoho: ZohoEmulator,
) -> None:
    driver = await connected(zoho)
    await driver.create_record(write(1, {"Last_Name": "Lin"}))
    await driver.create_record(write(2, {"Deal_Name": "A"}, Object.DEAL))
    await driver.create_record(write(3, {"Subject": "A"}, Object.CASE))
    bodies = [one["data"][0] for name in ("/Leads", "/Deals", "/Cases") for one in sent(zoho, name)]
    assert bodies[0]["Company"] == "[not provided]"
    assert bodies[1]["Stage"] == "Qualification"
    assert (bodies[2]["Status"], bodies[2]["Case_Origin"]) == ("New", "Phone")


async def test_writes_when_automations_are_skipped_then_the_trigger_is_empty(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho, automations="skip")
    made = await driver.create_record(write(1, person(1)))
    await driver.delete_record(Object.LEAD, made.remote_id)
    assert sent(zoho, "/Leads")[0]["trigger"] == []
    assert zoho.requests[-1].query["wf_trigger"] == "false"
    running = await connected(zoho)
    await running.create_record(write(2, person(2)))
    assert "trigger" not in sent(zoho, "/Leads")[0]


@pytest.mark.parametrize(
    ("obj", "link", "path", "module"),
    [
        (Object.APPOINTMENT, "customer", "Who_Id", ""),
        (Object.APPOINTMENT, "lead", "What_Id", "Leads"),
        (Object.ACTIVITY, "deal", "What_Id", "Deals"),
        (Object.CASE, "customer", "Related_To", ""),
    ],
)
async def test_links_when_written_then_the_lookup_and_the_module_beside_it(
    zoho: ZohoEmulator, obj: Object, link: str, path: str, module: str
) -> None:
    driver = await connected(zoho)
    other = await driver.create_record(
        write(1, person(1) if link != "deal" else {"Deal_Name": "A"}, Object(link))
    )
    when = {"Start_DateTime": "2027-01-15T14:30:00+04:00", "End_DateTime": "2027-01-15T15:30:00+04:00"}
    fields: dict[Object, dict[str, Any]] = {
        Object.APPOINTMENT: {"Event_Title": "Viewing", **when},
        Object.ACTIVITY: {"Subject": "Call", "Call_Type": "Inbound", "Call_Start_Time": when["End_DateTime"]},
        Object.CASE: {"Subject": "Invoice"},
    }
    made = await driver.create_record(write(2, fields[obj], obj, links={link: other.remote_id}))
    record = await driver.get_record(obj, made.remote_id)
    assert record.native[path]["id"] == other.remote_id
    assert sent(zoho, f"/{MANIFEST.objects[obj].native}")[0]["data"][0].get("$se_module", "") == module


async def test_note_when_it_stands_on_nothing_or_on_two_records_then_refused_before_a_call(
    zoho: ZohoEmulator,
) -> None:
    driver = await connected(zoho)
    for links in ({}, {"customer": "5545974000020000001", "lead": "5545974000010000001"}):
        with pytest.raises(ValidationError):
            await driver.create_record(write(1, {"Note_Content": "Hello"}, Object.NOTE, links=links))
    assert not zoho.requests


async def test_call_when_written_then_minutes_and_seconds_and_read_back_as_seconds(
    zoho: ZohoEmulator,
) -> None:
    driver = await connected(zoho)
    fields = {"Subject": "Call", "Call_Type": "Inbound", "Call_Start_Time": "2026-11-02T09:00:00+00:00"}
    for seconds, text in ((270, "04:30"), (0, "00:00"), (7205, "120:05")):
        made = await driver.create_record(
            write(seconds, {**fields, "kind": "call", "Call_Duration": seconds}, Object.ACTIVITY)
        )
        assert zoho.records.find("Calls", made.remote_id).fields["Call_Duration"] == text  # type: ignore[union-attr]
        assert (await driver.get_record(Object.ACTIVITY, made.remote_id)).native["Call_Duration"] == seconds


async def test_writes_when_another_module_is_mapped_or_a_key_is_zohos_own_then_refused(
    zoho: ZohoEmulator,
) -> None:
    driver = await connected(zoho)
    related = [RelatedWrite(native_object="Deals", fields={"Amount": 1})]
    for one in (write(1, person(1), related=related), write(2, {**person(2), "$approved": True})):
        with pytest.raises(ValidationError):
            await driver.create_record(one)
    assert not zoho.requests


# -- erasure -----------------------------------------------------------------------------------------------------


async def test_erase_when_done_then_neither_in_the_module_nor_in_the_bin(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    made = await driver.create_record(write(1, person(1)))
    assert await driver.erase_record(Object.LEAD, made.remote_id) is DeleteLevel.HARD
    assert not zoho.records.table("Leads").rows
    assert zoho.calls == {"create": 1, "delete": 1, "bin.delete": 1}


async def test_erase_when_the_record_lies_in_the_bin_then_it_is_removed_from_there(
    zoho: ZohoEmulator,
) -> None:
    driver = await connected(zoho)
    made = await driver.create_record(write(1, person(1)))
    await driver.delete_record(Object.LEAD, made.remote_id)
    assert await driver.erase_record(Object.LEAD, made.remote_id) is DeleteLevel.HARD
    assert not zoho.records.table("Leads").rows


async def test_erase_when_the_bin_may_not_be_emptied_then_the_error_says_where_the_record_is(
    zoho: ZohoEmulator,
) -> None:
    driver = await connected(zoho)
    made = await driver.create_record(write(1, person(1)))
    zoho.missing_scopes = {"ZohoCRM.settings.recycle_bin.DELETE"}
    with pytest.raises(AuthError, match="recycle bin") as caught:
        await driver.erase_record(Object.LEAD, made.remote_id)
    assert caught.value.provider_facts["scope"] == "ZohoCRM.settings.recycle_bin.DELETE"
    assert zoho.records.table("Leads").rows[int(made.remote_id)].is_archived


@pytest.mark.parametrize("status", [200, 202])
async def test_erase_when_the_bin_gives_no_plain_answer_then_unexpected(
    zoho: ZohoEmulator, status: int
) -> None:
    driver = await connected(zoho)
    made = await driver.create_record(write(1, person(1)))
    row = {"code": "SCHEDULED", "status": "success", "details": {}} if status == 202 else {"status": ""}
    zoho.faults.add("status", operation="bin.delete", status=status, body={"recycle_bin": [row]})
    with pytest.raises(UnexpectedResponse) as caught:
        await driver.erase_record(Object.LEAD, made.remote_id)
    assert caught.value.outcome is Outcome.UNKNOWN


# -- limits ------------------------------------------------------------------------------------------------------


async def test_credits_when_used_up_then_rate_limited_for_long_and_told_at_the_test(
    zoho: ZohoEmulator,
) -> None:
    zoho.credits = 30
    proof = await Zoho(access_to(zoho)).test_connection()
    assert proof.warnings == []
    driver = await connected(zoho)
    proof = await driver.test_connection()
    left = int(proof.facts["budget.daily-remaining"])
    assert str(left) in proof.warnings[0]
    results = await driver.write_batch([write(n, person(n)) for n in range(100)])
    assert {one.outcome for one in results} == {Outcome.NOT_APPLIED}
    error = results[0].error
    assert isinstance(error, RateLimited)
    assert error.retry_after_seconds == 10.0
    assert error.provider_facts["credits_remaining"] == left
    zoho.credits = zoho.credits_used
    with pytest.raises(RateLimited) as caught:
        await driver.create_record(write(1, person(1)))
    assert caught.value.retry_after_seconds == 900.0


async def test_concurrency_when_exceeded_then_rate_limited(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    zoho.concurrency = 0
    with pytest.raises(RateLimited) as caught:
        await driver.create_record(write(1, person(1)))
    assert caught.value.outcome is Outcome.NOT_APPLIED


def test_manifest_when_read_then_as_many_in_flight_as_the_smallest_edition_allows() -> None:
    assert MANIFEST.in_flight_limit() == 5


async def test_preview_when_asked_then_the_request_and_nothing_leaves(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    shown = msgspec.to_builtins(driver.preview(write(1, person(1))))
    assert (shown["method"], shown["path"]) == ("POST", "/crm/v8/Leads")
    assert shown["body"]["data"][0]["crmbridge_mark"] == "t1-target-1"
    shown = driver.preview(write(2, {}, operation=Operation.DELETE, remote_id="5"))
    assert shown == {"method": "DELETE", "path": "/crm/v8/Leads", "query": {"ids": "5"}}
    assert not zoho.requests


async def test_batch_when_a_refused_row_speaks_of_another_then_neithers_values_are_shown(
    zoho: ZohoEmulator,
) -> None:
    driver = await connected(zoho)
    said = "Lin 0 of mei.0@example.com stands before lin 99, mei.99@example.com"
    row = {"status": "error", "code": "INVALID_DATA", "message": said, "details": {}}
    zoho.faults.add("status", operation="create", status=400, body={"data": [row] * 100})
    results = await driver.write_batch([write(n, person(n)) for n in range(100)])
    shown = " ".join(str(one.error.to_dict()) for one in results if isinstance(one.error, CrmError)).lower()
    assert "[value] of [value] stands before [value]" in shown
    assert "lin 0" not in shown and "lin 99" not in shown and "mei." not in shown
