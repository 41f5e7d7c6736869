"""Every route of the console with the role it needs. This table is the one place where roles are decided.

``OPEN`` needs nobody to be signed in. A GET changes nothing, so most are an auditor's; those that ask before a step, or
show a form, need the role of the POST that follows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Literal, NamedTuple

from crmbridge.console.pages import (
    audit,
    connecting,
    connections,
    crm,
    incidents,
    linked,
    mapping,
    oidc,
    operators,
    overview,
    sign_in,
    tenants,
    writes,
)
from crmbridge.console.visit import Page, Visit
from crmbridge.services.operators.model import Role

__all__ = ["OPEN", "ROUTES", "Route"]

OPEN: Final = "open"
_AUDITOR, _OPERATOR, _ADMIN = Role.AUDITOR, Role.OPERATOR, Role.ADMIN


class Route(NamedTuple):
    """One method and path, and the least role that may use it."""

    method: Literal["GET", "POST"]
    path: str
    role: Role | Literal["open"]
    function: Callable[[Visit], Awaitable[Page]]


_TENANT = "/admin/tenants/{tenant:str}"
_CREDENTIAL = f"{_TENANT}/crm/credentials/{{credential:uuid}}"
_CONNECTION = f"{_TENANT}/connections/{{connection:str}}"
_WRITE = f"{_TENANT}/writes/{{write:uuid}}"
_OPERATOR_PAGE = "/admin/operators/{operator:uuid}"

ROUTES: tuple[Route, ...] = (
    # The link itself is what admits: it names one tenant, one driver, one connection.
    Route("GET", "/connect/{token:str}", OPEN, linked.open_link),
    Route("POST", "/connect/{token:str}", OPEN, linked.submit),
    Route("GET", "/admin/sign-in", OPEN, sign_in.show),
    Route("POST", "/admin/sign-in", OPEN, sign_in.sign_in),
    # The browser's cookie, sealed by us, is what admits the answer of the sign-in service.
    Route("GET", "/admin/oidc", OPEN, oidc.begin),
    Route("GET", "/admin/oidc/callback", OPEN, oidc.finish),
    Route("POST", "/admin/sign-out", _AUDITOR, sign_in.sign_out),
    Route("GET", "/admin/password", _AUDITOR, sign_in.show_password),
    Route("POST", "/admin/password", _AUDITOR, sign_in.change_password),
    Route("GET", "/admin", _AUDITOR, overview.show),
    Route("GET", "/admin/tenants", _AUDITOR, tenants.list_tenants),
    Route("GET", "/admin/tenants/new", _OPERATOR, tenants.show_new),
    Route("POST", "/admin/tenants/new", _OPERATOR, tenants.add),
    Route("GET", _TENANT, _AUDITOR, tenants.show),
    Route("POST", f"{_TENANT}/keys", _ADMIN, tenants.add_key),
    Route("GET", f"{_TENANT}/keys/{{key:uuid}}/revoke", _ADMIN, tenants.confirm_revoke_key),
    Route("POST", f"{_TENANT}/keys/{{key:uuid}}/revoke", _ADMIN, tenants.revoke_key),
    Route("GET", f"{_TENANT}/gate", _AUDITOR, tenants.show_gate),
    Route("POST", f"{_TENANT}/gate", _OPERATOR, tenants.record_gate),
    Route("GET", f"{_TENANT}/gate/close", _OPERATOR, tenants.confirm_close_gate),
    Route("POST", f"{_TENANT}/gate/close", _OPERATOR, tenants.close_gate),
    Route("GET", f"{_TENANT}/crm", _AUDITOR, crm.show),
    Route("GET", f"{_TENANT}/crm/connect", _OPERATOR, connecting.choose),
    Route("GET", f"{_TENANT}/crm/connect/{{driver:str}}", _OPERATOR, connecting.show_form),
    Route("POST", f"{_TENANT}/crm/connect/{{driver:str}}", _OPERATOR, connecting.connect),
    Route("GET", f"{_TENANT}/crm/connect/{{driver:str}}/link", _OPERATOR, linked.show_make),
    Route("POST", f"{_TENANT}/crm/connect/{{driver:str}}/link", _OPERATOR, linked.make),
    Route("GET", f"{_TENANT}/crm/consent/{{handle:str}}", _OPERATOR, connecting.show_consent),
    Route("POST", f"{_CREDENTIAL}/test", _OPERATOR, crm.test),
    Route("GET", f"{_CREDENTIAL}/activate", _OPERATOR, crm.confirm_activate),
    Route("POST", f"{_CREDENTIAL}/activate", _OPERATOR, crm.activate),
    Route("GET", f"{_CREDENTIAL}/revoke", _OPERATOR, crm.confirm_revoke),
    Route("POST", f"{_CREDENTIAL}/revoke", _OPERATOR, crm.revoke),
    Route("GET", f"{_TENANT}/crm/mapping", _AUDITOR, mapping.show),
    Route("POST", f"{_TENANT}/crm/mapping/preview", _OPERATOR, mapping.try_out),
    Route("GET", f"{_TENANT}/crm/mapping/{{object:str}}/{{slot:str}}", _OPERATOR, mapping.edit),
    Route("POST", f"{_TENANT}/crm/mapping/{{object:str}}/{{slot:str}}", _OPERATOR, mapping.save),
    Route("GET", f"{_TENANT}/connections", _AUDITOR, connections.show),
    Route("GET", f"{_CONNECTION}/pause", _OPERATOR, connections.confirm_pause),
    Route("POST", f"{_CONNECTION}/pause", _OPERATOR, connections.pause),
    Route("GET", f"{_CONNECTION}/resume", _OPERATOR, connections.confirm_resume),
    Route("POST", f"{_CONNECTION}/resume", _OPERATOR, connections.resume),
    Route("GET", f"{_CONNECTION}/routes", _OPERATOR, connections.show_routes),
    Route("POST", f"{_CONNECTION}/routes", _OPERATOR, connections.change_routes),
    Route("GET", f"{_TENANT}/writes", _AUDITOR, writes.list_writes),
    Route("GET", f"{_TENANT}/writes/redrive", _OPERATOR, writes.confirm_redrive_all),
    Route("POST", f"{_TENANT}/writes/redrive", _OPERATOR, writes.redrive_all),
    Route("GET", _WRITE, _AUDITOR, writes.show),
    # A look at the content is an audit row, so it is no GET.
    Route("POST", f"{_WRITE}/content", _OPERATOR, writes.show_content),
    Route("GET", f"{_WRITE}/{{step:str}}", _OPERATOR, writes.confirm_step),
    Route("POST", f"{_WRITE}/{{step:str}}", _OPERATOR, writes.take_step),
    Route("GET", "/admin/writes", _AUDITOR, writes.find),
    Route("GET", "/admin/incidents", _AUDITOR, incidents.list_incidents),
    Route("GET", "/admin/incidents/{tenant:str}/{incident:uuid}", _AUDITOR, incidents.show),
    Route("POST", "/admin/incidents/{tenant:str}/{incident:uuid}/{step:str}", _OPERATOR, incidents.take_step),
    Route("GET", "/admin/audit", _AUDITOR, audit.show),
    Route("GET", "/admin/operators", _ADMIN, operators.list_operators),
    Route("POST", "/admin/operators", _ADMIN, operators.add),
    Route("POST", f"{_OPERATOR_PAGE}/role", _ADMIN, operators.set_role),
    Route("GET", f"{_OPERATOR_PAGE}/disable", _ADMIN, operators.confirm_disable),
    Route("POST", f"{_OPERATOR_PAGE}/disable", _ADMIN, operators.disable),
    Route("POST", f"{_OPERATOR_PAGE}/enable", _ADMIN, operators.enable),
    Route("GET", f"{_OPERATOR_PAGE}/password", _ADMIN, operators.confirm_password),
    Route("POST", f"{_OPERATOR_PAGE}/password", _ADMIN, operators.set_password),
)
