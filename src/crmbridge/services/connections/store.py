"""SQL of connections, tenant_credentials and the birth of lanes."""

from __future__ import annotations

from datetime import datetime
from time import monotonic
from typing import Any
from uuid import UUID

from crmbridge.services.connections.model import ConnectionRow, Credential, CredentialStatus, Held

CREDENTIAL = """
k.id, k.connection_id, c.name as connection, k.driver, k.status, k.settings, k.facts, k.account, k.scopes,
k.missing_rights, k.previous_id, k.row_version, k.created_by, k.created_at, k.tested_at, k.test_error, k.activated_at,
k.rotated_at, k.expires_at, extract(epoch from k.expires_at - clock_timestamp())::float8 as seconds_left
"""

# Connections, with the credential in use.
_OPEN = f"""
select c.id as c_id, c.name as c_name, c.driver as c_driver, c.routes, c.paused_at, k.sealed, {CREDENTIAL}
from connections c
left join tenant_credentials k
    on k.connection_id = c.id and k.status in ('active', 'needs_reauthorization')
where c.closed_at is null
"""  # noqa: S608 - a constant list of columns

_OPEN_BY_NAME = _OPEN + " and c.name = $1"

# The same by id.
_OPEN_BY_ID = _OPEN + " and c.id = $1"

# All connections of the tenant, with the credential in use.
_OPEN_ALL = _OPEN + " order by c.created_at, c.id"

# A connection by name, made when it is not there; answers its id and driver.
_ENSURE = """
insert into connections (id, tenant_id, name, driver, created_by) values ($1, $2, $3, $4, $5)
on conflict (tenant_id, name) do update set name = excluded.name
returning id, driver
"""

# Another driver for a connection that has no credential in use.
_SET_DRIVER = "update connections set driver = $2 where id = $1"

# The lane of a new connection.
_ENSURE_LANE = "insert into lanes (connection_id, tenant_id) values ($1, $2) on conflict do nothing"

_INSERT = """
insert into tenant_credentials
    (id, tenant_id, connection_id, driver, row_version, sealed, settings, previous_id, created_by)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""

# The tokens of one credential, locked until they are renewed. The lock leaves room for a new credential that refers to
# this one; waiting for it ends by itself, should a process hang.
_LOCK_WAIT = "set local lock_timeout = '20s'"
_LOCK = f"""
select k.sealed, extract(epoch from k.token_not_before - clock_timestamp())::float8 as pause, {CREDENTIAL}
from tenant_credentials k join connections c on c.id = k.connection_id
where k.id = $1 for no key update of k
"""  # noqa: S608 - a constant list of columns

# Five minutes before a token ends, or when a fifth of a short life is left; spread, so that tokens given in one hour do
# not fall due in one second.
_AHEAD = """
clock_timestamp() + make_interval(secs => greatest($5::float8 - 300, $5::float8 * 0.8) - random() * $5::float8 * 0.05)
"""

# New tokens over those of the version that was read, and no other.
_SAVE_TOKENS = """
update tenant_credentials set sealed = $3, row_version = row_version + 1, facts = $4, rotated_at = clock_timestamp(),
    expires_at = clock_timestamp() + make_interval(secs => $5), token_not_before = null,
    scopes = coalesce($6, scopes), refresh_due_at = case when $7 then {ahead} end
where id = $1 and row_version = $2 returning row_version
""".replace("{ahead}", _AHEAD)

_ADD_FACTS = "update tenant_credentials set facts = facts || $2 where id = $1"

_RESEAL = """
update tenant_credentials set sealed = $3, row_version = row_version + 1
where id = $1 and row_version = $2 returning row_version
"""

_PAUSE = """
update tenant_credentials set token_not_before = clock_timestamp() + make_interval(secs => $2) where id = $1
"""

_MEND_PAUSES = """
update tenant_credentials set
    token_not_before = greatest(clock_timestamp(), token_not_before - make_interval(secs => $2))
