"""Live writes beside an import on the same lane: what makes way, and what goes on all the same."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest
from tests.integration.delivery_fakes import (
    FAST,
    Fault,
    build,
    customer,
    import_rows,
    sent,
    until_sent,
)

from crmbridge.core.errors import Unavailable
from crmbridge.core.operations import Outcome
from crmbridge.db.pool import Database
from crmbridge.db.signals import Signals
from crmbridge.services.delivery.intake import store as intake_store
from crmbridge.services.delivery.lane import store
from crmbridge.services.delivery.model import TargetState

pytestmark = pytest.mark.postgres
LEASE = msgspec.structs.replace(FAST, lease_seconds=0.6)


async def test_live_when_an_import_is_read_ahead_then_next_in_line(database: Database) -> None:
    house = await build(database, batch=10)
    await import_rows(house, 60)
    house.provider.latency = 0.1
    running = asyncio.create_task(house.delivery.drain(house.connection.id))
    await until_sent(house, 10)
    await house.accept(customer(last_name="live"))
    await house.settle(20)
    await running
    # One batch is under way, one is marked already.
    assert "live" in sent(house)[10:31]
    assert len(house.provider.effects) == len(set(house.provider.effects)) == 61
    await house.delivery.close()


async def test_live_when_accepted_by_another_process_then_sent_before_most_of_the_import(
    database: Database,
) -> None:
    here = await build(database, batch=10)
    there = await build(database, tenant_id=here.tenant.id, connection_id=here.connection.id)
    await import_rows(here, 100)
    here.provider.latency = 0.1
    running = asyncio.create_task(here.delivery.drain(here.connection.id))
    await until_sent(here, 10)
    await there.accept(customer(last_name="live"))
    await here.settle(20)
    await running
    assert "live" in sent(here)[10:51]
    for house in (here, there):
        await house.delivery.close()


async def test_live_when_imports_fill_their_calls_then_one_call_is_left_for_it(database: Database) -> None:
    house = await build(database, batch=1, in_flight=3)
    await import_rows(house, 12)
    house.provider.latency = 0.5
    running = asyncio.create_task(house.delivery.drain(house.connection.id))
    await until_sent(house, 2)
    await asyncio.sleep(0.1)
    assert len(house.provider.sent) == 2
    await house.accept(customer(last_name="live"))
    async with asyncio.timeout(0.4):
        await until_sent(house, 3)
    assert sent(house)[2] == "live" and house.provider.in_flight == 3
    house.provider.latency = 0
    await house.settle(20)
    await running
    assert len(house.provider.effects) == len(set(house.provider.effects)) == 13
    await house.delivery.close()


async def test_wait_when_another_process_has_the_lane_then_it_lets_the_write_pass_and_tells(
    database: Database,
) -> None:
    slow = msgspec.structs.replace(FAST, reread_seconds=30, send_seconds=60, lease_seconds=60)
    both = [Signals(database, database._scheduler_dsn) for _ in range(2)]
    there = await build(database, batch=1, in_flight=2, limits=slow, signals=both[0])
    here = await build(
        database,
        limits=slow,
        signals=both[1],
        tenant_id=there.tenant.id,
        connection_id=there.connection.id,
    )
    for signals in both:
        signals.start()
        await asyncio.wait_for(signals.is_listening.wait(), 5)
    await import_rows(there, 4)
    there.provider.latency = 4
    running = asyncio.create_task(there.delivery.drain(there.connection.id))
    await until_sent(there, 1)
    there.provider.latency = 0.05
    accepted = await here.accept(customer(last_name="live"), wait_seconds=10)
    assert accepted.targets[0].state is TargetState.APPLIED
    # The import's call is still under way, the next look of the drain would be in 30 s.
    assert there.provider.in_flight == 1
    assert sent(here) == [] and sent(there)[1] == "live"
    await running
    for signals in both:
        await signals.close()
    for house in (here, there):
        await house.delivery.close()


async def test_import_when_the_lane_must_rest_after_the_next_batch_was_marked_then_that_was_no_attempt(
    database: Database,
) -> None:
    house = await build(database, batch=5)
    await import_rows(house, 10)
    house.provider.latency = 0.3
    house.provider.faults.append(Fault(Unavailable("down", outcome=Outcome.NOT_APPLIED, retry_safe=True)))
    running = asyncio.create_task(house.delivery.drain(house.connection.id))
    await until_sent(house, 5)
    async with asyncio.timeout(5):
        while len(await house.fetch("select 1 from write_targets where state = 'sending'")) < 10:
            await asyncio.sleep(0.01)
    await running
    rows = await house.fetch("select attempt_count from write_targets where state = 'retrying'")
    assert sorted(row["attempt_count"] for row in rows) == [0] * 5 + [1] * 5
    assert len(await house.fetch("select 1 from attempts")) == 5
    house.provider.latency = 0
    await house.settle(20)
    assert house.provider.calls("look_up") == []
    assert len(house.provider.effects) == len(set(house.provider.effects)) == 10
    await house.delivery.close()


async def test_import_when_the_call_before_takes_long_then_the_marked_batch_is_marked_anew(
    database: Database,
) -> None:
    """Others may look a marked target up some time after its mark: a call must not begin long after it."""
    house = await build(database, batch=5, limits=msgspec.structs.replace(LEASE, send_seconds=5))
    await import_rows(house, 10)
    house.provider.latency = 0.5
    await house.drain()
    await house.settle(20)
    assert house.provider.calls("look_up") == []
    rows = await house.fetch("select attempt_count from write_targets")
    assert [row["attempt_count"] for row in rows] == [1] * 10
    assert len(house.provider.effects) == len(set(house.provider.effects)) == 10
    await house.delivery.close()


async def test_live_when_it_comes_beside_an_import_then_what_was_read_of_that_stays_and_one_statement_takes_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await build(
        database, batch=5, in_flight=3, limits=msgspec.structs.replace(FAST, reread_seconds=30)
    )
    await import_rows(house, 60)
    house.provider.latency = 0.1
    windows, marks = [], Counter[Any]()
    window, mark = store.window, store.mark

    async def counted(*values: Any) -> Any:
        windows.append(values)
        return await window(*values)

    async def marked(conn: Any, lease: Any, ids: Any, *values: Any) -> Any:
        marks.update(ids)
        return await mark(conn, lease, ids, *values)

    monkeypatch.setattr(store, "window", counted)
    monkeypatch.setattr(store, "mark", marked)
    running = asyncio.create_task(house.delivery.drain(house.connection.id))
    await until_sent(house, 5)
    live = []
    for number in range(5):
        accepted = await house.accept(customer(last_name=f"live {number}"), wait_seconds=5)
        assert accepted.targets[0].state is TargetState.APPLIED
        live.append(accepted.targets[0].id)
    # 60 rows are a few windows of 12. A write that is accepted as one is read is read with it, and marked later.
    assert len(windows) <= 8
    assert sum(marks[one] for one in live) <= 3
    await running
    await house.settle(20)
    attempts = await house.fetch("select attempt_count, state from write_targets")
    assert {(row["attempt_count"], row["state"]) for row in attempts} == {(1, "applied")}
    assert len(house.provider.effects) == len(set(house.provider.effects)) == 65
    await house.delivery.close()


async def test_live_when_a_turn_is_over_then_still_served_while_the_last_import_call_runs(
    database: Database,
) -> None:
    limits = msgspec.structs.replace(FAST, turn_seconds=0.8, send_seconds=10)
    house = await build(database, batch=1, in_flight=2, limits=limits)
    await import_rows(house, 3)
    house.provider.latency = 1.5
    running = asyncio.create_task(house.delivery.drain(house.connection.id))
    await until_sent(house, 1)
    await asyncio.sleep(0.85)
    house.provider.latency = 0.05
    accepted = await house.accept(customer(last_name="live"), wait_seconds=5)
    assert accepted.targets[0].state is TargetState.APPLIED
    assert len(sent(house)) == 2 and sent(house)[1] == "live"
    assert house.provider.in_flight == 1 and not running.done()
    await running
    await house.settle(20)
    assert len(house.provider.effects) == len(set(house.provider.effects)) == 4
    await house.delivery.close()


async def test_turn_when_live_writes_never_end_then_the_lane_is_handed_on_all_the_same(
    database: Database,
) -> None:
    limits = msgspec.structs.replace(FAST, turn_seconds=0.8, send_seconds=10)
    house = await build(database, batch=1, in_flight=2, limits=limits)
    house.provider.latency = 0.02
    is_over = asyncio.Event()

    async def write() -> None:
        while not is_over.is_set():
            await house.accept(customer(last_name="live"))
            await asyncio.sleep(0.005)

    await import_rows(house, 200)
    began = asyncio.get_running_loop().time()
    writing = asyncio.create_task(write())
    assert await house.delivery.drain(house.connection.id)
    assert 0.8 <= asyncio.get_running_loop().time() - began < 3
    is_over.set()
    await writing
    await house.delivery.close()
    assert house.jobs.queue[-1].dedupe_key == f"{house.connection.id}:1"
    await house.settle(20)
    assert len(house.provider.effects) == len(set(house.provider.effects))


async def test_wait_when_the_drain_of_this_process_leaves_the_lane_then_the_caller_takes_it_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = msgspec.structs.replace(FAST, turn_seconds=0.3)
    house = await build(database, batch=1, limits=limits)
    await import_rows(house, 30)
    house.provider.latency = 0.05
    release, is_leaving = store.release, asyncio.Event()

    async def slow(conn: Any, lease: Any, *, always: bool, **named: Any) -> Any:
        if always:
            is_leaving.set()
            await asyncio.sleep(0.6)
        return await release(conn, lease, always=always, **named)

    monkeypatch.setattr(store, "release", slow)
    running = asyncio.create_task(house.delivery.drain(house.connection.id))
    await asyncio.wait_for(is_leaving.wait(), 10)
    # Nobody else works on this lane: the jobs of this house are never run.
    accepted = await house.accept(customer(last_name="live"), wait_seconds=10)
    assert accepted.targets[0].state is TargetState.APPLIED
    assert await running
    monkeypatch.undo()
    await house.settle(20)
    assert len(house.provider.effects) == len(set(house.provider.effects)) == 31
    await house.delivery.close()


async def test_import_when_live_writes_fill_every_call_then_it_goes_on_all_the_same(
    database: Database,
) -> None:
    house = await build(database, batch=5)
    house.provider.latency = 0.1
    is_over = asyncio.Event()

    async def write() -> None:
        while not is_over.is_set():
            await house.accept(customer(last_name="live"))
            await asyncio.sleep(0.02)

    writing = asyncio.create_task(write())
    await asyncio.sleep(0.1)
    running = asyncio.create_task(house.delivery.drain(house.connection.id))
    await until_sent(house, 1)
    await import_rows(house, 5)
    async with asyncio.timeout(8):
        while "row 4" not in sent(house):
            await asyncio.sleep(0.05)
    is_over.set()
    await writing
    await running
    await house.settle(20)
    assert len(house.provider.effects) == len(set(house.provider.effects))
    await house.delivery.close()


async def test_import_when_a_live_write_has_come_then_it_keeps_to_half_of_the_calls(
    database: Database,
) -> None:
    house = await build(database, batch=1, in_flight=6)
    await import_rows(house, 40)
    house.provider.latency = 0.3
    running = asyncio.create_task(house.delivery.drain(house.connection.id))
    await until_sent(house, 10)
    assert house.provider.most_in_flight == 5
    await house.accept(customer(last_name="live"), wait_seconds=5)
    await until_sent(house, 20)
    house.provider.most_in_flight = 0
    await until_sent(house, 30)
    assert house.provider.most_in_flight <= 3
    await running
    await house.settle(20)
    assert len(house.provider.effects) == len(set(house.provider.effects)) == 41
    await house.delivery.close()


async def test_import_when_the_lane_had_live_writes_in_the_turn_before_then_it_leaves_them_their_calls_at_once(
    database: Database,
) -> None:
    house = await build(database, batch=1, in_flight=4)
    house.provider.latency = 0.2
    await asyncio.gather(*(house.accept(customer(last_name="live"), wait_seconds=5) for _ in range(3)))
    await import_rows(house, 12)
    house.provider.most_in_flight = 0
    running = asyncio.create_task(house.delivery.drain(house.connection.id))
    await until_sent(house, 6)
    assert house.provider.most_in_flight == 1
    await asyncio.gather(*(house.accept(customer(last_name="live"), wait_seconds=5) for _ in range(3)))
    assert house.provider.most_in_flight == 4, "a live write waited for another call"
    await running
    await house.settle(20)
    assert len(house.provider.effects) == len(set(house.provider.effects)) == 18
    await house.delivery.close()


async def test_live_when_rows_of_an_import_are_being_accepted_then_not_with_them_and_not_after_them(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await build(database)
    insert, sizes = intake_store.insert_writes, []

    async def slow(conn: Any, items: Any, *rest: Any) -> Any:
        sizes.append({item.priority for item in items})
        if items[0].priority > 0:
            await asyncio.sleep(1)
        return await insert(conn, items, *rest)

    monkeypatch.setattr(intake_store, "insert_writes", slow)
    importing = asyncio.create_task(import_rows(house, 300))
    while not sizes:
        await asyncio.sleep(0.01)
    async with asyncio.timeout(0.8):
        await asyncio.gather(*(house.accept(customer(last_name="live")) for _ in range(3)))
    await importing
    assert {0} in sizes and {0, 1} not in sizes
    await house.delivery.close()


async def test_import_when_its_rows_are_prepared_then_others_get_their_turn(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the accept and before the call: each row costs the loop, a few of them may do so at a stretch."""
    house = await build(database, batch=100)
    turn = 0
    accepts, maps = Counter[int](), Counter[int]()

    async def tick() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    prepare, mapped = house.delivery._acceptance.prepare, house.connection.map

    async def prepared(*values: Any, **named: Any) -> Any:
        accepts[turn] += 1
        return await prepare(*values, **named)

    def mapping(*values: Any, **named: Any) -> Any:
        maps[turn] += 1
        return mapped(*values, **named)

    monkeypatch.setattr(house.delivery._acceptance, "prepare", prepared)
    ticking = asyncio.create_task(tick())
    await import_rows(house, 100)
    monkeypatch.setattr(house.connection, "map", mapping)
    await house.drain()
    ticking.cancel()
    for in_turn in (accepts, maps):
        assert in_turn.total() == 100 and max(in_turn.values()) <= 32
    await house.delivery.close()


