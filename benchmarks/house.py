"""A house for measuring: embedded PostgreSQL, one tenant per connection wanted, emulators, and the server process."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.meters import cpu_seconds, postgres_cpu_seconds, wal_bytes
from crmbridge.app import running_services
from crmbridge.core.secret import Secret
from crmbridge.db.embedded import EmbeddedPostgres
from crmbridge.db.schema import migrate
from crmbridge.services.tenants.model import Tenant
from crmbridge.services.vault.master import new_master_key
from crmbridge.settings import Settings

__all__ = [
    "Drained",
    "Prepared",
    "cpu_seconds",
    "free_port",
    "lead_fields",
    "metered",
    "paired",
    "prepared",
    "process",
    "show",
    "tenant_with",
]


@dataclass
class Prepared:
    """What a benchmark needs to know. ``environment`` starts further processes on the same database."""

    folder: Path
    postgres: EmbeddedPostgres
    settings: Settings
    environment: dict[str, str]


def free_port(first: int = 27000) -> int:
    """A free loopback port in the range that tests may use."""
    import socket

    for port in range(first, 29999):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port between 27000 and 29999")


@asynccontextmanager
async def prepared() -> AsyncIterator[Prepared]:
    """A migrated, durable (fsync on) PostgreSQL and the settings to open it, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="crmb-bench-"))
    made = new_master_key()
    key = made if ":" in made else f"k1:{made}"
    try:
        async with EmbeddedPostgres(folder) as postgres:
            await migrate(postgres.owner_dsn)
            settings = Settings(
                database_url=postgres.app_dsn,
                database_scheduler_url=postgres.scheduler_dsn,
                data_dir=folder / "own",
                master_key=Secret(key),
                egress_allow=("127.0.0.1",),
            )
            environment = {
                **os.environ,
                "CRMBRIDGE_DATABASE_URL": postgres.app_dsn,
                "CRMBRIDGE_DATABASE_SCHEDULER_URL": postgres.scheduler_dsn,
                "CRMBRIDGE_MASTER_KEY": key,
                "CRMBRIDGE_EGRESS_ALLOW": "127.0.0.1",
                "CRMBRIDGE_DATA_DIR": str(folder / "own"),
                "CRMBRIDGE_LOG_LEVEL": "warning",
            }
            yield Prepared(folder, postgres, settings, environment)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def tenant_with(
    house: Prepared, slug: str, driver: str, form: dict[str, str], *, scopes: tuple[str, ...] = ("admin",)
) -> tuple[Tenant, str]:
    """A tenant with an active connection; answers it and an operator's token."""
    async with running_services(house.settings) as services:
        tenant = await services.tenants.add(slug, slug, "real_estate", "AE", "UTC", "bench")
        credential = await services.connections.connect(tenant, driver, form, actor="bench")
        report = await services.connections.test(tenant, credential.id, actor="bench")
        if not report.ok:
            raise RuntimeError(f"the emulator refused the connection: {report.error}")
        await services.connections.activate(tenant, credential.id, actor="bench")
        _, token = await services.tenants.create_key(None, "bench", list(scopes), "bench")
        return tenant, token


def unmetered(form: dict[str, str]) -> dict[str, str]:
    """The form with a document that declares no rate: a benchmark measures us, not the example's budget."""
    document = json.loads(form["manifest"])
    document.pop("rate", None)
    return {**form, "manifest": json.dumps(document)}


@asynccontextmanager
async def process(*command: str, environment: dict[str, str], port: int) -> AsyncIterator[int]:
    """A child process that listens on ``port``; stopped on the way out. Yields its pid."""
    child = await asyncio.create_subprocess_exec(sys.executable, *command, env=environment)
    try:
        for _ in range(400):
            if child.returncode is not None:
                raise RuntimeError(f"{command} ended with {child.returncode}")
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            except OSError:
                await asyncio.sleep(0.05)
        yield child.pid
    finally:
        if child.returncode is None:
            child.terminate()
            await child.wait()


class Drained(msgspec.Struct, frozen=True):
    """One delivery of everything: records per second, and per record CPU in microseconds and log in bytes."""

    per_second: float
    worker_cpu_us: float
    postgres_cpu_us: float
    wal_bytes: float


async def metered(house: Prepared, admin: Any, total: int, deliver: Callable[[], Awaitable[None]]) -> Drained:
    """What it takes to deliver ``total`` records in this process, after a checkpoint."""
    await admin.execute("checkpoint")
    gc.collect()
    worker, server = cpu_seconds(os.getpid()), postgres_cpu_seconds(house.postgres.pid)
    log, started = await wal_bytes(admin), time.perf_counter()
    await deliver()
    seconds = time.perf_counter() - started
    return Drained(
        per_second=total / seconds,
        worker_cpu_us=(cpu_seconds(os.getpid()) - worker) / total * 1e6,
        postgres_cpu_us=(postgres_cpu_seconds(house.postgres.pid) - server) / total * 1e6,
        wal_bytes=(await wal_bytes(admin) - log) / total,
    )


def paired(pairs: list[tuple[Drained, Drained]], floor: str) -> dict[str, float]:
    """Medians over the rounds of ours and of the ``floor``; the ratio is taken pair by pair."""
    figures = {
        f"{name}_per_second": statistics.median(pair[place].per_second for pair in pairs)
        for place, name in enumerate(("ours", floor))
    }
    figures["ratio"] = statistics.median(ours.per_second / other.per_second for ours, other in pairs)
    for place, name in enumerate(("ours", floor)):
        for part in ("worker_cpu_us", "postgres_cpu_us", "wal_bytes"):
            figures[f"{name}_{part}"] = statistics.median(getattr(pair[place], part) for pair in pairs)
    return figures


def lead_fields(number: int | str) -> dict[str, Any]:
    """The slots of one lead, different for each number."""
    return {
        "first_name": "Layla",
        "email": f"l{number}@example.com",
        "phone": "+971501234567",
        "bedrooms": 3,
    }


def show(title: str, figures: dict[str, float], goal: str, *, as_json: bool) -> None:
    """Print the figures as JSON, or as lines with their goal."""
    if as_json:
        print(json.dumps(figures, indent=1))
        return
    print(title)
    for name, value in figures.items():
        print(f"  {name:24} {value:10.2f}")
    print(f"  {goal}")
