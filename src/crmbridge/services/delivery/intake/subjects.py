"""Subjects: the keyed hashes by which a sealed write is found again, and put in order with others of its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from crmbridge.core.operations import Operation
from crmbridge.core.verticals import Slot, SlotType, Vertical, slots_for
from crmbridge.services.connections.model import Intent
from crmbridge.toolkit.phones import to_e164

__all__ = ["Hasher", "fingerprint", "normalise", "order_key", "subjects_of"]

_KINDS = {SlotType.EMAIL: "email", SlotType.PHONE: "phone"}


class Hasher(Protocol):
    """The tenant's index key."""

    def hash(self, kind: str, text: str) -> bytes:
        """HMAC over a kind and a text."""
        ...


def normalise(kind: str, text: str, region: str) -> str:
    """One spelling per person: e-mail in lower case, phone in E.164 where it can be read, else its digits."""
    text = text.strip()
    if kind == "email":
        return text.lower()
    if kind != "phone":
        return text
    return to_e164(text, region) or "".join(char for char in text if char.isdigit())


def subjects_of(keys: Hasher, intent: Intent, *, vertical: str, region: str) -> list[tuple[bytes, str]]:
    """(hash, kind) of every e-mail, phone and remote id that an intent names, each once."""
    found = dict.fromkeys(_named(intent, slots_for(intent.object, Vertical(vertical))))
    return list(
        dict.fromkeys(
            (keys.hash(f"subject.{kind}", normalise(kind, text, region)), kind)
            for kind, text in found
            if text
        )
    )


def _named(intent: Intent, slots: Mapping[str, Slot]) -> list[tuple[str, str]]:
    named = [("remote_id", intent.remote_id)]
    for name, value in intent.fields.items():
        slot = slots.get(name)
        # A tenant's own slots have no type here; their name tells.
        kind = (
            _KINDS.get(slot.type)
            if slot is not None
            else next((k for k in ("email", "phone") if k in name.lower()), None)
        )
        if kind is not None and isinstance(value, str):
            named.append((kind, value))
    for link in intent.links.values():
        named += [(kind, link[kind]) for kind in ("email", "phone", "remote_id") if link.get(kind)]
    return named


def order_key(keys: Hasher, intent: Intent, *, region: str) -> bytes | None:
    """Writes with one key are delivered in order: those to one remote id, and upserts on one match.

    A create stands for itself: nobody can name its record before it is applied.
    """
    if intent.remote_id:
        return keys.hash("record", f"{intent.object.value}:{intent.remote_id}")
    if intent.operation is not Operation.UPSERT:
        return None
    match = [
        f"{slot}={normalise(_kind_by_name(slot), str(intent.fields.get(slot, '')), region)}"
        for slot in sorted(intent.match)
    ]
    return keys.hash("record", f"{intent.object.value}?" + "&".join(match))


def _kind_by_name(slot: str) -> str:
    return slot if slot in ("email", "phone") else "text"


def fingerprint(keys: Hasher, intent: Intent, connections: Sequence[str] = ()) -> bytes:
    """Keyed hash of what is asked: operation, object, remote id and body, independent of the order of names.

    ``connections`` that the caller named belong to it: the same body for another CRM is another write.
    """
    asked = msgspec.json.encode(intent, order="sorted").decode()
    return keys.hash("fingerprint", "\n".join((asked, *connections)))


def link_hash(keys: Hasher, kind: str, text: str, region: str) -> bytes:
    """The subject hash of a person that a link names."""
    return keys.hash(f"subject.{kind}", normalise(kind, text, region))
