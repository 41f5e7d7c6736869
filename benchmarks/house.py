"""A house for measuring: embedded PostgreSQL, one tenant per connection wanted, emulators, and the server process."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from crmbridge.app import running_services
from crmbridge.core.secret import Secret
from crmbridge.db.embedded import EmbeddedPostgres
from crmbridge.db.schema import migrate
from crmbridge.services.tenants.model import Tenant
from crmbridge.services.vault.master import new_master_key
from crmbridge.settings import Settings

__all__ = ["Prepared", "cpu_seconds", "free_port", "prepared", "process", "tenant_with"]


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


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
