"""Client CPU per record: our drivers beside the vendors' own or best-known clients, before the same emulator.

Run: ``python -m benchmarks.driver_cpu [--only odoo] [--rounds 5] [--singles 200] [--batches 10]``. The emulator is
another process, over TLS, so that only the client's CPU counts (``process_time``). Both sides send the same native
fields, warm, in alternating rounds. Ours gives each record a mark by which it is found again, and an outcome of
its own.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import pstats
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.witnesses import PEERS, Far, Ours, fields_of

# Times less CPU than the client: in bulk, single.
GOALS = {"hubspot": (10.0, 3.0), "salesforce": (1.5, 1.5), "odoo": (1.5, 1.5)}
Rows = Sequence[dict[str, Any]]
Run = Callable[[Rows], Awaitable[None]]


async def measure(run: Run, rows: Rows) -> float:
    """CPU in µs per record of this process."""
    gc.collect()
    start = time.process_time()
    await run(rows)
    return (time.process_time() - start) / len(rows) * 1e6


def _parts(rows: Rows, size: int) -> list[Rows]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _of_peer(send: Callable[[Any], None], size: int) -> Run:
    async def run(rows: Rows) -> None:
        for part in _parts(rows, size):
            send(part if size > 1 else part[0])

    return run


def _of_ours(ours: Ours, size: int) -> Run:
    async def run(rows: Rows) -> None:
        for part in _parts(rows, size):
            await ours.send(part)

    return run


async def compare(slug: str, given: argparse.Namespace) -> dict[str, list[float]]:
    """Medians by name, each side's rounds in turn."""
    with Far(slug) as far:
        ours, peer = Ours(far), PEERS[slug](far)
        await ours.prepare()
        many = given.batches * peer.batch
        runs: dict[str, tuple[Run, int]] = {
            "driver, single": (_of_ours(ours, 1), given.singles),
            "client, single": (_of_peer(peer.single, 1), given.singles),
            "driver, bulk": (_of_ours(ours, peer.batch), many),
        }
        for name, send in peer.bulks().items():
            runs[f"client, bulk: {name}"] = (_of_peer(send, peer.batch), many)
        for run, count in runs.values():
            await measure(run, fields_of(slug, max(10, count // 5)))
        if given.profile:
            profile = cProfile.Profile(time.process_time)
            for name in ("driver, single", "driver, bulk"):
                run, count = runs[name]
                rows = fields_of(slug, count)
                profile.enable()
                await run(rows)
                profile.disable()
                print(f"\n{slug}: {name}, {count} records")
                pstats.Stats(profile).sort_stats("tottime").print_stats(given.profile)
                profile.clear()
        seen: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(given.rounds):
            for name, (run, count) in runs.items():
                seen[name].append(await measure(run, fields_of(slug, count)))
        await ours.egress.close()
        return seen


def show(slug: str, seen: dict[str, list[float]], table: Table) -> None:
    """Adds the rows of one provider. The ratio is the median over the rounds, each with its own neighbour."""
    in_bulk, single = GOALS[slug]
    for name, theirs in seen.items():
        if not name.startswith("client"):
            continue
        kind = "single" if "single" in name else "bulk"
        ours, goal = seen[f"driver, {kind}"], single if kind == "single" else in_bulk
        ratios = [their / own for their, own in zip(theirs, ours, strict=True)]
        ratio = statistics.median(ratios)
        table.add_row(
            slug, name.removeprefix("client, "), f"{statistics.median(ours):,.1f}", f"{statistics.median(theirs):,.1f}",
            f"{ratio:.2f}", f"{min(ratios):.1f} to {max(ratios):.1f}", f"{goal:g}", "yes" if ratio >= goal else "NO",
        )  # fmt: skip


async def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(PEERS), action="append")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--singles", type=int, default=200, help="per round")
    parser.add_argument("--batches", type=int, default=10, help="per round, of the provider's largest size")
    parser.add_argument(
        "--profile", type=int, default=0, metavar="LINES", help="of our driver, before the rounds"
    )
    given = parser.parse_args()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # as the server and the worker have it
    table = Table(title=f"client CPU, µs per record, median of {given.rounds} alternating rounds")
    for column in ("", "create", "driver", "client", "client / driver", "by round", "goal", "reached"):
        table.add_column(column, justify="left" if column in ("", "create") else "right")
    for slug in given.only or PEERS:
        show(slug, await compare(slug, given), table)
    Console(width=120).print(table)
    print("goal: client / driver >= 10 in bulk and >= 3 single for hubspot, >= 1.5 for the others")


if __name__ == "__main__":
    uvloop.run(main())
