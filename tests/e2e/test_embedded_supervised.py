"""A running installation keeps its own PostgreSQL alive."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from time import monotonic

import pytest

from crmbridge.app import running_services
from crmbridge.core.secret import Secret
from crmbridge.db.errors import DatabaseUnavailable
from crmbridge.services import Services
from crmbridge.settings import Settings

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(120)]


async def until_served(services: Services) -> None:
    """Until a transaction goes through; one that is cut is tried again, as callers are told to."""
    deadline = monotonic() + 30
    while True:
        try:
            async with services.db.system() as conn:
                assert await conn.fetchval("select 1") == 1
            return
        except DatabaseUnavailable:
            assert monotonic() < deadline, "PostgreSQL was not started again"
            await asyncio.sleep(0.1)


async def test_postgres_when_killed_under_a_running_house_then_started_again(
    open_folder: Path, master_key: Secret
) -> None:
    settings = Settings(data_dir=open_folder, master_key=master_key)
    async with running_services(settings) as services:
        await until_served(services)
        (file,) = await asyncio.to_thread(lambda: list(open_folder.rglob("postmaster.pid")))
        killed = await asyncio.to_thread(pid_in, file)
        os.kill(killed, signal.SIGKILL)
        # Not before the dead one is noticed: its server processes outlive it for a moment.
        deadline = monotonic() + 30
        while await asyncio.to_thread(pid_in, file) in (killed, 0):
            assert monotonic() < deadline, "PostgreSQL was not started again"
            await asyncio.sleep(0.1)
        await until_served(services)


def pid_in(file: Path) -> int:
    """The process id in a postmaster's file; 0 while it is being made."""
    try:
        return int(file.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0
