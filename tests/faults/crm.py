"""The emulators in a process of their own: ``python -m tests.faults.crm PORT LAG_SECONDS [SLUG...]``.

Each has a port of its own from PORT on; its control routes are on PORT. Unlike the stand-ins of ``crmbridge emulate``
these finish a call whose caller has gone, as real servers do: a write that took too long takes effect late.
Prints one line of JSON: address, credential and OAuth app of each.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers import load_emulator, slugs
from crmbridge.emulation.serve import serve_emulators


def finishing(emulator: Any) -> None:
    """Let a call go on when its connection is cut; its outcome is kept from being forgotten."""
    handle = emulator.handle
    under_way: set[asyncio.Task[HttpResponse]] = set()

    async def finish(request: HttpRequest) -> HttpResponse:
        task = asyncio.ensure_future(handle(request))
        under_way.add(task)
        task.add_done_callback(_ended)
        task.add_done_callback(under_way.discard)
        return await asyncio.shield(task)

    emulator.handle = finish


def _ended(task: asyncio.Task[HttpResponse]) -> None:
    if not task.cancelled():
        task.exception()


async def _serve(port: int, lag: float, wanted: list[str]) -> None:
    emulators: dict[str, Any] = {}
    for slug in wanted or slugs():
        kind = load_emulator(slug)
        if kind is None:
            continue
        emulators[slug] = kind()
        finishing(emulators[slug])
        store = emulators[slug].store
        store.search_lag_seconds = min(store.search_lag_seconds, lag)
    ports = {slug: port + place for place, slug in enumerate(emulators, 1)}
    served = await serve_emulators(emulators, port=port, ports=ports)
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
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
