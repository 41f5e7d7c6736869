"""The field map of a connection: what goes where, a record tried out, and one slot's rule changed."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from crmbridge.console.visit import Page, Visit, link
from crmbridge.core.driver import CrmDriver
from crmbridge.core.errors import CrmError, FieldError, NotFound, ValidationError
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object
from crmbridge.core.verticals import Slot, SlotType, Vertical, slots_for
from crmbridge.drivers import load
from crmbridge.services.connections.model import ConnectionSummary, Intent
from crmbridge.services.connections.routing.table import unknown
from crmbridge.services.mapping.model import MappedSlot, Rule
from crmbridge.services.mapping.service import build_field_map
from crmbridge.services.tenants.model import Tenant
from crmbridge.toolkit.formats import FORMATS

__all__ = ["edit", "save", "show", "try_out"]

_DIRECTIONS = ["both", "write", "read"]
_AS_TEXT = frozenset(
    {SlotType.TEXT, SlotType.LONG_TEXT, SlotType.EMAIL, SlotType.PHONE, SlotType.PICK_LIST, SlotType.URL}
)


class Place(msgspec.Struct):
    """Which map a page is about."""

    tenant: Tenant
    connection: ConnectionSummary
    driver: type[CrmDriver]
    lines: list[MappedSlot]
    object: Object

    @property
    def path(self) -> str:
        """The page of this connection's map."""
        return f"/admin/tenants/{self.tenant.slug}/crm/mapping"

    def at(self, obj: Object | None = None) -> str:
        """The same with what it shows."""
        return link(self.path, connection=self.connection.name, object=(obj or self.object).value)


async def _place(visit: Visit, values: Any, obj: str) -> Place:
    tenant = await visit.tenant()
    name = values.get("connection", "") or "primary"
    summaries = await visit.services.connections.summaries(tenant.id)
    found = next((each for each in summaries if each.name == name), None)
    if found is None:
        raise unknown(name, [each.name for each in summaries])
    if obj not in set(Object):
        raise NotFound("There is no such object.")
    driver = load(found.driver)
    lines = await visit.services.mapping.read(tenant, found.id, driver)
    return Place(tenant, found, driver, lines, Object(obj))


async def show(visit: Visit) -> Page:
    """The effective map of one object."""
    place = await _place(visit, visit.query, visit.query.get("object", "") or Object.LEAD.value)
    return _page(visit, place)


def _page(visit: Visit, place: Place, **rest: Any) -> Page:
    values: dict[str, Any] = {"sample": {}, "payload": None, "error": None, "status": 200, **rest}
    return visit.page(
        "mapping.html",
        tenant=place.tenant,
        place=place,
        lines=[line for line in place.lines if line.object is place.object],
        objects=list(Object),
        **values,
    )


async def try_out(visit: Visit) -> Page:
    """The payload that a record would make. Nothing is sent and nothing is kept."""
    place = await _place(visit, visit.form, visit.form.get("object", ""))
    typed = {
        name.removeprefix("slot."): text.strip()
        for name, text in visit.form.items()
        if name.startswith("slot.") and text.strip()
    }
    slots = slots_for(place.object, Vertical(place.tenant.vertical))
    try:
        fields = {name: _value(slots[name], text) for name, text in typed.items() if name in slots}
        intent = Intent(object=place.object, operation=Operation.CREATE, fields=fields)
        opened = await visit.services.connections.open(place.tenant.id, name=place.connection.name)
        payload = opened.preview(opened.map(intent, target_id=UUID(int=0), links={}))
    except CrmError as error:
        return _page(visit, place, sample=typed, error=error, status=error.http_status)
    return _page(visit, place, sample=typed, payload=payload)


def _value(slot: Slot, text: str) -> Any:
    """What a form's text means for a slot: JSON where the type is no text, else as it stands."""
    if slot.type in _AS_TEXT:
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


async def _slot(visit: Visit, values: Any) -> tuple[Place, Slot, MappedSlot]:
    place = await _place(visit, values, str(visit.parameters["object"]))
    name = str(visit.parameters["slot"])
    slot = slots_for(place.object, Vertical(place.tenant.vertical)).get(name)
    line = next((each for each in place.lines if each.object is place.object and each.slot == name), None)
    if slot is None or line is None:
        raise NotFound("There is no such slot.")
    return place, slot, line


