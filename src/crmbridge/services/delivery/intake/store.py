"""SQL of taking writes in: idempotency keys, imports, writes, their targets and subjects, and the pull of their lanes.

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
from crmbridge.services.delivery.lane.store import Lease, PulledLane, Row, Taken
from crmbridge.services.delivery.model import TargetState

__all__ = ["KnownWrite", "PreparedTarget", "PreparedWrite", "Twin"]


_sql = partial(read_sql, __package__)


_ACCEPT = _sql("accept.sql")
_ALONE = _sql("alone.sql").replace("{idle}", _sql("idle.sql"))
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
    """One row of ``write_targets`` to be. With an ``error`` it is a dead letter from the start.

    ``write``: as it will be sent, where nothing but the record itself had to be known for that.
    """

    id: UUID
    connection_id: UUID
    connection: str = ""
    order_key: bytes | None = None
    depends_on: list[UUID] = []
    error: dict[str, Any] | None = None
    write: Write | None = None


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

    @property
    def may_go_alone(self) -> bool:
        """Whether :func:`insert_alone` takes it: a keyed create for one connection that waits for nothing."""
        target = self.targets[0]
        return (
            len(self.targets) == 1
            and self.key_hash is not None
            and self.import_id is None
            and target.error is None
            and target.order_key is None
            and not target.depends_on
        )


class Twin(msgspec.Struct, frozen=True):
    """A record on another connection: the write that made it, and its id there once that is applied."""

    write_id: UUID
    state: TargetState
    remote_id: str


class KnownWrite(msgspec.Struct, frozen=True):
    """The write that holds a key."""

    write_id: UUID
    fingerprint: bytes | None


async def insert_writes(
    conn: Any, items: Sequence[PreparedWrite], setting: str, lock_seconds: float
) -> tuple[set[UUID], list[PulledLane]]:
    """One statement for all: the ids of the writes that are new, and the lanes that were pulled forward.

    Raises asyncpg.LockNotAvailableError when another transaction holds a row of them for longer than ``lock_seconds``.
    """
    targets = [(place, target) for place, item in enumerate(items, 1) for target in item.targets]
    subjects = [(place, *subject) for place, item in enumerate(items, 1) for subject in item.subjects]
    # What writes of one flush mostly share is sent once for all that do: each value of an array costs most of a µs.
    heads: dict[tuple[Any, ...], int] = {}
    of = [heads.setdefault(_head(item), len(heads) + 1) for item in items]
    rows = await conn.fetch(
        _ACCEPT,
        [item.write_id for item in items],
        of,
        [item.key_hash for item in items],
        [item.fingerprint for item in items],
        [item.sealed for item in items],
        [item.request_id for item in items],
        *zip(*heads, strict=True),
        [place for place, _ in targets],
        [target.id for _, target in targets],
        [target.connection_id for _, target in targets],
        _sparse([target.order_key for _, target in targets]),
        _sparse([_uuid_array(target.depends_on) for _, target in targets]),
        _sparse([target.error for _, target in targets]),
        [place for place, _, _ in subjects],
        [digest for _, digest, _ in subjects],
        [kind for _, _, kind in subjects],
        setting,
        _milliseconds(lock_seconds),
    )
    fresh = {row["id"] for row in rows if row["kind"] == "write"}
    lanes = [
        PulledLane(row["id"], row["tenant_id"], row["fence"], row["is_idle"])
        for row in rows
        if row["kind"] == "lane"
    ]
    return fresh, lanes


async def insert_alone(
    conn: Any, item: PreparedWrite, setting: str, lock_seconds: float, owner: str, lease_seconds: float
) -> tuple[PulledLane, Taken | None] | None:
    """One create of a caller who waits: its lane, and the lane claimed with it where that was idle. None: known.

    For an item that :attr:`PreparedWrite.may_go_alone`. Raises as :func:`insert_writes`.
    """
    target, began = item.targets[0], monotonic()
    row = await conn.fetchrow(
        _ALONE,
        setting,
        item.tenant_id,
        item.key_hash,
        item.fingerprint,
        item.write_id,
        item.object,
        item.operation,
        item.sealed,
        item.priority,
        item.source,
        item.actor,
        item.request_id,
        target.id,
        target.connection_id,
        [digest for digest, _ in item.subjects],
        [kind for _, kind in item.subjects],
        owner,
        float(lease_seconds),
        _milliseconds(lock_seconds),
    )
    if row is None:
        return None
    lane = PulledLane(target.connection_id, item.tenant_id, row["fence"], row["is_idle"])
    if not row["is_taken"]:
        return lane, None
    due = Row(
        id=target.id,
        write_id=item.write_id,
        object=item.object,
        operation=item.operation,
        priority=item.priority,
        state=TargetState.ACCEPTED.value,
        attempt_count=0,
        error=None,
        depends_on=[],
        sealed=item.sealed,
        actor=item.actor,
        request_id=item.request_id,
        remote_ids=None,
        write=target.write,
    )
    lease = Lease(target.connection_id, item.tenant_id, row["fence"], row["failures"], must_recover=False)
    return lane, Taken(lease=lease, began=began, rows=[due], marked=frozenset({target.id}))


def _milliseconds(seconds: float) -> str:
    return str(round(1000 * seconds))


def _head(item: PreparedWrite) -> tuple[Any, ...]:
    """The parameters $7 to $13 of accept.sql."""
    return (
        item.tenant_id,
        item.object,
        item.operation,
        item.priority,
        item.source,
        item.import_id,
        item.actor,
    )


def _sparse(values: list[Any]) -> list[Any] | None:
    """``unnest`` fills up with nulls what is shorter than the rest: most of these columns are empty."""
    return values if any(value is not None for value in values) else None


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


async def pending_about(
    conn: Any, tenant_id: UUID, digest: bytes, connection_id: UUID, obj: str
) -> list[UUID]:
    """Creates and upserts of one object still under way for this person."""
    rows = await conn.fetch(_PENDING_SUBJECT, tenant_id, digest, connection_id, obj)
    return [row["write_id"] for row in rows]


async def add_import(
    conn: Any, import_id: UUID, tenant_id: UUID, obj: str, connection_id: UUID | None, actor: str
) -> None:
    """A new import, by which its writes are found together."""
    await conn.execute(_ADD_IMPORT, import_id, tenant_id, obj, connection_id, actor)
