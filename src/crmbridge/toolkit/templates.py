"""Templates of requests: a JSON tree whose leaves may hold ``{{ record.email | lower }}`` references.

A template is compiled once into closures and rendered often. It is data, not a language: a reference is a
dotted path into the given scope and a chain of whitelisted filters (:mod:`crmbridge.toolkit.filters`); there
are no loops, attributes, calls or arithmetic, and a tree cannot be broken by a quote in a value. Why not
Jinja2, Liquid or JSONata: hostile templates ran for more than eight seconds or filled the memory.

Grammar of a reference: ``{{ head (| filter ( "(" literal ("," literal)* ")" )? )* }}`` with head a path
``name(.name|.number|.'any text')*`` or a literal; literals are ``'text'``, ``"text"``, numbers, true, false, null.

Rules: a leaf that is one reference keeps the value's type. A missing value is ABSENT: its key or list item is
dropped, unless ``default`` or ``required`` stands there. In a text of several parts a missing value is empty,
and the leaf is ABSENT only when every reference in it is. Keys of objects are never templates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from crmbridge.toolkit.filters import ABSENT, FILTERS, Filter, FilterError, text_of

__all__ = ["ABSENT", "Template", "TemplateError", "compile_template"]

MAX_TEMPLATE_BYTES = 64 * 1024
MAX_TEMPLATE_DEPTH = 20
MAX_LEAVES = 2_000
MAX_RENDERED = 1_000_000
MAX_VALUE_DEPTH = 32
MAX_FILTERS = 8
MAX_SEGMENTS = 12
MAX_REFERENCE = 2_000
_NODE_COST = 4

_Render = Callable[[Mapping[str, Any], "_Budget"], Any]

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>'[^']{0,1000}'|"[^"]{0,1000}")
      | (?P<number>-?\d{1,15}(?:\.\d{1,15})?)(?![\w.])
      | (?P<word>[A-Za-z_$@][\w$@-]{0,199}|\d{1,6})
      | (?P<mark>[.|(),])
    )""",
    re.VERBOSE,
)
_WORDS = {"true": True, "false": False, "null": None}
_LINE_BREAKING = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class TemplateError(ValueError):
    """``place`` names the leaf (``body.contact.email``), ``problem`` says what is wrong and how to fix it.

    Neither ever holds a value of the scope.
    """

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place or 'template'}: {problem}")
        self.place = place
        self.problem = problem


