"""SQL of the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from crmbridge.services.audit.model import AuditEntry, AuditRow

__all__ = ["insert", "position", "select"]

_TYPES = ("uuid[]", "uuid[]", "text[]", "text[]", "uuid[]", "text[]", "text[]", "jsonb[]")

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


def in_statement(first: int) -> str:
    """The insert as a part of a larger statement: the values of :func:`values_of` are its parameters from ``first``."""
    values = ", ".join(f"${first + place}::{kind}" for place, kind in enumerate(_TYPES))
    return f"""insert into audit_log (id, tenant_id, actor, action, connection_id, subject_id, request_id, details)
    select * from unnest({values})"""  # noqa: S608 - the types above


_INSERT = in_statement(1)


def values_of(entries: Sequence[AuditEntry]) -> list[list[Any]]:
    """Entries as columns."""
    return [
        [entry.id for entry in entries],
        [entry.tenant_id for entry in entries],
        [entry.actor for entry in entries],
        [entry.action for entry in entries],
        [entry.connection_id for entry in entries],
        [entry.subject_id for entry in entries],
        [entry.request_id for entry in entries],
        [entry.details for entry in entries],
    ]


async def insert(conn: Any, entries: Sequence[AuditEntry]) -> None:
    """One statement, whatever the number of entries."""
    await conn.execute(_INSERT, *values_of(entries))


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
