"""Guests in Toast's shape and in the driver's: one phone in E.164, one full name, and what a redaction leaves.

Sources: https://doc.toasttab.com/openapi/orders/tag/Data-definitions/schema/Customer (names, e-mail, phone and its
country code) and https://doc.toasttab.com/doc/devguide/apiOrdersGetScopes.html (who may see a guest).
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from crmbridge.toolkit.formats import moment_text
from crmbridge.toolkit.phones import country_and_national, nanp_digits

__all__ = [
    "FIELDS",
    "body",
    "guest",
    "guests_on",
    "guid_of",
    "is_redacted",
    "redacted",
    "scopes_in",
    "wanted",
]

FIELDS = """
firstName        text      r  First name
lastName         text      -  Last name
email            email     -  E-mail, the key by which Toast tells guests apart
phone            phone     -  Phone, kept as country code and national number
modifiedDate     datetime  o  Last change
"""

REDACTED = "Redacted"
# What says nothing about the person.
_KEPT = ("guid", "entityType", "createdDate", "modifiedDate", "active", "firstName")
_MARKS = uuid.UUID("6f0c1c0e-2f5b-5d0f-9a44-7d0b6c1f9e21")


def guid_of(mark: str) -> str:
    """The client-made id of a guest: always the same for one write."""
    return str(uuid.uuid5(_MARKS, mark))


def guest(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A guest as read, with one value per path: what is written by a path is read back by it."""
    names = (raw.get("firstName"), raw.get("lastName"))
    made = {**raw, "fullName": " ".join(str(name) for name in names if name)}
    made["phone"] = _e164(raw.get("phone"), raw.get("phoneCountryCode"))
    return made


def body(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What is sent of a guest."""
    made = {name: value for name, value in fields.items() if name not in ("fullName", "phone")}
    if "phone" in fields:
        made |= wanted("phone", fields["phone"])
    if "fullName" in fields and "firstName" not in fields:
        first, _, last = str(fields["fullName"] or "").strip().partition(" ")
        made["firstName"] = first
        made.setdefault("lastName", last.strip() or None)
    return made


def wanted(name: str, value: Any) -> dict[str, Any]:
    """One field in Toast's names and shape."""
    if name != "phone":
        return {name: value}
    code, national = country_and_national(str(value or ""))
    if code:
        return {"phone": national, "phoneCountryCode": code}
    return {"phone": value or None, "phoneCountryCode": None}


def _e164(phone: Any, code: Any) -> Any:
    """Without a country code, ten digits are a number of North America: where Toast's restaurants mostly are."""
    text = str(phone or "").strip()
    digits = re.sub(r"\D", "", text)
    if not digits:
        return None
    if text.startswith("+"):
        return f"+{digits}"
    if found := re.sub(r"\D", "", str(code or "")):
        return f"+{found}{digits}"
    return f"+1{nanp}" if (nanp := nanp_digits(text)) else text


def redacted(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The change that takes the person out of a guest: everything but the guest's own id, kind, state and dates."""
    return {
        **{name: None for name in raw if name not in _KEPT},
        **dict.fromkeys(("lastName", "email", "phone", "phoneCountryCode")),
        "firstName": REDACTED,
        "active": False,
    }


def is_redacted(raw: Mapping[str, Any]) -> bool:
    """Whether nothing of the person is left and the guest is inactive."""
    left = [name for name, value in raw.items() if name not in _KEPT and value not in (None, "", [], {})]
    return not left and raw.get("firstName") == REDACTED and raw.get("active") is False


# In-store orders carry no customer; test, catering-overflow and deleted orders are no guests' visits.
def guests_on(order: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The guests on one order, by check, as records with the id ``order.guest``."""
    if any(order.get(name) is True for name in ("createdInTestMode", "excessFood", "deleted")):
        return
    for check in order.get("checks") or ():
        customer = check.get("customer") if isinstance(check, dict) else None
        if isinstance(customer, dict) and customer.get("guid") and check.get("deleted") is not True:
            yield {
                **guest(customer),
                "id": f"{order.get('guid')}.{customer['guid']}",
                "modifiedDate": moment_text(order.get("modifiedDate")),
            }


def scopes_in(token: str) -> str:
    """The claim ``scope`` of a token, a list parted by blanks; empty when it cannot be read. Proves nothing."""
    part = token.split(".")[1] if token.count(".") == 2 else ""
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (msgspec.MsgspecError, binascii.Error, ValueError, RecursionError):
        return ""
    scope = claims.get("scope") if isinstance(claims, dict) else None
    return scope if isinstance(scope, str) else ""
