"""Calls: how many batches of a lane may be under way, and whose call is next. Live writes go before imports."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from crmbridge.services.delivery.lane.batch import Batch

__all__ = ["Calls"]

_LIVE, _IMPORT = 0, 1


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
        self._waiting: tuple[deque[_Turn], deque[_Turn]] = (deque(), deque())

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
        return self._under_way[_IMPORT]

    @property
    def free(self) -> int:
        """So many live writes would not wait for a call."""
        imports = min(self._under_way[_IMPORT], self._of_imports)
        return max(0, self._most() - self._under_way[_LIVE] - imports)

    def has_room(self, priority: int) -> bool:
        """Whether a batch more may be begun: one more than there are calls is read and marked meanwhile."""
        if sum(self._under_way) > self._most():
            return False
        return priority == _LIVE or self._under_way[_IMPORT] < self._of_imports + (not self.is_shared)

    def begin(self, batch: Batch) -> None:
        """It is under way until :meth:`end`."""
        self._under_way[batch.priority] += 1
        if batch.priority == _LIVE:
            self.live_peak = max(self.live_peak, self._under_way[_LIVE])
            if self.is_shared:
                self.make_way(self.live_peak)

    def end(self, batch: Batch) -> None:
        """It has been saved, or failed."""
        self._under_way[batch.priority] -= 1

    def turn(self, batch: Batch) -> _Turn:
        """``async with`` it around the call; waits until that may begin."""
        return _Turn(self, _IMPORT if batch.is_import else _LIVE, batch.goes_first)

    async def _enter(self, turn: _Turn) -> None:
        waiting = self._waiting[_LIVE if turn.goes_first else turn.kind]
        turn.may_go = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        self._hand_out()
        try:
            await turn.may_go
        except BaseException:
            if turn in waiting:
                waiting.remove(turn)
            elif turn.may_go.done() and not turn.may_go.cancelled():
                self._leave(turn)
            raise

    def _leave(self, turn: _Turn) -> None:
        self._running[turn.kind] -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        live, imports = self._waiting
        while sum(self._running) < self._most():
            if live:
                turn = live.popleft()
            elif imports and self._running[_IMPORT] < self._of_imports:
                turn = imports.popleft()
            else:
                return
            self._running[turn.kind] += 1
            turn.may_go.set_result(None)


class _Turn:
    """One call's place."""

    may_go: asyncio.Future[None]

    def __init__(self, calls: Calls, kind: int, goes_first: bool) -> None:
        self._calls = calls
        self.kind = kind
        self.goes_first = goes_first

    async def __aenter__(self) -> None:
        await self._calls._enter(self)

    async def __aexit__(self, *_: object) -> None:
        self._calls._leave(self)
