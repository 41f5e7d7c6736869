#!/usr/bin/env python3
"""Writes a sample lead export (``leads.csv``, ``leads-latin1.csv``, ``leads.jsonl``), dirty as real ones are.

Usage: ``python tools/make_sample.py [--seed 7] [--rows 1000] [--out samples]``. The same seed and number of
rows give the same bytes on every Python: only ``random.Random.random()`` is used, whose sequence Python
promises to keep. Prints how many rows of each kind were written, as one JSON object.

All persons are invented. E-mail addresses stand under the reserved domains of RFC 2606. Phone numbers come
from ranges kept for fiction where a country has one (US, UK, Germany), else from 555 and 0000 patterns.
"""

from __future__ import annotations

import argparse
import json
import random
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Final, TypeVar

HEADER: Final = (
    "First Name",
    "Last Name",
    "E-Mail",
    "Mobile Phone",
    "Budget (min)",
    "Budget (max)",
    "Bedrooms",
    "Area",
    "Source",
    "Notes",
    "Created",
)
FIRST, LAST, EMAIL, PHONE, BUDGET_MIN, BUDGET_MAX, BEDROOMS, AREA, SOURCE, NOTES, CREATED = range(len(HEADER))

# Rows of each bad kind in a thousand: the reader finds the first two, cleaning the values finds the others.
BAD_PER_MILLE: Final = {
    "too_many_columns": 4,
    "too_few_columns": 2,
    "no_name": 4,
    "phone_not_a_number": 5,
    "email_broken": 5,
}

# given and family names with the Latin spelling that an e-mail address is made of
NAMES: Final = (
    (
        (
            ("Oliver", ""),
            ("Amelia", ""),
            ("Siân", "sian"),
            ("Zoë", "zoe"),
            ("Conor", ""),
            ("Grace", ""),
            ("Renée", "renee"),
        ),
        (
            ("Whitcombe", ""),
            ("O'Rourke", "orourke"),
            ("Smith-Barnes", ""),
            ("Llewellyn", ""),
            ("St. John", "stjohn"),
        ),
    ),
    (
        (("Jürgen", "juergen"), ("Anneliese", ""), ("Björn", "bjoern"), ("Käthe", "kaethe"), ("Lukas", "")),
        (
            ("Müller-Lüdenscheidt", "mueller"),
            ("Großmann", "grossmann"),
            ("von der Heide", "vonderheide"),
            ("Köhler", "koehler"),
        ),
    ),
    (
        (
            ("Hélène", "helene"),
            ("François", "francois"),
            ("Chloé", "chloe"),
            ("Anaïs", "anais"),
            ("Loïc", "loic"),
        ),
        (("Lefèvre", "lefevre"), ("d'Aubigné", "daubigne"), ("Bœuf", "boeuf"), ("Garçon", "garcon")),
    ),
    (
        (
            ("José", "jose"),
            ("Íñigo", "inigo"),
            ("María José", "mariajose"),
            ("João", "joao"),
            ("Conceição", "conceicao"),
        ),
        (("Muñoz", "munoz"), ("Peña Ibáñez", "pena"), ("Gonçalves", "goncalves"), ("de la Cruz", "delacruz")),
    ),
    (
        (
            ("Łukasz", "lukasz"),
            ("Zdeněk", "zdenek"),
            ("Żaneta", "zaneta"),
            ("Şebnem", "sebnem"),
            ("İlker", "ilker"),
        ),
        (("Wiśniewska", "wisniewska"), ("Dvořák", "dvorak"), ("Çağlayan", "caglayan"), ("Őry", "ory")),
    ),
    (
        (
            ("محمد", "mohammed"),
            ("فاطمة", "fatima"),
            ("عبد الرحمن", "abdulrahman"),
            ("نورة", "noura"),
            ("خالد", "khaled"),
        ),
        (
            ("المنصوري", "almansoori"),
            ("بن راشد", "binrashid"),
            ("الحداد", "alhaddad"),
            ("الشامسي", "alshamsi"),
        ),
    ),
    (
        (("יעל", "yael"), ("אברהם", "avraham"), ("נועה", "noa"), ("שלמה", "shlomo")),
        (("כהן", "cohen"), ("בן־דוד", "bendavid"), ("פרידמן", "friedman"), ("מזרחי", "mizrahi")),
    ),
    (
        (
            ("伟", "wei"),
            ("秀英", "xiuying"),
            ("美咲", "misaki"),
            ("健太", "kenta"),
            ("지훈", "jihoon"),
            ("서연", "seoyeon"),
        ),
        (
            ("王", "wang"),
            ("欧阳", "ouyang"),
            ("佐藤", "sato"),
            ("髙橋", "takahashi"),
            ("김", "kim"),
            ("박", "park"),
        ),
    ),
    (
        (("Дмитрий", "dmitry"), ("Алёна", "alyona"), ("Ελένη", "eleni"), ("Юрій", "yuriy")),
        (("Щербаков", "shcherbakov"), ("Їжакевич", "yizhakevych"), ("Παπαδόπουλος", "papadopoulos")),
    ),
)

