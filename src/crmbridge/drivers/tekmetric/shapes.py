"""What Tekmetric reads and writes under different names and types, and the one native record between them.

Read: ``email`` a text, ``phone`` a list, ``appointmentStatus``; written: ``email`` a list, ``phones``, ``status``. A
PATCH replaces whole lists (and, to be safe, we take that for ``address`` too), so bodies of updates start from the
present record. Phones are kept as ten digits, North America only. How the one text shows several e-mails is
UNCONFIRMED: it is split at commas and semicolons.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from crmbridge.core.errors import FieldError, ValidationError
from crmbridge.core.records import Object
from crmbridge.drivers.tekmetric import wording
from crmbridge.toolkit.formats import moment_text
from crmbridge.toolkit.phones import nanp_digits

__all__ = ["body", "emails", "lasting", "native", "phones"]

_DRIVERS_OWN = ("email", "emails", "phone", "phones", "fullName", "about")
_IDS = ("customerId", "vehicleId")
_PHONE = ("id", "number", "type", "primary")
_TEXT = {Object.LEAD: "notes", Object.APPOINTMENT: "description"}


def emails(raw: Mapping[str, Any]) -> list[str]:
    """All e-mails of a customer, in the order in which Tekmetric tells them."""
    parts = re.split(r"[,;]", _text(raw.get("email")))
    return list(dict.fromkeys(found for part in parts if (found := part.strip())))


def phones(raw: Mapping[str, Any]) -> list[str]:
    """All numbers of a customer in E.164 where they are ten digits, the primary one first."""
    listed = sorted(_listed(raw), key=lambda one: not one.get("primary"))
    return [
        f"+1{found}" if (found := nanp_digits(str(one["number"]))) else str(one["number"]) for one in listed
    ]


def native(obj: Object, raw: Mapping[str, Any]) -> dict[str, Any]:
    """A record as read, with one value per path: what is written by a path is read back by it."""
    record = {name: _trimmed(value) for name, value in raw.items()}
    if obj in (Object.CUSTOMER, Object.LEAD):
        names = (raw.get("firstName"), raw.get("lastName"))
        for one, all_of_them in (("email", emails(raw)), ("phone", phones(raw))):
            record[f"{one}s"] = all_of_them
            record[one] = all_of_them[0] if all_of_them else None
        record["fullName"] = " ".join(str(name) for name in names if name)
    if obj is Object.APPOINTMENT:
        status = record.get("appointmentStatus")
        record["status"] = status.get("code") if isinstance(status, dict) else status
        for name in ("startTime", "endTime"):
            record[name] = moment_text(raw.get(name)) or raw.get(name)
    if path := _TEXT.get(obj):
        free, record["about"] = wording.split(_text(raw.get(path)))
        record[path] = free if obj is Object.APPOINTMENT else raw.get(path)
    return record


def body(obj: Object, fields: Mapping[str, Any], current: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What is sent. ``current`` is the record as Tekmetric answered it, for an update. Raises ValidationError."""
    now = current or {}
    made = {name: value for name, value in fields.items() if name not in _DRIVERS_OWN}
    made |= {name: _number(obj, name, made[name]) for name in _IDS if made.get(name) is not None}
    if obj in (Object.CUSTOMER, Object.LEAD):
        if "email" in fields:
            made["email"] = _merged_emails(emails(now), str(fields["email"] or ""))
        if "phone" in fields:
            made["phones"] = _merged(_listed(now), fields["phone"], obj)
        if "fullName" in fields and "firstName" not in fields:
            made["firstName"], _, made["lastName"] = str(fields["fullName"] or "").strip().partition(" ")
        if "address" in fields and isinstance(now.get("address"), dict):
            kept = ("address1", "address2", "city", "state", "zip")
            made["address"] = {name: now["address"].get(name) for name in kept} | (fields["address"] or {})
    path = _TEXT.get(obj, "")
    if path and ("about" in fields or path in fields):
        free, about = wording.split(_text(now.get(path)))
        free = fields[path] or "" if path in fields else free
        made[path] = wording.join(free, {**about, **(fields.get("about") or {})})
    return made


def lasting(fields: Mapping[str, Any], minutes: int) -> dict[str, Any]:
    """An appointment's fields with an end: Tekmetric requires one. Raises ValidationError."""
    if fields.get("endTime") or not fields.get("startTime"):
        return dict(fields)
    try:
        end = datetime.fromisoformat(str(fields["startTime"])) + timedelta(minutes=minutes)
    except (ValueError, OverflowError):
        raise _refused(Object.APPOINTMENT, "startTime", "is not a date and time") from None
    return {**fields, "endTime": moment_text(end.isoformat())}


def _merged_emails(listed: list[str], email: str) -> list[str]:
    """The customer's e-mails with this one in place of the first; an empty one takes the first away."""
    if not email:
        return listed[1:]
    if any(one.casefold() == email.casefold() for one in listed):
        return [email if one.casefold() == email.casefold() else one for one in listed]
    return [email, *listed[1:]]


def _merged(listed: list[dict[str, Any]], number: Any, obj: Object) -> list[dict[str, Any]]:
    """The customer's numbers with this one as (or in place of) the primary; None takes the primary away."""
    kept: list[dict[str, Any]] = [
        {name: one[name] for name in ("id", "number", "type", "primary") if name in one} for one in listed
    ]
    place = next((index for index, one in enumerate(kept) if one.get("primary")), 0)
    if number in (None, ""):
        return [one for index, one in enumerate(kept) if index != place]
    found = nanp_digits(str(number))
    if not found:
        raise _refused(
            obj,
            "phone",
            "is no North American number of ten digits, and this CRM keeps no other; put it into a text",
        )
    if any(nanp_digits(str(one.get("number", ""))) == found for one in kept):
        return kept
    if not kept:
        return [{"number": found, "type": "Mobile", "primary": True}]
    kept[place] = {**kept[place], "number": found}
    return kept


def _trimmed(value: Any) -> Any:
    """Codes come with blanks behind them (``"RIDE "``)."""
    if isinstance(value, dict) and isinstance(value.get("code"), str):
        return {**value, "code": value["code"].strip()}
    return value


def _listed(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The phones as read; anything else that stands there is no phone."""
    listed = raw.get("phone")
    if not isinstance(listed, list):
        return []
    return [one for one in listed if isinstance(one, dict) and one.get("number")]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(obj: Object, name: str, value: Any) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,19}", str(value)):
        raise _refused(obj, name, "is not an id of Tekmetric, which are numbers")
    return int(value)


def _refused(obj: Object, name: str, text: str) -> ValidationError:
    problem = FieldError(f"{obj.value}.{name}", text)
    return ValidationError(f"The {name} cannot be kept.", provider="tekmetric", fields=(problem,))
