"""athenahealth's wire: form fields that are all texts, dates as mm/dd/yyyy, times local to the department.

Native paths of the driver are athenahealth's own names, with ISO dates, UTC moments and E.164 phones as values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from crmbridge.core.errors import FieldError, ValidationError
from crmbridge.core.records import Object
from crmbridge.toolkit.formats import moment_text
from crmbridge.toolkit.phones import nanp_digits

__all__ = [
    "CASE_FIELDS",
    "PATIENT_FIELDS",
    "PHONES",
    "REASON",
    "appointment",
    "case",
    "eastern",
    "form",
    "iso_date",
    "local",
    "patient",
    "us_date",
    "with_mark",
    "without_mark",
]

PHONES = ("mobilephone", "homephone", "workphone")
# What a CRM needs of a chart; everything else that comes is dropped here, unread.
PATIENT_FIELDS = frozenset(
    """patientid firstname lastname middlename suffix dob sex email address1 address2 city state zip countrycode
    departmentid primarydepartmentid registrationdate status contactpreference""".split()  # noqa: SIM905
)
CASE_FIELDS = ("patientcaseid", "subject", "status", "createddate", "priority")
APPOINTMENT_FIELDS = frozenset(
    """appointmentid date starttime duration departmentid providerid patientid appointmentstatus appointmenttype
    appointmenttypeid lastmodified""".split()  # noqa: SIM905
)
# The shorter where sources differ; longer texts are cut or refused, nobody says which.
LIMITS = {
    **dict.fromkeys(("firstname", "lastname", "state", "zip"), 20),
    **dict.fromkeys(("address1", "address2"), 100),
    "city": 30,
    "email": 50,
    "internalnote": 4000,
}
REASON = "Reason: "  # stands before a reason in the booking note
_EASTERN = ZoneInfo("America/New_York")
_MARK = re.compile(r"\s*\[ref ([\w-]{1,120})\]\Z")


def form(obj: Object, fields: Mapping[str, Any]) -> dict[str, str]:
    """The form fields of a write. Raises ValidationError naming every value that cannot be kept."""
    given = dict(fields)
    if "fullname" in given:
        first, _, last = str(given.pop("fullname") or "").strip().partition(" ")
        if "firstname" not in given:
            given |= {"firstname": first, "lastname": last}
    made: dict[str, str] = {}
    problems = []
    for name, value in given.items():
        text = _text(value)
        if name in PHONES and text:
            text = nanp_digits(text)
            if not text:
                problems.append((name, "is no North American number, and this CRM drops others in silence"))
        if name == "dob" and text:
            text = us_date(text)
        if len(text) > LIMITS.get(name, len(text)):
            problems.append(
                (name, f"is longer than the {LIMITS[name]} characters this CRM keeps; shorten it")
            )
        made[name] = text
    if problems:
        raise ValidationError(
            "Some values cannot be kept.",
            provider="athenahealth",
            fields=tuple(FieldError(f"{obj.value}.{name}", problem) for name, problem in problems),
        )
    return made


def patient(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A patient as the driver's paths name it, without anything clinical."""
    record = {name: raw[name] for name in PATIENT_FIELDS if name in raw}
    for name in PHONES:
        if number := str(raw.get(name) or ""):
            record[name] = f"+1{found}" if (found := nanp_digits(number)) else number
    if str(record.get("email", "")).strip().casefold() == "declined":
        del record["email"]  # the patient refused to give one
    if found := iso_date(str(record.get("dob", ""))):
        record["dob"] = found
    record["fullname"] = " ".join(filter(None, (record.get("firstname"), record.get("lastname"))))
    return record


def case(raw: Mapping[str, Any], patient_id: str) -> dict[str, Any]:
    """A patient case. That its ``description`` is the internal note is UNCONFIRMED."""
    record = {name: raw[name] for name in CASE_FIELDS if name in raw}
    subject, record["ref"] = without_mark(str(raw.get("subject") or ""))
    return {
        **record,
        "id": f"{patient_id}.{raw.get('patientcaseid')}",
        "patientid": patient_id,
        "subject": subject,
        "internalnote": raw.get("description"),
        "documentsubclass": raw.get("patientcasetype"),
    }


def appointment(raw: Mapping[str, Any], zone: ZoneInfo) -> dict[str, Any]:
    """An appointment with its start and end as UTC moments."""
    record = {name: raw[name] for name in APPOINTMENT_FIELDS if name in raw}
    try:
        start = datetime.strptime(f"{raw['date']} {raw['starttime']}", "%m/%d/%Y %H:%M").replace(tzinfo=zone)
        record["startTime"] = moment_text(start.isoformat())
        end = datetime.fromisoformat(record["startTime"]) + timedelta(minutes=int(raw["duration"]))
        record["endTime"] = moment_text(end.isoformat())
    except (KeyError, ValueError, TypeError):
        pass  # a slot without a readable time shows none
    if changed := raw.get("lastmodified"):
        record["lastmodified"] = _from_eastern(str(changed))
    return record


def local(moment: Any, zone: ZoneInfo) -> tuple[str, str]:
    """Date and time of a UTC moment in the department, as slots have them. Raises ValidationError."""
    try:
        at = datetime.fromisoformat(str(moment)).astimezone(zone)
    except (ValueError, OverflowError):
        problem = FieldError("appointment.start_at", "is required: a date and time")
        raise ValidationError(
            "The appointment has no start.", provider="athenahealth", fields=(problem,)
        ) from None
    return at.strftime("%m/%d/%Y"), at.strftime("%H:%M")


def eastern(moment: str) -> str:
    """``mm/dd/yyyy hh24:mi:ss`` in Eastern time, without a zone mark, as every moment on this wire."""
    return datetime.fromisoformat(moment).astimezone(_EASTERN).strftime("%m/%d/%Y %H:%M:%S")


def us_date(day: str) -> str:
    """``mm/dd/yyyy`` of an ISO date; any other text stays."""
    found = re.fullmatch(r"(\d{4})-(\d{2})-(\d{2})", day)
    return f"{found[2]}/{found[3]}/{found[1]}" if found else day


def iso_date(day: str) -> str:
    """The ISO date of ``mm/dd/yyyy``, empty for any other text."""
    found = re.fullmatch(r"(\d{1,2})/(\d{1,2})/(\d{4})", day)
    return f"{found[3]}-{int(found[1]):02d}-{int(found[2]):02d}" if found else ""


def with_mark(text: str, mark: str) -> str:
    """The text with our mark at its end."""
    return f"{text} [ref {mark}]".lstrip()


def without_mark(text: str) -> tuple[str, str]:
    """The text and the mark at its end, if any."""
    found = _MARK.search(text)
    return (text[: found.start()], found[1]) if found else (text, "")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _from_eastern(text: str) -> str:
    try:
        found = datetime.strptime(text, "%m/%d/%Y %H:%M:%S").replace(tzinfo=_EASTERN)
    except ValueError:
        return ""
    return moment_text(found.isoformat())
