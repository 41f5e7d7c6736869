"""RestDriver: executes a manifest. A driver that declares enough overrides nothing.

Declared calls are used as they stand; where none is declared, REST habits are: GET path, GET path/{id}, POST
path, PATCH path/{id}, DELETE path/{id}, a search by query parameters. An upsert without a call of its own is
a search and then an update or a create.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from crmbridge.core.driver import refuse
from crmbridge.core.errors import (
    Conflict,
    CrmError,
    FieldError,
    NotFound,
    ValidationError,
)
from crmbridge.core.manifest import BudgetKind, IdempotencyKind, PagingKind
from crmbridge.core.operations import DeleteLevel, Operation, Outcome
from crmbridge.core.records import Filter, Object, Page, Record, Write, WriteResult
from crmbridge.core.verticals import Vertical
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.toolkit import paging
from crmbridge.toolkit.calls import compiled_call, extract_with
from crmbridge.toolkit.exchange import HttpDriver
from crmbridge.toolkit.extraction import PathError
from crmbridge.toolkit.fieldmap import get_path, load_fields, put_path
from crmbridge.toolkit.formats import ValueFault, moment_text

__all__ = ["RestDriver"]

LOOKUP_LIMIT = 20
MATCH_PAGES = 5


class RestDriver(HttpDriver):
    """One provider that speaks HTTP. Hooks are few and named after the question they answer."""

    # -- hooks ---------------------------------------------------------------------------------------------

    def request_for(self, operation: Operation, obj: Object, scope: Mapping[str, Any]) -> HttpRequest:
        """The request of one call; ``url`` is a path. ``scope`` holds the names of ``calls.NAMES``."""
        return self.render(compiled_call(self.manifest, obj, operation), scope)

    def record_from(self, obj: Object, native: dict[str, Any]) -> Record:
        """A record of the provider. Raises UnexpectedResponse when it has no id."""
        spec = self.manifest.objects[obj]
        remote_id = self.id_text(extract_with(spec.id_field)(native))
        if not remote_id:
            raise self.unexpected(f"a {obj.value} without {spec.id_field}", Operation.GET, is_write=False)
        updated = get_path(native, spec.updated_field) if spec.updated_field else None
        return Record(
            object=obj,
            remote_id=remote_id,
            native=native,
            updated_at=moment_text(updated),
            url=self.record_url(obj, remote_id),
        )

    def records_in(self, operation: Operation, obj: Object, tree: Any) -> list[dict[str, Any]]:
        """The native records in the answer of a list, search or look-up (``Call.result``)."""
        found = self._result(operation, obj, tree)
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise self.unexpected("something that is not a list of records", operation, is_write=False)
        return found

    def next_page(
        self, operation: Operation, obj: Object, response: HttpResponse, tree: Any, asked: paging.Asked
    ) -> str:
        """The next cursor, by ``manifest.paging``; empty on the last page."""
        call = self.call(obj, operation)
        declared = self.manifest.paging
        if call.next:
            kind = PagingKind.CURSOR if declared.kind is PagingKind.NONE else declared.kind
            declared = msgspec.structs.replace(declared, next=call.next, kind=kind)
        return paging.next_cursor(declared, response, tree, asked)

    def is_same(self, path: str, wanted: Any, found: Any) -> bool:
        """Whether a provider's value is the one that was asked for; spelling of case and phones aside."""
        left, right = str(wanted).strip().casefold(), str(found).strip().casefold()
        if left == right:
            return True
        if re.fullmatch(r"\+?[\d\s().\-/]{7,25}", left) and re.fullmatch(r"\+?[\d\s().\-/]{7,25}", right):
            return re.sub(r"\D", "", left) == re.sub(r"\D", "", right)
        return False

    def lookup_paths(self) -> dict[str, list[str]]:
        """The native paths of a customer's ``phone`` and ``email``, by the driver's own default map."""
        rules = load_fields(type(self)).rules(Object.CUSTOMER, Vertical.GENERAL)
        return {
            slot: [rule.path for rule in rules if rule.slot == slot and not rule.native]
            for slot in ("phone", "email")
        }

    async def _perform(
        self, operation: Operation, obj: Object, scope: Mapping[str, Any]
    ) -> tuple[HttpResponse, Any, str]:
        request = self.request_for(operation, obj, scope)
        name, is_write = operation.value, operation.is_write
        response = await self.exchange(
            request, operation=name, is_write=is_write, ok_statuses=self.call(obj, operation).ok_statuses
        )
        tree = self.tree_of(response, operation=name, is_write=is_write)
        return response, tree, request.url

    def _result(self, operation: Operation, obj: Object, tree: Any) -> Any:
        compiled = compiled_call(self.manifest, obj, operation)
        if compiled.result is None:
            return tree
        try:
            return compiled.result(tree)
        except PathError:
            raise self.unexpected(
                "an answer that the result path does not fit", operation, is_write=operation.is_write
            ) from None

    # -- reading -------------------------------------------------------------------------------------------

    async def get_record(self, obj: Object, remote_id: str) -> Record:
        self.spec(obj, Operation.GET)
        scope = {"id": self.check_id(obj, remote_id), "object": obj.value}
        _, tree, _ = await self._perform(Operation.GET, obj, scope)
        native = self._result(Operation.GET, obj, tree)
        if not isinstance(native, dict):
            raise self.unexpected("something that is not a record", Operation.GET, is_write=False)
        return self.record_from(obj, native)

    async def list_recent(self, obj: Object, *, since: str = "", cursor: str = "", limit: int = 50) -> Page:
        self.spec(obj, Operation.LIST)
        page = await self._page(Operation.LIST, obj, {"since": since} if since else {}, {}, cursor, limit)
        if since and self.manifest.objects[obj].updated_field:
            start = moment_text(since)
            page.records = [one for one in page.records if not one.updated_at or one.updated_at >= start]
        return page

    async def search_records(self, obj: Object, filter: Filter, cursor: str = "") -> Page:
        self.spec(obj, Operation.SEARCH)
        compiled = compiled_call(self.manifest, obj, Operation.SEARCH)
        if filter.text and not compiled.names("filter.text") and "filter" not in compiled.references:
            problem = "cannot be searched in this CRM; search by fields instead"
            raise self.invalid("Free text is not searchable.", "text", problem)
        names = _nested(filter.equals) | ({"text": filter.text} if filter.text else {})
        return await self._page(Operation.SEARCH, obj, names, filter.equals, cursor, filter.limit)

    async def _page(
        self,
        operation: Operation,
        obj: Object,
        names: Mapping[str, Any],
        equals: Mapping[str, Any],
        cursor: str,
        limit: int,
    ) -> Page:
        compiled = compiled_call(self.manifest, obj, operation)
        size = paging.page_size(self.manifest.paging, limit)
        params = paging.page_params(self.manifest.paging, cursor, size)
        scope: dict[str, Any] = {"filter": names, "limit": size, "object": obj.value}
        if cursor:
            scope["cursor"] = cursor
        request = self.request_for(operation, obj, scope)
        if equals and not compiled.names("filter"):
            request.query |= {path: _plain(value) for path, value in equals.items()}
        if not compiled.names("cursor"):
            request.query |= params
        if operation is not Operation.LIST:
            request.budget = BudgetKind.SEARCH.value
        response = await self.exchange(
            request, operation=operation.value, ok_statuses=compiled.call.ok_statuses
        )
        tree = self.tree_of(response, operation=operation.value)
        natives = self.records_in(operation, obj, tree)
        asked = paging.Asked(count=len(natives), cursor=cursor, limit=size, url=request.url)
        return Page(
            records=[self.record_from(obj, native) for native in natives],
            next_cursor=self.next_page(operation, obj, response, tree, asked),
        )

    async def lookup_customer(self, *, phone: str = "", email: str = "") -> list[Record]:
        self.spec(Object.CUSTOMER, Operation.LOOKUP)
        wanted = {"phone": phone, "email": email}
        found: dict[str, Record] = {}
        hits: dict[str, int] = {}
        async for record in self._looked_up({name: text for name, text in wanted.items() if text}):
            found.setdefault(record.remote_id, record)
            hits[record.remote_id] = hits.get(record.remote_id, 0) + 1
        return sorted(found.values(), key=lambda one: -hits[one.remote_id])[:LOOKUP_LIMIT]

    async def _looked_up(self, wanted: Mapping[str, str]) -> Any:
        is_declared = Operation.LOOKUP in self.manifest.objects[Object.CUSTOMER].calls
        for name, text in wanted.items():
            for path in self.lookup_paths()[name]:
                if is_declared:
                    page = await self._page(
                        Operation.LOOKUP, Object.CUSTOMER, {name: text}, {}, "", LOOKUP_LIMIT
                    )
                else:
                    filter = Filter(equals={path: text}, limit=LOOKUP_LIMIT)
                    page = await self.search_records(Object.CUSTOMER, filter)
                for record in page.records:
                    if self.is_same(path, text, get_path(record.native, path)):
                        yield record

    # -- writing -------------------------------------------------------------------------------------------

    async def create_record(self, write: Write) -> WriteResult:
        self.spec(write.object, Operation.CREATE)
        return await self._create(write, Operation.CREATE)

    async def _create(self, write: Write, operation: Operation) -> WriteResult:
        """One call; under ``key_sent`` it may be sent again: the provider drops a repeat of the same key."""
        spec = self.manifest.objects[write.object]
        try:
            response, tree, _ = await self._perform(operation, write.object, self._scope(write, operation))
            return self._written(write, operation, response, tree)
        except CrmError as error:
            if spec.idempotency.kind is IdempotencyKind.KEY_SENT and error.outcome is Outcome.UNKNOWN:
                error.retry_safe = True
            raise

    async def update_record(self, write: Write) -> WriteResult:
        self.spec(write.object, Operation.UPDATE)
        self.check_id(write.object, write.remote_id)
        scope = self._scope(write, Operation.UPDATE)
        await self._perform(Operation.UPDATE, write.object, scope)
        return self._applied(write, write.remote_id, was_created=False)

    async def upsert_record(self, write: Write) -> WriteResult:
        spec = self.spec(write.object, Operation.UPSERT)
        if not write.match:
            problem = "is empty; name the slots by which an existing record is found"
            raise self.invalid("An upsert needs a match.", "match", problem)
        if Operation.UPSERT in spec.calls:
            return await self._create(write, Operation.UPSERT)
        existing = await self.matching(write.object, write.match)
        if not existing:
            return await self.create_record(write)
        return await self.update_record(msgspec.structs.replace(write, remote_id=existing[0].remote_id))

    async def matching(self, obj: Object, match: Mapping[str, Any]) -> list[Record]:
        """The one record whose fields are really those of ``match``, or none.

        A provider that ignores an unknown filter answers everything, so each answer is compared. Raises
        Conflict for more than one.
        """
        found: list[Record] = []
        cursor = ""
        for _ in range(MATCH_PAGES):
            page = await self.search_records(obj, Filter(equals=dict(match), limit=50), cursor)
            found += [one for one in page.records if self._is_match(one, match)]
            cursor = page.next_cursor
            if len(found) > 1 or not cursor:
                break
        if len(found) > 1 or cursor:
            how_many = str(len(found)) if not cursor else "too many"
            raise self.ambiguous(found[0].remote_id if found else "", how_many)
        return found

    def _is_match(self, record: Record, match: Mapping[str, Any]) -> bool:
        return all(self.is_same(path, value, get_path(record.native, path)) for path, value in match.items())

    async def delete_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        return await self._remove(obj, remote_id, Operation.DELETE)

    async def erase_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        return await self._remove(obj, remote_id, Operation.ERASE)

    async def _remove(self, obj: Object, remote_id: str, operation: Operation) -> DeleteLevel:
        spec = self.spec(obj, operation)
        level = spec.delete_level if operation is Operation.DELETE else spec.erase_level
        if level is DeleteLevel.UNSUPPORTED:
            raise refuse(self.manifest, obj, operation)
        scope = {"id": self.check_id(obj, remote_id), "object": obj.value}
        request = self.request_for(operation, obj, scope)
        await self.exchange(
            request,
            operation=operation.value,
            is_write=True,
            ok_statuses=self.call(obj, operation).ok_statuses,
        )
        return level

    def _scope(self, write: Write, operation: Operation) -> dict[str, Any]:
        """The names of a write's templates, after checking that nothing of the write would be dropped."""
        if write.related:
            names = ", ".join(part.native_object for part in write.related)
            problem = f"is mapped to {names}, which this driver cannot write"
            raise self.invalid("The mapping names another object.", f"{write.object.value}.*", problem)
        spec = self.manifest.objects[write.object]
        compiled = compiled_call(self.manifest, write.object, operation)
        record = dict(write.fields)
        for name, remote_id in write.links.items():
            self.check_id(Object(name), remote_id)
            if path := spec.links.get(Object(name)):
                record = _with(record, path, remote_id)
            elif not compiled.names(f"links.{name}") and "links" not in compiled.references:
                problem = f"has no place on a {write.object.value} of this CRM"
                raise self.invalid("A link cannot be kept.", f"links.{name}", problem)
        if spec.idempotency.kind is IdempotencyKind.EXTERNAL_ID and operation is not Operation.UPDATE:
            record = _with(record, spec.idempotency.field, self.mark(write))
        return {
            "id": write.remote_id or msgspec.UNSET,
            "record": record,
            "match": _nested(write.match),
            "links": write.links,
            "key": self.mark(write),
            "object": write.object.value,
        }

    def _written(self, write: Write, operation: Operation, response: HttpResponse, tree: Any) -> WriteResult:
        spec = self.manifest.objects[write.object]
        native = self._result(operation, write.object, tree)
        expression = self.call(write.object, operation).id or spec.id_field
        remote_id = self.id_text(extract_with(expression)(native)) if native is not None else ""
        if not remote_id and response.header("location"):
            remote_id = self.id_text(unquote(urlsplit(response.header("location")).path.rpartition("/")[2]))
        if not remote_id:
            raise self.unexpected(
                f"a new {write.object.value} without {expression}", operation, is_write=True
            )
        was_created = True if operation is Operation.CREATE or response.status == 201 else None
        return self._applied(write, remote_id, was_created=was_created)

    def _applied(self, write: Write, remote_id: str, *, was_created: bool | None) -> WriteResult:
        return WriteResult(
            outcome=Outcome.APPLIED,
            remote_id=remote_id,
            url=self.record_url(write.object, remote_id),
            was_created=was_created,
        )

    # -- after an unknown outcome --------------------------------------------------------------------------

    async def find_written(self, write: Write) -> WriteResult:
        try:
            return await self._find(write)
        except CrmError as error:
            return WriteResult(outcome=Outcome.UNKNOWN, error=error)

    async def _find(self, write: Write) -> WriteResult:
        """By the declared means: the external id, else the natural keys plus the written values.

        A natural key alone does not prove that *this* write made the record, so all written values must be
        there too; a record with the key and other values stays ``unknown``. An update or upsert whose values
        are not there is ``not_applied``: sending it again changes nothing else.
        """
        if write.operation in (Operation.UPDATE, Operation.DELETE, Operation.ERASE):
            return await self._find_changed(write)
        spec = self.manifest.objects[write.object]
        if write.operation is Operation.UPSERT:
            return await self._find_by(write, write.match, missing=Outcome.NOT_APPLIED)
        if spec.idempotency.kind is IdempotencyKind.EXTERNAL_ID:
            found = await self.matching(write.object, {spec.idempotency.field: self.mark(write)})
            return self._found(found[0].remote_id if found else "", Outcome.NOT_APPLIED)
        if spec.idempotency.kind is IdempotencyKind.KEY_SENT:
            return WriteResult(outcome=Outcome.UNKNOWN)  # the provider drops a repeat of the same key
        keys = [spec.idempotency.field] if spec.idempotency.field else list(spec.natural_keys)
        match = {path: value for path in keys if (value := get_path(write.fields, path)) not in (None, "")}
        if spec.idempotency.kind is not IdempotencyKind.NATURAL_KEY or not match:
            return WriteResult(outcome=Outcome.UNKNOWN)
        return await self._find_by(write, match, missing=Outcome.UNKNOWN)

    async def _find_by(self, write: Write, match: Mapping[str, Any], missing: Outcome) -> WriteResult:
        """``missing``: the outcome when a record matches but does not hold the written values."""
        if not self.manifest.supports(write.object, Operation.SEARCH).is_usable or not match:
            return WriteResult(outcome=Outcome.UNKNOWN)
        try:
            found = await self.matching(write.object, match)
        except Conflict:
            return WriteResult(outcome=Outcome.UNKNOWN)
        if not found:
            return WriteResult(outcome=Outcome.NOT_APPLIED)
        if self.holds(found[0], write.fields, exact=write.operation is not Operation.CREATE):
            return self._found(found[0].remote_id, missing)
        return WriteResult(outcome=missing)

    async def _find_changed(self, write: Write) -> WriteResult:
        is_removal = write.operation is not Operation.UPDATE
        if not self.manifest.supports(write.object, Operation.GET).is_usable:
            return WriteResult(outcome=Outcome.UNKNOWN)
        try:
            record = await self.get_record(write.object, write.remote_id)
        except NotFound:
            return self._found(write.remote_id if is_removal else "", Outcome.NOT_APPLIED)
        is_done = record.is_archived if is_removal else self.holds(record, write.fields)
        return self._found(write.remote_id if is_done else "", Outcome.NOT_APPLIED)

    def holds(self, record: Record, fields: Mapping[str, Any], *, exact: bool = True) -> bool:
        """Whether the record has every written value, to the letter (a change of case alone is a change)
        unless not ``exact``: providers respell the e-mails and phones of what they create."""
        for path, value in _leaves(fields):
            wanted, found = _plain(value), _plain(get_path(record.native, path))
            if wanted != found and (exact or not self.is_same(path, wanted, found)):
                return False
        return True

    @staticmethod
    def _found(remote_id: str, otherwise: Outcome) -> WriteResult:
        outcome = Outcome.APPLIED if remote_id else otherwise
        return WriteResult(outcome=outcome, remote_id=remote_id)

    def preview(self, write: Write) -> Any:
        """The request as it would leave, without the credential."""
        operation = write.operation
        if operation is Operation.UPSERT and operation not in self.manifest.objects[write.object].calls:
            operation = Operation.UPDATE if write.remote_id else Operation.CREATE
        request = self.request_for(operation, write.object, self._scope(write, operation))
        shown: dict[str, Any] = {"method": request.method, "path": request.url}
        if request.query:
            shown["query"] = request.query
        if request.json is not msgspec.UNSET or request.form is not None:
            shown["body"] = request.form if request.json is msgspec.UNSET else request.json
        if write.match:
            shown["match"] = write.match
        return shown


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        put_path(tree, path, value)
    return tree


def _with(tree: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one value more; the given tree is left alone."""
    copy: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(tree)) if "." in path else dict(tree)
    try:
        put_path(copy, path, value)
    except ValueFault as fault:
        raise ValidationError("A field cannot be set.", fields=(FieldError(path, str(fault)),)) from None
    return copy


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        path = prefix + name.replace(".", "\\.")
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _plain(value: Any) -> Any:
    """A value as query parameters and comparisons have it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, Sequence):
        return ",".join(str(item) for item in value)
    return str(value)
