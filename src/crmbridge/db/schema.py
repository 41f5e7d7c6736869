"""Migrations: numbered plain SQL files in ``db/migrations``, run in order under an advisory lock by pogo.

A file is named ``NNNN_verb_noun.sql`` and holds plain SQL for PostgreSQL 15 and later: as many statements as it
needs, functions in dollar quotes included. Each file is one transaction; a file whose first lines hold
``-- transaction: false`` (for ``create index concurrently``) is not. There is no way back down: a mistake is
corrected by the next file. See ``docs/decisions/0002-migration-runner.md``.

Processes of an older version go on while a newer one migrates, so a file only adds. One that takes something away
ends in ``_from_NNNN``: processes that know the schema up to that number, or a later one, may run with it; older ones
refuse to start and are not ready. The name is what the database remembers of a file, so the older ones can read it.
See ``docs/decisions/0013-rolling-upgrades.md``.
"""

from __future__ import annotations

import asyncio
import logging
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import asyncpg
from pogo_core import error as pogo_error
from pogo_core.util import migrate as pogo_migrate
from pogo_core.util import sql as pogo_sql

from crmbridge.core.errors import Fix
from crmbridge.db.errors import DatabaseMisconfigured, DatabaseUnavailable
from crmbridge.db.job_tables import install_job_tables
from crmbridge.db.pool import connect
from crmbridge.db.roles import OWNER, SCHEDULER, SCHEMA

__all__ = ["MIGRATIONS", "migrate", "pending", "require_schema", "unapplied", "unfit"]

MIGRATIONS = Path(__file__).parent / "migrations"

_LOCK = 0x63726D62_6D696772  # "crmbmigr"
_NAME = re.compile(r"(?P<number>\d{4})_[a-z0-9_]+?(?:_from_(?P<oldest>\d{4}))?")
# A statement that waits for a lock lets everybody else wait behind it: it gives up soon and tries again later.
_LOCK_SECONDS = 2.0
_LOCK_PAUSE_SECONDS = 1.0
_LOCK_PATIENCE_SECONDS = 120.0
_LATER = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)
_MIGRATE = Fix(
    "migrate_database", "Run `crmbridge db migrate` with CRMBRIDGE_DATABASE_OWNER_URL set, then start again."
)
_NEWER = Fix("run_newer_version", "Run the version of crmbridge that migrated the database, or a newer one.")
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


async def migrate(
    owner_dsn: str, folder: Path = MIGRATIONS, *, patience_seconds: float = _LOCK_PATIENCE_SECONDS
) -> list[str]:
    """Bring the database to the newest schema and return the names of the files applied, in order.

    Several processes may call it at once: one works, the others wait and find nothing to do. A failing file is
    rolled back, the ones before it stay, and ``DatabaseMisconfigured`` names it. A file that does not get its lock
    within two seconds is tried again, for ``patience_seconds`` in all, then ``DatabaseUnavailable``. The job engine's
    own tables are installed or upgraded as well. A database that is newer, and fit for this version, is left alone.
    """
    files = migration_files(folder)
    async with _locked(owner_dsn) as conn:
        todo, newer = await _compared(conn, files)
        if newer:
            return []
        if todo:
            for part in _parts(files, todo):
                await _patiently(conn, lambda part=part: _apply(conn, part), patience_seconds)  # type: ignore[misc]
            _log.info("migrations applied: %s", ", ".join(todo))
        await _patiently(conn, lambda: install_job_tables(conn), patience_seconds)
        await conn.execute(_APPLIED)
        return todo


async def pending(owner_dsn: str, folder: Path = MIGRATIONS) -> list[str]:
    """Return the names of the files not applied yet; empty when the schema is up to date. Changes nothing."""
    files = migration_files(folder)
    conn = await connect(owner_dsn)
    try:
        return (await _compared(conn, files))[0]
    finally:
        await conn.close()


async def unapplied(scheduler: Any, folder: Path = MIGRATIONS) -> list[str]:
    """The same asked as the scheduler role, on its pool or a connection. Files of a newer version do not count: while
    an update rolls on, the processes of the older version go on serving."""
    applied = await _applied(scheduler)
    return [path.stem for path in migration_files(folder) if path.stem not in applied]


async def unfit(scheduler: Any, folder: Path = MIGRATIONS) -> list[str]:
    """Applied files, asked as the scheduler role, that processes of this version cannot work with: a newer version's,
    or another history's."""
    return _unfit(await _applied(scheduler), migration_files(folder))


