"""COQL as a tree: conditions and a Select that alone turns them into text, with one function that quotes.

Pages: https://www.zoho.com/crm/developer/docs/api/v8/COQL-Overview.html and .../COQL-Limitations.html, and Zoho's
answers to questions about COQL (read 2026-11-25): a quote inside a text is doubled, conditions are grouped in pairs,
``like`` takes ``%`` at the ends alone, ``in`` up to 50 values (100 since v7), long texts cannot be compared. Nothing
is said about backslashes: a value that has one is refused, so that it cannot end a literal under either reading.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec

from crmbridge.core.errors import FieldError, ValidationError
from crmbridge.toolkit.formats import plain_decimal

__all__ = [
    "MOST_VALUES",
    "RESERVED",
    "AllOf",
    "AnyOf",
    "Compare",
    "In",
    "Kind",
    "Like",
    "Select",
    "literal",
    "moment",
    "quoted",
]

MOST_VALUES = 50
MOST_FIELDS = 50
_MOST_CONDITIONS = 25
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}(?:\.[A-Za-z][A-Za-z0-9_]{0,99}){0,2}")
_NEVER = re.compile("[\x00-\x1f\x7f\\\\\ud800-\udfff]")
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d{1,24}(?:\.\d{1,20})?", re.ASCII)
RESERVED = frozenset(
    [
        "and",
        "as",
        "asc",
        "between",
        "by",
        "case",
        "date",
        "default",
        "desc",
        "external",
        "from",
        "group",
        "having",
        "in",
        "index",
        "is",
        "join",
        "key",
        "like",
        "limit",
        "not",
        "null",
        "offset",
        "on",
        "or",
        "order",
        "select",
        "set",
        "table",
        "time",
        "union",
        "user",
        "values",
        "where",
    ]
)
"""Words that COQL takes for its own where a field bears one as its name (Zoho's answers tell it of ``External``)."""
_COMPARISONS = frozenset({"=", "!=", "<", "<=", ">", ">="})


class Kind(StrEnum):
    """How a field's values are written: dates and times in quotes like texts, numbers and booleans bare.

    ``LONG``, ``LIST`` and ``OTHER`` cannot be compared.
    """

    TEXT = "s"
    NUMBER = "n"
    BOOLEAN = "b"
    DATE = "d"
    DATETIME = "t"
    LOOKUP = "l"
    LONG = "a"
    LIST = "m"
    OTHER = "x"


class Compare(msgspec.Struct, frozen=True):
    """``field operator value``; None is ``is null``."""

    field: str
    operator: str
    value: Any
    kind: Kind = Kind.TEXT


class In(msgspec.Struct, frozen=True):
    """``field in (...)``, at most 50 values."""

    field: str
    values: tuple[Any, ...]
    kind: Kind = Kind.TEXT


class Like(msgspec.Struct, frozen=True):
    """``field like '%text%'``, or ``'%text'`` when ``is_end``."""

    field: str
    text: str
    is_end: bool = False


class AllOf(msgspec.Struct, frozen=True):
    """All conditions hold."""

    parts: tuple[Any, ...]


class AnyOf(msgspec.Struct, frozen=True):
    """One of the conditions holds."""

    parts: tuple[Any, ...]


class Select(msgspec.Struct, frozen=True, kw_only=True):
    """One query. COQL wants a condition: none means every id."""

    module: str
    fields: tuple[str, ...]
    where: Any = None
    newest_by: tuple[str, ...] = ("id",)
    limit: int = 200

    def text(self) -> str:
        """The query. Raises ValidationError for a name or value that cannot be said."""
        fields = ", ".join(checked_name(field) for field in self.fields[:MOST_FIELDS])
        condition = _condition(self.where) if self.where is not None else ""
        order = ", ".join(f"{checked_name(field)} desc" for field in self.newest_by)
        if _count(self.where) > _MOST_CONDITIONS:
            raise _refused("match", f"has more than {_MOST_CONDITIONS} conditions; ask for less at a time")
        head = f"select {fields} from {checked_name(self.module)} where "  # noqa: S608 - names are checked
        return f"{head}{condition or 'id is not null'} order by {order} limit 0, {int(self.limit)}"


def checked_name(name: str) -> str:
    """The API name of a field or module as it stands. Raises ValidationError."""
    if not _NAME.fullmatch(name):
        raise _refused(name[:80], "is not the API name of a field of Zoho CRM, such as Email or Budget_Max")
    return name


def quoted(text: str, before: str = "", after: str = "") -> str:
    """A text literal. The one place where a value becomes a part of a query."""
    if _NEVER.search(text):
        raise _refused("value", "holds a backslash or a control character, which COQL has no way to say")
    doubled = text.replace("'", "''")
    return f"'{before}{doubled}{after}'"


def moment(value: Any, field: str = "since") -> str:
    """A time as COQL has it, ``2026-03-01T14:30:00+00:00``. Raises ValidationError."""
    try:
        when = datetime.fromisoformat(str(value))
    except ValueError:
        raise _refused(field, "is not a time such as 2026-03-01T14:30:00Z") from None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")


def literal(value: Any, kind: Kind = Kind.TEXT, field: str = "value") -> str:
    """A value as COQL has it. Raises ValidationError for one that has not the form of its kind."""
    text = _plain(value)
    if kind is Kind.TEXT:
        return quoted(text)
    if kind is Kind.LOOKUP:
        found = value.get("id") if isinstance(value, dict) else value
        if re.fullmatch(r"[0-9]{1,20}", str(found)):
            return f"'{found}'"
        raise _refused(field, "is found by the id of the record it leads to")
    if kind is Kind.BOOLEAN and text in ("true", "false"):
        return text
    if kind is Kind.NUMBER and _NUMBER.fullmatch(text):
        return text
    if kind is Kind.DATE and _DATE.fullmatch(text[:10]):
        return f"'{text[:10]}'"
    if kind is Kind.DATETIME:
        return f"'{moment(text, field)}'"
    wanted = {"n": "is not a number", "b": "is not true or false", "d": "is not a date such as 2026-03-01"}
    raise _refused(field, wanted.get(kind.value, "is of a type that COQL cannot compare; search by another"))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return plain_decimal(Decimal(repr(value))) if value == value and abs(value) < 1e24 else "?"
    return str(value)


def _condition(part: Any) -> str:
    if isinstance(part, Compare):
        name = checked_name(part.field)
        if part.operator not in _COMPARISONS:
            raise _refused(part.field, "is compared in a way that COQL has not")
        if part.value is None:
            return f"{name} is null"
        return f"{name} {part.operator} {literal(part.value, part.kind, part.field)}"
    if isinstance(part, In):
        if not 1 <= len(part.values) <= MOST_VALUES:
            raise _refused(part.field, f"needs 1 to {MOST_VALUES} values")
        values = ", ".join(literal(value, part.kind, part.field) for value in part.values)
        return f"{checked_name(part.field)} in ({values})"
    if isinstance(part, Like):
        return f"{checked_name(part.field)} like {quoted(part.text, '%', '' if part.is_end else '%')}"
    return _paired(map(_condition, part.parts), " or " if isinstance(part, AnyOf) else " and ")


def _paired(texts: Iterable[str], word: str) -> str:
    """Grouped two by two, as COQL wants it: ``((A and B) and C)``."""
    whole = ""
    for text in filter(None, texts):
        whole = f"({whole}{word}{text})" if whole else text
    return whole


def _count(part: Any) -> int:
    if isinstance(part, AllOf | AnyOf):
        return sum(map(_count, part.parts))
    return 0 if part is None else 1


def _refused(field: str, problem: str) -> ValidationError:
    return ValidationError(
        f"Zoho CRM cannot be asked this: {field} {problem}.",
        provider="zoho",
        fields=(FieldError(field, problem),),
    )
