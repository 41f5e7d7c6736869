"""Who calls: a bearer key becomes a Principal; the tenant in the path is checked against it."""

from __future__ import annotations

from secrets import token_hex
from typing import TYPE_CHECKING, Any

from structlog.contextvars import bind_contextvars

from crmbridge import tracing
from crmbridge.core.errors import AuthError, CrmError, Fix, NotFound
from crmbridge.core.records import Object

if TYPE_CHECKING:
    from crmbridge.services import Services
    from crmbridge.services.tenants.model import Principal, Tenant

__all__ = [
    "Caller",
    "add_request_id",
    "bind_request",
    "caller",
    "object_named",
    "request_id_of",
    "require_admin",
    "tenant_of",
]


def request_id_of(scope: Any) -> str:
    """The request's id: the caller's own ``X-Request-Id`` when it is sane, else a new one; the same at every call."""
    state = scope.setdefault("state", {})
    known: str | None = state.get("request_id")
    if known is None:
        wish = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        known = state["request_id"] = _sane(wish) if wish else token_hex(16)
    return known


def bind_request(scope: Any) -> str:
    """Put the request's id, and the trace id that the caller sent, on all that is logged of it; answers the id."""
    request_id = request_id_of(scope)
    traceparent = next((value for name, value in scope["headers"] if name == b"traceparent"), None)
    if traceparent is not None and (trace_id := tracing.trace_id_in(traceparent)):
        bind_contextvars(request_id=request_id, trace_id=trace_id)
    else:
        bind_contextvars(request_id=request_id)
    return request_id


async def add_request_id(message: Any, scope: Any) -> None:
    """Every answer carries the request's id. A hook, as a middleware costs a layer of error handling per request."""
    if message["type"] == "http.response.start":
        message["headers"].append((b"x-request-id", request_id_of(scope).encode()))


def _sane(wish: bytes) -> str:
    text = wish.decode("latin-1")
    return text if 8 <= len(text) <= 64 and text.replace("-", "").isalnum() else token_hex(16)


class Caller:
    """The principal of one request, and the request's id for the audit log."""

    __slots__ = ("principal", "request_id")

    def __init__(self, principal: Principal, request_id: str) -> None:
        self.principal = principal
        self.request_id = request_id

    @property
    def actor(self) -> str:
        """How the audit log names the caller."""
        return self.principal.actor

    def require(self, scope: str) -> None:
        """Refuse with the name of the missing scope."""
        if not self.principal.may(scope):
            refusal = AuthError(
                f"This API key lacks the scope {scope!r}.",
                subcode="insufficient_scope",
                fix=Fix("use_other_key", f"Use a key with the scope {scope!r}."),
            )
            refusal.http_status = 403
            raise refusal


def _refuse(message: str) -> CrmError:
    refusal = AuthError(
        message,
        subcode="invalid_credentials",
        fix=Fix("send_key", "Send `Authorization: Bearer crmb_live_…` with a valid API key."),
    )
    refusal.http_status = 401
    return refusal


async def caller(services: Services, headers: Any, request_id: str) -> Caller:
    """The caller of a request. Raises AuthError (401) without a key or with an unknown or revoked one."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _refuse("There is no API key in this request.")
    try:
        principal = await services.tenants.authenticate(token.strip())
    except AuthError:
        raise _refuse("This API key is unknown or revoked.") from None
    return Caller(principal, request_id)


async def tenant_of(services: Services, who: Caller, named: str) -> Tenant:
    """The tenant in the path. Unknown and somebody else's both answer 404."""
    try:
        tenant = await services.tenants.get(named)
    except CrmError:
        raise _no_tenant() from None
    if who.principal.tenant_id is not None and who.principal.tenant_id != tenant.id:
        raise _no_tenant()
    return tenant


def _no_tenant() -> NotFound:
    hint = "Check the tenant's slug or id; `crmbridge tenants list` shows them."
    return NotFound("There is no such tenant.", fix=Fix("check_tenant", hint))


def require_admin(who: Caller) -> None:
    """Only an operator's key with the scope ``admin``; a tenant's key gets 404, as if nothing were there."""
    if who.principal.tenant_id is not None:
        raise NotFound("There is no such address.")
    who.require("admin")


def object_named(name: str) -> Object:
    """The canonical object in a path."""
    try:
        return Object(name)
    except ValueError:
        raise NotFound(
            f"There is no object {name[:40]!r}.",
            fix=Fix("choose_object", f"Objects are {', '.join(Object)}."),
        ) from None
