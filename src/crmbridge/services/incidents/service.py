"""Opening, listing, acknowledging and resolving incidents."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg

from crmbridge.core.errors import Conflict, FieldError, Fix, NotFound, ValidationError
from crmbridge.core.ids import new_id
from crmbridge.db.pool import Database
from crmbridge.logs import mask, mask_tree
from crmbridge.services.audit import AuditEntry, AuditLog
from crmbridge.services.incidents import store
from crmbridge.services.incidents.model import Incident, IncidentKind, IncidentState

__all__ = ["Incidents"]

LIST_LIMIT = 1000
_TITLE_CHARACTERS = 300


class Incidents:
    """At most one open incident per tenant, kind and ``dedupe_key``: a cause that repeats is counted."""

    def __init__(self, db: Database, audit: AuditLog) -> None:
        self._db = db
        self._audit = audit

    async def open(
        self,
        conn: asyncpg.Connection,
        tenant_id: UUID,
        kind: IncidentKind | str,
        dedupe_key: str,
        title: str,
        details: dict[str, Any] | None = None,
        connection_id: UUID | None = None,
        *,
        actor: str = "system",
    ) -> Incident:
        """Open, or count one more on the open one, in the caller's transaction (``db.tenant``).

        A new incident is audited (``incident.opened``); a repetition is not. ``times_seen == 1`` tells it is new.
        """
        incident = await store.open_or_count(
            conn,
            new_id(),
            tenant_id,
            IncidentKind(kind),
            dedupe_key,
            *_shown(title, details),
            connection_id,
        )
        if incident.times_seen == 1:
            await self._tell(conn, incident, "opened", actor)
        return incident

    async def list_open(
        self, tenant_id: UUID | None = None, *, kind: IncidentKind | str | None = None, limit: int = 100
    ) -> list[Incident]:
        """Not resolved, newest first; of one tenant, or (None) of all, for operators."""
        if not 1 <= limit <= LIST_LIMIT:
            raise _refused("limit", f"limit must be from 1 to {LIST_LIMIT}, got {limit}.")
        if kind and kind not in {each.value for each in IncidentKind}:
            raise _refused("kind", f"kind must be one of {', '.join(each.value for each in IncidentKind)}.")
        wanted = IncidentKind(kind) if kind else None
        async with self._db.system() if tenant_id is None else self._db.tenant(tenant_id) as conn:
            return await store.select_open(conn, tenant_id, wanted, limit)

    async def count_open(self) -> dict[tuple[str, str], int]:
        """Not resolved of all tenants, by kind and state; a pair without any is left out."""
        async with self._db.system() as conn:
            return await store.count_open(conn)

    async def get(self, tenant_id: UUID, incident_id: UUID) -> Incident:
        """Raises NotFound for an unknown id and for another tenant's."""
        async with self._db.tenant(tenant_id) as conn:
            return await self._found(conn, tenant_id, incident_id)

    async def acknowledge(self, tenant_id: UUID, incident_id: UUID, actor: str) -> Incident:
        """Someone is on it. Raises NotFound, or Conflict when it is not ``open``."""
        async with self._db.tenant(tenant_id) as conn:
            incident = await store.acknowledge(conn, tenant_id, incident_id, actor)
            if incident is None:
                raise self._not_now(await self._found(conn, tenant_id, incident_id))
            await self._tell(conn, incident, "acknowledged", actor)
            return incident

    async def resolve(self, tenant_id: UUID, incident_id: UUID, actor: str) -> Incident:
        """It is over; the same cause would open a new one.

        Raises NotFound, or Conflict when it is resolved, or when its writes are still parked: then it would be over in
        name only, and resolves itself with the last of them.
        """
        async with self._db.tenant(tenant_id) as conn:
            found = await store.select(conn, tenant_id, incident_id)
            if found is not None and found.is_held:
                raise _still_parked(found)
            incident = await store.resolve(conn, tenant_id, incident_id, actor)
            if incident is None:
                raise self._not_now(await self._found(conn, tenant_id, incident_id))
            await self._tell(conn, incident, "resolved", actor)
            return incident

    async def resolve_by_key(
        self,
        conn: asyncpg.Connection,
        tenant_id: UUID,
        kind: IncidentKind | str,
        dedupe_key: str,
        actor: str = "system",
    ) -> Incident | None:
        """Resolve what its cause has left (a credential works again, say), in the caller's transaction."""
        incident = await store.resolve_by_key(conn, tenant_id, IncidentKind(kind), dedupe_key, actor)
        if incident is not None:
            await self._tell(conn, incident, "resolved", actor)
        return incident

    async def lock(
        self, conn: asyncpg.Connection, tenant_id: UUID, kind: IncidentKind | str, dedupe_key: str
    ) -> Incident | None:
        """The open one, if there is one, locked in the caller's transaction: what is counted next stays true."""
        return await store.lock_open(conn, tenant_id, IncidentKind(kind), dedupe_key)

    async def amend(
        self,
        conn: asyncpg.Connection,
        tenant_id: UUID,
        kind: IncidentKind | str,
        dedupe_key: str,
        title: str,
        details: dict[str, Any],
    ) -> None:
        """Say anew what the open one says, in the caller's transaction; it is not counted once more."""
        await store.amend(conn, tenant_id, IncidentKind(kind), dedupe_key, *_shown(title, details))

    async def _found(self, conn: asyncpg.Connection, tenant_id: UUID, incident_id: UUID) -> Incident:
        incident = await store.select(conn, tenant_id, incident_id)
        if incident is None:
            raise NotFound(
                "There is no such incident.", fix=Fix("check_id", "See `crmbridge incidents list`.")
            )
        return incident

    def _not_now(self, incident: Incident) -> Conflict:
        is_over = incident.state is IncidentState.RESOLVED
        return Conflict(
            f"The incident is {incident.state.value} already.",
            fix=Fix("none", "Nothing to do; the same cause would open a new incident.")
            if is_over
            else Fix("resolve", "Resolve it when its cause is gone."),
        )

    async def _tell(self, conn: asyncpg.Connection, incident: Incident, verb: str, actor: str) -> None:
        await self._audit.write(
            conn,
            AuditEntry(
                tenant_id=incident.tenant_id,
                actor=actor,
                action=f"incident.{verb}",
                connection_id=incident.connection_id,
                subject_id=str(incident.id),
                details={"kind": incident.kind.value, "times_seen": incident.times_seen},
            ),
        )


def _shown(title: str, details: dict[str, Any] | None) -> tuple[str, dict[str, Any]]:
    return mask(title, guess=False)[:_TITLE_CHARACTERS], mask_tree(details or {}, guess=False)


def _still_parked(incident: Incident) -> Conflict:
    count, details = incident.details["parked"], incident.details
    return Conflict(
        f"{count} {'write is' if count == 1 else 'writes are'} still parked on {details.get('connection', '')!r}.",
        fix=Fix(
            "settle_writes",
            f"Redrive or discard each; the incident resolves itself with the last. See `{details.get('list', '')}`.",
        ),
    )


def _refused(field: str, message: str) -> ValidationError:
    return ValidationError(
        message,
        fields=(FieldError(field, message),),
        fix=Fix("correct_fields", "Correct the named field and try again."),
    )
