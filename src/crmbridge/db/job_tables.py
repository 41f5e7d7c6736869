"""The job engine's tables: where they are, how they are made, what is done beside it. Named here and in ``jobs.py``."""

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

__all__ = ["CHANNEL", "JOBS", "bring_near", "install_job_tables", "missing_tables", "prune", "queries_on"]

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


async def missing_tables(pool: Any) -> list[str]:
    """The engine's tables that are not there or not the caller's to use."""
    rows = await pool.fetch(
        """
        select name from unnest($1::text[]) as name
        where to_regclass(name) is null or not has_table_privilege(to_regclass(name), 'select, insert')
        """,
        [f"{JOBS}.{name}" for name in ("pgqueuer", "pgqueuer_log", "pgqueuer_schedules", "ticks")],
    )
    return [row["name"] for row in rows]


async def bring_near(pool: Any) -> None:
    """No job, tick or sign of life is later than now."""
    for statement in (
        "pgqueuer set execute_after = least(execute_after, now()), heartbeat = least(heartbeat, now()) "
        "where execute_after > now() or heartbeat > now()",
        "pgqueuer_schedules set next_run = least(next_run, now()), heartbeat = least(heartbeat, now())",
        "ticks set next_at = least(next_at, clock_timestamp())",
    ):
        await pool.execute(f"update {JOBS}.{statement}")


async def prune(pool: Any, days: int) -> None:
    """Forget what the engine's own log tells of more than so many days ago."""
    for table in ("pgqueuer_log", "pgqueuer_statistics"):
        await pool.execute(
            f"delete from {JOBS}.{table} where created < now() - make_interval(days => $1)",  # noqa: S608
            days,
        )
