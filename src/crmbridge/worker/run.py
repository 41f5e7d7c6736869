"""One worker process: the job loop until a signal, then a graceful end."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack

import structlog

from crmbridge.services import Services

__all__ = ["stop_on_signal", "work"]

_log = structlog.get_logger("crmbridge.worker")


def stop_on_signal() -> asyncio.Event:
    """Set by SIGINT and SIGTERM from now on."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def work(
    services: Services,
    stop: asyncio.Event,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    grace_seconds: float = 20.0,
) -> None:
    """Run jobs until ``stop``; what is being sent is finished first, for ``grace_seconds`` at most. Stopping is not an
    attempt.

    ``port`` answers readiness and metrics; 0 opens none.
    """
    async with AsyncExitStack() as stack:
        if port:
            # Not needed by a worker without a port, and slow to load.
            from crmbridge.worker.port import answering

            await stack.enter_async_context(answering(services.watch, host, port))
        _log.info("working", port=port or None)
        await services.jobs.run(stop, grace_seconds=grace_seconds)
    _log.info("stopped")
