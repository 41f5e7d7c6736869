"""A worker process for the crash tests: drains one lane of a shared database, with a provider that logs to a file.

Arguments: app DSN, scheduler DSN, tenant id, connection id, log file, what to do (drain, accept).
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from uuid import UUID

from tests.integration.delivery_fakes import Fault, build, customer

from crmbridge.db.pool import Database


async def main(app: str, scheduler: str, tenant: str, connection: str, log: str, what: str) -> None:
    db = await Database.open(app, scheduler)
    house = await build(db, path=Path(log), tenant_id=UUID(tenant), connection_id=UUID(connection), batch=2)
    if what == "drain":
        house.provider.faults.append(Fault("hang"))
        await house.delivery.drain(UUID(connection))
    elif what == "drain_before":
        house.provider.latency = 60
        await house.delivery.drain(UUID(connection))
    else:
        house.jobs.drops = True
        accepted = await house.delivery.accept(
            "agent:test", house.tenant, customer(), idempotency_key="crash"
        )
        house.provider.note("accepted", [str(accepted.write_id)])
        await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
