"""Loopback servers for the tests of egress: a web site, and raw sockets for what a server should not do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from crmbridge.core.wire import HttpRequest, TransportFailure
from crmbridge.toolkit.egress import Egress, EgressPolicy

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]
Speaking = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class FixedResolver(AbstractResolver):
    """Answers the addresses it was given; a list per look-up shows rebinding."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not addresses:
            raise OSError(None, "no such name")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        return None


def free_port() -> int:
    for port in range(24_100, 24_900):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port from 24100 to 24900")


class Site:
    """One server under test; ``seen`` are the requests that reached it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answers: dict[str, Answering] = {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append((request.method, request.path_qs, headers, await request.read()))
        return await self.answers[request.path](request)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    port = free_port()
    site = Site(port)
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", site.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield site
    await runner.cleanup()


@pytest.fixture
async def egress(site: Site) -> AsyncIterator[Egress]:
    egress = Egress(EgressPolicy((f"127.0.0.1:{site.port}",)), max_body_bytes=100_000)
    yield egress
    await egress.close()


class Spoken:
    """A raw TCP server: ``speak`` is called for each connection, ``requests`` counts request heads."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.requests = 0
        self.connections = 0


Speak = Callable[[Speaking], Awaitable[Spoken]]


@pytest.fixture
async def speak() -> AsyncIterator[Speak]:
    servers: list[asyncio.Server] = []

    async def start(speaking: Speaking) -> Spoken:
        port = free_port()
        spoken = Spoken(port)

        async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            spoken.connections += 1
            try:
                await speaking(_Counting(reader, spoken), writer)  # type: ignore[arg-type]
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        servers.append(await asyncio.start_server(on_connection, "127.0.0.1", port))
        return spoken

    yield start
    for server in servers:
        server.close()


class _Counting:
    def __init__(self, reader: asyncio.StreamReader, spoken: Spoken) -> None:
        self._reader = reader
        self._spoken = spoken

    async def head(self) -> bytes:
        head = await self._reader.readuntil(b"\r\n\r\n")
        self._spoken.requests += 1
        return head


async def failure_of(egress: Egress, request: HttpRequest) -> TransportFailure:
    with pytest.raises(TransportFailure) as caught:
        await egress.send(request)
    return caught.value


def open_to(url: str, **options: Any) -> Egress:
    return Egress(EgressPolicy((url.removeprefix("http://"),)), **options)
