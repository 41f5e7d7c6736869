"""Tenants, API keys, and who a call is made by."""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

import msgspec

from crmbridge.core.errors import AuthError, Fix
from crmbridge.core.records import Object
from crmbridge.core.verticals import Vertical

__all__ = ["SCOPES", "ApiKey", "Gate", "KeyRefused", "Principal", "Tenant"]

SCOPES = ("read", "write:*", *(f"write:{obj.value}" for obj in Object), "delete", "erase", "admin")


class KeyRefused(AuthError):
    """The API key of a call to crmbridge itself is unknown, malformed or revoked; which of them is not told."""

    http_status = 401
    default_fix = Fix(
        "use_valid_key", "Send `Authorization: Bearer crmb_live_...` with a key that is not revoked."
    )


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A customer. ``region`` is an ISO 3166 country for phone numbers without one, or empty.

    ``unknown_slots`` says what becomes of fields without a slot: ``refuse``, or ``note`` (kept in a note).
    """

    id: UUID
    slug: str
    name: str
    vertical: Vertical
    region: str
    time_zone: str
    unknown_slots: str
    created_at: datetime
    closed_at: datetime | None


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it may be shown: ``prefix`` is its beginning, the rest is not kept. Operators' have no tenant."""

    id: UUID
    tenant_id: UUID | None
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_by: str
    created_at: datetime
    revoked_at: datetime | None


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who makes a call. ``tenant_id`` None is an operator's key, which reaches every tenant."""

    key_id: UUID | None
    tenant_id: UUID | None
    scopes: frozenset[str]
    actor: str

    def may(self, scope: str) -> bool:
        """True when the key has ``scope``, has ``write:*`` for a write, or is ``admin``."""
        if "admin" in self.scopes or scope in self.scopes:
            return True
        return scope.startswith("write:") and "write:*" in self.scopes

    def reaches(self, tenant_id: UUID) -> bool:
        """False answers become 404, the same as for a tenant that is not there."""
        return self.tenant_id is None or self.tenant_id == tenant_id


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """The papers without which no call with health data leaves: a signed BAA, and a compliance review by a person.

    ``missing`` names what keeps the gate shut; ``is_closed`` is an operator's own decision to shut it.
    """

    baa_reference: str = ""
    baa_signatory: str = ""
    baa_signed_on: date | None = None
    reviewer: str = ""
    reviewed_on: date | None = None
    is_closed: bool = False
    recorded_by: str = ""
    recorded_at: datetime | None = None

    @property
    def missing(self) -> list[str]:
        """The names of the empty fields, in their order."""
        names = ("baa_reference", "baa_signatory", "baa_signed_on", "reviewer", "reviewed_on")
        return [name for name in names if not getattr(self, name)]

    @property
    def is_open(self) -> bool:
        """Whether calls may leave."""
        return not self.is_closed and not self.missing
