"""General samples: canonical fields for each object, used where a contract names none of its own.

All persons are invented; domains and numbers are those reserved for examples.
"""

from __future__ import annotations

from typing import Any

from crmbridge.core.records import Object

__all__ = ["SAMPLES", "numbered"]

_PERSON: dict[str, Any] = {
    "first_name": "Mariam",
    "last_name": "Okonkwo-Reyes",
    "full_name": "Mariam Okonkwo-Reyes",
    "email": "mariam.okonkwo@example.com",
    "phone": "+14155550123",
    "company": "Example Trading",
    "street": "12 Harbour Road",
    "city": "Springfield",
    "postal_code": "62701",
}

SAMPLES: dict[Object, dict[str, Any]] = {
    Object.CUSTOMER: {**_PERSON, "notes": "Prefers to be called after four.", "birth_date": "1987-03-09"},
    Object.LEAD: {
        **_PERSON,
        "title": "Two-bedroom flat near the park",
        "message": "Looking for something quiet.",
        "value": "125000.5",
        "budget_min": "90000",
        "budget_max": "1250000.5",
        "bedrooms": 2,
        "area": "Old Harbour",
        "move_in_date": "2027-02-28",
    },
    Object.DEAL: {
        "name": "Harbour flat 12",
        "amount": "1250000.5",
        "close_date": "2027-02-28",
        "description": "Second viewing agreed.",
    },
    Object.APPOINTMENT: {
        "title": "Viewing with Mariam",
        "start_at": "2027-01-15T14:30:00+04:00",
        "end_at": "2027-01-15T15:15:00+04:00",
        "location": "Show flat, gate 3",
        "notes": "Bring the floor plan.",
        "party_size": 4,
        "occasion": "Birthday",
        "service": "Hair cut",
        "reason": "Check-up",
        "concern": "Noise from the front left wheel",
    },
    Object.CASE: {
        "subject": "Invoice shows the wrong month",
        "description": "Asked for a corrected copy.",
        "priority": "high",
    },
    Object.NOTE: {"body": "Called back at noon; wants a second viewing."},
    Object.ACTIVITY: {
        "kind": "call",
        "subject": "Call about the flat",
        "body": "Agent: hello. Caller: hello.",
        "direction": "inbound",
        "started_at": "2026-11-02T09:00:00+00:00",
        "ended_at": "2026-11-02T09:04:30+00:00",
        "duration_seconds": 270,
    },
}


def numbered(sample: dict[str, Any], number: int) -> dict[str, Any]:
    """The same sample for another person: e-mail and phone differ, the rest stays. 0 is the sample itself."""
    fields = dict(sample)
    if number and fields.get("email"):
        name, _, domain = str(fields["email"]).partition("@")
        fields["email"] = f"{name}.{number}@{domain}"
    if number and fields.get("phone"):
        phone = str(fields["phone"])
        fields["phone"] = phone[:-4] + f"{(int(phone[-4:]) + number) % 10000:04d}"
    return fields
