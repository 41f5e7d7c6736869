"""SOQL is built so that no value gets out of its place; the emulator's own evaluator is the judge."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crmbridge.core.errors import ValidationError
from crmbridge.drivers.salesforce.emulated_soql import SoqlRefused, parse
from crmbridge.drivers.salesforce.soql import (
    SOQL,
    AllOf,
    AnyOf,
    Compare,
    In,
    Kind,
    Like,
    Select,
)

HOSTILE = [
    "O'Hara",
    "' OR Name != '",
    "\\' OR Id != null --",
    "\\",
    "\\\\'",
    "back\\slash\\",
    "line\nbreak\r\ttab",
    'say "so"',
    "100 % of_it",
    "\\%\\_",
    "عائشة المنصوري",
    "漢字 🏙️",
    "x') LIMIT 1",
    "a OR b",
    "null",
    "{0} %s ${x}",
    "\u2028\u2029",
]
TYPES = {"Name": "string", "Id": "id", "Amount": "currency", "CloseDate": "date", "Changed": "datetime"}


def rows_of(select: Select, values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that the evaluator finds for the text of a query."""
    query = parse(select.text(), datetime.now(UTC), lambda name: TYPES.get(name, ""))
    return list(query.rows([(row, row.get) for row in values]))


def select(where: Any) -> Select:
    return Select(sobject="Lead", fields=("Id",), where=where)


# The texts that a field can hold and a query can say; a field trims them.
TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=[chr(one) for one in (*range(32), 127)]),
    min_size=1,
    max_size=60,
).filter(lambda text: bool(text.strip()))


@pytest.mark.parametrize("text", HOSTILE)
def test_text_when_hostile_then_it_finds_itself_alone(text: str) -> None:
    rows: list[dict[str, Any]] = [{"Name": text}, {"Name": "Somebody else"}, {"Name": None}]
    assert rows_of(select(Compare("Name", "=", text)), rows) == [rows[0]]
    assert rows_of(select(In("Name", (text, "Nobody"))), rows) == [rows[0]]


@given(TEXTS)
@example("'")
@example("\\")
@example("%")
@example("_")
def test_text_when_any_then_equal_and_like_find_it_and_no_neighbour(text: str) -> None:
    rows = [{"Name": text}, {"Name": text + "x"}, {"Name": "y" + text}, {"Name": "Somebody else"}]
    equal = rows_of(select(Compare("Name", "=", text)), rows)
    assert rows[0] in equal
    assert all(str(row["Name"]).strip().casefold() == text.strip().casefold() for row in equal)
    found = rows_of(select(Like("Name", ("", text, ""))), rows)
    assert rows[:3] == found[:3]


@given(st.lists(TEXTS, min_size=1, max_size=5), st.text(max_size=40))
def test_query_when_any_values_then_its_clauses_stay_as_they_are(texts: list[str], other: str) -> None:
    where = AllOf((AnyOf(tuple(Compare("Name", "=", text) for text in texts)), Compare("Id", "<", "00Q")))
    query = parse(select(where).text(), datetime.now(UTC), lambda name: TYPES.get(name, ""))
    assert (query.sobject, query.fields, query.limit, query.used) == ("Lead", ["Id"], 200, {"Name", "Id"})
    try:
        text = SOQL.quoted(other)
    except ValidationError:
        return
    assert "'" not in text[1:-1].replace("\\\\", "").replace("\\'", "")


@pytest.mark.parametrize("text", ["%", "_", "50%", "a_b", "\\%"])
def test_like_when_wildcards_are_in_the_text_then_they_mean_themselves(text: str) -> None:
    rows = [{"Name": f"x{text}y"}, {"Name": "x5z0y"}, {"Name": "axb"}]
    assert rows_of(select(Like("Name", ("", text, ""))), rows) == [rows[0]]


def test_like_when_parts_are_given_then_anything_may_stand_between() -> None:
    rows = [{"Name": "(415) 555-0123"}, {"Name": "+1 415 555 0199"}]
    assert rows_of(select(Like("Name", ("", *"4155550123", ""))), rows) == [rows[0]]


@pytest.mark.parametrize("text", ["zero\x00byte", "bell\x07", "half \ud800", "\x7f"])
def test_text_when_it_holds_control_characters_then_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        SOQL.quoted(text)


