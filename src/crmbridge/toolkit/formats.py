"""Slot values: what each slot type accepts, and the named formats in which providers want them.

Canonical values, as JSON carries them: texts; e-mail with a lower-case domain; phones in E.164; money as
exact decimal text without trailing zeros (``1250000.5``); dates ``YYYY-MM-DD``; datetimes RFC 3339 in UTC
with whole seconds (``2026-03-01T14:30:00Z``); tags as a list of different texts. For every format and type
that is not named lossy below, reading what was written gives the canonical value again.

Errors are :class:`ValueFault`; its text names the problem and the fix and never repeats the value.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from crmbridge.core.verticals import Slot, SlotType
from crmbridge.toolkit.phones import to_e164

__all__ = [
    "FORMATS",
    "Format",
    "Locale",
    "ValueFault",
    "coerce",
    "format_named",
    "moment_text",
    "plain_decimal",
    "utc_text",
]

MAX_TEXT = 10_000
MAX_LONG_TEXT = 500_000
MAX_TAGS = 200


class ValueFault(ValueError):
    """A value that its slot or its format does not take. Its text holds no part of the value."""


class Locale(msgspec.Struct, frozen=True):
    """The tenant's region (ISO 3166, for phones without a country code) and IANA time zone."""

    region: str = ""
    time_zone: str = ""

    def zone(self) -> tzinfo:
        """The tenant's zone; UTC when none is set. Raises ValueFault for an unknown name."""
        return _zone(self.time_zone) if self.time_zone else UTC


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueFault(
            "the tenant's time zone is not a zone of the IANA list, such as Asia/Dubai"
        ) from None


# -- slot types: any accepted spelling -> the canonical value ------------------------------------------------

_EMAIL = re.compile(
    r"[^@\s\x00-\x1f,;<>\"]{1,64}@([^@\s\x00-\x1f,;<>\"]{1,190}\.[^@\s\x00-\x1f,;<>\".]{2,63})"
)
_DECIMAL = re.compile(r"[+-]?([0-9]{1,24}(\.[0-9]{1,20})?|\.[0-9]{1,20})")
_TRUE = frozenset({"true", "yes", "y", "1", "on"})
_FALSE = frozenset({"false", "no", "n", "0", "off"})


_BROKEN = re.compile("[\x00\ud800-\udfff]")


def _as_text(value: Any, longest: int) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
        raise ValueFault("needs a text")
    text = value if isinstance(value, str) else str(value)
    if ("\0" in text or not text.isascii()) and _BROKEN.search(text):
        raise ValueFault("holds a zero byte or half a character; send valid Unicode text")
    if len(text) > longest:
        raise ValueFault(f"is longer than {longest} characters; shorten it")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _text(value: Any, slot: Slot, locale: Locale) -> Any:
    return _as_text(value, MAX_TEXT)


def _long_text(value: Any, slot: Slot, locale: Locale) -> Any:
    return _as_text(value, MAX_LONG_TEXT)


def _email(value: Any, slot: Slot, locale: Locale) -> Any:
    text = _as_text(value, 320).strip()
    found = _EMAIL.fullmatch(text)
    if found is None or ".." in text:
        raise ValueFault("is not an e-mail address; write it as name@example.com")
    return f"{text[: found.start(1)]}{found[1].lower()}"


def _phone(value: Any, slot: Slot, locale: Locale) -> Any:
    number = to_e164(_as_text(value, 60), locale.region)
    if number is None:
        region = f"region {locale.region}" if locale.region else "no region set for this tenant"
        raise ValueFault(f"is not a phone number ({region}); write it with its country code: +971501234567")
    return number


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        raise ValueFault("needs a number")
    text = format(value, "f") if isinstance(value, Decimal) else str(value).strip()
    if isinstance(value, float) and "e" in text:
        text = format(Decimal(text), "f")
    if not _DECIMAL.fullmatch(text):
        raise ValueFault("needs a plain decimal number such as 1250000.50, without currency or separators")
    return Decimal(text)


def _money(value: Any, slot: Slot, locale: Locale) -> Any:
    return plain_decimal(_decimal(value))


