"""Field maps: slots <-> the provider's own field paths, in both directions.

``fields.toml`` beside a driver holds its default map::

    identity = true                      # optional: every slot not named below has a path of its own name
    [lead]
    email = "email_from"                 # a text is the path
    phone = {path = "phone", format = "e164"}
    [lead.constants]                     # path = value, written on create only
    type = "opportunity"
    [lead.budget_max]                    # a table per slot works too
    native = "deal"                      # another native object (RelatedWrite)
    path = "budget_aed"
    [lead.full_name]
    path = "contact_name"
    join = ["first_name", "last_name"]   # used when full_name itself is not given
    [real_estate.lead]                   # a pack of one trade
    bedrooms = "x_bedrooms"

Paths are dotted (``address.city``, ``phones.0.number``); a dot inside a name is written ``\\.``. A list of
tables writes one slot to several places. Words of a rule: see :class:`FieldRule`. There is no code in a map.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import msgspec

from crmbridge.core.driver import CrmDriver
from crmbridge.core.errors import FieldError, ValidationError
from crmbridge.core.records import Object, RelatedWrite
from crmbridge.core.verticals import Slot, SlotType, Vertical, slots_for
from crmbridge.toolkit.formats import Locale, Step, ValueFault, coerce, format_named

__all__ = [
    "FieldMap",
    "FieldRule",
    "FieldTable",
    "Mapped",
    "get_path",
    "load_fields",
    "parse_fields",
    "put_path",
    "split_path",
]

MAX_DEPTH = 8
MAX_INDEX = 20


class FieldRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One slot's place at the provider.

    ``native`` names another native object that holds ``path``. ``format`` is a name of toolkit.formats.
    ``values`` maps canonical to provider values (``*`` is the fallback for any other), and is inverted for
    reading. A rule without slot writes ``constant``. ``constant`` and ``default`` act on create only.
    ``direction`` is ``both``, ``write`` or ``read``. ``join`` names slots whose texts, with a blank between,
    stand in when the slot itself is not given.
    """

    slot: str = ""
    path: str
    native: str = ""
    format: str = ""
    values: dict[str, Any] = {}
    constant: Any = None
    default: Any = None
    direction: str = "both"
    join: tuple[str, ...] = ()


class Mapped(msgspec.Struct, kw_only=True):
    """What became of a canonical record. ``fields`` is nested by path; nothing may be sent while ``errors``
    is not empty. ``leftover`` holds slots that have no place, kept by the policy ``note``."""

    fields: dict[str, Any]
    related: list[RelatedWrite]
    errors: list[FieldError]
    leftover: dict[str, Any]


class FieldTable(msgspec.Struct, frozen=True, kw_only=True):
    """The default maps of one driver: the general one and those of the trades."""

    general: dict[Object, tuple[FieldRule, ...]] = {}
    packs: dict[Vertical, dict[Object, tuple[FieldRule, ...]]] = {}
    is_identity: bool = False

    def rules(self, obj: Object, vertical: Vertical) -> list[FieldRule]:
        """The rules of one object for one trade; a pack's rule for a slot replaces the general one."""
        pack = self.packs.get(vertical, {}).get(obj, ())
        replaced = {rule.slot for rule in pack if rule.slot}
        rules = [rule for rule in self.general.get(obj, ()) if rule.slot not in replaced]
        rules.extend(pack)
        if self.is_identity:
            named = {rule.slot for rule in rules}
            rules.extend(
                FieldRule(slot=slot, path=slot) for slot in slots_for(obj, vertical) if slot not in named
            )
        return rules


