"""Types of the delivery room, and the one transition table of target states."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec

from crmbridge.core.errors import Conflict, Fix
from crmbridge.services.connections.model import Intent

__all__ = [
    "PENDING",
    "SETTLED",
    "TRANSITIONS",
    "Accepted",
    "Event",
    "Limits",
    "Moved",
    "NewWrite",
    "TargetState",
    "TargetView",
    "WriteFilter",
    "WritePage",
    "WriteView",
    "advance",
    "diagram",
]


class TargetState(StrEnum):
    """Where a target stands."""

    ACCEPTED = "accepted"
    SENDING = "sending"
    APPLIED = "applied"
    RETRYING = "retrying"
    UNKNOWN = "unknown"
    PARKED = "parked"
    DEAD_LETTER = "dead_letter"
    DISCARDED = "discarded"
    CANCELLED = "cancelled"


class Event(StrEnum):
    """What happens to a target. ``look-up`` events come from ``find_written``, the last four from people.

    A redrive looks first where the outcome cannot be told; a resend is a redrive of somebody who insists.
    """

    SEND = "send"
    APPLIED = "applied"
    NOT_NOW = "not now"
    LOST = "outcome lost"
    REFUSED = "refused"
    FOUND = "look-up found it"
    NOT_FOUND = "look-up found nothing"
    UNDECIDED = "look-up cannot tell"
    REDRIVE = "redrive"
    RESEND = "redrive without looking"
    DISCARD = "discard"
    CANCEL = "cancel"


_S, _E = TargetState, Event

# The only place that says which state follows which. Everything absent is refused.
TRANSITIONS: dict[tuple[TargetState, Event], TargetState] = {
    (_S.ACCEPTED, _E.SEND): _S.SENDING,
    (_S.RETRYING, _E.SEND): _S.SENDING,
    (_S.SENDING, _E.APPLIED): _S.APPLIED,
    (_S.SENDING, _E.NOT_NOW): _S.RETRYING,
    (_S.SENDING, _E.LOST): _S.UNKNOWN,
    (_S.SENDING, _E.REFUSED): _S.DEAD_LETTER,
    (_S.UNKNOWN, _E.FOUND): _S.APPLIED,
    (_S.UNKNOWN, _E.NOT_FOUND): _S.RETRYING,
    (_S.UNKNOWN, _E.UNDECIDED): _S.PARKED,
    (_S.PARKED, _E.REDRIVE): _S.UNKNOWN,
    (_S.DEAD_LETTER, _E.REDRIVE): _S.RETRYING,
    (_S.PARKED, _E.RESEND): _S.RETRYING,
    (_S.DEAD_LETTER, _E.RESEND): _S.RETRYING,
    (_S.PARKED, _E.DISCARD): _S.DISCARDED,
    (_S.DEAD_LETTER, _E.DISCARD): _S.DISCARDED,
    (_S.ACCEPTED, _E.CANCEL): _S.CANCELLED,
    (_S.RETRYING, _E.CANCEL): _S.CANCELLED,
}

# Delivery still has something to do with these by itself.
PENDING = frozenset({_S.ACCEPTED, _S.SENDING, _S.RETRYING, _S.UNKNOWN})
# Nothing more happens without a person.
SETTLED = frozenset(_S) - PENDING


def advance(state: TargetState, event: Event) -> TargetState:
    """The next state. Raises Conflict for what the table does not allow."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise Conflict(
            f"A target that is {state.value} cannot follow {event.value!r}.",
            fix=Fix("read_again", "Read the write again: its state has changed, or the step does not apply."),
        ) from None


def sources_of(event: Event) -> list[TargetState]:
    """The states in which an event is allowed."""
    return [state for state, known in TRANSITIONS if known is event]


def diagram() -> str:
    """The table as a Mermaid state diagram, for the docs."""
    lines = [
        "stateDiagram-v2",
        "    [*] --> accepted",
        "    [*] --> dead_letter: one of several can never take it",
    ]
    lines += [f"    {old.value} --> {new.value}: {event.value}" for (old, event), new in TRANSITIONS.items()]
    left = {old for old, _ in TRANSITIONS}
    lines += [f"    {state.value} --> [*]" for state in TargetState if state not in left]
    return "\n".join(lines) + "\n"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds and sizes of delivery. The defaults are the product; tests make them small.

    ``send_seconds`` bounds one provider batch (never less than twice the driver's own timeout); a batch whose
    sender died is looked up only after it, for until then the sender may only be slow. ``settle_seconds`` is the
    least wait before any look-up. A lane gives its worker free after ``turn_seconds``, so that a deep import does
    not hold up other lanes. A target that failed ``alone_after`` times travels alone; one that failed
    ``most_attempts`` times while its lane delivers others is given up. An unknown outcome whose look-ups fail for
    ``look_up_seconds`` is parked: three days, so that a CRM that is off over a long weekend still settles by itself.
    """

    lease_seconds: float = 15.0
    send_seconds: float = 60.0
    settle_seconds: float = 2.0
    retry_base_seconds: float = 1.0
    retry_cap_seconds: float = 900.0
    turn_seconds: float = 2.0
    reread_seconds: float = 0.25
    alone_after: int = 3
    most_attempts: int = 12
    look_up_seconds: float = 259_200.0
    overdue_seconds: float = 86_400.0
    flush_size: int = 500
    window_size: int = 400


class NewWrite(msgspec.Struct, kw_only=True):
    """One item of a batch of accepts."""

    intent: Intent
    idempotency_key: str = ""


class TargetView(msgspec.Struct, kw_only=True):
    """One write on one connection, as people and programs see it. ``error`` has the fields of ``CrmError.to_dict``.

    ``connection`` is its name. Of several targets the first is the primary's.
    """

    id: UUID
    connection_id: UUID
    connection: str = ""
    state: TargetState
    outcome: str | None = None
    remote_id: str = ""
    remote_url: str = ""
    delete_level: str = ""
    error: dict[str, Any] | None = None
    attempt_count: int = 0
    due_at: datetime | None = None
    sent_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def is_settled(self) -> bool:
        """True when nothing more happens by itself."""
        return self.state in SETTLED


class Accepted(msgspec.Struct, kw_only=True):
    """The answer to an accept. ``replayed``: the key was known, this is the first answer again."""

    write_id: UUID
    targets: list[TargetView]
    replayed: bool = False


class WriteView(msgspec.Struct, kw_only=True):
    """One write without its content."""

    id: UUID
    object: str
    operation: str
    source: str
    actor: str
    priority: int
    import_id: UUID | None
    request_id: str
    accepted_at: datetime
    targets: list[TargetView]

    @property
    def is_settled(self) -> bool:
        """True when every target is settled."""
        return all(target.is_settled for target in self.targets)


class WriteFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which writes: every part given must hold. ``code`` is that of a target's error; it counts for steps only."""

    state: TargetState | None = None
    object: str = ""
    import_id: UUID | None = None
    connection_id: UUID | None = None
    since: datetime | None = None
    code: str = ""


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """What a step by filter did. ``left`` targets fit and were over the limit; ``until`` goes into the next call."""

    moved: int
    left: int
    until: datetime


class WritePage(msgspec.Struct, kw_only=True):
    """Newest first. ``next_cursor`` is empty on the last page."""

    writes: list[WriteView]
    next_cursor: str = ""
