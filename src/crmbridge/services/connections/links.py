"""Connect links: an operator lets the tenant's own admin enter a credential, without an account here."""

from __future__ import annotations

import secrets as randomness
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import msgspec

from crmbridge.core.driver import CrmDriver, refuse
from crmbridge.core.errors import FieldError, Fix, ValidationError
from crmbridge.core.manifest import AuthKind, Manifest, Setting
from crmbridge.core.operations import Operation
from crmbridge.db.pool import Database
from crmbridge.services.audit.model import AuditEntry
from crmbridge.services.audit.service import AuditLog
from crmbridge.services.connections import store
from crmbridge.services.connections.model import TestReport
from crmbridge.services.oauth.model import FlowRefused, Link
from crmbridge.services.oauth.tokens import hashed, named_token, tenant_in
from crmbridge.services.tenants.model import Tenant

if TYPE_CHECKING:
    from crmbridge.services.connections.service import Connections

__all__ = ["MOST_HOURS", "ConnectLink", "ConnectLinks", "Visit", "fixed_settings"]

MOST_HOURS = 168
# A typing error must not cost the link; a machine that tries keys must not have it for long.
_MOST_TRIES = 10
_NO_LINK = "This link is not valid: it was used, it has expired, or it was opened in another browser first."
_ASK = Fix("ask_for_link", "Ask whoever sent you the link for a new one.")


def fixed_settings(manifest: Manifest) -> tuple[Setting, ...]:
    """Settings that only an operator fills in: where the secret of our own app goes is not for a guest to say."""
    if manifest.auth.kind is not AuthKind.OAUTH_CODE:
        return ()
    return tuple(setting for setting in manifest.settings if setting.kind == "url")


class ConnectLink(msgspec.Struct, frozen=True, kw_only=True):
    """A new link; its address is shown once."""

    id: UUID
    url: str
    driver: str
    connection: str
    expires_at: datetime


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """What the connect page shows, and the cookie that binds the link to this browser. ``asked`` are the settings that
    the guest fills in, ``fixed`` those that the operator has."""

    link_id: UUID
    tenant: Tenant
    manifest: Manifest
    connection: str
    is_consent: bool
    asked: tuple[Setting, ...]
    fixed: dict[str, str]
    cookie: str
    expires_at: datetime


class ConnectLinks:
    """Makes links and serves those who open one. What comes of a link stays ``pending`` until an operator acts."""

    def __init__(
        self,
        owner: Connections,
        *,
        db: Database,
        audit: AuditLog,
        load_driver: Callable[[str], type[CrmDriver]],
        base_url: str,
    ) -> None:
        self._owner = owner
        self._db = db
        self._audit = audit
        self._load = load_driver
        self._base_url = base_url.rstrip("/")

    async def make(
        self,
        tenant: Tenant,
        driver: str,
        *,
        connection: str = "primary",
        hours: int = 24,
        settings: Mapping[str, str] | None = None,
        actor: str,
    ) -> ConnectLink:
        """A link for one driver and one connection; ``settings`` are plain ones that the guest cannot change.

        Raises Unsupported, GateClosed, ValidationError.
        """
        manifest = self._load(driver).MANIFEST
        if manifest.why_unavailable:
            raise refuse(manifest, None, Operation.CREATE)
        if not 1 <= hours <= MOST_HOURS:
            problem = FieldError("hours", f"must be 1 to {MOST_HOURS}")
            raise ValidationError("The link cannot be made.", fields=(problem,))
        await self._owner.check_gate(tenant, manifest)
        fixed = _fixed(manifest, settings or {})
        link_id, token = uuid4(), named_token(tenant.id)
        async with self._db.tenant(tenant.id) as conn:
            expires_at = await store.insert_link(
                conn, link_id, tenant.id, driver, connection, hashed(token), actor, hours, fixed
            )
            await self._tell(conn, tenant, actor, "connect_link.created", link_id, driver, connection)
        return ConnectLink(
            id=link_id,
            url=f"{self._base_url}/connect/{token}",
            driver=driver,
            connection=connection,
            expires_at=expires_at,
        )

    async def visit(self, token: str, cookie: str) -> Visit:
        """Open a link; the first browser that does keeps it. Raises FlowRefused."""
        tenant_id = tenant_in(token)
        cookie = cookie or randomness.token_urlsafe(32)
        async with self._db.tenant(tenant_id) as conn:
            row = await store.open_link(conn, hashed(token), hashed(cookie))
        if row is None:
            raise FlowRefused(_NO_LINK, fix=_ASK)
        tenant = await self._owner.tenant(tenant_id)
        manifest = self._load(row["driver"]).MANIFEST
        return Visit(
            link_id=row["id"],
            tenant=tenant,
            manifest=manifest,
            connection=row["connection"],
            is_consent=manifest.auth.kind is AuthKind.OAUTH_CODE,
            asked=tuple(
                one
                for one in manifest.settings
                if one.name not in row["settings"] and one not in fixed_settings(manifest) and not one.follows
            ),
            fixed=row["settings"],
            cookie=cookie,
            expires_at=row["expires_at"],
        )

    async def submit(self, token: str, cookie: str, form: Mapping[str, str]) -> TestReport | Link:
        """Use a link: a form is connected and tested, a consent begins.

        The link is used up by the credential that comes of it; a form that fails its live test does not count.
        Raises FlowRefused, ValidationError (each bad setting named), NotConfigured.
        """
        visit = await self.visit(token, cookie)
        actor = f"link:{visit.link_id}"
        slug = visit.manifest.slug
        async with self._db.tenant(visit.tenant.id) as conn:
            tried = await store.try_link(conn, visit.link_id, _MOST_TRIES)
        if tried is None:
            raise FlowRefused(_NO_LINK, fix=_ASK)
        asked = {one.name: form.get(one.name, "") for one in visit.asked}
        values = {**asked, **visit.fixed}
        if tried["brought"] and await self._came(visit.tenant, tried["brought"]):
            raise FlowRefused(_NO_LINK, fix=_ASK)
        try:
            credential = await self._owner.connect(
                visit.tenant, slug, values, actor=actor, name=visit.connection
            )
        except ValidationError as refused:
            # With these settings the driver is connected by consent.
            if refused.fix.action != "start_oauth":
                raise
            link = await self._owner.consent.start(
                visit.tenant, slug, values, actor=actor, name=visit.connection
            )
            async with self._db.tenant(visit.tenant.id) as conn:
                await store.note_brought(conn, visit.link_id, link.flow_id, is_used=False)
            return link
        report = await self._owner.test(visit.tenant, credential.id, actor=actor)
        if not report.ok:
            await self._owner.revoke(visit.tenant, credential.id, actor=actor)
            return report
        async with self._db.tenant(visit.tenant.id) as conn:
            await store.note_brought(conn, visit.link_id, credential.id, is_used=True)
            await self._tell(
                conn, visit.tenant, actor, "connect_link.used", visit.link_id, slug, visit.connection
            )
        # A generated secret was shown to whoever may see it: the person with the link.
        report.credential.generated = credential.generated
        return report

    async def _came(self, tenant: Tenant, flow_id: UUID) -> bool:
        return any(one.id == flow_id for one in await self._owner.credentials(tenant))

    async def _tell(
        self, conn: Any, tenant: Tenant, actor: str, action: str, link_id: UUID, driver: str, connection: str
    ) -> None:
        details = {"driver": driver, "connection": connection}
        await self._audit.write(
            conn, AuditEntry(tenant.id, actor, action, subject_id=str(link_id), details=details)
        )


def _fixed(manifest: Manifest, settings: Mapping[str, str]) -> dict[str, str]:
    known = {setting.name: setting for setting in manifest.settings}
    problems = [
        FieldError(
            name, "is a secret; let the guest enter it" if name in known else "is no setting of this driver"
        )
        for name in settings
        if name not in known or known[name].is_secret
    ]
    if problems:
        raise ValidationError("The link cannot be made.", fields=tuple(problems))
    return {name: text.strip() for name, text in settings.items() if text.strip()}
