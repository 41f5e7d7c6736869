"""Routing: one accept, a target per connection, each with its own state, ids and outcome; pauses; single steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import monotonic
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from tests.integration.delivery_fakes import (
    FAST,
    FakeConnection,
    FakeProvider,
    Fault,
    House,
    build,
    customer,
    manifest_of,
    note,
    update,
)

from crmbridge.core.errors import Conflict, NotConfigured, NotFound, Unavailable, ValidationError
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object
from crmbridge.db.pool import Database
from crmbridge.services.connections.model import Intent
from crmbridge.services.delivery.model import Accepted, Event, NewWrite, TargetState, TargetView, WriteFilter

pytestmark = pytest.mark.postgres

A, R, D = TargetState.APPLIED, TargetState.RETRYING, TargetState.DEAD_LETTER


@dataclass
class Pair:
    """A house whose tenant has two CRMs: everything goes to ``primary``, and to ``second`` also."""

    house: House
    second: FakeConnection

    @property
    def provider(self) -> FakeProvider:
        return self.second.provider

    async def accept(self, intent: Intent, **options: Any) -> Accepted:
        return await self.house.accept(intent, **options)

    async def drain(self) -> None:
        for connection in (self.house.connection, self.second):
            while await self.house.delivery.drain(connection.id):
                pass

    async def settle(self, seconds: float = 5.0) -> None:
        async with asyncio.timeout(seconds):
            while await self.house.pending():
                await self.drain()
                await asyncio.sleep(0.01)

    async def targets(self, accepted: Accepted) -> list[TargetView]:
        return (await self.house.read(accepted)).targets

    async def states(self, accepted: Accepted) -> list[TargetState]:
        return [target.state for target in await self.targets(accepted)]

    async def pause(self, connection: FakeConnection, is_paused: bool) -> None:
        await self.house.fetch(
            "update lanes set is_paused = $2, next_due = coalesce(next_due, now()) where connection_id = $1",
            connection.id,
            is_paused,
        )


@pytest.fixture
async def pair(database: Database) -> AsyncIterator[Pair]:
    house = await build(database)
    second = await house.add_connection(
        house.tenant, "second", FakeProvider(), manifest_of(batch=10, in_flight=1)
    )
    house.connections.also = ["second"]
    yield Pair(house, second)
    await house.delivery.close()
    await house.audit.close()


async def test_accept_when_two_are_routed_then_one_write_reaches_both_under_marks_of_their_own(
    pair: Pair,
) -> None:
    accepted = await pair.accept(customer())
    assert [target.connection for target in accepted.targets] == ["primary", "second"]
    await pair.drain()
    targets = await pair.targets(accepted)
    assert [(t.connection, t.state, t.remote_id) for t in targets] == [
        (t.connection, A, f"r-{t.id}") for t in targets
    ]
    assert pair.house.provider.effects == [str(targets[0].id)]
    assert pair.provider.effects == [str(targets[1].id)]
    assert len(await pair.house.fetch("select 1 from writes")) == 1


async def test_accept_when_one_is_addressed_then_it_alone_gets_it(pair: Pair) -> None:
    accepted = await pair.accept(customer(), connections=("second",))
    await pair.drain()
    assert [target.connection for target in await pair.targets(accepted)] == ["second"]
    assert len(pair.provider.effects) == 1 and not pair.house.provider.effects


async def test_accept_when_the_same_key_comes_again_then_both_targets_are_answered(pair: Pair) -> None:
    first = await pair.accept(customer(), idempotency_key="k")
    await pair.drain()
    again = await pair.accept(customer(), idempotency_key="k")
    assert again.replayed and again.write_id == first.write_id
    assert [(t.connection, t.state) for t in again.targets] == [("primary", A), ("second", A)]
    pair.house.connections.also = []  # routes of today do not change what was answered then
    assert len((await pair.accept(customer(), idempotency_key="k")).targets) == 2
    assert len(pair.provider.effects) == len(pair.house.provider.effects) == 1


async def test_accept_when_the_key_is_used_for_another_connection_then_conflict(pair: Pair) -> None:
    await pair.accept(customer(), idempotency_key="k")
    with pytest.raises(Conflict):
        await pair.accept(customer(), idempotency_key="k", connections=("second",))


async def test_delivery_when_one_is_down_then_the_other_has_it_and_only_the_one_is_tried_again(
    pair: Pair,
) -> None:
    pair.provider.faults.append(Fault(Unavailable("down", retry_safe=True)))
    accepted = await pair.accept(customer())
    await pair.drain()
    assert await pair.states(accepted) == [A, R]
    await pair.settle()
    assert await pair.states(accepted) == [A, A]
    assert len(pair.house.provider.calls("send")) == 1 and len(pair.provider.calls("send")) == 2


async def test_accept_when_the_primary_refuses_then_nothing_is_kept(pair: Pair) -> None:
    with pytest.raises(ValidationError):
        await pair.accept(customer(wrong="x"))
    assert not await pair.house.fetch("select 1 from writes")


async def test_accept_when_another_can_never_take_it_then_accepted_and_a_dead_letter_at_once(
    pair: Pair,
) -> None:
    specs = {obj: spec for obj, spec in pair.second.manifest.objects.items() if obj is not Object.CUSTOMER}
    pair.second.manifest = msgspec.structs.replace(pair.second.manifest, objects=specs)
    accepted = await pair.accept(customer())
    assert [target.state for target in accepted.targets] == [TargetState.ACCEPTED, D]
    assert accepted.targets[1].error is not None and accepted.targets[1].error["code"] == "unsupported"
    await pair.drain()
    leading, other = await pair.targets(accepted)
    assert leading.state is A
    assert other.state is D and other.outcome == "not_applied" and other.finished_at is not None
    assert other.error is not None and other.error["code"] == "unsupported" and other.attempt_count == 0
    assert not pair.provider.calls("send")
    lane = (await pair.house.fetch("select next_due from lanes where connection_id = $1", pair.second.id))[0]
    assert lane["next_due"] is None
    # What was missing is there now: the dead letter can go out.
    pair.second.manifest = manifest_of(batch=1, in_flight=1)
    await pair.house.delivery.redrive(pair.house.tenant.id, accepted.write_id, actor="operator:test")
    await pair.settle()
    assert await pair.states(accepted) == [A, A]


async def test_accept_when_another_has_no_credential_yet_then_its_target_waits_for_it(pair: Pair) -> None:
    gone = pair.house.connections.open_ones[pair.house.tenant.id, "second"]
    known_open = pair.house.connections.open

    async def without_second(tenant_id: Any, **named: Any) -> FakeConnection:
        if named.get("name") == "second" or named.get("connection_id") == gone.id:
            raise NotConfigured("no credential")
        return await known_open(tenant_id, **named)

    pair.house.connections.open = without_second  # type: ignore[method-assign]
    accepted = await pair.accept(customer(), wait_seconds=0.5)
    assert [target.state for target in accepted.targets] == [A, TargetState.ACCEPTED]
    pair.house.connections.open = known_open  # type: ignore[method-assign]
    await pair.house.delivery.wake(pair.house.tenant.id, pair.second.id)
    await pair.settle()
    assert await pair.states(accepted) == [A, A]


async def test_wait_when_both_work_then_both_are_awaited(pair: Pair) -> None:
    pair.provider.latency = 0.15
    accepted = await pair.accept(customer(), wait_seconds=5)
    assert [(t.connection, t.state) for t in accepted.targets] == [("primary", A), ("second", A)]


async def test_wait_when_one_is_held_back_for_longer_then_told_at_once_how_each_stands(pair: Pair) -> None:
    await pair.pause(pair.second, True)
    started = monotonic()
    accepted = await pair.accept(customer(), wait_seconds=10)
    assert monotonic() - started < 9
    assert [target.state for target in accepted.targets] == [A, TargetState.ACCEPTED]
    await pair.house.fetch(
        "update lanes set is_paused = false, not_before = now() + interval '1 hour' where connection_id = $1",
        pair.second.id,
    )
    started = monotonic()
    accepted = await pair.accept(customer(), wait_seconds=10)
    assert monotonic() - started < 9
    assert [target.state for target in accepted.targets] == [A, TargetState.ACCEPTED]


async def test_wait_when_one_is_slow_then_answered_in_time_with_what_is_under_way(pair: Pair) -> None:
    pair.provider.latency = 0.3
    accepted = await pair.accept(customer(), wait_seconds=0.15)
    assert [target.state for target in accepted.targets] == [A, TargetState.SENDING]
    await pair.house.delivery.close()


# -- links and ids of several CRMs ---------------------------------------------------------------------------------


async def test_link_when_it_names_a_write_then_each_crm_gets_its_own_record(pair: Pair) -> None:
    person = await pair.accept(customer())
    remark = await pair.accept(note({"write_id": str(person.write_id)}))
    await pair.settle()
    assert await pair.states(remark) == [A, A]
    first, second = await pair.targets(person)
    assert pair.house.provider.sent[-1].links == {"customer": first.remote_id}
    assert pair.provider.sent[-1].links == {"customer": second.remote_id}


async def test_link_when_the_customer_fails_on_one_then_only_that_note_waits(pair: Pair) -> None:
    pair.provider.faults.append(Fault(Unavailable("down", retry_safe=True)))
    person = await pair.accept(customer())
    remark = await pair.accept(note({"write_id": str(person.write_id)}))
    await pair.drain()
    assert await pair.states(remark) == [A, TargetState.ACCEPTED]
    await pair.settle()
    assert await pair.states(remark) == [A, A]
    kinds = [write.object for write in pair.provider.sent]
    assert kinds == [Object.CUSTOMER, Object.CUSTOMER, Object.NOTE]


async def test_link_when_the_customer_was_not_taken_by_one_then_that_note_is_a_dead_letter_with_the_reason(
    pair: Pair,
) -> None:
    person = await pair.accept(customer(), connections=("primary",))
    remark = await pair.accept(note({"write_id": str(person.write_id)}))
    assert [t.state for t in remark.targets] == [TargetState.ACCEPTED, D]
    error = remark.targets[1].error
    assert error is not None and error["fields"][0]["field"] == "links.customer.write_id"
    await pair.settle()
    assert await pair.states(remark) == [A, D]


async def test_link_when_the_customer_is_a_dead_letter_there_then_so_is_the_note_until_both_are_redriven(
    pair: Pair,
) -> None:
    refused = ValidationError("no such segment")
    pair.provider.faults.append(Fault(refused))
    person = await pair.accept(customer())
    await pair.drain()
    assert await pair.states(person) == [A, D]
    remark = await pair.accept(note({"write_id": str(person.write_id)}))
    assert remark.targets[1].state is D
    await pair.settle()
    moved = await pair.house.delivery.redrive_many(
        pair.house.tenant.id, WriteFilter(connection_id=pair.second.id), actor="operator:test"
    )
    assert moved == 2
    await pair.settle()
    assert await pair.states(person) == await pair.states(remark) == [A, A]
    assert pair.provider.sent[-1].links == {"customer": (await pair.targets(person))[1].remote_id}


async def test_update_when_the_record_was_made_through_here_then_each_crm_changes_its_own(pair: Pair) -> None:
    person = await pair.accept(customer())
    await pair.drain()
    first, second = await pair.targets(person)
    changed = await pair.accept(update(first.remote_id, last_name="New"))
    remark = await pair.accept(note({"remote_id": first.remote_id}))
    await pair.settle()
    assert await pair.states(changed) == await pair.states(remark) == [A, A]
    by_kind = {write.object: write for write in pair.provider.sent[1:]}
    assert by_kind[Object.CUSTOMER].remote_id == second.remote_id
    assert by_kind[Object.NOTE].links == {"customer": second.remote_id}
    assert {w.remote_id for w in pair.house.provider.sent if w.operation is Operation.UPDATE} == {
        first.remote_id
    }


async def test_update_when_the_record_is_still_under_way_there_then_it_follows_it(pair: Pair) -> None:
    pair.provider.faults.append(Fault(Unavailable("down", retry_safe=True)))
    person = await pair.accept(customer())
    await pair.drain()
    first, _ = await pair.targets(person)
    changed = await pair.accept(update(first.remote_id, last_name="New"))
    await pair.drain()
    assert (await pair.states(changed))[0] is A
    await pair.settle()
    assert await pair.states(changed) == [A, A]
    assert pair.provider.sent[-1].remote_id == (await pair.targets(person))[1].remote_id


async def test_update_when_the_record_was_refused_there_then_a_dead_letter_until_both_are_redriven(
    pair: Pair,
) -> None:
    pair.provider.faults.append(Fault(ValidationError("refused")))
    person = await pair.accept(customer())
    await pair.drain()
    first, _ = await pair.targets(person)
    changed = await pair.accept(update(first.remote_id, last_name="New"), wait_seconds=5)
    assert [target.state for target in changed.targets] == [A, D]
    await pair.house.delivery.redrive_many(pair.house.tenant.id, WriteFilter(), actor="operator:test")
    await pair.settle()
    assert await pair.states(person) == await pair.states(changed) == [A, A]
    assert pair.provider.sent[-1].remote_id == (await pair.targets(person))[1].remote_id


async def test_update_when_the_other_crm_does_not_know_the_record_then_nobody_else_is_hit(pair: Pair) -> None:
    changed = await pair.accept(update("r-of-the-primary", last_name="New"))
    assert [t.state for t in changed.targets] == [TargetState.ACCEPTED, D]
    error = changed.targets[1].error
    assert error is not None and error["fields"][0]["field"] == "remote_id"
    await pair.settle()
    await pair.house.delivery.redrive(pair.house.tenant.id, changed.write_id, actor="operator:test")
    await pair.settle()
    assert await pair.states(changed) == [A, D]
    assert not pair.provider.calls("send")


async def test_extra_when_it_is_in_the_primarys_own_words_then_no_other_crm_gets_it(pair: Pair) -> None:
    intent = customer()
    intent.provider_extra = {"hs_lead_status": "NEW"}
    seen: dict[str, dict[str, Any]] = {}
    for name, connection in (("primary", pair.house.connection), ("second", pair.second)):
        known_map = connection.map

        def spy(given: Intent, _name: str = name, _map: Any = known_map, **rest: Any) -> Any:
            seen[_name] = given.provider_extra
            return _map(given, **rest)

        setattr(connection, "map", spy)  # noqa: B010 - a method of a fake
    accepted = await pair.accept(intent)
    await pair.settle()
    assert await pair.states(accepted) == [A, A]
    assert seen == {"primary": {"hs_lead_status": "NEW"}, "second": {}}


# -- people's steps ------------------------------------------------------------------------------------------------


async def test_redrive_when_one_connection_is_named_then_its_target_alone(pair: Pair) -> None:
    for provider in (pair.house.provider, pair.provider):
        provider.faults.append(Fault(ValidationError("refused")))
    accepted = await pair.accept(customer())
    await pair.drain()
    assert await pair.states(accepted) == [D, D]
    who = {"actor": "operator:test", "connection_id": pair.second.id}
    view = await pair.house.delivery.redrive(pair.house.tenant.id, accepted.write_id, **who)  # type: ignore[arg-type]
    assert [target.state for target in view.targets] == [D, R]
    await pair.settle()
    assert await pair.states(accepted) == [D, A]
    with pytest.raises(Conflict):
        await pair.house.delivery.redrive(pair.house.tenant.id, accepted.write_id, **who)  # type: ignore[arg-type]
    rows = await pair.house.fetch(
        "select connection_id, details from audit_log where action = 'write.redriven'"
    )
    assert [row["connection_id"] for row in rows] == [pair.second.id]


async def test_step_when_the_write_does_not_go_there_then_not_found(pair: Pair) -> None:
    accepted = await pair.accept(customer(), connections=("primary",))
    with pytest.raises(NotFound, match="does not go to that connection"):
        await pair.house.delivery.cancel(
            pair.house.tenant.id, accepted.write_id, actor="operator:test", connection_id=pair.second.id
        )
    with pytest.raises(NotFound):
        await pair.house.delivery.cancel(
            pair.house.tenant.id, uuid4(), actor="operator:test", connection_id=pair.second.id
        )


async def test_cancel_when_one_connection_is_named_then_the_other_goes_on(pair: Pair) -> None:
    accepted = await pair.accept(customer())
    await pair.house.delivery.cancel(
        pair.house.tenant.id, accepted.write_id, actor="operator:test", connection_id=pair.second.id
    )
    await pair.settle()
    assert await pair.states(accepted) == [A, TargetState.CANCELLED]


async def test_redrive_by_filter_when_in_parts_then_each_target_once_though_it_fails_anew(pair: Pair) -> None:
    tenant = pair.house.tenant.id
    pair.provider.faults.append(Fault(ValidationError("refused"), times=99))
    writes = [await pair.accept(customer()) for _ in range(25)]
    await pair.drain()
    wanted = WriteFilter(connection_id=pair.second.id, code="validation_error")
    moved, until, told = 0, None, []
    while True:
        done = await pair.house.delivery.steer_many(
            tenant, Event.REDRIVE, wanted, actor="operator:test", limit=10, until=until
        )
        moved, until = moved + done.moved, done.until
        told.append((done.moved, done.left))
        await pair.drain()
        if not done.left:
            break
    assert told == [(10, 15), (10, 5), (5, 0)]
    assert {(await pair.states(one))[1] for one in writes} == {D}
    nothing = WriteFilter(connection_id=pair.second.id, code="rate_limited")
    done = await pair.house.delivery.steer_many(tenant, Event.DISCARD, nothing, actor="operator:test")
    assert (done.moved, done.left) == (0, 0)
    done = await pair.house.delivery.steer_many(tenant, Event.DISCARD, wanted, actor="operator:test")
    assert done.moved == 25
    with pytest.raises(ValidationError):
        await pair.house.delivery.steer_many(
            tenant, Event.CANCEL, WriteFilter(state=TargetState.PARKED), actor="operator:test"
        )


# -- pauses --------------------------------------------------------------------------------------------------------


async def test_pause_when_a_drain_is_at_work_then_no_further_call_and_resumed_where_it_was(
    pair: Pair,
) -> None:
    pair.provider.latency = 0.1
    writes = [await pair.accept(customer()) for _ in range(50)]
    running = asyncio.create_task(pair.house.delivery.drain(pair.second.id))
    async with asyncio.timeout(20):
        while not pair.provider.calls("send"):
            await asyncio.sleep(0.01)
    await pair.pause(pair.second, True)
    before = len(pair.provider.calls("send"))
    assert 0 < before < 5
    assert await asyncio.wait_for(running, 10)
    # One call may have been marked just before the pause.
    assert len(pair.provider.calls("send")) <= before + 1
    more = await pair.accept(customer())
    assert not await pair.house.delivery.drain(pair.second.id)
    assert await pair.house.delivery.sweep() <= 1  # the primary's lane alone
    await pair.house.drain()
    assert await pair.states(more) == [A, TargetState.ACCEPTED]
    lane = (await pair.house.fetch("select * from lanes where connection_id = $1", pair.second.id))[0]
    assert lane["leased_until"] is None and lane["owner"] == ""
    await pair.pause(pair.second, False)
    await pair.settle()
    for accepted in (*writes, more):
        assert await pair.states(accepted) == [A, A]
    assert len(pair.provider.effects) == len(set(pair.provider.effects)) == 51


async def test_import_when_two_are_routed_then_every_row_reaches_both(pair: Pair) -> None:
    house = pair.house
    import_id = await house.delivery.add_import("agent:test", house.tenant, Object.CUSTOMER)
    items = [NewWrite(intent=customer(last_name=str(n)), idempotency_key=f"i-{n}") for n in range(30)]
    bad = NewWrite(intent=customer(wrong="x"), idempotency_key="i-bad")
    answers = await house.delivery.accept_many("agent:test", house.tenant, [*items, bad], import_id=import_id)
    assert isinstance(answers[-1], ValidationError)
    await pair.settle()
    counts = await house.delivery.counts(house.tenant.id, import_id=import_id)
    assert {state: count for state, count in counts.items() if count} == {A: 60}
    assert len(pair.provider.calls("send")) == 3 and len(house.provider.calls("send")) == 1
    again = await house.delivery.accept_many("agent:test", house.tenant, items, import_id=import_id)
    assert all(isinstance(one, Accepted) and one.replayed and len(one.targets) == 2 for one in again)
    assert len(pair.provider.effects) == 30


async def test_flush_when_many_accept_at_once_then_no_deadlock_and_each_has_two_targets(pair: Pair) -> None:
    await asyncio.gather(*(pair.accept(customer()) for _ in range(60)))
    await pair.settle(10)
    assert len(set(pair.provider.effects)) == len(set(pair.house.provider.effects)) == 60
    assert FAST.flush_size >= 60
