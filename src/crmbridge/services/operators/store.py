"""SQL of operators and their sessions. Every function takes a connection of ``db.system()``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from crmbridge.services.operators.model import Operator, Session

_COLUMNS = """o.id, o.email, o.name, o.role, o.created_by, o.created_at, o.password_changed_at, o.disabled_at,
    o.locked_until, o.signed_in_at"""

_INSERT = f"""
insert into operators as o (id, email, name, role, password_hash, created_by)
values ($1, $2, $3, $4, $5, $6) returning {_COLUMNS}
"""  # noqa: S608 - column names only

_SELECT_ALL = f"select {_COLUMNS} from operators o order by o.email"  # noqa: S608

_SELECT = f"select {_COLUMNS} from operators o where o.id = $1"  # noqa: S608

_SELECT_BY_EMAIL = f"select {_COLUMNS} from operators o where o.email = $1"  # noqa: S608

# Whoever takes the last admin away must wait for whoever else is about to.
_LOCK_ADMINS = "select id from operators where role = 'admin' and disabled_at is null order by id for update"

_SET_DISABLED = f"""
update operators o set disabled_at = case when $2 then coalesce(disabled_at, now()) end
where id = $1 returning {_COLUMNS}
"""  # noqa: S608

_SET_ROLE = f"update operators o set role = $2 where id = $1 returning {_COLUMNS}"  # noqa: S608

_SET_PASSWORD = f"""
update operators o set password_hash = $2, password_changed_at = now(), failed_count = 0, locked_until = null
where id = $1 returning {_COLUMNS}
"""  # noqa: S608

_REHASH = "update operators set password_hash = $3 where id = $1 and password_hash = $2"

_ATTEMPT = """
select id, password_hash, failed_count from operators
where email = $1 and disabled_at is null and coalesce(locked_until <= clock_timestamp(), true) for update
"""

_COUNT_ATTEMPT = """
update operators set failed_count = failed_count + 1,
    locked_until = case when $2 > 0 then clock_timestamp() + make_interval(secs => $2) end
where id = $1
"""

_SIGNED_IN = """
update operators set failed_count = 0, locked_until = null, signed_in_at = now() where id = $1
"""

# A pause after wrong passwords goes on: whoever tries them is somebody else.
_SIGNED_IN_ELSEWHERE = "update operators set signed_in_at = now() where id = $1"

_SELECT_BY_SUBJECT = f"select {_COLUMNS} from operators o where o.oidc_subject = $1 for update"  # noqa: S608

_BIND_SUBJECT = f"""
update operators as o set oidc_subject = $2
where o.email = $1 and o.oidc_subject is null and o.disabled_at is null returning {_COLUMNS}
"""  # noqa: S608

_SPEND_FLOW = """
insert into operator_flows (state_hash, expires_at) values ($1, to_timestamp($2)) on conflict do nothing
"""

_END_OLD_FLOWS = "delete from operator_flows where expires_at <= now()"

_INSERT_SESSION = """
insert into operator_sessions (id, operator_id, token_hash, user_agent, expires_at)
values ($1, $2, $3, $4, now() + make_interval(secs => $5))
"""

_SESSION = f"""
select s.id as session_id, s.created_at as session_created_at, s.expires_at,
    s.seen_at < now() - interval '1 minute' as is_stale, {_COLUMNS}
from operator_sessions s join operators o on o.id = s.operator_id
where s.token_hash = $1 and o.disabled_at is null and s.expires_at > now()
  and s.seen_at > now() - make_interval(secs => $2)
