"""Odoo domains: what a search asks for."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from crmbridge.core.errors import FieldError, ValidationError
from crmbridge.core.records import Object
from crmbridge.drivers.odoo.messages import ACTIVITY_DOMAIN, NOTE_DOMAIN

__all__ = ["NORMALISED", "kind_of", "matching", "number", "since", "term", "text_in"]

_KINDS: dict[Object, list[Any]] = {
    Object.LEAD: [["type", "=", "lead"]],
    Object.DEAL: [["type", "=", "opportunity"]],
    Object.NOTE: NOTE_DOMAIN,
    Object.ACTIVITY: ACTIVITY_DOMAIN,
}
_TEXT_FIELDS = {
    "res.partner": ("name", "email", "phone"),
    "crm.lead": ("name", "contact_name", "partner_name", "email_from", "phone"),
    "calendar.event": ("name", "location"),
    "mail.message": ("subject", "body"),
}
NORMALISED = {"email": "email_normalized", "email_from": "email_normalized"}
"""Fields with a normalised twin: lower case, the bare address."""


def kind_of(obj: Object) -> list[Any]:
    """What tells this object's records from others of the same model."""
    return [*_KINDS.get(obj, [])]


def term(path: str, value: Any) -> list[Any]:
    """One condition. A phone may stand as sent or, on records with a country, in E.164 beside it."""
    if path in NORMALISED and value:
        return [[NORMALISED[path], "=", str(value).strip().lower()]]
    if path == "phone" and value:
        return ["|", ["phone_sanitized", "=", value], ["phone", "=", value]]
    if value is None or value == "":
        return [[path, "=", False]]
    if isinstance(value, (list, tuple)):
        return [[path, "in", list(value)]]
    return [[path, "=", value]]


def matching(obj: Object, pairs: dict[str, Any]) -> list[Any]:
    """Records of this object for which every pair holds."""
    return kind_of(obj) + [part for path, value in pairs.items() for part in term(path, value)]


def text_in(model: str, text: str) -> list[Any]:
    """The text in any of the model's usual fields; ``%`` and ``_`` are letters."""
    names = _TEXT_FIELDS[model]
    like = re.sub(r"([\\%_])", r"\\\1", text)
    return ["|"] * (len(names) - 1) + [[name, "ilike", like] for name in names]


def since(text: str) -> str:
    """RFC 3339 as Odoo writes it: naive, UTC. Raises ValidationError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        problem = "is not a time such as 2026-03-01T14:30:00Z"
        raise ValidationError(
            f"since {problem}.", provider="odoo", operation="list", fields=(FieldError("since", problem),)
        ) from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def number(text: str, purpose: str, field: str = "remote_id") -> int:
    """A database id. Raises ValidationError."""
    if not re.fullmatch(r"[1-9][0-9]{0,9}", text) or int(text) > 2**31 - 1:
        problem = "is not a record number of Odoo"
        raise ValidationError(
            f"{field} {problem}.", provider="odoo", operation=purpose, fields=(FieldError(field, problem),)
        )
    return int(text)
