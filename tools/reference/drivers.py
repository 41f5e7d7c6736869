"""The matrix of drivers, and one page per driver: from its manifest, its fields.toml and its NOTES.md."""

from __future__ import annotations

from pathlib import Path

from tools.reference.markdown import NOTE, code, head, row
from tools.reference.notes import sections_of
from tools.reference.retries import anchor

from crmbridge.core.manifest import Manifest
from crmbridge.core.matrix import matrix_row, operations_of
from crmbridge.core.operations import DeleteLevel, Operation, Support, SupportLevel
from crmbridge.core.records import Object
from crmbridge.core.verticals import Vertical
from crmbridge.drivers import DRIVERS, load
from crmbridge.toolkit.fieldmap import FieldRule, FieldTable, load_fields

__all__ = ["SECTIONS", "driver_page", "drivers_page", "manifests", "matrix"]

SECTIONS = (
    "At a glance",
    "Get credentials",
    "Settings",
    "Fields",
    "Operations and reasons",
    "Limits",
    "Limitations and quirks",
    "Webhooks",
    "Erasure",
    "Removal",
    "Verified against",
)
"""The headings of every driver's page."""

_SOURCE = Path(__file__).parents[2] / "src" / "crmbridge" / "drivers"
_SIGN = {
    SupportLevel.FULL: "✓",
    SupportLevel.COMPOSED: "✓*",
    SupportLevel.LIMITED: "◐",
    SupportLevel.NOT_YET: "–",
    SupportLevel.NEVER: "✗",
}
_LEGEND = (
    "✓ works · ✓* built from other calls · ◐ in part · – not yet (our debt) · ✗ never (the provider's fact)\n"
)
_WINDOWS: dict[float, str] = {
    0: " at a time",
    1: " a second",
    60: " a minute",
    3600: " an hour",
    86400: " a day",
}
_ARROWS = {"both": "both ways", "write": "written only", "read": "read only"}


def manifests() -> list[Manifest]:
    """Those of our own drivers, alphabetical by slug; what other packages bring is not ours to document."""
    return [load(slug).MANIFEST for slug in sorted(DRIVERS)]


def matrix(folder: str) -> str:
    """The compatibility matrix, one row per driver; ``folder`` is the way to the drivers' pages."""
    text = head(
        "Driver", "Auth", "Refreshable", "Read", "Write", "Delete", "Largest batch", "Verified against"
    )
    for manifest in manifests():
        told = matrix_row(manifest)
        name = f"[**{told.display_name}**]({folder}/{told.slug}.md) (`{told.slug}`)"
        if not told.is_available:
            text += row(name, *("–" for _ in range(6)), "reserved, refuses")
            continue
        text += row(
            name,
            told.auth,
            told.renewal,
            ", ".join(told.read) or "no",
            ", ".join(told.write) or "no",
            told.delete_text(),
            str(told.largest_batch),
            told.verified_against,
        )
    return text


def drivers_page() -> str:
    """docs/reference/drivers.md."""
    text = "# Drivers\n\n" + NOTE + matrix("drivers") + "\n## Objects and operations\n\n" + _LEGEND
    text += "The reasons stand on each driver's page.\n\n"
    text += head("Driver", *_OBJECT_COLUMNS)
    for manifest in manifests():
        for line in _object_rows(manifest):
            text += row(f"[{manifest.slug}](drivers/{manifest.slug}.md)", *line)
    return text


def driver_page(slug: str) -> str:
    """docs/reference/drivers/<slug>.md; the same headings for every driver."""
    driver = load(slug)
    manifest = driver.MANIFEST
    notes = sections_of(_SOURCE / slug / "NOTES.md")
    made = {
        "At a glance": _glance(manifest),
        "Settings": _settings(manifest),
        "Fields": _fields(load_fields(driver)),
        "Operations and reasons": _operations(manifest),
        "Limits": _limits(manifest),
        "Erasure": _erasure(manifest),
        "Verified against": _verified(manifest),
    }
    text = f"# {manifest.display_name}\n\n" + NOTE
    for heading in SECTIONS:
        parts = (notes.get(heading, ""), made.get(heading, ""))
        if heading in ("Verified against", "Erasure"):
            parts = (parts[1], parts[0])
        body = "\n\n".join(part.strip() for part in parts if part.strip()) or "Nothing to tell."
        text += f"## {heading}\n\n{body}\n\n"
    return text.rstrip() + "\n"


# -- sections ----------------------------------------------------------------------------------------------


def _glance(manifest: Manifest) -> str:
    told = matrix_row(manifest)
    if not told.is_available:
        return head("Slug", "State") + row(code(told.slug), f"reserved, refuses: {manifest.why_unavailable}")
    text = head("Fact", "")
    for name, value in (
        ("Slug", code(told.slug)),
        ("API version", manifest.api_version),
        ("Trades", ", ".join(manifest.verticals)),
        ("Auth", told.auth),
        ("Refreshable", told.renewal),
        ("Read", ", ".join(told.read) or "no"),
        ("Write", ", ".join(told.write) or "no"),
        ("Delete", told.delete_text()),
        ("Erase", told.erase_text()),
        ("Largest batch", str(told.largest_batch)),
        ("Gate", code(manifest.gate)),
        ("Verified against", told.verified_against),
    ):
        text += row(name, value)
    return text


