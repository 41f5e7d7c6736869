"""Draining: batches, order, dependencies, errors, back-off, waiting, and people's steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import msgspec
import pytest
from tests.integration.delivery_fakes import (
    FAST,
    FakeProvider,
    Fault,
    House,
    build,
    customer,
    manifest_of,
    note,
    update,
)

from crmbridge.core.errors import (
    AuthError,
    Conflict,
    CrmError,
    NotConfigured,
    NotFound,
    RateLimited,
    Unavailable,
    ValidationError,
)
from crmbridge.core.operations import Outcome
from crmbridge.core.records import Object
from crmbridge.db.jobs import PgQueuerJobs
from crmbridge.db.pool import Database
from crmbridge.db.roles import RoleDsns
from crmbridge.services.delivery.model import TargetState

pytestmark = pytest.mark.postgres


@pytest.fixture
async def house(database: Database) -> AsyncIterator[House]:
    built = await build(database)
    yield built
    await built.delivery.close()
    await built.audit.close()


async def test_drain_when_many_wait_then_full_batches_one_audit_row_each_and_one_attempt_per_target(
    house: House,
) -> None:
    for _ in range(250):
        await house.accept(customer())
    await house.drain()
    assert [len(marks) for marks in house.provider.calls("send")] == [100, 100, 50]
    assert len(set(house.provider.effects)) == 250
    targets = await house.fetch("select state, outcome, remote_id, attempt_count from write_targets")
    assert {(t["state"], t["outcome"], t["attempt_count"]) for t in targets} == {("applied", "applied", 1)}
    assert all(t["remote_id"].startswith("r-") for t in targets)
    attempts = await house.fetch("select kind, outcome, batch_size, batch_id from attempts")
    assert len(attempts) == 250 and len({a["batch_id"] for a in attempts}) == 3
    calls = await house.fetch("select details from audit_log where action = 'crm.call'")
    assert sorted(call["details"]["records"] for call in calls) == [50, 100, 100]
    lane = (await house.fetch("select * from lanes"))[0]
    assert lane["leased_until"] is None and lane["next_due"] is None and lane["owner"] == ""


async def test_drain_when_nothing_is_due_or_lane_is_taken_then_nothing_happens(house: House) -> None:
    assert await house.delivery.drain(house.connection.id) is False
    await house.accept(customer())
    house.provider.latency = 0.2
    first = asyncio.create_task(house.delivery.drain(house.connection.id))
    await asyncio.sleep(0.1)
    assert await house.delivery.drain(house.connection.id) is False
    assert await first is True
    assert len(house.provider.calls("send")) == 1


async def test_drain_when_accepts_come_during_a_call_then_it_reads_again(house: House) -> None:
    house.provider.latency = 0.1
    await house.accept(customer())
    running = asyncio.create_task(house.delivery.drain(house.connection.id))
    await asyncio.sleep(0.05)
    await house.accept(customer())
    await running
    assert len(house.provider.effects) == 2
    await house.delivery.close()
    assert len(house.jobs.queue) == 1  # the running drain needs no second job


async def test_drain_when_one_of_a_batch_is_refused_then_it_alone_is_a_dead_letter(house: House) -> None:
    good = [await house.accept(customer()) for _ in range(3)]
    bad = await house.accept(customer(last_name="poison"))
    good += [await house.accept(customer()) for _ in range(3)]
    await house.drain()
    assert len(house.provider.calls("send")) == 1
    assert {await house.state(one) for one in good} == {TargetState.APPLIED}
    target = (await house.read(bad)).targets[0]
    assert target.state is TargetState.DEAD_LETTER and target.outcome == "not_applied"
    assert target.error is not None and target.error["fields"][0]["field"] == "last_name"


async def test_drain_when_same_record_is_written_often_then_in_order(house: House) -> None:
    for number in range(5):
        await house.accept(update("r-1", last_name=str(number)))
        await house.accept(update("r-2", last_name=str(number)))
    await house.drain()
    for record in ("r-1", "r-2"):
        sent = [write.fields["last_name"] for write in house.provider.sent if write.remote_id == record]
        assert sent == ["0", "1", "2", "3", "4"]
    assert [len(marks) for marks in house.provider.calls("send")] == [2] * 5


async def test_drain_when_first_write_to_a_record_fails_for_now_then_the_next_does_not_overtake(
    house: House,
) -> None:
    house.provider.faults.append(Fault(Unavailable("down", retry_safe=True)))
    await house.accept(update("r-1", last_name="first"))
    await house.accept(update("r-1", last_name="second"))
    await house.settle()
    assert [write.fields["last_name"] for write in house.provider.sent] == ["first", "first", "second"]


async def test_drain_when_note_is_linked_to_a_write_then_it_follows_and_gets_its_id(house: House) -> None:
    # An import of the customer, a live note: the note outranks it and must wait all the same.
    first = await house.accept(customer(), priority=1)
    await house.accept(note({"write_id": str(first.write_id)}))
    await house.drain()
    assert [write.object for write in house.provider.sent] == [Object.CUSTOMER, Object.NOTE]
    assert house.provider.sent[1].links == {"customer": f"r-{first.targets[0].id}"}


async def test_drain_when_linked_write_is_given_up_then_note_waits_until_it_is_discarded(
    house: House,
) -> None:
    first = await house.accept(customer(last_name="poison"))
    second = await house.accept(note({"write_id": str(first.write_id)}))
    await house.drain()
    assert await house.state(second) is TargetState.ACCEPTED
    await house.delivery.discard(house.tenant.id, first.write_id, actor="operator:test")
    await house.drain()
    assert await house.state(second) is TargetState.DEAD_LETTER
    assert len(house.provider.calls("send")) == 1


async def test_drain_when_note_is_linked_by_email_then_it_follows_the_create_under_way(house: House) -> None:
    await house.accept(customer(email="jane@example.com"), priority=1)
    await house.accept(note({"email": "Jane@example.com"}))
    house.provider.customers["Jane@example.com"] = "r-jane"
    await house.drain()
    assert [write.object for write in house.provider.sent] == [Object.CUSTOMER, Object.NOTE]
    assert house.provider.sent[1].links == {"customer": "r-jane"}


async def test_drain_when_linked_email_matches_nobody_then_dead_letter_and_no_call(house: House) -> None:
    accepted = await house.accept(note({"email": "nobody@example.com"}))
    await house.drain()
    target = (await house.read(accepted)).targets[0]
    assert target.state is TargetState.DEAD_LETTER
    assert target.error is not None and target.error["fields"][0]["field"] == "links.customer.email"
    assert house.provider.calls("send") == []


async def test_drain_when_import_is_deep_then_live_goes_first(database: Database) -> None:
    house = await build(database, batch=10)
    for _ in range(100):
        await house.accept(customer(last_name="import"), priority=1)
    house.provider.latency = 0.02
    running = asyncio.create_task(house.delivery.drain(house.connection.id))
    await asyncio.sleep(0.03)
    await house.accept(customer(last_name="live"))
    await running
    names = [write.fields["last_name"] for write in house.provider.sent]
    assert names.index("live") < 60
    await house.delivery.close()


async def test_drain_when_turn_is_over_then_lane_is_handed_on(database: Database) -> None:
    limits = msgspec.structs.replace(FAST, turn_seconds=0.15)
    house = await build(database, batch=1, limits=limits)
    house.provider.latency = 0.02
    for _ in range(40):
        await house.accept(customer(), priority=1)
    await house.delivery.drain(house.connection.id)
    assert 1 <= len(house.provider.effects) < 40
    await house.delivery.close()
    assert house.jobs.queue[-1].dedupe_key == f"{house.connection.id}:1"
    await house.settle()
    assert len(house.provider.effects) == len(set(house.provider.effects)) == 40


async def test_drain_when_its_turn_ends_before_what_was_marked_begins_then_it_is_given_back_and_no_attempt(
    database: Database,
) -> None:
    limits = msgspec.structs.replace(FAST, turn_seconds=0.0)
    house = await build(database, batch=1, in_flight=4, limits=limits)
    for _ in range(3):
        await house.accept(customer())
    await house.delivery.drain(house.connection.id)
    await house.delivery.close()
    assert house.provider.sent == []
    rows = await house.fetch("select state, attempt_count from write_targets")
    assert {(row["state"], row["attempt_count"]) for row in rows} == {("retrying", 0)}
    [lane] = await house.fetch("select owner, next_due is not null as is_due from lanes")
    # Nobody has to look for what was never sent.
    assert lane == {"owner": "", "is_due": True}


async def test_drain_when_the_lane_pauses_before_what_was_marked_begins_then_it_is_not_looked_up(
    database: Database,
) -> None:
    house = await build(database, batch=1, in_flight=2)
    house.provider.faults.append(Fault(RateLimited("slow down", retry_after_seconds=0.3)))
    for _ in range(6):
        await house.accept(customer())
    await house.settle(20)
    assert house.provider.calls("look_up") == []
    assert len(house.provider.effects) == len(set(house.provider.effects)) == 6
    await house.delivery.close()


async def test_drain_when_manifest_allows_four_then_four_are_in_flight(database: Database) -> None:
    house = await build(database, batch=1, in_flight=4)
    house.provider.latency = 0.05
    for _ in range(12):
        await house.accept(customer())
    await house.drain()
    assert house.provider.most_in_flight == 4
    assert len(set(house.provider.effects)) == 12
    await house.delivery.close()


# -- errors ----------------------------------------------------------------------------------------------------


async def test_error_when_rate_limited_then_retry_after_holds_the_lane_even_against_accepts(
    house: House,
) -> None:
    house.provider.faults.append(Fault(RateLimited("slow down", retry_after_seconds=0.6)))
    started = monotonic()
    first = await house.accept(customer())
    await house.drain()
    await house.accept(customer())
    await house.drain()
    assert await house.state(first) is TargetState.RETRYING
    assert len(house.provider.calls("send")) == 1
    await house.settle()
    assert monotonic() - started >= 0.6
    assert len(house.provider.calls("send")) == 2 and len(house.provider.effects) == 2
    assert (await house.fetch("select failures, not_before from lanes"))[0] == {
        "failures": 0,
        "not_before": None,
    }


@pytest.mark.parametrize(
    "error",
    [
        AuthError("dead", subcode="refresh_failed"),
        Unavailable("down", retry_safe=True),
        Unavailable("never sent", retry_safe=False),
    ],
)
async def test_error_when_the_lane_is_at_fault_then_its_writes_wait_and_get_through_later(
    house: House, error: CrmError
) -> None:
    house.provider.faults.append(Fault(error, times=3))
    accepted = await house.accept(customer())
    await house.drain()
    target = (await house.read(accepted)).targets[0]
    assert target.state is TargetState.RETRYING
    assert target.error is not None and target.error["code"] == error.code
    await house.settle()
    assert await house.state(accepted) is TargetState.APPLIED
    assert len(house.provider.effects) == 1


@pytest.mark.parametrize(
    "error",
    [
        ValidationError("no"),
        NotFound("gone"),
        Conflict("there"),
        AuthError("right missing", subcode="insufficient_scope"),
    ],
)
async def test_error_when_permanent_then_dead_letter_at_once(house: House, error: CrmError) -> None:
    house.provider.faults.append(Fault(error))
    accepted = await house.accept(customer())
    await house.drain()
    assert await house.state(accepted) is TargetState.DEAD_LETTER
    assert len(house.provider.calls("send")) == 1
    lane = (await house.fetch("select next_due, not_before from lanes"))[0]
    assert lane == {"next_due": None, "not_before": None}


async def test_error_when_connection_cannot_be_opened_then_lane_backs_off_and_wake_ends_it(
    house: House,
) -> None:
    accepted = await house.accept(customer())
    house.connections.closed = NotConfigured("no credential")
    await house.drain()
    assert (await house.fetch("select failures, leased_until from lanes"))[0] == {
        "failures": 1,
        "leased_until": None,
    }
    house.connections.closed = None
    await house.delivery.wake(house.tenant.id, house.connection.id)
    await house.drain()
    assert await house.state(accepted) is TargetState.APPLIED


async def test_error_when_one_connection_fails_then_another_is_not_disturbed(house: House) -> None:
    second = FakeProvider()
    other = await house.add_connection(house.tenant, "second", second, manifest_of(batch=10, in_flight=1))
    house.provider.faults.append(Fault(Unavailable("down", retry_safe=True), times=1000))
    for _ in range(5):
        await house.accept(customer())
        await house.accept(customer(), connections=("second",))
    await asyncio.gather(house.drain(), house.delivery.drain(other.id))
    assert len(second.effects) == 5 and house.provider.effects == []


async def test_error_when_one_write_kills_every_call_then_others_pass_and_it_is_given_up(
    database: Database,
) -> None:
    house = await build(database, limits=msgspec.structs.replace(FAST, alone_after=2, most_attempts=4))
    call = house.provider.call

    async def dying(writes: Any) -> Any:
        if any(write.fields["last_name"] == "killer" for write in writes):
            house.provider.note("send", [write.target_id for write in writes])
            raise Unavailable("500", outcome=Outcome.UNKNOWN)
        return await call(writes)

    house.provider.call = dying  # type: ignore[method-assign]
    good = [await house.accept(customer()) for _ in range(5)]
    killer = await house.accept(customer(last_name="killer"))
    async with asyncio.timeout(20):
        while await house.state(killer) is not TargetState.DEAD_LETTER:
            await house.drain()
            await house.accept(customer())
            await asyncio.sleep(0.02)
    await house.settle()
    assert {await house.state(one) for one in good} == {TargetState.APPLIED}
    target = (await house.read(killer)).targets[0]
    assert target.error is not None and "Given up after 4 attempts" in target.error["message"]
    assert len(house.provider.effects) == len(set(house.provider.effects))
    await house.delivery.close()


async def test_error_when_content_was_erased_or_tampered_with_then_that_write_alone_is_given_up(
    house: House,
) -> None:
    erased, tampered, good = [await house.accept(customer()) for _ in range(3)]
    await house.fetch("update writes set sealed = null where id = $1", erased.write_id)
    await house.fetch("update writes set sealed = sealed || 'x'::bytea where id = $1", tampered.write_id)
    await house.drain()
    assert [await house.state(one) for one in (erased, tampered, good)] == [
        TargetState.DEAD_LETTER,
        TargetState.DEAD_LETTER,
        TargetState.APPLIED,
    ]


# -- waiting ---------------------------------------------------------------------------------------------------


async def test_wait_when_lane_is_idle_then_the_accepting_process_delivers(house: House) -> None:
    accepted = await house.accept(customer(), wait_seconds=5)
    assert accepted.targets[0].state is TargetState.APPLIED
    assert accepted.targets[0].remote_id == f"r-{accepted.targets[0].id}"
    assert house.jobs.queue == []


async def test_wait_when_provider_is_slow_then_current_state_in_time(house: House) -> None:
    house.provider.latency = 0.6
    accepted = await house.accept(customer(), wait_seconds=0.1)
    assert house.provider.in_flight == 1, "the call is still under way"
    assert accepted.targets[0].state is TargetState.SENDING
    await house.delivery.close()
    assert await house.state(accepted) is TargetState.APPLIED


async def test_wait_when_refused_then_the_reason_comes_with_the_answer(house: House) -> None:
    accepted = await house.accept(customer(last_name="poison"), wait_seconds=5)
    assert accepted.targets[0].state is TargetState.DEAD_LETTER
    assert accepted.targets[0].error is not None and accepted.targets[0].error["code"] == "validation_error"


async def test_wait_when_another_process_has_the_lane_then_its_delivery_is_seen(
    house: House, database: Database
) -> None:
    other = await build(database, tenant_id=house.tenant.id, connection_id=house.connection.id)
    other.provider.latency = 0.15
    await house.accept(customer())
    running = asyncio.create_task(other.delivery.drain(house.connection.id))
    await asyncio.sleep(0.05)
    accepted = await house.accept(customer(), wait_seconds=3)
    assert accepted.targets[0].state is TargetState.APPLIED
    assert len(other.provider.effects) == 2 and house.provider.effects == []
    await running
    await other.delivery.close()


# -- sweep and jobs --------------------------------------------------------------------------------------------


async def test_sweep_when_enqueue_was_lost_then_it_finds_the_lane(house: House) -> None:
    house.jobs.drops = True
    accepted = await house.accept(customer())
    await house.delivery.close()
    house.jobs.drops = False
    assert await house.delivery.sweep() == 1
    await house.delivery.drain(house.connection.id)
    assert await house.state(accepted) is TargetState.APPLIED
    assert await house.delivery.sweep() == 0


async def test_sweep_when_lane_is_paused_or_held_back_then_left_alone(house: House) -> None:
    accepted = await house.accept(customer())
    await house.fetch("update lanes set is_paused = true")
    assert await house.delivery.sweep() == 0
    await house.drain()
    assert await house.state(accepted) is TargetState.ACCEPTED
    await house.fetch("update lanes set is_paused = false, not_before = now() + interval '1 hour'")
    assert await house.delivery.sweep() == 0


async def test_jobs_when_real_engine_runs_then_accepts_are_delivered(
    house: House, database_dsns: RoleDsns
) -> None:
    jobs = await PgQueuerJobs.open(database_dsns.scheduler)
    house.delivery._jobs = jobs
    house.delivery.register(jobs)
    stop = asyncio.Event()
    running = asyncio.create_task(jobs.run(stop))
    for _ in range(30):
        await house.accept(customer())
        await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        while await house.pending():
            await asyncio.sleep(0.05)
    stop.set()
    await running
    assert len(house.provider.effects) == len(set(house.provider.effects)) == 30
    await house.delivery.close()
    await jobs.close()


async def test_overdue_when_undelivered_for_a_day_then_one_incident_until_it_caught_up(house: House) -> None:
    house.provider.faults.append(Fault(Unavailable("down", retry_safe=True)))
    await house.accept(customer())
    await house.drain()
    assert await house.delivery.note_overdue() == 0
    await house.fetch("update lanes set waiting_since = waiting_since - interval '25 hours'")
    assert await house.delivery.note_overdue() == 1
    await house.delivery.note_overdue()
    incidents = await house.incidents.list_open(house.tenant.id)
    assert [(i.kind, i.connection_id, i.times_seen) for i in incidents] == [
        ("crm_sync_failure", house.connection.id, 2)
    ]
    await house.settle()
    await house.delivery.note_overdue()
    assert await house.incidents.list_open(house.tenant.id) == []
