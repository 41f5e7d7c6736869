"""The maths of rate budgets: whatever is asked, no period of the provider's holds more calls than its limit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crmbridge.services.connections.budgets.window import Window

START = 1_795_341_600.0
HOUR = 3600.0


def most_in_a_period(moments: list[float], per_seconds: float) -> int:
    """The most calls in any half-open period, wherever it begins."""
    moments = sorted(moments)
    most = first = 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - per_seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


class Process:
    """Holds tokens as a purse does, and uses each at a moment within its life."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.held: list[tuple[int, float]] = []
        self.used: list[tuple[int, float]] = []

    def visit(self, now: float, need: int, ahead: int, *, must_report: bool) -> None:
        if must_report:
            for grain, at in self.used:
                self.window.settle(grain, 1, at)
            self.used = []
        alive = [(grain, until) for grain, until in self.held if until > now]
        for grain, _ in self.held[:]:
            if must_report and (grain, _) not in alive:
                self.window.settle(grain, 1, None)
        self.held = alive
        grant = self.window.grant(now, need, ahead)
        assert grant.ready <= need and grant.ahead <= ahead
        assert (grant.wait_seconds > 0) == (grant.ready < need)
        self.held += [(grant.ready_grain, now + grant.ready_lasts)] * grant.ready
        self.held += [(grant.ahead_grain, now + grant.ahead_lasts)] * grant.ahead

    def use(self, now: float, count: int) -> list[float]:
        usable = [piece for piece in self.held if piece[1] > now][:count]
        for piece in usable:
            self.held.remove(piece)
            self.used.append((piece[0], now))
        return [now] * len(usable)


steps = st.lists(
    st.tuples(
        st.integers(0, 3),  # which process
        st.floats(0, 0.4),  # how much of the period passes first
        st.integers(0, 60),  # need
        st.integers(0, 20),  # ahead
        st.integers(0, 60),  # calls that go
        st.booleans(),  # whether it reports; a dead process never does
    ),
    max_size=60,
)


