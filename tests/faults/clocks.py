"""Clocks that leap: those of some processes, and PostgreSQL's own. libfaketime moves them by a file."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic

from tests.faults.child import Plan
from tests.faults.connecting import Trade
from tests.faults.house import FaultHouse
from tests.faults.ledger import Line
from tests.faults.load import load
from tests.faults.machine import DATABASE_CLOCK, faketime

__all__ = ["LEAPS_PLAN", "clock_jump", "database_clock"]

# Calls last longer than it takes another worker to take a lane whose lease seems to be over, and to look.
LEAPS_PLAN = Plan(
    limits={
        "lease_seconds": 3.0,
        "send_seconds": 6.0,
        "settle_seconds": 0.5,
        "retry_base_seconds": 0.1,
        "retry_cap_seconds": 3.0,
        "turn_seconds": 1.0,
    },
    timeout_seconds=3.0,
    lag_seconds=0.3,
)
_CALL_SECONDS = 2.5


async def clock_jump(
    house: FaultHouse, these: Sequence[Trade], *, library: str, seconds: float, callers: int = 3
) -> Line:
    """The clocks of an API and a worker jump by hours, forward and back, while another pair keeps the time."""
    line = Line("clocks that jump")
    began = monotonic()
    clock = house.folder / "clock"
    more = faketime(library, clock)
    pair = house.start_api(more=more), house.start_worker(more=more)
    await house.ready(pair[0])
    await house.working(pair[1])
    async with load(these, callers, pause=0.01, waited=0.3) as tokens:
        for jump in ("+0", "+3h", "-5h", "+40d"):
            clock.write_text(jump)
            await asyncio.sleep(seconds / 4)
    line.notes["jumps"] = 3
    await house.settle(60)
    for child in pair:
        if not child.is_alive:
            line.wrong.append(f"{child.name} ended")
        else:
            child.process.terminate()
            await asyncio.to_thread(child.process.wait)
    house.clear_dead()
    line.seconds = monotonic() - began
    return await house.judge(line, tokens)


async def database_clock(
    house: FaultHouse, these: Sequence[Trade], *, seconds: float, callers: int = 3
) -> Line:
    """PostgreSQL's clock leaps by hours and days, forward and back, each time while calls are under way.

    The house is one opened with a ``faketime_library``. After each leap all that was accepted before it must soon be
    delivered.
    """
    line = Line("PostgreSQL's clock leaps")
    began, clock = monotonic(), house.folder / DATABASE_CLOCK
    slugs = {trade.slug for trade in these}
    back: list[float] = []
    # A look-up is answered at once: before a write that was sent earlier has its effect.
    slow = {"kind": "latency", "only": "writes", "times": 0, "latency_seconds": _CALL_SECONDS}
    for slug in slugs:
        await house.control("POST", slug, "faults", slow)
    async with load(these, callers, pause=2.0, waited=0.2) as tokens:
        for leap in ("+3h", "+1h", "-5h", "+40d", "+0"):
            await asyncio.sleep(seconds)
            before = await house.fetch("select clock_timestamp() as now")
            clock.write_text(leap)
            leapt_at, known = monotonic(), set(tokens)
            await asyncio.sleep(1.5)
            after = await house.fetch("select clock_timestamp() as now")
            if abs((after[0]["now"] - before[0]["now"]).total_seconds()) < 1800:
                line.wrong.append(f"the clock did not leap to {leap}")
            await until_delivered(house, known)
            back.append(monotonic() - leapt_at)
    line.notes["leaps"] = len(back)
    line.notes["all of before delivered after s"] = f"{min(back):.1f} to {max(back):.1f}"
    for slug in slugs:
        await house.control("DELETE", slug, "faults")
    await house.settle(60)
    house.note_ended(line)
    line.seconds = monotonic() - began
    return await house.judge(line, tokens)


async def until_delivered(house: FaultHouse, tokens: set[str]) -> None:
    """Until each of these writes is applied."""
    left = {house.book[token].write_id for token in tokens}
    deadline = monotonic() + 120
    while left:
        states = await house.states()
        left = {one for one in left if states.get(one) != "applied"}
        assert monotonic() < deadline, (
            f"{len(left)} writes are not delivered: {[states.get(one) for one in left][:9]}"
        )
        await asyncio.sleep(0.3)
