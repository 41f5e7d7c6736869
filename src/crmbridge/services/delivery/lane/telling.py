"""Telling: what the incidents of delivery say. Words of ours, ids and numbers; no content."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from crmbridge.core.errors import CrmError
from crmbridge.core.manifest import LookUp, Manifest
from crmbridge.core.records import WriteResult
from crmbridge.db.statements import read_sql
from crmbridge.services.connections.routing import Pause
from crmbridge.services.delivery.lane.batch import Batch

__all__ = ["looked_seconds", "parked", "waiting", "waiting_paused"]


_sql = partial(read_sql, __package__)


_LOOKED, _PAUSE = _sql("looked.sql"), _sql("pause.sql")

Told = tuple[str, dict[str, Any]]


async def looked_seconds(conn: Any, target_id: UUID) -> float:
    """For how long the look-ups of a target have failed; 0 while there were fewer than three."""
    return await conn.fetchval(_LOOKED, target_id) or 0.0


def parked(manifest: Manifest, batch: Batch, result: WriteResult, failed_seconds: float) -> Told:
    """Title and details for a target that was parked, and why its outcome cannot be told."""
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
    return (
        f"{name}: whether {what} took effect cannot be told",
        {
            "write_id": str(row.write_id),
            "target_id": str(row.id),
            "object": batch.object.value,
            "operation": batch.operation.value,
            "why": why,
            "fix": "Look in the CRM: redrive the write if the effect is missing, discard it if it is there.",
        },
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
