"""Roles, rights and refusals."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from tests.conftest import PostgresServer

from crmbridge.db.errors import DatabaseMisconfigured
from crmbridge.db.pool import Database, connect
from crmbridge.db.roles import RoleDsns, check_role, create_roles, dsn_for

pytestmark = pytest.mark.postgres


def admin_in(server: PostgresServer, dsns: RoleDsns) -> str:
    return urlunsplit(urlsplit(server.admin_dsn)._replace(path=urlsplit(dsns.app).path))


async def test_check_role_when_app_and_scheduler_then_accepted(database: Database) -> None:
    for pool in (database.app, database.scheduler):
        async with pool.acquire() as conn:
            await check_role(conn)


async def test_check_role_when_superuser_or_owner_then_refused(
    postgres: PostgresServer, database_dsns: RoleDsns
) -> None:
    for dsn, reason in (
        (admin_in(postgres, database_dsns), "superuser"),
        (database_dsns.owner, "owns tables"),
    ):
        conn = await connect(dsn)
        with pytest.raises(DatabaseMisconfigured, match=reason):
            await check_role(conn)
        await conn.close()


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("alter role probe bypassrls", "has BYPASSRLS"),
        ("grant crmbridge_owner to probe", "owns tables"),
        ("create role probe_parent bypassrls; grant probe_parent to probe", "may act as"),
    ],
)
async def test_check_role_when_role_could_pass_isolation_by_then_refused(
    postgres: PostgresServer, database_dsns: RoleDsns, statement: str, reason: str
) -> None:
    dsn = admin_in(postgres, database_dsns)
    admin = await connect(dsn)
    name = dsn_for(dsn, user="probe", password="probe-secret", database=urlsplit(dsn).path[1:])
    # One admin session and one cluster per pytest process, but a shared server may run several.
    await admin.execute("select pg_advisory_lock(7263)")
    try:
        await admin.execute("drop role if exists probe; drop role if exists probe_parent")
        await admin.execute("create role probe login password 'probe-secret'")
        await admin.execute(f'grant connect on database "{urlsplit(dsn).path[1:]}" to probe; {statement}')
        conn = await connect(name)
        with pytest.raises(DatabaseMisconfigured, match=reason):
            await check_role(conn)
        await conn.close()
    finally:
        await admin.execute("drop owned by probe; drop role probe; drop role if exists probe_parent")
        await admin.close()


async def test_create_roles_when_run_again_and_at_once_then_nothing_changes(
    postgres: PostgresServer, database_dsns: RoleDsns
) -> None:
    name = urlsplit(database_dsns.app).path[1:]
    answers = await asyncio.gather(
        *(create_roles(postgres.admin_dsn, postgres.passwords, database=name) for _ in range(3))
    )
    assert set(answers) == {database_dsns}
    conn = await connect(database_dsns.app)
    assert await conn.fetchval("show search_path") == "crmbridge"
    await conn.close()


async def test_create_roles_when_admin_is_not_superuser_then_works_as_on_a_managed_server(
    postgres: PostgresServer,
) -> None:
    admin = await connect(postgres.admin_dsn)
    await admin.execute("drop database if exists crmbridge_managed with (force)")
    await admin.execute("drop role if exists managed")
    await admin.execute("create role managed login createrole createdb password 'managed-secret'")
    await admin.execute(
        "grant crmbridge_owner, crmbridge_app, crmbridge_scheduler to managed with admin option"
    )
    dsn = dsn_for(postgres.admin_dsn, user="managed", password="managed-secret", database="postgres")
    try:
        dsns = await create_roles(dsn, postgres.passwords, database="crmbridge_managed")
        conn = await connect(dsns.app)
        await check_role(conn)
        await conn.close()
    finally:
        await admin.execute("drop database if exists crmbridge_managed with (force)")
        await admin.execute("drop owned by managed; drop role managed")
        await admin.close()


async def test_create_roles_when_admin_lacks_rights_then_error_names_them(
    postgres: PostgresServer, database_dsns: RoleDsns
) -> None:
    with pytest.raises(DatabaseMisconfigured, match="CREATEROLE"):
        await create_roles(database_dsns.app, postgres.passwords, database="crmbridge_never")


async def test_roles_when_inspected_then_own_nothing_and_have_no_power(
    postgres: PostgresServer, database: Database
) -> None:
    for name, pool in (("crmbridge_app", database.app), ("crmbridge_scheduler", database.scheduler)):
        row = await pool.fetchrow("select * from pg_roles where rolname = $1", name)
        powers = ("rolsuper", "rolbypassrls", "rolcreaterole", "rolcreatedb", "rolreplication")
        assert not any(row[power] for power in powers)
        assert await pool.fetchval("select count(*) from pg_class where relowner = $1", row["oid"]) == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await pool.execute("create table crmbridge.mine (id int)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await pool.execute("create table public.mine (id int)")


async def test_app_when_owner_makes_a_table_then_closed_until_granted(
    database: Database, database_dsns: RoleDsns
) -> None:
    owner = await connect(database_dsns.owner)
    await owner.execute("create table later (id serial primary key, word text)")
    for pool in (database.app, database.scheduler):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await pool.fetch("select * from later")
    await owner.execute("grant select, insert, update, delete on later to crmbridge_app")
    await owner.close()
    await database.app.execute(
        "insert into later (word) values ('a'); update later set word = 'b'; delete from later"
    )
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await database.app.execute("truncate later")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await database.app.fetch("select * from crmbridge_jobs.pgqueuer")
