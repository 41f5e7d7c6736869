"""Ahead: what is due in a lane and was read before its calls. Live writes go before what was read of an import."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from time import monotonic
from uuid import UUID

from crmbridge.db.pool import Database
from crmbridge.services.delivery.lane import store
from crmbridge.services.delivery.lane.batch import Batch, Lane, shape
from crmbridge.services.delivery.lane.store import Row, Taken
from crmbridge.services.delivery.model import Limits

__all__ = ["Ahead"]


class Ahead:
    """The batches that were read of one lane and not begun, and what is to be read next.

    ``busy`` are the targets whose batch was begun and has not ended. ``marked`` are those that were marked as they were
    read and are not begun, with the time before their mark on the monotonic clock. ``is_exhausted``: nothing is due
    beside what was read, as far as is known.
    """

    def __init__(self, db: Database, taken: Taken, connection: Lane, limits: Limits, window: int) -> None:
        self._db = db
        self._lease = taken.lease
        self._connection = connection
        self._limits = limits
        self._window = window
        self._queue: deque[Batch] = deque()
        self._is_live_wanted = False
        self.busy: set[UUID] = set()
        self.marked: dict[UUID, float] = dict.fromkeys(taken.marked, taken.began)
        self.is_exhausted = not taken.has_more
        self._take(taken.rows)

    def first(self, *, is_import_due: bool) -> Batch | None:
        """The batch that is next: one of an import before live ones, where that is due."""
        imports = [batch for batch in self._queue if batch.priority > 0] if is_import_due else []
        return next(iter(imports or self._queue), None)

    @property
    def is_empty(self) -> bool:
        """Nothing was read that is not begun, and nothing more is known to be due."""
        return not self._queue and self.is_exhausted and not self._is_live_wanted

    def begin(self, batch: Batch) -> None:
        """It is under way from now on."""
        self._queue.remove(batch)
        self.busy.update(row.id for row in batch.rows)

    def put_back(self, batch: Batch) -> None:
        """It is read again, with what has come since."""
        self._queue.remove(batch)
        self.is_exhausted = False

    def want_live(self) -> None:
        """A live write may have come. What was read of an import stays, behind it."""
        self._is_live_wanted = True

    def want_all(self) -> None:
        """Anything may have come, or come free."""
        self.is_exhausted = False
        self._is_live_wanted = self._is_live_wanted or bool(self._queue)

    async def read(self, *, only_live: bool, calls: int, is_import_due: bool) -> None:
        """Read what is wanted, as far as it may be next. ``calls`` may begin at once: so many live writes are marked as
        they are read.
        """
        # Where one of an import is due and none was read, all are read; live ones come first there too.
        has_turn = self._queue[0].priority > 0 if self._queue else self.is_exhausted or not is_import_due
        if self._is_live_wanted and has_turn:
            await self._read_live(calls)
        if self._queue or self.is_exhausted or only_live:
            return
        # Who wants more while this is read is not overheard.
        self._is_live_wanted, self.is_exhausted = False, True
        busy = list(self.busy)
        self._take(
            await self._db.alone(
                self._lease.tenant_id,
                lambda conn, setting: store.window(conn, self._lease, self._window, busy, setting),
            )
        )

    async def _read_live(self, calls: int) -> None:
        self._is_live_wanted = False
        busy, began = list(self.busy), monotonic()
        rows, marked = await self._db.alone(
            self._lease.tenant_id,
            lambda conn, setting: store.live(conn, self._lease, self._window, busy, calls, setting),
        )
        self._is_live_wanted = self._is_live_wanted or len(rows) == self._window
        self.marked.update(dict.fromkeys(marked, began))
        self._queue.extendleft(reversed(self._shaped(rows)))

    def _take(self, rows: Sequence[Row]) -> None:
        if len(rows) == self._window:
            self.is_exhausted = False
        self._queue = self._shaped(rows)

    def _shaped(self, rows: Sequence[Row]) -> deque[Batch]:
        return shape(rows, self._connection, self._limits)
