"""Neighbours: one CRM that is down, an import beside live writes, a poison record among good ones."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic, time

from tests.faults.connecting import Trade
from tests.faults.house import FaultHouse
from tests.faults.ledger import PENDING, Line
from tests.faults.load import percentile, states_of
from tests.faults.processor import Shares
from tests.faults.progress import progress

from crmbridge.core.operations import Operation
from crmbridge.core.records import Object

__all__ = ["crm_down", "import_beside_live", "poison"]

# Agents that write on one connection at the same time.
_CALLERS = 3
# Rows of an import in one request.
_PART = 200
# Of each caller, not measured.
_WARM_UP = 15


async def live(
    trade: Trade, number: int, *, pause: float = 0.02, port: int = 0, stop: Callable[[], bool] | None = None
) -> tuple[list[str], list[float]]:
    """Waited creates, one after the other: tokens and seconds. ``stop`` may end it before the number is reached."""
    tokens, seconds = [], []
    for _ in range(number):
        if stop is not None and stop():
            break
        began = monotonic()
        tokens.append(await trade.put(Object.LEAD, prefer="wait=10", port=port))
        seconds.append(monotonic() - began)
        await asyncio.sleep(pause)
    return tokens, seconds


async def crm_down(
    house: FaultHouse, ill: Trade, well: Trade, *, backlog: int, rounds: int, seconds: float = 0.0
) -> Line:
    """One tenant's CRM answers nothing, with a backlog behind it; meanwhile another tenant's waited creates.

    It lasts until the other tenant has made its rounds, and at least so many seconds.
    """
    line = Line("one CRM down")
    began = monotonic()
    tokens, calm = await live(well, rounds)
    await house.control("POST", ill.slug, "faults", {"kind": "timeout_before", "times": 0})
    down_at, seen = time(), len(house.calls(ill.slug))
    stuck = list(await asyncio.gather(*(ill.put(Object.LEAD) for _ in range(backlog))))
    pause = max(0.02, 0.6 * seconds / rounds)
    more, beside = await live(well, rounds, pause=pause)
    await asyncio.sleep(max(0.0, down_at + seconds - time()))
    waiting = await states_of(house, ill.tenant)
    if sum(waiting.get(state, 0) for state in PENDING) != backlog:
        line.wrong.append(f"the backlog of the CRM that is down stands {waiting}")
    calls = [call.at - down_at for call in house.calls(ill.slug)[seen:]]
    lasted = time() - down_at
    # An operator's "works again" is not needed: the back-off ends by itself.
    await house.control("DELETE", ill.slug, "faults")
    well_at = monotonic()
    await house.settle(max(120.0, house.plan.limits.get("retry_cap_seconds", 900.0) * 2))
    incidents = await house.fetch(
        "select i.kind, count(*) as n from incidents i join tenants t on t.id = i.tenant_id "
        "where t.slug = $1 group by 1",
        ill.tenant,
    )
    third = lasted / 3
    line.notes |= {
        "down for s": round(lasted),
        "waiting behind it": backlog,
        "calls to it in each third": "/".join(
            str(sum(third * part <= at < third * (part + 1) for at in calls)) for part in range(3)
        ),
        "all delivered after s": round(monotonic() - well_at, 1),
        "incidents": {row["kind"]: row["n"] for row in incidents} or 0,
    }
    if sum(row["n"] for row in incidents) > 1:
        line.wrong.append(f"one CRM that is down made several incidents: {line.notes['incidents']}")
    latency(line, "live", calm, beside)
    line.seconds = monotonic() - began
    return await house.judge(line, [*tokens, *more, *stuck])


async def import_beside_live(
    house: FaultHouse, here: Trade, other: Trade, *, rows: int, rounds: int, delay_ms: int = 20
) -> Line:
    """An import of one tenant; waited creates of the same connection and of another tenant, alone and beside it.

    Both CRMs take so long for a call. The import goes through the first API process, 200 rows a request, live writes
    through the last one. What is compared was done with the same pacing; of live writes beside the import only those
    count that were made before its last row was delivered.
    """
    line = Line("import beside live writes")
    began = monotonic()
    port = house.apis[-1].port
    for trade in (here, other):
        await house.control("POST", trade.slug, "latency", {"ms": delay_ms})
    # The first calls open connections and fill caches; they would make the latency alone look worse than it is.
    await asyncio.gather(
        *(live(trade, _WARM_UP, port=port) for trade in (here, other) for _ in range(_CALLERS))
    )
    shares = Shares(house)
    callers = [(trade, rounds // _CALLERS) for trade in (here, other) for _ in range(_CALLERS)]
    probing = asyncio.create_task(_probe(here, delay_ms))
    alone = await asyncio.gather(*(live(trade, number, port=port) for trade, number in callers))
    probing.cancel()
    crm_alone = await probing
    line.notes["processors alone"] = shares.told()
    imported = [house.token() for _ in range(rows)]
    feed = _Feed(here, imported)
    shares, fed_at = Shares(house), monotonic()
    feeding = asyncio.create_task(feed.run())
    watching = asyncio.create_task(_watch(here, feed, feeding, rows))
    probing = asyncio.create_task(_probe(here, delay_ms))
    beside = await asyncio.gather(*(live(trade, rows, port=port, stop=watching.done) for trade, _ in callers))
    probing.cancel()
    latency(line, f"the CRM {here.slug}, asked for nothing", crm_alone, await probing)
    line.notes["processors beside"] = shares.told()
    await watching
    line.notes |= {
        "rows/s": round(rows / (monotonic() - fed_at)),
        "provider": f"{here.slug}, {delay_ms} ms a call, up to {_batch_of(here)} records a call",
        "live callers": f"{_CALLERS} on each connection",
    }
    for trade in (here, other):
        await house.control("POST", trade.slug, "latency", {"ms": 0})
    await house.settle(120)
    line.notes["rows of the import in a call"] = await _rows_a_call(house)
    tokens = list(imported)
    for name, place in (("same connection", 0), (f"other tenant ({other.slug})", _CALLERS)):
        parts = [phase[place : place + _CALLERS] for phase in (alone, beside)]
        calm, during = ([seconds for part in phase for seconds in part[1]] for phase in parts)
        tokens += [token for phase in parts for part in phase for token in part[0]]
        latency(line, name, calm, during)
        line.notes[f"{name} writes"] = f"{len(calm)} -> {len(during)}"
        # One of each caller may have begun before the first row, and another after the last.
        assert during, "the import was over too soon to tell anything"
    line.seconds = monotonic() - began
    return await house.judge(line, tokens)


async def _probe(trade: Trade, delay_ms: int) -> list[float]:
    """Until it is cancelled: how long the CRM's process takes to answer what costs it nothing."""
    seconds: list[float] = []
    with suppress(asyncio.CancelledError):
        while True:
            began = monotonic()
            await trade.house.control("POST", trade.slug, "latency", {"ms": delay_ms})
            seconds.append(monotonic() - began)
            await asyncio.sleep(0.05)
    return seconds


