"""Rules of one connection, and the effective map as people read it."""

from __future__ import annotations

from typing import Any

import msgspec

from crmbridge.core.records import Object

__all__ = ["MappedSlot", "Overrides", "Rule"]


class Rule(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A tenant's override for one slot, as stored and as sent over HTTP.

    ``path`` is the provider's field (dots go into nested fields); null leaves the slot unmapped on purpose.
    ``native`` names another native object. ``format`` is one of ``toolkit.formats``. ``values`` maps slot
    values to provider values. ``constant`` is always written; ``default`` when the slot is absent on a
    create. ``direction`` is ``both``, ``write`` or ``read``.
    """

    path: str | None
    native: str = ""
    format: str = ""
    values: dict[str, Any] = {}
    constant: Any = None
    default: Any = None
    direction: str = "both"


Overrides = dict[Object, dict[str, Rule]]


class MappedSlot(msgspec.Struct, kw_only=True):
    """One line of the effective map. ``origin`` is ``driver``, ``tenant`` or ``unmapped``."""

    object: Object
    slot: str
    type: str
    origin: str
    rule: Rule | None = None
    help: str = ""
