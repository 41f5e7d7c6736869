"""What an operator fills in to connect a restaurant."""

from __future__ import annotations

from crmbridge.core.manifest import Setting
from crmbridge.toolkit.forms import address, client

__all__ = ["GUID", "SETTINGS"]

GUID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"

SETTINGS = (
    Setting(
        name="restaurant_guid",
        label="Restaurant GUID",
        help="Of the location. The restaurant must have connected your partner client in Toast Web.",
        pattern=GUID,
        example="a1b2c3d4-0000-4000-8000-000000000001",
    ),
    *client(
        "Of your partner client, given by Toast.",
        "Belongs to the client id. Each of Toast's environments has its own.",
    ),
    address(
        "https://ws-api.toasttab.com",
        "The API host that Toast gave you with the credentials, such as https://ws-api.toasttab.com.",
    ),
    Setting(
        name="guest_path",
        label="Guest base path",
        help="The base path of the guest API that Toast has named to you. Leave it empty if there is none: "
        "guests are then read from orders, and neither written nor erased.",
        is_required=False,
        pattern=r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,60}){1,6}",
        example="/loyalty/v1/guests",
    ),
)
