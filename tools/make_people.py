"""Writes a sample list of customers (``people.csv``), as a clinic, a garage or a salon in the US would export it.

Usage: ``python -m tools.make_people [--seed 11] [--rows 1000] [--out samples]``. The same seed and number of rows
give the same bytes on every Python. Prints how many rows of each kind were written, as one JSON object.

All persons are invented, and each stands there once. E-mail addresses are under the reserved domains of RFC 2606,
phone numbers are those kept for fiction (555-0100 to 555-0199 of each area code).
"""

from __future__ import annotations

import argparse
import json
from datetime import date, timedelta
from pathlib import Path
from typing import Final

from tools.make_sample import BAD_EMAILS, BAD_PHONES, DOMAINS, NAMES, Dice, csv_line, plain

HEADER: Final = (
    "First Name",
    "Last Name",
    "Email",
    "Cell Phone",
    "Date of Birth",
    "Street Address",
    "City",
    "State",
    "Zip Code",
    "Comments",
)
FIRST, LAST, EMAIL, PHONE, BORN, STREET, CITY, STATE, ZIP, COMMENTS = range(len(HEADER))

# Rows of each bad kind in a thousand.
BAD_PER_MILLE: Final = {
    "too_many_columns": 3,
    "too_few_columns": 2,
    "no_name": 4,
    "phone_not_a_number": 5,
    "email_broken": 5,
    "birth_date_unreadable": 4,
}

# area code, city, state, first three digits of the ZIP code
TOWNS: Final = (
    ("212", "New York", "NY", "100"),
    ("213", "Los Angeles", "CA", "900"),
    ("312", "Chicago", "IL", "606"),
    ("305", "Miami", "FL", "331"),
    ("404", "Atlanta", "GA", "303"),
    ("415", "San Francisco", "CA", "941"),
    ("512", "Austin", "TX", "787"),
    ("602", "Phoenix", "AZ", "850"),
    ("617", "Boston", "MA", "021"),
    ("702", "Las Vegas", "NV", "891"),
    ("713", "Houston", "TX", "770"),
    ("206", "Seattle", "WA", "981"),
)
STREETS: Final = (
    "Main St",
    "Oak Ave",
    "Martin Luther King Jr Blvd",
    "2nd St, Apt 4",
    "Cañon Dr",
    "Elm Ct #12",
)
COMMENTS_TEXTS: Final = (
    "",
    "",
    "",
    "Prefers mornings",
    'Asked for "the usual"',
    "Call, do not text",
    "Two kids; brings them along\nneeds extra time",
    "Habla español",
    "Referred by a friend – very happy",
)
UNREADABLE_DATES: Final = ("unknown", "02/30/1988", "1985ish", "??")


def phone(dice: Dice, number: int) -> str:
    """A number of its own for each of the first 1,200 rows, in one of six spellings."""
    area, tail = TOWNS[number % len(TOWNS)][0], f"{100 + number // len(TOWNS) % 100:04d}"
    return dice.pick(
        (
            f"({area}) 555-{tail}",
            f"{area}-555-{tail}",
            f"{area}.555.{tail}",
            f"+1 {area} 555 {tail}",
            f"{area}555{tail}",
            f"1-{area}-555-{tail}",
        )
    )


def born(dice: Dice) -> str:
    day = date(1938, 1, 1) + timedelta(days=dice.below(24_000))
    return dice.pick(
        (f"{day.month:02d}/{day.day:02d}/{day.year}", f"{day.month}/{day.day}/{day.year}", day.isoformat())
    )


def person(dice: Dice, number: int) -> list[str]:
    given, family = dice.pick(NAMES)
    first, first_latin = dice.pick(given)
    last, last_latin = dice.pick(family)
    _, city, state, zip_code = TOWNS[number % len(TOWNS)]
    row = [""] * len(HEADER)
    row[FIRST], row[LAST] = first, last
    local = f"{first_latin or plain(first)}.{last_latin or plain(last)}.{number}"
    row[EMAIL] = "" if dice.chance(10) else f"{local}@{dice.pick(DOMAINS)}"
    row[PHONE] = "" if row[EMAIL] and dice.chance(8) else phone(dice, number)
    row[BORN], row[CITY], row[STATE] = born(dice), city, state
    row[STREET] = f"{dice.below(9900) + 100} {dice.pick(STREETS)}"
    row[ZIP] = f"{zip_code}{dice.below(90) + 10}"
    row[COMMENTS] = dice.pick(COMMENTS_TEXTS)
    return row


def spoil(dice: Dice, row: list[str], kind: str) -> list[str]:
    """``row`` made bad in one way."""
    if kind == "too_many_columns":
        return [*row, "moved away"]
    if kind == "too_few_columns":
        return row[:CITY]
    if kind == "no_name":
        row[FIRST] = row[LAST] = ""
    elif kind == "phone_not_a_number":
        row[PHONE] = dice.pick(BAD_PHONES)
    elif kind == "email_broken":
        row[EMAIL] = dice.pick(BAD_EMAILS).format(plain(row[FIRST]) or "customer")
    else:
        row[BORN] = dice.pick(UNREADABLE_DATES)
    return row


def generate(seed: int = 11, rows: int = 1000) -> tuple[bytes, dict[str, int]]:
    """The file, and its rows by kind."""
    dice = Dice(seed)
    kinds = [kind for kind, share in BAD_PER_MILLE.items() for _ in range(max(1, rows * share // 1000))]
    kinds = kinds[:rows] + ["good"] * (rows - len(kinds))
    for last in range(len(kinds) - 1, 0, -1):  # Fisher-Yates
        other = dice.below(last + 1)
        kinds[last], kinds[other] = kinds[other], kinds[last]
    lines = [csv_line(HEADER, ",")]
    for number, kind in enumerate(kinds):
        row = person(dice, number)
        lines.append(csv_line(row if kind == "good" else spoil(dice, row, kind), ","))
    return "".join(lines).encode(), {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the sample list of customers.")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("samples"))
    options = parser.parse_args()
    if options.rows < 1:
        parser.error("--rows must be at least 1")
    content, counts = generate(options.seed, options.rows)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "people.csv").write_bytes(content)
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
