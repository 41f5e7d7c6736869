"""Tenant transactions, codecs, isolation by row-level security, clear errors."""

from __future__ import annotations

import asyncio
import os
from uuid import UUID, uuid4

import asyncpg
import pytest

from crmbridge.db.errors import DatabaseMisconfigured, DatabaseUnavailable
from crmbridge.db.pool import Database, connect, savepoint
from crmbridge.db.roles import RoleDsns

pytestmark = pytest.mark.postgres

# The policy of the migrations, on a table of our own: the test holds whatever tables they make.
_SCRATCH = """
create table scratch (id serial primary key, tenant_id uuid not null, word text not null);
alter table scratch enable row level security;
alter table scratch force row level security;
create policy tenant_only on scratch
  using (tenant_id = any((select nullif(current_setting('crmbridge.tenants', true), '')::uuid[])::uuid[]));
grant select, insert, update, delete on scratch to crmbridge_app;
grant usage on sequence scratch_id_seq to crmbridge_app;
create table plain (id int primary key, body jsonb, who uuid);
grant all on plain to crmbridge_app, crmbridge_scheduler;
"""


@pytest.fixture
async def scratch(database: Database, database_dsns: RoleDsns) -> tuple[Database, UUID, UUID]:
    owner = await connect(database_dsns.owner)
    await owner.execute(_SCRATCH)
    await owner.close()
    ours, theirs = uuid4(), uuid4()
    for tenant, word in ((ours, "ours"), (theirs, "theirs")):
        async with database.tenant(tenant) as conn:
            await conn.execute("insert into scratch (tenant_id, word) values ($1, $2)", tenant, word)
    return database, ours, theirs


async def test_tenant_when_set_then_only_its_rows(scratch: tuple[Database, UUID, UUID]) -> None:
    database, ours, theirs = scratch
    async with database.tenant(ours) as conn:
        assert [row["word"] for row in await conn.fetch("select word from scratch")] == ["ours"]
        assert await conn.execute("update scratch set word = 'x' where tenant_id = $1", theirs) == "UPDATE 0"
    async with database.tenants([ours, theirs]) as conn:
        assert await conn.fetchval("select count(*) from scratch") == 2
    async with database.tenant(uuid4()) as conn:
        assert await conn.fetchval("select count(*) from scratch") == 0


async def test_no_tenant_when_connection_was_used_before_then_no_rows(
    scratch: tuple[Database, UUID, UUID],
) -> None:
    database, ours, _ = scratch
    for _ in range(20):
        async with database.tenant(ours) as conn:
            assert await conn.fetchval("select count(*) from scratch") == 1
            used = await conn.fetchval("select pg_backend_pid()")
        conn = await database.app_at_hand.take()
        assert await conn.fetchval("select pg_backend_pid()") == used
        assert await conn.fetchval("select count(*) from scratch") == 0
        database.app_at_hand.give(conn)


async def test_insert_when_row_is_of_another_tenant_then_refused(
    scratch: tuple[Database, UUID, UUID],
) -> None:
    database, ours, theirs = scratch
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with database.tenant(ours) as conn:
            await conn.execute("insert into scratch (tenant_id, word) values ($1, 'smuggled')", theirs)


async def test_owner_when_policy_is_forced_then_sees_nothing(
    scratch: tuple[Database, UUID, UUID], database_dsns: RoleDsns
) -> None:
    owner = await connect(database_dsns.owner)
    assert await owner.fetchval("select count(*) from scratch") == 0
    await owner.close()


async def test_scheduler_when_nothing_granted_then_cannot_read(scratch: tuple[Database, UUID, UUID]) -> None:
    database, _, _ = scratch
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with database.system() as conn:
            await conn.fetch("select * from scratch")


async def test_transaction_when_body_raises_then_rolled_back(scratch: tuple[Database, UUID, UUID]) -> None:
    database, ours, _ = scratch
    with pytest.raises(KeyError):
        async with database.tenant(ours) as conn:
            await conn.execute("delete from scratch")
            raise KeyError("stop")
    async with database.tenant(ours) as conn:
        assert await conn.fetchval("select count(*) from scratch") == 1


async def test_transaction_when_cancelled_then_rolled_back_and_pool_stays_whole(
    scratch: tuple[Database, UUID, UUID],
) -> None:
    database, ours, _ = scratch

    async def slow() -> None:
        async with database.tenant(ours) as conn:
            await conn.execute("delete from scratch")
            await conn.execute("select pg_sleep(30)")

    tasks = [asyncio.create_task(slow()) for _ in range(12)]
    await asyncio.sleep(0.3)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with database.tenant(ours) as conn:
        assert await conn.fetchval("select count(*) from scratch") == 1
    await _all_at_once(database, ours)


