"""Emulators on loopback: for ``crmbridge emulate``, the demo, clients of other makers and end-to-end tests.

Each emulator answers under ``/{slug}`` of the shared port, or at the root of a port of its own. Beside them:

- ``GET /`` a page with the credentials to try and the records each emulator holds
- ``GET | POST | DELETE /_control/{slug}/faults`` the waiting faults; the fields of a Fault; none any more
- ``GET /_control/{slug}/requests?limit=`` · ``GET /_control/{slug}/records``
- ``POST /_control/{slug}/clock`` ``{"advance_seconds": 60}`` · ``POST /_control/{slug}/latency`` ``{"ms": 50}``
- ``POST /_control/{slug}/reset`` back to the seeded state
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from crmbridge.core.wire import HttpRequest, TransportFailure, TransportFault
from crmbridge.emulation.emulator import Emulator
from crmbridge.emulation.overview import overview_page

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["Served", "serve_emulators"]

_MAX_BODY = 32 * 1024 * 1024
_HANG_SECONDS = 120.0


class Served:
    """Running emulators. ``url`` is the overview page, ``urls`` the base URL of each emulator by slug."""

    def __init__(self, url: str, urls: dict[str, str], runners: list[web.AppRunner]) -> None:
        self.url = url
        self.urls = urls
        self._runners = runners

    async def close(self) -> None:
        """Stops listening; connections that hang on purpose are cut."""
        for runner in self._runners:
            await runner.cleanup()


async def serve_emulators(
    emulators: Mapping[str, Emulator],
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    ports: Mapping[str, int] | None = None,
    latency_ms: float = 0.0,
) -> Served:
    """Starts serving and sets each emulator's ``base_url``. ``port`` 0 takes a free one.

    ``ports`` gives emulators a port of their own by slug (0: a free one), beside the shared one.
    Raises OSError when a port is taken, ValueError when ``ports`` names no emulator.
    """
    from aiohttp import web

    if unknown := sorted(set(ports or {}) - set(emulators)):
        raise ValueError(f"ports names emulators that are not served: {', '.join(unknown)}")
    urls: dict[str, str] = {}
    shared = web.Application(client_max_size=_MAX_BODY)
    shared.router.add_get("/", _page_of(emulators, urls))
    for slug, emulator in emulators.items():
        emulator.latency_seconds = latency_ms / 1000
        control = _Control(emulator)
        shared.router.add_route("*", f"/_control/{slug}/{{what}}", control.respond)
        if slug not in (ports or {}):
            respond = _respond_with(emulator)
            shared.router.add_route("*", f"/{slug}", respond)
            shared.router.add_route("*", f"/{slug}/{{rest:.*}}", respond)
    runners: list[web.AppRunner] = []
    try:
        for slug, own_port in (ports or {}).items():
            own = web.Application(client_max_size=_MAX_BODY)
            own.router.add_route("*", "/{rest:.*}", _respond_with(emulators[slug]))
            urls[slug] = await _listen(own, host, own_port, runners)
        url = await _listen(shared, host, port, runners)
    except OSError:
        for runner in runners:
            await runner.cleanup()
        raise
    for slug, emulator in emulators.items():
        emulator.base_url = urls.setdefault(slug, f"{url}/{slug}")
    return Served(url, urls, runners)


async def _listen(app: web.Application, host: str, port: int, runners: list[web.AppRunner]) -> str:
    from aiohttp import web

    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
    runners.append(runner)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    bound = runner.addresses[0]
    return f"http://{host}:{bound[1]}"


def _respond_with(emulator: Emulator) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    from aiohttp import web

    async def respond(request: web.Request) -> web.StreamResponse:
        seen = HttpRequest(
            method=request.method,
            url=str(request.url.origin()) + request.raw_path,
            headers=dict(request.headers),
            body=await request.read(),
        )
        try:
            answer = await emulator.handle(seen)
        except TransportFailure as failure:
            return await _hang_up(request, failure)
        response = web.Response(status=answer.status, body=answer.body or None)
        for name, text in answer.headers.items():
            response.headers[name] = text
        return response

    return respond


async def _hang_up(request: web.Request, failure: TransportFailure) -> web.StreamResponse:
    """Ends the connection as the fault says. A refused connection shows as a cut one: it was accepted."""
    from aiohttp import web

    if failure.fault is TransportFault.TIMEOUT:
        await asyncio.sleep(_HANG_SECONDS)
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _page_of(
    emulators: Mapping[str, Emulator], urls: Mapping[str, str]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    from aiohttp import web

    async def respond(request: web.Request) -> web.StreamResponse:
        headers = {
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
            "Cache-Control": "no-store",
        }
        return web.Response(text=overview_page(emulators, urls), content_type="text/html", headers=headers)

    return respond


class _Control:
    """The control routes of one emulator."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator

    async def respond(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        name = f"{request.method.lower()}_{request.match_info['what']}"
        act = getattr(self, f"_{name}", None)
        if act is None:
            return web.json_response({"error": f"no {request.method} {request.path}"}, status=404)
        try:
            tree = msgspec.json.decode(await request.read() or b"{}")
            if not isinstance(tree, dict):
                raise ValueError("the body must be a JSON object")
            answer = act(tree, request.query)
        except (ValueError, TypeError, KeyError) as error:
            return web.json_response({"error": str(error)}, status=400)
        body = msgspec.json.encode(answer, enc_hook=str)
        return web.Response(body=body, content_type="application/json")

    def _get_faults(self, tree: dict[str, Any], query: Mapping[str, str]) -> Any:
        return self.emulator.faults.waiting

    def _post_faults(self, tree: dict[str, Any], query: Mapping[str, str]) -> Any:
        if "kind" not in tree:
            raise ValueError("kind is missing: name the fault, such as cut_after or status")
        return self.emulator.faults.add(**tree)

    def _delete_faults(self, tree: dict[str, Any], query: Mapping[str, str]) -> Any:
        self.emulator.faults.clear()
        return {"waiting": 0}

    def _get_requests(self, tree: dict[str, Any], query: Mapping[str, str]) -> Any:
        limit = max(1, int(query.get("limit", "100")))
        return [
            {
                "method": seen.method,
                "url": seen.full_url(),
                "headers": seen.headers,
                "body": (seen.body or b"").decode(errors="replace"),
            }
            for seen in self.emulator.requests[-limit:]
        ]

    def _get_records(self, tree: dict[str, Any], query: Mapping[str, str]) -> Any:
        return {
            name: [
                {
                    "id": row.id,
                    "is_archived": row.is_archived,
                    "created_at": row.created_at,
                    "updated_at": row.updated_at,
                    "fields": row.fields,
                }
                for row in table
            ]
            for name, table in self.emulator.store.tables.items()
        }

    def _post_clock(self, tree: dict[str, Any], query: Mapping[str, str]) -> Any:
        self.emulator.clock.advance(float(tree["advance_seconds"]))
        return {"now": self.emulator.clock.now()}

    def _post_latency(self, tree: dict[str, Any], query: Mapping[str, str]) -> Any:
        self.emulator.latency_seconds = max(0.0, float(tree["ms"]) / 1000)
        return {"ms": self.emulator.latency_seconds * 1000}

    def _post_reset(self, tree: dict[str, Any], query: Mapping[str, str]) -> Any:
        self.emulator.reset()
        return {"written": self.emulator.written}
