"""Errors, settings, slots, states and layers, each on a page."""

from __future__ import annotations

import configparser
import inspect
from pathlib import Path

from tools.reference.markdown import NOTE, head, row

from crmbridge.core import errors
from crmbridge.core.records import Object
from crmbridge.core.verticals import Vertical, slots_for
from crmbridge.services.delivery.model import diagram
from crmbridge.settings import describe_settings

__all__ = ["errors_page", "layers_page", "settings_page", "slots_page", "states_page"]


def errors_page() -> str:
    """docs/reference/errors.md."""
    text = "# Errors\n\n" + NOTE
    text += "Programs act on `code` and `subcode`, never on text. HTTP answers are problem+json with these fields and\n"
    text += "`outcome`, `retry_safe`, `retry_after_seconds`, `fix`, `say_to_customer`, `request_id`, `audit_id`.\n\n"
    text += "```\n" + inspect.getdoc(errors).split("\n\n", 1)[1] + "\n```\n\n"  # type: ignore[union-attr]
    text += head("Code", "HTTP", "Meaning", "What to do")
    for name in errors.__all__:
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, errors.CrmError) and kind is not errors.CrmError:
            text += row(
                f"`{kind.code}`", str(kind.http_status), inspect.getdoc(kind) or "", kind.default_fix.hint
            )
    return text


def settings_page() -> str:
    """docs/reference/settings.md."""
    text = "# Settings\n\n" + NOTE + head("Variable", "Type", "Default", "What it does", "Example")
    for fact in describe_settings():
        default = f"`{fact.default}`" if fact.default else "–"
        example = f"`{fact.example}`" if fact.example else "–"
        text += row(f"`{fact.variable}`", fact.type, default, fact.help, example)
    return text


def slots_page() -> str:
    """docs/reference/slots.md."""
    text = (
        "# Slots\n\n" + NOTE + "Canonical fields, written `object.slot`. A pack adds the slots of a trade.\n"
    )
    for obj in Object:
        text += f"\n## {obj.value}\n\n" + head("Slot", "Type", "Pack", "What it is")
        general = slots_for(obj, Vertical.GENERAL)
        for vertical in [Vertical.GENERAL, *(v for v in Vertical if v is not Vertical.GENERAL)]:
            for slot in slots_for(obj, vertical).values():
                if vertical is Vertical.GENERAL or slot.name not in general:
                    options = f" ({', '.join(slot.options)})" if slot.options else ""
                    text += row(f"`{slot.path}`", slot.type.value + options, vertical.value, slot.help)
    return text


def states_page() -> str:
    """docs/reference/states.md."""
    text = "# States of a target\n\n" + NOTE
    text += "A target is one write on one connection. The picture is drawn from the transition table in the code.\n\n"
    text += "```mermaid\n" + diagram() + "```\n"
    return text + "\nWhen each step is taken, and how long it waits: [retries](retries.md).\n"


def layers_page() -> str:
    """docs/reference/layers.md."""
    rules = configparser.ConfigParser()
    rules.read(Path(__file__).parents[2] / ".importlinter")
    text = "# Layers\n\n" + NOTE + "Arrows only point down; the import rules fail the build otherwise.\n"
    for section in ("importlinter:contract:house", "importlinter:contract:services"):
        layers = [line.strip() for line in rules[section]["layers"].strip().splitlines()]
        text += f"\n## {rules[section]['name']}\n\n```mermaid\nflowchart TD\n"
        for number, layer in enumerate(layers):
            text += f'    L{number}["{layer.replace(" | ", " · ")}"]\n'
        text += "".join(f"    L{number} --> L{number + 1}\n" for number in range(len(layers) - 1)) + "```\n"
    return text
