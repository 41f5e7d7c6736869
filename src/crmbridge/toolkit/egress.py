"""Egress: the one place that opens outbound sockets.

What it promises, each by a test in ``tests/unit/test_egress_*.py``:

- the address that is really dialled is checked, so a name that resolves to an inside address, now or on a second
  look, is refused; see :mod:`crmbridge.toolkit.addresses`;
- no cookies, no proxy and no netrc from the environment; bodies are capped after decompression, headers
  capped in number and length; request headers that could split or re-frame a request are refused;
- a write is never sent twice: not by us and not by aiohttp, see :mod:`crmbridge.toolkit.dialling`;
- reads marked ``idempotent`` are tried up to three times within the request's own time;
- ``TransportFailure.was_sent`` is false only when no connection was ready for the request.

aiohttp is imported when the first request leaves, because it costs about half a second.
Sources: https://docs.aiohttp.org/en/stable/client_reference.html, RFC 9110 section 9.2.2 and 15.4.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from crmbridge.core.errors import EgressRefused
from crmbridge.core.wire import HttpRequest, HttpResponse, TransportFailure, TransportFault
from crmbridge.toolkit.addresses import EgressPolicy, Endpoint, check_url

if TYPE_CHECKING:
    import ssl

    import aiohttp
    from aiohttp.abc import AbstractResolver

    from crmbridge.toolkit.dialling import Wire

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
        self._wire: Wire | None = None
        self._is_closed = False

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Sends; answers whatever HTTP status came. Raises TransportFailure, never for a status.

        Redirects are followed only for idempotent GET and HEAD, at most three, each checked anew; secrets in
        headers do not follow to another origin. Any other 3xx is answered as it is.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + (request.timeout_seconds or DEFAULT_TIMEOUT_SECONDS)
        tries_left = EXTRA_TRIES if request.idempotent else 0
        while True:
            request.tries += 1
            failure: TransportFailure | None = None
            response: HttpResponse | None = None
            try:
                response = await self._follow(request, deadline)
                if response.status not in _TRANSIENT_STATUSES or response.header("retry-after"):
                    return response
            except TransportFailure as caught:
                if caught.fault is TransportFault.REFUSED_BY_POLICY and self._on_refused is not None:
                    self._on_refused()
                if caught.fault not in _TRANSIENT_FAULTS:
                    raise
                failure = caught
            pause = random.uniform(0.1, 0.4)  # noqa: S311 - jitter, no secret
            if tries_left == 0 or deadline - clock() <= pause + 0.05:
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

    async def _follow(self, request: HttpRequest, deadline: float) -> HttpResponse:
        """One try, with its redirects."""
        body = request.encoded_body()
        headers = self._headers(request)
        url = request.full_url()
        may_follow = request.idempotent and request.method.upper() in ("GET", "HEAD")
        endpoint = self._checked(url)
        if self._wire is None or self._is_closed:
            self._open_session()
        assert self._wire is not None
        for hop in range(MAX_REDIRECTS + 1):
            response = await self._wire.exchange(request.method, url, endpoint, headers, body, deadline)
            if not may_follow or response.status not in _REDIRECTS or hop == MAX_REDIRECTS:
                break
            location = response.header("location")
            if not location:
                break
            url = urljoin(url, location)
            previous, endpoint = endpoint, self._checked(url)
            if endpoint != previous:
                headers = {name: value for name, value in headers.items() if name.lower() in _HARMLESS}
        return response

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
            if not _may_be_set(name):
                problem = f"The request header {name[:40]!r} may not be set."
            elif not value.isprintable() and _LINE_BREAKING.search(value):
                problem = f"The request header {name!r} holds a line break or control character."
            else:
                if name.lower() == "user-agent":
                    del headers["User-Agent"]
                headers[name] = value
                continue
            raise TransportFailure(TransportFault.REFUSED_BY_POLICY, problem, was_sent=False)
        return headers

    def _open_session(self) -> aiohttp.ClientSession:
        """The one session, and the wire over it; opened when the first request leaves."""
        if self._is_closed:
            raise RuntimeError("this Egress is closed")
        if self._session is None:
            import aiohttp

            from crmbridge.toolkit.dialling import Connector, Wire

            connector = Connector(
                self.policy,
                limit=0,
                limit_per_host=self._connections_per_host,
                resolver=self._resolver,
                ssl=self._ssl_context if self._ssl_context is not None else True,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                # The wire times the whole exchange; aiohttp's own timers would be three more for each.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECONDS),
                max_line_size=8190,
                max_field_size=8190,
                max_headers=100,
            )
            self._wire = Wire(self._session, self._max_body_bytes)
        return self._session


@lru_cache(maxsize=512)
def _may_be_set(name: str) -> bool:
    return _HEADER_NAME.fullmatch(name) is not None and name.lower() not in _FRAMING
