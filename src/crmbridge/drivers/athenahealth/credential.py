"""What an operator fills in to connect a practice."""

from __future__ import annotations

from crmbridge.core.manifest import Setting
from crmbridge.toolkit.forms import address, client, zone

__all__ = ["SETTINGS"]

_YES_NO = ("no", "yes")

SETTINGS = (
    Setting(
        name="practice_id",
        label="Practice id",
        help="The number of the practice. One client may reach many practices.",
        pattern=r"[1-9][0-9]{0,11}",
        example="195900",
    ),
    Setting(
        name="department_id",
        label="Department id",
        help="The department that cases, patients and bookings belong to unless a write names another.",
        pattern=r"[1-9][0-9]{0,11}",
        example="1",
    ),
    *client(
        "Of your 2-legged app in the developer portal.",
        "Belongs to the client id. Preview and production have different ones.",
    ),
    address(
        "https://api.platform.athenahealth.com",
        "https://api.platform.athenahealth.com, or https://api.preview.platform.athenahealth.com.",
    ),
    zone(
        "department",
        "An IANA zone: the times of appointments are local to the department.",
        default="America/New_York",
    ),
    Setting(
        name="case_source",
        label="Source of cases",
        help="What documentsource says: who is calling. Ask the practice for its words.",
        pattern=r"[^\x00-\x1f]{1,60}",
        default="PATIENT",
    ),
    Setting(
        name="case_class",
        label="Class of cases",
        help="What documentsubclass says, which routes a case. Ask the practice for its words.",
        pattern=r"[^\x00-\x1f]{1,60}",
        default="PATIENTCASE_OTHER",
    ),
    Setting(
        name="provider_id",
        label="Provider id",
        help="Who gets cases, where the practice requires one.",
        is_required=False,
        pattern=r"[1-9][0-9]{0,11}",
    ),
    Setting(
        name="write_patients",
        label="Write patients",
        help="yes lets patients be created and changed. Cases alone need no.",
        kind="choice",
        options=_YES_NO,
        default="no",
    ),
    Setting(
        name="write_appointments",
        label="Write appointments",
        help="yes lets appointments be booked, moved and cancelled.",
        kind="choice",
        options=_YES_NO,
        default="no",
    ),
)
