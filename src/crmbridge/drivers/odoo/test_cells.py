"""Rows for ``load``: what is a row as it stands, and how rows of different columns come together."""

from __future__ import annotations

from typing import Any

import pytest

from crmbridge.drivers.odoo.cells import Row, groups, mark, mark_text, opened


def row(place: int, **cells: str) -> Row:
    return Row(place=place, cells=cells, was_created=True)


def test_fields_when_all_are_texts_of_plain_columns_then_they_are_cells_already() -> None:
    fields = {"name": "Flat", "city": "Dubai"}
    paths, is_text = opened(fields)
    assert (paths, is_text) == (fields, True)
    assert paths is not fields


@pytest.mark.parametrize(
    "other",
    [
        {"expected_revenue": 5},
        {"city": None},
        {"state_id": "Dubai"},
        {"country_id.code": "AE"},
        {"tag_ids": ["a"]},
    ],
)
def test_fields_when_one_needs_work_then_they_are_no_cells_yet(other: dict[str, Any]) -> None:
    assert opened({"name": "Flat", **other}) == ({"name": "Flat", **other}, False)


def test_fields_when_nested_then_as_paths_and_no_cells_yet() -> None:
    nested = {"name": "Flat", "country_id": {"code": "AE"}}
    assert opened(nested) == ({"name": "Flat", "country_id.code": "AE"}, False)


def test_rows_when_some_lack_plain_columns_then_one_group_in_order_of_places() -> None:
    rows = [
        row(0, id="a", phone="1"),
        row(1, id="b"),
        row(2, id="c", phone="3"),
        row(3, id="d", city="Dubai"),
        row(4, id="e"),
    ]
    ((columns, members),) = groups("crm.lead", rows, fill=True)
    assert sorted(columns) == ["city", "id", "phone"]
    assert [one.place for one in members] == [0, 1, 2, 3, 4]
    assert [one.cells["phone"] for one in members] == ["1", "", "3", "", ""]
    assert [one.cells["city"] for one in members] == ["", "", "", "Dubai", ""]


def test_rows_when_a_column_is_no_plain_one_then_groups_of_their_own() -> None:
    rows = [row(0, id="a", name="x"), row(1, id="b"), row(2, name="z", id="c")]
    found = groups("crm.lead", rows, fill=True)
    assert [[one.place for one in members] for _, members in found] == [[0, 2], [1]]


def test_rows_when_linked_to_a_contact_then_nothing_is_filled_in() -> None:
    linked = {"id": "a", "partner_id/.id": "7"}
    found = groups("crm.lead", [row(0, **linked), row(1, id="b", phone="1")], fill=True)
    assert [columns for columns, _ in found] == [["id", "partner_id/.id"], ["id", "phone"]]


def test_rows_when_of_updates_then_an_absent_column_stays_absent() -> None:
    found = groups("crm.lead", [row(0, phone="1"), row(1, city="x")], fill=False)
    assert [columns for columns, _ in found] == [["phone"], ["city"]]


@pytest.mark.parametrize("target", ["0198-ab", "not a name", "x" * 120])
def test_mark_when_written_as_one_text_then_the_same_as_in_two_parts(target: str) -> None:
    assert mark_text("crmbridge_AB", target) == ".".join(mark("crmbridge_AB", target))
