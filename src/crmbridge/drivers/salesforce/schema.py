"""Describes as field facts, and what ``prepare`` keeps of them.

Page: REST API Developer Guide, "sObject Describe" (read 2026-11-22). A describe shows what *this user* may see: fields
hidden by field-level security are absent. Validation rules, duplicate rules and layouts are not in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from crmbridge.core.errors import CrmError, NotFound
from crmbridge.core.operations import Operation
from crmbridge.core.records import FieldFact, Object
from crmbridge.core.wire import HttpRequest
from crmbridge.drivers.salesforce.natives import DATA, MARK, NATIVES, Native
from crmbridge.drivers.salesforce.reading import mapped_names
from crmbridge.drivers.salesforce.soql import Kind
from crmbridge.toolkit.exchange import HttpDriver

__all__ = ["Described", "Field", "describe", "facts_of", "prepare"]

MOST_READ = 100
_MAX_OPTIONS = 500
_TYPES = {
    "string": "text",
    "textarea": "long_text",
    "combobox": "text",
    "encryptedstring": "text",
    "id": "text",
    "reference": "text",
    "email": "email",
    "phone": "phone",
    "url": "url",
    "int": "integer",
    "long": "integer",
    "double": "number",
    "percent": "number",
    "currency": "money",
    "boolean": "boolean",
    "date": "date",
    "datetime": "datetime",
    "picklist": "pick_list",
    "multipicklist": "tags",
}
_KINDS = {
    "int": Kind.NUMBER,
    "long": Kind.NUMBER,
    "double": Kind.NUMBER,
    "percent": Kind.NUMBER,
    "currency": Kind.NUMBER,
    "boolean": Kind.BOOLEAN,
    "date": Kind.DATE,
    "datetime": Kind.DATETIME,
}


_MAPPABLE = frozenset({"string", "textarea", "email", "phone", "url", "currency", "date", "picklist"})


class Option(msgspec.Struct):
    """One entry of a pick list."""

    value: str | None = ""
    active: bool | None = False


class Field(msgspec.Struct, rename="camel"):
    """A field, as far as it is read."""

    name: str
    type: str = "string"
    label: str | None = ""
    length: int | None = 0
    nillable: bool = True
    createable: bool = False
    updateable: bool = False
    defaulted_on_create: bool = False
    unique: bool = False
    external_id: bool = False
    id_lookup: bool = False
    custom: bool = False
    filterable: bool = False
    calculated: bool = False
    picklist_values: list[Option] | None = None

    @property
    def options(self) -> list[str]:
        """The values that may be chosen now."""
        return [one.value for one in self.picklist_values or () if one.active and one.value]


class Described(msgspec.Struct):
    """An object, as far as it is read."""

    name: str
    fields: list[Field]


_DESCRIBED = msgspec.json.Decoder(Described)


async def describe(driver: HttpDriver, native: Native, operation: str) -> Described:
    """The live schema. Raises NotFound where the org (or this user) has no such object."""
    request = HttpRequest(method="GET", url=f"{DATA}/sobjects/{native.name}/describe")
    response = await driver.exchange(request, operation=operation)
    try:
        return _DESCRIBED.decode(response.body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        driver.tree_of(response, operation=operation)
        raise driver.unexpected("a describe of another shape", Operation.GET, is_write=False) from None


async def prepare(driver: HttpDriver) -> dict[str, str]:
    """Facts of each object that the user may see.

    ``marks`` and ``unique_marks`` (objects with our mark), ``fields.<object>`` (what is read, with kinds),
    ``keys.<object>`` (unique external ids), ``first_stage``. Our mark cannot be made by the REST API: an administrator
    makes it, and objects without it go without a mark, so that their lost creates are parked.
    """
    facts: dict[str, str] = {}
    marks: list[str] = []
    unique: list[str] = []
    for obj, native in NATIVES.items():
        try:
            found = await describe(driver, native, "prepare")
        except NotFound:
            continue
        except CrmError as error:
            if error.subcode != "insufficient_scope":
                raise
            continue
        fields = {field.name: field for field in found.fields}
        facts[f"fields.{native.name}"] = " ".join(_readable(driver, obj, found.fields))
        keys = [one.name for one in found.fields if one.external_id and one.unique and one.name != MARK]
        if keys:
            facts[f"keys.{native.name}"] = " ".join(keys)
        mark = fields.get(MARK)
        if mark is not None and mark.createable and mark.filterable and (mark.length or 0) >= 60:
            marks.append(native.name)
            if mark.external_id and mark.unique:
                unique.append(native.name)
        stage = fields.get("StageName")
        if native.name == "Opportunity" and stage is not None:
            facts["first_stage"] = next(iter(stage.options), "")
    return {"marks": " ".join(marks), "unique_marks": " ".join(unique), **facts}


def _readable(driver: HttpDriver, obj: Object, fields: Iterable[Field]) -> list[str]:
    """Fields of lists and searches, as ``name`` or ``name:kind``: those of the default maps, the org's own ones, then
    standard ones that a tenant may map."""
    own_class: Any = type(driver)
    mapped = set(mapped_names(own_class, obj))
    seen = [field for field in fields if field.type in _TYPES and field.name not in (MARK, "Id")]
    taken = sorted(
        (one for one in seen if one.name in mapped or one.custom or one.type in _MAPPABLE),
        key=lambda one: 0 if one.name in mapped else 1 if one.custom else 2,
    )[:MOST_READ]
    return [f"{one.name}:{_KINDS[one.type].value}" if one.type in _KINDS else one.name for one in taken]


def facts_of(native: Native, found: Described) -> list[FieldFact]:
    """One fact per field that can stand in a map; compound fields (addresses, names) are read by their parts."""
    facts = [
        FieldFact(
            path=one.name,
            label=one.label or one.name,
            type=_TYPES[one.type],
            native_type=one.type,
            is_required=one.createable and not one.nillable and not one.defaulted_on_create,
            is_read_only=not (one.createable or one.updateable) or one.calculated or one.name == MARK,
            is_custom=one.custom and one.name != MARK,
            options=one.options[:_MAX_OPTIONS],
            max_length=one.length or None,
        )
        for one in found.fields
        if one.type in _TYPES
    ]
    if native.is_person:
        facts.append(
            FieldFact(path="full_name", label="First and last name as one text (crmbridge splits it)")
        )
    return facts


def missing_rights(listed: list[Any]) -> list[str]:
    """Rights that the user lacks, from the list of all objects: a hidden object is not in it."""
    known = {str(one.get("name")): one for one in listed if isinstance(one, dict)}
    rights = {"createable": "create", "updateable": "update", "queryable": "read", "deletable": "delete"}
    missing = []
    for native in NATIVES.values():
        found = known.get(native.name)
        if found is None:
            missing.append(f"see {native.name}")
        else:
            missing += [
                f"{word} {native.name}" for right, word in rights.items() if found.get(right) is False
            ]
    return missing
