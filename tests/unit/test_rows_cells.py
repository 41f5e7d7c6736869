"""Cells to slot values."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.cli.importing.cells import clean_value, currency, phone_extension
from crmbridge.core.verticals import SlotType

TYPES = [kind.value for kind in SlotType]


@given(
    st.sampled_from(TYPES),
    st.one_of(
        st.text(), st.text("0123456789+-.,/: kmAEDx@'T()Z", max_size=24), st.text("٣٤٥.,/²①½", max_size=8)
    ),
    st.sampled_from([None, "AE", "US", "de", "zz"]),
    st.sampled_from([None, True, False]),
)
def test_value_when_any_text_then_json_or_value_error_without_the_text(
    kind: str, text: str, region: str | None, dayfirst: bool | None
) -> None:
    try:
        value = clean_value(kind, text, region=region, dayfirst=dayfirst, zone=UTC)
    except ValueError as error:
        assert type(error) is ValueError and str(error)
        assert len(text.strip()) < 25 or text.strip() not in str(error)
    else:
        msgspec.json.encode(value)


@pytest.mark.parametrize("kind", TYPES)
def test_value_when_blank_then_none(kind: str) -> None:
    assert clean_value(kind, " \u00a0\t\r\n\u200f") is None


def test_value_when_type_is_unknown_then_value_error() -> None:
    with pytest.raises(ValueError, match="slot type"):
        clean_value("colour", "x")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1,250,000", "1250000"),
        ("AED 900k", "900000"),
        ("1.250.000,00", "1250000"),
        ("1,250,000.50", "1250000.50"),
        ("1'250'000.-", "1250000"),
        ("1 250 000 €", "1250000"),
        ("1\u202f250\u202f000,75", "1250000.75"),
        ("$1.2m", "1200000"),
        ("1.250k", "1250"),
        ("1,5 Mio EUR", "1500000"),
        ("900,000", "900000"),
        ("12,34", "12.34"),
        ("0.125", "0.125"),
        ("-500", "-500"),
        ("AED -500", "-500"),
        ("د.إ ٩٠٠٠٠٠", "900000"),
        ("0", "0"),
    ],
)
def test_money_when_written_as_people_do_then_decimal_text(text: str, wanted: str) -> None:
    assert clean_value("money", text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "1.250",
        "900.000",
        "900k-1.2m",
        "a lot",
        "1,2,3",
        "12,34,567",
        "1..2",
        "AED",
        "AED 5 USD",
        "(500)",
        "1e5",
        "9" * 40,
    ],
)
def test_money_when_unclear_then_refused(text: str) -> None:
    with pytest.raises(ValueError):
        clean_value("money", text)


@given(st.decimals(0, 10**9, places=2), st.sampled_from([",.", ".,", " ,", "'."]))
def test_money_when_grouped_in_any_style_then_comes_back(amount: Decimal, style: str) -> None:
    text = f"{amount:,.2f}".replace(",", "T").replace(".", style[1]).replace("T", style[0])
    value = clean_value("money", text)
    assert isinstance(value, str) and Decimal(value) == amount


def test_currency_when_named_then_code_and_when_open_then_none() -> None:
    assert [currency(text) for text in ("AED 900k", "1m Dhs", "€5", "5 usd", "$5", "5", "")] == [
        "AED", "AED", "EUR", "USD", None, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "region", "wanted"),
    [
        ("+971 50 000 1234", None, "+971500001234"),
        ("00971500001234", None, "+971500001234"),
        ("0049 30 23125123", "US", "+493023125123"),
        ("(050) 000-1234", "ae", "+971500001234"),
        ("+49 (0)30 23125-123", "AE", "+493023125123"),
        ("212.555.0123", "US", "+12125550123"),
        ("٠٥٠٠٠٠١٢٣٤", "AE", "+971500001234"),
        ("\u200e+972-50-555-0123\u200f", None, "+972505550123"),
        ("+1 (212) 555-0123 ext. 45", None, "+12125550123"),
    ],
)
def test_phone_when_readable_then_e164(text: str, region: str | None, wanted: str) -> None:
    assert clean_value("phone", text, region=region) == wanted


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("call me", "no phone number"),
        ("+999 123456789", "country code"),
        ("+1 212 555 01", "too few"),
        ("+1 212 555 0123 4567", "too many"),
        ("555-0123", "area code"),
    ],
)
def test_phone_when_wrong_then_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        clean_value("phone", text, region="US")


def test_phone_when_no_country_is_known_then_reason_names_the_option() -> None:
    with pytest.raises(ValueError, match="--region"):
        clean_value("phone", "050 000 1234")


def test_phone_extension_when_there_then_its_digits() -> None:
    assert phone_extension("+1 212 555 0123 x45") == "45"
    assert phone_extension("+12125550123") is None


@pytest.mark.parametrize(
    ("text", "dayfirst", "wanted"),
    [
        ("2026-03-04", None, "2026-03-04"),
        ("2026/3/4", None, "2026-03-04"),
        ("14/03/2026", None, "2026-03-14"),
        ("03/04/2026", True, "2026-04-03"),
        ("03/04/2026", False, "2026-03-04"),
        ("4.3.2026", None, "2026-03-04"),
        ("05/05/2026", None, "2026-05-05"),
        ("14 Mar 2026", None, "2026-03-14"),
        ("March 14th, 2026", None, "2026-03-14"),
    ],
)
def test_date_when_clear_then_iso(text: str, dayfirst: bool | None, wanted: str) -> None:
    assert clean_value("date", text, dayfirst=dayfirst) == wanted


@pytest.mark.parametrize(
    "text",
    ["03/04/2026", "2026-02-30", "31/02/2026", "1/2/26", "0001-01-01", "soon", "46000", "2026-01-01T10:00"],
)
def test_date_when_unclear_then_refused(text: str) -> None:
    with pytest.raises(ValueError):
        clean_value("date", text)


@given(st.dates(date(1850, 1, 1), date(2200, 12, 31)))
def test_date_when_written_day_first_then_comes_back(day: date) -> None:
    assert clean_value("date", f"{day.day}/{day.month}/{day.year}", dayfirst=True) == day.isoformat()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2026-03-14T09:30:00+04:00", "2026-03-14T09:30:00+04:00"),
        ("2026-03-14T09:30:00Z", "2026-03-14T09:30:00+00:00"),
        ("2026-03-14 09:30", "2026-03-14T09:30:00+04:00"),
        ("14/03/2026 9:30 PM", "2026-03-14T21:30:00+04:00"),
        ("14/03/2026", "2026-03-14T00:00:00+04:00"),
        ("March 14, 2026, 12:05 am", "2026-03-14T00:05:00+04:00"),
    ],
)
def test_datetime_when_readable_then_has_an_offset(text: str, wanted: str) -> None:
    value = clean_value("datetime", text, zone=ZoneInfo("Asia/Dubai"))
    assert isinstance(value, str) and value == wanted
    assert datetime.fromisoformat(value).tzinfo is not None


@pytest.mark.parametrize(
    "text", ["2026-03-14 25:00", "14/03/2026 13:00 pm", "03/04/2026 10:00", "10:00", "2026-03-14T09"]
)
def test_datetime_when_unclear_or_without_zone_then_refused(text: str) -> None:
    with pytest.raises(ValueError):
        clean_value("datetime", text)


@pytest.mark.parametrize(
    ("kind", "text", "wanted"),
    [
        ("text", "  Zoe\u0308 \r\n Smith\u00a0", "Zoë   Smith"),
        ("long_text", "a\x0bb\r\nc", "a\nb\nc"),
        ("email", "mailto:Jane.Doe@Example.COM", "Jane.Doe@example.com"),
        ("email", "Jane <jane@example.com>", "jane@example.com"),
        ("email", "jörg@münchen.example", "jörg@münchen.example"),
        ("integer", "2.0", 2),
        ("integer", "1,250", 1250),
        ("number", "1.250", 1.25),
        ("number", "3", 3),
        ("boolean", "Ja", True),
        ("boolean", "0", False),
        ("url", "www.example.com/a?b=c", "https://www.example.com/a?b=c"),
        ("tags", "vip, new;vip", ["vip", "new"]),
    ],
)
def test_value_when_clear_then_typed(kind: str, text: str, wanted: object) -> None:
    value = clean_value(kind, text)
    assert value == wanted and type(value) is type(wanted)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("text", "a\x07b"),
        ("text", "x" * 1001),
        ("email", "jane(at)example.com"),
        ("email", "jane@@example.com"),
        ("email", "jane@example"),
        ("email", "a b@example.com"),
        ("email", "@example.com"),
        ("email", "a@127.0.0.1"),
        ("integer", "2.5"),
        ("integer", "two"),
        ("number", "nan"),
        ("number", "inf"),
        ("boolean", "maybe"),
        ("url", "javascript:alert(1)"),
        ("url", "ftp://example.com"),
        ("url", "https://user:pass@example.com"),
        ("url", "http://[::1"),
        ("url", "localhost"),
    ],
)
def test_value_when_wrong_then_refused(kind: str, text: str) -> None:
    with pytest.raises(ValueError):
        clean_value(kind, text)


def test_pick_list_when_case_differs_then_the_listed_text() -> None:
    assert clean_value("pick_list", "LOW", options=("low", "high")) == "low"
    assert clean_value("pick_list", "anything") == "anything"
    with pytest.raises(ValueError, match="low, high"):
        clean_value("pick_list", "middle", options=("low", "high"))
