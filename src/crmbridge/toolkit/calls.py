"""Compiled calls: the templates and paths of a manifest, compiled once per manifest."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from crmbridge.core.manifest import Call, Manifest, ObjectSpec
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object
from crmbridge.toolkit.extraction import compile_path
from crmbridge.toolkit.templates import Template, compile_template

__all__ = ["NAMES", "CompiledCall", "compile_call", "compiled_call", "default_call", "extract_with"]

NAMES = frozenset(
    {"id", "record", "match", "key", "cursor", "limit", "filter", "settings", "links", "object"}
)
"""What templates may name. ``filter`` also holds ``text`` (free text) and ``since``; ``key`` is the mark."""

_MANIFESTS_KEPT = 256


class CompiledCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call, ready to render. ``references`` are the dotted names that its templates use."""

    call: Call
    path: Template
    query: Template
    headers: Template
    body: Template | None = None
    form: Template | None = None
    result: Callable[[Any], Any] | None = None
    id: Callable[[Any], Any] | None = None
    next: Callable[[Any], Any] | None = None
    references: frozenset[str] = frozenset()

    def names(self, name: str) -> bool:
        """Whether a template names this, in whole or by a part of it (``filter``: ``filter.email`` too)."""
        return any(used == name or used.startswith(f"{name}.") for used in self.references)


def compile_call(call: Call, place: str = "") -> CompiledCall:
    """Raises TemplateError or PathError naming the place in the call."""
    parts = {
        "path": compile_template(call.path, names=NAMES, place=f"{place}path"),
        "query": compile_template(call.query, names=NAMES, place=f"{place}query"),
        "headers": compile_template(call.headers, names=NAMES, place=f"{place}headers"),
    }
    if call.body is not msgspec.UNSET:
        parts["body"] = compile_template(call.body, names=NAMES, place=f"{place}body")
    if call.form is not None:
        parts["form"] = compile_template(call.form, names=NAMES, place=f"{place}form")
    return CompiledCall(
        call=call,
        **parts,
        result=compile_path(call.result) if call.result else None,
        id=compile_path(call.id) if call.id else None,
        next=compile_path(call.next) if call.next else None,
        references=frozenset().union(*(part.references for part in parts.values())),
    )


_ID_PATH = {Operation.GET, Operation.UPDATE, Operation.DELETE, Operation.ERASE}
_METHODS = {
    Operation.CREATE: "POST",
    Operation.UPSERT: "POST",
    Operation.UPDATE: "PATCH",
    Operation.DELETE: "DELETE",
    Operation.ERASE: "DELETE",
}


def default_call(spec: ObjectSpec, operation: Operation) -> Call:
    """What REST services mostly do: GET, POST, PATCH, DELETE on ``path`` and ``path/{id}``."""
    base = "/" + spec.path.strip("/")
    return Call(
        method=_METHODS.get(operation, "GET"),
        path=f"{base}/{{{{ id }}}}" if operation in _ID_PATH else base,
        body="{{ record }}"
        if operation in (Operation.CREATE, Operation.UPDATE, Operation.UPSERT)
        else msgspec.UNSET,
    )


_compiled: dict[int, tuple[Manifest, dict[tuple[Object, Operation], CompiledCall]]] = {}


def compiled_call(manifest: Manifest, obj: Object, operation: Operation) -> CompiledCall:
    """The declared call, or the default one. Manifests in use are kept, so that nothing is compiled twice."""
    kept = _compiled.get(id(manifest))
    if kept is None or kept[0] is not manifest:
        if len(_compiled) >= _MANIFESTS_KEPT:
            _compiled.pop(next(iter(_compiled)))
        kept = _compiled[id(manifest)] = (manifest, {})
    found = kept[1].get((obj, operation))
    if found is None:
        spec = manifest.objects[obj]
        call = spec.calls.get(operation) or default_call(spec, operation)
        found = kept[1][obj, operation] = compile_call(call, f"{obj.value}.{operation.value}.")
    return found


@lru_cache(maxsize=1024)
def extract_with(expression: str) -> Callable[[Any], Any]:
    """A compiled JMESPath, kept. Raises PathError."""
    return compile_path(expression)
