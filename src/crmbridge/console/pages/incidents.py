"""Incidents: what an operator must see, and the two steps he takes."""

from __future__ import annotations

from crmbridge.console.pages.rows import with_tenants
from crmbridge.console.visit import Page, Visit
from crmbridge.core.errors import CrmError, NotFound
from crmbridge.services.incidents.model import IncidentKind

__all__ = ["list_incidents", "show", "take_step"]

_MOST = 200


async def list_incidents(visit: Visit) -> Page:
    """Not resolved, newest first; of one tenant or of all."""
    slug, kind = visit.query.get("tenant", ""), visit.query.get("kind", "")
    tenant = await visit.tenant_named(slug) if slug else None
    found = await visit.services.incidents.list_open(
        tenant.id if tenant else None, kind=kind or None, limit=_MOST
    )
    return visit.page(
        "incidents.html",
        incidents=await with_tenants(visit.services, found),
        tenant=tenant,
        kind=kind,
        kinds=list(IncidentKind),
        is_cut=len(found) == _MOST,
        most=_MOST,
    )


async def show(visit: Visit) -> Page:
    """One incident with all that is known of it."""
    tenant = await visit.tenant()
    incident = await visit.services.incidents.get(tenant.id, visit.parameters["incident"])
    return visit.page("incident.html", tenant=tenant, incident=incident)


async def take_step(visit: Visit) -> Page:
    """Acknowledge or resolve."""
    tenant, step = await visit.tenant(), str(visit.parameters["step"])
    incidents = visit.services.incidents
    steps = {"acknowledge": incidents.acknowledge, "resolve": incidents.resolve}
    if step not in steps:
        raise NotFound("There is no such step.")
    path = f"/admin/incidents/{tenant.slug}/{visit.parameters['incident']}"
    try:
        moved = await steps[step](tenant.id, visit.parameters["incident"], visit.actor)
    except CrmError as error:
        return visit.back(path, error)
    return visit.go(path, f"The incident is {moved.state.value}.")
