"""Rows for Odoo's ``load``: its columns and text cells, and native records out of what ``read`` answers.

``load`` takes one list of columns for all rows, and an empty cell clears its field; so rows are grouped by
their columns. On create, a plain text column that a row lacks may be filled with an empty cell, which gives
the same record; that keeps the number of calls low.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any

import msgspec

from crmbridge.core.records import Object, Write
from crmbridge.toolkit.batches import TEXT

__all__ = [
    "LABELS",
    "LINKS",
    "NAMED",
    "Row",
    "Sheet",
    "complete",
    "flat",
    "groups",
    "mark",
    "mark_text",
    "mark_texts",
    "names_in",
    "native_from",
    "opened",
    "row_cells",
    "says",
    "sheets",
    "text_sheets",
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
_UNTITLED = frozenset({"", _NO_TITLE})
_NAMING = ("contact_name", "partner_name", "email_from", "phone")  # what a lead without a title is called by
_MOMENT = "%Y-%m-%d %H:%M:%S"
_STATE_SUFFIX = re.compile(r" \([A-Z]{2}\)$")


class Row(msgspec.Struct, kw_only=True):
    """One record on its way: the place of its write, its cells by column, the record's id once known."""

    place: int
    cells: dict[str, str]
    remote_id: str = ""
    was_created: bool | None = None


class Sheet(msgspec.Struct):
    """What one ``load`` takes: its columns and, for the write at each place, a row of cells in their order."""

    columns: list[str]
    places: list[int]
    cells: Sequence[Sequence[str]]


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


def mark_texts(prefix: str, target_ids: Sequence[str]) -> list[str]:
    """:func:`mark_text` of each, in one go where all are names."""
    line = f"-{'-'.join(target_ids)}-"  # a double hyphen would show an id that is empty, or has one at an end
    letters = line.encode().translate(None, b"-") if line.isascii() else b""  # isalnum is quicker on bytes
    if "--" in line or not letters.isalnum() or max(map(len, target_ids)) > 100:
        return [mark_text(prefix, target_id) for target_id in target_ids]
    start = f"{_module(prefix)}.w_"
    return [start + target_id for target_id in target_ids]


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
    return {"state_id", "id"}.isdisjoint(columns) and not any("." in column for column in columns)


def complete(obj: Object, row: dict[str, str]) -> None:
    """What Odoo demands of a new record and a caller may leave out: a lead's title, an event's end."""
    if obj is _LEAD and row.get("name", "") in _UNTITLED:
        names = (row.get(column) for column in _NAMING)
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


def sheets(model: str, rows: Sequence[Row], *, fill: bool) -> list[Sheet]:
    """The rows by :func:`groups`, each in the order of its columns."""
    found = []
    for columns, members in groups(model, rows, fill=fill):
        if len(columns) == 1:
            cells: list[Sequence[str]] = [[row.cells[columns[0]]] for row in members]
        else:
            pick = itemgetter(*columns)
            cells = [pick(row.cells) for row in members]
        found.append(Sheet(columns, [row.place for row in members], cells))
    return found


def text_sheets(obj: Object, model: str, writes: Sequence[Write], prefix: str) -> list[Sheet] | None:
    """The sheets of new records whose fields are cells as they stand: the same as by way of rows, at half the cost.

    None when one of them needs more: nested fields, values that are no texts, links, a column for a lead's title.
    Then all must go by way of rows, and so must messages and appointments. ``prefix`` is that of :func:`mark_text`.
    """
    alike = _alike(obj, writes)
    if alike is None:
        return None
    used = _PLAIN.get(model, frozenset()).intersection(chain.from_iterable(alike))
    together: dict[frozenset[str], list[tuple[str, ...]]] = {}
    for own in alike:
        together.setdefault(used.union(own), []).append(own)
    marks = mark_texts(prefix, [write.target_id for write in writes])
    found = []
    for spellings in together.values():
        widest = max(spellings, key=len)
        columns = [*widest, *used.difference(widest), "id"]
        rows: dict[int, list[str]] = {}
        for own in spellings:
            rows |= _text_rows(own, columns, alike[own], writes, marks)
        places = sorted(rows)
        cells = [rows[place] for place in places]
        if not TEXT.issuperset(map(type, chain.from_iterable(cells))):
            return None
        if obj is _LEAD:
            _give_titles(columns, cells)
        found.append(Sheet(columns, places, cells))
    return found


def _alike(obj: Object, writes: Sequence[Write]) -> dict[tuple[str, ...], list[int]] | None:
    """Places by the names of their fields; None when one is no new record, has links, or has names of another kind."""
    alike: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, write in enumerate(writes):
        if write.links or write.remote_id:
            return None
        alike[tuple(write.fields)].append(place)
    if not all(map(_is_plain, alike)) or (obj is _LEAD and not all("name" in own for own in alike)):
        return None
    return alike


def _give_titles(columns: list[str], cells: Iterable[list[str]]) -> None:
    """The same titles as those of :func:`complete`; there is a column for them."""
    title = columns.index("name")
    naming = [columns.index(column) for column in _NAMING if column in columns]
    for row in cells:
        if row[title] in _UNTITLED:
            row[title] = next(filter(None, map(row.__getitem__, naming)), _NO_TITLE)


def _text_rows(
    own: tuple[str, ...],
    columns: list[str],
    places: Iterable[int],
    writes: Sequence[Write],
    marks: Sequence[str],
) -> dict[int, list[str]]:
    """Rows of writes whose fields are named ``own``, in the order of ``columns``; what they lack is an empty cell."""
    given = [*own, "id"]
    if given == columns:
        return {place: [*writes[place].fields.values(), marks[place]] for place in places}
    order = {column: index for index, column in enumerate(given)}
    pick = itemgetter(*(order.get(column, -1) for column in columns))
    return {place: [*pick((*writes[place].fields.values(), marks[place], ""))] for place in places}


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
