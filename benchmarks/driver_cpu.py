"""Client CPU per record: our drivers beside the vendors' own or best-known clients, before the same emulator.

Run: ``python -m benchmarks.driver_cpu [--only odoo] [--rounds 5] [--singles 200] [--batches 10]``. The emulator is
another process, over TLS, so that only the client's CPU counts (``process_time``). Both sides are warm and take turns.

What each side does:

- client: native dictionaries to an id, or a success, per record (``bulk2``: the number of failures). Values are not
  looked at. No record can be found again after a lost answer, but for those of Odoo's ``load`` with external ids.
- driver, "mark": the same dictionaries to an outcome, an id and an address per record, each with the mark by which it
  is found again. The goal is on these rows.
- driver, "no mark": the same without marks, like for like with HubSpot's batch and Salesforce's collection. For Odoo
  the like is ``load``, since our rows always have their external ids.
- driver, "mark, from slots": canonical slots, each checked and mapped (e-mail, phone to E.164), then as "mark". No
  client does that, so the ratio is reported only.
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


def _of_ours(send: Run, size: int) -> Run:
    async def run(rows: Rows) -> None:
        for part in _parts(rows, size):
            await send(part)

    return run


def _rows(slug: str, name: str, how_many: int) -> Rows:
    return fields_of(slug, how_many, as_slots=name.endswith("slots"))


async def compare(slug: str, given: argparse.Namespace) -> dict[str, list[float]]:
    """Medians by name, each side's rounds in turn."""
    with Far(slug) as far:
        ours, peer = Ours(far), PEERS[slug](far)
        await ours.prepare()
        many = given.batches * peer.batch
        runs: dict[str, tuple[Run, int]] = {
            "driver, single": (_of_ours(ours.send, 1), given.singles),
            "client, single": (_of_peer(peer.single, 1), given.singles),
        }
        for name, way in ours.ways().items():
            runs[f"driver, bulk: {name}"] = (_of_ours(way, peer.batch), many)
        for name, send in peer.bulks().items():
            runs[f"client, bulk: {name}"] = (_of_peer(send, peer.batch), many)
        most = max(count for _, count in runs.values())
        for name, (run, count) in runs.items():
            ours.make_ids(most)
            await measure(run, _rows(slug, name, max(10, count // 5)))
        if given.profile:
            profile = cProfile.Profile(time.process_time)
            for name in ("driver, single", "driver, bulk: mark", "driver, bulk: mark, from slots"):
                run, count = runs[name]
                rows = _rows(slug, name, count)
                ours.make_ids(most)
                profile.enable()
                await run(rows)
                profile.disable()
                print(f"\n{slug}: {name}, {count} records")
                pstats.Stats(profile).sort_stats("tottime").print_stats(given.profile)
                profile.clear()
        seen: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(given.rounds):
            for name, (run, count) in runs.items():
                ours.make_ids(most)
                seen[name].append(await measure(run, _rows(slug, name, count)))
        await ours.egress.close()
        return seen


def show(slug: str, seen: dict[str, list[float]], table: Table) -> None:
    """Adds the rows of one provider. The ratio is the median over the rounds, each with its own neighbour."""
    in_bulk, single = GOALS[slug]
    for name, theirs in seen.items():
        if not name.startswith("client"):
            continue
        kind = "single" if "single" in name else "bulk"
        for way, ours in seen.items():
            if not way.startswith(f"driver, {kind}"):
                continue
            goal = single if kind == "single" else in_bulk
            is_goal = way in ("driver, single", "driver, bulk: mark")
            ratios = [their / own for their, own in zip(theirs, ours, strict=True)]
            ratio = statistics.median(ratios)
            table.add_row(
                slug, name.removeprefix("client, "), way.partition(": ")[2] or "mark",
                f"{statistics.median(ours):,.1f}", f"{statistics.median(theirs):,.1f}",
                f"{ratio:.2f}", f"{min(ratios):.1f} to {max(ratios):.1f}",
                f"{goal:g}" if is_goal else "-", ("yes" if ratio >= goal else "NO") if is_goal else "-",
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
    texts = ("", "client does", "driver does")
    for column in (*texts, "driver", "client", "client / driver", "by round", "goal", "reached"):
        table.add_column(column, justify="left" if column in texts else "right")
    for slug in given.only or PEERS:
        show(slug, await compare(slug, given), table)
    Console(width=120).print(table)
    print("goal: client / driver >= 10 in bulk and >= 3 single for hubspot, >= 1.5 for the others")


if __name__ == "__main__":
    uvloop.run(main())
