"""Connections kept at hand between two statements: reused, never lost, never handed on in disorder."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress

import asyncpg
import pytest

from crmbridge.db import at_hand as room
from crmbridge.db.at_hand import AtHand
from crmbridge.db.pool import Database
from crmbridge.db.roles import RoleDsns

pytestmark = pytest.mark.postgres

_PID = "select pg_backend_pid()"


@pytest.fixture
async def four_connections(database_dsns: RoleDsns) -> AsyncIterator[AtHand]:
    pool = await asyncpg.create_pool(database_dsns.app, min_size=0, max_size=4)
    at_hand = AtHand(pool)
    yield at_hand
    await at_hand.close()
    pool.terminate()


async def _pid(at_hand: AtHand) -> int:
    conn = await at_hand.take()
    pid: int = await conn.fetchval(_PID)
    at_hand.give(conn)
    return pid


async def test_connection_when_given_back_then_next_taker_has_it_without_the_pool(
    four_connections: AtHand,
) -> None:
    first = await _pid(four_connections)
    assert [await _pid(four_connections) for _ in range(5)] == [first] * 5
    assert four_connections.pool.get_idle_size() == 0, "it went back to the pool"


async def test_pool_when_asked_directly_then_has_connections_left(four_connections: AtHand) -> None:
    taken = [await four_connections.take() for _ in range(4)]
    for conn in taken:
        four_connections.give(conn)
    async with asyncio.timeout(5):
        held = [await four_connections.pool.acquire() for _ in range(2)]
    for conn in held:
        await four_connections.pool.release(conn)


async def test_takers_when_more_than_connections_then_all_get_one(four_connections: AtHand) -> None:
    async def one() -> None:
        conn = await four_connections.take()
        await conn.fetchval("select pg_sleep(0.005)")
        four_connections.give(conn)

    async with asyncio.timeout(20):
        await asyncio.gather(*(one() for _ in range(100)))


async def test_connection_when_in_a_transaction_then_not_handed_on(four_connections: AtHand) -> None:
    conn = await four_connections.take()
    await conn.execute("begin")
    four_connections.give(conn)
    conn = await four_connections.take()
    is_inside = conn.is_in_transaction()
    four_connections.give(conn)
    assert not is_inside


async def test_connection_when_cut_while_at_hand_then_replaced(
    four_connections: AtHand, database_dsns: RoleDsns
) -> None:
    pid = await _pid(four_connections)
    other = await asyncpg.connect(database_dsns.app)
    await other.execute("select pg_terminate_backend($1)", pid)
    await other.close()
    await asyncio.sleep(0.2)
    assert await _pid(four_connections) != pid


async def test_connections_when_at_hand_for_long_then_back_in_the_pool(
    database_dsns: RoleDsns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_KEPT_SECONDS", 0.05)
    async with asyncpg.create_pool(database_dsns.app, min_size=0, max_size=4) as pool:
        at_hand = AtHand(pool)
        await _pid(at_hand)
        assert pool.get_idle_size() == 0
        await asyncio.sleep(0.3)
        assert pool.get_idle_size() == 1
        await at_hand.close()


async def test_close_when_some_are_in_use_then_those_come_home_later(four_connections: AtHand) -> None:
    await _pid(four_connections)
    conn = await four_connections.take()
    await four_connections.close()
    four_connections.give(conn)
    await four_connections.close()
    assert four_connections.pool.get_idle_size() == four_connections.pool.get_size()


async def test_connections_when_callers_are_cancelled_at_random_then_none_is_lost_or_dirty(
    database: Database,
) -> None:
    dice = random.Random(7)

    async def call() -> None:
        if dice.random() < 0.5:
            await database.peek(lambda conn: conn.fetchval("select pg_sleep(0.01)"))
        else:
            async with database.system() as conn:
                await conn.execute("select pg_sleep(0.005)")
                await conn.execute("select pg_sleep(0.005)")

    for _ in range(12):
        tasks = [asyncio.create_task(call()) for _ in range(10)]
        for task in tasks:
            await asyncio.sleep(dice.random() * 0.004)
            if dice.random() < 0.6:
                task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
    most = database.scheduler.get_max_size()
    together = asyncio.Barrier(most)

    async def clean() -> None:
        async with database.system() as conn:
            assert await conn.fetchval("select count(*) from pg_locks where pid = pg_backend_pid()") < 5
            await together.wait()

    async with asyncio.timeout(10):
        await asyncio.gather(*(clean() for _ in range(most)))