async def test_live_when_few_wait_before_an_import_then_marked_as_the_lane_is_taken(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await build(database, batch=10, in_flight=3)
    await import_rows(house, 20)
    live = [await house.accept(customer(last_name=f"live {number}")) for number in range(3)]
    mark = store.mark

    async def marked(conn: Any, lease: Any, ids: Any, *values: Any) -> Any:
        assert not {accepted.targets[0].id for accepted in live} & set(ids)
        return await mark(conn, lease, ids, *values)

    monkeypatch.setattr(store, "mark", marked)
    await house.drain()
    assert sorted(sent(house)[:3]) == ["live 0", "live 1", "live 2"]
    rows = await house.fetch("select attempt_count, state from write_targets")
    assert [(row["attempt_count"], row["state"]) for row in rows] == [(1, "applied")] * 23
    await house.delivery.close()


async def test_lane_when_live_writes_wait_before_an_import_then_taken_with_these_alone_and_the_import_follows(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await build(database, batch=50)
    await import_rows(house, 60)
    for _ in range(2):
        await house.accept(customer(last_name="live"))
    taken: list[tuple[int, bool]] = []
    take = store.take

    async def seen(*values: Any) -> Any:
        found = await take(*values)
        if found is not None:
            taken.append((len(found.rows), found.has_more))
        return found

    monkeypatch.setattr(store, "take", seen)
    await house.delivery.drain(house.connection.id)
    assert taken == [(2, True)]
    assert sent(house)[:2] == ["live", "live"] and len(sent(house)) == 62
    await house.accept(customer(last_name="live"))
    await house.delivery.drain(house.connection.id)
    assert taken[1:] == [(1, False)]
    await house.delivery.close()
