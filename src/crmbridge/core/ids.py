"""Row ids: UUID version 7 (RFC 9562), so that rows made one after the other lie beside each other in an index."""

from __future__ import annotations

import os
import time
from uuid import UUID

__all__ = ["new_id"]


def new_id() -> UUID:
    """A new id: 48 bits of milliseconds, 74 random bits. Never use its time for a decision: the clock is ours."""
    milliseconds = time.time_ns() // 1_000_000 & 0xFFFF_FFFF_FFFF
    noise = int.from_bytes(os.urandom(10), "big") >> 6
    return UUID(int=milliseconds << 80 | 0x7 << 76 | (noise >> 62) << 64 | 0b10 << 62 | noise & (1 << 62) - 1)