def _rules_of(tree: Mapping[str, Any], where: str, prefix: str = "") -> Iterator[FieldRule]:
    for key, value in tree.items():
        slot, place = f"{prefix}{key}", f"{where}.{key}"
        if key == "constants" and not prefix:
            pairs = (
                value if isinstance(value, list) else [{"path": p, "constant": c} for p, c in value.items()]
            )
            yield from (_rule({**pair, "slot": ""}, place) for pair in pairs)
        elif isinstance(value, str):
            yield FieldRule(slot=slot, path=value)
        elif isinstance(value, list):
            yield from (_rule({**one, "slot": slot}, place) for one in value)
        elif isinstance(value, dict) and isinstance(value.get("path"), str):
            yield _rule({**value, "slot": slot}, place)
        elif isinstance(value, dict):
            yield from _rules_of(value, place, f"{slot}.")
        else:
            raise ValueError(f"{place}: write a path as a text, or a table with a path")


def _rule(tree: Mapping[str, Any], place: str) -> FieldRule:
    try:
        return msgspec.convert(tree, FieldRule)
    except msgspec.ValidationError as error:
        raise ValueError(f"{place}: {error}") from None


def parse_fields(text: str, where: str = "fields.toml") -> FieldTable:
    """The table of a fields.toml. Raises ValueError naming the place."""
    import tomllib  # here, and not above: a driver without its map is ready sooner

    tree = tomllib.loads(text)
    is_identity = bool(tree.pop("identity", False))
    general: dict[Object, tuple[FieldRule, ...]] = {}
    packs: dict[Vertical, dict[Object, tuple[FieldRule, ...]]] = {}
    for key, section in tree.items():
        if key in set(Object):
            general[Object(key)] = tuple(_rules_of(section, f"{where}: {key}"))
        elif key in set(Vertical):
            packs[Vertical(key)] = {
                Object(name): tuple(_rules_of(part, f"{where}: {key}.{name}"))
                for name, part in section.items()
            }
        else:
            raise ValueError(f"{where}: {key} is neither an object nor a trade")
    return FieldTable(general=general, packs=packs, is_identity=is_identity)


def load_fields(driver_class: type[CrmDriver]) -> FieldTable:
    """The fields.toml beside the driver's module; an empty table where there is none. Raises ValueError."""
    return _load(driver_class.__module__.rpartition(".")[0])


@lru_cache(maxsize=64)
def _load(package: str) -> FieldTable:
    from importlib.resources import files  # brings much with it

    resource = files(package).joinpath("fields.toml") if package else None
    if resource is None or not resource.is_file():
        return FieldTable()
    return parse_fields(resource.read_text("utf-8"), f"{package}/fields.toml")


@lru_cache(maxsize=4096)
def split_path(path: str) -> tuple[str, ...]:
    """The names of a dotted path. Raises ValueFault for an empty name or more than 8 names."""
    names = tuple(name.replace("\\.", ".") for name in re.split(r"(?<!\\)\.", path))
    if not all(names) or len(names) > MAX_DEPTH:
        raise ValueFault(f"needs a path of 1 to {MAX_DEPTH} names with dots between, such as address.city")
    return names


def put_path(tree: dict[str, Any], path: str, value: Any) -> None:
    """Sets the value at a dotted path, making what lies between. Raises ValueFault."""
    names = split_path(path)
    if len(names) == 1 and names[0] not in tree:
        tree[names[0]] = value
        return
    here: Any = tree
    for name, following in zip(names, (*names[1:], ""), strict=True):
        last = following == ""
        fresh: Any = value if last else ([] if following.isdigit() else {})
        if isinstance(here, list):
            index = int(name) if name.isdigit() else -1
            if not 0 <= index <= MAX_INDEX:
                raise ValueFault(f"needs a list position from 0 to {MAX_INDEX} in its path")
            here.extend({} for _ in range(index + 1 - len(here)))
            if last or (following.isdigit() and here[index] == {}):
                here[index] = fresh
            here = here[index]
        elif isinstance(here, dict):
            if last and isinstance(here.get(name, value), dict) is not isinstance(value, dict):
                raise ValueFault("has a path that another field's path runs through; correct the mapping")
            if last:
                here[name] = fresh
            here = here.setdefault(name, fresh)
        else:
            raise ValueFault("has a path that runs through another field's value; correct the mapping")


