"""Rows of the key tables, and what `keys status` and `keys rotate` report."""

from __future__ import annotations

from uuid import UUID

import msgspec

__all__ = ["KeyStatus", "RewrapProgress", "WrappedKey"]


class WrappedKey(msgspec.Struct, frozen=True, kw_only=True):
    """One row of ``tenant_keys`` or ``installation_keys`` (``tenant_id`` None). States: active, retired, destroyed."""

    tenant_id: UUID | None
    purpose: str
    version: int
    wrapped: bytes
    master_key_id: str
    state: str


class KeyStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How many wrapped keys each master key carries. ``behind`` counts those not under the current one."""

    current_id: str
    known_ids: tuple[str, ...]
    counts: dict[str, int]

    @property
    def behind(self) -> int:
        return sum(count for key_id, count in self.counts.items() if key_id != self.current_id)

    @property
    def missing_ids(self) -> tuple[str, ...]:
        """Master keys that rows need and this process does not hold."""
        return tuple(sorted(set(self.counts) - set(self.known_ids)))


class RewrapProgress(msgspec.Struct, frozen=True, kw_only=True):
    """After each tenant batch: how many tenants were looked at, out of how many, and how many keys rewrapped."""

    tenants_done: int
    tenants_total: int
    rewrapped: int
