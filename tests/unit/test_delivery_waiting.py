"""Ears: what a caller hears of the targets that he waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from crmbridge.services.delivery.elsewhere import Elsewhere
from crmbridge.services.delivery.model import TargetState, TargetView
from crmbridge.services.delivery.waiting import Waiters


@pytest.fixture
def waiters() -> Waiters:
    return Waiters(Elsewhere(None, {}, lambda work: work.close()))


def applied(target_id: UUID) -> TargetView:
    return TargetView(
        id=target_id,
        connection_id=uuid4(),
        state=TargetState.APPLIED,
        outcome="applied",
        finished_at=datetime.now(UTC),
    )


async def test_hear_when_told_before_then_at_once_and_once(waiters: Waiters) -> None:
    one = uuid4()
    view = applied(one)
    with waiters.listening([one]) as ear:
        waiters.wake(one, view)
        assert await ear.hear(5) is view
        began = asyncio.get_running_loop().time()
        assert await ear.hear(0.05) is None
        assert asyncio.get_running_loop().time() - began >= 0.04


async def test_hear_when_told_how_it_stands_and_then_only_of_a_change_then_how_it_stands(
    waiters: Waiters,
) -> None:
    one = uuid4()
    view = applied(one)
    with waiters.listening([one]) as ear:
        waiters.wake(one, view)
        waiters.wake(one)
        assert await ear.hear(5) is view


async def test_hear_when_told_meanwhile_then_all_who_listen_to_it_and_nobody_else(waiters: Waiters) -> None:
    one, other = uuid4(), uuid4()
    with (
        waiters.listening([one]) as first,
        waiters.listening([other, one]) as second,
        waiters.listening([other]) as third,
    ):
        hearing = [asyncio.create_task(ear.hear(0.2)) for ear in (first, second, third)]
        await asyncio.sleep(0.02)
        view = applied(one)
        waiters.wake(one, view)
        assert await asyncio.gather(*hearing) == [view, view, None]


async def test_listening_when_over_then_forgotten(waiters: Waiters) -> None:
    one = uuid4()
    with waiters.listening([one]), waiters.listening([one]):
        pass
    assert waiters._ears == {}


class _Words:
    """Signals of one process that talks to itself; keeps what was sent."""

    def __init__(self) -> None:
        self.hearers: dict[str, Callable[[str], None]] = {}
        self.sent: list[tuple[str, str]] = []

    def listen(self, kind: str, hearer: Callable[[str], None]) -> None:
        self.hearers[kind] = hearer

    async def send(self, kind: str, text: str) -> None:
        self.sent.append((kind, text))


async def test_word_when_it_comes_while_the_lane_is_being_taken_then_its_end_is_told_all_the_same() -> None:
    words, side = _Words(), set[asyncio.Task[None]]()
    elsewhere = Elsewhere(words, {}, lambda work: side.add(asyncio.ensure_future(work)))  # type: ignore[arg-type]
    waiters = Waiters(elsewhere)
    lane, target, other = uuid4(), uuid4(), uuid4()
    words.hearers["waited"](f"{lane} {target}")
    waiters.wake(other)
    waiters.wake(target)
    waiters.wake(target)
    await asyncio.gather(*side)
    assert words.sent == [("settled", str(target))]
