"""Reading: what a person sees of writes. Tries, what is not at its end, and, audited, the content itself."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from crmbridge.core.errors import CrmError, NotFound
from crmbridge.db.pool import Database
from crmbridge.db.statements import read_sql
from crmbridge.services.audit.model import AuditEntry
from crmbridge.services.audit.service import AuditLog
from crmbridge.services.connections.model import Intent
from crmbridge.services.connections.service import Connections
from crmbridge.services.delivery.addressing import Kept, addressed
from crmbridge.services.delivery.model import TargetState
from crmbridge.services.tenants.model import Tenant
from crmbridge.services.vault.keys import write_aad
from crmbridge.services.vault.service import Vault

__all__ = ["AttemptView", "Content", "Plan", "Preview", "Reading"]


_sql = partial(read_sql, __package__)


_ATTEMPTS, _CONTENT, _STUCK = _sql("attempts.sql"), _sql("content.sql"), _sql("stuck.sql")
_BACKLOG = _sql("backlog.sql")


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One try to deliver a target, or to look up what became of it."""

    target_id: UUID
    number: int
    kind: str
    batch_size: int
    started_at: datetime
    finished_at: datetime
    outcome: str
    code: str
    subcode: str
    http_status: int | None
    provider_request_id: str


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What a target's provider would be sent today; ``problem`` instead where it cannot be told."""

    target_id: UUID
    payload: Any = None
    problem: str = ""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What one connection's provider would be sent; ``error`` instead where it would not take it."""

    connection: str
    driver: str = ""
    payload: Any = None
    error: dict[str, Any] | None = None


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """The opened content of a write: personal data. Never kept, never logged."""

    intent: Intent
    previews: list[Preview]


class Reading:
    """Views of writes for people."""

    def __init__(self, db: Database, vault: Vault, connections: Connections, audit: AuditLog) -> None:
        self._db = db
        self._vault = vault
        self._connections = connections
        self._audit = audit

    async def attempts(self, tenant_id: UUID, write_id: UUID) -> list[AttemptView]:
        """The tries of all targets of a write, oldest first, at most 500."""
        async with self._db.tenant(tenant_id) as conn:
            rows = await conn.fetch(_ATTEMPTS, tenant_id, write_id)
        return [AttemptView(**row) for row in rows]

    async def stuck(self, tenant_id: UUID) -> dict[TargetState, int]:
        """How many targets wait, are under way, parked or dead letters; states without any are left out."""
        async with self._db.tenant(tenant_id) as conn:
            rows = await conn.fetch(_STUCK, tenant_id)
        return {TargetState(row["state"]): row["targets"] for row in rows}

    async def backlog(self, tenant_id: UUID) -> dict[UUID, dict[TargetState, int]]:
        """The same by connection; connections without any are left out."""
        found: dict[UUID, dict[TargetState, int]] = {}
        async with self._db.tenant(tenant_id) as conn:
            for row in await conn.fetch(_BACKLOG, tenant_id):
                found.setdefault(row["connection_id"], {})[TargetState(row["state"])] = row["targets"]
        return found

    async def content(self, tenant: Tenant, write_id: UUID, *, actor: str, request_id: str = "") -> Content:
        """Open a write for a person to look at. The look is in the audit log before anything is opened.

        Raises NotFound for an unknown write and for one whose content was erased.
        """
        keys = await self._vault.keys(tenant.id)
        async with self._db.tenant(tenant.id) as conn:
            rows = await conn.fetch(_CONTENT, tenant.id, write_id)
            if not rows:
                raise NotFound("There is no such write.")
            await self._audit.write(
                conn,
                AuditEntry(
                    tenant_id=tenant.id,
                    actor=actor,
                    action="write.content_read",
                    subject_id=str(write_id),
                    request_id=request_id,
                ),
            )
        if rows[0]["sealed"] is None:
            raise NotFound("The content of this write was erased.")
        opened = keys.open(rows[0]["sealed"], write_aad(tenant.id, write_id))
        kept = msgspec.json.decode(opened, type=Kept)
        intent = msgspec.json.decode(opened, type=Intent)
        return Content(intent=intent, previews=[await self._preview(tenant, kept, row) for row in rows])

    async def plan(self, tenant: Tenant, intent: Intent, connection: str = "") -> list[Plan]:
        """What would be sent for an intent, the primary's first. Nothing is kept, nothing leaves.

        Raises what an accept would raise: the primary's refusal. Another connection's stands in its plan.
        """
        names = [connection]
        if not connection:
            names = [r.connection for r in await self._connections.routing.of(tenant.id, intent.object)]
        plans = [await self._plan(tenant, intent, names[0])]
        if len(names) > 1:
            home = (await self._connections.open(tenant.id, name=names[0])).id
            kept = Kept(**{name: getattr(intent, name) for name in Intent.__struct_fields__}, home=str(home))
            for name in names[1:]:
                try:
                    opened = await self._connections.open(tenant.id, name=name)
                    plans.append(await self._plan(tenant, addressed(kept, opened.id, None), name))
                except CrmError as error:
                    plans.append(Plan(connection=name, error=error.to_dict()))
        return plans

    async def _plan(self, tenant: Tenant, intent: Intent, name: str) -> Plan:
        opened = await self._connections.open(tenant.id, name=name)
        links = {link: reference.get("remote_id", "") for link, reference in intent.links.items()}
        write = opened.map(intent, target_id=UUID(int=0), links=links)
        return Plan(connection=name, driver=opened.driver, payload=opened.preview(write))

    async def _preview(self, tenant: Tenant, kept: Kept, row: Any) -> Preview:
        known = row["remote_ids"] or {}
        try:
            intent = addressed(kept, row["connection_id"], known)
            links = {
                name: link.get("remote_id") or known.get(link.get("write_id", ""), "")
                for name, link in intent.links.items()
            }
            connection = await self._connections.open(tenant.id, connection_id=row["connection_id"])
            write = connection.map(intent, target_id=row["target_id"], links=links)
            return Preview(target_id=row["target_id"], payload=connection.preview(write))
        except CrmError as error:
            return Preview(target_id=row["target_id"], problem=f"{error.message} {error.fix.hint}")
