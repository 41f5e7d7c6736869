"""Rate budgets over several processes, against a provider that counts for itself."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from time import monotonic
from typing import Any
from uuid import UUID

import msgspec
import pytest
from tests.integration.budget_fakes import (
    BURST,
    CONCURRENT,
    DAILY,
    SEARCH,
    Caller,
    Counted,
    caller_of,
    manifest_of,
    most_in_a_period,
    new_connection,
    rate,
)

from crmbridge.core.errors import RateLimited
from crmbridge.core.manifest import Budget
from crmbridge.core.operations import Outcome
from crmbridge.db.pool import Database
from crmbridge.db.roles import RoleDsns
from crmbridge.emulation.quotas import Quota
from crmbridge.emulation.serve import serve_emulators

pytestmark = pytest.mark.postgres

NewCaller = Callable[..., Awaitable[Caller]]


@pytest.fixture
async def counted() -> AsyncIterator[Counted]:
    emulator = Counted()
    served = await serve_emulators({"counted": emulator})
    yield emulator
    await served.close()


@pytest.fixture
async def place(database: Database, database_dsns: RoleDsns) -> tuple[UUID, UUID]:
    return await new_connection(database, database_dsns)


@pytest.fixture
async def caller(
    database_dsns: RoleDsns, counted: Counted, place: tuple[UUID, UUID]
) -> AsyncIterator[NewCaller]:
    """Makes callers of one connection; each stands for a process: nothing is shared but the database."""
    async with AsyncExitStack() as stack:

        async def make(*budgets: Budget) -> Caller:
            dsns = (database_dsns.app, database_dsns.scheduler)
            made = await caller_of(dsns, counted.base_url, *place, manifest_of(*budgets))
            stack.push_async_callback(made.close)
            return made

        yield make


class Processes:
    """Worker processes of one connection, ended by their own ids."""

    def __init__(self, dsns: RoleDsns, url: str, place: tuple[UUID, UUID]) -> None:
        self._start = [dsns.app, dsns.scheduler, url, *map(str, place)]
        self.running: list[asyncio.subprocess.Process] = []

    async def start(self, budgets: list[Any], seconds: float, tasks: int) -> asyncio.subprocess.Process:
        rest = [json.dumps(budgets), str(seconds), str(tasks)]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.integration.budget_fakes",
            *self._start,
            *rest,
            stdout=asyncio.subprocess.PIPE,
        )
        self.running.append(process)
        return process

    async def close(self) -> None:
        for process in self.running:
            if process.returncode is None:
                process.kill()
                await process.wait()


@pytest.fixture
async def processes(
    database_dsns: RoleDsns, counted: Counted, place: tuple[UUID, UUID]
) -> AsyncIterator[Processes]:
    made = Processes(database_dsns, counted.base_url, place)
    yield made
    await made.close()


async def test_budget_when_four_processes_call_as_fast_as_they_may_then_all_of_it_is_used_and_none_refused(
    counted: Counted, processes: Processes
) -> None:
    counted.quotas = [Quota(limit=100, per_seconds=10.0)]
    seconds = 25.0
    workers = [await processes.start([["burst", 100, 10.0]], seconds, 5) for _ in range(4)]
    reports = [json.loads((await worker.communicate())[0]) for worker in workers]
    begun = counted.moments[0]
    # Processes do not start at the same moment: what counts is what the provider saw from the first call on.
    seen = [moment for moment in counted.moments if moment < begun + seconds]
    assert counted.refused == 0 and sum(report["refused"] for report in reports) == 0
    assert most_in_a_period(counted.moments, 10.0) <= 100
    assert len(seen) >= 0.95 * 100 * seconds / 10
    assert all(report["calls"] > 0 for report in reports), "nobody was left out"


async def test_budget_when_a_process_is_killed_then_what_it_held_comes_back(
    counted: Counted, processes: Processes, caller: NewCaller
) -> None:
    # Eight ahead of 64: a process that has begun to call holds more than it has used.
    worker = await processes.start([["burst", 64, 4.0]], 60.0, 1)
    async with asyncio.timeout(20):
        while len(counted.moments) < 5:
            await asyncio.sleep(0.005)
    worker.kill()
    await worker.wait()
    here = await caller(rate(BURST, 64, 4.0))
    [budget] = await here.budgets.remaining(here.tenant_id, here.connection_id, here.manifest)
    assert budget.remaining <= 64 - len(counted.moments)
    await asyncio.sleep(4.0 + 1.0 + 0.2)
    [budget] = await here.budgets.remaining(here.tenant_id, here.connection_id, here.manifest)
    assert budget.remaining == 64


async def test_budget_when_the_provider_asks_for_a_pause_then_every_process_keeps_it(
    counted: Counted, caller: NewCaller
) -> None:
    first, second = await caller(rate(BURST, 100, 10.0)), await caller(rate(BURST, 100, 10.0))
    counted.refuse_next = "1"
    begun = monotonic()
    assert await first.call() == 429
    await asyncio.sleep(0.05)
    assert await second.call() == 200
    assert monotonic() - begun > 0.9, "waited the pause out"
    counted.refuse_next = "30"
    assert await second.call() == 429
    await asyncio.sleep(0.05)
    first.purse.drop_tokens()
    for each in (first, second):
        with pytest.raises(RateLimited) as refused:
            await each.call()
        assert 28 < (refused.value.retry_after_seconds or 0) <= 30
        assert refused.value.outcome is Outcome.NOT_APPLIED and refused.value.retry_safe
    assert len(counted.moments) == 1, "nothing was sent"
    [row] = await first.rows()
    assert row["held_until"] is not None


async def test_budget_when_used_up_then_refused_without_waiting_for_it_and_told_when_to_come_again(
    counted: Counted, caller: NewCaller
) -> None:
    here = await caller(rate(BURST, 3, 60.0))
    for _ in range(3):
        await here.call()
    begun = monotonic()
    with pytest.raises(RateLimited) as refused:
        await here.call()
    assert monotonic() - begun < 10, "no use in waiting for a minute"
    assert 55 < (refused.value.retry_after_seconds or 0) <= 62
    assert "burst budget" in refused.value.message and len(counted.moments) == 3


async def test_budget_when_used_up_for_a_moment_then_the_call_waits_and_goes(
    counted: Counted, caller: NewCaller
) -> None:
    here = await caller(rate(BURST, 5, 1.0))
    assert await asyncio.gather(*(here.call() for _ in range(9))) == [200] * 9
    assert most_in_a_period(counted.moments, 1.0) <= 5


async def test_budget_when_daily_then_shared_and_what_is_not_used_comes_back(
    counted: Counted, caller: NewCaller
) -> None:
    first, second = await caller(rate(DAILY, 400, 86_400.0)), await caller(rate(DAILY, 400, 86_400.0))
    for _ in range(30):
        await first.call()
    await second.call()

    async def left() -> int:
        [budget] = await second.budgets.remaining(second.tenant_id, second.connection_id, second.manifest)
        return budget.remaining

    assert await left() <= 400 - 31
    async with asyncio.timeout(10):
        while await left() != 400 - 31:
            await asyncio.sleep(0.1)


async def test_budget_when_closed_then_unused_tokens_of_a_day_go_back_at_once(
    counted: Counted, caller: NewCaller, database_dsns: RoleDsns, place: tuple[UUID, UUID]
) -> None:
    dsns = (database_dsns.app, database_dsns.scheduler)
    going = await caller_of(dsns, counted.base_url, *place, manifest_of(rate(DAILY, 400, 86_400.0)))
    for _ in range(20):
        await going.call()
    await going.close()
    here = await caller(rate(DAILY, 400, 86_400.0))
    [budget] = await here.budgets.remaining(here.tenant_id, here.connection_id, here.manifest)
    assert budget.remaining == 380


async def test_budget_when_a_search_then_it_counts_against_both_and_others_pass_it_by(
    counted: Counted, caller: NewCaller
) -> None:
    here = await caller(rate(BURST, 100, 10.0), rate(SEARCH, 2, 1.0))
    searches = [asyncio.create_task(here.call("/search", "search")) for _ in range(4)]
    await asyncio.sleep(0.05)
    assert await here.call() == 200
    assert len(counted.search_moments) <= 2, "an ordinary call does not queue behind searches"
    assert await asyncio.gather(*searches) == [200] * 4
    assert most_in_a_period(counted.search_moments, 1.0) <= 2
    left = {
        budget.kind: budget.limit - budget.remaining
        for budget in await here.budgets.remaining(here.tenant_id, here.connection_id, here.manifest)
    }
    assert left["burst"] >= 5


async def test_budget_when_the_answer_tells_of_others_then_it_is_corrected(
    counted: Counted, caller: NewCaller
) -> None:
    budget = rate(BURST, 100, 10.0, headers="x-acme-ratelimit")
    here, there = await caller(budget), await caller(budget)
    counted.headers = {"x-acme-ratelimit-max": "40", "x-acme-ratelimit-remaining": "0"}
    await here.call()
    await asyncio.sleep(0.1)
    [known] = await there.budgets.remaining(there.tenant_id, there.connection_id, there.manifest)
    assert (known.limit, known.remaining) == (40, 0)
    with pytest.raises(RateLimited):
        await there.call()
    assert len(counted.moments) == 1


async def test_budget_when_none_is_declared_then_no_row_and_the_pause_is_kept_here(
    counted: Counted, caller: NewCaller
) -> None:
    here = await caller(Budget(kind=CONCURRENT, limit=4))
    assert await here.call() == 200
    counted.refuse_next = "30"
    assert await here.call() == 429
    with pytest.raises(RateLimited):
        await here.call()
    assert await here.rows() == []


async def in_its_place(of: Caller) -> None:
    """A call that counts among those in flight."""
    async with of.purse:
        await of.call()


async def test_calls_in_flight_when_two_processes_have_many_then_they_divide_the_limit(
    counted: Counted, caller: NewCaller
) -> None:
    counted.latency_seconds = 0.03
    limit = Budget(kind=CONCURRENT, limit=4)
    first, second = await caller(limit), await caller(limit)

    async def many(of: Caller, seconds: float) -> None:
        end = monotonic() + seconds
        while monotonic() < end:
            await asyncio.gather(*(in_its_place(of) for _ in range(8)))

    await many(first, 0.5)
    assert counted.in_flight_peak == 4, "alone it has all of them"
    both = asyncio.gather(many(first, 4.0), many(second, 4.0))
    await asyncio.sleep(2.0)
    counted.in_flight_peak = 0
    await asyncio.sleep(1.5)
    assert counted.in_flight_peak <= 4
    await both
    await asyncio.sleep(3.2)
    counted.in_flight_peak = 0
    await many(first, 0.5)
    await many(first, 0.5)
    assert counted.in_flight_peak == 4, "the other has gone"


async def test_calls_in_flight_when_a_process_steps_aside_then_the_next_has_all_of_them_at_once(
    counted: Counted, caller: NewCaller
) -> None:
    counted.latency_seconds = 0.03
    limit = Budget(kind=CONCURRENT, limit=4)
    first, second = await caller(limit), await caller(limit)

    for of in (first, second, first):
        await asyncio.gather(*(in_its_place(of) for _ in range(8)))
        await asyncio.sleep(0.1)
        assert of.purse.at_once == 4
        of.purse.step_aside()
        await asyncio.sleep(0.1)
    await asyncio.gather(*(in_its_place(first) for _ in range(4)))
    await asyncio.sleep(0.1)
    await asyncio.gather(*(in_its_place(second) for _ in range(4)))
    await asyncio.sleep(0.1)
    assert second.purse.at_once == 2, "the first is still there"


async def test_purse_when_its_provider_limits_calls_in_flight_no_more_then_stepping_aside_changes_nothing(
    counted: Counted, caller: NewCaller
) -> None:
    counted.latency_seconds = 0.03
    here = await caller(Budget(kind=CONCURRENT, limit=2))
    await asyncio.gather(*(in_its_place(here) for _ in range(4)))
    here.manifest = msgspec.structs.replace(here.manifest, budgets=())
    here.purse.step_aside()
    assert here.purse.at_once == here.manifest.in_flight_limit()


async def test_budget_when_a_waiting_call_is_cancelled_then_others_get_its_token(
    counted: Counted, caller: NewCaller
) -> None:
    here = await caller(rate(BURST, 2, 1.0))
    await asyncio.gather(here.call(), here.call())
    waiting = asyncio.create_task(here.call())
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await here.call() == 200
    assert len(counted.moments) == 3


async def test_budget_when_the_clock_was_set_back_then_nothing_spent_or_held_stays_so_for_hours(
    counted: Counted, caller: NewCaller
) -> None:
    """Five hours back: what is in the table is five hours younger than it was."""
    here = await caller(rate(BURST, 4, 2.0))
    for _ in range(3):
        await here.call()
    async with here.db.tenant(here.tenant_id) as conn:
        await conn.execute(
            "update rate_budgets set grains = array(select g + 900000 from unnest(grains) as g), "
            "paced_until = paced_until + 18000, foreign_until = foreign_until + 18000, foreign_calls = 1, "
            "held_until = clock_timestamp() + interval '5 hours 20 seconds', holders = array[gen_random_uuid()], "
            "holders_until = array[extract(epoch from clock_timestamp())::float8 + 18000]"
        )
        await here.budgets.mend_times(conn, 900, 18_000)
    [row] = await here.rows()
    left = await here.budgets.remaining(here.tenant_id, here.connection_id, here.manifest)
    now = time.time()
    assert sum(row["spent"]) == 3 and all(grain * 0.02 < now + 1 for grain in row["grains"])
    assert row["paced_until"] < now + 1 and row["foreign_until"] < now + 3
    assert row["holders_until"][0] < now + 1 and 10 < left[0].held_seconds <= 20
    async with here.db.tenant(here.tenant_id) as conn:
        await conn.execute("update rate_budgets set held_until = null")
        await here.budgets.mend_times(conn, 900, 18_000)
    [row] = await here.rows()
    assert row["held_until"] is None, "least() passes over nulls"
    await asyncio.sleep(2.2)
    [budget] = await here.budgets.remaining(here.tenant_id, here.connection_id, here.manifest)
    assert budget.remaining == 4
