"""Further processes of the same house, started, told to go, and read."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from tests.e2e.acme.house import AcmeHouse

from crmbridge.core.secret import Secret

__all__ = ["ended", "other_process", "start"]

ROOT = Path(__file__).parents[3]


async def other_process(house: AcmeHouse, key: Secret, calls: int, what: str) -> asyncio.subprocess.Process:
    environ = {
        **os.environ,
        "CRMBRIDGE_DATABASE_URL": house.settings.database_url,
        "CRMBRIDGE_DATABASE_SCHEDULER_URL": house.settings.database_scheduler_url,
        "CRMBRIDGE_MASTER_KEY": key.open(),
        "CRMBRIDGE_EGRESS_ALLOW": "127.0.0.1",
        "PYTHONPATH": str(ROOT),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.e2e.acme.caller",
        str(house.tenant.id),
        str(calls),
        what,
        cwd=ROOT,
        env=environ,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 30) == b"ready\n"
    return process


def start(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.write(b"go\n")


async def ended(process: asyncio.subprocess.Process) -> dict[str, int]:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 60)
    await process.wait()
    found: dict[str, int] = json.loads(line)
    return found
