"""Courtesy: while somebody waits for a live write, in whatever process, imports go at a third of their speed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from crmbridge.db.signals import Signals

__all__ = ["Courtesy"]

_LIVE = "live"
# How long a waited write is remembered, and how often a process says that it has some. Seconds.
_REMEMBERED, _EVERY = 2.0, 1.0
# How much longer a rest is than the work before it. Measured on two cores that run everything, p99 of another tenant's
# live writes beside an import: 97 ms with 1, 67 and 73 with 2 (docs/reference/benchmarks.md).
_TIMES = 2.0
# The longest rest after one piece of an import. Seconds.
_LONGEST = 1.0


class Courtesy:
    """Knows whether live writes are waited for. A process says so once a second at most, while it has any."""

    def __init__(self, signals: Signals | None, start: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._signals = signals
        self._start = start
        self._said_at = self._until = float("-inf")
        if signals is not None:
            signals.listen(_LIVE, lambda _: self._remember())

    def note_live(self) -> None:
        """Somebody waits for a write."""
        self._remember()
        now = monotonic()
        if self._signals is not None and now - self._said_at >= _EVERY:
            self._said_at = now
            self._start(self._signals.send(_LIVE, ""))

    def _remember(self) -> None:
        self._until = monotonic() + _REMEMBERED

    async def rest(self, worked_seconds: float) -> None:
        """After a piece of an import that took so long: twice as long, if live writes are waited for."""
        if self._until > monotonic():
            await asyncio.sleep(min(_TIMES * worked_seconds, _LONGEST))
