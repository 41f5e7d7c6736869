"""Conditions become text in one place: names are checked, literals have the form of their kind."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest

from crmbridge.core.errors import ValidationError
from crmbridge.toolkit.queries import (
    AllOf,
    AnyOf,
    Compare,
    Dialect,
    In,
    Kind,
    all_of,
    date_text,
    equal,
    older_than,
)


class Plain(Dialect):
    provider, product, language = "acme", "Acme", "AQL"
    name = re.compile("[a-z]{1,9}")
    is_no_name = "is no name of Acme"
    most_values = 3

    def quoted(self, text: str) -> str:
        return "'" + text.replace("'", "''") + "'"

    def other(self, value: Any, kind: Kind, field: str) -> str:
        if kind is Kind.DATE:
            return date_text(value)
        return self.moment(value, field) if kind is Kind.DATETIME else ""

    def like(self, part: Any) -> str:
        return f"like {part}"

    def joined(self, texts: list[str], *, is_any: bool) -> str:
        return "(" + (" or " if is_any else " and ").join(texts) + ")"


AQL = Plain()


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ("O'Hara", Kind.TEXT, "'O''Hara'"),
        (True, Kind.BOOLEAN, "true"),
        (0.1, Kind.NUMBER, "0.1"),
        (Decimal("1E+3"), Kind.NUMBER, "1000"),
        ("2027-02-28T10:00:00Z", Kind.DATE, "2027-02-28"),
        ("2027-02-28T10:00:00+04:00", Kind.DATETIME, "2027-02-28T06:00:00+00:00"),
        ("2027-02-28T10:00:00", Kind.DATETIME, "2027-02-28T10:00:00+00:00"),
    ],
)
def test_literal_when_it_suits_its_kind_then_as_the_language_has_it(
    value: Any, kind: Kind, text: str
) -> None:
    assert AQL.literal(value, kind) == text


@pytest.mark.parametrize(
    ("value", "kind", "problem"),
    [
        ("1 or 1=1", Kind.NUMBER, "is not a number"),
        (float("nan"), Kind.NUMBER, "is not a number"),
        (Decimal("Infinity"), Kind.NUMBER, "is not a number"),
        ("yes", Kind.BOOLEAN, "is not true or false"),
        ("soon", Kind.DATE, "is not a date"),
        ("soon", Kind.DATETIME, "is not a time"),
        ("x", Kind.LOOKUP, "is found by the id"),
        ("x", Kind.LIST, "of a type that AQL cannot compare"),
    ],
)
def test_literal_when_it_does_not_suit_its_kind_then_refused_with_its_field(
    value: Any, kind: Kind, problem: str
) -> None:
    with pytest.raises(ValidationError, match="Acme cannot be asked this: size is") as caught:
        AQL.literal(value, kind, "size")
    assert caught.value.fields[0].field == "size" and problem in caught.value.fields[0].message


def test_condition_when_nested_then_empty_parts_fall_away() -> None:
    where = AllOf((Compare("a", "=", "x"), AnyOf((Compare("b", "<", 2, Kind.NUMBER), In("c", ("y", "z"))))))
    assert AQL.condition(where) == "(a = 'x' and (b < 2 or c in ('y', 'z')))"
    assert AQL.condition(Compare("a", "=", None)) == "a is null"


@pytest.mark.parametrize(
    "part",
    [
        Compare("a = 'x' or b", "=", "x"),
        Compare("a", "= '' or b !=", "x"),
        In("a", ()),
        In("a", ("1", "2", "3", "4")),
        In("A", ("1",)),
    ],
)
def test_condition_when_name_operator_or_values_are_odd_then_refused(part: Any) -> None:
    with pytest.raises(ValidationError):
        AQL.condition(part)


def test_conditions_when_made_of_pairs_then_empty_ones_are_null() -> None:
    pairs = {"a": "", "b": 2}
    made = equal(pairs, lambda name: Kind.NUMBER if name == "b" else Kind.TEXT)
    assert AQL.condition(all_of(made)) == "(a is null and b = 2)"
    assert all_of([]) is None


def test_list_when_it_goes_on_then_older_or_as_old_with_a_smaller_id() -> None:
    said = AQL.condition(older_than("time", "2027-01-01T00:00:00Z", "id", "7"))
    assert said == ("(time < 2027-01-01T00:00:00+00:00 or (time = 2027-01-01T00:00:00+00:00 and id < '7'))")
