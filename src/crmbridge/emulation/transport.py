"""InProcessTransport: drivers meet an emulator without a socket."""

from __future__ import annotations

import asyncio

from crmbridge.core.wire import HttpRequest, HttpResponse, TransportFailure, TransportFault
from crmbridge.emulation.emulator import Emulator

__all__ = ["InProcessTransport"]


class InProcessTransport:
    """A Transport that ends in an emulator. Bodies go through bytes, as on a wire.

    ``latency`` seconds pass before each answer. ``strict_host`` refuses URLs of other hosts than the
    emulator's ``base_url``, as a network would: a driver that builds a wrong address is caught.
    """

    def __init__(self, emulator: Emulator, *, latency: float = 0.0, strict_host: bool = True) -> None:
        self.emulator = emulator
        self.latency = latency
        self.strict_host = strict_host

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send once. Raises TransportFailure for faults that leave no answer."""
        base = self.emulator.base_url
        if self.strict_host and not (request.url == base or request.url.startswith((base + "/", base + "?"))):
            raise TransportFailure(
                TransportFault.NAME_NOT_FOUND, "no emulator answers at this address", was_sent=False
            )
        if self.latency:
            await asyncio.sleep(self.latency)
        return await self.emulator.handle(request)
