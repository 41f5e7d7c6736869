"""What an operator fills in to connect a shop."""

from __future__ import annotations

from crmbridge.core.manifest import Setting
from crmbridge.toolkit.forms import address, client

__all__ = ["SETTINGS"]

SETTINGS = (
    Setting(
        name="shop_id",
        label="Shop id",
        help="The number of the shop in Tekmetric. The shop must have granted access to your client.",
        pattern=r"[1-9][0-9]{0,17}",
        example="791",
    ),
    *client(
        "Of your approved Tekmetric API application.", "Belongs to the client id; Tekmetric shows it once."
    ),
    address(
        "https://shop.tekmetric.com",
        "https://shop.tekmetric.com, or https://sandbox.tekmetric.com with a sandbox client.",
    ),
    Setting(
        name="appointment_minutes",
        label="Minutes of an appointment",
        help="How long an appointment lasts when nobody gave its end; Tekmetric requires one.",
        pattern=r"[1-9][0-9]{0,3}",
        default="60",
    ),
)
