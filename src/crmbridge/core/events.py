"""Inbound events: what a provider's webhook says, after verification."""

from __future__ import annotations

from typing import Any

import msgspec

from crmbridge.core.records import Object

__all__ = ["InboundEvent"]


class InboundEvent(msgspec.Struct, kw_only=True, frozen=True):
    """One fact a provider told us. ``event_id`` is the provider's own id, used against repeats."""

    event_id: str
    kind: str
    object: Object | None = None
    remote_id: str = ""
    occurred_at: str = ""
    native: dict[str, Any] = msgspec.field(default_factory=dict)
