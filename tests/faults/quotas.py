"""One rate budget, many processes: all of it is used, and the CRM never has to refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic

import aiohttp
from tests.faults.connecting import Trade
from tests.faults.house import FaultHouse
from tests.faults.ledger import Line

from crmbridge.core.records import Object

__all__ = ["most_in_a_period", "shared_budget"]


async def shared_budget(
    house: FaultHouse, trade: Trade, *, limit: int, per_seconds: float, periods: int = 4
) -> Line:
    """All worker processes deliver a deep lane, and all API processes read, on one connection with one budget.

    Counted at the CRM: the most calls in any period, refusals, and how much of the budget was used from the first call
    on. Who is refused by us is no fault: that is a budget kept.
    """
    line = Line(f"one budget of {limit} per {per_seconds:g} s")
    began = monotonic()
    before = len(house.calls(trade.slug))
    stop = asyncio.Event()
    tokens: list[str] = []
    seconds = per_seconds * periods
    bodies = {
        token: trade.body(Object.LEAD, token)
        for token in (house.token() for _ in range(int(0.6 * limit * periods)))
    }
    for start in range(0, len(bodies), 200):
        part = dict(list(bodies.items())[start : start + 200])
        await house.put_many(trade.tenant, trade.slug, "lead", part)
    tokens += bodies
    readers = [asyncio.create_task(_read(house, trade, api.port, stop)) for api in house.apis]
    await asyncio.sleep(seconds + 1)
    stop.set()
    told = [await reader for reader in readers]
    await house.settle(120 + 2 * seconds)
    calls = house.calls(trade.slug)[before:]
    moments = [call.at for call in calls]
    first = min(moments)
    used = sum(at < first + seconds for at in moments) / (limit * periods)
    refused = sum(call.status == 429 for call in calls)
    most = most_in_a_period(moments, per_seconds)
    line.notes |= {
        "used": f"{100 * used:.0f} %",
        "most in any period": most,
        "429": refused,
        "workers": len(house.workers),
        "API processes": len(house.apis),
        "reads": sum(told),
    }
    line.ratios["used"] = used
    if refused or most > limit:
        line.wrong.append(f"{refused} calls were refused, at most {most} of {limit} came in a period")
    if used < 0.95:
        line.wrong.append(f"only {100 * used:.0f} % of the budget was used")
    line.seconds = monotonic() - began
    return await house.judge(line, tokens)


async def _read(house: FaultHouse, trade: Trade, port: int, stop: asyncio.Event) -> int:
    """Recent leads, again and again; answers how often it got them."""
    url = f"http://127.0.0.1:{port}/api/tenants/{trade.tenant}/records/lead"
    number = 0
    while not stop.is_set():
        try:
            async with house.http.get(url, headers={"Authorization": f"Bearer {house.key}"}) as answer:
                number += answer.status == 200
                assert answer.status in (200, 429), await answer.text()
        except (aiohttp.ClientError, OSError, TimeoutError):
            pass
        await asyncio.sleep(0.05)
    return number


def most_in_a_period(moments: Sequence[float], per_seconds: float) -> int:
    """The most calls in any period, wherever it begins."""
    ordered = sorted(moments)
    most = first = 0
    for last, moment in enumerate(ordered):
        while ordered[first] <= moment - per_seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