DOMAINS: Final = (
    "example.com",
    "example.org",
    "example.net",
    "mail.example.com",
    "post.example",
    "immobilien.example",
)

# country code, trunk prefix, area or operator code, fixed part, number of free digits at the end
NUMBERS: Final = (
    ("971", "0", "50", "000", 4),
    ("971", "0", "55", "000", 4),
    ("971", "0", "4", "555", 4),
    ("1", "", "212", "555", 4),
    ("1", "", "415", "555", 4),
    ("44", "0", "7700", "900", 3),
    ("44", "0", "20", "7946", 4),
    ("49", "0", "30", "23125", 3),
    ("49", "0", "171", "39200", 2),
    ("972", "0", "50", "555", 4),
    ("81", "0", "3", "5555", 4),
    ("34", "", "600", "000", 3),
)
HOME: Final = "971"  # national formats only make sense in the country of the export

AREAS: Final = (
    "Marina",
    "Downtown",
    "Palm, West Crescent",
    "Al Barsha 1",
    "Jumeirah",
    "Hills Estate",
    "",
    'City "Old Town"',
)
SOURCES: Final = ("Website", "website", "Walk-in", "Referral", "Portal; paid", "Instagram", "")
NOTES_TEXTS: Final = (
    "",
    "",
    "Wants a sea view, high floor",
    'Said "call me after six", then hung up',
    "Two children, one dog\nneeds a garden",
    "First line\r\nsecond line, with comma\r\n\r\nlast line",
    "Kommt im März nach Dubai; möchte 2 Objekte sehen",
    "يفضل الطابق الأرضي",
    "希望靠近地铁站",
    "=2 bedrooms or 3, she is not sure",
    "+ balcony, + parking",
    "- no agents please -",
    "@ her office until 17:00",
    "Budget is 'flexible' (5%–10%)",
    "Café owner 😀",
    "O\u2019Brien\u2019s friend \u2014 \u20ac based",
)
BAD_PHONES: Final = ("call me", "n/a", "unknown", "see notes", "12")
BAD_EMAILS: Final = (
    "{0}(at)example.com",
    "{0}@@example.com",
    "{0}@example",
    "{0} {0}@example.org",
    "@example.com",
)

T = TypeVar("T")


@dataclass
class Sample:
    """The rows in file order, the bad rows by kind, and the bytes of the three files."""

    rows: list[list[str]]
    kinds: list[str]  # per row: "good", "duplicate" or a key of BAD_PER_MILLE
    files: dict[str, bytes] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)  # file name -> kind -> rows