async def require_schema(scheduler: Any, folder: Path = MIGRATIONS) -> None:
    """Let a process start: its own files are applied, and no newer one has taken away what it uses.

    Raises ``DatabaseMisconfigured`` with the command that helps.
    """
    try:
        applied = await _applied(scheduler)
    except (asyncpg.UndefinedFunctionError, asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        raise DatabaseMisconfigured(
            "The database is not migrated: it holds no list of migrations.", fix=_MIGRATE
        ) from None
    files = migration_files(folder)
    _require_fit(applied, files)
    missing = [path.stem for path in files if path.stem not in applied]
    if missing:
        raise DatabaseMisconfigured(
            f"The database is older than this version of crmbridge needs; not applied: {', '.join(missing)}.",
            fix=_MIGRATE,
        )


async def _applied(scheduler: Any) -> set[str]:
    rows = await scheduler.fetch(f"select name from {SCHEMA}.applied_migrations()")  # noqa: S608
    return {row["name"] for row in rows}


def _unfit(applied: set[str], files: list[Path]) -> list[str]:
    found = []
    for name in sorted(applied - {path.stem for path in files}):
        match = _NAME.fullmatch(name)
        # Nobody but a newer version has higher numbers.
        if match is None or int(match["number"]) <= len(files) or int(match["oldest"] or 0) > len(files):
            found.append(name)
    return found


def _require_fit(applied: set[str], files: list[Path]) -> None:
    if unfit_names := _unfit(applied, files):
        raise DatabaseMisconfigured(
            f"The database holds migrations this version cannot work with ({', '.join(unfit_names)}): "
            "it was migrated by a newer crmbridge.",
            fix=_NEWER,
        )


def migration_files(folder: Path) -> list[Path]:
    """Return the migration files in order; a wrong name or a number used twice or left out is an error."""
    files = sorted(path for path in folder.iterdir() if path.suffix == ".sql")
    for position, path in enumerate(files, start=1):
        match = _NAME.fullmatch(path.stem)
        if match is None:
            raise DatabaseMisconfigured(f"Migration {path.name} must be named NNNN_verb_noun.sql.")
        if int(match["number"]) != position:
            raise DatabaseMisconfigured(f"Migration {path.name} should have number {position:04d}.")
        if int(match["oldest"] or 0) >= position:
            raise DatabaseMisconfigured(f"Migration {path.name} must name an earlier one after `from`.")
    return files


@asynccontextmanager
async def _locked(owner_dsn: str) -> AsyncIterator[Any]:
    conn = await connect(owner_dsn)
    try:
        if await conn.fetchval("select current_user") != OWNER:
            raise DatabaseMisconfigured(f"Migrations run as {OWNER} only, so that it owns every table.")
        # Asked for again and again: a statement that waits in the server would keep its snapshot meanwhile, and an
        # index that is built concurrently by whoever holds the lock waits for the end of all older snapshots.
        while not await conn.fetchval("select pg_try_advisory_lock($1)", _LOCK):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        yield conn
    finally:
        await conn.close()  # ends the session and with it the lock


async def _compared(conn: Any, files: list[Path]) -> tuple[list[str], list[str]]:
    """Names not applied yet, and names of a newer version. Raises for a database that is not fit for this version."""
    applied: set[str] = set()
    if await conn.fetchval("select to_regclass('public._pogo_migration') is not null"):
        applied = await pogo_sql.get_applied_migrations(conn, schema_name=SCHEMA)
    _require_fit(applied, files)
    names = [path.stem for path in files]
    return [name for name in names if name not in applied], sorted(applied - set(names))


def _parts(files: list[Path], todo: list[str]) -> list[list[Path]]:
    """All files up to each place where the next ones run otherwise: in a transaction each, or outside of one."""
    ends = [
        place
        for place, path in enumerate(files, start=1)
        if path.stem in todo and (place == len(files) or _is_outside(path) or _is_outside(files[place]))
    ]
    return [files[:end] for end in ends]


def _is_outside(path: Path) -> bool:
    return "-- transaction: false" in "".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:5])


async def _patiently(conn: Any, work: Callable[[], Awaitable[None]], patience_seconds: float) -> None:
    """Again and again while locks are not to be had."""
    deadline = monotonic() + patience_seconds
    while True:
        try:
            await work()
            return
        except (*_LATER, pogo_error.BadMigrationError) as error:
            cause = error.__cause__ if isinstance(error, pogo_error.BadMigrationError) else error
            if not isinstance(cause, _LATER):
                detail = f": {cause}" if isinstance(cause, asyncpg.PostgresError) else ""
                raise DatabaseMisconfigured(f"{error}{detail}") from cause
            if monotonic() > deadline:
                raise DatabaseUnavailable(
                    f"{error}: others held the locks that it needs for {patience_seconds:.0f} s.",
                    fix=Fix(
                        "end_long_transactions",
                        "End long transactions (pg_stat_activity shows them) and run it again.",
                    ),
                ) from None
            _log.warning("%s: %s; trying again", error, type(cause).__name__)
            await asyncio.sleep(_LOCK_PAUSE_SECONDS)


async def _apply(conn: Any, files: list[Path]) -> None:
    # An index that is built concurrently waits for older transactions and holds up nobody meanwhile.
    await conn.execute(f"set lock_timeout = {0 if _is_outside(files[-1]) else int(_LOCK_SECONDS * 1000)}")
    with tempfile.TemporaryDirectory(prefix="crmbridge-migrations-") as folder:
        await asyncio.to_thread(_write_pogo_files, files, Path(folder))
        await pogo_migrate.apply(conn, Path(folder), schema_name=SCHEMA, logger=_pogo_log)


def _write_pogo_files(files: list[Path], folder: Path) -> None:
    """Wrap each plain file in pogo's form: a message, the file it depends on, no rollback part."""
    previous = ""
    for path in files:
        body = path.read_text(encoding="utf-8")
        outside = "-- transaction: false\n" if _is_outside(path) else ""
        text = f"-- {path.stem}\n-- depends: {previous}\n{outside}\n-- migrate: apply\n{body}\n-- migrate: rollback\n"
        (folder / path.name).write_text(text, encoding="utf-8")
        previous = path.stem
