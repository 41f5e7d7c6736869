"""Outcomes that are not known: timeouts, cuts, crashes. Never a second effect, never a guess."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import pytest
from tests.integration.delivery_fakes import FAST, Fault, House, build, customer, update

from crmbridge.core.errors import RateLimited, Unavailable
from crmbridge.core.operations import Outcome
from crmbridge.db.errors import DatabaseUnavailable
from crmbridge.db.pool import Database
from crmbridge.db.roles import RoleDsns
from crmbridge.services.delivery.intake import store as intake_store
from crmbridge.services.delivery.lane import store
from crmbridge.services.delivery.lane.drain import Drain
from crmbridge.services.delivery.model import Accepted, TargetState

pytestmark = pytest.mark.postgres
ROOT = Path(__file__).parents[2]


@pytest.fixture
async def house(database: Database) -> AsyncIterator[House]:
    built = await build(database)
    yield built
    await built.delivery.close()
    await built.audit.close()


async def looked_up_then_sent(house: House, accepted: Accepted) -> None:
    """What was marked and never sent is looked up before it goes out, once."""
    await house.settle()
    assert await house.state(accepted) is TargetState.APPLIED
    assert [kind for kind, _ in house.provider.log] == ["look_up", "send", "effect"]
    await house.delivery.close()


def look_up_before_each_repetition(house: House) -> bool:
    """In the provider's log, every second send of a mark has a look-up of it since the send before."""
    looked: dict[str, bool] = {}
    for kind, marks in house.provider.log:
        for mark in marks:
            if kind == "send":
                if not looked.get(mark, True):
                    return False
                looked[mark] = False
            elif kind == "look_up":
                looked[mark] = True
    return True


@pytest.mark.parametrize("how", ["cut_after", "hang"])
async def test_unknown_when_it_took_effect_then_found_and_not_sent_again(house: House, how: str) -> None:
    house.provider.faults.append(Fault(how))
    accepted = await house.accept(customer())
    await house.drain()
    target = (await house.read(accepted)).targets[0]
    assert target.state is TargetState.UNKNOWN and target.outcome == "unknown"
    await house.settle()
    target = (await house.read(accepted)).targets[0]
    assert target.state is TargetState.APPLIED and target.remote_id == f"r-{target.id}"
    assert [kind for kind, _ in house.provider.log] == ["send", "effect", "look_up"]
    kinds = await house.fetch("select kind, outcome from attempts order by id")
    assert [(k["kind"], k["outcome"]) for k in kinds] == [("send", "unknown"), ("look_up", "applied")]


@pytest.mark.parametrize("how", ["cut_before", "bug"])
async def test_unknown_when_it_took_no_effect_then_looked_up_and_sent_again(house: House, how: str) -> None:
    house.provider.faults.append(Fault(how))
    accepted = await house.accept(customer())
    await house.settle()
    assert await house.state(accepted) is TargetState.APPLIED
    assert [kind for kind, _ in house.provider.log] == ["send", "look_up", "send", "effect"]


async def test_unknown_when_a_batch_is_cut_then_each_is_looked_up_and_nothing_doubled(house: House) -> None:
    house.provider.faults.append(Fault("cut_after"))
    for _ in range(10):
        await house.accept(customer())
    await house.settle()
    assert len(house.provider.effects) == len(set(house.provider.effects)) == 10
    assert len(house.provider.calls("send")) == 1 and len(house.provider.calls("look_up")) == 10


async def test_unknown_when_search_lags_then_looked_up_only_after_the_lag(database: Database) -> None:
    house = await build(database, lag=0.5)
    house.provider.faults.append(Fault("cut_after"))
    await house.accept(customer())
    started = monotonic()
    await house.drain()
    await house.settle()
    assert monotonic() - started >= 0.5
    assert len(house.provider.effects) == 1
    await house.delivery.close()


async def test_unknown_when_it_cannot_be_told_then_parked_with_an_incident_and_never_sent(
    house: House,
) -> None:
    house.provider.cannot_tell = True
    house.provider.faults.append(Fault("cut_after"))
    accepted = await house.accept(customer())
    await house.settle()
    assert await house.state(accepted) is TargetState.PARKED
    await house.drain()
    assert len(house.provider.calls("send")) == 1
    incidents = await house.incidents.list_open(house.tenant.id)
    assert [(i.kind, i.details["write_id"]) for i in incidents] == [("write_parked", str(accepted.write_id))]


