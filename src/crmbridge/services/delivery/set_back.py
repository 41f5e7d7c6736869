"""Set back: the database's clock was, and what was to come soon is far away. It is brought near again.

By the size of the leap, but only what is farther than it may be: so processes may do it at once, and again.
"""

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


async def mend_times(
    db: Database, limits: Limits, seconds: float, also: Callable[[UUID, float, float], Awaitable[None]]
) -> None:
    """Bring leases, back-offs and due times near again, tenant by tenant; ``also`` is called for each of them, with
    the longest back-off and the seconds.

    A provider's ``Retry-After`` beyond the longest back-off may be cut short, as each process takes the leap off it.
    Raises what asyncpg raises when a lane stays locked for a second: then nothing was mended, or not all.
    """
    cap = limits.retry_cap_seconds
    async with db.system() as conn:
        # Behind a lane that a vanished machine has locked all would wait; who calls this tries again.
        await conn.execute("set local lock_timeout = '1s'")
        tenants = [row["tenant_id"] for row in await conn.fetch(_LANES, limits.lease_seconds, cap, seconds)]
    targets = 0
    for tenant_id in dict.fromkeys(tenants):
        async with db.tenant(tenant_id) as conn:
            targets += len(await conn.fetch(_TARGETS, cap, seconds))
        await also(tenant_id, cap, seconds)
    _log.warning("delivery.times_mended", tenants=len(set(tenants)), targets=targets)
