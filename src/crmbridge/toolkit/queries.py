"""Conditions of a provider's query language as a tree, and a Dialect that alone turns them into text.

Names are checked, texts are quoted in one place, all other literals must have the form of their kind, so that no value
can end a literal or begin a clause.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar

import msgspec

from crmbridge.core.errors import FieldError, ValidationError
from crmbridge.toolkit.formats import plain_decimal

__all__ = [
    "AllOf",
    "AnyOf",
    "Compare",
    "Dialect",
    "In",
    "Kind",
    "all_of",
    "date_text",
    "equal",
    "older_than",
    "plain_text",
]

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d{1,24}(?:\.\d{1,20})?", re.ASCII)
_COMPARISONS = frozenset({"=", "!=", "<", "<=", ">", ">="})


class Kind(StrEnum):
    """How a field's values are written. ``LONG``, ``LIST`` and ``OTHER`` are those that cannot be compared."""

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
    """``field operator value``; None is null."""

    field: str
    operator: str
    value: Any
    kind: Kind = Kind.TEXT


class In(msgspec.Struct, frozen=True):
    """The field has one of the values. None at all match nothing, which no dialect can say: they are refused."""

    field: str
    values: tuple[Any, ...]
    kind: Kind = Kind.TEXT


class AllOf(msgspec.Struct, frozen=True):
    """All conditions hold."""

    parts: tuple[Any, ...]


class AnyOf(msgspec.Struct, frozen=True):
    """One of the conditions holds."""

    parts: tuple[Any, ...]


def all_of(parts: Iterable[Any]) -> AllOf | None:
    """The conditions together; None for none."""
    listed = tuple(parts)
    return AllOf(listed) if listed else None


def equal(pairs: Mapping[str, Any], kind: Callable[[str], Kind]) -> list[Any]:
    """One condition for each field and value; an empty value is null."""
    return [Compare(name, "=", None if value == "" else value, kind(name)) for name, value in pairs.items()]


def older_than(time_field: str, time: str, id_field: str, last_id: str) -> AnyOf:
    """What stands after this record in a list by newest time and id: a cursor without an offset that shifts."""
    before = Compare(time_field, "<", time, Kind.DATETIME)
    same = Compare(time_field, "=", time, Kind.DATETIME)
    return AnyOf((before, AllOf((same, Compare(id_field, "<", last_id)))))


class Dialect(ABC):
    """One provider's query language; ``product`` and ``language`` are their names in our errors."""

    provider: ClassVar[str]
    product: ClassVar[str]
    language: ClassVar[str]
    name: ClassVar[re.Pattern[str]]
    """The form of names."""
    is_no_name: ClassVar[str]
    """The problem of a text that is no name."""
    most_values: ClassVar[int]
    """Values of one ``In``."""
    in_word: ClassVar[str] = "in"
    moments: ClassVar[str] = "%Y-%m-%dT%H:%M:%S+00:00"

    @abstractmethod
    def quoted(self, text: str) -> str:
        """A text literal. Raises ValidationError for a text that cannot be said."""

    @abstractmethod
    def other(self, value: Any, kind: Kind, field: str) -> str:
        """A literal of the kinds that are no text, number or boolean; empty where the value has not its form."""

    @abstractmethod
    def like(self, part: Any) -> str:
        """A condition of the dialect's own, such as a pattern."""

    @abstractmethod
    def joined(self, texts: list[str], *, is_any: bool) -> str:
        """Conditions put together."""

    def null(self, name: str, operator: str) -> str:
        """The comparison with null."""
        return f"{name} is null"

    def refused(self, field: str, problem: str) -> ValidationError:
        """What cannot be asked."""
        return ValidationError(
            f"{self.product} cannot be asked this: {field} {problem}.",
            provider=self.provider,
            fields=(FieldError(field, problem),),
        )

    def checked_name(self, name: str) -> str:
        """The name of a field or object as it stands. Raises ValidationError."""
        if not self.name.fullmatch(name):
            raise self.refused(name[:80], self.is_no_name)
        return name

    def moment(self, value: Any, field: str = "since") -> str:
        """A time in UTC as the language has it; one without a zone is UTC. Raises ValidationError."""
        try:
            when = datetime.fromisoformat(str(value))
        except ValueError:
            raise self.refused(field, "is not a time such as 2026-03-01T14:30:00Z") from None
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return when.astimezone(UTC).strftime(self.moments)

    def literal(self, value: Any, kind: Kind = Kind.TEXT, field: str = "value") -> str:
        """A value as the language has it. Raises ValidationError for one that has not the form of its kind."""
        text = plain_text(value)
        if kind is Kind.TEXT:
            return self.quoted(text)
        if kind is Kind.BOOLEAN and text in ("true", "false"):
            return text
        if kind is Kind.NUMBER and _NUMBER.fullmatch(text):
            return text
        if kind not in (Kind.BOOLEAN, Kind.NUMBER) and (said := self.other(value, kind, field)):
            return said
        wanted = {
            Kind.NUMBER: "is not a number",
            Kind.BOOLEAN: "is not true or false",
            Kind.DATE: "is not a date such as 2026-03-01",
            Kind.DATETIME: "is not a time such as 2026-03-01T14:30:00Z",
            Kind.LOOKUP: "is found by the id of the record it leads to",
        }
        otherwise = f"is of a type that {self.language} cannot compare; search by another"
        raise self.refused(field, wanted.get(kind, otherwise))

    def condition(self, part: Any) -> str:
        """The text of a condition; empty for one that holds always. Raises ValidationError."""
        if isinstance(part, Compare):
            name = self.checked_name(part.field)
            if part.operator not in _COMPARISONS:
                raise self.refused(part.field, f"is compared in a way that {self.language} has not")
            if part.value is None:
                return self.null(name, part.operator)
            return f"{name} {part.operator} {self.literal(part.value, part.kind, part.field)}"
        if isinstance(part, In):
            if not 1 <= len(part.values) <= self.most_values:
                raise self.refused(part.field, f"needs 1 to {self.most_values} values")
            values = ", ".join(self.literal(value, part.kind, part.field) for value in part.values)
            return f"{self.checked_name(part.field)} {self.in_word} ({values})"
        if isinstance(part, (AllOf, AnyOf)):
            texts = [text for text in map(self.condition, part.parts) if text]
            return self.joined(texts, is_any=isinstance(part, AnyOf))
        return self.like(part)


def date_text(value: Any) -> str:
    """The day that a date or a time begins with; empty for anything else."""
    found = _DATE.match(str(value))
    return found[0] if found else ""


def plain_text(value: Any) -> str:
    """A value as a text; ``?``, which is no number, for one without an exact decimal text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return plain_decimal(Decimal(repr(value))) if value == value and abs(value) < 1e24 else "?"
    if isinstance(value, Decimal):
        return plain_decimal(value) if value.is_finite() else "?"
    return str(value)
