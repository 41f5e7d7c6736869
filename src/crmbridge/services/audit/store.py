"""SQL of the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from crmbridge.services.audit.model import AuditEntry, AuditRow

__all__ = ["insert", "position", "select"]

_INSERT = """
insert into audit_log (id, tenant_id, actor, action, connection_id, subject_id, request_id, details)
select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::jsonb[])
"""

_POSITION = "select at from audit_log where id = $1 and tenant_id is not distinct from $2"

_SELECT = """
select id, tenant_id, at, actor, action, connection_id, subject_id, request_id, details
from audit_log
where tenant_id is not distinct from $1::uuid
  and ($2::text is null or action = $2)
  and ($3::timestamptz is null or (at, id) < ($3, $4::uuid))
  and ($6::uuid is null or connection_id = $6)
  and ($7::timestamptz is null or at >= $7)
  and ($8::timestamptz is null or at < $8)
order by at desc, id desc
limit $5
"""


async def insert(conn: Any, entries: Sequence[AuditEntry]) -> None:
    """One statement, whatever the number of entries."""
    await conn.execute(
        _INSERT,
        [entry.id for entry in entries],
        [entry.tenant_id for entry in entries],
        [entry.actor for entry in entries],
        [entry.action for entry in entries],
        [entry.connection_id for entry in entries],
        [entry.subject_id for entry in entries],
        [entry.request_id for entry in entries],
        [entry.details for entry in entries],
    )


async def position(conn: Any, tenant_id: UUID | None, row_id: UUID) -> datetime | None:
    """When the row was written, or None when this tenant has no such row."""
    at: datetime | None = await conn.fetchval(_POSITION, row_id, tenant_id)
    return at


async def select(
    conn: Any,
    tenant_id: UUID | None,
    action: str | None,
    at: datetime | None,
    before: UUID | None,
    limit: int,
    connection_id: UUID | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[AuditRow]:
    """Newest first, strictly older than (``at``, ``before``) when given."""
    rows = await conn.fetch(_SELECT, tenant_id, action, at, before, limit, connection_id, since, until)
    return [AuditRow(**row) for row in rows]
