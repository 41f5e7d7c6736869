"""Openings: what has just been read of connections. One reading serves all who ask for it at the same moment."""

from __future__ import annotations

import asyncio
import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from time import monotonic
from uuid import UUID

import msgspec

from crmbridge.core.driver import CrmDriver
from crmbridge.core.errors import CrmError, NotConfigured
from crmbridge.core.manifest import Manifest
from crmbridge.core.records import Object
from crmbridge.db.pool import Database
from crmbridge.services.connections.model import ConnectionRow, Credential, Held
from crmbridge.services.connections.opening import store
from crmbridge.services.connections.routing.table import FIRST, RouteRow, unknown
from crmbridge.services.mapping.model import Overrides
from crmbridge.services.mapping.service import build_field_map
from crmbridge.services.tenants.model import Tenant
from crmbridge.services.tenants.service import Tenants, no_such_tenant
from crmbridge.services.vault.service import Vault
from crmbridge.toolkit.fieldmap import FieldMap

__all__ = ["FRESH_SECONDS", "Opened", "Openings"]

# How long another process may go on with a connection that was changed here. Seconds.
FRESH_SECONDS = 2.0
# Nothing older than that is used again, so this need only hold the tenants that are asked for in that time.
_MOST_CACHED = 2_000

_Which = UUID | str


class Opened(msgspec.Struct):
    """A connection as read from the tables: sealed credential, manifest under its settings, overrides."""

    row: ConnectionRow
    held: Held
    driver: type[CrmDriver]
    manifest: Manifest
    overrides: Overrides
    read_at: float
    maps: dict[Object, FieldMap] = {}

    @property
    def credential(self) -> Credential:
        """The credential in use."""
        return self.held.credential

    def keep(self, held: Held) -> None:
        """Go on with newer tokens of the same credential."""
        is_same = held.credential.id == self.held.credential.id
        if is_same and held.credential.row_version > self.held.credential.row_version:
            self.held = held

    def field_map(self, tenant: Tenant, obj: Object) -> FieldMap:
        """The map of one object, built once."""
        found = self.maps.get(obj)
        if found is None:
            found = self.maps[obj] = build_field_map(tenant, self.driver, obj, self.overrides)
        return found


class _Read(msgspec.Struct):
    """What one reading brought. ``opened`` None: the connection is not there, has no credential in use, or its driver
    is not to be had (``failure``).
    """

    tenant: Tenant
    siblings: Sequence[RouteRow]
    opened: Opened | None = None
    failure: CrmError | None = None


