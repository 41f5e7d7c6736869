"""The first page: what needs a person, and how the tenants are."""

from __future__ import annotations

from crmbridge.console.pages.rows import tenant_rows, with_tenants
from crmbridge.console.visit import Page, Visit

__all__ = ["show"]

_TENANTS = 25
_INCIDENTS = 8
_COUNTED = 1000


async def show(visit: Visit) -> Page:
    """Open incidents, and the first tenants with their connections and queues."""
    services = visit.services
    tenants = await services.tenants.list(limit=_COUNTED)
    incidents = await services.incidents.list_open(limit=_COUNTED)
    # Those with an open incident first.
    troubled = {incident.tenant_id for incident in incidents}
    first = sorted(tenants, key=lambda tenant: tenant.id not in troubled)[:_TENANTS]
    return visit.page(
        "overview.html",
        tenant_count=len(tenants),
        incident_count=len(incidents),
        most=_COUNTED,
        incidents=await with_tenants(services, incidents[:_INCIDENTS]),
        rows=await tenant_rows(services, first, incidents),
    )
