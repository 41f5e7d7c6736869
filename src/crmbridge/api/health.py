"""Liveness, readiness and metrics, without an API key."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, get

from crmbridge._version import __version__
from crmbridge.api.parameters import House
from crmbridge.metrics import CONTENT_TYPE

__all__ = ["healthz", "metrics", "readyz"]


@get("/healthz", tags=["health"], summary="The process answers", exclude_from_auth=True, sync_to_thread=False)
def healthz() -> dict[str, str]:
    """Alive; says nothing of the database."""
    return {"status": "ok", "version": __version__}


@get("/readyz", tags=["health"], summary="The process can do its work", exclude_from_auth=True)
async def readyz(services: House) -> Response[dict[str, Any]]:
    """Tries the database, its migrations, the job engine's tables, the master key, the clocks, this process's worker
    and the room for an embedded database; a process that was told to stop is not ready. 503 gives every reason and
    its fix."""
    standing = await services.watch.standing()
    body: dict[str, Any] = msgspec.to_builtins(standing)
    return Response(body, status_code=200 if standing.is_ready else 503)


@get("/metrics", tags=["health"], summary="Metrics of this process, for Prometheus", exclude_from_auth=True)
async def metrics(request: Request[Any, Any, Any], services: House) -> Response[bytes]:
    """For this machine only, unless CRMBRIDGE_METRICS_TOKEN is set: then for whoever sends it as bearer token."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    services.watch.require_reader(request.client.host if request.client else "", headers)
    return Response(await services.watch.exposition(), media_type=CONTENT_TYPE)
