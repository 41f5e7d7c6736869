"""Callers whose every try is kept: how it ended, where, after how long. And a house over a database that is there."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
from tests.faults.child import Plan
from tests.faults.connecting import Trade
from tests.faults.house import QUICK, ROOT, FaultHouse
from tests.faults.load import percentile
from tests.faults.nursery import Nursery

from crmbridge.core.records import Object
from crmbridge.services.vault.master import new_master_key

__all__ = ["Traffic", "Try", "first_key", "housed", "traffic"]


@dataclass
class Try:
    """One request. ``end``: ``accepted``, ``refused`` (nobody listens), ``cut`` (no answer came), or a status."""

    at: float
    seconds: float
    port: int
    end: str
    told: dict[str, Any] = field(default_factory=dict)
    is_waited: bool = False


@dataclass
class Traffic:
    """What the callers met so far."""

    tries: list[Try] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    accepted_at: dict[str, float] = field(default_factory=dict)

    def ends(self, since: float = 0.0, until: float = 1e18) -> Counter[str]:
        """How the tries between two moments ended."""
        return Counter(one.end for one in self.tries if since <= one.at < until)

    def p99_ms(self, since: float, until: float) -> float:
        """Of the accepts without waiting that were asked for between two moments."""
        times = [
            one.seconds
            for one in self.tries
            if since <= one.at < until and one.end == "accepted" and not one.is_waited
        ]
        return round(percentile(times, 0.99) * 1000, 1)

    def first_accept_after(self, moment: float) -> float | None:
        """Seconds until a request that was sent after the moment was accepted."""
        ends = [one.at + one.seconds for one in self.tries if one.end == "accepted" and one.at >= moment]
        return min(ends) - moment if ends else None


@asynccontextmanager
async def traffic(
    these: Sequence[Trade], callers: int, *, pause: float = 0.01, waited: float = 0.0, patience: float = 90.0
) -> AsyncIterator[Traffic]:
    """Callers that write leads until the block ends, each write with one key until it is accepted."""
    stop, met = asyncio.Event(), Traffic()

    async def caller(number: int) -> None:
        turn = number
        while not stop.is_set():
            trade = these[turn % len(these)]
            await _until_accepted(trade, met, trade.house.random.random() < waited, patience)
            turn += 1
            await asyncio.sleep(pause)

    tasks = [asyncio.create_task(caller(number)) for number in range(callers)]
    try:
        yield met
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def _until_accepted(trade: Trade, met: Traffic, is_waited: bool, patience: float) -> None:
    house, token = trade.house, trade.house.token()
    body = trade.body(Object.LEAD, token)
    headers = {"Authorization": f"Bearer {house.key}", "Idempotency-Key": token}
    if is_waited:
        headers["Prefer"] = "wait=1"
    began, tries, port = monotonic(), 0, 0
    while True:
        tries += 1
        # As a load balancer does it: somebody else than the one that failed just now.
        others = [child.port for child in house.apis if child.port != port] or [port]
        port = house.random.choice(others if tries > 1 else [child.port for child in house.apis])
        one = await _asked(house, trade, port, body, headers)
        one.is_waited = is_waited
        met.tries.append(one)
        if one.end == "accepted":
            house.enter(
                token,
                trade.tenant,
                trade.slug,
                "lead",
                one.told["write_id"],
                seconds=monotonic() - began,
                tries=tries,
            )
            met.tokens.append(token)
            met.accepted_at[token] = monotonic()
            return
        assert monotonic() - began < patience, f"{token} was not accepted in {patience} s: {one}"
        await asyncio.sleep(0.05)


async def _asked(
    house: FaultHouse, trade: Trade, port: int, body: dict[str, Any], headers: dict[str, str]
) -> Try:
    url = f"http://127.0.0.1:{port}/api/tenants/{trade.tenant}/records/lead"
    began, told = monotonic(), {}
    try:
        async with house.http.post(url, json=body, headers=headers) as answer:
            told = await answer.json(content_type=None)
            if answer.status in (200, 201, 202):
                end = "accepted"
            else:
                end = str(answer.status)
                told["Retry-After"] = answer.headers.get("Retry-After", "")
    except aiohttp.ClientConnectorError:
        end = "refused"
    except (aiohttp.ClientError, OSError, TimeoutError, json.JSONDecodeError):
        end = "cut"
    return Try(began, monotonic() - began, port, end, told)


@asynccontextmanager
async def housed(
    folder: Path,
    postgres: Any,
    app_dsn: str,
    scheduler_dsn: str,
    slugs: Sequence[str],
    *,
    plan: Plan = QUICK,
    seed: int = 1,
) -> AsyncIterator[FaultHouse]:
    """A house over a database that is there, with emulators and no process of ours yet."""
    made = new_master_key()
    environment = {name: text for name, text in os.environ.items() if not name.startswith("CRMBRIDGE_")}
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "CRMBRIDGE_MASTER_KEY": made if ":" in made else f"k1:{made}",
        "CRMBRIDGE_EGRESS_ALLOW": "127.0.0.1",
        "CRMBRIDGE_DATA_DIR": str(folder / "own"),
        "CRMBRIDGE_LOG_FORMAT": "json",
        "CRMBRIDGE_SHUTDOWN_SECONDS": "5",
        "CRMBRIDGE_POOL_SIZE": "6",
        "CRMBRIDGE_SCHEDULER_POOL_SIZE": "4",
        "CRMBRIDGE_DATABASE_URL": app_dsn,
        "CRMBRIDGE_DATABASE_SCHEDULER_URL": scheduler_dsn,
    }
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as http:
        nursery = Nursery(environment, folder, ROOT)
        house = FaultHouse(folder, postgres, plan, environment, seed, http, nursery)
        try:
            house.start_crm(slugs, 0.3)
            yield house
        finally:
            await asyncio.to_thread(house.close)
            nursery.close()


async def first_key(house: FaultHouse) -> None:
    """Until the first API answers; takes the operator's key that it leaves."""
    await house.ready(house.apis[0])
    house.key = (house.folder / "own" / "admin.key").read_text().strip()