class _Budget:
    """What is left of the size of one rendering."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_RENDERED

    def spend(self, value: Any, place: str, depth: int = 0) -> None:
        """Pays for a value that is put into the result. Raises TemplateError when it does not fit."""
        kind = type(value)
        self.left -= len(value) + _NODE_COST if kind is str else _NODE_COST
        if kind is dict or kind is list:
            if depth >= MAX_VALUE_DEPTH:
                raise TemplateError(place, "the value is nested too deep")
            if kind is dict:
                for key in value:
                    self.left -= len(key) if type(key) is str else 0
                value = value.values()
            for item in value:
                if type(item) is str:
                    self.left -= len(item) + _NODE_COST
                else:
                    self.spend(item, place, depth + 1)
        if self.left < 0:
            raise TemplateError(place, f"the rendered request is larger than {MAX_RENDERED} characters")


class _Leaf:
    """A compiled text: constants and references in turn."""

    __slots__ = ("parts", "place")

    def __init__(self, place: str, parts: list[str | _Render]) -> None:
        self.place = place
        self.parts = parts

    def renderer(self) -> _Render:
        if len(self.parts) == 1:
            part = self.parts[0]
            return _constant(part) if isinstance(part, str) else part
        return self._mixed

    def _mixed(self, scope: Mapping[str, Any], budget: _Budget) -> Any:
        texts: list[str] = []
        is_absent = True
        for part in self.parts:
            if isinstance(part, str):
                texts.append(part)
                continue
            value = part(scope, budget)
            is_absent = is_absent and value is ABSENT
            texts.append(_as_text(value, self.place))
        if is_absent:
            return ABSENT
        text = "".join(texts)
        budget.spend(text, self.place)
        return text

    def path(self, scope: Mapping[str, Any], budget: _Budget) -> str:
        if len(self.parts) == 1 and isinstance(self.parts[0], str):
            return self.parts[0]
        texts = [part if isinstance(part, str) else self._segment(part, scope, budget) for part in self.parts]
        return "".join(texts)

    def _segment(self, part: _Render, scope: Mapping[str, Any], budget: _Budget) -> str:
        text = _as_text(part(scope, budget), self.place)
        # An empty segment would turn one record's URL into the list's; dots would climb out of it.
        if not text.strip():
            raise TemplateError(self.place, "a value in the path is missing")
        if text.strip() in (".", ".."):
            raise TemplateError(self.place, "a value in the path may not be dots alone")
        return quote(text, safe="", errors="replace")


class Template:
    """A compiled template. ``references`` are the dotted paths it reads."""

    __slots__ = ("_leaf", "_place", "_render", "references")

    def __init__(self, render: _Render, leaf: _Leaf | None, references: frozenset[str], place: str) -> None:
        self._render = render
        self._leaf = leaf
        self._place = place
        self.references = references

    def render(self, scope: Mapping[str, Any]) -> Any:
        """The tree, or ABSENT when the whole of it is missing. Raises TemplateError only.

        ``scope`` holds JSON values. The result may share parts with it and is not to be altered.
        """
        return self._render(scope, _Budget())

    def render_path(self, scope: Mapping[str, Any]) -> str:
        """A URL path (the template is one text): every value is percent-encoded, slashes and dots included.

        Raises TemplateError for a missing value and for one that is ``.`` or ``..``.
        """
        if self._leaf is None:
            raise TemplateError(self._place, "a path is one text")
        return self._leaf.path(scope, _Budget())

    def render_headers(self, scope: Mapping[str, Any]) -> dict[str, str]:
        """Headers (the template is one object of scalars). Missing ones are dropped.

        Raises TemplateError for a line break, another control character, or a letter outside Latin-1.
        """
        headers: dict[str, str] = {}
        for name, value in self._object(scope):
            place = f"{self._place}.{name}"
            text = _as_text(value, place)
            if not (text.isascii() and text.isprintable()) and (
                _LINE_BREAKING.search(text) or not _is_latin(text)
            ):
                raise TemplateError(place, "a header value holds a line break or a character it cannot carry")
            headers[name] = text
        return headers

    def render_query(self, scope: Mapping[str, Any]) -> dict[str, Any]:
        """Query parameters: texts, or lists of texts for repeated ones. Missing and null ones are dropped."""
        query: dict[str, Any] = {}
        for name, value in self._object(scope):
            place = f"{self._place}.{name}"
            if isinstance(value, list):
                query[name] = [_as_text(item, place) for item in value]
            elif value is not None:
                query[name] = _as_text(value, place)
        return query

    def _object(self, scope: Mapping[str, Any]) -> list[tuple[str, Any]]:
        tree = self.render(scope)
        if not isinstance(tree, dict):
            raise TemplateError(self._place, "an object of names and values is expected")
        return list(tree.items())


def compile_template(tree: Any, *, names: Collection[str], place: str = "") -> Template:
    """Compiles a JSON tree. ``names`` are the first words that references may begin with; anything else,
    unknown filters, unclosed braces and trees beyond the caps (64 kB, depth 20, 2,000 leaves) raise
    TemplateError. ``place`` stands before the place in errors (``body``).
    """
    compiler = _Compiler(frozenset(names))
    render = compiler.tree(tree, place, 0)
    leaf = compiler.text(tree, place) if isinstance(tree, str) else None
    return Template(render, leaf, frozenset(compiler.references), place)


class _Compiler:
    """One pass over the tree; holds what is counted on the way."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names
        self.references: set[str] = set()
        self._leaves = 0
        self._bytes = 0

    def tree(self, tree: Any, place: str, depth: int) -> _Render:
        if depth > MAX_TEMPLATE_DEPTH:
            raise TemplateError(place[:200], f"nested deeper than {MAX_TEMPLATE_DEPTH}")
        self._count(2, place)
        if isinstance(tree, dict):
            pairs = []
            for key, value in tree.items():
                if not isinstance(key, str):
                    raise TemplateError(place, "the keys of objects are texts")
                self._count(len(key), place)
                inner = f"{place}.{key[:80]}" if place else key[:80]
                pairs.append((key, self.tree(value, inner, depth + 1)))
            return _object_of(pairs)
        if isinstance(tree, list):
            return _list_of(
                [self.tree(item, f"{place}[{index}]", depth + 1) for index, item in enumerate(tree)]
            )
        self._leaves += 1
        if self._leaves > MAX_LEAVES:
            raise TemplateError(place, f"more than {MAX_LEAVES} leaves")
        if isinstance(tree, str):
            self._count(len(tree.encode(errors="replace")), place)
            return self.text(tree, place).renderer()
        if tree is None or isinstance(tree, (bool, int, float)):
            self._count(8, place)
            return _constant(tree)
        raise TemplateError(place, "only JSON values may stand in a template")

    def text(self, text: str, place: str) -> _Leaf:
        """Splits a text at its references."""
        parts: list[str | _Render] = []
        position = 0
        while (start := text.find("{{", position)) >= 0:
            end = _closing(text, start + 2)
            if end < 0:
                raise TemplateError(place, "a reference opened by {{ is not closed by }}")
            if start > position:
                parts.append(text[position:start])
            parts.append(self.reference(text[start + 2 : end], place))
            position = end + 2
        if position < len(text) or not parts:
            parts.append(text[position:])
        return _Leaf(place, parts)

    def reference(self, source: str, place: str) -> _Render:
        if len(source) > MAX_REFERENCE:
            raise TemplateError(place, f"a reference is longer than {MAX_REFERENCE} characters")
        tokens = _tokens(source, place)
        head = self._head(tokens, place)
        filters: list[tuple[Filter, tuple[Any, ...], str]] = []
        while tokens:
            if tokens.pop(0) != ("mark", "|"):
                raise TemplateError(place, "after a value only | and a filter may follow")
            filters.append(_filter(tokens, place))
        if len(filters) > MAX_FILTERS:
            raise TemplateError(place, f"more than {MAX_FILTERS} filters")
        return _referring(head, tuple(filters), place)

    def _head(self, tokens: list[tuple[str, Any]], place: str) -> _Render:
        if not tokens:
            raise TemplateError(place, "a reference is empty")
        kind, value = tokens.pop(0)
        if kind == "text" or kind == "number" or (kind == "word" and value in _WORDS):
            return _constant(_WORDS.get(value, value) if kind == "word" else value)
        if kind != "word" or value not in self.names:
            known = ", ".join(sorted(self.names))
            raise TemplateError(place, f"a reference begins with one of: {known}")
        segments: list[str] = [value]
        while tokens and tokens[0] == ("mark", "."):
            tokens.pop(0)
            if not tokens or tokens[0][0] == "mark":
                raise TemplateError(place, "a name is missing after the full stop")
            kind, value = tokens.pop(0)
            segments.append(str(value))
        if len(segments) > MAX_SEGMENTS or any(segment.startswith("__") for segment in segments):
            raise TemplateError(
                place, f"a path has at most {MAX_SEGMENTS} names, none beginning with two underscores"
            )
        self.references.add(".".join(segments))
        return _path(tuple(segments))

    def _count(self, size: int, place: str) -> None:
        self._bytes += size
        if self._bytes > MAX_TEMPLATE_BYTES:
            raise TemplateError(place[:200], f"the template is larger than {MAX_TEMPLATE_BYTES} bytes")


