"""``connect``, ``test``, ``activate``, ``connections``, ``describe``, ``mapping``: a tenant's own CRM."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from crmbridge.cli.client import Client, find_key
from crmbridge.cli.consent import follow_flow, show_link, start_flow
from crmbridge.cli.options import (
    DEFAULT_URL,
    AsJson,
    Connection,
    ObjectName,
    TenantName,
    Url,
    parse_texts,
    read_text,
)
from crmbridge.cli.output import Output, guarded, moment
from crmbridge.cli.problems import Problem, ServerRefusal, UsageProblem
from crmbridge.core.records import Object

__all__ = ["activate", "connect", "describe", "list_connections", "mapping", "routes_in_short", "test"]

mapping = typer.Typer(no_args_is_help=True, help="Which slot goes to which field of the CRM.")


@guarded
async def connect(
    tenant: TenantName,
    driver: Annotated[str, typer.Argument(help="Slug of the driver; see `crmbridge drivers`.")],
    values: Annotated[
        list[str] | None,
        typer.Option("--set", help="name=value; name=- reads it from standard input. May be repeated."),
    ] = None,
    files: Annotated[
        list[str] | None, typer.Option("--set-file", help="name=path: the value is the file's text.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the connection.")] = "primary",
    no_activate: Annotated[
        bool, typer.Option("--no-activate", help="Only test; the credential in use goes on.")
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="By consent: print the link and end.")] = False,
    guest_link: Annotated[
        bool, typer.Option("--link", help="Print a connect link for the tenant's own admin instead.")
    ] = False,
    hours: Annotated[int, typer.Option("--hours", help="How long such a link works, 1 to 168.")] = 24,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Connect a tenant's CRM: by a form (asks for what is missing) or a link to consent, tests it live, then uses it.

    Whether a driver takes a form or a link is told by `crmbridge drivers DRIVER`.
    """
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        entry = await _driver_entry(client, driver)
        if guest_link:
            await _make_link(client, output, entry, tenant, parse_texts(values or [], "--set"), name, hours)
            return
        form = _form(entry, values or [], files or [])
        made, link = await _begin(client, entry, tenant, form, name)
        if link is not None:
            if no_wait:
                _show_unfinished(output, link, tenant, entry["display_name"])
                return
            show_link(output, link, entry["display_name"])
            await follow_flow(client, tenant, link, output)
        _show_generated(output, made)
        report = await client.post("tenants", tenant, "credentials", made["id"], "test")
        if report["ok"] and not no_activate:
            report["credential"] = await client.post("tenants", tenant, "credentials", made["id"], "activate")
    if as_json:
        output.tree({**report, "generated": made.get("generated", {})})
        raise typer.Exit(0 if report["ok"] else 1)
    _show_report(output, report, tenant, entry["display_name"])


async def _make_link(
    client: Client,
    output: Output,
    entry: dict[str, Any],
    tenant: str,
    settings: dict[str, str],
    name: str,
    hours: int,
) -> None:
    """``--set`` fixes plain settings, so that the guest cannot change them."""
    body = {"driver": entry["slug"], "settings": settings, "connection": name, "hours": hours}
    made = await client.post("tenants", tenant, "connect-links", body=body)
    if output.as_json:
        output.tree(made)
        return
    output.line(
        f"Hand this to the tenant's own admin; it works until {moment(made['expires_at'])}, in one browser:"
    )
    output.line()
    output.line(made["url"], "bold")
    output.line()
    output.remark(
        f"What comes of it stays pending: crmbridge connections {tenant}, then crmbridge activate {tenant} ID"
    )


