"""What finders share whose provider keeps our mark in a field: what became of a write whose answer was lost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

from crmbridge.core.errors import CrmError, NotFound
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object, Record, Write, WriteResult

__all__ = ["MarkFinder"]

_BY_ID = frozenset({Operation.UPDATE, Operation.DELETE, Operation.ERASE})


class _Gets(Protocol):
    async def get(self, obj: Object, remote_id: str) -> Record: ...


class MarkFinder(ABC):
    """Looks, never sends."""

    proved_by_absence: ClassVar[frozenset[Operation]] = frozenset({Operation.DELETE, Operation.ERASE})
    """Operations that were applied when the record is not there."""

    def __init__(self, reader: _Gets) -> None:
        self._reads = reader

    @abstractmethod
    async def made(self, write: Write) -> WriteResult:
        """What a create or upsert has made, by its mark; ``unknown`` where nothing can tell."""

    @abstractmethod
    def holds(self, write: Write, record: Record) -> bool:
        """Whether the record has every written value of an update."""

    def is_removed(self, write: Write, record: Record) -> bool:
        """Whether a record that can be read was removed, as far as this delete or erasure goes."""
        return False

    async def find(self, write: Write) -> WriteResult:
        """An upsert sets absolute values, so that sending it again is harmless; a create without a mark stays
        ``unknown``."""
        try:
            if write.operation in _BY_ID:
                return await self._changed(write)
            found = await self.made(write)
        except CrmError as error:
            return WriteResult(outcome=Outcome.UNKNOWN, error=error)
        if found.outcome is Outcome.UNKNOWN and write.operation is Operation.UPSERT and not write.related:
            return WriteResult(outcome=Outcome.NOT_APPLIED)
        return found

    async def _changed(self, write: Write) -> WriteResult:
        try:
            record = await self._reads.get(write.object, write.remote_id)
        except NotFound:
            is_done = write.operation in self.proved_by_absence
            return WriteResult(outcome=_outcome(is_done), remote_id=write.remote_id)
        is_done = (self.holds if write.operation is Operation.UPDATE else self.is_removed)(write, record)
        return WriteResult(outcome=_outcome(is_done), remote_id=write.remote_id, url=record.url)


def _outcome(is_done: bool) -> Outcome:
    return Outcome.APPLIED if is_done else Outcome.NOT_APPLIED
