"""Desk: reading writes, and the steps that people order. Every step is audited."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from crmbridge.core.errors import FieldError, NotFound, ValidationError
from crmbridge.db.pool import Database
from crmbridge.services.audit.model import AuditEntry
from crmbridge.services.audit.service import AuditLog
from crmbridge.services.delivery import store
from crmbridge.services.delivery.model import (
    TRANSITIONS,
    Event,
    TargetState,
    WriteFilter,
    WritePage,
    WriteView,
    advance,
    sources_of,
)
from crmbridge.services.delivery.store import PulledLane

__all__ = ["Desk"]

_ACTIONS = {
    Event.REDRIVE: "write.redriven",
    Event.DISCARD: "write.discarded",
    Event.CANCEL: "write.cancelled",
}
MOST_PER_PAGE = 200


class Desk:
    """Reads and steps of one installation. ``on_lanes`` hears of lanes that have something to do now."""

    def __init__(self, db: Database, audit: AuditLog, on_lanes: Callable[[list[PulledLane]], None]) -> None:
        self._db = db
        self._audit = audit
        self._on_lanes = on_lanes

    async def read(self, tenant_id: UUID, write_id: UUID) -> WriteView:
        """One write with its targets. Raises NotFound."""
        async with self._db.tenant(tenant_id) as conn:
            found = await store.list_writes(conn, tenant_id, WriteFilter(), write_id=write_id)
        if not found:
            raise NotFound("There is no such write.")
        return found[0]

    async def list(
        self, tenant_id: UUID, wanted: WriteFilter, *, cursor: str = "", limit: int = 50
    ) -> WritePage:
        """A page of writes, newest first, 1 to 200. Raises ValidationError for a cursor of somebody else."""
        limit = max(1, min(limit, MOST_PER_PAGE))
        async with self._db.tenant(tenant_id) as conn:
            found = await store.list_writes(
                conn, tenant_id, wanted, before=_read_cursor(cursor), limit=limit + 1
            )
        page = found[:limit]
        more = len(found) > limit
        return WritePage(
            writes=page, next_cursor=f"{page[-1].accepted_at.isoformat()}_{page[-1].id}" if more else ""
        )

    async def counts(self, tenant_id: UUID, import_id: UUID | None = None) -> dict[TargetState, int]:
        """Targets by state, of all writes or of one import; every state is there."""
        async with self._db.tenant(tenant_id) as conn:
            found = await store.count_states(conn, tenant_id, import_id)
        return {state: found.get(state.value, 0) for state in TargetState}

    async def step(
        self,
        tenant_id: UUID,
        event: Event,
        actor: str,
        *,
        write_id: UUID | None = None,
        wanted: WriteFilter | None = None,
        reason: str = "",
        request_id: str = "",
    ) -> int:
        """Redrive, discard or cancel one write or all that fit; answers how many targets moved.

        For one write: raises NotFound, or Conflict when none of its targets may take the step.
        """
        wanted = wanted or WriteFilter()
        sources = sources_of(event)
        state = TRANSITIONS[sources[0], event]
        async with self._db.tenant(tenant_id) as conn:
            moved = await store.step(
                conn,
                tenant_id,
                wanted,
                write_id=write_id,
                sources=[source.value for source in sources],
                state=state.value,
            )
            if not moved and write_id is not None:
                await self._refuse(conn, tenant_id, write_id, event)
            lanes = []
            if moved:
                lanes = await store.pull_lanes(conn, [connection_id for _, connection_id in moved])
                details: dict[str, Any] = {"targets": len(moved)}
                if reason:
                    details["reason"] = reason[:200]
                if write_id is None:
                    details["filter"] = {name: str(value) for name, value in _parts(wanted).items() if value}
                await self._audit.write(
                    conn,
                    AuditEntry(
                        tenant_id=tenant_id,
                        actor=actor,
                        action=_ACTIONS[event],
                        subject_id=str(write_id or ""),
                        request_id=request_id,
                        details=details,
                    ),
                )
        self._on_lanes([lane for lane in lanes if lane.is_idle])
        return len(moved)

    async def _refuse(self, conn: Any, tenant_id: UUID, write_id: UUID, event: Event) -> None:
        found = await store.list_writes(conn, tenant_id, WriteFilter(), write_id=write_id)
        if not found:
            raise NotFound("There is no such write.")
        for target in found[0].targets:
            advance(target.state, event)


def _parts(wanted: WriteFilter) -> dict[str, Any]:
    return {
        "state": wanted.state,
        "object": wanted.object,
        "import_id": wanted.import_id,
        "connection_id": wanted.connection_id,
        "since": wanted.since,
    }


def _read_cursor(cursor: str) -> tuple[datetime, UUID] | None:
    if not cursor:
        return None
    at, _, write_id = cursor.partition("_")
    try:
        return datetime.fromisoformat(at), UUID(write_id)
    except ValueError:
        raise ValidationError(
            "The cursor is none of this list.",
            fields=(FieldError("cursor", "is the next_cursor of the page before, or empty"),),
        ) from None
