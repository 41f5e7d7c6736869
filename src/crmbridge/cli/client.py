"""A small client of our own HTTP API, over the one door that opens sockets, with only the server's host open."""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import msgspec

from crmbridge.cli.problems import ServerRefusal, ServerUnreachable, UsageProblem
from crmbridge.core.wire import HttpRequest, HttpResponse, Transport, TransportFailure

__all__ = ["KEY_FILE", "KEY_VARIABLE", "Client", "find_key"]

KEY_VARIABLE = "CRMBRIDGE_API_KEY"
KEY_FILE = "admin.key"
_NO_KEY = (
    f"Set {KEY_VARIABLE} to an API key. On the machine of a new `crmbridge serve` the file {KEY_FILE} in its data "
    "folder is found by itself."
)


class Client:
    """Calls one server as one API key; an async context manager.

    Every method answers the decoded JSON. Raises ServerRefusal for an error of the server (its problem+json),
    ServerUnreachable when no answer came. Reads are tried again briefly by egress, writes never.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout_seconds: float = 60.0,
        transport: Transport | None = None,
    ) -> None:
        self.url = _checked(url)
        self._key = key
        self._timeout = timeout_seconds
        self._transport = transport
        self._egress: Any = None

    async def __aenter__(self) -> Self:
        if self._transport is None:
            from crmbridge._version import __version__
            from crmbridge.toolkit.egress import Egress, EgressPolicy

            netloc = urlsplit(self.url).netloc
            self._egress = Egress(EgressPolicy(allow=(netloc,)), user_agent=f"crmbridge-cli/{__version__}")
            self._transport = self._egress
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._egress is not None:
            await self._egress.close()

    async def get(self, *path: str, **query: Any) -> Any:
        """GET /api/… ; path parts are quoted, empty query values left out."""
        return await self.call("GET", *path, query=query)

    async def post(self, *path: str, body: Any = None, **query: Any) -> Any:
        """POST /api/… with a JSON body."""
        return await self.call("POST", *path, body={} if body is None else body, query=query)

    async def call(
        self,
        method: str,
        *path: str,
        body: Any = msgspec.UNSET,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> Any:
        """One request to ``/api/{path}``."""
        route = "/".join(quote(part, safe="") for part in path)
        request = HttpRequest(
            method=method,
            url=f"{self.url}/api/{route}",
            query={name: _text(value) for name, value in (query or {}).items() if value not in (None, "")},
            headers={
                "Authorization": f"Bearer {self._key}",
                "Accept": "application/json",
                **(headers or {}),
            },
            json=body,
            idempotent=method == "GET",
            timeout_seconds=timeout_seconds or self._timeout,
        )
        assert self._transport is not None, "use `async with Client(...)`"
        try:
            response = await self._transport.send(request)
        except TransportFailure as failure:
            raise ServerUnreachable(self.url, failure.message, was_sent=failure.was_sent) from None
        return self._answer(response)

    async def is_ready(self) -> bool:
        """Whether ``/readyz`` says that the server can accept writes."""
        request = HttpRequest(method="GET", url=f"{self.url}/readyz", timeout_seconds=5)
        assert self._transport is not None, "use `async with Client(...)`"
        try:
            return (await self._transport.send(request)).status == 200
        except TransportFailure:
            return False

    def _answer(self, response: HttpResponse) -> Any:
        if response.status == 204 or (response.status < 300 and not response.body):
            return None
        try:
            tree = response.json() if response.is_json else None
        except (msgspec.DecodeError, UnicodeDecodeError):
            tree = None
        if response.status < 300 and tree is not None:
            return tree
        if not isinstance(tree, dict) or "code" not in tree:
            raise ServerUnreachable(
                self.url,
                f"HTTP {response.status} without an answer of crmbridge",
                was_sent=True,
                hint="Something else answers at this address; check --url or CRMBRIDGE_URL.",
            )
        if response.status == 401:
            tree = {**tree, "fix": {"action": "send_key", "hint": _NO_KEY}}
        raise ServerRefusal(response.status, tree, retry_after=_seconds(response.header("retry-after")))


def find_key(url: str, environ: Mapping[str, str] = os.environ) -> str:
    """The API key: the environment variable, else the key file of the local installation.

    The file is used for a loopback address only, so that no other server gets it. Raises UsageProblem.
    """
    key = environ.get(KEY_VARIABLE, "").strip()
    if key:
        return key
    if _is_loopback(urlsplit(_checked(url)).hostname or ""):
        path = data_folder(environ) / KEY_FILE
        try:
            return path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            pass
    raise UsageProblem("There is no API key.", hint=_NO_KEY)


def data_folder(environ: Mapping[str, str]) -> Path:
    """The folder of the local installation, whatever state the other settings are in."""
    from crmbridge.settings import Settings

    wanted = {name: text for name, text in environ.items() if not name.startswith("CRMBRIDGE_")}
    if environ.get("CRMBRIDGE_DATA_DIR"):
        wanted["CRMBRIDGE_DATA_DIR"] = environ["CRMBRIDGE_DATA_DIR"]
    return Settings.from_environment(wanted).data_dir


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise UsageProblem(
            "The server's address cannot be used.", hint="Write it like http://127.0.0.1:8700."
        )
    if parts.scheme == "http" and not _is_inside(parts.hostname):
        raise UsageProblem(
            f"Plain http to {parts.hostname} would show the API key to the network.",
            hint="Use https://, or a tunnel to the loopback address.",
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _is_inside(host: str) -> bool:
    """Loopback, a private address, or a name without a dot (a container's): plain http is usual there."""
    try:
        return _is_loopback(host) or ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".internal", ".local", ".localhost"))


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _seconds(text: str) -> float | None:
    return float(text) if text.isdigit() else None
