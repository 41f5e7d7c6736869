"""Waiting: callers of this process that want to see a target settle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

from crmbridge.services.delivery.elsewhere import Elsewhere
from crmbridge.services.delivery.model import TargetView

__all__ = ["Ear", "Waiters"]


class Ear:
    """What one caller hears of his targets, inside ``with``. A word that comes between two waits is kept."""

    def __init__(self, ears: dict[UUID, list[Ear]], target_ids: Sequence[UUID]) -> None:
        self._ears = ears
        self._ids = target_ids
        self._future: asyncio.Future[None] | None = None
        self._has_heard = False
        self._view: TargetView | None = None

    def __enter__(self) -> Ear:
        for target_id in self._ids:
            self._ears.setdefault(target_id, []).append(self)
        return self

    def __exit__(self, *_: object) -> None:
        for target_id in self._ids:
            others = self._ears[target_id]
            others.remove(self)
            if not others:
                del self._ears[target_id]

    def tell(self, view: TargetView | None) -> None:
        """One of them has changed."""
        self._has_heard, self._view = True, view or self._view
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def hear(self, seconds: float) -> TargetView | None:
        """How the one stands that changed last since the last time; None after ``seconds``, or when not known."""
        if not self._has_heard:
            self._future = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(seconds):
                    await self._future
            except TimeoutError:
                return None
        view, self._has_heard, self._view = self._view, False, None
        return view


class Waiters:
    """Ears by target id. A drain of this process wakes them; of one elsewhere a word tells, or reading again."""

    def __init__(self, elsewhere: Elsewhere) -> None:
        self._elsewhere = elsewhere
        elsewhere.wake = self.wake
        self._ears: dict[UUID, list[Ear]] = {}

    def wake(self, target_id: UUID, view: TargetView | None = None) -> None:
        """This target has changed; ``view`` is how it stands, where that is known."""
        self._elsewhere.tell(target_id)
        for ear in self._ears.get(target_id, ()):
            ear.tell(view)

    def listening(self, target_ids: Sequence[UUID]) -> Ear:
        """For ``with``: until its end nothing that changes these is missed."""
        return Ear(self._ears, target_ids)
