"""Types of the connections room."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec

from crmbridge.core.operations import Operation
from crmbridge.core.records import Object, WriteResult
from crmbridge.services.audit.model import AuditEntry
from crmbridge.services.connections.budgets.window import Remaining

__all__ = [
    "ConnectionRow",
    "ConnectionSummary",
    "Credential",
    "CredentialStatus",
    "Held",
    "Intent",
    "Sent",
    "TestReport",
]


class CredentialStatus(StrEnum):
    """States of a credential; at most one per connection is ``active`` or ``needs_reauthorization``."""

    PENDING = "pending"
    ACTIVE = "active"
    SUPERSEDED = "superseded"
    REVOKED = "revoked"
    NEEDS_REAUTHORIZATION = "needs_reauthorization"

    @property
    def is_in_use(self) -> bool:
        """True for the one row that calls use."""
        return self in (CredentialStatus.ACTIVE, CredentialStatus.NEEDS_REAUTHORIZATION)


class Intent(msgspec.Struct, kw_only=True):
    """What a caller wants written, in slots. Delivery seals exactly this.

    ``links`` names related records: ``{"customer": {"write_id" | "remote_id" | "email" | "phone": "…"}}``.
    ``match`` lists slots; it makes the write an upsert. ``provider_extra`` is merged last.
    """

    object: Object
    operation: Operation
    fields: dict[str, Any] = {}
    links: dict[str, dict[str, str]] = {}
    match: list[str] = []
    provider_extra: dict[str, Any] = {}
    remote_id: str = ""


class Sent(msgspec.Struct, kw_only=True):
    """What one provider call brought: a result per write, and the audit entry still to be written."""

    results: list[WriteResult]
    entry: AuditEntry


class Credential(msgspec.Struct, kw_only=True):
    """A row of ``tenant_credentials`` without its sealed part: safe to show.

    ``expires_at`` and ``rotated_at`` are those of its access token, where it has one.
    ``generated`` holds values that crmbridge made (a webhook secret): filled once, in the answer to the
    connect call, and never again.
    """

    id: UUID
    connection_id: UUID
    connection: str
    driver: str
    status: CredentialStatus
    settings: dict[str, str]
    facts: dict[str, str]
    account: str = ""
    scopes: list[str] = []
    missing_rights: list[str] = []
    previous_id: UUID | None = None
    row_version: int = 1
    created_by: str = ""
    created_at: datetime | None = None
    tested_at: datetime | None = None
    test_error: dict[str, Any] | None = None
    activated_at: datetime | None = None
    rotated_at: datetime | None = None
    expires_at: datetime | None = None
    generated: dict[str, str] = {}


class Held(msgspec.Struct, kw_only=True):
    """A credential with its sealed part, as read. ``expires`` is monotonic time of this process, None = unknown."""

    credential: Credential
    sealed: bytes
    expires: float | None = None


class ConnectionRow(msgspec.Struct, kw_only=True):
    """A row of ``connections`` with the credential in use, if there is one."""

    id: UUID
    name: str
    driver: str
    routes: dict[str, str]
    is_paused: bool
    held: Held | None = None


class ConnectionSummary(msgspec.Struct, kw_only=True):
    """What lists show of a connection.

    ``routes``: what it is for which object, defaults included. ``budgets``: what is left of the provider's rate
    limits, over all processes.
    """

    id: UUID
    name: str
    driver: str
    status: str
    account: str
    routes: dict[str, str]
    is_paused: bool
    budgets: list[Remaining] = []


class TestReport(msgspec.Struct, kw_only=True):
    """The answer of a live test. ``error`` has the fields of design section 5 when ``ok`` is false."""

    ok: bool
    credential: Credential
    duration_ms: float
    warnings: list[str] = []
    error: dict[str, Any] | None = None
