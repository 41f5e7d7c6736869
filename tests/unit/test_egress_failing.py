"""Egress against servers that fail: cuts, timeouts, oversized and broken answers, and what is tried again."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
from typing import Any

import pytest
from aiohttp import web
from tests.unit.egress_sites import (
    FixedResolver,
    Site,
    Speak,
    egress,
    failure_of,
    free_port,
    open_to,
    site,
    speak,
)

from crmbridge.core.wire import HttpRequest, TransportFailure, TransportFault
from crmbridge.toolkit.egress import Egress, EgressPolicy

__all__ = ["egress", "site", "speak"]


async def test_send_when_name_is_not_found_then_not_sent() -> None:
    egress = Egress(EgressPolicy(), resolver=FixedResolver([]))
    failure = await failure_of(egress, HttpRequest(method="POST", url="https://crm.example.com/", json={}))
    await egress.close()
    assert (failure.fault, failure.was_sent) == (TransportFault.NAME_NOT_FOUND, False)


async def test_send_when_port_is_shut_then_not_sent() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    egress = open_to(url)
    failure = await failure_of(egress, HttpRequest(method="POST", url=url, json={}))
    await egress.close()
    assert (failure.fault, failure.was_sent) == (TransportFault.CONNECT_FAILED, False)


async def test_send_when_tls_is_not_spoken_then_not_sent(site: Site) -> None:
    egress = Egress(EgressPolicy(("127.0.0.1",)))
    failure = await failure_of(
        egress, HttpRequest(method="POST", url=f"https://127.0.0.1:{site.port}/", json={})
    )
    await egress.close()
    assert failure.was_sent is False
    assert failure.fault in (TransportFault.TLS, TransportFault.CONNECT_FAILED)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_send_when_connection_is_cut_after_a_write_then_sent_once_and_unknown(
    speak: Speak, method: str
) -> None:
    async def speaking(reader: Any, writer: asyncio.StreamWriter) -> None:
        await reader.head()

    spoken = await speak(speaking)
    egress = open_to(spoken.url)
    failure = await failure_of(egress, HttpRequest(method=method, url=spoken.url, json={}))
    await egress.close()
    assert (failure.fault, failure.was_sent) == (TransportFault.CUT, True)
    assert spoken.requests == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_send_when_kept_connection_is_cut_by_a_write_then_never_sent_again(
    speak: Speak, method: str
) -> None:
    """aiohttp itself repeats PUT and DELETE here; egress must not let it."""

    async def speaking(reader: Any, writer: asyncio.StreamWriter) -> None:
        await reader.head()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        await reader.head()

    spoken = await speak(speaking)
    egress = open_to(spoken.url)
    assert (await egress.send(HttpRequest(method="GET", url=spoken.url))).status == 200
    failure = await failure_of(egress, HttpRequest(method=method, url=spoken.url))
    await egress.close()
    assert (failure.fault, failure.was_sent) == (TransportFault.CUT, True)
    assert (spoken.requests, spoken.connections) == (2, 1)


async def test_send_when_read_is_cut_twice_then_third_try_answers(
    speak: Speak,
) -> None:
    async def speaking(reader: Any, writer: asyncio.StreamWriter) -> None:
        await reader.head()
        if spoken.requests == 3:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()

    spoken = await speak(speaking)
    egress = open_to(spoken.url)
    assert (await egress.send(HttpRequest(method="GET", url=spoken.url, idempotent=True))).body == b"ok"
    await egress.close()
    assert spoken.requests == 3


async def test_send_when_read_is_always_cut_then_three_tries_and_a_failure(
    speak: Speak,
) -> None:
    async def speaking(reader: Any, writer: asyncio.StreamWriter) -> None:
        await reader.head()

    spoken = await speak(speaking)
    egress = open_to(spoken.url)
    failure = await failure_of(egress, HttpRequest(method="GET", url=spoken.url, idempotent=True))
    await egress.close()
    assert failure.fault is TransportFault.CUT
    assert spoken.requests == 3


@pytest.mark.parametrize(
    ("status", "headers", "idempotent", "tries"),
    [
        (503, {}, True, 3),
        (502, {}, True, 3),
        (504, {}, True, 3),
        (503, {"Retry-After": "7"}, True, 1),
        (500, {}, True, 1),
        (429, {}, True, 1),
        (503, {}, False, 1),
    ],
)
async def test_send_when_status_is_transient_then_only_reads_are_tried_again(
    site: Site, egress: Egress, status: int, headers: dict[str, str], idempotent: bool, tries: int
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers)

    site.answers["/leads"] = answer
    response = await egress.send(HttpRequest(method="GET", url=f"{site.url}/leads", idempotent=idempotent))
    assert response.status == status
    assert len(site.seen) == tries


async def test_send_when_tries_would_pass_the_deadline_then_stops_within_it(
    site: Site, egress: Egress
) -> None:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(0.25)
        return web.Response(status=503)

    site.answers["/leads"] = answer
    started = asyncio.get_running_loop().time()
    request = HttpRequest(method="GET", url=f"{site.url}/leads", idempotent=True, timeout_seconds=0.4)
    try:
        await egress.send(request)
    except TransportFailure as failure:
        assert failure.fault is TransportFault.TIMEOUT
    assert asyncio.get_running_loop().time() - started < 0.6


async def test_send_when_answer_is_slow_then_timeout_and_sent(site: Site, egress: Egress) -> None:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(2)
        return web.Response()

    site.answers["/leads"] = answer
    request = HttpRequest(method="POST", url=f"{site.url}/leads", json={}, timeout_seconds=0.2)
    failure = await failure_of(egress, request)
    assert (failure.fault, failure.was_sent) == (TransportFault.TIMEOUT, True)


async def test_send_when_body_drips_then_total_timeout_and_sent(site: Site, egress: Egress) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(40):
            await response.write(b"x")
            await asyncio.sleep(0.05)
        return response

    site.answers["/leads"] = answer
    request = HttpRequest(method="POST", url=f"{site.url}/leads", json={}, timeout_seconds=0.3)
    failure = await failure_of(egress, request)
    assert (failure.fault, failure.was_sent) == (TransportFault.TIMEOUT, True)


async def test_send_when_connections_are_all_taken_then_waiting_write_was_not_sent(site: Site) -> None:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(0.6)
        return web.Response()

    site.answers["/leads"] = answer
    egress = Egress(EgressPolicy(("127.0.0.1",)), connections_per_host=1)
    url = f"{site.url}/leads"
    first = asyncio.create_task(egress.send(HttpRequest(method="POST", url=url)))
    await asyncio.sleep(0.1)
    failure = await failure_of(egress, HttpRequest(method="POST", url=url, timeout_seconds=0.2))
    assert (await first).status == 200
    await egress.close()
    assert (failure.fault, failure.was_sent) == (TransportFault.CONNECT_FAILED, False)
    assert len(site.seen) == 1


@pytest.mark.parametrize("with_length", [True, False])
async def test_send_when_body_is_too_large_then_dropped(
    site: Site, egress: Egress, with_length: bool
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if with_length:
            return web.Response(body=b"x" * 200_000)
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for _ in range(200):
            await response.write(b"x" * 1000)
        return response

    site.answers["/leads"] = answer
    failure = await failure_of(egress, HttpRequest(method="POST", url=f"{site.url}/leads", json={}))
    assert (failure.fault, failure.was_sent) == (TransportFault.TOO_LARGE, True)


async def test_send_when_body_is_a_gzip_bomb_then_dropped_in_little_memory(
    site: Site, egress: Egress
) -> None:
    bomb = gzip.compress(b"\0" * 100_000_000)
    assert len(bomb) < 100_000

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    site.answers["/leads"] = answer
    tracemalloc.start()
    failure = await failure_of(egress, HttpRequest(method="GET", url=f"{site.url}/leads"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert failure.fault is TransportFault.TOO_LARGE
    assert peak < 10_000_000


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(500)) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\nContent-Length: 0\r\n\r\n",
        b"this is no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nxyz",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
    ids=["many headers", "long header", "no http", "short body", "bad gzip", "bad chunk"],
)
async def test_send_when_answer_is_broken_then_cut_and_sent(speak: Speak, answer: bytes) -> None:
    async def speaking(reader: Any, writer: asyncio.StreamWriter) -> None:
        await reader.head()
        writer.write(answer)
        await writer.drain()

    spoken = await speak(speaking)
    egress = open_to(spoken.url)
    request = HttpRequest(method="POST", url=spoken.url, json={}, timeout_seconds=3)
    failure = await failure_of(egress, request)
    await egress.close()
    assert (failure.fault, failure.was_sent) == (TransportFault.CUT, True)
    assert spoken.requests == 1