def _closing(text: str, start: int) -> int:
    """The index of the ``}}`` that closes a reference, quoted texts skipped; -1 when there is none."""
    quote_mark = ""
    for index in range(start, len(text)):
        letter = text[index]
        if quote_mark:
            quote_mark = "" if letter == quote_mark else quote_mark
        elif letter in "'\"":
            quote_mark = letter
        elif letter == "}" and text.startswith("}}", index):
            return index
    return -1


def _tokens(source: str, place: str) -> list[tuple[str, Any]]:
    tokens: list[tuple[str, Any]] = []
    source = source.strip()
    position = 0
    while position < len(source):
        after_stop = bool(tokens) and tokens[-1] == ("mark", ".")
        match = _TOKEN.match(source, position)
        if match is None:
            raise TemplateError(place, "a reference holds a sign that it may not hold")
        kind = match.lastgroup or ""
        value: Any = match[kind]
        position = match.end()
        if kind == "number" and after_stop and "." in value:
            # ``list.0.name`` and ``list.0.1``: behind a full stop a number is an index.
            position = match.start(kind) + value.index(".")
            value = value.partition(".")[0]
        if kind == "text":
            value = value[1:-1]
        elif kind == "number" and not after_stop:
            value = float(value) if "." in value else int(value)
        tokens.append((kind, value))
    return tokens


