"""Whether two values of one slot mean the same: money by amount, times by instant, texts to the letter."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from crmbridge.core.verticals import Slot, SlotType

__all__ = ["is_empty", "same"]

_NUMBERS = (SlotType.MONEY, SlotType.NUMBER, SlotType.INTEGER)


def same(slot: Slot, sent: Any, seen: Any) -> bool:
    """True when ``seen`` says exactly what ``sent`` said."""
    if slot.type in _NUMBERS:
        return _amount(sent) == _amount(seen) is not None
    if slot.type is SlotType.DATETIME:
        return _instant(sent) == _instant(seen) is not None
    if slot.type is SlotType.TAGS:
        return isinstance(seen, (list, tuple)) and sorted(sent) == sorted(seen)
    if slot.type is SlotType.BOOLEAN:
        return sent is seen
    if slot.type is SlotType.EMAIL:
        return str(sent).lower() == str(seen).lower()
    return bool(sent == seen)


def is_empty(value: Any) -> bool:
    """True for what a cleared slot may read as."""
    return value is None or value == "" or value == [] or value is False


def _amount(value: Any) -> Decimal | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return None


def _instant(value: Any) -> datetime | None:
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return at.astimezone(UTC) if at.tzinfo is not None else None
