"""Several CRMs of one tenant in a real browser: looked at in three ways, and walked by keyboard without JavaScript."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect
from tests.browser.conftest import PASSWORD, Site, shot, sign_in, violations
from tests.browser.test_console_looks import WAYS, judged
from tests.browser.test_console_walks import pressed_to

from crmbridge.core.operations import Operation
from crmbridge.core.records import Object
from crmbridge.services.connections.model import Intent
from crmbridge.services.delivery.model import Accepted
from crmbridge.services.operators.model import Role
from crmbridge.services.tenants.model import Tenant

pytestmark = [pytest.mark.postgres, pytest.mark.browser, pytest.mark.timeout(240)]

BASE = "/admin/tenants/harbour"
PAGE = f"{BASE}/connections"


async def lead(site: Site, tenant: Tenant, key: str, **fields: str) -> str:
    intent = Intent(object=Object.LEAD, operation=Operation.CREATE, fields={"last_name": "Lin", **fields})
    accepted: Accepted = await site.services.delivery.accept(
        "test", tenant, intent, idempotency_key=key, wait_seconds=10
    )
    return str(accepted.write_id)


async def furnished(site: Site) -> tuple[Tenant, str]:
    """Three CRMs: one that refuses its writes, one that is paused; answers a write that went to all three."""
    tenant = await site.tenant("harbour", "Harbour Homes")
    for slug, name in (("odoo", "primary"), ("rest_api", "archive"), ("custom_webhook", "newsletter")):
        await site.connected(tenant, slug, name)
    routing = site.services.connections.routing
    await routing.change(tenant, "archive", {"all": "also"}, actor="test")
    await routing.change(tenant, "newsletter", {"lead": "also", "customer": "also"}, actor="test")
    site.emulators["rest_api"].faults.add("status", status=422, only="writes", times=0)
    olga = (await site.services.operators.list())[0]
    await routing.pause(tenant, "newsletter", actor=olga.actor, reason="Moves to a new host until Friday")
    writes = [await lead(site, tenant, f"k{n}", email=f"mei{n}@example.com") for n in range(3)]
    return tenant, writes[0]


async def test_pages_when_looked_at_then_axe_finds_nothing_and_no_page_is_too_wide(site: Site) -> None:
    email = await site.operator(Role.OPERATOR)
    _, write = await furnished(site)
    pages = {
        "connections": PAGE,
        "connection-pause": f"{PAGE}/archive/pause",
        "connection-resume": f"{PAGE}/newsletter/resume",
        "connection-routes": f"{PAGE}/archive/routes",
        "write-targets": f"{BASE}/writes/{write}",
        "write-target-discard": f"{BASE}/writes/{write}/discard?connection=archive",
        "writes-of-connection": f"{BASE}/writes?connection=archive&state=dead_letter",
        "mapping-of-second": f"{BASE}/crm/mapping?connection=archive&object=lead",
    }
    wrong: list[str] = []
    for way, options in WAYS.items():
        page = await site.page(**options)
        await sign_in(page, email)
        for name, path in pages.items():
            await page.goto(path)
            wrong += await judged(page, name, way)
        await page.goto(f"{PAGE}/newsletter/routes")
        for obj, role in (("Note", "also"), ("Deal", "primary"), ("Case", "primary"), ("Customer", "none")):
            await page.get_by_label(f"{obj} on newsletter").select_option(role)
        await page.get_by_role("button", name="Show what it does").click()
        await expect(page.get_by_role("heading", level=2)).to_contain_text("What the new routes")
        wrong += await judged(page, "connection-routes-preview", way)
        await page.goto(f"{PAGE}/primary/routes")
        await page.get_by_label("Lead on primary").select_option("none")
        await page.get_by_role("button", name="Show what it does").click()
        wrong += await judged(page, "connection-routes-refused", way)
        await page.context.close()
    assert wrong == [], "\n".join(wrong)


async def test_connections_when_seen_by_an_auditor_then_clean_and_no_step(site: Site) -> None:
    await site.operator(Role.OPERATOR)
    await furnished(site)
    page = await site.signed_in(Role.AUDITOR)
    await page.goto(PAGE)
    await shot(page, "connections-auditor.light")
    assert await violations(page) == []
    await expect(page.get_by_text("Olga Operator")).to_be_visible()
    for name in ("Pause", "Resume", "Routes of"):
        await expect(page.get_by_role("link", name=name)).to_have_count(0)


async def chosen(page: Page, label: str, letter: str) -> None:
    """A role of a list, by keyboard: its first letter."""
    await pressed_to(page, label)
    await page.keyboard.type(letter)


async def test_routes_and_pause_when_by_keyboard_without_javascript_then_done(site: Site) -> None:
    tenant = await site.tenant("harbour", "Harbour Homes")
    await site.connected(tenant, "odoo")
    await site.connected(tenant, "rest_api", "archive")
    email = await site.operator(Role.OPERATOR)
    page = await site.page(java_script_enabled=False)
    await page.goto(PAGE)
    await page.get_by_label("E-mail").fill(email)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="What goes where").wait_for()

    await pressed_to(page, "Routes of archive")
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="Routes of archive").wait_for()
    await chosen(page, "Lead on archive", "a")
    await pressed_to(page, "Show what it does")
    await page.keyboard.press("Enter")
    await page.get_by_text("archive gets every write too").wait_for()
    assert "lead" not in await routes_of(site, tenant, "archive")
    await pressed_to(page, "Save these routes")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("The routes of archive are saved")
    assert await routes_of(site, tenant, "archive") == {"lead": "also"}

    await pressed_to(page, "Pause archive")
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="Pause the connection archive?").wait_for()
    await pressed_to(page, "Reason")
    await page.keyboard.type("The host moves")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("archive is paused")
    await expect(page.get_by_text("The host moves")).to_be_visible()
    write = await lead(site, tenant, "k", email="mei@example.com")
    await page.goto(f"{BASE}/writes/{write}")
    await pressed_to(page, "Cancel on archive")
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="Take this write back?").wait_for()
    await pressed_to(page, "Cancel write")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("cancelled on archive")
    await page.goto(PAGE)
    await pressed_to(page, "Resume archive")
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="Resume the connection archive?").wait_for()
    await pressed_to(page, "Resume archive")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("archive goes on")


async def routes_of(site: Site, tenant: Tenant, name: str) -> dict[str, str]:
    summaries = await site.services.connections.summaries(tenant.id)
    return next(each.routes for each in summaries if each.name == name)
