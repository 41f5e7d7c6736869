"""Mindbody's wire: times local to the site, contact logs with comments, and the one native record between them.

Native paths of the driver are Mindbody's own names with UTC moments, ISO dates and texts for ids as values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import msgspec

from crmbridge.core.errors import FieldError, ValidationError
from crmbridge.core.records import Object
from crmbridge.toolkit.formats import moment_text, utc_text

__all__ = [
    "PHONES",
    "appointment",
    "client",
    "client_body",
    "comments",
    "local",
    "log",
    "named",
    "site_facts",
    "to_utc",
]

_MOST_NAMES = 300
PHONES = ("MobilePhone", "HomePhone", "WorkPhone")
# What a CRM has no business with: cards, pictures, alerts, waivers, memberships. Dropped here, unread.
_KEPT = frozenset(
    """Id UniqueId FirstName MiddleName LastName Email MobilePhone HomePhone WorkPhone WorkExtension AddressLine1
    AddressLine2 City State PostalCode Country BirthDate Gender IsProspect ProspectStage Active Status Notes ReferredBy
    CustomClientFields CreationDate LastModifiedDateTime LeadChannelId SendPromotionalEmails""".split()  # noqa: SIM905
)
_DRIVERS_OWN = ("FullName", "custom")
_READ_ONLY = ("Id", "UniqueId", "Status", "CreationDate", "LastModifiedDateTime")
_LINE = re.compile(r"([A-Z][a-z]{1,30}): ?(.*)", re.DOTALL)
LABELS = (
    "Subject",
    "Priority",
    "Category",
    "Direction",
    "Started",
    "Ended",
    "Seconds",
    "Result",
    "Recording",
    "Ref",
)


# -- times -------------------------------------------------------------------------------------------------


def local(moment: Any, zone: ZoneInfo, place: str) -> str:
    """A UTC moment as the site's clocks show it. Raises ValidationError naming ``place`` where they show it twice.

    In autumn an hour comes twice and a text without offset means the first. Booking the second would be an hour off.
    """
    try:
        at = datetime.fromisoformat(str(moment)).astimezone(zone)
    except (ValueError, OverflowError):
        raise _refused(place, "is not a date and time") from None
    if at.fold:
        raise _refused(
            place,
            "falls in the hour that the site's clocks show twice, and Mindbody would take it for the first; "
            "choose another time",
        )
    return at.replace(tzinfo=None, microsecond=0).isoformat()


def to_utc(text: Any, zone: ZoneInfo) -> str:
    """A site-local text as RFC 3339 in UTC; one with an offset keeps its own; empty for any other."""
    try:
        at = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return ""
    try:
        return utc_text(at if at.tzinfo else at.replace(tzinfo=zone))
    except ValueError:
        return ""


def days_around(moment: Any, zone: ZoneInfo, place: str) -> dict[str, str]:
    """The window of a day before and after, by the site's days."""
    try:
        at = datetime.fromisoformat(str(moment)).astimezone(zone)
        ends = [(at + side * timedelta(days=1)).date().isoformat() for side in (-1, 1)]
    except (ValueError, OverflowError):
        raise _refused(place, "is not a date and time") from None
    return {"startDate": ends[0], "endDate": ends[1]}


def day_before(moment: str) -> str:
    """A day earlier, as a naive UTC text: that lastModifiedDate is UTC is UNCONFIRMED."""
    at = datetime.fromisoformat(moment_text(moment)).astimezone(UTC) - timedelta(days=1)
    return at.replace(tzinfo=None).isoformat()


# -- clients -----------------------------------------------------------------------------------------------


