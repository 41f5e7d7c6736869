"""Accepting: keys, refusals, group commit, what stands in the tables afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.integration.delivery_fakes import FakeProvider, House, build, customer, manifest_of, note, update

from crmbridge.core.errors import Conflict, CrmError, NotConfigured, Unsupported, ValidationError
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object
from crmbridge.db.pool import Database
from crmbridge.services.connections.model import Intent
from crmbridge.services.delivery.intake.subjects import normalise
from crmbridge.services.delivery.model import Accepted, NewWrite, TargetState

pytestmark = pytest.mark.postgres


@pytest.fixture
async def house(database: Database) -> AsyncIterator[House]:
    built = await build(database)
    yield built
    await built.delivery.close()
    await built.audit.close()


async def test_accept_when_committed_then_write_target_and_lane_stand_there(house: House) -> None:
    accepted = await house.accept(customer(last_name="Doe", email="Jane@Example.com"), request_id="req-1")
    assert accepted.targets[0].state is TargetState.ACCEPTED and not accepted.replayed
    write = (await house.fetch("select * from writes"))[0]
    assert write["id"] == accepted.write_id and write["request_id"] == "req-1"
    assert b"Jane" not in write["sealed"] and b"Doe" not in write["sealed"]
    assert [row["state"] for row in await house.fetch("select state from write_targets")] == ["accepted"]
    assert (await house.fetch("select next_due <= now() as due from lanes"))[0]["due"]
    assert [row["kind"] for row in await house.fetch("select kind from write_subjects")] == ["email"]


async def test_accept_when_lane_was_idle_then_one_drain_is_enqueued(house: House) -> None:
    await house.accept(customer())
    await house.accept(customer())
    await house.delivery.close()
    job = {"connection_id": str(house.connection.id), "tenant_id": str(house.tenant.id)}
    assert [one.payload for one in house.jobs.queue] == [job]
    assert house.jobs.queue[0].dedupe_key == f"{house.connection.id}:0"


@pytest.mark.parametrize("operation", [Operation.CREATE, Operation.UPSERT])
async def test_accept_when_key_is_missing_then_it_is_named(house: House, operation: Operation) -> None:
    intent = Intent(object=Object.CUSTOMER, operation=operation, fields={"last_name": "Doe"}, match=["email"])
    with pytest.raises(ValidationError) as caught:
        await house.accept(intent, idempotency_key="")
    assert caught.value.fields[0].field == "idempotency_key"
    assert "Idempotency-Key" in caught.value.fix.hint


async def test_accept_when_key_is_too_long_then_refused(house: House) -> None:
    with pytest.raises(ValidationError, match="idempotency_key"):
        await house.accept(customer(), idempotency_key="x" * 201)


async def test_accept_when_update_has_no_key_then_each_is_a_write(house: House) -> None:
    first = await house.accept(update("r-1", last_name="A"), idempotency_key="")
    second = await house.accept(update("r-1", last_name="A"), idempotency_key="")
    assert first.write_id != second.write_id


async def test_accept_when_same_key_and_body_then_first_answer_again(house: House) -> None:
    first = await house.accept(customer(last_name="A", email="a@b.c"), idempotency_key="k")
    await house.drain()
    again = await house.accept(customer(email="a@b.c", last_name="A"), idempotency_key="k")
    assert again.write_id == first.write_id and again.replayed
    assert again.targets[0].state is TargetState.APPLIED
    assert len(house.provider.effects) == 1


@pytest.mark.parametrize("other", [customer(last_name="B"), update("r-9", last_name="A")])
async def test_accept_when_same_key_and_other_body_then_conflict(house: House, other: Intent) -> None:
    await house.accept(customer(last_name="A"), idempotency_key="k")
    with pytest.raises(Conflict, match="idempotency_key"):
        await house.accept(other, idempotency_key="k")
    assert len(await house.fetch("select from writes")) == 1


async def test_accept_when_200_come_at_once_with_one_key_then_one_write(house: House) -> None:
    answers = await asyncio.gather(
        *(house.accept(customer(last_name="A"), idempotency_key="one") for _ in range(200))
    )
    assert len({answer.write_id for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
    assert len(await house.fetch("select from write_targets")) == 1
    await house.drain()
    assert len(house.provider.effects) == 1


async def test_accept_when_two_processes_race_with_one_key_then_one_write(
    house: House, database: Database
) -> None:
    other = await build(database, tenant_id=house.tenant.id, connection_id=house.connection.id)
    for number in range(20):
        answers = await asyncio.gather(
            *(one.accept(customer(last_name="A"), idempotency_key=f"k{number}") for one in (house, other) * 5)
        )
        assert len({answer.write_id for answer in answers}) == 1
    await other.delivery.close()


async def test_accept_when_known_key_and_connection_gone_then_first_answer_again(house: House) -> None:
    first = await house.accept(customer(last_name="A"), idempotency_key="k")
    house.connections.closed = NotConfigured("gone")
    assert (await house.accept(customer(last_name="A"), idempotency_key="k")).write_id == first.write_id
    with pytest.raises(NotConfigured):
        await house.accept(customer(last_name="B"), idempotency_key="k2")


async def test_accept_when_unsupported_or_unmappable_then_refused_and_nothing_is_kept(house: House) -> None:
    with pytest.raises(Unsupported):
        await house.accept(Intent(object=Object.CASE, operation=Operation.CREATE, fields={"subject": "x"}))
    with pytest.raises(ValidationError):
        await house.accept(customer(wrong=1))
    assert await house.fetch("select from writes") == []
    assert house.provider.log == []


@pytest.mark.parametrize(
    "link",
    [
        {},
        {"email": "a@b.c", "remote_id": "1"},
        {"write_id": "nonsense"},
        {"name": "Doe"},
        {"remote_id": "../x"},
    ],
)
async def test_accept_when_link_is_unclear_then_refused(house: House, link: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as caught:
        await house.accept(note(link))
    assert caught.value.fields[0].field.startswith("links.customer")


async def test_accept_when_linked_write_is_another_tenants_then_refused(house: House) -> None:
    other = await house.tenants.add("other", "Other", "general", "", "UTC", "operator:test")
    await house.add_connection(other, "primary", FakeProvider(), manifest_of(batch=1, in_flight=1))
    theirs = await house.delivery.accept("a", other, customer(), idempotency_key="k")
    with pytest.raises(ValidationError) as caught:
        await house.accept(note({"write_id": str(theirs.write_id)}))
    assert caught.value.fields[0].field == "links.customer.write_id"


async def test_accept_when_several_tenants_share_a_flush_then_each_gets_its_own(house: House) -> None:
    tenants = [house.tenant]
    for number in range(5):
        tenant = await house.tenants.add(f"t{number}", "T", "general", "", "UTC", "operator:test")
        await house.add_connection(tenant, "primary", FakeProvider(), manifest_of(batch=1, in_flight=1))
        tenants.append(tenant)
    flushes = 0
    insert = house.db.tenants

    def counted(ids: Any) -> Any:
        nonlocal flushes
        flushes += 1
        return insert(ids)

    house.db.tenants = counted  # type: ignore[method-assign,assignment]
    answers = await asyncio.gather(
        *(
            house.delivery.accept("a", tenant, customer(), idempotency_key=f"k{number}")
            for number in range(20)
            for tenant in tenants
        )
    )
    assert len({answer.write_id for answer in answers}) == 120
    assert flushes < 20
    for tenant in tenants:
        assert (await house.delivery.counts(tenant.id))[TargetState.ACCEPTED] == 20


async def test_accept_when_one_of_a_flush_is_bad_then_the_others_are_taken(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = house.delivery._acceptance.prepare

    async def spoiled(tenant: Any, intent: Intent, *rest: Any) -> Any:
        item = await prepare(tenant, intent, *rest)
        if intent.fields.get("last_name") == "bad":
            item.operation = "explode"  # the table's check refuses it
        return item

    monkeypatch.setattr(house.delivery._acceptance, "prepare", spoiled)
    names = ["a", "b", "bad", "c", "d"]
    answers = await asyncio.gather(
        *(house.accept(customer(last_name=name)) for name in names), return_exceptions=True
    )
    assert [isinstance(answer, Accepted) for answer in answers] == [True, True, False, True, True]


async def test_accept_many_when_some_are_bad_then_an_answer_each_in_one_flush(house: House) -> None:
    items = [NewWrite(intent=customer(last_name=str(n)), idempotency_key=f"row-{n}") for n in range(50)]
    items[7] = NewWrite(intent=customer(wrong=1), idempotency_key="row-7")
    items[9] = NewWrite(intent=customer())
    import_id = await house.delivery.add_import("agent:test", house.tenant, Object.CUSTOMER)
    answers = await house.delivery.accept_many("agent:test", house.tenant, items, import_id=import_id)
    assert [place for place, answer in enumerate(answers) if isinstance(answer, CrmError)] == [7, 9]
    again = await house.delivery.accept_many("agent:test", house.tenant, items, import_id=import_id)
    assert [a.write_id for a in answers if isinstance(a, Accepted)] == [
        a.write_id for a in again if isinstance(a, Accepted) and a.replayed
    ]
    rows = await house.fetch("select priority, source, import_id from writes")
    await house.accept(customer())
    counts = await house.delivery.counts(house.tenant.id, import_id=import_id)
    assert counts[TargetState.ACCEPTED] == 48
    assert {(row["priority"], row["source"], row["import_id"]) for row in rows} == {(1, "import", import_id)}


async def test_accept_when_two_connections_then_one_write_with_a_target_each(house: House) -> None:
    second = FakeProvider()
    await house.add_connection(house.tenant, "second", second, manifest_of(batch=1, in_flight=1))
    accepted = await house.accept(customer(), connections=("primary", "second"), wait_seconds=5)
    assert [target.state for target in accepted.targets] == [TargetState.APPLIED] * 2
    assert len(house.provider.effects) == len(second.effects) == 1


async def test_subjects_when_one_person_is_written_two_ways_then_one_hash(house: House) -> None:
    await house.accept(customer(email="Jane@Example.com ", phone="050 123 4567"))
    await house.accept(customer(email="jane@example.com", phone="+971501234567"))
    rows = await house.fetch("select kind, count(distinct subject_hash) as n from write_subjects group by 1")
    assert {row["kind"]: row["n"] for row in rows} == {"email": 1, "phone": 1}
    assert normalise("phone", "nonsense 12", "") == "12"