def plain_decimal(number: Decimal) -> str:
    """The shortest exact decimal text, without an exponent."""
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def _integer(value: Any, slot: Slot, locale: Locale) -> Any:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    number = Decimal(value) if is_whole else _decimal(value)
    if number != number.to_integral_value() or abs(number) > 2**63:
        raise ValueFault("needs a whole number")
    return int(number)


def _number(value: Any, slot: Slot, locale: Locale) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return _integer(value, slot, locale)
    number = _decimal(value)
    return int(number) if number == number.to_integral_value() else float(number)


def _boolean(value: Any, slot: Slot, locale: Locale) -> Any:
    if isinstance(value, bool):
        return value
    text = str(value).strip().casefold() if isinstance(value, (str, int)) else ""
    if text not in _TRUE | _FALSE:
        raise ValueFault("needs true or false")
    return text in _TRUE


def _date(value: Any, slot: Slot, locale: Locale) -> Any:
    if isinstance(value, datetime):
        value = value.date()
    if isinstance(value, date):
        return value.isoformat()
    text = value.strip() if isinstance(value, str) else ""
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return date.fromisoformat(text).isoformat()
    except ValueError:
        pass
    raise ValueFault("needs a date as YYYY-MM-DD")


def _datetime(value: Any, slot: Slot, locale: Locale) -> Any:
    if isinstance(value, datetime):
        moment = value
    else:
        text = value.strip() if isinstance(value, str) else ""
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueFault("needs a date and time such as 2026-03-01T14:30:00+04:00") from None
        if "T" not in text.upper() and " " not in text:
            raise ValueFault("has no time; write it as 2026-03-01T14:30:00+04:00")
    if moment.tzinfo is None:
        if not locale.time_zone:
            raise ValueFault("has no time zone; end it with Z or +04:00, or set the tenant's time zone")
        moment = moment.replace(tzinfo=locale.zone())
    return utc_text(moment)


def utc_text(moment: datetime) -> str:
    """RFC 3339 in UTC, whole seconds."""
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise ValueFault("is outside the years 1 to 9999") from None
    return moment.replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def moment_text(value: Any) -> str:
    """A provider's moment (RFC 3339, naive means UTC, or Unix seconds or milliseconds); empty for any other."""
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return utc_text(datetime.fromtimestamp(value / 1000 if abs(value) > 10**11 else value, UTC))
        if isinstance(value, str) and ":" in value:
            moment = datetime.fromisoformat(value.strip())
            return utc_text(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError, OSError):
        pass
    return ""


def _pick_list(value: Any, slot: Slot, locale: Locale) -> Any:
    text = _as_text(value, MAX_TEXT)
    if not slot.options or text in slot.options:
        return text
    for option in slot.options:
        if option.casefold() == text.strip().casefold():
            return option
    raise ValueFault(f"needs one of: {', '.join(slot.options)}")


def _url(value: Any, slot: Slot, locale: Locale) -> Any:
    text = _as_text(value, 2048).strip()
    if not re.fullmatch(r"https?://[^\s/\x00-\x1f]+[^\s\x00-\x1f]*", text, re.IGNORECASE):
        raise ValueFault("needs a web address that starts with https://")
    return text


def _tags(value: Any, slot: Slot, locale: Locale) -> Any:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or len(items) > MAX_TAGS:
        raise ValueFault(f"needs a list of at most {MAX_TAGS} texts")
    texts = (_as_text(item, 500).strip() for item in items)
    return list(dict.fromkeys(text for text in texts if text))


_COERCIONS: dict[SlotType, Callable[[Any, Slot, Locale], Any]] = {
    SlotType.TEXT: _text,
    SlotType.LONG_TEXT: _long_text,
    SlotType.EMAIL: _email,
    SlotType.PHONE: _phone,
    SlotType.INTEGER: _integer,
    SlotType.NUMBER: _number,
    SlotType.MONEY: _money,
    SlotType.BOOLEAN: _boolean,
    SlotType.DATE: _date,
    SlotType.DATETIME: _datetime,
    SlotType.PICK_LIST: _pick_list,
    SlotType.URL: _url,
    SlotType.TAGS: _tags,
}


