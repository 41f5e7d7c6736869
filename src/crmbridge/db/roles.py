"""The three database roles, their database, and the check that `serve` makes before it trusts a role.

=====================  ===========================================================================
role                   rights
=====================  ===========================================================================
``crmbridge_owner``    owns the database, both schemas and every table; runs migrations only
``crmbridge_app``      select, insert, update, delete on tables of schema ``crmbridge``, under forced
                       row-level security; owns nothing
``crmbridge_scheduler``  what migrations grant it on content-free tables, and the job engine's tables
=====================  ===========================================================================

None of them is a superuser, may create roles or databases, or passes row-level security by.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import asyncpg

from crmbridge.db.errors import DatabaseMisconfigured
from crmbridge.db.pool import connect

__all__ = [
    "APP",
    "JOBS_SCHEMA",
    "OWNER",
    "SCHEDULER",
    "SCHEMA",
    "RoleDsns",
    "RolePasswords",
    "check_role",
    "create_roles",
    "dsn_for",
    "prepare_database",
]

OWNER = "crmbridge_owner"
APP = "crmbridge_app"
SCHEDULER = "crmbridge_scheduler"
SCHEMA = "crmbridge"
JOBS_SCHEMA = "crmbridge_jobs"

_LOCK = 0x63726D62_726F6C65  # "crmbrole": one initialiser at a time
_ATTRIBUTES = "login nosuperuser nobypassrls nocreaterole nocreatedb noreplication"

_RIGHTS = f"""
set role {OWNER};
create schema if not exists {SCHEMA};
create schema if not exists {JOBS_SCHEMA};
revoke all on schema public, {SCHEMA}, {JOBS_SCHEMA} from public;
grant usage on schema {SCHEMA} to {APP}, {SCHEDULER};
grant usage on schema {JOBS_SCHEMA} to {SCHEDULER};
alter default privileges in schema {SCHEMA} grant usage, select on sequences to {APP};
reset role;
"""


@dataclass(frozen=True)
class RolePasswords:
    """One password per role, 32 URL-safe characters when generated (192 random bits)."""

    owner: str = field(repr=False)
    app: str = field(repr=False)
    scheduler: str = field(repr=False)

    @classmethod
    def generate(cls) -> RolePasswords:
        return cls(*(secrets.token_urlsafe(24) for _ in range(3)))


@dataclass(frozen=True)
class RoleDsns:
    """The addresses to save: they hold passwords, so they are left out of ``repr``."""

    owner: str = field(repr=False)
    app: str = field(repr=False)
    scheduler: str = field(repr=False)


def dsn_for(dsn: str, *, user: str, password: str, database: str) -> str:
    """Return ``dsn`` with another user, password and database; host, port and options are kept."""
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    query = [
        (key, value) for key, value in parse_qsl(parts.query) if key not in ("user", "password", "dbname")
    ]
    netloc = f"{quote(user, safe='')}:{quote(password, safe='')}@{host}"
    return urlunsplit(("postgresql", netloc, f"/{quote(database, safe='')}", urlencode(query, safe="/"), ""))


def quoted(name: str) -> str:
    """Return an SQL identifier, quoted."""
    return '"' + name.replace('"', '""') + '"'


async def create_roles(
    admin_dsn: str, passwords: RolePasswords, *, database: str = "crmbridge", template: str = "template0"
) -> RoleDsns:
    """Create the roles, the database, its schemas and rights; safe to run again and by several at once.

    ``admin_dsn`` names a role that may create roles and databases (a superuser, or CREATEROLE and CREATEDB on a
    managed server). Passwords are set to the given ones even where the role exists already.
    Raises ``DatabaseUnavailable`` or ``DatabaseMisconfigured``.
    """
    admin = await connect(admin_dsn)
    try:
        # Roles belong to the whole server, so two databases being initialised at once must take turns.
        await admin.execute("select pg_advisory_lock($1)", _LOCK)
        await _write_roles(admin, passwords)
        await _create_database(admin, database, template)
    except asyncpg.InsufficientPrivilegeError as error:
        raise DatabaseMisconfigured(
            f"The admin role may not create roles or databases: {error}. Use one with CREATEROLE and CREATEDB."
        ) from None
    finally:
        await admin.close()
    parts = urlsplit(admin_dsn)
    admin_there = urlunsplit(parts._replace(path=f"/{quote(database, safe='')}"))
    await prepare_database(admin_there)
    return RoleDsns(
        owner=dsn_for(admin_dsn, user=OWNER, password=passwords.owner, database=database),
        app=dsn_for(admin_dsn, user=APP, password=passwords.app, database=database),
        scheduler=dsn_for(admin_dsn, user=SCHEDULER, password=passwords.scheduler, database=database),
    )


async def _write_roles(admin: Any, passwords: RolePasswords) -> None:
    present = {row["rolname"] for row in await admin.fetch("select rolname from pg_roles")}
    for name, password in ((OWNER, passwords.owner), (APP, passwords.app), (SCHEDULER, passwords.scheduler)):
        verb = "alter" if name in present else "create"
        # DDL takes no parameters; quote_literal on the server is the safe way to place the password.
        literal = await admin.fetchval("select quote_literal($1::text)", password)
        await admin.execute(
            f"{verb} role {name} {_ATTRIBUTES if verb == 'create' else 'login'} password {literal}"
        )
    if not await admin.fetchval("select rolsuper from pg_roles where rolname = current_user"):
        await admin.execute(f"grant {OWNER} to current_user")


async def _create_database(admin: Any, database: str, template: str) -> None:
    if await admin.fetchval("select true from pg_database where datname = $1", database):
        return
    locale = ""
    if template == "template0":
        new = int(admin.get_server_version().major) >= 17
        locale = "encoding 'UTF8' " + (
            "locale_provider builtin builtin_locale 'C.UTF-8' lc_collate 'C' lc_ctype 'C'"
            if new
            else "lc_collate 'C'"
        )
    await admin.execute(
        f"create database {quoted(database)} owner {OWNER} template {quoted(template)} {locale}"
    )


async def prepare_database(admin_dsn: str) -> None:
    """Create schemas and rights inside the database that ``admin_dsn`` names, and the roles' search paths in it.

    A database made from a template keeps its tables and grants but loses what is set per role and database:
    this sets both again.
    """
    conn = await connect(admin_dsn)
    try:
        name = quoted(await conn.fetchval("select current_database()"))
        paths = {OWNER: SCHEMA, APP: SCHEMA, SCHEDULER: f"{SCHEMA}, {JOBS_SCHEMA}"}
        await conn.execute(
            f"revoke all on database {name} from public;"
            f"grant connect on database {name} to {OWNER}, {APP}, {SCHEDULER};"
            + "".join(
                f"alter role {role} in database {name} set search_path = {path};"
                for role, path in paths.items()
            )
            # All that this role reads it finds by an index. A plan made while a table was small would read it whole,
            # and stay until the next analyze.
            + f"alter role {APP} in database {name} set enable_seqscan = off;"
            + _RIGHTS
        )
    finally:
        await conn.close()


async def check_role(conn: Any) -> None:
    """Refuse to serve as a superuser, a BYPASSRLS role, or one that owns our tables or may become their owner.

    Raises ``DatabaseMisconfigured`` naming the role and the reason. `serve` and `worker` call it for the app and
    for the scheduler connection: row-level security does not bind any of these roles.
    """
    row = await conn.fetchrow(
        """
        select r.rolname as name, r.rolsuper, r.rolbypassrls,
               exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                       where n.nspname = any($1::text[]) and pg_has_role(r.oid, c.relowner, 'member')) as owns,
               exists (select from pg_roles o where (o.rolsuper or o.rolbypassrls or o.rolname = $2)
                       and o.rolname <> r.rolname and pg_has_role(r.oid, o.oid, 'member')) as may_become
        from pg_roles r where r.rolname = current_user
        """,
        [SCHEMA, JOBS_SCHEMA],
        OWNER,
    )
    reason = (
        "is a superuser"
        if row["rolsuper"]
        else "has BYPASSRLS"
        if row["rolbypassrls"]
        else "owns tables of crmbridge"
        if row["owns"]
        else "may act as the owner, a superuser or a BYPASSRLS role"
        if row["may_become"]
        else ""
    )
    if reason:
        raise DatabaseMisconfigured(
            f"Role {row['name']} {reason}, so row-level security would not keep tenants apart. "
            f"Use the {APP} and {SCHEDULER} addresses that `crmbridge db init` printed."
        )
