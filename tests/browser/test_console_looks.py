"""Every page of the console: no violation that axe can find, nothing wider than a phone, a picture in three ways."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from tests.browser.conftest import Site, shot, sign_in, violations

from crmbridge.core.operations import Operation
from crmbridge.core.records import Object
from crmbridge.services.connections.model import Intent
from crmbridge.services.delivery.model import Accepted

pytestmark = [pytest.mark.postgres, pytest.mark.browser, pytest.mark.timeout(240)]

# 360 px is the narrowest phone that we count on.
WAYS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 800}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 800}},
    "phone": {"color_scheme": "light", "viewport": {"width": 360, "height": 740}, "is_mobile": True},
}


async def furnished(site: Site) -> dict[str, str]:
    """A house with something on every page; answers each page's name and path."""
    services = site.services
    tenant = await site.tenant("harbour", "Harbour Homes")
    await site.tenant("clinic", 'Clinic <script>alert("x")</script> & "Sons" with a rather long name')
    first = await site.connected(tenant, "odoo")
    wrong = {**site.form("odoo"), "api_key": "not-the-key"}
    failed = await services.connections.connect(tenant, "odoo", wrong, actor="test")
    await services.connections.test(tenant, failed.id, actor="test")
    used = await site.connected(tenant, "odoo")
    await services.tenants.create_key(tenant, "Reception agent", ["read", "write:*"], "test")
    applied = await written(site, tenant, "a", Operation.CREATE, email="mei.lin@example.com", last_name="Lin")
    dead = await written(site, tenant, "b", Operation.UPDATE, remote_id="987654", phone="+971501234567")
    async with services.db.tenant(tenant.id) as conn:
        incident = await services.incidents.open(
            conn,
            tenant.id,
            "crm_sync_failure",
            "x",
            "Writes have waited for more than a day",
            {"waiting_since": "2026-11-22T10:02:03+00:00", "fix": "See the connection's last errors."},
            used.connection_id,
        )
        end = {
            "write_id": str(applied),
            "what": "create of a customer",
            "accepted_at": "2026-11-25T10:00:00+00:00",
            "parked_at": "2026-11-25T10:05:00+00:00",
        }
        parked = await services.incidents.open(
            conn,
            tenant.id,
            "write_parked",
            "y",
            "Odoo: whether 12 writes took effect cannot be told",
            {
                "connection": "primary",
                "parked": 12,
                "oldest": end,
                "newest": end,
                "list": "crmbridge writes list harbour --state parked --connection primary",
                "page": f"/admin/tenants/{tenant.slug}/writes?state=parked&connection=primary",
                "why": "The look-up cannot tell.",
                "fix": "Redrive: each is looked up first, and sent only if it is surely not there.",
            },
            used.connection_id,
        )
    auditor, _ = await services.operators.add("ann@example.com", "Ann Auditor", "auditor", None, "test")
    await services.operators.disable(auditor.id, "test")
    base = "/admin/tenants/harbour"
    return {
        "overview": "/admin",
        "tenants": "/admin/tenants",
        "tenant-new": "/admin/tenants/new",
        "tenant": base,
        "tenant-hostile-name": "/admin/tenants/clinic",
        "gate": f"{base}/gate",
        "crm": f"{base}/crm",
        "crm-none": "/admin/tenants/clinic/crm",
        "connect": f"{base}/crm/connect",
        "connect-odoo": f"{base}/crm/connect/odoo",
        "connect-rest": "/admin/tenants/clinic/crm/connect/rest_api",
        "connect-consent": "/admin/tenants/clinic/crm/connect/hubspot",
        "connect-health": "/admin/tenants/clinic/crm/connect/athenahealth",
        "mapping": f"{base}/crm/mapping?object=customer",
        "mapping-slot": f"{base}/crm/mapping/customer/phone",
        "roll-back": f"{base}/crm/credentials/{first.id}/activate",
        "revoke": f"{base}/crm/credentials/{used.id}/revoke",
        "writes": f"{base}/writes",
        "writes-dead": f"{base}/writes?state=dead_letter",
        "writes-find": "/admin/writes",
        "write-applied": f"{base}/writes/{applied}",
        "write-dead": f"{base}/writes/{dead}",
        "write-discard": f"{base}/writes/{dead}/discard",
        "writes-redrive-parked": f"{base}/writes/redrive?state=parked",
        "incidents": "/admin/incidents",
        "incident-parked": f"/admin/incidents/harbour/{parked.id}",
        "incident": f"/admin/incidents/harbour/{incident.id}",
        "audit": "/admin/audit?tenant=harbour",
        "audit-system": "/admin/audit",
        "operators": "/admin/operators",
        "password": "/admin/password",
        "not-there": "/admin/tenants/nowhere",
    }


async def written(
    site: Site, tenant: Any, key: str, operation: Operation, *, remote_id: str = "", **fields: str
) -> UUID:
    intent = Intent(object=Object.CUSTOMER, operation=operation, fields=fields, remote_id=remote_id)
    accepted: Accepted = await site.services.delivery.accept(
        "test", tenant, intent, idempotency_key=key, wait_seconds=10
    )
    return accepted.write_id


# What may differ from one way to the other; in light everything is looked at.
RULES = {
    "light": (),
    "dark": ("color-contrast", "link-in-text-block"),
    "phone": ("scrollable-region-focusable", "target-size", "color-contrast"),
}


async def test_pages_when_looked_at_then_axe_finds_nothing_and_no_page_is_too_wide(site: Site) -> None:
    pages = await furnished(site)
    email = await site.operator()
    wrong: list[str] = []
    for way, options in WAYS.items():
        page = await site.page(**options)
        await page.goto("/admin/sign-in")
        wrong += await judged(page, "sign-in", way)
        await sign_in(page, email)
        for name, path in pages.items():
            await page.goto(path)
            wrong += await judged(page, name, way)
        for name, act in (("content", "Show content"), ("key-new", "Make key")):
            await page.goto(pages["write-dead"] if name == "content" else pages["tenant"])
            if name == "key-new":
                await page.get_by_label("Name").fill(f"agent {way}")
                await page.get_by_label("read", exact=True).check()
            await page.get_by_role("button", name=act).click()
            wrong += await judged(page, name, way)
        await page.context.close()
    assert wrong == [], "\n".join(wrong)


async def judged(page: Any, name: str, way: str) -> list[str]:
    await shot(page, f"{name}.{way}")
    wrong = [f"{name}.{way}: {found}" for found in await violations(page, *RULES[way])]
    width = await page.evaluate("document.documentElement.scrollWidth")
    if width > page.viewport_size["width"]:
        wrong.append(f"{name}.{way} is {width} px wide")
    if await page.locator("h1").count() != 1:
        wrong.append(f"{name}.{way} has not exactly one h1")
    return wrong
