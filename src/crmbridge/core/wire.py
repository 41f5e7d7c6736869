"""One HTTP exchange as drivers, emulators and egress see it. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol
from urllib.parse import urlencode

import msgspec

__all__ = ["HttpRequest", "HttpResponse", "Transport", "TransportFailure", "TransportFault"]


class HttpRequest(msgspec.Struct, kw_only=True):
    """What is sent. ``url`` is absolute, without query. ``query`` values are texts or lists of texts.

    Exactly one of ``json`` (any JSON tree, ``msgspec.UNSET`` = none), ``form`` and ``body`` is used.
    ``idempotent`` lets egress retry briefly on its own: reads only. ``tries`` is how often it was sent so.
    ``budget`` names a budget of its own that this call counts against beside the others (``search``).
    """

    method: str
    url: str
    query: dict[str, Any] = msgspec.field(default_factory=dict)
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    json: Any = msgspec.UNSET
    form: dict[str, Any] | None = None
    body: bytes | None = None
    idempotent: bool = False
    timeout_seconds: float | None = None
    budget: str = ""
    tries: int = 0

    def encoded_body(self) -> bytes:
        """The bytes on the wire; sets Content-Type where the caller did not."""
        if self.body is not None:
            return self.body
        if self.form is not None:
            self._default_content_type("application/x-www-form-urlencoded")
            return urlencode(self.form, doseq=True).encode()
        if self.json is not msgspec.UNSET:
            self._default_content_type("application/json")
            return msgspec.json.encode(self.json)
        return b""

    def full_url(self) -> str:
        """``url`` with the encoded query; never logged (a query may hold a key or a person)."""
        if not self.query:
            return self.url
        return f"{self.url}{'&' if '?' in self.url else '?'}{urlencode(self.query, doseq=True)}"

    def _default_content_type(self, value: str) -> None:
        if "content-type" not in map(str.lower, self.headers):
            self.headers["Content-Type"] = value


class HttpResponse(msgspec.Struct, kw_only=True):
    """What came back. Header names are lower-case. ``body`` is capped by egress."""

    status: int
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    body: bytes = b""

    def header(self, name: str) -> str:
        """A header's value by any case, or an empty text."""
        return self.headers.get(name.lower(), "")

    @property
    def is_json(self) -> bool:
        """True when the provider says so in Content-Type (HTML error pages answer false)."""
        return "json" in self.header("content-type").lower()

    def json(self) -> Any:
        """The decoded body. Raises ``msgspec.DecodeError`` for anything but JSON."""
        return msgspec.json.decode(self.body)

    @staticmethod
    def of_json(status: int, tree: Any, headers: Mapping[str, str] | None = None) -> HttpResponse:
        """An answer with a JSON body; used by emulators."""
        merged = {"content-type": "application/json"}
        merged.update({name.lower(): value for name, value in (headers or {}).items()})
        return HttpResponse(status=status, headers=merged, body=msgspec.json.encode(tree))


class TransportFault(StrEnum):
    """Why no answer came. The first three are certain: nothing reached the provider's application."""

    REFUSED_BY_POLICY = "refused_by_policy"
    NAME_NOT_FOUND = "name_not_found"
    CONNECT_FAILED = "connect_failed"
    CUT = "cut"
    TIMEOUT = "timeout"
    TOO_LARGE = "too_large"
    TLS = "tls"


class TransportFailure(Exception):
    """No usable HTTP answer. ``was_sent`` is true when the request may have reached the provider."""

    def __init__(self, fault: TransportFault, message: str, *, was_sent: bool) -> None:
        super().__init__(message)
        self.fault = fault
        self.message = message
        self.was_sent = was_sent


class Transport(Protocol):
    """The seam between drivers and the network: egress in production, an emulator in fast tests."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send once. Raises :class:`TransportFailure`; never for an HTTP status."""
        ...
