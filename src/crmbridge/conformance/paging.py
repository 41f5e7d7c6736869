"""Topic paging: lists and searches neither skip nor repeat nor run for ever."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from crmbridge.conformance.cases import NotApplicable, expect, per_object
from crmbridge.conformance.harness import Bench, Harness
from crmbridge.core.operations import Operation
from crmbridge.core.records import Filter, Object, Page

__all__ = ["PagingTopic"]

Turn = Callable[[str], Awaitable[Page]]
_SHARED = ("last_name", "company", "title", "name", "subject", "city")
_SIZE = 3


class PagingTopic(Harness):
    """All records are created at one frozen moment: ties in time must not lose any."""

    @per_object(Operation.CREATE, Operation.LIST)
    async def test_list_pages_when_0_1_page_and_page_plus_one(self, obj: Object) -> None:
        for count in (0, 1, _SIZE, _SIZE + 1, 2 * _SIZE, 2 * _SIZE + 1):
            bench = await self._frozen()
            seeded = set(await _walk(self._list(bench, obj, 200), "list before"))
            made = await self._fill(bench, obj, count)
            seen = await _walk(self._list(bench, obj, _SIZE), f"list of {count} in pages of {_SIZE}")
            _expect_all(seen, seeded | made, f"list of {count} in pages of {_SIZE}")

    @per_object(Operation.CREATE, Operation.LIST)
    async def test_list_since_when_older_then_left_out(self, obj: Object) -> None:
        bench = await self._frozen()
        old = await self._fill(bench, obj, 1)
        bench.emulator.clock.advance(3600)
        since = bench.emulator.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        bench.emulator.clock.advance(3600)
        new = {(await bench.create(obj, self.sample(obj, 50))).remote_id}
        await self._pass_lag(bench, obj)
        page = await bench.driver.list_recent(obj, since=since)
        ids = {record.remote_id for record in page.records}
        expect(new <= ids, "a record changed after since is missing")
        expect(not ids & old, "a record changed before since is listed")

    @per_object(Operation.CREATE, Operation.SEARCH)
    async def test_search_pages_when_0_1_page_and_page_plus_one(self, obj: Object) -> None:
        slot = next((slot for slot in _SHARED if slot in self.sample(obj)), "")
        if not slot:
            raise NotApplicable("the samples share no slot to search by")
        path = self.map_for(obj).native_path(slot)
        for count in (0, 1, _SIZE, _SIZE + 1, 2 * _SIZE + 1):
            bench = await self._frozen()
            made = await self._fill(bench, obj, count)
            filter = Filter(equals={path: self.sample(obj)[slot]}, limit=_SIZE)
            seen = await _walk(self._search(bench, obj, filter), f"search of {count}")
            _expect_all(seen, made, f"search of {count} in pages of {_SIZE}")

    async def _frozen(self) -> Bench:
        bench = await self.make()
        bench.emulator.clock.freeze()
        return bench

    async def _fill(self, bench: Bench, obj: Object, count: int) -> set[str]:
        ids = {(await bench.create(obj, self.sample(obj, number))).remote_id for number in range(count)}
        expect(len(ids) == count, f"{count} creates gave {len(ids)} different ids")
        await self._pass_lag(bench, obj)
        return ids

    async def _pass_lag(self, bench: Bench, obj: Object) -> None:
        await self.wait(bench, self.manifest().objects[obj].idempotency.search_lag_seconds)

    def _list(self, bench: Bench, obj: Object, limit: int) -> Turn:
        limit = min(limit, self.manifest().paging.max_size)

        async def turn(cursor: str) -> Page:
            return await bench.open().list_recent(obj, cursor=cursor, limit=limit)

        return turn

    def _search(self, bench: Bench, obj: Object, filter: Filter) -> Turn:
        async def turn(cursor: str) -> Page:
            return await bench.open().search_records(obj, filter, cursor)

        return turn


async def _walk(turn: Turn, what: str) -> list[str]:
    """All ids, page by page; stops a walk that does not end."""
    ids: list[str] = []
    cursor = ""
    cursors: set[str] = set()
    while True:
        page = await turn(cursor)
        ids.extend(record.remote_id for record in page.records)
        cursor = page.next_cursor
        expect(isinstance(cursor, str), f"{what}: next_cursor is no text")
        if not cursor:
            return ids
        expect(cursor not in cursors and len(cursors) < 500, f"{what}: does not come to an end")
        cursors.add(cursor)


def _expect_all(seen: list[str], expected: set[str], what: str) -> None:
    missing = expected - set(seen)
    expect(not missing, f"{what}: skipped {len(missing)} of {len(expected)} records")
    expect(len(seen) == len(set(seen)), f"{what}: {len(seen) - len(set(seen))} records came twice")
    strange = set(seen) - expected
    expect(not strange, f"{what}: {len(strange)} records that were not asked for")
