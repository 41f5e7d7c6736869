"""What a driver is handed for one call, and what is measured on the way."""

from __future__ import annotations

from typing import Any

from crmbridge.core.driver import Access, CrmDriver, Proof
from crmbridge.core.errors import AuthError, GateClosed
from crmbridge.core.manifest import AuthKind, Manifest
from crmbridge.core.records import WriteResult
from crmbridge.core.wire import HttpRequest, HttpResponse, Transport
from crmbridge.services.connections.budgets.purse import Purse
from crmbridge.services.connections.lending import Lending, Lent, is_renewable
from crmbridge.services.connections.model import Credential
from crmbridge.services.tenants.model import Gate, Tenant

__all__ = ["OFFLINE", "Metered", "Renewal", "access_for", "mark_prefix", "missing_rights", "require_gate"]

# Named among the missing rights when a consent brought no refresh token.
OFFLINE = "offline access (no refresh token came)"


class Metered:
    """A transport that counts: calls made, last status, and the provider's request id.

    Each call takes its tokens of the connection's rate budgets first: one operation may be several calls.
    """

    def __init__(self, transport: Transport, purse: Purse) -> None:
        self._transport = transport
        self._purse = purse
        self.calls = 0
        self.status = 0
        self.provider_request_id = ""

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Pass on and count. Raises RateLimited when the budget is used up; then nothing was sent."""
        ticket = await self._purse.take(request.budget)
        self.calls += 1
        response: HttpResponse | None = None
        try:
            response = await self._transport.send(request)
        finally:
            self._purse.settle(ticket, request, response)
        self.status = response.status
        self.provider_request_id = response.header("x-request-id")[:100]
        return response


def mark_prefix(tenant: Tenant) -> str:
    """What the tenant's external ids begin with."""
    return f"crmbridge_{tenant.id.hex[:12]}"


def access_for(tenant: Tenant, lent: Lent, transport: Transport) -> Access:
    """The access of one call."""
    credential = lent.held.credential
    return Access(
        settings=credential.settings,
        secrets=lent.secrets,
        transport=transport,
        facts=dict(credential.facts),
        mark_prefix=mark_prefix(tenant),
    )


class Renewal:
    """``Access.renew`` of one call: at most one new token a call, put into the access before the call goes again."""

    def __init__(
        self,
        lending: Lending,
        tenant: Tenant,
        driver: type[CrmDriver],
        lent: Lent,
        access: Access,
        *,
        is_test: bool = False,
    ) -> None:
        self._lending = lending
        self._tenant = tenant
        self._driver = driver
        self._access = access
        self._is_test = is_test
        self._is_spent = False
        self.lent = lent
        if is_renewable(driver, lent.held.credential.settings):
            access.renew = self

    async def __call__(self) -> bool:
        """True: the access holds a token to try again with. Raises CrmError when none is to be had."""
        if not self._is_spent and self._lending.may_help(self.lent.held):
            self.lent = await self._lending.renew(
                self._tenant, self._driver, self.lent.held, is_test=self._is_test
            )
            self._access.secrets = self.lent.secrets
            self._access.facts = {**self._access.facts, **self.lent.held.credential.facts}
        self._is_spent = True
        return True

    def settle(self, answer: object) -> None:
        """After the call: a new token that was refused too will not be asked for again at once."""
        errors = [part.error if isinstance(part, WriteResult) else part for part in _parts(answer)]
        if self._is_spent and any(
            isinstance(error, AuthError) and error.subcode == "insufficient_scope" for error in errors
        ):
            self._lending.did_not_help(self.lent.held)


def _parts(answer: object) -> list[Any]:
    return answer if isinstance(answer, list) else [answer]


def require_gate(gate: Gate, manifest: Manifest) -> None:
    """Raise GateClosed where the manifest names a gate and the tenant's papers do not open it."""
    if not manifest.gate or gate.is_open:
        return
    why = "it was closed by an operator" if gate.is_closed else f"not recorded: {', '.join(gate.missing)}"
    raise GateClosed(
        f"{manifest.display_name} carries health data, and the gate of this tenant is shut: {why}.",
        provider=manifest.slug,
    )


def missing_rights(driver: type[CrmDriver], credential: Credential, proof: Proof) -> list[str]:
    """Scopes that the manifest asks for and the grant lacks, and what the live test found missing."""
    names = [right for right in credential.missing_rights if right == OFFLINE]
    scopes = proof.scopes or credential.scopes
    if scopes and driver.manifest_for(credential.settings).auth.kind is AuthKind.OAUTH_CODE:
        names += driver.missing_scopes(frozenset(scopes))
    return list(dict.fromkeys([*names, *proof.missing_rights]))
