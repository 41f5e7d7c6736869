"""How long a program waits for crmbridge: import, a driver ready to be called, and the first call; fresh interpreters.

Run: ``python -m benchmarks.cold_start [--processes 10] [--driver hubspot]``. Each line is its own interpreter, the
lines in turns; ``import`` and ``ready`` are told by the process itself (so without the interpreter's own start,
which is the floor), the first call is a create at an emulator in another process. This version has no
``crmbridge.connect`` yet, so ``ready`` is what it will be made of: the driver's class loaded, an egress, an
access, the driver made. The files are in the page cache, as on any machine on which the program ran once. The
column of CPU tells a slow program from a busy machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.house import free_port, process
from crmbridge.drivers import load_emulator

HEAVY = (
    "aiohttp", "alembic", "asyncpg", "authlib", "cryptography", "jinja2", "litestar", "pgqueuer", "phonenumbers",
    "prometheus_client", "psycopg", "pydantic", "sqlalchemy", "starlette", "structlog", "typer", "uvicorn", "yoyo",
)  # fmt: skip
IMPORT_GOAL_MS = 150
CALL_GOAL_MS = 800

READY = """
import json, sys, time
given = json.loads(sys.argv[1])
def now(): return time.perf_counter(), time.process_time()
began = now()
import crmbridge
imported = now()
from crmbridge.core.driver import Access
from crmbridge.core.secret import Secret
from crmbridge.drivers import load
from crmbridge.toolkit.egress import Egress, EgressPolicy
egress = Egress(EgressPolicy(allow=("127.0.0.1",)))
secrets = {name: Secret(text) for name, text in given["secrets"].items()}
access = Access(settings=given["settings"], secrets=secrets, transport=egress, mark_prefix="bench")
driver = load(given["slug"])(access)
ready = now()
"""
TELL = """
loaded = sorted({name.partition(".")[0] for name in sys.modules} & set(given["heavy"]))
since = lambda when: [there - here for there, here in zip(when, began)]
print(json.dumps({"import": since(imported), "ready": since(ready), "call": since(called), "loaded": loaded}))
"""
BUILT = READY + "called = ready\n" + TELL
CALLED = (
    READY
    + """
import asyncio
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object, Write
async def first():
    write = Write(target_id=given["target"], operation=Operation.CREATE, object=Object.CUSTOMER, fields=given["fields"])
    result = await driver.create_record(write)
    assert result.remote_id
    await egress.close()
asyncio.run(first())
called = now()
"""
    + TELL
)
FLOORS = {"python -c pass": "pass", "import aiohttp": "import aiohttp"}


Spent = tuple[float, float]
"""Seconds by the wall, and of CPU."""


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(code: str, *arguments: str) -> tuple[Spent, str]:
    """One interpreter from its start to its end, and what it printed."""
    began, before = time.perf_counter(), _children()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=dict(os.environ),
    )
    return (time.perf_counter() - began, _children() - before), done.stdout


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument(
        "--driver", default="hubspot", help="one with an emulator; its native customer is made"
    )
    parser.add_argument(
        "--fields", default='{"email": "layla.%d@example.com"}', help="native, %%d is a number"
    )
    options = parser.parse_args()
    slug, port = options.driver, free_port()
    kind = load_emulator(slug)
    assert kind is not None
    emulator = kind()
    emulator.base_url = f"http://127.0.0.1:{port}"
    given: dict[str, Any] = {
        "slug": slug,
        "settings": emulator.settings(),
        "secrets": emulator.secrets(),
        "heavy": HEAVY,
    }
    seen: dict[str, list[Spent]] = {}
    loaded: set[str] = set()
    async with process("-m", "benchmarks.emulator", slug, str(port), environment=dict(os.environ), port=port):
        for number in range(options.processes + 1):
            given |= {"target": f"t{number}", "fields": json.loads(options.fields.replace("%d", str(number)))}
            round_: dict[str, Spent] = {}
            for name, code in FLOORS.items():
                round_[f"floor: {name}, whole process"], _ = await asyncio.to_thread(run, code)
            whole, said = await asyncio.to_thread(run, BUILT, json.dumps(given))
            told = json.loads(said)
            loaded |= set(told["loaded"])
            round_ |= {"import crmbridge": told["import"], "import and ready": told["ready"]}
            round_["import and ready, whole process"] = whole
            _, said = await asyncio.to_thread(run, CALLED, json.dumps(given))
            round_["import, ready, first call answered"] = json.loads(said)["call"]
            if number:  # the first fills the page cache
                for name, spent in round_.items():
                    seen.setdefault(name, []).append(spent)
    table = Table(title=f"cold start, ms, {options.processes} fresh interpreters each, driver {slug}")
    for column in ("", "min", "median", "max", "CPU, median", "goal", "reached"):
        table.add_column(column, justify="right" if column else "left")
    goals = {"import and ready": IMPORT_GOAL_MS, "import, ready, first call answered": CALL_GOAL_MS}
    for name, spents in seen.items():
        values = [wall * 1000 for wall, _ in spents]
        goal, median = goals.get(name), statistics.median(values)
        table.add_row(
            name, f"{min(values):.0f}", f"{median:.0f}", f"{max(values):.0f}",
            f"{statistics.median(cpu * 1000 for _, cpu in spents):.0f}", f"{goal or ''}",
            "" if goal is None else "yes" if median <= goal else "NO",
        )  # fmt: skip
    Console(width=110).print(table)
    print(
        f"database, web and other heavy libraries imported before the first call: {', '.join(sorted(loaded)) or 'none'}"
    )
    print(f"goal: ready <= {IMPORT_GOAL_MS} ms with none of them, first call <= {CALL_GOAL_MS} ms")


if __name__ == "__main__":
    asyncio.run(main())