async def _all_at_once(database: Database, tenant: UUID) -> None:
    """As many transactions at a time as there are connections: none was lost."""
    most = database.app.get_max_size()
    together = asyncio.Barrier(most)

    async def one() -> None:
        async with database.tenant(tenant):
            await together.wait()

    async with asyncio.timeout(10):
        await asyncio.gather(*(one() for _ in range(most)))


async def test_savepoint_when_its_part_fails_then_the_rest_stays(
    scratch: tuple[Database, UUID, UUID],
) -> None:
    database, ours, _ = scratch
    async with database.tenant(ours) as conn:
        await conn.execute("update scratch set word = 'kept'")
        with pytest.raises(asyncpg.NotNullViolationError):
            async with savepoint(conn):
                await conn.execute("insert into scratch (tenant_id) values ($1)", ours)
        assert await conn.fetchval("select word from scratch") == "kept"
    async with database.tenant(ours) as conn:
        assert await conn.fetchval("select word from scratch") == "kept"


async def test_tenant_when_not_a_uuid_then_refused(database: Database) -> None:
    for wrong in ("{}'; drop table tenants; --", None, 7):
        with pytest.raises(TypeError):
            async with database.tenant(wrong):  # type: ignore[arg-type]
                pass
    with pytest.raises(ValueError, match="at least one"):
        async with database.tenants([]):
            pass


async def test_codecs_when_values_travel_then_come_back_equal(scratch: tuple[Database, UUID, UUID]) -> None:
    database, _, _ = scratch
    body = {"name": "Zoë – 日本", "list": [1, 2.5, None, True], "nested": {"a": {}}}
    who = uuid4()
    async with database.system() as conn:
        await conn.execute("insert into plain values (1, $1, $2)", body, who)
        row = await conn.fetchrow("select body, who, body -> 'list' as part from plain")
    assert row["body"] == body
    assert row["who"] == who
    assert row["part"] == [1, 2.5, None, True]


async def test_open_when_password_is_wrong_then_error_names_database_without_password(
    database_dsns: RoleDsns,
) -> None:
    wrong = database_dsns.app.replace(":", ":wrong-secret-", 2).replace(":wrong-secret-//", "://")
    with pytest.raises(DatabaseMisconfigured) as caught:
        await Database.open(wrong, database_dsns.scheduler)
    assert "crmbridge_app" in str(caught.value)
    assert "wrong-secret" not in str(caught.value)


async def test_open_when_nothing_listens_then_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crmbridge.db.pool.CONNECT_PATIENCE_SECONDS", 0.2)
    with pytest.raises(DatabaseUnavailable, match=r"127\.0\.0\.1:29999/x as someone") as caught:
        await Database.open(
            "postgresql://someone:hush@127.0.0.1:29999/x", "postgresql://a:b@127.0.0.1:29999/x"
        )
    assert "hush" not in str(caught.value)
    assert caught.value.retry_safe


async def test_pool_when_server_cuts_every_connection_then_next_use_works(
    database: Database, database_dsns: RoleDsns
) -> None:
    async with database.system() as conn:
        assert await conn.fetchval("select 1") == 1
    with pytest.raises(DatabaseUnavailable):
        async with database.system() as conn:
            await conn.execute("select pg_terminate_backend(pg_backend_pid())")
    for _ in range(int(os.environ.get("CRMBRIDGE_TEST_ROUNDS", "3"))):
        async with database.system() as conn:
            assert await conn.fetchval("select 1") == 1


async def test_server_when_this_machine_vanishes_then_lets_go_of_its_locks_in_seconds(
    database: Database, database_dsns: RoleDsns
) -> None:
    async with database.system() as conn:
        is_tcp = await conn.fetchval("select inet_client_addr() is not null")
        rows = await conn.fetch(
            "select name, setting from pg_settings where name like 'tcp%' or name like 'idle_in%'"
        )
    found = {row["name"]: row["setting"] for row in rows}
    assert found["idle_in_transaction_session_timeout"] == "60000"
    wanted = (
        {"idle": "5", "interval": "3", "count": "3"}
        if is_tcp
        else dict.fromkeys(("idle", "interval", "count"), "0")
    )
    assert {name: found[f"tcp_keepalives_{name}"] for name in wanted} == wanted
    assert found["tcp_user_timeout"] == ("12000" if is_tcp else "0")


async def test_transaction_when_this_process_stood_still_in_it_then_cut_and_told_to_try_again(
    scratch: tuple[Database, UUID, UUID],
) -> None:
    database, ours, _ = scratch
    with pytest.raises(DatabaseUnavailable) as caught:
        async with database.tenant(ours) as conn:
            await conn.execute("update scratch set word = 'half'")
            await conn.execute("set local idle_in_transaction_session_timeout = 50")
            await asyncio.sleep(0.4)
            await conn.execute("update scratch set word = 'whole'")
    assert caught.value.retry_safe
    async with database.tenant(ours) as conn:
        assert await conn.fetchval("select word from scratch") == "ours"
