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
        answer = await client.get("drivers")
    entries, problems = answer["drivers"], answer.get("problems", [])
    chosen = [entry for entry in entries if slug in ("", entry["slug"])]
    if as_json:
        output.tree({"drivers": chosen, "problems": problems})
    elif not chosen:
        output.line(f"There is no driver {slug!r}. Known: {', '.join(entry['slug'] for entry in entries)}")
        raise typer.Exit(1)
    elif slug:
        _show_one(output, chosen[0])
    else:
        _show_matrix(output, chosen)
    for problem in problems:
        output.remark(problem)


def _show_matrix(output: Output, entries: list[dict[str, Any]]) -> None:
    rows = [
        (
            entry["slug"],
            entry.get("auth_text", entry["auth"]) if entry["available"] else "unavailable",
            entry.get("renewal", ""),
            ", ".join(entry.get("read", ())) or "-",
            ", ".join(entry.get("write", ())) or "-",
            _levels(entry.get("delete", {})),
            entry.get("largest_batch", ""),
            entry.get("verified_against", "") if entry["available"] else entry.get("why_unavailable", ""),
        )
        for entry in entries
    ]
    output.table(
        ("driver", "auth", "refreshable", "read", "write", "delete", "batch", "verified against"), rows
    )
    output.line()
    cells = []
    for entry in entries:
        for name, spec in entry["objects"].items():
            signs = [_SIGNS.get(spec["operations"].get(op, {}).get("level", "-"), "-") for op in _OPERATIONS]
            batch = max(spec.get("batch", {}).values(), default=1)
            cells.append((entry["slug"], name, *signs, spec["delete_level"], spec["erase_level"], batch))
    headers = ("driver", "object", *_OPERATIONS, "delete reaches", "erase reaches", "batch")
    output.table(headers, _without_repeats(cells))
    output.line()
    output.line("● full   ◐ composed   ◔ limited   · not yet   - never", "dim")


def _levels(levels: dict[str, list[str]]) -> str:
    if len(levels) == 1:
        return next(iter(levels))
    return "; ".join(f"{level}: {', '.join(objects)}" for level, objects in levels.items()) or "-"


def _without_repeats(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    shown, last = [], ""
    for row in rows:
        shown.append(row if row[0] != last else ("", *row[1:]))
        last = row[0]
    return shown


def _show_one(output: Output, entry: dict[str, Any]) -> None:
    output.line(entry["display_name"], "bold")
    output.facts(
        [
            ("slug", entry["slug"]),
            ("unavailable", entry.get("why_unavailable")),
            ("package", entry.get("package")),
            ("API", entry.get("api_version")),
            ("auth", entry.get("auth_text", entry["auth"])),
            ("refreshable", entry.get("renewal")),
            ("read", ", ".join(entry.get("read", ()))),
            ("write", ", ".join(entry.get("write", ()))),
            ("delete", _levels(entry.get("delete", {}))),
            ("erase", _levels(entry.get("erase", {}))),
            ("largest batch", entry.get("largest_batch")),
            ("verified against", entry.get("verified_against")),
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