"""  # noqa: S608

_SEE = "update operator_sessions set seen_at = now() where id = $1"

_END_OLD = """
delete from operator_sessions where expires_at <= now() or seen_at <= now() - make_interval(secs => $1)
"""

_END_OF = "delete from operator_sessions where operator_id = $1 and id is distinct from $2"


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """An operator who may try to sign in now."""

    id: UUID
    password_hash: str
    failed_count: int


def _operator(row: Mapping[str, Any] | None) -> Operator | None:
    if row is None:
        return None
    return msgspec.convert({name: row[name] for name in Operator.__struct_fields__}, Operator)


async def insert(
    conn: Any, operator_id: UUID, email: str, name: str, role: str, password_hash: str, created_by: str
) -> Operator | None:
    """None when the e-mail address is taken."""
    try:
        row = await conn.fetchrow(_INSERT, operator_id, email, name, role, password_hash, created_by)
    except asyncpg.UniqueViolationError:
        return None
    return _operator(row)


async def select_all(conn: Any) -> list[Operator]:
    """In order of e-mail address, disabled ones included."""
    return [found for row in await conn.fetch(_SELECT_ALL) if (found := _operator(row)) is not None]


async def select(conn: Any, operator_id: UUID) -> Operator | None:
    """By id."""
    return _operator(await conn.fetchrow(_SELECT, operator_id))


async def select_by_email(conn: Any, email: str) -> Operator | None:
    """By e-mail address."""
    return _operator(await conn.fetchrow(_SELECT_BY_EMAIL, email))


async def are_there(conn: Any) -> bool:
    """Whether anyone may sign in."""
    return bool(await conn.fetchval("select exists (select from operators where disabled_at is null)"))


async def lock_admins(conn: Any) -> set[UUID]:
    """The ids of all admins who are not disabled, held until the transaction ends."""
    return {row["id"] for row in await conn.fetch(_LOCK_ADMINS)}


async def set_disabled(conn: Any, operator_id: UUID, is_disabled: bool) -> Operator | None:
    """Disable, or enable again."""
    return _operator(await conn.fetchrow(_SET_DISABLED, operator_id, is_disabled))


async def set_role(conn: Any, operator_id: UUID, role: str) -> Operator | None:
    """Give another role."""
    return _operator(await conn.fetchrow(_SET_ROLE, operator_id, role))


async def set_password(conn: Any, operator_id: UUID, password_hash: str) -> Operator | None:
    """A new password ends the pause after failures."""
    return _operator(await conn.fetchrow(_SET_PASSWORD, operator_id, password_hash))


async def password_hash_of(conn: Any, operator_id: UUID) -> str:
    """For checking the present password again; empty for an unknown id."""
    return await conn.fetchval("select password_hash from operators where id = $1", operator_id) or ""


async def rehash(conn: Any, operator_id: UUID, before: str, password_hash: str) -> None:
    """The same password under stronger parameters, unless it was changed meanwhile."""
    await conn.execute(_REHASH, operator_id, before, password_hash)


async def attempt(conn: Any, email: str) -> Attempt | None:
    """Who signs in with this address, locked until the attempt is counted; None when nobody may try now."""
    row = await conn.fetchrow(_ATTEMPT, email)
    return None if row is None else Attempt(**row)


async def count_attempt(conn: Any, operator_id: UUID, pause_seconds: int) -> None:
    """One failure more, until the password proves right."""
    await conn.execute(_COUNT_ATTEMPT, operator_id, float(pause_seconds))


async def signed_in(conn: Any, operator_id: UUID) -> None:
    """The count of failures begins anew."""
    await conn.execute(_SIGNED_IN, operator_id)


async def signed_in_elsewhere(conn: Any, operator_id: UUID) -> None:
    """The time of the last sign-in; a count of wrong passwords stays."""
    await conn.execute(_SIGNED_IN_ELSEWHERE, operator_id)


async def select_by_subject(conn: Any, subject: str) -> Operator | None:
    """By the identity at a provider that is bound to the operator, locked."""
    return _operator(await conn.fetchrow(_SELECT_BY_SUBJECT, subject))


async def bind_subject(conn: Any, email: str, subject: str) -> Operator | None:
    """Bind an identity; None when nobody enabled has this address, or who has it is bound to another identity."""
    return _operator(await conn.fetchrow(_BIND_SUBJECT, email, subject))


async def spend_flow(conn: Any, state_hash: bytes, expires: float) -> bool:
    """False when this state was used already. ``expires`` is seconds since 1970; older rows go."""
    await conn.execute(_END_OLD_FLOWS)
    spent: str = await conn.execute(_SPEND_FLOW, state_hash, float(expires))
    return spent != "INSERT 0 0"


async def insert_session(
    conn: Any, session_id: UUID, operator_id: UUID, token_hash: bytes, user_agent: str, seconds: float
) -> None:
    """A session of so many seconds at most."""
    await conn.execute(_INSERT_SESSION, session_id, operator_id, token_hash, user_agent, float(seconds))


async def session(conn: Any, token_hash: bytes, idle_seconds: float) -> Session | None:
    """The session that holds, marked as seen (once a minute at most); None when it has ended."""
    row = await conn.fetchrow(_SESSION, token_hash, float(idle_seconds))
    operator = _operator(row)
    if row is None or operator is None:
        return None
    if row["is_stale"]:
        await conn.execute(_SEE, row["session_id"])
    return Session(
        id=row["session_id"],
        operator=operator,
        created_at=row["session_created_at"],
        expires_at=row["expires_at"],
    )


async def end_session(conn: Any, session_id: UUID) -> bool:
    """False when it had ended already."""
    ended: str = await conn.execute("delete from operator_sessions where id = $1", session_id)
    return ended != "DELETE 0"


async def end_sessions_of(conn: Any, operator_id: UUID, but: UUID | None = None) -> None:
    """All sessions of an operator, or all but one."""
    await conn.execute(_END_OF, operator_id, but)


async def end_old_sessions(conn: Any, idle_seconds: float) -> None:
    """What has expired or was idle too long."""
    await conn.execute(_END_OLD, float(idle_seconds))
