"""Tenure: one process's hold on a lane, from taking it to giving it free. Who loses it saves and marks nothing more."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic

import structlog

from crmbridge.core.ids import new_id
from crmbridge.core.manifest import Manifest
from crmbridge.db.pool import Database
from crmbridge.services.delivery.lane import store
from crmbridge.services.delivery.lane.outcome import JITTER, Verdict, backoff_seconds
from crmbridge.services.delivery.lane.store import Lease
from crmbridge.services.delivery.model import Limits
from crmbridge.services.delivery.waiting import Waiters

__all__ = ["Tenure", "jitter"]

_log = structlog.get_logger("crmbridge.delivery")


class Tenure:
    """A lease that is renewed, what was seen of the lane in it, and how it ends.

    ``is_lost``: somebody else has the lane, or may have. ``is_released``: it was given free. ``pause_seconds``: how
    long the lane is to be left alone afterwards. ``in_order``: nothing that was marked has been left unsent.
    """

    def __init__(self, db: Database, limits: Limits, lease: Lease, began: float) -> None:
        """``began``: the monotonic clock before the lane was taken."""
        self._db = db
        self._limits = limits
        self.lease = lease
        self.started = began
        self.failures = lease.failures
        self.pause_seconds = 0.0
        self.is_lost = False
        self.is_released = False
        self.in_order = True
        self._timer: asyncio.TimerHandle | None = None
        self._renewing: asyncio.Task[None] | None = None

    def note(self, verdicts: Sequence[Verdict]) -> None:
        """What a batch says of the lane: anything that got through clears its failures, a dead batch slows it."""
        pause = max((verdict.pause_seconds for verdict in verdicts), default=0.0)
        if any(not verdict.is_lane_fault for verdict in verdicts):
            self.failures = 0
        else:
            self.failures = self.lease.failures + 1
            pause = max(pause, backoff_seconds(self.failures, self._limits, jitter()))
        self.pause_seconds = max(self.pause_seconds, pause)

    def keep(self) -> None:
        """Renew the lease from now on, each third of it. Most turns are over before the first time."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._limits.lease_seconds / 3, self._begin_to_renew)

    def end(self) -> None:
        """Renew it no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._renewing is not None:
            self._renewing.cancel()

    def _begin_to_renew(self) -> None:
        self._renewing = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        """Who cannot renew in time stops before somebody else may take the lane."""
        held = self.started
        while not self.is_released:
            asked = monotonic()
            try:
                is_ours = await self._db.peek(
                    lambda conn: store.renew(conn, self.lease, self._limits.lease_seconds)
                )
                held = asked
            except Exception as error:
                _log.warning("lease.not_renewed", kind=type(error).__name__)
                is_ours = monotonic() - held < self._limits.lease_seconds * 0.8
            if not is_ours:
                self.is_lost = not self.is_released
                return
            await asyncio.sleep(self._limits.lease_seconds / 3)

    async def release(self, *, always: bool) -> bool | None:
        """Give the lane free. False: something is due after all, and it is kept. None: it was lost."""
        async with self._db.tenant(self.lease.tenant_id) as conn:
            free = await store.release(
                conn,
                self.lease,
                always=always,
                failures=self.failures,
                pause_seconds=self.pause_seconds,
                # What was marked and never sent is looked up by the next one.
                in_order=self.in_order,
            )
        # Believed only after its commit.
        self.is_lost = self.is_lost or free is None
        self.is_released = self.is_released or bool(free)
        return free

    async def abandon(self) -> None:
        """After a failure of ours: hand the lane on, with a pause."""
        if self.is_released or self.is_lost:
            return
        self.failures = self.lease.failures + 1
        self.pause_seconds = backoff_seconds(self.failures, self._limits, jitter())
        self.in_order = False
        with suppress(Exception):
            await self.release(always=True)

    async def recover(
        self, manifest: Manifest, send_seconds: float, steady_seconds: float, waiters: Waiters
    ) -> None:
        """What an earlier holder left ``sending`` is to be looked up, ``send_seconds`` after it was marked.

        For ``steady_seconds`` the database's clock is known to run evenly.
        """
        lag = max((spec.idempotency.search_lag_seconds for spec in manifest.objects.values()), default=0.0)
        async with self._db.tenant(self.lease.tenant_id) as conn:
            lost = await store.recover(
                conn,
                self.lease,
                send_seconds=send_seconds,
                lag_seconds=max(lag, self._limits.settle_seconds),
                steady_seconds=steady_seconds,
                batch_id=new_id(),
            )
        if lost:
            _log.warning("lane.recovered", connection_id=str(self.lease.connection_id), unknown=len(lost))
            for target_id in lost:
                waiters.wake(target_id)


def jitter() -> float:
    """Spreads retries."""
    return random.uniform(*JITTER)  # noqa: S311 - hides nothing
