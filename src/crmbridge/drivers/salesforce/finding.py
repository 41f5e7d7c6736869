"""Finder: what became of a write whose answer was lost, and what a write would send."""

from __future__ import annotations

from typing import Any

from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object, Record, Write, WriteResult
from crmbridge.drivers.salesforce import roles
from crmbridge.drivers.salesforce.natives import DATA, NATIVES, ROLE, Native, body_of
from crmbridge.drivers.salesforce.reading import comparable
from crmbridge.drivers.salesforce.soql import AllOf, Compare, Kind, Select
from crmbridge.drivers.salesforce.writing import Writer
from crmbridge.toolkit.finding import MarkFinder
from crmbridge.toolkit.names import note_title

__all__ = ["Finder"]


class Finder(MarkFinder):
    """By the mark (a note: by its title), in the recycle bin too. SOQL sees every commit at once, so that absence is
    certain."""

    def __init__(self, writer: Writer) -> None:
        super().__init__(writer.reader)
        self.writer = writer
        self.reader = writer.reader

    async def made(self, write: Write) -> WriteResult:
        native = NATIVES[write.object]
        if native.name in self.writer.marked:
            mark = self.writer.mark(write)
            remote_id = (await self.writer.ids_by_mark(native, [mark], "search")).get(mark, "")
        elif native.name == "Note" and not write.fields.get("Title"):
            remote_id = await self._note(native, write)
        else:
            return WriteResult(outcome=Outcome.UNKNOWN)
        if not remote_id or not await self._has_role(write, remote_id):
            return WriteResult(outcome=Outcome.NOT_APPLIED)
        return self.writer.applied(remote_id, was_created=True)

    async def _note(self, native: Native, write: Write) -> str:
        parent = body_of(native, write).get("ParentId")
        conditions = [Compare("Title", "=", note_title(write.fields.get("Body"), write))]
        if isinstance(parent, str):
            conditions.append(Compare("ParentId", "=", parent))
        select = Select(sobject=native.name, fields=("Id",), where=AllOf(tuple(conditions)), limit=1)
        rows = await self.reader.query(select, "search", with_deleted=True)
        return self.writer.driver.id_text(rows[0].get("Id")) if rows else ""

    async def _has_role(self, write: Write, remote_id: str) -> bool:
        """Whether the second half of a deal stands; without it the write is sent again, and only that half is made."""
        contact = write.links.get(Object.CUSTOMER.value, "")
        if not contact or ROLE not in NATIVES[write.object].links.values():
            return True
        return bool(await roles.standing(self.reader, [(remote_id, contact)], "search"))

    def holds(self, write: Write, record: Record) -> bool:
        """A nested value cannot be compared, so it counts as not there."""
        if write.links:
            return False
        native = NATIVES[write.object]
        for name, value in body_of(native, write).items():
            found = record.native.get(name)
            kind = self.reader.kind(native, name)
            if isinstance(value, dict) or comparable(kind, value) != comparable(kind, found):
                return False
            if kind is Kind.TEXT and isinstance(value, str) and value.strip() != str(found or "").strip():
                return False  # a change of case alone is a change
        return True

    def preview(self, write: Write) -> Any:
        """The request that would leave, without the credential; a match is looked up at delivery."""
        native = NATIVES[write.object]
        if write.operation in (Operation.DELETE, Operation.ERASE):
            path = f"{DATA}/sobjects/{native.name}/{write.remote_id}"
            return {"method": "DELETE", "path": path}
        if write.operation is Operation.UPDATE:
            body = {"id": write.remote_id, **body_of(native, write)}
        else:
            body = self.writer.create_body(native, write)
        operation = write.operation if write.operation is Operation.UPDATE else Operation.CREATE
        request = self.writer.request_of_one(native, operation, body)
        shown: dict[str, Any] = {"method": request.method, "path": request.url, "body": request.json}
        if write.match:
            shown["match"] = write.match
        return shown
