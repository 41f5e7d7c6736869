"""SQL of working on a lane: leases, due targets, marks, outcomes, attempts.

Locks are taken in one order everywhere: idempotency keys, writes, targets, then the lane's row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import Any
from uuid import UUID

import msgspec

from crmbridge.core.records import Write
from crmbridge.db.statements import read_sql
from crmbridge.services.audit.model import AuditEntry
from crmbridge.services.audit.store import in_statement, values_of
from crmbridge.services.delivery.lane.outcome import Verdict
from crmbridge.services.delivery.model import TargetState, TargetView

__all__ = ["Lease", "PulledLane", "Row", "SavedResult", "Taken"]


_sql = partial(read_sql, __package__)


_DUE = _sql("due.sql")
_ROWS = _sql("rows.sql").replace("{due}", _DUE)
_WINDOW = _sql("window.sql").replace("{rows}", _ROWS)
_LIVE = _sql("live.sql").replace("{rows}", _ROWS)
_RECOVER = _sql("recover.sql")
_TAKE = _sql("take.sql").replace("{rows}", _ROWS).replace("{due}", _DUE)
_MARK = _sql("mark.sql")
_UNMARK = _sql("unmark.sql")
_POSTPONE = _sql("postpone.sql")
_SAVE = _sql("save.sql").replace("{audit}", in_statement(21))
_RELEASE = _sql("release.sql").replace("{due}", _DUE)
_STANDING = _sql("standing.sql")

# It need not be flushed: whatever relies on it is flushed after it.
_RENEW = """
with unflushed as materialized (select set_config('synchronous_commit', 'off', true) as is_set)
update lanes set leased_until = clock_timestamp() + $3 * interval '1 second'
where (select is_set from unflushed) is not null and connection_id = $1 and fence = $2 and leased_until is not null
returning true
"""
_TENANT_OF = "select tenant_id from lanes where connection_id = $1"
_LOCK_LANE = "select true from lanes where connection_id = $1 and fence = $2 for update"

# Lanes that nobody works on although something is due: a crash between accept and enqueue, an expired lease.
_DUE_LANES = """
select connection_id, tenant_id, fence from lanes
where next_due <= (select clock_timestamp()) and not is_paused
  and coalesce(not_before <= clock_timestamp(), true)
  and coalesce(leased_until <= clock_timestamp(), true)
order by next_due limit $1
"""

_OVERDUE_LANES = """
select connection_id, tenant_id, least(waiting_since, next_due) as since, is_paused from lanes
where least(waiting_since, next_due) < clock_timestamp() - $1 * interval '1 second'
"""

# Something changed that may have held others back.
_PULL = """
update lanes set next_due = clock_timestamp(),
    not_before = case when $2 then null else not_before end,
    failures = case when $2 then 0 else failures end
where connection_id = any($1::uuid[])
returning connection_id, tenant_id, fence,
    not is_paused and coalesce(not_before <= clock_timestamp(), true)
    and coalesce(leased_until <= clock_timestamp(), true) as is_idle
