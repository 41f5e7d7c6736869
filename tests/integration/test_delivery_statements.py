"""Statements that are a transaction of their own and set their tenant themselves, whatever plan the server chooses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from tests.integration.delivery_fakes import House, build, customer

from crmbridge.db.pool import Database
from crmbridge.services.delivery.lane import store
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


async def test_live_and_standing_when_planned_in_any_way_then_see_their_tenant_rows_and_no_others(
    forced: House,
) -> None:
    for _ in range(2):
        await forced.accept(customer(last_name="import"), priority=1)
    accepted = await forced.accept(customer(last_name="live"))
    target, lane_id = accepted.targets[0].id, forced.connection.id
    other = await forced.tenants.add("other", "Other", "general", "AE", "Asia/Dubai", "operator:test")
    lease = (await forced.delivery._take(forced.tenant.id, lane_id, 0, 0)).lease  # type: ignore[union-attr]

    def live(tenant_id: UUID, calls: int) -> Any:
        return forced.db.alone(
            tenant_id, lambda conn, setting: store.live(conn, lease, 10, [], calls, setting)
        )

    def standing(tenant_id: UUID) -> Any:
        return forced.db.alone(
            tenant_id, lambda conn, setting: store.standing(conn, accepted.write_id, 1.0, setting)
        )

    assert await live(other.id, 2) == ([], set())
    rows, marked = await live(forced.tenant.id, 0)
    assert [row.id for row in rows] == [target] and marked == set()
    rows, marked = await live(forced.tenant.id, 2)
    assert [(row.id, row.attempt_count) for row in rows] == [(target, 0)] and marked == {target}
    assert await live(forced.tenant.id, 2) == ([], set())
    assert await standing(other.id) == ([], set())
    views, held = await standing(forced.tenant.id)
    assert [(view.id, view.state, view.connection) for view in views] == [
        (target, TargetState.SENDING, "primary")
    ]
    assert held == set()


async def test_live_when_the_lane_is_paused_or_lost_then_nothing_is_marked(forced: House) -> None:
    await forced.accept(customer())
    lease = (await forced.delivery._take(forced.tenant.id, forced.connection.id, 0, 0)).lease  # type: ignore[union-attr]

    async def marked() -> set[UUID]:
        _, ids = await forced.db.alone(
            forced.tenant.id, lambda conn, setting: store.live(conn, lease, 10, [], 1, setting)
        )
        return ids

    await forced.fetch("update lanes set is_paused = true")
    assert await marked() == set()
    await forced.fetch("update lanes set is_paused = false, fence = fence + 1")
    assert await marked() == set()
    await forced.fetch("update lanes set fence = fence - 1, leased_until = now() - interval '1 second'")
    assert await marked() == set()
