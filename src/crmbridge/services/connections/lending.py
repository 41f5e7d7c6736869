"""Lending: a credential's secrets for one call, with an access token that lives; one renewal over all processes."""

from __future__ import annotations

import asyncio
import copy
from collections import OrderedDict
from contextlib import AsyncExitStack
from time import monotonic
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from crmbridge import metrics, tracing
from crmbridge.core.driver import CrmDriver
from crmbridge.core.errors import AuthError, CrmError, Fix, NotFound, RateLimited, Unavailable
from crmbridge.core.manifest import AuthKind
from crmbridge.core.secret import Secret
from crmbridge.core.tokens import TokenFault
from crmbridge.db.pool import Database
from crmbridge.services.audit.model import AuditEntry
from crmbridge.services.audit.service import AuditLog
from crmbridge.services.connections import store
from crmbridge.services.connections.model import Credential, CredentialStatus, Held
from crmbridge.services.incidents.service import Incidents
from crmbridge.services.oauth.model import TokenRefused, TokenSet
from crmbridge.services.oauth.service import ACCESS_TOKEN, REFRESH_TOKEN, OAuth
from crmbridge.services.tenants.model import Tenant
from crmbridge.services.vault.service import Vault

__all__ = ["Lending", "Lent", "dead", "is_renewable"]

# How long a token that was new and still refused is not renewed again: the right is missing, not the token. Seconds.
UNHELPED_SECONDS = 60.0
_MOST_REMEMBERED = 10_000
# How long a renewal that found the token endpoint ill answers for those who come after it. Seconds.
ILL_SECONDS = 1.0
# Each renewal holds a database connection while the provider answers.
_MOST_AT_ONCE = 4
_MOST_PER_DRIVER = 2
_DEFAULT_PAUSE = 60.0


def is_renewable(driver: type[CrmDriver], settings: dict[str, str]) -> bool:
    """Whether this credential lives on access tokens that we can ask for.

    A driver whose sign-in is optional declares ``sign_in`` only for settings that hold a login.
    """
    kind = driver.manifest_for(settings).auth.kind
    if kind is AuthKind.SIGN_IN:
        return driver.sign_in is not CrmDriver.sign_in
    return kind in (AuthKind.OAUTH_CODE, AuthKind.CLIENT_CREDENTIALS)


class Lent(msgspec.Struct):
    """Opened secrets and the row that they came from. For one call, never kept."""

    held: Held
    secrets: dict[str, Secret]