def coerce(slot: Slot, value: Any, locale: Locale) -> Any:
    """The canonical value of a slot. Raises ValueFault."""
    return _COERCIONS[slot.type](value, slot, locale)


# -- formats: the canonical value <-> the provider's ----------------------------------------------------

Step = Callable[[Any, Locale], Any]

_ALL = frozenset(SlotType)
_MOMENTS = frozenset({SlotType.DATETIME})
_DAYS = frozenset({SlotType.DATE, SlotType.DATETIME})
_NUMBERS = frozenset({SlotType.INTEGER, SlotType.NUMBER, SlotType.MONEY})
_BOOLEANS = frozenset({SlotType.BOOLEAN})
_PHONES = frozenset({SlotType.PHONE})


class Format(msgspec.Struct, frozen=True):
    """One way of writing a value. ``types`` are the slot types it serves, ``lossy`` those it cannot restore.

    ``write`` takes a canonical value; ``read`` takes the provider's and may raise ValueFault; what it answers
    is coerced to the slot type afterwards.
    """

    write: Step
    read: Step
    types: frozenset[SlotType] = _ALL
    lossy: frozenset[SlotType] = frozenset()


def _same(value: Any, locale: Locale) -> Any:
    return value


def _to_text(value: Any, locale: Locale) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return plain_decimal(_decimal(value)) if isinstance(value, float) else str(value)


def _parsed(value: Any) -> datetime:
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueFault("is not a date and time") from None


def _utc_pattern(join: str, end: str) -> Format:
    def write(value: Any, locale: Locale) -> str:
        return f"{value[:-1].replace('T', join)}{end}"

    return Format(write, _read_utc, _MOMENTS)


def _read_utc(value: Any, locale: Locale) -> str:
    moment = _parsed(value)
    return utc_text(moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment)


def _local_moment(value: Any, locale: Locale) -> datetime:
    try:
        return _parsed(value).astimezone(locale.zone())
    except OverflowError:
        raise ValueFault("is outside the years 1 to 9999") from None


def _write_local_naive(value: Any, locale: Locale) -> str:
    return _local_moment(value, locale).replace(tzinfo=None).isoformat()


def _write_local_offset(value: Any, locale: Locale) -> str:
    return _local_moment(value, locale).isoformat()


def _read_local(value: Any, locale: Locale) -> str:
    moment = _parsed(value)
    return utc_text(moment.replace(tzinfo=locale.zone()) if moment.tzinfo is None else moment)


def _write_day(value: Any, locale: Locale) -> str:
    return _local_moment(value, locale).date().isoformat() if "T" in value else str(value)


def _read_day(value: Any, locale: Locale) -> Any:
    return value[:10] if isinstance(value, str) else value


