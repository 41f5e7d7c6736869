"""Another process of the same house: reads records many times at once. Arguments: tenant id, calls, what to do.

``race`` waits for a line on stdin, calls, and prints how each call ended; ``hang`` only makes one call.
Settings come from the environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from uuid import UUID

from tests.e2e.acme.house import ACME_DRIVERS

from crmbridge.app import running_services
from crmbridge.core.errors import CrmError
from crmbridge.core.records import Object
from crmbridge.drivers import DRIVERS
from crmbridge.services import Services
from crmbridge.settings import Settings


async def call(services: Services, tenant_id: UUID) -> str:
    try:
        connection = await services.connections.open(tenant_id)
        await connection.list_recent(Object.CUSTOMER, actor="test")
    except CrmError as error:
        return error.full_code
    return "ok"


async def main(tenant: str, calls: int, what: str) -> None:
    DRIVERS.update(ACME_DRIVERS)
    async with running_services(Settings.from_environment(os.environ)) as services:
        if what == "race":
            # Opened, with the token that is dead by now.
            await services.connections.open(UUID(tenant))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        ended = Counter(await asyncio.gather(*(call(services, UUID(tenant)) for _ in range(calls))))
        print(json.dumps(ended), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
