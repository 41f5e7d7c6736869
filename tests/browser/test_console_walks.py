"""A person's ways through the console in a real browser: with and without JavaScript, and by the keyboard alone."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect
from tests.browser.conftest import PASSWORD, Site, sign_in

from crmbridge.services.connections.model import CredentialStatus
from crmbridge.services.operators.model import Role

pytestmark = [pytest.mark.postgres, pytest.mark.browser, pytest.mark.timeout(180)]


async def fill(page: Page, site: Site, slug: str, **changes: str) -> None:
    """The driver's form, by its labels as a person reads them."""
    values = {**site.form(slug), **changes}
    for name, text in values.items():
        await page.locator(f"[name='setting.{name}']").fill(text)


async def statuses(site: Site, slug: str) -> list[str]:
    """Of all credentials, newest first."""
    tenant = await site.services.tenants.get(slug)
    return [each.status.value for each in await site.services.connections.credentials(tenant)]


@pytest.mark.parametrize("has_script", [True, False], ids=["javascript", "no-javascript"])
@pytest.mark.parametrize("slug", ["odoo", "rest_api"])
async def test_crm_when_connected_by_form_then_tested_activated_rotated_rolled_back_and_revoked(
    site: Site, slug: str, has_script: bool
) -> None:
    tenant = await site.tenant("harbour", "Harbour Homes")
    page = await site.signed_in(Role.OPERATOR, java_script_enabled=has_script)
    await page.get_by_role("link", name="Tenants", exact=True).click()
    await page.get_by_role("link", name="Harbour Homes").click()
    await page.get_by_role("link", name="CRM", exact=True).click()
    await page.get_by_role("link", name="Connect a CRM").click()
    shown = {"odoo": "Odoo", "rest_api": "Generic REST"}[slug]
    await page.get_by_role("link", name=f"Choose {shown}", exact=True).click()

    # A wrong address is refused at its field, and the rest need not be typed again.
    await fill(page, site, slug, **{"url" if slug == "odoo" else "base_url": "https://127.0.0.2:1/"})
    await page.get_by_role("button", name="Save and test").click()
    await expect(page.get_by_role("alert")).to_contain_text("1 problem")
    await expect(page.locator("[aria-invalid]")).to_have_count(1)

    await fill(page, site, slug)
    await page.get_by_role("button", name="Save and test").click()
    await expect(page.get_by_role("status")).to_contain_text("The live test passed")
    assert await statuses(site, "harbour") == ["pending"]
    await page.get_by_role("button", name="Test the credential").click()
    await expect(page.get_by_role("status")).to_contain_text("The live test passed")
    await page.get_by_role("button", name="Activate").click()
    await expect(page.get_by_role("status")).to_contain_text("uses this credential now")
    assert await statuses(site, "harbour") == ["active"]
    opened = await site.services.connections.open(tenant.id)
    assert opened.driver == slug

    await page.get_by_role("link", name="Rotate").click()
    await fill(page, site, slug)
    await page.get_by_role("button", name="Save and test").click()
    await page.get_by_role("link", name="Activate").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Put this credential to use?")
    await page.get_by_role("button", name="Activate").click()
    assert await statuses(site, "harbour") == ["active", "superseded"]

    await page.get_by_role("link", name="Roll back").click()
    await page.get_by_role("link", name="No, go back").click()
    assert await statuses(site, "harbour") == ["active", "superseded"]
    await page.get_by_role("link", name="Roll back").click()
    await page.get_by_role("button", name="Roll back").click()
    assert await statuses(site, "harbour") == ["superseded", "active"]

    for left in (2, 1):
        await page.get_by_role("link", name="Revoke").first.click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Revoke this credential?")
        await page.get_by_role("button", name="Revoke credential").click()
        await expect(page.get_by_role("status")).to_contain_text("is revoked")
        await expect(page.get_by_role("link", name="Revoke")).to_have_count(left - 1)
    assert await statuses(site, "harbour") == ["revoked", "revoked"]
    await expect(page.get_by_role("link", name="Connect again")).to_be_visible()


async def test_credential_when_the_crm_refuses_it_then_the_page_says_what_to_do(site: Site) -> None:
    await site.tenant("harbour", "Harbour Homes")
    page = await site.signed_in(Role.OPERATOR, java_script_enabled=False)
    await page.goto("/admin/tenants/harbour/crm/connect/odoo")
    await fill(page, site, "odoo", api_key="not-the-key")
    await page.get_by_role("button", name="Save and test").click()
    alert = page.get_by_role("alert")
    await expect(alert).to_contain_text("The live test failed")
    await expect(alert).to_contain_text("API key")
    assert await statuses(site, "harbour") == [CredentialStatus.PENDING.value]
    await expect(page.get_by_role("button", name="Activate")).to_have_count(0)


