"""The operator's document: how a REST service is spoken to, checked strictly and turned into a Manifest.

A document names strategies, it never holds a condition or code. Every problem is reported with its place
(``manifest.objects.lead.create.body.email``) and a fix. Secrets cannot be reached from a template.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal

import msgspec

from crmbridge.core.errors import FieldError, ValidationError
from crmbridge.core.manifest import (
    Auth,
    AuthKind,
    Budget,
    BudgetKind,
    Call,
    Idempotency,
    IdempotencyKind,
    Manifest,
    ObjectSpec,
    Paging,
    PagingKind,
)
from crmbridge.core.operations import COMPOSED, FULL, LIMITED, NOT_YET, DeleteLevel, Operation, Support
from crmbridge.core.records import FieldFact, Object
from crmbridge.core.verticals import SlotType
from crmbridge.toolkit.calls import CompiledCall, compile_call, default_call
from crmbridge.toolkit.extraction import PathError, compile_path
from crmbridge.toolkit.templates import TemplateError

__all__ = ["Document", "ErrorForm", "facts_of", "manifest_of", "read_document"]

MAX_BYTES = 256 * 1024
_VERBS = ("get", "list", "search", "lookup", "create", "update", "upsert", "delete", "erase")
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_RESERVED = frozenset(
    {
        "authorization",
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "cookie",
        "proxy-authorization",
    }
)
_NEEDS = {
    Operation.GET: "id",
    Operation.UPDATE: "id",
    Operation.DELETE: "id",
    Operation.ERASE: "id",
    Operation.CREATE: "record",
    Operation.UPSERT: "record",
    Operation.SEARCH: "filter",
    Operation.LOOKUP: "filter",
}


class _Form(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Base of the parts: unknown words are refused, names are camelCase."""


class CallForm(_Form, frozen=True):
    """One request. ``body`` and ``form`` are JSON trees of templates; ``ok`` further statuses that are fine."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    query: dict[str, Any] = {}
    headers: dict[str, str] = {}
    body: Any = msgspec.UNSET
    form: dict[str, Any] | None = None
    result: str = ""
    id: str = ""
    next: str = ""
    ok: list[int] = []


class AuthForm(_Form, frozen=True):
    """Where the credential goes. The secret itself is entered apart and never stands in the document."""

    type: Literal["api_key", "bearer", "basic", "none"]
    header: str = ""
    query: str = ""
    prefix: str = ""


class PagingForm(_Form, frozen=True):
    """``size`` and ``cursor`` are parameter names, ``next`` a JMESPath to the cursor or the next link."""

    kind: Literal["none", "cursor", "page", "offset", "link"]
    size: str = ""
    cursor: str = ""
    next: str = ""
    max_size: int = 100
    first_page: int = 1


class IdempotencyForm(_Form, frozen=True):
    """How a repeated create is recognised; see core.manifest.Idempotency."""

    kind: Literal["none", "natural_key", "external_id", "key_sent"]
    field: str = ""
    search_lag_seconds: float = 0


class FieldForm(_Form, frozen=True):
    """One field for mapping checks; ``type`` is a slot type."""

    type: str = "text"
    label: str = ""
    required: bool = False
    read_only: bool = False
    options: list[str] = []


class ErrorForm(_Form, frozen=True):
    """JMESPath into error answers. ``when`` is true for a 2xx that is an error; ``fields`` finds an object of
    field → text, or a list of ``{field, message}``."""

    message: str = ""
    code: str = ""
    fields: str = ""
    when: str = ""


class RateForm(_Form, frozen=True):
    """At most ``limit`` calls per ``perSeconds``."""

    limit: int
    per_seconds: float


class ObjectForm(_Form, frozen=True):
    """One canonical object. A verb is a call, or ``true`` for the REST habit on ``path``. ``id`` and
    ``archived`` (true for a soft-deleted record) are JMESPath within a record, ``updated`` a field path."""

    path: str = ""
    native: str = ""
    id: str = "id"
    updated: str = ""
    archived: str = ""
    url: str = ""
    natural_keys: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    links: dict[Object, str] = {}
    idempotency: IdempotencyForm = IdempotencyForm(kind="none")
    fields: dict[str, FieldForm] = {}
    get: CallForm | bool = False
    list: CallForm | bool = False
    search: CallForm | bool = False
    lookup: CallForm | bool = False
    create: CallForm | bool = False
    update: CallForm | bool = False
    upsert: CallForm | bool = False
    delete: CallForm | bool = False
    erase: CallForm | bool = False


class Document(_Form, frozen=True):
    """The document. ``objects`` is checked object by object, so that errors can name them."""

    name: str
    auth: AuthForm
    test: CallForm
    objects: dict[Object, Any]
    base_url: str = ""
    paging: PagingForm = PagingForm(kind="none")
    delete_is_hard: bool | None = None
    errors: ErrorForm = ErrorForm()
    rate: RateForm | None = None
    in_flight: int = 4
    timeout_seconds: float = 30.0
    id_pattern: str = r"[A-Za-z0-9._:\-]{1,200}"


Problems = list[FieldError]


@lru_cache(maxsize=128)
def read_document(text: str) -> tuple[Document, dict[Object, ObjectForm]]:
    """The checked document. Raises ValidationError with one FieldError per problem, each with its place."""
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise _refusal([FieldError("manifest", f"is larger than {MAX_BYTES // 1024} KiB; shorten it")])
    try:
        document = msgspec.json.decode(text, type=Document)
    except msgspec.ValidationError as error:
        raise _refusal([_shape_problem(str(error), "manifest")]) from None
    except (msgspec.DecodeError, RecursionError) as error:
        problem = "is nested too deep" if isinstance(error, RecursionError) else f"is not JSON: {error}"
        raise _refusal([FieldError("manifest", f"{problem}; paste the whole document again")]) from None
    problems: Problems = []
    forms: dict[Object, ObjectForm] = {}
    for obj, tree in document.objects.items():
        try:
            forms[obj] = msgspec.convert(tree, ObjectForm)
        except msgspec.ValidationError as error:
            problems.append(_shape_problem(str(error), f"manifest.objects.{obj.value}"))
    problems += _document_problems(document)
    for obj, form in forms.items():
        problems += _object_problems(document, obj, form)
    if problems:
        raise _refusal(problems)
    return document, forms


def _refusal(problems: Problems) -> ValidationError:
    return ValidationError("The REST document cannot be used.", provider="rest_api", fields=tuple(problems))


def _shape_problem(text: str, root: str) -> FieldError:
    """msgspec's message with our place: ``… - at `$.auth.type` `` becomes ``manifest.auth.type``."""
    problem, _, where = text.partition(" - at ")
    found = re.search(r"`\$([^`]*)`", where)
    if problem.startswith("Invalid enum value") and "`key`" in where:
        problem = f"{problem}, the objects are {', '.join(Object)}"
    return FieldError(root + (found[1] if found else ""), f"{problem}; correct it there")


