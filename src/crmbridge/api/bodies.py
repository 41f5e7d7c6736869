"""Request bodies. Unknown keys are refused, so that a typing error never gets lost."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from crmbridge.services.delivery.desk import MOST_REASON
from crmbridge.services.mapping.model import Rule

__all__ = [
    "AppBody",
    "BatchBody",
    "BatchItem",
    "CancelBody",
    "ConnectBody",
    "ConnectLinkBody",
    "ConsentBody",
    "DiscardBody",
    "GateBody",
    "ImportBody",
    "KeyBody",
    "LookupBody",
    "MappingBody",
    "PatchBody",
    "RecordBody",
    "RedriveBody",
    "RoutesBody",
    "SearchBody",
    "StepBody",
    "TenantBody",
]


DiscardReason = Annotated[str, msgspec.Meta(max_length=MOST_REASON)]


class _Body(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    pass


class TenantBody(_Body):
    """A new tenant. ``region`` is the ISO 3166 country for national phone numbers."""

    slug: str
    name: str
    vertical: str = "general"
    region: str = ""
    time_zone: str = "UTC"
    unknown_slots: str = "refuse"


class KeyBody(_Body):
    """A new API key: ``read``, ``write:lead``, ``write:*``, ``delete``, ``erase``, ``admin``."""

    name: str
    scopes: list[str]


class ConnectBody(_Body):
    """A filled connect form."""

    driver: str
    settings: dict[str, str] = {}
    connection: str = "primary"


class ConsentBody(_Body):
    """What is known before the person consents: the driver's settings, none for most, and the connection's name."""

    settings: dict[str, str] = {}
    connection: str = "primary"


class ConnectLinkBody(_Body):
    """What a connect link opens: one driver's page, for one connection, for so many hours (1 to 168).

    ``settings`` are plain ones that the guest cannot change (where the provider is, say).
    """

    driver: str
    settings: dict[str, str] = {}
    connection: str = "primary"
    hours: int = 24


class AppBody(_Body):
    """Our app at a provider, from the provider's page for developers."""

    client_id: str
    client_secret: str


class GateBody(_Body):
    """The papers of the health-data gate. One may come later than the other; the gate opens with all five."""

    baa_reference: str = ""
    baa_signatory: str = ""
    baa_signed_on: date | None = None
    reviewer: str = ""
    reviewed_on: date | None = None


class RecordBody(_Body):
    """One write: fields in slots, links to other records, match (makes it an upsert)."""

    fields: dict[str, Any]
    links: dict[str, dict[str, str]] = {}
    match: list[str] = []
    provider_extra: dict[str, Any] = {}
    mode: Literal["apply", "plan"] = "apply"
    idempotency_key: str = ""
    import_id: UUID | None = None


class PatchBody(_Body):
    """Changed fields of one record; fields left out stay."""

    fields: dict[str, Any]
    links: dict[str, dict[str, str]] = {}
    provider_extra: dict[str, Any] = {}
    mode: Literal["apply", "plan"] = "apply"
    idempotency_key: str = ""


class BatchItem(_Body):
    """One write of a batch."""

    fields: dict[str, Any]
    operation: Literal["create", "update", "upsert", "delete"] = "create"
    links: dict[str, dict[str, str]] = {}
    match: list[str] = []
    provider_extra: dict[str, Any] = {}
    remote_id: str = ""
    idempotency_key: str = ""


class BatchBody(_Body):
    """Up to 500 writes; each has its own answer, one bad write does not hurt the others."""

    writes: list[BatchItem]
    import_id: UUID | None = None


class SearchBody(_Body):
    """Slots that must equal, and free text."""

    equals: dict[str, Any] = {}
    text: str = ""
    cursor: str = ""
    limit: int = 50


class LookupBody(_Body):
    """A customer by phone or e-mail."""

    phone: str = ""
    email: str = ""


class MappingBody(_Body):
    """Overrides by slot path (``lead.budget_max``); null goes back to the driver's own rule."""

    changes: dict[str, Rule | None]


class ImportBody(_Body):
    """A bulk load that groups its writes."""

    object: str


class RoutesBody(_Body):
    """What a connection is for objects: ``{"lead": "also"}``; ``all`` names those not named, the others stay."""

    routes: dict[str, str]


class PauseBody(_Body):
    """Why a connection is paused or goes on: kept in the audit log, at most 200 characters, nothing personal."""

    reason: Annotated[str, msgspec.Meta(max_length=200)] = ""


class RedriveBody(_Body):
    """Which dead letters and parked writes to try again.

    ``limit`` takes so many, the oldest first, and the answer says how many are ``left``; ``until`` of that answer goes
    into the next call, so that what fails anew meanwhile is not taken twice.
    """

    state: Literal["dead_letter", "parked"] = "dead_letter"
    object: str = ""
    import_id: UUID | None = None
    connection: str = ""
    code: str = ""
    since: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=100_000)] | None = None
    until: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class ResendBody(RedriveBody):
    """``without_looking`` sends parked ones without the look-up first: what did reach the CRM is then there twice."""

    without_looking: bool = False


class DiscardBody(RedriveBody):
    """Which of them to give up for good, and why: kept in the audit log, nothing personal."""

    reason: DiscardReason = ""


class StepBody(_Body):
    """Why a write is given up for good: kept in the audit log, nothing personal. Only a discard has one."""

    reason: DiscardReason = ""


class CancelBody(_Body):
    """Which writes that still wait to take back; without a state those accepted and those that are retried."""

    state: Literal["", "accepted", "retrying"] = ""
    object: str = ""
    import_id: UUID | None = None
    connection: str = ""
    code: str = ""
    since: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=100_000)] | None = None
    until: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
