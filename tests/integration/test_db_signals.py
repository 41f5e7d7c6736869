"""Signals between processes: heard by those that are there, deaf to nonsense, back after a cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest

from crmbridge.db.pool import Database
from crmbridge.db.signals import CHANNEL, Signals

pytestmark = pytest.mark.postgres


@pytest.fixture
async def heard(database: Database) -> AsyncIterator[tuple[Signals, list[UUID]]]:
    signals = Signals(database, database._scheduler_dsn)
    words: list[UUID] = []
    signals.listen("settled", lambda text: words.append(UUID(text)))
    signals.start()
    await asyncio.wait_for(signals.is_listening.wait(), 10)
    yield signals, words
    await signals.close()


async def until(words: list[UUID], count: int) -> None:
    async with asyncio.timeout(10):
        while len(words) < count:
            await asyncio.sleep(0.01)


async def test_word_when_sent_by_another_process_then_heard(
    database: Database, heard: tuple[Signals, list[UUID]]
) -> None:
    one = uuid4()
    await Signals(database, database._scheduler_dsn).send("settled", str(one))
    await until(heard[1], 1)
    assert heard[1] == [one]


async def test_word_when_nonsense_or_of_another_kind_then_ignored(
    database: Database, heard: tuple[Signals, list[UUID]]
) -> None:
    signals, words = heard
    for payload in ("settled", "settled nonsense", "later " + str(uuid4()), "", "settled " + "x" * 7000):
        async with database.system() as conn:
            await conn.execute("select pg_notify($1, $2)", CHANNEL, payload)
    one = uuid4()
    await signals.send("settled", str(one))
    await until(words, 1)
    assert words == [one]


async def test_listener_when_the_server_cuts_it_then_it_listens_again(
    database: Database, heard: tuple[Signals, list[UUID]]
) -> None:
    signals, words = heard
    await database.peek(
        lambda conn: conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'crmbridge signals' and datname = current_database()"
        )
    )
    async with asyncio.timeout(10):
        while signals.is_listening.is_set():
            await asyncio.sleep(0.01)
        await signals.is_listening.wait()
    one = uuid4()
    await signals.send("settled", str(one))
    await until(words, 1)
    assert words == [one]


async def test_listener_when_the_client_trips_over_a_cut_then_it_listens_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = asyncpg.Connection.add_listener
    trips = iter([True, False])

    async def tripped(conn: asyncpg.Connection, *rest: object) -> None:
        if next(trips, False):
            raise asyncpg.InternalClientError(
                "cannot switch to state 11; another operation (2) is in progress"
            )
        await listen(conn, *rest)

    monkeypatch.setattr(asyncpg.Connection, "add_listener", tripped)
    signals = Signals(database, database._scheduler_dsn)
    signals.start()
    await asyncio.wait_for(signals.is_listening.wait(), 10)
    assert list(trips) == []
    await signals.close()
