"""Overdue: the incident of a connection that is a day behind, and its end."""

from __future__ import annotations

from crmbridge.db.pool import Database
from crmbridge.services.connections.service import Connections
from crmbridge.services.delivery.lane import store, telling
from crmbridge.services.incidents.service import Incidents

__all__ = ["note_overdue"]

_KIND = "crm_sync_failure"


async def note_overdue(
    db: Database, incidents: Incidents, connections: Connections, overdue_seconds: float
) -> int:
    """One incident per lane whose oldest write waits for so long, and an end to those of lanes that caught up.

    Answers how many lanes are behind.
    """
    async with db.system() as conn:
        overdue = await store.overdue_lanes(conn, overdue_seconds)
    for connection_id, tenant_id, since, is_paused in overdue:
        title, details = telling.waiting(since)
        pause = await connections.routing.pause_of(tenant_id, connection_id) if is_paused else None
        async with db.tenant(tenant_id) as conn:
            if is_paused:
                title, details = await telling.waiting_paused(conn, connection_id, since, pause)
            await incidents.open(conn, tenant_id, _KIND, str(connection_id), title, details, connection_id)
    behind = {connection_id for connection_id, *_ in overdue}
    for incident in await incidents.list_open(kind=_KIND, limit=1000):
        if incident.connection_id not in behind:
            async with db.tenant(incident.tenant_id) as conn:
                await incidents.resolve_by_key(conn, incident.tenant_id, _KIND, incident.dedupe_key)
    return len(overdue)
