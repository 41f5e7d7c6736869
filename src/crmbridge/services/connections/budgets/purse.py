"""Purse: the rate-budget tokens that one process holds for one connection, and the calls that wait for more."""

from __future__ import annotations

import asyncio
import copy
import math
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from crmbridge.core.driver import CrmDriver
from crmbridge.core.errors import CrmError, RateLimited, Unavailable
from crmbridge.core.manifest import BudgetKind, Manifest
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.services.connections.budgets.line import PRESENCE_SECONDS, Errand, Line
from crmbridge.services.connections.budgets.window import Grant
from crmbridge.toolkit.failures import retry_after_seconds
from crmbridge.toolkit.limits import InFlight, read_limits

if TYPE_CHECKING:
    from crmbridge.services.connections.budgets.service import Budgets

__all__ = ["Purse", "Ticket"]

_log = structlog.get_logger("crmbridge.budgets")

# How long a call waits for a token before it fails with rate_limited. Seconds.
PATIENCE_SECONDS = 2.0
# Tokens of a period this long must not lapse unused. Seconds.
LONG_PERIOD = 600.0
# So many tokens taken ahead are a stock that is filled up on the side before it is empty.
_WIDE = 4
_SHORTEST_NAP = 0.005
_LONGEST_DENIAL = 30.0
_DEFAULT_HOLD = 1.0
_LONGEST_HOLD = 86_400.0

Ticket = tuple[tuple[Line, int], ...]


class _Waiter:
    __slots__ = ("deadline", "is_search", "lines", "ticket")

    def __init__(
        self, lines: tuple[Line, ...], is_search: bool, ticket: asyncio.Future[Ticket], deadline: float
    ) -> None:
        self.lines = lines
        self.is_search = is_search
        self.ticket = ticket
        self.deadline = deadline


