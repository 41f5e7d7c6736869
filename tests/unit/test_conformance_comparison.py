"""When two slot values mean the same."""

from __future__ import annotations

from typing import Any

import pytest

from crmbridge.conformance.comparison import is_empty, same
from crmbridge.conformance.samples import SAMPLES, numbered
from crmbridge.core.records import Object
from crmbridge.core.verticals import Slot, SlotType, Vertical, slots_for


@pytest.mark.parametrize(
    ("kind", "sent", "seen", "is_same"),
    [
        ("money", "1250000.50", "1250000.5", True),
        ("money", "0.1", 0.1, True),
        ("money", "0.1", "0.10000000000000001", False),
        ("money", "0", False, False),
        ("money", "1", None, False),
        ("integer", 2, "2", True),
        ("datetime", "2027-01-15T14:30:00+04:00", "2027-01-15T10:30:00Z", True),
        ("datetime", "2027-01-15T14:30:00+04:00", "2027-01-15T14:30:00Z", False),
        ("datetime", "2027-01-15T14:30:00+04:00", "2027-01-15T14:30:00", False),
        ("date", "2024-02-29", "2024-02-29", True),
        ("date", "2024-02-29", "2024-02-28", False),
        ("email", "A@Example.com", "a@example.com", True),
        ("tags", ["a", "b"], ["b", "a"], True),
        ("tags", ["a"], "a", False),
        ("boolean", True, "true", False),
        ("text", "Zoë", "Zoe\u0308", False),
        ("text", "a", " a", False),
    ],
)
def test_same_when_compared_then_by_meaning(kind: str, sent: Any, seen: Any, is_same: bool) -> None:
    slot = Slot(object=Object.LEAD, name="x", type=SlotType(kind))
    assert same(slot, sent, seen) is is_same


def test_empty_when_cleared_then_true() -> None:
    empty: tuple[Any, ...] = (None, "", [], False)
    told: tuple[Any, ...] = ("0", "False", [""], True)
    assert all(is_empty(value) for value in empty)
    assert not any(is_empty(value) for value in told)


def test_numbered_when_another_person_then_only_email_and_phone_differ() -> None:
    sample = SAMPLES[Object.CUSTOMER]
    other = numbered(sample, 12)
    assert {name for name in sample if sample[name] != other[name]} == {"email", "phone"}
    assert numbered(sample, 0) == sample
    assert len({numbered(sample, number)["phone"] for number in range(500)}) == 500


def test_samples_when_read_then_every_slot_exists_in_some_trade() -> None:
    for obj, sample in SAMPLES.items():
        known = {name for vertical in Vertical for name in slots_for(obj, vertical)}
        assert sample.keys() <= known
