"""Connections of a tenant: where objects go, pause and resume."""

from __future__ import annotations

from typing import Any

from litestar import Controller, post, put

from crmbridge.api.authentication import require_admin, tenant_of
from crmbridge.api.bodies import PauseBody, RoutesBody
from crmbridge.api.parameters import FromPath, House, JSONBody, Who
from crmbridge.services import Services
from crmbridge.services.tenants.model import Tenant

__all__ = ["ConnectionRoutes"]


class ConnectionRoutes(Controller):
    """What an operator orders for one connection. Each answers the tenant's connections as they stand then."""

    path = "/api/tenants/{tenant:str}/connections/{name:str}"
    tags = ("connections",)

    @put("/routes", summary="What the connection is for which object: primary, also or none (operator)")
    async def change_routes(
        self,
        services: House,
        who: Who,
        tenant: FromPath[str],
        name: FromPath[str],
        data: JSONBody[RoutesBody],
    ) -> dict[str, Any]:
        require_admin(who)
        found = await tenant_of(services, who, tenant)
        await services.connections.routing.change(
            found, name, data.routes, actor=who.actor, request_id=who.request_id
        )
        return await _connections(services, found)

    @post("/pause", status_code=200, summary="Accept on, send nothing (operator)")
    async def pause(
        self,
        services: House,
        who: Who,
        tenant: FromPath[str],
        name: FromPath[str],
        data: JSONBody[PauseBody | None] = None,
    ) -> dict[str, Any]:
        require_admin(who)
        found = await tenant_of(services, who, tenant)
        await services.connections.routing.pause(
            found, name, actor=who.actor, reason=data.reason if data else "", request_id=who.request_id
        )
        return await _connections(services, found)

    @post("/resume", status_code=200, summary="Go on where it stopped (operator)")
    async def resume(
        self,
        services: House,
        who: Who,
        tenant: FromPath[str],
        name: FromPath[str],
        data: JSONBody[PauseBody | None] = None,
    ) -> dict[str, Any]:
        require_admin(who)
        found = await tenant_of(services, who, tenant)
        await services.connections.routing.resume(
            found, name, actor=who.actor, reason=data.reason if data else "", request_id=who.request_id
        )
        return await _connections(services, found)


async def _connections(services: Services, tenant: Tenant) -> dict[str, Any]:
    return {"connections": await services.connections.summaries(tenant.id)}
