"""Errors of the database room. Messages name the host, the database and the fix, never a password."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from crmbridge.core.errors import Fix, NotConfigured, Unavailable
from crmbridge.db.hosts import hosts_of

__all__ = ["DatabaseMisconfigured", "DatabaseUnavailable", "EmbeddedPostgresFailed", "describe_dsn"]


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached, is starting, stopping, or cut the connection. Trying again is right."""

    default_retry_safe = True
    default_fix = Fix(
        "check_database", "Check that PostgreSQL runs and that CRMBRIDGE_DATABASE_URL names it."
    )

    def __init__(self, message: str, *, retry_after_seconds: float | None = 2.0, **rest: Any) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds, **rest)


class DatabaseMisconfigured(NotConfigured):
    """The database answers but is not set up for crmbridge: wrong role, rights, password or schema version."""

    http_status = 503
    default_fix = Fix(
        "init_database", "Run `crmbridge db init --admin-url ...`, then `crmbridge db migrate`."
    )


class EmbeddedPostgresFailed(DatabaseMisconfigured):
    """The embedded PostgreSQL could not be prepared, started or joined."""

    default_fix = Fix(
        "check_data_folder",
        "Read postgres.log in the data folder, or set CRMBRIDGE_DATABASE_URL to use a server of your own.",
    )


def describe_dsn(dsn: str) -> str:
    """Return ``host:port/database as user`` of a PostgreSQL URL, all its hosts: what an error may show."""
    parts = urlsplit(dsn)
    try:
        found = hosts_of(dsn)
    except ValueError:
        found = [(parts.hostname or "localhost", "")]
    where = ",".join(f"{host or 'localhost'}:{port or 5432}" for host, port in found)
    database = unquote(parts.path.lstrip("/")) or parse_qs(parts.query).get("dbname", ["(default)"])[0]
    return f"{where}/{database} as {unquote(parts.username or '(default user)')}"
