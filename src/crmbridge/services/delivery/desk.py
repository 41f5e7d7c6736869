"""Desk: reading writes, and the steps that people order. Every step is audited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from crmbridge import metrics
from crmbridge.core.errors import FieldError, Fix, NotFound, ValidationError
from crmbridge.db.pool import Database
from crmbridge.services.audit.model import AuditEntry
from crmbridge.services.audit.service import AuditLog
from crmbridge.services.delivery import written
from crmbridge.services.delivery.lane import store, telling
from crmbridge.services.delivery.lane.store import PulledLane
from crmbridge.services.delivery.model import (
    TRANSITIONS,
    Event,
    Moved,
    TargetState,
    WriteFilter,
    WritePage,
    WriteView,
    advance,
    sources_of,
)
from crmbridge.services.delivery.waiting import Waiters
from crmbridge.services.incidents.service import Incidents

__all__ = ["MOST_REASON", "Desk"]

_ACTIONS = {
    Event.REDRIVE: "write.redriven",
    Event.RESEND: "write.redriven",
    Event.DISCARD: "write.discarded",
    Event.CANCEL: "write.cancelled",
}
MOST_PER_PAGE = 200
# Characters of the reason of a step: it is read in a row of the audit log.
MOST_REASON = 500


class Desk:
    """The half of delivery that people use. ``on_lanes`` hears of lanes that have something to do now."""

    def __init__(
        self,
        db: Database,
        audit: AuditLog,
        incidents: Incidents,
        waiters: Waiters,
        on_lanes: Callable[[Sequence[PulledLane]], None],
    ) -> None:
        self._db = db
        self._audit = audit
        self._incidents = incidents
        self._waiters = waiters
        self._on_lanes = on_lanes

    async def read(self, tenant_id: UUID, write_id: UUID) -> WriteView:
        """One write with its targets. Raises NotFound."""
        async with self._db.tenant(tenant_id) as conn:
            found = await written.list_writes(conn, tenant_id, WriteFilter(), write_id=write_id)
        if not found:
            raise NotFound("There is no such write.")
        return found[0]

    async def list(
        self, tenant_id: UUID, wanted: WriteFilter | None = None, *, cursor: str = "", limit: int = 50
    ) -> WritePage:
        """A page of writes, newest first, 1 to 200. Raises ValidationError for a cursor of somebody else."""
        limit = max(1, min(limit, MOST_PER_PAGE))
        async with self._db.tenant(tenant_id) as conn:
            found = await written.list_writes(
                conn, tenant_id, wanted or WriteFilter(), before=_read_cursor(cursor), limit=limit + 1
            )
        page = found[:limit]
        more = len(found) > limit
        return WritePage(
            writes=page, next_cursor=f"{page[-1].accepted_at.isoformat()}_{page[-1].id}" if more else ""
        )

    async def counts(self, tenant_id: UUID, *, import_id: UUID | None = None) -> dict[TargetState, int]:
        """Targets by state, of all writes or of one import; every state is there."""
        async with self._db.tenant(tenant_id) as conn:
            found = await written.count_states(conn, tenant_id, import_id)
        return {state: found.get(state.value, 0) for state in TargetState}

    async def redrive(
        self,
        tenant_id: UUID,
        write_id: UUID,
        *,
        actor: str,
        request_id: str = "",
        connection_id: UUID | None = None,
        without_looking: bool = False,
    ) -> WriteView:
        """Send a parked or dead-lettered write again: every target, or one connection's. Raises NotFound, Conflict.

        What is parked is looked up first, and parked again when that cannot tell. ``without_looking`` sends it at
        once: what did reach the CRM is then there twice.
        """
        event = _redrive(without_looking)
        return await self._step(tenant_id, event, actor, write_id, connection_id, "", request_id)

    async def redrive_many(
        self,
        tenant_id: UUID,
        wanted: WriteFilter,
        *,
        actor: str,
        request_id: str = "",
        without_looking: bool = False,
    ) -> int:
        """The same for all dead letters that fit; parked ones only when the filter names their state."""
        event = _redrive(without_looking)
        done = await self.steer_many(tenant_id, event, wanted, actor=actor, request_id=request_id)
        return done.moved

    async def steer_many(
        self,
        tenant_id: UUID,
        event: Event,
        wanted: WriteFilter,
        *,
        actor: str,
        reason: str = "",
        request_id: str = "",
        limit: int | None = None,
        until: datetime | None = None,
    ) -> Moved:
        """Redrive (or resend), discard or cancel all targets that fit, at most ``limit`` of them.

        Where the filter names no state, redrive and discard take dead letters, never parked ones. Raises
        ValidationError for a reason that is too long.
        """
        _check_reason(reason)
        if wanted.state is None and event is not Event.CANCEL:
            wanted = msgspec.structs.replace(wanted, state=TargetState.DEAD_LETTER)
        return await self._step_many(
            tenant_id,
            event,
            wanted,
            actor=actor,
            reason=reason,
            request_id=request_id,
            limit=limit,
            until=until,
        )

    async def discard(
        self,
        tenant_id: UUID,
        write_id: UUID,
        *,
        actor: str,
        reason: str = "",
        request_id: str = "",
        connection_id: UUID | None = None,
    ) -> WriteView:
        """Give a parked or dead-lettered write up for good; ``reason`` (500 characters) goes into the audit log.

        Raises NotFound, Conflict, ValidationError (the reason).
        """
        _check_reason(reason)
        return await self._step(tenant_id, Event.DISCARD, actor, write_id, connection_id, reason, request_id)

    async def cancel(
        self,
        tenant_id: UUID,
        write_id: UUID,
        *,
        actor: str,
        request_id: str = "",
        connection_id: UUID | None = None,
    ) -> WriteView:
        """Take back what has not been sent. Raises NotFound, Conflict (too late)."""
        return await self._step(tenant_id, Event.CANCEL, actor, write_id, connection_id, "", request_id)

    async def _step(
        self,
        tenant_id: UUID,
        event: Event,
        actor: str,
        write_id: UUID,
        connection_id: UUID | None,
        reason: str,
        request_id: str,
    ) -> WriteView:
        await self._step_one(
            tenant_id,
            event,
            actor,
            write_id=write_id,
            connection_id=connection_id,
            reason=reason,
            request_id=request_id,
        )
        view = await self.read(tenant_id, write_id)
        for target in view.targets:
            if target.is_settled:
                self._waiters.wake(target.id, target)
        return view

    async def _step_one(
        self,
        tenant_id: UUID,
        event: Event,
        actor: str,
        *,
        write_id: UUID,
        connection_id: UUID | None = None,
        reason: str = "",
        request_id: str = "",
    ) -> int:
        """Redrive, discard or cancel one write, or only its target on one connection; answers how many moved.

        Raises NotFound, or Conflict when no target may take the step.
        """
        wanted = WriteFilter(connection_id=connection_id)
        async with self._db.tenant(tenant_id) as conn:
            moved = await self._move(conn, tenant_id, event, wanted, write_id=write_id)
            if not moved:
                await self._refuse(conn, tenant_id, write_id, event, connection_id)
            lanes = await self._note(
                conn, tenant_id, event, actor, wanted, moved, write_id, reason, request_id
            )
        _count(event, len(moved))
        self._on_lanes([lane for lane in lanes if lane.is_idle])
        return len(moved)

    async def _step_many(
        self,
        tenant_id: UUID,
        event: Event,
        wanted: WriteFilter,
        *,
        actor: str,
        reason: str = "",
        request_id: str = "",
        limit: int | None = None,
        until: datetime | None = None,
    ) -> Moved:
        """The same for targets that fit, oldest first, at most ``limit``.

        ``until`` of the first answer, given again, leaves out what has failed anew since then. Raises ValidationError
        when the filter names a state that cannot take the step.
        """
        sources = sources_of(event)
        if wanted.state is not None and wanted.state not in sources:
            known = ", ".join(source.value for source in sources)
            raise ValidationError(
                f"What is {wanted.state.value} cannot follow {event.value!r}.",
                fields=(FieldError("state", f"must be one of {known}"),),
            )
        async with self._db.tenant(tenant_id) as conn:
            moved = await self._move(conn, tenant_id, event, wanted, limit=limit, until=until)
            left, until = await written.left(
                conn, tenant_id, wanted, sources=[source.value for source in sources], until=until
            )
            lanes = await self._note(conn, tenant_id, event, actor, wanted, moved, None, reason, request_id)
        _count(event, len(moved))
        self._on_lanes([lane for lane in lanes if lane.is_idle])
        return Moved(moved=len(moved), left=left, until=until)

    async def _move(
        self,
        conn: Any,
        tenant_id: UUID,
        event: Event,
        wanted: WriteFilter,
        *,
        write_id: UUID | None = None,
        limit: int | None = None,
        until: datetime | None = None,
    ) -> Sequence[tuple[UUID, bool]]:
        return await written.step(
            conn,
            tenant_id,
            wanted,
            write_id=write_id,
            moves={source.value: TRANSITIONS[source, event].value for source in sources_of(event)},
            until=until,
            limit=limit,
        )

    async def _note(
        self,
        conn: Any,
        tenant_id: UUID,
        event: Event,
        actor: str,
        wanted: WriteFilter,
        moved: Sequence[tuple[UUID, bool]],
        write_id: UUID | None,
        reason: str,
        request_id: str,
    ) -> Sequence[PulledLane]:
        """Pull the lanes of what has moved, tell of what is still parked there, and one audit row."""
        if not moved:
            return []
        lanes = await store.pull_lanes(conn, [connection_id for connection_id, _ in moved])
        unparked = {connection_id for connection_id, was_parked in moved if was_parked}
        await telling.unparked(conn, self._incidents, tenant_id, unparked, actor)
        details: dict[str, Any] = {"targets": len(moved)}
        if event is Event.RESEND:
            details["without_looking"] = True
        if reason:
            details["reason"] = reason
        if parts := {name: str(value) for name, value in _parts(wanted).items() if value}:
            details["filter"] = parts
        await self._audit.write(
            conn,
            AuditEntry(
                tenant_id=tenant_id,
                actor=actor,
                action=_ACTIONS[event],
                connection_id=wanted.connection_id,
                subject_id=str(write_id or ""),
                request_id=request_id,
                details=details,
            ),
        )
        return lanes

    async def _refuse(
        self, conn: Any, tenant_id: UUID, write_id: UUID, event: Event, connection_id: UUID | None
    ) -> None:
        found = await written.list_writes(conn, tenant_id, WriteFilter(), write_id=write_id)
        if not found:
            raise NotFound("There is no such write.")
        targets = [t for t in found[0].targets if connection_id in (None, t.connection_id)]
        if not targets:
            names = ", ".join(target.connection for target in found[0].targets)
            raise NotFound(
                "This write does not go to that connection.",
                fix=Fix("choose_connection", f"It goes to {names}."),
            )
        for target in targets:
            advance(target.state, event)


def _check_reason(reason: str) -> None:
    if len(reason) > MOST_REASON:
        problem = f"has {len(reason):,} characters; at most {MOST_REASON} are kept"
    elif "\0" in reason:
        problem = "holds a NUL character, which PostgreSQL cannot keep"
    else:
        return
    raise ValidationError(f"The reason {problem}.", fields=(FieldError("reason", problem),))


def _redrive(without_looking: bool) -> Event:
    return Event.RESEND if without_looking else Event.REDRIVE


def _count(event: Event, moved: int) -> None:
    if moved:
        metrics.note_step((Event.REDRIVE if event is Event.RESEND else event).value, moved)


def _parts(wanted: WriteFilter) -> dict[str, Any]:
    return {
        "state": wanted.state,
        "object": wanted.object,
        "import_id": wanted.import_id,
        "connection_id": wanted.connection_id,
        "since": wanted.since,
        "code": wanted.code,
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
