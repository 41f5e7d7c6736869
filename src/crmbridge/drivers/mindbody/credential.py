"""What an operator fills in to connect a Mindbody site."""

from __future__ import annotations

from crmbridge.core.manifest import Setting
from crmbridge.toolkit.forms import address, zone

__all__ = ["SETTINGS"]

_NUMBER = r"[1-9][0-9]{0,17}"

SETTINGS = (
    Setting(
        name="site_id",
        label="Site id",
        help="The number of the Mindbody site (-99 is the sandbox). Its owner must have activated your API key.",
        pattern=r"-?[1-9][0-9]{0,11}",
        example="41095",
    ),
    Setting(
        name="api_key",
        label="API key",
        help="From the Mindbody developer portal.",
        is_secret=True,
    ),
    Setting(
        name="staff_username",
        label="Staff user name",
        help="A staff user of the site. Without one, clients can be created but nothing can be read or changed.",
        is_required=False,
    ),
    Setting(
        name="staff_password",
        label="Staff password",
        help="Belongs to the staff user.",
        is_secret=True,
        is_required=False,
    ),
    zone(
        "site",
        "An IANA zone, where the site's own is missing or wrong: Mindbody's times are local to the site.",
        is_required=False,
        example="America/Los_Angeles",
    ),
    Setting(
        name="location_id",
        label="Location id",
        help="Where appointments are booked unless a write names another place.",
        is_required=False,
        pattern=_NUMBER,
    ),
    Setting(
        name="session_type_id",
        label="Session type id",
        help="The service that is booked unless a write names another.",
        is_required=False,
        pattern=_NUMBER,
    ),
    Setting(
        name="staff_id",
        label="Staff id",
        help="Who is booked, and who gets cases, unless a write names another.",
        is_required=False,
        pattern=_NUMBER,
    ),
    Setting(
        name="phone_pages",
        label="Pages of a look-up by phone",
        help="Mindbody cannot search by phone: at most so many pages of 200 clients are read and compared. 0 refuses.",
        is_required=False,
        pattern=r"[0-9]{1,3}",
        default="5",
    ),
    Setting(
        name="daily_calls",
        label="Calls a day",
        help="Mindbody bills calls above about 1,000 a day (and its sandbox stops there). Raise it to allow more.",
        is_required=False,
        pattern=r"[1-9][0-9]{2,6}",
        default="1000",
    ),
    address(
        "https://api.mindbodyonline.com/public/v6",
        "https://api.mindbodyonline.com/public/v6, for live sites and the sandbox alike.",
    ),
)
