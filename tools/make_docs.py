"""Writes docs/reference and the generated part of the README from the code. ``--check`` fails when one is stale."""

from __future__ import annotations

import argparse
import configparser
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from crmbridge.core import errors
from crmbridge.core.manifest import AuthKind, Manifest
from crmbridge.core.operations import DeleteLevel, Operation, Support, SupportLevel
from crmbridge.core.records import Object
from crmbridge.core.verticals import Vertical, slots_for
from crmbridge.drivers import load, slugs
from crmbridge.services.delivery.model import diagram
from crmbridge.settings import describe_settings

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
BEGIN, END = "<!-- generated: drivers -->", "<!-- end of generated -->"
_NOTE = "<!-- Written by `make docs` from the code. Do not edit. -->\n\n"
_SIGN = {
    SupportLevel.FULL: "✓",
    SupportLevel.COMPOSED: "✓*",
    SupportLevel.LIMITED: "◐",
    SupportLevel.NOT_YET: "–",
    SupportLevel.NEVER: "✗",
}
_AUTH = {
    AuthKind.OAUTH_CODE: "OAuth 2.0 (code)",
    AuthKind.CLIENT_CREDENTIALS: "OAuth 2.0 (client credentials)",
    AuthKind.API_KEY: "form (API key)",
    AuthKind.BEARER: "form (bearer key)",
    AuthKind.BASIC: "form (basic)",
    AuthKind.HMAC: "signed with a shared secret",
    AuthKind.SIGN_IN: "form (sign-in)",
    AuthKind.NONE: "form",
}
_COLUMNS = (
    Operation.DESCRIBE,
    Operation.GET,
    Operation.LIST,
    Operation.SEARCH,
    Operation.CREATE,
    Operation.UPDATE,
    Operation.UPSERT,
    Operation.DELETE,
    Operation.ERASE,
)


def _manifests() -> list[Manifest]:
    return [load(slug).MANIFEST for slug in slugs()]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"


def _head(*cells: str) -> str:
    return _row(*cells) + "|" + " --- |" * len(cells) + "\n"


def _able(manifest: Manifest, *operations: Operation) -> str:
    objects = [
        obj.value
        for obj in manifest.objects
        if any(manifest.supports(obj, operation).is_usable for operation in operations)
    ]
    return ", ".join(objects) or "no"


def _delete_levels(manifest: Manifest) -> str:
    levels: dict[str, list[str]] = {}
    for obj, spec in manifest.objects.items():
        levels.setdefault(spec.delete_level.value, []).append(obj.value)
    if len(levels) == 1:
        return next(iter(levels)).replace("_", "-")
    return (
        "; ".join(f"{level.replace('_', '-')}: {', '.join(objects)}" for level, objects in levels.items())
        or "–"
    )


def matrix() -> str:
    """The compatibility matrix, one row per driver."""
    text = _head(
        "Driver", "Auth", "Refreshable", "Read", "Write", "Delete", "Largest batch", "Verified against"
    )
    for m in _manifests():
        if m.why_unavailable:
            text += _row(
                f"**{m.display_name}** (`{m.slug}`)", "–", "–", "–", "–", "–", "–", "reserved, refuses"
            )
            continue
        refreshable = m.auth.kind in (AuthKind.OAUTH_CODE, AuthKind.CLIENT_CREDENTIALS)
        batch = max((most for spec in m.objects.values() for most in spec.batch.values()), default=1)
        note = f": {m.verification_note}" if m.verification_note else ""
        text += _row(
            f"**{m.display_name}** (`{m.slug}`)",
            _AUTH[m.auth.kind],
            "yes" if refreshable else "n/a",
            _able(m, Operation.GET, Operation.LIST, Operation.SEARCH),
            _able(m, Operation.CREATE, Operation.UPDATE, Operation.UPSERT),
            _delete_levels(m),
            str(batch),
            f"{m.verification.value}{note}",
        )
    return text


def drivers_page() -> str:
    """docs/reference/drivers.md."""
    text = "# Drivers\n\n" + _NOTE + matrix()
    text += "\n✓ works · ✓* built from other calls · ◐ in part · – not yet (our debt) · ✗ never (the provider's fact)\n"
    for m in _manifests():
        text += f"\n## {m.display_name} (`{m.slug}`)\n\n"
        if m.why_unavailable:
            text += f"{m.why_unavailable}\n"
            continue
        text += f"API {m.api_version}. Pages read on {m.read_on}: {', '.join(m.pages)}.\n\n"
        text += _head("Setting", "Needed", "What it is")
        for setting in m.settings:
            needed = "made by crmbridge" if setting.is_generated else "yes" if setting.is_required else "no"
            secret = " (secret)" if setting.is_secret else ""
            text += _row(f"`{setting.name}`{secret}", needed, setting.help)
        text += "\n" + _head("Object", "Native", *(op.value for op in _COLUMNS), "delete level")
        reasons: dict[str, None] = {}
        for obj in Object:
            spec = m.objects.get(obj)
            if spec is None:
                text += _row(obj.value, "–", *("–" for _ in _COLUMNS), "–")
                continue
            cells = []
            for operation in _COLUMNS:
                support = m.supports(obj, operation)
                cells.append(_SIGN[support.level])
                if support.reason and support.level is not SupportLevel.FULL:
                    reasons[_reason(obj, operation, support)] = None
            level = spec.delete_level.value if spec.delete_level is not DeleteLevel.UNSUPPORTED else "–"
            text += _row(obj.value, f"`{spec.native}`", *cells, level)
        text += "\n"
        text += "".join(f"- {reason}\n" for reason in reasons)
    return text


