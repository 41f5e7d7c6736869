"""A process that locks a lane inside a transaction, as a worker between two statements does, and stays so.

``python -m tests.faults.holder TENANT CONNECTION``; says ``locked`` when it holds it. Ends with its standard input.
"""

from __future__ import annotations

import asyncio
import os
import sys
from uuid import UUID

from crmbridge.db.pool import Database


async def hold(tenant: UUID, lane: UUID) -> None:
    """Until standard input ends."""
    database = await Database.open(
        os.environ["CRMBRIDGE_DATABASE_URL"], os.environ["CRMBRIDGE_DATABASE_SCHEDULER_URL"]
    )
    async with database.tenant(tenant) as conn:
        await conn.fetchval("select true from lanes where connection_id = $1 for update", lane)
        print("locked", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(hold(UUID(sys.argv[1]), UUID(sys.argv[2])))
