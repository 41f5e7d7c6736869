"""Connect links: an operator makes one; the tenant's own admin opens it, without an account here."""

from __future__ import annotations

from collections.abc import Mapping

from crmbridge.console.admission import new_token
from crmbridge.console.visit import Page, Visit
from crmbridge.core.errors import CrmError, Fix, NotFound, ValidationError
from crmbridge.core.manifest import Manifest
from crmbridge.drivers import load
from crmbridge.services.connections.links import Visit as LinkVisit
from crmbridge.services.connections.links import fixed_settings
from crmbridge.services.oauth.model import FlowRefused, Link

__all__ = ["make", "open_link", "show_make", "submit"]


async def show_make(visit: Visit) -> Page:
    """The form for a new link."""
    name = visit.query.get("connection", "") or "primary"
    return await _make_form(visit, {"connection": name, "hours": "24"})


async def _make_form(visit: Visit, given: Mapping[str, str], error: CrmError | None = None) -> Page:
    manifest = _manifest(str(visit.parameters["driver"]))
    fixed = fixed_settings(manifest)
    return visit.page(
        "linked_make.html",
        status=error.http_status if error else 200,
        tenant=await visit.tenant(),
        manifest=manifest,
        fixed_settings=fixed,
        values={one.name: given.get(f"setting.{one.name}", one.default) for one in fixed},
        connection=given.get("connection", ""),
        hours=given.get("hours", ""),
        error=error,
    )


async def make(visit: Visit) -> Page:
    """A new link for one driver, shown once."""
    tenant = await visit.tenant()
    manifest = _manifest(str(visit.parameters["driver"]))
    hours = visit.form.get("hours", "").strip()
    fixed = {one.name: visit.form.get(f"setting.{one.name}", "") for one in fixed_settings(manifest)}
    try:
        made = await visit.services.connections.links.make(
            tenant,
            manifest.slug,
            connection=visit.form.get("connection", "").strip() or "primary",
            hours=int(hours) if hours.isdecimal() and len(hours) < 5 else 0,
            settings=fixed,
            actor=visit.actor,
        )
    except CrmError as error:
        return await _make_form(visit, visit.form, error)
    return visit.page(
        "shown_once.html",
        title="Connect link",
        what="The link for the tenant's own admin",
        values={"connect_link": made.url},
        hints=[
            f"It opens only this tenant's connect page, in the browser that opens it first, for {hours} hours or "
            "until a credential has come of it.",
            "What comes of it stays pending until you activate it.",
        ],
        next_path=f"/admin/tenants/{tenant.slug}/crm",
        next_text="Done",
    )


def _manifest(driver: str) -> Manifest:
    try:
        return load(driver).MANIFEST
    except CrmError:
        raise NotFound("There is no such driver.") from None


async def open_link(visit: Visit) -> Page:
    """The tenant's connect page. The first browser that opens it keeps it."""
    is_new = not visit.token
    if is_new:
        visit.token = new_token()
    found = await visit.services.connections.links.visit(str(visit.parameters["token"]), visit.token)
    values = {one.name: one.default for one in found.asked if not one.is_secret}
    page = _form(visit, found, values)
    if is_new:
        page.cookies.append(visit.cookie(visit.cookies.visit, visit.token))
    return page


def _form(visit: Visit, found: LinkVisit, values: dict[str, str], error: CrmError | None = None) -> Page:
    return visit.page(
        "linked_form.html",
        status=error.http_status if error else 200,
        found=found,
        manifest=found.manifest,
        path=visit.path,
        values=values,
        error=error,
    )


async def submit(visit: Visit) -> Page:
    """The form of the connect page: connected and tested, or on to the provider."""
    token = str(visit.parameters["token"])
    links = visit.services.connections.links
    found = await links.visit(token, visit.token)
    manifest = found.manifest
    given = {one.name: visit.form.get(f"setting.{one.name}", "") for one in found.asked}
    plain = {one.name: given[one.name] for one in found.asked if not one.is_secret}
    try:
        came = await links.submit(token, visit.token, given)
    except (FlowRefused, NotFound):
        raise
    except CrmError as error:
        return _form(visit, found, plain, error)
    if isinstance(came, Link):
        return visit.page(
            "linked_consent.html", found=found, begin_path=f"/oauth/begin/{came.url.rpartition('/')[2]}"
        )
    if not came.ok:
        told = came.error or {}
        failed = ValidationError(f"The live test failed: {told.get('message', '')}")
        hint = (told.get("fix") or {}).get("hint")
        if hint:
            failed.fix = Fix("correct", hint)
        return _form(visit, found, plain, failed)
    labels = {one.name: one.label for one in manifest.settings}
    made = {labels.get(name, name): text for name, text in came.credential.generated.items()}
    return visit.page("linked_done.html", found=found, credential=came.credential, made=made)
