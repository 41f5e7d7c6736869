"""A provider with quotas, connections that declare them, and processes that call as fast as they may."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from crmbridge.core.driver import CrmDriver
from crmbridge.core.errors import RateLimited
from crmbridge.core.manifest import Auth, AuthKind, Budget, BudgetKind, Manifest
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.db.pool import Database
from crmbridge.db.roles import RoleDsns
from crmbridge.emulation.emulator import Emulator, Incoming, route
from crmbridge.services.connections.access import Metered
from crmbridge.services.connections.budgets import Budgets
from crmbridge.services.connections.budgets.purse import Purse
from crmbridge.toolkit.egress import Egress, EgressPolicy

BURST, SEARCH, DAILY, CONCURRENT = BudgetKind


class Counted(Emulator):
    """Answers everything, keeps when it did, and how often it had to say 429."""

    slug = "counted"
    display_name = "Counted"

    def seed(self) -> None:
        self.moments: list[float] = []
        self.search_moments: list[float] = []
        self.refused = 0
        self.headers: dict[str, str] = {}
        self.refuse_next = ""

    @route("GET", "/things", operation="list")
    def things(self, call: Incoming) -> HttpResponse:
        if self.refuse_next:
            asked, self.refuse_next = self.refuse_next, ""
            return self.answer({"error": "too many"}, 429, {"retry-after": asked})
        self.moments.append(self.clock.timestamp())
        return self.answer({"ok": True}, headers=self.headers)

    @route("GET", "/search", operation="search")
    def search(self, call: Incoming) -> HttpResponse:
        self.moments.append(self.clock.timestamp())
        self.search_moments.append(self.clock.timestamp())
        return self.answer({"ok": True})

    def on_limited(self, quota: Any, wait_seconds: float, call: Incoming) -> HttpResponse:
        self.refused += 1
        return super().on_limited(quota, wait_seconds, call)


def most_in_a_period(moments: list[float], per_seconds: float) -> int:
    """The most calls in any period, wherever it begins."""
    moments = sorted(moments)
    most = first = 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - per_seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def manifest_of(*budgets: Budget) -> Manifest:
    return Manifest(
        slug="counted",
        display_name="Counted",
        api_version="1",
        pages=(),
        read_on="2026-11-25",
        auth=Auth(kind=AuthKind.NONE),
        budgets=budgets,
    )


def rate(kind: BudgetKind, limit: int, per_seconds: float, headers: str = "") -> Budget:
    return Budget(kind=kind, limit=limit, per_seconds=per_seconds, headers=headers)


async def new_connection(db: Database, dsns: RoleDsns) -> tuple[UUID, UUID]:
    """A tenant and a connection of it."""
    from crmbridge.db.pool import connect

    tenant_id, connection_id = uuid4(), uuid4()
    owner = await connect(dsns.owner)
    try:
        await owner.execute("alter table tenants no force row level security")
        columns = "id, slug, name, vertical, region, time_zone"
        await owner.execute(
            f"insert into tenants ({columns}) values ($1, $2, 'Acme', 'general', 'AE', 'UTC')",
            tenant_id,
            f"acme-{tenant_id.hex[:8]}",
        )
        await owner.execute("alter table tenants force row level security")
    finally:
        await owner.close()
    async with db.tenant(tenant_id) as conn:
        await conn.execute(
            "insert into connections (id, tenant_id, name, driver, created_by) values ($1, $2, 'primary', 'x', 'test')",
            connection_id,
            tenant_id,
        )
    return tenant_id, connection_id


@dataclass
class Caller:
    """One process's way to the provider: its own pools, budgets and egress."""

    db: Database
    budgets: Budgets
    egress: Any
    url: str
    tenant_id: UUID
    connection_id: UUID
    manifest: Manifest
    statuses: list[int] = field(default_factory=list)

    @property
    def purse(self) -> Purse:
        return self.budgets.purse(self.tenant_id, self.connection_id, CrmDriver, self.manifest)

    async def call(self, path: str = "/things", budget: str = "") -> int:
        metered = Metered(self.egress, self.purse)
        answer = await metered.send(HttpRequest(method="GET", url=self.url + path, budget=budget))
        self.statuses.append(answer.status)
        return answer.status

    async def rows(self) -> list[dict[str, Any]]:
        async with self.db.tenant(self.tenant_id) as conn:
            return [dict(row) for row in await conn.fetch("select * from rate_budgets order by kind")]

    async def close(self) -> None:
        await self.budgets.close()
        await self.egress.close()
        await self.db.close()


async def caller_of(
    dsns: tuple[str, str], url: str, tenant_id: UUID, connection_id: UUID, manifest: Manifest
) -> Caller:
    db = await Database.open(*dsns)
    egress = Egress(EgressPolicy(allow=("127.0.0.1",)))
    return Caller(db, Budgets(db), egress, url, tenant_id, connection_id, manifest)


async def work(
    app: str, scheduler: str, url: str, tenant: str, connection: str, budgets: str, seconds: str, tasks: str
) -> None:
    """A process: so many tasks call as fast as they may for so long, wait when told to, and report."""
    declared = [rate(BudgetKind(kind), limit, per) for kind, limit, per in json.loads(budgets)]
    caller = await caller_of((app, scheduler), url, UUID(tenant), UUID(connection), manifest_of(*declared))
    loop = asyncio.get_running_loop()
    end = loop.time() + float(seconds)
    waited = 0.0

    async def run() -> None:
        nonlocal waited
        while loop.time() < end:
            try:
                await caller.call()
            except RateLimited as error:
                pause = min(error.retry_after_seconds or 1.0, end - loop.time())
                waited += pause
                await asyncio.sleep(max(pause, 0.01))

    await asyncio.gather(*(run() for _ in range(int(tasks))))
    print(json.dumps({"calls": len(caller.statuses), "refused": caller.statuses.count(429)}), flush=True)
    await caller.close()


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
