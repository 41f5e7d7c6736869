"""Renewals ahead of expiry: new tokens come before a call has to wait for one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

import structlog

from crmbridge.core.driver import CrmDriver
from crmbridge.core.errors import CrmError
from crmbridge.db.jobs import Jobs
from crmbridge.db.pool import Database
from crmbridge.services.connections import store
from crmbridge.services.connections.access import require_gate
from crmbridge.services.connections.lending import Lending
from crmbridge.services.connections.model import CredentialStatus
from crmbridge.services.tenants.service import Tenants

__all__ = ["Ahead"]

TICK_SECONDS = 20.0
# A renewal that failed is not tried again at once: its call will, should one come.
RETRY_SECONDS = 300.0
_MOST_AT_A_TICK = 200
# So that what two hundred of them read does not stand before live calls in the line for a database connection. More
# would not be quicker: lending renews four tokens at a time.
_MOST_AT_ONCE = 8
_log = structlog.get_logger("crmbridge.connections")


class Ahead:
    """Renews tokens of grants that live on without a person. A token of client credentials is fetched when needed."""

    def __init__(
        self,
        *,
        db: Database,
        tenants: Tenants,
        lending: Lending,
        load_driver: Callable[[str], type[CrmDriver]],
    ) -> None:
        self._db = db
        self._tenants = tenants
        self._lending = lending
        self._load = load_driver

    def register(self, jobs: Jobs) -> None:
        """Let the workers do it, one of them at a time."""
        jobs.every(TICK_SECONDS, "connections.renew_ahead", self._tick)

    async def run(self) -> int:
        """Renew what is due; answers how many were renewed. A refused grant becomes its one incident on the way."""
        async with self._db.system() as conn:
            due = await store.due_tokens(conn, _MOST_AT_A_TICK)
        places = asyncio.Semaphore(_MOST_AT_ONCE)

        async def renewed(tenant_id: UUID, credential_id: UUID) -> bool:
            async with places:
                return await self._renew(tenant_id, credential_id)

        return sum(await asyncio.gather(*(renewed(*one) for one in due)))

    async def _tick(self) -> None:
        await self.run()

    async def _renew(self, tenant_id: UUID, credential_id: UUID) -> bool:
        try:
            tenant = await self._tenants.get(tenant_id)
            async with self._db.tenant(tenant_id) as conn:
                held = await store.look_at_credential(conn, credential_id)
            if held is None or held.credential.status is not CredentialStatus.ACTIVE:
                return False
            driver = self._load(held.credential.driver)
            require_gate(await self._tenants.gate(tenant_id), driver.manifest_for(held.credential.settings))
            await self._lending.renew(tenant, driver, held)
            return True
        except CrmError as error:
            _log.info("token.not_renewed_ahead", credential_id=str(credential_id), code=error.full_code)
        async with self._db.tenant(tenant_id) as conn:
            await store.postpone_tokens(conn, credential_id, RETRY_SECONDS)
        return False
