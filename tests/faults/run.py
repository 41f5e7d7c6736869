"""All scenarios, large, as a table: ``python -m tests.faults.run [--json] [--small] [--product] [--seed N] [WHAT...]``.

WHAT: cut, points, random, takeover, database, down, import, quotas, poison, clock, leaps, disk, upgrade, failover,
lossy, hosts; all when none is named.
``--product`` leaves delivery's own times as they are (leases of 15 s, send limit of 60 s and more), and takes
accordingly longer; that is the run which tells how soon another worker takes over in the field. Sizes can be given one
by one; ``cut`` can be run driver by driver, and goes on where it stopped with ``--resume FILE``. Progress is told on
standard error. Ends with 1 when the promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec
from tests.faults import failover, hosts, scenarios, upgrade
from tests.faults.child import Plan
from tests.faults.connecting import connect, declared, find_one
from tests.faults.house import MANY, PRODUCT, QUICK, FaultHouse, opened
from tests.faults.ledger import Line, table_of
from tests.faults.machine import find_faketime, small_disk
from tests.faults.network import why_no_network

__all__ = ["SIZES", "Sizes", "main"]


@dataclass(frozen=True)
class Sizes:
    """How much of everything: numbers of writes, of kills, or seconds.

    ``creates`` 0: a few of each object, in the house of the others. ``kills`` 0: by ``random_seconds``. ``each``: how
    often every named point is passed through. ``hours``: how long a CRM is down (an hour is a minute, but with
    ``--product``).
    """

    cut: int
    creates: int
    share: float
    tenants: int
    each: int
    kills: int
    random_seconds: float
    workers: int
    takeovers: int
    database_kills: int
    backlog: int
    hours: float
    rounds: int
    rows: int
    delay: int
    periods: int
    clock_seconds: float
    disk_seconds: float


SIZES = {
    "small": Sizes(
        cut=2, creates=0, share=0.1, tenants=10, each=1, kills=0, random_seconds=5, workers=2, takeovers=1,
        database_kills=1, backlog=20, hours=0.1, rounds=30, rows=600, delay=20, periods=2, clock_seconds=5,
        disk_seconds=2,
    ),
    "large": Sizes(
        cut=40, creates=10_000, share=0.1, tenants=40, each=5, kills=500, random_seconds=120, workers=4, takeovers=5,
        database_kills=8, backlog=300, hours=1, rounds=500, rows=100_000, delay=20, periods=4, clock_seconds=60,
        disk_seconds=30,
    ),
}  # fmt: skip

# An hour as a minute: delivery's own ladder of back-off, sixty times as quick. Leases are not, for a busy machine.
MINUTE = msgspec.structs.replace(
    QUICK, limits={**QUICK.limits, "retry_base_seconds": 1 / 60, "retry_cap_seconds": 15.0}
)
# For ten thousand single calls in a minute: a hundred times each declared rate and each quota of the emulator.
_TIMES = 100
# So many tenants may consent to one app at one provider before the oldest grants end.
_MOST_CONSENTS = 10


class Report:
    """Lines as they come, each told at once."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def add(self, line: Line) -> Line:
        self.lines.append(line)
        print(table_of([line]), file=sys.stderr, flush=True)
        return line


@dataclass
class Run:
    """What was asked for."""

    wanted: set[str]
    size: Sizes
    is_product: bool
    seed: int
    drivers: list[str]
    resume: Path | None
    report: Report

    @property
    def plan(self) -> Plan:
        return PRODUCT if self.is_product else QUICK


# -- scenarios that share a house ----------------------------------------------------------------------------------


async def _shared(run: Run) -> None:
    lag = 3.0 if run.is_product else 0.3
    async with opened(list(declared()), plan=run.plan, seed=run.seed, lag=lag) as house:
        await _in_house(run, house)


