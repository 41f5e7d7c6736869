"""Rows of writes as people look at them and steer them: pages, counts, steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from crmbridge.db.statements import read_sql
from crmbridge.services.delivery.model import TargetState, TargetView, WriteFilter, WriteView

__all__ = ["count_states", "left", "list_writes", "step"]


_sql = partial(read_sql, __package__)


_FITS = _sql("fits.sql")
_LIST = _sql("list.sql")
_STEP = _sql("step.sql").replace("{fits}", _FITS)
_LEFT = _sql("left.sql").replace("{fits}", _FITS)
_COUNT = _sql("count.sql")


async def list_writes(
    conn: Any,
    tenant_id: UUID,
    wanted: WriteFilter,
    *,
    write_id: UUID | None = None,
    before: tuple[datetime, UUID] | None = None,
    limit: int = 1,
) -> list[WriteView]:
    """Writes that fit, newest first."""
    rows = await conn.fetch(
        _LIST,
        tenant_id,
        write_id,
        wanted.object,
        wanted.import_id,
        wanted.since,
        wanted.state,
        wanted.connection_id,
        before[0] if before else None,
        before[1] if before else None,
        limit,
    )
    return [
        WriteView(**{**row, "targets": msgspec.convert(row["targets"] or [], list[TargetView])})
        for row in rows
    ]


async def step(
    conn: Any,
    tenant_id: UUID,
    wanted: WriteFilter,
    *,
    write_id: UUID | None,
    moves: Mapping[str, str],
    until: datetime | None = None,
    limit: int | None = None,
) -> list[tuple[UUID, bool]]:
    """Move targets that fit by ``moves``, state to state, oldest first: (connection, whether it was parked)."""
    fits = _fits(tenant_id, wanted, write_id, list(moves), until)
    rows = await conn.fetch(_STEP, *fits, list(moves.values()), limit)
    return [(row["connection_id"], row["was"] == TargetState.PARKED) for row in rows]


async def left(
    conn: Any, tenant_id: UUID, wanted: WriteFilter, *, sources: Sequence[str], until: datetime | None
) -> tuple[int, datetime]:
    """How many targets still fit, and ``until``: the database's clock when it was not given."""
    row = await conn.fetchrow(_LEFT, *_fits(tenant_id, wanted, None, sources, until))
    return row["left"], row["until"]


def _fits(
    tenant_id: UUID,
    wanted: WriteFilter,
    write_id: UUID | None,
    sources: Sequence[str],
    until: datetime | None,
) -> tuple[Any, ...]:
    return (
        tenant_id,
        sources,
        write_id,
        wanted.object,
        wanted.import_id,
        wanted.since,
        wanted.state,
        wanted.connection_id,
        wanted.code,
        until,
    )


async def count_states(conn: Any, tenant_id: UUID, import_id: UUID | None = None) -> dict[str, int]:
    """Targets by state."""
    return {row["state"]: row["targets"] for row in await conn.fetch(_COUNT, tenant_id, import_id)}
