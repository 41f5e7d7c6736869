"""Flusher: group commit. Accepts that come while a flush is under way share the next one; no timer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import structlog

from crmbridge import metrics, tracing
from crmbridge.core.errors import Conflict, Fix
from crmbridge.db.errors import DatabaseUnavailable
from crmbridge.db.pool import Database
from crmbridge.services.delivery.intake import store
from crmbridge.services.delivery.intake.apart import Apart
from crmbridge.services.delivery.intake.store import PreparedWrite
from crmbridge.services.delivery.lane.store import PulledLane, Taken

__all__ = ["Express", "Flushed", "Flusher"]

_log = structlog.get_logger("crmbridge.delivery")


# While one commits, the next is sent: the server prepares, the database inserts, and neither waits for the other. More
# would only meet at the lane's row.
_AT_ONCE = 2
# So many accepts share a flush's fixed cost well enough; more would only keep the database waiting.
_ENOUGH = 24
# How long accepts wait for a row that another transaction holds, and those that wait apart. Seconds.
_LOCK_SECONDS, _APART_SECONDS = 1.0, 5.0


class Express(msgspec.Struct, frozen=True):
    """For a create whose caller waits: ``begin`` is told, after the commit, when its lane was taken with it."""

    owner: str
    lease_seconds: float
    begin: Callable[[Taken], None]


class Flushed(msgspec.Struct, kw_only=True):
    """What became of one accept: ``write_id`` is an earlier write's when ``replayed``; ``is_taken``: being sent."""

    write_id: Any
    replayed: bool = False
    idle_lanes: list[PulledLane] = []
    is_taken: bool = False


_Entry = tuple[PreparedWrite, bool, Express | None, "asyncio.Future[Flushed]"]


