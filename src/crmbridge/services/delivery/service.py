"""Delivery: accept, drain, wait, read, redrive. The face of this room."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Awaitable, Coroutine, Sequence
from contextvars import Context, copy_context
from time import monotonic
from typing import Any
from uuid import UUID

import structlog

from crmbridge import metrics
from crmbridge.core.errors import CrmError, NotFound
from crmbridge.core.records import Object
from crmbridge.db.clock import DatabaseClock
from crmbridge.db.jobs import Jobs, NewJob
from crmbridge.db.pool import Database
from crmbridge.db.signals import Signals
from crmbridge.services.audit.service import AuditLog
from crmbridge.services.connections.connection import Connection
from crmbridge.services.connections.model import Intent
from crmbridge.services.connections.service import Connections
from crmbridge.services.delivery.counting import LaneCounts, count_lanes
from crmbridge.services.delivery.courtesy import Courtesy
from crmbridge.services.delivery.desk import Desk
from crmbridge.services.delivery.elsewhere import Elsewhere
from crmbridge.services.delivery.intake import store as intake_store
from crmbridge.services.delivery.intake.accept import Acceptance, Origin, check_key, fresh
from crmbridge.services.delivery.intake.flusher import Express, Flushed, Flusher
from crmbridge.services.delivery.intake.imports import add_import
from crmbridge.services.delivery.intake.rows import SMALL_PART, take_in
from crmbridge.services.delivery.intake.store import PreparedTarget, PreparedWrite
from crmbridge.services.delivery.intake.subjects import fingerprint
from crmbridge.services.delivery.lane import store
from crmbridge.services.delivery.lane.batch import window_of
from crmbridge.services.delivery.lane.drain import Drain, Tools
from crmbridge.services.delivery.lane.outcome import JITTER, backoff_seconds
from crmbridge.services.delivery.lane.store import Lease, PulledLane, Taken
from crmbridge.services.delivery.model import (
    Accepted,
    Limits,
    NewWrite,
    TargetView,
    WriteView,
)
from crmbridge.services.delivery.overdue import note_overdue
from crmbridge.services.delivery.reading import Reading
from crmbridge.services.delivery.set_back import mend_times
from crmbridge.services.delivery.waiting import Ear, Waiters
from crmbridge.services.incidents.service import Incidents
from crmbridge.services.tenants.model import Tenant
from crmbridge.services.vault.keys import TenantKeys
from crmbridge.services.vault.service import Vault

__all__ = ["DRAIN", "Delivery"]

_log = structlog.get_logger("crmbridge.delivery")

DRAIN = "delivery.drain"
_FIRST_LOOK_SECONDS = 0.02
_LAST_LOOK_SECONDS = 0.25


class Delivery(Desk):
    """Writes of all tenants, from acceptance to their effect at the provider."""

    def __init__(
        self,
        *,
        db: Database,
        vault: Vault,
        connections: Connections,
        audit: AuditLog,
        incidents: Incidents,
        jobs: Jobs,
        limits: Limits | None = None,
        signals: Signals | None = None,
        clock: DatabaseClock | None = None,
    ) -> None:
        self._drains: dict[UUID, Drain] = {}
        self._courtesy = Courtesy(signals, self._start)
        self._elsewhere = Elsewhere(signals, self._drains, self._start)
        self._waiters = Waiters(self._elsewhere)
        super().__init__(db, audit, incidents, self._waiters, self._enqueue)
        self._vault = vault
        self._connections = connections
        self._jobs = jobs
        self._limits = limits or Limits()
        self._acceptance = Acceptance(db, vault, connections)
        # A live write does not wait for the rows of an import, nor share their statement.
        self._flusher = Flusher(db, self._enqueue, size=lambda: self._limits.flush_size)
        self._import_flusher = Flusher(db, self._enqueue, size=self._import_flush_size)
        self.reading = Reading(db, vault, connections, audit)
        self.clock = clock or DatabaseClock(db)
        self.clock.on_set_back.append(self.mend_times)
        self._tools = Tools(db, audit, incidents, self._waiters, self._limits, self._courtesy, self.clock)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._owner = f"{socket.gethostname()}:{os.getpid()}"

    def register(self, jobs: Jobs, *, concurrency: int = 50) -> None:
        """Let this process drain lanes, sweep each second, and look for overdue lanes each minute."""
        jobs.handle(DRAIN, self._run_job, concurrency=concurrency)
        jobs.every(1.0, "delivery.sweep", self._sweep_tick)
        jobs.every(60.0, "delivery.overdue", self._overdue_tick)

    async def close(self) -> None:
        """Finish flushes and what was started on the side."""
        await self._flusher.close()
        await self._import_flusher.close()
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    # -- accepting ---------------------------------------------------------------------------------------------

    async def add_import(
        self, principal_actor: str, tenant: Tenant, obj: Object, *, connection_id: UUID | None = None
    ) -> UUID:
        """The id under which the writes of one import are found together."""
        return await add_import(self._db, self._audit, principal_actor, tenant, obj, connection_id)

    async def accept(
        self,
        principal_actor: str,
        tenant: Tenant,
        intent: Intent,
        *,
        idempotency_key: str = "",
        source: str = "api",
        priority: int = 0,
        import_id: UUID | None = None,
        request_id: str = "",
        wait_seconds: float = 0.0,
        connections: Sequence[str] = (),
    ) -> Accepted:
        """Take one write in durably. Returns after its commit, or up to ``wait_seconds`` later with its state.

        Without ``connections`` it goes where the routes send its object; with them, to these alone.
        The same key and body answer the first write again. Raises ValidationError (each field named, the missing
        key included), Unsupported, NotConfigured, Conflict (the key was used for another body).
        """
        started = monotonic()
        origin = Origin(
            actor=principal_actor,
            source=source,
            priority=priority,
            import_id=import_id,
            request_id=request_id,
        )
        try:
            item = await self._acceptance.prepare(tenant, intent, idempotency_key, origin, connections)
        except CrmError:
            # A repetition gets the first answer even where the same write would be refused today.
            known = await self._known(tenant, intent, idempotency_key, connections)
            if known is None:
                raise
            return await self._replayed(tenant.id, known, wait_seconds)
        if wait_seconds > 0:
            self._courtesy.note_live(item.targets[0].connection_id)
        express = await self._express_for(item) if wait_seconds > 0 and item.may_go_alone else None
        flusher = self._import_flusher if priority > 0 else self._flusher
        flushed = await flusher.submit(item, is_waited=wait_seconds > 0, express=express)
        if flushed.replayed:
            return await self._replayed(tenant.id, flushed.write_id, wait_seconds)
        metrics.note_accepted(item.object, item.operation, source, monotonic() - started)
        if not flushed.is_taken:
            self._wake(item)
        if wait_seconds <= 0:
            return fresh(item)
        return await self._wait_for_fresh(item, flushed, wait_seconds)

    async def accept_many(
        self,
        principal_actor: str,
        tenant: Tenant,
        items: Sequence[NewWrite],
        *,
        source: str = "import",
        priority: int = 1,
        import_id: UUID | None = None,
        request_id: str = "",
        connections: Sequence[str] = (),
    ) -> list[Accepted | CrmError]:
        """Take many in: an answer or an error per item, in order. Up to ``flush_size`` share a commit.

        Rows of an import go in small parts while somebody waits for a live write, with a rest after each.
        """
        origin = Origin(
            actor=principal_actor,
            source=source,
            priority=priority,
            import_id=import_id,
            request_id=request_id,
        )
        started = monotonic()
        is_import = priority > 0
        flusher = self._import_flusher if is_import else self._flusher

        async def prepare(new: NewWrite) -> PreparedWrite:
            return await self._acceptance.prepare(
                tenant, new.intent, new.idempotency_key, origin, connections
            )

        answers: list[Accepted | CrmError] = []
        async for row in take_in(items, prepare, flusher, self._courtesy if is_import else None):
            if row.item is not None and row.flushed is not None:
                self._wake(row.item)
                if row.flushed.replayed:
                    answers.append(await self._replayed(tenant.id, row.flushed.write_id, 0))
                else:
                    metrics.note_accepted(row.item.object, row.item.operation, source, monotonic() - started)
                    answers.append(fresh(row.item))
            elif row.error is not None:
                known = None
                if row.item is None:
                    known = await self._known(tenant, row.new.intent, row.new.idempotency_key, connections)
                answers.append(row.error if known is None else await self._replayed(tenant.id, known, 0))
        return answers

    def _import_flush_size(self) -> int:
        return (
            min(self._limits.flush_size, SMALL_PART) if self._courtesy.is_asked else self._limits.flush_size
        )

    async def _known(
        self, tenant: Tenant, intent: Intent, key: str, connections: Sequence[str]
    ) -> UUID | None:
        if not key:
            return None
        try:
            check_key(intent, key)
            keys = await self._vault.keys(tenant.id)
        except CrmError:
            return None
        async with self._db.tenant(tenant.id) as conn:
            return await intake_store.find_key(
                conn, tenant.id, keys.hash("idempotency_key", key), fingerprint(keys, intent, connections)
            )

    async def _replayed(self, tenant_id: UUID, write_id: UUID, wait_seconds: float) -> Accepted:
        metrics.note_replayed()
        view = await self.wait(tenant_id, write_id, wait_seconds)
        return Accepted(write_id=view.id, targets=view.targets, replayed=True)

    # -- waiting -----------------------------------------------------------------------------------------------

    async def _wait_for_fresh(self, item: PreparedWrite, flushed: Flushed, seconds: float) -> Accepted:
        """Deliver it ourselves where its lane was idle; else wait for whoever has the lane."""
        deadline = monotonic() + seconds
        idle = [lane for lane in flushed.idle_lanes if lane.is_idle]
        first, lane_id = item.targets[0], item.targets[0].connection_id
        is_ours = bool(idle) or flushed.is_taken
        is_here = not is_ours and lane_id in self._drains
        # The end of a drain is told under its lane's id.
        with self._waiters.listening([one.id for one in item.targets] + [lane_id] * is_here) as ear:
            for lane in idle:
                self._start(self._express(lane, first.id))
            told = None
            if is_ours or is_here:
                # A drain that was there before may leave it to others: then it must be looked for.
                told = await ear.hear(min(seconds, _LAST_LOOK_SECONDS) if is_here else deadline - monotonic())
            if told is not None and told.is_settled and len(item.targets) == 1:
                told.connection = first.connection
                return Accepted(write_id=item.write_id, targets=[told])
            if not is_ours:
                await self._elsewhere.ask([(one.connection_id, one.id) for one in item.targets])
            targets = await self._looked(
                item.tenant_id, item.write_id, deadline, ear, first if is_here else None
            )
        return Accepted(write_id=item.write_id, targets=targets)

    async def wait(self, tenant_id: UUID, write_id: UUID, seconds: float) -> WriteView:
        """The write as soon as every target is settled, or as it stands after ``seconds``. Raises NotFound.

        Nobody waits for a target that cannot settle in time: its lane is paused or held back.

        A drain in this process wakes us; one elsewhere is seen by looking again, 4 times a second at most.
        """
        deadline = monotonic() + seconds
        view = await self.read(tenant_id, write_id)
        if view.is_settled or seconds <= 0:
            return view
        with self._waiters.listening([target.id for target in view.targets]) as ear:
            view.targets = await self._looked(tenant_id, write_id, deadline, ear)
        return view

    async def _looked(
        self,
        tenant_id: UUID,
        write_id: UUID,
        deadline: float,
        ear: Ear,
        here: PreparedTarget | None = None,
    ) -> list[TargetView]:
        """Wait, look, and so on, ever more slowly. Take the lane of ``here`` when the drain here has left it."""

        def stand(conn: Any, setting: str) -> Awaitable[tuple[list[TargetView], set[UUID]]]:
            return store.standing(conn, write_id, deadline - monotonic(), setting)

        pause = _FIRST_LOOK_SECONDS
        while True:
            if here is not None and here.connection_id not in self._drains:
                self._start(self._express(PulledLane(here.connection_id, tenant_id, 0, True), here.id))
                here = None
            await ear.hear(min(pause, deadline - monotonic()))
            targets, held = await self._db.alone(tenant_id, stand)
            if not targets:
                raise NotFound("There is no such write.")
            opened = {target.id for target in targets if not target.is_settled}
            if monotonic() >= deadline or not opened or (pause > _FIRST_LOOK_SECONDS and held >= opened):
                return targets
            pause = min(pause * 2, _LAST_LOOK_SECONDS)

    # -- delivering --------------------------------------------------------------------------------------------

    async def drain(self, connection_id: UUID, tenant_id: UUID | None = None) -> bool:
        """One worker's turn on a lane. False when the lane is not free, held back, or has nothing due."""
        if tenant_id is None:
            async with self._db.system() as conn:
                tenant_id = await store.tenant_of(conn, connection_id)
        if tenant_id is None:
            return False
        try:
            connection = await self._connections.open(tenant_id, connection_id=connection_id)
            keys = await self._vault.keys(tenant_id)
        except CrmError as error:
            _log.info("lane.held_back", connection_id=str(connection_id), code=error.full_code)
            await self._hold_back(tenant_id, connection_id)
            return False
        except Exception:
            await self._hold_back(tenant_id, connection_id)
            raise
        return await self._take_and_run(tenant_id, connection, keys)

    async def _take_and_run(self, tenant_id: UUID, connection: Connection, keys: TenantKeys) -> bool:
        window = window_of(connection.manifest, self._limits)
        taken = await self._take(tenant_id, connection.id, window, connection.manifest.in_flight_limit())
        if taken is not None:
            await self._run(Drain(self._tools, taken, connection, keys, window), taken.lease)
        return taken is not None

    async def _take(self, tenant_id: UUID, connection_id: UUID, most: int, calls: int) -> Taken | None:
        return await self._db.alone(
            tenant_id,
            lambda conn, setting: store.take(
                conn, connection_id, self._owner, self._limits.lease_seconds, most, calls, setting
            ),
        )

    async def _express_for(self, item: PreparedWrite) -> Express:
        """What a create needs to be sent the moment it is accepted: opened before, so that nothing can fail after."""
        target = item.targets[0]
        connection = await self._connections.open(item.tenant_id, connection_id=target.connection_id)
        keys = await self._vault.keys(item.tenant_id)
        window = window_of(connection.manifest, self._limits)
        connection.get_ready()

        async def send(taken: Taken) -> None:
            try:
                await self._run(Drain(self._tools, taken, connection, keys, window), taken.lease)
            finally:
                self._waiters.wake(target.id)

        # The flush that takes the lane is nobody's own: what follows belongs to the caller's trace.
        own = copy_context()
        return Express(
            self._owner, self._limits.lease_seconds, lambda taken: self._start(send(taken), context=own)
        )

    async def _express(self, lane: PulledLane, waits_for: UUID) -> None:
        """A worker's turn at once, in this process, for a caller who waits."""
        try:
            connection = await self._connections.open(lane.tenant_id, connection_id=lane.connection_id)
            connection.get_ready()
            keys = await self._vault.keys(lane.tenant_id)
            if not await self._take_and_run(lane.tenant_id, connection, keys):
                # Somebody was quicker, and may not have read this write.
                if lane.connection_id in self._drains:
                    self._drains[lane.connection_id].wake()
                await self._elsewhere.ask([(lane.connection_id, waits_for)])
        finally:
            # Who was not told by now will not be by us. He looks himself.
            self._waiters.wake(waits_for)

    async def _run(self, drain: Drain, lease: Lease) -> None:
        lane_id = lease.connection_id
        self._drains[lane_id] = drain
        try:
            if await drain.run():
                self._enqueue([PulledLane(lane_id, lease.tenant_id, lease.fence, True)])
        finally:
            if self._drains.get(lane_id) is drain:
                del self._drains[lane_id]
            self._waiters.wake(lane_id)

    async def _hold_back(self, tenant_id: UUID, connection_id: UUID) -> None:
        """The connection cannot be opened (no credential, a closed gate): its writes wait."""
        taken = await self._take(tenant_id, connection_id, 0, 0)
        if taken is None:
            return
        lease = taken.lease
        failures = lease.failures + 1
        jitter = random.uniform(*JITTER)  # noqa: S311 - spreads retries
        async with self._db.tenant(lease.tenant_id) as conn:
            await store.release(
                conn,
                lease,
                always=True,
                failures=failures,
                pause_seconds=backoff_seconds(failures, self._limits, jitter),
                in_order=not lease.must_recover,
            )

    async def count_lanes(self) -> LaneCounts:
        """How the lanes of all tenants stand."""
        async with self._db.system() as conn:
            return await count_lanes(conn)

    async def sweep(self) -> int:
        """Enqueue lanes that have something due and nobody at work; answers how many there were."""
        async with self._db.system() as conn:
            lanes = await store.due_lanes(conn)
        if lanes:
            await self._jobs.enqueue_many(DRAIN, [_job(lane) for lane in lanes])
        return len(lanes)

    async def note_overdue(self) -> int:
        """Incidents of lanes that are a day behind; answers how many lanes are."""
        return await note_overdue(self._db, self._incidents, self._connections, self._limits.overdue_seconds)

    async def mend_times(self, seconds: float) -> None:
        """After the database's clock was set back by so many seconds: what was to come soon comes soon."""
        await mend_times(self._db, self._limits, seconds, self._connections.mend_times)

    # -- on the side -------------------------------------------------------------------------------------------

    async def wake(self, tenant_id: UUID, connection_id: UUID) -> None:
        """End a lane's back-off: its credential works again, or its pause is over."""
        async with self._db.tenant(tenant_id) as conn:
            lanes = await store.pull_lanes(conn, [connection_id], end_back_off=True)
        self._enqueue([lane for lane in lanes if lane.is_idle])

    def _wake(self, item: PreparedWrite) -> None:
        for target in item.targets:
            drain = self._drains.get(target.connection_id)
            if drain is not None:
                drain.wake(item.priority)

    def _enqueue(self, lanes: Sequence[PulledLane]) -> None:
        """Hand lanes to the workers; nobody waits for it, and the sweep covers a loss."""
        if lanes:
            self._start(self._jobs.enqueue_many(DRAIN, [_job(lane) for lane in lanes]))

    def _start(self, work: Coroutine[Any, Any, Any], *, context: Context | None = None) -> None:
        task = asyncio.create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.warning("delivery.side_task_failed", kind=type(task.exception()).__name__)

    async def _run_job(self, payload: dict[str, Any]) -> None:
        tenant_id = payload.get("tenant_id")  # an older release enqueued the connection alone
        await self.drain(UUID(payload["connection_id"]), UUID(tenant_id) if tenant_id else None)

    async def _sweep_tick(self) -> None:
        await self.sweep()

    async def _overdue_tick(self) -> None:
        await self.note_overdue()


def _job(lane: PulledLane) -> NewJob:
    # The fence makes a new key after every turn: the engine counts a job as there until its function has returned,
    # and a dead worker's job even longer.
    return NewJob(
        {"connection_id": str(lane.connection_id), "tenant_id": str(lane.tenant_id)},
        dedupe_key=f"{lane.connection_id}:{lane.fence}",
    )
