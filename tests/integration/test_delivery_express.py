"""A create whose caller waits: accepted, sent and settled at once where its lane is idle."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from tests.integration.delivery_fakes import FAST, House, build, customer, sent, until_sent

from crmbridge.db.pool import Database
from crmbridge.services.delivery.intake import store as intake_store
from crmbridge.services.delivery.lane import store
from crmbridge.services.delivery.model import TargetState
from crmbridge.services.delivery.service import Delivery

pytestmark = pytest.mark.postgres
LEASE = msgspec.structs.replace(FAST, lease_seconds=0.6)


async def lane(house: House) -> dict[str, Any]:
    return (await house.fetch("select * from lanes where connection_id = $1", house.connection.id))[0]


async def test_wait_when_the_lane_is_idle_then_accepted_taken_and_marked_in_one_commit_and_freed_in_one_more(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await build(database)

    async def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a statement more than needed")

    monkeypatch.setattr(intake_store, "insert_writes", never)
    for name in ("take", "mark", "window", "release"):
        monkeypatch.setattr(store, name, never)
    for _ in range(3):
        accepted = await house.accept(customer(), wait_seconds=5)
        assert accepted.targets[0].state is TargetState.APPLIED
    await house.delivery.close()
    after = await lane(house)
    assert (after["owner"], after["leased_until"], after["next_due"], after["fence"]) == ("", None, None, 3)
    rows = await house.fetch("select number, outcome from attempts")
    assert [tuple(row.values()) for row in rows] == [(1, "applied")] * 3
    assert house.jobs.queue == []


async def test_lease_when_renewed_after_the_lane_was_freed_then_it_stays_free(database: Database) -> None:
    house = await build(database)
    await house.accept(customer(), wait_seconds=5)
    fence = (await lane(house))["fence"]
    lease = store.Lease(house.connection.id, house.tenant.id, fence, 0, must_recover=False)
    assert not await database.peek(lambda conn: store.renew(conn, lease, 60))
    assert (await lane(house))["leased_until"] is None
    await house.delivery.close()


async def test_wait_when_its_process_dies_after_the_accept_then_found_by_the_sweep_and_looked_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await build(database, limits=LEASE)
    monkeypatch.setattr(Delivery, "_start", lambda _, work, **__: work.close())
    accepted = await house.accept(customer(), wait_seconds=0.1)
    monkeypatch.undo()
    assert accepted.targets[0].state is TargetState.SENDING
    assert await house.delivery.sweep() == 0
    await asyncio.sleep(0.7)
    assert await house.delivery.sweep() == 1
    await house.settle()
    assert await house.state(accepted) is TargetState.APPLIED
    assert [kind for kind, _ in house.provider.log] == ["look_up", "send", "effect"]
    await house.delivery.close()


async def test_wait_when_another_write_comes_during_the_call_then_the_lane_is_kept_and_both_are_applied(
    database: Database,
) -> None:
    here = await build(database)
    there = await build(database, tenant_id=here.tenant.id, connection_id=here.connection.id)
    here.provider.latency = 0.2
    waiting = asyncio.create_task(here.accept(customer(), wait_seconds=5))
    await until_sent(here, 1)
    # From another process, so that nobody here is woken.
    second = await there.accept(customer(last_name="second"))
    assert (await waiting).targets[0].state is TargetState.APPLIED
    async with asyncio.timeout(5):
        while await here.state(second) is not TargetState.APPLIED:
            await asyncio.sleep(0.01)
    await here.delivery.close()
    assert sent(here) == ["Doe", "second"] and sent(there) == []
    assert (await lane(here))["next_due"] is None
    await there.delivery.close()


@pytest.mark.parametrize(
    "what", ["paused", "held back", "busy", "something waits", "not given free in order"]
)
async def test_wait_when_the_lane_is_not_idle_then_an_accept_like_any_other(
    database: Database, what: str
) -> None:
    house = await build(database)
    if what == "something waits":
        await house.accept(customer(last_name="first"))
    changes = {
        "paused": "is_paused = true",
        "held back": "not_before = now() + interval '1 hour'",
        "busy": "owner = 'other:1', leased_until = now() + interval '1 hour'",
        "something waits": "fence = fence",
        "not given free in order": "owner = 'lost'",
    }
    await house.fetch(f"update lanes set {changes[what]}")
    fence = (await lane(house))["fence"]
    accepted = await house.accept(customer(), wait_seconds=0.2)
    after = await lane(house)
    await house.delivery.close()
    if what in ("paused", "held back", "busy"):
        assert accepted.targets[0].state is TargetState.ACCEPTED
        assert after["fence"] == fence and after["next_due"] is not None
    else:
        await house.settle()
        assert await house.state(accepted) is TargetState.APPLIED
    assert len(house.provider.effects) == len(set(house.provider.effects))