where token_not_before > clock_timestamp() + make_interval(secs => $1)
"""

# What an authorization-code grant brought, on the row just inserted.
_GRANTED = """
update tenant_credentials set facts = $2, scopes = $3, missing_rights = $4,
    expires_at = clock_timestamp() + make_interval(secs => $5), rotated_at = clock_timestamp(),
    refresh_due_at = case when $6 then {ahead} end
where id = $1
""".replace("{ahead}", _AHEAD)

# Tokens to renew now, over all tenants, as the scheduler. The subselect makes the moment one that an index can be
# searched for; by the bare function every token would be read.
_DUE_TOKENS = """
select tenant_id, id from tenant_credentials
where status = 'active' and refresh_due_at <= (select clock_timestamp()) order by refresh_due_at limit $1
"""

_POSTPONE = """
update tenant_credentials set refresh_due_at = clock_timestamp() + make_interval(secs => $2) where id = $1
"""

# One credential with its sealed part, locked against a concurrent change of state.
_READ = f"""
select k.sealed, {CREDENTIAL} from tenant_credentials k join connections c on c.id = k.connection_id
where k.id = $1 for update of k
"""  # noqa: S608 - a constant list of columns

_LOOK = _READ.replace(" for update of k", "")

# All credentials of the tenant, newest first.
_LIST = f"""
select {CREDENTIAL} from tenant_credentials k join connections c on c.id = k.connection_id
order by k.created_at desc, k.id
"""  # noqa: S608

# What a live test brought.
_TESTED = """
update tenant_credentials set tested_at = now(), test_error = $2, account = $3, facts = $4, scopes = $5,
    missing_rights = $6 where id = $1
"""

# The credential in use steps back; it stays usable for a rollback.
_SUPERSEDE = """
update tenant_credentials set status = 'superseded', superseded_at = now()
where connection_id = $1 and status in ('active', 'needs_reauthorization') and id <> $2 returning id
"""

_ACTIVATE = """
update tenant_credentials set status = 'active', activated_at = now(), previous_id = coalesce($2, previous_id)
where id = $1
"""

_REVOKE = "update tenant_credentials set status = 'revoked', revoked_at = now() where id = $1"

# The provider refuses the credential in use; only the row that was used is touched.
_REFUSED = """
update tenant_credentials set status = 'needs_reauthorization'
where id = $1 and row_version = $2 and status = 'active' returning id
"""

# Writes that waited for a credential may go on at once.
_WAKE = """
update lanes set not_before = null, failures = 0,
    next_due = case when exists (select 1 from write_targets t where t.connection_id = $1
                                 and t.state in ('accepted', 'retrying', 'unknown'))
               then now() else next_due end
