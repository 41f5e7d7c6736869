"""Routing: where an object goes, from memory; routes and pauses as operators set them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from crmbridge.core.errors import Conflict, CrmError, Fix, NotConfigured, NotFound
from crmbridge.core.records import Object
from crmbridge.db.pool import Database
from crmbridge.services.audit.model import AuditEntry
from crmbridge.services.audit.service import AuditLog
from crmbridge.services.connections.routing import store
from crmbridge.services.connections.routing.table import (
    FIRST,
    Role,
    Route,
    RouteRow,
    change,
    effective,
    read_changes,
    routes_of,
)
from crmbridge.services.tenants.model import Tenant

if TYPE_CHECKING:
    from crmbridge.services.connections.connection import Connection
    from crmbridge.services.connections.service import Connections

__all__ = ["Routing"]

_MOST_CACHED = 20_000


class _Known(msgspec.Struct):
    """The routes of one tenant as read at a monotonic time, and what was asked of them since."""

    rows: Sequence[RouteRow]
    read_at: float
    routes: dict[Object, tuple[Route, ...]] = {}


class Routing:
    """Routes of all tenants. What another process changed counts here within ``fresh_seconds``."""

    def __init__(self, owner: Connections, *, db: Database, audit: AuditLog, fresh_seconds: float) -> None:
        self._owner = owner
        self._db = db
        self._audit = audit
        self._fresh_seconds = fresh_seconds
        self._known: OrderedDict[UUID, _Known] = OrderedDict()

    # -- asking ------------------------------------------------------------------------------------------------

    async def of(self, tenant_id: UUID, obj: Object) -> tuple[Route, ...]:
        """Where an object goes, its primary first. Raises NotConfigured when no connection is its primary."""
        known = self._fresh(tenant_id)
        if known is None:
            # An accept opens this one next, nearly always, and it brings the routes along: one look for both.
            with suppress(NotConfigured):
                await self._owner.open(tenant_id, name=FIRST)
            known = self._fresh(tenant_id)
        if known is None:
            async with self._db.tenant(tenant_id) as conn:
                rows = await store.read_routes(conn)
            known = self.learn(tenant_id, rows)
        routes = known.routes.get(obj)
        if routes is None:
            routes = known.routes[obj] = routes_of(known.rows, obj)
        return routes

    async def open(self, tenant_id: UUID, obj: Object, name: str = "") -> Connection:
        """The connection of this name; without one, the object's primary. Raises NotConfigured, NotFound."""
        if not name:
            name = (await self.of(tenant_id, obj))[0].connection
        return await self._owner.open(tenant_id, name=name)

    async def find(self, tenant_id: UUID, name: str) -> UUID:
        """The id of a connection. Raises NotFound."""
        async with self._db.tenant(tenant_id) as conn:
            found = await store.find_connection(conn, name)
        if found is None:
            raise _unknown(name)
        return found

    def _fresh(self, tenant_id: UUID) -> _Known | None:
        known = self._known.get(tenant_id)
        return known if known is not None and monotonic() - known.read_at <= self._fresh_seconds else None

    def learn(self, tenant_id: UUID, rows: Sequence[RouteRow]) -> _Known:
        """Keep what was just read."""
        known = self._known[tenant_id] = _Known(rows, monotonic())
        self._known.move_to_end(tenant_id)
        while len(self._known) > _MOST_CACHED:
            self._known.popitem(last=False)
        return known

    def forget(self, tenant_id: UUID) -> None:
        """Read again next time."""
        self._known.pop(tenant_id, None)

    # -- changing ----------------------------------------------------------------------------------------------

    async def change(
        self, tenant: Tenant, name: str, said: Mapping[str, str], *, actor: str, request_id: str = ""
    ) -> dict[str, dict[str, str]]:
        """Say what a connection is for some objects; ``all`` names those not named. Answers all routes by connection.

        A new primary leaves the old one as ``also``. Raises ValidationError, NotFound, Conflict (an object would be
        without a primary), NotConfigured (no credential in use there yet).
        """
        changes = read_changes(said)
        async with self._db.tenant(tenant.id) as conn:
            rows = await store.read_routes(conn, lock=True)
            changed = change(rows, name, changes)
            chosen = next(row for row in rows if row.name == name)
            gets = [obj.value for obj, role in changes.items() if role is not Role.NONE]
            if gets and not await store.has_credential(conn, chosen.id):
                raise NotConfigured(
                    f"The connection {name!r} has no credential in use, so {gets[0]} cannot go there yet.",
                    fix=Fix("connect", "Connect, test and activate it first; then set its routes."),
                )
            for row in changed:
                await store.save_routes(conn, row)
                await self._audit.write(
                    conn,
                    AuditEntry(
                        tenant_id=tenant.id,
                        actor=actor,
                        action="connection.routed",
                        connection_id=row.id,
                        subject_id=str(row.id),
                        request_id=request_id,
                        details={"connection": row.name, "routes": dict(row.routes)},
                    ),
                )
        self._owner.mapping_changed(tenant.id)
        return {row.name: effective(rows, row) for row in rows}

    async def pause(self, tenant: Tenant, name: str, *, actor: str, request_id: str = "") -> None:
        """Accept on, send nothing: when this returns, no further call begins; those under way end.

        Raises NotFound, Conflict (paused already).
        """
        await self._set_paused(tenant, name, True, actor, request_id)

    async def resume(self, tenant: Tenant, name: str, *, actor: str, request_id: str = "") -> None:
        """Go on where it stopped, within a second or so. Raises NotFound, Conflict (not paused)."""
        await self._set_paused(tenant, name, False, actor, request_id)

    async def _set_paused(
        self, tenant: Tenant, name: str, is_paused: bool, actor: str, request_id: str
    ) -> None:
        async with self._db.tenant(tenant.id) as conn:
            connection_id = await store.set_paused(conn, name, is_paused)
            if connection_id is None:
                if await store.find_connection(conn, name) is None:
                    raise _unknown(name)
                state = "is paused already" if is_paused else "is not paused"
                raise Conflict(
                    f"The connection {name!r} {state}.",
                    fix=Fix("read_again", "Read the connections again: nothing is left to do."),
                )
            await self._audit.write(
                conn,
                AuditEntry(
                    tenant_id=tenant.id,
                    actor=actor,
                    action="connection.paused" if is_paused else "connection.resumed",
                    connection_id=connection_id,
                    subject_id=str(connection_id),
                    request_id=request_id,
                    details={"connection": name},
                ),
            )
        self._owner.mapping_changed(tenant.id)


def _unknown(name: str) -> CrmError:
    return NotFound(
        f"There is no connection {name[:63]!r}.",
        fix=Fix("check_connection", "`crmbridge connections TENANT` lists them."),
    )
