"""The models of the emulated Odoo: fields, seed rows, domains, cells. Written from the provider sheet and from
answers of an Odoo 19.0 server; it knows nothing of the driver."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import date, datetime
from typing import Any

from crmbridge.emulation import EmulatorStore, Row, Table

__all__ = ["MODELS", "SELECTIONS", "Broken", "Fields", "accepts", "blank", "label", "parse_cell", "seed_rows"]

Fields = dict[str, str]

_PERSON: Fields = {
    **dict.fromkeys(("phone", "street", "street2", "city", "zip", "function", "website"), "char"),
    "country_id": "many2one:res.country",
    "state_id": "many2one:res.country.state",
    "user_id": "many2one:res.users",
    "active": "boolean",
}
_LOG: Fields = {
    "id": "integer",
    "create_date": "datetime",
    "write_date": "datetime",
    "create_uid": "many2one:res.users",
}
_NAMED: Fields = {"name": "char", "active": "boolean", **_LOG}

MODELS: dict[str, Fields] = {
    "res.partner": {
        "name": "char",
        "email": "char",
        "company_name": "char",
        "comment": "html",
        "ref": "char",
        "is_company": "boolean",
        "type": "selection",
        "parent_id": "many2one:res.partner",
        "category_id": "many2many:res.partner.category",
        "email_normalized": "char",
        "phone_sanitized": "char",
        **_PERSON,
        **_LOG,
    },
    "crm.lead": {
        "name": "char",
        "type": "selection",
        "contact_name": "char",
        "partner_name": "char",
        "email_from": "char",
        "referred": "char",
        "description": "html",
        "expected_revenue": "monetary",
        "probability": "float",
        "date_deadline": "date",
        "priority": "selection",
        "partner_id": "many2one:res.partner",
        "stage_id": "many2one:crm.stage",
        "source_id": "many2one:utm.source",
        "company_currency": "many2one:res.currency",
        "tag_ids": "many2many:crm.tag",
        "email_normalized": "char",
        "phone_sanitized": "char",
        **_PERSON,
        **_LOG,
    },
    "calendar.event": {
        "name": "char",
        "start": "datetime",
        "stop": "datetime",
        "allday": "boolean",
        "location": "char",
        "description": "html",
        "notes": "html",
        "show_as": "selection",
        "partner_ids": "many2many:res.partner",
        "opportunity_id": "many2one:crm.lead",
        "user_id": "many2one:res.users",
        "active": "boolean",
        **_LOG,
    },
    "mail.message": {
        "subject": "char",
        "body": "html",
        "date": "datetime",
        "model": "char",
        "res_id": "many2one_reference",
        "message_type": "selection",
        "subtype_id": "many2one:mail.message.subtype",
        "mail_activity_type_id": "many2one:mail.activity.type",
        "author_id": "many2one:res.partner",
        "is_internal": "boolean",
        **_LOG,
    },
    "res.users": {"login": "char", "partner_id": "many2one:res.partner", "share": "boolean", **_NAMED},
    "res.users.apikeys": {"expiration_date": "datetime", **_NAMED},
    "res.country": {"code": "char", **_NAMED},
    "res.country.state": {"code": "char", "country_id": "many2one:res.country", **_NAMED},
    "mail.message.subtype": {"internal": "boolean", **_NAMED},
    **dict.fromkeys(
        ("crm.stage", "crm.tag", "res.partner.category", "utm.source", "res.currency", "mail.activity.type"),
        _NAMED,
    ),
}

SELECTIONS: dict[str, list[tuple[str, str]]] = {
    "crm.lead.type": [("lead", "Lead"), ("opportunity", "Opportunity")],
    "crm.lead.priority": [("0", "Low"), ("1", "Medium"), ("2", "High"), ("3", "Very High")],
    "res.partner.type": [
        ("contact", "Contact"),
        ("invoice", "Invoice"),
        ("delivery", "Delivery"),
        ("other", "Other"),
    ],
    "calendar.event.show_as": [("free", "Available"), ("busy", "Busy")],
    "mail.message.message_type": [
        ("email", "Incoming Email"),
        ("comment", "Comment"),
        ("notification", "System"),
    ],
}

_SEED: dict[str, list[dict[str, Any]]] = {
    "res.country": [
        {"name": "Belgium", "code": "BE"},
        {"name": "United Arab Emirates", "code": "AE"},
        {"name": "United States", "code": "US"},
    ],
    "res.country.state": [
        {"name": "California", "code": "CA", "country_id": 3},
        {"name": "Dubai", "code": "DU", "country_id": 2},
    ],
    "crm.stage": [{"name": name} for name in ("New", "Qualified", "Proposition", "Won")],
    "utm.source": [{"name": "Search engine"}],
    "res.currency": [{"name": "USD"}],
    "mail.message.subtype": [{"name": "Discussions", "internal": False}]
    + [{"name": name, "internal": True} for name in ("Note", "Activities")],
    "mail.activity.type": [{"name": name} for name in ("Email", "Call", "Meeting", "To-Do")],
    "res.partner": [
        {"name": "My Company", "is_company": True},
        {"name": "CRM Agent", "email": "crm@odoo.test"},
    ],
    "res.users": [{"name": "CRM Agent", "login": "crm@odoo.test", "partner_id": 2}],
    "res.users.apikeys": [{"name": "tests", "expiration_date": False}],
}
XML_IDS = {
    "base.main_partner": ("res.partner", 1),
    "mail.mt_comment": ("mail.message.subtype", 1),
    "mail.mt_note": ("mail.message.subtype", 2),
    "mail.mt_activities": ("mail.message.subtype", 3),
    "mail.mail_activity_data_email": ("mail.activity.type", 1),
    "mail.mail_activity_data_call": ("mail.activity.type", 2),
    "mail.mail_activity_data_meeting": ("mail.activity.type", 3),
    "mail.mail_activity_data_todo": ("mail.activity.type", 4),
}


class Broken(Exception):
    """A fault in one cell, with the message that Odoo gives."""


def seed_rows(store: EmulatorStore) -> None:
    """What a new database holds."""
    for model in MODELS:
        table = store.numbered(model)
        for fields in _SEED.get(model, []):
            table.insert({"active": True, **fields})


def blank(kind: str) -> Any:
    """How an empty field of this type reads."""
    if kind in ("integer", "many2one_reference"):
        return 0
    if kind in ("float", "monetary"):
        return 0.0
    return [] if kind.startswith(("many2many", "one2many")) else False


def label(store: EmulatorStore, model: str, number: int) -> str:
    """The display name of a record."""
    row = store.numbered(model).get(number)
    fields = row.fields if row is not None else {}
    if model == "res.country.state":
        return f"{fields.get('name')} ({store.numbered('res.country').rows[fields['country_id']].fields['code']})"
    return str(fields.get("name") or "")


# -- domains ------------------------------------------------------------------------------------------------


def accepts(read: Callable[[Row[int], str], Any], domain: list[Any]) -> Callable[[Row[int]], bool]:
    """A domain in prefix notation as a test on rows. Raises ValueError with Odoo's words."""
    stack: list[Callable[[Row[int]], bool]] = []
    for item in reversed(domain):
        if item in ("&", "|", "!"):
            if len(stack) < (1 if item == "!" else 2):
                raise ValueError("Domain() invalid item in domain")
            first = stack.pop()
            stack.append(_joined(item, first, stack.pop() if item != "!" else first))
        elif isinstance(item, (list, tuple)) and len(item) == 3:
            stack.append(_leaf(read, *item))
        else:
            raise ValueError(f"Domain() invalid item in domain: {item!r}")
    return lambda row: all(test(row) for test in stack)


