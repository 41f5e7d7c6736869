"""Courtesy: imports rest three times as long as they worked, while somebody waits for a live write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any
from uuid import UUID

import pytest

from crmbridge.services.delivery import courtesy
from crmbridge.services.delivery.courtesy import Courtesy, Work


class Wire:
    """Signals that reach everybody at once."""

    def __init__(self) -> None:
        self.hearers: list[Callable[[str], None]] = []
        self.sent = 0

    def listen(self, kind: str, hearer: Callable[[str], None]) -> None:
        self.hearers.append(hearer)

    async def send(self, kind: str, text: str) -> None:
        self.sent += 1
        for hearer in self.hearers:
            hearer(text)


def run(work: Coroutine[Any, Any, None]) -> None:
    with pytest.raises(StopIteration):
        work.send(None)


LANE = UUID(int=7)


async def slept(one: Courtesy, seconds: float) -> float:
    began = monotonic()
    await one.rest(Work.DELIVERY, seconds)
    return monotonic() - began


async def test_rest_when_nobody_waits_then_none() -> None:
    assert await slept(Courtesy(None, run), 5) < 1


async def test_rest_when_somebody_waits_in_another_process_then_three_times_as_long_as_the_work() -> None:
    wire: Any = Wire()
    here, there = Courtesy(wire, run), Courtesy(wire, run)
    here.note_live(LANE)
    assert await slept(there, 0.05) >= 0.15


@pytest.fixture
def asked_sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each sleep, none of which is slept; the clock stands."""
    asked: list[float] = []

    async def sleep(seconds: float) -> None:
        asked.append(round(seconds, 6))

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(courtesy, "monotonic", lambda: 100.0)
    return asked


async def test_rests_when_two_pieces_of_one_work_end_together_then_one_after_the_other(
    asked_sleeps: list[float],
) -> None:
    here = Courtesy(None, run)
    here.note_live(LANE)
    for _ in range(2):
        await here.rest(Work.DELIVERY, 0.04)
    assert asked_sleeps == [0.12, 0.24]


async def test_rests_when_rows_are_taken_in_and_delivered_then_neither_waits_for_the_other(
    asked_sleeps: list[float],
) -> None:
    here = Courtesy(None, run)
    here.note_live(LANE)
    for work in Work:
        await here.rest(work, 0.1)
    assert asked_sleeps == [0.3, 0.3]


async def test_rest_when_it_has_a_bound_then_no_longer_and_the_others_are_still_apart(
    asked_sleeps: list[float],
) -> None:
    here = Courtesy(None, run)
    here.note_live(LANE)
    await here.rest(Work.DELIVERY, 0.1, 0.01)
    await here.rest(Work.DELIVERY, 0)
    await here.rest(Work.DELIVERY, 100)
    assert asked_sleeps == [0.01, 0.3, 1.0]


async def test_word_when_many_wait_then_once_a_second() -> None:
    wire: Any = Wire()
    here = Courtesy(wire, run)
    for _ in range(1000):
        here.note_live(LANE)
    assert wire.sent == 1


async def test_rest_when_the_last_waiter_is_long_gone_then_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courtesy, "_REMEMBERED", 0.02)
    here = Courtesy(None, run)
    here.note_live(LANE)
    await asyncio.sleep(0.05)
    assert await slept(here, 5) < 1


def test_lane_when_it_had_live_writes_then_known_for_seconds_with_their_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = Courtesy(None, run)
    assert here.live_calls(LANE) == 0
    here.note_live(LANE)
    assert here.live_calls(LANE) == 1
    here.note_calls(LANE, 3)
    here.note_live(LANE)
    assert here.live_calls(LANE) == 3
    here.note_calls(LANE, 0)  # a turn of the import alone tells nothing
    assert here.live_calls(LANE) == 3
    monkeypatch.setattr(courtesy, "_KNOWN", 0.0)
    assert here.live_calls(LANE) == 0


def test_lanes_when_there_are_too_many_then_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courtesy, "_MOST_KNOWN", 2)
    here = Courtesy(None, run)
    for number in (1, 2, 1, 3):
        here.note_live(UUID(int=number))
    assert [here.live_calls(UUID(int=number)) for number in (1, 2, 3)] == [1, 0, 1]
