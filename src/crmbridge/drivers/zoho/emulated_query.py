"""COQL and the criteria of Zoho's search, over emulated rows.

https://www.zoho.com/crm/developer/docs/api/v8/COQL-Overview.html, .../COQL-Limitations.html, .../search-records.html:
COQL doubles a quote inside a text, groups conditions in pairs, refuses long texts in conditions and more than 25
conditions; search criteria escape parentheses, commas and backslashes with a backslash, and hold at most 10
conditions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

__all__ = ["Criteria", "Query", "QueryRefused", "order_of", "parse"]

MOST_FIELDS, MOST_CONDITIONS, MOST_VALUES, MOST_ROWS = 500, 25, 100, 2000
_TOKEN = re.compile(
    r"\s*(?:('(?:[^']|'')*')|([A-Za-z_][\w.]*)|(-?\d+(?:\.\d+)?)|(<=|>=|!=|[=<>(),]))", re.ASCII
)
Accepts = Callable[[dict[str, Any]], bool]


class QueryRefused(Exception):
    """The query is not accepted."""

    def __init__(self, code: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


class Query:
    """A parsed select."""

    def __init__(self) -> None:
        self.fields: list[str] = []
        self.module = ""
        self.accepts: Accepts = lambda row: True
        self.order: list[tuple[str, bool]] = []
        self.start, self.limit = 0, 200

    def ordered(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """By id unless the query says otherwise."""
        rows = sorted(rows, key=lambda row: int(row["id"]))
        for name, is_down in reversed(self.order):
            values = {row["id"]: order_of(row.get(name)) for row in rows}
            rows = sorted(rows, key=lambda row: values[row["id"]], reverse=is_down)
        return rows


def order_of(value: Any) -> tuple[int, float, str]:
    """Numbers and moments by size, texts after them without their case."""
    if isinstance(value, bool):
        return 0, float(value), ""
    if isinstance(value, int | float):
        return 0, float(value), ""
    text = str(value.get("id", "") if isinstance(value, dict) else value or "")
    if re.fullmatch(r"\d{4}-\d\d-\d\dT.*", text):
        moment = datetime.fromisoformat(text)
        return 0, moment.replace(tzinfo=moment.tzinfo or UTC).timestamp(), ""
    return 1, float(text) if re.fullmatch(r"\d{1,15}", text) else 0.0, text.casefold()


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, list):
        return any(_equal(item, right) for item in left)
    if isinstance(left, int | float) and not isinstance(left, bool):
        try:
            return float(left) == float(str(right))
        except ValueError:
            return False
    return order_of(left)[1:] == order_of(right)[1:]


class _Parser:
    def __init__(self, text: str, columns: Callable[[str], dict[str, str] | None]) -> None:
        self.tokens = self._split(text)
        self.place = 0
        self.columns_of = columns
        self.columns: dict[str, str] = {}
        self.conditions = 0

    @staticmethod
    def _split(text: str) -> list[tuple[str, str]]:
        tokens: list[tuple[str, str]] = []
        place = 0
        text = text.rstrip()
        while place < len(text):
            found = _TOKEN.match(text, place)
            if found is None:
                raise QueryRefused("SYNTAX_ERROR", "Syntax error", near=text[place : place + 10])
            kinds = ("text", "word", "number", "sign")
            kind, value = next((k, v) for k, v in zip(kinds, found.groups(), strict=True) if v is not None)
            tokens.append((kind, value[1:-1].replace("''", "'") if kind == "text" else value))
            place = found.end()
        return tokens

    def peek(self) -> str:
        kind, value = self.tokens[self.place] if self.place < len(self.tokens) else ("end", "")
        return value.lower() if kind in ("word", "sign") else ("" if kind == "end" else f"<{kind}>")

    def take(self, *wanted: str) -> str:
        if self.place >= len(self.tokens) or (wanted and self.peek() not in wanted):
            raise QueryRefused("SYNTAX_ERROR", "Syntax error", expected=" or ".join(wanted))
        self.place += 1
        return self.tokens[self.place - 1][1]

    def name(self) -> str:
        name = self.take()
        if name.lower() in ("external", "order", "group", "key", "user", "index"):
            raise QueryRefused("SYNTAX_ERROR", "a reserved word stands without quotes", near=name)
        return name

    def column(self) -> str:
        name = self.name()
        if name not in self.columns:
            raise QueryRefused("INVALID_QUERY", "column given seems to be invalid", column_name=name)
        return name

    def query(self) -> Query:
        made = Query()
        self.take("select")
        names = [self.name()]
        while self.peek() == ",":
            self.take()
            names.append(self.name())
        self.take("from")
        made.module = self.take()
        columns = self.columns_of(made.module)
        if columns is None:
            raise QueryRefused("INVALID_QUERY", "the module is not supported", module=made.module)
        self.columns = columns
        for name in names:
            if name not in columns:
                raise QueryRefused("INVALID_QUERY", "column given seems to be invalid", column_name=name)
        if len(names) > MOST_FIELDS:
            raise QueryRefused("LIMIT_EXCEEDED", "too many fields", limit=MOST_FIELDS)
        made.fields = names
        if self.peek() != "where":
            raise QueryRefused("SYNTAX_ERROR", "missing clause", clause="where")
        self.take()
        made.accepts = self.expression()
        if self.conditions > MOST_CONDITIONS:
            raise QueryRefused("LIMIT_EXCEEDED", "too many conditions", limit=MOST_CONDITIONS)
        self._rest(made)
        return made

    def _rest(self, made: Query) -> None:
        if self.peek() == "order":
            self.take()
            self.take("by")
            while True:
                name = self.column()
                is_down = self.peek() == "desc"
                if self.peek() in ("asc", "desc"):
                    self.take()
                if name in [one for one, _ in made.order]:
                    raise QueryRefused("DUPLICATE_DATA", "duplicate fields in order by", column_name=name)
                made.order.append((name, is_down))
                if self.peek() != ",":
                    break
                self.take()
        if self.peek() == "limit":
            self.take()
            first = int(self.take("<number>"))
            made.limit = first
            if self.peek() == ",":
                self.take()
                made.start, made.limit = first, int(self.take("<number>"))
            elif self.peek() == "offset":
                self.take()
                made.start = int(self.take("<number>"))
        if self.place < len(self.tokens):
            raise QueryRefused("SYNTAX_ERROR", "Syntax error", near=self.tokens[self.place][1][:20])
        if made.limit > MOST_ROWS or made.start > 100_000:
            raise QueryRefused("LIMIT_EXCEEDED", "limit exceeded", limit=MOST_ROWS)

    def expression(self) -> Accepts:
        left = self.primary()
        word = self.peek()
        if word not in ("and", "or"):
            return left
        self.take()
        right = self.primary()
        if self.peek() in ("and", "or"):
            raise QueryRefused(
                "SYNTAX_ERROR", "more than two criteria must be grouped in pairs", near=self.peek()
            )
        if word == "and":
            return lambda row: left(row) and right(row)
        return lambda row: left(row) or right(row)

    def primary(self) -> Accepts:
        if self.peek() == "(":
            self.take()
            inner = self.expression()
            self.take(")")
            return inner
        return self.comparison()

    def comparison(self) -> Accepts:
        self.conditions += 1
        name = self.column()
        if self.columns[name] == "textarea":
            raise QueryRefused(
                "INVALID_QUERY", "multi-line fields cannot be used in criteria", column_name=name
            )
        word = self.take().lower()
        is_not = word == "not"
        if is_not:
            word = self.take("in", "like").lower()
        if word == "is":
            is_not = self.peek() == "not"
            if is_not:
                self.take()
            self.take("null")
            return lambda row: (row.get(name) in (None, "", [])) is not is_not
        if word == "in":
            return self._in(name, is_not)
        if word == "like":
            pattern = _like(self.take("<text>"))
            return lambda row: (pattern.fullmatch(str(row.get(name) or "")) is not None) is not is_not
        if word == "between":
            low = self.value()
            self.take("and")
            high = self.value()
            return lambda row: order_of(low) <= order_of(row.get(name)) <= order_of(high)
        return self._compared(name, word)

    def _in(self, name: str, is_not: bool) -> Accepts:
        self.take("(")
        values = [self.value()]
        while self.peek() == ",":
            self.take()
            values.append(self.value())
        self.take(")")
        if len(values) > MOST_VALUES:
            raise QueryRefused("LIMIT_EXCEEDED", "too many values", limit=MOST_VALUES)
        keys = {order_of(value)[1:] for value in values}
        return lambda row: (row.get(name) is not None and order_of(row[name])[1:] in keys) is not is_not

    def _compared(self, name: str, word: str) -> Accepts:
        value = self.value()
        if word in ("=", "!="):
            return lambda row: (row.get(name) is not None and _equal(row[name], value)) is (word == "=")
        ordered: dict[str, Callable[[Any, Any], bool]] = {
            "<": lambda left, right: bool(left < right),
            "<=": lambda left, right: bool(left <= right),
            ">": lambda left, right: bool(left > right),
            ">=": lambda left, right: bool(left >= right),
        }
        if word not in ordered:
            raise QueryRefused("SYNTAX_ERROR", "Syntax error", near=word)
        compare = ordered[word]
        if name == "id":
            return lambda row: compare(int(row["id"]), int(value))
        return lambda row: row.get(name) is not None and compare(order_of(row[name]), order_of(value))

    def value(self) -> Any:
        if self.peek() in ("true", "false"):
            return self.take().lower() == "true"
        if self.peek() == "<number>":
            text = self.take()
            return float(text) if "." in text else int(text)
        return self.take("<text>")


def _like(pattern: str) -> re.Pattern[str]:
    if "%" in pattern.strip("%"):
        raise QueryRefused("INVALID_QUERY", "like takes a percent sign at the ends alone", pattern="like")
    inner = re.escape(pattern.strip("%"))
    before = ".*" if pattern.startswith("%") else ""
    after = ".*" if pattern.endswith("%") else ""
    return re.compile(before + inner + after, re.IGNORECASE | re.DOTALL)


def parse(text: str, columns: Callable[[str], dict[str, str] | None]) -> Query:
    """``columns`` answers name → data type of a module, None for one that is not queried. Raises QueryRefused."""
    return _Parser(text, columns).query()


class Criteria:
    """``((Last_Name:equals:Burns)and(City:starts_with:S))``. Raises QueryRefused."""

    def __init__(self, text: str, columns: dict[str, str]) -> None:
        self.text, self.place, self.columns, self.count = text, 0, columns, 0
        self.accepts = self._group()
        if self.place != len(text) or self.count > 10:
            raise QueryRefused("INVALID_QUERY", "the criteria given seems to be invalid")

    def _group(self) -> Accepts:
        self._expect("(")
        if self.text[self.place : self.place + 1] != "(":
            return self._condition()
        left = self._group()
        while self.text[self.place : self.place + 1] != ")":
            word = "and" if self.text.startswith("and", self.place) else "or"
            for letter in word:
                self._expect(letter)
            left = _both(left, self._group(), word)
        self._expect(")")
        return left

    def _expect(self, letter: str) -> None:
        if self.text[self.place : self.place + 1] != letter:
            raise QueryRefused("INVALID_QUERY", "the criteria given seems to be invalid")
        self.place += 1

    def _condition(self) -> Accepts:
        self.count += 1
        pieces: list[str] = []
        piece, is_list = "", list[str]()
        while self.place < len(self.text) and self.text[self.place] != ")":
            letter = self.text[self.place]
            if letter == "\\":
                self.place += 1
                piece += self.text[self.place : self.place + 1]
            elif letter == ":" and len(pieces) < 2:
                pieces.append(piece)
                piece = ""
            elif letter == "," and len(pieces) == 2:
                is_list.append(piece)
                piece = ""
            else:
                piece += letter
            self.place += 1
        self._expect(")")
        if len(pieces) != 2 or pieces[0] not in self.columns:
            raise QueryRefused(
                "INVALID_QUERY", "the criteria given seems to be invalid", api_name=str(pieces[:1])
            )
        return _criterion(pieces[0], pieces[1], [*is_list, piece])


def _both(left: Accepts, right: Accepts, word: str) -> Accepts:
    return (lambda row: left(row) and right(row)) if word == "and" else (lambda row: left(row) or right(row))


def _criterion(name: str, comparator: str, values: list[str]) -> Accepts:
    first = order_of(values[0])
    checks: dict[str, Callable[[Any], bool]] = {
        "equals": lambda found: _equal(found, values[0]),
        "not_equal": lambda found: not _equal(found, values[0]),
        "starts_with": lambda found: str(found).casefold().startswith(values[0].casefold()),
        "in": lambda found: any(_equal(found, value) for value in values),
        "between": lambda found: first <= order_of(found) <= order_of(values[-1]),
        "greater_than": lambda found: order_of(found) > first,
        "greater_equal": lambda found: order_of(found) >= first,
        "less_than": lambda found: order_of(found) < first,
        "less_equal": lambda found: order_of(found) <= first,
    }
    if comparator not in checks:
        raise QueryRefused("INVALID_QUERY", "the comparator given seems to be invalid", api_name=name)
    check = checks[comparator]
    return lambda row: row.get(name) is not None and check(row[name])
