"""SQL of oauth_states and oauth_apps."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from crmbridge.services.oauth.model import App

_PURGE = "delete from oauth_states where expires_at < now()"

_INSERT = """
insert into oauth_states
    (id, tenant_id, driver, connection, settings, sealed, handle_hash, actor, expires_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, now() + make_interval(secs => $9))
returning expires_at
"""

# A link that may still be visited.
_VISIT = """
select id, driver, settings, sealed from oauth_states
where handle_hash = $1 and used_at is null and expires_at > now()
"""

_BIND = """
update oauth_states set state_hash = $2, cookie_hash = $3, sealed = $4
where id = $1 and used_at is null and expires_at > now() returning true
"""

# The one use of a state, in the browser that holds the cookie.
_USE = """
update oauth_states set used_at = now()
where state_hash = $1 and cookie_hash = $2 and used_at is null and expires_at > now()
returning id, tenant_id, driver, connection, settings, sealed, actor
"""

# Why a state was not taken.
_WHY = """
select used_at is not null as is_used, expires_at <= now() as is_late from oauth_states where state_hash = $1
"""

_FAIL = "update oauth_states set failure = $2, sealed = '' where id = $1"

_READ = "select expires_at, expires_at <= now() as is_late, used_at, failure from oauth_states where id = $1"

_SAVE_APP = """
insert into oauth_apps (driver, client_id, sealed, updated_by) values ($1, $2, $3, $4)
on conflict (driver) do update set client_id = excluded.client_id, sealed = excluded.sealed,
    updated_by = excluded.updated_by, updated_at = now()
returning driver, client_id, updated_by, updated_at
"""


async def insert_state(
    conn: Any,
    *,
    flow_id: UUID,
    tenant_id: UUID,
    driver: str,
    connection: str,
    settings: dict[str, str],
    sealed: bytes,
    handle_hash: bytes,
    actor: str,
    seconds: float,
) -> datetime:
    """A new link; answers when it expires. Expired ones of the tenant go."""
    await conn.execute(_PURGE)
    expires_at: datetime = await conn.fetchval(
        _INSERT, flow_id, tenant_id, driver, connection, settings, sealed, handle_hash, actor, seconds
    )
    return expires_at


async def visit(conn: Any, handle_hash: bytes) -> Any:
    """The row behind a link; None when it is unknown, used or late."""
    return await conn.fetchrow(_VISIT, handle_hash)


async def bind(conn: Any, flow_id: UUID, state_hash: bytes, cookie_hash: bytes, sealed: bytes) -> bool:
    """Give the flow its state, cookie and verifier; those of an earlier visit stop working. False when it is over."""
    return await conn.fetchval(_BIND, flow_id, state_hash, cookie_hash, sealed) is True


async def use(conn: Any, state_hash: bytes, cookie_hash: bytes) -> Any:
    """Take the state, once. None when it cannot be taken."""
    return await conn.fetchrow(_USE, state_hash, cookie_hash)


async def why_refused(conn: Any, state_hash: bytes) -> Any:
    """``is_used`` and ``is_late`` of a state, None when it is not there."""
    return await conn.fetchrow(_WHY, state_hash)


async def fail(conn: Any, flow_id: UUID, failure: dict[str, Any]) -> None:
    """Keep why nothing came of it, for whoever waits; the sealed part goes."""
    await conn.execute(_FAIL, flow_id, failure)


async def finish(conn: Any, flow_id: UUID) -> None:
    """Remove a flow that has become a credential."""
    await conn.execute("delete from oauth_states where id = $1", flow_id)


async def read_state(conn: Any, flow_id: UUID) -> Any:
    """How far a flow is."""
    return await conn.fetchrow(_READ, flow_id)


async def save_app(conn: Any, driver: str, client_id: str, sealed: bytes, actor: str) -> App:
    """Set the app of a driver."""
    return App(**await conn.fetchrow(_SAVE_APP, driver, client_id, sealed, actor))


async def list_apps(conn: Any) -> list[App]:
    """All apps, by driver."""
    rows = await conn.fetch(
        "select driver, client_id, updated_by, updated_at from oauth_apps order by driver"
    )
    return [App(**row) for row in rows]


async def read_app(conn: Any, driver: str) -> Any:
    """``sealed`` of one app, None when there is none."""
    return await conn.fetchval("select sealed from oauth_apps where driver = $1", driver)


async def delete_app(conn: Any, driver: str) -> bool:
    """Remove; False when there was none."""
    return await conn.fetchval("delete from oauth_apps where driver = $1 returning true", driver) is True
