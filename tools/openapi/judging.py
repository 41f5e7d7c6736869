"""Requests, answers and fixtures held against the operations of published files; each mismatch is a finding."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from tools.openapi.documents import Document, Operation, SpecProblem, candidates
from tools.openapi.traffic import Exchange

__all__ = ["Finding", "Judge"]

_MOST_PER_VALUE = 10
_TEXT_SHOWN = 160
_IGNORED = ("accept", "authorization", "content-type")  # header parameters that OpenAPI says are ignored
_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, order=True)
class Finding:
    """One kind of mismatch. ``side``: ``request``, ``answer`` or ``fixture``; ``where`` is a path within the value."""

    side: str
    operation: str
    status: str
    where: str
    problem: str

    @property
    def key(self) -> str:
        """What the patterns of known differences are matched with."""
        return " ".join(part for part in (self.side, self.operation, self.status, self.where) if part)

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}"


class Judge:
    """``documents`` are the published files. ``strict_null``: a null is a value, also where no file speaks of null."""

    def __init__(self, documents: list[Document], *, strict_null: bool = False) -> None:
        self.documents = documents
        for document in documents:
            document.siblings = {one.name: one for one in documents}
        self.strict_null = strict_null

    def operation_of(self, exchange: Exchange) -> list[Operation]:
        """Several files may hold the same path; each is a candidate."""
        return candidates(self.documents, exchange.method, exchange.path)

    def exchange(self, exchange: Exchange) -> tuple[str, list[Finding]]:
        """The operation's name and all findings. Of several candidates the one with the fewest findings counts."""
        found = self.operation_of(exchange)
        if not found:
            name = f"{exchange.method} {exchange.path}"
            return name, [Finding("request", name, "", "", "no file has this operation")]
        judged = [self._judged(one, exchange) for one in found]
        best = min(range(len(found)), key=lambda place: len(judged[place]))
        return found[best].name, judged[best]

    def _judged(self, operation: Operation, exchange: Exchange) -> list[Finding]:
        try:
            return [*self._request(operation, exchange), *self._answer(operation, exchange)]
        except SpecProblem as problem:  # what a file does not tell cannot be held against it
            operation.document.problems.add(str(problem))
            return []

    # -- requests ------------------------------------------------------------------------------------------

    def _request(self, operation: Operation, exchange: Exchange) -> Iterator[Finding]:
        def finding(where: str, problem: str) -> Finding:
            return Finding("request", operation.name, "", where, problem)

        declared = {one["name"]: one for one in operation.parameters if one["in"] == "query"}
        for name in exchange.query.keys() - declared.keys():
            if not any(_takes_all(one) for one in declared.values()):
                yield finding(f"query/{name}", "is not declared")
        for name, one in declared.items():
            values = exchange.query.get(name)
            if values is None:
                if one.get("required"):
                    yield finding(f"query/{name}", "is required")
                continue
            schema = operation.document.resolved(one.get("schema") or {})
            for where, problem in self._problems(operation.document, schema, _typed(schema, values, one)):
                yield finding(f"query/{name}{where}", problem)
        for one in operation.parameters:
            is_owed = one["in"] == "header" and one.get("required") and one["name"].lower() not in _IGNORED
            if is_owed and one["name"].lower() not in exchange.headers:
                yield finding(f"header/{one['name']}", "is required")
        yield from (finding(where, problem) for where, problem in self._body(operation, exchange))

    def _body(self, operation: Operation, exchange: Exchange) -> Iterator[tuple[str, str]]:
        declared = operation.document.resolved(operation.tree.get("requestBody") or {})
        contents = declared.get("content") or {}
        if not exchange.body:
            if declared.get("required"):
                yield "body", "is required"
            return
        kind = exchange.headers.get("content-type", "").partition(";")[0].strip() or _JSON
        content = _content(contents, kind)
        if content is None:
            said = ", ".join(contents) or "no body at all"
            yield "body", f"is {kind}, and the file declares {said}"
            return
        schema = content.get("schema")
        if schema is None:
            return
        try:
            value = self._decoded(operation.document, schema, exchange.body, kind)
        except ValueError:
            yield "body", f"is no {kind}"
            return
        for where, problem in self._problems(operation.document, schema, value):
            yield f"body{where}", problem

    @staticmethod
    def _decoded(document: Document, schema: Any, body: bytes, kind: str) -> Any:
        if kind != _FORM:
            return json.loads(body)
        known = document.resolved(schema).get("properties", {})
        fields = parse_qs(body.decode(), keep_blank_values=True)
        return {
            name: _typed(document.resolved(known.get(name, {})), values, {})
            for name, values in fields.items()
        }

    # -- answers -------------------------------------------------------------------------------------------

    def _answer(self, operation: Operation, exchange: Exchange) -> Iterator[Finding]:
        if exchange.status == 0 or exchange.is_fault:
            return
        status = str(exchange.status)

        def finding(where: str, problem: str) -> Finding:
            return Finding("answer", operation.name, status, where, problem)

        responses = operation.tree.get("responses") or {}
        declared = responses.get(status) or responses.get(f"{status[0]}XX")
        if declared is None and status[0] == "2":  # a default answer is an error's
            yield finding("", f"is not declared; the file declares {', '.join(responses)}")
            declared = next((one for known, one in responses.items() if known[0] == "2"), None)
        elif declared is None and (declared := responses.get("default")) is None:
            yield finding("", f"is not declared; the file declares {', '.join(responses)}")
        if declared is None:
            return
        contents = operation.document.resolved(declared).get("content") or {}
        if not exchange.answer or not contents:
            if exchange.answer and status in responses and not exchange.answer_kind.startswith("text/html"):
                yield finding("", "has a body, and the file declares none")
            return
        content = _content(contents, exchange.answer_kind)
        if content is None:
            yield finding("", f"is {exchange.answer_kind}, and the file declares {', '.join(contents)}")
            return
        if (schema := content.get("schema")) is None:
            return
        try:
            value = json.loads(exchange.answer)
        except ValueError:
            yield finding("", f"is no JSON ({exchange.answer_kind or 'no content type'})")
            return
        for where, problem in self._problems(operation.document, schema, self._without_nulls(value)):
            yield finding(where.lstrip("/"), problem)

    def _without_nulls(self, value: Any) -> Any:
        if self.strict_null:
            return value
        if isinstance(value, dict):
            return {name: self._without_nulls(one) for name, one in value.items() if one is not None}
        return [self._without_nulls(one) for one in value] if isinstance(value, list) else value

    # -- fixtures ------------------------------------------------------------------------------------------

    def fixture(self, name: str, value: Any) -> tuple[str, list[Finding]]:
        """A fixture is some operation's answer: of an error by the name ``error.*``, of a success otherwise.

        It passes where one declared answer of that kind fits it and speaks of its names; what is missing from the
        nearest one is told.
        """
        value = self._without_nulls(value)
        nearest: tuple[int, int, str, list[Finding]] | None = None
        for operation, status, schema in self._declared_answers(is_error=name.startswith("error.")):
            document = operation.document
            try:
                shared = _names(document, schema) & set(value if isinstance(value, dict) else ())
                problems = list(self._problems(document, schema, value))
            except SpecProblem as problem:
                document.problems.add(str(problem))
                continue
            if shared and not problems:
                return f"{operation.name} {status}", []
            # The nearest answer is the one that shares most names with the fixture.
            rank = (-len(shared), len(problems))
            if nearest is None or rank < nearest[:2]:
                kind = f"nearest to {operation.name} {status}"
                findings = [Finding("fixture", name, "", where.lstrip("/"), one) for where, one in problems]
                nothing = [Finding("fixture", name, "", "", "shares no name with any declared answer")]
                nearest = *rank, kind, findings if shared else nothing
        if nearest is None:
            return "", [Finding("fixture", name, "", "", "no file declares an answer of this kind")]
        return nearest[2], nearest[3]

    def _declared_answers(self, *, is_error: bool) -> Iterator[tuple[Operation, str, Any]]:
        seen: set[str] = set()
        for document in self.documents:
            for _, operation in document.operations:
                for status, response in (operation.tree.get("responses") or {}).items():
                    if (status == "default" or status[0] in "45") is not is_error:
                        continue
                    for content in (document.resolved(response).get("content") or {}).values():
                        mark = f"{document.name} {json.dumps(content.get('schema'), sort_keys=True)}"
                        if content.get("schema") is not None and mark not in seen:
                            seen.add(mark)
                            yield operation, status, content["schema"]

    def _problems(self, document: Document, schema: Any, value: Any) -> Iterator[tuple[str, str]]:
        for number, error in enumerate(document.errors_of(schema, value)):
            if number == _MOST_PER_VALUE:
                return
            where = "".join("/*" if isinstance(part, int) else f"/{part}" for part in error.absolute_path)
            yield where, _told(error)


