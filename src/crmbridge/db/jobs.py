"""The seam to the job engine. Everything else knows ``Jobs``; PgQueuer is named here and in ``job_tables`` only.

A job is a hint that work is due, never the record of it: the tables of the services say what is to be done, so a
job may be lost, doubled or late without harm. Payloads hold ids, no content.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Protocol

import asyncpg
import msgspec
from pgqueuer.adapters.drivers.asyncpg import AsyncpgPoolDriver
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.core.qm import QueueManager
from pgqueuer.core.sm import SchedulerManager
from pgqueuer.domain import models as pgq
from pgqueuer.domain.errors import PgqException, RetryRequested
from pgqueuer.domain.types import JobId, QueueEntrypoint, QueueExecutionMode
from pgqueuer.ports.repository import EntrypointExecutionParameter

from crmbridge.db.hosts import CONNECT_SECONDS, Hosts
from crmbridge.db.job_tables import (
    CHANNEL,
    JOBS,
    bring_near,
    install_job_tables,
    missing_tables,
    prune,
    queries_on,
)
from crmbridge.db.pool import PooledConnection, clear_errors, patient

__all__ = ["Backlog", "JobFunction", "Jobs", "NewJob", "PgQueuerJobs", "RetryLater", "install_job_tables"]

JobFunction = Callable[[dict[str, Any]], Awaitable[None]]
TickFunction = Callable[[], Awaitable[None]]

# A worker beats every 3.5 s; one that was silent for 7 s loses its job to the next worker that looks (each second).
HEARTBEAT_TIMEOUT = timedelta(seconds=7)
POLL = timedelta(seconds=1)
BATCH = 10
GRACE_SECONDS = 25.0
MAX_ATTEMPTS = 8
LOG_DAYS = 7
_QUEUE = "queue"

_log = logging.getLogger("crmbridge.db.jobs")


class RetryLater(Exception):
    """Raised by a job's function: run this job again after the delay. It does not count as a failure."""

    def __init__(self, delay_seconds: float) -> None:
        super().__init__(f"again in {delay_seconds} s")
        self.delay_seconds = delay_seconds


class _JobFailed(Exception):
    """What the engine may log and store of a failure: the kind and the type, never a message with content."""


@dataclass(frozen=True)
class NewJob:
    """A job to enqueue: small JSON-encodable payload, key, delay in seconds."""

    payload: Mapping[str, Any]
    dedupe_key: str | None = None
    delay_seconds: float = 0.0


@dataclass(frozen=True)
class Backlog:
    """Jobs of one kind: waiting (delayed ones included), running, and the age of the oldest waiting one in seconds."""

    queued: int
    running: int
    oldest_seconds: float


class Jobs(Protocol):
    """Background work, shared by all processes of one database."""

    async def enqueue(
        self,
        kind: str,
        payload: Mapping[str, Any],
        *,
        dedupe_key: str | None = None,
        delay_seconds: float = 0.0,
    ) -> bool:
        """Add a job; False when one of this kind with this key waits or runs already (it may be about to end)."""

    async def enqueue_many(self, kind: str, jobs: Iterable[NewJob]) -> int:
        """Add jobs in one round trip and return how many were new."""

    def handle(self, kind: str, function: JobFunction, *, concurrency: int) -> None:
        """Let this process run jobs of this kind, at most ``concurrency`` at a time. Before ``run``."""

    def every(self, when: str | float, name: str, function: TickFunction) -> None:
        """Call ``function`` by cron expression (UTC) or every so many seconds, in one process of all. Before run."""

    async def run(self, stop: asyncio.Event, *, grace_seconds: float | None = None) -> None:
        """Work until ``stop`` is set, then finish what runs, for ``grace_seconds`` (25) at most. Outlives a restart of
        the database."""

    async def drain(self) -> None:
        """Work until nothing of the kinds handled here waits or runs, then return."""

    async def backlog(self) -> dict[str, Backlog]:
        """What waits and runs, by kind."""

    async def missing_tables(self) -> list[str]:
        """The engine's tables that are not there or not ours to use; empty when all is well."""

    def late_seconds(self) -> float | None:
        """How long the slowest part of this process's worker has been due; None when no worker runs here."""


