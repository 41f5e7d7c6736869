"""What the metrics tell of rate budgets: the poorest connection of a driver, and no connection's id."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from tests.integration.budget_fakes import (
    BURST,
    CONCURRENT,
    Counted,
    caller_of,
    manifest_of,
    new_connection,
    rate,
)

from crmbridge.core.driver import CrmDriver
from crmbridge.db.pool import Database
from crmbridge.db.roles import RoleDsns
from crmbridge.emulation.serve import serve_emulators
from crmbridge.services.connections.budgets import Budgets

pytestmark = pytest.mark.postgres


async def test_shares_when_calls_were_made_then_the_least_of_all_connections(
    database: Database, database_dsns: RoleDsns
) -> None:
    emulator = Counted()
    served = await serve_emulators({"counted": emulator})
    manifest = manifest_of(rate(BURST, 40, 60), rate(CONCURRENT, 3, 0))
    dsns = (database_dsns.app, database_dsns.scheduler)
    places = [await new_connection(database, database_dsns) for _ in range(2)]
    caller = await caller_of(dsns, emulator.base_url, *places[0], manifest)
    try:
        assert await caller.budgets.shares() == {}
        await caller.call()
        (first,) = (await caller.budgets.shares()).values()
        assert 0.8 < first < 1.0
        caller.tenant_id, caller.connection_id = places[1]
        for _ in range(12):
            await caller.call()
        shares = await caller.budgets.shares()
        assert set(shares) == {("counted", "burst")} and 0.0 < shares["counted", "burst"] < first
        emulator.refuse_next = "30"
        assert await caller.call() == 429
        assert await caller.budgets.shares() == {("counted", "burst"): 0.0}
    finally:
        await caller.close()
        await served.close()


async def test_shares_when_there_are_thousands_then_others_come_to_their_turn_in_between(
    database: Database,
) -> None:
    budgets, manifest = Budgets(database), manifest_of(rate(BURST, 40, 60))
    for _ in range(1_000):
        budgets.purse(uuid4(), uuid4(), CrmDriver, manifest)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            # A purse that comes meanwhile does no harm.
            budgets.purse(uuid4(), uuid4(), CrmDriver, manifest)
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    assert await budgets.shares() == {}
    task.cancel()
    assert turns >= 10