def _joined(sign: str, one: Callable[[Any], bool], two: Callable[[Any], bool]) -> Callable[[Any], bool]:
    if sign == "!":
        return lambda row: not one(row)
    if sign == "|":
        return lambda row: one(row) or two(row)
    return lambda row: one(row) and two(row)


def _leaf(
    read: Callable[[Row[int], str], Any], path: str, sign: str, wanted: Any
) -> Callable[[Row[int]], bool]:
    tests: dict[str, Callable[[Any], bool]] = {
        "=": lambda seen: _equal(seen, wanted),
        "!=": lambda seen: not _equal(seen, wanted),
        "in": lambda seen: any(_equal(seen, each) for each in wanted),
        "not in": lambda seen: not any(_equal(seen, each) for each in wanted),
        "<": lambda seen: bool(seen) and seen < wanted,
        "<=": lambda seen: bool(seen) and seen <= wanted,
        ">": lambda seen: bool(seen) and seen > wanted,
        ">=": lambda seen: bool(seen) and seen >= wanted,
        "ilike": lambda seen: bool(re.search(_like(wanted), str(seen or ""), re.IGNORECASE | re.DOTALL)),
        "=ilike": lambda seen: bool(re.fullmatch(_like(wanted), str(seen or ""), re.IGNORECASE | re.DOTALL)),
    }
    if sign not in tests:
        raise ValueError(f"Invalid operator in condition ({path!r}, {sign!r}, {wanted!r})")
    test = tests[sign]
    return lambda row: test(read(row, path))


