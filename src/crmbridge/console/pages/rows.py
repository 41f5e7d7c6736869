"""What lists show of a tenant: its connections, open incidents and writes that are not at their end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from crmbridge.console.visit import Visit
from crmbridge.core.errors import CrmError
from crmbridge.drivers import load
from crmbridge.services import Services
from crmbridge.services.connections.model import ConnectionSummary
from crmbridge.services.delivery.model import TargetState
from crmbridge.services.incidents.model import Incident
from crmbridge.services.tenants.model import Tenant

__all__ = ["WAITING", "TenantRow", "actor_names", "display_name", "tenant_rows", "with_tenants"]

_AT_ONCE = 4
# What is not at its end and needs nobody.
WAITING = (TargetState.ACCEPTED, TargetState.SENDING, TargetState.RETRYING, TargetState.UNKNOWN)


class TenantRow(NamedTuple):
    """One line of a list of tenants."""

    tenant: Tenant
    connections: list[ConnectionSummary]
    incidents: int
    waiting: int
    parked: int
    dead_letters: int


async def actor_names(visit: Visit, actors: Sequence[str]) -> dict[str, str]:
    """Names of those of them who are operators: the audit log itself holds ids only."""
    if not any(actor.startswith("operator:") for actor in actors):
        return {}
    return {each.actor: each.name for each in await visit.services.operators.list()}


def display_name(driver: str) -> str:
    """A driver's name for people; its slug where the driver is no longer there."""
    try:
        return load(driver).MANIFEST.display_name
    except CrmError:
        return driver


async def tenant_rows(
    services: Services, tenants: Sequence[Tenant], incidents: Sequence[Incident]
) -> list[TenantRow]:
    """Two short transactions per tenant, a few tenants at a time."""
    gate = asyncio.Semaphore(_AT_ONCE)
    open_incidents = Counter(incident.tenant_id for incident in incidents)

    async def row(tenant: Tenant) -> TenantRow:
        async with gate:
            connections = await services.connections.summaries(tenant.id)
            stuck = await services.delivery.reading.stuck(tenant.id)
        return TenantRow(
            tenant=tenant,
            connections=connections,
            incidents=open_incidents[tenant.id],
            waiting=sum(stuck.get(state, 0) for state in WAITING),
            parked=stuck.get(TargetState.PARKED, 0),
            dead_letters=stuck.get(TargetState.DEAD_LETTER, 0),
        )

    return list(await asyncio.gather(*(row(tenant) for tenant in tenants)))


async def with_tenants(services: Services, incidents: Sequence[Incident]) -> list[tuple[Incident, Tenant]]:
    """Each incident with its tenant."""
    ids: dict[UUID, Tenant] = {}
    for incident in incidents:
        if incident.tenant_id not in ids:
            ids[incident.tenant_id] = await services.tenants.get(incident.tenant_id)
    return [(incident, ids[incident.tenant_id]) for incident in incidents]