where connection_id = $1
"""

_PURGE_LINKS = "delete from connect_links where expires_at < now() - interval '7 days'"

_INSERT_LINK = """
insert into connect_links (id, tenant_id, driver, connection, token_hash, created_by, expires_at, settings)
values ($1, $2, $3, $4, $5, $6, now() + make_interval(hours => $7), $8) returning expires_at
"""

# The first browser keeps the link.
_OPEN_LINK = """
update connect_links set cookie_hash = coalesce(cookie_hash, $2)
where token_hash = $1 and used_at is null and expires_at > now() and coalesce(cookie_hash, $2) = $2
returning id, driver, connection, settings, expires_at
"""

_TRY_LINK = """
update connect_links set tries = tries + 1
where id = $1 and used_at is null and expires_at > now() and tries < $2 returning brought
"""

_NOTE_BROUGHT = """
update connect_links set brought = $2, used_at = case when $3 then now() end where id = $1
"""


def _credential(row: Any) -> Credential:
    return Credential(
        id=row["id"],
        connection_id=row["connection_id"],
        connection=row["connection"],
        driver=row["driver"],
        status=CredentialStatus(row["status"]),
        settings=row["settings"],
        facts=row["facts"],
        account=row["account"],
        scopes=list(row["scopes"]),
        missing_rights=list(row["missing_rights"]),
        previous_id=row["previous_id"],
        row_version=row["row_version"],
        created_by=row["created_by"],
        created_at=row["created_at"],
        tested_at=row["tested_at"],
        test_error=row["test_error"],
        activated_at=row["activated_at"],
        rotated_at=row["rotated_at"],
        expires_at=row["expires_at"],
    )


def _held(row: Any) -> Held:
    left = row["seconds_left"]
    expires = None if left is None else monotonic() + left
    return Held(credential=_credential(row), sealed=row["sealed"] or b"", expires=expires)


def connection_from(row: Any) -> ConnectionRow:
    """The connection of a row with the columns of ``_OPEN``."""
    return ConnectionRow(
        id=row["c_id"],
        name=row["c_name"],
        driver=row["c_driver"],
        routes=row["routes"],
        is_paused=row["paused_at"] is not None,
        held=_held(row) if row["status"] else None,
    )


async def read_connection(
    conn: Any, *, name: str = "", connection_id: UUID | None = None
) -> ConnectionRow | None:
    """One connection by name or id."""
    if connection_id is not None:
        row = await conn.fetchrow(_OPEN_BY_ID, connection_id)
    else:
        row = await conn.fetchrow(_OPEN_BY_NAME, name)
    return connection_from(row) if row else None


async def list_connections(conn: Any) -> list[ConnectionRow]:
    """All connections of the tenant."""
    return [connection_from(row) for row in await conn.fetch(_OPEN_ALL)]


async def ensure_connection(
    conn: Any, connection_id: UUID, tenant_id: UUID, name: str, driver: str, actor: str
) -> tuple[UUID, str]:
    """The id and driver of the connection of this name, made with its lane when it is new."""
    row = await conn.fetchrow(_ENSURE, connection_id, tenant_id, name, driver, actor)
    await conn.execute(_ENSURE_LANE, row["id"], tenant_id)
    return row["id"], row["driver"]


async def set_driver(conn: Any, connection_id: UUID, driver: str) -> None:
    """Give the connection another driver."""
    await conn.execute(_SET_DRIVER, connection_id, driver)


async def insert_credential(
    conn: Any,
    *,
    credential_id: UUID,
    tenant_id: UUID,
    connection_id: UUID,
    driver: str,
    row_version: int,
    sealed: bytes,
    settings: dict[str, str],
    previous_id: UUID | None,
    actor: str,
) -> None:
    """A new pending credential."""
    await conn.execute(
        _INSERT,
        credential_id,
        tenant_id,
        connection_id,
        driver,
        row_version,
        sealed,
        settings,
        previous_id,
        actor,
    )


async def read_credential(conn: Any, credential_id: UUID) -> Held | None:
    """One credential and its sealed part, locked until the transaction ends."""
    row = await conn.fetchrow(_READ, credential_id)
    return _held(row) if row else None


async def lock_tokens(conn: Any, credential_id: UUID) -> tuple[Held, float] | None:
    """One credential, locked for new tokens, and the seconds until its token endpoint may be asked (0: now).

    Raises asyncpg.LockNotAvailableError when another process holds it for longer than a token call may take.
    """
    await conn.execute(_LOCK_WAIT)
    row = await conn.fetchrow(_LOCK, credential_id)
    return (_held(row), max(row["pause"] or 0.0, 0.0)) if row else None


async def save_tokens(
    conn: Any,
    credential_id: UUID,
    row_version: int,
    sealed: bytes,
    facts: dict[str, str],
    expires_in: float | None,
    scopes: list[str] | None,
    *,
    is_renewed_ahead: bool,
) -> bool:
    """Put new tokens in place of those of ``row_version``; False when another version stands there."""
    saved = await conn.fetchval(
        _SAVE_TOKENS, credential_id, row_version, sealed, facts, expires_in, scopes, is_renewed_ahead
    )
    return saved is not None


async def add_facts(conn: Any, credential_id: UUID, facts: dict[str, str]) -> None:
    """Facts beside those that are there; the same name is replaced."""
    await conn.execute(_ADD_FACTS, credential_id, facts)


async def reseal(conn: Any, credential_id: UUID, row_version: int, sealed: bytes) -> bool:
    """Other secrets in place of those of ``row_version``; False when another version stands there."""
    return await conn.fetchval(_RESEAL, credential_id, row_version, sealed) is not None


async def mend_pauses(conn: Any, most_seconds: float, seconds: float) -> None:
    """After the database's clock was set back by so many seconds: a token call that waits for longer than
    ``most_seconds`` waits for as long as it did.
    """
    await conn.execute(_MEND_PAUSES, most_seconds, seconds)


async def pause_tokens(conn: Any, credential_id: UUID, seconds: float) -> None:
    """No process asks for a token of this credential for so long."""
    await conn.execute(_PAUSE, credential_id, seconds)


async def save_grant(
    conn: Any,
    credential_id: UUID,
    *,
    facts: dict[str, str],
    scopes: list[str],
    missing_rights: list[str],
    expires_in: float | None,
    is_renewed_ahead: bool,
) -> None:
    """What the consent brought beside the tokens."""
    await conn.execute(_GRANTED, credential_id, facts, scopes, missing_rights, expires_in, is_renewed_ahead)


async def due_tokens(conn: Any, limit: int) -> list[tuple[UUID, UUID]]:
    """(tenant, credential) whose token is to be renewed now, longest due first. For the scheduler's transaction."""
    return [(row["tenant_id"], row["id"]) for row in await conn.fetch(_DUE_TOKENS, limit)]


