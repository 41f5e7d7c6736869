"""The database's clock beside this process's own: since when both have run in step, and what to do when they have not.

All times in the tables are the database's. They tell how much time has passed only as long as that clock runs evenly:
a correction by hand, a virtual machine that was paused, a failover to a machine with another time make it leap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

import structlog

from crmbridge.db.pool import Database

__all__ = ["DatabaseClock"]

_log = structlog.get_logger("crmbridge.clock")
_NOW = "select extract(epoch from clock_timestamp())::float8"
# How often a process looks. Seconds.
_EVERY = 5.0
# Both clocks may differ by so much more than at the look before: seconds, and a part of the time between. NTP slews a
# clock by 0.0005 at most.
_SLACK, _DRIFT = 1.0, 0.002


class DatabaseClock:
    """Looks at the database's clock each five seconds, and whenever it is asked.

    ``on_leap`` is called when it leapt; each of ``on_set_back``, with the seconds, in the background and again until it
    succeeds, when it was set back: moments that were near are far then.
    """

    def __init__(self, db: Database, *, on_leap: Callable[[], None] | None = None) -> None:
        self._db = db
        self._on_leap = on_leap
        self.on_set_back: list[Callable[[float], Awaitable[None]]] = []
        # The least and the most that the database's clock was ahead of ours, and when that was.
        self._ahead: tuple[float, float] | None = None
        self._looked_at = self._since = 0.0
        self._running: asyncio.Task[None] | None = None
        self._mending: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Look from now on, in the background."""
        self._running = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Look no more; what ``on_set_back`` began is given up."""
        tasks = {task for task in (self._running, *self._mending) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def steady_seconds(self) -> float:
        """For how long, up to now, this process has seen the database's clock run in step with its own.

        0.0 when it has leapt since the look before, at the first look, and when the answer took too long to tell.
        Raises DatabaseUnavailable.
        """
        before = monotonic()
        theirs = await self._db.peek(lambda conn: conn.fetchval(_NOW))
        after = monotonic()
        if after - before > _SLACK:
            return 0.0
        ahead, known = (theirs - after, theirs - before), self._ahead
        slack = _SLACK + _DRIFT * (after - self._looked_at)
        is_in_step = known is not None and known[0] - slack <= ahead[1] and ahead[0] <= known[1] + slack
        if before < self._looked_at:
            # Another look came between: which of both saw the clock first is not known, and the next one tells.
            return after - self._since if is_in_step else 0.0
        self._ahead, self._looked_at = ahead, after
        if is_in_step:
            return after - self._since
        self._since = after
        if known is None:
            return 0.0
        self._note(sum(ahead) / 2 - sum(known) / 2)
        return 0.0

    def _note(self, seconds: float) -> None:
        _log.warning("database.clock_leapt", seconds=round(seconds, 1))
        if self._on_leap is not None:
            self._on_leap()
        if seconds < 0:
            for mend in self.on_set_back:
                task = asyncio.create_task(self._mend(mend, -seconds))
                self._mending.add(task)
                task.add_done_callback(self._mending.discard)

    async def _mend(self, mend: Callable[[float], Awaitable[None]], seconds: float) -> None:
        while True:
            try:
                return await mend(seconds)
            except Exception as error:  # the server may just be failing over
                _log.warning("database.times_not_mended", kind=type(error).__name__)
            await asyncio.sleep(_EVERY)

    async def _run(self) -> None:
        while True:
            try:
                await self.steady_seconds()
            except Exception as error:
                _log.info("the database's clock is not to be seen (%s)", type(error).__name__)
            await asyncio.sleep(_EVERY)