async def _in_house(run: Run, house: FaultHouse) -> None:
    size, report = run.size, run.report

    async def add(name: str, make: Callable[[], Awaitable[Line]]) -> None:
        if name in run.wanted:
            report.add(await make())

    if "cut" in run.wanted and not size.creates:
        for slug in run.drivers:
            trade = await connect(house, slug, f"cut-{slug.replace('_', '-')}")
            for obj in declared()[slug]:
                await find_one(trade, obj)
            report.add(await scenarios.cut_replies(trade, declared()[slug], size.cut))
    some = await scenarios.trades(house, "some", 4)
    [rest] = await scenarios.trades(house, "pair", 1, ("rest_api",))
    [erp] = await scenarios.trades(house, "erp", 1, ("odoo",))
    if "points" in run.wanted:
        line = await scenarios.named_points(house, some)
        for _ in range(size.each - 1):
            line.add(await scenarios.named_points(house, some))
        line.notes["rounds"] = size.each
        report.add(line)
    left = max(size.kills - house.kills, 0)
    await add(
        "random",
        lambda: scenarios.random_kills(
            house,
            some,
            seconds=0 if left else size.random_seconds,
            kills=left,
            apis=3 if left else 2,
            workers=size.workers,
        ),
    )
    await add("takeover", lambda: scenarios.takeover(house, rest, rounds=size.takeovers))
    await add("database", lambda: scenarios.database_killed(house, some, times=size.database_kills))
    await add("poison", lambda: scenarios.poison(house, erp, number=20))
    library = find_faketime()
    if "clock" in run.wanted and library is None:
        print("clock: skipped, libfaketime is not there (Debian: apt-get install faketime)", file=sys.stderr)
    elif library is not None:
        these = [erp, rest]
        await add(
            "clock",
            lambda: scenarios.clock_jump(house, these, library=library, seconds=size.clock_seconds),
        )


# -- scenarios with a house of their own ---------------------------------------------------------------------------


async def _cut(run: Run) -> None:
    """Driver by driver, each in a new house: one that was run before, by the file given, is not run again."""
    done = {}
    if run.resume is not None and run.resume.exists():
        lines = [msgspec.json.decode(text, type=Line) for text in run.resume.read_bytes().splitlines()]
        done = {line.what: line for line in lines}
    for slug in run.drivers:
        made = declared()[slug]
        before = done.get(scenarios.name_of_many(slug, run.size.creates))
        if before is not None and before.is_kept:
            run.report.add(before)
            continue
        plan = PRODUCT if run.is_product else MANY
        plan = msgspec.structs.replace(plan, budget_times=_TIMES)
        async with opened([slug], plan=plan, seed=run.seed, workers=2, quota_times=_TIMES) as house:
            tenants = run.size.tenants
            if scenarios.consents(slug):
                tenants = min(tenants, _MOST_CONSENTS)
            line = await scenarios.cut_many(
                house, slug, made, run.size.creates, share=run.size.share, tenants=tenants
            )
        run.report.add(line)
        if run.resume is not None:
            with run.resume.open("ab") as out:
                out.write(msgspec.json.encode(line) + b"\n")


async def _down(run: Run) -> None:
    seconds = run.size.hours * (3600 if run.is_product else 60)
    plan = PRODUCT if run.is_product else MINUTE
    async with opened(["custom_webhook", "odoo"], plan=plan, seed=run.seed) as house:
        [ill] = await scenarios.trades(house, "ill", 1, ("custom_webhook",))
        [well] = await scenarios.trades(house, "well", 1, ("odoo",))
        line = await scenarios.crm_down(
            house, ill, well, backlog=run.size.backlog, rounds=run.size.rounds, seconds=seconds
        )
    if not run.is_product:
        line.notes["times"] = "an hour is a minute"
    run.report.add(line)


async def _import(run: Run) -> None:
    """With delivery's own times. The two CRMs are processes of their own: neither waits for the other's work."""
    async with opened(["odoo"], plan=PRODUCT, seed=run.seed, apis=2) as house:
        house.start_crm(["custom_webhook"], 0.3)
        [here] = await scenarios.trades(house, "import", 1, ("odoo",))
        [other] = await scenarios.trades(house, "other", 1, ("custom_webhook",))
        line = await scenarios.import_beside_live(
            house, here, other, rows=run.size.rows, rounds=run.size.rounds, delay_ms=run.size.delay
        )
    run.report.add(line)


async def _quotas(run: Run) -> None:
    limit, per_seconds = 100, 10.0
    async with opened(
        ["rest_api"],
        plan=PRODUCT,
        seed=run.seed,
        workers=4,
        apis=2,
        quotas={"rest_api": (limit, per_seconds)},
    ) as house:
        house.change_rate("rest_api", limit, per_seconds)
        [trade] = await scenarios.trades(house, "budget", 1, ("rest_api",))
        # The window that connecting has begun is over.
        await asyncio.sleep(per_seconds + 1)
        line = await scenarios.shared_budget(
            house, trade, limit=limit, per_seconds=per_seconds, periods=run.size.periods
        )
    run.report.add(line)


async def _disk(run: Run) -> None:
    with small_disk(320) as folder:
        if folder is None:
            print("disk: skipped, mounting a small tmpfs needs root", file=sys.stderr)
            return
        async with opened(["odoo", "rest_api"], seed=run.seed, postgres_folder=folder / "pg") as house:
            these = await scenarios.trades(house, "disk", 2, ("odoo", "rest_api"))
            run.report.add(await scenarios.disk_full(house, these, seconds=run.size.disk_seconds))


