"""Errors of the database room. Messages name the host, the database and the fix, never a password."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

from crmbridge.core.errors import Fix, NotConfigured, Unavailable

__all__ = ["DatabaseMisconfigured", "DatabaseUnavailable", "EmbeddedPostgresFailed", "describe_dsn"]


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached, is starting, stopping, or cut the connection. Trying again is right."""

    default_retry_safe = True
    default_fix = Fix(
        "check_database", "Check that PostgreSQL runs and that CRMBRIDGE_DATABASE_URL names it."
    )


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
    """Return ``host:port/database as user`` of a PostgreSQL URL: what an error may show."""
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    host = query.get("host", [parts.hostname or "localhost"])[0]
    port = query.get("port", [str(_port(dsn) or 5432)])[0]
    database = unquote(parts.path.lstrip("/")) or query.get("dbname", ["(default)"])[0]
    return f"{host}:{port}/{database} as {unquote(parts.username or '(default user)')}"


def _port(dsn: str) -> int | None:
    try:
        return urlsplit(dsn).port
    except ValueError:
        return None
