"""Rows for Odoo's ``load``: its columns and text cells, and native records out of what ``read`` answers.

``load`` takes one list of columns for all rows, and an empty cell clears its field; so rows are grouped by
their columns. On create, a plain text column that a row lacks may be filled with an empty cell, which gives
the same record; that keeps the number of calls low.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import Any

import msgspec

from crmbridge.core.records import Object
from crmbridge.toolkit.batches import TEXT

__all__ = [
    "LABELS",
    "LINKS",
    "NAMED",
    "Row",
    "complete",
    "flat",
    "groups",
    "mark",
    "mark_text",
    "names_in",
    "native_from",
    "opened",
    "row_cells",
    "says",
]

LABELS = {
    "country_id": ("res.country", "code"),
    "tag_ids": ("crm.tag", "name"),
    "category_id": ("res.partner.category", "name"),
}
"""Linked records that ``read`` answers by id or by a translated label: their model and the field to show."""

NAMED = {"tag_ids": "crm.tag", "category_id": "res.partner.category", "source_id": "utm.source"}
"""Linked records that are nothing but a name: one that is not there yet is made."""

LINKS: dict[tuple[Object, Object], str] = {
    (Object.LEAD, Object.CUSTOMER): "partner_id/.id",
    (Object.DEAL, Object.CUSTOMER): "partner_id/.id",
    (Object.APPOINTMENT, Object.CUSTOMER): "partner_ids/.id",
    (Object.APPOINTMENT, Object.DEAL): "opportunity_id/.id",
    (Object.APPOINTMENT, Object.LEAD): "opportunity_id/.id",
}

_PLAIN = {
    "res.partner": frozenset(
        {"email", "phone", "company_name", "street", "street2", "city", "zip", "comment", "function", "ref"}
    ),
    "crm.lead": frozenset(
        {"email_from", "phone", "contact_name", "partner_name", "street", "street2", "city", "zip"}
        | {"description", "function", "referred", "date_deadline", "expected_revenue"}
    ),
    "calendar.event": frozenset({"location", "description", "notes"}),
    "mail.message": frozenset({"subject"}),
}
"""Columns without a default and not derived from others, as long as the record is not linked to a contact."""
_DERIVING = ("partner_id/.id", "parent_id/.id")
_PLACE = attrgetter("place")
_LEAD, _APPOINTMENT = Object.LEAD, Object.APPOINTMENT  # looking a member up costs more than comparing it
_NO_TITLE = "Lead"  # the default of fields.toml
_MOMENT = "%Y-%m-%d %H:%M:%S"
_STATE_SUFFIX = re.compile(r" \([A-Z]{2}\)$")


class Row(msgspec.Struct, kw_only=True):
    """One record on its way: the place of its write, its cells by column, the record's id once known."""

    place: int
    cells: dict[str, str]
    remote_id: str = ""
    was_created: bool | None = None


def mark(prefix: str, target_id: str) -> tuple[str, str]:
    """Module and name of our own external id. The module is never one of Odoo's own."""
    if _is_name(target_id):
        return _module(prefix), f"w_{target_id}"
    return _module(prefix), f"w_{hashlib.sha256(target_id.encode()).hexdigest()[:40]}"


def mark_text(prefix: str, target_id: str) -> str:
    """The same as one text, the way ``load`` takes it."""
    if _is_name(target_id):
        return f"{_module(prefix)}.w_{target_id}"
    return ".".join(mark(prefix, target_id))


def _is_name(text: str) -> bool:
    """Letters, digits and hyphens of ASCII, at most 100."""
    return text.isascii() and text.replace("-", "").isalnum() and len(text) <= 100


@lru_cache(maxsize=1024)
def _module(prefix: str) -> str:
    return "crmbridge_" + re.sub(r"[^a-z0-9]", "_", prefix.lower().removeprefix("crmbridge")).strip("_")


def flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Nested fields as dotted paths."""
    paths: dict[str, Any] = {}
    for name, value in fields.items():
        if type(value) is dict:
            paths.update((f"{name}.{part}", inner) for part, inner in flat(value).items())
        else:
            paths[name] = value
    return paths


def row_cells(paths: Mapping[str, Any], tags: Mapping[tuple[str, str], int | str]) -> dict[str, str]:
    """Cells by column. ``x.id`` becomes ``x/.id``, ``x.name`` and ``x.code`` the label column ``x``; names
    of tags become the ids that ``tags`` gives for (field, name)."""
    cells: dict[str, str] = {}
    for path, value in paths.items():
        if "." not in path:
            cells[path] = value if type(value) is str else _cell(value)
            continue
        field, _, part = path.partition(".")
        if field in NAMED and part == "name":
            ids = [str(tags[field, name]) for name in names_in(value)]
            cells[f"{field}/.id"] = ",".join(ids)
        elif part == "id":
            cells[f"{field}/.id"] = _cell(value)
        else:
            cells[field if part in ("name", "code") else path.replace(".", "/")] = _cell(value)
    state = cells.get("state_id")
    if state and "(" not in state and len(cells.get("country_id", "")) == 2:
        cells["state_id"] = f"{state} ({cells['country_id'].upper()})"
    return cells


def opened(fields: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """:func:`flat`, and whether it is a row already: texts, in columns of their own name that need no other."""
    if TEXT.issuperset(map(type, fields.values())):
        return dict(fields), _is_plain(tuple(fields))
    return flat(fields), False


@lru_cache(maxsize=1024)
def _is_plain(columns: tuple[str, ...]) -> bool:
    return "state_id" not in columns and not any("." in column for column in columns)


def complete(obj: Object, row: dict[str, str]) -> None:
    """What Odoo demands of a new record and a caller may leave out: a lead's title, an event's end."""
    if obj is _LEAD and row.get("name", "") in ("", _NO_TITLE):
        names = (row.get(column) for column in ("contact_name", "partner_name", "email_from", "phone"))
        row["name"] = next((name for name in names if name), _NO_TITLE)
    if obj is _APPOINTMENT and row.get("start") and not row.get("stop"):
        start = datetime.strptime(row["start"], _MOMENT)  # noqa: DTZ007 - naive UTC, as Odoo has it
        row["stop"] = (start + timedelta(hours=1)).strftime(_MOMENT)


def says(native: Any, sent: Any) -> bool:
    """Whether a field as read holds what was sent: empty is ``false``, numbers and tags by value, html by
    its text."""
    if sent in (None, "", [], False):
        return native in (None, "", [], False, 0)
    if isinstance(sent, (list, tuple)):
        return isinstance(native, list) and sorted(map(str, sent)) == sorted(map(str, native))
    if isinstance(native, (int, float)) and not isinstance(native, bool):
        try:
            return float(sent) == float(native)
        except ValueError:
            return False
    return _bare(str(sent)) == _bare(str(native))


def _bare(text: str) -> str:
    return re.sub(r"<[^<>]{0,200}>|\s+", "", html.unescape(text))


def names_in(value: Any) -> list[str]:
    """The names of a tag list, or of a single name."""
    items = value if isinstance(value, (list, tuple)) else [value]
    return [str(item) for item in items if item not in (None, "")]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, (list, tuple)):
        return ",".join(_cell(item) for item in value)
    return str(value)


def groups(model: str, rows: Sequence[Row], *, fill: bool) -> list[tuple[list[str], list[Row]]]:
    """Rows by equal columns, in order of appearance; ``fill`` lets plain columns be empty cells."""
    plain = _PLAIN.get(model, frozenset()) if fill else frozenset()
    alike: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        columns = tuple(row.cells)
        if (some := alike.get(columns)) is None:
            some = alike[columns] = []
        some.append(row)
    used = plain.intersection(set[str]().union(*alike))
    found: dict[frozenset[str], list[Row]] = {}
    for columns, some in alike.items():
        empty = used.difference(columns) if used and not any(one in columns for one in _DERIVING) else ()
        for row in some if empty else ():
            row.cells |= dict.fromkeys(empty, "")
        found.setdefault(frozenset((*columns, *empty)), []).extend(some)
    if len(found) < len(alike):  # rows of several spellings came together: back into their order
        for members in found.values():
            members.sort(key=_PLACE)
    return [(list(members[0].cells), members) for members in found.values()]


def native_from(row: Mapping[str, Any], labels: Mapping[tuple[str, int], str]) -> dict[str, Any]:
    """A read row as nested native fields: linked records become ``{id, name}`` (``code`` for countries).
    Empty fields, which Odoo writes as ``false``, stay ``false``: only its schema tells them from booleans."""
    native: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, list):
            native[name] = _linked(name, value, labels)
        else:
            native[name] = value
    return native


def _linked(name: str, value: list[Any], labels: Mapping[tuple[str, int], str]) -> Any:
    if len(value) == 2 and isinstance(value[1], str):
        linked = {"id": value[0], "name": value[1]}
        if name == "state_id":
            linked["name"] = _STATE_SUFFIX.sub("", value[1])
        if (name, value[0]) in labels:
            linked[LABELS[name][1]] = labels[name, value[0]]
        return linked
    ids = [item for item in value if isinstance(item, int)]
    return {"id": ids, "name": [labels[name, item] for item in ids if (name, item) in labels]}
