"""Statements that are a transaction of their own and set their tenant themselves, whatever plan the server chooses."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.integration.delivery_fakes import House, build, customer

from crmbridge.db.pool import Database
from crmbridge.services.delivery.model import Limits, TargetState

pytestmark = pytest.mark.postgres

PLANS = {
    "as planned": (),
    "hash joins over whole tables": (
        "enable_nestloop",
        "enable_mergejoin",
        "enable_indexscan",
        "enable_bitmapscan",
    ),
    "merge joins": ("enable_nestloop", "enable_hashjoin"),
    "nested loops over whole tables": ("enable_hashjoin", "enable_mergejoin", "enable_indexscan"),
}


@pytest.fixture(params=sorted(PLANS))
async def forced(request: pytest.FixtureRequest, database: Database) -> AsyncIterator[House]:
    """A house whose every connection plans in one way, with generic plans from the start."""
    settings = dict.fromkeys(PLANS[request.param], "off") | {"plan_cache_mode": "force_generic_plan"}
    mark = "&" if "?" in database._app_dsn else "?"
    options = mark + "&".join(f"{name}={value}" for name, value in settings.items())
    own = await Database.open(database._app_dsn + options, database._scheduler_dsn)
    async with own.app.acquire() as conn:
        assert await conn.fetchval("show plan_cache_mode") == "force_generic_plan"
    house = await build(own, limits=Limits())
    yield house
    await house.delivery.close()
    await house.audit.close()
    await own.close()


async def test_statements_when_planned_in_any_way_then_see_their_tenant_rows(forced: House) -> None:
    waited = await forced.accept(customer(), wait_seconds=5)
    assert waited.targets[0].state is TargetState.APPLIED
    lane = (await forced.fetch("select * from lanes"))[0]
    assert lane["owner"] == "" and lane["next_due"] is None and lane["leased_until"] is None
    several = [await forced.accept(customer()) for _ in range(5)]
    await forced.drain()
    for accepted in several:
        assert await forced.state(accepted) is TargetState.APPLIED
    assert len(await forced.fetch("select 1 from attempts")) == 6
    assert [row["action"] for row in await forced.fetch("select action from audit_log")].count(
        "crm.call"
    ) >= 2


async def test_pause_when_read_by_a_statement_of_its_own_then_nothing_is_taken_or_marked(
    forced: House,
) -> None:
    await forced.accept(customer())
    await forced.fetch("update lanes set is_paused = true")
    assert not await forced.delivery.drain(forced.connection.id)
    assert forced.provider.calls("send") == []
