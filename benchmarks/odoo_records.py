"""Leads per second into a real Odoo: this driver beside ``odoorpc``, interleaved on the same server.

Run: ``python benchmarks/odoo_records.py [--records 1000] [--rounds 3]`` while ``tools/real_odoo`` is up.
``odoorpc`` is used as its users do: one ``create`` per record, and a list ``create`` through ``execute``; once
more with the context that switches the chatter's tracking off, as the driver always does. The driver's rows
carry an external id each (they can be sent again without a second record), those of ``odoorpc`` do not.
CPU is the client process alone. Everything made is deleted again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import odoorpc
import uvloop
from rich.console import Console
from rich.table import Table

from crmbridge.core.driver import Access
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object, Write
from crmbridge.core.secret import Secret
from crmbridge.drivers.odoo.driver import Odoo
from crmbridge.toolkit.egress import Egress, EgressPolicy

BATCH = 200
QUIET = {"tracking_disable": True, "lang": "en_US", "tz": "UTC"}
Run = Callable[[list[dict[str, Any]]], Awaitable[list[int]]]


def target() -> dict[str, str]:
    """ODOO_URL and so on: from the environment, else from the tool."""
    if "ODOO_URL" in os.environ:
        return dict(os.environ)
    tool = Path(__file__).parents[1] / "tools" / "real_odoo"
    said = subprocess.run([str(tool), "env"], capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in said.stdout.splitlines() if "=" in line)


def leads(count: int) -> list[dict[str, Any]]:
    """New leads of eight fields; one in three has no phone."""
    word = uuid.uuid4().hex[:8]
    made = []
    for n in range(count):
        lead = {
            "name": f"Flat near the park {word} {n}",
            "type": "lead",
            "contact_name": f"Person {n}",
            "email_from": f"{word}.{n}@example.com",
            "city": "Dubai",
            "description": "<p>Two bedrooms, quiet.</p>",
            "expected_revenue": 100_000 + n,
        }
        if n % 3:
            lead["phone"] = f"+97150{n:07d}"
        made.append(lead)
    return made


def parts(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Batches."""
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]


class Driver:
    """The driver with the facts that a connection keeps."""

    def __init__(self, env: dict[str, str], egress: Egress) -> None:
        self.access = Access(
            settings={"url": env["ODOO_URL"], "database": env["ODOO_DB"], "username": env["ODOO_USER"]},
            secrets={"api_key": Secret(env["ODOO_API_KEY"])},
            transport=egress,
            mark_prefix="bench",
        )

    async def prepare(self) -> None:
        self.access.facts.update((await Odoo(self.access).test_connection()).facts)

    async def send(self, rows: list[dict[str, Any]]) -> list[int]:
        writes = [
            Write(target_id=str(uuid.uuid4()), operation=Operation.CREATE, object=Object.LEAD, fields=row)
            for row in rows
        ]
        results = await Odoo(self.access).write_batch(writes)
        if any(result.outcome is not Outcome.APPLIED for result in results):
            raise SystemExit(f"not all were applied: {next(r.error for r in results if r.error)}")
        return [int(result.remote_id) for result in results]

    async def batches(self, rows: list[dict[str, Any]]) -> list[int]:
        return [number for part in parts(rows) for number in await self.send(part)]

    async def four_in_flight(self, rows: list[dict[str, Any]]) -> list[int]:
        gate = asyncio.Semaphore(4)

        async def send(part: list[dict[str, Any]]) -> list[int]:
            async with gate:
                return await self.send(part)

        return [number for ids in await asyncio.gather(*map(send, parts(rows))) for number in ids]

    async def singly(self, rows: list[dict[str, Any]]) -> list[int]:
        return [number for row in rows for number in await self.send([row])]


class Peer:
    """odoorpc over JSON-RPC."""

    def __init__(self, env: dict[str, str]) -> None:
        split = urlsplit(env["ODOO_URL"])
        self.odoo = odoorpc.ODOO(split.hostname, port=split.port, timeout=120)
        self.odoo.login(env["ODOO_DB"], env["ODOO_USER"], env["ODOO_API_KEY"])

    async def singly(self, rows: list[dict[str, Any]]) -> list[int]:
        model = self.odoo.env["crm.lead"]
        return [model.create(row) for row in rows]

    async def lists(self, rows: list[dict[str, Any]]) -> list[int]:
        return [number for part in parts(rows) for number in self.odoo.execute("crm.lead", "create", part)]

    async def quiet_lists(self, rows: list[dict[str, Any]]) -> list[int]:
        made: list[int] = []
        for part in parts(rows):
            made += self.odoo.execute_kw("crm.lead", "create", [part], {"context": QUIET})
        return made

    def remove(self, ids: list[int]) -> None:
        for start in range(0, len(ids), 500):
            self.odoo.execute("crm.lead", "unlink", ids[start : start + 500])


async def measure(run: Run, rows: list[dict[str, Any]]) -> tuple[float, float, list[int]]:
    """Records per second, client CPU in µs per record, and the ids."""
    cpu, start = time.process_time(), time.perf_counter()
    ids = await run(rows)
    wall, used = time.perf_counter() - start, time.process_time() - cpu
    return len(rows) / wall, used / len(rows) * 1e6, ids


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    env = target()
    egress = Egress(EgressPolicy(allow=(urlsplit(env["ODOO_URL"]).hostname or "",)))
    driver, peer = Driver(env, egress), Peer(env)
    await driver.prepare()
    few = max(1, given.records // 10)
    runs: dict[str, tuple[Run, int]] = {
        "driver, batches of 200": (driver.batches, given.records),
        "odoorpc, lists of 200, untracked": (peer.quiet_lists, given.records),
        "odoorpc, lists of 200": (peer.lists, given.records),
        "driver, 4 batches in flight": (driver.four_in_flight, given.records),
        "driver, one by one": (driver.singly, few),
        "odoorpc, one by one": (peer.singly, few),
    }
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for run, _ in runs.values():
        peer.remove((await measure(run, leads(5)))[2])
    for _ in range(given.rounds):
        for name, (run, count) in runs.items():
            rate, cpu, ids = await measure(run, leads(count))
            seen[name].append((rate, cpu))
            peer.remove(ids)
    await egress.close()
    show(seen, given.records, given.rounds)


def show(seen: dict[str, list[tuple[float, float]]], records: int, rounds: int) -> None:
    """Medians, and ratios to odoorpc's lists and single creates."""
    median = {
        name: (statistics.median(r for r, _ in runs), statistics.median(c for _, c in runs))
        for name, runs in seen.items()
    }
    table = Table(title=f"{records} leads, median of {rounds} interleaved rounds")
    for column in ("", "records/s", "client CPU µs/record", "rate / odoorpc", "odoorpc CPU / CPU"):
        table.add_column(column, justify="right" if column else "left")
    for name, (rate, cpu) in median.items():
        peer = median["odoorpc, one by one" if "one by one" in name else "odoorpc, lists of 200"]
        table.add_row(name, f"{rate:,.0f}", f"{cpu:,.0f}", f"{rate / peer[0]:.2f}", f"{peer[1] / cpu:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    uvloop.run(main())  # the loop of the worker
