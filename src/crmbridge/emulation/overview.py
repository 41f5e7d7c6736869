"""The overview page of running emulators: credentials to try, and the records each holds."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from itertools import islice
from typing import Any

from crmbridge.emulation.emulator import Emulator
from crmbridge.emulation.store import Row, Table

__all__ = ["overview_page"]

_ROWS_SHOWN = 50
_COLUMNS_SHOWN = 12
_TEXT_SHOWN = 80
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1a1a1a;
background:#fff}
table{border-collapse:collapse;font-size:13px;width:100%}caption{text-align:left;font-weight:600;padding:.5rem 0}
th,td{border:1px solid #c9c9c9;padding:.25rem .5rem;text-align:left;vertical-align:top;overflow-wrap:anywhere}
th{background:#f2f2f2}code{background:#f2f2f2;padding:.1rem .3rem}section{border-top:2px solid #1a1a1a;margin-top:2rem}
div{overflow-x:auto}.gone{color:#6b6b6b;text-decoration:line-through}
@media (prefers-color-scheme:dark){body{background:#161616;color:#eee}th,code{background:#2a2a2a}
th,td{border-color:#555}section{border-color:#eee}.gone{color:#a0a0a0}}
"""


def overview_page(emulators: Mapping[str, Emulator], urls: Mapping[str, str]) -> str:
    """A whole HTML page without scripts; every text is escaped."""
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'><title>Emulators</title>",
        f"<style>{_STYLE}</style></head><body><h1>Emulators</h1>",
        "<p>Stand-ins for CRM providers. Nothing here is real; reload to see what has changed.</p>",
    ]
    for slug, emulator in emulators.items():
        parts += _section(slug, emulator, urls.get(slug, emulator.base_url))
    parts.append("</body></html>")
    return "".join(parts)


def _section(slug: str, emulator: Emulator, url: str) -> list[str]:
    name = emulator.display_name or slug
    calls = sum(emulator.calls.values())
    parts = [
        f"<section><h2 id='{escape(slug)}'>{escape(name)}</h2>",
        f"<p><code>{escape(url)}</code> · {calls} calls · {emulator.written} records written · ",
        f"{len(emulator.faults.waiting)} faults waiting</p>",
        "<table><caption>A credential that works</caption><tbody>",
    ]
    app = {f"OAuth app, {name}": text for name, text in emulator.oauth_app().items()}
    for setting, text in {**emulator.settings(), **emulator.secrets(), **app}.items():
        parts.append(
            f"<tr><th scope='row'>{escape(setting)}</th><td><code>{escape(str(text))}</code></td></tr>"
        )
    parts.append("</tbody></table>")
    for table in emulator.store.tables.values():
        parts += _table(table)
    parts.append("</section>")
    return parts


def _table(table: Table[Any]) -> list[str]:
    if not len(table):
        return [f"<p>{escape(table.name)}: no records</p>"]
    rows = list(islice(reversed(table.rows.values()), _ROWS_SHOWN))
    columns = list(
        dict.fromkeys(name for row in rows for name, value in row.fields.items() if _is_told(value))
    )
    columns = columns[:_COLUMNS_SHOWN]
    shown = f"newest {len(rows)} of {len(table)}" if len(table) > len(rows) else str(len(table))
    heads = "".join(f"<th scope='col'>{escape(str(name))}</th>" for name in ("id", *columns, "updated"))
    parts = [
        f"<div><table><caption>{escape(table.name)}: {shown}</caption><thead><tr>{heads}</tr></thead><tbody>"
    ]
    parts += [_line(row, columns) for row in rows]
    parts.append("</tbody></table></div>")
    return parts


def _line(row: Row[Any], columns: list[str]) -> str:
    state = " class='gone'" if row.is_archived else ""
    cells = [
        str(row.id),
        *(_text(row.fields.get(name)) for name in columns),
        f"{row.updated_at:%Y-%m-%d %H:%M:%S}",
    ]
    return f"<tr{state}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _is_told(value: Any) -> bool:
    return value is not None and value != "" and value is not False and value != []


def _text(value: Any) -> str:
    text = str(value) if _is_told(value) else ""
    return text if len(text) <= _TEXT_SHOWN else text[: _TEXT_SHOWN - 1] + "…"
