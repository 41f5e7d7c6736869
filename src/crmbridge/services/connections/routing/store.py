"""SQL of routes and pauses."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from crmbridge.services.connections.routing.table import RouteRow

_ALL = "select id, name, routes from connections where closed_at is null order by created_at, id"
_LOCK = _ALL + " for update"
_SAVE = "update connections set routes = $2 where id = $1"

_PAUSE = """
update connections set paused_at = case when $2 then now() end
where name = $1 and closed_at is null and (paused_at is null) = $2 returning id
"""

# A drain that works on the lane reads this before each batch. What waited is due at once when the pause is over; a
# back-off that was there before goes on.
_PAUSE_LANE = """
update lanes set is_paused = $2,
    next_due = case when not $2 and exists (
        select from write_targets t
        where t.connection_id = $1 and t.state in ('accepted', 'sending', 'retrying', 'unknown'))
        then clock_timestamp() else next_due end
where connection_id = $1
"""

_FIND = "select id from connections where name = $1 and closed_at is null"

_IN_USE = """
select true from tenant_credentials where connection_id = $1 and status in ('active', 'needs_reauthorization')
"""


async def read_routes(conn: Any, *, lock: bool = False) -> list[RouteRow]:
    """All connections of the tenant with their routes, oldest first."""
    rows = await conn.fetch(_LOCK if lock else _ALL)
    return [RouteRow(row["id"], row["name"], row["routes"]) for row in rows]


async def save_routes(conn: Any, row: RouteRow) -> None:
    """What is said of one connection from now on."""
    await conn.execute(_SAVE, row.id, row.routes)


async def set_paused(conn: Any, name: str, is_paused: bool) -> UUID | None:
    """Pause or resume a connection and its lane; None when it stands so already, or is not there."""
    connection_id: UUID | None = await conn.fetchval(_PAUSE, name, is_paused)
    if connection_id is not None:
        await conn.execute(_PAUSE_LANE, connection_id, is_paused)
    return connection_id


async def find_connection(conn: Any, name: str) -> UUID | None:
    """The id of a connection by its name."""
    found: UUID | None = await conn.fetchval(_FIND, name)
    return found


async def has_credential(conn: Any, connection_id: UUID) -> bool:
    """Whether a credential is in use there."""
    return bool(await conn.fetchval(_IN_USE, connection_id))
