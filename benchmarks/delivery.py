"""Delivery of a backlog: 2 connections, one call in flight each, a 50 ms provider, batches of 100 (design 13, row 3).

The bound is what the provider allows: 2 connections x 100 records / 50 ms = 4,000 records/s. The provider is a driver
that waits 50 ms and answers; everything else is the real thing: sealed writes, mapping, lanes, attempts, audit.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.house import cpu_seconds, prepared
from crmbridge import drivers
from crmbridge.app import running_services
from crmbridge.core.driver import CrmDriver, Proof
from crmbridge.core.manifest import Auth, AuthKind, Budget, BudgetKind, Manifest, ObjectSpec
from crmbridge.core.operations import FULL, Operation, Outcome
from crmbridge.core.records import Object, Write, WriteResult
from crmbridge.services.connections.model import Intent
from crmbridge.services.delivery.model import NewWrite, TargetState

CALL_SECONDS = 0.05
BATCH = 100
MANIFEST = Manifest(
    slug="bench",
    display_name="Bench",
    api_version="1",
    pages=(),
    read_on="2026-11-23",
    auth=Auth(kind=AuthKind.NONE),
    budgets=(Budget(kind=BudgetKind.CONCURRENT, limit=1),),
    objects={
        Object.LEAD: ObjectSpec(
            native="lead", operations={Operation.CREATE: FULL}, batch={Operation.CREATE: BATCH}
        )
    },
)


class Bench(CrmDriver):
    """A provider that takes 50 ms per call and applies everything."""

    MANIFEST = MANIFEST
    calls = 0

    async def test_connection(self) -> Proof:
        """Always there."""
        return Proof(account="bench")

    async def write_batch(self, writes: Sequence[Write]) -> list[WriteResult]:
        """One call."""
        type(self).calls += 1
        await asyncio.sleep(CALL_SECONDS)
        return [WriteResult(outcome=Outcome.APPLIED, remote_id=f"r{write.target_id}") for write in writes]

    async def create_record(self, write: Write) -> WriteResult:
        """A batch of one."""
        return (await self.write_batch([write]))[0]


async def measure(connections: int, records: int) -> dict[str, float]:
    """Records/s over the whole backlog, the share of the bound, and CPU per record in microseconds."""
    drivers.DRIVERS["bench"] = "benchmarks.delivery:Bench"
    bench: Any = drivers.load("bench")  # this module may run as __main__, and then stands here twice
    async with prepared() as house, running_services(house.settings) as services:
        tenants = []
        for number in range(connections):
            tenant = await services.tenants.add(f"t{number}", "T", "real_estate", "AE", "UTC", "bench")
            credential = await services.connections.connect(tenant, "bench", {}, actor="bench")
            await services.connections.test(tenant, credential.id, actor="bench")
            await services.connections.activate(tenant, credential.id, actor="bench")
            tenants.append(tenant)
        for tenant in tenants:
            for start in range(0, records, 500):
                items = [_lead(n) for n in range(start, min(start + 500, records))]
                answers = await services.delivery.accept_many("bench", tenant, items)
                assert not any(isinstance(answer, Exception) for answer in answers), answers[0]
        stop = asyncio.Event()
        before, started = cpu_seconds(os.getpid()), time.perf_counter()
        worker = asyncio.create_task(services.jobs.run(stop))
        while True:
            await asyncio.sleep(0.1)
            counts = [await services.delivery.counts(tenant.id) for tenant in tenants]
            if all(count[TargetState.APPLIED] == records for count in counts):
                break
        seconds = time.perf_counter() - started
        spent = cpu_seconds(os.getpid()) - before
        stop.set()
        await worker
    total = connections * records
    bound = connections * BATCH / CALL_SECONDS
    return {
        "records": total,
        "records_per_second": total / seconds,
        "share_of_bound": total / seconds / bound,
        "provider_calls": bench.calls,
        "worker_cpu_us_per_record": spent / total * 1e6,
    }


def _lead(number: int) -> NewWrite:
    fields = {
        "first_name": "Layla",
        "email": f"l{number}@example.com",
        "phone": "+971501234567",
        "bedrooms": 3,
    }
    intent = Intent(object=Object.LEAD, operation=Operation.CREATE, fields=fields)
    return NewWrite(intent=intent, idempotency_key=f"k{number}")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=2)
    parser.add_argument("--records", type=int, default=10_000, help="per connection")
    options = parser.parse_args()
    import uvloop

    figures = uvloop.run(measure(options.connections, options.records))
    print(f"delivery of a backlog, {options.connections} connections, 50 ms provider, batches of {BATCH}")
    for name, value in figures.items():
        print(f"  {name:26} {value:10.2f}")
    print("  goal: share of the bound >= 0.8")


if __name__ == "__main__":
    main()
