"""Finder: what became of a write whose answer was lost, and what a write would send."""

from __future__ import annotations

from typing import Any

from crmbridge.core.errors import CrmError, Fix, NotConfigured, NotFound
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Write, WriteResult
from crmbridge.drivers.zoho.coql import Kind
from crmbridge.drivers.zoho.natives import MARK_LABEL, NATIVES, Native, note_title, read_values, title_mark
from crmbridge.drivers.zoho.reading import same_value
from crmbridge.drivers.zoho.writing import Writer

__all__ = ["Finder"]


class Finder:
    """Looks, never sends."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.reader = writer.reader

    async def find(self, write: Write) -> WriteResult:
        """By the mark (a note: by its title, among the notes of its record). An upsert sets absolute values, so that
        sending it again is harmless; a create without a mark stays ``unknown``."""
        native = NATIVES[write.object]
        try:
            if write.operation in (Operation.UPDATE, Operation.DELETE, Operation.ERASE):
                return await self._changed(native, write)
            found = await self._made(native, write)
        except CrmError as error:
            return WriteResult(outcome=Outcome.UNKNOWN, error=error)
        if found.outcome is Outcome.UNKNOWN and write.operation is Operation.UPSERT:
            return WriteResult(outcome=Outcome.NOT_APPLIED)
        return found

    async def _made(self, native: Native, write: Write) -> WriteResult:
        field = self.writer.mark_field(native)
        remote_id: str | None = None
        if native.name == "Notes":
            body = self.writer.create_body(native, write)
            if body["Note_Title"] == note_title(write):
                remote_id = await self.reader.note_by_title(body["Parent_Id"], title_mark(write))
        elif field:
            mark = self.writer.mark(write)
            remote_id = (await self.reader.ids_by_mark(native, field, [mark], "search")).get(mark, "")
        else:
            return WriteResult(outcome=Outcome.UNKNOWN, error=_unmarked(native))
        if remote_id:
            return self.writer.applied(native, remote_id, was_created=True)
        return WriteResult(outcome=Outcome.UNKNOWN if remote_id is None else Outcome.NOT_APPLIED)

    async def _changed(self, native: Native, write: Write) -> WriteResult:
        is_update = write.operation is Operation.UPDATE
        try:
            record = await self.reader.get(write.object, write.remote_id)
        except NotFound:
            # Whether an erased record has left the recycle bin too cannot be seen here: erasing it again tells.
            is_gone = write.operation is Operation.DELETE
            outcome = Outcome.APPLIED if is_gone else Outcome.NOT_APPLIED
            return WriteResult(outcome=outcome, remote_id=write.remote_id)
        is_done = is_update and self._holds(native, write, record.native)
        outcome = Outcome.APPLIED if is_done else Outcome.NOT_APPLIED
        return WriteResult(outcome=outcome, remote_id=write.remote_id, url=record.url)

    def _holds(self, native: Native, write: Write, found: dict[str, Any]) -> bool:
        """Whether the record has every written value; a change of case alone is a change."""
        wanted = self.writer.change_body(native, write)
        wanted = {name: value for name, value in wanted.items() if not name.startswith("$")}
        for name, value in {**dict.fromkeys(wanted), **read_values(native, wanted)}.items():
            if name == "kind":
                continue
            kind = self.reader.kind(native, name)
            if not same_value(kind, value, found.get(name)):
                return False
            if (
                kind in (Kind.TEXT, Kind.LONG)
                and str(value or "").strip() != str(found.get(name) or "").strip()
            ):
                return False
        return True

    def preview(self, write: Write) -> Any:
        """The request that would leave, without the credential; a match is looked up at delivery."""
        native = NATIVES[write.object]
        if write.operation in (Operation.DELETE, Operation.ERASE):
            bodies, operation = [{"id": write.remote_id}], Operation.DELETE
        elif write.operation is Operation.UPDATE:
            bodies, operation = (
                [{"id": write.remote_id, **self.writer.change_body(native, write)}],
                Operation.UPDATE,
            )
        else:
            bodies, operation = [self.writer.create_body(native, write)], Operation.CREATE
        request = self.writer.request_of(native, operation, bodies)
        shown: dict[str, Any] = {"method": request.method, "path": request.url}
        shown |= {"query": request.query} if request.query else {"body": request.json}
        if write.match:
            shown["match"] = write.match
        return shown


def _unmarked(native: Native) -> CrmError:
    return NotConfigured(
        f"{native.name} have no field {MARK_LABEL!r}, so this write cannot be looked for.",
        provider="zoho",
        operation="search",
        fix=Fix(
            "make_field",
            f"Make a text field {MARK_LABEL!r} (100 characters, no duplicates) in {native.name}, then prepare again.",
        ),
    )
