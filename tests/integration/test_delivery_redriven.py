"""A person redrives what is parked: it is looked up before it is sent, unless he insists."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from tests.integration.delivery_fakes import FAST, Fault, House, build, customer, update

from crmbridge.core.errors import Unavailable, ValidationError
from crmbridge.core.operations import Outcome
from crmbridge.db.pool import Database
from crmbridge.services.delivery.model import Accepted, Event, TargetState, WriteFilter

pytestmark = pytest.mark.postgres
WHO: dict[str, Any] = {"actor": "operator:ada"}
PARKED = WriteFilter(state=TargetState.PARKED)


@pytest.fixture
async def house(database: Database) -> AsyncIterator[House]:
    built = await build(database)
    yield built
    await built.delivery.close()
    await built.audit.close()


async def parked(house: House, how: str, count: int = 1) -> list[Accepted]:
    """Writes whose look-up cannot tell; it could from now on. ``how`` as of Fault."""
    house.provider.cannot_tell = True
    house.provider.faults.append(Fault(how))
    writes = [await house.accept(customer()) for _ in range(count)]
    await house.settle()
    assert [await house.state(write) for write in writes] == [TargetState.PARKED] * count
    house.provider.cannot_tell = False
    house.provider.log = [entry for entry in house.provider.log if entry[0] == "effect"]
    return writes


async def test_redrive_when_it_did_arrive_then_found_and_not_sent_again(house: House) -> None:
    (write,) = await parked(house, "cut_after")
    view = await house.delivery.redrive(house.tenant.id, write.write_id, **WHO)
    assert view.targets[0].state is TargetState.UNKNOWN and view.targets[0].finished_at is None
    await house.settle()
    target = (await house.read(write)).targets[0]
    assert target.state is TargetState.APPLIED and target.remote_id == f"r-{target.id}"
    assert [kind for kind, _ in house.provider.log] == ["effect", "look_up"]


async def test_redrive_when_it_is_surely_not_there_then_sent_once(house: House) -> None:
    (write,) = await parked(house, "cut_before")
    await house.delivery.redrive(house.tenant.id, write.write_id, **WHO)
    await house.settle()
    target = (await house.read(write)).targets[0]
    assert (target.state, target.attempt_count) == (TargetState.APPLIED, 1)
    assert [kind for kind, _ in house.provider.log] == ["look_up", "send", "effect"]


async def test_redrive_when_it_still_cannot_be_told_then_parked_again_with_an_incident(house: House) -> None:
    (write,) = await parked(house, "cut_after")
    house.provider.cannot_tell = True
    await house.delivery.redrive(house.tenant.id, write.write_id, **WHO)
    assert await house.incidents.list_open(house.tenant.id) == []
    await house.settle()
    assert await house.state(write) is TargetState.PARKED
    assert house.provider.calls("send") == []
    (incident,) = await house.incidents.list_open(house.tenant.id)
    assert incident.details["parked"] == 1 and "--without-looking" in incident.details["fix"]


async def test_redrive_when_the_operator_insists_then_sent_without_looking_and_audited(house: House) -> None:
    (write,) = await parked(house, "cut_after")
    view = await house.delivery.redrive(house.tenant.id, write.write_id, without_looking=True, **WHO)
    assert view.targets[0].state is TargetState.RETRYING
    await house.settle()
    assert [kind for kind, _ in house.provider.log] == ["effect", "send", "effect"]
    rows = await house.fetch("select details from audit_log where action = 'write.redriven'")
    assert [row["details"]["without_looking"] for row in rows] == [True]


@pytest.mark.parametrize("without_looking", [False, True])
async def test_redrive_when_by_filter_then_each_is_looked_up_unless_insisted(
    house: House, without_looking: bool
) -> None:
    await parked(house, "cut_after", 4)
    event = Event.RESEND if without_looking else Event.REDRIVE
    done = await house.delivery.steer_many(house.tenant.id, event, PARKED, **WHO)
    assert (done.moved, done.left) == (4, 0)
    await house.settle()
    assert len(house.provider.calls("look_up")) == (0 if without_looking else 4)
    assert len(house.provider.effects) == (8 if without_looking else 4)


async def test_redrive_when_a_dead_letter_then_sent_without_a_look_up(house: House) -> None:
    house.provider.faults.append(Fault(ValidationError("no")))
    write = await house.accept(customer())
    await house.drain()
    await house.delivery.redrive(house.tenant.id, write.write_id, **WHO)
    await house.settle()
    assert await house.state(write) is TargetState.APPLIED and house.provider.calls("look_up") == []


async def test_redrive_when_look_ups_go_on_failing_for_a_while_then_not_parked_at_once(
    database: Database,
) -> None:
    house = await build(database, limits=msgspec.structs.replace(FAST, look_up_seconds=0.4))
    busy = Unavailable("busy", outcome=Outcome.UNKNOWN)
    house.provider.faults.append(Fault("cut_after"))
    house.provider.look_up_faults = deque([busy] * 1000)
    write = await house.accept(customer())
    await house.settle(20)
    assert await house.state(write) is TargetState.PARKED
    house.provider.look_up_faults = deque([busy] * 2)
    await house.delivery.redrive(house.tenant.id, write.write_id, **WHO)
    await house.settle(20)
    assert await house.state(write) is TargetState.APPLIED
    assert len(house.provider.calls("send")) == 1
    await house.delivery.close()


async def test_redrive_when_looked_up_then_later_writes_to_the_record_wait_for_it(house: House) -> None:
    house.provider.cannot_tell = True
    house.provider.faults.append(Fault("cut_before"))
    first = await house.accept(update("r-1", last_name="Old"))
    await house.settle()
    second = await house.accept(update("r-1", last_name="New"))
    await house.drain()
    assert await house.state(second) is TargetState.ACCEPTED
    house.provider.cannot_tell = False
    await house.delivery.redrive(house.tenant.id, first.write_id, **WHO)
    await house.settle()
    assert house.provider.effects == [str(each.targets[0].id) for each in (first, second)]