async def edit(visit: Visit) -> Page:
    """The form for one slot's rule."""
    place, slot, line = await _slot(visit, visit.query)
    return _slot_page(visit, place, slot, line, _typed(line.rule or Rule(path="")))


def _typed(rule: Rule) -> dict[str, str]:
    def told(value: Any) -> str:
        return "" if value in (None, {}) else msgspec.json.encode(value).decode()

    return {
        "path": rule.path or "",
        "native": rule.native,
        "format": rule.format,
        "values": told(rule.values),
        "constant": told(rule.constant),
        "default": told(rule.default),
        "direction": rule.direction,
        "sample": "",
    }


def _slot_page(
    visit: Visit, place: Place, slot: Slot, line: MappedSlot, values: dict[str, str], **rest: Any
) -> Page:
    more: dict[str, Any] = {"result": None, "error": None, "status": 200, **rest}
    return visit.page(
        "mapping_slot.html",
        tenant=place.tenant,
        place=place,
        slot=slot,
        line=line,
        values=values,
        formats=sorted(name for name in FORMATS if name),
        directions=_DIRECTIONS,
        **more,
    )


async def save(visit: Visit) -> Page:
    """Preview, save, leave unmapped, or go back to the driver's own rule."""
    place, slot, line = await _slot(visit, visit.form)
    values = {name: visit.form.get(name, "").strip() for name in _typed(Rule(path=""))}
    step = visit.form.get("step", "")
    if step not in ("preview", "save", "unmap", "driver"):
        raise NotFound("There is no such step.")
    try:
        rule = None if step == "driver" else Rule(path=None) if step == "unmap" else _rule(values)
        if step == "preview" and rule is not None:
            result = _tried(place, slot, rule, values["sample"])
            return _slot_page(visit, place, slot, line, values, result=result)
        changes = {slot.path: rule}
        await visit.services.mapping.put(
            place.tenant, place.connection.id, place.driver, changes, visit.actor
        )
    except CrmError as error:
        return _slot_page(visit, place, slot, line, values, error=error, status=error.http_status)
    visit.services.connections.mapping_changed(place.tenant.id)
    return visit.go(place.at(), f"The mapping of {slot.path} is changed.")


def _rule(values: dict[str, str]) -> Rule:
    problems = []
    trees: dict[str, Any] = {}
    for name in ("values", "constant", "default"):
        try:
            trees[name] = msgspec.json.decode(values[name]) if values[name] else None
        except msgspec.DecodeError:
            problems.append(FieldError(name, "must be JSON: a text in quotes, a number, true, false, …"))
    if not isinstance(trees.get("values"), dict | None):
        problems.append(FieldError("values", 'must be JSON like {"sale": "Buy", "*": "Other"}'))
    if not values["path"]:
        problems.append(FieldError("path", "is needed; to leave the slot unmapped there is a button"))
    if values["direction"] not in _DIRECTIONS:
        problems.append(FieldError("direction", f"must be one of {', '.join(_DIRECTIONS)}"))
    if problems:
        raise ValidationError("The rule cannot be read.", fields=tuple(problems))
    return Rule(
        path=values["path"],
        native=values["native"],
        format=values["format"],
        values=trees["values"] or {},
        constant=trees["constant"],
        default=trees["default"],
        direction=values["direction"],
    )


def _tried(place: Place, slot: Slot, rule: Rule, sample: str) -> Any:
    """What a value of this slot becomes under the rule: the provider's fields."""
    try:
        field_map = build_field_map(
            place.tenant, place.driver, place.object, {place.object: {slot.name: rule}}
        )
    except ValueError as error:
        raise ValidationError(str(error)) from None
    mapped = field_map.to_native({slot.name: _value(slot, sample)}, partial=True)
    if mapped.errors:
        raise ValidationError("This value cannot be written.", fields=tuple(mapped.errors))
    related = [{each.native_object: each.fields} for each in mapped.related]
    return [mapped.fields, *related] if related else mapped.fields
