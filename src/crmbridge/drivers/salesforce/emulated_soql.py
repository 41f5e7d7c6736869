"""A small evaluator of SOQL: SELECT fields FROM one object, WHERE, ORDER BY, LIMIT, OFFSET.

From the SOQL and SOSL Reference (read 2026-11-22). Texts compare without case, ids with; null never matches but ``=
null``; long text areas cannot be filtered. Not here: aggregates but COUNT(), subqueries, TYPEOF, most date literals.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

__all__ = ["Query", "SoqlRefused", "parse"]

Row = dict[str, Any]
Test = Callable[[Callable[[str], Any]], bool]
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^'\\\n]|\\.)*')
    |(?P<moment>\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d))?)
    |(?P<number>[+-]?\d+(?:\.\d+)?)
    |(?P<word>[A-Za-z][\w.]*(?::\d+)?)
    |(?P<sign><=|>=|!=|<>|[=<>(),]))""",
    re.VERBOSE,
)
_UNESCAPED = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "N": "\n", "R": "\r", "T": "\t"}
_LITERALS = {
    **dict.fromkeys(("int", "double", "currency", "percent"), "number"),
    **dict.fromkeys(("date", "datetime"), "moment"),
    "boolean": "flag",
}
_CLAUSES = {"WHERE", "ORDER", "LIMIT", "OFFSET", "AND", "OR", "NOT", "FROM", "SELECT", "BY", "IN", "LIKE"}


class SoqlRefused(Exception):
    """A query that Salesforce refuses: ``code`` is MALFORMED_QUERY, INVALID_FIELD or INVALID_TYPE."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Query(msgspec.Struct, kw_only=True):
    """A parsed query. ``fields`` may hold FIELDS(...) words. ``used`` are the names in WHERE and ORDER BY."""

    sobject: str
    fields: list[str]
    test: Any = None
    order: list[tuple[str, bool, bool]] = []
    limit: int | None = None
    offset: int = 0
    used: set[str] = set()

    @property
    def is_count(self) -> bool:
        """SELECT COUNT()."""
        return self.fields == ["COUNT()"]

    def rows(self, rows: list[tuple[Any, Callable[[str], Any]]]) -> list[Any]:
        """Of (row, read) pairs those that match, in order, cut."""
        found = [pair for pair in rows if self.test is None or self.test(pair[1])]
        for name, is_descending, nulls_last in reversed(self.order):
            empty = [pair for pair in found if pair[1](name) is None]
            full = [pair for pair in found if pair[1](name) is not None]
            full.sort(key=lambda pair: _sortable(pair[1](name)), reverse=is_descending)
            found = full + empty if nulls_last else empty + full
        end = None if self.limit is None else self.offset + self.limit
        return [row for row, _ in found[self.offset : end]]


def _sortable(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) and len(value) not in (15, 18) else value


def parse(text: str, now: datetime, types: Callable[[str], str]) -> Query:
    """The query. ``types`` tells a field's type: ids compare with case, literals must suit. Raises SoqlRefused."""
    if len(text) > 100_000:
        raise SoqlRefused("QUERY_TOO_COMPLICATED", "SOQL statements cannot be longer than 100,000 characters")
    return _Parser(text, now, types).query()


