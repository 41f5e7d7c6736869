"""The text of one CSV cell as the value of a slot, in the forms that ``core/verticals.py`` describes.

Every function raises ``ValueError`` with a reason that says what was expected and holds nothing of the text.
What can be read in two ways is refused, never guessed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Final
from urllib.parse import urlsplit

import phonenumbers

__all__ = ["Value", "clean_value", "currency", "phone_extension"]

_TYPE_NAMES: Final = (
    "text long_text email phone integer number money boolean date datetime pick_list url tags"
)

Value = str | int | float | bool | list[str] | None

_MAX_TEXT: Final = 1_000
_MAX_LONG_TEXT: Final = 100_000
_MAX_DIGITS: Final = 18

_BIDI_MARKS: Final = dict.fromkeys(
    map(ord, "\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
)
_LINE_BREAKS: Final = re.compile(r"\r\n|[\r\x0b\x0c\u2028\u2029]")

_EMAIL_LOCAL: Final = re.compile(r"[^\s@<>()\[\]\\,;:\"]{1,64}")
_DOMAIN_LABEL: Final = re.compile(r"[^\W_](?:[^\W_]|-){0,61}[^\W_]|[^\W_]")

_CURRENCIES: Final = {
    "€": "EUR", "£": "GBP", "₹": "INR", "₪": "ILS", "₺": "TRY", "₽": "RUB", "₩": "KRW", "us$": "USD",
    "dh": "AED", "dhs": "AED", "dirham": "AED", "dirhams": "AED", "د.إ": "AED", "rs": "INR", "eur": "EUR",
    "euro": "EUR", "chf": "CHF", "$": None, "¥": None, "kr": None,
}  # fmt: skip
_SUFFIXES: Final = {
    "": 0, "k": 3, "thousand": 3, "tsd": 3, "m": 6, "mn": 6, "mm": 6, "mio": 6, "mil": 6, "million": 6,
    "millions": 6, "b": 9, "bn": 9, "billion": 9,
}  # fmt: skip
_MONEY: Final = re.compile(
    r"(?P<before>[^\d\s,+\-]{0,9}?)\s*(?P<sign>-?)(?P<number>\d[\d.,' ]*)(?P<after>[^\d]{0,20})"
)
_GROUPED: Final = {  # thousands sign -> digits in groups of three
    sign: re.compile(rf"\d{{1,3}}(?:{re.escape(sign)}\d{{3}})+") for sign in (",", ".", " ", "'")
}

_TRUE: Final = frozenset(
    ["true", "t", "yes", "y", "1", "on", "x", "ja", "j", "oui", "si", "sí", "wahr", "vrai", "نعم", "כן", "是"]
)
_FALSE: Final = frozenset(
    ["false", "f", "no", "n", "0", "off", "nein", "non", "falsch", "faux", "لا", "לא", "否"]
)

_MONTH_NAMES: Final = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_YEAR_FIRST: Final = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})")
_YEAR_LAST: Final = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})")
_DAY_NAMED: Final = re.compile(r"(\d{1,2})(?:st|nd|rd|th)?[ -]([a-z]{3,9})\.?,?[ -](\d{4})")
_NAMED_DAY: Final = re.compile(r"([a-z]{3,9})\.? (\d{1,2})(?:st|nd|rd|th)?,? (\d{4})")
_CLOCK: Final = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2})(?:\.\d{1,6})?)? ?([ap]\.?m\.?)?", re.IGNORECASE)


def clean_value(
    slot_type: str,
    text: str,
    *,
    region: str | None = None,
    dayfirst: bool | None = None,
    zone: tzinfo | None = None,
    options: Sequence[str] = (),
) -> Value:
    """The value of a cell for a slot of ``slot_type`` (a word of ``SlotType``), or None for a blank cell.

    ``region`` (ISO 3166, two letters) is the country of phone numbers without a country code. ``dayfirst``
    decides dates such as 03/04/2026. ``zone`` is that of moments without an offset. ``options`` are the texts
    of a pick list; any text when there are none.

    Returns: text → text in Unicode form C, trimmed; ``phone`` → E.164, without the extension
    (:func:`phone_extension` has it); ``email`` → with the domain in lower case; ``money`` → decimal text
    without currency (:func:`currency` has it); ``date`` → YYYY-MM-DD; ``datetime`` → RFC 3339 with an offset;
    ``tags`` → the texts between commas or semicolons. Raises ``ValueError``.
    """
    clean = _trim(text)
    if not clean:
        return None
    if slot_type == "text":
        return _short_text(" ".join(clean.splitlines()))
    if slot_type == "long_text":
        return _limited(clean, _MAX_LONG_TEXT)
    if slot_type == "phone":
        return phonenumbers.format_number(_phone(clean, region), phonenumbers.PhoneNumberFormat.E164)
    if slot_type == "date":
        return _date(clean, dayfirst).isoformat()
    if slot_type == "datetime":
        return _datetime(clean, dayfirst, zone).isoformat()
    if slot_type == "pick_list":
        return _pick(clean, options)
    plain = _PLAIN.get(slot_type)
    if plain is None:
        raise ValueError("this slot type is not known; use one of: " + _TYPE_NAMES)
    return plain(clean)


def phone_extension(text: str, *, region: str | None = None) -> str | None:
    """The digits of the extension in a phone cell, which E.164 cannot hold, or None. Raises ``ValueError``."""
    clean = _trim(text)
    return _phone(clean, region).extension or None if clean else None


def currency(text: str) -> str | None:
    """The ISO 4217 code that a money cell names, or None (none, or a sign of several such as ``$``).

    Raises ``ValueError`` when the cell is no amount.
    """
    clean = _trim(text)
    return _money_parts(clean)[1] if clean else None


# ---------------------------------------------------------------- text


def _trim(text: str) -> str:
    """Form C, line breaks as ``\\n``, invisible direction marks at the ends gone. Refuses control characters."""
    clean = _LINE_BREAKS.sub("\n", unicodedata.normalize("NFC", text))
    if any(unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\n\t" for letter in clean):
        raise ValueError("it holds a control character; remove it")
    return clean.strip("\u200b\u200e\u200f\ufeff \u00a0\u2007\u202f\t\n").strip()


def _limited(text: str, limit: int) -> str:
    if len(text) > limit:
        raise ValueError(f"longer than {limit:,} characters")
    return text


def _short_text(text: str) -> str:
    return _limited(text, _MAX_TEXT)


def _bare(text: str) -> str:
    """For numbers and dates: compatibility forms and digits of any script as ASCII, one blank between words."""
    wide = (
        unicodedata.normalize("NFKC", text)
        .translate(_BIDI_MARKS)
        .translate({0x66B: ".", 0x66C: ",", 0x2212: "-"})
    )
    digits = "".join(str(unicodedata.digit(sign)) if sign.isdecimal() else sign for sign in wide)
    return " ".join(digits.split())


def _tags(text: str) -> list[str]:
    found = dict.fromkeys(part.strip() for part in re.split(r"[,;\n]", text))
    return [_short_text(part) for part in found if part]


def _pick(text: str, options: Sequence[str]) -> str:
    if not options:
        return _short_text(text)
    for option in options:
        if option == text:
            return option
    wanted = _folded(text)
    same = [option for option in options if _folded(option) == wanted]
    if len(same) == 1:
        return same[0]
    raise ValueError("not one of the values of the list: " + ", ".join(options[:20]))


def _folded(text: str) -> str:
    return " ".join(text.casefold().replace("_", " ").replace("-", " ").split())


def _boolean(text: str) -> bool:
    word = _bare(text).casefold()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("neither yes nor no; write true or false")


# ---------------------------------------------------------------- e-mail, phone, URL


def _email(text: str) -> str:
    address = text[7:] if text[:7].lower() == "mailto:" else text
    if address.endswith(">") and address.count("<") == 1:
        address = address[address.index("<") + 1 : -1].strip()
    local, at, domain = address.rpartition("@")
    if not at:
        raise ValueError("no e-mail address: the @ is missing")
    if not _EMAIL_LOCAL.fullmatch(local) or local.startswith(".") or local.endswith(".") or ".." in local:
        raise ValueError("no e-mail address: the part before the @ is wrong")
    labels = domain.split(".")
    if (
        len(labels) < 2
        or not all(_DOMAIN_LABEL.fullmatch(label) for label in labels)
        or labels[-1].isdecimal()
    ):
        raise ValueError("no e-mail address: the domain after the @ is wrong")
    if len(address) > 254:
        raise ValueError("no e-mail address: longer than 254 characters")
    return f"{local}@{domain.lower()}"


def _phone(text: str, region: str | None) -> phonenumbers.PhoneNumber:
    number = _bare(text)
    if number.startswith("00"):
        number = "+" + number[2:].lstrip()
    if len(number) > 60:
        raise ValueError("no phone number: too long")
    if not number.startswith(("+", "tel:+")) and region is None:
        raise ValueError(
            "a phone number without a country code; write +971… or name the country with --region"
        )
    try:
        parsed = phonenumbers.parse(number, region.upper() if region else None)
    except phonenumbers.NumberParseException as error:
        if error.error_type == phonenumbers.NumberParseException.INVALID_COUNTRY_CODE:
            raise ValueError("no phone number: the country code does not exist") from None
        raise ValueError("no phone number") from None
    possible = phonenumbers.is_possible_number_with_reason(parsed)
    if possible == phonenumbers.ValidationResult.TOO_SHORT:
        raise ValueError("no phone number: too few digits for its country")
    if possible == phonenumbers.ValidationResult.TOO_LONG:
        raise ValueError("no phone number: too many digits for its country")
    if possible == phonenumbers.ValidationResult.IS_POSSIBLE_LOCAL_ONLY:
        raise ValueError("a phone number without its area code")
    if possible != phonenumbers.ValidationResult.IS_POSSIBLE:
        raise ValueError("no phone number: no number of its country has that many digits")
    return parsed


def _url(text: str) -> str:
    if any(sign.isspace() for sign in text) or len(text) > 2_048:
        raise ValueError("no web address: it has blanks or more than 2,048 characters")
    address = text if "://" in text else f"https://{text}"
    try:
        parts = urlsplit(address)
        host, _port, user = parts.hostname, parts.port, parts.username
    except ValueError:
        raise ValueError("no web address") from None
    if parts.scheme.lower() not in ("http", "https"):
        raise ValueError("a web address starts with https:// or http://")
    if user is not None or parts.password is not None:
        raise ValueError("a web address with a user name or password is not taken")
    if not host or ("." not in host and ":" not in host):
        raise ValueError("no web address: the host is missing")
    return address


# ---------------------------------------------------------------- numbers


def _integer(text: str) -> int:
    number = _decimal(_bare(text), money=True)
    if number != number.to_integral_value():
        raise ValueError("not a whole number")
    return int(number)


def _number(text: str) -> int | float:
    number = _decimal(_bare(text), money=False)
    return int(number) if number == number.to_integral_value() else float(number)


def _money(text: str) -> str:
    return format(_money_parts(text)[0], "f")


def _money_parts(text: str) -> tuple[Decimal, str | None]:
    found = _MONEY.fullmatch(_bare(text))
    if found is None:
        raise ValueError("not an amount; write 1250000 or AED 1,250,000")
    after = found["after"].strip().casefold()
    before = found["before"].strip().casefold()
    word, _, rest = after.partition(" ")
    if word not in _SUFFIXES:
        word, rest = "", after
    names = [name.strip().removesuffix(".-").strip(" .") for name in (before, rest)]
    codes = [_currency(name) for name in names if name not in ("", "-", ",-", ".-")]
    if len(codes) > 1:
        raise ValueError("not an amount: two currencies")
    amount = _decimal(found["sign"] + found["number"].strip().rstrip(",."), money=True, scaled=bool(word))
    amount = amount.scaleb(_SUFFIXES[word])
    if amount == amount.to_integral_value():
        amount = amount.quantize(Decimal(1))
    return amount, codes[0] if codes else None


def _currency(name: str) -> str | None:
    if name in _CURRENCIES:
        return _CURRENCIES[name]
    if len(name) == 3 and name.isascii() and name.isalpha():
        return name.upper()
    raise ValueError("not an amount; write 1250000 or AED 1,250,000")


def _decimal(text: str, *, money: bool, scaled: bool = False) -> Decimal:
    """A number with any of the usual thousands and decimal signs.

    Of two kinds of sign the last is the decimal one. One comma before three digits is a thousands sign; one
    dot before three digits is so in German and not in English: refused where ``money`` (or a whole number) is
    expected, unless a word such as k follows (``scaled``); for other numbers it is the decimal sign.
    """
    sign, bare = ("-", text[1:]) if text.startswith("-") else ("", text.removeprefix("+"))
    whole, dot, decimals = bare, "", ""
    last = max(bare.rfind(","), bare.rfind("."))
    if last >= 0:
        mark, tail = bare[last], bare[last + 1 :]
        other = "." if mark == "," else ","
        group = len(tail) == 3 and bare[:last].lstrip("0") != ""
        alone = bare.count(mark) == 1 and other not in bare
        if group and alone and mark == "." and money and not scaled and " " not in bare and len(bare) <= 7:
            raise ValueError("can be read in two ways: write it without the dot, or with two decimals")
        grouped = bare.count(mark) > 1 or (group and alone and mark == "," and not scaled)
        if not grouped:
            whole, dot, decimals = bare[:last], ".", tail
    for mark in (",", ".", " ", "'"):
        if mark in whole and _GROUPED[mark].fullmatch(whole):
            whole = whole.replace(mark, "")
    if (
        not whole.isdecimal()
        or (dot and not decimals.isdecimal())
        or len(whole) + len(decimals) > _MAX_DIGITS
    ):
        raise ValueError("not a number")
    try:
        return Decimal(f"{sign}{whole}{dot}{decimals}")
    except InvalidOperation:
        raise ValueError("not a number") from None


# ---------------------------------------------------------------- dates


def _date(text: str, dayfirst: bool | None) -> date:
    bare = _bare(text)
    if found := _YEAR_FIRST.fullmatch(bare):
        return _day(found[1], found[3], found[4])
    if found := _YEAR_LAST.fullmatch(bare):
        first, second = int(found[1]), int(found[3])
        if found[2] == "." or (dayfirst is None and first > 12) or first == second:
            return _day(found[4], second, first)
        if dayfirst is None and second <= 12:
            raise ValueError("day and month can be read in two ways; write YYYY-MM-DD or say --dayfirst")
        return _day(found[4], second, first) if dayfirst else _day(found[4], first, second)
    if found := _DAY_NAMED.fullmatch(bare.casefold()):
        return _day(found[3], _month(found[2]), found[1])
    if found := _NAMED_DAY.fullmatch(bare.casefold()):
        return _day(found[3], _month(found[1]), found[2])
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}[T ].*", bare):
        raise ValueError("a moment where a date is expected; write YYYY-MM-DD")
    raise ValueError("no date; write YYYY-MM-DD")


def _month(name: str) -> int:
    for number, month in enumerate(_MONTH_NAMES, start=1):
        if name in (month, month[:3]) or (number == 9 and name == "sept"):
            return number
    raise ValueError("no date: the month is not known; write YYYY-MM-DD")


def _day(year: str | int, month: str | int, day: str | int) -> date:
    if not 1850 <= int(year) <= 2200:
        raise ValueError("no date: the year is not between 1850 and 2200")
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        raise ValueError("no date: there is no such day") from None


def _datetime(text: str, dayfirst: bool | None, zone: tzinfo | None) -> datetime:
    bare = _bare(text)
    moment: datetime | None = None
    if re.match(r"\d{4}-\d{2}-\d{2}[T ]\d", bare, re.IGNORECASE):
        try:
            moment = datetime.fromisoformat(bare.replace("z", "Z").replace(" +", "+"))
        except ValueError:
            moment = None
        else:
            _day(moment.year, moment.month, moment.day)
    if moment is None:
        moment = _spoken_datetime(bare, dayfirst)
    if moment.tzinfo is None and zone is None:
        raise ValueError(
            "a moment without a time zone; write 2026-03-14T09:30:00+04:00 or name one with --zone"
        )
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)


def _spoken_datetime(bare: str, dayfirst: bool | None) -> datetime:
    """A date of any kind and a clock time after it, or the date alone (midnight)."""
    colon = bare.find(":")
    if colon < 0:
        return datetime.combine(_date(bare, dayfirst), time())
    start = bare.rfind(" ", 0, colon)
    clock = _CLOCK.fullmatch(bare[start + 1 :])
    if start < 0 or clock is None:
        raise ValueError("no date and time; write 2026-03-14T09:30:00+04:00")
    hour, half = int(clock[1]), (clock[4] or "").lower()[:1]
    if half and not 1 <= hour <= 12:
        raise ValueError("no time of day: am and pm go with hours from 1 to 12")
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    try:
        at = time(hour, int(clock[2]), int(clock[3] or 0))
    except ValueError:
        raise ValueError("no time of day") from None
    return datetime.combine(_date(bare[:start].rstrip(","), dayfirst), at)


_PLAIN: Final[dict[str, Callable[[str], Value]]] = {
    "email": _email,
    "integer": _integer,
    "number": _number,
    "money": _money,
    "boolean": _boolean,
    "url": _url,
    "tags": _tags,
}
