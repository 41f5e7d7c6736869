"""``crmbridge oauth``: this installation's own apps at the providers."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from crmbridge.cli.client import Client, find_key
from crmbridge.cli.options import DEFAULT_URL, AsJson, Url, read_text
from crmbridge.cli.output import Output, guarded, moment
from crmbridge.cli.problems import UsageProblem

__all__ = ["SECRET_VARIABLE", "app"]

SECRET_VARIABLE = "CRMBRIDGE_CLIENT_SECRET"  # noqa: S105 - the name of a variable

app = typer.Typer(
    no_args_is_help=True, help="Apps of this installation at providers that connect by consent."
)

DriverName = Annotated[str, typer.Argument(metavar="DRIVER", help="Slug of the driver.")]


@app.command("apps")
@guarded
async def list_apps(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """The apps, and the redirect address that each must have registered."""
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        answer = await client.get("oauth", "apps")
    if as_json:
        output.tree(answer)
        return
    rows = [
        (each["driver"], each["client_id"], each["updated_by"], moment(each["updated_at"]))
        for each in answer["apps"]
    ]
    output.table(
        ("driver", "client id", "set by", "at"),
        rows,
        empty="No app yet: crmbridge oauth set-app DRIVER --client-id ID",
    )
    _show_redirect(output, answer["redirect_uri"])


@app.command("set-app")
@guarded
async def set_app(
    driver: DriverName,
    client_id: Annotated[str, typer.Option("--client-id", help="From the app's page at the provider.")],
    secret_file: Annotated[
        str,
        typer.Option(
            "--secret-file",
            help=f"File with the client secret; - reads standard input. Default: {SECRET_VARIABLE}, else asked for.",
        ),
    ] = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Set the app of a driver. Its tenants then connect by a link, with nothing to fill in."""
    output = Output(as_json)
    key = find_key(url)
    body = {"client_id": client_id, "client_secret": _secret(secret_file)}
    async with Client(url, key) as client:
        made = await client.call("PUT", "oauth", "apps", driver, body=body)
        redirect = (await client.get("oauth", "apps"))["redirect_uri"]
    if as_json:
        output.tree({**made, "redirect_uri": redirect})
        return
    output.line(f"The app {made['client_id']} is set for {made['driver']}.")
    _show_redirect(output, redirect)
    output.remark(f"Next: crmbridge connect TENANT {made['driver']}")


def _secret(file: str) -> str:
    """From a file, the environment, or a person who types it unseen. Raises UsageProblem."""
    if file:
        return read_text(file)
    if text := os.environ.get(SECRET_VARIABLE, ""):
        return text
    if not sys.stdin.isatty():
        raise UsageProblem(
            "The client secret is missing.",
            hint=f"Give --secret-file PATH, --secret-file - for standard input, or set {SECRET_VARIABLE}.",
        )
    asked: str = typer.prompt("Client secret", hide_input=True, err=True)
    return asked


def _show_redirect(output: Output, address: str) -> None:
    output.line()
    output.line("Redirect address to register with the app, to the letter:", "dim")
    output.line(address, "bold")


@app.command("remove-app")
@guarded
async def remove_app(driver: DriverName, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Forget an app. Connections made with it cannot renew their access any more."""
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        await client.call("DELETE", "oauth", "apps", driver)
    if as_json:
        output.tree({"removed": driver})
    else:
        output.line(f"The app of {driver} is forgotten.")
