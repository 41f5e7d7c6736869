"""Clock: the time an emulator lives in. It follows the machine until it is moved, frozen or set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["Clock"]


class Clock:
    """Time in UTC. ``start`` freezes it there; without, it runs with the machine's clock."""

    __slots__ = ("_frozen", "_offset")

    def __init__(self, start: datetime | None = None) -> None:
        self._offset = timedelta()
        self._frozen: datetime | None = None
        if start is not None:
            self.set(start)

    def now(self) -> datetime:
        """An aware datetime in UTC."""
        if self._frozen is not None:
            return self._frozen
        return datetime.now(UTC) + self._offset

    def timestamp(self) -> float:
        """Seconds since 1970."""
        return self.now().timestamp()

    def advance(self, seconds: float) -> None:
        """Moves forward (or back, when negative); a running clock keeps running."""
        if self._frozen is not None:
            self._frozen += timedelta(seconds=seconds)
        else:
            self._offset += timedelta(seconds=seconds)

    def set(self, at: datetime) -> None:
        """Freezes at ``at``. Raises ValueError for a naive datetime."""
        if at.tzinfo is None:
            raise ValueError("a clock is set to an aware datetime; add a time zone")
        self._frozen = at.astimezone(UTC)

    def freeze(self) -> None:
        """Stops at the present moment of this clock."""
        self._frozen = self.now()
