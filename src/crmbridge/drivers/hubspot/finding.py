"""Finder: what became of a write whose answer was lost, and what a write would send."""

from __future__ import annotations

from typing import Any

from crmbridge.core.errors import CrmError, NotFound
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object, Write, WriteResult
from crmbridge.drivers.hubspot.companions import LeadWriter
from crmbridge.drivers.hubspot.natives import readable, wire_properties
from crmbridge.drivers.hubspot.writing import Writer

__all__ = ["Finder"]


class Finder:
    """Looks, never sends."""

    def __init__(self, writer: Writer, leads: LeadWriter) -> None:
        self.writer = writer
        self.reader = writer.reader
        self.leads = leads

    async def find(self, write: Write) -> WriteResult:
        """By the mark, which is read without the search's lag. Updates and upserts set absolute values, so that
        sending one again is harmless; without a mark a create stays ``unknown``."""
        try:
            if write.operation in (Operation.UPDATE, Operation.DELETE, Operation.ERASE):
                return await self._changed(write)
            found = await (self.leads.find(write) if write.object is Object.LEAD else self._made(write))
        except CrmError as error:
            return WriteResult(outcome=Outcome.UNKNOWN, error=error)
        if found.outcome is Outcome.UNKNOWN and write.operation is Operation.UPSERT and not write.related:
            return WriteResult(outcome=Outcome.NOT_APPLIED)
        return found

    async def _made(self, write: Write) -> WriteResult:
        native = self.reader.natives[write.object]
        remote_id = await self.writer.find_mark(native, write)
        if remote_id:
            return self.writer.applied(native, remote_id, was_created=True)
        return WriteResult(outcome=Outcome.UNKNOWN if remote_id is None else Outcome.NOT_APPLIED)

    async def _changed(self, write: Write) -> WriteResult:
        native = self.reader.natives[write.object]
        is_update = write.operation is Operation.UPDATE
        try:
            record = await self.reader.get(write.object, write.remote_id)
        except NotFound:
            outcome = Outcome.NOT_APPLIED if is_update else Outcome.APPLIED
            return WriteResult(outcome=outcome, remote_id=write.remote_id)
        if is_update:
            sent = wire_properties(native, write.fields)
            wanted = readable(native, sent)
            cleared = [name for name, text in sent.items() if not text]
            is_done = all(record.native.get(name) == text for name, text in wanted.items())
            is_done = is_done and not any(record.native.get(name) for name in cleared)
        else:  # an archived contact still waits for its privacy delete
            is_done = record.is_archived and not (
                write.operation is Operation.ERASE and native.name == "contacts"
            )
        outcome = Outcome.APPLIED if is_done and not write.links else Outcome.NOT_APPLIED
        return WriteResult(outcome=outcome, remote_id=write.remote_id, url=record.url)

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
