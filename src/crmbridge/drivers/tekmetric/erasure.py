"""What the erasure of an appointment leaves in Tekmetric, and what the shop must do when Tekmetric keeps more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crmbridge.core.errors import Fix, Unsupported
from crmbridge.core.operations import Operation

__all__ = ["ERASED", "is_emptied", "kept"]

ERASED = {"title": "Erased", "description": ""}
_BY_HAND = Fix(
    "erase_by_hand",
    "Ask the shop to open this appointment in Tekmetric (a deleted one among the deleted), to empty its title and "
    "description, and to tell you when it is done.",
)


def is_emptied(appointment: Mapping[str, Any]) -> bool:
    """Whether the texts of this appointment, as Tekmetric answered it, are gone."""
    return appointment.get("title") == ERASED["title"] and not appointment.get("description")


def kept() -> Unsupported:
    """The error for an appointment whose texts Tekmetric does not let go."""
    return Unsupported(
        "Tekmetric keeps the title and the description of this appointment.",
        subcode="delete_unsupported",
        provider="tekmetric",
        operation=Operation.ERASE.value,
        fix=_BY_HAND,
    )
