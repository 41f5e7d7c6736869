"""Whose call of a lane is next, and how many an import keeps to."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.core.operations import Operation
from crmbridge.core.records import Object
from crmbridge.services.delivery.lane.batch import Batch
from crmbridge.services.delivery.lane.calls import Calls


def batch(priority: int, *, goes_first: bool = False) -> Batch:
    made = Batch(object=Object.LEAD, operation=Operation.CREATE, rows=[], priority=priority)
    made.goes_first = goes_first
    return made


class Room:
    """Batches that take their turn in order; ``going`` names those whose call is under way."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.going: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, name: str, *, goes_first: bool = False) -> None:
        one = batch(0 if name.startswith("live") else 1, goes_first=goes_first)
        self._ends[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._take(name, one))
        await asyncio.sleep(0)

    async def _take(self, name: str, one: Batch) -> None:
        self.calls.begin(one)
        try:
            async with self.calls.turn(one):
                self.going.append(name)
                try:
                    await self._ends[name].wait()
                finally:
                    self.going.remove(name)
        finally:
            self.calls.end(one)

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self._tasks[name]
        await asyncio.sleep(0)

    async def give_up(self, name: str) -> None:
        self._tasks[name].cancel()
        with suppress(asyncio.CancelledError):
            await self._tasks[name]
        await asyncio.sleep(0)


async def test_live_when_a_batch_of_an_import_waits_for_a_call_longer_then_live_goes_first() -> None:
    room = Room(Calls(lambda: 2))
    for name in ("import 1", "live 1", "import 2", "live 2"):
        await room.ask(name)
    assert room.going == ["import 1", "live 1"]
    await room.end("import 1")
    assert room.going == ["live 1", "live 2"]
    await room.end("live 1")
    assert room.going == ["live 2", "import 2"]


async def test_import_when_it_has_waited_long_enough_then_it_goes_in_its_turn() -> None:
    room = Room(Calls(lambda: 1))
    for name in ("live 1", "live 2"):
        await room.ask(name)
    await room.ask("import 1", goes_first=True)
    await room.ask("live 3")
    await room.end("live 1")
    await room.end("live 2")
    assert room.going == ["import 1"]
    await room.end("import 1")
    assert room.going == ["live 3"]


@pytest.mark.parametrize(
    ("most", "alone", "shared"), [(1, 1, 1), (2, 1, 1), (3, 2, 1), (4, 3, 2), (10, 9, 5)]
)
async def test_import_when_live_writes_have_come_then_it_keeps_to_half_of_the_calls(
    most: int, alone: int, shared: int
) -> None:
    calls = Calls(lambda: most)
    room = Room(calls)
    for number in range(2 * most + 2):
        await room.ask(f"import {number}")
    assert len(room.going) == alone
    calls.make_way()
    for name in list(room.going):
        await room.end(name)
    assert len(room.going) == shared


async def test_import_when_live_writes_had_more_than_half_at_once_then_it_leaves_them_as_many() -> None:
    known = Calls(lambda: 4, live_before=3)
    assert known.is_shared and known.has_room(1)
    known.begin(batch(1))
    assert not known.has_room(1) and known.free == 3
    seen = Calls(lambda: 4)
    seen.make_way()
    for _ in range(3):
        seen.begin(batch(0))
    assert seen.live_peak == 3
    seen.begin(batch(1))
    assert not seen.has_room(1)


async def test_import_when_other_processes_make_calls_too_then_it_keeps_to_its_part_of_the_share() -> None:
    share = [4]
    calls = Calls(lambda: share[0], live_before=1)
    room = Room(calls)
    for name in ("import 1", "import 2", "import 3"):
        await room.ask(name)
    assert len(room.going) == 2
    share[0] = 2
    await room.end("import 1")
    assert room.going == ["import 2"]
    await room.ask("live 1")
    assert room.going == ["import 2", "live 1"] and calls.free == 0


async def test_batch_when_none_is_shared_yet_then_one_more_is_prepared_behind_the_calls() -> None:
    calls = Calls(lambda: 3)
    for _ in range(3):
        assert calls.has_room(1)
        calls.begin(batch(1))
    assert not calls.has_room(1) and calls.has_room(0) and calls.free == 1
    calls.begin(batch(0))
    assert not calls.has_room(0)


async def test_call_when_it_is_cancelled_while_it_waits_or_as_it_is_let_in_then_no_place_is_lost() -> None:
    calls = Calls(lambda: 1)
    room = Room(calls)
    for name in ("live 1", "live 2", "live 3"):
        await room.ask(name)
    await room.give_up("live 2")
    room._ends["live 1"].set()
    await room._tasks["live 1"]  # live 3 has been let in, and has not run yet
    await room.give_up("live 3")
    await room.ask("live 4")
    assert room.going == ["live 4"]


async def test_call_when_it_is_cancelled_in_the_moment_in_which_it_would_be_let_in_then_the_next_goes() -> (
    None
):
    calls = Calls(lambda: 1)
    room = Room(calls)
    for name in ("live 1", "live 2", "live 3"):
        await room.ask(name)
    room._ends["live 1"].set()
    await room.give_up("live 2")
    await room._tasks["live 1"]
    assert room.going == ["live 3"]


@given(
    most=st.integers(1, 6),
    before=st.integers(0, 8),
    steps=st.lists(
        st.tuples(st.sampled_from(["live", "import", "first", "end", "stop"]), st.integers(0, 30)),
        max_size=60,
    ),
)
async def test_calls_when_anything_comes_in_any_order_then_never_too_many_and_never_an_idle_place(
    most: int, before: int, steps: list[tuple[str, int]]
) -> None:
    calls = Calls(lambda: most, before)
    room = Room(calls)
    number = 0
    for what, place in steps:
        known = [name for name, task in room._tasks.items() if not task.done()]
        if what in ("live", "import", "first"):
            number += 1
            await room.ask(f"{'live' if what == 'live' else 'import'} {number}", goes_first=what == "first")
        elif what == "end" and room.going:
            await room.end(room.going[place % len(room.going)])
        elif what == "stop" and known:
            await room.give_up(known[place % len(known)])
        await asyncio.sleep(0)
        waits = [name for name, task in room._tasks.items() if not task.done() and name not in room.going]
        assert len(room.going) <= most
        if any(name.startswith("live") for name in waits):
            assert len(room.going) == most
        assert room.going or not waits
    for name, task in room._tasks.items():
        if not task.done():
            await room.give_up(name)
    assert calls.free == most and not sum(calls._running)
