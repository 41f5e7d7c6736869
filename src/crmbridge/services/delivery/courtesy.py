"""Courtesy: while somebody waits for a live write, in whatever process, imports go at a quarter of their speed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from enum import Enum, auto
from time import monotonic
from typing import Any
from uuid import UUID

from crmbridge.db.signals import Signals

__all__ = ["Courtesy", "Work"]

_LIVE = "live"
# How long a waited write is remembered, and how often a process says that it has some. Seconds.
_REMEMBERED, _EVERY = 2.0, 1.0
# How much longer a rest is than the work before it. Measured on two cores that run everything, p99 of another tenant's
# live writes beside an import of 40,000 rows, against alone, before rests followed one another: 1.57 to 1.63 times with
# 2, 1.30 to 1.56 with 3.
_TIMES = 3.0
# The longest rest after one piece of an import. Seconds.
_LONGEST = 1.0
# How long a lane is known to have live writes after the last one, and of how many lanes that is kept.
_KNOWN, _MOST_KNOWN = 10.0, 2000


class Work(Enum):
    """What an import makes a process do: to take rows in, or to deliver them."""

    ACCEPT = auto()
    DELIVERY = auto()


class Courtesy:
    """Knows whether live writes are waited for, and how many calls those of a lane had at once.

    A process tells the others that it has some, once a second at most.
    """

    def __init__(self, signals: Signals | None, start: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._signals = signals
        self._start = start
        self._said_at = self._until = float("-inf")
        self._lanes: dict[UUID, tuple[int, float]] = {}
        self._rests_until = dict.fromkeys(Work, 0.0)
        if signals is not None:
            signals.listen(_LIVE, lambda _: self._remember())

    def note_live(self, lane_id: UUID) -> None:
        """Somebody waits for a write on this lane."""
        self._remember()
        self.note_calls(lane_id, self.live_calls(lane_id) or 1)
        now = monotonic()
        if self._signals is not None and now - self._said_at >= _EVERY:
            self._said_at = now
            self._start(self._signals.send(_LIVE, ""))

    def note_calls(self, lane_id: UUID, calls: int) -> None:
        """Live writes of this lane have had so many calls at once, in the turn that ends."""
        if not calls:
            return
        self._lanes.pop(lane_id, None)
        self._lanes[lane_id] = calls, monotonic()
        if len(self._lanes) > _MOST_KNOWN:
            del self._lanes[next(iter(self._lanes))]

    def live_calls(self, lane_id: UUID) -> int:
        """How many that was in the last seconds; 0 when this process knows of none."""
        calls, at = self._lanes.get(lane_id, (0, 0.0))
        return calls if calls and monotonic() - at < _KNOWN else 0

    def _remember(self) -> None:
        self._until = monotonic() + _REMEMBERED

    @property
    def is_asked(self) -> bool:
        """Whether somebody waits for a live write, in whatever process."""
        return self._until > monotonic()

    async def rest(self, work: Work, worked_seconds: float, most_seconds: float = _LONGEST) -> None:
        """For a piece of an import that took so long: three times as long, if live writes are waited for.

        Rests of one kind of work follow one another: two batches that were read together are not sent together.
        This one lasts no longer than ``most_seconds``, and none longer than a second.
        """
        if not self.is_asked:
            return
        now = monotonic()
        until = min(max(now, self._rests_until[work]) + _TIMES * worked_seconds, now + _LONGEST)
        self._rests_until[work] = until
        await asyncio.sleep(min(until - now, most_seconds))
