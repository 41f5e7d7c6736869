"""The worker's port: liveness, readiness and metrics of a process that has no API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import msgspec
import uvicorn

from crmbridge._version import __version__
from crmbridge.core.errors import CrmError, Fix, NotConfigured
from crmbridge.metrics import CONTENT_TYPE
from crmbridge.services.watch import Watch

__all__ = ["answering", "build_port"]

_JSON = "application/json"


class _Server(uvicorn.Server):
    """The signals are the worker's."""

    def capture_signals(self) -> Any:
        return nullcontext()


def build_port(watch: Watch) -> Any:
    """The ASGI application: GET of three addresses, 404 for everything else."""

    async def port(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        status, media_type, body = await _answer(watch, scope)
        headers = [(b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return port


async def _answer(watch: Watch, scope: Any) -> tuple[int, str, bytes]:
    path = scope["path"] if scope["method"] in ("GET", "HEAD") else ""
    if path == "/healthz":
        return 200, _JSON, msgspec.json.encode({"status": "ok", "version": __version__})
    if path == "/readyz":
        standing = await watch.standing()
        return 200 if standing.is_ready else 503, _JSON, msgspec.json.encode(standing)
    if path == "/metrics":
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            watch.require_reader(scope["client"][0] if scope.get("client") else "", headers)
        except CrmError as error:
            return error.http_status, "application/problem+json", msgspec.json.encode(error.to_dict())
        return 200, CONTENT_TYPE, await watch.exposition()
    return 404, _JSON, b'{"detail":"There is no such address."}'


@asynccontextmanager
async def answering(watch: Watch, host: str, port: int) -> AsyncIterator[None]:
    """Answer while the block runs. Raises NotConfigured when the port is taken."""
    config = uvicorn.Config(
        build_port(watch),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        timeout_graceful_shutdown=2,
    )
    server = _Server(config)
    running = asyncio.create_task(_run(server))
    try:
        while not server.started and not running.done():  # noqa: ASYNC110 - uvicorn offers a flag, no event
            await asyncio.sleep(0.01)
        if running.done():
            raise NotConfigured(
                f"The worker could not listen on {host}:{port}; something else may hold the port.",
                fix=Fix("choose_port", "Stop the other process, or set CRMBRIDGE_WORKER_PORT."),
            )
        yield
    finally:
        server.should_exit = True
        await asyncio.gather(running, return_exceptions=True)


async def _run(server: uvicorn.Server) -> None:
    try:
        await server.serve()
    except SystemExit:
        return  # uvicorn's way to say that the port is taken
