"""Trial: one call with a credential that may not be in use yet: its live test, and what it prepares at the provider."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Generic, TypeVar

from crmbridge.core.driver import CrmDriver
from crmbridge.core.errors import CrmError
from crmbridge.services.connections.access import Metered, Renewal, access_for, require_gate
from crmbridge.services.connections.budgets import Budgets
from crmbridge.services.connections.counting import Counted
from crmbridge.services.connections.lending import Lending
from crmbridge.services.connections.model import Held
from crmbridge.services.tenants.model import Tenant
from crmbridge.services.tenants.service import Tenants
from crmbridge.toolkit.egress import Egress

__all__ = ["Trial", "Tried"]

T = TypeVar("T")


class Tried(Generic[T]):
    """What came of it: ``answer`` or ``failure``, the facts as they stand after it, calls and milliseconds."""

    def __init__(self, facts: dict[str, str]) -> None:
        self.answer: T | None = None
        self.failure: CrmError | None = None
        self.facts = facts
        self.http_calls = 0
        self.milliseconds = 0.0


class Trial:
    """Lends a credential in any state, so that it can prove itself."""

    def __init__(
        self,
        *,
        tenants: Tenants,
        lending: Lending,
        egress: Egress,
        budgets: Budgets,
        load_driver: Callable[[str], type[CrmDriver]],
    ) -> None:
        self._tenants = tenants
        self._lending = lending
        self._egress = egress
        self._budgets = budgets
        self._load = load_driver

    async def run(
        self, tenant: Tenant, held: Held, operation: str, call: Callable[[CrmDriver], Awaitable[T]]
    ) -> Tried[T]:
        """One call. A CrmError is the failure, a shut gate included; nothing is raised for it."""
        credential = held.credential
        driver = self._load(credential.driver)
        manifest = driver.manifest_for(credential.settings)
        purse = self._budgets.purse(tenant.id, credential.connection_id, driver, manifest)
        metered = Metered(self._egress, purse)
        started = monotonic()
        tried: Tried[T] = Tried(credential.facts)
        try:
            require_gate(await self._tenants.gate(tenant.id), manifest)
            lent = await self._lending.lend(tenant, driver, held, is_test=True)
            access = access_for(tenant, lent, metered)
            Renewal(self._lending, tenant, driver, lent, access, is_test=True)
            try:
                with Counted(credential.driver, operation, "", 1, metered) as counted:
                    tried.answer = counted.answer = await call(driver(access))
            finally:
                tried.facts = access.facts
        except CrmError as error:
            error.provider = error.provider or credential.driver
            error.operation = error.operation or operation
            tried.failure = error
        tried.http_calls, tried.milliseconds = metered.calls, (monotonic() - started) * 1000
        return tried