class PgQueuerJobs:
    """``Jobs`` on PgQueuer, in schema ``crmbridge_jobs``, as the scheduler role.

    It has pools of its own: PgQueuer writes JSON as text, so the codecs of ``Database`` would not do, and the worker's
    pool is thrown away with its listener connection whenever the server cut that.
    """

    def __init__(self, dsn: str, pool: Any, connections: int, prepared_statements: bool = True) -> None:
        self._dsn = dsn
        self._pool = pool
        self._connections = connections
        self._prepared_statements = prepared_statements
        self._queries = queries_on(AsyncpgPoolDriver(pool))
        self._functions: dict[str, tuple[JobFunction, int]] = {}
        self._crons: list[tuple[str, str, TickFunction]] = []
        self._ticks: list[tuple[float, str, TickFunction]] = []
        self._current: set[asyncio.Task[Any]] = set()
        self._cut_off = False
        # When each part of a running worker is next due to show that it lives, on the loop's clock.
        self._due: dict[str, float] = {}
        self.every("17 * * * *", "jobs.prune", self._prune)

    @classmethod
    async def open(
        cls, scheduler_dsn: str, *, connections: int = 4, prepared_statements: bool = True
    ) -> PgQueuerJobs:
        """Prepare for enqueueing; ``run`` opens up to ``connections`` more (at least 2: its listener keeps one).

        ``prepared_statements=False`` prepares none under a name, as :meth:`Database.open` does. The listener needs a
        session of its own whatever it says. Nothing is connected yet, so this cannot fail for want of a database.
        """
        pool = await _open_pool(scheduler_dsn, 2, prepared_statements)
        return cls(scheduler_dsn, pool, max(connections, 2), prepared_statements)

    async def close(self) -> None:
        await _close_pool(self._pool)

    async def enqueue(
        self,
        kind: str,
        payload: Mapping[str, Any],
        *,
        dedupe_key: str | None = None,
        delay_seconds: float = 0.0,
    ) -> bool:
        return await self.enqueue_many(kind, [NewJob(payload, dedupe_key, delay_seconds)]) == 1

    async def enqueue_many(self, kind: str, jobs: Iterable[NewJob]) -> int:
        batch = list(jobs)
        if not batch:
            return 0

        async def add() -> list[JobId | None]:
            return await self._queries.enqueue(
                [kind] * len(batch),
                [msgspec.json.encode(job.payload) for job in batch],
                [0] * len(batch),
                [timedelta(seconds=job.delay_seconds) for job in batch],
                # Keys are unique over all kinds in the engine's table.
                [None if job.dedupe_key is None else f"{kind}:{job.dedupe_key}" for job in batch],
                on_conflict="skip",
            )

        # Trying again may enqueue twice; a doubled job does no harm.
        with clear_errors(self._dsn):
            ids = await patient(add)
        return sum(1 for job_id in ids if job_id is not None)

    def handle(self, kind: str, function: JobFunction, *, concurrency: int) -> None:
        if kind in self._functions:
            raise ValueError(f"job kind {kind!r} is handled already")
        if concurrency < 1:
            raise ValueError(f"concurrency of {kind!r} must be at least 1, got {concurrency}")
        self._functions[kind] = (function, concurrency)

    def every(self, when: str | float, name: str, function: TickFunction) -> None:
        if isinstance(when, str):
            self._crons.append((when, name, function))
        elif when > 0:
            self._ticks.append((float(when), name, function))
        else:
            raise ValueError(f"interval of {name!r} must be positive, got {when}")

    async def run(self, stop: asyncio.Event, *, grace_seconds: float | None = None) -> None:
        self._cut_off = False
        if self._functions:
            self._shows(_QUEUE, POLL.total_seconds())
        for seconds, name, _ in self._ticks:
            self._shows(name, seconds)
        halt = asyncio.Event()
        workers = [self._kept_up(halt, self._work_queue)] if self._functions else []
        workers.append(self._kept_up(halt, self._work_crons))
        workers += [self._kept_up(halt, partial(self._work_tick, *tick)) for tick in self._ticks]
        tasks = {asyncio.create_task(worker) for worker in workers}
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            halt.set()
            grace = GRACE_SECONDS if grace_seconds is None else grace_seconds
            _, late = await asyncio.wait(tasks, timeout=grace)
            if late:
                _log.warning("jobs still running after %.0f s go back to the queue", grace)
        finally:
            halt.set()
            stopped.cancel()
            self._due.clear()
            await self._cut(tasks)

    async def _cut(self, tasks: set[asyncio.Task[None]]) -> None:
        """Cancel what still runs, jobs included: the engine's own tasks wait for their jobs even when cancelled.

        Again and again, because a cancellation that meets a finishing step is lost.
        """
        self._cut_off = True
        while pending := {task for task in tasks if not task.done()}:
            for task in (*pending, *self._current):
                task.cancel()
            await asyncio.wait(pending, timeout=0.5)

    async def drain(self) -> None:
        async with self._manager(asyncio.Event()) as manager:
            await manager.run(
                mode=QueueExecutionMode.drain, dequeue_timeout=timedelta(seconds=0.05), batch_size=BATCH
            )

    async def backlog(self) -> dict[str, Backlog]:
        rows = await self._pool.fetch(
            f"""
            select entrypoint as kind,
                   count(*) filter (where status = 'queued') as queued,
                   count(*) filter (where status = 'picked') as running,
                   coalesce(extract(epoch from now() - min(created) filter (where status = 'queued')), 0) as oldest
            from {JOBS}.pgqueuer group by entrypoint
            """  # noqa: S608
        )
        return {row["kind"]: Backlog(row["queued"], row["running"], float(row["oldest"])) for row in rows}

    async def mend_times(self, seconds: float) -> None:
        """After the database's clock was set back, by however many seconds: what waits for a moment to come is due now.

        A job that begins early does no harm; one whose worker died is given to another after the usual silence.
        """
        await bring_near(self._pool)

    async def missing_tables(self) -> list[str]:
        return await missing_tables(self._pool)

    def late_seconds(self) -> float | None:
        if not self._due:
            return None
        return max(0.0, asyncio.get_running_loop().time() - min(self._due.values()))

    def _shows(self, part: str, seconds: float) -> None:
        self._due[part] = asyncio.get_running_loop().time() + seconds

    # -- inside --------------------------------------------------------------------------------------------------

    async def _kept_up(self, stop: asyncio.Event, work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
        """Run ``work`` until stop; start it anew when the database went away under it."""
        pause = 0.2
        while not stop.is_set():
            started = asyncio.get_running_loop().time()
            try:
                await work(stop)
            except Exception as error:
                if asyncio.get_running_loop().time() - started > 10:
                    pause = 0.2
                lost = isinstance(
                    error, (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, PgqException)
                )
                _log.warning(
                    "the job engine stopped (%s); starting it again in %.1f s",
                    type(error).__name__,
                    pause,
                    exc_info=None if lost else error,
                )
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), timeout=pause)
                pause = min(pause * 2, 5.0)

    @asynccontextmanager
    async def _manager(self, shutdown: asyncio.Event) -> AsyncIterator[_LocalCapacity]:
        capacity = {kind: concurrency for kind, (_, concurrency) in self._functions.items()}
        pool = await _open_pool(self._dsn, self._connections, self._prepared_statements)
        manager = _LocalCapacity(queries_on(AsyncpgPoolDriver(pool)), capacity, self._looked)
        manager.shutdown = shutdown
        for kind, (function, _) in self._functions.items():
            manager.entrypoint(kind, accepts_context=False)(self._guarded(kind, function))
        try:
            yield manager
        finally:
            await _close_pool(pool)

    async def _work_queue(self, stop: asyncio.Event) -> None:
        # The manager sets its event when its listener fails; that must not stop the rest of the process.
        own = asyncio.Event()
        relay = asyncio.create_task(_relay(stop, own))
        try:
            async with self._manager(own) as manager:
                await manager.run(
                    dequeue_timeout=POLL,
                    batch_size=BATCH,
                    heartbeat_timeout=HEARTBEAT_TIMEOUT,
                    shutdown_on_listener_failure=True,
                )
        finally:
            relay.cancel()

    def _looked(self) -> None:
        if _QUEUE in self._due:
            self._shows(_QUEUE, POLL.total_seconds())

    async def _work_crons(self, stop: asyncio.Event) -> None:
        own = asyncio.Event()
        relay = asyncio.create_task(_relay(stop, own))
        manager = SchedulerManager(queries_on(AsyncpgPoolDriver(self._pool)))
        manager.shutdown = own
        for expression, name, function in self._crons:
            manager.schedule(name, expression, accepts_context=False)(self._guarded_tick(name, function))
        try:
            await manager.run()
        finally:
            relay.cancel()

    async def _work_tick(
        self, seconds: float, name: str, function: TickFunction, stop: asyncio.Event
    ) -> None:
        while not stop.is_set():
            # The first process to ask after the time is up gets the turn; the database's clock decides.
            turn = await self._pool.fetchval(
                f"""
                insert into {JOBS}.ticks as t (name, next_at)
                values ($1, clock_timestamp() + make_interval(secs => $2))
                on conflict (name) do update set next_at = excluded.next_at
                where t.next_at <= clock_timestamp() + interval '5 milliseconds'
                returning true
                """,  # noqa: S608
                name,
                seconds,
            )
            if turn:
                await self._guarded_tick(name, function)(None)
            if not stop.is_set():
                self._shows(name, seconds)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), timeout=seconds)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Keep the current task where the end of the grace period finds it."""
        task = asyncio.current_task()
        assert task is not None
        self._current.add(task)
        try:
            yield
        finally:
            self._current.discard(task)

    def _guarded(self, kind: str, function: JobFunction) -> Callable[[pgq.Job], Awaitable[None]]:
        """Decode the payload, run, and turn a failure into a retry with backoff, its message kept to ourselves.

        The engine stores tracebacks of exceptions in its log table; those may hold content, so it gets a bare one.
        """

        async def run(job: pgq.Job) -> None:
            delay: float | None = None
            failure = ""
            try:
                with self._counted():
                    await function(msgspec.json.decode(job.payload) if job.payload else {})
            except RetryLater as later:
                delay = later.delay_seconds
            except asyncio.CancelledError:
                if not self._cut_off:
                    raise
                delay = 0.0  # back to the queue at once, for another process
            except Exception as error:
                failure = type(error).__name__
                _log.warning("job %s failed, attempt %d: %s", kind, job.attempts + 1, failure)
                if job.attempts + 1 < MAX_ATTEMPTS:
                    delay = min(2.0**job.attempts, 300.0)
            if delay is not None:
                raise RetryRequested(timedelta(seconds=delay), failure or "asked for")
            if failure:
                raise _JobFailed(f"{kind}: {failure}")

        return run

    def _guarded_tick(self, name: str, function: TickFunction) -> Callable[[object], Awaitable[None]]:
        async def run(schedule: object) -> None:
            try:
                with self._counted():
                    await function()
            except Exception as error:
                _log.warning("periodic work %s failed: %s", name, type(error).__name__)

        return run

    async def _prune(self) -> None:
        """Forget the engine's own log: telemetry without content (retention class b)."""
        await prune(self._pool, LOG_DAYS)


