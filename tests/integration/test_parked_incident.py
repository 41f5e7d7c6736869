"""The one incident of a connection's parked writes: how many, which, how to list them, and when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.integration.delivery_fakes import FakeProvider, Fault, House, build, customer, manifest_of

from crmbridge.core.errors import Conflict, ValidationError
from crmbridge.db.pool import Database
from crmbridge.services.delivery.model import Accepted, Event, TargetState, WriteFilter
from crmbridge.services.incidents import Incident

pytestmark = pytest.mark.postgres
PARKED = WriteFilter(state=TargetState.PARKED)


@pytest.fixture
async def house(database: Database) -> AsyncIterator[House]:
    built = await build(database)
    yield built
    await built.delivery.close()
    await built.audit.close()


async def park(house: House, count: int) -> list[Accepted]:
    house.provider.cannot_tell = True
    house.provider.faults.append(Fault("cut_before"))
    writes = [await house.accept(customer()) for _ in range(count)]
    await house.settle()
    assert all([await house.state(write) is TargetState.PARKED for write in writes])
    return writes


async def the_one(house: House) -> Incident:
    (incident,) = await house.incidents.list_open(house.tenant.id)
    assert incident.kind == "write_parked"
    return incident


def ids(details: dict[str, Any]) -> tuple[int, str, str]:
    return details["parked"], details["oldest"]["write_id"], details["newest"]["write_id"]


async def test_incident_when_twelve_are_parked_then_how_many_oldest_newest_and_how_to_list_them(
    house: House,
) -> None:
    writes = await park(house, 12)
    incident = await the_one(house)
    details = incident.details
    assert ids(details) == (12, str(writes[0].write_id), str(writes[11].write_id))
    assert (
        details["oldest"]["accepted_at"] <= details["newest"]["accepted_at"] <= details["newest"]["parked_at"]
    )
    assert details["oldest"]["what"] == "create of a customer"
    assert "12 writes" in incident.title and details["connection"] == "primary"
    assert details["list"] == "crmbridge writes list acme --state parked --connection primary"
    assert details["page"] == "/admin/tenants/acme/writes?state=parked&connection=primary"
    listed = await house.delivery.list(house.tenant.id, PARKED)
    assert {write.id for write in listed.writes} == {write.write_id for write in writes}


async def test_incident_when_one_of_three_is_redriven_then_open_with_the_other_two(house: House) -> None:
    writes = await park(house, 3)
    opened = await the_one(house)
    await house.delivery.redrive(house.tenant.id, writes[0].write_id, actor="operator:ada")
    left = await the_one(house)
    assert (left.id, left.times_seen) == (opened.id, opened.times_seen)
    assert ids(left.details) == (2, str(writes[1].write_id), str(writes[2].write_id))
    assert "2 writes" in left.title
    await house.delivery.discard(house.tenant.id, writes[2].write_id, actor="operator:ada")
    assert ids((await the_one(house)).details) == (1, str(writes[1].write_id), str(writes[1].write_id))


@pytest.mark.parametrize("how", ["redrive", "discard", "by filter"])
async def test_incident_when_none_is_left_then_resolved_and_audited(house: House, how: str) -> None:
    writes = await park(house, 2)
    opened = await the_one(house)
    if how == "by filter":
        done = await house.delivery.steer_many(
            house.tenant.id, Event.DISCARD, PARKED, actor="operator:ada", limit=1
        )
        assert (done.moved, done.left) == (1, 1) and (await the_one(house)).details["parked"] == 1
        await house.delivery.steer_many(house.tenant.id, Event.DISCARD, PARKED, actor="operator:ada")
    else:
        step = house.delivery.redrive if how == "redrive" else house.delivery.discard
        for write in writes:
            await step(house.tenant.id, write.write_id, actor="operator:ada")
    assert await house.incidents.list_open(house.tenant.id) == []
    closed = await house.incidents.get(house.tenant.id, opened.id)
    assert closed.resolved_by == "operator:ada" and closed.details["parked"] == 0
    rows = await house.fetch("select actor from audit_log where action = 'incident.resolved'")
    assert [row["actor"] for row in rows] == ["operator:ada"]


async def test_incident_when_parked_again_after_all_were_settled_then_a_new_one(house: House) -> None:
    (first,) = await park(house, 1)
    opened = await the_one(house)
    await house.delivery.discard(house.tenant.id, first.write_id, actor="operator:ada")
    (second,) = await park(house, 1)
    again = await the_one(house)
    assert again.id != opened.id and ids(again.details)[0] == 1
    assert again.details["write_id"] == str(second.write_id)


async def test_incident_when_a_person_resolves_it_while_writes_are_parked_then_refused_with_their_number(
    house: House,
) -> None:
    writes = await park(house, 2)
    incident = await the_one(house)
    await house.incidents.acknowledge(house.tenant.id, incident.id, "operator:ada")
    with pytest.raises(Conflict, match="2 writes are still parked") as refused:
        await house.incidents.resolve(house.tenant.id, incident.id, "operator:ada")
    assert refused.value.fix is not None and "writes list acme --state parked" in refused.value.fix.hint
    assert (await the_one(house)).state == "acknowledged"
    await house.delivery.redrive(house.tenant.id, writes[0].write_id, actor="operator:ada")
    assert (await the_one(house)).state == "acknowledged"


async def test_incident_when_dead_letters_or_another_connections_writes_move_then_untouched(
    house: House,
) -> None:
    await park(house, 1)
    opened = await the_one(house)
    other = await house.add_connection(
        house.tenant, "second", FakeProvider(), manifest_of(batch=100, in_flight=1)
    )
    other.provider.faults.append(Fault(ValidationError("no")))
    dead = await house.accept(customer(), connections=("second",))
    while await house.delivery.drain(other.id):
        pass
    assert await house.state(dead) is TargetState.DEAD_LETTER
    await house.delivery.discard(house.tenant.id, dead.write_id, actor="operator:ada")
    assert await the_one(house) == opened


async def test_incident_when_the_last_is_discarded_while_another_is_being_parked_then_it_stays_open(
    house: House,
) -> None:
    (first,) = await park(house, 1)
    second = await house.accept(customer())
    async with house.db.tenant(house.tenant.id) as conn:
        # What the save of a look-up does, up to its commit.
        await conn.execute(
            "update write_targets set state = 'parked', finished_at = clock_timestamp() where write_id = $1",
            second.write_id,
        )
        await conn.execute("update incidents set times_seen = times_seen + 1 where state = 'open'")
        step = asyncio.create_task(
            house.delivery.discard(house.tenant.id, first.write_id, actor="operator:ada")
        )
        await asyncio.sleep(0.2)
        assert not step.done()
    await step
    assert ids((await the_one(house)).details) == (1, str(second.write_id), str(second.write_id))