class Flusher:
    """Turns prepared accepts into rows, up to ``size()`` in one statement and one commit.

    ``on_lanes`` is told, after the commit, of lanes that were pulled forward and that no accept of the flush
    wants to deliver itself. Accepts of a lane whose row somebody holds keep the others waiting once, for a second.
    """

    def __init__(
        self, db: Database, on_lanes: Callable[[list[PulledLane]], None], *, size: Callable[[], int]
    ) -> None:
        self._db = db
        self._on_lanes = on_lanes
        self._size = size
        self._queue: deque[_Entry] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._links: list[Any] = []
        self._apart: Apart[_Entry] = Apart(self._flush_apart)

    def submit(
        self, item: PreparedWrite, *, is_waited: bool = False, express: Express | None = None
    ) -> asyncio.Future[Flushed]:
        """Queue one accept. The future brings Flushed, Conflict (the key has another body), or the failure."""
        future: asyncio.Future[Flushed] = asyncio.get_running_loop().create_future()
        entry = (item, is_waited, express, future)
        if self._apart.takes(_lanes(entry), entry):
            return future
        self._queue.append(entry)
        if tracing.is_on():
            self._links.append(tracing.link())
        if len(self._tasks) < _AT_ONCE:
            task = asyncio.create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return future

    async def close(self) -> None:
        """Finish what is queued."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        await self._apart.close()

    async def _run(self) -> None:
        while self._queue:
            await self._gather()
            if not self._queue:  # the other flush took them
                return
            batch = [self._queue.popleft() for _ in range(min(self._size(), len(self._queue)))]
            batch.sort(key=lambda entry: (entry[0].targets[0].connection_id, entry[0].key_hash or b""))
            if not await self._flushed(batch, _LOCK_SECONDS):
                self._apart.put((_lanes(entry), entry) for entry in batch)

    async def _flush_apart(self, batch: Sequence[_Entry]) -> bool:
        if await self._flushed(batch, _APART_SECONDS):
            return True
        _fail(
            batch,
            DatabaseUnavailable(
                "Another transaction holds this connection's row in the database, most likely one of a machine that "
                "vanished. Nothing was accepted.",
                fix=Fix(
                    "try_again",
                    "Send it again with the same idempotency_key. PostgreSQL ends such a transaction within 14 s; if "
                    "this goes on, pg_stat_activity shows who holds it.",
                ),
            ),
        )
        return False

    async def _flushed(self, batch: Sequence[_Entry], lock_seconds: float) -> bool:
        """Flush and answer. False: a row of them is held; nothing was written, and nobody was answered."""
        try:
            await self._flush(batch, lock_seconds)
        except asyncpg.LockNotAvailableError:
            return False
        except DatabaseUnavailable as error:
            _fail(batch, error)
        except Exception as error:
            if len(batch) > 1:
                _log.warning("flush.failed", kind=type(error).__name__, size=len(batch))
                # One accept that the database refuses must not take others down with it.
                for entry in batch:
                    if not await self._flushed([entry], lock_seconds):
                        self._apart.put([(_lanes(entry), entry)])
            else:
                _fail(batch, error)
        except BaseException as error:
            _fail(batch, error)
            raise
        return True

    async def _gather(self) -> None:
        """Let accepts join for as long as each turn of the loop brings more: a busy loop would not answer sooner."""
        seen = 0
        while seen < len(self._queue) < min(_ENOUGH, self._size()):
            seen = len(self._queue)
            await asyncio.sleep(0)

    async def _flush(self, batch: Sequence[_Entry], lock_seconds: float) -> None:
        items = [entry[0] for entry in batch]
        links, self._links = self._links, []
        started = monotonic()
        with tracing.span("flush", is_root=True, links=links, writes=len(items)):
            tenants = sorted({item.tenant_id for item in items})
            express = batch[0][2] if len(batch) == 1 else None
            if express is not None:
                fresh, lanes, taken = await self._insert_alone(items[0], express, lock_seconds)
            else:
                taken = False
                fresh, lanes = await self._db.at_once(
                    tenants, lambda conn, setting: store.insert_writes(conn, items, setting, lock_seconds)
                )
            stale = [item for item in items if item.write_id not in fresh]
            known: dict[Any, store.KnownWrite] = {}
            if stale:
                async with self._db.tenants(tenants) as conn:
                    known = await store.known_writes(conn, stale)
        # After the commit.
        metrics.note_flush(len(items), monotonic() - started)
        by_connection = {lane.connection_id: lane for lane in lanes}
        claimed: set[Any] = set()
        for item, is_waited, _, future in batch:
            if future.done():
                continue
            if item.write_id in fresh:
                idle = []
                if is_waited and not taken:
                    idle = [
                        by_connection[target.connection_id]
                        for target in item.targets
                        if target.connection_id in by_connection
                    ]
                    claimed.update(lane.connection_id for lane in idle)
                future.set_result(Flushed(write_id=item.write_id, idle_lanes=idle, is_taken=taken))
            else:
                _answer_known(item, known.get((item.tenant_id, item.key_hash or item.write_id)), future)
        waiting = [lane for lane in lanes if lane.is_idle and lane.connection_id not in claimed]
        if waiting:
            self._on_lanes(waiting)

    async def _insert_alone(
        self, item: PreparedWrite, express: Express, lock_seconds: float
    ) -> tuple[set[Any], list[PulledLane], bool]:
        """The accept of one who waits. Its sending begins right after the commit, whatever becomes of the caller."""
        done = await self._db.at_once(
            [item.tenant_id],
            lambda conn, setting: store.insert_alone(
                conn, item, setting, lock_seconds, express.owner, express.lease_seconds
            ),
        )
        if done is None:
            return set(), [], False
        lane, taken = done
        if taken is not None:
            express.begin(taken)
            # What follows here can be done while the provider works: two turns of the loop bring the call on its way.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return {item.write_id}, [lane], taken is not None


def _lanes(entry: _Entry) -> tuple[UUID, ...]:
    return tuple(target.connection_id for target in entry[0].targets)


def _answer_known(
    item: PreparedWrite, known: store.KnownWrite | None, future: asyncio.Future[Flushed]
) -> None:
    if known is None:
        future.set_exception(Conflict("The write that held this key has just been removed; send it again."))
    elif known.fingerprint not in (None, item.fingerprint):
        future.set_exception(
            Conflict(
                "This idempotency_key was used for another write.",
                operation=item.operation,
                fix=Fix(
                    "use_new_key", "Use a new idempotency_key for another body, or send the same body again."
                ),
            )
        )
    else:
        future.set_result(Flushed(write_id=known.write_id, replayed=known.write_id != item.write_id))


def _fail(batch: Sequence[_Entry], error: BaseException) -> None:
    for *_, future in batch:
        if not future.done():
            future.set_exception(error)
