"""``crmbridge incidents`` and ``crmbridge audit``: what an operator must see, and what happened."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from crmbridge.cli.client import Client, find_key
from crmbridge.cli.options import DEFAULT_URL, AsJson, TenantName, Url
from crmbridge.cli.output import Output, guarded, moment

__all__ = ["audit", "incidents"]

incidents = typer.Typer(no_args_is_help=True, help="What an operator must see.")
audit = typer.Typer(no_args_is_help=True, help="The audit log.")

IncidentId = Annotated[str, typer.Argument(metavar="INCIDENT_ID")]


@incidents.command("list")
@guarded
async def list_incidents(
    tenant: Annotated[str, typer.Option("--tenant", "-t", help="Only of this tenant.")] = "",
    kind: Annotated[str, typer.Option("--kind", help="crm_sync_failure, reauthorization_needed, …")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000)] = 100,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Incidents that are not resolved."""
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        answer = await client.get("incidents", tenant=tenant, kind=kind, limit=limit)
    if as_json:
        output.tree(answer)
        return
    rows = [
        (
            each["id"],
            each["kind"],
            each["state"],
            each["title"],
            each["times_seen"],
            moment(each["opened_at"]),
            each["tenant_id"],
        )
        for each in answer["incidents"]
    ]
    output.table(
        ("incident", "kind", "state", "what", "seen", "since", "tenant"),
        rows,
        empty="No open incident.",
        right=("seen",),
    )


@incidents.command("show")
@guarded
async def show(
    tenant: TenantName, incident: IncidentId, url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """One incident: what it is about, and what to do."""
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        found = await client.get("incidents", tenant, incident)
    if as_json:
        output.tree(found)
        return
    output.line(found["title"])
    output.facts(
        [
            ("incident", found["id"]),
            ("kind", found["kind"]),
            ("state", found["state"]),
            ("opened", moment(found["opened_at"])),
            ("seen", f"{found['times_seen']:,} times, the last one {moment(found['last_seen_at'])}"),
            *((name.replace("_", " "), _text(value)) for name, value in found["details"].items()),
        ]
    )


def _text(value: Any) -> Any:
    """Values of one thing, such as the oldest write, on one line."""
    return "  ".join(f"{name}={text}" for name, text in value.items()) if isinstance(value, dict) else value


@incidents.command("acknowledge")
@guarded
async def acknowledge(
    tenant: TenantName, incident: IncidentId, url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """Say that someone is on it."""
    await _move(tenant, incident, "acknowledge", url, Output(as_json))


@incidents.command("resolve")
@guarded
async def resolve(
    tenant: TenantName, incident: IncidentId, url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """Say that it is over."""
    await _move(tenant, incident, "resolve", url, Output(as_json))


async def _move(tenant: str, incident: str, step: str, url: str, output: Output) -> None:
    async with Client(url, find_key(url)) as client:
        answer = await client.post("incidents", tenant, incident, step)
    if output.as_json:
        output.tree(answer)
    else:
        output.line(f"Incident {incident} is {step}d.")


@audit.command("list")
@guarded
async def list_audit(
    tenant: TenantName,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000)] = 50,
    before: Annotated[str, typer.Option("--before", help="Rows before this moment (RFC 3339).")] = "",
    action: Annotated[str, typer.Option("--action", help="Only this action, such as crm.call.")] = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """What happened to a tenant, newest first."""
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        answer = await client.get("tenants", tenant, "audit", limit=limit, before=before, action=action)
    if as_json:
        output.tree(answer)
        return
    rows = [
        (
            moment(each["at"]),
            each["action"],
            each["actor"],
            each.get("subject_id", ""),
            "  ".join(f"{name}={value}" for name, value in (each.get("details") or {}).items()),
        )
        for each in answer["entries"]
    ]
    output.table(("at", "action", "actor", "subject", "details"), rows)
