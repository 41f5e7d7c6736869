"""Quotas: so many calls per window, counted by the emulator's clock."""

from __future__ import annotations

import msgspec

from crmbridge.emulation.clock import Clock

__all__ = ["Quota"]


class Quota(msgspec.Struct, kw_only=True):
    """``limit`` calls per ``per_seconds`` in fixed windows that begin with the first call.

    ``only`` limits it to ``writes``, ``reads`` or one operation by its name; empty counts every call.
    """

    limit: int
    per_seconds: float
    name: str = "burst"
    only: str = ""
    window_start: float = 0.0
    used: int = 0

    def counts(self, operation: str, is_write: bool) -> bool:
        """Whether this quota counts such a call."""
        if self.only == "writes":
            return is_write
        if self.only == "reads":
            return not is_write
        return not self.only or self.only == operation

    def take(self, clock: Clock) -> float:
        """Counts one call; answers 0, or the seconds until the window ends when the quota is used up."""
        now = clock.timestamp()
        if now >= self.window_start + self.per_seconds or now < self.window_start:
            self.window_start = now
            self.used = 0
        if self.used >= self.limit:
            return self.window_start + self.per_seconds - now
        self.used += 1
        return 0.0

    @property
    def remaining(self) -> int:
        """Calls left in the window of the last call."""
        return max(0, self.limit - self.used)