async def postpone_tokens(conn: Any, credential_id: UUID, seconds: float) -> None:
    """No renewal ahead of expiry for so long."""
    await conn.execute(_POSTPONE, credential_id, seconds)


async def look_at_credential(conn: Any, credential_id: UUID) -> Held | None:
    """One credential and its sealed part, without a lock."""
    row = await conn.fetchrow(_LOOK, credential_id)
    return _held(row) if row else None


async def list_credentials(conn: Any) -> list[Credential]:
    """All credentials of the tenant, newest first."""
    return [_credential(row) for row in await conn.fetch(_LIST)]


async def save_test(
    conn: Any,
    credential_id: UUID,
    *,
    error: dict[str, Any] | None,
    account: str,
    facts: dict[str, str],
    scopes: list[str],
    missing_rights: list[str],
) -> None:
    """Keep what a live test brought."""
    await conn.execute(_TESTED, credential_id, error, account, facts, scopes, missing_rights)


async def activate(conn: Any, connection_id: UUID, credential_id: UUID) -> UUID | None:
    """Make this credential the one in use; answers the id of the one it replaces."""
    previous: UUID | None = await conn.fetchval(_SUPERSEDE, connection_id, credential_id)
    await conn.execute(_ACTIVATE, credential_id, previous)
    await conn.execute(_WAKE, connection_id)
    return previous


async def revoke(conn: Any, credential_id: UUID) -> None:
    """Mark revoked."""
    await conn.execute(_REVOKE, credential_id)


async def mark_refused(conn: Any, credential_id: UUID, row_version: int) -> bool:
    """``active`` becomes ``needs_reauthorization``; False when another process was first."""
    return await conn.fetchval(_REFUSED, credential_id, row_version) is not None


async def insert_link(
    conn: Any,
    link_id: UUID,
    tenant_id: UUID,
    driver: str,
    connection: str,
    token_hash: bytes,
    actor: str,
    hours: int,
    settings: dict[str, str],
) -> datetime:
    """A new connect link; answers when it expires. Links that expired a week ago go."""
    await conn.execute(_PURGE_LINKS)
    expires_at: datetime = await conn.fetchval(
        _INSERT_LINK, link_id, tenant_id, driver, connection, token_hash, actor, hours, settings
    )
    return expires_at


async def open_link(conn: Any, token_hash: bytes, cookie_hash: bytes) -> Any:
    """The link of this token in this browser; None when it is unknown, used, late, or another browser's."""
    return await conn.fetchrow(_OPEN_LINK, token_hash, cookie_hash)


async def try_link(conn: Any, link_id: UUID, most: int) -> Any:
    """Count a try; None when there are none left."""
    return await conn.fetchrow(_TRY_LINK, link_id, most)


async def note_brought(conn: Any, link_id: UUID, brought: UUID, *, is_used: bool) -> None:
    """What came of a link, and whether that was its one use."""
    await conn.execute(_NOTE_BROUGHT, link_id, brought, is_used)
