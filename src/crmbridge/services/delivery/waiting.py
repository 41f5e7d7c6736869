"""Waiting: callers of this process that want to see a target settle."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from uuid import UUID

from crmbridge.services.delivery.elsewhere import Elsewhere
from crmbridge.services.delivery.model import TargetView

__all__ = ["Waiters"]


class Waiters:
    """Futures by target id. A drain of this process wakes them; of one elsewhere a word tells, or reading again."""

    def __init__(self, elsewhere: Elsewhere) -> None:
        self._elsewhere = elsewhere
        elsewhere.wake = self.wake
        self._futures: dict[UUID, list[asyncio.Future[TargetView | None]]] = {}

    def wake(self, target_id: UUID, view: TargetView | None = None) -> None:
        """This target has changed; ``view`` is how it stands, where that is known."""
        self._elsewhere.tell(target_id)
        for future in self._futures.pop(target_id, ()):
            if not future.done():
                future.set_result(view)

    async def wait(self, target_ids: Iterable[UUID], seconds: float) -> TargetView | None:
        """How the first of these that changes in this process stands; None after ``seconds``, or when not known."""
        ids = list(target_ids)
        future: asyncio.Future[TargetView | None] = asyncio.get_running_loop().create_future()
        for target_id in ids:
            self._futures.setdefault(target_id, []).append(future)
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            return None
        finally:
            for target_id in ids:
                left = [one for one in self._futures.get(target_id, ()) if one is not future]
                if left:
                    self._futures[target_id] = left
                else:
                    self._futures.pop(target_id, None)
