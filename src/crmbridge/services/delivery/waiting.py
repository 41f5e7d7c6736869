"""Waiting: callers of this process that want to see a target settle."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from uuid import UUID

__all__ = ["Waiters"]


class Waiters:
    """Futures by target id. A drain of this process wakes them; others are seen by reading again."""

    def __init__(self) -> None:
        self._futures: dict[UUID, list[asyncio.Future[None]]] = {}

    def wake(self, target_ids: Iterable[UUID]) -> None:
        """These targets have changed."""
        if not self._futures:
            return
        for target_id in target_ids:
            for future in self._futures.pop(target_id, ()):
                if not future.done():
                    future.set_result(None)

    async def wait(self, target_ids: Iterable[UUID], seconds: float) -> bool:
        """True as soon as one of these targets changes in this process, False after ``seconds``."""
        ids = list(target_ids)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for target_id in ids:
            self._futures.setdefault(target_id, []).append(future)
        try:
            async with asyncio.timeout(seconds):
                await future
            return True
        except TimeoutError:
            return False
        finally:
            for target_id in ids:
                left = [f for f in self._futures.get(target_id, ()) if f is not future]
                if left:
                    self._futures[target_id] = left
                else:
                    self._futures.pop(target_id, None)
