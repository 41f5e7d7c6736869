"""All scenarios, large, as a table: ``python -m tests.faults.run [--json] [--small] [--product] [--seed N] [WHAT...]``.

WHAT: cut, points, random, takeover, database, down, import, poison, clock, disk. ``--product`` leaves delivery's own
times as they are (leases of 15 s, send limit of 60 s and more), and takes accordingly longer; that is the run which
tells how soon another worker takes over in the field. Ends with 1 when the promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

from tests.faults import scenarios
from tests.faults.connecting import connect, declared, find_one
from tests.faults.house import PRODUCT, QUICK, FaultHouse, opened
from tests.faults.ledger import Line, table_of
from tests.faults.machine import find_faketime, small_disk

__all__ = ["SIZES", "Sizes", "main"]


@dataclass(frozen=True)
class Sizes:
    """How much of everything. Seconds, or numbers of writes."""

    cut: int
    random_seconds: float
    workers: int
    takeovers: int
    database_kills: int
    backlog: int
    rounds: int
    rows: int
    clock_seconds: float
    disk_seconds: float


SIZES = {
    "small": Sizes(2, 5, 2, 1, 1, 20, 30, 600, 5, 2),
    "large": Sizes(40, 120, 4, 5, 8, 300, 200, 10_000, 60, 30),
}
_MAIN = ("cut", "points", "random", "takeover", "database", "down", "import", "poison", "clock")


async def _main_house(house: FaultHouse, wanted: set[str], size: Sizes, lines: list[Line]) -> None:
    """Everything that one house can bear."""

    async def add(name: str, make: Callable[[], Awaitable[Line]]) -> None:
        if name in wanted:
            lines.append(await make())
            print(table_of(lines[-1:]), file=sys.stderr, flush=True)

    for slug, objects in declared().items():
        if "cut" not in wanted:
            break
        trade = await connect(house, slug, f"cut-{slug.replace('_', '-')}")
        for obj in objects:
            await find_one(trade, obj)
        await add("cut", lambda t=trade, o=objects: scenarios.cut_replies(t, o, size.cut))  # type: ignore[misc]
    some = await scenarios.trades(house, "some", 4)
    [webhook, rest] = await scenarios.trades(house, "pair", 2, ("custom_webhook", "rest_api"))
    [erp] = await scenarios.trades(house, "erp", 1, ("odoo",))
    await add("points", lambda: scenarios.named_points(house, some))
    await add(
        "random",
        lambda: scenarios.random_kills(
            house, some, seconds=size.random_seconds, apis=2, workers=size.workers
        ),
    )
    await add("takeover", lambda: scenarios.takeover(house, rest, rounds=size.takeovers))
    await add("database", lambda: scenarios.database_killed(house, some, times=size.database_kills))
    await add(
        "down",
        lambda: scenarios.crm_down(house, webhook, rest, backlog=size.backlog, rounds=size.rounds),
    )
    await add(
        "import",
        lambda: scenarios.import_beside_live(house, webhook, rows=size.rows, rounds=size.rounds),
    )
    await add("poison", lambda: scenarios.poison(house, erp, number=20))
    library = find_faketime()
    if "clock" in wanted and library is None:
        print("clock: skipped, libfaketime is not there (Debian: apt-get install faketime)", file=sys.stderr)
    elif library is not None:
        these = [erp, rest]
        await add(
            "clock",
            lambda: scenarios.clock_jump(house, these, library=library, seconds=size.clock_seconds),
        )


async def run(wanted: set[str], size: Sizes, *, product: bool, seed: int) -> list[Line]:
    """The lines of the report, in order."""
    plan = PRODUCT if product else QUICK
    lines: list[Line] = []
    if wanted & set(_MAIN):
        async with opened(list(declared()), plan=plan, seed=seed, lag=3.0 if product else 0.3) as house:
            await _main_house(house, wanted, size, lines)
    if "disk" in wanted:
        with small_disk(320) as folder:
            if folder is None:
                print("disk: skipped, mounting a small tmpfs needs root", file=sys.stderr)
            else:
                async with opened(["odoo", "rest_api"], seed=seed, postgres_folder=folder / "pg") as house:
                    these = await scenarios.trades(house, "disk", 2, ("odoo", "rest_api"))
                    lines.append(await scenarios.disk_full(house, these, seconds=size.disk_seconds))
    return lines


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", choices=[*_MAIN, "disk", []], help="default: all")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--product", action="store_true", help="delivery's own times")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    wanted = set(options.what or [*_MAIN, "disk"])
    size = SIZES["small" if options.small else "large"]
    lines = asyncio.run(run(wanted, size, product=options.product, seed=options.seed))
    if options.json:
        print(json.dumps([asdict(line) for line in lines], indent=1))
    else:
        print(table_of(lines))
    return 0 if all(line.is_kept for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
