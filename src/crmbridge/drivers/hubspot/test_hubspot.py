"""The contract on the emulated HubSpot in its variants, then one test per oddity of batches and marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from crmbridge.conformance import DriverContract
from crmbridge.core.driver import CrmDriver
from crmbridge.core.errors import (
    Conflict,
    NotFound,
    Unavailable,
    UnexpectedResponse,
    ValidationError,
)
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Filter, Object
from crmbridge.drivers.hubspot.driver import HubSpot
from crmbridge.drivers.hubspot.emulator import HubSpotEmulator
from crmbridge.drivers.hubspot.test_kit import UNKNOWN, connected, person, sent, write
from crmbridge.emulation import Emulator

FIXTURES = Path(__file__).parent / "fixtures"
HALF = "provider: two records; the half that stands is found by its mark when the write is sent again (own test below)"


class TestHubSpot(DriverContract):
    driver: ClassVar[type[CrmDriver]] = HubSpot
    emulator: ClassVar[type[Emulator] | None] = HubSpotEmulator
    refused: ClassVar[dict[Object, dict[str, Any]]] = dict.fromkeys(Object, UNKNOWN)


class TestHubSpotWithDeals(TestHubSpot):
    """Every lead is a contact with a deal: a batch of the declared size is two calls."""

    settings: ClassVar[dict[str, str]] = {"lead_as": "deal"}
    gaps: ClassVar[dict[str, str]] = {
        "test_batch_of_the_declared_size_is_one_call__lead": "provider: one call for the contacts, one for the deals",
        "test_create_when_answer_lost_after_commit_then_one_record__lead": HALF,
    }


class TestHubSpotWithNativeLeads(TestHubSpot):
    settings: ClassVar[dict[str, str]] = {"lead_as": "lead"}
    gaps: ClassVar[dict[str, str]] = {
        "test_batch_of_the_declared_size_is_one_call__lead": "provider: one call for the contacts, one for the leads",
        "test_create_when_answer_lost_after_commit_then_one_record__lead": HALF,
    }


class TestHubSpotWithAppointments(TestHubSpot):
    """The appointments object has neither place nor notes of its own."""

    settings: ClassVar[dict[str, str]] = {"appointment_as": "appointment"}
    samples: ClassVar[dict[Object, dict[str, Any]]] = {
        Object.APPOINTMENT: {
            "title": "Viewing with Mariam",
            "start_at": "2027-01-15T14:30:00+04:00",
            "end_at": "2027-01-15T15:15:00+04:00",
        }
    }


@pytest.fixture
def hubspot() -> HubSpotEmulator:
    return HubSpotEmulator()


# -- batches ---------------------------------------------------------------------------------------------------


async def test_batch_when_one_row_is_bad_then_it_fails_alone_in_one_call(hubspot: HubSpotEmulator) -> None:
    driver = await connected(hubspot)
    writes = [write(n, {**person(n), **(UNKNOWN if n == 7 else {})}) for n in range(100)]
    results = await driver.write_batch(writes)
    assert [n for n, result in enumerate(results) if result.error] == [7]
    assert isinstance(results[7].error, ValidationError)
    assert results[7].error.fields[0].field == "no_such_property"
    assert hubspot.calls == {"batch.create": 1}
    assert all("objectWriteTraceId" in one for one in sent(hubspot, "/batch/create")[0]["inputs"])


async def test_batch_when_trace_ids_do_not_isolate_then_halves_find_the_bad_row(
    hubspot: HubSpotEmulator,
) -> None:
    driver = await connected(hubspot)
    hubspot.honours_trace_ids = False
    writes = [write(n, {**person(n), **(UNKNOWN if n == 70 else {})}) for n in range(100)]
    results = await driver.write_batch(writes)
    assert [n for n, result in enumerate(results) if result.error] == [70]
    assert len(hubspot.store.numbered("contacts")) == 99
    assert sum(hubspot.calls.values()) <= 16


@pytest.mark.parametrize("announced", [True, False])
async def test_batch_when_partial_success_is_200_or_207_then_errors_are_read(announced: bool) -> None:
    hubspot = HubSpotEmulator()
    driver = await connected(hubspot)
    hubspot.answers_207 = announced
    results = await driver.write_batch([write(1, person(1)), write(2, UNKNOWN), write(3, person(3))])
    assert [result.outcome.value for result in results] == ["applied", "not_applied", "applied"]


async def test_batch_when_trace_ids_are_not_echoed_then_marks_tell_the_rows(hubspot: HubSpotEmulator) -> None:
    driver = await connected(hubspot)
    hubspot.echoes_trace_ids = False
    results = await driver.write_batch([write(n, person(n)) for n in range(5)])
    for number, result in enumerate(results):
        record = await driver.get_record(Object.LEAD, result.remote_id)
        assert record.native["email"] == f"mei.{number}@example.com"


async def test_batch_when_a_row_is_passed_over_then_unknown(hubspot: HubSpotEmulator) -> None:
    driver = await connected(hubspot)
    hubspot.faults.add("wrong_shape", operation="batch.create", body={"status": "PROCESSING", "results": []})
    results = await driver.write_batch([write(n, person(n)) for n in range(2)])
    assert {result.outcome for result in results} == {Outcome.UNKNOWN}
    assert all(isinstance(result.error, UnexpectedResponse) for result in results)


async def test_updates_when_one_record_twice_then_in_order_and_no_duplicate_ids(
    hubspot: HubSpotEmulator,
) -> None:
    driver = await connected(hubspot)
    ids = [one.remote_id for one in await driver.write_batch([write(n, person(n)) for n in range(3)])]
    changes = [(ids[0], "A"), (ids[1], "B"), (ids[0], "C"), (ids[2], "D")]
    writes = [
        write(n, {"city": city}, operation=Operation.UPDATE, remote_id=one)
        for n, (one, city) in enumerate(changes)
    ]
    assert {one.outcome for one in await driver.write_batch(writes)} == {Outcome.APPLIED}
    assert (await driver.get_record(Object.LEAD, ids[0])).native["city"] == "C"


async def test_updates_when_one_row_is_bad_then_it_fails_alone_in_one_call(hubspot: HubSpotEmulator) -> None:
    driver = await connected(hubspot)
    made = [one.remote_id for one in await driver.write_batch([write(n, person(n)) for n in range(50)])]
    hubspot.calls.clear()
    writes = [
        write(n, UNKNOWN if n == 7 else {"city": "Dubai"}, operation=Operation.UPDATE, remote_id=one)
        for n, one in enumerate(made)
    ]
    results = await driver.write_batch(writes)
    assert [n for n, result in enumerate(results) if result.error] == [7]
    assert [result.remote_id for result in results] == made
    assert hubspot.calls == {"batch.update": 1}


async def test_updates_when_trace_ids_do_not_isolate_then_halves_find_the_bad_row(
    hubspot: HubSpotEmulator,
) -> None:
    driver = await connected(hubspot)
    made = [one.remote_id for one in await driver.write_batch([write(n, person(n)) for n in range(100)])]
    hubspot.honours_trace_ids = False
    hubspot.calls.clear()
    writes = [
        write(n, UNKNOWN if n == 70 else {"city": "Dubai"}, operation=Operation.UPDATE, remote_id=one)
        for n, one in enumerate(made)
    ]
    results = await driver.write_batch(writes)
    assert [n for n, result in enumerate(results) if result.error] == [70]
    assert sum(hubspot.calls.values()) <= 16


async def test_batch_answer_when_rows_come_in_another_order_then_told_by_trace_id(
    hubspot: HubSpotEmulator,
) -> None:
    driver = await connected(hubspot)
    body = msgspec.json.decode((FIXTURES / "batch.create.partial.json").read_bytes())
    hubspot.faults.add("wrong_shape", operation="batch.create", body=body)
    hubspot.faults.add("wrong_shape", operation="batch.read", body={"status": "COMPLETE", "results": []})
    results = await driver.write_batch([write(n, person(n)) for n in range(3)])
    assert [result.remote_id for result in results] == ["10301", "", "10303"]
    assert isinstance(results[1].error, Conflict)
    assert results[1].error.existing_remote_id == "10101"


async def test_batch_answer_when_an_id_is_missing_then_tried_alone_and_not_found(
    hubspot: HubSpotEmulator,
) -> None:
    driver = await connected(hubspot)
    body = msgspec.json.decode((FIXTURES / "batch.update.missing.json").read_bytes())
    hubspot.faults.add("wrong_shape", operation="batch.update", body=body)
    writes = [
        write(n, {"city": "Dubai"}, operation=Operation.UPDATE, remote_id=one)
        for n, one in enumerate(["10301", "10999"])
    ]
    results = await driver.write_batch(writes)
    assert (results[0].outcome, results[0].remote_id) == (Outcome.APPLIED, "10301")
    assert isinstance(results[1].error, NotFound)
    assert hubspot.calls == {"batch.update": 1, "update": 1}


async def test_updates_when_one_link_leads_nowhere_then_that_write_fails_alone(
    hubspot: HubSpotEmulator,
) -> None:
    driver = await connected(hubspot)
    customer = await driver.create_record(write(1, person(1), Object.CUSTOMER))
    made = await driver.write_batch([write(n, {"dealname": f"Deal {n}"}, Object.DEAL) for n in (2, 3)])
    writes = [
        write(
            9, {}, Object.DEAL, operation=Operation.UPDATE, remote_id=deal.remote_id, links={"customer": one}
        )
        for deal, one in zip(made, ("999999", customer.remote_id), strict=True)
    ]
    results = await driver.write_batch(writes)
    assert isinstance(results[0].error, NotFound)
    assert results[1].outcome is Outcome.APPLIED
    assert ("contacts", customer.remote_id) in hubspot.links["deals", made[1].remote_id]


async def test_update_when_record_was_merged_away_then_the_survivor_changes(hubspot: HubSpotEmulator) -> None:
    driver = await connected(hubspot)
    made = [one.remote_id for one in await driver.write_batch([write(n, person(n)) for n in range(3)])]
    hubspot.records.archive("contacts", made[1])
    hubspot.merged[made[1]] = made[0]
    writes = [write(n, {"city": "Dubai"}, operation=Operation.UPDATE, remote_id=made[n]) for n in (1, 2)]
    results = await driver.write_batch(writes)
    assert [result.remote_id for result in results] == [made[0], made[2]]
    assert (await driver.get_record(Object.LEAD, made[1])).remote_id == made[0]


async def test_deletes_in_a_batch_when_some_are_missing_then_not_found_for_those(
    hubspot: HubSpotEmulator,
) -> None:
    driver = await connected(hubspot)
    made = [one.remote_id for one in await driver.write_batch([write(n, person(n)) for n in range(2)])]
    writes = [
        write(n, {}, operation=Operation.DELETE, remote_id=one) for n, one in enumerate([*made, "999999"])
    ]
    results = await driver.write_batch(writes)
    assert [result.delete_level for result in results] == ["soft", "soft", ""]
    assert isinstance(results[2].error, NotFound)
    assert hubspot.calls == {"batch.create": 1, "batch.read": 1, "batch.archive": 1}


@pytest.mark.parametrize(("lead_as", "most"), [("contact", 100), ("lead", 200), ("deal", 200)])
async def test_backlog_of_10000_leads_when_sent_then_as_few_calls_as_promised(
    lead_as: str, most: int
) -> None:
    hubspot = HubSpotEmulator()
    driver = await connected(hubspot, lead_as=lead_as)
    hubspot.quotas.clear()
    for start in range(0, 10_000, 100):
        results = await driver.write_batch([write(n, person(n)) for n in range(start, start + 100)])
        assert all(result.outcome is Outcome.APPLIED for result in results)
    assert sum(hubspot.calls.values()) <= most


# -- marks and conflicts -------------------------------------------------------------------------------------------


async def test_create_when_email_is_taken_then_conflict_with_the_id_from_prose(
    hubspot: HubSpotEmulator,
) -> None:
    driver = await connected(hubspot)
    first = await driver.create_record(write(1, person(1)))
    with pytest.raises(Conflict) as caught:
        await driver.create_record(write(2, person(1)))
    assert caught.value.existing_remote_id == first.remote_id
    results = await driver.write_batch([write(3, person(3)), write(4, person(1))])
    assert isinstance(results[1].error, Conflict)
    assert results[1].error.existing_remote_id == first.remote_id


async def test_batch_when_sent_again_then_the_same_records(hubspot: HubSpotEmulator) -> None:
    driver = await connected(hubspot)
    writes = [write(n, {"dealname": f"Deal {n}"}, Object.DEAL) for n in range(5)]
    first = await driver.write_batch(writes)
    again = await driver.write_batch(writes)
    assert [one.remote_id for one in again] == [one.remote_id for one in first]
    assert len(hubspot.store.numbered("deals")) == 5


async def test_prepare_when_the_property_cannot_be_unique_then_lost_creates_stay_unknown() -> None:
    hubspot = HubSpotEmulator()
    hubspot.can_be_unique = False
    driver = await connected(hubspot)
    assert driver.access.facts["marks"] == ""
    lost = write(1, {"dealname": "A"}, Object.DEAL)
    hubspot.faults.add("cut_after", operation="create")
    with pytest.raises(Unavailable):
        await driver.create_record(lost)
    assert (await driver.find_written(lost)).outcome is Outcome.UNKNOWN


async def test_prepare_when_schema_scope_is_missing_then_no_mark_and_no_error() -> None:
    hubspot = HubSpotEmulator()
    hubspot.missing_scopes = {"crm.schemas.deals.write", "crm.objects.calls.read"}
    marks = (await connected(hubspot)).access.facts["marks"].split()
    assert "contacts" in marks
    assert not {"deals", "calls"} & set(marks)


async def test_find_written_when_search_lags_then_the_mark_is_read_without_lag(
    hubspot: HubSpotEmulator,
) -> None:
    driver = await connected(hubspot)
    hubspot.store.search_lag_seconds = 3600.0
    lost = write(1, person(1))
    made = await driver.create_record(lost)
    assert (await driver.find_written(lost)).remote_id == made.remote_id
    assert not (
        await driver.search_records(Object.LEAD, Filter(equals={"email": "mei.1@example.com"}))
    ).records


async def test_upsert_when_two_race_then_the_loser_updates(hubspot: HubSpotEmulator) -> None:
    driver = await connected(hubspot)
    made = await driver.create_record(write(1, person(1)))
    hubspot.faults.add("wrong_shape", operation="batch.read", body={"status": "COMPLETE", "results": []})
    email = person(1)["email"]
    upsert = write(2, {**person(1), "city": "Dubai"}, operation=Operation.UPSERT, match={"email": email})
    result = await driver.upsert_record(upsert)
    assert (result.remote_id, result.was_created) == (made.remote_id, False)
    assert (await driver.get_record(Object.LEAD, made.remote_id)).native["city"] == "Dubai"


async def test_upsert_when_several_match_then_conflict(hubspot: HubSpotEmulator) -> None:
    driver = await connected(hubspot)
    await driver.write_batch([write(n, {"dealname": "Same"}, Object.DEAL) for n in range(2)])
    hubspot.clock.advance(60)
    with pytest.raises(Conflict):
        await driver.upsert_record(
            write(
                3, {"dealname": "Same"}, Object.DEAL, operation=Operation.UPSERT, match={"dealname": "Same"}
            )
        )


async def test_upserts_by_email_when_in_a_batch_then_three_calls(hubspot: HubSpotEmulator) -> None:
    driver = await connected(hubspot)
    await driver.write_batch([write(n, person(n)) for n in range(50)])
    hubspot.calls.clear()
    upserts = [
        write(n + 1000, person(n), operation=Operation.UPSERT, match={"email": person(n)["email"]})
        for n in range(100)
    ]
    results = await driver.write_batch(upserts)
    assert [one.was_created for one in results] == [False] * 50 + [True] * 50
    assert hubspot.calls == {"batch.read": 1, "batch.update": 1, "batch.create": 1}
