"""Isolation of tenants, tried on every table of the schema by reading the catalogue: a new table is covered at once.

Rows are made by the owner, who passes over triggers, keys and policies (`session_replication_role` needs more, so
row-level security is switched off for the owner only while rows are made, and on again before anything is tried).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from crmbridge.db.pool import Database, connect
from crmbridge.db.roles import APP, SCHEDULER, SCHEMA, RoleDsns

pytestmark = pytest.mark.postgres

A, B = UUID(int=0xA), UUID(int=0xB)

# Tables without a tenant, each with the reason why no tenant policy can or need stand on it.
EXEMPT = {
    "installation_keys": "the installation's own keys, wrapped by the master key; the scheduler role's only",
    "oauth_apps": "the installation's OAuth apps, sealed under the installation key; the scheduler role's only",
    "operators": "people of whoever runs crmbridge, for all tenants; the scheduler role's only",
    "operator_sessions": "their sign-ins, token hashes only; the scheduler role's only",
    "operator_flows": "hashes of states that were used; the scheduler role's only",
}

# What the scheduler role may read across tenants: no customer content in any of them.
OPEN_TO_SCHEDULER = {
    "tenants": "names and slugs: which tenants there are",
    "api_keys": "key hashes and scopes: authentication comes before any tenant is known",
    "incidents": "the operators' list over all tenants; titles and details hold no personal data",
    "lanes": "due times and leases: which lane to drain next",
    "audit_log": "rows without a tenant only (sign-in, operators' keys), by policy",
    "installation_keys": "no tenant",
    "oauth_apps": "no tenant",
    "operators": "no tenant",
    "operator_sessions": "no tenant",
    "operator_flows": "no tenant",
}

# The app role may add to these and read them, and never change or remove a row.
APPEND_ONLY = {"audit_log"}


@dataclass(frozen=True)
class Table:
    name: str
    oid: int
    has_tenant: bool
    is_partition: bool


@pytest.fixture
async def owner(database_dsns: RoleDsns) -> AsyncIterator[Any]:
    conn = await connect(database_dsns.owner)
    yield conn
    await conn.close()


async def all_tables(conn: Any) -> list[Table]:
    rows = await conn.fetch(
        """
        select c.relname as name, c.oid::bigint as oid, c.relispartition as is_partition,
               exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id'
                       and not a.attisdropped) as has_tenant
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = $1 and c.relkind in ('r', 'p', 'f', 'm', 'v')
        order by c.relname
        """,
        SCHEMA,
    )
    return [Table(**row) for row in rows]


async def tenant_tables(conn: Any) -> list[str]:
    """Tables with a tenant_id that are addressed by name; partitions are tried apart."""
    return [table.name for table in await all_tables(conn) if table.has_tenant and not table.is_partition]


# ---------------------------------------------------------------------- rows for any table


async def make_row(conn: Any, table: str, tenant_id: UUID) -> None:
    """Insert a row of this tenant, every required column filled with something its type and checks allow."""
    columns = await conn.fetch(
        """
        select a.attname as name, format_type(a.atttypid, a.atttypmod) as type,
               (select pg_get_constraintdef(k.oid) from pg_constraint k where k.conrelid = a.attrelid
                and k.contype = 'c' and k.conkey = array[a.attnum] limit 1) as rule
        from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where a.attrelid = $1::regclass and a.attnum > 0 and not a.attisdropped
          and a.attgenerated = '' and a.attidentity = ''
          and (a.attname in ('id', 'tenant_id') or (a.attnotnull and d.oid is null))
        """,
        f"{SCHEMA}.{table}",
    )
    values = [
        value_for(column["name"], column["type"], column["rule"] or "", tenant_id) for column in columns
    ]
    names = ", ".join(f'"{column["name"]}"' for column in columns)
    marks = ", ".join(f"${position}" for position in range(1, len(columns) + 1))
    await conn.execute(f"insert into {table} ({names}) values ({marks})", *values)


def value_for(name: str, type_: str, rule: str, tenant_id: UUID) -> Any:
    if name == "tenant_id" or (type_ == "uuid" and name == "id"):
        return tenant_id
    if "ANY (ARRAY[" in rule:
        return rule.split("ARRAY['")[1].split("'")[0]
    simple: dict[str, Any] = {
        "uuid": tenant_id,
        "text": f"t{tenant_id.int}",
        "bytea": tenant_id.bytes,
        "integer": 1,
        "bigint": 1,
        "smallint": 1,
        "boolean": False,
        "jsonb": "{}",
        "text[]": [],
        "uuid[]": [],
    }
    if type_ in simple:
        return simple[type_]
    if type_.startswith("timestamp"):
        from datetime import UTC, datetime

        return datetime.now(UTC)
    raise AssertionError(f"teach value_for the type {type_} of {name}")


@pytest.fixture
async def filled(owner: Any) -> Any:
    """One row of tenant A and one of tenant B in every tenant table."""
    tables = await tenant_tables(owner)
    keys = await owner.fetch(
        """
        select k.conrelid::regclass::text as name, k.conname, pg_get_constraintdef(k.oid) as definition
        from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = $1 and k.contype = 'f' and k.conparentid = 0
        """,
        SCHEMA,
    )
    async with owner.transaction():
        for key in keys:
            await owner.execute(f"alter table {key['name']} drop constraint {key['conname']}")
        for table in tables:
            await owner.execute(f"alter table {table} no force row level security")
        for table in tables:
            for tenant_id in (A, B):
                await make_row(owner, table, tenant_id)
        for table in tables:
            await owner.execute(f"alter table {table} force row level security")
    return owner


# ---------------------------------------------------------------------- the catalogue


async def test_tables_when_listed_then_every_one_has_a_tenant_or_a_reason(owner: Any) -> None:
    tables = await all_tables(owner)
    assert len(tables) > 10
    without = {table.name for table in tables if not table.has_tenant}
    assert without == set(EXEMPT), "a table without tenant_id needs an entry with its reason in EXEMPT"


async def test_tenant_tables_when_read_from_the_catalogue_then_security_is_forced(owner: Any) -> None:
    rows = await owner.fetch(
        """
        select c.relname, c.relrowsecurity, c.relforcerowsecurity, pg_get_userbyid(c.relowner) as owner
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = $1 and c.relkind in ('r', 'p')
        """,
        SCHEMA,
    )
    for row in rows:
        assert row["owner"] == "crmbridge_owner", row
        if row["relname"] not in EXEMPT:
            assert (row["relrowsecurity"], row["relforcerowsecurity"]) == (True, True), row


async def test_policies_when_read_then_the_app_role_has_the_measured_shape_and_nothing_else(
    owner: Any,
) -> None:
    rows = await owner.fetch(
        "select tablename, roles::text[], permissive, cmd, qual, with_check from pg_policies where schemaname = $1",
        SCHEMA,
    )
    shape = (
        "(tenant_id = ANY (( SELECT (NULLIF(current_setting('crmbridge.tenants'::text, true), ''::text))::uuid[] "
        'AS "nullif")::uuid[]))'
    )
    seen = set()
    for row in rows:
        assert set(row["roles"]) <= {APP, SCHEDULER}, row
        if APP in row["roles"]:
            assert row["tablename"] not in seen, "a second policy widens the first"
            seen.add(row["tablename"])
            assert (row["qual"], row["with_check"], row["cmd"]) == (shape, shape, "ALL"), row
    assert seen == set(await tenant_tables(owner))


async def test_columns_when_listed_then_each_has_a_retention_class(owner: Any) -> None:
    rows = await owner.fetch(
        """
        select c.relname || '.' || a.attname as name, col_description(c.oid, a.attnum) as comment
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where n.nspname = $1 and c.relkind in ('r', 'p')
        """,
        SCHEMA,
    )
    allowed = {f"retention: {name}" for name in ("a", "b", "c", "d", "config")}
    wrong = [row["name"] for row in rows if row["comment"] not in allowed]
    assert not wrong, f"columns without a retention class (call declare_retention): {wrong}"


async def test_functions_when_they_run_as_the_owner_then_not_for_everyone(owner: Any) -> None:
    rows = await owner.fetch(
        """
        select p.proname, p.proconfig, has_function_privilege($2, p.oid, 'execute') as by_app
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = $1 and p.prosecdef
        """,
        SCHEMA,
        APP,
    )
    for row in rows:
        assert not row["by_app"], row["proname"]
        assert any(each.startswith("search_path=") for each in row["proconfig"] or ()), row["proname"]


# ---------------------------------------------------------------------- the app role


async def test_app_role_when_no_tenant_is_set_then_no_rows_and_no_inserts(
    filled: Any, database: Database
) -> None:
    for table in await tenant_tables(filled):
        async with database.app.acquire() as conn:
            assert await conn.fetchval(f"select count(*) from {table}") == 0, table
            # An earlier transaction leaves an empty text behind: still no rows, and no error.
            async with conn.transaction():
                await conn.execute("select set_config('crmbridge.tenants', $1, true)", f"{{{A}}}")
            assert await conn.fetchval(f"select count(*) from {table}") == 0, table
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await make_row(conn, table, UUID(int=0xC))


async def test_app_role_when_tenant_a_is_set_then_only_its_rows_are_seen(
    filled: Any, database: Database
) -> None:
    for table in await tenant_tables(filled):
        async with database.tenant(A) as conn:
            rows = await conn.fetch(f"select tenant_id from {table}")
            assert {row["tenant_id"] for row in rows} == {A}, table
            assert await conn.fetchval(f"select count(*) from {table} where tenant_id = $1", B) == 0, table


async def test_app_role_when_tenant_a_is_set_then_b_cannot_be_written(
    filled: Any, database: Database
) -> None:
    for table in await tenant_tables(filled):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.tenant(A) as conn:
                await make_row(conn, table, UUID(int=0xB0B))


async def test_app_role_when_tenant_a_is_set_then_b_cannot_be_changed_or_removed(
    filled: Any, database: Database
) -> None:
    for table in await tenant_tables(filled):
        if table in APPEND_ONLY:
            continue
        async with database.tenant(A) as conn:
            column = await _any_column(filled, table)
            assert (
                await conn.execute(f"update {table} set {column} = {column} where tenant_id = $1", B)
                == "UPDATE 0"
            )
            assert await conn.execute(f"update {table} set {column} = {column}") == "UPDATE 1", table
            assert await conn.execute(f"delete from {table} where tenant_id = $1", B) == "DELETE 0"
            await conn.execute(f"delete from {table}")
    for table in await tenant_tables(filled):
        async with database.tenant(B) as conn:
            assert await conn.fetchval(f"select count(*) from {table}") == 1, table


async def test_app_role_when_it_moves_its_row_to_b_then_refused(filled: Any, database: Database) -> None:
    for table in await tenant_tables(filled):
        if table in APPEND_ONLY:
            continue
        column = "id" if table == "tenants" else "tenant_id"
        with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.UniqueViolationError)) as caught:
            async with database.tenant(A) as conn:
                await conn.execute(f"update {table} set {column} = $1", UUID(int=0xB0B))
        assert isinstance(caught.value, asyncpg.InsufficientPrivilegeError), table


async def test_app_role_when_it_goes_for_a_partition_or_truncates_then_refused(
    filled: Any, database: Database
) -> None:
    for table in await all_tables(filled):
        async with database.app.acquire() as conn:
            if table.is_partition:
                async with conn.transaction():
                    await conn.execute("select set_config('crmbridge.tenants', $1, true)", f"{{{A},{B}}}")
                    try:
                        async with conn.transaction():
                            assert await conn.fetchval(f"select count(*) from {table.name}") == 0, table
                            assert await conn.execute(f"delete from {table.name}") == "DELETE 0", table
                    except asyncpg.InsufficientPrivilegeError:
                        pass
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.execute(f"truncate {table.name} cascade")


async def test_app_role_when_it_makes_tables_or_switches_security_off_then_refused(
    database: Database,
) -> None:
    for statement in (
        f"create table {SCHEMA}.mine (id int)",
        "create table public.mine (id int)",
        "alter table writes disable row level security",
        "alter table audit_log disable trigger all",
        "set session_replication_role = replica",
        f"set role {SCHEDULER}",
        "set role crmbridge_owner",
    ):
        async with database.app.acquire() as conn:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.execute(statement)


async def test_app_role_when_it_asks_for_exempt_tables_then_refused(database: Database) -> None:
    for table in EXEMPT:
        async with database.app.acquire() as conn:
            for statement in (f"select * from {table}", f"delete from {table}"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await conn.execute(statement)


# ---------------------------------------------------------------------- the scheduler role


async def test_scheduler_role_when_it_reads_tables_then_only_those_without_content(
    filled: Any, database: Database
) -> None:
    for table in await all_tables(filled):
        async with database.scheduler.acquire() as conn:
            if table.name in OPEN_TO_SCHEDULER:
                await conn.fetch(f"select * from {table.name}")
                continue
            for statement in (f"select * from {table.name}", f"delete from {table.name}"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await conn.execute(statement)


async def test_scheduler_role_when_columns_are_content_then_none_is_readable(owner: Any) -> None:
    rows = await owner.fetch(
        """
        select c.relname || '.' || a.attname as name
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where n.nspname = $1 and col_description(c.oid, a.attnum) = 'retention: c'
          and has_column_privilege($2, c.oid, a.attnum, 'select')
        """,
        SCHEMA,
        SCHEDULER,
    )
    assert [row["name"] for row in rows] == []


async def test_scheduler_role_when_it_reads_the_audit_log_then_system_rows_only(
    filled: Any, database: Database
) -> None:
    async with database.system() as conn:
        assert await conn.fetchval("select count(*) from audit_log") == 0
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with database.system() as conn:
            await make_row(conn, "audit_log", A)


# ---------------------------------------------------------------------- append-only


async def test_audit_log_when_even_the_owner_changes_it_then_refused(filled: Any) -> None:
    await filled.execute("alter table audit_log no force row level security")
    partitions = await audit_partitions(filled)
    for partition in partitions:
        await filled.execute(f"alter table {partition} no force row level security")
    for table in ("audit_log", *partitions):
        if table == "audit_log" or await filled.fetchval(f"select count(*) from {table}"):
            for statement in (f"update {table} set actor = 'x'", f"delete from {table}"):
                with pytest.raises(asyncpg.RestrictViolationError):
                    await filled.execute(statement)
    with pytest.raises(asyncpg.RestrictViolationError):
        await filled.execute("truncate audit_log")
    assert await filled.fetchval("select count(*) from audit_log") == 2


async def test_audit_partitions_when_the_owner_truncates_one_then_refused(filled: Any) -> None:
    for partition in await audit_partitions(filled):
        with pytest.raises(asyncpg.RestrictViolationError):
            await filled.execute(f"truncate {partition}")


async def audit_partitions(conn: Any) -> list[str]:
    names = [table.name for table in await all_tables(conn) if table.name.startswith("audit_log_")]
    assert len(names) >= 4
    return names


async def test_audit_log_when_the_app_changes_it_then_refused(filled: Any, database: Database) -> None:
    for statement in ("update audit_log set actor = 'x'", "delete from audit_log"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.tenant(A) as conn:
                await conn.execute(statement)


async def _any_column(conn: Any, table: str) -> str:
    name: str = await conn.fetchval(
        """
        select attname from pg_attribute where attrelid = $1::regclass and attnum > 0 and not attisdropped
          and attgenerated = '' and attidentity = '' order by attnum desc limit 1
        """,
        f"{SCHEMA}.{table}",
    )
    return name
