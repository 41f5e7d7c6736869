"""The Litestar application: routes, the caller of each request, errors, OpenAPI."""

from __future__ import annotations

from typing import Any

from litestar import Litestar, Request, get
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from crmbridge._version import __version__
from crmbridge.api.authentication import Caller, add_request_id, bind_request, caller
from crmbridge.api.catalogue import drivers
from crmbridge.api.express import Express
from crmbridge.api.gates import GateRoutes
from crmbridge.api.health import healthz, metrics, readyz
from crmbridge.api.oauth import AppRoutes, ConnectLinkRoutes, ConsentRoutes, begin, callback
from crmbridge.api.oversight import AuditRoutes, IncidentRoutes
from crmbridge.api.parameters import House, Who
from crmbridge.api.problems import EXCEPTION_HANDLERS
from crmbridge.api.records import ImportRoutes, RecordRoutes
from crmbridge.api.routing import ConnectionRoutes
from crmbridge.api.tenants import CredentialRoutes, MappingRoutes, TenantRoutes
from crmbridge.api.writes import WriteRoutes
from crmbridge.services import Services

__all__ = ["build_api"]


@get("/api/drivers", tags=["drivers"], summary="The compatibility matrix", sync_to_thread=False)
def list_drivers(who: Who) -> dict[str, Any]:
    """Every driver with its settings, objects, operations and delete levels."""
    who.require("read")
    return drivers()


@get("/api/whoami", tags=["keys"], summary="What this key is and may do", sync_to_thread=False)
def whoami(who: Who) -> dict[str, Any]:
    """The key's tenant (null for an operator's key), scopes and name in the audit log."""
    principal = who.principal
    return {
        "key_id": str(principal.key_id),
        "tenant_id": str(principal.tenant_id) if principal.tenant_id else None,
        "scopes": sorted(principal.scopes),
        "actor": principal.actor,
    }


def build_api(services: House, *, max_body_bytes: int = 1024 * 1024, debug: bool = False) -> Express:
    """The ASGI application over these services. Start-up and shutdown are the composition root's."""

    def provide_services() -> Services:
        return services

    # Asks for `services`, although it has them at hand: dependencies that do not wait for each other are resolved in
    # a task group, which costs more than all of them.
    async def provide_caller(request: Request[Any, Any, Any], services: House) -> Caller:
        return await caller(services, request.headers, bind_request(request.scope))

    app = Litestar(
        route_handlers=[
            healthz,
            readyz,
            metrics,
            list_drivers,
            whoami,
            TenantRoutes,
            ConnectionRoutes,
            CredentialRoutes,
            ConsentRoutes,
            ConnectLinkRoutes,
            AppRoutes,
            begin,
            callback,
            GateRoutes,
            MappingRoutes,
            RecordRoutes,
            ImportRoutes,
            WriteRoutes,
            AuditRoutes,
            IncidentRoutes,
        ],
        dependencies={
            "services": Provide(provide_services, sync_to_thread=False),
            "who": Provide(provide_caller),
        },
        before_send=[add_request_id],
        exception_handlers=EXCEPTION_HANDLERS,
        request_max_body_size=max_body_bytes,
        signature_types=[Services, Caller],
        openapi_config=OpenAPIConfig(
            title="crmbridge",
            version=__version__,
            description="One interface for software that writes into and reads from each customer's own CRM.",
            path="/api/openapi.json",
            render_plugins=[JsonRenderPlugin(path="/")],
            components=Components(security_schemes={"key": SecurityScheme(type="http", scheme="bearer")}),
            security=[{"key": []}],
        ),
        debug=debug,
        logging_config=None,
    )
    return Express(app, services, max_body_bytes)
