"""Egress: the one place that opens outbound sockets.

What it promises, each by a test in ``tests/unit/test_egress_*.py``:

- the address that is really dialled is checked (aiohttp's ``socket_factory`` hook), so a name that resolves
  to an inside address, now or on a second look, is refused; see :mod:`crmbridge.toolkit.addresses`;
- no cookies, no proxy and no netrc from the environment; bodies are capped after decompression, headers
  capped in number and length; request headers that could split or re-frame a request are refused;
- a write is never sent twice: not by us and not by aiohttp, which on its own repeats PUT and DELETE on a
  stale connection (``retry_persistent_connection`` in aiohttp/client.py, read in 3.14.5); a middleware hides
  those failures from that loop;
- reads marked ``idempotent`` are tried up to three times within the request's own time;
- ``TransportFailure.was_sent`` is false only when no connection was ready for the request.

aiohttp is imported when the first request leaves, because it costs about half a second.
Sources: https://docs.aiohttp.org/en/stable/client_reference.html, RFC 9110 section 9.2.2 and 15.4.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin

from crmbridge.core.errors import EgressRefused
from crmbridge.core.wire import HttpRequest, HttpResponse, TransportFailure, TransportFault
from crmbridge.toolkit.addresses import EgressPolicy, Endpoint, check_url

if TYPE_CHECKING:
    import ssl

    import aiohttp
    from aiohttp.abc import AbstractResolver

__all__ = ["Egress", "EgressPolicy", "check_url"]

DEFAULT_TIMEOUT_SECONDS = 30.0
CONNECT_TIMEOUT_SECONDS = 5.0
MAX_BODY_BYTES = 5 * 1024 * 1024
MAX_REDIRECTS = 3
EXTRA_TRIES = 2

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT_STATUSES = frozenset({502, 503, 504})
_TRANSIENT_FAULTS = frozenset({TransportFault.CONNECT_FAILED, TransportFault.CUT})
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}")
_LINE_BREAKING = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# The connection's own headers: a template that set them could re-frame the request or address another host.
_FRAMING = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding"}
    | {"upgrade", "proxy-authorization", "proxy-connection", "accept-encoding"}
)
# All that follows a redirect to another origin: anything else may be a key.
_HARMLESS = frozenset({"accept", "accept-encoding", "accept-language", "user-agent"})


class _Refused(OSError):
    """The dialled address is refused. An OSError, so that the next address of the name is tried."""


class _Cut(Exception):
    """A lost connection, hidden from aiohttp's own repeat."""


class _Dial:
    """What is known of the one try under way in this task."""

    __slots__ = ("endpoint", "is_connected", "refusal")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.is_connected = False
        self.refusal = ""


_DIAL: ContextVar[_Dial] = ContextVar("crmbridge_dial")


