"""HubSpot's own objects: paths, associations, what they require, and what stands between a field map and the wire.

Pages: https://developers.hubspot.com/docs/guides/api/crm/understanding-the-crm (object type ids, ids of association
types) and the object pages; read 2026-11-22. Ids of calls' and of activities' further associations are from published
client code, not from the pages that were read: UNCONFIRMED.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import msgspec

from crmbridge.core.errors import FieldError, ValidationError
from crmbridge.core.records import Object
from crmbridge.toolkit.batches import TEXT
from crmbridge.toolkit.formats import plain_decimal
from crmbridge.toolkit.names import split_name

__all__ = [
    "LINKED",
    "MARK",
    "NATIVES",
    "VERSION",
    "Native",
    "association",
    "complete",
    "readable",
    "wire_properties",
]

VERSION = "2026-09"
"""The dated API that every path names; HubSpot supports it until about March 2028."""

MARK = "crmbridge_mark"
"""Our property with unique values, made by ``prepare``: HubSpot has no idempotency key."""


class Native(msgspec.Struct, frozen=True, kw_only=True):
    """One object of HubSpot. ``links`` maps a native object to the association type id from here to there.

    ``fixed`` are fields that the object itself says (a call is a call): read always, never sent. ``renamed`` maps a
    path of the default field map to the property's name here.
    """

    name: str
    type_id: str
    modified: str = "hs_lastmodifieddate"
    required: tuple[str, ...] = ()
    links: dict[str, int] = {}
    pipeline: tuple[str, str] = ("", "")
    stock_stage: tuple[str, str] = ("", "")
    stamp: str = ""
    fixed: dict[str, str] = {}
    renamed: dict[str, str] = {}

    @property
    def path(self) -> str:
        """The path of its records."""
        return f"/crm/objects/{VERSION}/{self.name}"


CONTACTS = Native(name="contacts", type_id="0-1", modified="lastmodifieddate")
DEALS = Native(
    name="deals",
    type_id="0-3",
    required=("dealname",),
    links={"contacts": 3, "tickets": 27},
    pipeline=("pipeline", "dealstage"),
    stock_stage=("default", "appointmentscheduled"),
)
LEADS = Native(name="leads", type_id="0-136", required=("hs_lead_name",), links={"contacts": 578})
TICKETS = Native(
    name="tickets",
    type_id="0-5",
    required=("subject",),
    links={"contacts": 16, "deals": 28},
    pipeline=("hs_pipeline", "hs_pipeline_stage"),
    stock_stage=("0", "1"),
)
MEETINGS = Native(
    name="meetings",
    type_id="0-47",
    links={"contacts": 200, "deals": 212, "tickets": 226},
    stamp="hs_meeting_start_time",
)
APPOINTMENTS = Native(
    name="appointments",
    type_id="0-421",
    required=("hs_appointment_name",),
    links={"contacts": 906, "deals": 944, "tickets": 946},
    renamed={
        "hs_meeting_title": "hs_appointment_name",
        "hs_meeting_start_time": "hs_appointment_start",
        "hs_meeting_end_time": "hs_appointment_end",
    },
)
NOTES = Native(
    name="notes", type_id="0-46", links={"contacts": 202, "deals": 214, "tickets": 228}, stamp="hs_timestamp"
)
CALLS = Native(
    name="calls",
    type_id="0-48",
    links={"contacts": 194, "deals": 206, "tickets": 220},
    stamp="hs_timestamp",
    fixed={"kind": "call"},
)
NATIVES = {
    native.name: native for native in (CONTACTS, DEALS, LEADS, TICKETS, MEETINGS, APPOINTMENTS, NOTES, CALLS)
}

LINKED: dict[Object, str] = {
    Object.CUSTOMER: "contacts",
    Object.LEAD: "contacts",
    Object.DEAL: "deals",
    Object.CASE: "tickets",
}
"""Where a canonical link leads: a lead is its contact."""

_TYPES: dict[int, list[dict[str, Any]]] = {
    type_id: [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": type_id}]
    for native in NATIVES.values()
    for type_id in native.links.values()
}


def association(native: Native, to: str, remote_id: str) -> dict[str, Any]:
    """An inline association of a create."""
    return {"to": {"id": remote_id}, "types": _TYPES[native.links[to]]}


def wire_properties(native: Native, fields: Mapping[str, Any]) -> dict[str, str]:
    """The properties of a write: texts only, empty to clear. Raises ValidationError naming what cannot be said."""
    if TEXT.issuperset(map(type, fields.values())) and _is_said_so(native.name, tuple(fields)):
        return dict(fields)
    properties = {name: value if type(value) is str else _text(name, value) for name, value in fields.items()}
    for name, value in native.fixed.items():
        if (said := properties.pop(name, value)) != value:
            raise _refused(name, f"is always {value} here, and this write says {said[:20]!r}")
    for name, own in native.renamed.items():
        if name in properties:
            properties[own] = properties.pop(name)
    if "full_name" in properties:
        _split_name(properties)
    if len(properties.get("closedate", "")) == 10:  # a datetime here: HubSpot keeps days as midnight UTC
        properties["closedate"] += "T00:00:00.000Z"
    if native.stamp and (start := properties.get(native.stamp)):
        properties["hs_timestamp"] = start
    return properties


@lru_cache(maxsize=1024)
def _is_said_so(name: str, paths: tuple[str, ...]) -> bool:
    """Whether texts under these paths are properties as they stand."""
    native = NATIVES[name]
    return not {*native.fixed, *native.renamed, native.stamp, "full_name", "closedate"}.intersection(paths)


def complete(native: Native, properties: dict[str, str], facts: Mapping[str, str]) -> None:
    """Fills in what a create needs and the write left out: the stage a pipeline begins with, an activity's time."""
    if native.pipeline[0]:
        pipeline, stage = native.pipeline
        if not properties.get(stage):
            known = facts.get(f"stage.{native.name}", "").partition("/")
            first = (known[0], known[2]) if known[2] else native.stock_stage
            if properties.setdefault(pipeline, first[0]) == first[0]:
                properties[stage] = first[1]
    elif native.stamp and not properties.get("hs_timestamp"):
        properties["hs_timestamp"] = datetime.now(UTC).isoformat(timespec="milliseconds")[:23] + "Z"


def readable(native: Native, properties: Mapping[str, Any]) -> dict[str, Any]:
    """A record's properties as the field map has them; what is empty is left out."""
    found = {name: value for name, value in properties.items() if value not in (None, "")}
    for name, own in native.renamed.items():
        if own in found:
            found[name] = found.pop(own)
    return {**found, **native.fixed}


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return plain_decimal(Decimal(repr(value)))
    if isinstance(value, (list, tuple)):
        texts = [_text(name, item) for item in value]
        if any(";" in text for text in texts):
            raise _refused(name, "has an entry with ';' in it, which HubSpot puts between entries")
        return ";".join(texts)
    raise _refused(name, "is an object; a property of HubSpot is one value, so map it without dots")


def _split_name(properties: dict[str, str]) -> None:
    """HubSpot keeps two names; one text is split at its last blank, unless a part was given by itself."""
    first, last = split_name(properties.pop("full_name"))
    if "firstname" in properties or "lastname" in properties:
        return
    properties["firstname"], properties["lastname"] = (first, last) if first else (last, "")


def _refused(name: str, problem: str) -> ValidationError:
    return ValidationError(
        "A field cannot be written to HubSpot.", provider="hubspot", fields=(FieldError(name, problem),)
    )
