"""Set back: the database's clock was, and what was to come soon is far away. No wait is left longer than it may be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

import structlog

from crmbridge.db.pool import Database
from crmbridge.db.statements import read_sql
from crmbridge.services.delivery.model import Limits

__all__ = ["mend_times"]

_log = structlog.get_logger("crmbridge.delivery")
_sql = partial(read_sql, __package__)
_LANES = _sql("set_back_lanes.sql")
_TARGETS = _sql("set_back_targets.sql")


async def mend_times(db: Database, limits: Limits, also: Callable[[UUID], Awaitable[None]]) -> None:
    """Bring leases, back-offs and due times near again, tenant by tenant; ``also`` is called for each of them.

    A provider's ``Retry-After`` beyond the longest back-off is cut to that. Processes may do it at once, and again.
    Raises what asyncpg raises when a lane stays locked for a second: then nothing was mended, or not all.
    """
    cap = limits.retry_cap_seconds
    async with db.system() as conn:
        # Behind a lane that a vanished machine has locked all would wait; who calls this tries again.
        await conn.execute("set local lock_timeout = '1s'")
        tenants = [row["tenant_id"] for row in await conn.fetch(_LANES, limits.lease_seconds, cap)]
    targets = 0
    for tenant_id in dict.fromkeys(tenants):
        async with db.tenant(tenant_id) as conn:
            targets += len(await conn.fetch(_TARGETS, cap))
        await also(tenant_id)
    _log.warning("delivery.times_mended", tenants=len(set(tenants)), targets=targets)
