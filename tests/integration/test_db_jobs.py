"""The job engine behind the seam: enqueue, dedupe, run, retry, schedule, rescue, stop."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from crmbridge.db.jobs import Jobs, NewJob, PgQueuerJobs, RetryLater
from crmbridge.db.pool import connect
from crmbridge.db.roles import RoleDsns

pytestmark = pytest.mark.postgres


@pytest.fixture
async def jobs(database_dsns: RoleDsns) -> AsyncIterator[PgQueuerJobs]:
    opened = await PgQueuerJobs.open(database_dsns.scheduler)
    yield opened
    await opened.close()


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        await asyncio.sleep(0.02)


async def test_enqueue_when_key_waits_already_then_skipped(jobs: Jobs) -> None:
    assert await jobs.enqueue("drain", {"lane": 1}, dedupe_key="1")
    assert not await jobs.enqueue("drain", {"lane": 1}, dedupe_key="1")
    assert await jobs.enqueue("other", {"lane": 1}, dedupe_key="1")
    assert (
        await jobs.enqueue_many("drain", [NewJob({}, "1"), NewJob({}, "2"), NewJob({}, "2"), NewJob({})]) == 2
    )
    backlog = await jobs.backlog()
    assert (backlog["drain"].queued, backlog["other"].queued) == (3, 1)
    assert backlog["drain"].running == 0


async def test_drain_when_jobs_wait_then_each_runs_once_and_key_is_free_again(jobs: Jobs) -> None:
    seen: list[int] = []

    async def work(payload: dict[str, Any]) -> None:
        seen.append(payload["n"])

    jobs.handle("drain", work, concurrency=20)
    await jobs.enqueue_many("drain", [NewJob({"n": n}, str(n)) for n in range(100)])
    await jobs.drain()
    assert sorted(seen) == list(range(100))
    assert await jobs.backlog() == {}
    assert await jobs.enqueue("drain", {"n": 5}, dedupe_key="5")


async def test_run_when_job_arrives_then_it_starts_soon_and_stop_waits_for_it(jobs: Jobs) -> None:
    started, ended = [], []

    async def work(payload: dict[str, Any]) -> None:
        started.append(time.monotonic())
        await asyncio.sleep(0.5)
        ended.append(payload)

    jobs.handle("slow", work, concurrency=2)
    stop = asyncio.Event()
    running = asyncio.create_task(jobs.run(stop))
    await asyncio.sleep(0.5)
    asked = time.monotonic()
    await jobs.enqueue("slow", {"id": "a"})
    await until(lambda: started)
    assert started[0] - asked < 0.5
    stop.set()
    await asyncio.wait_for(running, timeout=5)
    assert ended == [{"id": "a"}]
    assert await jobs.backlog() == {}


async def test_run_when_concurrency_is_set_then_never_exceeded_and_other_kinds_go_on(jobs: Jobs) -> None:
    now = {"narrow": 0, "wide": 0}
    most = {"narrow": 0, "wide": 0}
    done: list[str] = []

    def work(kind: str, seconds: float) -> Callable[[dict[str, Any]], Any]:
        async def run(_: dict[str, Any]) -> None:
            now[kind] += 1
            most[kind] = max(most[kind], now[kind])
            await asyncio.sleep(seconds)
            now[kind] -= 1
            done.append(kind)

        return run

    jobs.handle("narrow", work("narrow", 0.2), concurrency=2)
    jobs.handle("wide", work("wide", 0.02), concurrency=15)
    await jobs.enqueue_many("narrow", [NewJob({}) for _ in range(8)])
    await jobs.enqueue_many("wide", [NewJob({}) for _ in range(60)])
    stop = asyncio.Event()
    running = asyncio.create_task(jobs.run(stop))
    await until(lambda: len(done) == 68)
    stop.set()
    await running
    assert most["narrow"] == 2
    assert 2 < most["wide"] <= 15
    assert done.index("wide") < 3


async def test_run_when_function_fails_then_retried_and_nothing_of_its_message_is_stored(
    jobs: Jobs, database_dsns: RoleDsns, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[float] = []

    async def work(_: dict[str, Any]) -> None:
        calls.append(time.monotonic())
        if len(calls) == 1:
            raise ValueError("jane@example.com is not valid")
        if len(calls) == 2:
            raise RetryLater(0.3)

    jobs.handle("flaky", work, concurrency=1)
    await jobs.enqueue("flaky", {})
    stop = asyncio.Event()
    running = asyncio.create_task(jobs.run(stop))
    await until(lambda: len(calls) == 3)
    stop.set()
    await running
    assert calls[1] - calls[0] >= 0.9
    assert 0.25 <= calls[2] - calls[1] < 2
    owner = await connect(database_dsns.owner)
    stored = await owner.fetchval("select string_agg(l::text, ' ') from crmbridge_jobs.pgqueuer_log l")
    await owner.close()
    assert "ValueError" in stored
    assert "jane" not in stored
    assert "jane" not in caplog.text


async def test_enqueue_when_delayed_then_runs_after_the_delay(jobs: Jobs) -> None:
    ran: list[float] = []

    async def work(_: dict[str, Any]) -> None:
        ran.append(time.monotonic())

    jobs.handle("later", work, concurrency=1)
    asked = time.monotonic()
    await jobs.enqueue("later", {}, delay_seconds=0.7)
    stop = asyncio.Event()
    running = asyncio.create_task(jobs.run(stop))
    await until(lambda: ran)
    stop.set()
    await running
    assert 0.65 <= ran[0] - asked < 2.0


async def test_every_when_two_processes_tick_then_one_turn_per_interval(database_dsns: RoleDsns) -> None:
    ticks: list[float] = []
    crons: list[float] = []
    stop = asyncio.Event()
    opened = []

    async def tick() -> None:
        ticks.append(time.monotonic())

    async def cron() -> None:
        crons.append(time.monotonic())

    for _ in range(2):
        jobs = await PgQueuerJobs.open(database_dsns.scheduler)
        jobs.every(0.4, "sweep", tick)
        jobs.every("* * * * * */1", "each second", cron)
        opened.append(jobs)
    running = [asyncio.create_task(jobs.run(stop)) for jobs in opened]
    await asyncio.sleep(3.3)
    stop.set()
    await asyncio.gather(*running)
    for jobs in opened:
        await jobs.close()
    assert 4 <= len(ticks) <= 9
    assert 1 <= len(crons) <= 4


async def test_run_when_connections_are_cut_then_work_goes_on(jobs: Jobs, database_dsns: RoleDsns) -> None:
    seen: list[int] = []

    async def work(payload: dict[str, Any]) -> None:
        seen.append(payload["n"])

    jobs.handle("work", work, concurrency=3)
    stop = asyncio.Event()
    running = asyncio.create_task(jobs.run(stop))
    await jobs.enqueue("work", {"n": 0})
    await until(lambda: 0 in seen)
    # More often than the pool has connections: one lost for good at each cut would show.
    for n in range(1, 7):
        scheduler = await connect(database_dsns.scheduler)
        cut = await scheduler.fetchval(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity"
            " where application_name = 'crmbridge jobs' and pid <> pg_backend_pid()"
        )
        await scheduler.close()
        assert cut >= 1
        await jobs.enqueue("work", {"n": n})
        await until(partial(seen.__contains__, n))
    stop.set()
    await asyncio.wait_for(running, timeout=10)


async def test_run_when_job_outlasts_the_grace_then_it_is_back_in_the_queue(
    jobs: PgQueuerJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crmbridge.db.jobs.GRACE_SECONDS", 0.3)
    begun: list[int] = []

    async def work(_: dict[str, Any]) -> None:
        begun.append(1)
        await asyncio.sleep(3600)

    jobs.handle("endless", work, concurrency=1)
    await jobs.enqueue("endless", {})
    stop = asyncio.Event()
    running = asyncio.create_task(jobs.run(stop))
    await until(lambda: begun)
    stop.set()
    await asyncio.wait_for(running, timeout=5)
    backlog = await jobs.backlog()
    assert (backlog["endless"].queued, backlog["endless"].running) == (1, 0)


async def test_run_when_cancelled_with_a_job_running_then_ends(jobs: PgQueuerJobs) -> None:
    begun: list[int] = []

    async def work(_: dict[str, Any]) -> None:
        begun.append(1)
        await asyncio.sleep(3600)

    jobs.handle("endless", work, concurrency=1)
    await jobs.enqueue("endless", {})
    running = asyncio.create_task(jobs.run(asyncio.Event()))
    await until(lambda: begun)
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=5)
    assert done


_VICTIM = """
import asyncio, sys
from crmbridge.db.jobs import PgQueuerJobs

