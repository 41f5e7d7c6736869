"""Readiness: green on a sound house, and each reason that turns it red."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from crmbridge.core.secret import Secret
from crmbridge.db.jobs import PgQueuerJobs
from crmbridge.db.pool import Database, connect
from crmbridge.db.roles import RoleDsns
from crmbridge.services.vault import Vault, provider_from
from crmbridge.services.watch import Standing, Watch, readiness
from crmbridge.services.watch.readiness import checks_of, examine
from crmbridge.settings import Settings

from ..conftest import PostgresServer

pytestmark = pytest.mark.postgres

SOUND = {"database_app", "database_scheduler", "migrations", "version", "job_tables", "master_key", "clock"}


def vault_with(db: Database, key: str) -> Vault:
    return Vault(db, provider_from(Settings(master_key=Secret(key))))


def new_key(key_id: str = "k1") -> str:
    return f"{key_id}:{base64.b64encode(os.urandom(32)).decode()}"


class Ground:
    """What the checks look at."""

    def __init__(self, db: Database, jobs: PgQueuerJobs, dsns: RoleDsns) -> None:
        self.db = db
        self.jobs = jobs
        self.dsns = dsns
        self.vault = vault_with(db, new_key())

    async def standing(self, data_dir: Path | None = None) -> Standing:
        return await examine(checks_of(self.db, self.vault, self.jobs, data_dir))

    async def as_owner(self, statement: str) -> None:
        conn = await connect(self.dsns.owner)
        try:
            await conn.execute(statement)
        finally:
            await conn.close()

    async def red(self, data_dir: Path | None = None) -> dict[str, str]:
        """The problems by check; each has a fix."""
        standing = await self.standing(data_dir)
        assert not standing.is_ready and standing.status == "not_ready"
        assert all(reason.fix.endswith(".") for reason in standing.reasons)
        return {reason.check: reason.problem for reason in standing.reasons}


@pytest.fixture
async def ground(database: Database, database_dsns: RoleDsns) -> AsyncIterator[Ground]:
    jobs = await PgQueuerJobs.open(database_dsns.scheduler)
    made = Ground(database, jobs, database_dsns)
    await made.vault.installation()
    yield made
    await jobs.close()


async def test_readiness_when_all_is_well_then_ready_and_every_check_is_named(
    ground: Ground, tmp_path: Path
) -> None:
    standing = await ground.standing()
    assert standing.is_ready and standing.status == "ready" and standing.reasons == []
    assert standing.checks == dict.fromkeys(SOUND, "ok")
    assert (await ground.standing(tmp_path)).checks["disk"] == "ok"


async def test_readiness_when_told_to_stop_then_red_although_all_else_is_well(ground: Ground) -> None:
    unread: Any = None
    rooms = {"connections": unread, "delivery": unread, "incidents": unread}
    watch = Watch(db=ground.db, vault=ground.vault, jobs=ground.jobs, **rooms)
    assert (await watch.standing()).is_ready
    watch.is_stopping = True
    standing = await watch.standing()
    assert [reason.check for reason in standing.reasons] == ["stopping"] and not standing.is_ready
    assert {name for name, found in standing.checks.items() if found == "ok"} == SOUND


async def test_readiness_when_the_database_is_gone_then_red_within_seconds(
    ground: Ground, postgres: PostgresServer
) -> None:
    await postgres.drop(urlsplit(ground.dsns.app).path.lstrip("/"))
    began = time.monotonic()
    problems = await ground.red()
    assert time.monotonic() - began < 2 * readiness.CHECK_SECONDS
    assert set(problems) == SOUND
    assert "crmbridge" not in str(problems), "addresses and roles are for the log"


async def test_readiness_when_no_connection_comes_free_then_red_and_not_for_ever(
    ground: Ground,
) -> None:
    pool = ground.db.app
    taken = [await pool.acquire() for _ in range(pool.get_max_size())]
    try:
        assert await ground.red() == {"database_app": f"no answer within {readiness.CHECK_SECONDS:g} s"}
    finally:
        for conn in taken:
            await pool.release(conn)
    assert (await ground.standing()).is_ready


async def test_readiness_when_a_migration_is_missing_then_red_with_its_name(ground: Ground) -> None:
    await ground.as_owner("delete from public._pogo_migration where migration_id like '%add_lane_waiting'")
    assert await ground.red() == {"migrations": "not applied: 0006_add_lane_waiting"}


async def test_readiness_when_the_database_was_never_migrated_then_red(
    postgres: PostgresServer,
) -> None:
    async with postgres.new_database(empty=True) as dsns:
        db = await Database.open(dsns.app, dsns.scheduler)
        jobs = await PgQueuerJobs.open(dsns.scheduler)
        try:
            problems = await Ground(db, jobs, dsns).red()
        finally:
            await jobs.close()
            await db.close()
    assert problems["migrations"] == "the database was never migrated by this version"
    assert "crmbridge_jobs.pgqueuer" in problems["job_tables"]
    assert "master_key" in problems and "database_app" not in problems


async def test_readiness_when_the_database_is_newer_then_ready(ground: Ground) -> None:
    await ground.as_owner(
        "insert into public._pogo_migration select (jsonb_populate_record(m, "
        '\'{"migration_id": "9999_add_future", "migration_hash": "f"}\')).* from public._pogo_migration m limit 1'
    )
    assert (await ground.standing()).is_ready


async def test_readiness_when_a_newer_version_took_something_away_then_red(ground: Ground) -> None:
    await ground.as_owner(
        "insert into public._pogo_migration select (jsonb_populate_record(m, "
        '\'{"migration_id": "9999_drop_lanes_from_9998", "migration_hash": "f"}\')).* '
        "from public._pogo_migration m limit 1"
    )
    told = {"version": "a newer version took away what this one uses: 9999_drop_lanes_from_9998"}
    assert await ground.red() == told


@pytest.mark.parametrize(
    "statement",
    [
        "drop table crmbridge_jobs.ticks",
        "revoke all on crmbridge_jobs.ticks from crmbridge_scheduler",
    ],
)
async def test_readiness_when_a_table_of_the_job_engine_is_out_of_reach_then_red(
    ground: Ground, statement: str
) -> None:
    await ground.as_owner(statement)
    assert await ground.red() == {"job_tables": "missing or not granted: crmbridge_jobs.ticks"}


@pytest.mark.parametrize(("key_id", "says"), [("k1", "does not open"), ("k2", "does not hold")])
async def test_readiness_when_the_master_key_is_another_one_then_red_without_the_key(
    ground: Ground, key_id: str, says: str
) -> None:
    other = new_key(key_id)
    ground.vault = vault_with(ground.db, other)
    problems = await ground.red()
    assert set(problems) == {"master_key"} and says in problems["master_key"]
    assert other.partition(":")[2] not in str(problems)


@pytest.mark.parametrize(("shift", "word"), [(60.0, "behind"), (-60.0, "ahead")])
async def test_readiness_when_the_clocks_differ_then_red_with_the_seconds(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, shift: float, word: str
) -> None:
    class Clock:
        @staticmethod
        def time() -> float:
            return time.time() + shift

    monkeypatch.setattr(readiness, "time", Clock)
    problems = await ground.red()
    assert set(problems) == {"clock"}
    assert problems["clock"].endswith(word) and ("60 s" in problems["clock"] or "59 s" in problems["clock"])


async def test_readiness_when_the_disk_is_full_or_the_folder_gone_then_red(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert await ground.red(tmp_path / "gone") == {"disk": "FileNotFoundError"}
    monkeypatch.setattr(readiness, "LEAST_FREE_BYTES", 2**62)
    problems = await ground.red(tmp_path)
    assert set(problems) == {"disk"} and problems["disk"].endswith("MiB are left")


async def test_readiness_when_the_worker_of_this_process_hangs_then_red_and_later_green(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "MOST_LATE_SECONDS", 0.5)
    hanging = asyncio.Event()

    async def tick() -> None:
        await hanging.wait()

    async def work(payload: dict[str, Any]) -> None:
        return None

    ground.jobs.every(0.1, "test.tick", tick)
    ground.jobs.handle("test.work", work, concurrency=2)
    assert "worker" not in (await ground.standing()).checks
    stop = asyncio.Event()
    running = asyncio.create_task(ground.jobs.run(stop))
    try:
        await asyncio.sleep(0.2)
        assert (await ground.standing()).checks["worker"] == "ok"
        await asyncio.sleep(1.2)
        problems = await ground.red()
        assert set(problems) == {"worker"} and "nothing was heard" in problems["worker"]
        hanging.set()
        await asyncio.sleep(1.5)
        assert (await ground.standing()).checks["worker"] == "ok"
    finally:
        hanging.set()
        stop.set()
        await running
    assert "worker" not in (await ground.standing()).checks


async def test_worker_when_it_idles_then_never_late(ground: Ground) -> None:
    async def work(payload: dict[str, Any]) -> None:
        return None

    ground.jobs.handle("test.work", work, concurrency=2)
    stop = asyncio.Event()
    running = asyncio.create_task(ground.jobs.run(stop))
    late = []
    try:
        for _ in range(20):
            await asyncio.sleep(0.2)
            late.append(ground.jobs.late_seconds() or 0.0)
    finally:
        stop.set()
        await running
    assert max(late) < 2.0, late
