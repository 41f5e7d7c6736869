"""Topic round_trip: what is written can be read back, to the letter, the cent and the instant."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from crmbridge.conformance.cases import NotApplicable, expect, per_object
from crmbridge.conformance.comparison import is_empty, same
from crmbridge.conformance.harness import Bench, Harness
from crmbridge.core.errors import ValidationError
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object
from crmbridge.core.verticals import SlotType

__all__ = ["RoundTripTopic"]

_TEXTS = {
    "accents": "Zoë Ångström-Núñez, ﬁn",
    "right-to-left": "عائشة المنصوري",
    "emoji": "Flat 🏙️ with a view 👩‍👩‍👧",
    "markup": "a < b & c > \"d\" 'e' <b>bold</b> &amp; 100 %",
    "templates": "{{ record.email }} ${x} %s {0}",
    "outer quotes": '"quoted"',
}
_LONG = ("Long transcript line with ümlauts and 漢字. " * 120).strip()
_EXACT = {
    SlotType.MONEY: ("0.1", "1234567.89", "0", "250"),
    SlotType.DATE: ("2024-02-29", "1970-01-01", "2027-12-31"),
    SlotType.DATETIME: (
        "2027-01-15T23:30:00+04:00",
        "2027-07-01T00:00:00+00:00",
        "2027-03-28T02:30:00-05:00",
    ),
}


class RoundTripTopic(Harness):
    """Create and update, then get, through the field map both ways. Each record is another person: providers refuse
    a second one with the same e-mail or phone."""

    @per_object(Operation.CREATE)
    async def test_remote_ids_are_texts(self, obj: Object) -> None:
        bench = await self.make()
        result = await bench.create(obj)
        remote_id: object = result.remote_id
        expect(isinstance(remote_id, str), f"remote_id is {type(remote_id).__name__}, expected str")
        expect(remote_id, "remote_id of a created record is empty")
        if self.manifest().supports(obj, Operation.GET).is_usable:
            again: object = (await bench.driver.get_record(obj, result.remote_id)).remote_id
            expect(isinstance(again, str), f"get answers a remote_id of {type(again).__name__}")

    @per_object(Operation.CREATE, Operation.GET)
    async def test_round_trip_keeps_every_mapped_slot(self, obj: Object) -> None:
        bench = await self.make()
        sample = self.sample(obj)
        sent = self.two_way(obj, sample)
        expect(sent, f"the map of {obj.value} carries no slot of the sample both ways")
        record = await bench.get(obj, (await bench.create(obj, sample)).remote_id)
        self._expect_same(obj, sent, record.fields)
        _expect_stamp(record.updated_at)

    @per_object(Operation.CREATE, Operation.GET)
    async def test_round_trip_keeps_any_text(self, obj: Object) -> None:
        bench = await self.make()
        slots = self.free_texts(obj)
        if not slots:
            raise NotApplicable("the sample has no slot that takes any text")
        for number, (kind, text) in enumerate(_TEXTS.items()):
            fields = {**self.sample(obj, number), **dict.fromkeys(slots, text)}
            record = await bench.get(obj, (await bench.create(obj, fields)).remote_id)
            self._expect_same(obj, dict.fromkeys(slots, text), record.fields, kind)

    @per_object(Operation.CREATE, Operation.GET)
    async def test_round_trip_keeps_empty_text_empty(self, obj: Object) -> None:
        bench = await self.make()
        required = self.manifest().objects[obj].required
        for number, slot in enumerate(self.free_texts(obj)):
            if self.map_for(obj).native_path(slot) in required:
                continue
            fields = {**self.sample(obj, number), slot: ""}
            try:
                made = await bench.create(obj, fields)
            except ValidationError:
                continue  # a required text: the provider says so, nothing was made up
            seen = (await bench.get(obj, made.remote_id)).fields.get(slot)
            expect(is_empty(seen), f"{obj.value}.{slot} was sent empty and reads {_short(seen)}")

    @per_object(Operation.CREATE, Operation.GET)
    async def test_round_trip_keeps_long_text(self, obj: Object) -> None:
        bench = await self.make()
        slots = [slot for slot in self.free_texts(obj) if self.slots(obj)[slot].type is SlotType.LONG_TEXT]
        if not slots:
            raise NotApplicable("the sample has no long text")
        text = _LONG + "\n\nSecond paragraph."
        fields = {**self.sample(obj), slots[0]: text}
        record = await bench.get(obj, (await bench.create(obj, fields)).remote_id)
        self._expect_same(obj, {slots[0]: text}, record.fields, f"{len(text)} characters")

    @per_object(Operation.CREATE, Operation.GET)
    async def test_round_trip_keeps_money_dates_and_zones_exact(self, obj: Object) -> None:
        bench = await self.make()
        cases = self._exact_cases(obj)
        if not cases:
            raise NotApplicable("the sample has no money, date or datetime")
        for number, (slot, value) in enumerate(cases):
            fields = {**self.sample(obj, number), slot: value, **self._end_after(obj, slot, value)}
            record = await bench.get(obj, (await bench.create(obj, fields)).remote_id)
            self._expect_same(obj, {slot: value}, record.fields)

    @per_object(Operation.CREATE, Operation.GET, Operation.UPDATE)
    async def test_update_changes_the_named_slot_and_leaves_others(self, obj: Object) -> None:
        bench = await self.make()
        sample = self.two_way(obj, self.sample(obj))
        made = await bench.create(obj)
        texts = self.free_texts(obj)
        if not texts:
            raise NotApplicable("the sample has no slot that takes any text")
        await bench.update(obj, made.remote_id, {texts[0]: "Changed to this"})
        record = await bench.get(obj, made.remote_id)
        self._expect_same(obj, {**sample, texts[0]: "Changed to this"}, record.fields, "after an update")

    @per_object(Operation.CREATE, Operation.GET, Operation.UPDATE)
    async def test_none_clears_a_slot(self, obj: Object) -> None:
        bench = await self.make()
        required = set(self.manifest().objects[obj].required)
        slots = [
            slot
            for slot in self.two_way(obj, self.sample(obj))
            if self.map_for(obj).native_path(slot) not in required
            and self.slots(obj)[slot].type not in (SlotType.BOOLEAN, SlotType.DATETIME)
        ]
        if not slots:
            raise NotApplicable("every mapped slot of the sample is required")
        cleared = [await self._is_cleared(bench, obj, slot, number) for number, slot in enumerate(slots)]
        expect(any(cleared), f"the provider refuses to clear any slot of {obj.value}")

    async def _is_cleared(self, bench: Bench, obj: Object, slot: str, number: int) -> bool:
        """False when the provider says no (a required field); a silent no breaks the contract."""
        made = await bench.create(obj, self.sample(obj, number))
        try:
            await bench.update(obj, made.remote_id, {slot: None})
        except ValidationError:
            return False
        record = await bench.get(obj, made.remote_id)
        seen = record.fields.get(slot)
        is_zero = self.slots(obj)[slot].type in (SlotType.MONEY, SlotType.INTEGER, SlotType.NUMBER) and (
            str(seen) in ("0", "0.0", "0.00")
        )
        expect(is_empty(seen) or is_zero, f"{obj.value}.{slot} was set to None and still holds a value")
        return True

    def _exact_cases(self, obj: Object) -> list[tuple[str, Any]]:
        slots = self.slots(obj)
        return [
            (slot, value)
            for slot in self.two_way(obj, self.sample(obj))
            for value in _EXACT.get(slots[slot].type, ())
        ]

    def _end_after(self, obj: Object, slot: str, value: Any) -> dict[str, Any]:
        """A start moves with its end, so that a provider's check of their order is not what is tried."""
        pairs = {
            "start_at": "end_at",
            "end_at": "start_at",
            "started_at": "ended_at",
            "ended_at": "started_at",
        }
        other = pairs.get(slot)
        return {other: value} if other in self.sample(obj) and other is not None else {}

    def _expect_same(self, obj: Object, sent: dict[str, Any], seen: dict[str, Any], kind: str = "") -> None:
        lost = []
        for slot, value in sent.items():
            if not same(self.slots(obj)[slot], value, seen.get(slot)):
                lost.append(f"{obj.value}.{slot}: sent {_short(value)}, read {_short(seen.get(slot))}")
        expect(not lost, f"{kind + ': ' if kind else ''}{'; '.join(lost)}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"


def _expect_stamp(text: str) -> None:
    if not text:
        return
    try:
        is_aware = datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        is_aware = False
    expect(is_aware, f"updated_at {text!r} is not RFC 3339 with a zone")
