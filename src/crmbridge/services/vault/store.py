"""SQL of the key tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from crmbridge.db.pool import setting_first
from crmbridge.services.vault.model import WrappedKey

__all__ = [
    "ALONG",
    "count_installation",
    "count_tenant",
    "count_tenants",
    "destroy_tenant",
    "insert_installation",
    "insert_tenant",
    "read_along",
    "read_tenant",
    "replace",
    "select_installation",
    "select_tenant",
    "tenant_ids_after",
]

_INSERT_TENANT = """
insert into tenant_keys (tenant_id, purpose, version, wrapped, master_key_id) values ($1, $2, $3, $4, $5)
"""
_SELECT_TENANT = """
select tenant_id, purpose, version, wrapped, master_key_id, state from tenant_keys
where tenant_id = $1 and state <> 'destroyed' order by purpose, version
"""
# The same in a transaction of its own, which sets the tenant before the first row is read.
_READ_TENANT = setting_first(2) + _SELECT_TENANT.replace(
    "where ", "where (select is_set from tenants_set) and "
)
_REPLACE_TENANT = """
update tenant_keys set wrapped = $4, master_key_id = $5, rewrapped_at = now()
where tenant_id = $1 and purpose = $2 and version = $3 and master_key_id = $6 and state <> 'destroyed'
"""
_DESTROY_TENANT = """
update tenant_keys set wrapped = '', state = 'destroyed'
where tenant_id = $1 and purpose = any($2::text[]) and state <> 'destroyed'
"""
_COUNT_TENANT = """
select master_key_id, count(*) from tenant_keys where tenant_id = $1 and state <> 'destroyed' group by 1
"""
_INSERT_INSTALLATION = """
insert into installation_keys (purpose, version, wrapped, master_key_id) values ($1, $2, $3, $4)
on conflict (purpose, version) do nothing
"""
_SELECT_INSTALLATION = """
select null::uuid as tenant_id, purpose, version, wrapped, master_key_id, state from installation_keys
where state <> 'destroyed' order by purpose, version
"""
_REPLACE_INSTALLATION = """
update installation_keys set wrapped = $3, master_key_id = $4, rewrapped_at = now()
where purpose = $1 and version = $2 and master_key_id = $5 and state <> 'destroyed'
"""
_COUNT_INSTALLATION = """
select master_key_id, count(*) from installation_keys where state <> 'destroyed' group by 1
"""


# What follows `select` for a statement of another room that reads a tenant's keys along: an array for `read_along`.
# The caller adds conditions; the text names no tenant, so it needs one.
ALONG = """
jsonb_agg(jsonb_build_object('purpose', purpose, 'version', version, 'wrapped', encode(wrapped, 'hex'),
    'master_key_id', master_key_id, 'state', state) order by purpose, version)
from tenant_keys where state <> 'destroyed'
"""


def read_along(tenant_id: UUID, rows: Sequence[Mapping[str, Any]]) -> list[WrappedKey]:
    """The keys that a statement with ``ALONG`` brought."""
    return [
        WrappedKey(**{**row, "wrapped": bytes.fromhex(row["wrapped"])}, tenant_id=tenant_id) for row in rows
    ]


def _key(row: Mapping[str, Any]) -> WrappedKey:
    return WrappedKey(**row)


async def insert_tenant(conn: Any, key: WrappedKey) -> None:
    """A key of a tenant, in the transaction that creates the tenant."""
    await conn.execute(
        _INSERT_TENANT, key.tenant_id, key.purpose, key.version, key.wrapped, key.master_key_id
    )


async def select_tenant(conn: Any, tenant_id: UUID) -> list[WrappedKey]:
    """All keys of a tenant that are not destroyed."""
    return [_key(row) for row in await conn.fetch(_SELECT_TENANT, tenant_id)]


async def read_tenant(conn: Any, tenant_id: UUID, setting: str) -> list[WrappedKey]:
    """The same, for ``Database.alone``."""
    return [_key(row) for row in await conn.fetch(_READ_TENANT, tenant_id, setting)]


async def destroy_tenant(conn: Any, tenant_id: UUID, purposes: list[str]) -> None:
    """Empty the wrapped keys; the rows stay as evidence of when."""
    await conn.execute(_DESTROY_TENANT, tenant_id, purposes)


async def count_tenant(conn: Any, tenant_id: UUID) -> dict[str, int]:
    """Keys of one tenant by master key."""
    return dict(await conn.fetch(_COUNT_TENANT, tenant_id))


async def insert_installation(conn: Any, key: WrappedKey) -> None:
    """Does nothing when another process was first."""
    await conn.execute(_INSERT_INSTALLATION, key.purpose, key.version, key.wrapped, key.master_key_id)


async def select_installation(conn: Any) -> list[WrappedKey]:
    """All installation keys that are not destroyed."""
    return [_key(row) for row in await conn.fetch(_SELECT_INSTALLATION)]


async def count_installation(conn: Any) -> dict[str, int]:
    """Installation keys by master key."""
    return dict(await conn.fetch(_COUNT_INSTALLATION))


async def replace(conn: Any, old: WrappedKey, wrapped: bytes, master_key_id: str) -> bool:
    """Put the rewrapped key in place of ``old``; False when someone else rewrapped or destroyed it meanwhile."""
    if old.tenant_id is None:
        done = await conn.execute(
            _REPLACE_INSTALLATION, old.purpose, old.version, wrapped, master_key_id, old.master_key_id
        )
    else:
        done = await conn.execute(
            _REPLACE_TENANT,
            old.tenant_id,
            old.purpose,
            old.version,
            wrapped,
            master_key_id,
            old.master_key_id,
        )
    return bool(done == "UPDATE 1")


async def count_tenants(conn: Any) -> int:
    """Closed tenants included."""
    return int(await conn.fetchval("select count(*) from tenants"))


async def tenant_ids_after(conn: Any, after: UUID, limit: int) -> list[UUID]:
    """Ids greater than ``after``, in order: the cursor of rewrapping and counting."""
    rows = await conn.fetch("select id from tenants where id > $1 order by id limit $2", after, limit)
    return [row["id"] for row in rows]