class Purse:
    """``async with purse`` is a place among the calls in flight; :meth:`take` a token for one HTTP call."""

    def __init__(self, owner: Budgets, tenant_id: UUID, connection_id: UUID) -> None:
        self.tenant_id = tenant_id
        self.connection_id = connection_id
        self._owner = owner
        self._driver: type[CrmDriver] = CrmDriver
        self._manifest: Manifest | None = None
        self._lines: tuple[Line, ...] = ()
        self._search: tuple[Line, ...] = ()
        self._base: tuple[Line, ...] = ()
        self._reads_answers = False
        self._concurrent = 0
        self._gate = InFlight(1)
        self._shared_at = 0.0
        self._is_crowded = self._is_leaving = False
        self._held_until = 0.0
        # Nearly always empty, in each of thousands of purses: a deque would take 750 bytes.
        self._waiters: list[_Waiter] = []
        self._task: asyncio.Task[None] | None = None
        self._woken: asyncio.Event | None = None
        self._again = False
        self._is_over = False
        self._is_ahead_wanted = False
        self._visited_at = 0.0
        self._taken = 0

    def adopt(self, driver: type[CrmDriver], manifest: Manifest) -> None:
        """Go by this declaration from now on."""
        if manifest is self._manifest and driver is self._driver:
            return
        is_known = self._manifest is not None and self._manifest.budgets == manifest.budgets
        is_known = is_known and driver is self._driver
        self._manifest, self._driver = manifest, driver
        if is_known:
            return
        rates = [budget for budget in manifest.budgets if budget.kind is not BudgetKind.CONCURRENT]
        self._lines = tuple(Line(budget) for budget in rates if budget.per_seconds > 0)
        self._base = tuple(line for line in self._lines if line.kind is not BudgetKind.SEARCH)
        self._search = self._lines
        has_hook = driver.budgets_from.__func__ is not CrmDriver.budgets_from.__func__  # type: ignore[attr-defined]
        self._reads_answers = has_hook or any(line.headers for line in self._lines)
        declared = [budget.limit for budget in manifest.budgets if budget.kind is BudgetKind.CONCURRENT]
        self._concurrent = declared[0] if declared else 0
        self._gate.resize(manifest.in_flight_limit())
        for waiter in self._waiters:
            waiter.lines = self._search if waiter.is_search else self._base

    # -- calls in flight -----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Purse:
        if self._concurrent and self._gate.count and monotonic() - self._shared_at > PRESENCE_SECONDS / 2:
            # One call each may be in flight unannounced; whoever wants more says so and is told its share.
            self._shared_at = monotonic()
            self._is_crowded = True
            self._report_soon()
        await self._gate.__aenter__()
        return self

    @property
    def at_once(self) -> int:
        """So many calls this process may have in flight: its share, where several processes make calls."""
        return self._gate.limit

    def step_aside(self) -> None:
        """No call follows for now: the others may have this process's share of the calls in flight."""
        if self._gate.count or not self._concurrent or not self._shared_at:
            return
        self._is_leaving = monotonic() - self._shared_at < PRESENCE_SECONDS
        self._shared_at, self._is_crowded = 0.0, False
        self._gate.resize(self._concurrent)
        if self._is_leaving:
            self._report_soon()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._gate.__aexit__(kind, error, trace)

    # -- taking --------------------------------------------------------------------------------------------------

    def get_ready(self) -> None:
        """A call will come soon: fetch a token for it meanwhile, if none is at hand."""
        now = monotonic()
        if self._base and any(line.left(now) == 0 and line.next_at <= now for line in self._base):
            self._is_ahead_wanted = True
            self._start()

    async def take(self, mark: str = "") -> Ticket:
        """A token of each budget that the call counts against. Waits two seconds at most.

        Raises RateLimited (``retry_after_seconds`` set, nothing was sent), DatabaseUnavailable.
        """
        now = monotonic()
        lines = self._search if mark == BudgetKind.SEARCH.value else self._base
        if self._held_until > now:
            await self._sit_out(self._held_until - now)
        if not lines:
            return ()
        ticket = None if self._waiters else self._pop(lines, now)
        if ticket is None:
            return await self._wait(lines)
        if self._task is None and any(
            line.ahead >= _WIDE and line.left(now) <= line.ahead // 4 for line in lines
        ):
            self._start()
        return ticket

    def _pop(self, lines: tuple[Line, ...], now: float) -> Ticket | None:
        for line in lines:
            if line.left(now) == 0:
                return None
        self._taken += 1
        return tuple((line, line.pop()) for line in lines)

    async def _wait(self, lines: tuple[Line, ...]) -> Ticket:
        now = monotonic()
        blocked = max(lines, key=lambda line: line.next_at)
        is_fresh = now - blocked.asked_at < _LONGEST_DENIAL
        if blocked.next_at > now + PATIENCE_SECONDS and is_fresh:
            raise self._refusal(blocked, blocked.next_at - now)
        future: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(lines, lines is self._search, future, now + PATIENCE_SECONDS)
        self._waiters.append(waiter)
        if blocked.next_at <= now or not is_fresh:
            self._rouse()
        self._start()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                for line, grain in future.result():
                    line.unused(grain)
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    async def _sit_out(self, seconds: float) -> None:
        """A pause that the provider asked for, where no budget is declared that could keep it."""
        if seconds > PATIENCE_SECONDS:
            raise RateLimited(
                f"{self._name} asked for a pause; the next call may go in {math.ceil(seconds)} s.",
                retry_after_seconds=seconds,
            )
        await asyncio.sleep(seconds)

    def _refusal(self, line: Line, seconds: float) -> RateLimited:
        return RateLimited(
            f"The {line.kind.value} budget of {self._name} is used up ({line.limit} calls per {line.per_seconds:g} s)"
            f" over all processes; the next call may go in {math.ceil(seconds)} s.",
            retry_after_seconds=round(max(seconds, 0.1), 1),
        )

    @property
    def _name(self) -> str:
        return self._manifest.display_name if self._manifest else ""

    # -- after the call ------------------------------------------------------------------------------------------

    def settle(self, ticket: Ticket, request: HttpRequest, response: HttpResponse | None) -> None:
        """The call has ended. Its token is charged to this moment, which is no earlier than when it was counted."""
        now = monotonic()
        for line, grain in ticket:
            count, _ = line.used.get(grain, (0, now))
            line.used[grain] = (count + 1, now)
            line.owed += max(0, request.tries - 1)
        if response is None:
            return
        if self._reads_answers:
            self._read(response, now)
        if response.status == 429:
            self._hold(request, response, now)

    def _read(self, response: HttpResponse, now: float) -> None:
        told = self._driver.budgets_from(response)
        for line in self._lines:
            reading = told.get(line.kind)
            if reading is None and line.headers:
                reading = read_limits(response.headers, prefix=line.headers)
            if reading is None or (reading.limit is None and reading.remaining is None):
                continue
            line.reading = (reading, now)
            if line.is_news(reading):
                # Others spend from it too: what is at hand here may not be there any more.
                if reading.remaining is not None and reading.remaining < line.left(now):
                    line.drop()
                self._report_soon()

    def _hold(self, request: HttpRequest, response: HttpResponse, now: float) -> None:
        asked = retry_after_seconds(response.headers)
        if asked is None:
            asked = read_limits(response.headers).reset_seconds
        until = now + min(asked if asked is not None else _DEFAULT_HOLD, _LONGEST_HOLD)
        lines = self._search if request.budget == BudgetKind.SEARCH.value else self._base
        if not lines:
            self._held_until = max(self._held_until, until)
            return
        # The narrowest of those that it counted against.
        line = min(lines, key=lambda one: one.per_seconds)
        line.held_until = max(line.held_until, until)
        line.next_at = max(line.next_at, until)
        self._report_soon()

    def holds_any(self) -> bool:
        """Whether tokens are at hand that may still be used."""
        now = monotonic()
        return sum(line.left(now) for line in self._lines) > 0

    def return_leftover(self) -> None:
        """Bring back what lapsed, on the side."""
        if any(line.returned for line in self._lines):
            self._report_soon()

    def stop(self) -> None:
        """The process ends: who still waits is told so."""
        self._is_over = True
        self._rouse()

    def shares(self) -> dict[tuple[str, str], float]:
        """By driver and budget, what was left of it (0 to 1) when the table was last visited; a budget whose period
        has passed since is left out."""
        now = monotonic()
        if self._manifest is None:
            return {}
        return {
            (self._manifest.slug, line.kind.value): 0.0
            if line.held_until > now
            else max(0.0, min(1.0, line.free / line.most))
            for line in self._lines
            if line.held_until > now or (self._visited_at and now - self._visited_at < line.per_seconds)
        }

    def drop_tokens(self) -> None:
        """All that is at hand is to go back at the next visit."""
        for line in self._lines:
            line.drop()

    # -- errands -------------------------------------------------------------------------------------------------

    def _report_soon(self) -> None:
        self._again = True
        self._rouse()
        self._start()

    def _rouse(self) -> None:
        if self._woken is not None:
            self._woken.set()

    def _start(self) -> None:
        if self._task is None:
            self._task = self._owner.start(self)

    async def run(self) -> None:
        """Visit the table until nobody waits and nothing is left to report at once."""
        woken = self._woken = asyncio.Event()
        try:
            while True:
                self._again = False
                woken.clear()
                await self._owner.visit(self)
                self._serve()
                if self._is_over:
                    self._fail(Unavailable("This process is ending.", retry_safe=True))
                    return
                if not self._waiters:
                    if self._again:
                        continue
                    return
                seconds = self._nap()
                if self._waiters:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(seconds):
                            await woken.wait()
        except Exception as error:
            self._fail(error)
        finally:
            self._task = self._woken = None

    def errand(self) -> Errand:
        """What the next visit is for. A visit that fails loses the report: its tokens stay charged, and lapse."""
        now = monotonic()
        need: dict[BudgetKind, int] = {}
        for waiter in self._waiters:
            for line in waiter.lines:
                need[line.kind] = need.get(line.kind, 0) + 1
        ahead = self._forecast(now)
        wants = {
            line.kind: (
                max(0, need.get(line.kind, 0) - line.left(now)),
                min(ahead, line.most_ahead) if line.kind is not BudgetKind.SEARCH else 0,
            )
            for line in self._lines
        }
        self._is_ahead_wanted, self._taken, self._visited_at = False, 0, now
        lines = self._lines
        if (
            not self._waiters
            and not ahead
            and not any(
                line.used or line.returned or line.owed or line.reading or line.held_until > now
                for line in lines
            )
        ):
            lines = ()
        is_leaving = self._is_leaving and not self._is_crowded
        concurrent = self._concurrent if self._is_leaving or self._is_crowded else 0
        self._is_crowded = self._is_leaving = False
        return Errand(lines, wants, concurrent, is_leaving=is_leaving)

    def _forecast(self, now: float) -> int:
        """Tokens for two seconds of calls, by how many went since the last visit; none after a silence."""
        elapsed = now - self._visited_at
        if self._is_over:
            return 0
        if elapsed > 5.0:
            return 1 if self._is_ahead_wanted else 0
        calls = self._taken + len(self._waiters)
        return max(int(self._is_ahead_wanted), math.ceil(2 * calls / max(elapsed, 0.01)) if calls else 0)

    def receive(self, errand: Errand, grants: dict[BudgetKind, Grant], share: int) -> None:
        """Put what a visit brought at hand."""
        for line in errand.lines:
            if line not in self._lines:
                continue
            grant = grants[line.kind]
            for count, grain, lasts in (
                (grant.ready, grant.ready_grain, grant.ready_lasts),
                (grant.ahead, grant.ahead_grain, grant.ahead_lasts),
            ):
                if count:
                    line.add(errand.began + lasts, grain, count)
            line.ahead, line.asked_at = grant.ahead, errand.read_at
            line.next_at = errand.read_at + grant.wait_seconds if grant.wait_seconds else 0.0
            if grant.ahead and line.per_seconds >= LONG_PERIOD:
                self._owner.note_leftover(self)
        if share:
            self._gate.resize(share)

    def _serve(self) -> None:
        """Tickets for those who wait, in order; one who lacks a search token does not keep others back."""
        now = monotonic()
        for waiter in list(self._waiters):
            if waiter.ticket.done():
                self._waiters.remove(waiter)
                continue
            ticket = self._pop(waiter.lines, now)
            if ticket is not None:
                self._waiters.remove(waiter)
                waiter.ticket.set_result(ticket)

    def _nap(self) -> float:
        """Seconds until the next token may be had; who would wait for too long is told now."""
        now = monotonic()
        soonest = now + PATIENCE_SECONDS
        for waiter in list(self._waiters):
            blocked = max(waiter.lines, key=lambda line: line.next_at)
            if max(blocked.next_at, now) >= waiter.deadline:
                self._waiters.remove(waiter)
                if not waiter.ticket.done():
                    waiter.ticket.set_exception(self._refusal(blocked, blocked.next_at - now))
            else:
                soonest = min(soonest, blocked.next_at)
        return max(soonest - now, _SHORTEST_NAP)

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, CrmError):
            _log.warning("budget.visit_failed", kind=type(error).__name__)
            error = Unavailable("The rate budget could not be read.", retry_safe=True)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.ticket.done():
                # Each caller adds its own request id.
                waiter.ticket.set_exception(copy.copy(error))