def get_path(tree: Any, path: str) -> Any:
    """The value at a dotted path, None where there is nothing."""
    here = tree
    for name in split_path(path):
        if isinstance(here, dict):
            here = here.get(name)
        elif isinstance(here, list) and name.isdigit():
            here = here[int(name)] if int(name) < len(here) else None
        else:
            return None
    return here


def _key(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (str, list, tuple, dict)) and len(value) == 0)


class FieldMap:
    """The map of one object on one connection. Raises ValidationError when a rule cannot work.

    ``slots`` are those of the tenant's trade and his own. ``unknown_slots`` is ``refuse`` or ``note``.
    ``region`` and ``time_zone`` are the tenant's, for phones and times that lack theirs.
    """

    def __init__(
        self,
        obj: Object,
        rules: Sequence[FieldRule],
        slots: Mapping[str, Slot],
        *,
        unknown_slots: str = "refuse",
        region: str = "",
        time_zone: str = "",
    ) -> None:
        self.object = obj
        self.rules = tuple(rules)
        self.slots = dict(slots)
        self.unknown_slots = unknown_slots
        self.locale = Locale(region, time_zone)
        if problems := list(self._rule_problems()):
            raise ValidationError("The field mapping cannot be used.", fields=tuple(problems))
        self._writing = [rule for rule in self.rules if rule.slot and rule.direction != "read"]
        self._reading = [rule for rule in self.rules if rule.slot and rule.direction != "write"]
        self._constants = [rule for rule in self.rules if not rule.slot]
        self._placed = {rule.slot for rule in self._writing}
        self._may_fill = [rule for rule in self._writing if rule.join or rule.default is not None]
        self._by_slot: dict[str, list[FieldRule]] = {}
        for rule in self._writing:
            self._by_slot.setdefault(rule.slot, []).append(rule)
        self._joined = {part for rule in self._writing for part in rule.join}
        self._placed |= self._joined
        self._plain = dict(self._plain_places())

    def _plain_places(self) -> Iterator[tuple[str, tuple[Slot, str, Step]]]:
        """Slots with one place, a plain name on this object: most of a record, written without detours."""
        for name, rules in self._by_slot.items():
            rule = rules[0]
            is_own = len(rules) == 1 and name not in self._joined and rule not in self._may_fill
            if is_own and not rule.native and not rule.values and len(split_path(rule.path)) == 1:
                yield name, (self.slots[name], split_path(rule.path)[0], format_named(rule.format).write)

    def _error(self, name: str, message: str) -> FieldError:
        return FieldError(f"{self.object.value}.{name}", message)

    def _rule_problems(self) -> Iterator[FieldError]:
        if self.unknown_slots not in ("refuse", "note"):
            yield self._error("*", "has an unknown_slots policy that is neither refuse nor note")
        taken: dict[tuple[str, str], str] = {}
        for rule in self.rules:
            name = rule.slot or f"constants.{rule.path}"
            for part in filter(None, (rule.slot, *rule.join)):
                if part not in self.slots:
                    yield self._error(part, f"is no slot; {self._near(part)}")
            if rule.direction not in ("both", "write", "read"):
                yield self._error(name, "has a direction that is not both, write or read")
            if rule.direction != "read" and taken.setdefault((rule.native, rule.path), name) != name:
                yield self._error(
                    name, f"has the same path as {taken[rule.native, rule.path]}; map one of them"
                )
            try:
                split_path(rule.path)
                slot = self.slots.get(rule.slot)
                if slot is not None and slot.type not in format_named(rule.format).types:
                    yield self._error(name, f"is {slot.type.value}; format {rule.format} is not for that")
            except ValueFault as fault:
                yield self._error(name, str(fault))

    def _near(self, name: str) -> str:
        near = get_close_matches(name, self.slots, n=3, cutoff=0.6)
        if near:
            return "did you mean " + " or ".join(f"{self.object.value}.{slot}" for slot in near) + "?"
        return f"the slots of {self.object.value} are {', '.join(self.slots)}"

    # -- writing -------------------------------------------------------------------------------------------

    def to_native(self, fields: Mapping[str, Any], *, partial: bool = False) -> Mapped:
        """Canonical fields in the provider's words. All errors of all fields are collected, none raised.

        Keys are slot names; a dotted slot may also come nested (``{"vehicle": {"make": …}}``). ``partial``
        is an update: constants and defaults stay out, and an empty value (null, empty text or list) clears
        the field; on a create it is left out.
        """
        mapped = Mapped(fields={}, related=[], errors=[], leftover={})
        trees: dict[str, dict[str, Any]] = {"": mapped.fields}
        if (others := self._write_plain(fields, mapped, partial)) or (fields and self._may_fill):
            values = self._canonical(self._flat(others), mapped)
            for rule in self._touched(values, partial):
                self._write(rule, values, mapped, trees, partial)
        for rule in self._constants:
            if not partial and (rule.native in trees or not rule.native):
                put_path(trees[rule.native], rule.path, rule.constant)
        mapped.related = [
            RelatedWrite(native_object=name, fields=tree) for name, tree in trees.items() if name
        ]
        return mapped

    def _write_plain(self, fields: Mapping[str, Any], mapped: Mapped, partial: bool) -> Mapping[str, Any]:
        """Writes the slots that have a plain place; answers the others."""
        if not self._plain:
            return fields
        others: dict[str, Any] = {}
        for name, value in fields.items():
            place = self._plain.get(name)
            if place is None:
                others[name] = value
            elif not _is_empty(value):
                slot, key, write = place
                try:
                    mapped.fields[key] = write(coerce(slot, value, self.locale), self.locale)
                except ValueFault as fault:
                    mapped.errors.append(self._error(name, str(fault)))
            elif partial:
                mapped.fields[place[1]] = None
        return others

    def _touched(self, values: Mapping[str, Any], partial: bool) -> Iterable[FieldRule]:
        """The rules that these slots concern: their own, and those that may speak for an absent slot."""
        own = [rule for slot in values for rule in self._by_slot.get(slot, ())]
        return own + [
            rule for rule in self._may_fill if rule.slot not in values and (rule.join or not partial)
        ]

    def _canonical(self, flat: Iterable[tuple[str, Any]], mapped: Mapped) -> dict[str, Any]:
        """The given slots, coerced; what is unknown or wrong goes to ``mapped`` instead."""
        values: dict[str, Any] = {}
        for name, value in flat:
            if name not in self._placed:
                if self.unknown_slots == "note":
                    mapped.leftover[name] = value
                else:
                    mapped.errors.append(self._error(name, self._no_place(name)))
            elif _is_empty(value):
                values[name] = None
            else:
                try:
                    values[name] = coerce(self.slots[name], value, self.locale)
                except ValueFault as fault:
                    mapped.errors.append(self._error(name, str(fault)))
        return values

    def _no_place(self, name: str) -> str:
        if name in self.slots:
            return "has no place in this CRM; map it to a field, or set the tenant's unknown_slots to note"
        return f"is no slot; {self._near(name)}"

    def _flat(self, fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for key, value in fields.items():
            name = f"{prefix}{key}"
            if (
                isinstance(value, dict)
                and name not in self.slots
                and any(slot.startswith(f"{name}.") for slot in self.slots)
            ):
                yield from self._flat(value, f"{name}.")
            else:
                yield name, value

    def _write(
        self,
        rule: FieldRule,
        values: Mapping[str, Any],
        mapped: Mapped,
        trees: dict[str, dict[str, Any]],
        partial: bool,
    ) -> None:
        try:
            is_given, value = self._value_for(rule, values, partial)
            if value is None and not partial and rule.default is not None:
                is_given, value = True, coerce(self.slots[rule.slot], rule.default, self.locale)
            if is_given and (value is not None or partial):
                native = None if value is None else self._native_value(rule, value)
                put_path(trees.setdefault(rule.native, {}), rule.path, native)
        except ValueFault as fault:
            mapped.errors.append(self._error(rule.slot, str(fault)))

    def _value_for(self, rule: FieldRule, values: Mapping[str, Any], partial: bool) -> tuple[bool, Any]:
        given = [part for part in rule.join if part in values]
        if rule.slot in values or not given:
            return rule.slot in values, values.get(rule.slot)
        if partial and len(given) < len(rule.join):
            raise ValueFault(f"is one field in this CRM; give {' and '.join(rule.join)} together")
        return True, " ".join(str(values[part]) for part in given if values[part] is not None) or None

    def _native_value(self, rule: FieldRule, value: Any) -> Any:
        if not rule.values:
            return format_named(rule.format).write(value, self.locale)
        if isinstance(value, list):
            return [self._lookup(rule, item) for item in value]
        return self._lookup(rule, value)

    def _lookup(self, rule: FieldRule, value: Any) -> Any:
        found = rule.values.get(_key(value), rule.values.get("*", msgspec.UNSET))
        if found is msgspec.UNSET:
            known = ", ".join(rule.values)
            raise ValueFault(f"has no counterpart in the value map, which knows: {known}; add it there")
        return found

    def to_match(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Slots and values as native path → native value, for an upsert's match or a search.

        Raises ValidationError naming each slot that is unknown, wrong, or kept on another native object.
        """
        mapped = Mapped(fields={}, related=[], errors=[], leftover={})
        answer: dict[str, Any] = {}
        values = self._canonical(self._flat(fields), mapped)
        mapped.errors.extend(self._error(name, self._no_place(name)) for name in mapped.leftover)
        for name, value in values.items():
            try:
                rule = next((one for one in self._writing if one.slot == name and not one.native), None)
                if rule is None:
                    raise ValueFault(
                        "has no field of its own on this object in this CRM, so it cannot be matched"
                    )
                answer[rule.path] = None if value is None else self._native_value(rule, value)
            except ValueFault as fault:
                mapped.errors.append(self._error(name, str(fault)))
        if mapped.errors:
            raise ValidationError("Some fields cannot be matched.", fields=tuple(mapped.errors))
        return answer

    # -- reading -------------------------------------------------------------------------------------------

    def to_canonical(
        self, native: Mapping[str, Any], related: Mapping[str, Mapping[str, Any]] | None = None
    ) -> dict[str, Any]:
        """The provider's fields as slots. Empty fields are left out; a provider value that its slot would not
        take (a phone without a country) comes as the provider wrote it. ``related``: native object → fields."""
        answer: dict[str, Any] = {}
        for rule in self._reading:
            if rule.slot in answer:
                continue
            tree = (related or {}).get(rule.native, {}) if rule.native else native
            value = get_path(tree, rule.path)
            slot = self.slots[rule.slot]
            if rule.values:
                value = self._from_values(rule, value)
            if _is_empty(value) or (value is False and slot.type is not SlotType.BOOLEAN):
                continue  # false stands for "empty" at some providers
            canonical = self._slot_value(rule, slot, value)
            if not _is_empty(canonical):
                answer[rule.slot] = canonical
        return answer

    def _from_values(self, rule: FieldRule, value: Any) -> Any:
        if isinstance(value, list):
            return [self._from_values(rule, item) for item in value]
        inverse = (key for key, native in rule.values.items() if key != "*" and _key(native) == _key(value))
        return next(inverse, value)

    def _slot_value(self, rule: FieldRule, slot: Slot, value: Any) -> Any:
        try:
            read = value if rule.values else format_named(rule.format).read(value, self.locale)
            return coerce(slot, read, self.locale)
        except ValueFault:
            return value if isinstance(value, (str, int, float, list)) else None

    def native_path(self, slot: str) -> str:
        """The path of a slot on this object itself. Raises ValidationError where there is none."""
        for rule in self.rules:
            if rule.slot == slot and not rule.native:
                return rule.path
        raise ValidationError(
            "This slot has no field in this CRM.", fields=(self._error(slot, self._no_place(slot)),)
        )
