"""Rows: the writes of one request of many, prepared and handed to the flusher in parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from crmbridge.core.errors import CrmError
from crmbridge.services.delivery.courtesy import Courtesy, Work
from crmbridge.services.delivery.intake.flusher import Flushed, Flusher
from crmbridge.services.delivery.intake.store import PreparedWrite
from crmbridge.services.delivery.model import NewWrite

__all__ = ["SMALL_PART", "Row", "take_in"]

# So many are prepared at a stretch, so many are handed to the flusher at once.
_STRETCH, _PART = 16, 100
# So many of an import share a commit while somebody waits for a live write, whose own commit waits until all before it
# is on disk. The rest that follows keeps one request of 200 rows from being eight commits in a row for it.
SMALL_PART = 25


@dataclass(slots=True)
class Row:
    """One write of many: the ``item`` it was prepared to, and either what became of that or the ``error``."""

    new: NewWrite
    item: PreparedWrite | None = None
    flushed: Flushed | None = None
    error: CrmError | None = None


async def take_in(
    items: Sequence[NewWrite],
    prepare: Callable[[NewWrite], Awaitable[PreparedWrite]],
    flusher: Flusher,
    courtesy: Courtesy | None,
) -> AsyncIterator[Row]:
    """Each item in order, as soon as it is committed or refused.

    With ``courtesy`` (an import) the parts are small while somebody waits for a live write, with a rest after each.
    Raises what ``prepare`` and the flusher raise, but for CrmError, which is its row's ``error``.
    """
    worked_from = monotonic()
    rows = [Row(new) for new in items]
    futures: dict[int, asyncio.Future[Flushed]] = {}
    ready: list[tuple[int, PreparedWrite]] = []
    for place, row in enumerate(rows):
        if place and place % _STRETCH == 0:
            await asyncio.sleep(0)
        try:
            row.item = await prepare(row.new)
        except CrmError as error:
            row.error = error
            continue
        ready.append((place, row.item))
        makes_way = courtesy is not None and courtesy.is_asked
        if len(ready) < (SMALL_PART if makes_way else _PART):
            continue
        part = {at: flusher.submit(item) for at, item in ready}
        futures |= part
        ready.clear()
        if courtesy is not None and makes_way:
            await asyncio.wait(part.values())
            await courtesy.rest(Work.ACCEPT, monotonic() - worked_from)
            worked_from = monotonic()
    futures |= {at: flusher.submit(item) for at, item in ready}
    for place, row in enumerate(rows):
        if place in futures:
            try:
                row.flushed = await futures[place]
            except CrmError as error:
                row.error = error
        yield row
    if courtesy is not None:
        await courtesy.rest(Work.ACCEPT, monotonic() - worked_from)