def client(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A client as the driver's paths name it."""
    record = {name: raw[name] for name in _KEPT if name in raw}
    names = (raw.get("FirstName"), raw.get("LastName"))
    record["FullName"] = " ".join(str(name) for name in names if name)
    if isinstance(day := raw.get("BirthDate"), str):
        record["BirthDate"] = day[:10]
    custom = record.pop("CustomClientFields", None)
    record["custom"] = {
        str(one["Id"]): one.get("Value")
        for one in (custom if isinstance(custom, list) else ())
        if isinstance(one, dict) and "Id" in one
    }
    return record


def client_body(obj: Object, fields: Mapping[str, Any], *, is_new: bool) -> dict[str, Any]:
    """The fields of a client as Mindbody takes them. Raises ValidationError naming those that it never takes."""
    if fixed := sorted(set(fields) & set(_READ_ONLY)):
        raise _refused(f"{obj.value}.{fixed[0]}", "is Mindbody's own and cannot be written")
    made = {name: value for name, value in fields.items() if name not in _DRIVERS_OWN}
    if "FullName" in fields and "FirstName" not in fields:
        first, _, last = str(fields["FullName"] or "").strip().partition(" ")
        made |= {"FirstName": first, "LastName": last}
    if isinstance(custom := fields.get("custom"), Mapping):
        made["CustomClientFields"] = [
            {"Id": int(name), "Value": value} for name, value in custom.items() if str(name).isdigit()
        ]
    for name, value in made.items():
        if value is None and name != "BirthDate":
            made[name] = ""
    if is_new:
        made = {name: value for name, value in made.items() if value != ""}
    return made


# -- contact logs ------------------------------------------------------------------------------------------


def log(raw: Mapping[str, Any], unique_id: str, zone: ZoneInfo | None) -> dict[str, Any]:
    """A contact log, with its labelled comments as ``about``."""
    record = {name: value for name, value in raw.items() if name not in ("Client", "CreatedBy", "AssignedTo")}
    record["id"] = f"{unique_id}.{raw.get('Id')}"
    assigned = raw.get("AssignedTo")
    record["AssignedToStaffId"] = assigned.get("Id") if isinstance(assigned, dict) else None
    record["about"] = {label: text for label, (_, text) in _labelled(raw).items()}
    for name in ("CreatedDateTime", "FollowupByDate"):
        if zone is not None and raw.get(name):
            record[name] = to_utc(raw[name], zone) or raw[name]
    return record


def comments(about: Mapping[str, Any], current: Mapping[str, Any] | None = None) -> list[Any]:
    """The comments that say these labelled values: texts for a new contact log, changes for one that stands."""
    lines = {label: f"{label}: {about[label] if about[label] is not None else ''}" for label in about}
    if unknown := sorted(set(about) - set(LABELS)):
        raise _refused(f"about.{unknown[0]}", "is no label of a contact log")
    if current is None:
        return [line for label, line in lines.items() if about[label] not in (None, "")]
    known = _labelled(current)
    return [
        {"Id": known.get(label, (0, ""))[0], "Text": line}
        for label, line in lines.items()
        if label in known or about[label] not in (None, "")
    ]


def _labelled(raw: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    found = {}
    listed = raw.get("Comments")
    for one in listed if isinstance(listed, list) else ():
        text = one.get("Text") if isinstance(one, dict) else None
        line = _LINE.fullmatch(text) if isinstance(text, str) else None
        if line and line[1] in LABELS and line[1] not in found:
            number = one.get("Id")
            found[line[1]] = (number if isinstance(number, int) else 0, line[2])
    return found


# -- appointments ------------------------------------------------------------------------------------------


def appointment(
    raw: Mapping[str, Any], zone: ZoneInfo, names: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """An appointment with UTC moments and names. ``names``: SessionType and Location, number → name."""
    record = dict(raw)
    for name in ("StartDateTime", "EndDateTime"):
        record[name] = to_utc(raw.get(name), zone) or raw.get(name)
    for name in ("SessionType", "Staff", "Location"):
        number = "" if raw.get(f"{name}Id") is None else str(raw[f"{name}Id"])
        record[name] = names.get(name, {}).get(number) or number
    return record


def _refused(place: str, problem: str) -> ValidationError:
    return ValidationError(
        f"The write cannot be sent: {place} {problem}.",
        provider="mindbody",
        fields=(FieldError(place, problem),),
    )


def named(rows: Any) -> str:
    """Number → name as a JSON text, at most 300 of them."""
    named = {str(row["Id"]): str(row.get("Name") or "")[:100] for row in rows if row.get("Id") is not None}
    return msgspec.json.encode(dict(list(named.items())[:_MOST_NAMES])).decode()


def site_facts(site: Mapping[str, Any]) -> dict[str, str]:
    """The zone, if it is one of the IANA list (what Mindbody writes there is UNCONFIRMED), and the country."""
    zone, country = str(site.get("TimeZone") or ""), str(site.get("CountryCode") or "")
    facts = {"time_zone": zone} if zone in available_timezones() else {}
    if len(country) == 2 and country.isalpha():
        facts["country"] = country.upper()
    return facts
