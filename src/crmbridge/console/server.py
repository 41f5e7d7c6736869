"""The console's ASGI application: one way in for every request, one place for roles, forms, headers and errors."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import structlog
from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from structlog.contextvars import bind_contextvars

from crmbridge.console.admission import (
    Cookies,
    NotAllowed,
    SignInNeeded,
    check_form,
    client_address,
    open_flash,
)
from crmbridge.console.rendering import asset
from crmbridge.console.routes import OPEN, ROUTES, Route
from crmbridge.console.visit import Page, Visit, expired_cookie
from crmbridge.core.errors import CrmError, Fix, NotFound, Unavailable, ValidationError
from crmbridge.services import Services

__all__ = ["build_console"]

_MOST_BODY = 512 * 1024
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With no-referrer a browser would name no origin of a form, which check_form asks for.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_TYPES = {"style.css": "text/css", "icon.svg": "image/svg+xml"}
_GO_ON = Fix("go_on", "Check the address, or go on from the overview.")
_log = structlog.get_logger("crmbridge.console")


class Console:
    """Answers every request of the console."""

    def __init__(self, services: Services, trusted_proxies: Sequence[str]) -> None:
        self._services = services
        self._trusted = trusted_proxies

    async def answer(self, request: Request[Any, Any, Any], route: Route) -> Page:
        """The page of a route, or the page that says why not."""
        visit = self._stranger(request)
        try:
            await self._admit(visit, request, route)
            page = await route.function(visit)
        except HTTPException as error:
            return self.refuse(request, error.status_code)
        except SignInNeeded:
            page = self._to_sign_in(request, visit)
        except CrmError as error:
            page = _error_page(visit, error)
        except Exception as bug:
            _log.error("console.failed", kind=type(bug).__name__, path=request.scope["path"], exc_info=bug)
            failure = Unavailable(
                "Something failed on our side; the log has it under this request id.",
                fix=Fix("report", "Report the request id to whoever runs this server."),
            )
            failure.http_status = 500
            page = _error_page(visit, failure)
        return self._finished(page, visit)

    async def _admit(self, visit: Visit, request: Request[Any, Any, Any], route: Route) -> None:
        """Fill in the visit, and refuse what its session, its form or the operator's role does not allow."""
        if visit.token:
            visit.session = await self._services.operators.session(visit.token)
        if route.role == OPEN and visit.session is None:
            visit.token = request.cookies.get(visit.cookies.visit, "")
        elif visit.session is None:
            raise SignInNeeded
        if visit.token and request.cookies.get(visit.cookies.flash):
            visit.flash = open_flash(request.cookies[visit.cookies.flash], visit.token)
        if route.method == "POST":
            form = await _form(request)
            visit.form = {name: values[-1] for name, values in form.items()}
            visit.form_lists = form
            check_form(request.headers, visit.form, visit.token, self._services.oauth.base_url)
        if route.role != OPEN and not visit.operator.role.allows(route.role):
            raise NotAllowed(f"Your role is {visit.operator.role.value}; this needs {route.role.value}.")

    def refuse(self, request: Request[Any, Any, Any], status: int) -> Page:
        """The page for what leads to no route of ours: an unknown address, a wrong method, too large a body."""
        visit = self._stranger(request)
        known: CrmError = ValidationError(HTTPStatus(status).phrase + ".", fix=_GO_ON)
        if status == HTTPStatus.NOT_FOUND:
            known = NotFound("There is no such page.", fix=_GO_ON)
        known.http_status = status
        return self._finished(_error_page(visit, known), visit)

    def _stranger(self, request: Request[Any, Any, Any]) -> Visit:
        cookies = Cookies(self._services.oauth.is_secure)
        request_id = request.scope.setdefault("state", {}).setdefault("request_id", uuid4().hex)
        bind_contextvars(request_id=request_id)
        return Visit(
            services=self._services,
            cookies=cookies,
            request_id=request_id,
            path=request.scope["path"],
            session=None,
            token=request.cookies.get(cookies.session, ""),
            flow=request.cookies.get(cookies.flow, ""),
            parameters=request.path_params,
            query={name: values[-1].strip() for name, values in request.query_params.dict().items()},
            form={},
            form_lists={},
            address=client_address(request.scope, self._trusted),
            user_agent=request.headers.get("user-agent", ""),
            flash=None,
        )

    def _to_sign_in(self, request: Request[Any, Any, Any], visit: Visit) -> Page:
        path = request.scope["path"]
        if request.scope["query_string"]:
            path += "?" + request.scope["query_string"].decode("latin-1")
        wish = f"?next={quote(path, safe='')}" if request.method == "GET" and path != "/admin" else ""
        page = visit.go(f"/admin/sign-in{wish}")
        if visit.token:
            page.cookies.append(expired_cookie(visit.cookies.session, visit.cookies))
        return page

    def _finished(self, page: Page, visit: Visit) -> Page:
        for name, text in _HEADERS.items():
            page.headers.setdefault(name, text)
        if visit.cookies.is_secure:
            page.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
        page.headers["X-Request-Id"] = visit.request_id
        return page


async def _form(request: Request[Any, Any, Any]) -> dict[str, list[str]]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise ValidationError(
            "This is not a form of the console.", fix=Fix("use_form", "Use the page's form.")
        )
    found: dict[str, list[str]] = {}
    form = await request.form()
    for name, text in form.multi_items():
        if isinstance(text, str):
            found.setdefault(name, []).append(text)
    return found


def _error_page(visit: Visit, error: CrmError) -> Page:
    error.request_id = error.request_id or visit.request_id
    page = visit.page("error.html", status=error.http_status, error=error)
    if error.retry_after_seconds is not None:
        page.headers["Retry-After"] = str(max(1, round(error.retry_after_seconds)))
    return page


def _asset(request: Request[Any, Any, Any]) -> Response[bytes]:
    name = request.scope["path"].rpartition("/")[2]
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(asset(name)[0], headers=headers, media_type=_TYPES[name])


def build_console(services: Services, *, trusted_proxies: Sequence[str] = ()) -> Litestar:
    """The ASGI application over these services; everything under ``/admin``."""
    console = Console(services, trusted_proxies)

    def routed(route: Route) -> HTTPRouteHandler:
        async def answer(request: Request[Any, Any, Any]) -> Response[Any]:
            return await console.answer(request, route)

        return HTTPRouteHandler(
            route.path, http_method=route.method, status_code=200, opt={"role": route.role}
        )(answer)

    def on_refusal(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
        return console.refuse(request, error.status_code)

    assets = [
        HTTPRouteHandler(
            f"/admin/{name}", http_method="GET", status_code=200, sync_to_thread=False, opt={"role": OPEN}
        )(_asset)
        for name in _TYPES
    ]
    return Litestar(
        route_handlers=[*(routed(route) for route in ROUTES), *assets],
        exception_handlers={HTTPException: on_refusal},
        request_max_body_size=_MOST_BODY,
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
