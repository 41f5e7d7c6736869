"""OAuth: links to consent, their flows, the provider's callback, and the installation's apps."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import structlog
from litestar import Controller, MediaType, Request, Response, delete, get, post, put
from litestar.datastructures import Cookie

from crmbridge.api.authentication import require_admin, tenant_of
from crmbridge.api.bodies import AppBody, ConnectLinkBody, ConsentBody
from crmbridge.api.pages import failure_page, outcome_page
from crmbridge.api.parameters import FromPath, House, JSONBody, Who
from crmbridge.core.errors import CrmError, Unavailable
from crmbridge.core.secret import Secret
from crmbridge.drivers import load
from crmbridge.services.connections.links import ConnectLink
from crmbridge.services.oauth.model import App, FlowRefused, FlowState, Link

__all__ = ["AppRoutes", "ConnectLinkRoutes", "ConsentRoutes", "begin", "callback"]

# A browser takes a __Host- cookie over https alone. Over plain http, which settings allow for loopback only, the
# cookie has another name and no Secure mark; it binds the flow to the browser all the same.
_COOKIE, _LOOPBACK_COOKIE = "__Host-crmbridge-oauth", "crmbridge-oauth"
_COOKIE_SECONDS = 600
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
_log = structlog.get_logger("crmbridge.api")


class ConsentRoutes(Controller):
    """Connect by consent: a link for the person who may grant access."""

    path = "/api/tenants/{tenant:str}/oauth"
    tags = ("connections",)

    @post(
        "/{driver:str}/start", status_code=201, summary="A link to consent, good for ten minutes (operator)"
    )
    async def start(
        self,
        services: House,
        who: Who,
        tenant: FromPath[str],
        driver: FromPath[str],
        data: JSONBody[ConsentBody],
    ) -> Link:
        require_admin(who)
        found = await tenant_of(services, who, tenant)
        return await services.connections.consent.start(
            found, driver, data.settings, actor=who.actor, name=data.connection
        )

    @get("/flows/{flow_id:uuid}", summary="How far a link is; its credential has the same id (operator)")
    async def read_flow(
        self, services: House, who: Who, tenant: FromPath[str], flow_id: FromPath[UUID]
    ) -> FlowState:
        require_admin(who)
        found = await tenant_of(services, who, tenant)
        return await services.connections.consent.state_of(found, flow_id)


class ConnectLinkRoutes(Controller):
    """A link for the tenant's own admin: it opens one connect page, once."""

    path = "/api/tenants/{tenant:str}/connect-links"
    tags = ("connections",)

    @post(summary="A connect link for one driver (operator); its address is shown once")
    async def make_link(
        self, services: House, who: Who, tenant: FromPath[str], data: JSONBody[ConnectLinkBody]
    ) -> ConnectLink:
        require_admin(who)
        found = await tenant_of(services, who, tenant)
        return await services.connections.links.make(
            found,
            data.driver,
            connection=data.connection,
            hours=data.hours,
            settings=data.settings,
            actor=who.actor,
        )


class AppRoutes(Controller):
    """This installation's OAuth apps at the providers."""

    path = "/api/oauth/apps"
    tags = ("connections",)

    @get(summary="All apps without their secrets, and the redirect address to register (operator)")
    async def list_apps(self, services: House, who: Who) -> dict[str, Any]:
        require_admin(who)
        return {"redirect_uri": services.oauth.redirect_uri, "apps": await services.oauth.apps()}

    @put("/{driver:str}", summary="Set client id and secret for a driver (operator)")
    async def put_app(self, services: House, who: Who, driver: FromPath[str], data: JSONBody[AppBody]) -> App:
        require_admin(who)
        slug = load(driver).MANIFEST.slug
        return await services.oauth.put_app(
            slug, data.client_id, Secret(data.client_secret.strip()), who.actor
        )

    @delete("/{driver:str}", summary="Forget an app (operator)")
    async def remove_app(self, services: House, who: Who, driver: FromPath[str]) -> None:
        require_admin(who)
        await services.oauth.remove_app(driver, who.actor)


@get("/oauth/begin/{handle:str}", include_in_schema=False)
async def begin(services: House, request: Request[Any, Any, Any], handle: FromPath[str]) -> Response[str]:
    """Bind the browser by a cookie, and send it to the provider."""
    name = _cookie_name(services)
    try:
        redirect = await services.connections.consent.begin(handle, request.cookies.get(name, ""))
    except CrmError as error:
        return _page(failure_page(error), error.http_status)
    cookie = Cookie(
        key=name,
        value=redirect.cookie,
        path="/",
        max_age=_COOKIE_SECONDS,
        httponly=True,
        secure=services.oauth.is_secure,
        samesite="lax",
    )
    headers = {**_HEADERS, "Location": redirect.url}
    return Response("", status_code=303, headers=headers, cookies=[cookie], media_type=MediaType.TEXT)


@get("/oauth/callback", include_in_schema=False)
async def callback(services: House, request: Request[Any, Any, Any]) -> Response[str]:
    """Where the provider sends the browser back to. Shows what came of it, and what to do next."""
    try:
        parameters = _parameters(request)
        cookie = request.cookies.get(_cookie_name(services), "")
        done = await services.connections.consent.complete(parameters, cookie)
    except CrmError as error:
        return _page(failure_page(error), error.http_status)
    except Exception as bug:
        # The problem answer of other routes is for programs; here a person looks. The query is never logged.
        _log.error("oauth.callback_failed", kind=type(bug).__name__, exc_info=bug)
        return _page(failure_page(Unavailable("Something failed on our side; the log has it.")), 500)
    return _page(outcome_page(done), 200)


def _cookie_name(services: House) -> str:
    return _COOKIE if services.oauth.is_secure else _LOOPBACK_COOKIE


def _parameters(request: Request[Any, Any, Any]) -> dict[str, str]:
    given = request.query_params.dict()
    if any(len(values) != 1 for values in given.values()):
        raise FlowRefused("The provider's answer names a parameter twice.")
    return {name: values[0] for name, values in given.items()}


def _page(html: str, status: int) -> Response[str]:
    return Response(html, status_code=status, headers=dict(_HEADERS), media_type=MediaType.HTML)
