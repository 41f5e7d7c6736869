"""Rows for ``load``: what is a row as it stands, and how rows of different columns come together."""

from __future__ import annotations

from typing import Any

import pytest

from crmbridge.core.operations import Operation
from crmbridge.core.records import Object, Write
from crmbridge.drivers.odoo.cells import (
    Row,
    Sheet,
    complete,
    groups,
    mark,
    mark_text,
    mark_texts,
    opened,
    sheets,
    text_sheets,
)


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


@pytest.mark.parametrize("odd", ["", "-", "-a", "a-", "a--b", "not a name", "x" * 101, "é", "٣"])
def test_marks_when_one_is_of_an_odd_form_then_each_is_the_same_as_alone(odd: str) -> None:
    for targets in ([odd], ["0198-ab", odd], [odd, "0198-ab", "y" * 100]):
        assert mark_texts("crmbridge_AB", targets) == [mark_text("crmbridge_AB", one) for one in targets]


def created(*given: dict[str, Any], obj: Object = Object.LEAD, **more: Any) -> list[Write]:
    return [
        Write(target_id=f"t{place}", operation=Operation.CREATE, object=obj, fields=fields, **more)
        for place, fields in enumerate(given)
    ]


def as_said(found: list[Sheet]) -> list[dict[int, dict[str, str]]]:
    return [
        {
            place: dict(zip(one.columns, row, strict=True))
            for place, row in zip(one.places, one.cells, strict=True)
        }
        for one in found
    ]


@pytest.mark.parametrize(
    "given",
    [
        [{"name": "a", "phone": "1"}, {"name": "b"}, {"phone": "3", "name": "c"}],
        [{"name": "a"}, {"name": "b", "city": ""}, {"name": "c", "phone": "3"}],
        [{"name": "a", "x_color": "red"}, {"name": "b", "phone": "1"}, {"x_color": "", "name": "c"}],
        [{"name": "a"}],
        [{"name": "Lead"}, {"name": "", "phone": "1"}, {"name": "Lead", "contact_name": "c", "phone": "2"}],
        [{"name": "b", "contact_name": "c"}, {"email_from": "e", "name": "", "contact_name": ""}],
    ],
)
def test_sheets_when_of_texts_then_the_same_as_by_way_of_rows(given: list[dict[str, Any]]) -> None:
    writes = created(*given)
    rows = []
    for place, write in enumerate(writes):
        paths, is_text = opened(write.fields)
        assert is_text
        complete(Object.LEAD, paths)
        rows.append(row(place, **paths, id=mark_text("crmbridge_AB", write.target_id)))
    found = text_sheets(Object.LEAD, "crm.lead", writes, "crmbridge_AB")
    assert found is not None
    assert as_said(found) == as_said(sheets("crm.lead", rows, fill=True))
    assert [sorted(one.places) for one in found] == [one.places for one in found]
    assert [write.fields for write in writes] == given


@pytest.mark.parametrize(
    "other",
    [
        {"name": "b", "expected_revenue": 5},
        {"name": "b", "city": None},
        {"name": "b", "country_id": {"code": "AE"}},
        {"name": "b", "tag_ids.name": "hot"},
        {"name": "b", "state_id": "Dubai"},
        {"name": "b", "id": "mine"},
        {"phone": "1"},
    ],
)
def test_sheets_when_one_record_needs_work_then_none(other: dict[str, Any]) -> None:
    assert text_sheets(Object.LEAD, "crm.lead", created({"name": "a"}, other), "crmbridge_AB") is None


def test_sheets_when_a_write_is_linked_or_of_a_record_that_is_there_then_none() -> None:
    linked = created({"name": "a"}, links={"customer": "7"})
    known = created({"name": "a"}, remote_id="7")
    assert text_sheets(Object.LEAD, "crm.lead", linked, "crmbridge_AB") is None
    assert text_sheets(Object.LEAD, "crm.lead", known, "crmbridge_AB") is None


def test_sheets_when_of_customers_then_no_title_is_asked_for() -> None:
    writes = created({"email": "a@example.com"}, {"name": ""}, obj=Object.CUSTOMER)
    found = text_sheets(Object.CUSTOMER, "res.partner", writes, "crmbridge_AB")
    assert found is not None
    assert [one.columns for one in found] == [["email", "id"], ["name", "email", "id"]]