async def _rows_a_call(house: FaultHouse) -> int:
    """How full its calls were; live writes go in calls of their own."""
    [counted] = await house.fetch(
        "select count(*) as rows, count(distinct a.batch_id) as calls from attempts a "
        "join write_targets t on t.id = a.target_id where t.priority = 1 and a.kind = 'send'"
    )
    return int(counted["rows"] / max(1, counted["calls"]))


def _batch_of(trade: Trade) -> int:
    return trade.manifest.batch_size(Object.LEAD, Operation.CREATE)


class _Feed:
    """The import's requests, 200 rows each, built before the first is sent: who feeds costs the live callers little."""

    def __init__(self, trade: Trade, tokens: Sequence[str]) -> None:
        self._trade = trade
        self._parts = [
            {token: trade.body(Object.LEAD, token) for token in tokens[start : start + _PART]}
            for start in range(0, len(tokens), _PART)
        ]
        self.sent = 0
        # A collector that walks all this would stop the callers for a tenth of a second, again and again.
        gc.collect()
        gc.freeze()

    async def run(self) -> None:
        """One request after the other, at the first API."""
        trade = self._trade
        async with trade.house.client() as client:
            made = await client.post("tenants", trade.tenant, "imports", body={"object": "lead"})
        port = trade.house.apis[0].port
        for bodies in self._parts:
            await trade.house.put_many(
                trade.tenant, trade.slug, "lead", bodies, import_id=made["id"], port=port
            )
            self.sent += len(bodies)


async def _watch(trade: Trade, feed: _Feed, feeding: asyncio.Task[None], rows: int) -> None:
    """Until the import is fed and delivered. Looks through the index of what waits, not through the table."""
    [lane] = await trade.house.fetch(
        "select c.id from connections c join tenants t on t.id = c.tenant_id where t.slug = $1", trade.tenant
    )
    with progress("import", rows) as done:
        while True:
            was_fed, sent = feeding.done(), feed.sent
            [counted] = await trade.house.fetch(
                # As the index says it: a parameter would not do.
                "select count(*) as waiting from write_targets where connection_id = $1 and priority = 1 "
                f"and state in {PENDING}",
                lane["id"],
            )
            done(max(0, sent - counted["waiting"]))
            if was_fed and not counted["waiting"]:
                break
            await asyncio.sleep(1.0 if rows > 5000 else 0.1)
    await feeding


async def poison(house: FaultHouse, trade: Trade, *, number: int) -> Line:
    """Among good records one that the CRM refuses: it becomes a dead letter with its reason, alone."""
    line = Line("a poison record")
    began = monotonic()
    tokens = []
    spoilt = house.token()
    for place in range(number):
        tokens.append(await trade.put(Object.LEAD))
        if place == number // 2:
            body = trade.body(Object.LEAD, spoilt)
            body["provider_extra"] = {"no_such_field_at_all": "x"}
            await house.put(trade.tenant, trade.slug, "lead", spoilt, body)
    await house.settle(60)
    states = await house.states()
    line.notes["poison"] = states[house.book[spoilt].write_id]
    if line.notes["poison"] != "dead_letter":
        line.wrong.append(f"the poison record is {line.notes['poison']}")
    if (await house.holdings(trade.slug)).by_token.get(spoilt):
        line.wrong.append("the poison record stands in the CRM")
    line.seconds = monotonic() - began
    return await house.judge(line, tokens)


def latency(line: Line, what: str, calm: Sequence[float], beside: Sequence[float]) -> None:
    """Milliseconds before and beside, and their ratios."""
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        before, after = (1000 * percentile(values, share) for values in (calm, beside))
        line.notes[f"{what} {name} ms"] = f"{before:.0f} -> {after:.0f} = {after / max(before, 0.1):.2f}"
    line.ratios |= {
        f"{what} {name}": percentile(beside, share) / max(percentile(calm, share), 1e-4)
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }
