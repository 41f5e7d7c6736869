"""Connect, test, activate, revoke, and open connections."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import msgspec

from crmbridge.core.driver import Access, CrmDriver, Proof, refuse
from crmbridge.core.errors import AuthError, Conflict, CrmError, Fix, NotConfigured, NotFound
from crmbridge.core.manifest import Manifest
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object
from crmbridge.core.secret import Secret
from crmbridge.db.pool import Database
from crmbridge.services.audit.model import AuditEntry
from crmbridge.services.audit.service import AuditLog
from crmbridge.services.connections import store
from crmbridge.services.connections.connection import Connection, Metered
from crmbridge.services.connections.forms import read_form
from crmbridge.services.connections.model import (
    ConnectionRow,
    ConnectionSummary,
    Credential,
    CredentialStatus,
    TestReport,
)
from crmbridge.services.incidents.service import Incidents
from crmbridge.services.mapping.model import Overrides
from crmbridge.services.mapping.service import Mapping as MappingService
from crmbridge.services.mapping.service import build_field_map
from crmbridge.services.tenants.model import Tenant
from crmbridge.services.tenants.service import Tenants
from crmbridge.services.vault.service import Vault
from crmbridge.toolkit.egress import Egress, EgressPolicy
from crmbridge.toolkit.fieldmap import FieldMap
from crmbridge.toolkit.limits import InFlight

__all__ = ["Connections", "Opened"]

# How long another process may go on with a connection that was changed here. Seconds.
FRESH_SECONDS = 2.0
_MOST_CACHED = 20_000


class Opened(msgspec.Struct):
    """A connection as read from the tables: sealed credential, manifest under its settings, overrides."""

    row: ConnectionRow
    credential: Credential
    sealed: bytes
    driver: type[CrmDriver]
    manifest: Manifest
    overrides: Overrides
    read_at: float
    maps: dict[Object, FieldMap] = {}

    def field_map(self, tenant: Tenant, obj: Object) -> FieldMap:
        """The map of one object, built once."""
        found = self.maps.get(obj)
        if found is None:
            found = self.maps[obj] = build_field_map(tenant, self.driver, obj, self.overrides)
        return found


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
        mapping: MappingService,
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
        self._mapping = mapping
        self._policy = policy
        self._load = load_driver
        self._cache: OrderedDict[tuple[UUID, object], Opened] = OrderedDict()
        self._gates: OrderedDict[UUID, InFlight] = OrderedDict()

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
        driver_class.manifest_for(answers.settings)
        credential_id, row_version = uuid4(), 1
        sealed = await self._vault.seal_credential(
            answers.secrets,
            tenant_id=tenant.id,
            driver=driver,
            credential_id=credential_id,
            row_version=row_version,
        )
        async with self._db.tenant(tenant.id) as conn:
            connection_id, known = await store.ensure_connection(
                conn, uuid4(), tenant.id, name, driver, actor
            )
            current = await store.read_connection(conn, connection_id=connection_id)
            in_use = current.credential if current else None
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
                row_version=row_version,
                sealed=sealed,
                settings=answers.settings,
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
            found = await store.read_credential(conn, credential_id)
        assert found is not None
        credential = found[0]
        credential.generated = self._vault.show_once(answers.secrets, answers.generated)
        return credential

    async def test(self, tenant: Tenant, credential_id: UUID, *, actor: str) -> TestReport:
        """The provider's lightest call with this credential. A failed test is a report, not an exception."""
        async with self._db.tenant(tenant.id) as conn:
            credential, sealed = await self._credential(conn, credential_id)
        driver_class = self._load(credential.driver)
        metered = Metered(self.egress)
        started = monotonic()
        proof, failure = Proof(facts=credential.facts), None
        try:
            driver = driver_class(
                Access(
                    settings=credential.settings,
                    secrets=await self._open(tenant.id, credential, sealed),
                    transport=metered,
                    facts=dict(credential.facts),
                    mark_prefix=f"crmbridge_{tenant.id.hex[:12]}",
                )
            )
            proof = await driver.test_connection()
        except CrmError as error:
            error.provider = error.provider or credential.driver
            error.operation = error.operation or "test_connection"
            failure = error
        milliseconds = (monotonic() - started) * 1000
        async with self._db.tenant(tenant.id) as conn:
            await store.save_test(
                conn,
                credential_id,
                error=failure.to_dict() if failure else None,
                account=proof.account if not failure else credential.account,
                facts=proof.facts,
                scopes=proof.scopes,
                missing_rights=proof.missing_rights,
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
                    "http_calls": metered.calls,
                },
            )
            credential, _ = await self._credential(conn, credential_id)
        self._forget(tenant.id)
        return TestReport(
            ok=failure is None,
            credential=credential,
            duration_ms=round(milliseconds, 1),
            warnings=proof.warnings,
            error=failure.to_dict() if failure else None,
        )

    async def activate(self, tenant: Tenant, credential_id: UUID, *, actor: str) -> Credential:
        """Put a tested credential to use (also a superseded one: rollback). Raises Conflict when untested."""
        async with self._db.tenant(tenant.id) as conn:
            credential, _ = await self._credential(conn, credential_id)
            self._check_can_activate(credential)
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
                },
            )
            await self._incidents.resolve_by_key(
                conn, tenant.id, "reauthorization_needed", str(credential.connection_id), actor=actor
            )
            credential, _ = await self._credential(conn, credential_id)
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
            credential, sealed = await self._credential(conn, credential_id)
        at_provider = False
        if credential.status is not CredentialStatus.REVOKED:
            driver = self._load(credential.driver)(
                Access(
                    settings=credential.settings,
                    secrets=await self._open(tenant.id, credential, sealed),
                    transport=self.egress,
                    facts=credential.facts,
                )
            )
            try:
                at_provider = await driver.revoke()
            except CrmError:
                at_provider = False
        async with self._db.tenant(tenant.id) as conn:
            await store.revoke(conn, credential_id)
            await self._audit_credential(
                conn,
                tenant,
                actor,
                "credential.revoked",
                credential.connection_id,
                credential_id,
                {"revoked_at_provider": at_provider},
            )
            credential, _ = await self._credential(conn, credential_id)
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
        return [
            ConnectionSummary(
                id=row.id,
                name=row.name,
                driver=row.driver,
                status=row.credential.status.value if row.credential else "not_connected",
                account=row.credential.account if row.credential else "",
                routes=row.routes,
                is_paused=row.is_paused,
            )
            for row in rows
        ]

    # -- opening -----------------------------------------------------------------------------------------------

    async def open(
        self, tenant_id: UUID, *, name: str = "primary", connection_id: UUID | None = None
    ) -> Connection:
        """The connection of this name or id. Raises NotFound (no such tenant), NotConfigured (no credential)."""
        tenant = await self._tenants.get(tenant_id)
        key = (tenant.id, connection_id or name)
        opened = self._cache.get(key)
        if opened is None or monotonic() - opened.read_at > FRESH_SECONDS:
            opened = await self._read(tenant, name, connection_id)
            self._cache[key] = opened
            self._cache.move_to_end(key)
            while len(self._cache) > _MOST_CACHED:
                self._cache.popitem(last=False)
        return Connection(self, tenant, opened)

    async def _read(self, tenant: Tenant, name: str, connection_id: UUID | None) -> Opened:
        async with self._db.tenant(tenant.id) as conn:
            row = await store.read_connection(conn, name=name, connection_id=connection_id)
            overrides = await self._mapping.overrides(conn, row.id) if row and row.credential else {}
        if row is None or row.credential is None:
            what = f"the connection {name!r}" if connection_id is None else f"the connection {connection_id}"
            raise NotConfigured(f"Tenant {tenant.slug} has no active credential for {what}.")
        driver = self._load(row.driver)
        return Opened(
            row=row,
            credential=row.credential,
            sealed=row.sealed,
            driver=driver,
            manifest=driver.manifest_for(row.credential.settings),
            overrides=overrides,
            read_at=monotonic(),
            maps={},
        )

    def _forget(self, tenant_id: UUID) -> None:
        for key in [key for key in self._cache if key[0] == tenant_id]:
            del self._cache[key]

    def mapping_changed(self, tenant_id: UUID) -> None:
        """Drop what is cached of this tenant, so that a changed mapping counts at once here."""
        self._forget(tenant_id)

    # -- what a Connection needs of the house ------------------------------------------------------------------

    async def lend(self, tenant_id: UUID, opened: Opened) -> dict[str, Secret]:
        """The opened secrets for one call. Never kept."""
        return await self._open(tenant_id, opened.credential, opened.sealed)

    async def _open(self, tenant_id: UUID, credential: Credential, sealed: bytes) -> dict[str, Secret]:
        return await self._vault.open_credential(
            sealed,
            tenant_id=tenant_id,
            driver=credential.driver,
            credential_id=credential.id,
            row_version=credential.row_version,
        )

    def in_flight(self, connection_id: UUID, manifest: Manifest) -> InFlight:
        """The gate that bounds calls in flight of one connection in this process."""
        gate = self._gates.get(connection_id)
        if gate is None:
            gate = self._gates[connection_id] = InFlight(manifest.in_flight_limit())
            while len(self._gates) > _MOST_CACHED:
                self._gates.popitem(last=False)
        return gate

    async def note_refusal(self, tenant: Tenant, opened: Opened, error: AuthError) -> None:
        """The provider refuses the credential in use: mark it, open one incident, stop hammering."""
        credential = opened.credential
        async with self._db.tenant(tenant.id) as conn:
            if not await store.mark_refused(conn, credential.id, credential.row_version):
                return
            await self._incidents.open(
                conn,
                tenant.id,
                "reauthorization_needed",
                str(credential.connection_id),
                title=f"{opened.manifest.display_name} refuses the credential of {tenant.slug}",
                details={"code": error.full_code, "fix": error.fix.hint, "credential_id": str(credential.id)},
                connection_id=credential.connection_id,
            )
            await self._audit_credential(
                conn,
                tenant,
                "system",
                "credential.refused",
                credential.connection_id,
                credential.id,
                {"code": error.full_code},
            )
        self._forget(tenant.id)

    async def _credential(self, conn: Any, credential_id: UUID) -> tuple[Credential, bytes]:
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
