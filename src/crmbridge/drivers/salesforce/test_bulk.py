"""Bulk API 2.0 jobs: what they are used for, and one outcome per write whatever becomes of a job."""

from __future__ import annotations

from typing import Any

import pytest

from crmbridge.core.errors import AuthError, CrmError, Unavailable, ValidationError
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object, WriteResult
from crmbridge.drivers.salesforce import bulk
from crmbridge.drivers.salesforce.driver import Salesforce
from crmbridge.drivers.salesforce.emulator import SalesforceEmulator
from crmbridge.drivers.salesforce.test_kit import MARK, connected, person, write


@pytest.fixture(autouse=True)
def small_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(bulk, "THRESHOLD", 20)


@pytest.fixture
def org() -> SalesforceEmulator:
    return SalesforceEmulator()


def leads(count: int, **changed: dict[str, Any]) -> list[Any]:
    return [write(n, {**person(n), **changed.get(f"n{n}", {})}) for n in range(count)]


async def check_order(driver: Salesforce, results: list[WriteResult], count: int) -> None:
    for number in (0, 1, count // 2, count - 1):
        record = await driver.get_record(Object.LEAD, results[number].remote_id)
        assert record.native["LastName"] == f"Lin {number}"


async def test_writes_when_10000_at_once_then_a_few_calls_and_results_in_order(
    org: SalesforceEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "THRESHOLD", 2_000)
    driver = await connected(org)
    results = await driver.write_batch(leads(10_000))
    assert {one.outcome for one in results} == {Outcome.APPLIED}
    assert sum(org.calls.values()) <= 10
    await check_order(driver, results, 10_000)


@pytest.mark.parametrize(("count", "is_job"), [(20, False), (21, True)])
async def test_writes_when_at_the_threshold_then_collections_and_above_a_job(
    org: SalesforceEmulator, count: int, is_job: bool
) -> None:
    driver = await connected(org)
    await driver.write_batch(leads(count))
    assert ("job.open" in org.calls) is is_job
    assert ("collection.create" in org.calls) is not is_job


async def test_job_when_rows_are_refused_then_each_has_its_error_and_the_rest_pass(
    org: SalesforceEmulator,
) -> None:
    driver = await connected(org)
    results = await driver.write_batch(leads(30, n7={"Email": "nobody at all"}, n9={"LastName": ""}))
    assert [n for n, one in enumerate(results) if one.error] == [7, 9]
    error = results[7].error
    assert isinstance(error, ValidationError)
    assert error.fields[0].field == "Email"
    assert "nobody" not in str(error)
    assert error.outcome is Outcome.NOT_APPLIED
    await check_order(driver, results, 6)


async def test_job_when_sent_again_then_the_same_records(org: SalesforceEmulator) -> None:
    driver = await connected(org)
    first = await driver.write_batch(leads(30))
    again = await driver.write_batch(leads(30))
    assert [one.remote_id for one in again] == [one.remote_id for one in first]
    assert {one.outcome for one in again} == {Outcome.APPLIED}
    assert len(org.table("Lead")) == 30


async def test_job_when_it_stops_midway_then_the_rest_may_be_sent_again(org: SalesforceEmulator) -> None:
    driver = await connected(org)
    org.stops_bulk_after = 10
    results = await driver.write_batch(leads(30))
    assert [one.outcome for one in results] == [Outcome.APPLIED] * 10 + [Outcome.NOT_APPLIED] * 20
    assert all(isinstance(one.error, CrmError) and one.error.retry_safe for one in results[10:])


async def test_job_when_the_answer_to_its_closing_is_lost_then_its_state_tells(
    org: SalesforceEmulator,
) -> None:
    driver = await connected(org)
    org.faults.add("cut_after", operation="job.close")
    results = await driver.write_batch(leads(30))
    assert {one.outcome for one in results} == {Outcome.APPLIED}


async def test_job_when_its_closing_is_refused_then_not_applied(org: SalesforceEmulator) -> None:
    driver = await connected(org)
    org.faults.add("status", operation="job.close", status=400)
    results = await driver.write_batch(leads(30))
    assert {one.outcome for one in results} == {Outcome.NOT_APPLIED}


async def test_job_when_it_was_never_closed_then_unknown_and_found_absent(org: SalesforceEmulator) -> None:
    driver = await connected(org)
    org.faults.add("cut_before", operation="job.close")
    writes = leads(30)
    results = await driver.write_batch(writes)
    assert {one.outcome for one in results} == {Outcome.UNKNOWN}
    assert (await driver.find_written(writes[3])).outcome is Outcome.NOT_APPLIED


async def test_job_when_it_does_not_end_in_time_then_unknown(
    org: SalesforceEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "JOB_SECONDS", 0.05)
    driver = await connected(org)
    org.bulk_looks = 10**9
    results = await driver.write_batch(leads(30))
    assert {one.outcome for one in results} == {Outcome.UNKNOWN}
    assert all(isinstance(one.error, Unavailable) and not one.error.retry_safe for one in results)


async def test_job_when_a_look_fails_then_it_is_looked_at_again(org: SalesforceEmulator) -> None:
    driver = await connected(org)
    org.faults.add("status", operation="job.look", status=503, times=2)
    org.faults.add("status", operation="job.look", status=429, retry_after="0")
    results = await driver.write_batch(leads(30))
    assert {one.outcome for one in results} == {Outcome.APPLIED}


@pytest.mark.parametrize("operation", ["job.open", "job.fill"])
@pytest.mark.parametrize("kind", ["cut_after", "html"])
async def test_job_when_it_fails_before_its_closing_then_not_applied(
    org: SalesforceEmulator, operation: str, kind: str
) -> None:
    driver = await connected(org)
    org.faults.add(kind, operation=operation, times=0)
    results = await driver.write_batch(leads(30))
    assert {one.outcome for one in results} == {Outcome.NOT_APPLIED}
    assert all(isinstance(one.error, CrmError) and one.error.retry_safe for one in results)
    assert len(org.table("Lead")) == 0


async def test_job_when_the_user_may_not_then_each_write_says_so(org: SalesforceEmulator) -> None:
    driver = await connected(org)
    org.faults.add("status", operation="job.open", status=403, times=0)
    results = await driver.write_batch(leads(30))
    assert all(isinstance(one.error, AuthError) for one in results)


@pytest.mark.parametrize("name", ["successfulResults", "failedResults", "unprocessedrecords"])
@pytest.mark.parametrize("kind", ["html", "garbage", "status", "cut_before"])
async def test_job_when_a_result_file_cannot_be_read_then_its_rows_are_unknown(
    org: SalesforceEmulator, name: str, kind: str
) -> None:
    driver = await connected(org)
    org.stops_bulk_after = 20
    org.faults.add(kind, path=f"*/{name}", times=0)
    results = await driver.write_batch(leads(30, n5={"Email": "bad"}))
    untold = {"successfulResults": range(30), "failedResults": [5, *range(20, 30)]}.get(name, range(20, 30))
    assert [n for n, one in enumerate(results) if one.outcome is Outcome.UNKNOWN] == list(untold)


async def test_job_when_the_object_has_no_bulk_service_then_collections(org: SalesforceEmulator) -> None:
    driver = await connected(org)
    org.not_in_bulk = {"Lead"}
    results = await driver.write_batch(leads(30))
    assert {one.outcome for one in results} == {Outcome.APPLIED}
    assert org.calls == {"job.open": 1, "collection.create": 1}


async def test_job_when_csv_cannot_say_a_value_then_that_row_goes_another_way(
    org: SalesforceEmulator,
) -> None:
    driver = await connected(org)
    hard = {
        "n3": {"City": "#N/A"},
        "n4": {"Description": 'quotes "here", commas,\nlines'},
        "n5": {"Description": "  "},
    }
    results = await driver.write_batch(leads(30, **hard))
    assert {one.outcome for one in results} == {Outcome.APPLIED}
    rows = [org.table("Lead").rows[one.remote_id].fields for one in results]
    assert rows[3]["City"] == "#N/A"
    assert rows[4]["Description"] == 'quotes "here", commas,\nlines'
    assert org.calls["create"] == 1


async def test_jobs_when_there_is_much_to_say_then_several(
    org: SalesforceEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "MOST_BYTES", 2_000)
    driver = await connected(org)
    results = await driver.write_batch(leads(30))
    assert {one.outcome for one in results} == {Outcome.APPLIED}
    assert org.calls["job.open"] > 1
    await check_order(driver, results, 30)


async def test_creates_when_the_mark_is_not_unique_then_no_job(org: SalesforceEmulator) -> None:
    org.fields["Lead"][MARK]["unique"] = False
    driver = await connected(org)
    await driver.write_batch(leads(30))
    assert "job.open" not in org.calls


async def test_updates_and_deletes_when_many_then_jobs_too(org: SalesforceEmulator) -> None:
    driver = await connected(org)
    ids = [one.remote_id for one in await driver.write_batch(leads(30, n1={"City": "Old"}))]
    ids[2] = "00QHu0000009999MAA"
    org.calls.clear()
    changes = [
        write(n, {"City": None, "Phone": f"+1415555{n:04d}"}, operation=Operation.UPDATE, remote_id=one)
        for n, one in enumerate(ids)
    ]
    results = await driver.write_batch(changes)
    assert [n for n, one in enumerate(results) if one.error] == [2]
    assert results[2].outcome is Outcome.NOT_APPLIED
    fields = org.table("Lead").rows[ids[1]].fields
    assert (fields["City"], fields["Phone"]) == (None, "+14155550001")
    removals = [write(n, {}, operation=Operation.DELETE, remote_id=one) for n, one in enumerate(ids)]
    results = await driver.write_batch(removals)
    assert [n for n, one in enumerate(results) if one.delete_level != "soft"] == [2]
    assert org.calls["job.open"] == 2
    assert "collection.delete" not in org.calls
