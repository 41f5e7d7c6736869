"""SQL of accepting and delivering: imports, writes, write_targets, write_subjects, idempotency_keys, attempts, lanes.

Locks are taken in one order everywhere: idempotency keys, writes, targets, then the lane's row.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any
from uuid import UUID

import msgspec

from crmbridge.services.delivery.model import TargetState, TargetView
from crmbridge.services.delivery.outcome import Verdict

__all__ = [
    "KnownWrite",
    "Lease",
    "PreparedTarget",
    "PreparedWrite",
    "PulledLane",
    "Row",
    "SavedResult",
    "Twin",
]


def _sql(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


_DUE = _sql("due.sql")
_ACCEPT = _sql("accept.sql")
_WINDOW = _sql("window.sql").replace("{due}", _DUE)
_CLAIM = _sql("claim.sql")
_RECOVER = _sql("recover.sql")
_TAKE = (
    _sql("take.sql")
    .replace("{claim}", _CLAIM)
    .replace("{window}", _WINDOW.replace("t.id <> all($3::uuid[]) and", "").replace("$2", "$4"))
)
_SAVE = _sql("save.sql")
_RELEASE = _sql("release.sql").replace("{due}", _DUE)
_HELD = _sql("held.sql")
_TWINS = _sql("twins.sql")

# The write that holds a key, or that has this id already (a flush repeated after a cut at its commit).
_KNOWN = """
select k.tenant_id, k.key_hash, k.fingerprint, k.write_id from idempotency_keys k
join unnest($1::uuid[], $2::bytea[]) as a (tenant_id, key_hash) using (tenant_id, key_hash)
union all
select tenant_id, null, null, id from writes where id = any($3::uuid[])
"""

_FIND_KEY = """
select write_id from idempotency_keys where tenant_id = $1 and key_hash = $2 and fingerprint = $3
"""

_RENEW = """
update lanes set leased_until = clock_timestamp() + $3 * interval '1 second'
where connection_id = $1 and fence = $2 returning true
"""

# Before the socket is used. Only under a fence that still holds, only what is still there to be sent.
_MARK = """
update write_targets t set state = 'sending', attempt_count = t.attempt_count + 1, fence = $2,
    sent_at = clock_timestamp()
where t.connection_id = $1 and t.id = any($3::uuid[]) and t.state in ('accepted', 'retrying')
  and exists (select from lanes l where l.connection_id = $1 and l.fence = $2 and not l.is_paused
              and l.leased_until > clock_timestamp())
returning t.id
"""

_LOCK_LANE = "select true from lanes where connection_id = $1 and fence = $2 for update"

# Lanes that nobody works on although something is due: a crash between accept and enqueue, an expired lease.
_DUE_LANES = """
select connection_id, fence from lanes
where next_due <= clock_timestamp() and not is_paused
  and coalesce(not_before <= clock_timestamp(), true)
  and coalesce(leased_until <= clock_timestamp(), true)
order by next_due limit $1
"""

_OVERDUE_LANES = """
select connection_id, tenant_id, least(waiting_since, next_due) as since from lanes
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

_ADD_IMPORT = """
insert into imports (id, tenant_id, object, connection_id, created_by) values ($1, $2, $3, $4, $5)
"""

# Which of these writes have a target on this connection, and how it stands.
_ON_CONNECTION = (
    "select write_id, state from write_targets where connection_id = $1 and write_id = any($2::uuid[])"
)

# Writes of one object, still pending on this connection, that name this person.
_PENDING_SUBJECT = """
select t.write_id from write_subjects s join write_targets t on t.write_id = s.write_id
where s.tenant_id = $1 and s.subject_hash = $2 and t.connection_id = $3 and t.object = $4
  and t.operation in ('create', 'upsert') and t.state in ('accepted', 'sending', 'retrying', 'unknown')
"""


class PreparedTarget(msgspec.Struct, kw_only=True):
    """One row of ``write_targets`` to be. With an ``error`` it is a dead letter from the start."""

    id: UUID
    connection_id: UUID
    connection: str = ""
    order_key: bytes | None = None
    depends_on: list[UUID] = []
    error: dict[str, Any] | None = None


class PreparedWrite(msgspec.Struct, kw_only=True):
    """One accept, checked, hashed and sealed: everything but the transaction."""

    write_id: UUID
    tenant_id: UUID
    key_hash: bytes | None
    fingerprint: bytes
    object: str
    operation: str
    sealed: bytes
    priority: int
    source: str
    import_id: UUID | None
    actor: str
    request_id: str
    targets: list[PreparedTarget]
    subjects: list[tuple[bytes, str]]


class Twin(msgspec.Struct, frozen=True):
    """A record on another connection: the write that made it, and its id there once that is applied."""

    write_id: UUID
    state: TargetState
    remote_id: str


