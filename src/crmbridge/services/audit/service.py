"""The audit log: written in the caller's transaction, or at once together with others of the moment."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from crmbridge.core.errors import FieldError, Fix, ValidationError
from crmbridge.db.pool import Database
from crmbridge.logs import mask, mask_tree
from crmbridge.services.audit import store
from crmbridge.services.audit.model import AuditEntry, AuditRow

__all__ = ["AuditLog"]

FLUSH_ROWS = 500
FLUSHES_AT_ONCE = 4
READ_LIMIT = 1000

_Waiting = deque[tuple[AuditEntry, "asyncio.Future[UUID]"]]


class AuditLog:
    """Writes and reads ``audit_log``. Rows of a tenant go through the app role, the system's through the scheduler.

    E-mail addresses, international phone numbers, tokens and URL queries that slip into an entry are masked; a
    ``Secret`` in ``details`` raises TypeError.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waiting: dict[UUID | None, _Waiting] = {}
        self._flushing: dict[UUID | None, asyncio.Task[None]] = {}
        self._gate = asyncio.Semaphore(FLUSHES_AT_ONCE)

    async def write(self, conn: asyncpg.Connection, *entries: AuditEntry) -> None:
        """Insert in the caller's transaction: the entries stand or fall with what they tell of.

        ``conn`` must be able to see the entries' tenants (``db.tenant``), or be ``db.system()`` for rows without one.
        """
        if entries:
            await store.insert(conn, [_clean(entry) for entry in entries])

    def cleaned(self, entry: AuditEntry) -> AuditEntry:
        """The entry as :meth:`write` inserts it, for a statement that inserts it together with what it tells of."""
        return _clean(entry)

    async def write_now(self, entry: AuditEntry) -> UUID:
        """Insert in a transaction of its own and return the row's id once it is durable.

        Entries of one tenant that come while a flush is under way share the next one (one insert, one commit);
        tenants never share a transaction. A caller that is cancelled does not take its entry back.
        """
        future: asyncio.Future[UUID] = asyncio.get_running_loop().create_future()
        tenant_id = entry.tenant_id
        self._waiting.setdefault(tenant_id, deque()).append((_clean(entry), future))
        if tenant_id not in self._flushing:
            self._flushing[tenant_id] = asyncio.create_task(self._drain(tenant_id))
        return await future

    async def read(
        self,
        tenant_id: UUID | None,
        limit: int = 100,
        before: UUID | None = None,
        action: str | None = None,
        *,
        connection_id: UUID | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[AuditRow]:
        """Newest first; ``before`` is the id of the last row of the page before. None reads the system's rows.

        ``since`` is the first moment that counts, ``until`` the first that no longer does.

        Raises ValidationError for a limit outside 1 to 1000 or an unknown ``before``.
        """
        if not 1 <= limit <= READ_LIMIT:
            raise _refused("limit", f"limit must be from 1 to {READ_LIMIT}, got {limit}.")
        async with self._db.system() if tenant_id is None else self._db.tenant(tenant_id) as conn:
            at = None
            if before is not None:
                at = await store.position(conn, tenant_id, before)
                if at is None:
                    raise _refused(
                        "before", "before names no row of this log; use the id of a row that was read."
                    )
            return await store.select(conn, tenant_id, action, at, before, limit, connection_id, since, until)

    async def close(self) -> None:
        """Wait until everything handed to :meth:`write_now` is written."""
        while self._flushing:
            await asyncio.gather(*self._flushing.values(), return_exceptions=True)

    async def _drain(self, tenant_id: UUID | None) -> None:
        try:
            while self._waiting.get(tenant_id):
                async with self._gate:
                    waiting = self._waiting[tenant_id]
                    await self._flush(
                        tenant_id, [waiting.popleft() for _ in range(min(len(waiting), FLUSH_ROWS))]
                    )
        finally:
            self._flushing.pop(tenant_id, None)
            for _, future in self._waiting.pop(tenant_id, ()):
                future.cancel()

    async def _flush(
        self, tenant_id: UUID | None, batch: list[tuple[AuditEntry, asyncio.Future[UUID]]]
    ) -> None:
        try:
            async with self._db.system() if tenant_id is None else self._db.tenant(tenant_id) as conn:
                await store.insert(conn, [entry for entry, _ in batch])
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except (asyncpg.PostgresError, asyncpg.InterfaceError, UnicodeEncodeError) as error:
            # One bad entry must not take the others down with it.
            if len(batch) > 1:
                for each in batch:
                    await self._flush(tenant_id, [each])
                return
            _settle(batch, error)
        except Exception as error:
            _settle(batch, error)
        else:
            _settle(batch, None)


def _settle(batch: list[tuple[AuditEntry, asyncio.Future[UUID]]], error: Exception | None) -> None:
    for entry, future in batch:
        if future.done():
            continue
        if error is None:
            future.set_result(entry.id)
        else:
            future.set_exception(error)


def _clean(entry: AuditEntry) -> AuditEntry:
    details = (
        mask_tree(msgspec.to_builtins(entry.details, str_keys=True), guess=False) if entry.details else {}
    )
    return msgspec.structs.replace(
        entry,
        actor=mask(entry.actor, guess=False),
        subject_id=mask(entry.subject_id, guess=False),
        request_id=mask(entry.request_id, guess=False),
        details=details,
    )


def _refused(field: str, message: str) -> ValidationError:
    return ValidationError(
        message,
        fields=(FieldError(field, message),),
        fix=Fix("correct_fields", "Correct the named field and try again."),
    )