def _document_problems(document: Document) -> Iterator[FieldError]:
    auth, paging = document.auth, document.paging
    if not document.name.strip():
        yield FieldError("manifest.name", "is empty; name the CRM")
    if not document.objects:
        yield FieldError("manifest.objects", "is empty; describe at least one object, such as customer")
    if auth.type == "api_key" and bool(auth.header) is bool(auth.query):
        yield FieldError("manifest.auth", "needs exactly one of header and query for an API key")
    if auth.header and not re.fullmatch(r"[A-Za-z0-9-]{1,64}", auth.header):
        yield FieldError("manifest.auth.header", "is not a header name; use letters, digits and dashes")
    if document.base_url and not re.fullmatch(r"https?://[^\s/?#@{}]+(/[^\s?#{}]*)?", document.base_url):
        yield FieldError("manifest.baseUrl", "needs an address such as https://api.example.com/v1, no query")
    if paging.kind in ("cursor", "page", "offset") and not paging.cursor:
        yield FieldError("manifest.paging.cursor", "is missing; name the parameter that carries the cursor")
    if paging.kind == "cursor" and not paging.next:
        yield FieldError("manifest.paging.next", "is missing; give the JMESPath of the next cursor")
    if not 1 <= paging.max_size <= 10_000:
        yield FieldError("manifest.paging.maxSize", "must be from 1 to 10000")
    if not 1 <= document.in_flight <= 64:
        yield FieldError("manifest.inFlight", "must be from 1 to 64")
    if not 0 < document.timeout_seconds <= 120:
        yield FieldError("manifest.timeoutSeconds", "must be above 0 and at most 120")
    if document.rate is not None and (document.rate.limit < 1 or document.rate.per_seconds <= 0):
        yield FieldError("manifest.rate", "needs a limit of at least 1 and perSeconds above 0")
    if not _is_safe_pattern(document.id_pattern):
        place = "must be one character class with a count, such as [A-Za-z0-9-]{1,64}, without / ? # %"
        yield FieldError("manifest.idPattern", place)
    for name in ("message", "code", "fields", "when"):
        yield from _path_problem(getattr(document.errors, name), f"manifest.errors.{name}")
    yield from _path_problem(paging.next, "manifest.paging.next")
    yield from _call_problems(document, document.test, "manifest.test", None)