def _filter(tokens: list[tuple[str, Any]], place: str) -> tuple[Filter, tuple[Any, ...], str]:
    kind, name = tokens.pop(0) if tokens else ("", "")
    found = FILTERS.get(name) if kind == "word" else None
    if found is None:
        raise TemplateError(place, f"unknown filter; there are: {', '.join(sorted(FILTERS))}")
    arguments: list[Any] = []
    if tokens and tokens[0] == ("mark", "("):
        tokens.pop(0)
        while tokens and tokens[0] != ("mark", ")"):
            kind, value = tokens.pop(0)
            if kind == "word" and value in _WORDS:
                value = _WORDS[value]
            elif kind not in ("text", "number"):
                raise TemplateError(place, f"the arguments of {name} are literals: 'text', 12, true, null")
            arguments.append(value)
            if tokens and tokens[0] == ("mark", ","):
                tokens.pop(0)
            elif not tokens or tokens[0] != ("mark", ")"):
                break
        if not tokens or tokens.pop(0) != ("mark", ")"):
            raise TemplateError(place, f"the arguments of {name} are not closed by )")
    if not found.least <= len(arguments) <= found.most:
        raise TemplateError(place, f"{name} takes {found.least} to {found.most} arguments")
    if name in ("date", "e164", "join", "split") and not all(isinstance(item, str) for item in arguments):
        raise TemplateError(place, f"the argument of {name} is a text in quotes")
    return found, tuple(arguments), name


def _constant(value: Any) -> _Render:
    return lambda scope, budget: value


def _path(segments: tuple[str, ...]) -> _Render:
    """Looks up objects by key and lists by number; anything else, attributes above all, is not looked at."""
    root, rest = segments[0], segments[1:]

    def look(scope: Mapping[str, Any], budget: _Budget) -> Any:
        value = scope.get(root, ABSENT)
        for segment in rest:
            kind = type(value)
            if kind is dict:
                value = value.get(segment, ABSENT)
            elif kind is list and segment.isdecimal() and int(segment) < len(value):
                value = value[int(segment)]
            else:
                return ABSENT
        return ABSENT if value is msgspec.UNSET else value

    return look


def _referring(
    head: _Render, filters: tuple[tuple[Filter, tuple[Any, ...], str], ...], place: str
) -> _Render:
    def render(scope: Mapping[str, Any], budget: _Budget) -> Any:
        value = head(scope, budget)
        for found, arguments, name in filters:
            if (value is ABSENT or value is None) and not found.takes_missing:
                continue
            try:
                value = found.apply(value, *arguments)
            except FilterError as error:
                raise TemplateError(place, f"{name}: {error}") from None
        if type(value) is str:
            budget.left -= len(value) + _NODE_COST
            if budget.left >= 0:
                return value
        budget.spend(value, place)
        return value

    return render


def _object_of(pairs: list[tuple[str, _Render]]) -> _Render:
    def render(scope: Mapping[str, Any], budget: _Budget) -> Any:
        answer = {}
        for key, part in pairs:
            value = part(scope, budget)
            if value is not ABSENT:
                answer[key] = value
        return answer

    return render


def _list_of(parts: list[_Render]) -> _Render:
    def render(scope: Mapping[str, Any], budget: _Budget) -> Any:
        values = [part(scope, budget) for part in parts]
        return [value for value in values if value is not ABSENT]

    return render


def _as_text(value: Any, place: str) -> str:
    try:
        return text_of(value)
    except FilterError as error:
        raise TemplateError(place, str(error)) from None


def _is_latin(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True