class Dice:
    """Choices made of ``random.Random.random()`` only."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 (a sample, no secret)

    def below(self, limit: int) -> int:
        return int(self._random.random() * limit)

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.below(len(choices))]

    def chance(self, percent: int) -> bool:
        return self.below(100) < percent


def phone(dice: Dice) -> str:
    """One number in one of twelve spellings; five of them national."""
    country, trunk, code, fixed, free = dice.pick(NUMBERS)
    tail = "".join(str(dice.below(10)) for _ in range(free))
    if country == "1":
        tail = "01" + tail[2:]  # 555-0100 to 555-0199 are kept for fiction
    return spelling(dice, country, trunk, code, fixed, tail)


def spelling(dice: Dice, country: str, trunk: str, code: str, fixed: str, tail: str) -> str:
    international = (
        f"+{country}{code}{fixed}{tail}",
        f"00{country}{code}{fixed}{tail}",
        f"+{country} {code} {fixed} {tail}",
        f"+{country}-{code}-{fixed}-{tail}",
        f"+{country} ({trunk}){code} {fixed}{tail}" if trunk else f"+{country} ({code}) {fixed}-{tail}",
        f"00{country} {code} {fixed} {tail}",
        f"+{country} {code} {fixed} {tail} ext. {dice.below(89) + 10}",
    )
    national = (
        f"{trunk}{code} {fixed} {tail}",
        f"{trunk}{code}.{fixed}.{tail}",
        f"{trunk}{code}-{fixed}-{tail}",
        f"({trunk}{code}) {fixed} {tail}",
        f"{trunk}{code}{fixed}{tail}",
    )
    return dice.pick(international + national if country == HOME else international)


def budget(dice: Dice, amount: int) -> str:
    """``amount`` (a multiple of 50,000) as people and programs write it."""
    dots = f"{amount:,}".replace(",", ".")
    short = f"{amount // 1000}k" if amount < 1_000_000 else f"{amount / 1_000_000:.2f}m"
    return dice.pick(
        (
            f"{amount:,}",
            str(amount),
            f"AED {short}",
            f"AED {amount:,}",
            f"{dots},00",
            f"{amount:,}.00",
            f"{amount:,}".replace(",", " "),
            f"{short} AED",
        )
    )


def created(dice: Dice) -> str:
    day = date(2024, 1, 1) + timedelta(days=dice.below(900))
    clock = f"{dice.below(24):02d}:{dice.below(60):02d}"
    return dice.pick(
        (
            day.isoformat(),
            f"{day.isoformat()} {clock}",
            f"{day.isoformat()}T{clock}:00+04:00",
            f"{day.day:02d}/{day.month:02d}/{day.year}",
            f"{day.day}/{day.month}/{day.year} {clock}",
        )
    )


def person(dice: Dice, number: int) -> list[str]:
    given, family = dice.pick(NAMES)
    first, first_latin = dice.pick(given)
    last, last_latin = dice.pick(family)
    local = f"{first_latin or plain(first)}.{last_latin or plain(last)}{number}"
    low = 350_000 + 50_000 * dice.below(60)
    row = [""] * len(HEADER)
    row[FIRST], row[LAST] = first, last
    row[EMAIL] = "" if dice.chance(12) else f"{local}@{dice.pick(DOMAINS)}"
    row[PHONE] = "" if row[EMAIL] and dice.chance(8) else phone(dice)
    row[BUDGET_MIN] = "" if dice.chance(30) else budget(dice, low)
    row[BUDGET_MAX] = "" if dice.chance(20) else budget(dice, low + 50_000 * (1 + dice.below(20)))
    row[BEDROOMS] = dice.pick(("", "1", "2", "3", "4", "3 ", "2.0"))
    row[AREA], row[SOURCE] = dice.pick(AREAS), dice.pick(SOURCES)
    row[NOTES], row[CREATED] = dice.pick(NOTES_TEXTS), created(dice)
    if dice.chance(10):
        blank = dice.pick((FIRST, LAST, EMAIL, PHONE))
        row[blank] += dice.pick((" ", "  ", "\t", "\u00a0"))
    return row


def plain(text: str) -> str:
    """ASCII letters of ``text`` in lower case."""
    bare = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    return "".join(letter for letter in bare.lower() if letter.isalnum())


def same_again(dice: Dice, row: list[str]) -> list[str]:
    """The person of ``row`` once more, typed by someone else."""
    again = list(row)
    again[FIRST] = dice.pick(
        (row[FIRST].upper(), row[FIRST].lower(), unicodedata.normalize("NFD", row[FIRST]))
    )
    again[LAST] = dice.pick((row[LAST].upper(), row[LAST], row[LAST] + " "))
    again[EMAIL] = dice.pick((row[EMAIL].upper(), row[EMAIL].capitalize(), row[EMAIL]))
    bare = row[PHONE].strip()
    if bare.startswith("+") and "(" not in bare and "ext" not in bare:
        digits = "".join(letter for letter in bare if letter.isdigit())
        again[PHONE] = dice.pick((f"+{digits}", f"00{digits}", bare))
    again[NOTES], again[CREATED] = "second enquiry", created(dice)
    return again


def spoil(dice: Dice, row: list[str], kind: str) -> list[str]:
    """``row`` made bad in one way."""
    local = plain(row[FIRST]) or "lead"
    if kind == "too_many_columns":
        return [*row, "moved", "from another sheet"]
    if kind == "too_few_columns":
        return row[:AREA]
    if kind == "no_name":
        row[FIRST] = dice.pick(("", " "))
        row[LAST] = ""
    elif kind == "phone_not_a_number":
        row[PHONE] = dice.pick(BAD_PHONES)
    elif kind == "email_broken":
        row[EMAIL] = dice.pick(BAD_EMAILS).format(local)
    return row


def plan(dice: Dice, rows: int) -> list[str]:
    """What each row will be: the bad kinds in their exact number, about 6 % duplicates, the rest good."""
    kinds = [kind for kind, share in BAD_PER_MILLE.items() for _ in range(max(1, rows * share // 1000))]
    kinds += ["duplicate"] * (rows * 6 // 100)
    kinds = kinds[:rows] + ["good"] * (rows - len(kinds))
    for last in range(len(kinds) - 1, 0, -1):  # Fisher-Yates
        other = dice.below(last + 1)
        kinds[last], kinds[other] = kinds[other], kinds[last]
    return kinds


def csv_line(fields: Sequence[str], delimiter: str) -> str:
    """One CSV line; written by hand because the quoting of the csv module differs between Python releases."""
    special = ('"', "\r", "\n", delimiter)
    cells = (
        '"' + cell.replace('"', '""') + '"' if any(s in cell for s in special) else cell for cell in fields
    )
    return delimiter.join(cells) + "\r\n"


def json_line(row: Sequence[str], dice: Dice) -> str:
    record: dict[str, object] = dict(zip(HEADER, row, strict=False))
    if not record["E-Mail"]:
        record["E-Mail"] = None
    if str(record["Bedrooms"]).isdigit() and dice.chance(50):
        record["Bedrooms"] = int(row[BEDROOMS])
    return json.dumps(record, ensure_ascii=dice.chance(30)) + "\n"


def fits_windows_1252(row: Sequence[str]) -> bool:
    try:
        "".join(row).encode("cp1252")
    except UnicodeEncodeError:
        return False
    return True


def generate(seed: int = 7, rows: int = 1000) -> Sample:
    """The whole sample in memory; ``rows`` (at least 1) data rows in ``leads.csv``."""
    dice = Dice(seed)
    sample = Sample(rows=[], kinds=plan(dice, rows))
    good: list[list[str]] = []
    for number, kind in enumerate(sample.kinds):
        if kind == "duplicate" and good:
            row = same_again(dice, dice.pick(good))
        else:
            row = person(dice, number)
            if kind in BAD_PER_MILLE:
                row = spoil(dice, row, kind)
            else:
                good.append(row)
        sample.rows.append(row)
    pairs = list(zip(sample.rows, sample.kinds, strict=True))
    western = [pair for pair in pairs if fits_windows_1252(pair[0])][: max(1, rows // 5)]
    whole = [pair for pair in pairs if len(pair[0]) == len(HEADER)][: max(1, rows // 5)]
    text = "".join(csv_line(row, ",") for row in (HEADER, *sample.rows))
    sample.files["leads.csv"] = text.encode("utf-8-sig")
    text = "".join(csv_line(row, ";") for row in (HEADER, *(row for row, _ in western)))
    sample.files["leads-latin1.csv"] = text.encode("cp1252")
    lines = [json_line(row, dice) for row, _ in whole]
    lines += ['{"First Name": "Cut", "E-Mail": "cut@exam\n', '{"First Name": {"given": "Nested"}}\n']
    sample.files["leads.jsonl"] = "".join(lines).encode("utf-8")
    broken: list[tuple[list[str], str]] = [([], "json_broken"), ([], "json_nested")]
    for name, chosen in (
        ("leads.csv", pairs),
        ("leads-latin1.csv", western),
        ("leads.jsonl", whole + broken),
    ):
        tally: dict[str, int] = {}
        for _, kind in chosen:
            tally[kind] = tally.get(kind, 0) + 1
        sample.counts[name] = dict(sorted(tally.items()))
    return sample


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the sample lead export.")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("samples"))
    options = parser.parse_args()
    if options.rows < 1:
        parser.error("--rows must be at least 1")
    sample = generate(options.seed, options.rows)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, content in sample.files.items():
        (options.out / name).write_bytes(content)
    print(json.dumps(sample.counts))


if __name__ == "__main__":
    main()
