"""An import while somebody waits for a live write, on whatever lane: small commits, rests, full calls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.integration.delivery_fakes import build, customer, import_rows, sent, until_sent

from crmbridge.db.pool import Database
from crmbridge.services.delivery.courtesy import Work
from crmbridge.services.delivery.intake import store as intake_store
from crmbridge.services.delivery.lane import drain

pytestmark = pytest.mark.postgres


async def test_rows_of_an_import_when_somebody_waits_then_few_share_a_commit_and_a_rest_follows_each(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await build(database)
    insert = intake_store.insert_writes
    happened: list[int | str] = []

    async def seen(conn: Any, items: Any, *rest: Any) -> Any:
        happened.append(len(items))
        return await insert(conn, items, *rest)

    async def rested(work: Work, worked_seconds: float) -> None:
        assert work is Work.ACCEPT and worked_seconds > 0
        happened.append("rest")

    monkeypatch.setattr(intake_store, "insert_writes", seen)
    monkeypatch.setattr(house.delivery._courtesy, "rest", rested)
    await import_rows(house, 100)
    assert happened == [100, "rest"]
    happened.clear()
    house.delivery._courtesy.note_live(house.connection.id)
    await import_rows(house, 60, first=100)
    assert happened == [25, "rest", 25, "rest", 10, "rest"]
    await house.delivery.close()


async def test_call_of_an_import_when_its_rows_come_slowly_beside_live_writes_then_filled_first(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "_FILL_SECONDS", 0.95)
    house = await build(database, batch=10)
    house.delivery._courtesy.note_live(house.connection.id)
    await import_rows(house, 5)
    running = asyncio.create_task(house.delivery.drain(house.connection.id))
    await asyncio.sleep(0.1)
    assert house.provider.sent == []
    await house.accept(customer(last_name="live"))
    async with asyncio.timeout(0.7):
        await until_sent(house, 1)
    await import_rows(house, 5, first=5)
    await running
    assert [len(call) for call in house.provider.calls("send")] == [1, 10] and sent(house)[0] == "live"
    await house.delivery.close()


async def test_call_of_an_import_when_no_more_rows_come_then_sent_as_it_is_soon(database: Database) -> None:
    house = await build(database, batch=10)
    house.delivery._courtesy.note_live(house.connection.id)
    await import_rows(house, 15)
    async with asyncio.timeout(5):
        await house.delivery.drain(house.connection.id)
    assert [len(call) for call in house.provider.calls("send")] == [10, 5]
    await house.delivery.close()


async def test_call_of_an_import_when_nobody_waits_for_a_live_write_then_sent_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "_FILL_SECONDS", 5.0)
    house = await build(database, batch=10)
    await import_rows(house, 5)
    running = asyncio.create_task(house.delivery.drain(house.connection.id))
    async with asyncio.timeout(4):
        await until_sent(house, 5)
    await running
    await house.delivery.close()