def _equal(seen: Any, wanted: Any) -> bool:
    if wanted is False or wanted is None:
        return seen in (False, None, "", [])
    if isinstance(seen, list):
        return wanted in seen
    return bool(seen == wanted) and not (isinstance(seen, bool) ^ isinstance(wanted, bool))


def _like(pattern: str) -> str:
    parts = re.findall(r"\\.|%|_|[^\\%_]+", str(pattern))
    return "".join({"%": ".*", "_": "."}.get(part) or re.escape(part.removeprefix("\\")) for part in parts)


# -- cells of load --------------------------------------------------------------------------------------------


def parse_cell(store: EmulatorStore, model: str, field: str, kind: str, cell: Any, title: str) -> Any:
    """A text cell as the field's value, as the CSV import reads it. Raises Broken, or what Odoo's 500 says."""
    if cell in (None, "", False):
        return blank(kind)
    if kind == "boolean":
        return _boolean(cell.lower(), title)
    if kind in ("float", "monetary", "integer", "many2one_reference"):
        try:
            return int(cell) if kind[0] in "im" and kind != "monetary" else float(cell)
        except ValueError:
            raise Broken(f"'{cell}' does not seem to be a number for field '{title}'") from None
    if kind in ("date", "datetime"):
        return _moment(kind, cell, title)
    if kind == "selection":
        for key, words in SELECTIONS[f"{model}.{field}"]:
            if cell in (key, words):
                return key
        raise Broken(f"Value '{cell}' not found in selection field '{title}'")
    if kind.startswith("many2one:"):
        return _by_name(store, kind[9:], cell, title)
    if kind.startswith("many2many:"):
        return [_by_name(store, kind[10:], part, title) for part in str(cell).split(",")]
    return cell


def _boolean(text: str, title: str) -> bool:
    if text in ("1", "true", "yes"):
        return True
    if text in ("0", "false", "no"):
        return False
    raise Broken(f"Unknown value '{text}' for boolean field '{title}'")


def _moment(kind: str, cell: str, title: str) -> str:
    try:
        if kind == "date":
            return date.fromisoformat(cell).isoformat()
        if "T" in cell:
            raise ValueError
        return datetime.strptime(cell, "%Y-%m-%d %H:%M:%S").strftime("%Y-%m-%d %H:%M:%S")  # noqa: DTZ007
    except ValueError:
        raise Broken(f"'{cell}' does not seem to be a valid {kind} for field '{title}'") from None


def _by_name(store: EmulatorStore, model: str, name: str, title: str) -> int:
    table: Table[int] = store.numbered(model)
    for row in table:
        if name in _names(store, model, row):
            return row.id
    raise Broken(f"No matching record found for name '{name}' in field '{title}'")


def _names(store: EmulatorStore, model: str, row: Row[int]) -> Iterable[str]:
    names = [str(row.fields.get("name"))]
    if model == "res.country":
        names.append(row.fields["code"])
    if model == "res.country.state":
        names += [row.fields["code"], label(store, model, row.id)]
    return names
