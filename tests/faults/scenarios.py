"""What is done to the house, scenario by scenario. Each answers a line of the report; sizes are arguments."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any

from tests.faults.child import POINTS
from tests.faults.connecting import Trade, connect, find_one, words
from tests.faults.house import Child, FaultHouse
from tests.faults.ledger import PENDING, Line

from crmbridge.core.records import Object

__all__ = [
    "API_POINTS",
    "WORKER_POINTS",
    "clock_jump",
    "crm_down",
    "cut_replies",
    "database_killed",
    "disk_full",
    "import_beside_live",
    "named_points",
    "poison",
    "random_kills",
    "takeover",
    "trades",
]

API_POINTS = ("accept_uncommitted", "accept_committed", "taken_uncommitted", "saved")
WORKER_POINTS = tuple(name for name in POINTS if not name.startswith(("accept", "taken")))
_BULK = ("odoo", "rest_api", "custom_webhook")


def _percentile(values: Sequence[float], share: float) -> float:
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


async def _until(true: Callable[[], Any], seconds: float, what: str) -> None:
    deadline = monotonic() + seconds
    while not true():
        assert monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.02)


# -- cut replies ---------------------------------------------------------------------------------------------------


async def cut_replies(trade: Trade, objects: Sequence[Object], number: int) -> Line:
    """So many creates of each object; of the calls that write, a third goes wrong after the effect or before it.

    The schedule is drawn from the house's seed: which call is hit, and how. After the effect: the connection is cut, no
    answer comes within the time allowed, a 500 or a proxy's page comes instead. Late: the effect comes only after
    the caller has given up. Before: the connection is cut.
    """
    house, slug = trade.house, trade.slug
    line = Line(f"cut replies: {slug}")
    began = monotonic()
    await house.control("DELETE", slug, "faults")
    kinds = _faults_of(trade)
    drawn = dict.fromkeys(kinds, 0)
    expected = max(number * len(objects) // 2, 6)
    for call in range(expected):
        if house.random.random() < 0.34 or call == 0:
            kind = house.random.choice(list(kinds))
            drawn[kind] += 1
            # A fault waits until so many calls have passed it by; those already hit are not counted by the others.
            skip = call - sum(drawn.values()) + 1
            await house.control("POST", slug, "faults", {**kinds[kind], "only": "writes", "skip": skip})
    tokens = []
    for _ in range(number):
        for obj in objects:
            tokens.append(await trade.put(obj))
        await asyncio.sleep(0.05)
    await house.settle(60)
    left = await house.control("GET", slug, "faults")
    await house.control("DELETE", slug, "faults")
    await house.settle(30)
    line.seconds = monotonic() - began
    line.notes["faults"] = sum(drawn.values()) - len(left)
    looked = await house.fetch(
        "select count(*) as n from attempts a join write_targets w on w.id = a.target_id "
        "join tenants t on t.id = w.tenant_id where a.kind = 'look_up' and t.slug = $1",
        trade.tenant,
    )
    line.notes["look-ups"] = looked[0]["n"]
    return await house.judge(line, tokens)


def _faults_of(trade: Trade) -> dict[str, dict[str, Any]]:
    """The ways in which replies go wrong at this provider."""
    timeout = trade.house.plan.timeout_seconds or 30.0
    kinds: dict[str, dict[str, Any]] = {
        "cut_after": {"kind": "cut_after"},
        "no_answer": {"kind": "timeout_after"},
        "proxy_page": {"kind": "html", "status": 502, "after_commit": True},
        "late": {"kind": "latency", "latency_seconds": timeout + 0.2},
        "cut_before": {"kind": "cut_before"},
    }
    if not trade.contract.server_error_is_certain:
        kinds["error_500"] = {"kind": "status", "status": 500, "after_commit": True}
    return kinds


# -- killed processes ----------------------------------------------------------------------------------------------


async def named_points(house: FaultHouse, these: Sequence[Trade], *, callers: int = 3) -> Line:
    """A process for each named point, and each dies there; afterwards one worker cleans up behind them all."""
    line = Line("killed at named points")
    began = monotonic()
    apis = {point: house.start_api(f"{point}:2") for point in API_POINTS}
    victims = {f"api {point}": child for point, child in apis.items()}
    helpers: list[Child] = []
    quiet: list[str] = []

    async def call(child: Child) -> None:
        # Waited creates at this very API, on a lane that is mostly idle.
        while child.is_alive and monotonic() < began + 30:
            quiet.append(await these[-1].put(Object.LEAD, prefer="wait=1", port=child.port))
            await asyncio.sleep(0.05)

    async with load(these[:-1], callers, pause=0.03, waited=0.2) as tokens:
        await asyncio.gather(*(call(child) for child in apis.values()))
        await _without_workers(house)
        workers = {f"worker {point}": house.start_worker(f"{point}:1") for point in WORKER_POINTS}
        victims |= workers
        asked, until = monotonic() + 8, monotonic() + 60
        while any(child.is_alive for child in workers.values()) and monotonic() < until:
            await asyncio.sleep(0.05)
            if monotonic() > asked:
                # Whoever waits for something to be recovered gets something to recover.
                helpers.append(house.start_worker("sent:1"))
                asked = monotonic() + 6
    await _without_workers(house)
    for child in apis.values():
        if child.is_alive:
            child.process.terminate()
            await asyncio.to_thread(child.process.wait)
    line.notes["points"] = f"{sum(child.was_killed for child in victims.values())}/{len(victims)}"
    for name, child in victims.items():
        if not child.was_killed:
            line.wrong.append(f"{name}: was never reached, or the process ended otherwise")
    house.kills += sum(child.was_killed for child in (*victims.values(), *helpers))
    house.clear_dead()
    house.start_worker()
    await house.settle(60)
    line.seconds = monotonic() - began
    return await house.judge(line, [*tokens, *quiet])


async def _without_workers(house: FaultHouse) -> None:
    """SIGTERM to all workers, and wait for their end."""
    for worker in house.workers:
        if worker.is_alive:
            worker.process.terminate()
    for worker in house.workers:
        await asyncio.to_thread(worker.process.wait)
    house.workers.clear()


async def random_kills(
    house: FaultHouse, these: Sequence[Trade], *, seconds: float, apis: int, workers: int, callers: int = 4
) -> Line:
    """SIGKILL to an API or worker process at random moments; each is started anew a little later."""
    line = Line("killed at random")
    began = monotonic()
    while len(house.apis) < apis:
        await house.ready(house.start_api())
    while len(house.workers) < workers:
        house.start_worker()
    before = house.kills
    async with load(these, callers, pause=0.01, waited=0.3) as tokens:
        end = monotonic() + seconds
        while monotonic() < end:
            await asyncio.sleep(house.random.uniform(0.2, 0.9))
            # One API stays, so that callers need not wait for a start; nobody is killed before he has begun.
            pool = [child for child in (*house.apis[1:], *house.workers) if house.has_begun(child)]
            if not pool:
                continue
            victim = house.random.choice(pool)
            house.kill(victim)
            house.clear_dead()
            if victim.port:
                house.start_api()
            else:
                house.start_worker()
    line.notes["this run"] = f"{house.kills - before} kills"
    await house.settle(90)
    line.seconds = monotonic() - began
    line.notes["accepts/s"] = round(len(tokens) / max(line.seconds, 0.1))
    return await house.judge(line, tokens)


async def takeover(house: FaultHouse, trade: Trade, *, rounds: int = 2) -> Line:
    """A worker dies between send and save: seconds until another one has its lane, and until all is delivered.

    What was being sent is looked up only when the send limit is over, for until then its sender may only be slow; the
    rest goes out as soon as the lane is taken.
    """
    line = Line("takeover")
    began = monotonic()
    tokens, taken, settled = [], [], []
    for _ in range(rounds):
        await _without_workers(house)
        victim = house.start_worker("sent:1")
        await house.working(victim)
        tokens += await asyncio.gather(*(trade.put(Object.LEAD) for _ in range(5)))
        await _until(lambda one=victim: not one.is_alive, 20, "the victim's end")  # type: ignore[misc]
        dead_at, fence = monotonic(), await _fence(house, trade)
        house.kills += victim.was_killed
        house.clear_dead()
        house.start_worker()
        while await _fence(house, trade) == fence:
            await asyncio.sleep(0.05)
        taken.append(monotonic() - dead_at)
        await house.settle(300)
        settled.append(monotonic() - dead_at)
    line.takeover_seconds = max(taken)
    line.notes["all delivered after s"] = round(max(settled), 1)
    line.seconds = monotonic() - began
    return await house.judge(line, tokens)


async def _fence(house: FaultHouse, trade: Trade) -> int:
    rows = await house.fetch(
        "select l.fence from lanes l join tenants t on t.id = l.tenant_id where t.slug = $1", trade.tenant
    )
    return int(rows[0]["fence"])


# -- the database --------------------------------------------------------------------------------------------------


async def database_killed(house: FaultHouse, these: Sequence[Trade], *, times: int, callers: int = 4) -> Line:
    """SIGKILL to the postmaster and its children under load; it is started again, and all go on."""
    line = Line("PostgreSQL killed")
    began = monotonic()
    back: list[float] = []
    async with load(these, callers, pause=0.01, waited=0.2) as tokens:
        for _ in range(times):
            await asyncio.sleep(house.random.uniform(0.6, 1.4))
            pid = house.postgres.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            house.kills += 1
            dead_at, before = monotonic(), len(tokens)
            await _until(lambda seen=before: len(tokens) > seen + callers, 60, "an accept after the restart")  # type: ignore[misc]
            back.append(monotonic() - dead_at)
    line.notes["accepting again after s"] = round(max(back), 1)
    await house.settle(90)
    for child in (*house.apis, *house.workers):
        if not child.is_alive:
            line.wrong.append(f"{child.name} ended")
    line.seconds = monotonic() - began
    return await house.judge(line, tokens)


async def disk_full(house: FaultHouse, these: Sequence[Trade], *, seconds: float, callers: int = 3) -> Line:
    """The database's disk is filled under load, stays full, and is emptied again. What is refused is not accepted."""
    line = Line("disk full")
    began = monotonic()
    filler = house.postgres.data_dir.parent / "filler"
    async with load(these, callers, pause=0.01) as tokens:
        await asyncio.sleep(1)
        with filler.open("wb") as out, suppress(OSError):
            while True:
                out.write(bytes(65_536))
                out.flush()
        full_at = monotonic()
        await asyncio.sleep(seconds)
        before = len(tokens)
        await asyncio.sleep(1)
        line.notes["accepted in the last second of a full disk"] = len(tokens) - before
        filler.unlink()
        line.notes["full for s"] = round(monotonic() - full_at, 1)
        seen, free_at = len(tokens), monotonic()
        await _until(lambda: len(tokens) > seen + callers, 60, "accepts after the disk has room")
        line.notes["accepting again after s"] = round(monotonic() - free_at, 1)
    log = (house.postgres.data_dir / "postgres.log").read_text(errors="replace")
    if "No space left on device" not in log:
        line.wrong.append("PostgreSQL never met a full disk")
    await house.settle(90)
    line.seconds = monotonic() - began
    return await house.judge(line, tokens)


