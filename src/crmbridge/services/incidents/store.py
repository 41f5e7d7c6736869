"""SQL of incidents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec

from crmbridge.services.incidents.model import Incident, IncidentKind

__all__ = [
    "acknowledge",
    "amend",
    "count_open",
    "lock_open",
    "open_or_count",
    "resolve",
    "resolve_by_key",
    "select",
    "select_open",
]

_COLUMNS = """id, tenant_id, kind, state, connection_id, dedupe_key, title, details, times_seen, opened_at,
    last_seen_at, acknowledged_by, resolved_at, resolved_by"""

_OPEN = f"""
insert into incidents (id, tenant_id, kind, dedupe_key, title, details, connection_id)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (tenant_id, kind, dedupe_key) where state <> 'resolved'
do update set times_seen = incidents.times_seen + 1, last_seen_at = now(),
              title = excluded.title, details = excluded.details
returning {_COLUMNS}
"""  # noqa: S608 - column names only

_SELECT = f"select {_COLUMNS} from incidents where id = $1 and tenant_id = $2"  # noqa: S608

_SELECT_OPEN = f"""
select {_COLUMNS} from incidents
where state <> 'resolved' and ($1::uuid is null or tenant_id = $1) and ($2::text is null or kind = $2)
order by opened_at desc, id desc
limit $3
"""  # noqa: S608

_LOCK_OPEN = f"""
select {_COLUMNS} from incidents
where tenant_id = $1 and kind = $2 and dedupe_key = $3 and state <> 'resolved'
for update
"""  # noqa: S608

_AMEND = """
update incidents set title = $4, details = $5
where tenant_id = $1 and kind = $2 and dedupe_key = $3 and state <> 'resolved'
"""

_COUNT_OPEN = """
select kind, state, count(*) as incidents from incidents where state <> 'resolved' group by kind, state
"""

_ACKNOWLEDGE = f"""
update incidents set state = 'acknowledged', acknowledged_by = $3
where id = $1 and tenant_id = $2 and state = 'open'
returning {_COLUMNS}
"""  # noqa: S608

_RESOLVE = f"""
update incidents set state = 'resolved', resolved_at = now(), resolved_by = $3
where id = $1 and tenant_id = $2 and state <> 'resolved'
returning {_COLUMNS}
"""  # noqa: S608

_RESOLVE_BY_KEY = f"""
update incidents set state = 'resolved', resolved_at = now(), resolved_by = $4
where tenant_id = $1 and kind = $2 and dedupe_key = $3 and state <> 'resolved'
returning {_COLUMNS}
"""  # noqa: S608


def _incident(row: Mapping[str, Any] | None) -> Incident | None:
    return None if row is None else msgspec.convert(dict(row), Incident)


async def open_or_count(
    conn: Any,
    incident_id: UUID,
    tenant_id: UUID,
    kind: IncidentKind,
    dedupe_key: str,
    title: str,
    details: dict[str, Any],
    connection_id: UUID | None,
) -> Incident:
    """A new row, or the open one of the same kind and key with its count raised."""
    row = await conn.fetchrow(
        _OPEN, incident_id, tenant_id, kind.value, dedupe_key, title, details, connection_id
    )
    incident = _incident(row)
    assert incident is not None
    return incident


async def select(conn: Any, tenant_id: UUID, incident_id: UUID) -> Incident | None:
    """One incident of this tenant."""
    return _incident(await conn.fetchrow(_SELECT, incident_id, tenant_id))


async def select_open(
    conn: Any, tenant_id: UUID | None, kind: IncidentKind | None, limit: int
) -> list[Incident]:
    """Not resolved, newest first."""
    rows = await conn.fetch(_SELECT_OPEN, tenant_id, kind.value if kind else None, limit)
    return [msgspec.convert(dict(row), Incident) for row in rows]


async def lock_open(conn: Any, tenant_id: UUID, kind: IncidentKind, dedupe_key: str) -> Incident | None:
    """The open one, until the end of the transaction nobody else's to change."""
    return _incident(await conn.fetchrow(_LOCK_OPEN, tenant_id, kind.value, dedupe_key))


async def amend(
    conn: Any, tenant_id: UUID, kind: IncidentKind, dedupe_key: str, title: str, details: dict[str, Any]
) -> None:
    """What the open one says; its count stays."""
    await conn.execute(_AMEND, tenant_id, kind.value, dedupe_key, title, details)


async def count_open(conn: Any) -> dict[tuple[str, str], int]:
    """Not resolved, by kind and state."""
    return {(row["kind"], row["state"]): row["incidents"] for row in await conn.fetch(_COUNT_OPEN)}


async def acknowledge(conn: Any, tenant_id: UUID, incident_id: UUID, actor: str) -> Incident | None:
    """None when it is not ``open``."""
    return _incident(await conn.fetchrow(_ACKNOWLEDGE, incident_id, tenant_id, actor))


async def resolve(conn: Any, tenant_id: UUID, incident_id: UUID, actor: str) -> Incident | None:
    """None when it is resolved already."""
    return _incident(await conn.fetchrow(_RESOLVE, incident_id, tenant_id, actor))


async def resolve_by_key(
    conn: Any, tenant_id: UUID, kind: IncidentKind, dedupe_key: str, actor: str
) -> Incident | None:
    """None when there is no open one."""
    return _incident(await conn.fetchrow(_RESOLVE_BY_KEY, tenant_id, kind.value, dedupe_key, actor))
