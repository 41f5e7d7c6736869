"""Counting: what delivery tells the metrics and the traces. Words of ours and numbers, no content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from crmbridge import metrics
from crmbridge.core.records import WriteResult
from crmbridge.db.statements import read_sql
from crmbridge.services.delivery.lane.batch import Batch
from crmbridge.services.delivery.model import TargetView

__all__ = ["LaneCounts", "count_lanes", "note_saved", "words"]

_LANES = read_sql(__package__, "lanes.sql")


class LaneCounts(msgspec.Struct, kw_only=True):
    """``due``: something is due and nobody works on it. ``held_back``: it waits after failures."""

    due: int
    held_back: int
    paused: int
    leased: int
    oldest_seconds: float


async def count_lanes(conn: Any) -> LaneCounts:
    """All lanes, in a transaction of the scheduler role."""
    return msgspec.convert(dict(await conn.fetchrow(_LANES)), LaneCounts)


def words(driver: str, batch: Batch) -> dict[str, Any]:
    """A batch as the attributes of a span."""
    return {
        "driver": driver,
        "object": batch.object.value,
        "operation": batch.operation.value,
        "kind": _kind(batch),
        "records": len(batch.rows),
    }


def note_saved(
    driver: str, batch: Batch, results: Sequence[WriteResult], saved: Sequence[TargetView]
) -> None:
    """A batch was sent or looked up, and these targets were saved."""
    for outcome, count in Counter(result.outcome.value for result in results).items():
        metrics.note_attempt(driver, _kind(batch), outcome, count)
    for state, count in Counter(view.state.value for view in saved if view.is_settled).items():
        metrics.note_settled(driver, batch.object.value, batch.operation.value, state, count)


def _kind(batch: Batch) -> str:
    return "look_up" if batch.is_look_up else "send"
