"""Options that many commands share, and the texts of ``name=value`` pairs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from crmbridge.cli.problems import UsageProblem

__all__ = [
    "DEFAULT_URL",
    "AsJson",
    "Connection",
    "Cursor",
    "ObjectName",
    "PageSize",
    "TenantName",
    "Url",
    "parse_links",
    "parse_slots",
    "parse_texts",
    "read_text",
]

DEFAULT_URL = "http://127.0.0.1:8700"

Url = Annotated[str, typer.Option("--url", envvar="CRMBRIDGE_URL", help="Address of the server.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TenantName = Annotated[str, typer.Argument(metavar="TENANT", help="Slug or id of the tenant.")]
ObjectName = Annotated[
    str,
    typer.Argument(metavar="OBJECT", help="customer, lead, deal, appointment, case, note or activity."),
]
Connection = Annotated[
    str, typer.Option("--connection", help="Name of the tenant's connection; default: the primary.")
]
PageSize = Annotated[int, typer.Option("--limit", min=1, max=200)]
Cursor = Annotated[str, typer.Option("--cursor", help="Of the page before.")]


def parse_slots(pairs: Iterable[str]) -> dict[str, Any]:
    """``email=a@b.example`` is a text, ``bedrooms:=3`` a JSON value. Raises UsageProblem naming the pair."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        is_tree = name.endswith(":")
        name = name.removesuffix(":").strip()
        if not equals or not name:
            raise UsageProblem(
                "A field is written slot=text or slot:=JSON.", hint="For example email=mei@example.com."
            )
        if name in values:
            raise UsageProblem(f"The slot {name} is given twice.")
        try:
            values[name] = json.loads(text) if is_tree else text
        except ValueError:
            raise UsageProblem(
                f"The value of {name} is not JSON.", hint="Write slot=text for a plain text."
            ) from None
    return values


def parse_texts(pairs: Iterable[str], option: str) -> dict[str, str]:
    """``name=text`` pairs of one option. Raises UsageProblem."""
    values: dict[str, str] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise UsageProblem(f"{option} is written {option} name=value.")
        values[name.strip()] = text
    return values


def parse_links(pairs: Iterable[str]) -> dict[str, dict[str, str]]:
    """``customer.email=a@b.example`` as ``{"customer": {"email": ...}}``. Raises UsageProblem."""
    links: dict[str, dict[str, str]] = {}
    for name, text in parse_texts(pairs, "--link").items():
        linked, dot, by = name.partition(".")
        if not dot or by not in ("write_id", "remote_id", "email", "phone"):
            raise UsageProblem(
                f"--link {name} cannot be used.",
                hint="Write --link customer.email=..., or .phone, .remote_id, .write_id.",
            )
        links.setdefault(linked, {})[by] = text
    return links


def read_text(source: str) -> str:
    """The text of a file, or of standard input for ``-``, without the line end. Raises UsageProblem."""
    if source == "-":
        return typer.get_text_stream("stdin").read().rstrip("\r\n")
    try:
        return Path(source).expanduser().read_text(encoding="utf-8-sig").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"The file {source} cannot be read: {_reason(error)}.") from None


def _reason(error: Exception) -> str:
    return (error.strerror or "it cannot be opened") if isinstance(error, OSError) else "it is not UTF-8 text"
