"""What a search asks Tekmetric for: the few filters that it has, a free text, or a window around a start."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec

from crmbridge.core.errors import FieldError, ValidationError
from crmbridge.core.records import Filter, Object
from crmbridge.toolkit.formats import moment_text
from crmbridge.toolkit.phones import nanp_digits

__all__ = ["asked", "window"]

_SEARCHED = {
    Object.CUSTOMER: ("email", "phone", "lastName", "firstName", "fullName"),
    Object.LEAD: ("email", "phone", "lastName", "firstName", "fullName"),
    Object.APPOINTMENT: ("startTime", "customerId", "vehicleId"),
    Object.DEAL: ("repairOrderNumber", "customerId", "vehicleId"),
}
_WINDOW = timedelta(days=1)  # whether start and end are inclusive, and by whose day, is UNCONFIRMED


def asked(obj: Object, filter: Filter) -> Filter:
    """The filter as Tekmetric understands it. Raises ValidationError when nothing in it can be searched."""
    known = [name for name in _SEARCHED[obj] if filter.equals.get(name)]
    if not known and not filter.text:
        problem = FieldError(
            "filter", f"needs one of {', '.join(_SEARCHED[obj])}; nothing else is searchable"
        )
        raise ValidationError(
            "Tekmetric cannot search so.", provider="tekmetric", operation="search", fields=(problem,)
        )
    equals = dict(filter.equals)
    if obj is Object.APPOINTMENT:
        equals |= window(equals["startTime"]) if equals.get("startTime") else {}
        return msgspec.structs.replace(filter, equals=equals)
    text = filter.text
    if not text and obj is not Object.DEAL:
        text = str(equals[known[0]])
        text = nanp_digits(text) or text if known[0] == "phone" else text
    return msgspec.structs.replace(filter, equals=equals, text=text)


def window(start: Any) -> dict[str, str]:
    """A day to both sides of a start. Raises ValidationError for what is no moment."""
    try:
        at = datetime.fromisoformat(moment_text(start))
        sides = {"start": at - _WINDOW, "end": at + _WINDOW}
    except (ValueError, OverflowError):
        problem = FieldError("appointment.start_at", "is not a date and time")
        raise ValidationError("The search is not valid.", fields=(problem,)) from None
    return {name: moment_text(moment.isoformat()) for name, moment in sides.items()}
