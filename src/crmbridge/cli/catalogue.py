"""``whoami`` and ``drivers``: what this key may do, what each driver can do."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from crmbridge.cli.client import Client, find_key
from crmbridge.cli.options import DEFAULT_URL, AsJson, Url
from crmbridge.cli.output import Output, guarded

__all__ = ["drivers", "whoami"]

_SIGNS = {"full": "●", "composed": "◐", "limited": "◔", "not_yet": "·", "never": "-"}
_OPERATIONS = ("describe", "lookup", "search", "get", "list", "create", "update", "upsert", "delete", "erase")


@guarded
async def whoami(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Whose API key this is, and its scopes."""
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        answer = await client.get("whoami")
    if as_json:
        output.tree(answer)
        return
    output.facts(
        [
            ("server", client.url),
            ("actor", answer["actor"]),
            ("tenant", answer.get("tenant_id") or answer.get("tenant") or "all (an operator's key)"),
            ("scopes", ", ".join(answer["scopes"])),
            ("key", answer["key_id"]),
        ]
    )


@guarded
async def drivers(
    slug: Annotated[str, typer.Argument(help="One driver in full; default: the matrix.")] = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """What each driver can do, asks for, and was tried against."""
    output = Output(as_json)
    async with Client(url, find_key(url)) as client:
        entries = (await client.get("drivers"))["drivers"]
    chosen = [entry for entry in entries if slug in ("", entry["slug"])]
    if as_json:
        output.tree({"drivers": chosen})
    elif not chosen:
        output.line(f"There is no driver {slug!r}. Known: {', '.join(entry['slug'] for entry in entries)}")
        raise typer.Exit(1)
    elif slug:
        _show_one(output, chosen[0])
    else:
        _show_matrix(output, chosen)


def _show_matrix(output: Output, entries: list[dict[str, Any]]) -> None:
    rows = []
    for entry in entries:
        if entry.get("why_unavailable"):
            rows.append((entry["slug"], "", *("-" for _ in _OPERATIONS), entry["verification"]))
        for name, spec in entry["objects"].items():
            signs = [_SIGNS.get(spec["operations"].get(op, {}).get("level", "-"), "-") for op in _OPERATIONS]
            rows.append((entry["slug"], name, *signs, entry["verification"]))
    output.table(("driver", "object", *_OPERATIONS, "tried"), _without_repeats(rows))
    output.line()
    output.line("● full   ◐ composed   ◔ limited   · not yet   - never", "dim")


def _without_repeats(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    shown, last = [], ""
    for row in rows:
        shown.append(row if row[0] != last else ("", *row[1:-1], ""))
        last = row[0]
    return shown


def _show_one(output: Output, entry: dict[str, Any]) -> None:
    output.line(entry["display_name"], "bold")
    output.facts(
        [
            ("slug", entry["slug"]),
            ("unavailable", entry.get("why_unavailable")),
            ("API", entry["api_version"]),
            ("signs in by", entry["auth"]),
            ("tried", f"{entry['verification']}  {entry.get('verification_note', '')}".strip()),
        ]
    )
    if entry["settings"]:
        output.line()
        rows = [
            (
                setting["name"],
                "generated" if setting.get("generated") else "required" if setting.get("required") else "",
                "secret" if setting["secret"] else "",
                setting["help"],
            )
            for setting in entry["settings"]
        ]
        output.table(("setting", "", "", "help"), rows)
    limits = [
        (f"{name}.{op}", support["level"], support.get("reason", ""))
        for name, spec in entry["objects"].items()
        for op, support in spec["operations"].items()
    ]
    if limits:
        output.line()
        output.table(("operation", "support", "how, or why not"), limits)