class PulledLane(msgspec.Struct, frozen=True):
    """A lane that an accept found with nothing due before. ``is_idle``: nobody works on it, nothing holds it."""

    connection_id: UUID
    tenant_id: UUID
    fence: int
    is_idle: bool


class KnownWrite(msgspec.Struct, frozen=True):
    """The write that holds a key."""

    write_id: UUID
    fingerprint: bytes | None


class Lease(msgspec.Struct, frozen=True):
    """The right to work on a lane, until somebody holds a higher fence."""

    connection_id: UUID
    tenant_id: UUID
    fence: int
    failures: int
    must_recover: bool


class Row(msgspec.Struct, kw_only=True):
    """A due target with its sealed content."""

    id: UUID
    write_id: UUID
    object: str
    operation: str
    state: str
    attempt_count: int
    error: dict[str, Any] | None
    depends_on: list[UUID]
    sealed: bytes | None
    actor: str
    request_id: str
    remote_ids: dict[str, str] | None


class SavedResult(msgspec.Struct, kw_only=True):
    """What one target becomes."""

    id: UUID
    state: str
    verdict: Verdict
    remote_id: str = ""
    remote_url: str = ""
    delete_level: str = ""


async def insert_writes(
    conn: Any, items: Sequence[PreparedWrite], setting: str
) -> tuple[set[UUID], list[PulledLane]]:
    """One statement for all: the ids of the writes that are new, and the lanes that were pulled forward."""
    targets = [(place, target) for place, item in enumerate(items, 1) for target in item.targets]
    subjects = [(place, *subject) for place, item in enumerate(items, 1) for subject in item.subjects]
    rows = await conn.fetch(
        _ACCEPT,
        [item.write_id for item in items],
        [item.tenant_id for item in items],
        [item.key_hash for item in items],
        [item.fingerprint for item in items],
        [item.object for item in items],
        [item.operation for item in items],
        [item.sealed for item in items],
        [item.priority for item in items],
        [item.source for item in items],
        [item.import_id for item in items],
        [item.actor for item in items],
        [item.request_id for item in items],
        [place for place, _ in targets],
        [target.id for _, target in targets],
        [target.connection_id for _, target in targets],
        [target.order_key for _, target in targets],
        [_uuid_array(target.depends_on) for _, target in targets],
        [place for place, _, _ in subjects],
        [digest for _, digest, _ in subjects],
        [kind for _, _, kind in subjects],
        [target.error for _, target in targets],
        setting,
    )
    fresh = {row["id"] for row in rows if row["kind"] == "write"}
    lanes = [
        PulledLane(row["id"], row["tenant_id"], row["fence"], row["is_idle"])
        for row in rows
        if row["kind"] == "lane"
    ]
    return fresh, lanes


def _uuid_array(ids: Sequence[UUID]) -> str | None:
    return "{" + ",".join(str(one) for one in ids) + "}" if ids else None


async def known_writes(
    conn: Any, items: Sequence[PreparedWrite]
) -> dict[tuple[UUID, bytes | UUID], KnownWrite]:
    """For accepts that brought nothing new: the write that was there, by (tenant, key hash or write id)."""
    keyed = [item for item in items if item.key_hash is not None]
    rows = await conn.fetch(
        _KNOWN,
        [item.tenant_id for item in keyed],
        [item.key_hash for item in keyed],
        [item.write_id for item in items if item.key_hash is None],
    )
    return {
        (row["tenant_id"], row["key_hash"] or row["write_id"]): KnownWrite(
            row["write_id"], row["fingerprint"]
        )
        for row in rows
    }


async def find_key(conn: Any, tenant_id: UUID, key_hash: bytes, digest: bytes) -> UUID | None:
    """The write that was accepted with this key and this very body."""
    found: UUID | None = await conn.fetchval(_FIND_KEY, tenant_id, key_hash, digest)
    return found


async def claim(conn: Any, connection_id: UUID, owner: str, lease_seconds: float) -> Lease | None:
    """Take the lane's fence, or None when it is not free, held back, paused, or has nothing due."""
    row = await conn.fetchrow(_CLAIM, connection_id, owner, lease_seconds)
    if row is None:
        return None
    return Lease(connection_id, row["tenant_id"], row["fence"], row["failures"], row["must_recover"])


async def take(
    conn: Any, connection_id: UUID, owner: str, lease_seconds: float, limit: int
) -> tuple[Lease, list[Row], set[UUID]] | None:
    """Claim, window, and the mark of a write that is alone, in one round trip. None when the lane cannot be taken."""
    rows = await conn.fetch(_TAKE, connection_id, owner, lease_seconds, limit)
    if not rows:
        return None
    lease = Lease(connection_id, *(rows[0][name] for name in Lease.__struct_fields__[1:]))
    due = [row for row in rows if row["id"] is not None]
    return (
        lease,
        [Row(**{name: row[name] for name in Row.__struct_fields__}) for row in due],
        {row["id"] for row in due if row["is_marked"]},
    )


