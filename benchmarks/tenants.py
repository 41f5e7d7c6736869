"""Delivery for 4,000 tenants with one write each beside a bare drain of the same job engine (design 13, row 5).

The bare drain is the same engine behind the same seam (``db/jobs.py``): one job per lane, whose function calls the
same driver and then does one update. It has no sealing, no mapping, no tenants' isolation, no lease, no audit, no
attempts, no rate budget. Everything is accepted and enqueued before the clock starts; the services that deliver
were opened anew, so that nothing of any tenant is in their memory. Both run in this process, in turn, on the same
PostgreSQL (fsync and synchronous_commit on).
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from benchmarks import delivery as backlog
from benchmarks.crowd import Member, administered, connected_crowd
from benchmarks.house import Drained, Prepared, lead_fields, metered, paired, prepared, show
from crmbridge import drivers
from crmbridge.app import running_services
from crmbridge.core.driver import Access
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object, Write
from crmbridge.db.jobs import NewJob, PgQueuerJobs
from crmbridge.services import Services
from crmbridge.services.connections.model import Intent

_KIND = "benchmark.bare"
_TABLE = """
create table if not exists public.bare_lanes (
    id uuid primary key, body jsonb not null, state text not null default 'accepted',
    remote_id text not null default '', finished_at timestamptz
)
"""
_SAVE = "update public.bare_lanes set state = 'applied', remote_id = $2, finished_at = clock_timestamp() where id = $1"


async def measure(tenants: int, rounds: int, call_ms: float) -> dict[str, float]:
    """Medians over the rounds; the ratio is taken pair by pair."""
    drivers.DRIVERS["bench"] = "benchmarks.delivery:Bench"
    backlog.CALL_SECONDS = call_ms / 1000
    pairs: list[tuple[Drained, Drained]] = []
    async with prepared() as house, administered(house) as admin:
        await admin.execute(_TABLE)
        async with running_services(house.settings) as services:
            members = await connected_crowd(house, services, "bench", {}, tenants)
        for number in range(rounds):
            async with running_services(house.settings) as services:
                await _accept(services, members, str(number))
            async with running_services(house.settings) as services:
                ours = await metered(house, admin, tenants, lambda: _ours(services, admin))
            applied = await admin.fetchval("select count(*) from write_targets where state = 'applied'")
            if applied != tenants * (number + 1):
                raise RuntimeError(f"{applied} of {tenants * (number + 1)} were applied")
            bare = await _bare_round(house, admin, tenants)
            pairs.append((ours, bare))
    return paired(pairs, "bare")


async def _until(jobs: Any, is_done: Callable[[], Awaitable[bool]]) -> None:
    stop = asyncio.Event()
    worker = asyncio.create_task(jobs.run(stop))
    while not await is_done():
        await asyncio.sleep(0.05)
    stop.set()
    await worker


# -- ours ------------------------------------------------------------------------------------------------------


async def _accept(services: Services, members: list[Member], run: str) -> None:
    gate = asyncio.Semaphore(64)

    async def one(number: int, member: Member) -> None:
        async with gate:
            tenant = await services.tenants.get(member.tenant_id)
            intent = Intent(object=Object.LEAD, operation=Operation.CREATE, fields=lead_fields(number))
            await services.delivery.accept("bench", tenant, intent, idempotency_key=run)

    await asyncio.gather(*(one(number, member) for number, member in enumerate(members)))


async def _ours(services: Services, admin: Any) -> None:
    async def is_done() -> bool:
        return not await admin.fetchval("select exists (select from lanes where next_due is not null)")

    await _until(services.jobs, is_done)


# -- bare ------------------------------------------------------------------------------------------------------


async def _bare_round(house: Prepared, admin: Any, count: int) -> Drained:
    ids = [uuid4() for _ in range(count)]
    await admin.execute("truncate public.bare_lanes")
    await admin.execute(
        "insert into public.bare_lanes (id, body) select * from unnest($1::uuid[], $2::text[]::jsonb[])",
        ids,
        [json.dumps(lead_fields(number)) for number in range(count)],
    )
    async with running_services(house.settings) as services:
        access = Access(settings={}, secrets={}, transport=services.connections.egress)
        driver_class = drivers.load("bench")
        pool = await asyncpg.create_pool(
            house.postgres.admin_dsn.replace("/postgres?", "/crmbridge?"),
            min_size=0,
            max_size=house.settings.pool_size,
        )
        jobs = await PgQueuerJobs.open(house.settings.database_scheduler_url)

        async def function(payload: dict[str, Any]) -> None:
            lane = UUID(payload["lane"])
            write = Write(
                target_id=str(lane), operation=Operation.CREATE, object=Object.LEAD, fields=payload["fields"]
            )
            result = (await driver_class(access).write_batch([write]))[0]
            await pool.execute(_SAVE, lane, result.remote_id)

        jobs.handle(_KIND, function, concurrency=house.settings.worker_concurrency)
        for start in range(0, count, 500):
            await jobs.enqueue_many(
                _KIND,
                [
                    NewJob({"lane": str(lane), "fields": lead_fields(number)}, dedupe_key=str(lane))
                    for number, lane in enumerate(ids[start : start + 500], start)
                ],
            )

        async def is_done() -> bool:
            return not await admin.fetchval(
                "select exists (select from public.bare_lanes where state <> 'applied')"
            )

        drained = await metered(house, admin, count, lambda: _until(jobs, is_done))
        await jobs.close()
        await pool.close()
    return drained


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--call-ms", type=float, default=20.0, help="what a call to the provider takes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    import uvloop

    figures = uvloop.run(measure(options.tenants, options.rounds, options.call_ms))
    title = f"{options.tenants} tenants with one write each, {options.call_ms:g} ms a call"
    goal = "goal: ratio >= 0.4 and >= 200 writes/s; CPU and log are per write"
    show(title, figures, goal, as_json=options.json)


if __name__ == "__main__":
    main()
