"""SOQL as a tree: conditions and a Select that alone turns them into text, with one function that escapes.

Pages: SOQL and SOSL Reference, "Quoted String Escape Sequences", "Date Formats and Date Literals" and "LIKE" (read
2026-11-22). Names are checked, texts are quoted, all other literals must have the form of their kind, so that no value
can end a literal or begin a clause.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import msgspec

from crmbridge.toolkit.queries import AllOf, AnyOf, Compare, Dialect, In, Kind, all_of, date_text

__all__ = ["SOQL", "AllOf", "AnyOf", "Compare", "In", "Kind", "Like", "Select", "all_of"]

LONGEST = 100_000
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
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,3})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)


class Like(msgspec.Struct, frozen=True):
    """``field LIKE`` the parts with any text between them: ``("", "park", "")`` is "contains park"."""

    field: str
    parts: tuple[str, ...]


class Soql(Dialect):
    """SOQL. Dates, times, numbers and booleans stand without quotes."""

    provider, product, language = "salesforce", "Salesforce", "SOQL"
    name = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}(?:\.[A-Za-z][A-Za-z0-9_]{0,79}){0,5}")
    is_no_name = "is not the name of a field of Salesforce, such as Email or Budget__c"
    most_values = LONGEST
    in_word = "IN"
    moments = "%Y-%m-%dT%H:%M:%SZ"

    def escaped(self, text: str, escapes: dict[int, str]) -> str:
        """The one escape."""
        if _NEVER.search(text):
            raise self.refused("value", "holds a control character, which no field of Salesforce holds")
        return text.translate(escapes)

    def quoted(self, text: str) -> str:
        return f"'{self.escaped(text, _FOR_TEXT)}'"

    def like(self, part: Like) -> str:
        pattern = "%".join(self.escaped(text, _FOR_LIKE) for text in part.parts)
        return f"{self.checked_name(part.field)} LIKE '{pattern}'"

    def literal(self, value: Any, kind: Kind = Kind.TEXT, field: str = "value") -> str:
        if value is None:
            return "null"
        if isinstance(value, (list, tuple)):
            value = ";".join(str(item) for item in value)
        if kind is Kind.TEXT and isinstance(value, (bool, int, float, Decimal)):  # of a kind not learned yet
            kind = Kind.BOOLEAN if isinstance(value, bool) else Kind.NUMBER
        return super().literal(value, kind, field)

    def other(self, value: Any, kind: Kind, field: str) -> str:
        text = str(value)
        if kind is Kind.DATE and (len(text) == 10 or _MOMENT.fullmatch(text)):
            return date_text(text)
        return text if kind is Kind.DATETIME and _MOMENT.fullmatch(text) else ""

    def null(self, name: str, operator: str) -> str:
        return f"{name} {operator} null"

    def joined(self, texts: list[str], *, is_any: bool) -> str:
        word = " OR " if is_any else " AND "
        return f"({word.join(texts)})" if len(texts) > 1 else "".join(texts)


SOQL = Soql()


class Select(msgspec.Struct, frozen=True, kw_only=True):
    """One query. No ``fields`` are all that the user may see (``FIELDS(ALL)``, at most 200 rows)."""

    sobject: str
    fields: tuple[str, ...] = ()
    where: Any = None
    newest_by: tuple[str, ...] = ()
    limit: int = 200

    def text(self) -> str:
        """The query. Raises ValidationError for a name or value that cannot be said, or a query that is too long."""
        fields = ", ".join(SOQL.checked_name(field) for field in self.fields) or "FIELDS(ALL)"
        limit = min(self.limit, 2_000 if self.fields else 200)
        words = ["SELECT", fields, "FROM", SOQL.checked_name(self.sobject)]
        if self.where is not None and (condition := SOQL.condition(self.where)):
            words += ["WHERE", condition]
        if self.newest_by:
            words += ["ORDER BY", ", ".join(f"{SOQL.checked_name(field)} DESC" for field in self.newest_by)]
        text = " ".join([*words, "LIMIT", str(int(limit))])
        if len(text) > LONGEST:
            raise SOQL.refused("query", f"is longer than {LONGEST} characters; ask for less at a time")
        return text
