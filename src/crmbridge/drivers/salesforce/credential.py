"""What an operator fills in to connect an org."""

from __future__ import annotations

from crmbridge.core.manifest import Setting
from crmbridge.drivers.salesforce import hosts

__all__ = ["SETTINGS"]

SETTINGS = (
    Setting(
        name="login_url",
        label="Login address",
        help="https://login.salesforce.com for production, https://test.salesforce.com for a sandbox, or the org's"
        " My Domain (needed where the org allows no login elsewhere). Not a lightning.force.com address.",
        kind="url",
        default=hosts.LOGIN,
        pattern=hosts.LOGIN_PATTERN,
        example="https://acme.my.salesforce.com",
        is_required=False,
    ),
    Setting(
        name="duplicate_alerts",
        label="Duplicate rules that alert",
        help="refuse: a record that a duplicate rule finds doubtful is refused, with the id of the existing one."
        " save: it is saved, unless the rule blocks.",
        kind="choice",
        options=("refuse", "save"),
        default="refuse",
        is_required=False,
    ),
    Setting(
        name="hard_delete",
        label="Erase past the recycle bin",
        help="yes: an erasure also removes the record for good, by a bulk job; the connected user needs the"
        " permission Bulk API Hard Delete. no: its fields are emptied and it goes to the recycle bin.",
        kind="choice",
        options=("no", "yes"),
        default="no",
        is_required=False,
    ),
)