def _is_safe_pattern(pattern: str) -> bool:
    """One class and a count: no alternation or nested repeats, which could run for ever on hostile ids."""
    found = re.fullmatch(r"\[((?:[A-Za-z0-9_.:@~-]|\\[dw.:-])+)\]\{\d{1,3}(,\d{1,3})?\}", pattern)
    try:
        return found is not None and re.compile(pattern) is not None
    except re.error:
        return False


def _object_problems(document: Document, obj: Object, form: ObjectForm) -> Iterator[FieldError]:
    place = f"manifest.objects.{obj.value}"
    yield from _path_problem(form.id, f"{place}.id")
    yield from _path_problem(form.archived, f"{place}.archived")
    if not form.id:
        yield FieldError(f"{place}.id", "is empty; give the JMESPath of the id in a record")
    if form.lookup and obj is not Object.CUSTOMER:
        yield FieldError(f"{place}.lookup", "is for customers only; remove it or use search")
    if not any(getattr(form, verb) for verb in _VERBS):
        yield FieldError(place, "describes no call; add one, such as create")
    for name, field in form.fields.items():
        if field.type not in set(SlotType):
            yield FieldError(f"{place}.fields.{name}.type", f"is none of {', '.join(SlotType)}")
    if form.idempotency.kind == "external_id" and not (form.idempotency.field and form.search):
        yield FieldError(f"{place}.idempotency", "external_id needs a field and a search by it")
    if form.idempotency.kind == "natural_key" and not (form.natural_keys and form.search):
        yield FieldError(f"{place}.idempotency", "natural_key needs naturalKeys and a search by them")
    for verb in _VERBS:
        declared = getattr(form, verb)
        if declared is True and not form.path:
            yield FieldError(f"{place}.{verb}", "is true, which needs the object's path; set path")
        elif isinstance(declared, CallForm):
            yield from _call_problems(document, declared, f"{place}.{verb}", Operation(verb))
    sends_key = isinstance(form.create, CallForm) and "{{" in str(form.create) and "key" in str(form.create)
    if form.idempotency.kind == "key_sent" and not sends_key:
        yield FieldError(f"{place}.create", "sends no {{ key }}, which key_sent needs; put it into a header")


def _call_problems(
    document: Document, form: CallForm, place: str, operation: Operation | None
) -> Iterator[FieldError]:
    if not re.match(r"/(?![/\\])", form.path):
        yield FieldError(f"{place}.path", "must begin with one / and stays on the base URL")
    if form.body is not msgspec.UNSET and form.form is not None:
        yield FieldError(place, "has both body and form; keep one")
    if form.method == "GET" and (form.body is not msgspec.UNSET or form.form is not None):
        yield FieldError(place, "is a GET with a body; use query")
    own_header = document.auth.header.lower()
    for header in form.headers:
        if header.lower() in _RESERVED or header.lower() == own_header or not re.fullmatch(r"[\w-]+", header):
            yield FieldError(
                f"{place}.headers", f"may not set {header[:40]!r}; the credential is set by auth"
            )
    if document.auth.query and document.auth.query in form.query:
        yield FieldError(f"{place}.query", f"may not set {document.auth.query!r}, where the credential goes")
    if any(not 200 <= status < 500 or status in (401, 403, 429) for status in form.ok):
        yield FieldError(f"{place}.ok", "may hold statuses from 200 to 499 except 401, 403 and 429")
    try:
        compiled = compile_call(_call(form))
    except TemplateError as error:
        yield FieldError(f"{place}.{error.place}", error.problem)
    except PathError as error:
        yield FieldError(place, f"has a JMESPath that cannot be used: {error}")
    else:
        yield from _reference_problems(compiled, place, operation)


def _reference_problems(
    compiled: CompiledCall, place: str, operation: Operation | None
) -> Iterator[FieldError]:
    needed = _NEEDS.get(operation) if operation is not None else None
    if needed and not compiled.names(needed):
        why = {
            "id": "every call would go to the same address",
            "record": "no field would be sent",
            "filter": "every search would answer all records",
        }[needed]
        yield FieldError(place, f"names no {{{{ {needed} }}}}: {why}; use it in the path, query or body")


def _path_problem(expression: str, place: str) -> Iterator[FieldError]:
    try:
        if expression:
            compile_path(expression)
    except PathError as error:
        yield FieldError(place, f"is a JMESPath that cannot be used: {error}")


def _call(form: CallForm) -> Call:
    return Call(
        method=form.method,
        path=form.path,
        query=form.query,
        headers=form.headers,
        body=form.body,
        form=form.form,
        result=form.result,
        id=form.id,
        next=form.next,
        ok_statuses=tuple(form.ok),
    )


# -- from the document to the manifest --------------------------------------------------------------------------


