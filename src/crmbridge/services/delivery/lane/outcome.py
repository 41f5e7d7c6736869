"""Verdict: what the result of one attempt means for its target and for its lane. Pure; no I/O, no clock."""

from __future__ import annotations

from typing import Any

import msgspec

from crmbridge.core.errors import CrmError
from crmbridge.core.operations import Outcome
from crmbridge.core.records import WriteResult
from crmbridge.services.delivery.model import Event, Limits

__all__ = ["JITTER", "Verdict", "backoff_seconds", "describe_error", "judge", "judge_look_up"]

# The credential, the provider or a setting is at fault, not this write: it waits, and so does its lane.
_LANE_CODES = frozenset(
    {"auth_error", "rate_limited", "unavailable", "not_configured", "gate_closed", "egress_refused"}
)
# The exceptions among them: this write lacks a right, others of the lane may have it.
_OWN_SUBCODES = frozenset({"insufficient_scope"})


# The share of a back-off that is waited, drawn between these two: it keeps lanes from coming back together.
JITTER = (0.5, 1.0)


class Verdict(msgspec.Struct, kw_only=True):
    """``event`` moves the target (None: it stays ``unknown`` and is looked up again). Delays are seconds from now.

    ``pause_seconds`` holds the entire lane back; ``is_lane_fault`` counts as a failure of the lane.
    """

    event: Event | None
    outcome: Outcome
    delay_seconds: float = 0.0
    pause_seconds: float = 0.0
    is_lane_fault: bool = False
    error: dict[str, Any] | None = None


def backoff_seconds(failures: int, limits: Limits, jitter: float) -> float:
    """Exponential and capped; ``jitter`` is drawn once a batch, out of JITTER."""
    full = min(limits.retry_cap_seconds, limits.retry_base_seconds * 2.0 ** min(max(failures, 1) - 1, 20))
    return full * jitter


def describe_error(error: Exception | None) -> dict[str, Any] | None:
    """The error as it is kept with a target. Anything but a CrmError shows its type only."""
    if error is None or isinstance(error, CrmError):
        return error.to_dict() if error is not None else None
    return {
        "code": "unexpected_response",
        "subcode": "",
        "message": f"The driver failed ({type(error).__name__}).",
        "outcome": Outcome.UNKNOWN.value,
        "retry_safe": False,
    }


def judge(
    result: WriteResult, *, attempt: int, lane_failures: int, limits: Limits, lag: float, jitter: float
) -> Verdict:
    """The result of sending. ``attempt`` counts from 1, ``lag`` is the provider's declared search lag."""
    error = result.error
    kept = describe_error(error)
    if result.outcome is Outcome.APPLIED:
        return Verdict(event=Event.APPLIED, outcome=Outcome.APPLIED)
    if result.outcome is Outcome.UNKNOWN or not isinstance(error, CrmError):
        return Verdict(
            event=Event.LOST,
            outcome=Outcome.UNKNOWN,
            delay_seconds=max(limits.settle_seconds, lag),
            is_lane_fault=True,
            error=kept,
        )
    asked = error.retry_after_seconds or 0.0
    if error.code in _LANE_CODES and error.subcode not in _OWN_SUBCODES:
        wait = max(asked, backoff_seconds(lane_failures + 1, limits, jitter))
        return Verdict(
            event=Event.NOT_NOW,
            outcome=Outcome.NOT_APPLIED,
            delay_seconds=wait,
            pause_seconds=wait,
            is_lane_fault=True,
            error=kept,
        )
    if error.retry_safe:
        wait = max(asked, backoff_seconds(attempt, limits, jitter))
        return Verdict(event=Event.NOT_NOW, outcome=Outcome.NOT_APPLIED, delay_seconds=wait, error=kept)
    return Verdict(event=Event.REFUSED, outcome=Outcome.NOT_APPLIED, error=kept)


def judge_look_up(
    result: WriteResult,
    *,
    attempt: int,
    first_error: dict[str, Any] | None,
    lane_failures: int,
    limits: Limits,
    jitter: float,
    is_key_sent: bool = False,
    looked_seconds: float = 0.0,
) -> Verdict:
    """The result of ``find_written``. ``first_error`` is what the sending ended with, ``attempt`` its number.

    A look-up that failed itself says nothing: it is tried again. When they have failed for ``looked_seconds``, more
    than the limits allow, or one worked and cannot tell, the write is parked, unless a repetition is harmless: the
    first error said so (``retry_safe``), or every try carries the same key and the receiver drops repeats
    (``is_key_sent``; after a crash there is no first error).
    """
    if result.outcome is Outcome.APPLIED:
        return Verdict(event=Event.FOUND, outcome=Outcome.APPLIED)
    kept = first_error or describe_error(result.error)
    if kept is not None and first_error is None:
        # That a look-up may be repeated says nothing of the write. The next one reads this as the first error.
        kept = {**kept, "retry_safe": False}
    # The first repetition goes at once; a write that was lost several times slows down.
    again = backoff_seconds(attempt - 1, limits, jitter) if attempt > 1 else 0.0
    if result.outcome is Outcome.NOT_APPLIED:
        return Verdict(event=Event.NOT_FOUND, outcome=Outcome.NOT_APPLIED, delay_seconds=again, error=kept)
    is_harmless = is_key_sent or bool(first_error and first_error.get("retry_safe"))
    end = Event.NOT_FOUND if is_harmless else Event.UNDECIDED
    error = result.error
    if isinstance(error, CrmError) and (error.retry_safe or error.code in _LANE_CODES):
        is_lane_fault = error.code in _LANE_CODES and error.subcode not in _OWN_SUBCODES
        wait = max(error.retry_after_seconds or 0.0, backoff_seconds(lane_failures + 1, limits, jitter))
        return Verdict(
            event=end if looked_seconds >= limits.look_up_seconds else None,
            outcome=Outcome.UNKNOWN,
            delay_seconds=wait,
            pause_seconds=wait if is_lane_fault else 0.0,
            is_lane_fault=is_lane_fault,
            error=kept,
        )
    delay = again if is_harmless else 0.0
    return Verdict(event=end, outcome=Outcome.UNKNOWN, delay_seconds=delay, error=kept)