class _Parser:
    def __init__(self, text: str, now: datetime, types: Callable[[str], str]) -> None:
        self.text = text
        self.now = now
        self.types = types
        self.tokens: list[tuple[str, str]] = []
        self.place = 0
        self.used: set[str] = set()
        end = 0
        stripped = text.rstrip()
        while end < len(stripped):
            found = _TOKEN.match(text, end)
            if found is None or found.lastgroup is None:
                raise self._wrong(text[end : end + 1])
            self.tokens.append((found.lastgroup, found[found.lastgroup]))
            end = found.end()

    def _wrong(self, near: str) -> SoqlRefused:
        return SoqlRefused(
            "MALFORMED_QUERY", f"\n{self.text[:40]}\n^\nERROR at Row:1:Column:1\nunexpected token: '{near}'"
        )

    def _peek(self) -> str:
        kind, text = self.tokens[self.place] if self.place < len(self.tokens) else ("", "")
        return text.upper() if kind in ("word", "sign") else text

    def _take(self, *wanted: str) -> bool:
        if self._peek() in wanted and self.place < len(self.tokens):
            self.place += 1
            return True
        return False

    def _need(self, wanted: str) -> None:
        if not self._take(wanted):
            raise self._wrong(self._peek() or "<EOF>")

    def _word(self) -> str:
        kind, text = self.tokens[self.place] if self.place < len(self.tokens) else ("", "")
        if kind != "word" or text.upper() in _CLAUSES:
            raise self._wrong(text or "<EOF>")
        self.place += 1
        return text

    def query(self) -> Query:
        self._need("SELECT")
        fields = [self._selected()]
        while self._take(","):
            fields.append(self._selected())
        self._need("FROM")
        query = Query(sobject=self._word(), fields=fields)
        if self._take("WHERE"):
            query.test = self._either()
        if self._take("ORDER"):
            self._need("BY")
            query.order = [self._ordered()]
            while self._take(","):
                query.order.append(self._ordered())
        if self._take("LIMIT"):
            query.limit = self._count()
        if self._take("OFFSET"):
            query.offset = self._count()
            if query.offset > 2_000:
                raise SoqlRefused("NUMBER_OUTSIDE_VALID_RANGE", "Maximum SOQL offset allowed is 2000")
        if self.place < len(self.tokens):
            raise self._wrong(self._peek())
        if "FIELDS(ALL)" in fields and (query.limit is None or query.limit > 200):
            raise SoqlRefused("MALFORMED_QUERY", "The SOQL FIELDS function must have a LIMIT of at most 200")
        query.used = self.used
        return query

    def _selected(self) -> str:
        name = self._word()
        if name.upper() in ("COUNT", "FIELDS") and self._take("("):
            inner = "" if self._peek() == ")" else self._word().upper()
            self._need(")")
            return f"{name.upper()}({inner})"
        return name

    def _count(self) -> int:
        kind, text = self.tokens[self.place] if self.place < len(self.tokens) else ("", "")
        if kind != "number" or not text.isdecimal():
            raise self._wrong(text or "<EOF>")
        self.place += 1
        return int(text)

    def _ordered(self) -> tuple[str, bool, bool]:
        name = self._word()
        self.used.add(name)
        is_descending = self._take("DESC") or (self._take("ASC") and False)
        nulls_last = False
        if self._take("NULLS"):
            nulls_last = self._take("LAST")
            if not nulls_last:
                self._need("FIRST")
        return name, is_descending, nulls_last

    def _either(self) -> Test:
        parts = [self._both()]
        while self._take("OR"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else lambda read: any(part(read) for part in parts)

    def _both(self) -> Test:
        parts = [self._single()]
        while self._take("AND"):
            parts.append(self._single())
        return parts[0] if len(parts) == 1 else lambda read: all(part(read) for part in parts)

    def _single(self) -> Test:
        if self._take("NOT"):
            inner = self._single()
            return lambda read: not inner(read)
        if self._take("("):
            inner = self._either()
            self._need(")")
            return inner
        name = self._word()
        self.used.add(name)
        is_id = self.types(name) in ("id", "reference")
        negated = self._take("NOT")
        for word in ("IN", "INCLUDES", "EXCLUDES"):
            if self._take(word):
                return self._listed(name, word, negated, is_id)
        if negated:
            raise self._wrong("NOT")
        if self._take("LIKE"):
            return self._like(name)
        operator = self._peek()
        if operator not in ("=", "!=", "<>", "<", "<=", ">", ">="):
            raise self._wrong(operator or "<EOF>")
        self.place += 1
        value = self._suiting(name)
        return lambda read: _compare(read(name), operator, value, is_id)

    def _listed(self, name: str, word: str, negated: bool, is_id: bool) -> Test:
        self._need("(")
        values = [self._suiting(name)]
        while self._take(","):
            values.append(self._suiting(name))
        self._need(")")
        if word == "IN":
            return lambda read: (
                any(_compare(read(name), "=", value, is_id) for value in values) is not negated
            )
        wanted = {str(value).casefold() for value in values}
        is_out = word == "EXCLUDES"
        return lambda read: (
            bool(wanted & {part.casefold() for part in str(read(name) or "").split(";")}) is not is_out
        )

    def _like(self, name: str) -> Test:
        kind, text = self.tokens[self.place] if self.place < len(self.tokens) else ("", "")
        if kind != "text":
            raise self._wrong(text or "<EOF>")
        self.place += 1
        pattern = ""
        for plain, escaped in re.findall(r"(?s)([^\\])|\\(.)", text[1:-1]):
            if plain in ("%", "_"):
                pattern += ".*" if plain == "%" else "."
            else:
                pattern += re.escape(plain or _UNESCAPED.get(escaped, escaped))
        shape = re.compile(pattern, re.IGNORECASE | re.DOTALL)
        return lambda read: shape.fullmatch(str(read(name) or "")) is not None

    def _suiting(self, name: str) -> Any:
        """A value whose literal suits the field: numbers and moments without quotes, texts with them."""
        kind = self.tokens[self.place][0] if self.place < len(self.tokens) else ""
        value = self._value()
        wanted = _LITERALS.get(self.types(name), "text")
        is_suiting = value is None or kind == wanted or (kind == "word" and wanted in ("moment", "flag"))
        if not is_suiting:
            said = f"value of filter criterion for field '{name}' must be of type {self.types(name)}"
            raise SoqlRefused(
                "INVALID_FIELD",
                f"{said} and should{'' if wanted == 'text' else ' not'} be enclosed in quotes",
            )
        return value

    def _value(self) -> Any:
        if self.place >= len(self.tokens):
            raise self._wrong("<EOF>")
        kind, text = self.tokens[self.place]
        self.place += 1
        if kind == "text":
            return _unquoted(text)
        if kind == "number":
            return Decimal(text)
        if kind == "moment":
            return text if len(text) == 10 else datetime.fromisoformat(text).astimezone(UTC)
        day = self.now.replace(hour=0, minute=0, second=0, microsecond=0)
        words: dict[str, Any] = {"TRUE": True, "FALSE": False, "NULL": None, "TODAY": day}
        words["YESTERDAY"] = day - timedelta(days=1)
        upper, _, number = text.upper().partition(":")
        if upper == "LAST_N_DAYS" and number:
            return day - timedelta(days=int(number))
        if upper not in words or kind != "word":
            raise self._wrong(text)
        return words[upper]


def _unquoted(text: str) -> str:
    def letter(found: re.Match[str]) -> str:
        if found[1] not in "nrtbfNRTBF\"'\\_%":
            raise SoqlRefused("MALFORMED_QUERY", f"Illegal escape sequence '\\{found[1]}'")
        return _UNESCAPED.get(found[1], found[1])

    return re.sub(r"(?s)\\(.)", letter, text[1:-1])


def _compare(found: Any, operator: str, value: Any, is_id: bool) -> bool:
    if value is None or found is None:
        is_same = found is None and value is None
        return is_same if operator == "=" else not is_same if operator in ("!=", "<>") else False
    try:
        left, right = _alike(found, value, is_id)
    except (TypeError, ValueError, ArithmeticError):
        raise SoqlRefused("INVALID_FIELD", "value of filter criterion must be of the field's type") from None
    if operator == "=":
        return bool(left == right)
    if operator in ("!=", "<>"):
        return bool(left != right)
    if operator == "<":
        return bool(left < right)
    if operator == "<=":
        return bool(left <= right)
    return bool(left > right if operator == ">" else left >= right)


def _alike(found: Any, value: Any, is_id: bool) -> tuple[Any, Any]:
    """Both sides as one type. A quoted number, an unquoted text and so on are refused, as Salesforce refuses them."""
    if isinstance(value, datetime):
        return datetime.fromisoformat(str(found)).astimezone(UTC), value
    if isinstance(value, bool) or isinstance(found, bool):
        if not (isinstance(value, bool) and isinstance(found, bool)):
            raise TypeError
        return found, value
    if isinstance(value, Decimal):
        if isinstance(found, str):
            raise TypeError
        return Decimal(str(found)), value
    if isinstance(found, (int, float)):
        raise TypeError
    if is_id:
        return found[:15], value[:15]
    return found.strip().casefold(), value.strip().casefold()
