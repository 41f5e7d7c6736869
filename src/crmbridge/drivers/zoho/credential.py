"""What an operator fills in to connect an organisation."""

from __future__ import annotations

from crmbridge.core.manifest import Setting
from crmbridge.drivers.zoho import hosts

__all__ = ["SETTINGS"]

SETTINGS = (
    Setting(
        name="accounts_url",
        label="Accounts address",
        help="Where the consent begins. Zoho leads on to the user's own data centre, but not to China's: for that"
        " one https://accounts.zoho.com.cn. Any other address only for tests against an emulator.",
        kind="url",
        pattern=hosts.ACCOUNTS_PATTERN,
        default=hosts.ACCOUNTS,
        is_required=False,
    ),
    Setting(
        name="environment",
        label="Environment",
        help="production, or the organisation's sandbox or developer environment.",
        kind="choice",
        options=tuple(hosts.ENVIRONMENTS),
        default="production",
        is_required=False,
    ),
    Setting(
        name="automations",
        label="Workflows and assignment rules",
        help="run: they run for what crmbridge writes, as for people. skip: they do not.",
        kind="choice",
        options=("run", "skip"),
        default="run",
        is_required=False,
    ),
)
