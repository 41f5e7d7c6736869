"""HubSpot's property definitions as field facts.

Page: https://developers.hubspot.com/docs/api/crm/properties (read 2026-11-22).
"""

from __future__ import annotations

import msgspec

from crmbridge.core.records import FieldFact
from crmbridge.drivers.hubspot.natives import MARK, Native

__all__ = ["Properties", "Property", "facts_of"]

_TYPES = {
    "bool": "boolean",
    "enumeration": "pick_list",
    "date": "date",
    "datetime": "datetime",
    "number": "number",
    "phone_number": "phone",
}
_MAX_OPTIONS = 500


class Option(msgspec.Struct):
    """One choice: HubSpot wants its ``value``, and tells upper from lower case."""

    value: str = ""
    hidden: bool | None = None


class Modification(msgspec.Struct, rename="camel"):
    """What may be changed."""

    read_only_value: bool | None = None


class Property(msgspec.Struct, rename="camel"):
    """A definition, as far as it is read."""

    name: str
    label: str = ""
    type: str = "string"
    field_type: str = "text"
    group_name: str = ""
    options: list[Option] | None = None
    has_unique_value: bool | None = None
    hubspot_defined: bool | None = None
    calculated: bool | None = None
    archived: bool | None = None
    show_currency_symbol: bool | None = None
    modification_metadata: Modification | None = None

    @property
    def is_read_only(self) -> bool:
        """True for what HubSpot computes or keeps to itself."""
        kept = self.modification_metadata is not None and bool(self.modification_metadata.read_only_value)
        return kept or bool(self.calculated)

    @property
    def is_custom(self) -> bool:
        """True for the tenant's own properties; ours is not one of them."""
        return not self.hubspot_defined and self.name != MARK and not self.archived


class Properties(msgspec.Struct):
    """The answer of the property list, which has no pages."""

    results: list[Property]


def facts_of(native: Native, properties: list[Property]) -> list[FieldFact]:
    """One fact per property, named as field maps name them. HubSpot tells no required ones: they are from its docs."""
    names = {own: name for name, own in native.renamed.items()}
    facts = [
        FieldFact(
            path=names.get(one.name, one.name),
            label=one.label,
            type=_type(one),
            native_type=f"{one.type}/{one.field_type}",
            is_required=one.name in native.required,
            is_read_only=one.is_read_only or one.name == MARK,
            is_custom=one.is_custom,
            options=[option.value for option in (one.options or []) if not option.hidden][:_MAX_OPTIONS],
            max_length=65_536 if one.type == "string" else None,
        )
        for one in properties
        if not one.archived
    ]
    facts += [FieldFact(path=name, type="pick_list", options=[value]) for name, value in native.fixed.items()]
    if native.name == "contacts":
        facts.append(
            FieldFact(path="full_name", label="First and last name as one text (crmbridge splits it)")
        )
    return facts


def _type(one: Property) -> str:
    if one.type == "enumeration" and one.field_type == "checkbox":
        return "tags"
    if one.type == "number" and one.show_currency_symbol:
        return "money"
    if one.type == "string" and one.field_type in ("textarea", "html"):
        return "long_text"
    return _TYPES.get(one.type, "text")