class Egress:
    """A :class:`crmbridge.core.wire.Transport` over the network. One per process and event loop.

    ``connections_per_host`` bounds open sockets to one host; ``max_body_bytes`` bounds an answer after
    decompression. ``resolver`` and ``ssl_context`` are for tests and private certificate authorities.
    ``on_refused`` is called for each request that our own policy kept from leaving.
    """

    def __init__(
        self,
        policy: EgressPolicy,
        *,
        user_agent: str = "crmbridge",
        connections_per_host: int = 64,
        max_body_bytes: int = MAX_BODY_BYTES,
        resolver: AbstractResolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
        on_refused: Callable[[], None] | None = None,
    ) -> None:
        self.policy = policy
        self._user_agent = user_agent
        self._connections_per_host = connections_per_host
        self._max_body_bytes = max_body_bytes
        self._resolver = resolver
        self._ssl_context = ssl_context
        self._on_refused = on_refused
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Sends; answers whatever HTTP status came. Raises TransportFailure, never for a status.

        Redirects are followed only for idempotent GET and HEAD, at most three, each checked anew; secrets in
        headers do not follow to another origin. Any other 3xx is answered as it is.
        """
        loop = asyncio.get_running_loop()
        allowed = request.timeout_seconds or DEFAULT_TIMEOUT_SECONDS
        deadline = loop.time() + allowed
        tries_left = EXTRA_TRIES if request.idempotent else 0
        while True:
            remaining = deadline - loop.time()
            request.tries += 1
            failure: TransportFailure | None = None
            response: HttpResponse | None = None
            try:
                response = await self._follow(request, remaining)
                if response.status not in _TRANSIENT_STATUSES or response.header("retry-after"):
                    return response
            except TransportFailure as caught:
                if caught.fault is TransportFault.REFUSED_BY_POLICY and self._on_refused is not None:
                    self._on_refused()
                if caught.fault not in _TRANSIENT_FAULTS:
                    raise
                failure = caught
            pause = random.uniform(0.1, 0.4)  # noqa: S311 - jitter, no secret
            if tries_left == 0 or deadline - loop.time() <= pause + 0.05:
                if response is not None:
                    return response
                assert failure is not None
                raise failure
            tries_left -= 1
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """Closes all connections. A later send fails."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()

    async def _follow(self, request: HttpRequest, seconds: float) -> HttpResponse:
        """One try, with its redirects."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        body = request.encoded_body()
        headers = self._headers(request)
        url = request.full_url()
        may_follow = request.idempotent and request.method.upper() in ("GET", "HEAD")
        endpoint = self._checked(url)
        for hop in range(MAX_REDIRECTS + 1):
            response = await self._once(request.method, url, endpoint, headers, body, deadline - loop.time())
            location = response.header("location")
            if not may_follow or response.status not in _REDIRECTS or not location or hop == MAX_REDIRECTS:
                break
            url = urljoin(url, location)
            previous, endpoint = endpoint, self._checked(url)
            if endpoint != previous:
                headers = {name: value for name, value in headers.items() if name.lower() in _HARMLESS}
        return response

    async def _once(
        self, method: str, url: str, endpoint: Endpoint, headers: dict[str, str], body: bytes, seconds: float
    ) -> HttpResponse:
        """One exchange on the wire; every way it can fail becomes a TransportFailure."""
        import aiohttp
        from yarl import URL

        session = self._open_session()
        seconds = max(seconds, 0.001)
        timeout = aiohttp.ClientTimeout(
            total=seconds, sock_connect=min(CONNECT_TIMEOUT_SECONDS, seconds), sock_read=seconds
        )
        dial = _Dial(endpoint)
        token = _DIAL.set(dial)
        try:
            async with session.request(
                method,
                URL(quote(url, safe=_URL_SAFE), encoded=True),
                headers=headers,
                data=body or None,
                timeout=timeout,
                allow_redirects=False,
            ) as answer:
                return HttpResponse(
                    status=answer.status,
                    headers=_merged(answer.headers.items()),
                    body=await self._read(answer),
                )
        except TransportFailure:
            raise
        except (aiohttp.ClientError, _Cut, OSError, ValueError) as error:
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

    def _checked(self, url: str) -> Endpoint:
        try:
            return check_url(url, self.policy)
        except EgressRefused as refused:
            raise TransportFailure(
                TransportFault.REFUSED_BY_POLICY, refused.message, was_sent=False
            ) from refused

    def _headers(self, request: HttpRequest) -> dict[str, str]:
        """The request's headers plus ours. Refuses names and values that could alter the request's frame."""
        headers = {"User-Agent": self._user_agent, "Accept-Encoding": "gzip, deflate"}
        for name, value in request.headers.items():
            if not _HEADER_NAME.fullmatch(name) or name.lower() in _FRAMING:
                problem = f"The request header {name[:40]!r} may not be set."
            elif _LINE_BREAKING.search(value):
                problem = f"The request header {name!r} holds a line break or control character."
            else:
                if name.lower() == "user-agent":
                    del headers["User-Agent"]
                headers[name] = value
                continue
            raise TransportFailure(TransportFault.REFUSED_BY_POLICY, problem, was_sent=False)
        return headers

    def _open_session(self) -> aiohttp.ClientSession:
        if self._is_closed:
            raise RuntimeError("this Egress is closed")
        if self._session is None:
            self._session = self._make_session()
        return self._session

    def _make_session(self) -> aiohttp.ClientSession:
        import aiohttp

        connector = aiohttp.TCPConnector(
            limit=0,
            limit_per_host=self._connections_per_host,
            socket_factory=self._make_socket,
            resolver=self._resolver,
            ssl=self._ssl_context if self._ssl_context is not None else True,
        )
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(_note_connected)
        trace.on_connection_reuseconn.append(_note_connected)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            middlewares=(_never_repeat,),
            trace_configs=[trace],
            max_line_size=8190,
            max_field_size=8190,
            max_headers=100,
            skip_auto_headers=("Accept",),
        )

    def _make_socket(self, info: Any) -> socket.socket:
        """aiohttp's hook: sees each address just before it is dialled."""
        family, kind, protocol, _, address = info
        dial = _DIAL.get()
        why = self.policy.refusal(str(address[0]), host=dial.endpoint.host, port=dial.endpoint.port)
        if why:
            dial.refusal = why
            raise _Refused(f"address refused: {why}")
        return socket.socket(family, kind, protocol)


# Characters that a URL may hold; "%" is kept because callers have encoded already.
_URL_SAFE = "%/:=&?~#+!$,;'@()*[]"


async def _note_connected(session: Any, context: Any, params: Any) -> None:
    _DIAL.get().is_connected = True


async def _never_repeat(request: Any, proceed: Any) -> Any:
    """aiohttp middleware: a lost connection leaves as :class:`_Cut`, so that nothing is sent twice."""
    import aiohttp

    try:
        return await proceed(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _Cut(str(error)) from error


def _merged(pairs: Any) -> dict[str, str]:
    """Lower-case names; repeated headers are joined by a comma (RFC 9110 section 5.3)."""
    headers: dict[str, str] = {}
    for name, value in pairs:
        lower = name.lower()
        headers[lower] = f"{headers[lower]}, {value}" if lower in headers else value
    return headers


def _failure(error: Exception, dial: _Dial) -> TransportFailure:
    """The failure of one try. Messages name the host at most: a URL may hold a key or a person."""
    import aiohttp

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
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return TransportFault.NAME_NOT_FOUND, "the host name is not found"
    if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
        return TransportFault.TLS, "the TLS connection failed; check the certificate"
    if isinstance(error, (aiohttp.ServerTimeoutError, TimeoutError)):
        return TransportFault.CONNECT_FAILED, "no connection in time"
    if isinstance(error, (aiohttp.InvalidURL, ValueError)):
        return TransportFault.REFUSED_BY_POLICY, "the request cannot be written"
    return TransportFault.CONNECT_FAILED, "the connection is refused"
