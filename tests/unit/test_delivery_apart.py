"""Apart: entries of lanes that are held, each lane's by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest

from crmbridge.services.delivery.intake import apart
from crmbridge.services.delivery.intake.apart import Apart

HELD, FREE = (UUID(int=1),), (UUID(int=2),)


class Row:
    """What a flush meets: entries by lane begin with its number; those of held lanes are refused, a moment later."""

    def __init__(self) -> None:
        self.held = {"1"}
        self.written: list[str] = []
        self.tries: list[list[str]] = []

    async def flush(self, entries: Sequence[str]) -> bool:
        self.tries.append(list(entries))
        await asyncio.sleep(0.02)
        if any(entry[0] in self.held for entry in entries):
            return False
        self.written += entries
        return True


async def test_entries_when_put_together_then_each_lane_is_tried_by_itself_and_the_free_one_goes_with_all_again() -> (
    None
):
    row = Row()
    them = Apart(row.flush)
    them.put([(HELD, "1a"), (FREE, "2a"), (HELD, "1b"), (FREE, "2b")])
    await them.close()
    assert sorted(row.tries) == [["1a", "1b"], ["2a", "2b"]] and row.written == ["2a", "2b"]
    assert not them.takes(FREE, "2c")
    assert them.takes(HELD, "1c")
    row.held.clear()
    await them.close()
    assert row.written == ["2a", "2b", "1c"] and not them.takes(HELD, "1d")


async def test_lane_when_it_was_held_long_ago_then_tried_with_all_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(apart, "_HELD_SECONDS", 0.01)
    row = Row()
    them = Apart(row.flush)
    them.put([(HELD, "1a")])
    await them.close()
    await asyncio.sleep(0.02)
    assert not them.takes(HELD, "1b")


async def test_lanes_when_many_are_held_then_few_tries_at_a_time_and_every_entry_has_one() -> None:
    row = Row()
    under_way = most = 0

    async def flush(entries: Sequence[str]) -> bool:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        done = await row.flush(entries)
        under_way -= 1
        return done

    them = Apart(flush)
    them.put([((UUID(int=number),), f"1-{number}") for number in range(10)])
    await them.close()
    assert most == apart._AT_ONCE
    assert sorted(row.tries) == sorted([f"1-{number}"] for number in range(10))


async def test_entry_when_it_goes_to_two_lanes_then_apart_from_those_of_one() -> None:
    row = Row()
    them = Apart(row.flush)
    them.put([((*HELD, *FREE), "1+2"), (FREE, "2")])
    await them.close()
    assert sorted(row.tries) == [["1+2"], ["2"]] and row.written == ["2"]
