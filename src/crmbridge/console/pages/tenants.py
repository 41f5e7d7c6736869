"""Tenants: the list, a new one, and one with its API keys and health-data gate."""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import UUID

from crmbridge.console.pages.rows import display_name, tenant_rows
from crmbridge.console.visit import Page, Visit
from crmbridge.core.errors import Conflict, FieldError, NotFound, ValidationError
from crmbridge.core.verticals import Vertical
from crmbridge.services.tenants.model import SCOPES, Gate, Tenant

__all__ = [
    "add",
    "add_key",
    "close_gate",
    "confirm_close_gate",
    "confirm_revoke_key",
    "list_tenants",
    "record_gate",
    "revoke_key",
    "show",
    "show_gate",
    "show_new",
]

_PER_PAGE = 50
_NEW = {
    "slug": "",
    "name": "",
    "vertical": "general",
    "region": "",
    "time_zone": "UTC",
    "unknown_slots": "refuse",
}


async def list_tenants(visit: Visit) -> Page:
    """In order of slug; ``find`` leads to the tenant, or to where it would stand in the list."""
    services, find = visit.services, visit.query.get("find", "").lower()
    if find:
        try:
            return visit.go(f"/admin/tenants/{(await visit.tenant_named(find)).slug}")
        except NotFound:
            pass
    after = find or visit.query.get("after", "")
    found = await services.tenants.list(after_slug=after[:100], limit=_PER_PAGE + 1)
    page = found[:_PER_PAGE]
    return visit.page(
        "tenants.html",
        rows=await tenant_rows(services, page, await services.incidents.list_open(limit=1000)),
        find=find,
        next_after=page[-1].slug if len(found) > _PER_PAGE else "",
    )


async def show_new(visit: Visit) -> Page:
    """The form of a new tenant."""
    return visit.page("tenant_new.html", values=_NEW, verticals=list(Vertical), error=None)


async def add(visit: Visit) -> Page:
    """A new tenant, and on to connecting its CRM."""
    values = {name: visit.form.get(name, default) for name, default in _NEW.items()}
    try:
        tenant = await visit.services.tenants.add(**values, actor=visit.actor)
    except (ValidationError, Conflict) as error:
        return visit.page(
            "tenant_new.html",
            status=error.http_status,
            values=values,
            verticals=list(Vertical),
            error=error,
        )
    return visit.go(f"/admin/tenants/{tenant.slug}/crm", f"Tenant {tenant.slug} is there. Connect its CRM.")


async def show(visit: Visit) -> Page:
    """What it is, its connections, queue and API keys."""
    return await _tenant_page(visit, await visit.tenant())


async def _tenant_page(visit: Visit, tenant: Tenant, *, status: int = 200, **rest: Any) -> Page:
    services = visit.services
    incidents = await services.incidents.list_open(tenant.id)
    (row,) = await tenant_rows(services, [tenant], incidents)
    values = {"error": None, "key_name": "", "key_scopes": [], **rest}
    return visit.page(
        "tenant.html",
        status=status,
        tenant=tenant,
        row=row,
        names={each.driver: display_name(each.driver) for each in row.connections},
        keys=await services.tenants.list_keys(tenant),
        scopes=SCOPES,
        **values,
    )


async def add_key(visit: Visit) -> Page:
    """A new API key; this page is the one place where its token is shown."""
    tenant = await visit.tenant()
    name, scopes = visit.form.get("name", ""), visit.form_lists.get("scopes", [])
    try:
        key, token = await visit.services.tenants.create_key(tenant, name, scopes, visit.actor)
    except ValidationError as error:
        return await _tenant_page(
            visit, tenant, status=error.http_status, error=error, key_name=name, key_scopes=scopes
        )
    return visit.page(
        "shown_once.html",
        title="New API key",
        what=f"The token of the key {key.name}",
        values={"Token": token},
        hints=[
            "Give it to the agent in the header Authorization, after the word Bearer. Only a hash is kept here."
        ],
        next_path=f"/admin/tenants/{tenant.slug}",
        next_text=f"Done, back to {tenant.name}",
    )


