"""Accepts while another transaction holds a lane's row, as one of a machine that vanished does for some seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.integration.delivery_fakes import House, build, customer

from crmbridge.core.ids import new_id
from crmbridge.db.errors import DatabaseUnavailable
from crmbridge.db.pool import Database
from crmbridge.services.delivery.intake import flusher
from crmbridge.services.delivery.model import Accepted
from crmbridge.services.tenants.model import Tenant

pytestmark = pytest.mark.postgres


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flusher, "_LOCK_SECONDS", 0.2)
    monkeypatch.setattr(flusher, "_APART_SECONDS", 0.4)


@asynccontextmanager
async def held(house: House) -> AsyncIterator[None]:
    async with house.db.tenant(house.tenant.id) as conn:
        lane = await conn.fetch("select from lanes where connection_id = $1 for update", house.connection.id)
        assert len(lane) == 1
        yield


async def add_neighbour(house: House) -> Tenant:
    tenant = await house.tenants.add("neighbour", "Neighbour", "general", "AE", "Asia/Dubai", "operator:test")
    await house.add_connection(tenant, "primary", house.provider, house.connection.manifest)
    return tenant


async def accept(house: House, tenant: Tenant, key: str = "", wait_seconds: float = 0) -> Accepted:
    return await house.delivery.accept(
        "agent:test",
        tenant,
        customer(last_name="Doe"),
        idempotency_key=key or str(new_id()),
        wait_seconds=wait_seconds,
    )


async def test_accepts_when_one_lane_is_held_then_the_neighbours_are_taken_and_its_own_may_be_sent_again(
    database: Database, impatient: None
) -> None:
    house = await build(database)
    neighbour = await add_neighbour(house)
    async with held(house):
        own, *others = await asyncio.gather(
            accept(house, house.tenant, "k"),
            *(accept(house, neighbour) for _ in range(3)),
            return_exceptions=True,
        )
        assert isinstance(own, DatabaseUnavailable) and own.retry_safe and own.http_status == 503
        assert "holds" in own.message and own.fix is not None and own.fix.action == "try_again"
        assert all(isinstance(other, Accepted) for other in others)
        # From now on nobody waits for it, not even once.
        waiting = asyncio.create_task(accept(house, house.tenant, "k"))
        await accept(house, neighbour)
        assert not waiting.done()
        with pytest.raises(DatabaseUnavailable):
            await waiting
    accepted = await accept(house, house.tenant, "k")
    assert not accepted.replayed
    assert (await accept(house, house.tenant, "k")).write_id == accepted.write_id
    assert len(await house.fetch("select from writes")) == 1
    # It goes with all others again.
    assert not house.delivery._flusher._apart.takes((house.connection.id,), None)  # type: ignore[arg-type]
    await house.delivery.close()


async def test_accept_when_its_lane_comes_free_meanwhile_then_taken(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flusher, "_LOCK_SECONDS", 0.1)
    house = await build(database)
    neighbour = await add_neighbour(house)
    async with held(house):
        own = asyncio.create_task(accept(house, house.tenant))
        await accept(house, neighbour)
        await asyncio.sleep(0.3)
        assert not own.done()
    assert (await own).targets[0].connection_id == house.connection.id
    await house.delivery.close()


async def test_create_when_waited_for_and_its_lane_is_held_then_refused_and_not_sent(
    database: Database, impatient: None
) -> None:
    house = await build(database)
    async with held(house):
        with pytest.raises(DatabaseUnavailable):
            await accept(house, house.tenant, wait_seconds=5)
    assert house.provider.sent == [] and await house.fetch("select from writes") == []
    await house.delivery.close()


async def test_close_when_an_accept_waits_for_a_held_lane_then_it_is_answered_first(
    database: Database, impatient: None
) -> None:
    house = await build(database)
    async with held(house):
        own = asyncio.create_task(accept(house, house.tenant))
        await asyncio.sleep(0.1)
        await house.delivery.close()
        with pytest.raises(DatabaseUnavailable):
            await asyncio.wait_for(own, 1)
