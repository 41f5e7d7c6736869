"""The live schema: facts for ``describe`` and the names of fields worth reading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from crmbridge.core.records import FieldFact, Object
from crmbridge.core.verticals import GENERAL
from crmbridge.drivers.odoo.cells import LABELS

__all__ = ["ATTRIBUTES", "NOTES_FROM", "facts_of", "readable"]

NOTES_FROM = 19
"""The first version known to have internal notes on events; before, they go to the description."""
ATTRIBUTES = ["type", "string", "required", "readonly", "store", "selection", "size", "relation"]

_TYPES = {
    "char": "text",
    "text": "long_text",
    "html": "long_text",
    "integer": "integer",
    "float": "number",
    "monetary": "money",
    "boolean": "boolean",
    "date": "date",
    "datetime": "datetime",
    "selection": "pick_list",
    "many2one": "text",
    "many2many": "tags",
    "many2one_reference": "integer",
}
_NEVER_READ = frozenset({"access_token", "message_id", "reply_to", "duration_tracking"})


def readable(schema: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Stored fields of simple types: a read of all fields would compute dozens and carry images."""
    return sorted(
        name
        for name, fact in schema.items()
        if fact.get("type") in _TYPES
        and name not in _NEVER_READ
        and (fact.get("store", True) or name == "company_currency")
        and not name.startswith(("message_", "calendar_last"))
    )


def facts_of(obj: Object, schema: Mapping[str, Mapping[str, Any]]) -> list[FieldFact]:
    """Every field that can be read or written; linked records by ``.name`` (``.code``) and ``.id``.

    ``required`` is as Odoo tells it, which is not the whole truth: a contact needs a name by a database check.
    """
    facts = [fact for name, field in sorted(schema.items()) for fact in _facts(name, field)]
    if obj is Object.ACTIVITY:
        kept = {"subject", "body", "started_at"}
        facts += [
            FieldFact(
                path=f"facts.{slot.name}",
                label=slot.help,
                type=slot.type.value,
                native_type="text",
                options=[*slot.options],
            )
            for slot in GENERAL[obj]
            if slot.name not in kept
        ]
    return facts


def _facts(name: str, field: Mapping[str, Any]) -> Iterable[FieldFact]:
    native = str(field.get("type") or "")
    if native not in _TYPES:
        return
    size = field.get("size")
    options = field.get("selection")
    paths = {name: _TYPES[native]}
    if native == "many2one":
        part = LABELS.get(name, ("", "name"))[1]
        paths = {f"{name}.{part}": "text", f"{name}.id": "integer"}
    elif native == "many2many":
        paths = {f"{name}.name": "tags"} if name in LABELS else {f"{name}.id": "tags"}
    for path, kind in paths.items():
        yield FieldFact(
            path=path,
            label=str(field.get("string") or name),
            type=kind,
            native_type=native,
            is_required=bool(field.get("required")),
            is_read_only=bool(field.get("readonly")),
            is_custom=name.startswith("x_"),
            options=[str(option[0]) for option in options] if isinstance(options, list) else [],
            max_length=size if isinstance(size, int) and size > 0 else None,
        )