@pytest.mark.parametrize(
    "name",
    ["", "Name FROM Lead", "Name,Id", "Name'", "1st", "Na-me", "a.b.c.d.e.f.g.h", "Name\n", "é", "x" * 99],
)
def test_name_when_it_is_none_then_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        SOQL.checked_name(name)
    with pytest.raises(ValidationError):
        select(Compare(name, "=", "x")).text()


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (True, Kind.BOOLEAN, "true"),
        ("false", Kind.BOOLEAN, "false"),
        (None, Kind.TEXT, "null"),
        (0.1, Kind.NUMBER, "0.1"),
        ("1250000.50", Kind.NUMBER, "1250000.50"),
        (Decimal("1E+3"), Kind.NUMBER, "1000"),
        ("2027-02-28", Kind.DATE, "2027-02-28"),
        ("2027-02-28T10:00:00Z", Kind.DATE, "2027-02-28"),
        ("2027-02-28T10:00:00+04:00", Kind.DATETIME, "2027-02-28T10:00:00+04:00"),
        (["a", "b"], Kind.TEXT, "'a;b'"),
    ],
)
def test_literal_when_it_suits_its_kind_then_as_soql_has_it(value: Any, kind: Kind, text: str) -> None:
    assert SOQL.literal(value, kind) == text


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("1 OR 1=1", Kind.NUMBER),
        ("1e5", Kind.NUMBER),
        (float("nan"), Kind.NUMBER),
        (float("inf"), Kind.NUMBER),
        (Decimal("Infinity"), Kind.NUMBER),
        ("٣", Kind.NUMBER),
        ("TODAY", Kind.DATE),
        ("2027-02-28 OR", Kind.DATE),
        ("2027-02-28", Kind.DATETIME),
        ("2027-02-28T10:00:00", Kind.DATETIME),
        ("2027-02-28T10:00:00Z\n", Kind.DATETIME),
        ("yes", Kind.BOOLEAN),
        ("true OR true", Kind.BOOLEAN),
    ],
)
def test_literal_when_it_does_not_suit_its_kind_then_refused(value: Any, kind: Kind) -> None:
    with pytest.raises(ValidationError):
        SOQL.literal(value, kind)


def test_condition_when_operator_or_values_are_odd_then_refused() -> None:
    with pytest.raises(ValidationError):
        select(Compare("Name", "= '' OR Name !=", "x")).text()
    with pytest.raises(ValidationError):
        select(In("Name", ())).text()


def test_query_when_longer_than_salesforce_takes_then_refused_here() -> None:
    with pytest.raises(ValidationError):
        select(In("Name", tuple("x" * 900 + str(n) for n in range(120)))).text()


def test_query_when_no_fields_are_given_then_all_with_their_limit() -> None:
    text = Select(sobject="Lead", limit=500, newest_by=("SystemModstamp", "Id")).text()
    assert text == "SELECT FIELDS(ALL) FROM Lead ORDER BY SystemModstamp DESC, Id DESC LIMIT 200"


# -- the evaluator itself: it must not be more lenient than Salesforce -----------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "SELECT Id FROM Lead WHERE Name = 'a' OR",
        "SELECT Id FROM Lead WHERE Name = 'a'b'",
        "SELECT Id FROM Lead WHERE Amount = '5'",
        "SELECT Id FROM Lead WHERE CloseDate = '2027-01-01'",
        "SELECT Id FROM Lead WHERE Changed > '2027-01-01T00:00:00Z'",
        "SELECT Id FROM Lead WHERE Name = 5",
        "SELECT Id FROM Lead LIMIT x",
        "SELECT FIELDS(ALL) FROM Lead",
        "SELECT Id FROM Lead OFFSET 2001",
        "UPDATE Lead",
        "SELECT Id FROM Lead WHERE Name = 'a\\x'",
        "SELECT Id FROM Lead; SELECT Id FROM Lead",
    ],
)
def test_evaluator_when_a_query_is_wrong_then_refused(text: str) -> None:
    with pytest.raises(SoqlRefused):
        parse(text, datetime.now(UTC), lambda name: TYPES.get(name, "")).rows([({}, {"Name": "a"}.get)])


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("Amount >= 5 AND Amount < 7", ["b", "c"]),
        ("(Amount = 5 OR Amount = 9) AND Name != 'b'", ["d"]),
        ("NOT Amount > 6", ["a", "b", "c"]),
        ("Name IN ('A', 'd')", ["a", "d"]),
        ("Name NOT IN ('a', 'd')", ["b", "c"]),
        ("Name LIKE '_'", ["a", "b", "c", "d"]),
        ("Amount = null", ["a"]),
        ("CloseDate > 2027-01-01 AND CloseDate <= 2027-01-03", ["b", "c"]),
    ],
)
def test_evaluator_when_conditions_are_given_then_as_sql_would(where: str, names: list[str]) -> None:
    rows = [
        {"Name": name, "Amount": amount, "CloseDate": f"2027-01-0{place + 1}"}
        for place, (name, amount) in enumerate([("a", None), ("b", 5), ("c", 6.0), ("d", 9)])
    ]
    text = f"SELECT Name FROM Lead WHERE {where} ORDER BY Name"
    query = parse(text, datetime.now(UTC), lambda name: TYPES.get(name, ""))
    assert [row["Name"] for row in query.rows([(row, row.get) for row in rows])] == names
