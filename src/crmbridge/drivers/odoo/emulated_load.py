"""The emulated ``load``: rows of text cells, all or nothing, every bad row named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crmbridge.drivers.odoo.emulated_models import Broken, parse_cell

if TYPE_CHECKING:
    from crmbridge.drivers.odoo.emulated_orm import EmulatedOrm

__all__ = ["load"]


def load(odoo: EmulatedOrm, model: str, columns: list[str], data: list[list[Any]]) -> dict[str, Any]:
    """``{"ids": [...] or False, "messages": [...], "nextrow": 0}``. Raises ValueError for unknown columns."""
    for column in columns:
        if column not in ("id", ".id") and column.split("/")[0] not in odoo.models[model]:
            raise ValueError(f"Invalid field name '{column}'")
    messages: list[dict[str, Any]] = []
    rows = [_converted(odoo, model, columns, row, index, messages) for index, row in enumerate(data)]
    bad = {message["record"] for message in messages}
    for index, (mark, number, vals) in enumerate(rows):
        if index not in bad and (text := _problem(odoo, model, mark, number, vals)):
            messages.append(_message(index, text[0], text[1]))
    if messages:
        return {"ids": False, "messages": messages, "nextrow": 0}
    return {"ids": [_commit(odoo, model, *row) for row in rows], "messages": [], "nextrow": 0}


def _message(index: int, text: str, field: str = "") -> dict[str, Any]:
    named = {"field": field, "field_name": _title(field)} if field else {}
    return {"type": "error", "rows": {"from": index, "to": index}, "record": index, "message": text, **named}


def _title(field: str) -> str:
    words = {"country_id": "Country", "state_id": "State", "tag_ids": "Tags", "stage_id": "Stage"}
    return words.get(field) or field.replace("_", " ").title()


def _converted(
    odoo: EmulatedOrm,
    model: str,
    columns: list[str],
    row: list[Any],
    index: int,
    messages: list[dict[str, Any]],
) -> tuple[str, int, dict[str, Any]]:
    mark, number, vals = "", 0, {}
    for column, cell in zip(columns, row, strict=True):
        field, _, part = column.partition("/")
        if isinstance(cell, str) and "\x00" in cell:
            words = "A string literal cannot contain NUL (0x00) characters."
            messages.append(_message(index, f"Unknown error during import: <class 'ValueError'>: {words}"))
            continue
        try:
            if column == "id":
                mark = str(cell) if "." in str(cell) else f"__import__.{cell}"
            elif column == ".id":
                number = _row_number(odoo, model, cell)
            else:
                vals[field] = _value(odoo, model, field, part, cell)
        except Broken as broken:
            messages.append(_message(index, str(broken), field if column != ".id" else ".id"))
    return mark, number, vals


def _row_number(odoo: EmulatedOrm, model: str, cell: Any) -> int:
    found = odoo.m_search(model, [["id", "=", int(cell)]]) if str(cell).isdigit() else []
    if not found:
        raise Broken(f"Unknown database identifier '{cell}'")
    return found[0]


def _value(odoo: EmulatedOrm, model: str, field: str, part: str, cell: Any) -> Any:
    kind = odoo.models[model][field]
    if not part or cell in (None, "", False):
        return parse_cell(odoo.store, model, field, kind, cell, _title(field))
    what = {".id": "database id", "id": "external id"}[part]
    ids = []
    for text in str(cell).split(","):
        found = odoo.xml_ids.get(text, ("", 0))[1] if part == "id" else int(text) if text.isdigit() else 0
        if odoo.store.numbered(kind.split(":")[1]).get(found) is None:
            raise Broken(f"No matching record found for {what} '{text}' in field '{_title(field)}'")
        ids.append(found)
    return ids if kind.startswith("many2many") else ids[0]


def _problem(
    odoo: EmulatedOrm, model: str, mark: str, number: int, vals: dict[str, Any]
) -> tuple[str, str] | None:
    """What the database or the model would say to this row: the text and the field, if it names one."""
    from crmbridge.drivers.odoo.emulated_orm import OdooFault

    known = number or (odoo.xml_ids.get(mark) or ("", 0))[1]
    try:
        if model == "mail.message" and known and vals.keys() & {"model", "res_id"}:
            return "Only administrators can modify 'model' and 'res_id' fields.", ""
        odoo.allow(model, "write" if known else "create")
        if model == "mail.message" and vals.get("model"):
            odoo.must_exist(vals["model"], [vals["res_id"]])
        old = odoo.table(model).rows[known].fields if known else odoo.completed(model, {})
        odoo.check(model, {**old, **vals}, known)
    except OdooFault as fault:
        text = fault.message.removeprefix("The operation cannot be completed: ")
        return text, "name" if "(name)" in text else ""
    return None


def _commit(odoo: EmulatedOrm, model: str, mark: str, number: int, vals: dict[str, Any]) -> int:
    known = number or (odoo.xml_ids.get(mark) or ("", 0))[1]
    table = odoo.table(model)
    if known:
        merged = {**table.rows[known].fields, **odoo.settled(model, vals)}
        table.update(known, odoo.computed(model, merged))
        return known
    made = table.insert(odoo.completed(model, vals)).id
    if mark:
        odoo.xml_ids[mark] = (model, made)
    return made