@given(steps, st.integers(1, 120), st.sampled_from([1.0, 10.0, 60.0, 86_400.0]))
@settings(max_examples=300)
def test_window_when_several_processes_take_and_report_then_no_period_holds_more_than_the_limit(
    taken: list[Any], limit: int, per_seconds: float
) -> None:
    window = Window(limit=limit, per_seconds=per_seconds)
    processes = [Process(window) for _ in range(4)]
    now, calls = START, []
    for who, passes, need, ahead, count, must_report in taken:
        now += passes * per_seconds
        processes[who].visit(now, need, ahead, must_report=must_report)
        calls += processes[who].use(now, count)
        now += 0.001
        calls += processes[(who + 1) % 4].use(now, count // 2)
    assert most_in_a_period(calls, per_seconds) <= limit


@pytest.mark.parametrize(
    ("limit", "per_seconds"), [(100, 10.0), (110, 10.0), (5, 1.0), (11, 1.0), (2000, 60.0)]
)
def test_window_when_always_asked_then_nearly_all_of_it_is_used_and_evenly(
    limit: int, per_seconds: float
) -> None:
    window = Window(limit=limit, per_seconds=per_seconds)
    now, calls, waits = START, [], []
    while now < START + 5 * per_seconds:
        grant = window.grant(now, 3)
        for _ in range(grant.ready):
            calls.append(now)
            window.settle(grant.ready_grain, 1, now)
        # Whoever asks comes back a little late.
        waits.append((now, grant.wait_seconds))
        now += grant.wait_seconds + 0.002
    assert most_in_a_period(calls, per_seconds) <= limit
    assert len(calls) >= 0.95 * 5 * limit
    assert max(wait for at, wait in waits if at > START + 2 * per_seconds) <= 1.5, "within what callers wait"


def test_window_when_wide_then_tokens_are_given_ahead_and_when_narrow_none() -> None:
    window = Window(limit=100, per_seconds=10.0)
    assert window.grant(START, 1, 12).ahead == 12
    window.grant(START, 30, 0)
    assert window.free(START) == 57
    assert window.grant(START, 1, 12).ahead == 3, "half of what is left of the first half"
    window.grant(START, 3, 0)
    assert window.grant(START, 1, 12).ahead == 0


def test_window_when_second_half_then_it_is_spaced_at_the_rate_of_the_budget() -> None:
    window = Window(limit=100, per_seconds=10.0)
    assert window.grant(START, 50).ready == 50
    first = window.grant(START, 40)
    assert first.ready == 6, "half a second's worth, then one by one"
    assert first.wait_seconds == pytest.approx(0.1)
    assert window.grant(START + 0.1, 40).ready == 1


def test_window_when_the_period_is_long_then_it_is_not_spaced() -> None:
    window = Window(limit=1000, per_seconds=86_400.0)
    assert window.grant(START, 1000).ready == 1000
    refused = window.grant(START + HOUR, 1)
    assert refused.ready == 0 and refused.wait_seconds == pytest.approx(23 * HOUR, abs=900)


def test_window_when_tokens_come_back_then_they_can_be_taken_again_and_never_twice() -> None:
    window = Window(limit=4, per_seconds=10.0)
    grant = window.grant(START, 4)
    window.settle(grant.ready_grain, 3, None)
    assert window.free(START) == 3
    window.settle(grant.ready_grain, 9, None)
    assert window.free(START) == 4
    window.settle(grant.ready_grain, 1, None)
    assert window.free(START) == 4


def test_window_when_a_token_was_used_earlier_than_it_might_have_been_then_it_is_free_that_much_earlier() -> (
    None
):
    window = Window(limit=1, per_seconds=10.0)
    grant = window.grant(START, 1)
    window.settle(grant.ready_grain, 1, START)
    assert window.free(START + 9.99) == 0
    assert window.free(START + 10.11) == 1


def test_window_when_the_provider_counts_more_than_we_do_then_others_calls_are_believed_until_told_otherwise() -> (
    None
):
    window = Window(limit=100, per_seconds=10.0)
    window.grant(START, 10)
    window.tell(START, limit=100, remaining=30, reset_seconds=4.0, age=0.5)
    assert window.free(START) == 30
    window.tell(START + 1, limit=100, remaining=80, reset_seconds=3.0, age=0.0)
    assert window.free(START + 1) == 80
    window.tell(START + 1, limit=100, remaining=0, reset_seconds=3.0, age=0.0)
    assert window.grant(START + 1, 1).wait_seconds == pytest.approx(3.0)
    assert window.grant(START + 4.1, 1).ready == 1, "others' calls are over with the provider's reset"


def test_window_when_others_used_up_a_long_budget_then_a_call_finds_out_after_five_minutes() -> None:
    window = Window(limit=15_000, per_seconds=86_400.0)
    window.tell(START, limit=15_000, remaining=0, reset_seconds=None, age=0.0)
    assert window.grant(START, 1).wait_seconds == pytest.approx(300.0)
    assert window.grant(START + 301, 1).ready == 1


def test_window_when_the_provider_tells_another_limit_then_it_counts() -> None:
    window = Window(limit=100, per_seconds=10.0)
    window.tell(START, limit=190, remaining=190, reset_seconds=None, age=0.0)
    assert window.free(START) == 190
    for wild in (0, -5, 10**15):
        window.tell(START, limit=wild, remaining=None, reset_seconds=None, age=0.0)
        assert window.most == 190
    window.tell(START, limit=100, remaining=100, reset_seconds=None, age=0.0)
    assert window.told_limit == 0


def test_window_when_held_then_nothing_until_it_is_over_and_a_shorter_hold_changes_nothing() -> None:
    window = Window(limit=100, per_seconds=10.0)
    window.hold(START + 5)
    window.hold(START + 1)
    assert window.grant(START, 3).wait_seconds == pytest.approx(5.0)
    assert window.remaining("burst", START).remaining == 0
    assert window.remaining("burst", START).held_seconds == 5.0
    assert window.grant(START + 5.1, 3).ready == 3


def test_window_when_declared_anew_then_what_was_spent_keeps_its_moments() -> None:
    window = Window(limit=100, per_seconds=10.0)
    grant = window.grant(START, 20)
    window.settle(grant.ready_grain, 20, START)
    window.fit(50, 60.0)
    assert window.free(START + 11) == 30
    assert window.free(START + 61.3) == 50


def test_window_when_full_of_single_calls_then_the_row_stays_small() -> None:
    window = Window(limit=2000, per_seconds=60.0)
    for number in range(2000):
        grant = window.grant(START + number * 0.03, 1)
        window.settle(grant.ready_grain, grant.ready, START + number * 0.03)
    assert len(window.spent) <= 102
