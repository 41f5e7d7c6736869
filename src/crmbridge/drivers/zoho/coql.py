"""COQL as a tree: conditions and a Select that alone turns them into text, with one function that quotes.

Pages: https://www.zoho.com/crm/developer/docs/api/v8/COQL-Overview.html and .../COQL-Limitations.html, and Zoho's
answers to questions about COQL (read 2026-11-25): a quote inside a text is doubled, conditions are grouped in pairs,
``like`` takes ``%`` at the ends alone, ``in`` up to 50 values (100 since v7), long texts cannot be compared. Nothing
is said about backslashes: a value that has one is refused, so that it cannot end a literal under either reading.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from crmbridge.toolkit.queries import AllOf, AnyOf, Compare, Dialect, In, Kind, date_text, plain_text

__all__ = ["COQL", "MOST_VALUES", "RESERVED", "AllOf", "AnyOf", "Compare", "In", "Kind", "Like", "Select"]

MOST_VALUES = 50
MOST_FIELDS = 50
_MOST_CONDITIONS = 25
_NEVER = re.compile("[\x00-\x1f\x7f\\\\\ud800-\udfff]")
_WORDS = (
    "and as asc between by case date default desc external from group having in index is join key like "
    "limit not null offset on or order select set table time union user values where"
)
RESERVED = frozenset(_WORDS.split())
"""Words that COQL takes for its own where a field bears one as its name (Zoho's answers tell it of ``External``)."""


class Like(msgspec.Struct, frozen=True):
    """``field like '%text%'``, or ``'%text'`` when ``is_end``."""

    field: str
    text: str
    is_end: bool = False


class Coql(Dialect):
    """COQL. Dates and times stand in quotes like texts, numbers and booleans bare."""

    provider, product, language = "zoho", "Zoho CRM", "COQL"
    name = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}(?:\.[A-Za-z][A-Za-z0-9_]{0,99}){0,2}")
    is_no_name = "is not the API name of a field of Zoho CRM, such as Email or Budget_Max"
    most_values = MOST_VALUES

    def quoted(self, text: str, before: str = "", after: str = "") -> str:
        """The one place where a value becomes a part of a query."""
        if _NEVER.search(text):
            raise self.refused(
                "value", "holds a backslash or a control character, which COQL has no way to say"
            )
        doubled = text.replace("'", "''")
        return f"'{before}{doubled}{after}'"

    def like(self, part: Like) -> str:
        return (
            f"{self.checked_name(part.field)} like {self.quoted(part.text, '%', '' if part.is_end else '%')}"
        )

    def other(self, value: Any, kind: Kind, field: str) -> str:
        if kind is Kind.LOOKUP:
            found = str(value.get("id") if isinstance(value, dict) else value)
            return f"'{found}'" if re.fullmatch(r"[0-9]{1,20}", found) else ""
        if kind is Kind.DATE and (day := date_text(value)):
            return f"'{day}'"
        return f"'{self.moment(plain_text(value), field)}'" if kind is Kind.DATETIME else ""

    def joined(self, texts: list[str], *, is_any: bool) -> str:
        """Grouped two by two, as COQL wants it: ``((A and B) and C)``."""
        whole = ""
        for text in texts:
            whole = f"({whole} {'or' if is_any else 'and'} {text})" if whole else text
        return whole


COQL = Coql()


class Select(msgspec.Struct, frozen=True, kw_only=True):
    """One query. COQL wants a condition: none means every id."""

    module: str
    fields: tuple[str, ...]
    where: Any = None
    newest_by: tuple[str, ...] = ("id",)
    limit: int = 200

    def text(self) -> str:
        """The query. Raises ValidationError for a name or value that cannot be said."""
        fields = ", ".join(COQL.checked_name(field) for field in self.fields[:MOST_FIELDS])
        condition = COQL.condition(self.where) if self.where is not None else ""
        order = ", ".join(f"{COQL.checked_name(field)} desc" for field in self.newest_by)
        if _count(self.where) > _MOST_CONDITIONS:
            raise COQL.refused(
                "match", f"has more than {_MOST_CONDITIONS} conditions; ask for less at a time"
            )
        head = f"select {fields} from {COQL.checked_name(self.module)} where "  # noqa: S608 - names are checked
        return f"{head}{condition or 'id is not null'} order by {order} limit 0, {int(self.limit)}"


def _count(part: Any) -> int:
    if isinstance(part, AllOf | AnyOf):
        return sum(map(_count, part.parts))
    return 0 if part is None else 1
