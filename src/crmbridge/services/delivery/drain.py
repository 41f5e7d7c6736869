"""Drain: one worker's turn on one lane. Reads ahead, marks, sends, saves; calls and saves overlap."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence, Set
from contextlib import suppress
from time import monotonic
from typing import Any
from uuid import UUID

import msgspec
import structlog

from crmbridge import tracing
from crmbridge.core.errors import Unavailable
from crmbridge.core.ids import new_id
from crmbridge.core.manifest import IdempotencyKind
from crmbridge.core.operations import Outcome
from crmbridge.core.records import WriteResult
from crmbridge.db.errors import DatabaseUnavailable
from crmbridge.db.pool import Database
from crmbridge.services.audit.model import AuditEntry
from crmbridge.services.audit.service import AuditLog
from crmbridge.services.delivery import store
from crmbridge.services.delivery.batch import Batch, Lane, Prepared, failed_result, prepare, shape
from crmbridge.services.delivery.counting import note_saved, words
from crmbridge.services.delivery.model import Event, Limits, TargetState, TargetView, advance
from crmbridge.services.delivery.outcome import Verdict, backoff_seconds, judge, judge_look_up
from crmbridge.services.delivery.store import Lease, Row, SavedResult
from crmbridge.services.delivery.waiting import Waiters
from crmbridge.services.incidents.service import Incidents
from crmbridge.services.vault.keys import TenantKeys

__all__ = ["Drain", "Tools"]

_log = structlog.get_logger("crmbridge.delivery")
_SAVE_TRIES = 3


class Tools(msgspec.Struct, frozen=True):
    """What every drain of a process shares."""

    db: Database
    audit: AuditLog
    incidents: Incidents
    waiters: Waiters
    limits: Limits


class Drain:
    """Works on one lane until nothing is due, its turn is over, the lane must pause, or the lease is lost.

    As many calls are in flight as the manifest allows. While they are, the next batch is read and mapped and the
    previous one saved. A batch is marked ``sending`` in a committed transaction before its call; ``marked`` are ids
    that were marked in the transaction of the claim.
    """

    def __init__(
        self,
        tools: Tools,
        lease: Lease,
        connection: Lane,
        keys: TenantKeys,
        rows: Sequence[Row] | None = None,
        marked: Set[UUID] = frozenset(),
    ) -> None:
        self._tools = tools
        self._limits = tools.limits
        self._lease = lease
        self._connection = connection
        self._keys = keys
        self._marked_before: Set[UUID] = marked
        manifest = connection.manifest
        in_flight = max(1, manifest.in_flight_limit())
        largest = max((size for spec in manifest.objects.values() for size in spec.batch.values()), default=1)
        self._window = min(self._limits.window_size, max(2 * largest, 4 * in_flight))
        self._send_seconds = max(self._limits.send_seconds, 2 * manifest.timeout_seconds)
        self._slots = asyncio.Semaphore(in_flight)
        self._queue: deque[Batch] = deque()
        self._busy: set[UUID] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._started = monotonic()
        self._failures = lease.failures
        self._pause = 0.0
        self._is_exhausted = False
        self._is_released = False
        self._is_lost = False
        self._error: BaseException | None = None
        if rows is not None:
            self._take(rows)

    def wake(self) -> None:
        """Something was accepted for this lane in this process."""
        self._woken.set()

    async def run(self) -> bool:
        """Work. True when the lane was left with something due (its turn is over): enqueue it again."""
        heartbeat = asyncio.create_task(self._renew())
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
            await self._abandon()
            return False
        finally:
            heartbeat.cancel()

    # -- the loop ----------------------------------------------------------------------------------------------

    @property
    def _must_leave(self) -> bool:
        over = monotonic() - self._started > self._limits.turn_seconds
        return self._is_lost or self._pause > 0 or over or self._error is not None

    async def _work(self) -> None:
        while not self._is_released and not self._must_leave:
            ready = await self._next()
            if ready is None:
                if self._tasks:
                    await self._pass_time()
                elif await self._release(always=False) is not False:
                    return
                continue
            await self._slots.acquire()
            if self._must_leave or self._is_released:
                self._slots.release()
                self._busy.difference_update(row.id for row in ready[0].rows)
                return
            task = asyncio.create_task(self._deliver(*ready))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    async def _next(self) -> tuple[Batch, list[Prepared]] | None:
        """The next batch, opened and mapped, or None while nothing is due."""
        if not self._queue and not self._is_exhausted:
            async with self._tools.db.tenant(self._lease.tenant_id) as conn:
                rows = await store.window(conn, self._lease, self._window, list(self._busy))
            self._is_exhausted = len(rows) < self._window
            # What was taken while this was read is not taken twice.
            self._queue = shape(
                [row for row in rows if row.id not in self._busy], self._connection, self._limits
            )
        if not self._queue:
            return None
        batch = self._queue.popleft()
        self._busy.update(row.id for row in batch.rows)
        prepared = await prepare(
            batch,
            self._connection,
            self._keys,
            self._lease.tenant_id,
            is_lane_sound=self._failures == 0,
            limits=self._limits,
        )
        return batch, prepared

    def _take(self, rows: Sequence[Row]) -> None:
        self._is_exhausted = len(rows) < self._window
        self._queue = shape(rows, self._connection, self._limits)

    async def _pass_time(self) -> None:
        """Until a call ends, an accept of this process wakes us, or it is time to read again."""
        woken = asyncio.create_task(self._woken.wait())
        try:
            await asyncio.wait(
                {woken, *self._tasks},
                timeout=self._limits.reread_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            woken.cancel()
        if self._woken.is_set() or self._tasks:
            self._is_exhausted = False
        self._woken.clear()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._tasks:
            # What it saved may have set others free; alone, the release asks the same.
            self._is_exhausted = False
        if not task.cancelled() and task.exception() is not None:
            self._error = task.exception()

    async def _leave(self) -> bool:
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._error is not None:
            raise self._error
        if self._is_released or self._is_lost:
            return False
        if self._pause > 0 or self._marked_before:
            await self._release(always=True)
            return self._pause <= 0
        if await self._release(always=False) is False:
            await self._release(always=True)
            return True
        return False

    async def _release(self, *, always: bool, in_order: bool = True) -> bool | None:
        async with self._tools.db.tenant(self._lease.tenant_id) as conn:
            free = await self._release_in(conn, always=always, in_order=in_order)
        return self._freed(free)

    async def _release_in(self, conn: Any, *, always: bool, in_order: bool = True) -> bool | None:
        return await store.release(
            conn,
            self._lease,
            always=always,
            failures=self._failures,
            pause_seconds=self._pause,
            # What was marked before this drain and never sent is looked up by the next one.
            in_order=in_order and not self._marked_before,
        )

    def _freed(self, free: bool | None) -> bool | None:
        """Believe a release only after its commit."""
        self._is_exhausted = False
        self._is_lost = self._is_lost or free is None
        self._is_released = self._is_released or bool(free)
        return free

    async def _abandon(self) -> None:
        """After a failure of ours: let calls under way end, then hand the lane on with a pause."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._is_released or self._is_lost:
            return
        self._failures = self._lease.failures + 1
        self._pause = backoff_seconds(self._failures, self._limits, _jitter())
        with suppress(Exception):
            await self._release(always=True, in_order=False)

    async def _renew(self) -> None:
        """Hold the lease. Who cannot renew it in time stops before somebody else may take the lane."""
        held = monotonic()
        while not self._is_released:
            await asyncio.sleep(self._limits.lease_seconds / 3)
            try:
                async with self._tools.db.system() as conn:
                    is_ours = await store.renew(conn, self._lease, self._limits.lease_seconds)
                held = monotonic()
            except Exception as error:
                _log.warning("lease.not_renewed", kind=type(error).__name__)
                is_ours = monotonic() - held < self._limits.lease_seconds * 0.8
            if not is_ours:
                self._is_lost = not self._is_released
                return

    async def _recover(self) -> None:
        manifest = self._connection.manifest
        lag = max((spec.idempotency.search_lag_seconds for spec in manifest.objects.values()), default=0.0)
        async with self._tools.db.tenant(self._lease.tenant_id) as conn:
            lost = await store.recover(
                conn,
                self._lease,
                send_seconds=self._send_seconds,
                lag_seconds=max(lag, self._limits.settle_seconds),
                batch_id=new_id(),
            )
        if lost:
            _log.warning("lane.recovered", connection_id=str(self._lease.connection_id), unknown=len(lost))
            for target_id in lost:
                self._tools.waiters.wake(target_id)

    # -- one batch ---------------------------------------------------------------------------------------------

    async def _deliver(self, batch: Batch, prepared: list[Prepared]) -> None:
        ids = {item.row.id for item in prepared}
        try:
            try:
                if not batch.is_look_up:
                    prepared = await self._marked(batch, prepared)
                if not prepared:
                    return
                started = monotonic()
                with tracing.span("drain batch", **words(self._connection.manifest.slug, batch)):
                    results, entry = await self._call(batch, prepared)
            finally:
                self._slots.release()
            await self._conclude(batch, prepared, results, entry, monotonic() - started)
        finally:
            self._busy.difference_update(ids)

    async def _marked(self, batch: Batch, prepared: list[Prepared]) -> list[Prepared]:
        started = monotonic()
        if self._marked_before >= {item.row.id for item in prepared}:
            marked, started, self._marked_before = self._marked_before, self._started, frozenset()
        else:
            async with self._tools.db.tenant(self._lease.tenant_id) as conn:
                marked = await store.mark(conn, self._lease, [item.row.id for item in prepared])
        if monotonic() - started > self._limits.lease_seconds / 2:
            # This process stood still. Others may believe it dead by now: what is marked will be looked up.
            self._is_lost = True
            return []
        for item in prepared:
            item.row.attempt_count += 1
        return [item for item in prepared if item.row.id in marked]

    async def _call(
        self, batch: Batch, prepared: list[Prepared]
    ) -> tuple[list[WriteResult], AuditEntry | None]:
        """One result per item, in order; the provider is called for those that could be mapped."""
        writes = [item.write for item in prepared if item.write is not None]
        answers: list[WriteResult] = []
        entry: AuditEntry | None = None
        if writes:
            actors = {item.row.actor for item in prepared}
            actor = actors.pop() if len(actors) == 1 else "delivery"
            try:
                async with asyncio.timeout(self._send_seconds):
                    if batch.is_look_up:
                        found, entry = await self._connection.find_written(writes[0], actor=actor)
                        answers = [found]
                    else:
                        request_id = prepared[0].row.request_id if len(prepared) == 1 else ""
                        sent = await self._connection.send(writes, actor=actor, request_id=request_id)
                        answers, entry = sent.results, sent.entry
            except Exception as error:
                answers = [failed_result(error, batch) for _ in writes]
        missing = Unavailable("The driver gave no outcome for this write.", outcome=Outcome.UNKNOWN)
        answers += [
            WriteResult(outcome=Outcome.UNKNOWN, error=missing) for _ in range(len(writes) - len(answers))
        ]
        following = iter(answers)
        return [
            next(following)
            if item.write is not None
            else WriteResult(
                outcome=Outcome.UNKNOWN if batch.is_look_up else Outcome.NOT_APPLIED, error=item.error
            )
            for item in prepared
        ], entry

    async def _conclude(
        self,
        batch: Batch,
        prepared: list[Prepared],
        results: list[WriteResult],
        entry: AuditEntry | None,
        seconds: float,
    ) -> None:
        verdicts = self._judged(batch, prepared, results)
        self._note(verdicts)
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
        for trial in range(1, _SAVE_TRIES + 1):
            try:
                saved = await self._saved(batch, was, outcomes, entry, seconds)
                break
            except DatabaseUnavailable:
                if trial == _SAVE_TRIES:
                    raise
        if len(saved) < len(outcomes):
            self._is_lost = self._is_lost or not saved
            _log.warning(
                "save.refused", connection_id=str(self._lease.connection_id), late=len(outcomes) - len(saved)
            )
        note_saved(self._connection.manifest.slug, batch, results, saved)
        for view in saved:
            self._tools.waiters.wake(view.id, view)

    def _judged(self, batch: Batch, prepared: list[Prepared], results: list[WriteResult]) -> list[Verdict]:
        jitter = _jitter()
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
                    jitter=jitter,
                    is_key_sent=is_key_sent,
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
                jitter=jitter,
            )
            for item, result in zip(prepared, results, strict=True)
        ]

    def _note(self, verdicts: list[Verdict]) -> None:
        """What a batch says of the lane: anything that got through clears its failures, a dead batch slows it."""
        pause = max((verdict.pause_seconds for verdict in verdicts), default=0.0)
        if any(not verdict.is_lane_fault for verdict in verdicts):
            self._failures = 0
        else:
            self._failures = self._lease.failures + 1
            pause = max(pause, backoff_seconds(self._failures, self._limits, _jitter()))
        self._pause = max(self._pause, pause)

    async def _saved(
        self,
        batch: Batch,
        was: TargetState,
        outcomes: list[SavedResult],
        entry: AuditEntry | None,
        seconds: float,
    ) -> list[TargetView]:
        async with self._tools.db.tenant(self._lease.tenant_id) as conn:
            saved = await store.save(
                conn,
                self._lease,
                outcomes,
                was=was.value,
                kind="look_up" if batch.is_look_up else "send",
                batch_id=new_id(),
                batch_size=len(outcomes),
                seconds=seconds,
            )
            if entry is not None:
                await self._tools.audit.write(conn, entry)
            if saved and outcomes[0].verdict.event is Event.UNDECIDED:
                await self._park(conn, batch)
            is_last = self._is_last(outcomes)
            if is_last:
                free = await self._release_in(conn, always=self._pause > 0)
        if is_last:
            self._freed(free)
        return saved

    def _is_last(self, outcomes: list[SavedResult]) -> bool:
        """Nothing else is taken, nothing more was due: the lane can be given free in the same transaction.

        Not while a caller waits for this very save: he is told first.
        """
        return (
            not self._is_lost
            and not self._tools.waiters.has_any(outcome.id for outcome in outcomes)
            and not self._queue
            and self._is_exhausted
            and self._busy <= {outcome.id for outcome in outcomes}
        )

    async def _park(self, conn: Any, batch: Batch) -> None:
        row = batch.rows[0]
        name = self._connection.manifest.display_name
        await self._tools.incidents.open(
            conn,
            self._lease.tenant_id,
            "write_parked",
            str(self._lease.connection_id),
            f"{name}: whether a {batch.operation.value} of a {batch.object.value} took effect cannot be told",
            {
                "write_id": str(row.write_id),
                "target_id": str(row.id),
                "object": batch.object.value,
                "operation": batch.operation.value,
                "fix": "Look in the CRM: redrive the write if the effect is missing, discard it if it is there.",
            },
            self._lease.connection_id,
        )


def _jitter() -> float:
    return random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, hides nothing
