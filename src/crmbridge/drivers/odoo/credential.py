"""What an operator fills in to connect a database."""

from __future__ import annotations

from crmbridge.core.manifest import Setting

__all__ = ["SETTINGS"]

SETTINGS = (
    Setting(
        name="url",
        label="URL",
        kind="url",
        example="https://mycompany.odoo.com",
        help="The address of the Odoo server, without a path.",
    ),
    Setting(
        name="database",
        label="Database",
        example="mycompany",
        help="The database's name; on odoo.com usually the first part of the address.",
    ),
    Setting(
        name="username",
        label="User name",
        example="crm@mycompany.com",
        help="The login of the user who owns the key. He needs rights in CRM, Contacts and Calendar.",
    ),
    Setting(
        name="api_key",
        label="API key",
        is_secret=True,
        help="Preferences > Security > New API key. Before Odoo 19 the password works too. Keys of "
        "ordinary users expire after 90 days at most.",
    ),
)
