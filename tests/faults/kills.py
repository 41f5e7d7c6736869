"""Processes killed: at named points, at random, and how soon another takes over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic

from tests.faults.child import POINTS
from tests.faults.connecting import Trade
from tests.faults.house import Child, FaultHouse
from tests.faults.ledger import Line
from tests.faults.load import load, until
from tests.faults.progress import progress

from crmbridge.core.records import Object

__all__ = ["API_POINTS", "WORKER_POINTS", "named_points", "random_kills", "takeover"]

API_POINTS = ("accept_uncommitted", "accept_committed", "taken_uncommitted", "saved")
WORKER_POINTS = tuple(name for name in POINTS if not name.startswith(("accept", "taken")))


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
        await without_workers(house)
        workers = {f"worker {point}": house.start_worker(f"{point}:1") for point in WORKER_POINTS}
        victims |= workers
        asked, until = monotonic() + 8, monotonic() + 60
        while any(child.is_alive for child in workers.values()) and monotonic() < until:
            await asyncio.sleep(0.05)
            if monotonic() > asked:
                # Whoever waits for something to be recovered gets something to recover.
                helpers.append(house.start_worker("sent:1"))
                asked = monotonic() + 6
    await without_workers(house)
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


async def without_workers(house: FaultHouse) -> None:
    """SIGTERM to all workers, and wait for their end."""
    for worker in house.workers:
        if worker.is_alive:
            worker.process.terminate()
    for worker in house.workers:
        await asyncio.to_thread(worker.process.wait)
    house.workers.clear()


async def random_kills(
    house: FaultHouse,
    these: Sequence[Trade],
    *,
    seconds: float = 0.0,
    kills: int = 0,
    apis: int,
    workers: int,
    callers: int = 4,
) -> Line:
    """SIGKILL to an API or worker process at random moments; each is started anew at once.

    For so many seconds, or until so many were killed."""
    line = Line("killed at random")
    began = monotonic()
    while len(house.apis) < apis:
        await house.ready(house.start_api())
    while len(house.workers) < workers:
        house.start_worker()
    before = house.kills
    longest = 0.6 if kills else 0.9
    with progress("killed at random", kills) as done:
        async with load(these, callers, pause=0.01, waited=0.3) as tokens:
            end = monotonic() + (seconds or 10.0 * kills)
            while monotonic() < end and not 0 < kills <= house.kills - before:
                await asyncio.sleep(house.random.uniform(0.1, longest))
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
                done(house.kills - before)
    loaded = monotonic() - began
    line.notes["this run"] = f"{house.kills - before} kills"
    line.notes["kills a minute"] = round(60 * (house.kills - before) / loaded)
    line.notes["accepts/s"] = round(len(tokens) / loaded)
    await house.settle(120)
    line.notes["all delivered after the last kill, s"] = round(monotonic() - began - loaded, 1)
    if kills and house.kills - before < kills:
        line.wrong.append(f"only {house.kills - before} of {kills} kills")
    line.seconds = monotonic() - began
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
        await without_workers(house)
        victim = house.start_worker("sent:1")
        await house.working(victim)
        tokens += await asyncio.gather(*(trade.put(Object.LEAD) for _ in range(5)))
        await until(lambda one=victim: not one.is_alive, 20, "the victim's end")  # type: ignore[misc]
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
