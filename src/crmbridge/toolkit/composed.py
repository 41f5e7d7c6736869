"""Drivers composed of a reader, a writer and a finder: one way for a single write and for a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from crmbridge.core.driver import refuse
from crmbridge.core.operations import DeleteLevel, Operation
from crmbridge.core.records import Filter, Object, Page, Record, Write, WriteResult
from crmbridge.toolkit.batches import Results
from crmbridge.toolkit.exchange import HttpDriver

__all__ = ["BatchDriver", "ComposedDriver", "Results"]


class BatchDriver(HttpDriver):
    """A provider that takes many writes in one call. Subclasses answer :meth:`results_of`; erasures go one by one."""

    async def results_of(self, obj: Object, operation: Operation, writes: dict[int, Write]) -> Results:
        """One result for each place; all writes share object and operation, and may be any number."""
        raise refuse(self.manifest, obj, operation)

    async def write_batch(self, writes: Sequence[Write]) -> list[WriteResult]:
        first = writes[0] if writes else None
        if first is None or first.operation is Operation.ERASE:
            return [await self.write_one(write) for write in writes]
        self.spec(first.object, first.operation)
        results = await self.results_of(first.object, first.operation, dict(enumerate(writes)))
        return [results[place] for place in range(len(writes))]

    async def _single(self, write: Write) -> WriteResult:
        self.spec(write.object, write.operation)
        result = (await self.results_of(write.object, write.operation, {0: write}))[0]
        if result.error is not None:
            raise result.error
        return result

    create_record = update_record = upsert_record = _single

    async def delete_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        write = Write(target_id="", operation=Operation.DELETE, object=obj, remote_id=remote_id)
        await self._single(write)
        return self.manifest.objects[obj].delete_level


class Reads(Protocol):
    """What a driver's reader answers."""

    async def customers(self, *, email: str = "", phone: str = "") -> list[Record]: ...

    async def search(self, obj: Object, filter: Filter, cursor: str) -> Page: ...

    async def get(self, obj: Object, remote_id: str) -> Record: ...

    async def recent(self, obj: Object, since: str, cursor: str, limit: int) -> Page: ...


class Writes(Protocol):
    """What a driver's writer does; each in as few calls as the provider allows."""

    async def create(self, obj: Object, writes: dict[int, Write]) -> Results: ...

    async def update(self, obj: Object, writes: dict[int, Write]) -> Results: ...

    async def upsert(self, obj: Object, writes: dict[int, Write]) -> Results: ...

    async def delete(self, obj: Object, ids: dict[int, str]) -> Results: ...


class Finds(Protocol):
    """What a driver's finder tells of a write."""

    async def find(self, write: Write) -> WriteResult: ...

    def preview(self, write: Write) -> Any: ...


class ComposedDriver(BatchDriver):
    """Verbs that check support and hand on. Subclasses set the three parts in ``__init__``."""

    reader: Reads
    writer: Writes
    finder: Finds

    async def lookup_customer(self, *, phone: str = "", email: str = "") -> list[Record]:
        self.spec(Object.CUSTOMER, Operation.LOOKUP)
        return await self.reader.customers(email=email, phone=phone)

    async def search_records(self, obj: Object, filter: Filter, cursor: str = "") -> Page:
        self.spec(obj, Operation.SEARCH)
        return await self.reader.search(obj, filter, cursor)

    async def get_record(self, obj: Object, remote_id: str) -> Record:
        self.spec(obj, Operation.GET)
        return await self.reader.get(obj, remote_id)

    async def list_recent(self, obj: Object, *, since: str = "", cursor: str = "", limit: int = 50) -> Page:
        self.spec(obj, Operation.LIST)
        return await self.reader.recent(obj, since, cursor, limit)

    async def results_of(self, obj: Object, operation: Operation, writes: dict[int, Write]) -> Results:
        if operation is Operation.DELETE:
            return await self.writer.delete(obj, {place: one.remote_id for place, one in writes.items()})
        verbs = {Operation.CREATE: self.writer.create, Operation.UPDATE: self.writer.update}
        return await verbs.get(operation, self.writer.upsert)(obj, writes)

    async def find_written(self, write: Write) -> WriteResult:
        return await self.finder.find(write)

    def preview(self, write: Write) -> Any:
        return self.finder.preview(write)
