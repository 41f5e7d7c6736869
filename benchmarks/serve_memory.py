"""Memory of ``crmbridge serve`` with its embedded PostgreSQL: idle, and while and after many writes (PSS, Linux).

Run: ``python -m benchmarks.serve_memory [--writes 1000000]``. The real command runs in a process of its own with a
worker in it, on a new data folder, with default settings. Writes come over HTTP, 500 to a request, from this
process; the worker in the server delivers them to a driver that lives there too and answers at once (batches of
100). No more than 20,000 wait at a time. PSS counts a page that n processes share as 1/n to each, so the sum over
the process tree (the server, the postmaster and all its children) counts shared buffers once; only buffers that
were touched count. What a server needs anyway once it works (buffers filled, pools opened) is told apart from
growth: the first writes warm it up, and after the last one it is compared with itself after those. The pools close
connections after five idle minutes (``--rest 330`` waits for that).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import struct
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.house import free_port, process
from crmbridge import drivers
from crmbridge.core.driver import CrmDriver, Proof
from crmbridge.core.manifest import Auth, AuthKind, Budget, BudgetKind, Manifest, ObjectSpec
from crmbridge.core.operations import FULL, Operation, Outcome
from crmbridge.core.records import Object, Write, WriteResult

ACCEPTED_AT_ONCE = 500
MOST_WAITING = 20_000
WARMING = 20_000
BATCH = 100
IDLE_GOAL_MB = 150.0
COUNTER = "BENCH_COUNTER"


class Sink(CrmDriver):
    """Applies everything at once, and keeps the number of records in a file for the process that measures."""

    MANIFEST = Manifest(
        slug="bench",
        display_name="Bench",
        api_version="1",
        pages=(),
        read_on="2026-11-25",
        auth=Auth(kind=AuthKind.NONE),
        budgets=(Budget(kind=BudgetKind.CONCURRENT, limit=2),),
        objects={
            Object.LEAD: ObjectSpec(
                native="lead", operations={Operation.CREATE: FULL}, batch={Operation.CREATE: BATCH}
            )
        },
    )
    applied = 0
    file = -1

    async def test_connection(self) -> Proof:
        """Always there."""
        return Proof(account="bench")

    async def write_batch(self, writes: Sequence[Write]) -> list[WriteResult]:
        """One call."""
        sink = type(self)
        sink.applied += len(writes)
        if sink.file < 0:
            sink.file = os.open(os.environ[COUNTER], os.O_WRONLY)
        os.pwrite(sink.file, struct.pack("<q", sink.applied), 0)
        return [WriteResult(outcome=Outcome.APPLIED, remote_id=f"r{write.target_id}") for write in writes]

    async def create_record(self, write: Write) -> WriteResult:
        """A batch of one."""
        return (await self.write_batch([write]))[0]


@dataclass
class Sample:
    """MiB by part of the tree, and how many processes each has."""

    python: float = 0.0
    postgres: float = 0.0
    buffers: float = 0.0
    pythons: int = 0
    postgreses: int = 0

    @property
    def total(self) -> float:
        """Of the whole tree."""
        return self.python + self.postgres


def pss_mib(pid: int, name: str = "Pss") -> float:
    """Memory of one process, shared pages counted by share; ``Pss_Shmem`` is the part that is shared memory."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def tree_of(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for word in (task / "children").read_text().split():
                found += tree_of(int(word))
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def sample(pid: int, details: list[str] | None = None) -> Sample:
    """PSS now; ``details`` gets one line per process."""
    made = Sample()
    for one in tree_of(pid):
        try:
            size, shared = pss_mib(one), pss_mib(one, "Pss_Shmem")
            said = Path(f"/proc/{one}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except (FileNotFoundError, ProcessLookupError, RuntimeError):
            continue
        if "postgres" in said.split(" ")[0]:
            made.postgres += size
            made.buffers += shared
            made.postgreses += 1
        else:
            made.python += size
            made.pythons += 1
        if details is not None:
            details.append(f"{size:8.1f} MiB  {said[:90]}")
    return made


class House:
    """The running server, over HTTP."""

    def __init__(self, session: Any, folder: Path, port: int) -> None:
        self.session = session
        self.folder = folder
        self.base = f"http://127.0.0.1:{port}/api"
        self.headers: dict[str, str] = {}

    async def call(
        self, method: str, path: str, body: Any = None, *, ok: tuple[int, ...] = (200, 201, 202)
    ) -> Any:
        async with self.session.request(method, self.base + path, json=body, headers=self.headers) as answer:
            if answer.status not in ok:
                raise SystemExit(f"{method} {path}: {answer.status} {(await answer.text())[:400]}")
            return await answer.json()

    async def connect(self) -> None:
        """A tenant with an active connection."""
        key = self.folder / "admin.key"
        self.headers = {"Authorization": f"Bearer {(await asyncio.to_thread(key.read_text)).strip()}"}
        await self.call("POST", "/tenants", {"slug": "bench", "name": "Bench", "vertical": "real_estate"})
        made = await self.call("POST", "/tenants/bench/credentials", {"driver": "bench", "settings": {}})
        path = f"/tenants/bench/credentials/{made['id']}"
        await self.call("POST", f"{path}/test")
        await self.call("POST", f"{path}/activate")

    async def accept(self, run: str, start: int, count: int) -> None:
        """One request of so many writes."""
        writes = [
            {
                "fields": {
                    "first_name": "Layla",
                    "email": f"l{number}@example.com",
                    "phone": "+971501234567",
                    "bedrooms": 3,
                },
                "idempotency_key": f"{run}-{number}",
            }
            for number in range(start, start + count)
        ]
        answer = await self.call(
            "POST", "/tenants/bench/records/lead/batch", {"writes": writes}, ok=(200, 202, 207)
        )
        bad = [one for one in answer["results"] if one.get("error")]
        if bad:
            raise SystemExit(f"not all were accepted: {bad[0]}")


class Counter:
    """What the driver in the server has applied."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "applied"
        self.path.write_bytes(struct.pack("<q", 0))

    def read(self) -> int:
        number: int = struct.unpack("<q", self.path.read_bytes())[0]
        return number


async def write_all(house: House, counter: Counter, pid: int, writes: int) -> list[tuple[int, Sample]]:
    """Sends, waits until all are delivered, and samples some hundred times on the way."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    run = uuid.uuid4().hex[:12]
    seen: list[tuple[int, Sample]] = []
    every = max(1000, writes // 200)
    numbers = iter(range(0, writes, ACCEPTED_AT_ONCE))
    earlier = counter.read()

    def delivered() -> int:
        return counter.read() - earlier

    async def send() -> None:
        for start in numbers:
            while start - delivered() > MOST_WAITING:
                await asyncio.sleep(0.05)
            await house.accept(run, start, min(ACCEPTED_AT_ONCE, writes - start))

    console = Console(stderr=True)
    bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*bar, console=console, transient=True) as progress:
        task = progress.add_task("delivered", total=writes)
        senders = asyncio.gather(send(), send())
        following, told = every, 0
        began = time.perf_counter()
        while (done := delivered()) < writes:
            if senders.done():
                senders.result()
            if done >= following:
                seen.append((done, sample(pid)))
                following = done + every
                size = f"{seen[-1][1].total:.0f} MiB"
                progress.update(task, completed=done, description=f"delivered, {size}")
                if not console.is_terminal and done * 10 // writes > told:
                    told = done * 10 // writes
                    rate = done / (time.perf_counter() - began)
                    console.print(f"{done:,} of {writes:,} delivered, {rate:,.0f}/s, {size}")
            await asyncio.sleep(0.1)
        await senders
    seen.append((writes, sample(pid)))
    return seen


async def settled(pid: int, seconds: float) -> Sample:
    """The median of five looks, after a pause."""
    await asyncio.sleep(seconds)
    looks = []
    for _ in range(5):
        looks.append(sample(pid))
        await asyncio.sleep(0.2)
    return sorted(looks, key=lambda one: one.total)[2]


async def measure(options: argparse.Namespace) -> None:
    import aiohttp

    from crmbridge.services.vault.master import new_master_key

    folder = Path(tempfile.mkdtemp(prefix="crmb-bench-"))
    outside = Path(tempfile.mkdtemp(prefix="crmb-bench-"))
    port, made = free_port(28_000), new_master_key()
    counter = Counter(outside)
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith("CRMBRIDGE_")},
        "CRMBRIDGE_DATA_DIR": str(folder),
        "CRMBRIDGE_MASTER_KEY": made if ":" in made else f"k1:{made}",
        "CRMBRIDGE_PORT": str(port),
        "CRMBRIDGE_LOG_LEVEL": "warning",
        COUNTER: str(counter.path),
    }
    try:
        command = ("-c", "from benchmarks.serve_memory import serve; serve()", "serve")
        async with (
            process(*command, environment=environment, port=port) as pid,
            aiohttp.ClientSession() as session,
        ):
            house = House(session, folder, port)
            fresh = await settled(pid, options.settle)
            await house.connect()
            idle = await settled(pid, options.settle)
            at_rest: list[str] = []
            sample(pid, at_rest)
            warming = min(WARMING, options.writes // 5)
            await write_all(house, counter, pid, warming)
            warm = await settled(pid, options.settle)
            began = time.perf_counter()
            seen = await write_all(house, counter, pid, options.writes - warming)
            seconds = time.perf_counter() - began
            after = await settled(pid, options.settle)
            rested = await settled(pid, options.rest) if options.rest else None
            at_end: list[str] = []
            sample(pid, at_end)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(outside, ignore_errors=True)
    if options.processes:
        print("idle:", *at_rest, "after the writes:", *at_end, sep="\n  ")
    rate = (options.writes - warming) / seconds
    before = [("started", fresh), ("idle, one connection", idle)]
    later = [("at rest after all", after)]
    if rested is not None:
        later.append((f"after {options.rest:g} s more", rested))
    show(options.writes, rate, before, (warming, warm), seen, later)


def show(
    writes: int,
    rate: float,
    before: list[tuple[str, Sample]],
    warmed: tuple[int, Sample],
    seen: list[tuple[int, Sample]],
    later: list[tuple[str, Sample]],
) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    idle, warm = before[-1][1], warmed[1]
    table = Table(title="memory of serve and its embedded PostgreSQL, PSS in MiB")
    for column in ("", "all", "python", "postgres", "of it buffers", "processes", "over warm"):
        table.add_column(column, justify="right" if column else "left")
    rows = [*before, (f"at rest after {warmed[0]:,} writes (warm)", warm)]
    for part in (0.25, 0.5, 0.75):
        done, one = next(each for each in seen if each[0] >= (writes - warmed[0]) * part)
        rows.append((f"while writing, {warmed[0] + done:,} delivered", one))
    rows += [("peak while writing", max((one for _, one in seen), key=lambda one: one.total))]
    rows += later
    for name, one in rows:
        table.add_row(
            name, f"{one.total:.1f}", f"{one.python:.1f}", f"{one.postgres:.1f}", f"{one.buffers:.1f}",
            f"{one.pythons} + {one.postgreses}", f"{one.total / warm.total - 1:+.1%}",
        )  # fmt: skip
    Console(width=120).print(table)
    after, last = later[0][1], later[-1][1]
    print(f"{writes:,} writes accepted over HTTP and delivered, {rate:,.0f} a second;", end=" ")
    print(f"a million takes about {1_000_000 / rate / 60:,.0f} minutes at that rate")
    print(
        f"idle: {idle.total * 1.048576:.1f} MB, goal <= {IDLE_GOAL_MB:g} MB; at the end {last.total * 1.048576:.1f} MB"
    )
    print(f"grown since it was warm: {after.total / warm.total - 1:+.1%}, goal within 10 %;", end=" ")
    print(f"at the end {last.total / idle.total - 1:+.1%} of a server that never worked")


def serve() -> None:
    """The real command, with the bench's driver known to it."""
    from crmbridge.app import main as command

    drivers.DRIVERS["bench"] = "benchmarks.serve_memory:Sink"
    command()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writes", type=int, default=1_000_000)
    parser.add_argument("--settle", type=float, default=8.0, help="seconds of rest before each look")
    parser.add_argument(
        "--rest", type=float, default=0.0, help="seconds of rest before one more look at the end"
    )
    parser.add_argument("--processes", action="store_true", help="one line per process too")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
