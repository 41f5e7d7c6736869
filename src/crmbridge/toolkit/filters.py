"""The whitelist of template filters: plain functions over JSON values, no attributes, no loops, no code.

A filter takes the value and its literal arguments. It answers a JSON value or ABSENT and raises FilterError
for a value that it cannot take. Phone numbers by the phonenumbers library (E.164, ITU-T), loaded at first
use; dates by RFC 3339 and ISO 8601.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import quote

__all__ = ["ABSENT", "FILTERS", "Filter", "FilterError", "text_of"]

MAX_TEXT = 1_000_000
MAX_ITEMS = 10_000


class _Absent:
    """The type of ABSENT; there is one."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"

    def __bool__(self) -> bool:
        return False


ABSENT: Final = _Absent()


class FilterError(ValueError):
    """The value does not suit the filter. The message never shows the value."""


class Filter(NamedTuple):
    """``apply(value, *arguments)``; ``least`` and ``most`` bound the number of arguments.

    ``takes_missing`` filters see None and ABSENT; all others pass these through untouched.
    """

    apply: Callable[..., Any]
    least: int = 0
    most: int = 0
    takes_missing: bool = False


def text_of(value: Any) -> str:
    """A scalar as text: true/false in lower case, numbers as JSON writes them, None as an empty text."""
    if type(value) is str:
        return value
    if value is None or value is ABSENT:
        return ""
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int):
        return _integer_text(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise FilterError("an infinite number has no text")
        return repr(value).removesuffix(".0")
    if isinstance(value, str):
        return str(value)
    raise FilterError("a list or an object cannot stand inside a text; use join or a whole-value reference")


def _integer_text(value: int) -> str:
    if value.bit_length() > 63:
        raise FilterError("the number is too large")
    return str(value)


def _default(value: Any, fallback: Any) -> Any:
    return fallback if value is ABSENT or value is None or value == "" else value


def _required(value: Any) -> Any:
    if value is ABSENT or value is None or value == "":
        raise FilterError("the value is missing")
    return value


def _integer(value: Any) -> int:
    if isinstance(value, bool):
        return int(value)
    number = _number(value)
    if number != int(number):
        raise FilterError("not a whole number")
    return _whole(int(number))


def _number(value: Any) -> int | float:
    if isinstance(value, bool):
        raise FilterError("true or false is not a number")
    if isinstance(value, int):
        return _whole(value)
    if isinstance(value, float):
        number: float = value
    else:
        text = text_of(value).strip()
        if len(text) > 64 or not text.isascii() or "_" in text:
            raise FilterError("not a number")
        if text.removeprefix("-").isdigit():
            return _whole(int(text))
        try:
            number = float(text)
        except ValueError:
            raise FilterError("not a number") from None
    if not math.isfinite(number):
        raise FilterError("not a finite number")
    return number


def _whole(number: int) -> int:
    _integer_text(number)
    return number


_TRUE = frozenset({"true", "yes", "y", "on", "1"})
_FALSE = frozenset({"false", "no", "n", "off", "0", ""})


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = text_of(value).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise FilterError("neither yes nor no")


def _date(value: Any, pattern: str = "%Y-%m-%d") -> str:
    text = text_of(value).strip()
    try:
        if len(text) <= 10:
            return _format_date(datetime.combine(date.fromisoformat(text), datetime.min.time()), pattern)
        return _format_date(datetime.fromisoformat(text[:64]), pattern)
    except FilterError:
        raise
    except ValueError:
        raise FilterError("not a date or time such as 2026-01-31 or 2026-01-31T10:00:00+04:00") from None


_DATE_CODES = frozenset("YmdHMSyjBbAaIpzfZ%")


def _format_date(moment: datetime, pattern: str) -> str:
    codes = pattern.split("%")[1:]
    if len(pattern) > 40 or any(code[:1] not in _DATE_CODES for code in codes if code):
        raise FilterError("the date pattern may use %Y %m %d %H %M %S and the like, 40 characters at most")
    return moment.strftime(pattern)


def _join(value: Any, separator: str = ",") -> str:
    if not isinstance(value, list):
        return text_of(value)
    texts = [text_of(item) for item in value if item is not None and item is not ABSENT]
    size = sum(map(len, texts)) + len(separator) * len(texts)
    if size > MAX_TEXT:
        raise FilterError("the joined text is too long")
    return separator.join(texts)


def _split(value: Any, separator: str = ",") -> list[str]:
    if not separator:
        raise FilterError("split needs a separator")
    parts = text_of(value).split(separator, MAX_ITEMS)
    if len(parts) > MAX_ITEMS:
        raise FilterError(f"more than {MAX_ITEMS} parts")
    return [part for part in (part.strip() for part in parts) if part]


def _first(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return value[0] if value else ABSENT


def _last(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return value[-1] if value else ABSENT


def _e164(value: Any, region: str = "") -> str:
    import phonenumbers

    text = text_of(value).strip()
    if len(text) > 64:
        raise FilterError("not a phone number")
    try:
        number = phonenumbers.parse(text, region.upper() or None)
    except phonenumbers.NumberParseException:
        raise FilterError("not a phone number; a national one needs a region, such as e164('AE')") from None
    if not phonenumbers.is_possible_number(number):
        raise FilterError("not a possible phone number")
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


def _urlencode(value: Any) -> str:
    text = text_of(value)
    if len(text) > MAX_TEXT // 10:
        raise FilterError("the text is too long")
    return quote(text, safe="", errors="replace")


FILTERS: dict[str, Filter] = {
    "boolean": Filter(_boolean),
    "date": Filter(_date, 0, 1),
    "default": Filter(_default, 1, 1, takes_missing=True),
    "e164": Filter(_e164, 0, 1),
    "first": Filter(_first),
    "integer": Filter(_integer),
    "join": Filter(_join, 0, 1),
    "last": Filter(_last),
    "lower": Filter(lambda value: text_of(value).lower()),
    "number": Filter(_number),
    "required": Filter(_required, takes_missing=True),
    "split": Filter(_split, 0, 1),
    "string": Filter(text_of),
    "trim": Filter(lambda value: text_of(value).strip()),
    "upper": Filter(lambda value: text_of(value).upper()),
    "urlencode": Filter(_urlencode),
}
