"""Budgets: the provider's rate limits of a connection, kept in PostgreSQL and shared by all processes.

A process takes tokens for its waiting calls, and a few ahead while the budget is wide, so that most calls find one at
hand. Before any call leaves, its token stands in the table. How and why: docs/decisions/0012-rate-budgets.md.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any
from uuid import UUID, uuid4

import structlog

from crmbridge.core.driver import CrmDriver
from crmbridge.core.manifest import BudgetKind, Manifest
from crmbridge.db.pool import Database
from crmbridge.services.connections.budgets import store
from crmbridge.services.connections.budgets.line import Errand
from crmbridge.services.connections.budgets.purse import Purse
from crmbridge.services.connections.budgets.window import Remaining, Window

__all__ = ["Budgets"]

_log = structlog.get_logger("crmbridge.budgets")
_MOST_PURSES = 20_000
# Each visit to the table holds a database connection for about a millisecond.
_MOST_AT_ONCE = 4
_SWEEP_SECONDS = 1.0
# Purses looked at before others come to their turn; half a millisecond or so.
_AT_A_STRETCH = 100


class Budgets:
    """The purses of this process. What nobody uses has no purse, no row and no task."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._holder = uuid4()
        self._purses: OrderedDict[UUID, Purse] = OrderedDict()
        self._visits = asyncio.Semaphore(max(1, min(_MOST_AT_ONCE, db.app.get_max_size() // 3)))
        self._tasks: set[asyncio.Task[None]] = set()
        self._leftovers: set[Purse] = set()
        self._sweeper: asyncio.Task[None] | None = None

    def purse(
        self, tenant_id: UUID, connection_id: UUID, driver: type[CrmDriver], manifest: Manifest
    ) -> Purse:
        """The purse of a connection in this process."""
        purse = self._purses.get(connection_id)
        if purse is None:
            purse = self._purses[connection_id] = Purse(self, tenant_id, connection_id)
            while len(self._purses) > _MOST_PURSES:
                self._purses.popitem(last=False)
        purse.adopt(driver, manifest)
        return purse

    async def remaining(self, tenant_id: UUID, connection_id: UUID, manifest: Manifest) -> list[Remaining]:
        """What is left of each declared budget, over all processes. Nothing is taken."""
        async with self._db.tenant(tenant_id) as conn:
            return (await self.remaining_of(conn, {connection_id: manifest}))[connection_id]

    async def mend_times(self, conn: Any, most_seconds: float, seconds: float) -> None:
        """After the database's clock was set back by so many seconds: bring near again what is charged or held for
        later, of the tenant whose transaction this is. A pause of up to ``most_seconds`` is left as it is.
        """
        await store.mend_times(conn, most_seconds, seconds)

    async def remaining_of(self, conn: Any, manifests: dict[UUID, Manifest]) -> dict[UUID, list[Remaining]]:
        """The same for several connections of the tenant whose transaction this is."""
        if not manifests:
            return {}
        now, rows = await store.read_budgets(conn, list(manifests))
        return {
            connection_id: [
                Remaining(kind=budget.kind.value, limit=budget.limit, remaining=budget.limit)
                if budget.kind is BudgetKind.CONCURRENT
                else _fitted(
                    rows.get((connection_id, budget.kind.value)), budget.limit, budget.per_seconds
                ).remaining(budget.kind.value, now)
                for budget in manifest.budgets
            ]
            for connection_id, manifest in manifests.items()
        }

    async def shares(self) -> dict[tuple[str, str], float]:
        """By driver and budget, the least share left among the connections this process used lately. No ids.

        Thousands of connections take tens of milliseconds, so others come to their turn in between.
        """
        least: dict[tuple[str, str], float] = {}
        for number, purse in enumerate(list(self._purses.values())):
            if number % _AT_A_STRETCH == 0:
                await asyncio.sleep(0)
            for name, share in purse.shares().items():
                least[name] = min(share, least.get(name, 1.0))
        return least

    async def close(self) -> None:
        """Give back what was not used, where it would be missed; end what runs on the side."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        # A visit that is under way ends: what it took could not be given back otherwise.
        for purse in self._purses.values():
            purse.stop()
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        for purse in list(self._leftovers):
            purse.drop_tokens()
            try:
                await self.visit(purse)
            except Exception as error:
                _log.warning("budget.not_returned", kind=type(error).__name__)

    # -- what purses need --------------------------------------------------------------------------------------

    def start(self, purse: Purse) -> asyncio.Task[None]:
        """Run the purse's errand on the side."""
        task = asyncio.create_task(purse.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def visit(self, purse: Purse) -> None:
        """One visit to the table: report, take, leave. Raises DatabaseUnavailable; then nothing was taken."""
        await self._visits.acquire()
        try:
            errand = purse.errand()
            if errand.kinds:
                await self._run(purse, errand)
        finally:
            self._visits.release()

    async def _run(self, purse: Purse, errand: Errand) -> None:
        async with self._db.tenant(purse.tenant_id) as conn:
            kinds = [kind.value for kind in errand.kinds]
            now, rows = await store.lock_budgets(conn, purse.tenant_id, purse.connection_id, kinds)
            windows = {
                line.kind.value: _fitted(rows[line.kind.value][0], line.limit, line.per_seconds)
                for line in errand.lines
            }
            grants = errand.settle(windows, now)
            share = 0
            holders: dict[UUID, float] | None = None
            if errand.divides:
                holders, share = errand.divide(rows[BudgetKind.CONCURRENT.value][1], self._holder, now)
            await store.save_budgets(conn, purse.connection_id, windows, holders)
        purse.receive(errand, grants, share)

    def note_leftover(self, purse: Purse) -> None:
        """The purse holds tokens of a long budget ahead: somebody must give them back if it falls silent."""
        self._leftovers.add(purse)
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.create_task(self._sweep())

    async def _sweep(self) -> None:
        """One task for all purses of the process, and none while nothing is held."""
        while self._leftovers:
            await asyncio.sleep(_SWEEP_SECONDS)
            for purse in list(self._leftovers):
                if not purse.holds_any():
                    self._leftovers.discard(purse)
                    purse.return_leftover()


def _fitted(window: Window | None, limit: int, per_seconds: float) -> Window:
    if window is None:
        return Window(limit=limit, per_seconds=per_seconds)
    window.fit(limit, per_seconds)
    return window
