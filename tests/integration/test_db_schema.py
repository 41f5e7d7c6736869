"""The migration runner, on folders of its own and on the real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.conftest import PostgresServer

from crmbridge.db.errors import DatabaseMisconfigured
from crmbridge.db.pool import connect
from crmbridge.db.roles import RoleDsns
from crmbridge.db.schema import MIGRATIONS, migrate, pending

pytestmark = pytest.mark.postgres

_FIRST = """-- A comment; with a semicolon, and the words "-- depends:" nowhere.
create table words (id int primary key, word text not null default 'a;b');
create function refuse() returns trigger language plpgsql as $$
declare twice int := case when true then 2 else 1 end;
begin
    if tg_op = 'DELETE' then
        raise exception 'append-only; % refused', tg_op;
    end if;
    for i in 1..twice loop perform 1; end loop;
    return new;
end $$;
create trigger words_kept before delete on words for each row execute function refuse();
do $body$ begin execute 'insert into words (id) values (1);'; end $body$;
"""


@pytest.fixture
async def empty(postgres: PostgresServer) -> AsyncIterator[RoleDsns]:
    async with postgres.new_database(empty=True) as dsns:
        yield dsns


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name.lstrip('_')}.sql").write_text(text, encoding="utf-8")
    return folder


async def test_migrate_when_files_are_new_then_applied_in_order_once(empty: RoleDsns, tmp_path: Path) -> None:
    write(tmp_path, _0001_create_words=_FIRST, _0002_add_words="insert into words values (2, 'two');")
    assert await pending(empty.owner, tmp_path) == ["0001_create_words", "0002_add_words"]
    assert await migrate(empty.owner, tmp_path) == ["0001_create_words", "0002_add_words"]
    assert await pending(empty.owner, tmp_path) == []
    write(tmp_path, _0003_add_more="insert into words values (3, 'three');")
    assert await migrate(empty.owner, tmp_path) == ["0003_add_more"]
    assert await migrate(empty.owner, tmp_path) == []
    conn = await connect(empty.owner)
    assert [row["word"] for row in await conn.fetch("select word from words order by id")] == [
        "a;b",
        "two",
        "three",
    ]
    with pytest.raises(Exception, match="append-only; DELETE refused"):
        await conn.execute("delete from words")
    owners = await conn.fetch("select distinct tableowner from pg_tables where schemaname like 'crmbridge%'")
    await conn.close()
    assert [row["tableowner"] for row in owners] == ["crmbridge_owner"]


async def test_migrate_when_several_run_at_once_then_each_file_once(empty: RoleDsns, tmp_path: Path) -> None:
    write(
        tmp_path, _0001_create_words=_FIRST, _0002_wait="select pg_sleep(0.3); insert into words values (2);"
    )
    answers = await asyncio.gather(*(migrate(empty.owner, tmp_path) for _ in range(4)))
    assert sorted(map(len, answers)) == [0, 0, 0, 2]


async def test_migrate_when_a_file_fails_then_it_leaves_nothing_and_the_error_names_it(
    empty: RoleDsns, tmp_path: Path
) -> None:
    write(tmp_path, _0001_create_words=_FIRST, _0002_break_things="insert into words values (2); select 1/0;")
    with pytest.raises(DatabaseMisconfigured, match=r"0002_break_things.*division by zero"):
        await migrate(empty.owner, tmp_path)
    assert await pending(empty.owner, tmp_path) == ["0002_break_things"]
    conn = await connect(empty.owner)
    assert await conn.fetchval("select count(*) from words") == 1
    await conn.close()
    write(tmp_path, _0002_break_things="insert into words values (2);")
    assert await migrate(empty.owner, tmp_path) == ["0002_break_things"]


async def test_migrate_when_file_opts_out_of_the_transaction_then_index_is_made_concurrently(
    empty: RoleDsns, tmp_path: Path
) -> None:
    write(
        tmp_path,
        _0001_create_words=_FIRST,
        _0002_add_index="-- transaction: false\ncreate index concurrently words_by_word on words (word);",
    )
    assert len(await migrate(empty.owner, tmp_path)) == 2


async def test_migrate_when_database_is_newer_than_the_program_then_refused(
    empty: RoleDsns, tmp_path: Path
) -> None:
    write(tmp_path, _0001_create_words=_FIRST, _0002_add_words="select 1;")
    await migrate(empty.owner, tmp_path)
    (tmp_path / "0002_add_words.sql").unlink()
    with pytest.raises(DatabaseMisconfigured, match=r"0002_add_words.*newer crmbridge"):
        await migrate(empty.owner, tmp_path)


async def test_migrate_when_role_is_not_the_owner_then_refused(empty: RoleDsns, tmp_path: Path) -> None:
    with pytest.raises(DatabaseMisconfigured, match="crmbridge_owner"):
        await migrate(empty.app, write(tmp_path, _0001_create_words=_FIRST))


async def test_migrate_when_real_folder_then_tables_and_jobs_are_there_and_second_run_is_idle(
    empty: RoleDsns,
) -> None:
    applied = await migrate(empty.owner)
    assert applied == [path.stem for path in sorted(MIGRATIONS.glob("*.sql"))]
    assert await migrate(empty.owner) == []
    conn = await connect(empty.scheduler)
    assert await conn.fetchval("select count(*) from crmbridge_jobs.pgqueuer") == 0
    await conn.close()