async def clock_jump(
    house: FaultHouse, these: Sequence[Trade], *, library: str, seconds: float, callers: int = 3
) -> Line:
    """The clocks of an API and a worker jump by hours, forward and back, while another pair keeps the time."""
    line = Line("clocks that jump")
    began = monotonic()
    clock = house.folder / "clock"
    clock.write_text("+0")
    more = {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    pair = house.start_api(more=more), house.start_worker(more=more)
    await house.ready(pair[0])
    await house.working(pair[1])
    async with load(these, callers, pause=0.01, waited=0.3) as tokens:
        for jump in ("+0", "+3h", "-5h", "+40d"):
            clock.write_text(jump)
            await asyncio.sleep(seconds / 4)
    line.notes["jumps"] = 3
    await house.settle(60)
    for child in pair:
        if not child.is_alive:
            line.wrong.append(f"{child.name} ended")
        else:
            child.process.terminate()
            await asyncio.to_thread(child.process.wait)
    house.clear_dead()
    line.seconds = monotonic() - began
    return await house.judge(line, tokens)


# -- neighbours ----------------------------------------------------------------------------------------------------


async def _live(trade: Trade, number: int, *, pause: float = 0.02) -> tuple[list[str], list[float]]:
    """Waited creates, one after the other: tokens and seconds."""
    tokens, seconds = [], []
    for _ in range(number):
        began = monotonic()
        tokens.append(await trade.put(Object.LEAD, prefer="wait=10"))
        seconds.append(monotonic() - began)
        await asyncio.sleep(pause)
    return tokens, seconds


async def crm_down(house: FaultHouse, down: Trade, live: Trade, *, backlog: int, rounds: int) -> Line:
    """One tenant's CRM answers nothing, with a backlog behind it; meanwhile another tenant's waited creates."""
    line = Line("one CRM down")
    began = monotonic()
    tokens, calm = await _live(live, rounds)
    await house.control("POST", down.slug, "faults", {"kind": "timeout_before", "times": 0})
    stuck = list(await asyncio.gather(*(down.put(Object.LEAD) for _ in range(backlog))))
    more, beside = await _live(live, rounds)
    waiting = await _states_of(house, down.tenant)
    if sum(waiting.get(state, 0) for state in PENDING) != backlog:
        line.wrong.append(f"the backlog of the CRM that is down stands {waiting}")
    await house.control("DELETE", down.slug, "faults")
    # An operator's "works again" is not needed: the back-off ends by itself.
    await house.settle(120)
    _latency(line, calm, beside)
    line.seconds = monotonic() - began
    return await house.judge(line, [*tokens, *more, *stuck])


async def import_beside_live(house: FaultHouse, trade: Trade, *, rows: int, rounds: int) -> Line:
    """An import of one tenant into a CRM of 20 ms a call, and waited creates of the same tenant meanwhile."""
    line = Line("import beside live writes")
    began = monotonic()
    await house.control("POST", trade.slug, "latency", {"ms": 20})
    tokens, calm = await _live(trade, rounds)
    imported = [house.token() for _ in range(rows)]
    async with house.client() as client:
        made = await client.post("tenants", trade.tenant, "imports", body={"object": "lead"})
        for start in range(0, rows, 200):
            part = imported[start : start + 200]
            writes = [
                {"fields": trade.body(Object.LEAD, one)["fields"], "idempotency_key": one} for one in part
            ]
            answer = await client.post(
                "tenants",
                trade.tenant,
                "records",
                "lead",
                "batch",
                body={"writes": writes, "import_id": made["id"]},
            )
            for token, result in zip(part, answer["results"], strict=True):
                house.enter(token, trade.tenant, trade.slug, "lead", result["write_id"])
    more, beside = await _live(trade, rounds, pause=0.0)
    states = await _states_of(house, trade.tenant)
    line.notes["rows left when live ended"] = sum(states.get(state, 0) for state in PENDING)
    await house.control("POST", trade.slug, "latency", {"ms": 0})
    await house.settle(120)
    _latency(line, calm, beside)
    line.seconds = monotonic() - began
    return await house.judge(line, [*tokens, *more, *imported])


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


def _latency(line: Line, calm: Sequence[float], beside: Sequence[float]) -> None:
    line.notes |= {
        "live p50 ms": f"{_percentile(calm, 0.5) * 1000:.0f} -> {_percentile(beside, 0.5) * 1000:.0f}",
        "live p95 ms": f"{_percentile(calm, 0.95) * 1000:.0f} -> {_percentile(beside, 0.95) * 1000:.0f}",
        "ratio p50": round(_percentile(beside, 0.5) / max(_percentile(calm, 0.5), 1e-4), 2),
    }


async def _states_of(house: FaultHouse, tenant: str) -> dict[str, int]:
    rows = await house.fetch(
        "select w.state, count(*) as n from write_targets w join tenants t on t.id = w.tenant_id "
        "where t.slug = $1 group by 1",
        tenant,
    )
    return {row["state"]: row["n"] for row in rows}
