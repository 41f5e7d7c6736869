"""``crmbridge db``: roles, database, migrations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from crmbridge.cli.options import AsJson
from crmbridge.cli.output import Output, guarded
from crmbridge.cli.problems import Problem, UsageProblem
from crmbridge.cli.serving import read_settings

if TYPE_CHECKING:
    from crmbridge.settings import Settings

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Set up and migrate the database.")


@app.command()
@guarded
async def init(
    admin_url: Annotated[
        str,
        typer.Option(
            "--admin-url",
            envvar="CRMBRIDGE_ADMIN_URL",
            help="PostgreSQL URL of a superuser, or of a role with CREATEROLE and CREATEDB.",
        ),
    ],
    database: Annotated[str, typer.Option("--database", help="Name of the database.")] = "crmbridge",
    as_json: AsJson = False,
) -> None:
    """Create the three roles and the database, migrate it, and print the addresses as environment lines.

    Running it again gives the roles new passwords: restart the servers with the new lines then.
    """
    from crmbridge.db.roles import RolePasswords, create_roles
    from crmbridge.db.schema import migrate

    if urlsplit(admin_url).scheme not in ("postgresql", "postgres"):
        raise UsageProblem(
            "--admin-url is a PostgreSQL URL: postgresql://postgres:PASSWORD@host:5432/postgres"
        )
    output = Output(as_json)
    dsns = await create_roles(admin_url, RolePasswords.generate(), database=database)
    applied = await migrate(dsns.owner)
    lines = {
        "CRMBRIDGE_DATABASE_URL": dsns.app,
        "CRMBRIDGE_DATABASE_SCHEDULER_URL": dsns.scheduler,
        "CRMBRIDGE_DATABASE_OWNER_URL": dsns.owner,
    }
    if as_json:
        output.tree({"environment": lines, "applied": applied})
        return
    for name, dsn in lines.items():
        output.line(f"{name}={dsn}")
    output.remark(
        f"{len(applied)} migrations applied. Keep these lines secret; give the owner's only to "
        "`crmbridge db migrate`, never to serve."
    )


@app.command()
@guarded
async def migrate(as_json: AsJson = False) -> None:
    """Bring the database of CRMBRIDGE_DATABASE_OWNER_URL to this version's schema."""
    from crmbridge.db.schema import migrate as apply

    settings = read_settings()
    output = Output(as_json)
    if settings.is_embedded and not settings.database_owner_url:
        from crmbridge.db.embedded import EmbeddedPostgres

        async with EmbeddedPostgres(settings.data_dir, bin_dir=settings.pg_bindir) as postgres:
            applied = await apply(postgres.owner_dsn)
    else:
        applied = await apply(_owner_url(settings))
    if as_json:
        output.tree({"applied": applied})
    else:
        output.line("\n".join(applied) if applied else "Nothing to do: the schema is up to date.")


@app.command()
@guarded
async def status(as_json: AsJson = False) -> None:
    """Which database is used, who signs in, and which migrations are missing. Changes nothing."""
    settings = read_settings()
    output = Output(as_json)
    facts = await (_embedded_facts(settings) if settings.is_embedded else _server_facts(settings))
    if as_json:
        output.tree(facts)
    else:
        output.facts((name.replace("_", " "), value) for name, value in facts.items())
    if facts["missing_migrations"] != "none":
        raise typer.Exit(1)


async def _embedded_facts(settings: Settings) -> dict[str, Any]:
    from crmbridge.db.embedded import EmbeddedPostgres
    from crmbridge.db.schema import pending

    if not (settings.data_dir / "cluster").is_dir():
        raise Problem(
            f"There is no embedded database in {settings.data_dir} yet.",
            code="not_configured",
            hint="`crmbridge serve` makes it at its first start.",
        )
    async with EmbeddedPostgres(settings.data_dir, bin_dir=settings.pg_bindir) as postgres:
        version = await _version(postgres.owner_dsn)
        missing = await pending(postgres.owner_dsn)
    return {
        "database": f"embedded, in {settings.data_dir}",
        "server": version,
        "missing_migrations": ", ".join(missing) or "none",
    }


async def _server_facts(settings: Settings) -> dict[str, Any]:
    from crmbridge.db.errors import describe_dsn
    from crmbridge.db.pool import connect
    from crmbridge.db.roles import check_role
    from crmbridge.db.schema import pending

    for dsn in (settings.database_url, settings.database_scheduler_url):
        conn = await connect(dsn)
        try:
            await check_role(conn)
        finally:
            await conn.close()
    owner = settings.database_owner_url
    missing = (
        ", ".join(await pending(owner)) or "none" if owner else "not known: CRMBRIDGE_DATABASE_OWNER_URL"
    )
    return {
        "database": describe_dsn(settings.database_url),
        "scheduler": describe_dsn(settings.database_scheduler_url),
        "server": await _version(settings.database_url),
        "missing_migrations": missing,
    }


async def _version(dsn: str) -> str:
    from crmbridge.db.pool import connect

    conn = await connect(dsn)
    try:
        version = conn.get_server_version()
        # The client puts the second number of "17.12" into micro.
        return f"PostgreSQL {version.major}.{version.micro}"
    finally:
        await conn.close()


def _owner_url(settings: Settings) -> str:
    if not settings.database_owner_url:
        raise Problem(
            "CRMBRIDGE_DATABASE_OWNER_URL is not set.",
            code="not_configured",
            hint="`crmbridge db init --admin-url ...` prints it.",
        )
    return settings.database_owner_url