def _epoch(per_second: int) -> Format:
    start = datetime(1970, 1, 1, tzinfo=UTC)

    def write(value: Any, locale: Locale) -> int:
        moment = _parsed(value)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return (moment - start) // timedelta(seconds=1) * per_second

    def read(value: Any, locale: Locale) -> Any:
        if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,16}", value.strip()):
            return _read_utc(value, locale)
        try:
            return start + timedelta(seconds=int(value) // per_second)
        except (TypeError, OverflowError, ValueError):
            raise ValueFault("is not a count of seconds since 1970") from None

    return Format(write, read, _DAYS)


def _write_integer(value: Any, locale: Locale) -> int:
    number = _decimal(value)
    if number != number.to_integral_value():
        raise ValueFault("has a fraction, which this CRM's field cannot keep; send a whole number")
    return int(number)


def _write_number(value: Any, locale: Locale) -> int | float:
    exact = _decimal(value)
    if exact == exact.to_integral_value() and abs(exact) < 2**53:
        return int(exact)
    near = float(exact)
    if Decimal(repr(near)) != exact:
        raise ValueFault("has more digits than this CRM's number field can keep; shorten it")
    return near


def _write_milliseconds(value: Any, locale: Locale) -> int:
    return int(value) * 1000


def _read_milliseconds(value: Any, locale: Locale) -> int:
    return int(_decimal(value) // 1000)


def _write_cents(value: Any, locale: Locale) -> int:
    number = _decimal(value) * 100
    if number != number.to_integral_value():
        raise ValueFault("has a fraction of a cent, which this CRM cannot keep; round it to two decimals")
    return int(number)


def _read_cents(value: Any, locale: Locale) -> str:
    return plain_decimal(_decimal(value) / 100)


def _words(yes: Any, no: Any) -> Format:
    def read(value: Any, locale: Locale) -> Any:
        text = str(value).strip().casefold()
        return {str(yes).casefold(): True, str(no).casefold(): False}.get(text, value)

    return Format(lambda value, locale: yes if value else no, read, _BOOLEANS)


def _write_html(value: Any, locale: Locale) -> str:
    return html.escape(str(value), quote=False).replace("\n", "<br>")


_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_BLOCK_END = re.compile(r"</(?:p|div|li|h[1-6])\s*>", re.IGNORECASE)
_TAG = re.compile(r"<[a-zA-Z/!][^<>]{0,2000}>")


def _read_html(value: Any, locale: Locale) -> Any:
    if not isinstance(value, str):
        return value
    text = _BREAK.sub("\n", value)
    if _TAG.search(text):
        text = _TAG.sub("", _BLOCK_END.sub("\n", text)).strip()
    return html.unescape(text)


def _read_digits(value: Any, locale: Locale) -> str:
    text = str(value).strip()
    return f"+{text}" if re.fullmatch(r"[1-9][0-9]{6,14}", text) else text


def _joined(separator: str) -> Format:
    def write(value: Any, locale: Locale) -> str:
        if any(separator in item for item in value):
            raise ValueFault(f"has an entry with {separator!r} in it, which this CRM puts between entries")
        return separator.join(value)

    def read(value: Any, locale: Locale) -> Any:
        if isinstance(value, str):
            return [item.strip() for item in value.split(separator) if item.strip()]
        return value

    return Format(write, read, frozenset({SlotType.TAGS}))


FORMATS: dict[str, Format] = {
    "": Format(_same, _same),
    "text": Format(_to_text, _same, _ALL - {SlotType.TAGS}),
    "html": Format(_write_html, _read_html, frozenset({SlotType.TEXT, SlotType.LONG_TEXT})),
    "e164": Format(_same, _same, _PHONES),
    "phone_digits": Format(lambda value, locale: value.removeprefix("+"), _read_digits, _PHONES),
    "integer": Format(_write_integer, _same, _NUMBERS),
    "number": Format(_write_number, _same, _NUMBERS),
    "money_text": Format(_to_text, _same, _NUMBERS),
    "cents": Format(_write_cents, _read_cents, _NUMBERS),
    "boolean": Format(_same, _same, _BOOLEANS),
    "yes_no": _words("Yes", "No"),
    "one_zero": _words(1, 0),
    "true_false": _words("true", "false"),
    "date": Format(_write_day, _read_day, _DAYS, _MOMENTS),
    "datetime_z": _utc_pattern("T", "Z"),
    "datetime_ms_z": _utc_pattern("T", ".000Z"),
    "datetime_offset": _utc_pattern("T", "+00:00"),
    "datetime_ms_offset": _utc_pattern("T", ".000+0000"),
    "datetime_utc_naive": _utc_pattern(" ", ""),
    "datetime_local_naive": Format(_write_local_naive, _read_local, _MOMENTS),
    "datetime_local_offset": Format(_write_local_offset, _read_local, _MOMENTS),
    "epoch_s": _epoch(1),
    "epoch_ms": _epoch(1000),
    "milliseconds": Format(_write_milliseconds, _read_milliseconds, frozenset({SlotType.INTEGER})),
}
"""All named formats; ``join:X`` (tags between X) is made on demand. ``datetime_local_naive`` cannot tell the
two passes of an hour that a zone repeats in autumn: it means the first."""


@lru_cache(maxsize=128)
def format_named(name: str) -> Format:
    """The format of this name. Raises ValueFault naming the known ones."""
    if name in FORMATS:
        return FORMATS[name]
    kind, _, separator = name.partition(":")
    if kind == "join" and 1 <= len(separator) <= 5:
        return _joined(separator)
    raise ValueFault(
        f"has no format of that name; the formats are {', '.join(filter(None, FORMATS))}, join:X"
    )
