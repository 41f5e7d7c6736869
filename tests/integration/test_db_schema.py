"""The migration runner, on folders of its own and on the real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic

import pytest
from tests.conftest import PostgresServer

from crmbridge.db.errors import DatabaseMisconfigured, DatabaseUnavailable
from crmbridge.db.pool import connect
from crmbridge.db.roles import RoleDsns
from crmbridge.db.schema import MIGRATIONS, migrate, pending, require_schema, unfit

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


async def applied_with(dsns: RoleDsns, folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / f"{name}.sql").write_text("select 1;", encoding="utf-8")
    await migrate(dsns.owner, folder)


async def test_migrate_when_database_is_newer_and_fit_then_left_alone(
    empty: RoleDsns, tmp_path: Path
) -> None:
    await applied_with(empty, tmp_path, ["0001_create_words", "0002_add_words", "0003_drop_word_from_0001"])
    for path in sorted(tmp_path.iterdir())[1:]:
        path.unlink()
    assert await pending(empty.owner, tmp_path) == []
    assert await migrate(empty.owner, tmp_path) == []


@pytest.mark.parametrize("newer", ["0002_drop_word", "0003_drop_word_from_0002"])
async def test_migrate_when_database_is_newer_or_another_and_not_fit_then_refused(
    empty: RoleDsns, tmp_path: Path, newer: str
) -> None:
    """Another history has our number; a contracting file of a newer version wants processes that know more."""
    names = ["0001_create_words", "0002_add_words", "0003_drop_word_from_0002"]
    await applied_with(empty, tmp_path, names if newer in names else [names[0], newer])
    for path in sorted(tmp_path.iterdir())[1:]:
        path.unlink()
    if newer not in names:
        (tmp_path / "0002_other_words.sql").write_text("select 1;", encoding="utf-8")
    with pytest.raises(DatabaseMisconfigured, match=rf"{newer}.*newer crmbridge") as refusal:
        await migrate(empty.owner, tmp_path)
    assert refusal.value.fix.action == "run_newer_version"


async def test_process_when_schema_is_older_then_refused_with_the_command(
    empty: RoleDsns, tmp_path: Path
) -> None:
    conn = await connect(empty.scheduler)
    try:
        write(tmp_path, _0001_create_words="select 1;")
        with pytest.raises(DatabaseMisconfigured, match="not migrated") as refusal:
            await require_schema(conn, tmp_path)
        assert "crmbridge db migrate" in refusal.value.fix.hint
        await migrate(empty.owner, tmp_path)
        await require_schema(conn, tmp_path)
        write(tmp_path, _0002_add_words="select 1;")
        with pytest.raises(DatabaseMisconfigured, match=r"older than .* needs; not applied: 0002_add_words"):
            await require_schema(conn, tmp_path)
    finally:
        await conn.close()


async def test_process_when_schema_is_newer_then_it_runs_unless_the_newer_one_says_no(
    empty: RoleDsns, tmp_path: Path
) -> None:
    names = [
        "0001_create_words",
        "0002_add_words",
        "0003_add_more",
        "0004_drop_word_from_0002",
        "0005_drop_words_from_0003",
    ]
    await applied_with(empty, tmp_path, names)
    conn = await connect(empty.scheduler)
    try:
        fits = {}
        for known in (5, 4, 3, 2, 1):
            fits[known] = await unfit(conn, tmp_path)
            if fits[known]:
                with pytest.raises(DatabaseMisconfigured, match=fits[known][-1]):
                    await require_schema(conn, tmp_path)
            else:
                await require_schema(conn, tmp_path)
            (tmp_path / f"{names[known - 1]}.sql").unlink()
    finally:
        await conn.close()
    assert fits == {5: [], 4: [], 3: [], 2: names[4:], 1: names[3:]}


async def test_migrate_when_a_lock_is_held_then_others_wait_two_seconds_and_it_is_tried_again(
    empty: RoleDsns, tmp_path: Path
) -> None:
    write(tmp_path, _0001_create_words=_FIRST)
    await migrate(empty.owner, tmp_path)
    write(tmp_path, _0002_add_sound="alter table words add column sound text;")
    holder, reader = await connect(empty.owner), await connect(empty.owner)
    try:
        await holder.execute("begin; select * from words")
        running = asyncio.create_task(migrate(empty.owner, tmp_path))
        await asyncio.sleep(0.5)
        # It stands behind the migration in the queue for the lock, until that gives up.
        began = monotonic()
        await reader.execute("select * from words")
        assert monotonic() - began < 10
        assert not running.done()
        await holder.execute("commit")
        assert await asyncio.wait_for(running, 10) == ["0002_add_sound"]
    finally:
        await holder.close()
        await reader.close()


async def test_migrate_when_a_lock_is_held_for_long_then_it_gives_up_and_says_why(
    empty: RoleDsns, tmp_path: Path
) -> None:
    write(tmp_path, _0001_create_words=_FIRST)
    await migrate(empty.owner, tmp_path)
    write(tmp_path, _0002_add_sound="alter table words add column sound text;")
    holder = await connect(empty.owner)
    try:
        await holder.execute("begin; select * from words")
        with pytest.raises(DatabaseUnavailable, match=r"0002_add_sound.*held the locks") as refusal:
            await migrate(empty.owner, tmp_path, patience_seconds=0.1)
        assert refusal.value.fix.action == "end_long_transactions"
    finally:
        await holder.close()
    assert await pending(empty.owner, tmp_path) == ["0002_add_sound"]


async def test_migrate_when_an_index_is_built_concurrently_then_writers_go_on_and_a_second_migrator_waits(
    empty: RoleDsns, tmp_path: Path
) -> None:
    write(tmp_path, _0001_create_words=_FIRST)
    await migrate(empty.owner, tmp_path)
    index = (
        "-- transaction: false\ndrop index concurrently if exists words_by_word;\n"
        "create index concurrently words_by_word on words (word);"
    )
    write(tmp_path, _0002_index_words=index, _0003_add_sound="alter table words add column sound text;")
    holder, writer = await connect(empty.owner), await connect(empty.owner)
    try:
        await holder.execute("begin; insert into words values (7)")
        both = asyncio.gather(migrate(empty.owner, tmp_path), migrate(empty.owner, tmp_path))
        # Longer than a statement may wait for a lock: the index waits for the holder, and nobody for the index.
        for number in range(8, 12):
            await writer.execute(f"insert into words values ({number})")
            await asyncio.sleep(0.7)
        assert not both.done()
        await holder.execute("commit")
        assert sorted(map(len, await asyncio.wait_for(both, 15))) == [0, 2]
        assert await writer.fetchval(
            "select indisvalid from pg_index where indexrelid = 'words_by_word'::regclass"
        )
    finally:
        await holder.close()
        await writer.close()


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
