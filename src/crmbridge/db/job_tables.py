"""The job engine's tables: where they are, and how they are made. Named here and in ``jobs.py`` only."""

from __future__ import annotations

from typing import Any

from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.adapters.persistence.qb import (
    QueryBuilderEnvironment,
    QueryQueueBuilder,
    QuerySchedulerBuilder,
)
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.domain.settings import DBSettings, Durability
from pgqueuer.domain.types import Channel

__all__ = ["CHANNEL", "JOBS", "install_job_tables", "queries_on"]

JOBS = "crmbridge_jobs"
CHANNEL = Channel("crmbridge_jobs")


def _settings() -> DBSettings:
    # Every name is given, so that PGQUEUER_* variables meant for another program cannot steer ours.
    return DBSettings(
        prefix="",
        db_schema=JOBS,
        channel=CHANNEL,
        function="fn_pgqueuer_changed",
        statistics_table="pgqueuer_statistics",
        queue_status_type="pgqueuer_status",
        queue_table="pgqueuer",
        queue_table_log="pgqueuer_log",
        trigger="tg_pgqueuer_changed",
        schedules_table="pgqueuer_schedules",
        durability=Durability.durable,
    )


def queries_on(driver: AsyncpgDriver | AsyncpgPoolDriver) -> Queries:
    settings = _settings()
    return Queries(
        driver,
        QueryBuilderEnvironment(settings),
        QueryQueueBuilder(settings),
        QuerySchedulerBuilder(settings),
    )


async def install_job_tables(conn: Any) -> None:
    """Create or upgrade the engine's tables and grant the scheduler their use. ``conn`` is the owner's; idempotent."""
    queries = queries_on(AsyncpgDriver(conn))
    if await queries.schema_is_installed():
        await queries.apply_upgrade()
    else:
        await queries.install(create_schema=False)
    await conn.execute(
        f"""
        create table if not exists {JOBS}.ticks (name text primary key, next_at timestamptz not null);
        grant usage on schema {JOBS} to crmbridge_scheduler;
        grant select, insert, update, delete on all tables in schema {JOBS} to crmbridge_scheduler;
        grant usage, select on all sequences in schema {JOBS} to crmbridge_scheduler;
        """
    )
