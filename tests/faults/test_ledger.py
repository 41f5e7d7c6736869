"""The judge itself: what it calls lost, doubled, parked and refused."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.faults.ledger import Holdings, Line, table_of

pytestmark = pytest.mark.faults
ONE = Counter({"contacts": 1, "deals": 1})


@pytest.mark.parametrize(
    ("state", "rows", "lost", "doubled", "is_kept"),
    [
        ("applied", ONE, 0, 0, True),
        ("parked", ONE, 0, 0, True),
        ("parked", Counter(), 0, 0, True),
        ("applied", Counter({"contacts": 1}), 1, 0, False),
        ("applied", Counter(), 1, 0, False),
        ("applied", Counter({"contacts": 2, "deals": 1}), 0, 1, False),
        ("parked", Counter({"contacts": 2}), 0, 1, False),
        ("retrying", Counter(), 1, 0, False),
        ("dead_letter", Counter(), 1, 0, False),
    ],
)
def test_write_when_judged_then_counted(
    state: str, rows: Counter[str], lost: int, doubled: int, is_kept: bool
) -> None:
    line = Line("x")
    line.judge("Fxaaaa000001", state, rows, ONE)
    assert (line.lost, line.doubled, line.is_kept) == (lost, doubled, is_kept), table_of([line])


def test_holdings_when_a_token_stands_in_two_fields_then_one_row() -> None:
    row = {
        "id": 1,
        "fields": {"name": "Fxabcd000001 x", "email": "fxabcd000001@example.com", "note": "Fxabcd000001"},
    }
    held = Holdings.read({"contacts": [row, row], "deals": [{"id": 2, "fields": {}}]})
    assert held.by_token["Fxabcd000001"] == Counter({"contacts": 2})
    assert held.rows == Counter({"contacts": 2, "deals": 1})
