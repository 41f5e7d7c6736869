"""Readiness: every reason why this process cannot do its work now."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import structlog

from crmbridge.db.jobs import Jobs
from crmbridge.db.pool import Database
from crmbridge.db.schema import unapplied, unfit
from crmbridge.services.vault import MasterKeyMissing, Vault

__all__ = ["Check", "Reason", "Standing", "checks_of", "examine", "stopping"]

_log = structlog.get_logger("crmbridge.watch")

# No check may take longer: a probe that hangs tells its caller nothing. Seconds.
CHECK_SECONDS = 2.0
# Token lifetimes and signed requests allow for minutes; beyond this something is wrong with a clock. Seconds.
MOST_SKEW_SECONDS = 10.0
# PostgreSQL stops when it cannot write its log; a 16 MB segment comes quickly. Bytes.
LEAST_FREE_BYTES = 256 * 1024 * 1024
# The worker's parts show themselves each second, or when their own interval is over.
MOST_LATE_SECONDS = 15.0

Check = Callable[[], Awaitable[str]]


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong: the check, what it found, and what to do."""

    check: str
    problem: str
    fix: str


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """``status`` is ``ready`` or ``not_ready``; ``checks`` says ``ok`` or the problem of each."""

    status: str
    checks: dict[str, str]
    reasons: list[Reason]

    @property
    def is_ready(self) -> bool:
        """True when nothing is wrong."""
        return not self.reasons


_FIXES = {
    "database_app": "Start PostgreSQL, or correct CRMBRIDGE_DATABASE_URL.",
    "database_scheduler": "Start PostgreSQL, or correct CRMBRIDGE_DATABASE_SCHEDULER_URL.",
    "migrations": "Run `crmbridge db migrate` with CRMBRIDGE_DATABASE_OWNER_URL set.",
    "version": "Run the version of crmbridge that migrated the database, or a newer one.",
    "job_tables": "Run `crmbridge db migrate` with CRMBRIDGE_DATABASE_OWNER_URL set.",
    "master_key": "Put the master key back that the installation was started with (CRMBRIDGE_MASTER_KEY or _FILE).",
    "clock": "Let both machines set their clocks by NTP.",
    "worker": "Restart this process; the log has what stopped its worker.",
    "stopping": "Send requests to another process; this one ends by itself.",
    "disk": "Free space in the data folder: PostgreSQL stops when it cannot write.",
}


def checks_of(db: Database, vault: Vault, jobs: Jobs, data_dir: Path | None) -> dict[str, Check]:
    """The checks by name. ``data_dir`` is the folder of an embedded PostgreSQL, None for a server elsewhere.

    Each answers what is wrong, or an empty text.
    """

    def answers(pool: Any) -> Check:
        async def check() -> str:
            await pool.fetchval("select 1")
            return ""

        return check

    async def migrations() -> str:
        try:
            missing = await unapplied(db.scheduler)
        except (asyncpg.UndefinedFunctionError, asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
            return "the database was never migrated by this version"
        return f"not applied: {', '.join(missing)}" if missing else ""

    async def version() -> str:
        try:
            names = await unfit(db.scheduler)
        except (asyncpg.UndefinedFunctionError, asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
            return ""  # the check above tells it
        return f"a newer version took away what this one uses: {', '.join(names)}" if names else ""

    async def job_tables() -> str:
        missing = await jobs.missing_tables()
        return f"missing or not granted: {', '.join(missing)}" if missing else ""

    async def master_key() -> str:
        await vault.prove()
        return ""

    async def clock() -> str:
        began = time.time()
        theirs = await db.scheduler.fetchval("select extract(epoch from clock_timestamp())::float8")
        ended = time.time()
        # Whatever the way took is not skew.
        skew = theirs - min(max(theirs, began), ended)
        if abs(skew) <= MOST_SKEW_SECONDS:
            return ""
        return f"the database's clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"

    async def worker() -> str:
        late = jobs.late_seconds()
        return f"nothing was heard of it for {late:.0f} s" if late and late > MOST_LATE_SECONDS else ""

    async def disk() -> str:
        assert data_dir is not None
        free = (await asyncio.to_thread(shutil.disk_usage, data_dir)).free
        return f"{free // 2**20} MiB are left" if free < LEAST_FREE_BYTES else ""

    checks: dict[str, Check] = {
        "database_app": answers(db.app),
        "database_scheduler": answers(db.scheduler),
        "migrations": migrations,
        "version": version,
        "job_tables": job_tables,
        "master_key": master_key,
        "clock": clock,
    }
    if jobs.late_seconds() is not None:
        checks["worker"] = worker
    if data_dir is not None:
        checks["disk"] = disk
    return checks


async def stopping() -> str:
    """The check of a process that was told to stop."""
    return "this process was told to stop and takes requests for a short time only"


async def examine(checks: dict[str, Check], fixes: dict[str, str] | None = None) -> Standing:
    """Run all checks at once, each two seconds at most. A check that fails or hangs is a reason."""
    problems = dict(zip(checks, await asyncio.gather(*map(_tried, checks.values())), strict=True))
    known = {**_FIXES, **(fixes or {})}
    reasons = [
        Reason(check=name, problem=problem, fix=known.get(name, "See the log of this process."))
        for name, problem in problems.items()
        if problem
    ]
    return Standing(
        status="not_ready" if reasons else "ready",
        checks={name: problem or "ok" for name, problem in problems.items()},
        reasons=reasons,
    )


async def _tried(check: Check) -> str:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check()
    except TimeoutError:
        return f"no answer within {CHECK_SECONDS:g} s"
    except MasterKeyMissing as error:
        return error.message
    except Exception as error:
        # Whoever asks needs no key, and what is said of a database names hosts and roles.
        _log.info("readiness.check_failed", kind=type(error).__name__)
        return type(error).__name__
