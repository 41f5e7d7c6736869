"""A deep backlog on 10 connections beside the same drain with plain rows (design 13, row 4).

The plain drain is a loop over asyncpg: it takes the due rows of a lane under a fence and marks them ``sending``
(one statement, one commit), calls the same driver, and saves the state under the fence (one statement, one commit).
It reads the next rows while a call is in flight, as ours does. It has no sealing, no mapping, no tenants'
isolation, no audit, no attempts, no rate budget and no job engine. Both run in this process, in turn, on the same
PostgreSQL (fsync and synchronous_commit on), with the same provider.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec

from benchmarks import delivery as backlog
from benchmarks.crowd import administered, connected_crowd
from benchmarks.house import Drained, lead_fields, metered, paired, prepared, show
from crmbridge import drivers
from crmbridge.app import running_services
from crmbridge.core.driver import Access, CrmDriver
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object, Write
from crmbridge.services import Services
from crmbridge.services.connections.model import Intent
from crmbridge.services.delivery.model import NewWrite

_TABLES = """
create table if not exists plain_lanes (
    id uuid primary key, fence bigint not null default 0, leased_until timestamptz
);
create table if not exists plain_rows (
    id uuid primary key, lane uuid not null, seq bigint generated always as identity, body jsonb not null,
    state text not null default 'accepted', due_at timestamptz not null default now(),
    attempt_count integer not null default 0, remote_id text not null default '', finished_at timestamptz
);
create index if not exists plain_rows_waiting on plain_rows (lane, seq) where state in ('accepted', 'sending');
"""
_LEASE = """
update plain_lanes set fence = fence + 1, leased_until = clock_timestamp() + interval '15 seconds'
where id = $1 returning fence
"""
_TAKE = """
update plain_rows set state = 'sending', attempt_count = attempt_count + 1
where id in (select id from plain_rows where lane = $1 and state = 'accepted' and due_at <= clock_timestamp()
             order by seq limit $3)
  and exists (select from plain_lanes where id = $1 and fence = $2 and leased_until > clock_timestamp())
returning id, body
"""
_SAVE = """
update plain_rows p set state = 'applied', remote_id = r.remote_id, finished_at = clock_timestamp()
from unnest($3::uuid[], $4::text[]) as r (id, remote_id)
where p.id = r.id and p.lane = $1 and p.state = 'sending'
  and exists (select from plain_lanes where id = $1 and fence = $2)
"""


async def measure(connections: int, records: int, rounds: int, call_ms: float) -> dict[str, float]:
    """Medians over the rounds; the ratio is taken pair by pair. ``records`` per connection."""
    drivers.DRIVERS["bench"] = "benchmarks.delivery:Bench"
    backlog.CALL_SECONDS = call_ms / 1000
    pairs: list[tuple[Drained, Drained]] = []
    async with (
        prepared() as house,
        running_services(house.settings) as services,
        administered(house) as admin,
    ):
        members = await connected_crowd(house, services, "bench", {}, connections)
        lanes = [member.connection_id for member in members]
        pool = await asyncpg.create_pool(
            house.postgres.admin_dsn, min_size=connections, max_size=connections, init=_codecs
        )
        await pool.execute(_TABLES)
        await pool.executemany("insert into plain_lanes (id) values ($1)", [(lane,) for lane in lanes])
        for number in range(rounds):
            total = connections * records
            await _accept(services, [member.tenant_id for member in members], records, str(number))
            ours = await metered(house, admin, total, lambda: _ours(services, admin))
            applied = await admin.fetchval("select count(*) from write_targets where state = 'applied'")
            if applied != total * (number + 1):
                raise RuntimeError(f"{applied} of {total * (number + 1)} were applied")
            await _add_plain(pool, lanes, records)
            plain = await metered(house, admin, total, lambda: _plain(services, pool, lanes))
            left = await pool.fetchval("select count(*) from plain_rows where state <> 'applied'")
            if left:
                raise RuntimeError(f"{left} plain rows are left")
            pairs.append((ours, plain))
        await pool.close()
    return paired(pairs, "plain")


# -- ours ------------------------------------------------------------------------------------------------------


async def _accept(services: Services, tenant_ids: list[UUID], records: int, run: str) -> None:
    for tenant_id in tenant_ids:
        tenant = await services.tenants.get(tenant_id)
        for start in range(0, records, 500):
            items = [_lead(f"{run}-{n}") for n in range(start, min(start + 500, records))]
            answers = await services.delivery.accept_many("bench", tenant, items)
            refused = next((answer for answer in answers if isinstance(answer, Exception)), None)
            if refused:
                raise refused


def _lead(number: str) -> NewWrite:
    intent = Intent(object=Object.LEAD, operation=Operation.CREATE, fields=lead_fields(number))
    return NewWrite(intent=intent, idempotency_key=number)


async def _ours(services: Services, admin: Any) -> None:
    stop = asyncio.Event()
    worker = asyncio.create_task(services.jobs.run(stop))
    while await admin.fetchval("select exists (select from lanes where next_due is not null)"):
        await asyncio.sleep(0.02)
    stop.set()
    await worker


# -- plain -----------------------------------------------------------------------------------------------------


async def _codecs(conn: Any) -> None:
    await conn.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=msgspec.json.decode)


async def _add_plain(pool: Any, lanes: list[UUID], records: int) -> None:
    for lane in lanes:
        await pool.execute(
            "insert into plain_rows (id, lane, body) select id, $2, body from unnest($1::uuid[], $3::jsonb[])"
            " as r (id, body)",
            [uuid4() for _ in range(records)],
            lane,
            [lead_fields(str(number)) for number in range(records)],
        )


async def _plain(services: Services, pool: Any, lanes: list[UUID]) -> None:
    access = Access(settings={}, secrets={}, transport=services.connections.egress)
    await asyncio.gather(*(_drain_plain(pool, lane, drivers.load("bench")(access)) for lane in lanes))


async def _drain_plain(pool: Any, lane: UUID, driver: CrmDriver) -> None:
    fence = await pool.fetchval(_LEASE, lane)
    rows = await pool.fetch(_TAKE, lane, fence, backlog.BATCH)
    while rows:
        writes = [
            Write(
                target_id=str(row["id"]), operation=Operation.CREATE, object=Object.LEAD, fields=row["body"]
            )
            for row in rows
        ]
        call = asyncio.create_task(driver.write_batch(writes))
        rows = await pool.fetch(_TAKE, lane, fence, backlog.BATCH)
        results = await call
        await pool.execute(
            _SAVE, lane, fence, [UUID(write.target_id) for write in writes], [r.remote_id for r in results]
        )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--records", type=int, default=4000, help="per connection and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--call-ms", type=float, default=50.0, help="what a call to the provider takes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    import uvloop

    figures = uvloop.run(measure(options.connections, options.records, options.rounds, options.call_ms))
    title = (
        f"deep backlog, {options.connections} connections, {options.call_ms:g} ms a call of {backlog.BATCH}"
    )
    show(title, figures, "goal: ratio >= 0.4; CPU and log are per record", as_json=options.json)


if __name__ == "__main__":
    main()
