"""Connect, test, activate, revoke, and open connections."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

from crmbridge.core.driver import CrmDriver, Proof, refuse
from crmbridge.core.errors import (
    AuthError,
    Conflict,
    CrmError,
    FieldError,
    Fix,
    NotFound,
    ValidationError,
)
from crmbridge.core.manifest import AuthKind, Manifest
from crmbridge.core.operations import Operation
from crmbridge.core.secret import Secret
from crmbridge.db.pool import Database
from crmbridge.services.audit.model import AuditEntry
from crmbridge.services.audit.service import AuditLog
from crmbridge.services.connections import store
from crmbridge.services.connections.access import access_for, missing_rights, require_gate
from crmbridge.services.connections.ahead import Ahead
from crmbridge.services.connections.budgets import Budgets
from crmbridge.services.connections.connection import Connection
from crmbridge.services.connections.consent import Consent
from crmbridge.services.connections.forms import read_form
from crmbridge.services.connections.lending import Lending, Lent
from crmbridge.services.connections.links import ConnectLinks
from crmbridge.services.connections.model import (
    ConnectionRow,
    ConnectionSummary,
    Credential,
    CredentialStatus,
    Held,
    TestReport,
)
from crmbridge.services.connections.opening import FRESH_SECONDS, Opened, Openings
from crmbridge.services.connections.overlap import Overlap
from crmbridge.services.connections.routing import Routing
from crmbridge.services.connections.routing.table import RouteRow, effective
from crmbridge.services.connections.trial import Trial
from crmbridge.services.incidents.service import Incidents
from crmbridge.services.oauth.service import ACCESS_TOKEN, OAuth
from crmbridge.services.tenants.model import Tenant
from crmbridge.services.tenants.service import Tenants
from crmbridge.services.vault.service import Vault
from crmbridge.toolkit.egress import Egress, EgressPolicy

__all__ = ["Connections"]


class Connections:
    """One CRM of one tenant, from the connect form to the open connection."""

    def __init__(
        self,
        *,
        db: Database,
        audit: AuditLog,
        incidents: Incidents,
        tenants: Tenants,
        vault: Vault,
        oauth: OAuth,
        egress: Egress,
        policy: EgressPolicy,
        load_driver: Callable[[str], type[CrmDriver]],
    ) -> None:
        self.audit = audit
        self.egress = egress
        self._db = db
        self._incidents = incidents
        self._tenants = tenants
        self._vault = vault
        self._policy = policy
        self._load = load_driver
        self.lending = Lending(db=db, audit=audit, incidents=incidents, vault=vault, oauth=oauth)
        self.budgets = Budgets(db)
        self._trial = Trial(
            tenants=tenants,
            lending=self.lending,
            egress=egress,
            budgets=self.budgets,
            load_driver=load_driver,
        )
        self._overlap = Overlap(db=db, vault=vault, lending=self.lending, load_driver=load_driver)
        self.ahead = Ahead(db=db, tenants=tenants, lending=self.lending, load_driver=load_driver)
        self.links = ConnectLinks(self, db=db, audit=audit, load_driver=load_driver, base_url=oauth.base_url)
        self.consent = Consent(self, db=db, oauth=oauth, policy=policy, load_driver=load_driver)
        self.routing = Routing(self, db=db, audit=audit, fresh_seconds=FRESH_SECONDS)
        self._openings = Openings(
            db=db, tenants=tenants, vault=vault, load_driver=load_driver, learn_routes=self.routing.learn
        )

    async def close(self) -> None:
        """Wait for tokens that are being renewed, give back what was not used of budgets."""
        await self._openings.close()
        await self.lending.close()
        await self.budgets.close()

    async def mend_times(self, tenant_id: UUID, most_seconds: float, seconds: float) -> None:
        """After the database's clock was set back by so many seconds: bring near again what a tenant's budgets and
        tokens wait for, where that is longer than ``most_seconds``.
        """
        async with self._db.tenant(tenant_id) as conn:
            await self.budgets.mend_times(conn, most_seconds, seconds)
            await store.mend_pauses(conn, most_seconds, seconds)

    # -- connecting --------------------------------------------------------------------------------------------

    async def connect(
        self, tenant: Tenant, driver: str, form: Mapping[str, str], *, actor: str, name: str = "primary"
    ) -> Credential:
        """Seal a form as a ``pending`` credential. The one in use, if any, goes on until this one is activated.

        Raises ValidationError (each bad setting named), Conflict (the name belongs to another driver in use),
        Unsupported for a reserved driver.
        """
        driver_class = self._load(driver)
        base = driver_class.MANIFEST
        if base.why_unavailable:
            raise refuse(base, None, Operation.CREATE)
        answers = read_form(base, form, self._policy)
        is_consent = driver_class.manifest_for(answers.settings).auth.kind is AuthKind.OAUTH_CODE
        # A token that the provider gives out by hand (a service key) needs no consent.
        if is_consent and not answers.secrets.get(ACCESS_TOKEN):
            raise ValidationError(
                f"{base.display_name} is connected by consent, not by a form.",
                provider=driver,
                operation="connect",
                fields=(FieldError("driver", "starts with a link"),),
                fix=Fix(
                    "start_oauth",
                    f"`crmbridge connect {tenant.slug} {driver}`, or POST /api/tenants/{tenant.slug}/oauth/{driver}"
                    "/start and open the link.",
                ),
            )
        credential_id = uuid4()
        # Unwrapped before a connection is held: it must not wait for another one.
        await self._vault.keys(tenant.id)
        secrets = await self._overlap.begun(tenant, base, name, answers.secrets)
        async with self._db.tenant(tenant.id) as conn:
            await self.insert_credential(
                conn, tenant, driver, name, credential_id, answers.settings, secrets, actor=actor
            )
            credential = (await self._credential(conn, credential_id)).credential
        credential.generated = self._vault.show_once(answers.secrets, answers.generated)
        return credential

    async def insert_credential(
        self,
        conn: Any,
        tenant: Tenant,
        driver: str,
        name: str,
        credential_id: UUID,
        settings: dict[str, str],
        secrets: Mapping[str, Secret],
        *,
        actor: str,
    ) -> None:
        """A sealed ``pending`` credential, with its connection where that is new, in the caller's transaction.

        Raises Conflict when the name belongs to another driver in use.
        """
        sealed = await self._vault.seal_credential(
            secrets, tenant_id=tenant.id, driver=driver, credential_id=credential_id, row_version=1
        )
        connection_id, known = await store.ensure_connection(conn, uuid4(), tenant.id, name, driver, actor)
        current = await store.read_connection(conn, connection_id=connection_id)
        in_use = current.held.credential if current and current.held else None
        if known != driver:
            if in_use:
                raise Conflict(
                    f"The connection {name!r} of {tenant.slug} is a {known} connection in use.",
                    fix=Fix(
                        "use_other_name",
                        "Give the new connection another name, or revoke the old credential.",
                    ),
                )
            await store.set_driver(conn, connection_id, driver)
        await store.insert_credential(
            conn,
            credential_id=credential_id,
            tenant_id=tenant.id,
            connection_id=connection_id,
            driver=driver,
            row_version=1,
            sealed=sealed,
            settings=settings,
            previous_id=in_use.id if in_use else None,
            actor=actor,
        )
        await self._audit_credential(
            conn,
            tenant,
            actor,
            "credential.created",
            connection_id,
            credential_id,
            {"driver": driver, "previous_credential_id": str(in_use.id) if in_use else None},
        )

    async def test(self, tenant: Tenant, credential_id: UUID, *, actor: str) -> TestReport:
        """The provider's lightest call with this credential. A failed test is a report, not an exception."""
        async with self._db.tenant(tenant.id) as conn:
            held = await self._credential(conn, credential_id)
        credential = held.credential
        driver_class = self._load(credential.driver)
        tried = await self._trial.run(
            tenant, held, "test_connection", lambda driver: driver.test_connection()
        )
        failure, proof = tried.failure, tried.answer or Proof()
        async with self._db.tenant(tenant.id) as conn:
            await store.save_test(
                conn,
                credential_id,
                error=failure.to_dict() if failure else None,
                account=proof.account if not failure else credential.account,
                facts={**tried.facts, **proof.facts},
                scopes=proof.scopes or credential.scopes,
                missing_rights=missing_rights(driver_class, credential, proof),
            )
            if not failure and credential.status is CredentialStatus.NEEDS_REAUTHORIZATION:
                await store.activate(conn, credential.connection_id, credential_id)
            await self._audit_credential(
                conn,
                tenant,
                actor,
                "credential.tested",
                credential.connection_id,
                credential_id,
                {
                    "ok": failure is None,
                    "code": failure.full_code if failure else "",
                    "http_calls": tried.http_calls,
                },
            )
            credential = (await self._credential(conn, credential_id)).credential
        self._forget(tenant.id)
        return TestReport(
            ok=failure is None,
            credential=credential,
            duration_ms=round(tried.milliseconds, 1),
            warnings=proof.warnings,
            error=failure.to_dict() if failure else None,
        )

    async def activate(self, tenant: Tenant, credential_id: UUID, *, actor: str) -> Credential:
        """Put a tested credential to use (also a superseded one: rollback).

        What must be at the provider before the first write (an external-id field, say) is made first. Raises Conflict
        when untested, GateClosed when the driver's gate is shut, the provider's CrmError when that preparation fails.
        """
        async with self._db.tenant(tenant.id) as conn:
            held = await self._credential(conn, credential_id)
        self._check_can_activate(held.credential)
        prepared = await self._trial.run(tenant, held, "prepare", lambda driver: driver.prepare())
        if prepared.failure:
            raise prepared.failure
        async with self._db.tenant(tenant.id) as conn:
            credential = (await self._credential(conn, credential_id)).credential
            self._check_can_activate(credential)
            await store.add_facts(conn, credential_id, {**prepared.facts, **(prepared.answer or {})})
            previous = await store.activate(conn, credential.connection_id, credential_id)
            await self._audit_credential(
                conn,
                tenant,
                actor,
                "credential.activated",
                credential.connection_id,
                credential_id,
                {
                    "previous_credential_id": str(previous) if previous else None,
                    "new_credential_id": str(credential_id),
                    "http_calls": prepared.http_calls,
                },
            )
            await self._incidents.resolve_by_key(
                conn, tenant.id, "reauthorization_needed", str(credential.connection_id), actor=actor
            )
            credential = (await self._credential(conn, credential_id)).credential
        self._forget(tenant.id)
        return credential

    def _check_can_activate(self, credential: Credential) -> None:
        if credential.status is CredentialStatus.REVOKED:
            raise Conflict(
                "A revoked credential stays revoked.", fix=Fix("connect", "Connect again with a new one.")
            )
        if credential.tested_at is None or credential.test_error is not None:
            raise Conflict(
                "The live test of this credential has not passed.",
                fix=Fix("test_first", "Run the live test, correct what it reports, then activate."),
            )

    async def revoke(self, tenant: Tenant, credential_id: UUID, *, actor: str) -> Credential:
        """Mark a credential revoked; the provider's own revoke is called first where one exists."""
        async with self._db.tenant(tenant.id) as conn:
            held = await self._credential(conn, credential_id)
        credential = held.credential
        at_provider = False
        if credential.status is not CredentialStatus.REVOKED:
            driver_class = self._load(credential.driver)
            try:
                await self.check_gate(tenant, driver_class.manifest_for(credential.settings))
                lent = Lent(held, await self.lending.open(tenant, held))
                at_provider = await driver_class(access_for(tenant, lent, self.egress)).revoke()
            except CrmError:
                at_provider = False
        overlap_ended = await self._overlap.end(tenant, credential_id)
        async with self._db.tenant(tenant.id) as conn:
            await store.revoke(conn, credential_id)
            await self._audit_credential(
                conn,
                tenant,
                actor,
                "credential.revoked",
                credential.connection_id,
                credential_id,
                {"revoked_at_provider": at_provider, "overlap_ended": overlap_ended},
            )
            credential = (await self._credential(conn, credential_id)).credential
        self._forget(tenant.id)
        return credential

    async def credentials(self, tenant: Tenant) -> list[Credential]:
        """All credentials of a tenant, newest first, without their sealed parts."""
        async with self._db.tenant(tenant.id) as conn:
            return await store.list_credentials(conn)

    async def summaries(self, tenant_id: UUID) -> list[ConnectionSummary]:
        """All connections of a tenant."""
        async with self._db.tenant(tenant_id) as conn:
            rows = await store.list_connections(conn)
            left = await self.budgets.remaining_of(conn, self._manifests(rows))
        said = {row.id: RouteRow(row.id, row.name, row.routes) for row in rows}
        return [
            ConnectionSummary(
                id=row.id,
                name=row.name,
                driver=row.driver,
                status=row.held.credential.status.value if row.held else "not_connected",
                account=row.held.credential.account if row.held else "",
                routes=effective(list(said.values()), said[row.id]),
                is_paused=row.is_paused,
                budgets=left.get(row.id, []),
            )
            for row in rows
        ]

    def _manifests(self, rows: list[ConnectionRow]) -> dict[UUID, Manifest]:
        """Of the connections with a credential; a driver that is not installed here has none to show."""
        found = {}
        for row in rows:
            with suppress(CrmError):
                if row.held:
                    found[row.id] = self._load(row.driver).manifest_for(row.held.credential.settings)
        return found

    # -- opening -----------------------------------------------------------------------------------------------

    async def open(
        self, tenant_id: UUID, *, name: str = "primary", connection_id: UUID | None = None
    ) -> Connection:
        """The connection of this name or id. Raises NotFound (no such tenant, name), NotConfigured (no credential)."""
        tenant, opened = await self._openings.open(tenant_id, name=name, connection_id=connection_id)
        return Connection(self, tenant, opened)

    def _forget(self, tenant_id: UUID) -> None:
        self.routing.forget(tenant_id)
        self._openings.forget(tenant_id)

    def mapping_changed(self, tenant_id: UUID) -> None:
        """Drop what is cached of this tenant, so that a changed mapping counts at once here."""
        self._forget(tenant_id)

    # -- what a Connection needs of the house ------------------------------------------------------------------

    async def tenant(self, tenant_id: UUID) -> Tenant:
        """The tenant of an id. Raises NotFound."""
        return await self._tenants.get(tenant_id)

    async def check_gate(self, tenant: Tenant, manifest: Manifest) -> None:
        """Raise GateClosed before anything is opened. What another process closed counts here within two seconds."""
        if manifest.gate:
            require_gate(await self._tenants.gate(tenant.id), manifest)

    async def note_refusal(self, tenant: Tenant, opened: Opened, error: AuthError) -> None:
        """The provider refuses the credential in use: mark it, open one incident, stop hammering."""
        async with self._db.tenant(tenant.id) as conn:
            await self.lending.mark_dead(conn, tenant, opened.driver, opened.credential, error)
        self._forget(tenant.id)

    async def _credential(self, conn: Any, credential_id: UUID) -> Held:
        found = await store.read_credential(conn, credential_id)
        if found is None:
            raise NotFound("There is no such credential.")
        return found

    async def _audit_credential(
        self,
        conn: Any,
        tenant: Tenant,
        actor: str,
        action: str,
        connection_id: UUID,
        credential_id: UUID,
        details: dict[str, Any],
    ) -> None:
        await self.audit.write(
            conn,
            AuditEntry(
                tenant_id=tenant.id,
                actor=actor,
                action=action,
                connection_id=connection_id,
                subject_id=str(credential_id),
                details=details,
            ),
        )
