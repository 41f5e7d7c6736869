"""Emulator: a stateful local stand-in for one provider. Providers' emulators subclass it.

A provider's emulator declares routes and answers in the provider's shapes::

    class AcmeEmulator(Emulator):
        slug = "acme"

        def authenticate(self, call):
            if call.headers.get("authorization") != f"Bearer {self.secret('token')}":
                return self.answer({"error": "bad token"}, 401)
            return None

        @route("POST", "/contacts", operation="contacts.create")
        def create(self, call):
            row = self.store.numbered("contacts").insert(call.json)
            return self.answer({"id": row.id, **row.fields}, 201)
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, TypeVar, cast
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from crmbridge.core.wire import HttpRequest, HttpResponse, TransportFailure, TransportFault
from crmbridge.emulation.clock import Clock
from crmbridge.emulation.faults import Fault, FaultKind, Faults
from crmbridge.emulation.quotas import Quota
from crmbridge.emulation.store import EmulatorStore

__all__ = ["Emulator", "Incoming", "Refusal", "Route", "route"]

Respond = Callable[..., HttpResponse | Awaitable[HttpResponse]]
RespondT = TypeVar("RespondT", bound=Respond)
_REQUESTS_KEPT = 20_000
_CERTAIN = {
    FaultKind.CUT_BEFORE: TransportFault.CUT,
    FaultKind.CUT_AFTER: TransportFault.CUT,
    FaultKind.TIMEOUT_BEFORE: TransportFault.TIMEOUT,
    FaultKind.TIMEOUT_AFTER: TransportFault.TIMEOUT,
}
_AFTER = (FaultKind.CUT_AFTER, FaultKind.TIMEOUT_AFTER)


class Refusal(Exception):
    """Raised anywhere inside a route to answer at once with a provider-shaped error."""

    def __init__(self, response: HttpResponse) -> None:
        super().__init__(response.status)
        self.response = response


class Route(msgspec.Struct, frozen=True):
    """One line of the route table. ``operation`` may hold the names of the path's parts."""

    method: str
    pattern: str
    operation: str
    writes: bool
    name: str
    expression: Any


