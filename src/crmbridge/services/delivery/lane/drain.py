"""Drain: one worker's turn on one lane. Reads ahead, marks, sends, saves; calls and saves overlap."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial
from time import monotonic
from typing import Any
from uuid import UUID

import msgspec
import structlog

from crmbridge import tracing
from crmbridge.core.ids import new_id
from crmbridge.core.manifest import IdempotencyKind
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import WriteResult
from crmbridge.db.clock import DatabaseClock
from crmbridge.db.errors import DatabaseUnavailable
from crmbridge.db.pool import Database
from crmbridge.services.audit.model import AuditEntry
from crmbridge.services.audit.service import AuditLog
from crmbridge.services.delivery.counting import note_saved, words
from crmbridge.services.delivery.courtesy import Courtesy, Work
from crmbridge.services.delivery.lane import store, telling
from crmbridge.services.delivery.lane.ahead import Ahead
from crmbridge.services.delivery.lane.batch import IMPORT, LIVE, Batch, Lane, Prepared, prepare
from crmbridge.services.delivery.lane.calls import Calls
from crmbridge.services.delivery.lane.outcome import Verdict, judge, judge_look_up
from crmbridge.services.delivery.lane.sending import send
from crmbridge.services.delivery.lane.store import SavedResult, Taken
from crmbridge.services.delivery.lane.tenure import Tenure, jitter
from crmbridge.services.delivery.model import Event, Limits, TargetState, TargetView, advance
from crmbridge.services.delivery.waiting import Waiters
from crmbridge.services.incidents.service import Incidents
from crmbridge.services.vault.keys import TenantKeys

__all__ = ["Drain", "Tools"]

_log = structlog.get_logger("crmbridge.delivery")
_SAVE_TRIES = 3
# How long after a create others that it held back (a note on it) are looked for, while calls are under way. Seconds.
_LOOK_SECONDS = 0.02
# An import gets a call so often, however many live writes come. Seconds.
_PATIENCE = 1.0
# While an import makes way its rows come slowly. A call that could take more waits for them until so long after the
# last one, but for no more than this part of a turn. Seconds; less than _PATIENCE, or live writes would wait with it.
_FILL_SECONDS, _FILL_PART = 0.5, 0.25
_ENDS = (TargetState.APPLIED.value, TargetState.DEAD_LETTER.value)


class Tools(msgspec.Struct, frozen=True):
    """What every drain of a process shares."""

    db: Database
    audit: AuditLog
    incidents: Incidents
    waiters: Waiters
    limits: Limits
    courtesy: Courtesy
    clock: DatabaseClock


class Drain:
    """Works on one lane until nothing is due, its turn is over, the lane must pause, or the lease is lost.

    As many calls are in flight as the manifest allows. While they are, the next batch is read, mapped and marked, and
    the previous one saved. A batch is marked ``sending`` in a committed transaction before its call, if it was not in
    the one that took the lane. How calls are shared between live writes and imports: :class:`Calls`.
    """

    def __init__(
        self,
        tools: Tools,
        taken: Taken,
        connection: Lane,
        keys: TenantKeys,
        window: int,
    ) -> None:
        self._tools = tools
        self._limits = tools.limits
        self._lease = taken.lease
        self._tenure = Tenure(tools.db, tools.limits, taken.lease, taken.began)
        self._connection = connection
        self._keys = keys
        self._send_seconds = max(self._limits.send_seconds, 2 * connection.manifest.timeout_seconds)
        # The longest from a mark to its call. The call must have ended when others look: they wait for both.
        self._idle_seconds = min(self._limits.lease_seconds / 2, self._send_seconds)
        self._calls = Calls(
            lambda: connection.calls_at_once, tools.courtesy.live_calls(taken.lease.connection_id)
        )
        self._ahead = Ahead(tools.db, taken, connection, tools.limits, window)
        self._tasks: set[asyncio.Task[None]] = set()
        # Set by an accept of this process, and by the end of a call.
        self._stirred = asyncio.Event()
        self._look_at = float("inf")
        self._imported_at = monotonic()
        self._is_filling = False
        self._fill_seconds = min(_FILL_SECONDS, _FILL_PART * tools.limits.turn_seconds)
        # What one batch of an import takes of this process and the database, the call aside.
        self._import_seconds = 0.0
        self._error: BaseException | None = None

    def wake(self, priority: int = LIVE) -> None:
        """Something was accepted for this lane in this process."""
        if priority == LIVE:
            self._let_live_pass()
        else:
            self._ahead.want_all()
            self._stirred.set()

    def _let_live_pass(self) -> None:
        """A live write came: it goes before what was read of an import, which keeps to fewer calls now."""
        self._calls.make_way()
        self._ahead.want_live()
        self._stirred.set()

    async def run(self) -> bool:
        """Work. True when the lane was left with something due (its turn is over): enqueue it again."""
        self._tenure.keep()
        try:
            if self._lease.must_recover:
                await self._recover()
            await self._work()
            return await self._leave()
        except asyncio.CancelledError:
            for task in self._tasks:
                task.cancel()
            raise
        except Exception as error:
            _log.warning(
                "drain.failed", connection_id=str(self._lease.connection_id), kind=type(error).__name__
            )
            if self._tasks:
                await asyncio.wait(self._tasks)
            await self._tenure.abandon()
            return False
        finally:
            self._tenure.end()
            self._tools.courtesy.note_calls(self._lease.connection_id, self._calls.live_peak)

    async def _recover(self) -> None:
        # Asked after the lane was taken: a clock that leapt may be why it could be.
        steady = await self._tools.clock.steady_seconds()
        await self._tenure.recover(
            self._connection.manifest, self._send_seconds + self._idle_seconds, steady, self._tools.waiters
        )

    # -- the loop ----------------------------------------------------------------------------------------------

    @property
    def _must_leave(self) -> bool:
        """No further batch of an import may begin."""
        return self._is_off or self._left_seconds <= 0

    @property
    def _left_seconds(self) -> float:
        """Of this turn."""
        return self._tenure.started + self._limits.turn_seconds - monotonic()

    @property
    def _is_off(self) -> bool:
        """No further call may go."""
        return self._tenure.is_lost or self._tenure.pause_seconds > 0 or self._error is not None

    async def _work(self) -> None:
        while not self._tenure.is_released and not self._is_off:
            if self._must_leave and not self._calls.imports_under_way:
                return
            batch = await self._next()
            if self._tenure.is_released:
                return
            if batch is not None:
                self._begin(batch)
            elif self._tasks or self._is_filling:
                await self._pass_time()
            elif not self._must_leave and await self._release(always=False) is not False:
                return

    async def _next(self) -> Batch | None:
        """The next batch, or None while nothing is due or there is no room for it."""
        is_due = not self._must_leave and monotonic() - self._imported_at > _PATIENCE
        if self._calls.has_room(LIVE):
            await self._ahead.read(only_live=self._must_leave, calls=self._calls.free, is_import_due=is_due)
        first = self._ahead.first(is_import_due=is_due)
        self._is_filling = first is not None and self._waits_for_rows(first)
        if first is None or self._is_filling:
            return None
        if first.has_waited:
            self._ahead.put_back(first)
            return await self._next()
        if not self._calls.has_room(first.priority) or (first.priority and self._must_leave):
            return None
        first.goes_first = is_due
        self._ahead.begin(first)
        return first

    def _waits_for_rows(self, batch: Batch) -> bool:
        """A call of an import that could take more: each costs the CRM's budget the same."""
        left = self._imported_at + self._fill_seconds - monotonic()
        if not batch.has_room or left <= 0 or not batch.is_import or not self._tools.courtesy.is_asked:
            return False
        if any(row.id in self._ahead.marked for row in batch.rows):
            return False
        batch.has_waited = True
        self._look_at = min(self._look_at, monotonic() + left)
        return True

    def _begin(self, batch: Batch) -> None:
        if batch.priority == IMPORT:
            self._imported_at = monotonic()
        task = asyncio.create_task(self._deliver(batch))
        self._tasks.add(task)
        self._calls.begin(batch)
        task.add_done_callback(partial(self._done, batch))

    async def _pass_time(self) -> None:
        """Until a call ends, an accept of this process wakes us, or it is time to read again."""
        now = monotonic()
        until = min(now + self._limits.reread_seconds, self._look_at)
        try:
            async with asyncio.timeout(max(0.0, until - now)):
                await self._stirred.wait()
        except TimeoutError:
            self._look_at = until
        self._stirred.clear()
        if self._look_at <= monotonic():
            self._look_at = float("inf")
            self._ahead.want_all()

    def _done(self, batch: Batch, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._stirred.set()
        self._calls.end(batch)
        # What it saved may have set others free; alone, the release asks the same.
        if self._tasks and (batch.is_import or batch.operation is not Operation.CREATE):
            self._ahead.want_all()
        elif self._tasks:
            self._look_at = min(self._look_at, monotonic() + _LOOK_SECONDS)
        if not task.cancelled() and task.exception() is not None:
            self._error = task.exception()

    async def _leave(self) -> bool:
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._connection.step_aside()
        # What was marked as it was read and is not begun was no attempt, and needs no look-up.
        marked, tenure = self._ahead.marked, self._tenure
        if marked and not tenure.is_lost and monotonic() - min(marked.values()) < self._idle_seconds:
            await self._unmarked(list(marked))
            marked.clear()
        if self._error is not None:
            raise self._error
        if tenure.is_released or tenure.is_lost:
            return False
        if marked:
            tenure.in_order = False
        if tenure.pause_seconds > 0 or marked:
            await self._release(always=True)
            return tenure.pause_seconds <= 0
        if await self._release(always=False) is False:
            await self._release(always=True)
            return True
        return False

    async def _release(self, *, always: bool) -> bool | None:
        free = await self._tenure.release(always=always)
        self._ahead.want_all()
        return free

    # -- one batch ---------------------------------------------------------------------------------------------

    async def _deliver(self, batch: Batch) -> None:
        try:
            began = monotonic()
            if batch.is_look_up and await self._postponed(batch):
                return
            prepared = await prepare(
                batch,
                self._connection,
                self._keys,
                self._lease.tenant_id,
                is_lane_sound=self._tenure.failures == 0,
                limits=self._limits,
            )
            worked = monotonic() - began
            if batch.is_import:
                # Whoever rests at the end of a turn could not send any more.
                most = max(0.0, self._left_seconds / 2)
                await self._tools.courtesy.rest(Work.DELIVERY, self._import_seconds, most)
                if self._must_leave:
                    return
            # Where live writes come in between, they do not wait for one batch more.
            is_ahead = batch.is_import and not self._calls.is_shared
            if is_ahead:
                # Marked while the call before it runs; a live write can be cancelled until its own turn.
                prepared = await self._marked(batch, prepared)
            async with self._calls.turn(batch):
                if not is_ahead and not batch.is_look_up:
                    prepared = await self._marked(batch, prepared)
                if not prepared:
                    return
                if not batch.is_look_up and not self._may_go(batch):
                    await self._unmarked([item.row.id for item in prepared])
                    return
                started = monotonic()
                with tracing.span("drain batch", **words(self._connection.manifest.slug, batch)):
                    results, entry = await send(self._connection, batch, prepared, self._send_seconds)
            answered = monotonic()
            await self._conclude(batch, prepared, results, entry, answered - started)
            if batch.is_import:
                self._import_seconds = worked + batch.mark_seconds + monotonic() - answered
        finally:
            self._ahead.busy.difference_update(row.id for row in batch.rows)

    async def _postponed(self, batch: Batch) -> bool:
        """Whether it is too early for this look-up: what was sent may still be on its way, or not to be found yet.

        When it is due is told by the database's clock, which may have leapt: that time must have been seen to pass.
        """
        row, spec = batch.rows[0], self._connection.manifest.objects.get(batch.object)
        least = max(spec.idempotency.search_lag_seconds if spec else 0.0, self._limits.settle_seconds)
        if row.error is None:  # nobody saw its call end
            least += self._send_seconds + self._idle_seconds
        left = least - await self._tools.clock.steady_seconds()
        if left > 0:
            await self._tools.db.alone(
                self._lease.tenant_id,
                lambda conn, setting: store.postpone(conn, self._lease, [row.id], left, setting),
            )
            self._ahead.want_all()
        return left > 0

    async def _marked(self, batch: Batch, prepared: list[Prepared]) -> list[Prepared]:
        ids = {item.row.id for item in prepared}
        marked = ids & self._ahead.marked.keys()
        batch.marked_at = min((self._ahead.marked.pop(one) for one in marked), default=monotonic())
        left = list(ids - marked)
        if left and not self._is_off:
            more, is_live_waiting = await self._tools.db.alone(
                self._lease.tenant_id, lambda conn, setting: store.mark(conn, self._lease, left, setting)
            )
            marked |= more
            if is_live_waiting:
                self._let_live_pass()
        batch.mark_seconds = monotonic() - batch.marked_at
        if batch.mark_seconds > self._idle_seconds:
            # This process stood still. Others may believe it dead by now: what is marked will be looked up.
            self._tenure.is_lost = True
            return []
        for item in prepared:
            item.row.attempt_count += 1
        return [item for item in prepared if item.row.id in marked]

    def _may_go(self, batch: Batch) -> bool:
        """Whether the call may still begin: the time after which others look a marked target up began with its mark."""
        return not self._is_off and monotonic() - batch.marked_at < self._idle_seconds

    async def _unmarked(self, ids: list[UUID]) -> None:
        """The lane must be left alone since, or the calls before took too long: it was no attempt."""
        await self._tools.db.alone(
            self._lease.tenant_id, lambda conn, setting: store.unmark(conn, self._lease, ids, setting)
        )
        self._ahead.want_all()

    async def _conclude(
        self,
        batch: Batch,
        prepared: list[Prepared],
        results: list[WriteResult],
        entry: AuditEntry | None,
        seconds: float,
    ) -> None:
        failed_seconds = await self._failed_seconds(batch, results)
        verdicts = self._judged(batch, prepared, results, failed_seconds)
        self._tenure.note(verdicts)
        was = TargetState.UNKNOWN if batch.is_look_up else TargetState.SENDING
        outcomes = [
            SavedResult(
                id=item.row.id,
                state=(advance(was, verdict.event) if verdict.event else was).value,
                verdict=verdict,
                remote_id=result.remote_id if result.outcome is Outcome.APPLIED else "",
                remote_url=result.url if result.outcome is Outcome.APPLIED else "",
                delete_level=result.delete_level,
            )
            for item, result, verdict in zip(prepared, results, verdicts, strict=True)
        ]
        parked: dict[str, Any] | None = None
        if verdicts[0].event is Event.UNDECIDED:
            parked = telling.parked(self._connection.manifest, batch, results[0], failed_seconds)
        for trial in range(1, _SAVE_TRIES + 1):
            try:
                saved = await self._saved(batch, was, outcomes, entry, seconds, parked)
                break
            except DatabaseUnavailable:
                if trial == _SAVE_TRIES:
                    raise
        if len(saved) < len(outcomes):
            self._tenure.is_lost = self._tenure.is_lost or not saved
            _log.warning(
                "save.refused", connection_id=str(self._lease.connection_id), late=len(outcomes) - len(saved)
            )
        for view in saved:
            self._tools.waiters.wake(view.id, view)
        # Whoever was woken answers his caller first.
        slug = self._connection.manifest.slug
        asyncio.get_running_loop().call_soon(note_saved, slug, batch, results, saved)

    def _judged(
        self, batch: Batch, prepared: list[Prepared], results: list[WriteResult], failed_seconds: float
    ) -> list[Verdict]:
        spread = jitter()
        spec = self._connection.manifest.objects.get(batch.object)
        lag = spec.idempotency.search_lag_seconds if spec else 0.0
        is_key_sent = spec is not None and spec.idempotency.kind is IdempotencyKind.KEY_SENT
        if batch.is_look_up:
            return [
                judge_look_up(
                    result,
                    attempt=item.row.attempt_count,
                    first_error=item.row.error,
                    lane_failures=self._lease.failures,
                    limits=self._limits,
                    jitter=spread,
                    is_key_sent=is_key_sent,
                    looked_seconds=failed_seconds,
                )
                for item, result in zip(prepared, results, strict=True)
            ]
        return [
            judge(
                result,
                attempt=item.row.attempt_count,
                lane_failures=self._lease.failures,
                limits=self._limits,
                lag=lag,
                jitter=spread,
            )
            for item, result in zip(prepared, results, strict=True)
        ]

    async def _saved(
        self,
        batch: Batch,
        was: TargetState,
        outcomes: list[SavedResult],
        entry: AuditEntry | None,
        seconds: float,
        parked: dict[str, Any] | None,
    ) -> list[TargetView]:
        def save(conn: Any, setting: str) -> Awaitable[tuple[list[TargetView], bool]]:
            return store.save(
                conn,
                self._lease,
                outcomes,
                was=was.value,
                kind="look_up" if batch.is_look_up else "send",
                batch_id=new_id(),
                seconds=seconds,
                entry=self._tools.audit.cleaned(entry) if entry is not None else None,
                must_free=self._is_last(outcomes),
                setting=setting,
            )

        if parked is not None:
            async with self._tools.db.tenant(self._lease.tenant_id) as conn:
                saved, is_freed = await save(conn, "")
                if saved:
                    await telling.tell_parked(conn, self._tools.incidents, self._lease, parked)
        else:
            saved, is_freed = await self._tools.db.alone(self._lease.tenant_id, save)
        self._tenure.is_released = self._tenure.is_released or is_freed
        return saved

    def _is_last(self, outcomes: list[SavedResult]) -> bool:
        """Nothing else is taken, nothing more was due, and all of this comes to its end."""
        return (
            not self._is_off
            and self._ahead.is_empty
            and not self._ahead.marked
            and self._ahead.busy <= {outcome.id for outcome in outcomes}
            and all(outcome.state in _ENDS for outcome in outcomes)
        )

    async def _failed_seconds(self, batch: Batch, results: list[WriteResult]) -> float:
        """For how long look-ups have failed, where this one failed too."""
        if not batch.is_look_up or results[0].outcome is not Outcome.UNKNOWN or results[0].error is None:
            return 0.0
        async with self._tools.db.tenant(self._lease.tenant_id) as conn:
            return await telling.looked_seconds(conn, batch.rows[0].id)
