"""The contract on the emulated Mindbody; the files beside it have one test per oddity."""

from __future__ import annotations

from typing import ClassVar

from crmbridge.conformance import DriverContract
from crmbridge.core.records import Object
from crmbridge.core.verticals import Vertical
from crmbridge.drivers.mindbody.driver import Mindbody
from crmbridge.drivers.mindbody.emulator import MindbodyEmulator

PERSON = {
    "first_name": "Mariam",
    "last_name": "Okonkwo-Reyes",
    "email": "mariam.okonkwo@example.com",
    "phone": "+14155550123",
    "street": "12 Harbour Road",
    "city": "Springfield",
    "region": "IL",
    "postal_code": "62701",
}
BY_GET = "provider: Mindbody searches by GET, so the person stands in the query"
NO_CHANGES = "provider: Mindbody tells no time of change for appointments, so since is refused"


class Stated(DriverContract):
    """What both contracts state."""

    vertical = Vertical.SALON
    samples: ClassVar = {
        Object.CUSTOMER: {
            **PERSON,
            "country": "US",
            "birth_date": "1987-03-09",
            "source": "A friend",
            "notes": "Prefers to be called after four.",
        },
        Object.LEAD: {**PERSON, "source": "Web", "message": "Asks for a colour.\n\nOnly on Fridays."},
        Object.APPOINTMENT: {
            "start_at": "2027-01-15T14:30:00+04:00",
            "end_at": "2027-01-15T15:15:00+04:00",
            "location": "Harbour Salon",
            "service": "Hair cut",
            "staff": "22",
            "notes": "Allergic to ammonia.",
        },
        Object.CASE: {
            "subject": "Colour faded",
            "description": "Asked for a second appointment.\n\nSecond time.",
            "priority": "high",
            "category": "Complaint",
            "status": "open",
        },
        Object.NOTE: {"body": "Called back at noon."},
        Object.ACTIVITY: {
            "kind": "call",
            "subject": "Call about a colour",
            "body": "Agent: hello. Caller: hello.",
            "direction": "inbound",
            "started_at": "2026-11-02T09:00:00+00:00",
            "ended_at": "2026-11-02T09:04:30+00:00",
            "duration_seconds": 270,
            "result": "Booked",
        },
    }
    linked: ClassVar = dict.fromkeys(
        (Object.APPOINTMENT, Object.CASE, Object.NOTE, Object.ACTIVITY), (Object.CUSTOMER,)
    )
    refused: ClassVar = {
        Object.CUSTOMER: {"BirthDate": "next week"},
        Object.LEAD: {"ProspectStage": {"Id": 77}},
        Object.APPOINTMENT: {"Staff": "99"},
        Object.CASE: {"AssignedToStaffId": 99},
        Object.NOTE: {"AssignedToStaffId": 99},
        Object.ACTIVITY: {"AssignedToStaffId": 99},
    }
    fixed_texts: ClassVar = (*DriverContract.fixed_texts, "service", "staff", "location", "priority")

    def absent_id(self, real_id: str) -> str:
        client, _, log = real_id.partition(".")
        return f"{client}.{int(log) + 987_000}" if log else str(int(client) + 987_000)


class TestMindbody(Stated):
    driver = Mindbody
    emulator = MindbodyEmulator
    gaps: ClassVar = {
        "test_secrecy_urls_of_reads_hold_no_person": BY_GET,
        "test_list_since_when_older_then_left_out__appointment": NO_CHANGES,
    }


class TestMindbodyWithoutStaff(Stated):
    """The API key alone: clients are created, everything else is refused before a call."""

    driver = Mindbody
    emulator = MindbodyEmulator
    settings: ClassVar = {"staff_username": ""}