class Incoming:
    """One request as a route sees it. ``path`` is without the emulator's prefix, header names lower-case."""

    __slots__ = ("_json", "body", "headers", "is_write", "method", "operation", "params", "path", "query")

    def __init__(self, method: str, path: str, query: dict[str, list[str]], headers: dict[str, str]) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = b""
        self.params: dict[str, str] = {}
        self.operation = ""
        self.is_write = False
        self._json: Any = msgspec.UNSET

    @property
    def json(self) -> Any:
        """The decoded body, None when empty. Raises ``msgspec.DecodeError`` for anything but JSON."""
        if self._json is msgspec.UNSET:
            self._json = msgspec.json.decode(self.body) if self.body else None
        return self._json

    @property
    def form(self) -> dict[str, list[str]]:
        """The body as form fields."""
        return parse_qs(self.body.decode(), keep_blank_values=True)

    @property
    def fields(self) -> dict[str, str]:
        """The same, the first value of each."""
        return {name: values[0] for name, values in self.form.items()}

    def first(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        values = self.query.get(name)
        return values[0] if values else default


def route(
    method: str, pattern: str, *, operation: str = "", writes: bool | None = None
) -> Callable[[RespondT], RespondT]:
    """Marks a method of an emulator as the answer to ``METHOD pattern``; may be given more than once.

    ``{name}`` in the pattern is one path part, ``{name:rest}`` all that follows, slashes included.
    ``writes`` says whether the call changes the CRM (default: any method but GET, HEAD and OPTIONS).
    """
    expression = re.compile(_expression(pattern))
    spoken = re.sub(r"{(\w+)(:rest)?}", r":\1", pattern)
    is_write = method not in ("GET", "HEAD", "OPTIONS") if writes is None else writes

    def mark(respond: RespondT) -> RespondT:
        made = Route(
            method,
            pattern,
            operation or f"{method} {spoken}",
            is_write,
            respond.__name__,
            expression,
        )
        marks = cast(Any, respond)
        marks.__routes__ = [*getattr(respond, "__routes__", []), made]
        return respond

    return mark


class Emulator:
    """Routes, credentials, state, faults and a log. Subclasses add routes and hooks.

    ``requests`` holds what was seen (secrets included: this is a stand-in), ``calls`` counts by operation,
    ``write_calls`` counts calls that could change the CRM, ``written`` committed records,
    ``in_flight_peak`` the most calls that were open at one time.
    ``base_url`` is where it is reached; its path, if any, is stripped before routing.
    """

    slug: ClassVar[str] = ""
    display_name: ClassVar[str] = ""
    routes: ClassVar[dict[str, list[Route]]] = {}
    client_id = ""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.store = EmulatorStore(self.clock)
        self.faults = Faults()
        self.quotas: list[Quota] = []
        self.requests: list[HttpRequest] = []
        self.calls: Counter[str] = Counter()
        self.write_calls = 0
        self.variant = ""
        self.base_url = f"https://{self.slug.replace('_', '-')}.emulator.test"
        self.in_flight = 0
        self.in_flight_peak = 0
        self.latency_seconds = 0.0
        self._fill()

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        table: dict[str, list[Route]] = {}
        for base in reversed(cls.__mro__):
            for name, member in vars(base).items():
                own = getattr(cls, name, None)
                for made in getattr(own, "__routes__", ()) if callable(member) else ():
                    rows = table.setdefault(made.method, [])
                    if made not in rows:
                        rows.append(made)
        for rows in table.values():
            rows.sort(key=lambda made: (made.pattern.count("{"), -len(made.pattern)))
        cls.routes = table

    # What a provider's emulator overrides.

    def seed(self) -> None:
        """Fills the store with what a new account of the provider holds; called by ``__init__`` and reset."""

    def settings(self) -> dict[str, str]:
        """Non-secret settings by name, of a credential that works."""
        return {}

    def secrets(self) -> dict[str, str]:
        """Secret settings by name, of a credential that works; made by :meth:`secret`."""
        return {}

    def oauth_app(self) -> dict[str, str]:
        """``client_id`` and ``client_secret`` of an app that is registered there; empty where nobody consents.

        An emulator with a consent page sets ``client_id`` and checks ``secret("client_secret")``, or overrides this.
        """
        if not self.client_id:
            return {}
        return {"client_id": self.client_id, "client_secret": self.secret("client_secret")}

    def authenticate(self, call: Incoming) -> HttpResponse | None:
        """None when the call may go on, else the provider's refusal."""
        return None

    def on_fault(self, fault: Fault, call: Incoming) -> HttpResponse:
        """The provider's own body for ``fault.status`` (kind ``status``); override to shape it."""
        return self.answer({"error": {"status": fault.status, "message": "fault on demand"}}, fault.status)

    def on_wrong_shape(self, fault: Fault, call: Incoming) -> HttpResponse:
        """A 200 whose JSON is not what the page promises."""
        return self.answer({"surprise": ["not", "what", "the", "page", "says"]})

    def on_limited(self, quota: Quota, wait_seconds: float, call: Incoming) -> HttpResponse:
        """The provider's answer when a quota is used up."""
        headers = {"retry-after": str(max(1, round(wait_seconds)))}
        return self.answer({"error": {"status": 429, "message": "too many requests"}}, 429, headers)

    def on_unknown_route(self, call: Incoming) -> HttpResponse:
        """The provider's answer to a path it does not know."""
        return self.answer({"error": {"status": 404, "message": f"no {call.method} {call.path}"}}, 404)

    def on_broken_json(self, call: Incoming) -> HttpResponse:
        """The provider's answer to a body that is not JSON."""
        return self.answer({"error": {"status": 400, "message": "the body is not JSON"}}, 400)

    def operation_of(self, call: Incoming, made: Route) -> str:
        """The name that faults, quotas and ``calls`` go by; path parts are filled in."""
        return made.operation.format(**call.params) if "{" in made.operation else made.operation

    def is_write(self, call: Incoming, made: Route) -> bool:
        """Whether the call changes the CRM; override where every call is a POST."""
        return made.writes

    # What everybody uses.

    @property
    def written(self) -> int:
        """Committed record changes since the start or the last reset."""
        return self.store.written

    def secret(self, name: str, length: int = 40) -> str:
        """A secret text of hex digits, the same at every call; another for another ``variant``."""
        seed = f"{self.slug}/{name}/{self.variant}".encode()
        return hashlib.shake_256(seed).hexdigest((length + 1) // 2)[:length]

    def answer(self, tree: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpResponse:
        """A JSON answer."""
        if not headers:
            return HttpResponse(
                status=status,
                headers={"content-type": "application/json"},
                body=msgspec.json.encode(tree),
            )
        return HttpResponse.of_json(status, tree, headers)

    def reset(self) -> None:
        """Back to the seeded state: store, faults, log and counters."""
        self.store.clear()
        self.faults.clear()
        self.requests.clear()
        self.calls.clear()
        for quota in self.quotas:
            quota.used = 0
        self.in_flight_peak = 0
        self.write_calls = 0
        self._fill()

    def _fill(self) -> None:
        self.seed()
        self.store.written = 0

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """One exchange. Raises TransportFailure for cut, timeout and refused faults."""
        call = self._incoming(request)
        made = self._match(call)
        fault = self.faults.take(call.method, call.path, call.operation, call.is_write)
        if fault is not None and fault.kind is FaultKind.REFUSED:
            raise TransportFailure(TransportFault.CONNECT_FAILED, "connection refused", was_sent=False)
        self._note(request, call.body)
        self.calls[call.operation] += 1
        self.write_calls += call.is_write
        self.in_flight += 1
        self.in_flight_peak = max(self.in_flight_peak, self.in_flight)
        try:
            wait = self.latency_seconds + (fault.latency_seconds if fault is not None else 0.0)
            if wait:
                await asyncio.sleep(wait)
            if fault is None or fault.kind is FaultKind.LATENCY:
                return await self._respond(call, made)
            return await self._go_wrong(fault, call, made)
        finally:
            self.in_flight -= 1

    async def _go_wrong(self, fault: Fault, call: Incoming, made: Route | None) -> HttpResponse:
        if fault.after_commit or fault.kind in _AFTER:
            await self._respond(call, made)
        if certain := _CERTAIN.get(fault.kind):
            raise TransportFailure(certain, f"fault on demand: {fault.kind.value}", was_sent=True)
        answer = self._wrong_answer(fault, call)
        if fault.headers or fault.retry_after:
            answer.headers = {
                **answer.headers,
                **{name.lower(): text for name, text in fault.headers.items()},
            }
            if fault.retry_after:
                answer.headers["retry-after"] = fault.retry_after
        return answer

    def _wrong_answer(self, fault: Fault, call: Incoming) -> HttpResponse:
        if fault.kind is FaultKind.STATUS:
            if fault.body is not msgspec.UNSET:
                return self.answer(fault.body, fault.status)
            return self.on_fault(fault, call)
        if fault.kind is FaultKind.WRONG_SHAPE:
            if fault.body is not msgspec.UNSET:
                return self.answer(fault.body)
            return self.on_wrong_shape(fault, call)
        if fault.kind is FaultKind.HTML:
            status = 200 if fault.status == 500 else fault.status
            page = b"<!doctype html><html><body><h1>We'll be right back</h1></body></html>"
            return HttpResponse(status=status, headers={"content-type": "text/html"}, body=page)
        body = b"" if fault.kind is FaultKind.EMPTY else b'{"half": ['
        return HttpResponse(status=200, headers={"content-type": "application/json"}, body=body)

    async def _respond(self, call: Incoming, made: Route | None) -> HttpResponse:
        try:
            for quota in self.quotas:
                if quota.counts(call.operation, call.is_write) and (wait := quota.take(self.clock)):
                    return self.on_limited(quota, wait, call)
            refusal = self.authenticate(call)
            if refusal is not None:
                return refusal
            if made is None:
                return self.on_unknown_route(call)
            answer = getattr(self, made.name)(call)
            if inspect.isawaitable(answer):
                answer = await answer
            return cast(HttpResponse, answer)
        except Refusal as refused:
            return refused.response
        except msgspec.DecodeError:
            return self.on_broken_json(call)

    def _incoming(self, request: HttpRequest) -> Incoming:
        body = request.encoded_body()
        split = urlsplit(request.url)
        path = split.path or "/"
        prefix = urlsplit(self.base_url).path.rstrip("/")
        if prefix and (path == prefix or path.startswith(prefix + "/")):
            path = path[len(prefix) :] or "/"
        query = parse_qs(split.query, keep_blank_values=True) if split.query else {}
        for name, value in request.query.items():
            values = value if isinstance(value, (list, tuple)) else (value,)
            query.setdefault(name, []).extend(str(part) for part in values)
        headers = {name.lower(): value for name, value in request.headers.items()}
        call = Incoming(request.method, path, query, headers)
        call.body = body
        return call

    def _match(self, call: Incoming) -> Route | None:
        for made in self.routes.get(call.method, ()):
            found = made.expression.fullmatch(call.path)
            if found is not None:
                call.params = {name: unquote(text) for name, text in found.groupdict().items()}
                call.operation = self.operation_of(call, made)
                call.is_write = self.is_write(call, made)
                return made
        call.operation = f"{call.method} unknown"
        call.is_write = call.method not in ("GET", "HEAD", "OPTIONS")
        return None

    def _note(self, request: HttpRequest, body: bytes) -> None:
        if len(self.requests) >= _REQUESTS_KEPT:
            del self.requests[: _REQUESTS_KEPT // 2]
        self.requests.append(
            HttpRequest(
                method=request.method,
                url=request.url,
                query=dict(request.query),
                headers=dict(request.headers),
                body=body,
            )
        )


def _expression(pattern: str) -> str:
    parts = re.split(r"\{(\w+)(:rest)?\}", pattern)
    made = re.escape(parts[0])
    for name, rest, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        made += f"(?P<{name}>{'.+' if rest else '[^/]+'})" + re.escape(text)
    return made
