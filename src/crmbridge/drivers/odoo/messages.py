"""Notes and activities as chatter messages: ``mail.message`` rows on a contact, lead or event.

A note is an internal message. An activity (a conversation or call with its transcript) is what Odoo itself
writes when an activity is marked done: a message of subtype Activities with an activity type, so that it
shows in the chatter, keeps its own date, and is written once only (a loaded message cannot be loaded again).
What a message has no column for (direction, length, result, …) stands as a list before the text.
"""

from __future__ import annotations

import html
import re
from typing import Any

from crmbridge.core.errors import FieldError, ValidationError
from crmbridge.core.records import Object, Write

__all__ = ["ACTIVITY_DOMAIN", "NOTE_DOMAIN", "facts_in", "message_columns"]

CARRIERS = {
    Object.DEAL: "crm.lead",
    Object.LEAD: "crm.lead",
    Object.APPOINTMENT: "calendar.event",
    Object.CUSTOMER: "res.partner",
}
_ON_RECORDS = ["model", "in", ["res.partner", "crm.lead", "calendar.event"]]
NOTE_DOMAIN: list[Any] = [
    _ON_RECORDS,
    ["message_type", "=", "comment"],
    ["subtype_id.internal", "=", True],
    ["mail_activity_type_id", "=", False],
]
ACTIVITY_DOMAIN: list[Any] = [_ON_RECORDS, ["mail_activity_type_id", "!=", False]]

_TYPES = {
    "call": "mail.mail_activity_data_call",
    "email": "mail.mail_activity_data_email",
    "meeting": "mail.mail_activity_data_meeting",
}
_OTHER_TYPE = "mail.mail_activity_data_todo"
_LIST = re.compile(r"\s*<ul>((?:\s*<li>[a-z_]+: [^<]*</li>)+)\s*</ul>")
_ITEM = re.compile(r"<li>([a-z_]+): ([^<]*)</li>")


def message_columns(write: Write, fields: dict[str, Any]) -> dict[str, Any]:
    """The columns of a new message for ``load``. Raises ValidationError without a record to stand on."""
    carrier = next((obj for obj in CARRIERS if obj in write.links), None)
    if carrier is None:
        problem = "names no customer, lead, deal or appointment that the message belongs to"
        raise ValidationError(
            f"links {problem}.",
            provider="odoo",
            operation=write.operation.value,
            fields=(FieldError("links", problem),),
        )
    columns = {path: value for path, value in fields.items() if not path.startswith("facts.")}
    columns |= {"model": CARRIERS[carrier], "res_id": write.links[carrier], "message_type": "comment"}
    if write.object is Object.NOTE:
        return columns | {"subtype_id/id": "mail.mt_note"}
    facts = {path[6:]: value for path, value in fields.items() if path.startswith("facts.")}
    columns["body"] = _listed(facts) + str(columns.get("body") or "")
    kind = _TYPES.get(str(facts.get("kind") or ""), _OTHER_TYPE)
    return columns | {"subtype_id/id": "mail.mt_activities", "mail_activity_type_id/id": kind}


def _listed(facts: dict[str, Any]) -> str:
    items = [
        f"<li>{name}: {html.escape(str(value), quote=False)}</li>"
        for name, value in facts.items()
        if value not in (None, "")
    ]
    return f"<ul>{''.join(items)}</ul>" if items else ""


def facts_in(body: str) -> tuple[dict[str, str], str]:
    """The list before the text, and the text itself."""
    found = _LIST.match(body)
    if found is None:
        return {}, body
    return {name: html.unescape(text) for name, text in _ITEM.findall(found[1])}, body[found.end() :]
