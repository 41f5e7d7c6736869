"""Entries of the audit log."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from crmbridge.core.ids import new_id

__all__ = ["AuditEntry", "AuditRow"]

_ACTION = re.compile(r"[a-z][a-z_]*\.[a-z][a-z_]*")


class AuditEntry(msgspec.Struct, frozen=True):
    """What happened. ``tenant_id`` is None for the system's own rows (sign-in, operators' keys).

    ``action`` is ``noun.verb`` (``credential.activated``, ``crm.call``). ``subject_id`` names what it was done to:
    an id of ours. ``details`` is a small JSON tree without secrets and without personal data; persons appear as
    keyed hashes only. ``id`` is known before the row is written, so that an error can carry it as ``audit_id``.
    """

    tenant_id: UUID | None
    actor: str
    action: str
    connection_id: UUID | None = None
    subject_id: str = ""
    request_id: str = ""
    details: dict[str, Any] = msgspec.field(default_factory=dict)
    id: UUID = msgspec.field(default_factory=new_id)

    def __post_init__(self) -> None:
        if _ACTION.fullmatch(self.action) is None:
            raise ValueError(f"an audit action is noun.verb in lower case, got {self.action[:60]!r}")


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row as it was written. ``at`` is the database's clock, UTC."""

    id: UUID
    tenant_id: UUID | None
    at: datetime
    actor: str
    action: str
    connection_id: UUID | None
    subject_id: str
    request_id: str
    details: dict[str, Any]
