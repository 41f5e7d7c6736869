"""The quick way for numbers that are E.164 already says the same as the library."""

from __future__ import annotations

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.toolkit.phones import country_and_national, to_e164

CODES = sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE)


def slow(text: str) -> str | None:
    try:
        number = phonenumbers.parse(text, None)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(number):
        return None
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


@given(st.sampled_from(CODES), st.text("0123456789", min_size=3, max_size=13))
def test_number_when_written_as_e164_then_read_as_the_library_reads_it(code: int, rest: str) -> None:
    assert to_e164(f"+{code}{rest}") == slow(f"+{code}{rest}")


@pytest.mark.parametrize(
    ("text", "region", "wanted"),
    [
        ("050 123 4567", "AE", "+971501234567"),
        ("00971 50 123 4567", "", "+971501234567"),
        ("+4407911123456", "", "+447911123456"),
        ("+44 7911 123456", "", "+447911123456"),
        ("(212) 555-0123", "US", "+12125550123"),
        ("12", "AE", None),
        ("not a number", "AE", None),
        ("", "", None),
    ],
)
def test_number_when_in_a_usual_spelling_then_e164(text: str, region: str, wanted: str | None) -> None:
    assert to_e164(text, region) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("+14155550123", ("1", "4155550123")),
        (" +971501234567 ", ("971", "501234567")),
        ("+390612345678", ("39", "0612345678")),  # the zero belongs to the number
        ("4155550123", ("", "")),
        ("+999123456789", ("", "")),
        ("+1415", ("", "")),
        ("", ("", "")),
    ],
)
def test_number_when_taken_apart_then_code_and_national_number(text: str, wanted: tuple[str, str]) -> None:
    assert country_and_national(text) == wanted