class Lending:
    """Opens credentials for calls and renews their tokens.

    A renewal locks the credential's row, asks the provider, saves the new tokens under a new row version and commits
    before anyone uses them. Whoever comes meanwhile, here or in another process, waits and finds the new version.
    """

    def __init__(
        self, *, db: Database, audit: AuditLog, incidents: Incidents, vault: Vault, oauth: OAuth
    ) -> None:
        self._db = db
        self._audit = audit
        self._incidents = incidents
        self._vault = vault
        self._oauth = oauth
        self._flights: dict[UUID, asyncio.Task[Held]] = {}
        self._ill: OrderedDict[UUID, tuple[float, Unavailable]] = OrderedDict()
        self._unhelped: OrderedDict[tuple[UUID, int], float] = OrderedDict()
        self._all = asyncio.Semaphore(max(1, min(_MOST_AT_ONCE, db.app.get_max_size() // 3)))
        self._by_driver: dict[str, asyncio.Semaphore] = {}

    async def close(self) -> None:
        """Wait for renewals under way, so that no token that a provider has given is lost."""
        while self._flights:
            await asyncio.gather(*self._flights.values(), return_exceptions=True)

    async def open(self, tenant: Tenant, held: Held) -> dict[str, Secret]:
        """The secrets as they are, whatever has become of the token."""
        credential = held.credential
        return await self._vault.open_credential(
            held.sealed,
            tenant_id=tenant.id,
            driver=credential.driver,
            credential_id=credential.id,
            row_version=credential.row_version,
        )

    async def lend(
        self, tenant: Tenant, driver: type[CrmDriver], held: Held, *, is_test: bool = False
    ) -> Lent:
        """The secrets for one call; a token that is missing or past its time is renewed first. Raises CrmError."""
        secrets = await self.open(tenant, held)
        if not is_renewable(driver, held.credential.settings):
            return Lent(held, secrets)
        if secrets.get(ACCESS_TOKEN) and (held.expires is None or held.expires > monotonic()):
            return Lent(held, secrets)
        return await self.renew(tenant, driver, held, is_test=is_test)

    async def renew(
        self, tenant: Tenant, driver: type[CrmDriver], held: Held, *, is_test: bool = False
    ) -> Lent:
        """A newer token than the one in ``held``, ours or another's. Raises CrmError.

        A caller that is cancelled does not stop the renewal.
        """
        key, renewed = held.credential.id, held
        until, failure = self._ill.get(key, (0.0, None))
        if failure is not None and until > monotonic() and not is_test:
            raise copy.copy(failure)
        for _ in range(2):
            flight = self._flights.get(key)
            if flight is None:
                flight = asyncio.create_task(self._renew(tenant, driver, held, is_test=is_test))
                self._flights[key] = flight
                flight.add_done_callback(lambda task: self._landed(key, task))
            try:
                renewed = await asyncio.shield(flight)
            except CrmError as error:
                if isinstance(error, Unavailable):
                    self._note_ill(key, error)
                # Each caller adds its own request id.
                raise copy.copy(error) from None
            # A flight that began before ours may have brought just the token that was refused since.
            if renewed.credential.row_version > held.credential.row_version:
                break
        return Lent(renewed, await self.open(tenant, renewed))

    def _note_ill(self, key: UUID, error: Unavailable) -> None:
        """Who comes right after gets the same answer without a call."""
        self._ill[key] = (monotonic() + ILL_SECONDS, error)
        self._ill.move_to_end(key)
        while len(self._ill) > _MOST_REMEMBERED:
            self._ill.popitem(last=False)

    def did_not_help(self, held: Held) -> None:
        """Remember that this version's token was new and refused all the same."""
        self._unhelped[(held.credential.id, held.credential.row_version)] = monotonic() + UNHELPED_SECONDS
        while len(self._unhelped) > _MOST_REMEMBERED:
            self._unhelped.popitem(last=False)

    def may_help(self, held: Held) -> bool:
        """False for a minute after :meth:`did_not_help`: a denied right must not cost a token call each time."""
        until = self._unhelped.get((held.credential.id, held.credential.row_version), 0.0)
        return until <= monotonic()

    def _landed(self, key: UUID, task: asyncio.Task[Held]) -> None:
        if self._flights.get(key) is task:
            del self._flights[key]
        if not task.cancelled():
            task.exception()

    async def _renew(self, tenant: Tenant, driver: type[CrmDriver], held: Held, *, is_test: bool) -> Held:
        slug = held.credential.driver
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(
                self._by_driver.setdefault(slug, asyncio.Semaphore(_MOST_PER_DRIVER))
            )
            await stack.enter_async_context(self._all)
            # Unwrapped before the row is locked: a connection must not wait for another one.
            await self._vault.keys(tenant.id)
            try:
                async with self._db.tenant(tenant.id) as conn:
                    outcome = await self._renew_locked(conn, tenant, driver, held, is_test)
            except asyncpg.LockNotAvailableError:
                raise Unavailable(
                    f"Another process is renewing the token of {slug} and has not finished.", retry_safe=True
                ) from None
        if isinstance(outcome, CrmError):
            raise outcome
        return outcome

    async def _renew_locked(
        self, conn: Any, tenant: Tenant, driver: type[CrmDriver], held: Held, is_test: bool
    ) -> Held | CrmError:
        """An error is answered, not raised, where the transaction must still commit what it recorded."""
        found = await store.lock_tokens(conn, held.credential.id)
        if found is None:
            raise NotFound("There is no such credential.")
        current, pause = found
        credential = current.credential
        if credential.row_version != held.credential.row_version:
            return current
        if credential.status is CredentialStatus.NEEDS_REAUTHORIZATION and not is_test:
            raise dead(driver, tenant)
        if pause:
            raise RateLimited(
                f"{driver.MANIFEST.display_name} asked for fewer token calls; the next may go in {pause:.0f} s.",
                provider=credential.driver,
                operation="token",
                retry_after_seconds=pause,
            )
        secrets = await self.open(tenant, current)
        try:
            with tracing.span("token renewal", driver=credential.driver):
                tokens = await self._oauth.renew(driver, credential.settings, secrets, credential.facts)
            metrics.note_renewal(credential.driver, "renewed")
        except TokenRefused as refused:
            metrics.note_renewal(credential.driver, refused.fault.value)
            await self._note_refused(conn, tenant, driver, credential, refused)
            return refused.error
        return await self._save(conn, tenant, current, secrets, tokens)

    async def _save(
        self, conn: Any, tenant: Tenant, current: Held, secrets: dict[str, Secret], tokens: TokenSet
    ) -> Held:
        credential = current.credential
        kept = {**secrets, ACCESS_TOKEN: tokens.access_token}
        if tokens.refresh_token:
            kept[REFRESH_TOKEN] = tokens.refresh_token
        version = credential.row_version + 1
        sealed = await self._vault.seal_credential(
            kept,
            tenant_id=tenant.id,
            driver=credential.driver,
            credential_id=credential.id,
            row_version=version,
        )
        saved = await store.save_tokens(
            conn,
            credential.id,
            credential.row_version,
            sealed,
            {**credential.facts, **tokens.facts},
            tokens.expires_in,
            tokens.scopes,
            is_renewed_ahead=REFRESH_TOKEN in kept,
        )
        if not saved:
            raise Unavailable("The credential changed while its token was renewed.", retry_safe=True)
        details = {"driver": credential.driver, "row_version": version, "expires_in": tokens.expires_in}
        await self._tell(conn, tenant, credential, "credential.refreshed", details)
        found = await store.read_credential(conn, credential.id)
        assert found is not None
        return found

    async def _note_refused(
        self,
        conn: Any,
        tenant: Tenant,
        driver: type[CrmDriver],
        credential: Credential,
        refused: TokenRefused,
    ) -> None:
        if refused.fault is TokenFault.THROTTLED:
            seconds = refused.error.retry_after_seconds or _DEFAULT_PAUSE
            await store.pause_tokens(conn, credential.id, seconds)
        details = {"driver": credential.driver, "fault": refused.fault.value, "code": refused.error.full_code}
        await self._tell(conn, tenant, credential, "credential.refresh_failed", details)
        if refused.fault is TokenFault.REVOKED:
            await self.mark_dead(conn, tenant, driver, credential, refused.error)

    async def mark_dead(
        self, conn: Any, tenant: Tenant, driver: type[CrmDriver], credential: Credential, error: CrmError
    ) -> bool:
        """``active`` becomes ``needs_reauthorization`` with one incident, unless a newer version stands there."""
        if not await store.mark_refused(conn, credential.id, credential.row_version):
            return False
        await self._incidents.open(
            conn,
            tenant.id,
            "reauthorization_needed",
            str(credential.connection_id),
            title=f"{driver.MANIFEST.display_name} refuses the credential of {tenant.slug}",
            details={"code": error.full_code, "fix": error.fix.hint, "credential_id": str(credential.id)},
            connection_id=credential.connection_id,
        )
        await self._tell(conn, tenant, credential, "credential.refused", {"code": error.full_code})
        return True

    async def _tell(
        self, conn: Any, tenant: Tenant, credential: Credential, action: str, details: dict[str, Any]
    ) -> None:
        await self._audit.write(
            conn,
            AuditEntry(
                tenant_id=tenant.id,
                actor="system",
                action=action,
                connection_id=credential.connection_id,
                subject_id=str(credential.id),
                details=details,
            ),
        )


def dead(driver: type[CrmDriver], tenant: Tenant) -> AuthError:
    """The answer of a connection whose credential is refused: at once, without asking the provider again."""
    name = driver.MANIFEST.display_name
    return AuthError(
        f"{name} no longer accepts this connection's credential.",
        subcode="refresh_failed",
        provider=driver.MANIFEST.slug,
        fix=Fix("reconnect", f"Connect {name} again for tenant {tenant.slug}."),
    )
