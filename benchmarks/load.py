"""A lean HTTP/1.1 load client on raw streams, so that the client costs little beside the server it measures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter

__all__ = ["Burst", "Line", "burst", "line_to", "percentile"]


@dataclass
class Burst:
    """What one burst brought. Times in seconds."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def milliseconds(self, percent: float) -> float:
        """A percentile of the latencies in milliseconds."""
        return percentile(self.latencies, percent) * 1000


def percentile(values: list[float], percent: float) -> float:
    """The value below which ``percent`` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


class Line:
    """One kept-alive connection on which one request follows the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def post(self, path: str, headers: bytes, body: bytes) -> tuple[int, float]:
        """The status, and the seconds until the whole answer was there."""
        head = b"POST %s HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n" % path.encode()
        started = perf_counter()
        self._writer.write(head + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        status = await _answer(self._reader)
        return status, perf_counter() - started


@asynccontextmanager
async def line_to(port: int) -> AsyncIterator[Line]:
    """A connection to a loopback port."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()


async def burst(
    port: int,
    clients: int,
    requests: int,
    request_of: Callable[[int], tuple[bytes, bytes]],
    *,
    path: str | Callable[[int], str],
) -> Burst:
    """``requests`` POSTs over ``clients`` kept-alive connections; ``request_of(n)`` gives (headers, body).

    ``path`` may depend on ``n`` too.
    """
    result = Burst()
    numbers = iter(range(requests))

    async def client() -> None:
        async with line_to(port) as line:
            for number in numbers:
                headers, body = request_of(number)
                address = path if isinstance(path, str) else path(number)
                status, seconds = await line.post(address, headers, body)
                result.latencies.append(seconds)
                result.statuses[status] = result.statuses.get(status, 0) + 1

    started = perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    result.seconds = perf_counter() - started
    return result


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    at = lower.find(b"content-length:")
    if at >= 0:
        length = int(lower[at + 15 : lower.index(b"\r\n", at)])
        if length:
            await reader.readexactly(length)
    return int(head[9:12])
