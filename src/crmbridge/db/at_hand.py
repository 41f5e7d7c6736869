"""Connections at hand: what one statement gives back, the next one takes, without a word to the pool in between.

asyncpg's ``acquire`` and ``release`` cost 50 µs warm and 140 µs cold, a task and two turns of the loop each time: as
much as the round trip. A connection given back in order is kept here instead, for seconds; all others go the long way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import asyncpg

__all__ = ["AtHand", "is_gone"]

# The pool, which watches age and idleness, gets back what is at hand so often. Seconds.
_KEPT_SECONDS = 10.0
# So many connections stay with the pool, for those who ask it directly.
_LEFT = 2


class AtHand:
    """Lends connections of ``pool``, the last one used first, and at most two fewer than the pool has."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self._kept: list[Any] = []
        self._lent = 0
        self._most = pool.get_max_size() - _LEFT
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Future[None]] = set()

    async def take(self) -> Any:
        """A connection, to be handed to :meth:`give` or :meth:`drop`. Raises what the pool raises."""
        while self._kept:
            conn = self._kept.pop()
            if not is_gone(conn):
                return conn
            await self.drop(conn)
        self._lent += 1
        try:
            return await self.pool.acquire()
        except BaseException:
            self._lent -= 1
            raise

    def give(self, conn: Any) -> None:
        """Take back a connection on which every statement has ended in order, and every transaction."""
        if self._lent > self._most or is_gone(conn) or conn.is_in_transaction():
            self._send_home([conn])
            return
        self._kept.append(conn)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_KEPT_SECONDS, self._tidy)

    async def drop(self, conn: Any) -> None:
        """Give a connection to the pool, in whatever state it is: the pool puts it in order or throws it away."""
        self._lent -= 1
        await self.pool.release(conn)

    async def close(self) -> None:
        """Give all back that is not in use."""
        if self._timer is not None:
            self._timer.cancel()
        self._most = -1
        self._send_home(self._kept)
        self._kept = []
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _tidy(self) -> None:
        self._timer = None
        self._send_home(self._kept)
        self._kept = []

    def _send_home(self, conns: list[Any]) -> None:
        for conn in conns:
            task = asyncio.ensure_future(_quietly(self.drop(conn)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


def is_gone(conn: Any) -> bool:
    """Whether a connection of a pool was closed, by either end."""
    try:
        return bool(conn.is_closed())
    except asyncpg.InterfaceError:  # it was cut, and the pool has it back already
        return True


async def _quietly(release: Awaitable[None]) -> None:
    """A connection that cannot be given back is thrown away by the pool, and nobody waits here to be told."""
    try:
        await release
    except Exception:  # noqa: S110
        pass
