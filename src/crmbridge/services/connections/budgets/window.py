"""Window: what was spent of one rate budget, and what may be given out now. Pure; the caller brings the time.

A token is charged to a moment and is free again one whole period later, so no period of the provider's own, fixed or
sliding, wherever it begins, can hold more calls than the limit, as long as no token is used after its moment. Moments
are kept in grains of a hundredth of the period, rounded up: late by at most one grain, never early.
"""

from __future__ import annotations

import math

import msgspec

__all__ = ["LARGEST_LIMIT", "Grant", "Remaining", "Window"]

_GRAINS = 100
# A token for a call that stands ready is used at once; this leaves room for a busy process.
_READY_SHARE, _READY_LEAST, _READY_MOST = 0.05, 0.05, 0.5
_AHEAD_SHARE, _AHEAD_MOST = 0.25, 5.0
# Spacing longer than this would hold a call back for longer than callers wait.
_LONGEST_SPACING = 0.5
_CREDIT_SHARE, _CREDIT_MOST = 0.05, 1.0
LARGEST_LIMIT = 10_000_000
_BELIEVED_SECONDS = 300.0


class Remaining(msgspec.Struct, kw_only=True):
    """What is left of one budget of a connection. ``per_seconds`` 0: calls in flight, no window.

    ``held_seconds``: the provider asked for a pause that lasts so much longer.
    """

    kind: str
    limit: int
    remaining: int
    per_seconds: float = 0.0
    held_seconds: float = 0.0


class Grant(msgspec.Struct, kw_only=True):
    """Tokens given: ``ready`` for calls that wait, ``ahead`` for calls to come; a grain and seconds of life for each.

    ``wait_seconds`` until the next token may be had, where fewer than needed were given; else 0.
    """

    ready: int = 0
    ready_grain: int = 0
    ready_lasts: float = 0.0
    ahead: int = 0
    ahead_grain: int = 0
    ahead_lasts: float = 0.0
    wait_seconds: float = 0.0


