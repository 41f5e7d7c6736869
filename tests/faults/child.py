"""``crmbridge serve`` or ``worker`` for the room of faults: the real command, with shorter times and a point of death.

``CRMBRIDGE_TEST_FAULTS`` holds a :class:`Plan` as JSON. Product code knows nothing of this: what is changed is
changed here, in the test's own process, before the command line takes over.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import msgspec
from tests.faults.network import HOST_VARIABLE, enter

from crmbridge import drivers
from crmbridge.core.manifest import BudgetKind, Manifest
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.services.connections.connection import Connection
from crmbridge.services.delivery import service
from crmbridge.services.delivery.intake import store as intake_store
from crmbridge.services.delivery.intake.flusher import Flusher
from crmbridge.services.delivery.lane import store
from crmbridge.services.delivery.lane.drain import Drain
from crmbridge.services.delivery.model import Limits
from crmbridge.toolkit.egress import Egress

VARIABLE = "CRMBRIDGE_TEST_FAULTS"


class Plan(msgspec.Struct, kw_only=True):
    """``limits`` replace delivery's own, ``timeout_seconds`` caps every provider call, ``lag_seconds`` every
    declared search lag (0: as the product has them). ``budget_times``: that many times the declared rate budgets, for
    runs of many single calls. ``crash`` is ``point:nth``, or empty."""

    limits: dict[str, float] = {}
    timeout_seconds: float = 0.0
    lag_seconds: float = 0.0
    budget_times: int = 1
    crash: str = ""


# Where a process may die: the function whose return it does not survive. What is still inside its transaction by
# then is rolled back ("uncommitted"); what was committed stays.
POINTS: dict[str, tuple[Any, str]] = {
    "accept_uncommitted": (intake_store, "insert_writes"),
    "accept_committed": (Flusher, "_flush"),
    "taken_uncommitted": (store, "take"),
    "marked": (Drain, "_marked"),
    "sent": (Connection, "send"),
    "save_uncommitted": (store, "save"),
    "saved": (Drain, "_saved"),
    "release_uncommitted": (store, "release"),
    "recover_uncommitted": (store, "recover"),
    "recovered": (Drain, "_recover"),
    "looked_up": (Connection, "find_written"),
}
# These count only when they had something to do.
_COUNTED_WHEN_FULL = ("taken_uncommitted", "marked", "save_uncommitted", "saved", "recover_uncommitted")


def die() -> None:
    """The end that nobody can prepare for."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(crash: str) -> None:
    """Let this process die at the nth pass of a point."""
    point, _, nth = crash.partition(":")
    owner, name = POINTS[point]
    left = [int(nth or 1)]
    original: Callable[..., Any] = getattr(owner, name)

    async def last(*values: Any, **named: Any) -> Any:
        answer = await original(*values, **named)
        if answer or point not in _COUNTED_WHEN_FULL:
            left[0] -= 1
            if left[0] <= 0:
                die()
        return answer

    setattr(owner, name, last)


def shorten(plan: Plan) -> None:
    """Delivery's limits, the longest provider call, and the declared search lags."""
    if plan.limits:
        limits = msgspec.convert(plan.limits, Limits)
        setattr(service, "Limits", lambda: limits)  # noqa: B010
    if plan.timeout_seconds:
        send = Egress.send

        async def capped(self: Egress, request: HttpRequest) -> HttpResponse:
            request.timeout_seconds = min(request.timeout_seconds or 30.0, plan.timeout_seconds)
            return await send(self, request)

        Egress.send = capped  # type: ignore[method-assign]
    if plan.timeout_seconds or plan.budget_times > 1:
        for slug in drivers.DRIVERS:
            driver: Any = drivers.load(slug)
            driver.manifest_for = classmethod(_quick(driver.manifest_for.__func__, plan))


def _quick(declared: Callable[..., Manifest], plan: Plan) -> Callable[..., Manifest]:
    def manifest_for(driver: Any, settings: Any) -> Manifest:
        manifest = declared(driver, settings)
        objects = {}
        for obj, spec in manifest.objects.items():
            lag = min(spec.idempotency.search_lag_seconds, plan.lag_seconds or 1e9)
            means = msgspec.structs.replace(spec.idempotency, search_lag_seconds=lag)
            objects[obj] = msgspec.structs.replace(spec, idempotency=means)
        return msgspec.structs.replace(
            manifest,
            objects=objects,
            timeout_seconds=min(manifest.timeout_seconds, plan.timeout_seconds or 1e9),
            budgets=tuple(
                budget
                if budget.kind is BudgetKind.CONCURRENT
                else msgspec.structs.replace(budget, limit=budget.limit * plan.budget_times)
                for budget in manifest.budgets
            ),
        )

    return manifest_for


def main() -> None:
    """Change what the plan says, then be ``crmbridge`` with the arguments given."""
    if host := os.environ.get(HOST_VARIABLE):
        enter(host)
    plan = msgspec.json.decode(os.environ.get(VARIABLE, "{}"), type=Plan)
    shorten(plan)
    if plan.crash:
        arm(plan.crash)
    from crmbridge.app import main as crmbridge

    sys.argv[0] = "crmbridge"
    crmbridge()


if __name__ == "__main__":
    main()
