"""One OpenAPI file (3.0 or 3.1): its operations found by method and path, its schemas as validators."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from jsonschema import Draft202012Validator, FormatChecker
from referencing.exceptions import Unresolvable

__all__ = ["Document", "Operation", "SpecProblem", "candidates", "load_document"]

METHODS = ("get", "put", "post", "delete", "options", "head", "patch")
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "schemas")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_ONES = ("items", "additionalProperties", "not", "contains")
_SAID_ONLY = ("example", "examples", "default", "discriminator", "xml", "externalDocs", "nullable")
_MOST_HOPS = 20
_ROOM = "x-files"  # where the schemas of all given files stand in each validator, so that they can refer to each other


def _is_moment(value: Any) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


def _is_date(value: Any) -> bool:
    return not isinstance(value, str) or bool(date.fromisoformat(value))


def _is_uuid(value: Any) -> bool:
    return not isinstance(value, str) or bool(uuid.UUID(value))


def _is_int32(value: Any) -> bool:
    return not isinstance(value, int) or -(2**31) <= value < 2**31


FORMATS = FormatChecker(formats=())
for _name, _test in {"date-time": _is_moment, "date": _is_date, "uuid": _is_uuid, "int32": _is_int32}.items():
    FORMATS.checks(_name, raises=ValueError)(_test)


class SpecProblem(Exception):
    """The file is not one that this tool reads; the text says why."""


@dataclass(frozen=True)
class Operation:
    """One operation of one file. ``template`` is its path as the file writes it."""

    document: Document
    method: str
    template: str
    tree: Mapping[str, Any] = field(repr=False)
    parameters: Sequence[Mapping[str, Any]] = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.method.upper()} {self.template}"


class Document:
    """A parsed file. ``prefixes`` are the path parts of its servers, ``problems`` what was passed over in it."""

    def __init__(self, name: str, tree: Any) -> None:
        version = str(tree.get("openapi", "")) if isinstance(tree, dict) else ""
        if not re.match(r"3\.[01]\b", version):
            raise SpecProblem(f"{name} is no OpenAPI 3.0 or 3.1 file; convert it first")
        if not isinstance(tree.get("paths"), dict):
            raise SpecProblem(f"{name} has no paths")
        self.name = name
        self.tree: dict[str, Any] = tree
        self.is_30 = version.startswith("3.0")
        self.problems: set[str] = set()
        self.siblings: dict[str, Document] = {name: self}
        self._validators: dict[int, Any] = {}  # by the identity of schemas, which live as long as the tree
        servers = [one.get("url", "") for one in tree.get("servers") or [] if isinstance(one, dict)]
        self.prefixes = sorted(
            {urlsplit(url).path.rstrip("/") for url in servers} or {""}, key=len, reverse=True
        )

    @cached_property
    def operations(self) -> list[tuple[re.Pattern[str], Operation]]:
        """All operations with the expression of their paths, the most literal paths first."""
        found = []
        for template, item in self.tree["paths"].items():
            item = self.resolved(item)
            for method in METHODS:
                if isinstance(operation := item.get(method), dict):
                    given = [*item.get("parameters", []), *operation.get("parameters", [])]
                    parameters = {(one["in"], one["name"]): one for one in self._parameters(given)}
                    made = Operation(self, method, template, operation, list(parameters.values()))
                    found.append((_expression(template), made))
        return sorted(found, key=lambda pair: _looseness(pair[1].template))

    def _parameters(self, given: Iterable[Any]) -> Iterator[Any]:
        """Those that the file really has; vendors' files point to some that they leave out."""
        for one in given:
            try:
                yield self.resolved(one)
            except SpecProblem as problem:
                self.problems.add(str(problem))

    def resolved(self, node: Any) -> Any:
        """The node, or what its ``$ref`` leads to, also in another given file. Raises SpecProblem if to nothing."""
        document = self
        for _ in range(_MOST_HOPS):
            if not isinstance(node, dict) or not isinstance(node.get("$ref"), str):
                return node
            place = node["$ref"]
            file, _, pointer = place.partition("#")
            if file:
                name = file.rpartition("/")[2]
                if name not in self.siblings:
                    raise SpecProblem(f"{self.name}: {place} is in a file that was not given")
                document = self.siblings[name]
            node = document.tree
            for part in pointer.strip("/").split("/"):
                part = unquote(part).replace("~1", "/").replace("~0", "~")
                if not isinstance(node, dict) or part not in node:
                    raise SpecProblem(f"{self.name}: {place} leads nowhere")
                node = node[part]
        raise SpecProblem(f"{self.name}: a $ref leads back to itself")

    def errors_of(self, schema: Any, value: Any) -> Iterator[Any]:
        """What is wrong with a value, as jsonschema's errors; of alternatives, with the nearest one."""
        validator = self._validators.get(id(schema))
        if validator is None:
            schemas = {name: one._schemas for name, one in self.siblings.items()}
            root = {**self._converted(schema), _ROOM: schemas}
            validator = self._validators[id(schema)] = Draft202012Validator(root, format_checker=FORMATS)
        try:
            for error in validator.iter_errors(value):
                yield from _nearest(error)
        except Unresolvable as error:
            file, _, name = str(error.ref).strip("#/").removeprefix(f"{_ROOM}/").partition("/")
            where = "is in a file that was not given" if file not in self.siblings else "leads nowhere"
            raise SpecProblem(f"{self.name}: {name} of {file} {where}") from None

    @cached_property
    def _schemas(self) -> dict[str, Any]:
        schemas = self.tree.get("components", {}).get("schemas", {})
        return {name: self._converted(one) for name, one in schemas.items()}

    def _converted(self, schema: Any) -> Any:
        """The schema as JSON Schema 2020-12: 3.0 has words of its own for null and exclusive bounds."""
        if not isinstance(schema, dict):
            return schema
        made: dict[str, Any] = {}
        for name, value in schema.items():
            if name in _MAPS and isinstance(value, dict):
                made[name] = {key: self._converted(one) for key, one in value.items()}
            elif name in _LISTS and isinstance(value, list):
                # Alternatives overlap in vendors' files: one that fits is enough.
                made["anyOf" if name == "oneOf" else name] = [self._converted(one) for one in value]
            elif name in _ONES:
                made[name] = self._converted(value)
            elif name == "$ref" and isinstance(value, str):
                file, _, pointer = value.partition("#")
                kept = pointer.removeprefix("/components/schemas/")
                made[name] = f"#/{_ROOM}/{file.rpartition('/')[2] or self.name}/{kept}"
            elif name not in _SAID_ONLY:
                made[name] = value
        if self.is_30:
            for bound in ("Minimum", "Maximum"):
                exclusive = f"exclusive{bound}"
                is_exclusive = made.pop(exclusive) if isinstance(made.get(exclusive), bool) else False
                if is_exclusive and bound.lower() in made:
                    made[exclusive] = made.pop(bound.lower())
            if schema.get("nullable") is True:
                return {"anyOf": [{"type": "null"}, made]}
        return made


