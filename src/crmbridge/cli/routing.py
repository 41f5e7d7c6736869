"""``crmbridge connections``: a tenant's CRMs, where objects go, pause and resume."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from crmbridge.cli.client import Client, find_key
from crmbridge.cli.connections import list_connections, routes_in_short
from crmbridge.cli.options import DEFAULT_URL, AsJson, TenantName, Url, parse_texts
from crmbridge.cli.output import Output, guarded
from crmbridge.cli.problems import Problem, UsageProblem

__all__ = ["app"]

Reason = Annotated[str, typer.Option("--reason", help="Kept in the audit log; nothing personal.")]
ConnectionName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the connection.")]


class _ListFirst(TyperGroup):
    """``crmbridge connections acme`` is ``crmbridge connections list acme``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        is_help = any(arg in ctx.help_option_names for arg in args[:1])
        if args and not is_help and args[0] not in self.commands:
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    no_args_is_help=True,
    cls=_ListFirst,
    help="A tenant's connections: list, routes, pause, resume. `crmbridge connections TENANT` lists.",
)
app.command("list")(list_connections)


@app.command("routes")
@guarded
async def routes(
    tenant: TenantName,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Name of the connection.")] = "",
    pairs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[OBJECT=ROLE]...", help="lead=also, all=primary, note=none; none shows."),
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show or set which objects go where. A new primary leaves the old one as `also`."""
    output = Output(as_json)
    if "=" in name:
        raise UsageProblem(
            "Name the connection before its routes.",
            hint="crmbridge connections routes acme second lead=also",
        )
    said = parse_texts(pairs or [], "connections routes")
    async with Client(url, find_key(url)) as client:
        if said:
            answer = await client.call(
                "PUT", "tenants", tenant, "connections", name, "routes", body={"routes": said}
            )
        else:
            answer = await client.get("tenants", tenant, "connections")
    if not said and name:
        known = [each["name"] for each in answer["connections"]]
        answer["connections"] = [each for each in answer["connections"] if each["name"] == name]
        if not answer["connections"]:
            raise Problem(
                f"{tenant} has no connection {name!r}.",
                code="not_found",
                hint=f"The tenant's connections: {', '.join(known)}." if known else "It has none yet.",
            )
    _show(output, answer, tenant)


@app.command("pause")
@guarded
async def pause(
    tenant: TenantName,
    name: ConnectionName,
    reason: Reason = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Accept on, but send nothing to this CRM until it is resumed."""
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        answer = await client.post(
            "tenants", tenant, "connections", name, "pause", body={"reason": reason} if reason else None
        )
    _show(output, answer, tenant)
    output.remark(f"Writes wait meanwhile. To go on: crmbridge connections resume {tenant} {name}")


@app.command("resume")
@guarded
async def resume(
    tenant: TenantName,
    name: ConnectionName,
    reason: Reason = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Go on where it stopped."""
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        answer = await client.post(
            "tenants", tenant, "connections", name, "resume", body={"reason": reason} if reason else None
        )
    _show(output, answer, tenant)


def _show(output: Output, answer: dict[str, Any], tenant: str) -> None:
    if output.as_json:
        output.tree(answer)
        return
    rows = [
        (
            each["name"],
            each["driver"],
            each["status"],
            routes_in_short(each["routes"]),
            "paused" if each["is_paused"] else "",
        )
        for each in answer["connections"]
    ]
    output.table(
        ("connection", "driver", "status", "gets", ""),
        rows,
        empty=f"No connection yet: crmbridge connect {tenant} DRIVER",
    )
