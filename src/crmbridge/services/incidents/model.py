"""Incidents and their kinds."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec

__all__ = ["Incident", "IncidentKind", "IncidentState"]


class IncidentKind(StrEnum):
    """Why an operator is called."""

    CRM_SYNC_FAILURE = "crm_sync_failure"
    REAUTHORIZATION_NEEDED = "reauthorization_needed"
    MAPPING_DRIFT = "mapping_drift"
    MANUAL_ERASURE = "manual_erasure"
    WRITE_PARKED = "write_parked"


class IncidentState(StrEnum):
    """``open`` → ``acknowledged`` (someone is on it) → ``resolved``; ``open`` → ``resolved`` is allowed."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """One incident. ``times_seen`` counts how often its cause came again before it was resolved.

    ``title`` and ``details`` hold no secrets and no personal data.
    """

    id: UUID
    tenant_id: UUID
    kind: IncidentKind
    state: IncidentState
    connection_id: UUID | None
    dedupe_key: str
    title: str
    details: dict[str, Any]
    times_seen: int
    opened_at: datetime
    last_seen_at: datetime
    acknowledged_by: str | None
    resolved_at: datetime | None
    resolved_by: str | None

    @property
    def is_held(self) -> bool:
        """True while writes are parked for which it stands: nobody resolves it before them."""
        return (
            self.kind is IncidentKind.WRITE_PARKED
            and self.state is not IncidentState.RESOLVED
            and bool(self.details.get("parked"))
        )
