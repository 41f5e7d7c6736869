"""The emulators in a process of their own: ``python -m tests.faults.crm WANTED`` (JSON of :class:`Wanted`).

Each has a port of its own after ``port``; its control routes are on ``port``. Unlike the stand-ins of ``emulate``
these finish a call whose caller has gone, as real servers do: a write that took too long takes effect late.
Prints one line of JSON: address, credential and OAuth app of each.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from dataclasses import dataclass
from typing import Any, TextIO

import msgspec

from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers import load_emulator, slugs
from crmbridge.emulation.quotas import Quota
from crmbridge.emulation.serve import serve_emulators


class Wanted(msgspec.Struct, kw_only=True):
    """``lag_seconds`` caps every search lag. ``quota_times``: that many times the provider's quotas, for runs of many
    single calls; ``quotas``: these instead of them, slug → (calls, seconds). ``log``: a file that gets a line for every
    call that has ended. ``host``: the address to listen on.
    """

    port: int
    host: str = "127.0.0.1"
    slugs: list[str]
    lag_seconds: float
    quota_times: int = 1
    quotas: dict[str, tuple[int, float]] = {}
    log: str = ""


@dataclass(frozen=True)
class Called:
    """One call as the CRM saw it. ``at``: epoch seconds of its arrival; ``status`` 0: no answer was given."""

    at: float
    slug: str
    method: str
    status: int

    @classmethod
    def read(cls, line: str) -> Called:
        """From a line of the log."""
        at, slug, method, status = line.split()
        return cls(float(at), slug, method, int(status))


def finishing(emulator: Any, log: TextIO | None) -> None:
    """Let a call go on when its connection is cut; its outcome is kept from being forgotten, and noted."""
    handle = emulator.handle
    under_way: set[asyncio.Task[HttpResponse]] = set()

    async def noted(request: HttpRequest) -> HttpResponse:
        at, status = time.time(), 0
        try:
            answer: HttpResponse = await handle(request)
            status = answer.status
            return answer
        finally:
            if log is not None:
                log.write(f"{at:.3f} {emulator.slug} {request.method} {status}\n")

    async def finish(request: HttpRequest) -> HttpResponse:
        task = asyncio.ensure_future(noted(request))
        under_way.add(task)
        task.add_done_callback(_ended)
        task.add_done_callback(under_way.discard)
        return await asyncio.shield(task)

    emulator.handle = finish


def enlarge(emulator: Any, times: int) -> None:
    """So many times the quotas that it keeps, and the day's calls of those that count by themselves."""
    known = [*emulator.quotas, *(one for one in vars(emulator).values() if isinstance(one, Quota))]
    for quota in known:
        quota.limit *= times
    for name in ("daily_limit", "sandbox_calls_a_day"):
        if hasattr(emulator, name):
            setattr(emulator, name, getattr(emulator, name) * times)


def _ended(task: asyncio.Task[HttpResponse]) -> None:
    if not task.cancelled():
        task.exception()


async def _serve(wanted: Wanted) -> None:
    # A collector that walks all its records would stop it for longer than a call takes, again and again.
    gc.disable()
    emulators: dict[str, Any] = {}
    # Line by line: who is killed has told all, and who reads sees all.
    log = open(wanted.log, "a", buffering=1) if wanted.log else None  # noqa: SIM115
    for slug in wanted.slugs or slugs():
        kind = load_emulator(slug)
        if kind is None:
            continue
        emulators[slug] = kind()
        enlarge(emulators[slug], wanted.quota_times)
        if slug in wanted.quotas:
            limit, per_seconds = wanted.quotas[slug]
            emulators[slug].quotas = [Quota(limit=limit, per_seconds=per_seconds)]
        finishing(emulators[slug], log)
        store = emulators[slug].store
        store.search_lag_seconds = min(store.search_lag_seconds, wanted.lag_seconds)
    ports = {slug: wanted.port + place for place, slug in enumerate(emulators, 1)}
    served = await serve_emulators(emulators, wanted.host, wanted.port, ports=ports)
    told = {
        slug: {
            "url": served.urls[slug],
            "settings": emulator.settings(),
            "secrets": emulator.secrets(),
            "app": emulator.oauth_app(),
        }
        for slug, emulator in emulators.items()
    }
    print(json.dumps({"page": served.url, "emulators": told}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(msgspec.json.decode(sys.argv[1], type=Wanted)))