def load_document(path: Path) -> Document:
    """A JSON or YAML file. Raises SpecProblem."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix in (".yaml", ".yml"):
            yaml: Any = import_module("yaml")
            return Document(path.name, yaml.safe_load(text))
        return Document(path.name, json.loads(text))
    except (OSError, UnicodeError, ValueError) as error:
        raise SpecProblem(f"{path.name} cannot be read: {error}") from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] == "yaml":
            raise SpecProblem(f"{path.name} is no YAML: {error}") from None
        raise


def candidates(documents: Iterable[Document], method: str, path: str) -> list[Operation]:
    """The operations that a request may be: those of the most literal path, from every file that has it."""
    found: list[Operation] = []
    for document in documents:
        for prefix in document.prefixes:
            if prefix and not path.startswith(prefix + "/"):
                continue
            rest = path[len(prefix) :]
            fits = (
                one for expression, one in document.operations
                if one.method == method.lower() and expression.fullmatch(rest)
            )  # fmt: skip
            if (first := next(fits, None)) is not None:
                found.append(first)
                break
    best = min((_looseness(one.template) for one in found), default=None)
    return [one for one in found if _looseness(one.template) == best]


def _nearest(error: Any) -> Iterator[Any]:
    """The error, or those of the alternative that lacks least: nobody can read "fits none of seven"."""
    if error.validator != "anyOf" or not error.context:
        yield error
        return
    groups: dict[Any, list[Any]] = {}
    for one in error.context:
        groups.setdefault(one.schema_path[0], []).append(one)
    # The alternative that is of another type altogether is the farthest.
    for one in min(groups.values(), key=lambda group: (_is_other_type(group), len(group))):
        yield from _nearest(one)


def _is_other_type(group: Sequence[Any]) -> bool:
    return any(one.validator == "type" and not one.path for one in group)


def _expression(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{[^}]*\}", template)
    return re.compile("[^/]+".join(map(re.escape, parts)))


def _looseness(template: str) -> tuple[int, int]:
    return template.count("{"), -len(re.sub(r"\{[^}]*\}", "", template))
