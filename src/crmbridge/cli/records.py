"""``write``, ``update``, ``delete``, ``read``, ``list``, ``search``, ``lookup``: records of a tenant's CRM."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

import msgspec
import typer

from crmbridge.cli.client import Client, find_key
from crmbridge.cli.options import (
    DEFAULT_URL,
    AsJson,
    Connection,
    Cursor,
    ObjectName,
    PageSize,
    TenantName,
    Url,
    parse_links,
    parse_slots,
    read_text,
)
from crmbridge.cli.output import Output, guarded, moment, plain
from crmbridge.cli.problems import UsageProblem

__all__ = ["delete", "list_records", "lookup", "read", "search", "update", "write"]

RemoteId = Annotated[str, typer.Argument(metavar="REMOTE_ID", help="The CRM's own id.")]
Fields = Annotated[
    list[str] | None, typer.Option("--field", "-f", help="slot=text or slot:=JSON. May be repeated.")
]
JsonFile = Annotated[
    str, typer.Option("--json-file", help="Fields (or a whole request) as JSON; - is standard input.")
]
Links = Annotated[
    list[str] | None,
    typer.Option("--link", help="customer.email=..., or .phone, .remote_id, .write_id. May be repeated."),
]
Wait = Annotated[float, typer.Option("--wait", min=0, max=30, help="Seconds to wait for the CRM.")]
Plan = Annotated[bool, typer.Option("--plan", help="Show what would be sent; send nothing.")]
Key = Annotated[str, typer.Option("--key", help="Idempotency key.")]
ToConnection = Annotated[str, typer.Option("--connection", help="Only to this connection.")]
_SHOWN_FIELDS = (
    "full_name",
    "first_name",
    "last_name",
    "name",
    "title",
    "subject",
    "email",
    "phone",
    "status",
)


def _body(fields: list[str] | None, json_file: str, links: list[str] | None, plan: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"fields": {}}
    if json_file:
        try:
            tree = json.loads(read_text(json_file))
        except ValueError as error:
            raise UsageProblem(f"{json_file} is not JSON: {error}.") from None
        if not isinstance(tree, dict):
            raise UsageProblem(f"{json_file} must hold one JSON object.")
        body = tree if isinstance(tree.get("fields"), dict) else {"fields": tree}
    body["fields"] = {**body["fields"], **parse_slots(fields or [])}
    if links:
        body["links"] = {**body.get("links", {}), **parse_links(links)}
    if plan:
        body["mode"] = "plan"
    return body


def derived_key(tenant: str, object_name: str, body: dict[str, Any], connection: str = "") -> str:
    """The same content for the same place gives the same key, so that a repeated command is no second write."""
    named = [tenant, object_name, body, *([connection] if connection else [])]
    text = json.dumps(named, sort_keys=True, ensure_ascii=False)
    return "cli-" + hashlib.sha256(text.encode()).hexdigest()[:40]


@guarded
async def write(
    tenant: TenantName,
    object_name: ObjectName,
    fields: Fields = None,
    json_file: JsonFile = "",
    match: Annotated[
        list[str] | None, typer.Option("--match", help="Slot that tells a known record: update it.")
    ] = None,
    links: Links = None,
    wait: Wait = 2.0,
    plan: Plan = False,
    key: Key = "",
    connection: ToConnection = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Create a record, or with --match update the one that is there."""
    output = Output(as_json)
    body = _body(fields, json_file, links, plan)
    if match:
        body["match"] = match
    key = key or str(body.pop("idempotency_key", ""))
    is_derived = not key and not plan
    if is_derived:
        key = derived_key(tenant, object_name, body, connection)
    place = (tenant, object_name)
    answer = await _sent(url, "POST", place, body, connection=connection, key=key, wait=wait)
    if is_derived and not as_json:
        output.remark(
            "The idempotency key was made from the content: the same command again answers this write and writes "
            "nothing new. --key names another."
        )
    _show_answer(output, answer)


