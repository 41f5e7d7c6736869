"""A lean HTTP/1.1 load client on raw streams, so that the client costs little beside the server it measures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

__all__ = ["Burst", "burst", "percentile"]


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
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for number in numbers:
                headers, body = request_of(number)
                address = (path if isinstance(path, str) else path(number)).encode()
                head = b"POST %s HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n" % address
                started = perf_counter()
                writer.write(head + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                status = await _answer(reader)
                result.latencies.append(perf_counter() - started)
                result.statuses[status] = result.statuses.get(status, 0) + 1
        finally:
            writer.close()

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
