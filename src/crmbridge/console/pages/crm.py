"""One tenant's CRMs: what is connected, how it does, and the steps of a credential."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from crmbridge.console.pages.rows import display_name
from crmbridge.console.visit import Page, Visit
from crmbridge.core.errors import CrmError, NotFound
from crmbridge.core.manifest import Budget, Manifest
from crmbridge.core.matrix import AUTH_WORDS
from crmbridge.drivers import load
from crmbridge.services.audit.model import AuditRow
from crmbridge.services.connections.budgets.window import Remaining
from crmbridge.services.connections.model import ConnectionSummary, Credential, CredentialStatus, TestReport
from crmbridge.services.tenants.model import Gate, Tenant

__all__ = ["activate", "confirm_activate", "confirm_revoke", "revoke", "show", "test", "told_test"]

_CALLS = 5


class ConnectionView(NamedTuple):
    """One connection with all that the page tells of it. ``used`` is the credential in use."""

    summary: ConnectionSummary
    manifest: Manifest | None
    name: str
    auth: str
    labels: dict[str, str]
    used: Credential | None
    credentials: list[Credential]
    calls: list[AuditRow]


async def show(visit: Visit) -> Page:
    """Every connection of the tenant; connected ones with their credential, budgets and last calls."""
    tenant = await visit.tenant()
    services = visit.services
    credentials = await services.connections.credentials(tenant)
    views = []
    for summary in await services.connections.summaries(tenant.id):
        own = [each for each in credentials if each.connection_id == summary.id]
        calls = await services.audit.read(tenant.id, _CALLS, action="crm.call", connection_id=summary.id)
        views.append(_view(summary, own, calls))
    gate = await services.tenants.gate(tenant.id)
    return visit.page(
        "crm.html",
        tenant=tenant,
        views=views,
        gate=gate,
        needs_gate=_needs_gate(views, gate),
        other_name=_other_name({view.summary.name for view in views}),
        budget_text=budget_text,
        can_test=can_test,
        can_activate=can_activate,
        can_revoke=can_revoke,
    )


def _view(summary: ConnectionSummary, credentials: list[Credential], calls: list[AuditRow]) -> ConnectionView:
    used = next((each for each in credentials if each.status.is_in_use), None)
    shown = used or (credentials[0] if credentials else None)
    manifest = None
    try:
        driver = load(summary.driver)
        manifest = driver.manifest_for(shown.settings) if shown else driver.MANIFEST
    except CrmError:
        pass
    return ConnectionView(
        summary=summary,
        manifest=manifest,
        name=manifest.display_name if manifest else summary.driver,
        auth=AUTH_WORDS[manifest.auth.kind] if manifest else "",
        labels={each.name: each.label for each in manifest.settings} if manifest else {},
        used=used,
        credentials=credentials,
        calls=calls,
    )


def _other_name(taken: set[str]) -> str:
    """A name for one more connection."""
    return next(name for number in range(2, len(taken) + 3) if (name := f"crm-{number}") not in taken)


def _needs_gate(views: list[ConnectionView], gate: Gate) -> bool:
    return not gate.is_open and any(view.manifest and view.manifest.gate for view in views)


def budget_text(budget: Budget | Remaining) -> str:
    """``110 calls per 10 s``."""
    if not budget.per_seconds:
        return f"{budget.limit:,} calls in flight"
    spans = {1: "second", 60: "minute", 3600: "hour", 86400: "day"}
    span = spans.get(int(budget.per_seconds), f"{budget.per_seconds:g} s")
    return f"{budget.limit:,} calls per {span}"


def can_test(credential: Credential) -> bool:
    """A revoked credential is at its end."""
    return credential.status is not CredentialStatus.REVOKED


def can_activate(credential: Credential) -> bool:
    """Tested, passed, and not in use."""
    is_ready = credential.tested_at is not None and credential.test_error is None
    return is_ready and credential.status in (CredentialStatus.PENDING, CredentialStatus.SUPERSEDED)


def can_revoke(credential: Credential) -> bool:
    """Whatever is not revoked yet."""
    return credential.status is not CredentialStatus.REVOKED


# ---------------------------------------------------------------------- steps


def _path(tenant: Tenant) -> str:
    return f"/admin/tenants/{tenant.slug}/crm"


def told_test(visit: Visit, tenant: Tenant, report: TestReport) -> Page:
    """Back to the page, with what the live test brought."""
    if not report.ok:
        error = report.error or {}
        hint = (error.get("fix") or {}).get("hint", "")
        return visit.go(
            _path(tenant), f"The live test failed: {error.get('message', '')}", hint=hint, kind="problem"
        )
    named = f" as {report.credential.account}" if report.credential.account else ""
    told = f"The live test passed{named} in {report.duration_ms:.0f} ms."
    hints = [*report.warnings]
    if report.credential.missing_rights:
        hints.append(f"Missing rights: {', '.join(report.credential.missing_rights)}.")
    if not report.credential.status.is_in_use:
        hints.append("Activate it to put it to use.")
    return visit.go(_path(tenant), told, hint=" ".join(hints))


async def test(visit: Visit) -> Page:
    """The provider's lightest call with this credential."""
    tenant = await visit.tenant()
    try:
        report = await visit.services.connections.test(
            tenant, visit.parameters["credential"], actor=visit.actor
        )
    except CrmError as error:
        return visit.back(_path(tenant), error)
    return told_test(visit, tenant, report)


