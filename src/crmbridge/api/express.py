"""The express lane: the one call that agents make all day, without the web framework's share of its cost.

``POST /api/tenants/{tenant}/records/{object}`` with a plain JSON body is answered here when all goes well. Whatever is
unusual (a query, a large body, a repeated header) and whatever goes wrong is handed to the framework's own route, body
and all, which does it once more and words the answer. That is sound because the same idempotency key and body have one
effect. So there is one place for errors, documentation and odd requests, and this file has none of them.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import msgspec

from crmbridge import tracing
from crmbridge.api.authentication import bind_request, caller, object_named, tenant_of
from crmbridge.api.bodies import RecordBody
from crmbridge.api.waiting import accepted_answer, idempotency_key_of, record_intent, seconds_to_wait

if TYPE_CHECKING:
    from crmbridge.services import Services

__all__ = ["Express"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ROUTE = "/api/tenants/{tenant}/records/{object_name}"  # as the framework names it
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_PATH = re.compile(r"/api/tenants/([A-Za-z0-9_-]{1,64})/records/([a-z]{1,20})")
_NEEDED = frozenset({b"authorization", b"content-type", b"idempotency-key", b"prefer", b"transfer-encoding"})
_decoder = msgspec.json.Decoder(RecordBody)


class Express:
    """ASGI in front of the framework's application, which is ``framework``."""

    def __init__(self, app: Any, services: Services, max_body_bytes: int) -> None:
        self.framework = app
        self._services = services
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """One request; anything but the one call goes straight on."""
        if tracing.is_on() and scope["type"] == "http":
            await self._traced(scope, receive, send)
        else:
            await self._served(scope, receive, send)

    async def _traced(self, scope: Any, receive: Receive, send: Send) -> None:
        """The same as a span, named by the route and never by the address: that may hold a person."""
        method = scope["method"] if scope["method"] in _METHODS else "other"
        with tracing.span("http", headers=_trace_headers(scope), http__request__method=method) as span:

            async def observed(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set(http__response__status_code=message["status"])
                    if message["status"] >= 500:
                        span.fail(str(message["status"]))
                await send(message)

            await self._served(scope, receive, observed)
            if route := scope.get("path_template") or (ROUTE if _path_of(scope) else ""):
                span.set(http__route=route)

    async def _served(self, scope: Any, receive: Receive, send: Send) -> None:
        found = _path_of(scope)
        headers = _headers_of(scope) if found else None
        if found is None or headers is None:
            await self.framework(scope, receive, send)
            return
        read: list[Message] = []
        body = await self._body(receive, read)
        if body is not None:
            try:
                answer = await self._answer(scope, found[1], found[2], headers, body)
            except Exception:
                answer = None  # told by the framework's route, which meets it again
            if answer is not None:
                for message in answer:
                    await send(message)
                return
        await self.framework(scope, _again(read, receive), send)

    async def _body(self, receive: Receive, read: list[Message]) -> bytes | None:
        """The whole body; None when it is too large or the caller has gone. ``read`` keeps what came."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            read.append(message)
            if message["type"] != "http.request":
                return None
            part = message.get("body", b"")
            size += len(part)
            if size > self._max_body_bytes:
                return None
            if not message.get("more_body", False):
                return part if not parts else b"".join((*parts, part))
            parts.append(part)

    async def _answer(
        self, scope: Any, tenant: str, object_name: str, headers: dict[bytes, str], body: bytes
    ) -> tuple[Message, Message] | None:
        services = self._services
        data = _decoder.decode(body)
        if data.mode != "apply":
            return None
        request_id = bind_request(scope)
        who = await caller(services, {"authorization": headers.get(b"authorization", "")}, request_id)
        obj = object_named(object_name)
        found = await tenant_of(services, who, tenant)
        who.require(f"write:{obj.value}")
        intent = record_intent(obj, data)
        seconds = seconds_to_wait(headers.get(b"prefer", ""))
        accepted = await services.delivery.accept(
            who.actor,
            found,
            intent,
            idempotency_key=idempotency_key_of(headers.get(b"idempotency-key", ""), data.idempotency_key),
            request_id=request_id,
            import_id=data.import_id,
            wait_seconds=seconds,
        )
        answer = accepted_answer(accepted, intent.operation, seconds > 0, request_id)
        told = [
            (b"content-type", answer.media_type.encode()),
            (b"content-length", str(len(answer.body)).encode()),
            *((name.lower().encode(), text.encode()) for name, text in answer.headers.items()),
            (b"x-request-id", request_id.encode()),
        ]
        return (
            {"type": "http.response.start", "status": answer.status, "headers": told},
            {"type": "http.response.body", "body": answer.body, "more_body": False},
        )


def _path_of(scope: Any) -> re.Match[str] | None:
    if scope["type"] != "http" or scope["method"] != "POST" or scope["query_string"]:
        return None
    return _PATH.fullmatch(scope["path"])


def _trace_headers(scope: Any) -> dict[str, str]:
    wanted = (b"traceparent", b"tracestate")
    return {
        name.decode(): value.decode("latin-1")
        for name, value in scope["headers"]
        if name in wanted and len(value) <= 512
    }


def _headers_of(scope: Any) -> dict[bytes, str] | None:
    """The headers that matter; None when one of them comes twice or the body is no plain JSON."""
    headers: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name in _NEEDED:
            if name in headers:
                return None
            headers[name] = value.decode("latin-1")
    is_json = headers.get(b"content-type", "").partition(";")[0].strip().lower() == "application/json"
    return headers if is_json and b"transfer-encoding" not in headers else None


def _again(read: list[Message], receive: Receive) -> Receive:
    """A ``receive`` that begins with what was read already."""
    waiting = iter(read)

    async def replay() -> Message:
        for message in waiting:
            return message
        return await receive()

    return replay
