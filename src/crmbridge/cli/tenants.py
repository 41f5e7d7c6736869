"""``crmbridge tenants``: customers, their API keys, and the health-data gate."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from crmbridge.cli.client import Client, find_key
from crmbridge.cli.options import DEFAULT_URL, AsJson, TenantName, Url
from crmbridge.cli.output import Output, guarded, moment
from crmbridge.cli.problems import UsageProblem

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Tenants, their API keys and gates.")
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


_PAPERS = ("baa_reference", "baa_signatory", "baa_signed_on", "reviewer", "reviewed_on")


@app.command("gate")
@guarded
async def gate(
    tenant: TenantName,
    baa_reference: Annotated[
        str, typer.Option("--baa-reference", help="Where the signed agreement is kept, as a document number.")
    ] = "",
    baa_signatory: Annotated[str, typer.Option("--baa-signatory", help="Who signed it for the tenant.")] = "",
    baa_signed_on: Annotated[str, typer.Option("--baa-signed-on", help="Day, as 2026-11-23.")] = "",
    reviewer: Annotated[str, typer.Option("--reviewer", help="Who did the compliance review.")] = "",
    reviewed_on: Annotated[str, typer.Option("--reviewed-on", help="Day, as 2026-11-23.")] = "",
    close: Annotated[
        bool, typer.Option("--close", help="Shut it: calls stop within seconds, the papers stay.")
    ] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show the health-data gate, record papers (those not given stay), or shut it. All five papers open it."""
    output = Output(as_json)
    given = (baa_reference, baa_signatory, baa_signed_on, reviewer, reviewed_on)
    papers = {name: text for name, text in zip(_PAPERS, given, strict=True) if text}
    if close and papers:
        raise UsageProblem("--close goes without papers.", hint="Recording papers opens the gate again.")
    async with Client(url, find_key(url)) as client:
        if close:
            shown = await client.call("DELETE", "tenants", tenant, "gate")
        else:
            shown = await client.get("tenants", tenant, "gate")
            if papers:
                kept = {name: shown[name] for name in _PAPERS if shown.get(name)}
                shown = await client.call("PUT", "tenants", tenant, "gate", body={**kept, **papers})
    if as_json:
        output.tree(shown)
    else:
        _show_gate(output, shown, tenant)


def _show_gate(output: Output, shown: dict[str, Any], tenant: str) -> None:
    if shown["is_open"]:
        output.line(f"The health-data gate of {tenant} is open.", "green")
    else:
        output.line(f"The health-data gate of {tenant} is shut.", "yellow")
    output.facts(
        [
            *((name.replace("baa", "BAA").replace("_", " "), shown.get(name)) for name in _PAPERS),
            ("recorded by", shown.get("recorded_by")),
            ("recorded at", moment(shown.get("recorded_at"))),
        ]
    )
    if shown["missing"]:
        options = " ".join(f"--{name.replace('_', '-')} ..." for name in shown["missing"])
        output.remark(f"To open it: crmbridge tenants gate {tenant} {options}")
    elif shown.get("is_closed"):
        output.remark("An operator shut it. Recording a paper again opens it.")


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
