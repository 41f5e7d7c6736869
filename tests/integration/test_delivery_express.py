"""A create whose caller waits, and live writes beside an import: what is sent at once, and what makes way."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from tests.integration.delivery_fakes import FAST, Fault, House, build, customer

from crmbridge.core.errors import Unavailable
from crmbridge.core.operations import Outcome
from crmbridge.db.pool import Database
from crmbridge.db.signals import Signals
from crmbridge.services.delivery.intake import store as intake_store
from crmbridge.services.delivery.lane import store
from crmbridge.services.delivery.model import NewWrite, TargetState
from crmbridge.services.delivery.service import Delivery

pytestmark = pytest.mark.postgres
LEASE = msgspec.structs.replace(FAST, lease_seconds=0.6)


async def import_rows(house: House, count: int) -> None:
    items = [NewWrite(intent=customer(last_name=f"row {n}"), idempotency_key=f"i-{n}") for n in range(count)]
    await house.delivery.accept_many("agent:test", house.tenant, items)


async def lane(house: House) -> dict[str, Any]:
    return (await house.fetch("select * from lanes where connection_id = $1", house.connection.id))[0]


def sent(house: House) -> list[str]:
    """The last names in the order in which they were sent."""
    return [str(write.fields["last_name"]) for write in house.provider.sent]


async def until_sent(house: House, count: int) -> None:
    async with asyncio.timeout(10):
        while len(house.provider.sent) < count:
            await asyncio.sleep(0.005)


async def test_wait_when_the_lane_is_idle_then_accepted_taken_and_marked_in_one_commit_and_freed_in_one_more(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await build(database)

    async def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a statement more than needed")

    monkeypatch.setattr(intake_store, "insert_writes", never)
    for name in ("take", "mark", "window", "release"):
        monkeypatch.setattr(store, name, never)
    for _ in range(3):
        accepted = await house.accept(customer(), wait_seconds=5)
        assert accepted.targets[0].state is TargetState.APPLIED
    await house.delivery.close()
    after = await lane(house)
    assert (after["owner"], after["leased_until"], after["next_due"], after["fence"]) == ("", None, None, 3)
    rows = await house.fetch("select number, outcome from attempts")
    assert [tuple(row.values()) for row in rows] == [(1, "applied")] * 3
    assert house.jobs.queue == []


async def test_lease_when_renewed_after_the_lane_was_freed_then_it_stays_free(database: Database) -> None:
    house = await build(database)
    await house.accept(customer(), wait_seconds=5)
    fence = (await lane(house))["fence"]
    lease = store.Lease(house.connection.id, house.tenant.id, fence, 0, must_recover=False)
    assert not await database.peek(lambda conn: store.renew(conn, lease, 60))
    assert (await lane(house))["leased_until"] is None
    await house.delivery.close()


async def test_wait_when_its_process_dies_after_the_accept_then_found_by_the_sweep_and_looked_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await build(database, limits=LEASE)
    monkeypatch.setattr(Delivery, "_start", lambda _, work, **__: work.close())
    accepted = await house.accept(customer(), wait_seconds=0.1)
    monkeypatch.undo()
    assert accepted.targets[0].state is TargetState.SENDING
    assert await house.delivery.sweep() == 0
    await asyncio.sleep(0.7)
    assert await house.delivery.sweep() == 1
    await house.settle()
    assert await house.state(accepted) is TargetState.APPLIED
    assert [kind for kind, _ in house.provider.log] == ["look_up", "send", "effect"]
    await house.delivery.close()


async def test_wait_when_another_write_comes_during_the_call_then_the_lane_is_kept_and_both_are_applied(
    database: Database,
) -> None:
    here = await build(database)
    there = await build(database, tenant_id=here.tenant.id, connection_id=here.connection.id)
    here.provider.latency = 0.2
    waiting = asyncio.create_task(here.accept(customer(), wait_seconds=5))
    await until_sent(here, 1)
    # From another process, so that nobody here is woken.
    second = await there.accept(customer(last_name="second"))
    assert (await waiting).targets[0].state is TargetState.APPLIED
    async with asyncio.timeout(5):
        while await here.state(second) is not TargetState.APPLIED:
            await asyncio.sleep(0.01)
    await here.delivery.close()
    assert sent(here) == ["Doe", "second"] and sent(there) == []
    assert (await lane(here))["next_due"] is None
    await there.delivery.close()


@pytest.mark.parametrize(
    "what", ["paused", "held back", "busy", "something waits", "not given free in order"]
)
async def test_wait_when_the_lane_is_not_idle_then_an_accept_like_any_other(
    database: Database, what: str
) -> None:
    house = await build(database)
    if what == "something waits":
        await house.accept(customer(last_name="first"))
    changes = {
        "paused": "is_paused = true",
        "held back": "not_before = now() + interval '1 hour'",
        "busy": "owner = 'other:1', leased_until = now() + interval '1 hour'",
        "something waits": "fence = fence",
        "not given free in order": "owner = 'lost'",
    }
    await house.fetch(f"update lanes set {changes[what]}")
    fence = (await lane(house))["fence"]
    accepted = await house.accept(customer(), wait_seconds=0.2)
    after = await lane(house)
    await house.delivery.close()
    if what in ("paused", "held back", "busy"):
        assert accepted.targets[0].state is TargetState.ACCEPTED
        assert after["fence"] == fence and after["next_due"] is not None
    else:
        await house.settle()
        assert await house.state(accepted) is TargetState.APPLIED
    assert len(house.provider.effects) == len(set(house.provider.effects))


async def test_live_when_an_import_is_read_ahead_then_next_in_line(database: Database) -> None:
    house = await build(database, batch=10)
    await import_rows(house, 60)
    house.provider.latency = 0.1
    running = asyncio.create_task(house.delivery.drain(house.connection.id))
    await until_sent(house, 10)
    await house.accept(customer(last_name="live"))
    await house.settle(20)
    await running
    # One batch is under way, one is marked already.
    assert "live" in sent(house)[10:31]
    assert len(house.provider.effects) == len(set(house.provider.effects)) == 61
    await house.delivery.close()


async def test_live_when_accepted_by_another_process_then_sent_before_most_of_the_import(
    database: Database,
) -> None:
    here = await build(database, batch=10)
    there = await build(database, tenant_id=here.tenant.id, connection_id=here.connection.id)
    await import_rows(here, 100)
    here.provider.latency = 0.1
    running = asyncio.create_task(here.delivery.drain(here.connection.id))
    await until_sent(here, 10)
    await there.accept(customer(last_name="live"))
    await here.settle(20)
    await running
    assert "live" in sent(here)[10:51]
    for house in (here, there):
        await house.delivery.close()


async def test_live_when_imports_fill_their_calls_then_one_call_is_left_for_it(database: Database) -> None:
    house = await build(database, batch=1, in_flight=3)
    await import_rows(house, 12)
    house.provider.latency = 0.5
    running = asyncio.create_task(house.delivery.drain(house.connection.id))
    await until_sent(house, 2)
    await asyncio.sleep(0.1)
    assert len(house.provider.sent) == 2
    await house.accept(customer(last_name="live"))
    async with asyncio.timeout(0.4):
        await until_sent(house, 3)
    assert sent(house)[2] == "live" and house.provider.in_flight == 3
    house.provider.latency = 0
    await house.settle(20)
    await running
    assert len(house.provider.effects) == len(set(house.provider.effects)) == 13
    await house.delivery.close()


async def test_wait_when_another_process_has_the_lane_then_it_lets_the_write_pass_and_tells(
    database: Database,
) -> None:
    slow = msgspec.structs.replace(FAST, reread_seconds=30, send_seconds=60, lease_seconds=60)
    both = [Signals(database, database._scheduler_dsn) for _ in range(2)]
    there = await build(database, batch=1, in_flight=2, limits=slow, signals=both[0])
    here = await build(
        database,
        limits=slow,
        signals=both[1],
        tenant_id=there.tenant.id,
        connection_id=there.connection.id,
    )
    for signals in both:
        signals.start()
        await asyncio.wait_for(signals.is_listening.wait(), 5)
    await import_rows(there, 4)
    there.provider.latency = 2
    running = asyncio.create_task(there.delivery.drain(there.connection.id))
    await until_sent(there, 1)
    began = asyncio.get_running_loop().time()
    there.provider.latency = 0.05
    accepted = await here.accept(customer(last_name="live"), wait_seconds=10)
    assert accepted.targets[0].state is TargetState.APPLIED
    # The import's call is still under way, the next look of the drain would be in 30 s.
    assert asyncio.get_running_loop().time() - began < 1.5 and there.provider.in_flight == 1
    assert sent(here) == [] and sent(there)[1] == "live"
    await running
    for signals in both:
        await signals.close()
    for house in (here, there):
        await house.delivery.close()


async def test_import_when_the_lane_must_rest_after_the_next_batch_was_marked_then_that_was_no_attempt(
    database: Database,
) -> None:
    house = await build(database, batch=5)
    await import_rows(house, 10)
    house.provider.latency = 0.3
    house.provider.faults.append(Fault(Unavailable("down", outcome=Outcome.NOT_APPLIED, retry_safe=True)))
    running = asyncio.create_task(house.delivery.drain(house.connection.id))
    await until_sent(house, 5)
    async with asyncio.timeout(5):
        while len(await house.fetch("select 1 from write_targets where state = 'sending'")) < 10:
            await asyncio.sleep(0.01)
    await running
    rows = await house.fetch("select attempt_count from write_targets where state = 'retrying'")
    assert sorted(row["attempt_count"] for row in rows) == [0] * 5 + [1] * 5
    assert len(await house.fetch("select 1 from attempts")) == 5
    house.provider.latency = 0
    await house.settle(20)
    assert house.provider.calls("look_up") == []
    assert len(house.provider.effects) == len(set(house.provider.effects)) == 10
    await house.delivery.close()


async def test_import_when_the_call_before_takes_long_then_the_marked_batch_is_marked_anew(
    database: Database,
) -> None:
    """Others may look a marked target up some time after its mark: a call must not begin long after it."""
    house = await build(database, batch=5, limits=msgspec.structs.replace(LEASE, send_seconds=5))
    await import_rows(house, 10)
    house.provider.latency = 0.5
    await house.drain()
    await house.settle(20)
    assert house.provider.calls("look_up") == []
    rows = await house.fetch("select attempt_count from write_targets")
    assert [row["attempt_count"] for row in rows] == [1] * 10
    assert len(house.provider.effects) == len(set(house.provider.effects)) == 10
    await house.delivery.close()
