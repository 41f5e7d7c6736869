"""One worker process: the job loop until a signal, then a graceful end."""

from __future__ import annotations

import asyncio
import signal

import structlog

from crmbridge.services import Services

__all__ = ["work"]

_log = structlog.get_logger("crmbridge.worker")


async def work(services: Services) -> None:
    """Run jobs until SIGINT or SIGTERM; what is being sent is finished first. Stopping is not an attempt."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    _log.info("working")
    await services.jobs.run(stop)
    _log.info("stopped")