async def test_unknown_when_parked_then_a_person_redrives_or_discards(house: House) -> None:
    house.provider.cannot_tell = True
    house.provider.faults.append(Fault("cut_before"))
    redriven = await house.accept(customer())
    discarded = await house.accept(customer())
    await house.settle()
    assert len(house.provider.calls("send")) == 1
    assert (await house.delivery.counts(house.tenant.id))[TargetState.PARKED] == 2
    await house.delivery.redrive(
        house.tenant.id, redriven.write_id, without_looking=True, actor="operator:test"
    )
    await house.delivery.discard(house.tenant.id, discarded.write_id, actor="operator:test")
    await house.settle()
    assert house.provider.effects == [str(redriven.targets[0].id)]


async def test_unknown_when_parked_then_later_writes_to_its_record_wait(house: House) -> None:
    house.provider.cannot_tell = True
    house.provider.faults.append(Fault("cut_after"))
    first = await house.accept(update("r-1", last_name="a"))
    await house.settle()
    second = await house.accept(update("r-1", last_name="b"))
    await house.drain()
    assert await house.state(second) is TargetState.ACCEPTED
    await house.delivery.discard(house.tenant.id, first.write_id, actor="operator:test")
    await house.drain()
    assert await house.state(second) is TargetState.APPLIED


async def test_unknown_when_the_look_up_fails_then_looked_up_again(house: House) -> None:
    house.provider.faults.append(Fault("cut_after"))
    house.provider.look_up_faults.extend([RateLimited("later"), Unavailable("down", outcome=Outcome.UNKNOWN)])
    accepted = await house.accept(customer())
    await house.settle()
    assert await house.state(accepted) is TargetState.APPLIED
    assert len(house.provider.calls("look_up")) == 3 and len(house.provider.calls("send")) == 1


async def test_unknown_when_repetition_is_declared_harmless_then_sent_again_after_the_look_up(
    house: House,
) -> None:
    house.provider.cannot_tell = True
    house.provider.faults.append(Fault(Unavailable("cut", outcome=Outcome.UNKNOWN, retry_safe=True)))
    accepted = await house.accept(customer())
    await house.settle()
    assert await house.state(accepted) is TargetState.APPLIED
    assert [kind for kind, _ in house.provider.log] == ["send", "look_up", "send", "effect"]


async def test_unknown_when_a_worker_dies_after_an_earlier_refusal_then_that_is_no_leave_to_repeat(
    house: House,
) -> None:
    """What the first attempt ended with may be repeated; of the second one nobody knows."""
    house.provider.cannot_tell = True
    house.provider.faults += [Fault(RateLimited("slow down", retry_after_seconds=0.01)), Fault("hang")]
    accepted = await house.accept(customer())
    await house.drain()
    assert await house.state(accepted) is TargetState.RETRYING
    async with asyncio.timeout(10):
        dying = asyncio.create_task(house.settle(20))
        while not house.provider.effects:
            await asyncio.sleep(0.005)
    dying.cancel()
    await asyncio.wait({dying})
    assert await house.state(accepted) is TargetState.SENDING
    await house.fetch("update lanes set leased_until = now() - interval '1 second', next_due = now()")
    await house.settle(10)
    assert await house.state(accepted) is TargetState.PARKED
    assert house.provider.effects == [str(accepted.targets[0].id)]


# -- fences ----------------------------------------------------------------------------------------------------


async def until_called(house: House) -> None:
    """Until the provider has a call in hand."""
    async with asyncio.timeout(10):
        while not house.provider.in_flight:
            await asyncio.sleep(0.005)


async def test_fence_when_a_late_worker_saves_then_refused_and_the_truth_is_looked_up(
    database: Database,
) -> None:
    """The first worker loses its lease in the middle of a call; the second one takes the lane over."""
    slow = msgspec.structs.replace(FAST, lease_seconds=60, send_seconds=2.0)
    late = await build(database, limits=slow)
    second = await build(database, tenant_id=late.tenant.id, connection_id=late.connection.id)
    second.provider = late.provider
    second.connection.provider = late.provider
    late.provider.latency = 1.0
    accepted = await late.accept(customer())
    running = asyncio.create_task(late.delivery.drain(late.connection.id))
    await until_called(late)
    assert await late.state(accepted) is TargetState.SENDING
    await late.fetch("update lanes set leased_until = now() - interval '1 second', next_due = now()")
    late.provider.latency = 0
    await second.delivery.drain(late.connection.id)
    assert await late.state(accepted) is TargetState.UNKNOWN
    await running
    assert await late.state(accepted) is TargetState.UNKNOWN  # the late save was refused
    assert (await late.fetch("select count(*) as n from attempts where outcome = 'applied'"))[0]["n"] == 0
    await second.settle()
    assert await late.state(accepted) is TargetState.APPLIED
    assert len(late.provider.effects) == 1 and look_up_before_each_repetition(late)
    for one in (late, second):
        await one.delivery.close()


