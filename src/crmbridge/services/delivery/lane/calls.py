"""Calls: how many batches of a lane may be under way, and whose call is next. Live writes go before imports."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from crmbridge.services.delivery.lane.batch import IMPORT, LIVE, Batch

__all__ = ["Calls"]


# Whose call waits, and what lets it in.
_Place = tuple[int, "asyncio.Future[None]"]


class Calls:
    """The calls of one lane. ``most()`` at once: what the provider allows, or this process's share of it.

    An import leaves one of them to live writes, where more than one is allowed. Once live writes have come it leaves
    them half, or as many as they had at once, but keeps one. ``live_peak``: how many calls live writes had at once.
    """

    def __init__(self, most: Callable[[], int], live_before: int = 0) -> None:
        """``live_before``: the peak that is known of the turn before; 0 when there were no live writes."""
        self._most = most
        self.live_peak = 0
        self._left_free = live_before
        self._under_way = [0, 0]
        self._running = [0, 0]
        self._waiting: tuple[deque[_Place], deque[_Place]] = (deque(), deque())

    @property
    def is_shared(self) -> bool:
        """Live writes have come. Nothing of an import is prepared behind another call then."""
        return self._left_free > 0

    def make_way(self, calls: int = 1) -> None:
        """Live writes come, so many at once."""
        self._left_free = max(self._left_free, calls)

    @property
    def _of_imports(self) -> int:
        most = self._most()
        return max(1, min(most // 2, most - self._left_free) if self._left_free else most - 1)

    @property
    def imports_under_way(self) -> int:
        """Batches of imports that were begun and have not ended."""
        return self._under_way[IMPORT]

    @property
    def free(self) -> int:
        """So many live writes would not wait for a call."""
        imports = min(self._under_way[IMPORT], self._of_imports)
        return max(0, self._most() - self._under_way[LIVE] - imports)

    def has_room(self, priority: int) -> bool:
        """Whether a batch more may be begun: one more than there are calls is read and marked meanwhile."""
        if sum(self._under_way) > self._most():
            return False
        return priority == LIVE or self._under_way[IMPORT] < self._of_imports + (not self.is_shared)

    def begin(self, batch: Batch) -> None:
        """It is under way until :meth:`end`."""
        self._under_way[batch.priority] += 1
        if batch.priority == LIVE:
            self.live_peak = max(self.live_peak, self._under_way[LIVE])
            if self.is_shared:
                self.make_way(self.live_peak)

    def end(self, batch: Batch) -> None:
        """It has been saved, or failed."""
        self._under_way[batch.priority] -= 1

    @asynccontextmanager
    async def turn(self, batch: Batch) -> AsyncIterator[None]:
        """For the time of the call; waits until that may begin."""
        kind = IMPORT if batch.is_import else LIVE
        queue = self._waiting[LIVE if batch.goes_first else kind]
        place: _Place = (kind, asyncio.get_running_loop().create_future())
        queue.append(place)
        self._hand_out()
        try:
            await place[1]
            yield
        finally:
            if place in queue:
                queue.remove(place)
            else:
                self._running[kind] -= 1
                self._hand_out()

    def _hand_out(self) -> None:
        live, imports = self._waiting
        while sum(self._running) < self._most():
            if live:
                kind, may_go = live.popleft()
            elif imports and self._running[IMPORT] < self._of_imports:
                kind, may_go = imports.popleft()
            else:
                return
            self._running[kind] += 1
            # One that was cancelled this very moment gives its place back itself.
            if not may_go.done():
                may_go.set_result(None)
