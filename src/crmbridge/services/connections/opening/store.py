"""SQL of opening a connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from crmbridge.db.statements import read_sql
from crmbridge.services.connections.model import ConnectionRow
from crmbridge.services.connections.routing.table import RouteRow
from crmbridge.services.connections.store import CREDENTIAL, connection_from
from crmbridge.services.mapping.model import Overrides
from crmbridge.services.mapping.store import overrides_from
from crmbridge.services.tenants.model import Gate, Tenant
from crmbridge.services.vault import store as vault_store
from crmbridge.services.vault.model import WrappedKey

__all__ = ["Found", "find"]

_FIND = (
    read_sql(__package__, "opening.sql")
    .replace("{credential}", CREDENTIAL)
    .replace("{keys}", vault_store.ALONG)
)
# Of nearly all tenants.
_NO_GATE = Gate()
_BY_NAME = _FIND.replace("{which}", "c.name")
_BY_ID = _FIND.replace("{which}", "c.id")


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant as it stands. ``row`` None: no such connection. ``keys`` is empty unless they were asked for."""

    tenant: Tenant
    gate: Gate
    row: ConnectionRow | None
    siblings: Sequence[RouteRow]
    overrides: Overrides
    keys: list[WrappedKey]


async def find(
    conn: Any, setting: str, tenant_id: UUID, which: UUID | str, *, with_keys: bool
) -> Found | None:
    """By the connection's id or name. None when there is no such tenant. For ``Database.alone``."""
    statement = _BY_ID if isinstance(which, UUID) else _BY_NAME
    row = await conn.fetchrow(statement, setting, tenant_id, which, with_keys)
    if row is None:
        return None
    siblings = [RouteRow(UUID(one["id"]), one["name"], one["routes"]) for one in row["siblings"] or ()]
    return Found(
        tenant=msgspec.convert({name: row[f"t_{name}"] for name in Tenant.__struct_fields__}, Tenant),
        gate=_NO_GATE
        if row["g_recorded_at"] is None
        else Gate(**{name: row[f"g_{name}"] for name in Gate.__struct_fields__}),
        row=None if row["c_id"] is None else connection_from(row),
        siblings=siblings,
        overrides=overrides_from(row["rules"] or ()),
        keys=vault_store.read_along(tenant_id, row["keys"] or ()),
    )