async def need_not_flush(conn: Any) -> None:
    """For a claim or a renewal alone: whatever relies on it is flushed after it."""
    await conn.execute("set local synchronous_commit = off")


async def renew(conn: Any, lease: Lease, lease_seconds: float) -> bool:
    """Hold the lane longer; False when somebody else has it."""
    await need_not_flush(conn)
    return await conn.fetchval(_RENEW, lease.connection_id, lease.fence, lease_seconds) is not None


async def recover(
    conn: Any, lease: Lease, *, send_seconds: float, lag_seconds: float, batch_id: UUID
) -> list[UUID]:
    """What an earlier holder left ``sending`` becomes ``unknown``, to be looked up. Answers the target ids."""
    rows = await conn.fetch(
        _RECOVER, lease.connection_id, lease.fence, float(send_seconds), float(lag_seconds), batch_id
    )
    return [row["target_id"] for row in rows]


async def window(conn: Any, lease: Lease, limit: int, busy: Sequence[UUID]) -> list[Row]:
    """The next due targets, at most ``limit``, without those in ``busy``."""
    return [Row(**row) for row in await conn.fetch(_WINDOW, lease.connection_id, limit, busy)]


async def mark(conn: Any, lease: Lease, ids: Sequence[UUID]) -> set[UUID]:
    """``sending``, one attempt more. Answers those that may be sent: the others were cancelled, or the lane is lost."""
    return {row["id"] for row in await conn.fetch(_MARK, lease.connection_id, lease.fence, ids)}


async def save(
    conn: Any,
    lease: Lease,
    results: Sequence[SavedResult],
    *,
    was: str,
    kind: str,
    batch_id: UUID,
    batch_size: int,
    seconds: float,
) -> list[TargetView]:
    """Outcomes and attempts of one batch; answers the targets saved, as they stand (a late worker: none)."""
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
        batch_size,
        float(seconds),
    )
    by_id = {result.id: result for result in results}
    return [_saved_view(lease, by_id[row["id"]], row) for row in rows]


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


async def due_lanes(conn: Any, limit: int = 1000) -> list[tuple[UUID, int]]:
    """Lanes with something due that nobody works on, with their fence."""
    return [(row["connection_id"], row["fence"]) for row in await conn.fetch(_DUE_LANES, limit)]


async def overdue_lanes(conn: Any, seconds: float) -> list[tuple[UUID, UUID, Any]]:
    """Lanes whose oldest undelivered write waits longer than this: (connection, tenant, since)."""
    rows = await conn.fetch(_OVERDUE_LANES, float(seconds))
    return [(row["connection_id"], row["tenant_id"], row["since"]) for row in rows]


async def on_connection(conn: Any, connection_id: UUID, write_ids: Sequence[UUID]) -> dict[UUID, TargetState]:
    """Which of these writes go to this connection, and how they stand there."""
    rows = await conn.fetch(_ON_CONNECTION, connection_id, write_ids)
    return {row["write_id"]: TargetState(row["state"]) for row in rows}


async def twins(
    conn: Any, home_id: UUID, connection_id: UUID, records: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Twin]:
    """Records of ``home`` by (object, remote id), as they are on another connection, where a write made both."""
    rows = await conn.fetch(
        _TWINS, home_id, [name for name, _ in records], [remote_id for _, remote_id in records], connection_id
    )
    return {
        (row["object"], row["remote_id"]): Twin(row["write_id"], TargetState(row["state"]), row["twin_id"])
        for row in rows
    }


async def held(conn: Any, target_ids: Sequence[UUID], seconds: float) -> set[UUID]:
    """Which of these targets cannot settle within so many seconds."""
    return {row["id"] for row in await conn.fetch(_HELD, target_ids, float(seconds))}


async def pending_about(
    conn: Any, tenant_id: UUID, digest: bytes, connection_id: UUID, obj: str
) -> list[UUID]:
    """Creates and upserts of one object still under way for this person."""
    rows = await conn.fetch(_PENDING_SUBJECT, tenant_id, digest, connection_id, obj)
    return [row["write_id"] for row in rows]


async def pull_lanes(
    conn: Any, connection_ids: Sequence[UUID], *, end_back_off: bool = False
) -> list[PulledLane]:
    """Make lanes due now; ``end_back_off`` also forgets their failures."""
    rows = await conn.fetch(_PULL, sorted(set(connection_ids)), end_back_off)
    return [PulledLane(*row) for row in rows]


async def add_import(
    conn: Any, import_id: UUID, tenant_id: UUID, obj: str, connection_id: UUID | None, actor: str
) -> None:
    """A new import, by which its writes are found together."""
    await conn.execute(_ADD_IMPORT, import_id, tenant_id, obj, connection_id, actor)
