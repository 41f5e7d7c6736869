"""The database's clock leaps: nothing is looked up, and so sent again, while its call may still be under way."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest

from crmbridge.core.errors import Unavailable
from crmbridge.core.operations import Outcome
from crmbridge.db.clock import DatabaseClock
from crmbridge.db.pool import Database
from crmbridge.services.delivery.model import TargetState

from .delivery_fakes import FAST, Fault, House, build, customer

pytestmark = pytest.mark.postgres


@pytest.fixture
async def house(database: Database) -> House:
    return await build(database)


def leap(clock: DatabaseClock, seconds: float) -> None:
    """At its next look this process finds the database's clock so much ahead of what it was."""
    assert clock._ahead is not None
    low, high = clock._ahead
    clock._ahead = low - seconds, high - seconds


async def seen_for_long(clock: DatabaseClock) -> None:
    """As if this process had seen the clock run evenly for an hour."""
    await clock.steady_seconds()
    clock._since -= 3600


async def test_recovery_when_the_clock_leapt_during_a_call_then_not_sent_again(database: Database) -> None:
    limits = msgspec.structs.replace(FAST, lease_seconds=60, send_seconds=2.0)
    slow = await build(database, limits=limits)
    other = await build(database, limits=limits, tenant_id=slow.tenant.id, connection_id=slow.connection.id)
    other.provider = other.connection.provider = slow.provider
    await seen_for_long(other.delivery.clock)
    slow.provider.latency = 1.0
    accepted = await slow.accept(customer())
    running = asyncio.create_task(slow.delivery.drain(slow.connection.id))
    async with asyncio.timeout(10):
        while not slow.provider.in_flight:
            await asyncio.sleep(0.005)
    # Two hours forward: what is in the tables is two hours older than it was.
    await slow.fetch("update lanes set leased_until = leased_until - interval '2 hours', next_due = now()")
    await slow.fetch("update write_targets set sent_at = sent_at - interval '2 hours'")
    leap(other.delivery.clock, 7200)
    slow.provider.latency = 0
    await other.drain()
    assert await slow.state(accepted) is TargetState.UNKNOWN
    await other.settle(20)
    await running
    assert slow.provider.effects == [str(accepted.targets[0].id)]
    assert await slow.state(accepted) is TargetState.APPLIED
    assert [kind for kind, _ in slow.provider.log] == ["send", "effect", "look_up"]
    for one in (slow, other):
        await one.delivery.close()


async def test_recovery_when_the_clock_ran_evenly_then_no_later_than_the_send_limit(house: House) -> None:
    await seen_for_long(house.delivery.clock)
    house.provider.faults.append(Fault("hang"))
    accepted = await house.accept(customer())
    dying = asyncio.create_task(house.delivery.drain(house.connection.id))
    async with asyncio.timeout(10):
        while not house.provider.effects:
            await asyncio.sleep(0.005)
    dying.cancel()
    await asyncio.wait({dying})
    await house.fetch("update lanes set leased_until = now() - interval '1 second', next_due = now()")
    await house.fetch("update write_targets set sent_at = sent_at - interval '1 hour'")
    await house.delivery.drain(house.connection.id)
    [row] = await house.fetch("select state, due_at - clock_timestamp() as left from write_targets")
    assert row["state"] == "unknown" and row["left"] < timedelta(seconds=FAST.settle_seconds)
    await house.settle()
    assert await house.state(accepted) is TargetState.APPLIED


async def test_look_up_when_the_clock_leapt_before_it_then_the_search_lag_passes_first(
    database: Database,
) -> None:
    house = await build(database, lag=1.0)
    await seen_for_long(house.delivery.clock)
    house.provider.faults.append(Fault("cut_after"))
    accepted = await house.accept(customer())
    await house.drain()
    assert await house.state(accepted) is TargetState.UNKNOWN
    await house.fetch("update write_targets set due_at = due_at - interval '2 hours'")
    await house.fetch("update lanes set next_due = now(), not_before = null")
    leap(house.delivery.clock, 7200)
    await house.drain()
    assert house.provider.calls("look_up") == []
    [row] = await house.fetch("select due_at - clock_timestamp() as left, attempt_count from write_targets")
    assert timedelta(seconds=0.5) < row["left"] <= timedelta(seconds=1.0) and row["attempt_count"] == 1
    await house.settle()
    assert await house.state(accepted) is TargetState.APPLIED and len(house.provider.calls("look_up")) == 1
    await house.delivery.close()


async def test_clock_when_set_back_then_what_was_to_come_soon_comes_soon(house: House) -> None:
    mended: list[object] = []

    async def note(tenant_id: object, most: float, seconds: float) -> None:
        mended.append(tenant_id)

    house.connections.mend_times = note  # type: ignore[attr-defined]
    await seen_for_long(house.delivery.clock)
    house.provider.faults.append(Fault(Unavailable("down", outcome=Outcome.NOT_APPLIED)))
    first = await house.accept(customer())
    await house.drain()
    second = await house.accept(customer())
    # Five hours back: what is in the tables is five hours younger than it was.
    await house.fetch("update write_targets set due_at = due_at + interval '5 hours'")
    await house.fetch(
        "update lanes set next_due = now() + interval '5 hours', not_before = now() + interval '5 hours', "
        "leased_until = now() + interval '5 hours', owner = 'a dead one'"
    )
    await house.drain()
    assert await house.state(second) is TargetState.ACCEPTED
    leap(house.delivery.clock, -18_000)
    assert await house.delivery.clock.steady_seconds() == 0.0
    async with asyncio.timeout(10):
        while not mended:
            await asyncio.sleep(0.01)
    assert mended == [house.tenant.id]
    await house.settle(10)
    assert [await house.state(one) for one in (first, second)] == [TargetState.APPLIED] * 2


async def test_mending_when_nothing_was_set_back_then_nothing_is_brought_forward_but_a_look(
    house: House,
) -> None:
    async def note(_: object, most: float, seconds: float) -> None:
        """No budgets here."""

    house.connections.mend_times = note  # type: ignore[attr-defined]
    await house.accept(customer())
    columns = "leased_until, not_before, owner, failures, is_paused"
    before = (
        await house.fetch(f"select {columns} from lanes"),
        await house.fetch("select due_at from write_targets"),
    )
    await house.delivery.mend_times(18_000)
    assert before == (
        await house.fetch(f"select {columns} from lanes"),
        await house.fetch("select due_at from write_targets"),
    )
    await house.settle()
    await house.delivery.mend_times(18_000)
    assert await house.fetch("select next_due, leased_until, not_before from lanes") == [
        {"next_due": None, "leased_until": None, "not_before": None}
    ]
