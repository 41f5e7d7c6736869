"""The transition table: only what the design says, walked at random; and what a result means."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from crmbridge.core.errors import (
    AuthError,
    Conflict,
    CrmError,
    EgressRefused,
    GateClosed,
    NotConfigured,
    NotFound,
    RateLimited,
    Unavailable,
    UnexpectedResponse,
    Unsupported,
    ValidationError,
)
from crmbridge.core.ids import new_id
from crmbridge.core.operations import Outcome
from crmbridge.core.records import WriteResult
from crmbridge.services.delivery.lane.batch import shape
from crmbridge.services.delivery.lane.outcome import Verdict, backoff_seconds, judge, judge_look_up
from crmbridge.services.delivery.lane.store import Row
from crmbridge.services.delivery.model import (
    PENDING,
    SETTLED,
    TRANSITIONS,
    Event,
    Limits,
    TargetState,
    advance,
    diagram,
    sources_of,
)

LIMITS = Limits()

# Design section 7, written down a second time; a redrive of what is parked looks first (decision 15).
ALLOWED = {
    "accepted": {"sending", "cancelled"},
    "sending": {"applied", "retrying", "unknown", "dead_letter"},
    "retrying": {"sending", "cancelled"},
    "unknown": {"applied", "retrying", "parked"},
    "parked": {"unknown", "retrying", "discarded"},
    "dead_letter": {"retrying", "discarded"},
    "applied": set(),
    "discarded": set(),
    "cancelled": set(),
}


def test_transitions_when_compared_with_the_design_then_equal() -> None:
    found: dict[str, set[str]] = {state.value: set() for state in TargetState}
    for (old, _), new in TRANSITIONS.items():
        found[old.value].add(new.value)
    assert found == ALLOWED
    assert set(TargetState) == PENDING | SETTLED and not PENDING & SETTLED


class TargetLife(RuleBasedStateMachine):
    """Any events in any order: the state moves as the table says or not at all, and promises hold."""

    def __init__(self) -> None:
        super().__init__()
        self.state = TargetState.ACCEPTED
        self.is_in_doubt = False

    @rule(event=st.sampled_from(Event))
    def happen(self, event: Event) -> None:
        before = self.state
        try:
            self.state = advance(before, event)
        except Conflict:
            assert (before, event) not in TRANSITIONS
            return
        assert self.state.value in ALLOWED[before.value]
        # After a lost outcome the next send needs a look-up first, or a person who insists.
        if event is Event.SEND:
            assert not self.is_in_doubt
        if event is Event.LOST:
            self.is_in_doubt = True
        elif event in (Event.FOUND, Event.NOT_FOUND, Event.RESEND, Event.DISCARD):
            self.is_in_doubt = False

    @invariant()
    def the_end_is_the_end(self) -> None:
        if self.state in (TargetState.APPLIED, TargetState.DISCARDED, TargetState.CANCELLED):
            for event in Event:
                with pytest.raises(Conflict):
                    advance(self.state, event)


TestTargetLife = TargetLife.TestCase


@pytest.mark.parametrize("event", list(Event))
def test_sources_when_asked_then_all_lead_to_one_state_but_a_redrive_looks_where_there_is_doubt(
    event: Event,
) -> None:
    found = {source: advance(source, event) for source in sources_of(event)}
    if event is Event.REDRIVE:
        assert found == {
            TargetState.PARKED: TargetState.UNKNOWN,
            TargetState.DEAD_LETTER: TargetState.RETRYING,
        }
    else:
        assert len(set(found.values())) == 1


def test_diagram_when_drawn_then_holds_every_transition() -> None:
    text = diagram()
    assert text.startswith("stateDiagram-v2\n    [*] --> accepted\n")
    for (old, event), new in TRANSITIONS.items():
        assert f"    {old.value} --> {new.value}: {event.value}\n" in text
    assert {line.split()[0] for line in text.splitlines() if line.endswith("--> [*]")} == {
        "applied",
        "discarded",
        "cancelled",
    }


def judged(error: Exception | None, outcome: Outcome | None = None, *, attempt: int = 1) -> Verdict:
    if outcome is None:
        outcome = error.outcome if isinstance(error, CrmError) else Outcome.APPLIED
    return judge(
        WriteResult(outcome=outcome, error=error),
        attempt=attempt,
        lane_failures=0,
        limits=LIMITS,
        lag=0,
        jitter=1.0,
    )


@pytest.mark.parametrize(
    ("error", "event", "pauses"),
    [
        (None, Event.APPLIED, False),
        (RateLimited("x", retry_after_seconds=7), Event.NOT_NOW, True),
        (Unavailable("x", retry_safe=True), Event.NOT_NOW, True),
        (Unavailable("x", outcome=Outcome.UNKNOWN), Event.LOST, False),
        (UnexpectedResponse("html"), Event.LOST, False),
        (UnexpectedResponse("x", outcome=Outcome.NOT_APPLIED, retry_safe=True), Event.NOT_NOW, False),
        (UnexpectedResponse("x", outcome=Outcome.NOT_APPLIED), Event.REFUSED, False),
        (AuthError("x", subcode="refresh_failed"), Event.NOT_NOW, True),
        (AuthError("x", subcode="insufficient_scope"), Event.REFUSED, False),
        (NotConfigured("x"), Event.NOT_NOW, True),
        (GateClosed("x"), Event.NOT_NOW, True),
        (EgressRefused("x"), Event.NOT_NOW, True),
        (ValidationError("x"), Event.REFUSED, False),
        (NotFound("x"), Event.REFUSED, False),
        (Conflict("x"), Event.REFUSED, False),
        (Unsupported("x"), Event.REFUSED, False),
    ],
)
def test_judge_when_result_is_known_then_event_and_pause(
    error: CrmError | None, event: Event, pauses: bool
) -> None:
    verdict = judged(error)
    assert verdict.event is event and (verdict.pause_seconds > 0) is pauses
    if isinstance(error, RateLimited):
        assert verdict.pause_seconds >= 7 and verdict.delay_seconds >= 7


def test_judge_when_the_driver_raised_something_else_then_outcome_is_lost_and_text_kept_out() -> None:
    verdict = judged(RuntimeError("jane@example.com"), Outcome.NOT_APPLIED)
    assert verdict.event is Event.LOST
    assert "jane" not in str(verdict.error)


@given(
    outcome=st.sampled_from(Outcome),
    retry_safe=st.booleans(),
    attempt=st.integers(1, 1000),
    kind=st.sampled_from([Unavailable, RateLimited, ValidationError, UnexpectedResponse, AuthError]),
)
def test_judge_when_outcome_is_unknown_then_never_simply_retried(
    outcome: Outcome, retry_safe: bool, attempt: int, kind: type[CrmError]
) -> None:
    error = kind("x", outcome=outcome, retry_safe=retry_safe)
    verdict = judged(None if outcome is Outcome.APPLIED else error, outcome, attempt=attempt)
    assert verdict.event is not None
    advance(TargetState.SENDING, verdict.event)  # allowed by the table
    if outcome is Outcome.UNKNOWN:
        assert verdict.event is Event.LOST and verdict.delay_seconds >= LIMITS.settle_seconds
    assert verdict.delay_seconds <= LIMITS.retry_cap_seconds


@pytest.mark.parametrize(
    ("result", "first", "event"),
    [
        (WriteResult(outcome=Outcome.APPLIED), None, Event.FOUND),
        (WriteResult(outcome=Outcome.NOT_APPLIED), None, Event.NOT_FOUND),
        (WriteResult(outcome=Outcome.UNKNOWN), None, Event.UNDECIDED),
        (WriteResult(outcome=Outcome.UNKNOWN), {"retry_safe": False}, Event.UNDECIDED),
        (WriteResult(outcome=Outcome.UNKNOWN), {"retry_safe": True}, Event.NOT_FOUND),
        (WriteResult(outcome=Outcome.UNKNOWN, error=Unsupported("x")), None, Event.UNDECIDED),
        (WriteResult(outcome=Outcome.UNKNOWN, error=Unavailable("x")), {"retry_safe": True}, None),
        (WriteResult(outcome=Outcome.UNKNOWN, error=RateLimited("x")), None, None),
    ],
)
def test_judge_look_up_when_answered_then_event(
    result: WriteResult, first: dict[str, bool] | None, event: Event | None
) -> None:
    verdict = judge_look_up(result, attempt=1, first_error=first, lane_failures=0, limits=LIMITS, jitter=1.0)
    assert verdict.event is event
    if event is not None:
        advance(TargetState.UNKNOWN, event)


@pytest.mark.parametrize(
    ("share", "first", "event"),
    [
        (0.99, None, None),
        (1.0, None, Event.UNDECIDED),
        (0.99, {"retry_safe": True}, None),
        (1.0, {"retry_safe": True}, Event.NOT_FOUND),
    ],
)
def test_judge_look_up_when_it_fails_for_long_then_parked_unless_a_repeat_is_harmless(
    share: float, first: dict[str, bool] | None, event: Event | None
) -> None:
    verdict = judge_look_up(
        WriteResult(outcome=Outcome.UNKNOWN, error=Unavailable("x")),
        attempt=1,
        first_error=first,
        lane_failures=3,
        limits=LIMITS,
        jitter=1.0,
        looked_seconds=share * LIMITS.look_up_seconds,
    )
    assert verdict.event is event and verdict.outcome is Outcome.UNKNOWN
    assert verdict.is_lane_fault and verdict.pause_seconds == verdict.delay_seconds > 0


def test_judge_look_up_when_the_key_is_sent_and_a_crash_left_no_error_then_sent_again() -> None:
    unknown = WriteResult(outcome=Outcome.UNKNOWN)
    for is_key_sent, event in ((True, Event.NOT_FOUND), (False, Event.UNDECIDED)):
        verdict = judge_look_up(
            unknown,
            attempt=1,
            first_error=None,
            lane_failures=0,
            limits=LIMITS,
            jitter=1.0,
            is_key_sent=is_key_sent,
        )
        assert verdict.event is event


def test_judge_look_up_when_only_the_look_up_may_be_repeated_then_the_write_is_still_in_doubt() -> None:
    """After a crash there is no first error. What a look-up failed with says nothing of the write."""
    busy = WriteResult(outcome=Outcome.UNKNOWN, error=Unavailable("busy", retry_safe=True))
    kept = judge_look_up(busy, attempt=1, first_error=None, lane_failures=0, limits=LIMITS, jitter=1.0).error
    assert kept is not None and kept["code"] == "unavailable"
    for result, looked in ((WriteResult(outcome=Outcome.UNKNOWN), 0.0), (busy, LIMITS.look_up_seconds)):
        verdict = judge_look_up(
            result,
            attempt=1,
            first_error=kept,
            lane_failures=0,
            limits=LIMITS,
            jitter=1.0,
            looked_seconds=looked,
        )
        assert verdict.event is Event.UNDECIDED


@given(failures=st.integers(0, 10_000), jitter=st.floats(0.5, 1.0))
def test_backoff_when_failures_grow_then_between_base_and_cap(failures: int, jitter: float) -> None:
    seconds = backoff_seconds(failures, LIMITS, jitter)
    assert LIMITS.retry_base_seconds / 2 <= seconds <= LIMITS.retry_cap_seconds
    assert seconds <= backoff_seconds(failures + 1, LIMITS, jitter)


class _Sizes:
    manifest = None

    def batch_size(self, obj: object, operation: object) -> int:
        return 3


def row(obj: str, *, state: str = "accepted", attempts: int = 0, priority: int = 0) -> Row:
    return Row(
        id=new_id(),
        write_id=UUID(int=0),
        object=obj,
        operation="create",
        priority=priority,
        state=state,
        attempt_count=attempts,
        error=None,
        depends_on=[],
        sealed=b"",
        actor="a",
        request_id="",
        remote_ids=None,
    )


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["lead", "note"]),
            st.sampled_from(["accepted", "retrying", "unknown"]),
            st.integers(0, 5),
            st.integers(0, 1),
        ),
        max_size=40,
    )
)
def test_shape_when_rows_are_mixed_then_batches_are_uniform_ordered_and_small(
    kinds: list[tuple[str, str, int, int]],
) -> None:
    rows = [
        row(obj, state=state, attempts=attempts, priority=priority)
        for obj, state, attempts, priority in kinds
    ]
    rows.sort(key=lambda one: one.priority)  # as they are read
    batches = shape(rows, _Sizes(), LIMITS)  # type: ignore[arg-type]
    assert sorted(r.id for b in batches for r in b.rows) == sorted(r.id for r in rows)
    for batch in batches:
        assert 1 <= len(batch.rows) <= 3
        assert {r.object for r in batch.rows} == {batch.object.value}
        assert {r.priority for r in batch.rows} == {batch.priority}
        alone = batch.is_look_up or any(r.attempt_count >= LIMITS.alone_after for r in batch.rows)
        assert len(batch.rows) == 1 or not alone
        assert batch.is_look_up == (batch.rows[0].state == "unknown")
    for obj in ("lead", "note"):
        plain = [r.id for r in rows if r.object == obj and r.state != "unknown" and r.attempt_count < 3]
        sent = [r.id for b in batches if not b.is_look_up for r in b.rows if r.id in plain]
        assert sent == plain
