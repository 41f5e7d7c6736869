"""Dialling: the part of egress that is bound to aiohttp. Imported when the first request leaves.

The connector is asked for a connection before anything is written. So it is the place that knows whether a request
can have been sent, and the place that keeps aiohttp from sending one twice: on a stale connection it would repeat GET,
PUT and DELETE by itself (``retry_persistent_connection`` in aiohttp/client.py, read in 3.14.5).
Source: https://docs.aiohttp.org/en/stable/client_reference.html#connectors.
"""

from __future__ import annotations

import asyncio
import socket
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from crmbridge.core.wire import HttpResponse, TransportFailure, TransportFault
from crmbridge.toolkit.addresses import EgressPolicy, Endpoint

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from multidict import CIMultiDictProxy

__all__ = ["Connector", "Wire"]

# Characters that a URL may hold; "%" is kept because callers have encoded already.
_URL_SAFE = "%/:=&?~#+!$,;'@()*[]"


class _Refused(OSError):
    """The dialled address is refused. An OSError, so that the next address of the name is tried."""


class _Repeated(Exception):
    """aiohttp was about to send the request once more."""


class _Dial:
    """What is known of the one exchange under way in this task.

    ``is_spent``: a connection was asked for. ``is_connected``: it was there, so the request may have been sent.
    """

    __slots__ = ("endpoint", "is_connected", "is_spent", "refusal")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.is_spent = False
        self.is_connected = False
        self.refusal = ""


_DIAL: ContextVar[_Dial] = ContextVar("crmbridge_dial")


class Connector(aiohttp.TCPConnector):
    """Lends each exchange one connection, new or kept, and checks each address just before it is dialled."""

    def __init__(self, policy: EgressPolicy, **options: Any) -> None:
        super().__init__(socket_factory=self._make_socket, **options)
        self._policy = policy

    async def connect(self, *asked: Any, **named: Any) -> Connection:
        """A connection for this exchange, once."""
        dial = _DIAL.get()
        if dial.is_spent:
            raise _Repeated
        dial.is_spent = True
        connection = await super().connect(*asked, **named)
        dial.is_connected = True
        return connection

    def _make_socket(self, info: Any) -> socket.socket:
        """aiohttp's hook: sees each address just before it is dialled."""
        family, kind, protocol, _, address = info
        dial = _DIAL.get()
        why = self._policy.refusal(str(address[0]), host=dial.endpoint.host, port=dial.endpoint.port)
        if why:
            dial.refusal = why
            raise _Refused(f"address refused: {why}")
        return socket.socket(family, kind, protocol)


class Wire:
    """Single exchanges over a session whose connector is a :class:`Connector`."""

    def __init__(self, session: aiohttp.ClientSession, max_body_bytes: int) -> None:
        self._session = session
        self._max_body_bytes = max_body_bytes

    async def exchange(
        self, method: str, url: str, endpoint: Endpoint, headers: dict[str, str], body: bytes, deadline: float
    ) -> HttpResponse:
        """One request and its answer until ``deadline``, a time of the event loop.

        ``url`` has been checked and leads to ``endpoint``. Every way it can fail becomes a TransportFailure.
        """
        dial = _Dial(endpoint)
        token = _DIAL.set(dial)
        try:
            async with (
                asyncio.timeout_at(deadline),
                self._session.request(
                    method,
                    URL(quote(url, safe=_URL_SAFE), encoded=True),
                    headers=headers,
                    data=body or None,
                    allow_redirects=False,
                ) as answer,
            ):
                return HttpResponse(
                    status=answer.status, headers=_merged(answer.headers), body=await self._read(answer)
                )
        except (aiohttp.ClientError, _Repeated, OSError, ValueError) as error:
            raise _failure(error, dial) from error
        finally:
            _DIAL.reset(token)

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        """The body, decompressed, up to the cap; beyond it the connection is dropped."""
        cap = self._max_body_bytes
        chunks: list[bytes] = []
        size = 0
        if answer.method == "HEAD" or (answer.content_length or 0) <= cap:
            while chunk := await answer.content.readany():
                size += len(chunk)
                if size > cap:
                    break
                chunks.append(chunk)
            else:
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        answer.close()
        raise TransportFailure(
            TransportFault.TOO_LARGE, f"The answer is larger than {cap} bytes.", was_sent=True
        )


def _merged(answered: CIMultiDictProxy[str]) -> dict[str, str]:
    """Lower-case names; repeated headers are joined by a comma (RFC 9110 section 5.3)."""
    headers = {name.lower(): value for name, value in answered.items()}
    if len(headers) < len(answered):
        headers = {name: ", ".join(answered.getall(name)) for name in headers}
    return headers


def _failure(error: Exception, dial: _Dial) -> TransportFailure:
    """The failure of one exchange. Messages name the host at most: a URL may hold a key or a person."""
    host = dial.endpoint.host
    if dial.refusal and not dial.is_connected:
        return TransportFailure(
            TransportFault.REFUSED_BY_POLICY,
            f"{host} resolves to an address that is {dial.refusal}; calls to it are refused.",
            was_sent=False,
        )
    if not dial.is_connected:
        fault, problem = _before_connection(error)
        return TransportFailure(fault, f"{host}: {problem}.", was_sent=False)
    if isinstance(error, (aiohttp.ServerTimeoutError, TimeoutError)):
        return TransportFailure(TransportFault.TIMEOUT, f"{host} did not answer in time.", was_sent=True)
    if isinstance(error, aiohttp.ClientResponseError):
        return TransportFailure(
            TransportFault.CUT, f"{host} answered what is not HTTP or exceeds its limits.", was_sent=True
        )
    return TransportFailure(TransportFault.CUT, f"{host} cut the connection.", was_sent=True)


def _before_connection(error: Exception) -> tuple[TransportFault, str]:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return TransportFault.NAME_NOT_FOUND, "the host name is not found"
    if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
        return TransportFault.TLS, "the TLS connection failed; check the certificate"
    if isinstance(error, (aiohttp.ServerTimeoutError, TimeoutError)):
        return TransportFault.CONNECT_FAILED, "no connection in time"
    if isinstance(error, (aiohttp.InvalidURL, ValueError)):
        return TransportFault.REFUSED_BY_POLICY, "the request cannot be written"
    return TransportFault.CONNECT_FAILED, "the connection is refused"