async def confirm_revoke_key(visit: Visit) -> Page:
    """Asks before a key is revoked."""
    tenant = await visit.tenant()
    key_id: UUID = visit.parameters["key"]
    keys = await visit.services.tenants.list_keys(tenant)
    key = next((each for each in keys if each.id == key_id), None)
    if key is None:
        raise NotFound("There is no such key.")
    return visit.page(
        "confirm.html",
        title=f"Revoke the API key {key.name}?",
        facts=[
            f"Calls with {key.prefix}… are refused from now on, within five seconds on other servers.",
            "A revoked key stays revoked. Make a new one if the agent goes on.",
        ],
        action=f"/admin/tenants/{tenant.slug}/keys/{key.id}/revoke",
        button="Revoke key",
        back=f"/admin/tenants/{tenant.slug}",
    )


async def revoke_key(visit: Visit) -> Page:
    """For good."""
    tenant = await visit.tenant()
    key = await visit.services.tenants.revoke_key(tenant, visit.parameters["key"], visit.actor)
    return visit.go(f"/admin/tenants/{tenant.slug}", f"The API key {key.name} is revoked.")


# ---------------------------------------------------------------------- the gate for health data


async def show_gate(visit: Visit) -> Page:
    """What is recorded."""
    tenant = await visit.tenant()
    gate = await visit.services.tenants.gate(tenant.id)
    return visit.page("gate.html", tenant=tenant, gate=gate, values=_papers(gate), error=None)


def _papers(gate: Gate) -> dict[str, str]:
    return {
        "baa_reference": gate.baa_reference,
        "baa_signatory": gate.baa_signatory,
        "baa_signed_on": str(gate.baa_signed_on or ""),
        "reviewer": gate.reviewer,
        "reviewed_on": str(gate.reviewed_on or ""),
    }


async def record_gate(visit: Visit) -> Page:
    """Record the papers; all five open the gate."""
    tenant = await visit.tenant()
    values = {name: visit.form.get(name, "").strip() for name in _papers(Gate())}
    try:
        gate = Gate(
            baa_reference=values["baa_reference"],
            baa_signatory=values["baa_signatory"],
            baa_signed_on=_day("baa_signed_on", values["baa_signed_on"]),
            reviewer=values["reviewer"],
            reviewed_on=_day("reviewed_on", values["reviewed_on"]),
        )
        saved = await visit.services.tenants.record_gate(tenant, gate, visit.actor)
    except ValidationError as error:
        known = await visit.services.tenants.gate(tenant.id)
        return visit.page(
            "gate.html", status=error.http_status, tenant=tenant, gate=known, values=values, error=error
        )
    told = "The gate is open." if saved.is_open else "Recorded. The gate stays shut until all five are there."
    return visit.go(f"/admin/tenants/{tenant.slug}/gate", told)


def _day(field: str, text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        message = "must be a day, as 2026-11-23"
        raise ValidationError(f"{field} {message}.", fields=(FieldError(field, message),)) from None


async def confirm_close_gate(visit: Visit) -> Page:
    """Asks before the gate is shut."""
    tenant = await visit.tenant()
    return visit.page(
        "confirm.html",
        title=f"Shut the health-data gate of {tenant.name}?",
        facts=[
            "Calls with health data stop at once here, within two seconds on other servers.",
            "Writes that wait stay in the queue. The papers stay on record; recording them again opens the gate.",
        ],
        action=f"/admin/tenants/{tenant.slug}/gate/close",
        button="Shut the gate",
        back=f"/admin/tenants/{tenant.slug}/gate",
    )


async def close_gate(visit: Visit) -> Page:
    """Shut it."""
    tenant = await visit.tenant()
    await visit.services.tenants.close_gate(tenant, visit.actor)
    return visit.go(f"/admin/tenants/{tenant.slug}/gate", "The gate is shut. The papers stay on record.")