async def _begin(
    client: Client, entry: dict[str, Any], tenant: str, form: dict[str, str], name: str
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The credential of a form; or a link, and the id of the credential that it will become.

    A driver's settings may decide which it is, so the server's word counts: it says which way is the other one.
    """
    by_link = entry.get("auth") == "oauth_code"
    for _ in range(2):
        try:
            if by_link:
                link = await start_flow(client, tenant, entry["slug"], form, name)
                return {"id": link["flow_id"]}, link
            body = {"driver": entry["slug"], "settings": form, "connection": name}
            return await client.post("tenants", tenant, "credentials", body=body), None
        except ServerRefusal as refusal:
            other_way = "fill_in" if by_link else "start_oauth"
            if (refusal.body.get("fix") or {}).get("action") != other_way:
                raise
            by_link, last = not by_link, refusal
    raise last


def _show_unfinished(output: Output, link: dict[str, Any], tenant: str, display_name: str) -> None:
    if output.as_json:
        output.tree(link)
        return
    show_link(output, link, display_name)
    flow = link["flow_id"]
    output.remark(f"After consent: crmbridge test {tenant} {flow}, then crmbridge activate {tenant} {flow}")


async def _driver_entry(client: Client, driver: str) -> dict[str, Any]:
    entries = (await client.get("drivers"))["drivers"]
    found: dict[str, Any] | None = next((entry for entry in entries if entry["slug"] == driver), None)
    if found is None:
        known = ", ".join(entry["slug"] for entry in entries)
        raise UsageProblem(f"There is no driver {driver!r}.", hint=f"Known: {known}.")
    return found


def _form(entry: dict[str, Any], values: list[str], files: list[str]) -> dict[str, str]:
    """The settings given, then those asked for on a terminal. Raises UsageProblem naming what is missing."""
    form = {
        name: read_text("-") if text == "-" else text for name, text in parse_texts(values, "--set").items()
    }
    form |= {name: read_text(path) for name, path in parse_texts(files, "--set-file").items()}
    if entry.get("why_unavailable"):
        return form
    missing = [
        setting for setting in entry["settings"] if setting["name"] not in form and setting.get("required")
    ]
    if missing and not sys.stdin.isatty():
        raise UsageProblem(
            f"{entry['display_name']} asks for more.",
            hint="Give each as --set name=value, or --set-file name=path for a secret.",
            fields=[(setting["name"], setting["help"]) for setting in missing],
        )
    for setting in missing:
        form[setting["name"]] = _ask(setting)
    return form


def _ask(setting: dict[str, Any]) -> str:
    typer.secho(setting["help"], dim=True, err=True)
    if setting.get("options"):
        typer.secho("One of: " + ", ".join(setting["options"]), dim=True, err=True)
    example = f" (like {setting['example']})" if setting.get("example") and not setting["secret"] else ""
    answer: str = typer.prompt(setting["label"] + example, hide_input=setting["secret"], err=True)
    return answer


def _show_generated(output: Output, credential: dict[str, Any]) -> None:
    if output.as_json or not credential.get("generated"):
        return
    output.line("Made by crmbridge, shown once; give it to the other side:", "bold")
    output.facts(credential["generated"].items())
    output.line()


def _show_report(output: Output, report: dict[str, Any], tenant: str, driver: str) -> None:
    credential = report["credential"]
    for warning in report.get("warnings") or []:
        output.remark(f"warning: {warning}")
    if missing := credential.get("missing_rights"):
        output.line(f"Rights that were not granted: {', '.join(missing)}", "yellow")
        output.remark("Calls that need them will be refused; connect again to grant them.")
    if not report["ok"]:
        output.line(f"{driver} did not accept the credential; it stays pending.", "yellow")
        output.remark(f"Try again: crmbridge test {tenant} {credential['id']}")
        error = report.get("error") or {}
        raise Problem(str(error.get("message", "The test failed.")), body=error)
    spoken = f" as {credential['account']}" if credential.get("account") else ""
    output.line(f"✓ {driver} answers{spoken} ({report['duration_ms']:.0f} ms).", "green")
    if credential["status"] == "active":
        output.line(f"The connection {credential['connection']} of {tenant} is in use.")
        output.remark(f"Next: crmbridge write {tenant} lead --field email=... --wait 5")
    else:
        output.line(f"Credential {credential['id']} is {credential['status']}.")
        output.remark(f"Next: crmbridge activate {tenant} {credential['id']}")


@guarded
async def activate(
    tenant: TenantName,
    credential: Annotated[str, typer.Argument(help="Id of a tested credential.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Use a tested credential from now on. The one before is kept, to go back to."""
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        made = await client.post("tenants", tenant, "credentials", credential, "activate")
    if as_json:
        output.tree(made)
        return
    output.line(f"The connection {made['connection']} of {tenant} uses {made['driver']} now.", "green")
    if made.get("previous_id"):
        output.remark(f"To go back: crmbridge activate {tenant} {made['previous_id']}")


@guarded
async def test(
    tenant: TenantName,
    credential: Annotated[str, typer.Argument(help="Id of a credential; default: the one in use.")] = "",
    connection: Connection = "primary",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Test a credential live, by the provider's lightest call."""
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        chosen = credential or await _credential_of(client, tenant, connection)
        report = await client.post("tenants", tenant, "credentials", chosen, "test")
    if as_json:
        output.tree(report)
        raise typer.Exit(0 if report["ok"] else 1)
    found = report["credential"]
    output.facts(
        [
            ("driver", found["driver"]),
            ("connection", found["connection"]),
            ("status", found["status"]),
            ("account", found.get("account")),
            ("took", f"{report['duration_ms']:.0f} ms"),
            ("warnings", report.get("warnings")),
        ]
    )
    if not report["ok"]:
        error = report.get("error") or {}
        raise Problem(str(error.get("message", "The test failed.")), body=error)
    output.line("✓ It works.", "green")
    if found["status"] == "pending":
        output.remark(f"Not in use yet: crmbridge activate {tenant} {found['id']}")


async def _credential_of(client: Client, tenant: str, connection: str) -> str:
    """The credential in use, else the newest pending one."""
    found = (await client.get("tenants", tenant, "credentials"))["credentials"]
    mine = [each for each in found if each["connection"] == connection]
    for states in (("active", "needs_reauthorization"), ("pending",)):
        for each in mine:
            if each["status"] in states:
                return str(each["id"])
    if found and not mine:
        known = ", ".join(dict.fromkeys(each["connection"] for each in reversed(found)))
        raise Problem(
            f"{tenant} has no connection {connection!r}.",
            code="not_found",
            hint=f"The tenant's connections: {known}.",
        )
    raise Problem(
        f"{tenant} has no credential on the connection {connection!r}.",
        code="not_configured",
        hint=f"Connect one: crmbridge connect {tenant} DRIVER",
    )


def routes_in_short(routes: dict[str, str]) -> str:
    """``primary: customer, lead; also: note``; one word where every object has the same."""
    by_role: dict[str, list[str]] = {}
    for obj, role in routes.items():
        by_role.setdefault(role, []).append(obj)
    if len(by_role) == 1 and len(routes) == len(Object):
        return f"{next(iter(by_role))}: all"
    return "; ".join(f"{role}: {', '.join(by_role[role])}" for role in sorted(by_role, reverse=True))


@guarded
async def list_connections(tenant: TenantName, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """The connections of a tenant and their credentials."""
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        connections = (await client.get("tenants", tenant, "connections"))["connections"]
        credentials = (await client.get("tenants", tenant, "credentials"))["credentials"]
    if as_json:
        output.tree({"connections": connections, "credentials": credentials})
        return
    rows = [
        (
            each["name"],
            each["driver"],
            each["status"],
            each["account"],
            routes_in_short(each["routes"]),
            _left(each.get("budgets") or []),
            "paused" if each["is_paused"] else "",
        )
        for each in connections
    ]
    output.table(
        ("connection", "driver", "status", "account", "routes", "budget left", ""),
        rows,
        empty=f"No connection yet: crmbridge connect {tenant} DRIVER",
    )
    if credentials:
        output.line()
        lines = [
            (each["id"], each["connection"], each["driver"], each["status"], moment(each.get("created_at")))
            for each in credentials
        ]
        output.table(("credential", "connection", "driver", "status", "made"), lines)


def _left(budgets: list[dict[str, Any]]) -> str:
    """What is left of the provider's rate limits: ``burst 96/110, daily 14,980/15,000``."""
    parts = []
    for each in budgets:
        if each["kind"] == "concurrent":
            continue
        held = f" (held {each['held_seconds']:.0f} s)" if each.get("held_seconds") else ""
        parts.append(f"{each['kind']} {each['remaining']:,}/{each['limit']:,}{held}")
    return ", ".join(parts)


@guarded
async def describe(
    tenant: TenantName,
    object_name: ObjectName,
    connection: Connection = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """The live fields of an object in the tenant's CRM."""
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        answer = await client.get("tenants", tenant, "schema", object_name, connection=connection)
    if as_json:
        output.tree(answer)
        return
    rows = [
        (
            each["path"],
            each.get("label", ""),
            each["type"],
            " ".join(
                word
                for word, is_so in (
                    ("required", each.get("is_required")),
                    ("read-only", each.get("is_read_only")),
                    ("custom", each.get("is_custom")),
                )
                if is_so
            ),
            ", ".join((each.get("options") or [])[:8]),
        )
        for each in answer["fields"]
    ]
    output.table(("field", "label", "type", "", "options"), rows)


# ---------------------------------------------------------------- mapping


@mapping.command("show")
@guarded
async def show_mapping(
    tenant: TenantName,
    object_name: Annotated[str, typer.Argument(metavar="[OBJECT]", help="One object; default: all.")] = "",
    connection: Connection = "primary",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Every slot with the CRM field it goes to, and whose rule that is."""
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        answer = await client.get("tenants", tenant, "mappings", connection=connection)
    lines = [line for line in answer["mappings"] if object_name in ("", line["object"])]
    if as_json:
        output.tree({**answer, "mappings": lines})
    else:
        _show_lines(output, lines)


def _show_lines(output: Output, lines: list[dict[str, Any]]) -> None:
    rows = []
    for line in lines:
        rule = line.get("rule") or {}
        steps = [
            f"{name} {rule[name]}"
            for name in ("native", "format", "values", "constant", "default")
            if rule.get(name) not in (None, "", {})
        ]
        if rule.get("direction", "both") != "both":
            steps.append(f"{rule['direction']} only")
        rows.append(
            (
                f"{line['object']}.{line['slot']}",
                line["type"],
                rule.get("path") or "-",
                ", ".join(steps),
                line["origin"],
            )
        )
    output.table(("slot", "type", "field of the CRM", "steps", "from"), rows)


@mapping.command("set")
@guarded
async def set_mapping(
    tenant: TenantName,
    pairs: Annotated[list[str], typer.Argument(metavar="SLOT=FIELD...", help="lead.budget_max=x_budget")],
    format_name: Annotated[str, typer.Option("--format", help="How the value is written there.")] = "",
    native: Annotated[str, typer.Option("--native", help="Another native object that holds it.")] = "",
    value: Annotated[
        list[str] | None, typer.Option("--value", help="ours=theirs of a pick list. May be repeated.")
    ] = None,
    constant: Annotated[str | None, typer.Option("--constant", help="JSON that is always written.")] = None,
    default: Annotated[
        str | None, typer.Option("--default", help="JSON written on a create without the slot.")
    ] = None,
    direction: Annotated[str, typer.Option("--direction", help="both, write or read.")] = "both",
    connection: Connection = "primary",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Send slots to other fields of the CRM. An empty FIELD leaves the slot unmapped on purpose."""
    rule: dict[str, Any] = {"direction": direction}
    rule |= {"format": format_name} if format_name else {}
    rule |= {"native": native} if native else {}
    rule |= {"values": parse_texts(value, "--value")} if value else {}
    rule |= {"constant": _json(constant, "--constant")} if constant is not None else {}
    rule |= {"default": _json(default, "--default")} if default is not None else {}
    changes = {
        slot: {**rule, "path": path or None} for slot, path in parse_texts(pairs, "mapping set").items()
    }
    await _change(tenant, changes, connection, url, Output(as_json))


@mapping.command("unset")
@guarded
async def unset_mapping(
    tenant: TenantName,
    slots: Annotated[list[str], typer.Argument(metavar="SLOT...", help="lead.budget_max")],
    connection: Connection = "primary",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Go back to the driver's own rule."""
    await _change(tenant, dict.fromkeys(slots), connection, url, Output(as_json))


def _json(text: str, option: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise UsageProblem(f"{option} is not JSON.", hint=f"A text is written {option} '\"text\"'.") from None


async def _change(tenant: str, changes: dict[str, Any], connection: str, url: str, output: Output) -> None:
    async with Client(url, find_key(url)) as client:
        answer = await client.call(
            "PUT", "tenants", tenant, "mappings", body={"changes": changes}, query={"connection": connection}
        )
    if output.as_json:
        output.tree(answer)
        return
    changed = [line for line in answer["mappings"] if f"{line['object']}.{line['slot']}" in changes]
    _show_lines(output, changed)