class Window(msgspec.Struct, kw_only=True):
    """The state of one budget as it is kept in its row. Times are seconds of the database's clock.

    ``spent`` maps a grain to the tokens charged to it. ``told_limit`` is the limit that the provider told, 0 = none;
    it counts instead of the declared ``limit``. ``foreign``: calls of others that the provider counts, until when.
    """

    limit: int
    per_seconds: float
    told_limit: int = 0
    spent: dict[int, int] = msgspec.field(default_factory=dict)
    paced_until: float = 0.0
    held_until: float = 0.0
    foreign: int = 0
    foreign_until: float = 0.0

    @property
    def most(self) -> int:
        """The limit that counts."""
        return self.told_limit or self.limit

    @property
    def grain_seconds(self) -> float:
        """The length of a grain."""
        return self.per_seconds / _GRAINS

    def used(self, now: float) -> int:
        """Tokens that are not free again yet; those that are drop out."""
        over = [grain for grain in self.spent if self._frees(grain) <= now]
        for grain in over:
            del self.spent[grain]
        return sum(self.spent.values())

    def free(self, now: float) -> int:
        """Tokens that are left, 0 or less when the provider counts more than we do."""
        return self.most - self.used(now) - (self.foreign if self.foreign_until > now else 0)

    def grant(self, now: float, need: int, ahead: int = 0) -> Grant:
        """Give up to ``need`` tokens for calls that wait and up to ``ahead`` for calls to come.

        The first half of the limit is given as asked, part of it ahead. The second half goes only to calls that wait,
        and spaced at the budget's own rate, so that a backlog does not empty the window for everybody else.
        """
        given = Grant()
        if self.held_until > now:
            given.wait_seconds = self.held_until - now
            return given
        free = self.free(now)
        easy = max(0, free - self.most // 2)
        at_once = min(need, easy)
        given.ready = at_once + self._paced(now, min(need - at_once, max(free, 0) - at_once))
        if ahead > 0 and at_once == need:
            given.ahead = min(ahead, (easy - at_once) // 2)
        if given.ready:
            given.ready_lasts = min(max(self.per_seconds * _READY_SHARE, _READY_LEAST), _READY_MOST)
            given.ready_grain = self._charge(now + given.ready_lasts, given.ready)
        if given.ahead:
            given.ahead_lasts = min(self.per_seconds * _AHEAD_SHARE, _AHEAD_MOST)
            given.ahead_grain = self._charge(now + given.ahead_lasts, given.ahead)
        if given.ready < need:
            given.wait_seconds = max(self._until_free(now), self.paced_until - now, self.grain_seconds / 4)
        return given

    def settle(self, grain: int, count: int, used_at: float | None) -> None:
        """Tokens of a grain were used, at the latest at ``used_at``; None: they were not used and come back."""
        there = min(count, self.spent.get(grain, 0))
        if there <= 0:
            return
        if there == self.spent[grain]:
            del self.spent[grain]
        else:
            self.spent[grain] -= there
        if used_at is not None:
            self._charge(used_at, there)

    def owe(self, now: float, count: int) -> None:
        """Calls that went without a token (a read that egress repeated) are charged all the same."""
        if count > 0:
            self._charge(now, count)

    def tell(
        self, now: float, *, limit: int | None, remaining: int | None, reset_seconds: float | None, age: float
    ) -> None:
        """What an answer of ``age`` seconds ago told.

        What the provider counts and we do not was spent by others; what we count and it does not is still on its way.
        Each telling replaces the one before. Without a told reset it is believed for five minutes at most: others'
        calls of a long period come free again at moments that we do not know, and a call must find out.
        """
        if limit is not None and 0 < limit <= LARGEST_LIMIT:
            self.told_limit = 0 if limit == self.limit else limit
        if remaining is None or remaining < 0:
            return
        longest = min(self.per_seconds, _BELIEVED_SECONDS)
        self.foreign = min(max(0, self.most - remaining - self.used(now)), self.most)
        self.foreign_until = (
            now - age + (longest if reset_seconds is None else min(reset_seconds, self.per_seconds))
        )

    def hold(self, until: float) -> None:
        """No token before ``until``; never shortens an earlier hold."""
        self.held_until = max(self.held_until, until)

    def fit(self, limit: int, per_seconds: float) -> None:
        """Go on under another declaration: tokens keep their moments, in the new grains."""
        if self.per_seconds != per_seconds:
            old, length = self.spent, self.grain_seconds
            self.per_seconds, self.spent, self.told_limit, self.foreign = per_seconds, {}, 0, 0
            for grain, count in old.items():
                self._charge(grain * length, count)
        self.limit = limit

    def remaining(self, kind: str, now: float) -> Remaining:
        """What to show."""
        return Remaining(
            kind=kind,
            limit=self.most,
            remaining=0 if self.held_until > now else max(0, self.free(now)),
            per_seconds=self.per_seconds,
            held_seconds=round(max(0.0, self.held_until - now), 1),
        )

    def _frees(self, grain: int) -> float:
        return grain * self.grain_seconds + self.per_seconds

    def _charge(self, moment: float, count: int) -> int:
        grain = math.ceil(moment / self.grain_seconds)
        self.spent[grain] = self.spent.get(grain, 0) + count
        return grain

    def _paced(self, now: float, want: int) -> int:
        spacing = self.per_seconds / self.most
        if want <= 0 or spacing > _LONGEST_SPACING:
            return max(want, 0)
        # Lateness of those who ask is made up for, a little.
        since = max(self.paced_until, now - min(self.per_seconds * _CREDIT_SHARE, _CREDIT_MOST))
        count = min(want, math.floor((now - since) / spacing) + 1) if since <= now else 0
        self.paced_until = since + count * spacing
        return count

    def _until_free(self, now: float) -> float:
        missing = 1 - self.free(now)
        if missing <= 0:
            return 0.0
        frees = [(self._frees(grain), count) for grain, count in self.spent.items()]
        if self.foreign_until > now:
            frees.append((self.foreign_until, self.foreign))
        for moment, count in sorted(frees):
            missing -= count
            if missing <= 0:
                return moment - now
        return self.per_seconds
