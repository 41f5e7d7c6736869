"""Migrations: numbered plain SQL files in ``db/migrations``, run in order under an advisory lock by pogo.

A file is named ``NNNN_verb_noun.sql`` and holds plain SQL for PostgreSQL 15 and later: as many statements as it
needs, functions in dollar quotes included. Each file is one transaction; a file whose first lines hold
``-- transaction: false`` (for ``create index concurrently``) is not. There is no way back down: a mistake is
corrected by the next file. See ``docs/decisions/0002-migration-runner.md``.
"""

from __future__ import annotations

import asyncio
import logging
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
from pogo_core import error as pogo_error
from pogo_core.util import migrate as pogo_migrate
from pogo_core.util import sql as pogo_sql

from crmbridge.db.errors import DatabaseMisconfigured
from crmbridge.db.job_tables import install_job_tables
from crmbridge.db.pool import connect
from crmbridge.db.roles import OWNER, SCHEDULER, SCHEMA

__all__ = ["MIGRATIONS", "migrate", "pending", "unapplied"]

MIGRATIONS = Path(__file__).parent / "migrations"

_LOCK = 0x63726D62_6D696772  # "crmbmigr"
_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")
# The list stands in schema public, which only the owner may use.
_APPLIED = f"""
create or replace function {SCHEMA}.applied_migrations() returns table (name text)
language sql stable security definer set search_path = pg_catalog as
$$ select migration_id::text from public._pogo_migration where schema_name = '{SCHEMA}' $$;
revoke all on function {SCHEMA}.applied_migrations() from public;
grant execute on function {SCHEMA}.applied_migrations() to {SCHEDULER};
"""  # noqa: S608
_log = logging.getLogger("crmbridge.db.schema")
_pogo_log = logging.getLogger("crmbridge.db.schema.pogo")
_pogo_log.setLevel(logging.ERROR)  # it warns for every file it applies


async def migrate(owner_dsn: str, folder: Path = MIGRATIONS) -> list[str]:
    """Bring the database to the newest schema and return the names of the files applied, in order.

    Several processes may call it at once: one works, the others wait and find nothing to do. A failing file is
    rolled back, the ones before it stay, and ``DatabaseMisconfigured`` names it. The job engine's own tables are
    installed or upgraded as well.
    """
    files = migration_files(folder)
    async with _locked(owner_dsn) as conn:
        todo = await _missing(conn, files)
        if todo:
            await _apply(conn, files)
            _log.info("migrations applied: %s", ", ".join(todo))
        await install_job_tables(conn)
        await conn.execute(_APPLIED)
        return todo


async def pending(owner_dsn: str, folder: Path = MIGRATIONS) -> list[str]:
    """Return the names of the files not applied yet; empty when the schema is up to date. Changes nothing."""
    files = migration_files(folder)
    conn = await connect(owner_dsn)
    try:
        return await _missing(conn, files)
    finally:
        await conn.close()


async def unapplied(scheduler: Any, folder: Path = MIGRATIONS) -> list[str]:
    """The same asked as the scheduler role, on its pool or a connection. Files of a newer version do not count: while
    an update rolls on, the processes of the older version go on serving."""
    rows = await scheduler.fetch(f"select name from {SCHEMA}.applied_migrations()")  # noqa: S608
    applied = {row["name"] for row in rows}
    return [path.stem for path in migration_files(folder) if path.stem not in applied]


def migration_files(folder: Path) -> list[Path]:
    """Return the migration files in order; a wrong name or a number used twice or left out is an error."""
    files = sorted(path for path in folder.iterdir() if path.suffix == ".sql")
    for position, path in enumerate(files, start=1):
        match = _NAME.match(path.name)
        if match is None:
            raise DatabaseMisconfigured(f"Migration {path.name} must be named NNNN_verb_noun.sql.")
        if int(match[1]) != position:
            raise DatabaseMisconfigured(f"Migration {path.name} should have number {position:04d}.")
    return files


@asynccontextmanager
async def _locked(owner_dsn: str) -> AsyncIterator[Any]:
    conn = await connect(owner_dsn)
    try:
        if await conn.fetchval("select current_user") != OWNER:
            raise DatabaseMisconfigured(f"Migrations run as {OWNER} only, so that it owns every table.")
        await conn.execute("select pg_advisory_lock($1)", _LOCK)
        yield conn
    finally:
        await conn.close()  # ends the session and with it the lock


async def _missing(conn: Any, files: list[Path]) -> list[str]:
    known: set[str] = set()
    if await conn.fetchval("select to_regclass('public._pogo_migration') is not null"):
        known = await pogo_sql.get_applied_migrations(conn, schema_name=SCHEMA)
    unknown = known - {path.stem for path in files}
    if unknown:
        raise DatabaseMisconfigured(
            f"The database holds migrations this version does not know ({', '.join(sorted(unknown))}): "
            "it was migrated by a newer crmbridge. Run that version or a newer one."
        )
    return [path.stem for path in files if path.stem not in known]


async def _apply(conn: Any, files: list[Path]) -> None:
    with tempfile.TemporaryDirectory(prefix="crmbridge-migrations-") as folder:
        await asyncio.to_thread(_write_pogo_files, files, Path(folder))
        try:
            await pogo_migrate.apply(conn, Path(folder), schema_name=SCHEMA, logger=_pogo_log)
        except pogo_error.BadMigrationError as error:
            cause = error.__cause__
            detail = f": {cause}" if isinstance(cause, asyncpg.PostgresError) else ""
            raise DatabaseMisconfigured(f"{error}{detail}") from cause


def _write_pogo_files(files: list[Path], folder: Path) -> None:
    """Wrap each plain file in pogo's form: a message, the file it depends on, no rollback part."""
    previous = ""
    for path in files:
        body = path.read_text(encoding="utf-8")
        head = "".join(body.splitlines(keepends=True)[:5])
        outside = "-- transaction: false\n" if "-- transaction: false" in head else ""
        text = f"-- {path.stem}\n-- depends: {previous}\n{outside}\n-- migrate: apply\n{body}\n-- migrate: rollback\n"
        (folder / path.name).write_text(text, encoding="utf-8")
        previous = path.stem