class Openings:
    """Connections of all tenants that were opened within the last two seconds, by id and by name.

    A reading brings the tenant, its gate, its routes and its wrapped keys along, and teaches those who keep them; so
    the first call of a tenant costs one round trip more than the next one.
    """

    def __init__(
        self,
        *,
        db: Database,
        tenants: Tenants,
        vault: Vault,
        load_driver: Callable[[str], type[CrmDriver]],
        learn_routes: Callable[[UUID, Sequence[RouteRow]], object],
    ) -> None:
        self._db = db
        self._tenants = tenants
        self._vault = vault
        self._load = load_driver
        self._learn_routes = learn_routes
        self._cache: OrderedDict[UUID, dict[_Which, Opened]] = OrderedDict()
        self._flights: dict[tuple[UUID, _Which], asyncio.Task[_Read | None]] = {}
        self._tasks: set[asyncio.Task[_Read | None]] = set()
        # Whoever asks for a tenant opens its connection next, nearly always.
        tenants.reread = self.reread

    async def close(self) -> None:
        """Wait for readings whose callers have gone."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def open(
        self, tenant_id: UUID, *, name: str = FIRST, connection_id: UUID | None = None
    ) -> tuple[Tenant, Opened]:
        """Raises NotFound (no such tenant, name), NotConfigured (no credential)."""
        which = connection_id or name
        tenant = self._tenants.known(tenant_id)
        opened = self._cache.get(tenant_id, {}).get(which)
        if tenant is not None and opened is not None and monotonic() - opened.read_at <= FRESH_SECONDS:
            return tenant, opened
        read = await self._read(tenant_id, which)
        if read is None:
            raise no_such_tenant()
        if read.failure is not None:
            raise copy.copy(read.failure)
        if read.opened is None:
            names = [row.name for row in read.siblings]
            if connection_id is None and names and name not in names:
                raise unknown(name, names)
            what = f"the connection {name!r}" if connection_id is None else f"the connection {connection_id}"
            raise NotConfigured(f"Tenant {read.tenant.slug} has no active credential for {what}.")
        return read.tenant, read.opened

    async def reread(self, tenant_id: UUID) -> Tenant | None:
        """A tenant as it stands, and its first connection on the way."""
        read = await self._read(tenant_id, FIRST)
        return read.tenant if read is not None else None

    def forget(self, tenant_id: UUID) -> None:
        """Something of it was changed: what is being read may be older, and nobody shall get it from now on."""
        self._cache.pop(tenant_id, None)
        self._flights.clear()

    async def _read(self, tenant_id: UUID, which: _Which) -> _Read | None:
        flight = self._flights.get((tenant_id, which))
        if flight is None:
            flight = asyncio.create_task(self._fly(tenant_id, which))
            self._flights[tenant_id, which] = flight
            self._tasks.add(flight)
            flight.add_done_callback(lambda task: self._landed(tenant_id, which, task))
        try:
            return await asyncio.shield(flight)
        except CrmError as error:
            # Each caller adds its own request id.
            raise copy.copy(error) from None

    def _landed(self, tenant_id: UUID, which: _Which, task: asyncio.Task[_Read | None]) -> None:
        self._tasks.discard(task)
        if self._flights.get((tenant_id, which)) is task:
            del self._flights[tenant_id, which]
        if not task.cancelled():
            task.exception()

    async def _fly(self, tenant_id: UUID, which: _Which) -> _Read | None:
        began, times_forgotten = monotonic(), self._vault.times_forgotten
        with_keys = self._vault.lacks(tenant_id)
        found = await self._db.alone(
            tenant_id,
            lambda conn, setting: store.find(conn, setting, tenant_id, which, with_keys=with_keys),
        )
        if found is None:
            return None
        self._tenants.learn(found.tenant, found.gate, began)
        if with_keys:
            self._vault.learn(tenant_id, found.keys, times_forgotten)
        is_current = self._flights.get((tenant_id, which)) is asyncio.current_task()
        if is_current:
            self._learn_routes(tenant_id, found.siblings)
        read = _Read(found.tenant, found.siblings)
        try:
            read.opened = self._opened(tenant_id, found, began)
        except CrmError as error:
            read.failure = error
        if is_current and read.opened is not None:
            self._keep(tenant_id, read.opened)
        return read

    def _opened(self, tenant_id: UUID, found: store.Found, began: float) -> Opened | None:
        row = found.row
        if row is None or row.held is None:
            return None
        driver, settings = self._load(row.driver), row.held.credential.settings
        before = self._cache.get(tenant_id, {}).get(row.id)
        is_as_before = (
            before is not None and before.driver is driver and before.credential.settings == settings
        )
        opened = Opened(
            row=row,
            held=row.held,
            driver=driver,
            manifest=before.manifest if before and is_as_before else driver.manifest_for(settings),
            overrides=found.overrides,
            read_at=began,
            maps={},
        )
        if before is not None:
            opened.keep(before.held)
        return opened

    def _keep(self, tenant_id: UUID, opened: Opened) -> None:
        known = self._cache.setdefault(tenant_id, {})
        known[opened.row.id] = known[opened.row.name] = opened
        self._cache.move_to_end(tenant_id)
        while len(self._cache) > _MOST_CACHED:
            self._cache.popitem(last=False)
