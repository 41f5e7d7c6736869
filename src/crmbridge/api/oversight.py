"""Incidents and the audit log."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from litestar import Controller, get, post

from crmbridge.api.authentication import Caller, require_admin, tenant_of
from crmbridge.core.errors import NotFound
from crmbridge.services import Services

__all__ = ["AuditRoutes", "IncidentRoutes"]


class AuditRoutes(Controller):
    """What happened, append-only."""

    path = "/api/tenants/{tenant:str}/audit"
    tags = ("audit",)

    @get(summary="Audit rows of a tenant, newest first (operator)")
    async def read_audit(
        self,
        services: Services,
        who: Caller,
        tenant: str,
        limit: int = 100,
        before: UUID | None = None,
        action: str = "",
    ) -> dict[str, Any]:
        require_admin(who)
        found = await tenant_of(services, who, tenant)
        limit = max(1, min(limit, 1000))
        return {
            "entries": await services.audit.read(found.id, limit=limit, before=before, action=action or None)
        }


class IncidentRoutes(Controller):
    """What an operator must see."""

    path = "/api/incidents"
    tags = ("incidents",)

    @get(summary="Incidents that are not resolved, of one tenant or of all (operator)")
    async def list_incidents(
        self, services: Services, who: Caller, tenant: str = "", kind: str = "", limit: int = 100
    ) -> dict[str, Any]:
        require_admin(who)
        tenant_id = (await tenant_of(services, who, tenant)).id if tenant else None
        return {"incidents": await services.incidents.list_open(tenant_id, kind=kind or None, limit=limit)}

    @post(
        "/{tenant:str}/{incident_id:uuid}/{step:str}",
        status_code=200,
        summary="acknowledge or resolve (operator)",
    )
    async def move_incident(
        self, services: Services, who: Caller, tenant: str, incident_id: UUID, step: str
    ) -> dict[str, Any]:
        require_admin(who)
        found = await tenant_of(services, who, tenant)
        if step == "acknowledge":
            await services.incidents.acknowledge(found.id, incident_id, who.actor)
        elif step == "resolve":
            await services.incidents.resolve(found.id, incident_id, who.actor)
        else:
            raise NotFound("There is no such step; use acknowledge or resolve.")
        return {"id": str(incident_id), "step": step}
