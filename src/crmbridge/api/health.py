"""Liveness and readiness, without a key."""

from __future__ import annotations

from typing import Any

from litestar import Response, get

from crmbridge._version import __version__
from crmbridge.api.parameters import House

__all__ = ["healthz", "readyz"]


@get("/healthz", tags=["health"], summary="The process answers", exclude_from_auth=True, sync_to_thread=False)
def healthz() -> dict[str, str]:
    """Alive; says nothing of the database."""
    return {"status": "ok", "version": __version__}


@get("/readyz", tags=["health"], summary="The process can accept writes", exclude_from_auth=True)
async def readyz(services: House) -> Response[dict[str, Any]]:
    """Asks the database through both roles; 503 names the part that does not answer."""
    checks: dict[str, str] = {}
    for name, pool in (("app", services.db.app), ("scheduler", services.db.scheduler)):
        try:
            await pool.fetchval("select 1", timeout=2)
            checks[f"database_{name}"] = "ok"
        except Exception as error:
            checks[f"database_{name}"] = type(error).__name__
    try:
        await services.vault.installation()
        checks["master_key"] = "ok"
    except Exception as error:
        checks["master_key"] = type(error).__name__
    ready = all(value == "ok" for value in checks.values())
    body = {"status": "ready" if ready else "not_ready", "checks": checks}
    return Response(body, status_code=200 if ready else 503)
