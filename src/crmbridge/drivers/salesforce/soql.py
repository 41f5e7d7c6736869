"""SOQL as a tree: conditions and a Select that alone turns them into text, with one function that escapes.

Pages: SOQL and SOSL Reference, "Quoted String Escape Sequences", "Date Formats and Date Literals" and "LIKE" (read
2026-11-22). Names are checked, texts are quoted, all other literals must have the form of their kind, so that no value
can end a literal or begin a clause.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec

from crmbridge.core.errors import FieldError, ValidationError
from crmbridge.toolkit.formats import plain_decimal

__all__ = [
    "AllOf",
    "AnyOf",
    "Compare",
    "In",
    "Kind",
    "Like",
    "Select",
    "all_of",
    "checked_name",
    "literal",
    "quoted",
]

LONGEST = 100_000
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}(?:\.[A-Za-z][A-Za-z0-9_]{0,79}){0,5}")
_ESCAPES = {
    "\\": "\\\\",
    "'": "\\'",
    '"': '\\"',
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\b": "\\b",
    "\f": "\\f",
}
_FOR_TEXT = str.maketrans(_ESCAPES)
_FOR_LIKE = str.maketrans({**_ESCAPES, "%": "\\%", "_": "\\_"})
_NEVER = re.compile("[\x00-\x07\x0b\x0e-\x1f\x7f\ud800-\udfff]")
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,3})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d{1,24}(?:\.\d{1,20})?", re.ASCII)
_COMPARISONS = frozenset({"=", "!=", "<", "<=", ">", ">="})


class Kind(StrEnum):
    """How a field's values are written. Dates, times, numbers and booleans stand without quotes."""

    TEXT = "s"
    NUMBER = "n"
    BOOLEAN = "b"
    DATE = "d"
    DATETIME = "t"


class Compare(msgspec.Struct, frozen=True):
    """``field operator value``; None is ``null``."""

    field: str
    operator: str
    value: Any
    kind: Kind = Kind.TEXT


class In(msgspec.Struct, frozen=True):
    """``field IN (...)``; no values match nothing, which SOQL cannot say, so they are refused."""

    field: str
    values: tuple[Any, ...]
    kind: Kind = Kind.TEXT


class Like(msgspec.Struct, frozen=True):
    """``field LIKE`` the parts with any text between them: ``("", "park", "")`` is "contains park"."""

    field: str
    parts: tuple[str, ...]


class AllOf(msgspec.Struct, frozen=True):
    """All conditions hold."""

    parts: tuple[Any, ...]


class AnyOf(msgspec.Struct, frozen=True):
    """One of the conditions holds."""

    parts: tuple[Any, ...]


class Select(msgspec.Struct, frozen=True, kw_only=True):
    """One query. No ``fields`` are all that the user may see (``FIELDS(ALL)``, at most 200 rows)."""

    sobject: str
    fields: tuple[str, ...] = ()
    where: Any = None
    newest_by: tuple[str, ...] = ()
    limit: int = 200

    def text(self) -> str:
        """The query. Raises ValidationError for a name or value that cannot be said, or a query that is too long."""
        fields = ", ".join(checked_name(field) for field in self.fields) or "FIELDS(ALL)"
        limit = min(self.limit, 2_000 if self.fields else 200)
        words = ["SELECT", fields, "FROM", checked_name(self.sobject)]
        if self.where is not None and (condition := _condition(self.where)):
            words += ["WHERE", condition]
        if self.newest_by:
            words += ["ORDER BY", ", ".join(f"{checked_name(field)} DESC" for field in self.newest_by)]
        text = " ".join([*words, "LIMIT", str(int(limit))])
        if len(text) > LONGEST:
            raise _refused("query", f"is longer than {LONGEST} characters; ask for less at a time")
        return text


def checked_name(name: str) -> str:
    """The name of a field or object as it stands. Raises ValidationError."""
    if not _NAME.fullmatch(name):
        raise _refused(name[:80], "is not the name of a field of Salesforce, such as Email or Budget__c")
    return name


def quoted(text: str, *, is_pattern: bool = False) -> str:
    """A text literal, or the inside of a LIKE pattern in which ``%`` and ``_`` mean themselves. The one escape."""
    if _NEVER.search(text):
        raise _refused("value", "holds a control character, which no field of Salesforce holds")
    return text.translate(_FOR_LIKE) if is_pattern else f"'{text.translate(_FOR_TEXT)}'"


def literal(value: Any, kind: Kind = Kind.TEXT, field: str = "value") -> str:
    """A value as SOQL has it. Raises ValidationError for one that has not the form of its kind."""
    if value is None:
        return "null"
    text = _plain(value)
    if kind is Kind.TEXT and isinstance(
        value, (bool, int, float, Decimal)
    ):  # a field of a kind not learned yet
        kind = Kind.BOOLEAN if isinstance(value, bool) else Kind.NUMBER
    if kind is Kind.TEXT:
        return quoted(text)
    if kind is Kind.BOOLEAN and text in ("true", "false"):
        return text
    if kind is Kind.NUMBER and _NUMBER.fullmatch(text):
        return text
    if kind is Kind.DATE and _DATE.fullmatch(text[:10]) and (len(text) == 10 or _MOMENT.fullmatch(text)):
        return text[:10]
    if kind is Kind.DATETIME and _MOMENT.fullmatch(text):
        return text
    wanted = {"n": "a number", "b": "true or false", "d": "a date such as 2026-03-01"}
    raise _refused(field, f"is not {wanted.get(kind.value, 'a time such as 2026-03-01T14:30:00Z')}")


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return plain_decimal(Decimal(repr(value))) if value == value and abs(value) < 1e24 else "?"
    if isinstance(value, Decimal):
        return plain_decimal(value) if value.is_finite() else "?"
    if isinstance(value, (list, tuple)):
        return ";".join(str(item) for item in value)
    return str(value)


def _condition(part: Any) -> str:
    if isinstance(part, Compare):
        if part.operator not in _COMPARISONS:
            raise _refused(part.field, "is compared in a way that SOQL has not")
        return f"{checked_name(part.field)} {part.operator} {literal(part.value, part.kind, part.field)}"
    if isinstance(part, In):
        if not part.values:
            raise _refused(part.field, "needs at least one value")
        values = ", ".join(literal(value, part.kind, part.field) for value in part.values)
        return f"{checked_name(part.field)} IN ({values})"
    if isinstance(part, Like):
        pattern = "%".join(quoted(text, is_pattern=True) for text in part.parts)
        return f"{checked_name(part.field)} LIKE '{pattern}'"
    return _joined(part.parts, " OR " if isinstance(part, AnyOf) else " AND ")


def _joined(parts: Iterable[Any], word: str) -> str:
    texts = [text for text in map(_condition, parts) if text]
    return f"({word.join(texts)})" if len(texts) > 1 else "".join(texts)


def all_of(parts: Sequence[Any]) -> Any:
    """The conditions together; None for none."""
    return AllOf(tuple(parts)) if parts else None


def _refused(field: str, problem: str) -> ValidationError:
    return ValidationError(
        f"Salesforce cannot be asked this: {field} {problem}.",
        provider="salesforce",
        fields=(FieldError(field, problem),),
    )
