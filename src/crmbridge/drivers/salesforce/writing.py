"""Writer: creates, updates, upserts and deletes, 200 records a call, one outcome per write.

Pages: REST API Developer Guide, "Execute Multiple Records" (sObject Collections), "sObject Rows by External ID"; read
2026-11-22. ``allOrNone`` is false: a bad row fails alone, in a 200. A create carries our mark in a unique field, so
that a second one is refused with the id of the first; it is an insert and no upsert, lest a late repeat overwrite what
people have changed since.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from crmbridge.core.errors import (
    Conflict,
    CrmError,
    NotFound,
    ValidationError,
)
from crmbridge.core.operations import DeleteLevel, Operation, Outcome
from crmbridge.core.records import Object, Write, WriteResult
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.salesforce import bulk, roles
from crmbridge.drivers.salesforce.messages import is_governor_limit, row_error
from crmbridge.drivers.salesforce.natives import (
    DATA,
    MARK,
    NATIVES,
    ROLE,
    Native,
    body_of,
    same_record,
)
from crmbridge.drivers.salesforce.reading import MOST_ROWS, Reader
from crmbridge.drivers.salesforce.soql import In, Select
from crmbridge.toolkit.batches import Results, applied, built, failed, match_parts, parts, rounds
from crmbridge.toolkit.names import note_title
from crmbridge.toolkit.writing import BatchWriter

__all__ = ["Writer"]

Bodies = Mapping[int, dict[str, Any]]


class Done(msgspec.Struct, gc=False):
    """One row of an answer, as a success has it."""

    id: str
    success: bool


_DONE = msgspec.json.Decoder(list[Done])


class Writer(BatchWriter):
    """Writes of one access; places are positions in the caller's list."""

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader.driver)
        self.reader = reader
        facts = reader.access.facts
        self.marked = frozenset(facts.get("marks", "").split())
        page = facts.get("instance_url", "").rstrip("/")
        self._page = f"{page}/" if page else ""
        self.unique = frozenset(facts.get("unique_marks", "").split())

    # -- what is sent --------------------------------------------------------------------------------------

    def create_body(self, native: Native, write: Write) -> dict[str, Any]:
        """The fields of a new record. Raises ValidationError."""
        if write.related or write.links:
            self._check_parts(write)
        body, name = body_of(native, write), native.name
        if name == "Opportunity" and not body.get("StageName"):
            body["StageName"] = self.driver.access.facts.get("first_stage") or "Prospecting"
        if name == "Note" and not body.get("Title"):
            body["Title"] = note_title(write.fields.get("Body"), write)
        if name in self.marked:
            body[MARK] = self.mark(write)
        return body

    def _body(self, native: Native, write: Write) -> dict[str, Any]:
        self._check_parts(write)
        return body_of(native, write)

    def _check_parts(self, write: Write) -> None:
        self.check_parts(write, "object")
        for name, remote_id in write.links.items():
            same_record(NATIVES[Object(name)], Object(name), remote_id)

    def check(self, obj: Object, remote_id: str) -> str:
        """A valid id of this object. Raises ValidationError, NotFound."""
        return same_record(NATIVES[obj], obj, self.driver.check_id(obj, remote_id))

    # -- create --------------------------------------------------------------------------------------------

    async def create(self, obj: Object, writes: Mapping[int, Write]) -> Results:
        """New records. A create that is refused because of our own mark had been done before."""
        native = NATIVES[obj]
        bodies, results = built(writes, partial(self.create_body, native))
        results |= await self._insert(native, bodies)
        await self._find_own(native, writes, results)
        return await self._add_roles(native, writes, results)

    async def _insert(self, native: Native, bodies: Bodies) -> Results:
        results: Results = {}
        if len(bodies) > bulk.THRESHOLD and native.name in self.unique:
            results, bodies = await bulk.load(self, native, "insert", bodies, key=MARK)
        for places in parts(list(bodies), MOST_ROWS):
            some = {place: bodies[place] for place in places}
            results |= await self._send(native, Operation.CREATE, some)
        return results

    async def _find_own(self, native: Native, writes: Mapping[int, Write], results: Results) -> None:
        conflicts = {place: one.error for place, one in results.items() if isinstance(one.error, Conflict)}
        if conflicts and native.name in self.marked:
            find = partial(self.ids_by_mark, native, operation="create")
            for place, remote_id in (await self.made_before(writes, results, find, MOST_ROWS)).items():
                results[place] = self.applied(remote_id, was_created=True)
        for error in conflicts.values():
            _explain_conflict(native, error)

    async def ids_by_mark(self, native: Native, marks: Sequence[str], operation: str) -> dict[str, str]:
        """Ids by mark; records in the recycle bin too: their write was applied, whatever became of it."""
        where = In(MARK, tuple(marks))
        select = Select(sobject=native.name, fields=("Id", MARK), where=where, limit=2_000)
        rows = await self.reader.query(select, operation, with_deleted=True)
        found = ((row.get(MARK), self.driver.id_text(row.get("Id"))) for row in rows)
        return {mark: remote_id for mark, remote_id in found if isinstance(mark, str) and remote_id}

    # -- update --------------------------------------------------------------------------------------------

    async def update(self, obj: Object, writes: Mapping[int, Write]) -> Results:
        """Changes by id; two changes of one record go one after the other."""
        native = NATIVES[obj]

        def body(write: Write) -> dict[str, Any]:
            return {"id": self.check(obj, write.remote_id), **self._body(native, write)}

        bodies, results = built(writes, body)
        results |= await self._by_id(native, Operation.UPDATE, bodies)
        return await self._add_roles(native, writes, results)

    async def _by_id(self, native: Native, operation: Operation, bodies: Bodies) -> Results:
        """Changes or deletes, no record twice in a call."""
        results: Results = {}
        for turn in rounds({place: body["id"][:15] for place, body in bodies.items()}):
            some: Bodies = {place: bodies[place] for place in turn}
            if len(some) > bulk.THRESHOLD:
                done, some = await bulk.load(self, native, operation.value, some, key="Id")
                results |= done
            for places in parts(list(some), MOST_ROWS):
                results |= await self._send(native, operation, {place: some[place] for place in places})
        return results

    async def _add_roles(self, native: Native, writes: Mapping[int, Write], results: Results) -> Results:
        if ROLE in native.links.values():
            await roles.add(self, writes, results)
        return results

    # -- upsert --------------------------------------------------------------------------------------------

    async def upsert(self, obj: Object, writes: Mapping[int, Write]) -> Results:
        """By a unique External Id field in one call; by other fields a query, then updates and creates."""
        native = NATIVES[obj]
        results: Results = {}
        keys = self.driver.access.facts.get(f"keys.{native.name}", "").split()
        for some in match_parts(writes, MOST_ROWS):
            paths = list(next(iter(some.values())).match)
            if len(paths) == 1 and paths[0] in keys:
                results |= await self._upsert_by_key(native, paths[0], some)
            else:
                results |= await self._upsert_by_query(obj, native, some)
        return results

    async def _upsert_by_key(self, native: Native, key: str, writes: Mapping[int, Write]) -> Results:
        def body(write: Write) -> dict[str, Any]:
            if write.match[key] in (None, ""):
                raise ValidationError("The match of this upsert is empty.", provider="salesforce")
            return {**self._body(native, write), key: write.match[key]}

        bodies, results = built(writes, body)
        if bodies:
            url = f"{DATA}/composite/sobjects/{native.name}/{key}"
            results |= await self._collection(native, Operation.UPSERT, "PATCH", url, bodies)
        # Two upserts of one new key at the same time: the loser is refused, and sent again becomes an update.
        if beaten := {place: body for place, body in bodies.items() if _is_clash(results[place].error)}:
            results |= await self._collection(native, Operation.UPSERT, "PATCH", url, beaten)
        for result in results.values():
            _explain_conflict(native, result.error)
        return await self._add_roles(native, writes, results)

    async def _upsert_by_query(self, obj: Object, native: Native, writes: Mapping[int, Write]) -> Results:
        try:
            ids = await self.reader.matching(native, writes)
        except CrmError as error:
            return {place: failed(error) for place in writes}
        results: Results = {}
        for place, found in ids.items():
            if len(found) > 1:
                results[place] = failed(self.too_many(found))
        old = {
            place: msgspec.structs.replace(writes[place], remote_id=found[0])
            for place, found in ids.items()
            if len(found) == 1
        }
        new = {place: writes[place] for place, found in ids.items() if not found}
        results |= (await self.update(obj, old)) | (await self.create(obj, new))
        beaten = {place: new[place] for place in new if isinstance(results[place].error, Conflict)}
        if beaten:  # somebody else was faster, unless another record is in the way
            try:
                ids = await self.reader.matching(native, beaten)
            except CrmError:
                return results
            late = {
                place: msgspec.structs.replace(one, remote_id=ids[place][0])
                for place, one in beaten.items()
                if len(ids[place]) == 1
            }
            results |= await self.update(obj, late)
        return results

    # -- delete --------------------------------------------------------------------------------------------

    async def delete(self, obj: Object, ids: Mapping[int, str]) -> Results:
        """Into the recycle bin, where records stay for 15 days."""
        bodies, results = built(ids, lambda remote_id: {"id": self.check(obj, remote_id)})
        results |= await self._by_id(NATIVES[obj], Operation.DELETE, bodies)
        for result in results.values():
            if result.error is None:
                result.delete_level, result.was_created = DeleteLevel.SOFT.value, None
        return results

    # -- calls ---------------------------------------------------------------------------------------------

    async def _send(self, native: Native, operation: Operation, bodies: Bodies) -> Results:
        if len(bodies) == 1:
            return await self._one(native, operation, bodies)
        if operation is Operation.DELETE:
            return await self._delete_all(native, bodies)
        method = "POST" if operation is Operation.CREATE else "PATCH"
        return await self._collection(native, operation, method, f"{DATA}/composite/sobjects", bodies)

    def request_of_one(self, native: Native, operation: Operation, body: Mapping[str, Any]) -> HttpRequest:
        """The request of a single write. The body's ``id`` goes into the path."""
        url = f"{DATA}/sobjects/{native.name}"
        fields = {name: value for name, value in body.items() if name != "id"}
        if operation is Operation.CREATE:
            return HttpRequest(method="POST", url=url, json=fields, headers=self._headers())
        if operation is Operation.DELETE:
            return HttpRequest(method="DELETE", url=f"{url}/{body['id']}")
        return HttpRequest(method="PATCH", url=f"{url}/{body['id']}", json=fields, headers=self._headers())

    def _headers(self) -> dict[str, str]:
        """``client`` comes back in change events; the other lets alert rules (never block rules) pass."""
        headers = {"Sforce-Call-Options": "client=crmbridge"}
        if self.driver.access.settings.get("duplicate_alerts") == "save":
            headers["Sforce-Duplicate-Rule-Header"] = "allowSave=true"
        return headers

    async def _one(self, native: Native, operation: Operation, bodies: Bodies) -> Results:
        ((place, body),) = bodies.items()
        try:
            request = self.request_of_one(native, operation, body)
            response = await self.driver.exchange(request, operation=operation.value, is_write=True)
            if operation is not Operation.CREATE:
                if response.status != 204:
                    raise self.odd("an update or delete with a body", operation)
                return {place: self.applied(body["id"], was_created=False)}
            tree = self.driver.tree_of(response, operation=operation.value, is_write=True)
            return {place: self._row(operation, body, tree, response, self._hide_all(bodies))}
        except CrmError as error:
            return {place: failed(error, body.get("id", ""))}

    async def _collection(
        self, native: Native, operation: Operation, method: str, url: str, bodies: Bodies
    ) -> Results:
        kind = msgspec.Raw(b'{"type":"%s"}' % native.name.encode())
        for body in bodies.values():
            body["attributes"] = kind
        tree = {"allOrNone": False, "records": list(bodies.values())}
        request = HttpRequest(method=method, url=url, json=tree, headers=self._headers())
        return await self._batch(native, operation, request, bodies, again=(method, url))

    async def _delete_all(self, native: Native, bodies: Bodies) -> Results:
        ids = ",".join(body["id"] for body in bodies.values())
        query = {"ids": ids, "allOrNone": "false"}
        request = HttpRequest(method="DELETE", url=f"{DATA}/composite/sobjects", query=query)
        return await self._batch(native, Operation.DELETE, request, bodies)

    async def _batch(
        self,
        native: Native,
        operation: Operation,
        request: HttpRequest,
        bodies: Bodies,
        again: tuple[str, str] | None = None,
    ) -> Results:
        try:
            response = await self.driver.exchange(request, operation=operation.value, is_write=True)
            if operation is not Operation.UPSERT and (ids := self._all_done(response, len(bodies))):
                return applied(bodies, ids, self._page, was_created=operation is Operation.CREATE)
            tree = self.driver.tree_of(response, operation=operation.value, is_write=True)
            if not isinstance(tree, list) or len(tree) != len(bodies):
                raise self.odd("another number of results than of records", operation)
        except ValidationError as error:
            # One record can spoil the entire request: a column that is not there.
            if again is None or len(bodies) == 1:
                return {place: failed(error, body.get("id", "")) for place, body in bodies.items()}
            return await self._halves(native, operation, again, bodies)
        except CrmError as error:
            return {place: failed(error, body.get("id", "")) for place, body in bodies.items()}
        hide = self._hide_all(bodies)
        results = {
            place: self._row(operation, body, row, response, hide)
            for (place, body), row in zip(bodies.items(), tree, strict=True)
        }
        # All rows are one Apex transaction: a limit that one slow trigger reaches fails them all.
        spoilt = {place: bodies[place] for place, one in results.items() if is_governor_limit(one.error)}
        if again is not None and spoilt and len(bodies) > 1:
            results |= await self._halves(native, operation, again, spoilt)
        return results

    async def _halves(
        self, native: Native, operation: Operation, again: tuple[str, str], bodies: Bodies
    ) -> Results:
        results: Results = {}
        for places in parts(list(bodies), max(1, (len(bodies) + 1) // 2)):
            some = {place: bodies[place] for place in places}
            results |= await self._collection(native, operation, *again, some)
        return results

    # -- results -------------------------------------------------------------------------------------------

    def _all_done(self, response: HttpResponse, count: int) -> list[str]:
        """The ids of all rows; none when one of them is no plain success, which needs a closer look."""
        try:
            ids = [row.id for row in _DONE.decode(response.body) if row.success]
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return []
        return ids if len(ids) == count and self.are_ids(ids) else []

    def _hide_all(self, bodies: Bodies) -> Callable[[str], str]:
        """Hides what any record of a call says."""
        return self.driver.redactor_for(HttpRequest(method="POST", url="", json=list(bodies.values())))

    def _row(
        self,
        operation: Operation,
        body: Mapping[str, Any],
        row: Any,
        response: HttpResponse,
        hide: Callable[[str], str],
    ) -> WriteResult:
        known = body.get("id", "")
        if isinstance(row, dict) and row.get("success") is True:
            remote_id = self.driver.id_text(row.get("id")) or known
            if not remote_id:
                return failed(self.odd("a written record without an id", operation))
            created = row.get("created")
            if operation is not Operation.UPSERT or not isinstance(created, bool):
                created = operation is Operation.CREATE if operation is not Operation.UPSERT else None
            return self.applied(remote_id, was_created=created)
        if isinstance(row, dict) and row.get("success") is False:
            return failed(self.refusal(operation, body, row.get("errors"), hide, response), known)
        return failed(self.odd("something that is no result of a record", operation), known)

    def refusal(
        self,
        operation: Operation,
        body: Mapping[str, Any],
        problems: Any,
        hide: Callable[[str], str],
        response: HttpResponse | None = None,
    ) -> CrmError:
        """The error of a refused row, without what the records say."""
        error = row_error(problems, operation=operation.value, hide=hide, response=response)
        is_own_id = not any(name != "id" and name.endswith(("Id", "__c")) for name in body)
        if body.get("id") and is_own_id and error.provider_facts.get("provider_code") in _NO_SUCH_ID:
            return NotFound(
                "The record is not there, or deleted already.",
                provider="salesforce",
                operation=operation.value,
                provider_facts=error.provider_facts,
            )
        return error

    def untold(self, row: Any, hide: Callable[[str], str]) -> CrmError:
        """The error of a companion's row that was not a success."""
        if isinstance(row, dict) and row.get("success") is False:
            return row_error(row.get("errors"), operation="create", hide=hide)
        return self.odd("something that is no result of a record", Operation.CREATE)

    def applied(self, remote_id: str, *, was_created: bool | None) -> WriteResult:
        """A success."""
        url = self._page + remote_id if self._page else ""
        return WriteResult(outcome=Outcome.APPLIED, remote_id=remote_id, url=url, was_created=was_created)


# Of an update or delete by id: the id itself names nothing.
_NO_SUCH_ID = frozenset({"INVALID_CROSS_REFERENCE_KEY", "MALFORMED_ID", "INVALID_ID_FIELD"})


def _explain_conflict(native: Native, error: Exception | None) -> None:
    """Duplicate rules cross objects: a lead may be refused because of a contact, whose id is no lead's."""
    if isinstance(error, Conflict) and not error.existing_remote_id.startswith(native.prefix):
        error.provider_facts["existing_record"] = error.existing_remote_id
        error.existing_remote_id = ""


def _is_clash(error: Exception | None) -> bool:
    return isinstance(error, Conflict) and error.provider_facts.get("provider_code") == "DUPLICATE_VALUE"
