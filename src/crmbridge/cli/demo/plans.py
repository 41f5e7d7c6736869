"""What the demo does with each driver, decided by its manifest alone: whose CRM it is, what is imported, how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crmbridge.core.manifest import AuthKind, BudgetKind, Manifest
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object
from crmbridge.core.verticals import Vertical

__all__ = ["Plan", "cut_rows", "make_plan", "way_of"]

# Half of a budget, because a record may cost a look-up beside its create. A shorter window counts for this long.
_SHARE, _SECONDS = 0.5, 30.0
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """``most`` rows of ``source`` become ``object`` (None = all); ``why`` says what that number comes of."""

    vertical: Vertical
    region: str
    zone: str
    dayfirst: bool
    source: Path
    object: Object | None
    most: int | None = None
    why: str = ""


def make_plan(manifest: Manifest, leads: Path, people: Path, *, is_named: bool) -> Plan:
    """By trade: property agents import leads, the others their customers' list. ``is_named``: one file for all."""
    is_agents = bool({"general", Vertical.REAL_ESTATE.value} & set(manifest.verticals))
    obj = next(
        (obj for obj in (Object.LEAD, Object.CUSTOMER) if manifest.supports(obj, Operation.CREATE).is_usable),
        None,
    )
    allowed = _allowed(manifest, obj) if obj else {}
    if is_agents or is_named:
        vertical = Vertical.REAL_ESTATE if is_agents else Vertical(manifest.verticals[0])
        region, zone, dayfirst = "AE", "Asia/Dubai", True
    else:
        vertical = Vertical(manifest.verticals[0])
        region, zone, dayfirst = "US", "America/New_York", False
    return Plan(
        vertical=vertical,
        region=region,
        zone=zone,
        dayfirst=dayfirst,
        source=leads if is_agents or is_named else people,
        object=obj,
        **allowed,
    )


def _allowed(manifest: Manifest, obj: Object) -> dict[str, Any]:
    """How many the tightest declared budget lets through in the time of a demo, and the sentence about it."""
    size = manifest.batch_size(obj, Operation.CREATE)
    found: list[dict[str, Any]] = []
    for budget in manifest.budgets:
        if budget.kind not in (BudgetKind.BURST, BudgetKind.DAILY) or not budget.per_seconds:
            continue
        burst = max(1, int(budget.limit * size * _SHARE))
        span, each = _span(budget.per_seconds), "1 record" if size == 1 else f"{size:,} records"
        found.append(
            {
                "most": int(burst * max(1.0, _SECONDS / budget.per_seconds)),
                "why": f": half of what {budget.limit:,} calls per {span} allow, {each} a call",
            }
        )
    return min(found, default={}, key=lambda one: int(one["most"]))


def _span(seconds: float) -> str:
    for unit, name in ((86_400.0, "day"), (3600.0, "hour"), (60.0, "minute"), (1.0, "second")):
        if seconds >= unit and seconds % unit == 0:
            count = int(seconds // unit)
            return name if count == 1 else f"{count} {name}s"
    return f"{seconds:g} seconds"


def way_of(manifest: Manifest) -> str:
    """How the demo connects: ``consent`` in a browser, ``token`` by client credentials or a sign-in, ``form``."""
    if manifest.auth.kind is AuthKind.OAUTH_CODE:
        return "consent"
    is_token = manifest.auth.kind in (AuthKind.CLIENT_CREDENTIALS, AuthKind.SIGN_IN)
    return "token" if is_token else "form"


def form_of(manifest: Manifest, emulator: Any) -> dict[str, str]:
    """What an operator would fill in: of what the stand-in offers that which the form asks for.

    By consent no client id and secret (the installation's app is used), and no secret that could stand in for it.
    """
    offered: Mapping[str, str] = {**emulator.settings(), **emulator.secrets()}
    by_consent = manifest.auth.kind is AuthKind.OAUTH_CODE
    client = {manifest.auth.user or "client_id", manifest.auth.secret or "client_secret"}
    return {
        setting.name: offered[setting.name]
        for setting in manifest.settings
        if setting.name in offered
        and not (by_consent and (setting.name in client or (setting.is_secret and not setting.is_required)))
    }


def cut_rows(source: Path, target: Path, most: int | None) -> bool:
    """Copies a file of rows, at most ``most`` beside the header; True when some were left out.

    Cells may hold line breaks: a CSV row ends where the quotes are even. UTF-16 is copied whole.
    """
    content = source.read_bytes()
    lines = content.splitlines(keepends=True)
    is_lines = source.suffix.lower() in (".jsonl", ".ndjson")
    left = None if most is None or content[:2] in _UTF_16 else most + (0 if is_lines else 1)
    kept, quotes = [], 0
    for line in lines:
        if left == 0:
            break
        kept.append(line)
        quotes += 0 if is_lines else line.count(b'"')
        if left is not None and quotes % 2 == 0:
            left -= 1
    target.write_bytes(b"".join(kept))
    return len(kept) < len(lines)
