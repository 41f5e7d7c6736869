"""``crmbridge writes``: accepted writes, where they are, and what can be done with stuck ones."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from crmbridge.cli.client import Client, find_key
from crmbridge.cli.options import DEFAULT_URL, AsJson, TenantName, Url
from crmbridge.cli.output import Output, guarded, moment
from crmbridge.cli.problems import UsageProblem

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Accepted writes: list, show, redrive, cancel, discard.")

WriteId = Annotated[str, typer.Argument(metavar="WRITE_ID")]
State = Annotated[str, typer.Option("--state", help="accepted, retrying, applied, parked, dead_letter, …")]
ObjectFilter = Annotated[str, typer.Option("--object", help="Only of this object.")]
ImportFilter = Annotated[str, typer.Option("--import", help="Only of this import.")]


@app.command("list")
@guarded
async def list_writes(
    tenant: TenantName,
    state: State = "",
    object_name: ObjectFilter = "",
    import_id: ImportFilter = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=200)] = 50,
    cursor: Annotated[str, typer.Option("--cursor", help="Of the page before.")] = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Writes of a tenant, newest first."""
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        page = await client.get(
            "tenants",
            tenant,
            "writes",
            state=state,
            object=object_name,
            import_id=import_id,
            limit=limit,
            cursor=cursor,
        )
    if as_json:
        output.tree(page)
        return
    rows = [_row(each, target) for each in page["writes"] for target in each["targets"]]
    output.table(("write", "what", "state", "record", "tries", "accepted", "why"), rows, right=("tries",))
    if counts := {name: count for name, count in (page.get("counts") or {}).items() if count}:
        output.line()
        output.line("   ".join(f"{name} {count:,}" for name, count in counts.items()), "dim")
    if page.get("next_cursor"):
        output.remark(f"More: --cursor {page['next_cursor']}")


def _row(each: dict[str, Any], target: dict[str, Any]) -> tuple[Any, ...]:
    error = target.get("error") or {}
    return (
        each["id"],
        f"{each['operation']} {each['object']}",
        target["state"],
        target.get("remote_id", ""),
        target.get("attempt_count", 0),
        moment(each["accepted_at"]),
        f"{error['code']}: {error.get('message', '')}" if error.get("code") else "",
    )


@app.command("show")
@guarded
async def show(
    tenant: TenantName, write_id: WriteId, url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """One write with its targets."""
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        found = await client.get("tenants", tenant, "writes", write_id)
    _show_write(output, found)


@app.command("redrive")
@guarded
async def redrive(
    tenant: TenantName,
    write_id: Annotated[str, typer.Argument(metavar="[WRITE_ID]", help="One write; else give --all.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="All that match the filters.")] = False,
    state: Annotated[str, typer.Option("--state", help="dead_letter or parked.")] = "dead_letter",
    object_name: ObjectFilter = "",
    import_id: ImportFilter = "",
    code: Annotated[str, typer.Option("--code", help="Only those with this error code.")] = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Try given-up writes again: one, or all that match."""
    if bool(write_id) == everything:
        raise UsageProblem("Name one write, or give --all.")
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        if write_id:
            _show_write(output, await client.post("tenants", tenant, "writes", write_id, "redrive"))
            return
        body = {"state": state, "object": object_name, "import_id": import_id or None, "code": code}
        answer = await client.post("tenants", tenant, "writes", "redrive", body=body)
    if as_json:
        output.tree(answer)
    else:
        output.line(f"{answer['redriven']:,} writes are tried again.")


@app.command("cancel")
@guarded
async def cancel(
    tenant: TenantName, write_id: WriteId, url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """Do not send a write that still waits."""
    await _move(tenant, write_id, "cancel", url, Output(as_json))


@app.command("discard")
@guarded
async def discard(
    tenant: TenantName,
    write_id: WriteId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Give a parked write or dead letter up for good. Audited."""
    if not yes and not typer.confirm("It will never be sent. Discard it?", err=True):
        raise typer.Exit(1)
    await _move(tenant, write_id, "discard", url, Output(as_json))


async def _move(tenant: str, write_id: str, step: str, url: str, output: Output) -> None:
    async with Client(url, find_key(url)) as client:
        _show_write(output, await client.post("tenants", tenant, "writes", write_id, step))


def _show_write(output: Output, found: dict[str, Any]) -> None:
    if output.as_json:
        output.tree(found)
        return
    output.facts(
        [
            ("write", found["id"]),
            ("what", f"{found['operation']} {found['object']}"),
            ("by", f"{found['actor']} ({found['source']})"),
            ("accepted", moment(found["accepted_at"])),
            ("import", found.get("import_id")),
            ("request", found.get("request_id")),
        ]
    )
    for target in found["targets"]:
        error = target.get("error") or {}
        output.line()
        output.facts(
            [
                ("target", target["id"]),
                ("state", target["state"]),
                ("record", target.get("remote_id")),
                ("link", target.get("remote_url")),
                ("tries", target.get("attempt_count")),
                ("next try", moment(target.get("due_at")) if target["state"] == "retrying" else ""),
                ("error", error.get("code")),
                ("why", error.get("message")),
                ("fields", "; ".join(f"{f['field']}: {f['message']}" for f in error.get("fields") or [])),
                ("fix", (error.get("fix") or {}).get("hint")),
            ]
        )
