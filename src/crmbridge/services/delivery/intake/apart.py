"""Apart: accepts whose lane's row another transaction holds wait by themselves, and nobody waits for them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import monotonic
from typing import Generic, TypeVar
from uuid import UUID

import structlog

__all__ = ["Apart"]

E = TypeVar("E")
Lanes = tuple[UUID, ...]

_log = structlog.get_logger("crmbridge.delivery")

# What a machine that vanished had locked is free after 14 s (db/hosts.py). After these its lane is no longer apart.
_HELD_SECONDS = 15.0
# So many wait for a row at a time, each with a connection to the database; and so many entries share a try.
_AT_ONCE, _MOST = 3, 100


class _Waiting(Generic[E]):
    def __init__(self) -> None:
        self.queue: deque[E] = deque()
        self.is_running = False
        self.held_until = monotonic() + _HELD_SECONDS


class Apart(Generic[E]):
    """Entries by the lanes that they go to; those that go to the same ones share a try.

    ``flush`` writes and answers them; False when the row of a lane is held, and they were refused. The lanes are apart
    until a flush of theirs succeeds, or none was tried for some seconds.
    """

    def __init__(self, flush: Callable[[Sequence[E]], Awaitable[bool]]) -> None:
        self._flush = flush
        self._waiting: dict[Lanes, _Waiting[E]] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def takes(self, lanes: Lanes, entry: E) -> bool:
        """Whether it goes to lanes that are apart; then it is here from now on."""
        waiting = self._waiting.get(lanes) if self._waiting else None
        if waiting is None:
            return False
        if not waiting.is_running and waiting.held_until < monotonic():
            del self._waiting[lanes]
            return False
        waiting.queue.append(entry)
        if not waiting.is_running:
            waiting.is_running = True
            task = asyncio.create_task(self._run(lanes, waiting))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return True

    def put(self, entries: Iterable[tuple[Lanes, E]]) -> None:
        """Those of a flush that met a held row: which lane that was is found out here."""
        for lanes, entry in entries:
            if not self.takes(lanes, entry):
                self._waiting[lanes] = _Waiting()
                self.takes(lanes, entry)

    async def close(self) -> None:
        """Until what waits here was written or refused."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _run(self, lanes: Lanes, waiting: _Waiting[E]) -> None:
        try:
            while waiting.queue:
                async with self._places:
                    batch = [waiting.queue.popleft() for _ in range(min(_MOST, len(waiting.queue)))]
                    is_written = await self._flush(batch)
                if is_written and self._waiting.get(lanes) is waiting:
                    del self._waiting[lanes]
                elif not is_written:
                    waiting.held_until = monotonic() + _HELD_SECONDS
                    _log.warning("lane.held", connection_ids=[str(one) for one in lanes], refused=len(batch))
        finally:
            waiting.is_running = False
