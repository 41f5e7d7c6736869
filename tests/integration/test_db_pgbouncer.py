"""Behind a real PgBouncer in transaction mode: what works without named statements, and what needs a session."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import asyncpg
import pytest
from tests.faults.process import free_ports
from tests.needs import missing

from crmbridge.db.hosts import Hosts
from crmbridge.db.jobs import PgQueuerJobs
from crmbridge.db.pool import Database
from crmbridge.db.roles import RoleDsns
from crmbridge.db.signals import Signals

pytestmark = pytest.mark.postgres


def entry(name: str, dsn: str) -> str:
    parts = urlsplit(dsn)
    query = {key: values[0] for key, values in parse_qs(parts.query).items()}
    host, port = query.get("host") or parts.hostname, query.get("port") or parts.port or 5432
    return (
        f"{name} = host={host} port={port} dbname={parts.path[1:]} user={parts.username} "
        f"password='{parts.password}'"
    )


def who_may_enter(dsn: str) -> str | int:
    """The user who may use the server's socket; PgBouncer refuses to be run by root."""
    folder = parse_qs(urlsplit(dsn).query).get("host", [""])[0]
    return os.stat(folder).st_uid if folder.startswith("/") else "nobody"


def absent(why: str) -> NoReturn:
    """A skip on somebody's machine. In CI a failure, once Debian's packages are installed: `make test` comes before.

    ``.ci/run`` runs these tests again with Debian's PostgreSQL, whose address is then set.
    """
    if os.environ.get("CRMBRIDGE_TEST_DATABASE_ADMIN_URL"):
        missing(why)
    pytest.skip(why)


@pytest.fixture
async def behind(database_dsns: RoleDsns, open_folder: Path) -> AsyncIterator[RoleDsns]:
    """The two addresses through a PgBouncer that lends a server connection for one transaction at a time."""
    binary = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if binary is None:
        absent("no pgbouncer on the path or in /usr/sbin: apt-get install pgbouncer")
    port = free_ports()
    config, log = open_folder / "pgbouncer.ini", open_folder / "pgbouncer.log"
    config.write_text(
        f"[databases]\n{entry('app', database_dsns.app)}\n{entry('scheduler', database_dsns.scheduler)}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        "pool_mode = transaction\ndefault_pool_size = 3\nserver_round_robin = 1\n"
        f"logfile = {log}\n"
    )
    config.chmod(0o644)
    log.touch()
    log.chmod(0o666)
    options: dict[str, Any] = {"user": who_may_enter(database_dsns.app)} if os.getuid() == 0 else {}
    process = subprocess.Popen([binary, "-q", str(config)], **options)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, log.read_text()
            await asyncio.sleep(0.05)
        base = f"postgresql://any@127.0.0.1:{port}"
        yield RoleDsns(owner="", app=f"{base}/app", scheduler=f"{base}/scheduler")
    finally:
        process.terminate()
        process.wait(10)


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        await asyncio.sleep(0.02)


async def test_database_when_statements_have_no_names_then_all_its_ways_work(behind: RoleDsns) -> None:
    db = await Database.open(behind.app, behind.scheduler, prepared_statements=False)
    try:
        for _ in range(10):
            tenant_id = uuid4()
            async with db.tenant(tenant_id) as conn:
                seen = await conn.fetchval("select current_setting('crmbridge.tenants')")
                assert await conn.fetchval("select $1::int + 1", 1) == 2
            assert seen == f"{{{tenant_id.hex}}}"
            async with db.system() as conn:
                assert await conn.fetchval("select count(*) from lanes") == 0
            assert await db.peek(lambda conn: conn.fetchval("select $1::text", "word")) == "word"
            given = await db.alone(tenant_id, lambda conn, setting: conn.fetchval("select $1::text", setting))
            assert given == seen
    finally:
        await db.close()


async def test_settings_of_a_session_when_pooled_then_some_server_connections_lack_them(
    behind: RoleDsns,
) -> None:
    """Why PgBouncer has to end what stands still: ours are sent once, to the server connection lent at that moment."""
    conn = await Hosts(behind.app).connect(statement_cache_size=0)
    others = [await asyncpg.connect(behind.app, statement_cache_size=0) for _ in range(2)]
    everyone = [conn, *others]
    try:
        # In transactions at the same time each has a server connection of its own.
        for each in everyone:
            await each.execute("begin")
        seen = [await each.fetchval("show idle_in_transaction_session_timeout") for each in everyone]
        assert sorted(seen) == ["0", "0", "1min"]
    finally:
        for each in everyone:
            await each.close()


async def test_jobs_when_statements_have_no_names_then_each_runs_once_and_ticks_go_on(
    behind: RoleDsns, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = await PgQueuerJobs.open(behind.scheduler, prepared_statements=False)
    seen: list[int] = []
    ticks: list[float] = []

    async def work(payload: dict[str, Any]) -> None:
        seen.append(payload["n"])

    async def tick() -> None:
        ticks.append(time.monotonic())

    jobs.handle("work", work, concurrency=10)
    jobs.every(0.2, "tick", tick)
    stop = asyncio.Event()
    running = asyncio.create_task(jobs.run(stop))
    try:
        for n in range(10):
            assert await jobs.enqueue("work", {"n": n}, dedupe_key=str(n))
            await asyncio.sleep(0.05)
        await until(lambda: len(seen) == 10 and len(ticks) > 2)
    finally:
        stop.set()
        await running
        await jobs.close()
    assert sorted(seen) == list(range(10))
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_jobs_when_statements_have_names_then_they_are_not_found_again(behind: RoleDsns) -> None:
    jobs = await PgQueuerJobs.open(behind.scheduler)
    try:
        with pytest.raises(asyncpg.InvalidSQLStatementNameError):
            # One server connection after the other has its turn, and only one of them knows the name.
            for n in range(10):
                await asyncio.gather(*(jobs.enqueue("work", {"n": n}) for _ in range(2)))
    finally:
        await jobs.close()


async def test_signals_when_no_session_is_kept_then_no_word_is_heard(
    behind: RoleDsns, database_dsns: RoleDsns
) -> None:
    """Why the scheduler's address needs a session: a listener is no use without one."""
    db = await Database.open(behind.app, behind.scheduler, prepared_statements=False)
    heard: dict[str, list[str]] = {"pooled": [], "direct": []}
    listeners = {
        "pooled": Signals(db, behind.scheduler, prepared_statements=False),
        "direct": Signals(db, database_dsns.scheduler),
    }
    for name, signals in listeners.items():
        signals.listen("word", heard[name].append)
        signals.start()
        await asyncio.wait_for(signals.is_listening.wait(), 10)
    try:
        for n in range(5):
            await listeners["direct"].send("word", str(n))
        await until(lambda: len(heard["direct"]) == 5)
        await asyncio.sleep(0.3)
        assert heard["pooled"] == []
    finally:
        for signals in listeners.values():
            await signals.close()
        await db.close()
