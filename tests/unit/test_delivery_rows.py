"""Rows of one request: an answer each, in order; those of an import in small parts while somebody waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from crmbridge.core.errors import CrmError, NotFound, ValidationError
from crmbridge.services.delivery.courtesy import Work
from crmbridge.services.delivery.intake.rows import SMALL_PART, take_in

Known = list[tuple[str, int]]


class Slow:
    """A flusher whose commits take until the caller has handed over all it wants to."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.waiting: list[asyncio.Future[Any]] = []
        self.refused: set[Any] = set()

    def submit(self, item: Any) -> asyncio.Future[Any]:
        if not self.waiting:
            asyncio.get_running_loop().call_soon(self._commit)
        future = asyncio.get_running_loop().create_future()
        future.item = item  # type: ignore[attr-defined]
        self.waiting.append(future)
        return future

    def _commit(self) -> None:
        self.known.append(("commit", len(self.waiting)))
        for future in self.waiting:
            item = future.item  # type: ignore[attr-defined]
            if item in self.refused:
                future.set_exception(NotFound("gone"))
            else:
                future.set_result(f"flushed {item}")
        self.waiting = []


class Asked:
    """Courtesy while somebody waits until so many rests are over."""

    def __init__(self, known: Known, rests: int) -> None:
        self.known = known
        self.rests = rests

    @property
    def is_asked(self) -> bool:
        return self.rests > 0

    async def rest(self, work: Work, worked_seconds: float) -> None:
        assert work is Work.ACCEPT and worked_seconds >= 0
        self.rests -= 1
        self.known.append(("rest", 0))


async def taken(
    count: int, flusher: Slow, courtesy: Asked | None = None, bad: tuple[int, ...] = ()
) -> list[Any]:
    async def prepare(new: int) -> str:
        if new in bad:
            raise ValidationError(f"row {new} is bad")
        return f"item {new}"

    items: Any = range(count)
    how: Any = (prepare, flusher, courtesy)
    return [row async for row in take_in(items, *how)]


async def test_rows_when_some_cannot_be_prepared_or_committed_then_each_has_its_own_answer_in_order() -> None:
    flusher = Slow([])
    flusher.refused = {"item 3"}
    rows = await taken(6, flusher, bad=(0, 4))
    assert [row.new for row in rows] == list(range(6))
    assert [row.flushed for row in rows] == [
        None,
        "flushed item 1",
        "flushed item 2",
        None,
        None,
        "flushed item 5",
    ]
    errors: list[CrmError | None] = [row.error for row in rows]
    assert [type(error) for error in errors if error] == [ValidationError, NotFound, ValidationError]
    assert [row.item is None for row in rows] == [True, False, False, False, True, False]


async def test_rows_when_nobody_waits_then_in_parts_of_a_hundred() -> None:
    known: Known = []
    rows = await taken(250, Slow(known), Asked(known, 0))
    assert all(row.flushed for row in rows)
    assert known == [("commit", 100), ("commit", 100), ("commit", 50), ("rest", 0)]


async def test_rows_when_somebody_waits_then_small_parts_each_committed_before_its_rest() -> None:
    known: Known = []
    rows = await taken(3 * SMALL_PART + 1, Slow(known), Asked(known, 5))
    assert all(row.flushed for row in rows)
    assert known == [("commit", SMALL_PART), ("rest", 0)] * 3 + [("commit", 1), ("rest", 0)]


async def test_rows_when_the_waiting_ends_midway_then_the_parts_grow_again() -> None:
    known: Known = []
    await taken(SMALL_PART + 100, Slow(known), Asked(known, 1))
    assert known == [("commit", SMALL_PART), ("rest", 0), ("commit", 100), ("rest", 0)]


@pytest.mark.parametrize("count", [0, 1])
async def test_rows_when_few_then_as_many_answers(count: int) -> None:
    assert len(await taken(count, Slow([]))) == count