def _told(error: Any) -> str:
    """The mismatch without the value: values of one kind of mismatch differ, and should be told once."""
    said = error.validator_value
    told = {
        "type": f"is {_kind(error.instance)}, and the file says {said}",
        "required": str(error.message),
        "enum": f"is {error.instance!r}, and the file allows {said}",
        "format": f"is no {said}",
        "additionalProperties": str(error.message),
    }
    text = told.get(error.validator) or f"breaks {error.validator}: {error.message}"
    return text if len(text) <= _TEXT_SHOWN else text[: _TEXT_SHOWN - 1] + "…"


def _kind(value: Any) -> str:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return kinds.get(type(value), "null")


def _content(contents: Mapping[str, Any], kind: str) -> Any:
    """The declared content for a media type, wildcards included."""
    major = kind.partition("/")[0]
    by_bare = {name.partition(";")[0].strip(): one for name, one in contents.items()}
    return next((by_bare[one] for one in (kind, f"{major}/*", "*/*") if one in by_bare), None)


def _takes_all(parameter: Mapping[str, Any]) -> bool:
    """A free-form object in the query (style form, exploded) takes any name."""
    schema = parameter.get("schema") or {}
    return schema.get("type") == "object" and parameter.get("explode", True) is not False


def _typed(schema: Any, values: Iterable[str], parameter: Mapping[str, Any]) -> Any:
    """Texts of a query or a form in the type that the file declares, where they can be read so."""
    texts = list(values)
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind == "array":
        if parameter.get("explode") is False:
            texts = [part for text in texts for part in text.split(",")]
        return [_scalar((schema.get("items") or {}).get("type"), text) for text in texts]
    return _scalar(kind, texts[0]) if len(texts) == 1 else texts


def _scalar(kind: Any, text: str) -> Any:
    if kind == "boolean" and text in ("true", "false"):
        return text == "true"
    try:
        return int(text) if kind == "integer" else float(text) if kind == "number" else text
    except ValueError:
        return text


def _names(document: Document, schema: Any) -> set[str]:
    """The names that a schema's object may have, through references and compositions."""
    schema = document.resolved(schema)
    found = set(schema.get("properties", ()))
    for word in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(word, ()):
            found |= _names(document, part)
    return found
