"""Connecting a CRM: choose the driver, fill in its form or give consent, test."""

from __future__ import annotations

import re
from typing import Any

import structlog

from crmbridge.console.pages.crm import told_test
from crmbridge.console.visit import Page, Visit
from crmbridge.core.errors import CrmError, FieldError, Fix, NotFound, ValidationError
from crmbridge.core.manifest import AuthKind, Manifest
from crmbridge.core.matrix import matrix_row
from crmbridge.drivers import load, slugs
from crmbridge.services.connections.model import Credential
from crmbridge.services.oauth.model import Link
from crmbridge.services.tenants.model import Tenant

__all__ = ["choose", "connect", "show_consent", "show_form"]

_log = structlog.get_logger("crmbridge.console")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_HANDLE = re.compile(r"[A-Za-z0-9_-]{20,200}")


async def choose(visit: Visit) -> Page:
    """All drivers, by name, with how each is connected."""
    tenant = await visit.tenant()
    rows = []
    for slug in slugs():
        try:
            manifest = load(slug).MANIFEST
        except Exception as broken:  # one driver, of another package perhaps, must not hide the others
            _log.warning("driver.not_loaded", driver=slug, kind=type(broken).__name__)
            continue
        rows.append((matrix_row(manifest), manifest))
    rows.sort(key=lambda row: (not row[0].is_available, row[0].display_name.lower()))
    return visit.page("connect.html", tenant=tenant, rows=rows, connection=visit.query.get("connection", ""))


def _manifest(visit: Visit) -> Manifest:
    try:
        return load(str(visit.parameters["driver"])).MANIFEST
    except CrmError:
        raise NotFound("There is no such driver.") from None


async def show_form(visit: Visit) -> Page:
    """The driver's form; for a connection that is there, its plain settings are filled in (rotation)."""
    tenant, manifest = await visit.tenant(), _manifest(visit)
    name = visit.query.get("connection", "") or "primary"
    known = await _known(visit, tenant, name, manifest.slug)
    values = {setting.name: setting.default for setting in manifest.settings if not setting.is_secret}
    return await _form(visit, tenant, manifest, name, {**values, **(known.settings if known else {})})


async def _known(visit: Visit, tenant: Tenant, name: str, driver: str) -> Credential | None:
    """The newest credential of a connection; None when it has none of this driver."""
    for credential in await visit.services.connections.credentials(tenant):
        if credential.connection == name and credential.driver == driver:
            return credential
    return None


async def _form(
    visit: Visit,
    tenant: Tenant,
    manifest: Manifest,
    name: str,
    values: dict[str, str],
    *,
    error: CrmError | None = None,
) -> Page:
    gate = await visit.services.tenants.gate(tenant.id)
    is_rotation = await _known(visit, tenant, name, manifest.slug) is not None
    return visit.page(
        "connect_form.html",
        status=error.http_status if error else 200,
        tenant=tenant,
        manifest=manifest,
        connection=name,
        values=values,
        error=error,
        is_rotation=is_rotation,
        is_consent=manifest.auth.kind is AuthKind.OAUTH_CODE,
        is_gate_shut=bool(manifest.gate) and not gate.is_open,
        redirect_uri=visit.services.oauth.redirect_uri,
    )


async def connect(visit: Visit) -> Page:
    """A new pending credential, tested; or, where the driver is connected by consent, on to the provider."""
    tenant, manifest = await visit.tenant(), _manifest(visit)
    name = visit.form.get("connection", "").strip() or "primary"
    given = {setting.name: visit.form.get(f"setting.{setting.name}", "") for setting in manifest.settings}
    plain = {setting.name: given[setting.name] for setting in manifest.settings if not setting.is_secret}
    try:
        _check_name(name)
        made = await _begun(visit, tenant, manifest, given, name)
    except CrmError as error:
        return await _form(visit, tenant, manifest, name, plain, error=error)
    if isinstance(made, Link):
        handle = made.url.rpartition("/")[2]
        return visit.go(f"/admin/tenants/{tenant.slug}/crm/consent/{handle}")
    if made.generated:
        return _shown_once(visit, tenant, manifest, made)
    try:
        report = await visit.services.connections.test(tenant, made.id, actor=visit.actor)
    except CrmError as error:
        return visit.back(f"/admin/tenants/{tenant.slug}/crm", error)
    return told_test(visit, tenant, report)


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        message = "must be 1 to 63 of a-z, 0-9, - and _, beginning with a letter or digit"
        raise ValidationError(
            "The name of the connection cannot be used.", fields=(FieldError("connection", message),)
        )


async def _begun(
    visit: Visit, tenant: Tenant, manifest: Manifest, given: dict[str, str], name: str
) -> Credential | Link:
    """The way that these settings take: some drivers are connected by consent or, with a key pasted, by form."""
    connections = visit.services.connections
    try:
        return await connections.connect(tenant, manifest.slug, given, actor=visit.actor, name=name)
    except ValidationError as refused:
        if refused.fix.action != "start_oauth":
            raise
    return await connections.consent.start(tenant, manifest.slug, given, actor=visit.actor, name=name)


def _shown_once(visit: Visit, tenant: Tenant, manifest: Manifest, made: Credential) -> Page:
    labels = {setting.name: setting.label for setting in manifest.settings}
    values: dict[str, Any] = {labels.get(name, name): text for name, text in made.generated.items()}
    return visit.page(
        "shown_once.html",
        title=f"{manifest.display_name}: keep this now",
        what="What crmbridge made for this connection",
        values=values,
        hints=["Give it to the other side first. Then test the credential, and activate it."],
        next_path=f"/admin/tenants/{tenant.slug}/crm",
        next_text="Done, go on to the test",
    )


async def show_consent(visit: Visit) -> Page:
    """On to the provider. A page of its own: the target of a form may lead to this host only, and so may not go on."""
    tenant = await visit.tenant()
    handle = str(visit.parameters["handle"])
    if _HANDLE.fullmatch(handle) is None:
        raise NotFound("There is no such link.", fix=Fix("start_again", "Start the connection again."))
    return visit.page("consent.html", tenant=tenant, begin_path=f"/oauth/begin/{handle}")