async def _credential(visit: Visit, tenant: Tenant) -> tuple[Credential, Credential | None]:
    """The credential of the path, and the one of its connection that is in use."""
    wanted: UUID = visit.parameters["credential"]
    credentials = await visit.services.connections.credentials(tenant)
    found = next((each for each in credentials if each.id == wanted), None)
    if found is None:
        raise NotFound("There is no such credential.")
    used = (
        each for each in credentials if each.connection_id == found.connection_id and each.status.is_in_use
    )
    return found, next(used, None)


async def confirm_activate(visit: Visit) -> Page:
    """Asks before the credential in use steps back."""
    tenant = await visit.tenant()
    credential, used = await _credential(visit, tenant)
    is_rollback = credential.status is CredentialStatus.SUPERSEDED
    facts = [
        f"All calls of the connection {credential.connection} use this credential from now on: {_named(credential)}."
    ]
    if used is not None:
        facts.append(
            f"The one in use now steps back: {_named(used)}. It stays usable for a roll back until you revoke it."
        )
    facts.append("Writes that waited for a working credential go out at once.")
    return visit.page(
        "confirm.html",
        title="Roll back to this credential?" if is_rollback else "Put this credential to use?",
        facts=facts,
        action=f"{_path(tenant)}/credentials/{credential.id}/activate",
        button="Roll back" if is_rollback else "Activate",
        back=_path(tenant),
        is_danger=False,
    )


def _named(credential: Credential) -> str:
    account = credential.account or "account not known yet"
    made = f", connected {credential.created_at:%Y-%m-%d %H:%M} UTC" if credential.created_at else ""
    return f"{display_name(credential.driver)}, {account}{made} (…{str(credential.id)[-8:]})"


async def activate(visit: Visit) -> Page:
    """Put a tested credential to use, also a superseded one."""
    tenant = await visit.tenant()
    try:
        credential = await visit.services.connections.activate(
            tenant, visit.parameters["credential"], actor=visit.actor
        )
    except CrmError as error:
        return visit.back(_path(tenant), error)
    return visit.go(_path(tenant), f"The connection {credential.connection} uses this credential now.")


async def confirm_revoke(visit: Visit) -> Page:
    """Asks before a credential ends."""
    tenant = await visit.tenant()
    credential, _ = await _credential(visit, tenant)
    name = display_name(credential.driver)
    facts = [
        f"This credential is never used again: {_named(credential)}.",
        f"Where {name} offers it, the credential is revoked there too; else remove it there yourself.",
    ]
    if credential.status.is_in_use:
        facts.append(
            f"It is in use: the connection {credential.connection} stops. New writes are refused, those that wait "
            "stay in the queue until you connect again."
        )
    return visit.page(
        "confirm.html",
        title="Revoke this credential?",
        facts=facts,
        action=f"{_path(tenant)}/credentials/{credential.id}/revoke",
        button="Revoke credential",
        back=_path(tenant),
    )


async def revoke(visit: Visit) -> Page:
    """For good, at the provider too where it offers that."""
    tenant = await visit.tenant()
    try:
        await visit.services.connections.revoke(tenant, visit.parameters["credential"], actor=visit.actor)
    except CrmError as error:
        return visit.back(_path(tenant), error)
    return visit.go(_path(tenant), "The credential is revoked.")