async def test_fence_when_the_lane_has_a_new_holder_then_a_late_save_is_refused_at_once(house: House) -> None:
    house.provider.latency = 0.5
    accepted = await house.accept(customer())
    running = asyncio.create_task(house.delivery.drain(house.connection.id))
    await until_called(house)
    await house.fetch("update lanes set fence = fence + 1, leased_until = now() + interval '1 second'")
    await running
    assert await house.state(accepted) is TargetState.SENDING
    house.provider.latency = 0
    await house.settle(10)
    assert await house.state(accepted) is TargetState.APPLIED
    assert [kind for kind, _ in house.provider.log] == ["send", "effect", "look_up"]


async def test_fence_when_lease_is_lost_then_nothing_more_is_marked(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):  # one alone would be marked by the statement that takes the lane
        await house.accept(customer())
    call = Drain._deliver

    async def robbed(self: Drain, *rest: object) -> None:
        await house.fetch("update lanes set fence = fence + 1")
        await call(self, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Drain, "_deliver", robbed)
    await house.delivery.drain(house.connection.id)
    assert house.provider.calls("send") == []
    assert (await house.delivery.counts(house.tenant.id))[TargetState.ACCEPTED] == 2


async def test_lease_when_work_is_long_then_renewed_and_nobody_else_gets_in(database: Database) -> None:
    limits = msgspec.structs.replace(FAST, lease_seconds=0.6, send_seconds=5)
    house = await build(database, limits=limits)
    house.provider.latency = 1.5
    await house.accept(customer())
    running = asyncio.create_task(house.delivery.drain(house.connection.id))
    for _ in range(12):
        await asyncio.sleep(0.1)
        assert await house.delivery.sweep() == 0
        assert await house.delivery.drain(house.connection.id) is False
    await running
    assert len(house.provider.calls("send")) == 1
    await house.delivery.close()


async def test_drain_when_two_workers_share_a_lane_then_no_effect_twice_and_order_kept(
    database: Database,
) -> None:
    limits = msgspec.structs.replace(FAST, turn_seconds=0.05)
    one = await build(database, batch=3, limits=limits)
    two = await build(
        database, batch=3, limits=limits, tenant_id=one.tenant.id, connection_id=one.connection.id
    )
    two.connection.provider = two.provider = one.provider
    one.provider.latency = 0.005
    for number in range(30):
        await one.accept(update("r-1", last_name=f"{number:02}"))
        await one.accept(customer())
    await asyncio.gather(one.settle(20), two.settle(20))
    assert len(one.provider.effects) == len(set(one.provider.effects)) == 60
    sent = [write.fields["last_name"] for write in one.provider.sent if write.remote_id == "r-1"]
    assert sent == sorted(sent) and len(sent) == 30
    for house in (one, two):
        await house.delivery.close()


# -- crashes ---------------------------------------------------------------------------------------------------


def start_worker(dsns: RoleDsns, house: House, log: Path, what: str) -> subprocess.Popen[bytes]:
    log.touch()
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.integration.delivery_worker",
            dsns.app,
            dsns.scheduler,
            str(house.tenant.id),
            str(house.connection.id),
            str(log),
            what,
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


async def killed_after(process: subprocess.Popen[bytes], house: House, kind: str) -> None:
    """SIGKILL as soon as the provider's log shows this."""
    try:
        async with asyncio.timeout(40):
            while not house.provider.calls(kind):
                assert process.poll() is None, "the worker ended by itself"
                await asyncio.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize(("what", "kind"), [("drain", "effect"), ("drain_before", "send")])
async def test_crash_when_killed_while_sending_then_looked_up_and_one_effect(
    database: Database, database_dsns: RoleDsns, tmp_path: Path, what: str, kind: str
) -> None:
    log = tmp_path / "provider.log"
    house = await build(database, path=log, batch=2)
    log.touch()
    writes = [await house.accept(customer()) for _ in range(5)]
    await killed_after(start_worker(database_dsns, house, log, what), house, kind)
    counts = await house.delivery.counts(house.tenant.id)
    assert counts[TargetState.SENDING] == 2
    assert await house.delivery.drain(house.connection.id) is False  # the dead worker's lease still holds
    async with asyncio.timeout(10):
        while not await house.delivery.sweep():
            await asyncio.sleep(0.05)
    assert house.jobs.queue[-1].dedupe_key == f"{house.connection.id}:1"
    await house.settle(10)
    assert sorted(house.provider.effects) == sorted(str(write.targets[0].id) for write in writes)
    looked = {mark for marks in house.provider.calls("look_up") for mark in marks}
    assert looked == set(house.provider.calls("send")[0])
    sends = [mark for marks in house.provider.calls("send") for mark in marks]
    assert len(sends) == (5 if what == "drain" else 7)
    await house.delivery.close()


