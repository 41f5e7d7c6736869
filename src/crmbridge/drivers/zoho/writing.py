"""Writer: creates, updates, upserts and deletes, 100 records a call, one outcome per write.

Pages: https://www.zoho.com/crm/developer/docs/api/v8/insert-records.html, .../update-records.html,
.../upsert-records.html, .../delete-records.html (read 2026-11-25). There is no transaction: each row has its own
answer, in the order of the request, whatever the status of the whole. A create carries our mark in a unique field, so
that a second one is refused with the id of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from crmbridge.core.errors import Conflict, CrmError, Fix
from crmbridge.core.operations import DeleteLevel, Operation, Outcome
from crmbridge.core.records import Object, Write, WriteResult
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.zoho.messages import ROW_STATUSES, row_error
from crmbridge.drivers.zoho.natives import API, NATIVES, Native, body_of, refused
from crmbridge.drivers.zoho.reading import Reader, same_value
from crmbridge.drivers.zoho.schema import fields_of, mark_of
from crmbridge.toolkit.batches import Results, applied, built, failed, match_parts, parts, rounds
from crmbridge.toolkit.names import note_title
from crmbridge.toolkit.writing import BatchWriter

__all__ = ["MOST_WRITES", "Writer"]

MOST_WRITES = 100
Bodies = Mapping[int, dict[str, Any]]


class Row(msgspec.Struct):
    """What became of one record."""

    status: str = ""
    code: str = ""
    message: str = ""
    details: Any = None
    action: str | None = None


class Answer(msgspec.Struct):
    """The answer of every write."""

    data: list[Row]


_ANSWER = msgspec.json.Decoder(Answer)


class Writer(BatchWriter):
    """Writes of one access; places are positions in the caller's list."""

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader.driver)
        self.reader = reader

    # -- what is sent --------------------------------------------------------------------------------------

    def mark_field(self, native: Native) -> str:
        """The field for it, empty where ``prepare`` could not make one."""
        return mark_of(self.driver.access.facts.get("marks", ""), native)

    def create_body(self, native: Native, write: Write, *, is_marked: bool = True) -> dict[str, Any]:
        """The fields of a new record, with what Zoho wants and nobody gave. Raises ValidationError."""
        body = self.change_body(native, write)
        for name, value in native.defaults.items():
            if body.get(name) in (None, ""):
                body[name] = value
        if native.name == "Deals" and body.get("Stage") in (None, ""):
            body["Stage"] = self.driver.access.facts.get("first_stage") or "Qualification"
        if native.name == "Notes" and not body.get("Note_Title"):
            body["Note_Title"] = note_title(write.fields.get("Note_Content"), write)
        if is_marked and (field := self.mark_field(native)):
            body[field] = self.mark(write)
        return body

    def change_body(self, native: Native, write: Write) -> dict[str, Any]:
        """The fields of a change. Raises ValidationError."""
        if write.related or write.links:
            self.check_parts(write, "module")
        return body_of(native, write)

    async def _checked(
        self, native: Native, operation: Operation, bodies: dict[int, dict[str, Any]]
    ) -> Results:
        """Takes out the bodies that Zoho would take and lose: it passes over fields that are not there, or read-only.

        Fields that were made after ``prepare`` are looked up once.
        """
        known = {name: one.is_read_only for name, one in self.reader.known(native).items()}
        if not known:
            return {}
        named = {name for name in set[str]().union(*bodies.values()) if not name.startswith("$")} - {"id"}
        if named - known.keys():
            try:
                fields = await fields_of(self.driver, native, operation.value)
            except CrmError as error:
                return {place: failed(error, bodies.pop(place).get("id", "")) for place in list(bodies)}
            known |= {one.api_name: one.is_read_only for one in fields}
        results: Results = {}
        for name in sorted(name for name in named if known.get(name, True)):
            why = (
                "is read-only"
                if name in known
                else f"is no field of {native.name}; make it in Zoho or map another"
            )
            for place in [place for place, body in bodies.items() if name in body]:
                results[place] = failed(refused(name, why), bodies.pop(place).get("id", ""))
        return results

    # -- create --------------------------------------------------------------------------------------------

    async def create(self, obj: Object, writes: Mapping[int, Write]) -> Results:
        """New records. A create that is refused because of our own mark had been done before."""
        native = NATIVES[obj]
        bodies, results = built(writes, partial(self.create_body, native))
        results |= await self._checked(native, Operation.CREATE, bodies)
        for places in parts(list(bodies), MOST_WRITES):
            some = {place: bodies[place] for place in places}
            results |= await self._send(native, Operation.CREATE, some)
        if field := self.mark_field(native):
            find = partial(self.reader.ids_by_mark, native, field, operation="create")
            for place, remote_id in (await self.made_before(writes, results, find, MOST_WRITES)).items():
                results[place] = self.applied(native, remote_id, was_created=True)
        return results

    # -- update --------------------------------------------------------------------------------------------

    async def update(self, obj: Object, writes: Mapping[int, Write]) -> Results:
        """Changes by id; two changes of one record go one after the other."""
        native = NATIVES[obj]

        def body(write: Write) -> dict[str, Any]:
            return {"id": self.driver.check_id(obj, write.remote_id), **self.change_body(native, write)}

        bodies, results = built(writes, body)
        results |= await self._checked(native, Operation.UPDATE, bodies)
        return results | await self._by_id(native, Operation.UPDATE, bodies)

    async def _by_id(self, native: Native, operation: Operation, bodies: Bodies) -> Results:
        """Changes or deletes, no record twice in a call."""
        results: Results = {}
        for turn in rounds({place: body["id"] for place, body in bodies.items()}):
            for places in parts(turn, MOST_WRITES):
                results |= await self._send(native, operation, {place: bodies[place] for place in places})
        return results

    # -- upsert --------------------------------------------------------------------------------------------

    async def upsert(self, obj: Object, writes: Mapping[int, Write]) -> Results:
        """A look for the match, so that several are refused; then Zoho's upsert by that field, which decides once more.

        Zoho's alternatives (several fields mean *or*, several matches change one of them) are not what a match says; so
        matches of several fields, and modules without an upsert, go on with changes by id and creates.
        """
        native = NATIVES[obj]
        results: Results = {}
        for some in match_parts(writes, MOST_WRITES):
            results |= await self._upsert_some(obj, native, some)
        return results

    async def _upsert_some(self, obj: Object, native: Native, writes: Mapping[int, Write]) -> Results:
        paths = tuple(next(iter(writes.values())).match)
        is_native = native.can_upsert and len(paths) == 1 and "." not in paths[0]
        is_unique = (
            paths[:1] and paths[0] in self.driver.access.facts.get(f"unique.{native.name}", "").split()
        )
        if is_native and is_unique and not native.defaults and native.name != "Deals":
            ids: dict[int, list[str]] = {place: [] for place in writes}
        else:
            try:
                ids = await self.reader.matching(native, writes)
            except CrmError as error:
                return {place: failed(error) for place in writes}
        results = {place: failed(self.too_many(found)) for place, found in ids.items() if len(found) > 1}
        by_key: dict[int, Write] = {}
        by_id: dict[int, Write] = {}
        new: dict[int, Write] = {}
        for place, found in ids.items():
            write = writes[place]
            if place in results:
                continue
            if is_native and self._keeps_key(native, paths[0], write):
                by_key[place] = write
            elif found:
                by_id[place] = msgspec.structs.replace(write, remote_id=found[0])
            else:
                new[place] = write
        results |= await self._by_key(native, paths, by_key, ids)
        return results | (await self.update(obj, by_id)) | (await self.create(obj, new))

    def _keeps_key(self, native: Native, path: str, write: Write) -> bool:
        """Whether the record will have the value that it is matched by: Zoho matches by what is written."""
        value = write.match[path]
        return same_value(self.reader.kind(native, path), value, write.fields.get(path, value))

    async def _by_key(
        self,
        native: Native,
        paths: tuple[str, ...],
        writes: Mapping[int, Write],
        ids: Mapping[int, list[str]],
    ) -> Results:
        """Without our mark: a change would put it in the place of the mark of the write that made the record."""
        results: Results = {}
        bodies: dict[int, dict[str, Any]] = {}
        for place, write in writes.items():
            try:
                body = (
                    self.change_body(native, write)
                    if ids[place]
                    else self.create_body(native, write, is_marked=False)
                )
                bodies[place] = {**body, paths[0]: write.match[paths[0]]}
            except CrmError as error:
                results[place] = failed(error)
        results |= await self._checked(native, Operation.UPSERT, bodies)
        if bodies:
            results |= await self._send(native, Operation.UPSERT, bodies, keys=paths)
        return results

    # -- delete --------------------------------------------------------------------------------------------

    async def delete(self, obj: Object, ids: Mapping[int, str]) -> Results:
        """Into the recycle bin, where records stay for 60 days."""
        native = NATIVES[obj]
        bodies, results = built(ids, lambda remote_id: {"id": self.driver.check_id(obj, remote_id)})
        return results | await self._by_id(native, Operation.DELETE, bodies)

    # -- calls ---------------------------------------------------------------------------------------------

    def request_of(
        self, native: Native, operation: Operation, bodies: Sequence[dict[str, Any]], keys: Sequence[str] = ()
    ) -> HttpRequest:
        """The request of up to 100 writes."""
        is_quiet = self.driver.access.settings.get("automations") == "skip"
        url = f"{API}/{native.name}"
        if operation is Operation.DELETE:
            query = {"ids": ",".join(body["id"] for body in bodies)}
            return HttpRequest(
                method="DELETE", url=url, query=query | ({"wf_trigger": "false"} if is_quiet else {})
            )
        tree: dict[str, Any] = {"data": list(bodies)}
        if is_quiet:
            tree["trigger"] = []
        if operation is Operation.UPSERT:
            tree["duplicate_check_fields"] = list(keys)
            return HttpRequest(method="POST", url=f"{url}/upsert", json=tree)
        return HttpRequest(method="PUT" if operation is Operation.UPDATE else "POST", url=url, json=tree)

    async def _send(
        self, native: Native, operation: Operation, bodies: Bodies, keys: Sequence[str] = ()
    ) -> Results:
        request = self.request_of(native, operation, list(bodies.values()), keys)
        try:
            response = await self.driver.exchange(
                request, operation=operation.value, is_write=True, ok_statuses=ROW_STATUSES
            )
            rows = self._rows(response, operation, len(bodies))
        except CrmError as error:
            return {place: failed(error, body.get("id", "")) for place, body in bodies.items()}
        if operation is Operation.CREATE and (ids := self._all_made(rows)):
            return applied(bodies, ids, self._page(native), was_created=True)
        said = HttpRequest(method="POST", url="", json=list(bodies.values()))
        hide = self.driver.redactor_for(said)  # rows may speak of each other
        return {
            place: self._result(native, operation, body, row, hide)
            for (place, body), row in zip(bodies.items(), rows, strict=True)
        }

    def _rows(self, response: HttpResponse, operation: Operation, count: int) -> list[Row]:
        try:
            rows = _ANSWER.decode(response.body).data
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            self.driver.tree_of(response, operation=operation.value, is_write=True)
            raise self.odd("something that is no answer to a write", operation) from None
        if len(rows) != count:
            raise self.odd("another number of results than of records", operation)
        return rows

    def _all_made(self, rows: Sequence[Row]) -> list[str]:
        """The ids of new records; none when a row is no plain success, which needs a closer look."""
        found = (
            one.details.get("id") for one in rows if one.status == "success" and type(one.details) is dict
        )
        ids = [remote_id for remote_id in found if type(remote_id) is str]
        return ids if len(ids) == len(rows) and self.are_ids(ids) else []

    def _result(
        self,
        native: Native,
        operation: Operation,
        body: Mapping[str, Any],
        row: Row,
        hide: Callable[[str], str],
    ) -> WriteResult:
        known = str(body.get("id", ""))
        details = row.details if isinstance(row.details, dict) else {}
        if row.status == "error" and row.code:
            return failed(self._refusal(native, operation, body, row, hide), known)
        remote_id = self.driver.id_text(details.get("id")) or known
        if row.status != "success" or not remote_id:
            return failed(self.odd("a row that says neither success nor error", operation), known)
        if known and remote_id != known:
            return failed(self.odd("a row of another record", operation), known)
        if operation is Operation.DELETE:
            return WriteResult(
                outcome=Outcome.APPLIED, remote_id=remote_id, delete_level=DeleteLevel.SOFT.value
            )
        was_created: bool | None = operation is Operation.CREATE
        if operation is Operation.UPSERT:
            was_created = {"insert": True, "update": False}.get(row.action or "")
        return self.applied(native, remote_id, was_created=was_created)

    def _refusal(
        self,
        native: Native,
        operation: Operation,
        body: Mapping[str, Any],
        row: Row,
        hide: Callable[[str], str],
    ) -> CrmError:
        """The error of a refused row, without what the records say."""
        problem = msgspec.to_builtins(row)
        error = row_error(problem, operation=operation.value, hide=hide, known_id=str(body.get("id", "")))
        module = error.provider_facts.get("existing_module", native.name)
        if isinstance(error, Conflict) and error.existing_remote_id and module != native.name:
            error.provider_facts["existing_record"] = error.existing_remote_id
            error.existing_remote_id = ""
            error.fix = Fix(
                "merge", f"The duplicate stands in {module}: update it there, or let Zoho convert it."
            )
        return error

    def applied(self, native: Native, remote_id: str, *, was_created: bool | None) -> WriteResult:
        """A success."""
        page = self._page(native)
        url = page + remote_id if page else ""
        return WriteResult(outcome=Outcome.APPLIED, remote_id=remote_id, url=url, was_created=was_created)

    def _page(self, native: Native) -> str:
        return self.driver.record_url(next(obj for obj, one in NATIVES.items() if one is native), "")
