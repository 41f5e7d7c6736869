"""Watch: reads what the metrics and the readiness of this process need. Owns no table."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import structlog

from crmbridge import metrics
from crmbridge._version import __version__
from crmbridge.core.errors import AuthError, Fix
from crmbridge.core.secret import Secret
from crmbridge.metrics import Reading
from crmbridge.services.watch.readiness import Standing, checks_of, examine, stopping

if TYPE_CHECKING:
    from crmbridge.db.jobs import Jobs
    from crmbridge.db.pool import Database
    from crmbridge.services.connections.service import Connections
    from crmbridge.services.delivery.service import Delivery
    from crmbridge.services.incidents.service import Incidents
    from crmbridge.services.vault.service import Vault

__all__ = ["Watch"]

_log = structlog.get_logger("crmbridge.watch")

# Several scrapers, or an impatient one, cost the tables one reading. Seconds.
FRESH_SECONDS = 2.0
READ_SECONDS = 3.0
# A proxy on this machine would make every visitor look local.
_PROXIED = frozenset({"forwarded", "x-forwarded-for", "x-real-ip"})


class Watch:
    """``data_dir`` is the folder of an embedded PostgreSQL, else None; ``token`` opens the metrics to others.

    ``is_stopping`` is set by whoever stops this process: it is not ready from then on.
    """

    def __init__(
        self,
        *,
        db: Database,
        vault: Vault,
        jobs: Jobs,
        connections: Connections,
        delivery: Delivery,
        incidents: Incidents,
        data_dir: Path | None = None,
        token: Secret | None = None,
    ) -> None:
        self._db = db
        self._vault = vault
        self._jobs = jobs
        self._connections = connections
        self._delivery = delivery
        self._incidents = incidents
        self._data_dir = data_dir
        self._token = token or Secret("")
        self.is_stopping = False
        self._read: tuple[float, list[Reading]] = (0.0, [])
        self._lock = asyncio.Lock()

    async def standing(self) -> Standing:
        """Whether this process can do its work, and every reason why not."""
        checks = checks_of(self._db, self._vault, self._jobs, self._data_dir)
        if self.is_stopping:
            checks["stopping"] = stopping
        return await examine(checks)

    def require_reader(self, peer: str, headers: dict[str, str]) -> None:
        """Who may read the metrics: the holder of the token, or without a token only this machine.

        ``headers`` have lower-case names. Raises AuthError (401 or 403).
        """
        if self._token:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() == "bearer" and Secret(given.strip()) == self._token:
                return
            raise _refused("The metrics need their token.", 401)
        if not _is_local(peer) or not _PROXIED.isdisjoint(headers):
            raise _refused("Without CRMBRIDGE_METRICS_TOKEN the metrics are for this machine only.", 403)

    async def exposition(self) -> bytes:
        """All metrics of this process in Prometheus' text format (``metrics.CONTENT_TYPE``)."""
        return metrics.render([*await self._own(), *await self._tables()])

    async def _own(self) -> list[Reading]:
        readings = [Reading("crmbridge_build", 1, (__version__,))]
        late = self._jobs.late_seconds()
        if late is not None:
            readings.append(Reading("crmbridge_worker_late_seconds", late))
        for (driver, budget), share in (await self._connections.budgets.shares()).items():
            readings.append(Reading("crmbridge_budget_remaining_ratio", share, (driver, budget)))
        return readings

    async def _tables(self) -> list[Reading]:
        async with self._lock:
            until, readings = self._read
            if until <= monotonic():
                try:
                    async with asyncio.timeout(READ_SECONDS):
                        readings = await self._counted()
                except Exception as error:
                    _log.warning("metrics.tables_not_read", kind=type(error).__name__)
                    readings = [Reading("crmbridge_database_up", 0)]
                self._read = (monotonic() + FRESH_SECONDS, readings)
            return readings

    async def _counted(self) -> list[Reading]:
        lanes = await self._delivery.count_lanes()
        readings = [
            Reading("crmbridge_database_up", 1),
            Reading("crmbridge_lanes_due", lanes.due),
            Reading("crmbridge_lanes_held_back", lanes.held_back),
            Reading("crmbridge_lanes_paused", lanes.paused),
            Reading("crmbridge_lanes_leased", lanes.leased),
            Reading("crmbridge_lane_oldest_waiting_seconds", lanes.oldest_seconds),
        ]
        for kind, backlog in sorted((await self._jobs.backlog()).items()):
            readings.append(Reading("crmbridge_jobs", backlog.queued, (kind, "queued")))
            readings.append(Reading("crmbridge_jobs", backlog.running, (kind, "running")))
            readings.append(Reading("crmbridge_jobs_oldest_seconds", backlog.oldest_seconds, (kind,)))
        for (kind, state), count in sorted((await self._incidents.count_open()).items()):
            readings.append(Reading("crmbridge_incidents_open", count, (kind, state)))
        return readings


def _is_local(peer: str) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _refused(message: str, status: int) -> AuthError:
    refusal = AuthError(
        message,
        subcode="invalid_credentials",
        fix=Fix("send_token", "Send `Authorization: Bearer` and the value of CRMBRIDGE_METRICS_TOKEN."),
    )
    refusal.http_status = status
    return refusal
