"""Rate limits as a provider tells them, and a brake within one process: calls in flight.

Header names: the IETF draft "RateLimit header fields for HTTP"
(https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/, both the three-field form of its
earlier versions and the structured ``RateLimit`` field of the later ones) and the older ``X-RateLimit-*``
custom. ``X-RateLimit-Reset`` is read as Unix time when it is larger than ten years of seconds.

Budgets over several processes belong to the connections service; the brake only keeps one process polite.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType

from crmbridge.core.manifest import LimitReading
from crmbridge.toolkit.failures import retry_after_seconds

__all__ = ["InFlight", "LimitReading", "read_limits"]

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
        # Made for the first who waits: there is a gate for each connection, and an empty deque takes 750 bytes.
        self._waiting: deque[asyncio.Future[None]] | None = None
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
        if self._waiting is None:
            self._waiting = deque()
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
