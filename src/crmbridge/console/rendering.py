"""Templates: how values look. Everything is escaped; control and direction marks of hostile texts are taken out."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

__all__ = ["STATE_KINDS", "asset", "html_pattern", "render"]

_CONTROL = {code: None for code in (*range(32), *range(127, 160)) if code not in (9, 10)}
_MARKS = dict.fromkeys(map(ord, "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"))
_HIDDEN = {**_CONTROL, **_MARKS}

# The colour of a state; its word always stands beside it.
STATE_KINDS = {
    **dict.fromkeys(("active", "applied", "passed", "open gate", "resolved", "tenant"), "good"),
    **dict.fromkeys(
        ("needs_reauthorization", "dead_letter", "parked", "failed", "not_applied", "revoked key"), "bad"
    ),
    **dict.fromkeys(
        ("pending", "retrying", "unknown", "open", "acknowledged", "paused", "shut", "accepted", "sending"),
        "warn",
    ),
}


def plain(value: Any) -> Any:
    """A text without characters that steer a page or a reader's eye; yes and no for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value.translate(_HIDDEN) if isinstance(value, str) and not isinstance(value, Markup) else value


def words(value: Any) -> str:
    """``needs_reauthorization`` as people write it."""
    return str(getattr(value, "value", value)).replace("_", " ")


def moment(value: Any) -> Any:
    """A time to the minute, in UTC, readable by machines too."""
    if value is None or value == "":
        return "–"
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return value
    at = value.astimezone(UTC)
    shown, exact = at.strftime("%Y-%m-%d %H:%M"), at.isoformat(timespec="seconds")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(exact, f"{exact} (UTC)", shown)


def state(value: Any) -> Markup:
    """A state as a word with a colour."""
    text = str(getattr(value, "value", value))
    return Markup('<span class="state {}">{}</span>').format(STATE_KINDS.get(text, "calm"), words(text))


def tree(value: Any) -> str:
    """JSON for people."""
    return json.dumps(msgspec.to_builtins(value), ensure_ascii=False, indent=2, default=str)


def compact(value: Any) -> str:
    """JSON on one line."""
    return json.dumps(msgspec.to_builtins(value), ensure_ascii=False, default=str)


def short(value: Any) -> Markup:
    """The end of an id, which is what differs, with the whole of it at hand."""
    text = str(value)
    if len(text) < 20:
        return escape(text)
    return Markup('<span class="id" title="{}">…{}</span>').format(text, text[-8:])


def number(value: int) -> str:
    """Thousands apart."""
    return f"{value:,}"


def html_pattern(pattern: str) -> str:
    """A manifest's pattern for a browser, whose classes want more escapes; empty where the two languages differ."""
    if re.search(r"\(\?[P<#imsx]|\\[AZ]", pattern):
        return ""
    return re.sub(r"\[(\^?)((?:\\.|[^\]\\])*)\]", _class, pattern)


def _class(found: re.Match[str]) -> str:
    inner = re.sub(r"(?<!\\)([(){}/|\[])", r"\\\1", found[2])
    inner = re.sub(r"^-|(?<!\\)-$", r"\\-", inner)
    return f"[{found[1]}{inner}]"


@cache
def asset(name: str) -> tuple[bytes, str]:
    """A file of the package and a short hash of it, which stands in its address."""
    content = files("crmbridge.console").joinpath(name).read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:12]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("crmbridge.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=plain,
        auto_reload=False,
    )
    environment.filters.update(
        words=words,
        moment=moment,
        state=state,
        tree=tree,
        compact=compact,
        short=short,
        number=number,
        pattern=html_pattern,
    )
    environment.globals.update(style_hash=asset("style.css")[1])
    return environment


def render(template: str, **values: Any) -> str:
    """A page. Raises UndefinedError for a value that the template asks for and nobody gave."""
    return _environment().get_template(template).render(**values)
