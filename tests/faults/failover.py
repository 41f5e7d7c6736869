"""The primary's machine dies and its standby is promoted, under load."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic, time
from typing import Any

from tests.faults.connecting import Trade
from tests.faults.house import FaultHouse
from tests.faults.ledger import Line
from tests.faults.load import trades
from tests.faults.pair import Pair, Server
from tests.faults.traffic import Traffic, first_key, housed, traffic
from tests.needs import folder_for_all

from crmbridge.core.records import Object
from crmbridge.db.roles import SCHEMA
from crmbridge.db.schema import migrate

__all__ = ["failover", "lossy_failover", "paired"]

_SLUGS = ("odoo", "rest_api", "custom_webhook")


@asynccontextmanager
async def paired(*, synchronous: bool, seed: int = 7) -> AsyncIterator[tuple[FaultHouse, Pair]]:
    """A house of two APIs and two workers over a pair of servers; every address names both."""
    with folder_for_all("crmb-pair-") as folder:
        pair = Pair(folder / "pg", synchronous=synchronous)
        try:
            await pair.start()
            await migrate(pair.dsns.owner)
            app, scheduler = pair.dsns.app, pair.dsns.scheduler
            async with housed(folder, pair, app, scheduler, _SLUGS, seed=seed) as house:
                house.start_api()
                house.start_api()
                house.start_worker()
                house.start_worker()
                await first_key(house)
                await house.ready(house.apis[1])
                yield house, pair
        finally:
            await asyncio.to_thread(pair.stop)


async def _writes_at(pair: Pair, server: Server) -> int:
    rows = await pair.ask(server, f"select count(*) as n from {SCHEMA}.writes", base="crmbridge")
    return int(rows[0]["n"])


async def failover(
    house: FaultHouse, pair: Pair, *, seconds: float, standby_seconds: float, callers: int = 4
) -> Line:
    """Synchronous: the primary is killed, for a while only the standby answers, then it is promoted.

    Then the old primary comes back: first unfenced, as it must not be, which tells whether running processes go to it;
    then rewound, as the new one's standby.
    """
    line = Line("failover, synchronous")
    began = monotonic()
    these = await trades(house, "failover", 3, _SLUGS)
    async with traffic(these, callers, waited=0.2) as met:
        await asyncio.sleep(seconds)
        pair.primary.kill()
        killed = monotonic()
        house.kills += 1
        await asyncio.sleep(standby_seconds)
        line.wrong += await _only_a_standby(house, these[0])
        line.notes["promotion s"] = round(await pair.promote(), 2)
        promoted = monotonic()
        await asyncio.sleep(max(seconds, 5.0))
        _tell_times(line, met, killed, promoted)
        pair.primary.start({"synchronous_standby_names": ""})
        before = await _writes_at(pair, pair.primary)
        unfenced, seen = monotonic(), len(met.tokens)
        await asyncio.sleep(max(seconds, 3.0))
        line.notes["accepted with the old primary back"] = len(met.tokens) - seen
        line.notes["of these at the old primary"] = await _writes_at(pair, pair.primary) - before
        await asyncio.to_thread(pair.primary.stop)
        line.notes["unfenced for s"] = round(monotonic() - unfenced, 1)
        await pair.follow_again(pair.primary, pair.standby)
        seen = len(met.tokens)
        await asyncio.sleep(seconds)
        line.notes["accepted with it as standby"] = len(met.tokens) - seen
    if line.notes["of these at the old primary"]:
        line.wrong.append("a running process wrote to the old primary")
    for child in (*house.apis, *house.workers):
        if not child.is_alive:
            line.wrong.append(f"{child.name} ended")
    await house.settle(120)
    line.seconds = monotonic() - began
    return await house.judge(line, met.tokens)


def _tell_times(line: Line, met: Traffic, killed: float, promoted: float) -> None:
    after, since = met.first_accept_after(promoted), met.first_accept_after(killed)
    line.notes["accepting again s after promotion"] = None if after is None else round(after, 2)
    line.notes["without accepts for s"] = None if since is None else round(since, 1)
    if after is None:
        line.wrong.append("nothing was accepted after the promotion")
    away = met.ends(killed, promoted)
    line.notes["tries meanwhile"] = dict(away)
    refused = [one for one in met.tries if killed <= one.at < promoted and one.end not in ("accepted", "cut")]
    odd = [one for one in refused if one.end != "503"]
    if odd:
        line.wrong.append(f"{len(odd)} tries ended otherwise than with 503, the first: {odd[0]}")


async def _only_a_standby(house: FaultHouse, trade: Trade) -> list[str]:
    """What is not as it should be while nobody takes writes: 503 `unavailable` with a time, alive, not ready."""
    wrong: list[str] = []
    url = f"http://127.0.0.1:{house.apis[0].port}"
    headers = {"Authorization": f"Bearer {house.key}"}
    async with house.http.get(f"{url}/api/tenants/{trade.tenant}/writes", headers=headers) as answer:
        told: dict[str, Any] = await answer.json(content_type=None)
        if answer.status != 503 or told.get("code") != "unavailable" or not told.get("retry_safe"):
            wrong.append(f"a read is answered {answer.status}: {told}")
        if not answer.headers.get("Retry-After"):
            wrong.append("503 without Retry-After")
        if "takes no writes" not in str(told.get("message", "")):
            wrong.append(f"the error does not tell of a standby: {told.get('message')}")
    async with house.http.get(f"{url}/healthz") as answer:
        if answer.status != 200:
            wrong.append(f"/healthz answers {answer.status}")
    async with house.http.get(f"{url}/readyz") as answer:
        if answer.status != 503:
            wrong.append(f"/readyz answers {answer.status} without a database")
    wrong += [f"{child.name} ended" for child in (*house.apis, *house.workers) if not child.is_alive]
    return wrong


async def lossy_failover(
    house: FaultHouse, pair: Pair, *, seconds: float, lag_seconds: float, callers: int = 4
) -> Line:
    """Asynchronous: the standby has stopped receiving for a while when the primary dies.

    What that loses is counted, and is not a failure of this run: the line's own sums are of the writes that the standby
    had.
    """
    line = Line(f"failover, asynchronous, {lag_seconds:g} s behind")
    began = monotonic()
    these = await trades(house, "lossy", 3, _SLUGS)
    async with traffic(these, callers) as met:
        await asyncio.sleep(seconds)
        # What is accepted now is on both; that it was delivered, in a moment, only the primary will know.
        burst = await asyncio.gather(*(trade.put(Object.LEAD) for trade in these for _ in range(20)))
        held = await _hold(pair) if lag_seconds else []
        behind_since = monotonic()
        await asyncio.sleep(lag_seconds)
        pair.primary.kill()
        killed = monotonic()
        house.kills += 1
        for pid in held:
            os.kill(pid, signal.SIGKILL)  # else it would still find what its socket has received
        await pair.promote()
        promoted = monotonic()
        await asyncio.sleep(max(seconds, 4.0))
        after = met.first_accept_after(promoted)
    await house.settle(120)
    states = await house.states()
    everything = [*met.tokens, *burst]
    gone = [token for token in everything if house.book[token].write_id not in states]
    # An answer that was under way when its sender died is read a moment later.
    late = [token for token in gone if met.accepted_at.get(token, 0.0) > killed + 0.5]
    early = [token for token in gone if met.accepted_at.get(token, 0.0) < behind_since - 0.5]
    if late or early:
        line.wrong.append(f"lost outside of the window: {len(early)} before it, {len(late)} after it")
    delivered, doubled = await _standing(house, everything, set(gone))
    inside = [t for t in met.tokens if behind_since <= met.accepted_at[t] <= killed]
    line.notes |= {
        "accepting again s after promotion": None if after is None else round(after, 2),
        "accepted in the window": len(inside),
        "accepted and forgotten": len(gone),
        "of these in the CRM": len(delivered),
        "in the CRM twice": len(doubled),
    }
    # Their callers were told that they are accepted. One who asks again, with the same key, meets a database that
    # never heard of it.
    again = delivered[:30]
    by_tenant = {trade.tenant: trade for trade in these}
    for token in again:
        await by_tenant[house.book[token].tenant].put(Object.LEAD, token)
    await house.settle(60)
    doubled = (await _standing(house, again, set()))[1]
    line.notes["asked for again"] = f"{len(again)}, then twice in the CRM {len(doubled)}"
    line.seconds = monotonic() - began
    kept = [token for token in everything if token not in set(gone)]
    judged = await house.judge(line, kept)
    judged.doubled = 0
    judged.wrong = [text for text in judged.wrong if " stands " not in text]
    return judged


async def _standing(house: FaultHouse, tokens: list[str], gone: set[str]) -> tuple[list[str], list[str]]:
    """Tokens of ``gone`` that stand in their CRM, and tokens that stand there more than once."""
    held = {slug: await house.holdings(slug) for slug in _SLUGS}
    delivered, doubled = [], []
    for token in tokens:
        entry = house.book[token]
        rows = held[entry.slug].by_token.get(token)
        if rows is None:
            continue
        if token in gone:
            delivered.append(token)
        if any(count > house.one[entry.slug, entry.object][name] for name, count in rows.items()):
            doubled.append(token)
    return delivered, doubled


async def _hold(pair: Pair) -> list[int]:
    """Stop the standby's receiver, as a network that is cut would."""
    pids = pair.standby.children("walreceiver")
    assert pids, f"no receiver at {time()}"
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return pids