def manifest_of(base: Manifest, text: str) -> Manifest:
    """``base`` with what the document says. Raises ValidationError."""
    document, forms = read_document(text)
    auth, paging = document.auth, document.paging
    budgets = [Budget(kind=BudgetKind.CONCURRENT, limit=document.in_flight, source="the document")]
    if document.rate is not None:
        rate = document.rate
        budgets.append(
            Budget(
                kind=BudgetKind.BURST, limit=rate.limit, per_seconds=rate.per_seconds, source="the document"
            )
        )
    kind = AuthKind(auth.type)
    return msgspec.structs.replace(
        base,
        display_name=document.name.strip(),
        auth=Auth(
            kind=kind,
            secret="" if kind is AuthKind.NONE else "secret",
            user="user" if kind is AuthKind.BASIC else "",
            header=auth.header,
            query=auth.query,
            prefix=auth.prefix,
        ),
        base_url="{base_url}" if not document.base_url else document.base_url,
        objects={obj: _spec(document, obj, form) for obj, form in forms.items()},
        paging=Paging(
            kind=PagingKind(paging.kind),
            size_param=paging.size,
            cursor_param=paging.cursor,
            next=paging.next,
            size=min(50, paging.max_size),
            max_size=paging.max_size,
            first_page=paging.first_page,
        ),
        budgets=tuple(budgets),
        test_call=_call(document.test),
        timeout_seconds=document.timeout_seconds,
        strict_ids=document.id_pattern,
    )


def _spec(document: Document, obj: Object, form: ObjectForm) -> ObjectSpec:
    level = {True: DeleteLevel.HARD, False: DeleteLevel.SOFT, None: DeleteLevel.UNSUPPORTED}[
        document.delete_is_hard
    ]
    operations = _operations(document, obj, form)
    spec = ObjectSpec(
        native=form.native or form.path.strip("/") or obj.value,
        path=form.path,
        id_field=form.id,
        updated_field=form.updated,
        url=form.url,
        natural_keys=tuple(form.natural_keys),
        operations=operations,
        links=form.links,
        delete_level=level if operations[Operation.DELETE].is_usable else DeleteLevel.UNSUPPORTED,
        erase_level=DeleteLevel.HARD if form.erase else DeleteLevel.UNSUPPORTED,
        idempotency=Idempotency(
            kind=IdempotencyKind(form.idempotency.kind),
            field=form.idempotency.field or ("key" if form.idempotency.kind == "key_sent" else ""),
            search_lag_seconds=form.idempotency.search_lag_seconds,
        ),
        required=tuple(form.required),
    )
    calls = {
        Operation(verb): _call(declared)
        if isinstance(declared, CallForm)
        else default_call(spec, Operation(verb))
        for verb in _VERBS
        if (declared := getattr(form, verb))
    }
    return msgspec.structs.replace(spec, calls=calls)


def _operations(document: Document, obj: Object, form: ObjectForm) -> dict[Operation, Support]:
    absent = NOT_YET("the document describes no such call")
    answers: dict[Operation, Support] = {
        Operation(verb): FULL if getattr(form, verb) else absent for verb in _VERBS if verb != "lookup"
    }
    if obj is not Object.NOTE and not form.upsert and form.search and form.create and form.update:
        answers[Operation.UPSERT] = COMPOSED("a search by the match, then an update or a create")
    if obj is Object.CUSTOMER:
        answers[Operation.LOOKUP] = FULL if form.lookup else absent
        if not form.lookup and form.search:
            answers[Operation.LOOKUP] = COMPOSED("a search by phone, then one by e-mail")
    if form.delete and document.delete_is_hard is None:
        answers[Operation.DELETE] = NOT_YET("the document does not say deleteIsHard")
    answers[Operation.DESCRIBE] = (
        LIMITED("as the document says, not read from the CRM") if form.fields else absent
    )
    return answers


def facts_of(form: ObjectForm) -> list[FieldFact]:
    """The schema that the document states."""
    return [
        FieldFact(
            path=name,
            label=field.label or name,
            type=field.type,
            is_required=field.required or name in form.required,
            is_read_only=field.read_only,
            options=list(field.options),
        )
        for name, field in form.fields.items()
    ]


def error_texts(found: Any) -> Mapping[str, str]:
    """Field → text out of the usual shapes of field errors; at most 50."""
    pairs: dict[str, str] = {}
    if isinstance(found, dict):
        for name, value in list(found.items())[:50]:
            first = value[0] if isinstance(value, list) and value else value
            pairs[str(name)] = first if isinstance(first, str) else "is refused"
    elif isinstance(found, list):
        for item in found[:50]:
            if isinstance(item, dict):
                name = item.get("field") or item.get("name") or item.get("path") or "?"
                pairs[str(name)] = str(item.get("message") or item.get("error") or "is refused")
    return pairs
