"""Elsewhere: a caller waits here for a target that another process delivers. A word each way, between the looks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

from crmbridge.db.signals import Signals

__all__ = ["Elsewhere"]

# Somebody waits for this target of this lane; this target has changed.
_WAITED, _SETTLED = "waited", "settled"
# Words about targets that no drain of this process ever comes to are forgotten by and by.
_MOST = 1000


class _Wakes(Protocol):
    def wake(self) -> None: ...


class Elsewhere:
    """Asks whoever works on a lane to let a waited write pass and to tell its end; does the same for others.

    ``drains`` are those of this process by connection, ``start`` runs something on the side, ``wake`` wakes the callers
    that wait for a target here.
    """

    def __init__(
        self,
        signals: Signals | None,
        drains: Mapping[UUID, _Wakes],
        start: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._signals = signals
        self._drains = drains
        self._start = start
        self._waited: OrderedDict[UUID, None] = OrderedDict()
        self.wake: Callable[[UUID], None] = lambda _: None
        if signals is not None:
            signals.listen(_WAITED, self._hear_waited)
            signals.listen(_SETTLED, lambda text: self.wake(UUID(text)))

    async def ask(self, targets: Sequence[tuple[UUID, UUID]]) -> None:
        """Say that somebody waits for these: (connection, target). Those of this process's own drains need no word."""
        words = [f"{lane} {target}" for lane, target in targets if lane not in self._drains]
        if words and self._signals is not None:
            await self._signals.send(_WAITED, " ".join(words))

    def tell(self, target_id: UUID) -> None:
        """This target has changed here: told when somebody elsewhere asked."""
        if self._signals is not None and self._waited.pop(target_id, False) is None:
            self._start(self._signals.send(_SETTLED, str(target_id)))

    def _hear_waited(self, text: str) -> None:
        words = [UUID(word) for word in text.split()]
        for connection_id, target_id in zip(words[::2], words[1::2], strict=True):
            # Kept without a drain too: this process may be taking the lane just now.
            self._waited[target_id] = None
            while len(self._waited) > _MOST:
                self._waited.popitem(last=False)
            if connection_id in self._drains:
                self._drains[connection_id].wake()