async def _upgrade(run: Run) -> None:
    async with upgrade.between_releases(seed=run.seed) as up:
        run.report.add(await upgrade.rolling_upgrade(up, seconds=run.size.disk_seconds))


async def _failover(run: Run) -> None:
    seconds = run.size.disk_seconds
    async with failover.paired(synchronous=True, seed=run.seed) as (house, pair):
        run.report.add(await failover.failover(house, pair, seconds=seconds, standby_seconds=seconds / 2))


async def _lossy(run: Run) -> None:
    for lag in (0.0, run.size.disk_seconds / 3):
        async with failover.paired(synchronous=False, seed=run.seed) as (house, pair):
            run.report.add(await failover.lossy_failover(house, pair, seconds=3, lag_seconds=lag))


async def _hosts(run: Run) -> None:
    if why := why_no_network():
        print(f"hosts: skipped, {why}", file=sys.stderr)
        return
    is_large = run.size.kills > 0
    plan, seconds = (PRODUCT, 20.0) if run.is_product else (hosts.PLAN, 8.0 if is_large else 5.0)
    async with hosts.hosts_apart(plan=plan, seed=run.seed) as room:
        line = await hosts.partitions(room, seconds=seconds, rounds=6 if is_large else 1)
    run.report.add(line)


async def _leaps(run: Run) -> None:
    library = find_faketime()
    if library is None:
        print("leaps: skipped, libfaketime is not there (Debian: apt-get install faketime)", file=sys.stderr)
        return
    async with opened(
        ["rest_api", "tekmetric"],
        plan=scenarios.LEAPS_PLAN,
        seed=run.seed,
        workers=2,
        faketime_library=library,
    ) as house:
        these = await scenarios.trades(house, "leaps", 2, ("rest_api", "tekmetric"))
        run.report.add(await scenarios.database_clock(house, these, seconds=run.size.clock_seconds / 3))


_SHARED = ("points", "random", "takeover", "database", "poison", "clock")
_OWN: dict[str, Callable[[Run], Awaitable[None]]] = {
    "leaps": _leaps,
    "down": _down,
    "import": _import,
    "quotas": _quotas,
    "disk": _disk,
    "upgrade": _upgrade,
    "failover": _failover,
    "lossy": _lossy,
    "hosts": _hosts,
}
_ALL = ("cut", *_SHARED, *_OWN)


async def run_all(run: Run) -> None:
    """In order; each line is told as it comes."""
    if "cut" in run.wanted and run.size.creates:
        await _cut(run)
    if run.wanted & set(_SHARED) or ("cut" in run.wanted and not run.size.creates):
        await _shared(run)
    for name, act in _OWN.items():
        if name in run.wanted:
            await act(run)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", choices=[*_ALL, []], help="default: all")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--product", action="store_true", help="delivery's own times")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--driver", action="append", choices=list(declared()), help="cut: this one (repeat for more)"
    )
    parser.add_argument(
        "--resume", type=Path, metavar="FILE", help="cut: keep finished drivers here, skip those in it"
    )
    given = {
        "creates": "cut: creates per driver",
        "share": "cut: share of the calls that write that goes wrong",
        "tenants": "cut: tenants that write",
        "each": "points: how often each",
        "kills": "random: until so many processes were killed, those of points included",
        "workers": "random: worker processes",
        "takeovers": "takeover: how often",
        "backlog": "down: writes that wait",
        "hours": "down: how long (an hour is a minute without --product)",
        "rounds": "down, import: live writes of each kind, before and during",
        "rows": "import: rows",
        "delay": "import: milliseconds that the CRM takes for a call",
        "periods": "quotas: periods of 10 s",
    }  # fmt: skip
    for name, text in given.items():
        kind = float if name in ("share", "hours") else int
        parser.add_argument(f"--{name}", type=kind, help=text)
    options = parser.parse_args()
    size = SIZES["small" if options.small else "large"]
    size = replace(
        size, **{name: getattr(options, name) for name in given if getattr(options, name) is not None}
    )
    run = Run(
        wanted=set(options.what or _ALL),
        size=size,
        is_product=options.product,
        seed=options.seed,
        drivers=options.driver or list(declared()),
        resume=options.resume,
        report=Report(),
    )
    asyncio.run(run_all(run))
    lines = run.report.lines
    if options.json:
        print(json.dumps([asdict(line) for line in lines], indent=1))
    else:
        print(table_of(lines))
    return 0 if all(line.is_kept for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
