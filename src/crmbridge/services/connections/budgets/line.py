"""Line: the tokens of one budget in one process. Errand: what one visit to the table reports and asks for."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from uuid import UUID

from crmbridge.core.manifest import Budget, BudgetKind, LimitReading
from crmbridge.services.connections.budgets.window import LARGEST_LIMIT, Grant, Window

__all__ = ["PRESENCE_SECONDS", "Errand", "Line"]

# A process with several calls in flight counts as there for so long after it last said so.
PRESENCE_SECONDS = 3.0
_MOST_AHEAD = 32


class Line:
    """One rate budget of a purse: tokens at hand, and what the next visit will report. Times are monotonic."""

    __slots__ = (
        "ahead", "asked_at", "free", "headers", "held_until", "kind", "limit", "most", "next_at", "owed", "per_seconds",
        "pieces", "reading", "returned", "used",
    )  # fmt: skip

    def __init__(self, budget: Budget) -> None:
        self.kind = budget.kind
        self.limit = self.most = self.free = budget.limit
        self.per_seconds = budget.per_seconds
        self.headers = budget.headers
        # [usable until, grain, tokens], what ends first first
        self.pieces: list[list[float]] = []
        self.used: dict[int, tuple[int, float]] = {}
        self.returned: dict[int, int] = {}
        self.owed = 0
        self.ahead = 0
        self.next_at = 0.0
        self.asked_at = 0.0
        self.held_until = 0.0
        self.reading: tuple[LimitReading, float] | None = None

    @property
    def most_ahead(self) -> int:
        """Most tokens taken for calls to come: an eighth of the limit, in each of several processes."""
        return min(_MOST_AHEAD, self.limit // 8)

    def left(self, now: float) -> int:
        """Tokens at hand; those whose time is over go back."""
        if self.held_until > now:
            return 0
        while self.pieces and self.pieces[0][0] <= now:
            self._give_back(self.pieces.pop(0))
        return int(sum(piece[2] for piece in self.pieces))

    def add(self, until: float, grain: int, count: int) -> None:
        """Tokens that may be used until then."""
        self.pieces.append([until, grain, count])
        self.pieces.sort()

    def pop(self) -> int:
        """One token; the caller has looked that there is one. Answers its grain."""
        piece = self.pieces[0]
        piece[2] -= 1
        if piece[2] <= 0:
            self.pieces.pop(0)
        return int(piece[1])

    def drop(self) -> None:
        """All tokens at hand go back."""
        while self.pieces:
            self._give_back(self.pieces.pop(0))

    def is_news(self, told: LimitReading) -> bool:
        """Whether an answer tells something that others must know before this process next comes to the table."""
        fewer = told.remaining is not None and told.remaining < self.free - self.most // 10
        return fewer or (told.limit not in (None, self.most) and 0 < (told.limit or 0) <= LARGEST_LIMIT)

    def unused(self, grain: int, count: int = 1) -> None:
        """Tokens of a grain will not be used."""
        self.returned[grain] = self.returned.get(grain, 0) + count

    def _give_back(self, piece: list[float]) -> None:
        self.unused(int(piece[1]), int(piece[2]))


class Errand:
    """What one visit to the table reports and asks for, fixed when the visit begins."""

    def __init__(
        self,
        lines: Sequence[Line],
        wants: dict[BudgetKind, tuple[int, int]],
        concurrent: int,
        *,
        is_leaving: bool = False,
    ) -> None:
        self.lines = lines
        self._is_leaving = is_leaving
        self.kinds = [line.kind for line in lines]
        self.divides = concurrent > 0
        if self.divides:
            self.kinds.append(BudgetKind.CONCURRENT)
        self._wants = wants
        self._concurrent = concurrent
        self.began = self.read_at = monotonic()
        self._reports = [(line.used, line.returned, line.owed, line.reading) for line in lines]
        for line in lines:
            line.used, line.returned, line.owed, line.reading = {}, {}, 0, None

    def settle(self, windows: dict[str, Window], now: float) -> dict[BudgetKind, Grant]:
        """Report to each window and take from it. ``now`` is the database's clock."""
        self.read_at = monotonic()
        grants = {}
        for line, (used, returned, owed, reading) in zip(self.lines, self._reports, strict=True):
            window = windows[line.kind.value]
            for grain, count in returned.items():
                window.settle(grain, count, None)
            for grain, (count, at) in used.items():
                window.settle(grain, count, now - (self.began - at))
            window.owe(now, owed)
            if reading is not None:
                told, at = reading
                window.tell(
                    now,
                    limit=told.limit,
                    remaining=told.remaining,
                    reset_seconds=told.reset_seconds,
                    age=self.began - at,
                )
            if line.held_until > self.began:
                window.hold(now + line.held_until - self.began)
            need, ahead = self._wants.get(line.kind, (0, 0))
            grants[line.kind] = window.grant(now, need, ahead)
            line.most, line.free = window.most, window.free(now)
            line.held_until = max(line.held_until, self.began + window.held_until - now)
        return grants

    def divide(self, holders: dict[UUID, float], me: UUID, now: float) -> tuple[dict[UUID, float], int]:
        """Those who are there, and this process's share of the calls in flight: all while it makes none."""
        there = {holder: until for holder, until in holders.items() if until > now}
        if self._is_leaving:
            there.pop(me, None)
            return there, self._concurrent
        there[me] = now + PRESENCE_SECONDS
        return there, max(1, self._concurrent // len(there))