class _LocalCapacity(QueueManager):
    """A QueueManager whose limit per kind counts this process only, so more processes do more work.

    PgQueuer's own limit is for the whole fleet. Kinds with room for a full batch are fetched together, the others as
    many jobs as there is room for, so that a process never holds a job that it has no room to run.
    """

    def __init__(self, queries: Queries, capacity: Mapping[str, int], looked: Callable[[], None]) -> None:
        super().__init__(queries, CHANNEL)
        self._capacity = capacity
        self._looked = looked
        self._running: dict[int, str] = {}
        self.min_dequeue_poll_interval = timedelta(milliseconds=20)

    async def fetch_jobs(
        self, batch_size: int, global_concurrency_limit: int | None, heartbeat_timeout: timedelta
    ) -> AsyncGenerator[pgq.Job, None]:
        progress = True
        while progress and not self.shutdown.is_set():
            progress = False
            busy = Counter(self._running.values())
            room = {kind: most - busy[kind] for kind, most in self._capacity.items()}
            wide = [kind for kind, free in room.items() if free >= batch_size]
            narrow = [([kind], free) for kind, free in room.items() if 0 < free < batch_size]
            for kinds, size in ([(wide, batch_size)] if wide else []) + narrow:
                jobs = await self.queries.dequeue(
                    batch_size=size,
                    entrypoints={QueueEntrypoint(kind): EntrypointExecutionParameter(0) for kind in kinds},
                    queue_manager_id=self.queue_manager_id,
                    global_concurrency_limit=global_concurrency_limit,
                    heartbeat_timeout=heartbeat_timeout,
                )
                for job in jobs:
                    progress = True
                    if job.id not in self.job_context:
                        self._running[job.id] = job.entrypoint
                    yield job
        self._looked()

    def forget_job(self, job_id: JobId, context: pgq.Context, task: asyncio.Task[None]) -> None:
        self._running.pop(job_id, None)
        super().forget_job(job_id, context, task)


async def _open_pool(dsn: str, connections: int, prepared_statements: bool) -> Any:
    options: dict[str, Any] = {} if prepared_statements else {"statement_cache_size": 0}
    return await asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=connections,
        connect=Hosts(dsn).connect,
        connection_class=PooledConnection,
        timeout=CONNECT_SECONDS,
        server_settings={"application_name": "crmbridge jobs"},
        **options,
    )


async def _close_pool(pool: Any) -> None:
    try:
        # A listener connection that the server cut is never given back, so a patient close could wait for ever.
        await asyncio.wait_for(pool.close(), timeout=2)
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        pool.terminate()


async def _relay(stop: asyncio.Event, own: asyncio.Event) -> None:
    await stop.wait()
    own.set()
