"""Finder: what became of a write whose answer was lost, and what a write would send."""

from __future__ import annotations

from typing import Any

from crmbridge.core.errors import CrmError, Fix, NotConfigured
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Record, Write, WriteResult
from crmbridge.drivers.zoho.coql import Kind
from crmbridge.drivers.zoho.natives import MARK_LABEL, NATIVES, Native, read_values
from crmbridge.drivers.zoho.reading import same_value
from crmbridge.drivers.zoho.writing import Writer
from crmbridge.toolkit.finding import MarkFinder
from crmbridge.toolkit.names import note_title, title_mark

__all__ = ["Finder"]


class Finder(MarkFinder):
    """By the mark (a note: by its title, among the notes of its record)."""

    # Whether an erased record has left the recycle bin too cannot be seen here: erasing it again tells.
    proved_by_absence = frozenset({Operation.DELETE})

    def __init__(self, writer: Writer) -> None:
        super().__init__(writer.reader)
        self.writer = writer
        self.reader = writer.reader

    async def made(self, write: Write) -> WriteResult:
        native = NATIVES[write.object]
        field = self.writer.mark_field(native)
        remote_id: str | None = None
        if native.name == "Notes":
            body = self.writer.create_body(native, write)
            if body["Note_Title"] == note_title(write.fields.get("Note_Content"), write):
                remote_id = await self.reader.note_by_title(body["Parent_Id"], title_mark(write))
        elif field:
            mark = self.writer.mark(write)
            remote_id = (await self.reader.ids_by_mark(native, field, [mark], "search")).get(mark, "")
        else:
            return WriteResult(outcome=Outcome.UNKNOWN, error=_unmarked(native))
        if remote_id:
            return self.writer.applied(native, remote_id, was_created=True)
        return WriteResult(outcome=Outcome.UNKNOWN if remote_id is None else Outcome.NOT_APPLIED)

    def holds(self, write: Write, record: Record) -> bool:
        """A change of case alone is a change."""
        native, found = NATIVES[write.object], record.native
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