def _reason(obj: Object, operation: Operation, support: Support) -> str:
    link = f" ([source]({support.link}))" if support.link.startswith("http") else ""
    return f"{operation.value} of {obj.value}: {support.reason}{link}"


def errors_page() -> str:
    """docs/reference/errors.md."""
    text = "# Errors\n\n" + _NOTE
    text += "Programs act on `code` and `subcode`, never on text. HTTP answers are problem+json with these fields and\n"
    text += "`outcome`, `retry_safe`, `retry_after_seconds`, `fix`, `say_to_customer`, `request_id`, `audit_id`.\n\n"
    text += "```\n" + inspect.getdoc(errors).split("\n\n", 1)[1] + "\n```\n\n"  # type: ignore[union-attr]
    text += _head("Code", "HTTP", "Meaning", "What to do")
    for name in errors.__all__:
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, errors.CrmError) and kind is not errors.CrmError:
            text += _row(
                f"`{kind.code}`", str(kind.http_status), inspect.getdoc(kind) or "", kind.default_fix.hint
            )
    return text


def settings_page() -> str:
    """docs/reference/settings.md."""
    text = "# Settings\n\n" + _NOTE + _head("Variable", "Type", "Default", "What it does", "Example")
    for fact in describe_settings():
        default = f"`{fact.default}`" if fact.default else "–"
        example = f"`{fact.example}`" if fact.example else "–"
        text += _row(f"`{fact.variable}`", fact.type, default, fact.help, example)
    return text


def slots_page() -> str:
    """docs/reference/slots.md."""
    text = (
        "# Slots\n\n" + _NOTE + "Canonical fields, written `object.slot`. A pack adds the slots of a trade.\n"
    )
    for obj in Object:
        text += f"\n## {obj.value}\n\n" + _head("Slot", "Type", "Pack", "What it is")
        general = slots_for(obj, Vertical.GENERAL)
        for vertical in [Vertical.GENERAL, *(v for v in Vertical if v is not Vertical.GENERAL)]:
            for slot in slots_for(obj, vertical).values():
                if vertical is Vertical.GENERAL or slot.name not in general:
                    options = f" ({', '.join(slot.options)})" if slot.options else ""
                    text += _row(f"`{slot.path}`", slot.type.value + options, vertical.value, slot.help)
    return text


def states_page() -> str:
    """docs/reference/states.md."""
    text = "# States of a target\n\n" + _NOTE
    text += "A target is one write on one connection. The picture is drawn from the transition table in the code.\n\n"
    return text + "```mermaid\n" + diagram() + "```\n"


def layers_page() -> str:
    """docs/reference/layers.md."""
    rules = configparser.ConfigParser()
    rules.read(ROOT / ".importlinter")
    text = "# Layers\n\n" + _NOTE + "Arrows only point down; the import rules fail the build otherwise.\n"
    for section in ("importlinter:contract:house", "importlinter:contract:services"):
        layers = [line.strip() for line in rules[section]["layers"].strip().splitlines()]
        text += f"\n## {rules[section]['name']}\n\n```mermaid\nflowchart TD\n"
        for number, layer in enumerate(layers):
            text += f'    L{number}["{layer.replace(" | ", " · ")}"]\n'
        text += "".join(f"    L{number} --> L{number + 1}\n" for number in range(len(layers) - 1)) + "```\n"
    return text


PAGES: dict[str, Callable[[], str]] = {
    "drivers.md": drivers_page,
    "errors.md": errors_page,
    "layers.md": layers_page,
    "settings.md": settings_page,
    "slots.md": slots_page,
    "states.md": states_page,
}


def readme() -> str:
    """The README with its matrix brought up to date."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{matrix()}{END}{after}"


def main() -> int:
    """Write all pages, or with --check name the stale ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a page is stale")
    only_check = parser.parse_args().check
    wanted = {REFERENCE / name: page() for name, page in PAGES.items()} | {ROOT / "README.md": readme()}
    stale = [
        path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if only_check and stale:
        print("stale: " + ", ".join(str(path.relative_to(ROOT)) for path in stale) + "\nrun: make docs")
        return 1
    if not only_check:
        REFERENCE.mkdir(parents=True, exist_ok=True)
        for path in stale:
            path.write_text(wanted[path], encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
