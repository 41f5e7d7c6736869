"""``crmbridge writes``: accepted writes, where they are, and what can be done with stuck ones."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import typer

from crmbridge.cli.client import Client, find_key
from crmbridge.cli.options import DEFAULT_URL, AsJson, Cursor, PageSize, TenantName, Url
from crmbridge.cli.output import Output, guarded, moment
from crmbridge.cli.problems import UsageProblem
from crmbridge.cli.progress import make_progress

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Accepted writes: list, show, redrive, cancel, discard.")

WriteId = Annotated[str, typer.Argument(metavar="WRITE_ID")]
State = Annotated[str, typer.Option("--state", help="accepted, retrying, applied, parked, dead_letter, …")]
ObjectFilter = Annotated[str, typer.Option("--object", help="Only of this object.")]
ImportFilter = Annotated[str, typer.Option("--import", help="Only of this import.")]
CodeFilter = Annotated[str, typer.Option("--code", help="Only those with this error code.")]
OnConnection = Annotated[str, typer.Option("--connection", help="Only what goes to this connection.")]
OneOrAll = Annotated[str, typer.Argument(metavar="[WRITE_ID]", help="One write; else give --all.")]
Everything = Annotated[bool, typer.Option("--all", help="All that match the filters.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
# Of one call when many are moved: each is one transaction, and the bar moves on.
_PART = 1_000


@app.command("list")
@guarded
async def list_writes(
    tenant: TenantName,
    state: State = "",
    object_name: ObjectFilter = "",
    import_id: ImportFilter = "",
    connection: OnConnection = "",
    limit: PageSize = 50,
    cursor: Cursor = "",
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
            connection=connection,
            limit=limit,
            cursor=cursor,
        )
    if as_json:
        output.tree(page)
        return
    rows = [_row(each, target) for each in page["writes"] for target in each["targets"]]
    headers = ("write", "what", "connection", "state", "record", "tries", "accepted", "why")
    output.table(headers, rows, right=("tries",))
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
        target.get("connection", ""),
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
    write_id: OneOrAll = "",
    everything: Everything = False,
    state: Annotated[str, typer.Option("--state", help="dead_letter or parked.")] = "dead_letter",
    object_name: ObjectFilter = "",
    import_id: ImportFilter = "",
    connection: OnConnection = "",
    code: CodeFilter = "",
    without_looking: Annotated[
        bool,
        typer.Option(
            "--without-looking",
            help="Send parked ones without the look-up first. What did reach the CRM is then there twice.",
        ),
    ] = False,
    yes: Yes = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Try given-up writes again: one, or all that match. What is parked is looked up in the CRM first."""
    question = "A parked write that did reach the CRM will be there twice. Send without looking?"
    if without_looking and not yes and not typer.confirm(question, err=True):
        raise typer.Exit(1)
    wanted = {"state": state, "object": object_name, "import_id": import_id, "code": code}
    step = _Step("redrive", "redriven", "tried again", {"without_looking": True} if without_looking else {})
    await _move(step, tenant, write_id, everything, connection, wanted, url, Output(as_json))


@app.command("cancel")
@guarded
async def cancel(
    tenant: TenantName,
    write_id: OneOrAll = "",
    everything: Everything = False,
    state: Annotated[str, typer.Option("--state", help="accepted or retrying; default: both.")] = "",
    object_name: ObjectFilter = "",
    import_id: ImportFilter = "",
    connection: OnConnection = "",
    code: CodeFilter = "",
    yes: Yes = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Do not send a write that still waits, or all that match."""
    if everything and not yes and not typer.confirm("All that match will never be sent. Cancel?", err=True):
        raise typer.Exit(1)
    wanted = {"state": state, "object": object_name, "import_id": import_id, "code": code}
    step = _Step("cancel", "cancelled", "cancelled")
    await _move(step, tenant, write_id, everything, connection, wanted, url, Output(as_json))


@app.command("discard")
@guarded
async def discard(
    tenant: TenantName,
    write_id: OneOrAll = "",
    everything: Everything = False,
    state: Annotated[str, typer.Option("--state", help="dead_letter or parked.")] = "dead_letter",
    object_name: ObjectFilter = "",
    import_id: ImportFilter = "",
    connection: OnConnection = "",
    code: CodeFilter = "",
    reason: Annotated[
        str, typer.Option("--reason", help="Kept in the audit log; at most 500 characters, nothing personal.")
    ] = "",
    yes: Yes = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Give a parked write or dead letter up for good, or all that match. Audited."""
    what = "All that match" if everything else "It"
    if not yes and not typer.confirm(f"{what} will never be sent. Discard?", err=True):
        raise typer.Exit(1)
    wanted = {
        "state": state,
        "object": object_name,
        "import_id": import_id,
        "code": code,
    }
    step = _Step("discard", "discarded", "discarded", why={"reason": reason} if reason else {})
    await _move(step, tenant, write_id, everything, connection, wanted, url, Output(as_json))


class _Step(NamedTuple):
    """``name`` in the path, ``counted`` in the answer, ``told`` to the person; ``how`` and ``why`` go along.

    For one write ``how`` stands in the query and ``why`` in the body.
    """

    name: str
    counted: str
    told: str
    how: Mapping[str, bool] = MappingProxyType({})
    why: Mapping[str, str] = MappingProxyType({})


async def _move(
    step: _Step,
    tenant: str,
    write_id: str,
    everything: bool,
    connection: str,
    wanted: dict[str, str],
    url: str,
    output: Output,
) -> None:
    if bool(write_id) == everything:
        raise UsageProblem("Name one write, or give --all.")
    async with Client(url, find_key(url)) as client:
        if write_id:
            how = dict.fromkeys(step.how, "true")
            found = await client.post(
                "tenants",
                tenant,
                "writes",
                write_id,
                step.name,
                body=dict(step.why),
                connection=connection,
                **how,
            )
            _show_write(output, found)
            return
        body: dict[str, Any] = {n: text for n, text in {**wanted, "connection": connection}.items() if text}
        body |= {**step.how, **step.why}
        moved = await _move_all(client, output, step, tenant, body)
    if output.as_json:
        output.tree({step.counted: moved})
    else:
        output.line(f"{moved:,} {'target is' if moved == 1 else 'targets are'} {step.told}.")


async def _move_all(client: Client, output: Output, step: _Step, tenant: str, body: dict[str, Any]) -> int:
    """Part by part, so that a long one shows where it is and can be broken off."""
    moved = 0
    with make_progress(output) as progress:
        task = progress.add_task(step.name, total=None, told="")
        while True:
            answer = await client.post("tenants", tenant, "writes", step.name, body={**body, "limit": _PART})
            moved += int(answer[step.counted])
            total = moved + answer["left"]
            progress.update(task, completed=moved, total=total, told=f"{moved:,} of {total:,}")
            if not answer["left"] or not answer[step.counted]:
                return moved
            if progress.disable:
                output.remark(f"{moved:,} of {total:,}")
            body["until"] = answer["until"]


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
                ("connection", target.get("connection", "")),
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
