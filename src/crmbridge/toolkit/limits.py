"""Rate limits as a provider tells them, and two in-process brakes: calls in flight and calls per second.

Header names: the IETF draft "RateLimit header fields for HTTP"
(https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/, both the three-field form of its
earlier versions and the structured ``RateLimit`` field of the later ones) and the older ``X-RateLimit-*``
custom. ``X-RateLimit-Reset`` is read as Unix time when it is larger than ten years of seconds.

Budgets over several processes belong to the connections service; these two only keep one process polite.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType

from crmbridge.core.manifest import LimitReading
from crmbridge.toolkit.failures import retry_after_seconds

__all__ = ["InFlight", "LimitReading", "Pace", "read_limits"]

_TEN_YEARS = 315_360_000
_MAX_RESET_SECONDS = 86_400.0
_NUMBER = re.compile(r"\s*(\d{1,15})(?:\.(\d{1,9}))?")
_STRUCTURED = re.compile(r";\s*([a-z]+)=(\d{1,12})")


def read_limits(
    headers: Mapping[str, str], *, prefix: str = "x-ratelimit", now: float | None = None
) -> LimitReading:
    """Reads rate-limit headers (lower-case names); unreadable ones count as not told.

    ``prefix`` is the provider's own family (``x-ratelimit``); the standard ``ratelimit`` family and
    ``retry-after`` are read where the provider's own is silent. ``now`` is Unix seconds.
    """
    moment = time.time() if now is None else now
    limit = _first(headers, prefix, "limit")
    if limit is None:
        limit = _first(headers, prefix, "max")
    remaining = _first(headers, prefix, "remaining")
    reset = _reset(headers, prefix, moment)
    structured = dict(_STRUCTURED.findall(headers.get("ratelimit", "")[:400]))
    quota = dict(_STRUCTURED.findall(headers.get("ratelimit-policy", "")[:400]))
    if limit is None and "q" in quota:
        limit = float(quota["q"])
    if remaining is None and "r" in structured:
        remaining = float(structured["r"])
    if reset is None and "t" in structured:
        reset = min(float(structured["t"]), _MAX_RESET_SECONDS)
    if reset is None:
        reset = retry_after_seconds(headers, now=moment)
    return LimitReading(
        limit=None if limit is None else int(limit),
        remaining=None if remaining is None else int(remaining),
        reset_seconds=reset,
    )


def _first(headers: Mapping[str, str], prefix: str, name: str) -> float | None:
    for header in (f"{prefix}-{name}", f"ratelimit-{name}"):
        match = _NUMBER.match(headers.get(header, ""))
        if match:
            return float(f"{match[1]}.{match[2] or 0}")
    return None


def _reset(headers: Mapping[str, str], prefix: str, now: float) -> float | None:
    value = _first(headers, prefix, "reset")
    if value is None:
        return None
    if value > _TEN_YEARS * 1000:
        value /= 1000
    if value > _TEN_YEARS:
        value -= now
    return min(max(value, 0.0), _MAX_RESET_SECONDS)


class InFlight:
    """At most ``limit`` calls at the same time: ``async with gate: ...``. Waiters go in order."""

    def __init__(self, limit: int) -> None:
        self.limit = 0
        self._count = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.resize(limit)

    @property
    def count(self) -> int:
        """Calls in flight now."""
        return self._count

    @property
    def is_full(self) -> bool:
        """Whether the next call would have to wait."""
        return self._count >= self.limit or bool(self._waiting)

    def resize(self, limit: int) -> None:
        """Another limit from now on. Calls in flight go on, also when they are more than it allows."""
        if limit < 1:
            raise ValueError("limit is at least 1")
        self.limit = limit
        self._let_in()

    async def __aenter__(self) -> InFlight:
        if not self.is_full:
            self._count += 1
            return self
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._leave()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self._count -= 1
        self._let_in()

    def _let_in(self) -> None:
        """The place is taken for the waiter before he wakes, so that nobody slips in between."""
        while self._waiting and self._count < self.limit:
            place = self._waiting.popleft()
            if not place.done():
                self._count += 1
                place.set_result(None)


class Pace:
    """A token bucket: ``limit`` calls per ``per_seconds``, a burst of ``limit`` at most.

    ``reserve`` takes tokens at once and answers how long to wait, so callers are served in order without a
    queue. ``clock`` answers monotonic seconds.
    """

    def __init__(
        self, limit: int, per_seconds: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if limit < 1 or per_seconds <= 0:
            raise ValueError("limit is at least 1 and per_seconds more than 0")
        self.limit = limit
        self.per_seconds = per_seconds
        self._clock = clock
        self._rate = limit / per_seconds
        self._tokens = float(limit)
        self._counted_at = clock()
        self._held_until = 0.0

    def reserve(self, count: int = 1) -> float:
        """Takes ``count`` tokens; answers the seconds to wait before the call (0 = now).

        Raises ValueError for more tokens than a full bucket holds.
        """
        if not 1 <= count <= self.limit:
            raise ValueError(f"count is 1 to {self.limit}")
        now = self._clock()
        self._tokens = min(self.limit, self._tokens + max(now - self._counted_at, 0.0) * self._rate)
        self._counted_at = now
        self._tokens -= count
        wait = -self._tokens / self._rate if self._tokens < 0 else 0.0
        return max(wait, self._held_until - now)

    async def wait(self, count: int = 1) -> None:
        """Reserves, then sleeps as long as needed."""
        seconds = self.reserve(count)
        if seconds > 0:
            await asyncio.sleep(seconds)

    def hold(self, seconds: float) -> None:
        """Lets no call pass for ``seconds`` (a ``Retry-After``); never shortens an earlier hold."""
        self._held_until = max(self._held_until, self._clock() + seconds)
