"""Routing: where an object goes, from memory; routes and pauses as operators set them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from crmbridge.core.errors import Conflict, Fix, NotConfigured, NotFound
from crmbridge.core.records import Object
from crmbridge.db.pool import Database
from crmbridge.services.audit.model import AuditEntry
from crmbridge.services.audit.service import AuditLog
from crmbridge.services.connections.routing import store
from crmbridge.services.connections.routing.table import (
    FIRST,
    Role,
    Route,
    RouteChange,
    RouteRow,
    change,
    changed_roles,
    effective,
    read_changes,
    routes_of,
    unknown,
)
from crmbridge.services.tenants.model import Tenant

if TYPE_CHECKING:
    from crmbridge.services.connections.connection import Connection
    from crmbridge.services.connections.service import Connections

__all__ = ["Pause", "Routing"]

# Read again after two seconds in any case: more than are asked for in that time need not be kept.
_MOST_CACHED = 2_000
_MOST_REASON = 200


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """Who paused a connection, when, and why, as the audit log has it."""

    actor: str
    at: datetime
    reason: str = ""


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
                try:
                    await self._owner.open(tenant_id, name=FIRST)
                except NotFound:
                    # Of that name there is none, which is well; a tenant that is not there is not.
                    await self._owner.tenant(tenant_id)
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
        """The id of a connection. Raises NotFound, which names those there are."""
        async with self._db.tenant(tenant_id) as conn:
            rows = await store.read_routes(conn)
        for row in rows:
            if row.name == name:
                return row.id
        raise unknown(name, [row.name for row in rows])

    async def check_known(self, conn: Any, name: str) -> None:
        """Raises NotFound when the tenant of this transaction has connections, and none of this name."""
        names = [row.name for row in await store.read_routes(conn)]
        if names and name not in names:
            raise unknown(name, names)

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
        self,
        tenant: Tenant,
        name: str,
        said: Mapping[str, str],
        *,
        actor: str,
        request_id: str = "",
        seen: Mapping[str, Mapping[str, str]] | None = None,
    ) -> dict[str, dict[str, str]]:
        """Say what a connection is for some objects; ``all`` names those not named. Answers all routes by connection.

        A new primary leaves the old one as ``also``. With ``seen``, the routes as somebody saw them, it is done only
        if they still stand so. Raises ValidationError, NotFound, Conflict (an object would be without a primary, or
        the routes have changed since), NotConfigured (no credential in use there yet).
        """
        async with self._db.tenant(tenant.id) as conn:
            rows = await store.read_routes(conn, lock=True)
            if seen is not None and seen != {row.name: effective(rows, row) for row in rows}:
                raise Conflict(
                    "The routes have changed since you looked at them. Nothing was changed.",
                    fix=Fix("read_again", "Look at what it would do now, then save again."),
                )
            for row in await self._apply(conn, rows, name, said):
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

    async def preview(self, tenant: Tenant, name: str, said: Mapping[str, str]) -> list[RouteChange]:
        """What :meth:`change` would change, by object; nothing is kept. Raises what it raises."""
        async with self._db.tenant(tenant.id) as conn:
            rows = await store.read_routes(conn)
            before = {row.name: effective(rows, row) for row in rows}
            await self._apply(conn, rows, name, said)
        return changed_roles(before, {row.name: effective(rows, row) for row in rows})

    async def _apply(
        self, conn: Any, rows: Sequence[RouteRow], name: str, said: Mapping[str, str]
    ) -> list[RouteRow]:
        """Change these rows, not the tables; answers those that have changed."""
        changes = read_changes(said)
        changed = change(rows, name, changes)
        chosen = next(row for row in rows if row.name == name)
        gets = [obj.value for obj, role in changes.items() if role is not Role.NONE]
        if gets and not await store.has_credential(conn, chosen.id):
            raise NotConfigured(
                f"The connection {name!r} has no credential in use, so {gets[0]} cannot go there yet.",
                fix=Fix("connect", "Connect, test and activate it first; then set its routes."),
            )
        return changed

    async def pause(
        self, tenant: Tenant, name: str, *, actor: str, reason: str = "", request_id: str = ""
    ) -> None:
        """Accept on, send nothing: when this returns, no further call begins; those under way end.

        The audit log keeps up to 200 characters of the reason. Raises NotFound, Conflict (paused already).
        """
        await self._set_paused(tenant, name, True, actor, reason, request_id)

    async def resume(
        self, tenant: Tenant, name: str, *, actor: str, reason: str = "", request_id: str = ""
    ) -> None:
        """Go on where it stopped, within a second or so. Raises NotFound, Conflict (not paused)."""
        await self._set_paused(tenant, name, False, actor, reason, request_id)

    async def pause_of(self, tenant_id: UUID, connection_id: UUID) -> Pause | None:
        """The newest order to pause this connection; None when the audit log has none."""
        rows = await self._audit.read(tenant_id, 1, action="connection.paused", connection_id=connection_id)
        if not rows:
            return None
        return Pause(actor=rows[0].actor, at=rows[0].at, reason=str(rows[0].details.get("reason", "")))

    async def _set_paused(
        self, tenant: Tenant, name: str, is_paused: bool, actor: str, reason: str, request_id: str
    ) -> None:
        reason = reason.strip()[:_MOST_REASON]
        async with self._db.tenant(tenant.id) as conn:
            connection_id = await store.set_paused(conn, name, is_paused)
            if connection_id is None:
                await self.check_known(conn, name)
                if await store.find_connection(conn, name) is None:
                    raise unknown(name, [])
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
                    details={"connection": name, "reason": reason} if reason else {"connection": name},
                ),
            )
        self._owner.mapping_changed(tenant.id)
