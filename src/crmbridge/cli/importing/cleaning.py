"""From the cells of one row to slot values, by the tenant's own slots; what a slot cannot hold goes to a note.

An E.164 number has no extension, an amount no currency, and not every CRM a place for every slot: what would be
lost is kept in the object's own long text (``lead.message``, say), one short line each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from crmbridge.cli.importing.cells import Value, clean_value, currency, phone_extension
from crmbridge.cli.importing.headers import parse_map_option, suggest_mapping
from crmbridge.cli.problems import UsageProblem

__all__ = ["Cleaner", "Slots", "SpoiltRow", "choose_mapping", "note_slot", "slots_from"]

_NOTE_SLOTS: Final = {
    "customer": "notes",
    "lead": "message",
    "deal": "description",
    "appointment": "notes",
    "case": "description",
    "note": "body",
    "activity": "body",
}


class SpoiltRow(ValueError):
    """A row with cells that cannot be read; the text names each column and why, and nothing of the cells."""


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots of one object for one tenant: name → type, options of pick lists, and which reach the CRM."""

    types: Mapping[str, str]
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mapped: frozenset[str] = frozenset()

    def reaches(self, slot: str) -> bool:
        """Whether the connection has a place for this slot."""
        return slot in self.mapped


def slots_from(
    obj: str, vertical: str, mappings: Sequence[Mapping[str, Any]], *, keeps_unknown: bool = False
) -> Slots:
    """The slots of ``obj`` from the answer of ``GET mappings``; options come with the tenant's vertical.

    ``keeps_unknown``: the tenant's policy keeps slots without a place in a note, so that all may be sent.
    """
    from crmbridge.core.records import Object
    from crmbridge.core.verticals import Vertical, slots_for

    known = slots_for(Object(obj), Vertical(vertical))
    lines = [line for line in mappings if line["object"] == obj]
    written = {
        line["slot"]
        for line in lines
        if (line.get("rule") or {}).get("path") and (line["rule"].get("direction") or "both") != "read"
    }
    types = {line["slot"]: line["type"] for line in lines}
    return Slots(
        types=types,
        options={name: slot.options for name, slot in known.items() if slot.options},
        # A driver without any field rule passes slots on under their own names.
        mapped=frozenset(types if keeps_unknown or not written else written),
    )


def choose_mapping(headers: Sequence[str], slots: Slots, option: str) -> dict[str, str | None]:
    """Header → slot (None leaves the column out): a suggestion, overruled by ``--map``.

    Raises UsageProblem for a header or slot that is not there, and when nothing at all is mapped.
    """
    try:
        wanted = parse_map_option(option) if option else {}
    except ValueError as error:
        raise UsageProblem(str(error)) from None
    for header, slot in wanted.items():
        if header not in headers:
            raise UsageProblem(
                f"The file has no column {header!r}.", hint="Columns: " + ", ".join(headers[:40])
            )
        if slot is not None and slot not in slots.types:
            raise UsageProblem(f"There is no slot {slot!r}.", hint="Slots: " + ", ".join(sorted(slots.types)))
    taken = {slot for slot in wanted.values() if slot}
    free = {slot: () for slot in slots.types if slot not in taken}
    suggested = suggest_mapping([header for header in headers if header not in wanted], free)
    mapping = {header: wanted.get(header, suggested.get(header)) for header in headers}
    if not any(mapping.values()):
        raise UsageProblem(
            "No column of the file means a slot.",
            hint=f'Name them: --map "{headers[0]}=email". Slots: ' + ", ".join(sorted(slots.types)),
        )
    return mapping


def note_slot(obj: str, slots: Slots) -> str:
    """The long text that keeps what has no slot or no place in this CRM, or an empty text."""
    name = _NOTE_SLOTS.get(obj, "")
    return name if name and slots.reaches(name) else ""


class Cleaner:
    """Turns rows into ``fields`` of a write. Raises UsageProblem for an unknown zone or region."""

    def __init__(
        self,
        obj: str,
        mapping: Mapping[str, str | None],
        slots: Slots,
        *,
        region: str = "",
        dayfirst: bool | None = None,
        zone: str = "UTC",
    ) -> None:
        self._slots = slots
        self._columns = [(header, slot, slots.types[slot]) for header, slot in mapping.items() if slot]
        self._region = _checked_region(region)
        self._dayfirst = dayfirst
        self._zone = _zone(zone)
        self._note_slot = note_slot(obj, slots)

    def fields(self, values: Mapping[str, str]) -> dict[str, Any]:
        """The slots of one row, without blank ones. Raises SpoiltRow naming every column that is wrong."""
        fields: dict[str, Any] = {}
        problems: list[str] = []
        notes: list[str] = []
        money: dict[str, str] = {}
        for header, slot, kind in self._columns:
            text = values[header]
            try:
                value = self._clean(slot, kind, text)
                if value in (None, []):
                    continue
                if not self._slots.reaches(slot):
                    notes.append(f"{header}: {_as_text(value)}")
                    continue
                if kind == "phone" and (digits := phone_extension(text, region=self._region)):
                    notes.append(f"Extension of {slot}: {digits}")
                elif kind == "money" and (code := currency(text)):
                    money[slot] = code
                fields[slot] = value
            except ValueError as error:
                problems.append(f"{header}: {error}")
        if problems:
            raise SpoiltRow("; ".join(problems))
        notes.extend(self._currencies(money, fields))
        self._keep(notes, fields)
        if not fields:
            raise SpoiltRow("every mapped column is empty")
        return fields

    def _clean(self, slot: str, kind: str, text: str) -> Value:
        return clean_value(
            kind,
            text,
            region=self._region,
            dayfirst=self._dayfirst,
            zone=self._zone,
            options=self._slots.options.get(slot, ()),
        )

    def _currencies(self, money: Mapping[str, str], fields: dict[str, Any]) -> list[str]:
        codes = set(money.values())
        if not codes:
            return []
        if len(codes) == 1 and self._slots.reaches("currency"):
            fields.setdefault("currency", codes.pop())
            return []
        if len(codes) == 1:
            return [f"Currency: {codes.pop()}"]
        return [f"Currency of {slot}: {code}" for slot, code in money.items()]

    def _keep(self, notes: list[str], fields: dict[str, Any]) -> None:
        if not notes or not self._note_slot:
            return
        said = fields.get(self._note_slot)
        fields[self._note_slot] = "\n".join([*([str(said)] if said else []), *notes])


def _as_text(value: Value) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _checked_region(region: str) -> str | None:
    if not region:
        return None
    import phonenumbers

    if region.upper() not in phonenumbers.SUPPORTED_REGIONS:
        raise UsageProblem(
            f"There is no country {region[:20]!r} for phone numbers.",
            hint="Give two letters, such as --region AE.",
        )
    return region.upper()


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageProblem(
            f"There is no time zone {name[:60]!r}.", hint="For example --zone Asia/Dubai."
        ) from None
