"""Grouping of places: no key twice in a turn, order kept, parts of a largest size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.toolkit.batches import parts, rounds


def test_rounds_when_a_key_repeats_then_it_waits_for_the_next_turn() -> None:
    assert rounds({0: "a", 1: "b", 2: "a", 3: "a"}) == [[0, 1], [2], [3]]


def test_rounds_when_nothing_is_given_then_no_turn() -> None:
    assert rounds({}) == []


@given(st.lists(st.sampled_from("abc"), max_size=40))
def test_rounds_when_any_keys_then_all_places_once_and_in_order_per_key(keys: list[str]) -> None:
    turns = rounds(dict(enumerate(keys)))
    assert sorted(place for turn in turns for place in turn) == list(range(len(keys)))
    assert all(len({keys[place] for place in turn}) == len(turn) for turn in turns)
    for key in set(keys):
        told = [place for turn in turns for place in turn if keys[place] == key]
        assert told == sorted(told)


@pytest.mark.parametrize(
    ("count", "size", "sizes"), [(0, 3, []), (3, 3, [3]), (4, 3, [3, 1]), (2, 1, [1, 1])]
)
def test_parts_when_cut_then_all_in_order(count: int, size: int, sizes: list[int]) -> None:
    found = list(parts(list(range(count)), size))
    assert [len(part) for part in found] == sizes
    assert [item for part in found for item in part] == list(range(count))
