"""Finder: what became of a write whose answer was lost, and what a write would send."""

from __future__ import annotations

from typing import Any

from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object, Record, Write, WriteResult
from crmbridge.drivers.hubspot.companions import LeadWriter
from crmbridge.drivers.hubspot.natives import readable, wire_properties
from crmbridge.drivers.hubspot.writing import Writer
from crmbridge.toolkit.finding import MarkFinder

__all__ = ["Finder"]


class Finder(MarkFinder):
    """By the mark, which is read without the search's lag."""

    def __init__(self, writer: Writer, leads: LeadWriter) -> None:
        super().__init__(writer.reader)
        self.writer = writer
        self.reader = writer.reader
        self.leads = leads

    async def made(self, write: Write) -> WriteResult:
        if write.object is Object.LEAD:
            return await self.leads.find(write)
        native = self.reader.natives[write.object]
        remote_id = await self.writer.find_mark(native, write)
        if remote_id:
            return self.writer.applied(native, remote_id, was_created=True)
        return WriteResult(outcome=Outcome.UNKNOWN if remote_id is None else Outcome.NOT_APPLIED)

    def holds(self, write: Write, record: Record) -> bool:
        native = self.reader.natives[write.object]
        sent = wire_properties(native, write.fields)
        wanted = readable(native, sent)
        cleared = [name for name, text in sent.items() if not text]
        has_all = all(record.native.get(name) == text for name, text in wanted.items())
        return has_all and not write.links and not any(record.native.get(name) for name in cleared)

    # An archived contact still waits for its privacy delete.
    def is_removed(self, write: Write, record: Record) -> bool:
        is_contact = self.reader.natives[write.object].name == "contacts"
        return record.is_archived and not (write.operation is Operation.ERASE and is_contact)

    def preview(self, write: Write) -> Any:
        """The requests that would leave, without the credential; a match is looked up at delivery."""
        native = self.reader.natives[write.object]
        if write.operation in (Operation.DELETE, Operation.ERASE):
            body: dict[str, Any] = {"inputs": [{"id": write.remote_id}]}
            return {"method": "POST", "path": f"{native.path}/batch/archive", "body": body}
        if write.operation is Operation.UPDATE:
            body = {"properties": wire_properties(native, write.fields)}
            return {"method": "PATCH", "path": f"{native.path}/{write.remote_id}", "body": body}
        shown: dict[str, Any] = {
            "method": "POST",
            "path": native.path,
            "body": self.writer.input(native, write, write.fields),
        }
        if write.match:
            shown["match"] = write.match
        if write.object is Object.LEAD and (companion := self.leads.companion_of(write)):
            shown["then"] = {"method": "POST", "path": companion[0].path, "properties": companion[1]}
        return shown
