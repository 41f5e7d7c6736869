"""``crmbridge tenants``: customers and their API keys."""

from __future__ import annotations

from typing import Annotated

import typer

from crmbridge.cli.client import Client, find_key
from crmbridge.cli.options import DEFAULT_URL, AsJson, TenantName, Url
from crmbridge.cli.output import Output, guarded, moment

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Tenants and their API keys.")
keys = typer.Typer(no_args_is_help=True, help="API keys of a tenant.")
app.add_typer(keys, name="keys")


@app.command("add")
@guarded
async def add(
    slug: Annotated[str, typer.Argument(help="Short name for addresses: lower case, digits, dashes.")],
    name: Annotated[str, typer.Option("--name", help="Full name; default: the slug.")] = "",
    vertical: Annotated[
        str,
        typer.Option("--vertical", help="clinic, salon, auto_service, restaurant, real_estate or general."),
    ] = "general",
    region: Annotated[str, typer.Option("--region", help="Country of national phone numbers, as AE.")] = "",
    time_zone: Annotated[str, typer.Option("--time-zone", help="As Asia/Dubai.")] = "UTC",
    unknown_slots: Annotated[
        str, typer.Option("--unknown-slots", help="refuse, or note: keep what has no slot in a note.")
    ] = "refuse",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Add a tenant."""
    output = Output(as_json)
    body = {
        "slug": slug,
        "name": name or slug,
        "vertical": vertical,
        "region": region,
        "time_zone": time_zone,
        "unknown_slots": unknown_slots,
    }
    async with Client(url, find_key(url)) as client:
        tenant = await client.post("tenants", body=body)
    if as_json:
        output.tree(tenant)
        return
    output.line(f"Tenant {tenant['slug']} is there.  {tenant['id']}")
    output.remark(f"Next: crmbridge connect {tenant['slug']} DRIVER")


@app.command("list")
@guarded
async def list_tenants(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """All tenants."""
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        answer = await client.get("tenants")
    if as_json:
        output.tree(answer)
        return
    rows = [
        (
            each["slug"],
            each["name"],
            each["vertical"],
            each["region"],
            each["time_zone"],
            moment(each["created_at"]),
        )
        for each in answer["tenants"]
    ]
    output.table(
        ("slug", "name", "vertical", "region", "time zone", "since"),
        rows,
        empty="There is no tenant yet: crmbridge tenants add SLUG",
    )


@app.command("show")
@guarded
async def show(tenant: TenantName, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """One tenant and its connections."""
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        found = await client.get("tenants", tenant)
        connections = (await client.get("tenants", tenant, "connections"))["connections"]
    if as_json:
        output.tree({**found, "connections": connections})
        return
    output.facts((name.replace("_", " "), value) for name, value in found.items())
    output.line()
    rows = [(each["name"], each["driver"], each["status"], each["account"]) for each in connections]
    output.table(("connection", "driver", "status", "account"), rows, empty="No connection yet.")


@keys.command("add")
@guarded
async def add_key(
    tenant: TenantName,
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", help="read, write:lead, write:*, delete, erase, admin. May be repeated."),
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Make an API key for a tenant. It is shown once."""
    output = Output(as_json)
    body = {"name": name, "scopes": scopes or ["read", "write:*"]}
    async with Client(url, find_key(url)) as client:
        answer = await client.post("tenants", tenant, "keys", body=body)
    if as_json:
        output.tree(answer)
        return
    output.line(answer["token"])
    output.remark(f"Shown once. Scopes: {', '.join(answer['key']['scopes'])}. Id: {answer['key']['id']}")


@keys.command("list")
@guarded
async def list_keys(tenant: TenantName, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """The keys of a tenant, without the keys themselves."""
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        answer = await client.get("tenants", tenant, "keys")
    if as_json:
        output.tree(answer)
        return
    rows = [
        (
            each["id"],
            each["name"],
            f"{each['prefix']}…",
            ", ".join(each["scopes"]),
            moment(each["created_at"]),
            "revoked" if each.get("revoked_at") else "active",
        )
        for each in answer["keys"]
    ]
    output.table(("id", "name", "begins", "scopes", "made", "state"), rows, empty="No key yet.")


@keys.command("revoke")
@guarded
async def revoke_key(
    tenant: TenantName,
    key_id: Annotated[str, typer.Argument(help="Id of the key.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Revoke a key for good."""
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        await client.call("DELETE", "tenants", tenant, "keys", key_id)
    if as_json:
        output.tree({"revoked": key_id})
    else:
        output.line(f"Key {key_id} is revoked.")
