"""The database's clock beside ours: steady, slewed, leapt, set back, slow to answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from crmbridge.db import clock as module
from crmbridge.db.clock import DatabaseClock


class Clocks:
    """Two clocks that stand until they are moved; ``answer_seconds`` is how long a question takes."""

    def __init__(self) -> None:
        self.ours, self.theirs, self.answer_seconds = 1000.0, 1_795_000_000.0, 0.01

    def monotonic(self) -> float:
        return self.ours

    def passes(self, seconds: float, *, theirs: float | None = None) -> None:
        self.ours += seconds
        self.theirs += seconds if theirs is None else theirs

    async def peek(self, call: Any) -> float:
        self.passes(self.answer_seconds / 2)
        told = self.theirs
        self.passes(self.answer_seconds / 2)
        return told


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    made = Clocks()
    monkeypatch.setattr(module, "monotonic", made.monotonic)
    return made


def clock_of(clocks: Clocks) -> DatabaseClock:
    database: Any = clocks
    return DatabaseClock(database)


async def test_clock_when_both_run_alike_then_steady_since_the_first_look(clocks: Clocks) -> None:
    clock = clock_of(clocks)
    assert await clock.steady_seconds() == 0.0
    for _ in range(100):
        clocks.passes(5.0)
        await clock.steady_seconds()
    assert await clock.steady_seconds() == pytest.approx(501, abs=1)


async def test_clock_when_slewed_then_still_steady(clocks: Clocks) -> None:
    clock = clock_of(clocks)
    await clock.steady_seconds()
    for _ in range(1000):
        clocks.passes(5.0, theirs=5.0 * 1.0005)
        await clock.steady_seconds()
    clocks.passes(3600.0, theirs=3600.0 * 0.9995)
    assert await clock.steady_seconds() > 8000


@pytest.mark.parametrize("leap", [7200.0, -7200.0, 2.0, -2.0])
async def test_clock_when_it_leaps_then_nothing_seen_before_counts(clocks: Clocks, leap: float) -> None:
    leaps: list[bool] = []
    told: list[str] = []
    database: Any = clocks
    clock = DatabaseClock(database, on_leap=lambda: leaps.append(True))

    async def mend(seconds: float) -> None:
        told.append(f"mend {seconds:.0f}")

    clock.on_set_back.append(mend)
    await clock.steady_seconds()
    clocks.passes(300.0)
    await clock.steady_seconds()
    clocks.passes(5.0, theirs=5.0 + leap)
    assert await clock.steady_seconds() == 0.0
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert told == ([f"mend {-leap:.0f}"] if leap < 0 else [])
    clocks.passes(30.0)
    assert await clock.steady_seconds() == pytest.approx(30, abs=0.1)
    assert len(told) <= 1 and len(leaps) == 1
    await clock.close()


async def test_clock_when_the_answer_takes_too_long_then_nothing_is_known_and_nothing_forgotten(
    clocks: Clocks,
) -> None:
    clock = clock_of(clocks)
    await clock.steady_seconds()
    clocks.passes(60.0)
    clocks.answer_seconds = 1.5
    assert await clock.steady_seconds() == 0.0
    clocks.answer_seconds = 0.01
    assert await clock.steady_seconds() == pytest.approx(61.5, abs=0.1)


async def test_clock_when_looks_overlap_in_a_leap_then_it_is_one_leap(clocks: Clocks) -> None:
    """The one that asked before the leap is answered after the one that asked behind it."""
    leaps: list[bool] = []
    database: Any = clocks
    clock = DatabaseClock(database, on_leap=lambda: leaps.append(True))
    await clock.steady_seconds()
    clocks.passes(300.0)
    answered, ask = asyncio.Event(), clocks.peek

    async def late(call: Any) -> float:
        told = await ask(call)
        clocks.peek = ask  # type: ignore[method-assign]
        await answered.wait()
        return told

    clocks.peek = late  # type: ignore[method-assign]
    early = asyncio.create_task(clock.steady_seconds())
    await asyncio.sleep(0)
    clocks.passes(0.1, theirs=7200.1)
    assert await clock.steady_seconds() == 0.0
    answered.set()
    assert await early == 0.0
    assert len(leaps) == 1
    clocks.passes(10.0)
    assert await clock.steady_seconds() == pytest.approx(10, abs=0.1)


async def test_clock_when_mending_fails_then_the_others_mend_and_it_is_tried_again(
    clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_EVERY", 0.01)
    clock = clock_of(clocks)
    told: list[str] = []

    async def fails(seconds: float) -> None:
        told.append("tried")
        if told.count("tried") < 3:
            raise RuntimeError("the database went away")

    async def mends(seconds: float) -> None:
        told.append("mended")

    clock.on_set_back += [fails, mends]
    await clock.steady_seconds()
    clocks.passes(5.0, theirs=-100.0)
    await clock.steady_seconds()
    async with asyncio.timeout(10):
        while told.count("tried") < 3:
            await asyncio.sleep(0.01)
    assert told.count("mended") == 1
    await clock.close()
