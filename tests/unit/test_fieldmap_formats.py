"""Slot values and named formats: what is accepted, what is refused, and what comes back."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.core.records import Object
from crmbridge.core.verticals import Slot, SlotType
from crmbridge.toolkit.fieldmap import FieldMap, FieldRule
from crmbridge.toolkit.formats import FORMATS, Locale, ValueFault, coerce, format_named, moment_text

DUBAI = Locale("AE", "Asia/Dubai")
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), min_size=1, max_size=200)
MOMENTS = st.integers(-30_000_000_000, 250_000_000_000).map(
    lambda seconds: (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).isoformat()[:19] + "Z"
)
MONEY = st.decimals(min_value=-(10**12), max_value=10**12, places=4, allow_nan=False).map(
    lambda number: coerce(slot(SlotType.MONEY), number, DUBAI)
)
NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.decimals(-(10**6), 10**6, places=3, allow_nan=False).map(
    lambda number: coerce(slot(SlotType.NUMBER), number, DUBAI)
)
CANONICAL: dict[SlotType, st.SearchStrategy[Any]] = {
    SlotType.TEXT: TEXTS,
    SlotType.LONG_TEXT: TEXTS,
    SlotType.EMAIL: st.from_regex(r"[a-z][a-z0-9_+-]{0,20}@[a-z]{1,12}\.(com|ae|org)", fullmatch=True),
    SlotType.PHONE: st.from_regex(r"\+9715[0-9]{8}", fullmatch=True),
    SlotType.INTEGER: st.integers(-(2**53) + 1, 2**53 - 1),
    SlotType.NUMBER: NUMBERS,
    SlotType.MONEY: MONEY,
    SlotType.BOOLEAN: st.booleans(),
    SlotType.DATE: st.dates(min_value=date(1000, 1, 1)).map(date.isoformat),
    SlotType.DATETIME: MOMENTS,
    SlotType.PICK_LIST: st.sampled_from(["low", "normal", "high"]),
    SlotType.URL: st.from_regex(r"https://[a-z]{1,10}\.com/[a-z0-9/]{0,20}", fullmatch=True),
    SlotType.TAGS: st.lists(
        st.from_regex(r"[a-zäöü][a-z äöü-]{0,10}[a-z]", fullmatch=True), min_size=1, max_size=6, unique=True
    ),
}


def slot(kind: SlotType, options: tuple[str, ...] = ()) -> Slot:
    return Slot(object=Object.LEAD, name="x", type=kind, options=options)


KEPT_DECIMALS = {"integer": 0, "cents": 2}

CASES = [
    (name, kind)
    for name, made in [*FORMATS.items(), *((each, format_named(each)) for each in ("join:,", "join:; "))]
    for kind in SlotType
    if kind in made.types and kind not in made.lossy
]


@pytest.mark.parametrize(("name", "kind"), CASES, ids=[f"{name or 'none'}-{kind}" for name, kind in CASES])
def test_round_trip_when_any_value_in_any_format_then_the_same_comes_back(name: str, kind: SlotType) -> None:
    options = ("low", "normal", "high") if kind is SlotType.PICK_LIST else ()
    field_map = FieldMap(
        Object.LEAD,
        [FieldRule(slot="x", path="a.b", format=name)],
        {"x": slot(kind, options)},
        region="AE",
        time_zone="Asia/Dubai",
    )

    @given(CANONICAL[kind])
    def check(value: Any) -> None:
        whole, dot, fraction = str(value).partition(".")
        if dot and name in KEPT_DECIMALS:
            value = coerce(slot(kind), f"{whole}.{fraction[: KEPT_DECIMALS[name]]}".rstrip("."), DUBAI)
        mapped = field_map.to_native({"x": value})
        assert mapped.errors == []
        assert field_map.to_canonical(mapped.fields) == {"x": value}

    check()


@pytest.mark.parametrize(
    ("kind", "given_value", "expected"),
    [
        (SlotType.TEXT, 5, "5"),
        (SlotType.TEXT, "a\r\nb", "a\nb"),
        (SlotType.EMAIL, " Mei.Lin@EXAMPLE.com ", "Mei.Lin@example.com"),
        (SlotType.PHONE, "050 123 4567", "+971501234567"),
        (SlotType.PHONE, "00971 50 123 4567", "+971501234567"),
        (SlotType.PHONE, "+971 (0)50-123-4567", "+971501234567"),
        (SlotType.PHONE, "+1 415 555 0123", "+14155550123"),
        (SlotType.INTEGER, "12", 12),
        (SlotType.INTEGER, 3.0, 3),
        (SlotType.NUMBER, "1.50", 1.5),
        (SlotType.MONEY, 0.1, "0.1"),
        (SlotType.MONEY, "1250000.50", "1250000.5"),
        (SlotType.MONEY, Decimal("1E+3"), "1000"),
        (SlotType.MONEY, "-0.00", "0"),
        (SlotType.MONEY, 1e21, "1000000000000000000000"),
        (SlotType.BOOLEAN, "Yes", True),
        (SlotType.BOOLEAN, 0, False),
        (SlotType.DATE, datetime(2026, 3, 1, 23, tzinfo=UTC), "2026-03-01"),
        (SlotType.DATETIME, "2026-03-01T14:30:00+04:00", "2026-03-01T10:30:00Z"),
        (SlotType.DATETIME, "2026-03-01 14:30", "2026-03-01T10:30:00Z"),
        (SlotType.DATETIME, "2026-03-01T10:30:00.999Z", "2026-03-01T10:30:00Z"),
        (SlotType.PICK_LIST, "HIGH", "high"),
        (SlotType.URL, "https://example.com/x", "https://example.com/x"),
        (SlotType.TAGS, "vip", ["vip"]),
        (SlotType.TAGS, ["b", " a ", "b", ""], ["b", "a"]),
    ],
)
def test_coerce_when_accepted_spelling_then_canonical(
    kind: SlotType, given_value: Any, expected: Any
) -> None:
    options = ("low", "high") if kind is SlotType.PICK_LIST else ()
    assert coerce(slot(kind, options), given_value, DUBAI) == expected


@pytest.mark.parametrize(
    ("kind", "given_value"),
    [
        (SlotType.TEXT, True),
        (SlotType.TEXT, {"a": 1}),
        (SlotType.TEXT, "a\x00b"),
        (SlotType.TEXT, "\ud800"),
        (SlotType.TEXT, "x" * 10_001),
        (SlotType.EMAIL, "mei at example.com"),
        (SlotType.EMAIL, "a@b@example.com"),
        (SlotType.EMAIL, "a@b..com"),
        (SlotType.EMAIL, "a@example.com,b@example.com"),
        (SlotType.PHONE, "call me"),
        (SlotType.PHONE, "12"),
        (SlotType.INTEGER, "1.5"),
        (SlotType.INTEGER, True),
        (SlotType.NUMBER, float("nan")),
        (SlotType.NUMBER, float("inf")),
        (SlotType.NUMBER, "1e5"),
        (SlotType.MONEY, "1,250,000"),
        (SlotType.MONEY, "AED 5"),
        (SlotType.MONEY, "٣"),
        (SlotType.MONEY, "9" * 60),
        (SlotType.BOOLEAN, "perhaps"),
        (SlotType.BOOLEAN, 2),
        (SlotType.DATE, "01/03/2026"),
        (SlotType.DATE, "2026-02-30"),
        (SlotType.DATETIME, "2025-04-17"),
        (SlotType.DATETIME, "tomorrow"),
        (SlotType.DATETIME, 5),
        (SlotType.PICK_LIST, "medium"),
        (SlotType.URL, "javascript:alert(1)"),
        (SlotType.TAGS, {"a": 1}),
        (SlotType.TAGS, ["x"] * 201),
    ],
)
def test_coerce_when_wrong_then_fault_without_the_value(kind: SlotType, given_value: Any) -> None:
    options = ("low", "high") if kind is SlotType.PICK_LIST else ()
    with pytest.raises(ValueFault) as caught:
        coerce(slot(kind, options), given_value, DUBAI)
    if isinstance(given_value, str) and len(given_value) > 4:
        assert given_value[:40] not in str(caught.value)


@given(
    st.sampled_from(list(SlotType)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
)
def test_coerce_when_anything_then_value_or_fault_and_stable(kind: SlotType, value: Any) -> None:
    try:
        canonical = coerce(slot(kind), value, DUBAI)
    except ValueFault:
        return
    assert coerce(slot(kind), canonical, DUBAI) == canonical


@given(
    st.sampled_from([(name, kind) for name, made in FORMATS.items() for kind in made.types]),
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=40)
    | st.lists(st.text(max_size=5)),
)
def test_reading_when_provider_value_is_hostile_then_never_an_exception(
    case: tuple[str, SlotType], value: Any
) -> None:
    name, kind = case
    field_map = FieldMap(
        Object.LEAD, [FieldRule(slot="x", path="a", format=name)], {"x": slot(kind)}, time_zone="Asia/Dubai"
    )
    field_map.to_canonical({"a": value})


def test_datetime_when_no_zone_is_known_then_refused() -> None:
    with pytest.raises(ValueFault, match="time zone"):
        coerce(slot(SlotType.DATETIME), "2026-03-01T14:30:00", Locale())


def test_datetime_when_zone_of_tenant_is_unknown_then_fault_names_it() -> None:
    with pytest.raises(ValueFault, match="IANA"):
        coerce(slot(SlotType.DATETIME), "2026-03-01T14:30:00", Locale("", "Mars/Olympus"))


@pytest.mark.parametrize(
    ("name", "kind", "value", "native"),
    [
        ("datetime_utc_naive", SlotType.DATETIME, "2026-03-01T10:30:00Z", "2026-03-01 10:30:00"),
        ("datetime_ms_offset", SlotType.DATETIME, "2026-03-01T10:30:00Z", "2026-03-01T10:30:00.000+0000"),
        ("datetime_local_naive", SlotType.DATETIME, "2026-03-01T10:30:00Z", "2026-03-01T14:30:00"),
        ("datetime_local_offset", SlotType.DATETIME, "2026-03-01T10:30:00Z", "2026-03-01T14:30:00+04:00"),
        ("epoch_ms", SlotType.DATETIME, "1970-01-02T00:00:00Z", 86_400_000),
        ("epoch_ms", SlotType.DATE, "1970-01-02", 86_400_000),
        ("epoch_s", SlotType.DATETIME, "1969-12-31T23:59:59Z", -1),
        ("date", SlotType.DATETIME, "2026-03-01T22:30:00Z", "2026-03-02"),
        ("html", SlotType.LONG_TEXT, "a < b\n& c", "a &lt; b<br>&amp; c"),
        ("yes_no", SlotType.BOOLEAN, True, "Yes"),
        ("number", SlotType.MONEY, "1250000.5", 1250000.5),
        ("integer", SlotType.MONEY, "1250000", 1250000),
        ("cents", SlotType.MONEY, "1250000.5", 125000050),
        ("phone_digits", SlotType.PHONE, "+971501234567", "971501234567"),
        ("join:;", SlotType.TAGS, ["a", "b"], "a;b"),
        ("text", SlotType.INTEGER, 5, "5"),
    ],
)
def test_format_when_written_then_in_the_providers_spelling(
    name: str, kind: SlotType, value: Any, native: Any
) -> None:
    assert format_named(name).write(value, DUBAI) == native


def test_format_when_a_number_field_cannot_keep_it_then_refused() -> None:
    with pytest.raises(ValueFault, match="more digits"):
        format_named("number").write("123456789012345678.123", DUBAI)
    with pytest.raises(ValueFault, match="fraction"):
        format_named("integer").write("1.5", DUBAI)
    with pytest.raises(ValueFault):
        format_named("cents").write("1.505", DUBAI)


def test_format_when_a_tag_holds_the_separator_then_refused() -> None:
    with pytest.raises(ValueFault, match="entry"):
        format_named("join:,").write(["a,b"], DUBAI)


def test_format_when_unknown_then_the_known_ones_are_named() -> None:
    with pytest.raises(ValueFault, match="epoch_ms"):
        format_named("epoch_us")


def test_html_when_provider_wrote_paragraphs_then_text_is_read() -> None:
    read = format_named("html").read("<p>Hello <b>you</b></p><p>2 &lt; 3<br/>end</p>", DUBAI)
    assert read == "Hello you\n2 < 3\nend"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-03-01 10:30:00", "2026-03-01T10:30:00Z"),
        ("2026-03-01T14:30:00+04:00", "2026-03-01T10:30:00Z"),
        (1_772_361_000, "2026-03-01T10:30:00Z"),
        (1_772_361_000_000, "2026-03-01T10:30:00Z"),
        (False, ""),
        (None, ""),
        ("soon", ""),
        (10**40, ""),
    ],
)
def test_moment_text_when_any_spelling_then_utc_or_empty(value: Any, expected: str) -> None:
    assert moment_text(value) == expected
