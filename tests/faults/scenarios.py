"""What is done to the house, scenario by scenario. Each answers a line of the report; sizes are arguments."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic

from tests.faults.clocks import LEAPS_PLAN, clock_jump, database_clock
from tests.faults.connecting import Trade
from tests.faults.house import FaultHouse
from tests.faults.kills import API_POINTS, WORKER_POINTS, named_points, random_kills, takeover
from tests.faults.ledger import Line
from tests.faults.load import load, trades, until
from tests.faults.neighbours import crm_down, import_beside_live, poison
from tests.faults.quotas import shared_budget
from tests.faults.replies import consents, cut_many, cut_replies, name_of_many

__all__ = [
    "API_POINTS",
    "LEAPS_PLAN",
    "WORKER_POINTS",
    "clock_jump",
    "consents",
    "crm_down",
    "cut_many",
    "cut_replies",
    "database_clock",
    "database_killed",
    "disk_full",
    "import_beside_live",
    "load",
    "name_of_many",
    "named_points",
    "poison",
    "random_kills",
    "shared_budget",
    "takeover",
    "trades",
    "until",
]


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
            await until(lambda seen=before: len(tokens) > seen + callers, 60, "an accept after the restart")  # type: ignore[misc]
            back.append(monotonic() - dead_at)
    line.notes["accepting again after s"] = round(max(back), 1)
    await house.settle(90)
    house.note_ended(line)
    line.seconds = monotonic() - began
    return await house.judge(line, tokens)


async def disk_full(house: FaultHouse, these: Sequence[Trade], *, seconds: float, callers: int = 3) -> Line:
    """The database's disk is filled under load, stays full, and is emptied again. What is refused is not accepted."""
    line = Line("disk full")
    began = monotonic()
    filler = house.postgres.data_dir.parent / "filler"
    async with load(these, callers, pause=0.01) as tokens:
        await asyncio.sleep(1)
        # Without a buffer: what is left in one meets the full disk once more when the file is closed.
        with filler.open("wb", buffering=0) as out, suppress(OSError):
            while True:
                out.write(bytes(65_536))
        full_at = monotonic()
        await asyncio.sleep(seconds)
        before = len(tokens)
        await asyncio.sleep(1)
        line.notes["accepted in the last second of a full disk"] = len(tokens) - before
        filler.unlink()
        line.notes["full for s"] = round(monotonic() - full_at, 1)
        seen, free_at = len(tokens), monotonic()
        await until(lambda: len(tokens) > seen + callers, 60, "accepts after the disk has room")
        line.notes["accepting again after s"] = round(monotonic() - free_at, 1)
    log = (house.postgres.data_dir / "postgres.log").read_text(errors="replace")
    if "No space left on device" not in log:
        line.wrong.append("PostgreSQL never met a full disk")
    await house.settle(90)
    line.seconds = monotonic() - began
    return await house.judge(line, tokens)