def _settings(manifest: Manifest) -> str:
    if not manifest.settings:
        return "None."
    text = head("Setting", "Label", "Needed", "What it is", "Example")
    for setting in manifest.settings:
        needed = "made by crmbridge" if setting.is_generated else "yes" if setting.is_required else "no"
        if setting.follows:
            needed = f"no; filled in by crmbridge while {code(setting.follows)} changes"
        elif setting.default:
            needed = f"no, else {code(setting.default)}"
        secret = " (secret)" if setting.is_secret else ""
        options = f" One of {', '.join(code(each) for each in setting.options)}." if setting.options else ""
        text += row(
            f"`{setting.name}`{secret}", setting.label, needed, setting.help + options, code(setting.example)
        )
    return text


def _fields(table: FieldTable) -> str:
    parts = []
    if table.is_identity:
        is_all = not table.general and not table.packs
        parts.append(f"Every slot{'' if is_all else ' not named below'} has a field of its own name.")
    for obj in Object:
        lines = [_field_row(rule, "") for rule in table.general.get(obj, ())]
        for vertical in Vertical:
            lines += [_field_row(rule, vertical.value) for rule in table.packs.get(vertical, {}).get(obj, ())]
        if lines:
            parts.append(
                f"### {obj.value}\n\n" + head("Slot", "Field", "Way", "Trade", "Remarks") + "".join(lines)
            )
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _field_row(rule: FieldRule, pack: str) -> str:
    remarks = [f"on `{rule.native}`"] if rule.native else []
    if rule.format:
        remarks.append(f"format `{rule.format}`")
    if rule.join:
        remarks.append(f"else {' and '.join(code(slot) for slot in rule.join)} together")
    if rule.values:
        remarks.append("values " + ", ".join(f"{key} = {value}" for key, value in rule.values.items()))
    if rule.default is not None:
        remarks.append(f"on create else `{rule.default}`")
    if not rule.slot:
        remarks.append(f"always `{rule.constant}` on create")
    way = _ARROWS[rule.direction] if rule.slot else "written only"
    return row(code(rule.slot), code(rule.path), way, pack or "all", "; ".join(remarks) or "–")


_SHOWN = tuple(operation for operation in Operation if operation is not Operation.CHANGES)
_OBJECT_COLUMNS = ("Object", "Native", *(op.value for op in _SHOWN), "delete level", "erase level", "batch")


def _object_rows(manifest: Manifest) -> list[tuple[str, ...]]:
    rows = []
    for obj in Object:
        if (spec := manifest.objects.get(obj)) is None:
            if not manifest.why_unavailable:
                rows.append((obj.value, *("–" for _ in range(len(_OBJECT_COLUMNS) - 1))))
            continue
        signs = [
            _SIGN[manifest.supports(obj, each).level] if each in operations_of(obj) else "" for each in _SHOWN
        ]
        levels = [_level(level) for level in (spec.delete_level, spec.erase_level)]
        rows.append((obj.value, code(spec.native), *signs, *levels, str(max(spec.batch.values(), default=1))))
    return rows


def _level(level: DeleteLevel) -> str:
    return "–" if level is DeleteLevel.UNSUPPORTED else level.value.replace("_", "-")


def _operations(manifest: Manifest) -> str:
    if manifest.why_unavailable:
        return f"All are refused: {manifest.why_unavailable}"
    text = _LEGEND + "\n" + head(*_OBJECT_COLUMNS) + "".join(row(*line) for line in _object_rows(manifest))
    reasons: dict[Support, dict[str, list[str]]] = {}
    for obj in Object:
        for operation in operations_of(obj):
            support = manifest.supports(obj, operation)
            if support.level is not SupportLevel.FULL and operation is not Operation.CHANGES:
                reasons.setdefault(support, {}).setdefault(obj.value, []).append(operation.value)
    return text + "\n" + "".join(f"- {_reason(support, places)}\n" for support, places in reasons.items())


def _reason(support: Support, places: dict[str, list[str]]) -> str:
    """``◐ update, delete of customer, lead: why``; objects with the same operations stand together."""
    together: dict[str, list[str]] = {}
    for obj, operations in places.items():
        together.setdefault(", ".join(operations), []).append(obj)
    where = "; ".join(f"{operations} of {', '.join(objects)}" for operations, objects in together.items())
    link = f" ([source]({support.link}))" if support.link.startswith("http") else ""
    fix = f" Way out: {support.fix}" if support.fix else ""
    return f"{_SIGN[support.level]} {where}: {support.reason or 'not built yet'}{link}{fix}"


def _limits(manifest: Manifest) -> str:
    if manifest.why_unavailable:
        return ""
    text = ""
    for budget in manifest.budgets:
        source = f" ([source]({budget.source}))" if budget.source.startswith("http") else ""
        window = _WINDOWS.get(budget.per_seconds, f" in {budget.per_seconds:g} s")
        text += f"- {budget.kind.value}: {budget.limit} calls{window}{source}\n"
    if not any(budget.kind.value == "concurrent" for budget in manifest.budgets):
        text += f"- concurrent: {manifest.in_flight_limit()} calls at a time (ours)\n"
    link = f"../retries.md#{anchor(manifest.display_name)}"
    return f"Declared, and kept by delivery:\n\n{text}\nWhat follows a failure: [retries]({link})."


def _erasure(manifest: Manifest) -> str:
    if manifest.why_unavailable:
        return ""
    told = matrix_row(manifest)
    return f"Delete reaches: {told.delete_text()}. Erase reaches: {told.erase_text()}."


def _verified(manifest: Manifest) -> str:
    told = matrix_row(manifest)
    pages = "".join(f"- {page}\n" for page in manifest.pages)
    first = f"**{told.verified_against}**\n\n" if told.verified_against else ""
    return first + (f"Pages read on {manifest.read_on}:\n\n{pages}" if pages else "")
