"""SQL of tenants and API keys."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from crmbridge.db.pool import setting_first
from crmbridge.services.tenants.model import ApiKey, Gate, Tenant

__all__ = [
    "close_gate",
    "find_key",
    "insert",
    "insert_key",
    "names",
    "read_gate",
    "revoke_key",
    "save_gate",
    "select",
    "select_all",
    "select_by_slug",
    "select_keys",
]

_TENANT = "id, slug, name, vertical, region, time_zone, unknown_slots, created_at, closed_at"
_KEY = "id, tenant_id, name, prefix, scopes, created_by, created_at, revoked_at"

_INSERT = f"""
insert into tenants (id, slug, name, vertical, region, time_zone, unknown_slots)
values ($1, $2, $3, $4, $5, $6, $7)
returning {_TENANT}
"""  # noqa: S608 - column names only

_SELECT_ALL = f"""
select {_TENANT} from tenants
where slug > $1 and ($2 or closed_at is null) order by slug limit $3
"""  # noqa: S608

_INSERT_KEY = f"""
insert into api_keys (id, tenant_id, name, prefix, key_hash, scopes, created_by)
values ($1, $2, $3, $4, $5, $6, $7)
returning {_KEY}
"""  # noqa: S608

_REVOKE_KEY = f"""
update api_keys set revoked_at = coalesce(revoked_at, now())
where id = $1 and tenant_id is not distinct from $2
returning {_KEY}
"""  # noqa: S608

_SELECT_KEYS = f"""
select {_KEY} from api_keys where tenant_id is not distinct from $1 order by created_at desc, id desc
"""  # noqa: S608

_FIND_KEY = """
select k.id, k.tenant_id, k.name, k.prefix, k.scopes, k.key_hash, k.revoked_at, t.closed_at, t.slug
from api_keys k left join tenants t on t.id = k.tenant_id
where k.key_hash = $1
"""

_GATE = (
    "baa_reference, baa_signatory, baa_signed_on, reviewer, reviewed_on, is_closed, recorded_by, recorded_at"
)

# In a transaction of its own, which sets the tenant before the first row is read.
_READ_GATE = (
    setting_first(2) + f"select {_GATE} from gates where (select is_set from tenants_set) and tenant_id = $1"  # noqa: S608
)

_SAVE_GATE = f"""
insert into gates (tenant_id, baa_reference, baa_signatory, baa_signed_on, reviewer, reviewed_on, recorded_by)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (tenant_id) do update set baa_reference = excluded.baa_reference, baa_signatory = excluded.baa_signatory,
    baa_signed_on = excluded.baa_signed_on, reviewer = excluded.reviewer, reviewed_on = excluded.reviewed_on,
    recorded_by = excluded.recorded_by, recorded_at = now(), is_closed = false
returning {_GATE}, (baa_signed_on > current_date or reviewed_on > current_date) as is_future
"""  # noqa: S608

_CLOSE_GATE = f"""
update gates set is_closed = true, recorded_by = $2, recorded_at = now() where tenant_id = $1 returning {_GATE}
"""  # noqa: S608


class FoundKey(msgspec.Struct, frozen=True, kw_only=True):
    """What authentication needs to know of a key."""

    id: UUID
    tenant_id: UUID | None
    name: str
    prefix: str
    scopes: tuple[str, ...]
    key_hash: bytes
    revoked_at: datetime | None
    closed_at: datetime | None
    slug: str | None


def _tenant(row: Mapping[str, Any]) -> Tenant:
    return msgspec.convert(dict(row), Tenant)


def _key(row: Mapping[str, Any]) -> ApiKey:
    return msgspec.convert(dict(row), ApiKey)


async def insert(
    conn: Any,
    tenant_id: UUID,
    slug: str,
    name: str,
    vertical: str,
    region: str,
    time_zone: str,
    unknown_slots: str,
) -> Tenant | None:
    """None when the slug is taken, by whichever tenant."""
    try:
        row = await conn.fetchrow(_INSERT, tenant_id, slug, name, vertical, region, time_zone, unknown_slots)
    except asyncpg.UniqueViolationError:
        return None
    return _tenant(row)


async def select(conn: Any, tenant_id: UUID) -> Tenant | None:
    """By id."""
    row = await conn.fetchrow(f"select {_TENANT} from tenants where id = $1", tenant_id)  # noqa: S608
    return None if row is None else _tenant(row)


async def select_by_slug(conn: Any, slug: str) -> Tenant | None:
    """By slug."""
    row = await conn.fetchrow(f"select {_TENANT} from tenants where slug = $1", slug)  # noqa: S608
    return None if row is None else _tenant(row)


async def names(conn: Any, most: int) -> list[tuple[str, UUID]]:
    """Slug and id of tenants that are not closed, in no order."""
    rows = await conn.fetch("select slug, id from tenants where closed_at is null limit $1", most)
    return [(row["slug"], row["id"]) for row in rows]


async def select_all(conn: Any, after_slug: str, with_closed: bool, limit: int) -> list[Tenant]:
    """In order of slug."""
    return [_tenant(row) for row in await conn.fetch(_SELECT_ALL, after_slug, with_closed, limit)]


async def insert_key(
    conn: Any,
    key_id: UUID,
    tenant_id: UUID | None,
    name: str,
    prefix: str,
    key_hash: bytes,
    scopes: list[str],
    created_by: str,
) -> ApiKey:
    """Store a key's hash."""
    return _key(
        await conn.fetchrow(_INSERT_KEY, key_id, tenant_id, name, prefix, key_hash, scopes, created_by)
    )


async def revoke_key(conn: Any, key_id: UUID, tenant_id: UUID | None) -> ApiKey | None:
    """None when this tenant (or, with None, the operators) has no such key."""
    row = await conn.fetchrow(_REVOKE_KEY, key_id, tenant_id)
    return None if row is None else _key(row)


async def select_keys(conn: Any, tenant_id: UUID | None) -> list[ApiKey]:
    """Newest first, revoked ones included."""
    return [_key(row) for row in await conn.fetch(_SELECT_KEYS, tenant_id)]


async def find_key(conn: Any, key_hash: bytes) -> FoundKey | None:
    """By the whole hash."""
    row = await conn.fetchrow(_FIND_KEY, key_hash)
    return None if row is None else msgspec.convert(dict(row), FoundKey)


def _gate(row: Mapping[str, Any]) -> Gate:
    return Gate(**{name: row[name] for name in Gate.__struct_fields__})


async def read_gate(conn: Any, tenant_id: UUID, setting: str) -> Gate:
    """What is recorded; an empty gate when nothing is. For ``Database.alone``."""
    row = await conn.fetchrow(_READ_GATE, tenant_id, setting)
    return Gate() if row is None else _gate(row)


async def save_gate(conn: Any, tenant_id: UUID, gate: Gate, actor: str) -> Gate | None:
    """Record; a closed gate opens again. None when a date is after today (the caller rolls back)."""
    row = await conn.fetchrow(
        _SAVE_GATE,
        tenant_id,
        gate.baa_reference,
        gate.baa_signatory,
        gate.baa_signed_on,
        gate.reviewer,
        gate.reviewed_on,
        actor,
    )
    return None if row["is_future"] else _gate(row)


async def close_gate(conn: Any, tenant_id: UUID, actor: str) -> Gate:
    """Shut it; the papers stay on record."""
    row = await conn.fetchrow(_CLOSE_GATE, tenant_id, actor)
    return Gate() if row is None else _gate(row)
