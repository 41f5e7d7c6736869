"""Load for a house: connected tenants, callers that write, and waiting for what must become true."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

from tests.faults.connecting import Trade, connect, find_one, words
from tests.faults.house import FaultHouse

from crmbridge.core.records import Object

__all__ = ["load", "percentile", "states_of", "trades", "until"]

_BULK = ("odoo", "rest_api", "custom_webhook")


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


async def trades(house: FaultHouse, name: str, number: int, slugs: Sequence[str] = _BULK) -> list[Trade]:
    """So many connected tenants, drivers in turn, with what one lead leaves in each CRM."""
    made = []
    for place in range(number):
        slug = slugs[place % len(slugs)]
        trade = await connect(house, slug, f"{words(name)}-{place}")
        if (slug, "lead") not in house.one:
            await find_one(trade, Object.LEAD)
        made.append(trade)
    return made


@asynccontextmanager
async def load(
    these: Sequence[Trade], callers: int, *, pause: float = 0.0, waited: float = 0.0
) -> AsyncIterator[list[str]]:
    """Callers that write leads, one after the other each, until the block ends. Yields the tokens accepted so far."""
    stop = asyncio.Event()
    tokens: list[str] = []

    async def caller(number: int) -> None:
        turn = number
        while not stop.is_set():
            trade = these[turn % len(these)]
            prefer = "wait=1" if trade.house.random.random() < waited else ""
            tokens.append(await trade.put(Object.LEAD, prefer=prefer))
            turn += 1
            await asyncio.sleep(pause)

    tasks = [asyncio.create_task(caller(number)) for number in range(callers)]
    try:
        yield tokens
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def until(true: Callable[[], Any], seconds: float, what: str) -> None:
    deadline = monotonic() + seconds
    while not true():
        assert monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.02)


async def states_of(house: FaultHouse, tenant: str) -> dict[str, int]:
    rows = await house.fetch(
        "select w.state, count(*) as n from write_targets w join tenants t on t.id = w.tenant_id "
        "where t.slug = $1 group by 1",
        tenant,
    )
    return {row["state"]: row["n"] for row in rows}
