"""Field metadata as field facts, and what ``prepare`` makes and keeps of them.

Pages: https://www.zoho.com/crm/developer/docs/api/v8/field-meta.html, .../create-custom-field.html,
.../layouts-meta.html (read 2026-11-25). A module may have two unique fields of its own; where both are taken, our
mark is made without being unique. What is required stands partly in the fields, partly in the layouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from crmbridge.core.errors import AuthError, CrmError
from crmbridge.core.operations import Operation
from crmbridge.core.records import FieldFact
from crmbridge.core.wire import HttpRequest
from crmbridge.drivers.zoho.coql import Kind
from crmbridge.drivers.zoho.natives import API, MARK, MARK_LABEL, NATIVES, Native
from crmbridge.toolkit.exchange import HttpDriver

__all__ = ["Field", "Known", "describe", "fields_of", "known_fields", "mark_of", "prepare"]

MOST_FIELDS = 400
_MOST_OPTIONS = 500
_TYPES: dict[str, tuple[str, Kind]] = {
    "text": ("text", Kind.TEXT),
    "textarea": ("long_text", Kind.LONG),
    "email": ("email", Kind.TEXT),
    "phone": ("phone", Kind.TEXT),
    "website": ("url", Kind.TEXT),
    "integer": ("integer", Kind.NUMBER),
    "bigint": ("integer", Kind.NUMBER),
    "double": ("number", Kind.NUMBER),
    "percent": ("number", Kind.NUMBER),
    "currency": ("money", Kind.NUMBER),
    "boolean": ("boolean", Kind.BOOLEAN),
    "date": ("date", Kind.DATE),
    "datetime": ("datetime", Kind.DATETIME),
    "picklist": ("pick_list", Kind.TEXT),
    "multiselectpicklist": ("tags", Kind.LIST),
    "lookup": ("text", Kind.LOOKUP),
    "ownerlookup": ("text", Kind.LOOKUP),
    "userlookup": ("text", Kind.LOOKUP),
    "autonumber": ("text", Kind.TEXT),
    "formula": ("text", Kind.OTHER),
}


class Choice(msgspec.Struct):
    """One entry of a pick list."""

    display_value: str | None = None
    type: str | None = None


class Operations(msgspec.Struct):
    """What the API may do with a field."""

    api_create: bool = True
    api_update: bool = True


class Field(msgspec.Struct):
    """A field, as far as it is read."""

    api_name: str
    field_label: str | None = None
    data_type: str = "text"
    length: int | None = None
    system_mandatory: bool | None = False
    read_only: bool | None = False
    field_read_only: bool | None = False
    custom_field: bool | None = False
    operation_type: Operations | None = None
    pick_list_values: list[Choice] | None = None
    unique: Any = None

    @property
    def is_read_only(self) -> bool:
        """Whether the API can neither set nor change it."""
        may = self.operation_type or Operations()
        return bool(self.read_only or self.field_read_only) or not (may.api_create or may.api_update)

    @property
    def is_unique(self) -> bool:
        """Whether Zoho refuses a second record with the same value."""
        return bool(self.unique)

    @property
    def options(self) -> list[str]:
        """Values of a pick list that are in use."""
        used = (one.display_value for one in self.pick_list_values or () if one.type != "unused")
        return [text for text in used if text and text != "-None-"][:_MOST_OPTIONS]


class Answer(msgspec.Struct):
    """The answer of the fields API."""

    fields: list[Field]


class Known(msgspec.Struct, frozen=True):
    """What is kept of a field in the facts of a connection."""

    kind: Kind
    is_read_only: bool
    is_custom: bool


_ANSWER = msgspec.json.Decoder(Answer)


async def fields_of(driver: HttpDriver, native: Native, operation: str) -> list[Field]:
    """All fields of one module; none for a module that is empty or hidden (204)."""
    request = HttpRequest(method="GET", url=f"{API}/settings/fields", query={"module": native.name})
    response = await driver.exchange(request, operation=operation)
    if response.status == 204:
        return []
    try:
        return _ANSWER.decode(response.body).fields
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        driver.tree_of(response, operation=operation)
        raise driver.unexpected("field metadata of another shape", Operation.GET, is_write=False) from None


async def describe(driver: HttpDriver, native: Native) -> list[FieldFact]:
    """One fact per field, with the requiredness of the layouts where the scope allows to see them."""
    fields = await fields_of(driver, native, "describe")
    wanted = await _wanted_by_layouts(driver, native)
    mark = _mark_among(fields)
    facts = [
        FieldFact(
            path=one.api_name,
            label=one.field_label or "",
            type=_TYPES[one.data_type][0],
            native_type=one.data_type,
            is_required=(bool(one.system_mandatory) or one.api_name in wanted)
            and one.api_name not in native.defaults,
            is_read_only=one.is_read_only or one is mark,
            is_custom=bool(one.custom_field) and one is not mark,
            options=one.options,
            max_length=one.length or None,
        )
        for one in fields
        if one.data_type in _TYPES
    ]
    if any(one.path == "Last_Name" for one in facts):
        facts.append(
            FieldFact(path="full_name", label="First and last name as one text (crmbridge splits it)")
        )
    return facts


async def _wanted_by_layouts(driver: HttpDriver, native: Native) -> set[str]:
    """Fields that every active layout requires."""
    request = HttpRequest(method="GET", url=f"{API}/settings/layouts", query={"module": native.name})
    try:
        tree = await driver.exchange_json(request, operation="describe")
    except AuthError as error:
        if error.subcode != "insufficient_scope":
            raise
        return set()
    layouts = tree.get("layouts") if isinstance(tree, dict) else None
    wanted: list[set[str]] = []
    for layout in layouts if isinstance(layouts, list) else ():
        sections = layout.get("sections") if isinstance(layout, dict) else None
        fields = [
            field
            for section in (sections if isinstance(sections, list) else ())
            if isinstance(section, dict) and isinstance(section.get("fields"), list)
            for field in section["fields"]
            if isinstance(field, dict)
        ]
        wanted.append({str(one.get("api_name")) for one in fields if one.get("required") is True})
    return set.intersection(*wanted) if wanted else set()


async def prepare(driver: HttpDriver) -> dict[str, str]:
    """Makes our mark where it is missing, and answers what reads and writes should know.

    ``marks`` (module:field), ``unique_marks`` (modules), ``unmarked`` (module:why), ``fields.<module>``,
    ``unique.<module>`` (fields by which an upsert is one call), ``first_stage``. A module without a mark is written
    too; its lost creates are parked, not repeated.
    """
    facts: dict[str, str] = {}
    marks: list[str] = []
    unique: list[str] = []
    unmarked: list[str] = []
    for native in NATIVES.values():
        try:
            fields = await fields_of(driver, native, "prepare")
            why = ""
            if fields and native.can_bear_mark and _mark_among(fields) is None:
                why = await _make_mark(driver, native)
                fields = fields if why else await fields_of(driver, native, "prepare")
        except CrmError as error:
            is_missing = error.provider_facts.get("provider_code") in ("INVALID_MODULE", "API_NOT_SUPPORTED")
            if error.subcode != "insufficient_scope" and not is_missing:
                raise
            unmarked.append(f"{native.name}:{'module_missing' if is_missing else 'no_right'}")
            continue
        facts |= _facts_of(native, fields)
        mark = _mark_among(fields)
        if mark is not None and native.can_bear_mark:
            marks.append(f"{native.name}:{mark.api_name}")
            if mark.is_unique:
                unique.append(native.name)
        elif native.can_bear_mark:
            unmarked.append(f"{native.name}:{why or 'module_missing'}")
    facts |= {"marks": " ".join(marks), "unique_marks": " ".join(unique), "unmarked": " ".join(unmarked)}
    return facts


def _facts_of(native: Native, fields: Sequence[Field]) -> dict[str, str]:
    words = [
        f"{one.api_name}:{_TYPES.get(one.data_type, ('', Kind.OTHER))[1].value}"
        f"{'r' if one.is_read_only else ''}{'c' if one.custom_field else ''}"
        for one in fields[:MOST_FIELDS]
    ]
    facts = {f"fields.{native.name}": " ".join(words)}
    mark = _mark_among(fields)
    keys = [one.api_name for one in fields if one.is_unique and one is not mark]
    if keys:
        facts[f"unique.{native.name}"] = " ".join(keys)
    stage = next((one for one in fields if native.name == "Deals" and one.api_name == "Stage"), None)
    if stage is not None and stage.options:
        facts["first_stage"] = stage.options[0]
    return facts


def _mark_among(fields: Sequence[Field]) -> Field | None:
    for one in fields:
        if one.api_name == MARK or (one.custom_field and one.field_label == MARK_LABEL):
            return one if one.data_type == "text" and not one.is_read_only else None
    return None


async def _make_mark(driver: HttpDriver, native: Native) -> str:
    """Makes the field; answers why it could not, or an empty text."""
    why = ""
    for extra in ({"unique": {"case_sensitive": False}}, {}):
        field = {"field_label": MARK_LABEL, "data_type": "text", "length": 100, **extra}
        request = HttpRequest(
            method="POST",
            url=f"{API}/settings/fields",
            query={"module": native.name},
            json={"fields": [field]},
        )
        try:
            await driver.exchange(request, operation="prepare", is_write=True)
        except CrmError as error:
            if error.subcode == "insufficient_scope":
                return "no_right"
            if error.code not in ("conflict", "validation_error"):
                raise
            why = "refused"
            continue
        return ""
    return why


@lru_cache(maxsize=512)
def known_fields(text: str) -> dict[str, Known]:
    """The fields in a fact ``fields.<module>``."""
    known: dict[str, Known] = {}
    for word in text.split():
        name, _, flags = word.partition(":")
        if flags:
            known[name] = Known(Kind(flags[0]), "r" in flags[1:], "c" in flags[1:])
    return known


def mark_of(marks: str, native: Native) -> str:
    """The name of our mark in a module by the fact ``marks``, empty where there is none."""
    for word in marks.split():
        module, _, name = word.partition(":")
        if module == native.name:
            return name
    return ""
