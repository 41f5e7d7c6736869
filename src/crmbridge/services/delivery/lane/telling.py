"""Telling: what the incidents of delivery say. Words of ours, ids and numbers; no content."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from crmbridge.core.errors import CrmError
from crmbridge.core.manifest import LookUp, Manifest
from crmbridge.core.records import WriteResult
from crmbridge.db.statements import read_sql
from crmbridge.services.connections.routing import Pause
from crmbridge.services.delivery.lane.batch import Batch
from crmbridge.services.delivery.lane.store import Lease
from crmbridge.services.delivery.model import TargetState
from crmbridge.services.incidents.model import IncidentKind
from crmbridge.services.incidents.service import Incidents

__all__ = ["looked_seconds", "parked", "tell_parked", "unparked", "waiting", "waiting_paused"]


_sql = partial(read_sql, __package__)


_LOOKED, _PAUSE, _PARKED = _sql("looked.sql"), _sql("pause.sql"), _sql("parked.sql")
_FIX = (
    "Redrive: each is looked up first, and sent only if it is surely not there. What the look-up cannot tell is parked "
    "again. Then look in the CRM yourself: redrive it without looking (--without-looking) if its effect is missing, "
    "discard it if it is there."
)

Told = tuple[str, dict[str, Any]]


async def looked_seconds(conn: Any, target_id: UUID) -> float:
    """For how long the look-ups of a target have failed; 0 while there were fewer than three."""
    return await conn.fetchval(_LOOKED, target_id) or 0.0


def parked(manifest: Manifest, batch: Batch, result: WriteResult, failed_seconds: float) -> dict[str, Any]:
    """Which target is parked now, and why its outcome cannot be told."""
    row, name = batch.rows[0], manifest.display_name
    what = f"a {batch.operation.value} of a {batch.object.value}"
    spec = manifest.objects.get(batch.object)
    doubt = spec.doubts.get(batch.operation, "") if spec else ""
    if failed_seconds:
        code = result.error.full_code if isinstance(result.error, CrmError) else "unexpected_response"
        why = f"The look-ups have failed for {failed_seconds / 3600:.0f} hours, the last one with {code}."
    elif manifest.look_up(batch.object, batch.operation) is LookUp.NONE:
        why = f"{name} shows nothing by which {what} can be looked up{': ' + doubt if doubt else ''}."
    else:
        why = f"The look-up cannot tell{', which is so when ' + doubt if doubt else ''}."
    return {
        "provider": name,
        "write_id": str(row.write_id),
        "target_id": str(row.id),
        "object": batch.object.value,
        "operation": batch.operation.value,
        "why": why,
    }


async def tell_parked(conn: Any, incidents: Incidents, lease: Lease, last: dict[str, Any]) -> None:
    """Open the incident of a lane's parked targets, or count one more, in the transaction that parked ``last``.

    It tells of all that are parked on the connection, so that the last one does not hide those before it.
    """
    await incidents.lock(conn, lease.tenant_id, *_key(lease.connection_id))
    title, details = await _standing(conn, lease.tenant_id, lease.connection_id, last)
    await incidents.open(
        conn, lease.tenant_id, *_key(lease.connection_id), title, details, lease.connection_id
    )


async def unparked(
    conn: Any, incidents: Incidents, tenant_id: UUID, connection_ids: Iterable[UUID], actor: str
) -> None:
    """A person moved parked targets: tell of those that are left, or resolve the incident when none is."""
    for connection_id in sorted(connection_ids):
        key = _key(connection_id)
        # From here on nobody parks another one unseen: who does so waits for this row.
        incident = await incidents.lock(conn, tenant_id, *key)
        if incident is None:
            continue
        title, details = await _standing(conn, tenant_id, connection_id, incident.details)
        await incidents.amend(conn, tenant_id, *key, title, details)
        if not details["parked"]:
            await incidents.resolve_by_key(conn, tenant_id, *key, actor)


def _key(connection_id: UUID) -> tuple[IncidentKind, str]:
    return IncidentKind.WRITE_PARKED, str(connection_id)


async def _standing(conn: Any, tenant_id: UUID, connection_id: UUID, last: dict[str, Any]) -> Told:
    rows = await conn.fetch(_PARKED, connection_id, tenant_id)
    tenant, connection, count = (rows[0][name] for name in ("tenant", "connection", "count"))
    provider = last.get("provider", "The CRM")
    state = TargetState.PARKED.value
    details = {
        "connection": connection,
        "parked": count,
        "list": f"crmbridge writes list {tenant} --state {state} --connection {connection}",
        "page": f"/admin/tenants/{tenant}/writes?{urlencode({'state': state, 'connection': connection})}",
        **{name: value for name, value in last.items() if name not in ("oldest", "newest", "parked")},
        "fix": _FIX,
    }
    if not count:
        return f"{provider}: no write is parked any more", details
    oldest, newest = (
        {
            "write_id": str(row["write_id"]),
            "what": f"{row['operation']} of a {row['object']}",
            "accepted_at": row["accepted_at"].isoformat(timespec="seconds"),
            "parked_at": row["finished_at"].isoformat(timespec="seconds"),
        }
        for row in (rows[0], rows[-1])
    )
    what = f"a {oldest['what']}" if count == 1 else f"{count} writes"
    return (
        f"{provider}: whether {what} took effect cannot be told",
        {**details, "oldest": oldest, "newest": newest},
    )


def waiting(since: datetime) -> Told:
    """Title and details for a lane that does not get rid of its writes."""
    return (
        "Writes have waited for more than a day",
        {
            "waiting_since": since.isoformat(),
            "is_paused": False,
            "fix": "See the connection's credential and its last errors.",
        },
    )


async def waiting_paused(conn: Any, connection_id: UUID, since: datetime, pause: Pause | None) -> Told:
    """The same for a connection that people have paused: nothing is wrong with the CRM."""
    found = await conn.fetchrow(_PAUSE, connection_id)
    tenant, name, paused_at = found["tenant"], found["name"], found["paused_at"]
    resume = f"crmbridge connections resume {tenant} {name}"
    details: dict[str, Any] = {
        "waiting_since": since.isoformat(),
        "is_paused": True,
        "connection": name,
        "fix": f"If the pause is over: `{resume}`, or POST /api/tenants/{tenant}/connections/{name}/resume.",
    }
    if paused_at is not None:
        details["paused_at"] = paused_at.isoformat()
    if pause is not None:
        details["paused_by"] = pause.actor
        if pause.reason:
            details["pause_reason"] = pause.reason
    by = f" by {pause.actor}" if pause is not None else ""
    at = f" since {paused_at:%Y-%m-%d %H:%M} UTC" if paused_at is not None else ""
    return f"Writes have waited for more than a day: the connection {name!r} is paused{at}{by}", details
