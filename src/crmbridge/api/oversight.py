"""Incidents and the audit log."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from litestar import Controller, get, post

from crmbridge.api.authentication import require_admin, tenant_of
from crmbridge.api.parameters import FromPath, FromQuery, House, Who
from crmbridge.core.errors import NotFound

__all__ = ["AuditRoutes", "IncidentRoutes"]


class AuditRoutes(Controller):
    """What happened, append-only."""

    path = "/api/tenants/{tenant:str}/audit"
    tags = ("audit",)

    @get(summary="Audit rows of a tenant, newest first (operator)")
    async def read_audit(
        self,
        services: House,
        who: Who,
        tenant: FromPath[str],
        limit: FromQuery[int] = 100,
        before: FromQuery[UUID | None] = None,
        action: FromQuery[str] = "",
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
        self,
        services: House,
        who: Who,
        tenant: FromQuery[str] = "",
        kind: FromQuery[str] = "",
        limit: FromQuery[int] = 100,
    ) -> dict[str, Any]:
        require_admin(who)
        tenant_id = (await tenant_of(services, who, tenant)).id if tenant else None
        return {"incidents": await services.incidents.list_open(tenant_id, kind=kind or None, limit=limit)}

    @get("/{tenant:str}/{incident_id:uuid}", summary="One incident with its details (operator)")
    async def read_incident(
        self, services: House, who: Who, tenant: FromPath[str], incident_id: FromPath[UUID]
    ) -> dict[str, Any]:
        require_admin(who)
        found = await tenant_of(services, who, tenant)
        incident: dict[str, Any] = msgspec.to_builtins(await services.incidents.get(found.id, incident_id))
        return incident

    @post(
        "/{tenant:str}/{incident_id:uuid}/{step:str}",
        status_code=200,
        summary="acknowledge or resolve (operator)",
    )
    async def move_incident(
        self,
        services: House,
        who: Who,
        tenant: FromPath[str],
        incident_id: FromPath[UUID],
        step: FromPath[str],
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
