"""What an operator fills in to connect an account."""

from __future__ import annotations

from crmbridge.core.manifest import Setting
from crmbridge.drivers.hubspot.companions import ALWAYS

__all__ = ["API", "SETTINGS"]

API = "https://api.hubapi.com"

SETTINGS = (
    Setting(
        name="lead_as",
        label="Leads are",
        help="contact: a contact of stage lead, and a deal only where a field is mapped to deals. deal: always"
        " a contact with a deal. lead: a contact with a native lead (Sales Hub Professional).",
        kind="choice",
        options=("contact", *sorted(ALWAYS)),
        default="contact",
        is_required=False,
    ),
    Setting(
        name="appointment_as",
        label="Appointments are",
        help="meeting: meetings in the activity timeline. appointment: the appointments object, to be switched"
        " on in the account's object library first.",
        kind="choice",
        options=("meeting", "appointment"),
        default="meeting",
        is_required=False,
    ),
    Setting(
        name="access_token",
        label="Service key",
        help="Instead of the OAuth button: a service key or private app token (pat-...). Leave empty for OAuth.",
        is_secret=True,
        is_required=False,
    ),
    Setting(
        name="api_url",
        label="API address",
        help="The same for all accounts; another one only for tests against an emulator.",
        kind="url",
        default=API,
        is_required=False,
    ),
    Setting(
        name="app_url",
        label="Consent address",
        help="Where the browser goes for consent; another one only for tests against an emulator.",
        kind="url",
        default="https://app.hubspot.com",
        is_required=False,
    ),
)
