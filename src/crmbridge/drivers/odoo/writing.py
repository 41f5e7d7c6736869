"""Writer: creates, updates and upserts as rows for ``load``; deletes as ``unlink``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crmbridge.core.driver import Access
from crmbridge.core.errors import AuthError, Conflict, CrmError, FieldError, NotFound, ValidationError
from crmbridge.core.operations import DeleteLevel, Operation, Outcome
from crmbridge.core.records import Object, Write, WriteResult
from crmbridge.drivers.odoo import cells, domains, messages, schema
from crmbridge.drivers.odoo.loading import Loader
from crmbridge.drivers.odoo.reading import Reader, odd
from crmbridge.toolkit.batches import applied, failed, match_key, rounds

__all__ = ["Writer"]

_MESSAGES = frozenset({Object.NOTE, Object.ACTIVITY})
# Objects whose new records need more than their fields as cells.
_NEVER_PLAIN = _MESSAGES | {Object.APPOINTMENT}
_APPOINTMENT, _UPDATE = Object.APPOINTMENT, Operation.UPDATE
_DELETES = (Operation.DELETE, Operation.ERASE)


class Writer:
    """Writes of one object and one operation at a time. Each write's own fault stays its own."""

    def __init__(self, reader: Reader, access: Access) -> None:
        self.reader = reader
        self.rpc = reader.rpc
        self.access = access

    def model(self, obj: Object) -> str:
        """Odoo's name of the object."""
        return self.reader.manifest.objects[obj].native

    async def write(self, writes: Sequence[Write]) -> list[WriteResult]:
        """One result per write, in order. Two writes to one record go in two rounds."""
        if sheets := self._text_sheets(writes):
            loader = Loader(self.rpc, Operation.CREATE.value)
            results = await self._load(loader, writes, writes[0].object, sheets, is_new=True)
        else:
            results = {}
            for places in _rounds(writes):
                results |= await self._write_round({place: writes[place] for place in places})
        return [results[place] for place in range(len(writes))]

    def _text_sheets(self, writes: Sequence[Write]) -> list[cells.Sheet] | None:
        """The short way of many creates, where nothing need be looked up before; None where there is none."""
        first = writes[0]
        if first.operation is not Operation.CREATE or first.object in _NEVER_PLAIN or not self.rpc.version:
            return None
        if len({write.target_id for write in writes}) < len(writes):
            return None
        return cells.text_sheets(first.object, self.model(first.object), writes, self.access.mark_prefix)

    async def _write_round(self, writes: dict[int, Write]) -> dict[int, WriteResult]:
        first = next(iter(writes.values()))
        loader = Loader(self.rpc, first.operation.value)
        results: dict[int, WriteResult] = {}
        try:
            await self.rpc.learn_version()
            ids: dict[int, str] = {}
            if first.operation is Operation.UPSERT:
                ids = await self._matching(first.object, writes, results)
            opened = [cells.opened(write.fields) for write in writes.values()]
            given = zip(writes, opened, strict=True)
            named = [paths for place, (paths, is_text) in given if not is_text and place not in results]
            tags = await loader.tags(named) if named else {}
        except CrmError as error:
            return {place: failed(error, write.remote_id) for place, write in writes.items()}
        rows: list[cells.Row] = []
        for (place, write), (paths, is_text) in zip(writes.items(), opened, strict=True):
            if place in results:
                continue
            try:
                remote_id = ids[place] if ids else write.remote_id
                rows.append(self.row(write, place, paths, is_text, tags, remote_id))
            except CrmError as error:
                results[place] = failed(error, write.remote_id)
        for is_new in (True, False):
            if some := [row for row in rows if row.was_created is is_new]:
                sheets = cells.sheets(self.model(first.object), some, fill=is_new)
                old_ids = {} if is_new else {row.place: row.remote_id for row in some}
                results |= await self._load(
                    loader, writes, first.object, sheets, is_new=is_new, old_ids=old_ids
                )
        return results

    async def _load(
        self,
        loader: Loader,
        writes: Mapping[int, Write] | Sequence[Write],
        obj: Object,
        sheets: Iterable[cells.Sheet],
        *,
        is_new: bool,
        old_ids: Mapping[int, str] | None = None,
    ) -> dict[int, WriteResult]:
        """Results by the places of writes; ``old_ids`` are those of the records that are there already."""
        loaded, errors = await loader.load(self.model(obj), sheets)
        results: dict[int, WriteResult] = {}
        for place, error in errors.items():
            found = await self._settled(writes[place], error) if is_new else error
            if isinstance(found, str):
                loaded[place] = found
            else:
                results[place] = failed(found, old_ids[place] if old_ids else "")
        was_created = None if loader.purpose == _UPDATE else is_new
        page = self.reader.url_prefix(obj)
        return results | applied(loaded, loaded.values(), page, was_created=was_created)

    def row(
        self,
        write: Write,
        place: int,
        paths: dict[str, Any],
        is_text: bool,
        tags: Mapping[tuple[str, str], int | str],
        remote_id: str,
    ) -> cells.Row:
        """The row of one write; ``remote_id`` empty means a new record. ``is_text``: ``paths`` become its cells.

        Raises ValidationError.
        """
        obj = write.object
        is_new = not remote_id and write.operation is not _UPDATE
        if obj in _MESSAGES and is_new:
            paths, is_text = messages.message_columns(write, paths), False
        if obj is _APPOINTMENT and self.rpc.major < schema.NOTES_FROM and "notes" in paths:
            paths["description"] = paths.pop("notes")
        row = paths if is_text else cells.row_cells(paths, tags)
        for linked, remote in write.links.items() if write.links else ():
            column = cells.LINKS.get((obj, Object(linked)))
            if column:
                row.setdefault(column, str(domains.number(remote, write.operation.value, f"links.{linked}")))
        if is_new:
            cells.complete(obj, row)
            row["id"] = cells.mark_text(self.access.mark_prefix, write.target_id)
        else:
            row[".id"] = str(domains.number(remote_id, write.operation.value))
        return cells.Row(place=place, cells=row, remote_id=remote_id, was_created=is_new)

    def planned(self, write: Write) -> dict[str, str]:
        """The row of a write before anything is looked up: names stand where tags will be ids."""
        paths = cells.flat(write.fields)
        fields = {path.partition(".")[0]: cells.names_in(value) for path, value in paths.items()}
        names = {(field, name): name for field, found in fields.items() for name in found}
        return self.row(write, 0, paths, False, names, write.remote_id).cells

    async def _settled(self, write: Write, error: CrmError) -> CrmError | str:
        """A new message that is there already refuses a second load: then it was written before, and has this id."""
        if not (write.object in _MESSAGES and isinstance(error, ValidationError)):
            return error
        try:
            found = await self.find_mark(write)
        except CrmError as failure:
            return failure
        return found.remote_id if found.outcome is Outcome.APPLIED else error

    # -- upsert -------------------------------------------------------------------------------------------

    async def _matching(
        self, obj: Object, writes: dict[int, Write], results: dict[int, WriteResult]
    ) -> dict[int, str]:
        """The id of the one record that each upsert matches, empty for none; more than one is a conflict."""
        found: dict[int, list[int]] = {}
        by_email = {
            place: write for place, write in writes.items() if list(write.match)[:1] == _email_path(write)
        }
        if len(by_email) > 1:
            found = await self._matching_email(obj, by_email)
        for place, write in writes.items():
            if not any(write.match.values()):
                problem = "needs at least one slot with a value to match by"
                results[place] = failed(
                    ValidationError(
                        f"match {problem}.",
                        provider="odoo",
                        operation="upsert",
                        fields=(FieldError("match", problem),),
                    )
                )
            elif place not in found:
                domain = domains.matching(obj, write.match)
                found[place] = await self.reader.ids(obj, domain, 2, purpose="upsert")
        for place, ids in found.items():
            if len(ids) > 1:
                text = "More than one record matches; name one by its id, or merge them in Odoo."
                results[place] = failed(
                    Conflict(text, provider="odoo", operation="upsert", existing_remote_id=str(ids[0]))
                )
        return {place: str(ids[0]) if ids else "" for place, ids in found.items()}

    async def _matching_email(self, obj: Object, writes: dict[int, Write]) -> dict[int, list[int]]:
        """One search for a whole batch, since most upserts match by e-mail."""
        wanted = {
            place: str(next(iter(write.match.values()))).strip().lower() for place, write in writes.items()
        }
        rows = await self.rpc.call(
            self.model(obj),
            "search_read",
            purpose="upsert",
            domain=[*domains.kind_of(obj), ["email_normalized", "in", sorted(set(wanted.values()))]],
            fields=["email_normalized"],
            order="id",
        )
        ids: dict[str, list[int]] = {}
        for row in rows:
            ids.setdefault(row["email_normalized"], []).append(row["id"])
        return {place: ids.get(email, []) for place, email in wanted.items()}

    # -- delete -------------------------------------------------------------------------------------------

    async def delete_one(self, obj: Object, remote_id: str, operation: Operation) -> DeleteLevel:
        """``unlink``; where Odoo refuses it (references, no right) an ordinary delete archives instead."""
        model, purpose = self.model(obj), operation.value
        ids = [domains.number(remote_id, purpose)]
        if obj in _MESSAGES and not await self._there(obj, ids, purpose):
            raise NotFound("The message is not there, or no longer.", provider="odoo", operation=purpose)
        try:
            await self.rpc.call(model, "unlink", purpose=purpose, ids=ids, is_write=True)
        except (ValidationError, AuthError) as refusal:
            can_archive = operation is Operation.DELETE and obj not in _MESSAGES
            if not can_archive or refusal.subcode not in ("", "insufficient_scope"):
                raise
            values = {"active": False}
            await self.rpc.call(model, "write", purpose=purpose, ids=ids, is_write=True, vals=values)
            return DeleteLevel.SOFT
        return DeleteLevel.HARD

    async def _there(self, obj: Object, ids: list[int], purpose: str) -> bool:
        """Whether all are there; unlink says nothing about messages that are not."""
        there = await self.reader.ids(obj, [["id", "in", ids]], len(ids), purpose=purpose, archived=True)
        return len(there) == len(ids)

    async def delete_all(self, writes: Sequence[Write]) -> list[WriteResult] | None:
        """One ``unlink`` for all; None when Odoo refused it, for it is all or nothing: then go one by one."""
        operation = writes[0].operation
        try:
            ids = sorted({domains.number(write.remote_id, operation.value) for write in writes})
            if writes[0].object in _MESSAGES and not await self._there(
                writes[0].object, ids, operation.value
            ):
                return None
            await self.rpc.call(
                self.model(writes[0].object), "unlink", purpose=operation.value, ids=ids, is_write=True
            )
        except (ValidationError, NotFound):
            return None
        except CrmError as error:
            if error.subcode == "insufficient_scope":
                return None
            return [failed(error, write.remote_id) for write in writes]
        return [_deleted(write) for write in writes]

    # -- after an unknown outcome -------------------------------------------------------------------------

    async def find(self, write: Write) -> WriteResult:
        """By our external id for what was created, by comparing the record for the rest."""
        if write.operation in _DELETES:
            number = domains.number(write.remote_id, write.operation.value)
            left = await self.reader.ids(write.object, [["id", "=", number]], 1, purpose="get", archived=True)
            return (
                WriteResult(outcome=Outcome.NOT_APPLIED, remote_id=write.remote_id)
                if left
                else _deleted(write)
            )
        if write.operation is not Operation.UPDATE:
            found = await self.find_mark(write)
            if found.outcome is not Outcome.NOT_APPLIED or write.operation is Operation.CREATE:
                return found
            domain = domains.matching(write.object, write.match)
        else:
            domain = [["id", "=", domains.number(write.remote_id, "update")]]
        is_update = write.operation is Operation.UPDATE
        records = await self.reader.read(write.object, domain, "id", 2, purpose="get", archived=is_update)
        if len(records) != 1:
            return WriteResult(outcome=Outcome.NOT_APPLIED)
        native = cells.flat(records[0].native)
        holds = all(cells.says(native.get(path), value) for path, value in cells.flat(write.fields).items())
        return WriteResult(
            outcome=Outcome.APPLIED if holds else Outcome.NOT_APPLIED,
            remote_id=records[0].remote_id,
            url=records[0].url,
            was_created=None if is_update or not holds else False,
        )

    async def find_mark(self, write: Write) -> WriteResult:
        """Reads our external id back; writes nothing and needs no right on Odoo's table of ids."""
        module, name = cells.mark(self.access.mark_prefix, write.target_id)
        try:
            answer = await self.rpc.call(
                "ir.model.data",
                "check_object_reference",
                purpose="search",
                context={"active_test": False},
                module=module,
                xml_id=name,
            )
        except ValidationError:
            return WriteResult(outcome=Outcome.NOT_APPLIED)
        if not isinstance(answer, list) or len(answer) != 2:
            raise odd("search")
        if not answer[1]:
            return WriteResult(outcome=Outcome.UNKNOWN)  # it is there, but out of this user's sight
        remote_id = str(answer[1])
        url = self.reader.record_url(write.object, remote_id)
        return WriteResult(outcome=Outcome.APPLIED, remote_id=remote_id, url=url, was_created=True)


def _deleted(write: Write) -> WriteResult:
    return WriteResult(
        outcome=Outcome.APPLIED, remote_id=write.remote_id, delete_level=DeleteLevel.HARD.value
    )


def _email_path(write: Write) -> list[str]:
    """The match path when it is one e-mail with a value, else a list that equals none."""
    path, value = next(iter(write.match.items()), ("", None))
    return [path] if len(write.match) == 1 and path in domains.NORMALISED and value else [""]


def _rounds(writes: Sequence[Write]) -> list[list[int]]:
    """Places, so that no round holds two writes to the same record, and order per record is kept."""
    if writes[0].operation is Operation.UPSERT:
        return rounds({place: match_key(one) for place, one in enumerate(writes)})
    return rounds({place: one.remote_id or one.target_id for place, one in enumerate(writes)})