async def pressed_to(page: Page, name: str, *, most: int = 60) -> None:
    """Press Tab until what is focused has this name; fails when it cannot be reached, or shows no focus."""
    for _ in range(most):
        await page.keyboard.press("Tab")
        told = await page.evaluate(
            """() => { const at = document.activeElement; const style = getComputedStyle(at);
            const named = at.getAttribute("aria-label");
            const label = named || (at.labels && at.labels.length ? at.labels[0].innerText : at.innerText) || "";
            return [label.replace(/\\s+/g, " ").trim(), style.outlineStyle, style.outlineWidth]; }"""
        )
        if re.match(name, told[0]):
            assert told[1] != "none" and told[2] != "0px", f"{name} shows no focus"
            return
    raise AssertionError(f"{name} is not reached by Tab")


async def test_sign_in_and_connect_when_by_keyboard_alone_then_done(site: Site) -> None:
    await site.tenant("harbour", "Harbour Homes")
    email = await site.operator(Role.OPERATOR)
    page = await site.page()
    await page.goto("/admin")
    await pressed_to(page, "E-mail")
    await page.keyboard.type(email)
    await pressed_to(page, "Password")
    await page.keyboard.type(PASSWORD)
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", level=1, name="Overview").wait_for()

    await pressed_to(page, "Skip to content")
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "content"
    await pressed_to(page, "Connect$")
    await page.keyboard.press("Enter")
    await page.get_by_text("No CRM is connected").wait_for()
    await pressed_to(page, "Connect a CRM")
    await page.keyboard.press("Enter")
    await page.get_by_role("link", name="Choose Odoo").wait_for()
    await pressed_to(page, "Choose Odoo")
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Save and test").wait_for()
    labels = {"url": "URL", "database": "Database", "username": "User name", "api_key": "API key"}
    for name, text in site.form("odoo").items():
        await pressed_to(page, labels[name])
        await page.keyboard.type(text)
    await pressed_to(page, "Save and test")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("The live test passed")
    await pressed_to(page, "Activate")
    await page.keyboard.press("Space")
    await expect(page.get_by_role("status")).to_contain_text("uses this credential now")
    assert await statuses(site, "harbour") == ["active"]
    await pressed_to(page, "Sign out")
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", level=1, name="Sign in").wait_for()


async def test_sign_in_when_wrong_then_told_and_right_then_back_to_the_page_that_was_asked_for(
    site: Site,
) -> None:
    await site.tenant("harbour", "Harbour Homes")
    email = await site.operator(Role.AUDITOR)
    page = await site.page(java_script_enabled=False)
    await page.goto("/admin/audit?tenant=harbour")
    await page.get_by_label("E-mail").fill(email)
    await page.get_by_label("Password").fill("not the password at all")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_contain_text("not right")
    await expect(page.get_by_label("E-mail")).to_have_value(email)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Audit")
    await expect(page.get_by_label("Tenant")).to_have_value("harbour")


async def test_session_when_of_another_browser_then_strangers_see_the_sign_in_page(site: Site) -> None:
    email = await site.operator()
    mine, theirs = await site.page(), await site.page()
    await sign_in(mine, email)
    await theirs.goto("/admin")
    await expect(theirs.get_by_role("heading", level=1)).to_have_text("Sign in")
    cookies = {each["name"]: each for each in await mine.context.cookies()}
    session = cookies["crmbridge-session"]
    assert session["httpOnly"] and session["sameSite"] == "Lax"
    assert await mine.evaluate("document.cookie") == ""
    await mine.get_by_role("button", name="Sign out").click()
    await mine.go_back()
    await mine.reload()
    await expect(mine.get_by_role("heading", level=1)).to_have_text("Sign in")


async def test_form_when_posted_from_another_site_then_refused(site: Site) -> None:
    page = await site.signed_in()
    other = await page.context.new_page()
    # The same browser, so the cookie is there; another origin (another port of this host) posts the form.
    await other.route(
        "**/attack", lambda route: route.fulfill(content_type="text/html", body=_ATTACK.format(url=site.url))
    )
    address = str(site.emulators["odoo"].settings()["url"])
    await other.goto(f"{address}/attack")
    async with other.expect_response(re.compile("/admin/tenants/new")) as answer:
        await other.get_by_role("button").click()
    assert (await answer.value).status == 403
    assert await site.services.tenants.list() == []


_ATTACK = """<!doctype html><title>x</title><form method="post" action="{url}/admin/tenants/new">
<input name="slug" value="stolen"><input name="name" value="Stolen"><input name="vertical" value="general">
<input name="time_zone" value="UTC"><input name="unknown_slots" value="refuse"><button>Win</button></form>"""
