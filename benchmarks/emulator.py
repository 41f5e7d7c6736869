"""One emulator in a process of its own: ``python -m benchmarks.emulator SLUG PORT [LATENCY_MS]``."""

from __future__ import annotations

import asyncio
import sys

from crmbridge.drivers import load_emulator
from crmbridge.emulation.serve import serve_emulators


async def _serve(slug: str, port: int, latency_ms: float) -> None:
    kind = load_emulator(slug)
    if kind is None:
        raise SystemExit(f"{slug} has no emulator")
    await serve_emulators({slug: kind()}, ports={slug: port}, latency_ms=latency_ms)
    await asyncio.Event().wait()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 0.0))