async def main():
    jobs = await PgQueuerJobs.open(sys.argv[1])
    async def hang(payload):
        print("holding", payload["id"], flush=True)
        await asyncio.sleep(3600)
    jobs.handle("rescue", hang, concurrency=1)
    await jobs.run(asyncio.Event())

asyncio.run(main())
"""


async def test_job_when_its_worker_is_killed_then_another_takes_it_within_ten_seconds(
    jobs: Jobs, database_dsns: RoleDsns
) -> None:
    taken: list[str] = []

    async def work(payload: dict[str, Any]) -> None:
        taken.append(payload["id"])

    await jobs.enqueue("rescue", {"id": "w-1"}, dedupe_key="lane")
    victim = subprocess.Popen(
        [sys.executable, "-c", _VICTIM, database_dsns.scheduler], stdout=subprocess.PIPE, text=True
    )
    try:
        assert victim.stdout is not None
        assert await asyncio.to_thread(victim.stdout.readline) == "holding w-1\n"
        jobs.handle("rescue", work, concurrency=1)
        stop = asyncio.Event()
        running = asyncio.create_task(jobs.run(stop))
        await asyncio.sleep(1.5)
        assert taken == []
        victim.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        await until(lambda: taken, seconds=15)
        assert time.monotonic() - killed < 10
        assert taken == ["w-1"]
        stop.set()
        await running
    finally:
        victim.kill()
        victim.wait()
        if victim.stdout:
            victim.stdout.close()


async def test_handle_when_kind_is_taken_or_concurrency_is_zero_then_refused(jobs: Jobs) -> None:
    async def work(_: dict[str, Any]) -> None: ...

    async def tick() -> None: ...

    jobs.handle("once", work, concurrency=1)
    with pytest.raises(ValueError, match="handled already"):
        jobs.handle("once", work, concurrency=1)
    with pytest.raises(ValueError, match="at least 1"):
        jobs.handle("none", work, concurrency=0)
    with pytest.raises(ValueError, match="positive"):
        jobs.every(0, "never", tick)


async def test_jobs_when_the_clock_was_set_back_then_those_that_waited_and_those_of_the_dead_go_on(
    jobs: PgQueuerJobs, database_dsns: RoleDsns
) -> None:
    """Five hours back: what is in the engine's tables is five hours younger than it was."""
    done: list[str] = []

    async def work(payload: dict[str, Any]) -> None:
        done.append(payload["name"])

    async def tick() -> None:
        done.append("tick")

    await jobs.enqueue_many("work", [NewJob({"name": "waiting"}), NewJob({"name": "of the dead"}, "1")])
    owner = await connect(database_dsns.owner)
    try:
        await owner.execute(
            "update crmbridge_jobs.pgqueuer set execute_after = execute_after + interval '5 hours', "
            "heartbeat = heartbeat + interval '5 hours'"
        )
        await owner.execute(
            "update crmbridge_jobs.pgqueuer set status = 'picked', queue_manager_id = gen_random_uuid(), "
            "execute_after = now() - interval '1 minute' where dedupe_key is not null"
        )
        await owner.execute(
            "insert into crmbridge_jobs.ticks (name, next_at) values ('test.tick', now() + interval '5 hours')"
        )
    finally:
        await owner.close()
    jobs.handle("work", work, concurrency=2)
    jobs.every(0.5, "test.tick", tick)
    stop = asyncio.Event()
    running = asyncio.create_task(jobs.run(stop))
    await asyncio.sleep(1.2)
    assert done == []
    await jobs.mend_times(18_000)
    await until(lambda: set(done) == {"waiting", "of the dead", "tick"}, 20)
    stop.set()
    await running
