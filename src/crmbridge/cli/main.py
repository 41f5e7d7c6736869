"""The command line: every command in one place. The composition root calls :func:`build`."""

from __future__ import annotations

from typing import Annotated

import typer

from crmbridge._version import __version__
from crmbridge.cli import (
    catalogue,
    connections,
    databases,
    keyring,
    oauth,
    operators,
    oversight,
    records,
    routing,
    serving,
    tenants,
    writes,
)
from crmbridge.cli.demo.run import add_demo
from crmbridge.cli.importing.command import import_file
from crmbridge.cli.processes import Processes

__all__ = ["build"]

_SERVER, _SETUP, _RECORDS, _WATCH, _TRY = (
    "Server",
    "Tenants and CRMs",
    "Records",
    "Watch and repair",
    "Try it",
)


def build(processes: Processes) -> typer.Typer:
    """The whole command line over these processes."""
    app = typer.Typer(
        name="crmbridge",
        help="Write into and read from each customer's own CRM.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def options(
        version: Annotated[
            bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
        ] = False,
    ) -> None:
        pass

    serving.add_serving(app, processes)
    app.add_typer(databases.app, name="db", rich_help_panel=_SERVER)
    app.add_typer(keyring.build_keys(processes), name="keys", rich_help_panel=_SERVER)
    app.add_typer(operators.build_operators(processes), name="operators", rich_help_panel=_SERVER)
    app.add_typer(tenants.app, name="tenants", rich_help_panel=_SETUP)
    app.command("connect", rich_help_panel=_SETUP)(connections.connect)
    app.command("test", rich_help_panel=_SETUP)(connections.test)
    app.command("activate", rich_help_panel=_SETUP)(connections.activate)
    app.add_typer(routing.app, name="connections", rich_help_panel=_SETUP)
    app.command("describe", rich_help_panel=_SETUP)(connections.describe)
    app.add_typer(connections.mapping, name="mapping", rich_help_panel=_SETUP)
    app.add_typer(oauth.app, name="oauth", rich_help_panel=_SETUP)
    app.command("drivers", rich_help_panel=_SETUP)(catalogue.drivers)
    app.command("whoami", rich_help_panel=_SETUP)(catalogue.whoami)
    app.command("write", rich_help_panel=_RECORDS)(records.write)
    app.command("update", rich_help_panel=_RECORDS)(records.update)
    app.command("delete", rich_help_panel=_RECORDS)(records.delete)
    app.command("read", rich_help_panel=_RECORDS)(records.read)
    app.command("list", rich_help_panel=_RECORDS)(records.list_records)
    app.command("search", rich_help_panel=_RECORDS)(records.search)
    app.command("lookup", rich_help_panel=_RECORDS)(records.lookup)
    app.command("import", rich_help_panel=_RECORDS)(import_file)
    app.add_typer(writes.app, name="writes", rich_help_panel=_WATCH)
    app.add_typer(oversight.incidents, name="incidents", rich_help_panel=_WATCH)
    app.add_typer(oversight.audit, name="audit", rich_help_panel=_WATCH)
    add_demo(app, processes, panel=_TRY)
    app.command("emulate", rich_help_panel=_TRY)(serving.emulate)
    app.command("conformance", rich_help_panel=_TRY)(serving.conformance)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"crmbridge {__version__}")
        raise typer.Exit
