"""People's steps: redrive, cancel, discard; lists and counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.integration.delivery_fakes import Fault, House, build, customer

from crmbridge.core.errors import Conflict, NotFound, ValidationError
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object
from crmbridge.db.pool import Database
from crmbridge.services.connections.model import Intent
from crmbridge.services.delivery.model import TargetState, WriteFilter

pytestmark = pytest.mark.postgres


@pytest.fixture
async def house(database: Database) -> AsyncIterator[House]:
    built = await build(database)
    yield built
    await built.delivery.close()
    await built.audit.close()


async def test_redrive_when_dead_letter_then_sent_again_under_the_same_mark(house: House) -> None:
    house.provider.faults.append(Fault(ValidationError("no")))
    accepted = await house.accept(customer())
    await house.drain()
    view = await house.delivery.redrive(house.tenant.id, accepted.write_id, actor="operator:test")
    assert view.targets[0].state is TargetState.RETRYING
    await house.drain()
    assert house.provider.effects == [str(accepted.targets[0].id)]
    actions = [
        r["action"]
        for r in await house.fetch("select action, actor from audit_log where action like 'write.%'")
    ]
    assert actions == ["write.redriven"]


async def test_redrive_when_by_filter_then_only_those_that_fit(house: House) -> None:
    for _ in range(3):
        await house.accept(customer(last_name="poison"))
    house.provider.faults.append(Fault(ValidationError("no")))
    await house.drain()
    lead = Intent(object=Object.LEAD, operation=Operation.CREATE, fields={"last_name": "poison"})
    await house.accept(lead)
    await house.drain()
    moved = await house.delivery.redrive_many(
        house.tenant.id, WriteFilter(object="lead"), actor="operator:test"
    )
    counts = await house.delivery.counts(house.tenant.id)
    assert moved == 1 and counts[TargetState.DEAD_LETTER] == 3 and counts[TargetState.RETRYING] == 1


async def test_cancel_when_not_sent_then_never_sent_and_too_late_is_a_conflict(house: House) -> None:
    gone, kept = await house.accept(customer()), await house.accept(customer())
    view = await house.delivery.cancel(house.tenant.id, gone.write_id, actor="agent:test")
    assert view.targets[0].state is TargetState.CANCELLED
    await house.drain()
    assert house.provider.effects == [str(kept.targets[0].id)]
    with pytest.raises(Conflict):
        await house.delivery.cancel(house.tenant.id, kept.write_id, actor="agent:test")
    with pytest.raises(NotFound):
        await house.delivery.cancel(house.tenant.id, house.tenant.id, actor="agent:test")


async def test_cancel_when_read_ahead_already_then_still_not_sent(database: Database) -> None:
    house = await build(database, batch=1)
    house.provider.latency = 0.2
    writes = [await house.accept(customer()) for _ in range(3)]
    running = asyncio.create_task(house.delivery.drain(house.connection.id))
    await asyncio.sleep(0.1)
    await house.delivery.cancel(house.tenant.id, writes[1].write_id, actor="agent:test")
    await running
    assert house.provider.effects == [str(writes[place].targets[0].id) for place in (0, 2)]
    await house.delivery.close()


async def test_discard_when_dead_letter_then_over_and_not_allowed_while_waiting(house: House) -> None:
    accepted = await house.accept(customer(last_name="poison"))
    with pytest.raises(Conflict):
        await house.delivery.discard(house.tenant.id, accepted.write_id, actor="operator:test")
    await house.drain()
    await house.delivery.discard(house.tenant.id, accepted.write_id, actor="operator:test", reason="spam")
    assert await house.state(accepted) is TargetState.DISCARDED
    with pytest.raises(Conflict):
        await house.delivery.redrive(house.tenant.id, accepted.write_id, actor="operator:test")


async def test_list_when_paged_and_filtered_then_every_write_once_and_no_other_tenant_sees_it(
    house: House,
) -> None:
    for number in range(7):
        await house.accept(customer(last_name="poison" if number % 2 else "Doe"))
    await house.drain()
    seen, cursor = [], ""
    while True:
        page = await house.delivery.list(house.tenant.id, cursor=cursor, limit=3)
        seen += [write.id for write in page.writes]
        cursor = page.next_cursor
        if not cursor:
            break
    assert len(seen) == len(set(seen)) == 7
    dead = await house.delivery.list(house.tenant.id, WriteFilter(state=TargetState.DEAD_LETTER))
    assert len(dead.writes) == 3 and all(w.targets[0].error for w in dead.writes)
    with pytest.raises(ValidationError):
        await house.delivery.list(house.tenant.id, cursor="nonsense")
    other = await house.tenants.add("other", "Other", "general", "", "UTC", "operator:test")
    assert (await house.delivery.list(other.id)).writes == []
    with pytest.raises(NotFound):
        await house.delivery.read(other.id, seen[0])
