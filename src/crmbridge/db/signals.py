"""Signals: a word from one process to all, heard by those that are there. Ids only, and never the only way to a truth.

PostgreSQL's notifications: whoever sends one waits at its commit for others who do, so nothing that happens on every
write may send one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from crmbridge.db.hosts import CONNECT_SECONDS, Hosts
from crmbridge.db.pool import Database

__all__ = ["Signals"]

CHANNEL = "crmbridge_signals"
# A commit that is not flushed: a word that a crash takes is lost anyway, and others wait for its end.
_SEND = f"""
with unflushed as materialized (select set_config('synchronous_commit', 'off', true) as is_set)
select pg_notify('{CHANNEL}', $1) from unflushed where is_set is not null
"""  # noqa: S608 - the channel is ours
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0

_log = logging.getLogger("crmbridge.db.signals")


class Signals:
    """Sends words through ``db`` and listens on a connection of its own, opened again whenever it is cut.

    That one needs a session: a pool that lends connections by the transaction gives what was listened to away.
    """

    def __init__(self, db: Database, scheduler_dsn: str, *, prepared_statements: bool = True) -> None:
        self._db = db
        self._options: dict[str, Any] = {} if prepared_statements else {"statement_cache_size": 0}
        self._hosts = Hosts(scheduler_dsn)
        self._hearers: dict[str, Callable[[str], None]] = {}
        self._task: asyncio.Task[None] | None = None
        self.is_listening = asyncio.Event()

    def listen(self, kind: str, hearer: Callable[[str], None]) -> None:
        """Call ``hearer`` with the text of each word of this kind, own ones included. Before :meth:`start`."""
        self._hearers[kind] = hearer

    def start(self) -> None:
        """Begin to listen, in the background."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def send(self, kind: str, text: str) -> None:
        """Tell all processes. ``text`` is ids of ours. A word that cannot be sent is lost."""
        with suppress(Exception):
            await self._db.peek(lambda conn: conn.execute(_SEND, f"{kind} {text}"))

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            cut = asyncio.Event()
            conn: Any = None
            try:
                conn = await self._hosts.connect(
                    timeout=CONNECT_SECONDS,
                    server_settings={"application_name": "crmbridge signals"},
                    **self._options,
                )
                conn.add_termination_listener(lambda _, cut=cut: cut.set())
                await conn.add_listener(CHANNEL, self._heard)
                self.is_listening.set()
                pause = _FIRST_PAUSE
                await cut.wait()
            except Exception as error:  # asyncpg has many for a server that goes away, of several families
                _log.info("not listening for signals (%s)", type(error).__name__)
            finally:
                self.is_listening.clear()
                if conn is not None:
                    conn.terminate()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _heard(self, _conn: object, _pid: int, _channel: str, payload: object) -> None:
        kind, _, text = str(payload).partition(" ")
        hearer = self._hearers.get(kind)
        if hearer is None:  # a newer release's
            return
        # Whoever may connect may send: what is no id of ours is no word.
        with suppress(ValueError):
            hearer(text)
