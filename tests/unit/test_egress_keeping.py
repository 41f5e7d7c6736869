"""Egress on connections that are kept: what is repeated, what is told of a request that may have left."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest
from tests.unit.egress_sites import FixedResolver, Speak, failure_of, open_to, speak

from crmbridge.core.errors import EgressRefused
from crmbridge.core.wire import HttpRequest, TransportFault
from crmbridge.toolkit.addresses import EgressPolicy, check_url
from crmbridge.toolkit.egress import Egress

__all__ = ["speak"]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


async def _answer(reader: Any, writer: asyncio.StreamWriter) -> None:
    await reader.head()
    writer.write(OK)
    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    peer = writer.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.mark.parametrize("method", METHODS)
async def test_send_when_idle_connection_was_closed_by_the_server_then_sent_once_on_a_new_one(
    speak: Speak, method: str
) -> None:
    spoken = await speak(_answer)
    egress = open_to(spoken.url)
    request = HttpRequest(method=method, url=spoken.url, json={"a": 1})
    assert (await egress.send(request)).body == b"ok"
    await asyncio.sleep(0.05)
    assert (await egress.send(request)).body == b"ok"
    await egress.close()
    assert (spoken.requests, spoken.connections) == (2, 2)


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("method", METHODS)
async def test_send_when_kept_connection_ends_under_a_request_with_a_body_then_once_and_sent(
    speak: Speak, method: str, is_reset: bool
) -> None:
    async def speaking(reader: Any, writer: asyncio.StreamWriter) -> None:
        await _answer(reader, writer)
        await reader.head()
        if is_reset:
            _reset(writer)

    spoken = await speak(speaking)
    egress = open_to(spoken.url)
    await egress.send(HttpRequest(method="POST", url=spoken.url, json={}))
    failure = await failure_of(egress, HttpRequest(method=method, url=spoken.url, json={"a": 1}))
    await egress.close()
    assert (failure.fault, failure.was_sent) == (TransportFault.CUT, True)
    assert (spoken.requests, spoken.connections) == (2, 1)


async def test_send_when_a_kept_connection_is_cut_then_the_next_request_gets_a_new_one(speak: Speak) -> None:
    async def speaking(reader: Any, writer: asyncio.StreamWriter) -> None:
        await _answer(reader, writer)
        await reader.head()

    spoken = await speak(speaking)
    egress = open_to(spoken.url)
    request = HttpRequest(method="PUT", url=spoken.url, json={})
    await egress.send(request)
    assert (await failure_of(egress, request)).was_sent
    assert (await egress.send(request)).body == b"ok"
    await egress.close()
    assert (spoken.requests, spoken.connections) == (3, 2)


async def test_send_when_name_is_slow_to_resolve_then_not_sent() -> None:
    class Slow(FixedResolver):
        async def resolve(self, *asked: Any, **named: Any) -> Any:
            await asyncio.sleep(30)

    egress = Egress(EgressPolicy(), resolver=Slow([]))
    request = HttpRequest(method="POST", url="https://crm.example.com/", json={}, timeout_seconds=0.1)
    failure = await failure_of(egress, request)
    await egress.close()
    assert (failure.fault, failure.was_sent) == (TransportFault.CONNECT_FAILED, False)


async def test_send_when_handshake_hangs_then_not_sent(speak: Speak) -> None:
    async def speaking(reader: Any, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1)

    spoken = await speak(speaking)
    egress = open_to(spoken.url)
    url = spoken.url.replace("http:", "https:")
    failure = await failure_of(egress, HttpRequest(method="POST", url=url, json={}, timeout_seconds=0.2))
    await egress.close()
    assert (failure.fault, failure.was_sent) == (TransportFault.CONNECT_FAILED, False)


@pytest.mark.parametrize("is_late", [False, True], ids=["cancelled", "timed out"])
async def test_send_when_given_up_then_its_connection_is_not_used_again(speak: Speak, is_late: bool) -> None:
    """Else the late answer would be taken for that of the next request."""

    async def speaking(reader: Any, writer: asyncio.StreamWriter) -> None:
        await reader.head()
        if spoken.connections == 1:
            await asyncio.sleep(0.3)
            writer.write(OK.replace(b"ok", b"no"))
        else:
            writer.write(OK)
        await writer.drain()
        await reader.head()

    spoken = await speak(speaking)
    egress = open_to(spoken.url)
    request = HttpRequest(method="POST", url=spoken.url, json={})
    if is_late:
        request.timeout_seconds = 0.1
        assert (await failure_of(egress, request)).fault is TransportFault.TIMEOUT
    else:
        call = asyncio.create_task(egress.send(request))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    request.timeout_seconds = None
    assert (await egress.send(request)).body == b"ok"
    await egress.close()
    assert spoken.connections == 2


async def test_send_when_body_is_small_then_head_and_body_leave_together(speak: Speak) -> None:
    arrived: list[bytes] = []

    async def speaking(reader: Any, writer: asyncio.StreamWriter) -> None:
        arrived.append(await reader._reader.read(65_536))
        writer.write(OK)
        await writer.drain()

    spoken = await speak(speaking)
    egress = open_to(spoken.url)
    await egress.send(HttpRequest(method="POST", url=spoken.url, json={"a": "x" * 3_000}))
    await egress.close()
    assert arrived[0].startswith(b"POST / ") and arrived[0].endswith(b'xxx"}')


async def test_send_when_answer_repeats_a_header_then_joined_in_order(speak: Speak) -> None:
    async def speaking(reader: Any, writer: asyncio.StreamWriter) -> None:
        await reader.head()
        writer.write(b"HTTP/1.1 204 No Content\r\nLink: <a>\r\nX-One: 1\r\nlink: <b>\r\n\r\n")
        await writer.drain()

    spoken = await speak(speaking)
    egress = open_to(spoken.url)
    response = await egress.send(HttpRequest(method="GET", url=spoken.url))
    await egress.close()
    assert response.headers == {"link": "<a>, <b>", "x-one": "1"}


@pytest.mark.parametrize(
    "url",
    [
        "https://crm.example.com@evil.example/",
        "https://user@crm.example.com/",
        "https://crm.example.com:0/",
        "https://crm.example.com:99999/",
        "http://crm.example.com/",
        "https:/crm.example.com",
        "https:crm.example.com//crm.example.com/",
        "ftp://crm.example.com/",
        "//crm.example.com/",
        "https://crm.example.com\\@evil.example/",
    ],
)
def test_check_url_when_a_like_one_has_passed_then_still_refused(url: str) -> None:
    policy = EgressPolicy()
    assert check_url("https://crm.example.com/a?b#c", policy).host == "crm.example.com"
    with pytest.raises(EgressRefused):
        check_url(url, policy)


def test_check_url_when_passed_before_then_path_and_query_do_not_matter() -> None:
    policy = EgressPolicy()
    for rest in ("", "/", "/v1//evil.example", "?u=https://evil.example", "#@evil.example", "/a@b:0/"):
        assert check_url(f"https://CRM.example.com:8443{rest}", policy) == ("https", "crm.example.com", 8443)