async def test_crash_when_killed_between_accept_and_enqueue_then_the_sweep_delivers(
    database: Database, database_dsns: RoleDsns, tmp_path: Path
) -> None:
    log = tmp_path / "provider.log"
    house = await build(database, path=log)
    await killed_after(start_worker(database_dsns, house, log, "accept"), house, "accepted")
    assert await house.delivery.sweep() == 1
    await house.settle()
    assert len(house.provider.effects) == 1
    again = await house.accept(customer(), idempotency_key="crash")
    assert again.replayed and str(again.write_id) == house.provider.calls("accepted")[0][0]
    await house.delivery.close()


async def test_crash_when_the_save_fails_then_looked_up_and_one_effect(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = Drain._saved
    fails = iter([True])

    async def broken(self: Drain, *rest: object) -> object:
        if next(fails, False):
            raise RuntimeError("the disk is full")
        return await saved(self, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Drain, "_saved", broken)
    accepted = await house.accept(customer())
    await house.drain()
    assert await house.state(accepted) is TargetState.SENDING
    await house.settle()
    assert await house.state(accepted) is TargetState.APPLIED
    assert [kind for kind, _ in house.provider.log] == ["send", "effect", "look_up"]


async def test_mark_when_made_with_its_claim_and_the_turn_ends_unsent_then_given_back_and_no_look_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await build(database)
    monkeypatch.setattr(Drain, "_must_leave", property(lambda _: True))
    accepted = await house.accept(customer(), wait_seconds=0.3)
    assert accepted.targets[0].state is TargetState.RETRYING
    assert accepted.targets[0].attempt_count == 0
    monkeypatch.undo()
    await house.settle()
    assert await house.state(accepted) is TargetState.APPLIED
    assert [kind for kind, _ in house.provider.log] == ["send", "effect"]
    await house.delivery.close()


async def test_mark_when_it_cannot_be_given_back_then_looked_up_first(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise DatabaseUnavailable("away")

    house = await build(database)
    monkeypatch.setattr(Drain, "_must_leave", property(lambda _: True))
    monkeypatch.setattr(store, "unmark", away)
    accepted = await house.accept(customer(), wait_seconds=0.3)
    assert accepted.targets[0].state is TargetState.SENDING
    assert house.provider.log == []
    monkeypatch.undo()
    await looked_up_then_sent(house, accepted)


async def test_wait_when_alone_on_an_idle_lane_then_marked_in_the_transaction_that_claims_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks: list[str] = []

    async def marked(*_: Any) -> Any:
        marks.append("a mark of its own")

    monkeypatch.setattr(store, "mark", marked)
    accepted = await house.accept(customer(), wait_seconds=5)
    assert accepted.targets[0].state is TargetState.APPLIED
    assert marks == []
    attempts = await house.fetch("select number from attempts")
    assert [row["number"] for row in attempts] == [1]


@pytest.mark.parametrize("taken_by", ["accept", "drain"])
async def test_mark_when_this_process_stood_still_since_the_lane_was_taken_then_not_sent_before_it_is_looked_up(
    database: Database, monkeypatch: pytest.MonkeyPatch, taken_by: str
) -> None:
    house = await build(database, limits=msgspec.structs.replace(FAST, lease_seconds=0.6))
    where, name = (intake_store, "insert_alone") if taken_by == "accept" else (store, "take")
    taking = getattr(where, name)

    async def still(*values: Any) -> Any:
        taken = await taking(*values)
        time.sleep(0.5)
        return taken

    monkeypatch.setattr(where, name, still)
    accepted = await house.accept(customer(), wait_seconds=0.3 if taken_by == "accept" else 0)
    if taken_by == "drain":
        await house.delivery.drain(house.connection.id)
    assert house.provider.log == []
    monkeypatch.undo()
    await looked_up_then_sent(house, accepted)


async def test_wait_when_another_process_takes_the_lane_first_then_told_soon_after_it_delivers(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await build(database)
    there = await build(database, tenant_id=here.tenant.id, connection_id=here.connection.id)

    async def robbed(*_: Any) -> None:
        await there.drain()

    monkeypatch.setattr(store, "take", robbed)
    began = asyncio.get_running_loop().time()
    accepted = await here.accept(customer(), wait_seconds=5)
    assert accepted.targets[0].state is TargetState.APPLIED
    assert asyncio.get_running_loop().time() - began < 2
    for house in (here, there):
        await house.delivery.close()