@guarded
async def update(
    tenant: TenantName,
    object_name: ObjectName,
    remote_id: RemoteId,
    fields: Fields = None,
    json_file: JsonFile = "",
    links: Links = None,
    wait: Wait = 2.0,
    plan: Plan = False,
    key: Key = "",
    connection: ToConnection = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Change fields of one record; the others stay."""
    output = Output(as_json)
    body = _body(fields, json_file, links, plan)
    place = (tenant, object_name, remote_id)
    answer = await _sent(url, "PATCH", place, body, connection=connection, key=key, wait=wait)
    _show_answer(output, answer)


@guarded
async def delete(
    tenant: TenantName,
    object_name: ObjectName,
    remote_id: RemoteId,
    wait: Wait = 2.0,
    key: Key = "",
    connection: ToConnection = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Delete one record in the CRM."""
    if not yes and not typer.confirm(
        f"Delete {object_name} {plain(remote_id)} in the CRM of {tenant}?", err=True
    ):
        raise typer.Exit(1)
    output = Output(as_json)
    place = (tenant, object_name, remote_id)
    answer = await _sent(url, "DELETE", place, connection=connection, key=key, wait=wait)
    _show_answer(output, answer)


async def _sent(
    url: str,
    method: str,
    place: tuple[str, ...],
    body: Any = msgspec.UNSET,
    *,
    connection: str,
    key: str,
    wait: float,
) -> dict[str, Any]:
    """The answer to a write of ``place``: the tenant, the object, and a remote id where there is one."""
    tenant, *record = place
    headers = {"Prefer": f"wait={wait:.0f}"} if wait >= 1 else {}
    async with Client(url, find_key(url)) as client:
        answer: dict[str, Any] = await client.call(
            method,
            "tenants",
            tenant,
            "records",
            *record,
            body=body,
            query={"connection": connection},
            headers=headers | ({"Idempotency-Key": key} if key else {}),
            timeout_seconds=wait + 30,
        )
    return answer


def _show_answer(output: Output, answer: dict[str, Any]) -> None:
    if output.as_json:
        output.tree(answer)
        return
    if "payload" in answer:
        from crmbridge.cli.output import to_json

        output.remark(f"{answer['driver']} would be sent this; nothing was sent.")
        output.console().print(to_json(answer["payload"]), soft_wrap=True)
        for each in answer.get("also", []):
            refusal = (each.get("error") or {}).get("message")
            output.remark(f"{each['connection']} too: {refusal or each['driver']}")
            if not refusal:
                output.console().print(to_json(each["payload"]), soft_wrap=True)
        return
    output.facts(
        [
            ("write", answer["write_id"]),
            ("", "known already: the first answer again" if answer.get("replayed") else ""),
        ]
    )
    rows = [
        (
            target.get("connection", ""),
            target["state"],
            target.get("remote_id", ""),
            target.get("remote_url", ""),
            (target.get("error") or {}).get("message", ""),
        )
        for target in answer["targets"]
    ]
    output.table(("connection", "state", "record", "link", "why"), rows)


# ---------------------------------------------------------------- reading


@guarded
async def read(
    tenant: TenantName,
    object_name: ObjectName,
    remote_id: RemoteId,
    connection: Connection = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """One record with its slots."""
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        record = await client.get("tenants", tenant, "records", object_name, remote_id, connection=connection)
    if as_json:
        output.tree(record)
    else:
        _show_record(output, record)


def _show_record(output: Output, record: dict[str, Any]) -> None:
    output.facts(
        [
            ("record", f"{record['object']} {record['remote_id']}"),
            ("link", record.get("url")),
            ("changed", moment(record.get("updated_at"))),
            ("archived", "yes" if record.get("is_archived") else ""),
        ]
    )
    output.line()
    output.facts(record["fields"].items())


@guarded
async def list_records(
    tenant: TenantName,
    object_name: ObjectName,
    since: Annotated[str, typer.Option("--since", help="Changed since this moment (RFC 3339).")] = "",
    limit: PageSize = 50,
    cursor: Cursor = "",
    connection: Connection = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Records by last change, newest first."""
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        page = await client.get(
            "tenants",
            tenant,
            "records",
            object_name,
            since=since,
            limit=limit,
            cursor=cursor,
            connection=connection,
        )
    _show_page(output, page)


@guarded
async def search(
    tenant: TenantName,
    object_name: ObjectName,
    equals: Annotated[
        list[str] | None, typer.Argument(metavar="SLOT=VALUE...", help="All must hold.")
    ] = None,
    text: Annotated[str, typer.Option("--text", help="Free text.")] = "",
    limit: PageSize = 50,
    cursor: Cursor = "",
    connection: Connection = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Records whose slots equal the given values."""
    output = Output(as_json)
    body = {"equals": parse_slots(equals or []), "text": text, "cursor": cursor, "limit": limit}
    async with Client(url, find_key(url)) as client:
        page = await client.post(
            "tenants", tenant, "records", object_name, "search", body=body, connection=connection
        )
    _show_page(output, page)


@guarded
async def lookup(
    tenant: TenantName,
    phone: Annotated[str, typer.Option("--phone", help="Best with its country code, +971…")] = "",
    email: Annotated[str, typer.Option("--email")] = "",
    connection: Connection = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """A customer by phone or e-mail."""
    if not phone and not email:
        raise UsageProblem("There is nothing to look up.", hint="Give --phone or --email.")
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        page = await client.post(
            "tenants", tenant, "lookup", body={"phone": phone, "email": email}, connection=connection
        )
    _show_page(output, page)


def _show_page(output: Output, page: dict[str, Any]) -> None:
    if output.as_json:
        output.tree(page)
        return
    records = page["records"]
    if len(records) == 1:
        _show_record(output, records[0])
        return
    columns = [name for name in _SHOWN_FIELDS if any(each["fields"].get(name) for each in records)]
    rows = [
        (each["remote_id"], *(each["fields"].get(name) for name in columns), moment(each.get("updated_at")))
        for each in records
    ]
    output.table(("record", *columns, "changed"), rows, empty="No record found.")
    if page.get("next_cursor"):
        output.remark(f"More: --cursor {page['next_cursor']}")