"""


class PulledLane(msgspec.Struct, frozen=True):
    """A lane that an accept found with nothing due before. ``is_idle``: nobody works on it, nothing holds it."""

    connection_id: UUID
    tenant_id: UUID
    fence: int
    is_idle: bool


class Lease(msgspec.Struct, frozen=True):
    """The right to work on a lane, until somebody holds a higher fence."""

    connection_id: UUID
    tenant_id: UUID
    fence: int
    failures: int
    must_recover: bool


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """A lane taken, what was due in it, and which of that is marked ``sending`` already.

    ``has_more``: rows are live writes, and something of an import waits behind them, due or not.
    ``began``: the monotonic clock before the statement. From then on others count when the lease and the marks end.
    """

    lease: Lease
    began: float
    rows: list[Row]
    marked: frozenset[UUID]
    has_more: bool = False


class Row(msgspec.Struct, kw_only=True):
    """A due target with its sealed content. ``write``: mapped a moment ago, by the accept that took the lane."""

    id: UUID
    write_id: UUID
    object: str
    operation: str
    priority: int
    state: str
    attempt_count: int
    error: dict[str, Any] | None
    depends_on: list[UUID]
    sealed: bytes | None
    actor: str
    request_id: str
    remote_ids: dict[str, str] | None
    write: Write | None = None


# What of a row comes from the tables.
_READ = tuple(name for name in Row.__struct_fields__ if name != "write")


class SavedResult(msgspec.Struct, kw_only=True):
    """What one target becomes."""

    id: UUID
    state: str
    verdict: Verdict
    remote_id: str = ""
    remote_url: str = ""
    delete_level: str = ""


async def tenant_of(conn: Any, connection_id: UUID) -> UUID | None:
    """Whose lane it is."""
    tenant_id: UUID | None = await conn.fetchval(_TENANT_OF, connection_id)
    return tenant_id


async def take(
    conn: Any, connection_id: UUID, owner: str, lease_seconds: float, limit: int, calls: int, setting: str
) -> Taken | None:
    """Take the lane's fence with what is due, and mark that if it is no more than ``calls``, which may begin now. None
    when it is not free, held back, paused, or has nothing due.
    """
    began = monotonic()
    rows = await conn.fetch(_TAKE, connection_id, owner, float(lease_seconds), limit, setting, calls)
    if not rows:
        return None
    lease = Lease(connection_id, *(rows[0][name] for name in Lease.__struct_fields__[1:]))
    due = [row for row in rows if row["id"] is not None]
    return Taken(
        lease=lease,
        began=began,
        rows=_rows_of(due),
        marked=frozenset(row["id"] for row in due if row["is_marked"]),
        has_more=rows[0]["has_more"],
    )


async def renew(conn: Any, lease: Lease, lease_seconds: float) -> bool:
    """Hold the lane longer; False when somebody else has it."""
    return await conn.fetchval(_RENEW, lease.connection_id, lease.fence, float(lease_seconds)) is not None


async def recover(
    conn: Any,
    lease: Lease,
    *,
    send_seconds: float,
    lag_seconds: float,
    steady_seconds: float,
    batch_id: UUID,
) -> list[UUID]:
    """What an earlier holder left ``sending`` becomes ``unknown``, to be looked up. Answers the target ids.

    The marks are ``send_seconds`` old by then for certain: the database's clock, which dated them, is known to run
    evenly for ``steady_seconds`` only.
    """
    rows = await conn.fetch(
        _RECOVER,
        lease.connection_id,
        lease.fence,
        float(send_seconds),
        float(lag_seconds),
        batch_id,
        float(steady_seconds),
    )
    return [row["target_id"] for row in rows]


async def window(conn: Any, lease: Lease, limit: int, busy: Sequence[UUID], setting: str) -> list[Row]:
    """The next due targets, at most ``limit``, without those in ``busy``."""
    return [Row(**row) for row in await conn.fetch(_WINDOW, lease.connection_id, limit, busy, setting)]


async def live(
    conn: Any, lease: Lease, limit: int, busy: Sequence[UUID], calls: int, setting: str
) -> tuple[list[Row], set[UUID]]:
    """As :func:`window`, live ones only, and which of them were marked: if no more than ``calls``, as :func:`take`."""
    found = await conn.fetch(_LIVE, lease.connection_id, limit, busy, setting, lease.fence, calls)
    return _rows_of(found), {row["id"] for row in found if row["is_marked"]}


def _rows_of(found: Sequence[Any]) -> list[Row]:
    return [Row(**{name: row[name] for name in _READ}) for row in found]


async def mark(conn: Any, lease: Lease, ids: Sequence[UUID], setting: str) -> tuple[set[UUID], bool]:
    """``sending``, one attempt more. Answers those that may be sent: the others were cancelled, or the lane is lost.

    The second value says whether live writes are due that are not among them.
    """
    rows = await conn.fetch(_MARK, lease.connection_id, lease.fence, ids, setting)
    return {row["id"] for row in rows}, bool(rows) and rows[0]["is_live_waiting"]


async def unmark(conn: Any, lease: Lease, ids: Sequence[UUID], setting: str) -> None:
    """Marked and not sent after all: due as before, and it was no attempt."""
    await conn.execute(_UNMARK, lease.connection_id, lease.fence, ids, setting)


async def postpone(conn: Any, lease: Lease, ids: Sequence[UUID], seconds: float, setting: str) -> None:
    """Unknown ones that are due are looked up so much later."""
    await conn.execute(_POSTPONE, lease.connection_id, lease.fence, ids, float(seconds), setting)


async def save(
    conn: Any,
    lease: Lease,
    results: Sequence[SavedResult],
    *,
    was: str,
    kind: str,
    batch_id: UUID,
    seconds: float,
    entry: AuditEntry | None,
    must_free: bool,
    setting: str,
) -> tuple[list[TargetView], bool]:
    """Outcomes, attempts and audit row of one batch: the targets saved, as they stand (a late worker: none).

    With ``must_free`` also the lane is given free, unless something came: the second value says whether it was.
    """
    errors = [result.verdict.error or {} for result in results]
    facts = [error.get("provider_facts") or {} for error in errors]
    rows = await conn.fetch(
        _SAVE,
        lease.connection_id,
        lease.fence,
        [result.id for result in results],
        [result.state for result in results],
        [result.verdict.outcome.value for result in results],
        [result.remote_id for result in results],
        [result.remote_url for result in results],
        [result.delete_level for result in results],
        [result.verdict.error for result in results],
        [float(result.verdict.delay_seconds) for result in results],
        [str(error.get("code", "")) for error in errors],
        [str(error.get("subcode", "")) for error in errors],
        [fact["http_status"] if isinstance(fact.get("http_status"), int) else None for fact in facts],
        [str(fact.get("provider_request_id", ""))[:200] for fact in facts],
        was,
        kind,
        batch_id,
        len(results),
        float(seconds),
        setting,
        *values_of([entry] if entry is not None else []),
        must_free,
    )
    by_id = {result.id: result for result in results}
    views = [_saved_view(lease, by_id[row["id"]], row) for row in rows]
    return views, bool(rows) and rows[0]["is_freed"]


def _saved_view(lease: Lease, result: SavedResult, row: Any) -> TargetView:
    return TargetView(
        id=result.id,
        connection_id=lease.connection_id,
        state=TargetState(result.state),
        outcome=result.verdict.outcome.value,
        remote_id=row["remote_id"],
        remote_url=row["remote_url"],
        delete_level=result.delete_level,
        error=result.verdict.error,
        attempt_count=row["attempt_count"],
        due_at=row["due_at"],
        sent_at=row["sent_at"],
        finished_at=row["finished_at"],
    )


async def release(
    conn: Any, lease: Lease, *, always: bool, failures: int, pause_seconds: float, in_order: bool = True
) -> bool | None:
    """Give the lane free and say when it is due next. Not ``in_order``: the next holder must look what was lost.

    True: free. False: something is due after all, the lease goes on (never with ``always``). None: it was lost.
    """
    if await conn.fetchval(_LOCK_LANE, lease.connection_id, lease.fence) is None:
        return None
    row = await conn.fetchrow(
        _RELEASE,
        lease.connection_id,
        lease.fence,
        always,
        failures,
        float(pause_seconds),
        "" if in_order else "lost",
    )
    return row is not None


async def due_lanes(conn: Any, limit: int = 1000) -> list[PulledLane]:
    """Lanes with something due that nobody works on."""
    rows = await conn.fetch(_DUE_LANES, limit)
    return [PulledLane(row["connection_id"], row["tenant_id"], row["fence"], True) for row in rows]


async def overdue_lanes(conn: Any, seconds: float) -> list[tuple[UUID, UUID, Any, bool]]:
    """Lanes whose oldest undelivered write waits longer than this: (connection, tenant, since, is_paused)."""
    rows = await conn.fetch(_OVERDUE_LANES, float(seconds))
    return [(row["connection_id"], row["tenant_id"], row["since"], row["is_paused"]) for row in rows]


async def standing(
    conn: Any, write_id: UUID, seconds: float, setting: str
) -> tuple[list[TargetView], set[UUID]]:
    """How the targets of a write stand, in order, and which of them cannot settle within so many seconds."""
    rows = await conn.fetch(_STANDING, write_id, float(seconds), setting)
    views = [TargetView(**{name: row[name] for name in TargetView.__struct_fields__}) for row in rows]
    for view in views:
        view.state = TargetState(view.state)
    return views, {row["id"] for row in rows if row["is_held"]}


async def pull_lanes(
    conn: Any, connection_ids: Sequence[UUID], *, end_back_off: bool = False
) -> list[PulledLane]:
    """Make lanes due now; ``end_back_off`` also forgets their failures."""
    rows = await conn.fetch(_PULL, sorted(set(connection_ids)), end_back_off)
    return [PulledLane(*row) for row in rows]
