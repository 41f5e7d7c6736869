"""Consent in a real browser, against the emulators' own pages: given, denied, replayed, forged, late; and by link."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page, Response
from tests.browser.conftest import Site, shot, violations

from crmbridge.core.manifest import AuthKind
from crmbridge.core.secret import Secret
from crmbridge.drivers import load, load_emulator, slugs
from crmbridge.emulation.serve import serve_emulators
from crmbridge.services.operators.model import Role

pytestmark = [pytest.mark.postgres, pytest.mark.browser, pytest.mark.timeout(180)]

CONSENTING = [slug for slug in slugs() if load(slug).MANIFEST.auth.kind is AuthKind.OAUTH_CODE]
FIRST = CONSENTING[0]
CRM = "/admin/tenants/harbour/crm"


@asynccontextmanager
async def provider(site: Site, slug: str) -> AsyncIterator[Any]:
    """The emulator of a provider on its own port, with our app registered there."""
    kind = load_emulator(slug)
    assert kind is not None
    emulator = kind()
    served = await serve_emulators({slug: emulator}, ports={slug: 0})
    app = emulator.oauth_app()
    await site.services.oauth.put_app(slug, app["client_id"], Secret(app["client_secret"]), "test")
    try:
        yield emulator
    finally:
        await served.close()


async def fill(page: Page, emulator: Any, slug: str) -> None:
    """What a connect form needs so that the emulator stands in for the provider."""
    for name, text in emulator.settings().items():
        place = page.locator(f'[name="setting.{name}"]')
        if await place.count():
            if await place.evaluate("each => each.tagName") == "SELECT":
                await place.select_option(text)
            else:
                await place.fill(text)


async def begin(page: Page, emulator: Any, slug: str) -> None:
    """From the connect form to the provider's own page."""
    await page.goto(f"{CRM}/connect/{slug}")
    await fill(page, emulator, slug)
    await page.get_by_role("button", name="Continue").click()
    await page.wait_for_url(f"http://{urlsplit(emulator.base_url).netloc}/**")


async def decide(page: Page, *, consents: bool = True) -> Response:
    """Allow (the first button) or deny on the provider's page; answers the page of our callback."""
    async with page.expect_response(lambda answer: "/oauth/callback" in answer.url) as callback:
        await page.locator("form button").nth(0 if consents else 1).click()
    answer = await callback.value
    await page.wait_for_load_state()
    return answer


@pytest.mark.parametrize("slug", CONSENTING)
async def test_consent_when_given_then_tested_and_put_to_use_in_the_console(site: Site, slug: str) -> None:
    await site.tenant("harbour", "Harbour Homes")
    async with provider(site, slug) as emulator:
        page = await site.signed_in(Role.OPERATOR)
        await begin(page, emulator, slug)
        await shot(page, f"consent-{slug}-provider")
        answer = await decide(page)
        assert answer.status == 200
        assert await page.locator("h1").inner_text() == "Connected"
        await shot(page, f"consent-{slug}-connected")
        assert await violations(page) == []
        await page.get_by_role("link", name="console").click()
        await page.get_by_role("button", name="Activate").click()
        await page.get_by_text("active", exact=True).first.wait_for()
        await shot(page, f"consent-{slug}-crm")
        assert await violations(page) == []
        listed = await site.services.connections.summaries((await site.services.tenants.get("harbour")).id)
        assert [(each.driver, each.status) for each in listed] == [(slug, "active")]


async def test_consent_when_javascript_is_off_then_it_works_all_the_same(site: Site) -> None:
    await site.tenant("harbour", "Harbour Homes")
    async with provider(site, FIRST) as emulator:
        page = await site.signed_in(Role.OPERATOR, java_script_enabled=False)
        await page.goto(f"{CRM}/connect/{FIRST}")
        wanted = {setting.name for setting in load(FIRST).MANIFEST.settings}
        for name, text in emulator.settings().items():
            if name in wanted:
                await page.locator(f'[name="setting.{name}"]').fill(text)
        await page.get_by_role("button", name="Continue").click()
        await page.wait_for_url(f"http://{urlsplit(emulator.base_url).netloc}/**")
        assert (await decide(page)).status == 200


async def test_consent_when_denied_then_a_plain_page_and_nothing_connected(site: Site) -> None:
    tenant = await site.tenant("harbour", "Harbour Homes")
    async with provider(site, FIRST) as emulator:
        page = await site.signed_in(Role.OPERATOR)
        await begin(page, emulator, FIRST)
        answer = await decide(page, consents=False)
        assert answer.status >= 400
        assert await page.locator("h1").inner_text() == "Not connected"
        await shot(page, "consent-denied")
        assert await violations(page) == []
    assert await site.services.connections.credentials(tenant) == []
    site.complaints.clear()  # the browser notes the status


async def test_callback_when_loaded_again_or_forged_then_refused(site: Site) -> None:
    tenant = await site.tenant("harbour", "Harbour Homes")
    async with provider(site, FIRST) as emulator:
        page = await site.signed_in(Role.OPERATOR)
        await begin(page, emulator, FIRST)
        address = (await decide(page)).url
        again = await page.goto(address)
        assert again is not None and again.status == 400
        assert await page.locator("h1").inner_text() == "Not connected"
        await begin(page, emulator, FIRST)
        state = address.partition("state=")[2].partition("&")[0]
        forged = await page.goto(address.replace(state, state[:-4] + "AAAA"))
        assert forged is not None and forged.status == 400
        # A callback that another browser carries: the cookie is not there.
        await begin(page, emulator, FIRST)
        other = await site.page()
        form = page.locator("form")
        fields: dict[str, str | float | bool] = {
            await each.get_attribute("name") or "": await each.get_attribute("value") or ""
            for each in await form.locator("input, button:first-of-type").all()
        }
        action = await form.get_attribute("action") or ""
        given = await page.request.post(action, form=fields, max_redirects=0)
        stolen = await other.goto(given.headers["location"])
        assert stolen is not None and stolen.status == 400
    assert len(await site.services.connections.credentials(tenant)) == 1
    site.complaints.clear()


async def test_begin_link_when_late_then_refused(site: Site) -> None:
    await site.tenant("harbour", "Harbour Homes")
    async with provider(site, FIRST) as emulator:
        tenant = await site.services.tenants.get("harbour")
        wanted = {setting.name for setting in load(FIRST).MANIFEST.settings}
        form = {name: text for name, text in emulator.settings().items() if name in wanted}
        link = await site.services.connections.consent.start(tenant, FIRST, form, actor="test")
        async with site.services.db.tenant(tenant.id) as conn:
            await conn.execute("update oauth_states set expires_at = now() - interval '1 second'")
        page = await site.page()
        answer = await page.goto(link.url)
        assert answer is not None and answer.status == 400
        await shot(page, "consent-late")
    site.complaints.clear()


async def test_auditor_when_connecting_then_refused_and_nothing_begun(site: Site) -> None:
    tenant = await site.tenant("harbour", "Harbour Homes")
    page = await site.signed_in(Role.AUDITOR)
    answer = await page.goto(f"{CRM}/connect/{FIRST}")
    assert answer is not None and answer.status == 403
    await page.goto(CRM)
    assert await page.get_by_role("link", name=re.compile(r"^Connect( |$)")).count() == 0
    assert await site.services.connections.credentials(tenant) == []
    site.complaints.clear()


async def made_link(page: Page, slug: str, emulator: Any = None) -> str:
    """An operator makes a connect link, and says where the provider is; its address as shown."""
    await page.goto(f"{CRM}/connect/{slug}")
    await page.get_by_role("link", name="by a connect link").click()
    await page.get_by_role("heading", level=2, name="A connect link").wait_for()
    assert await violations(page) == []
    if emulator is not None:
        await fill(page, emulator, slug)
    await page.get_by_role("button", name="Make a connect link").click()
    await page.get_by_role("heading", level=1, name="Connect link").wait_for()
    return await page.locator(".once code").inner_text()


async def test_connect_link_when_the_tenants_admin_consents_then_pending_for_the_operator(site: Site) -> None:
    await site.tenant("harbour", "Harbour Homes")
    async with provider(site, FIRST) as emulator:
        operator = await site.signed_in(Role.OPERATOR)
        address = await made_link(operator, FIRST, emulator)
        await shot(operator, "connect-link-made")
        assert await violations(operator) == []
        theirs = await site.page(viewport={"width": 360, "height": 740})
        await theirs.goto(address)
        assert await violations(theirs) == []
        await shot(theirs, "connect-link-phone")
        await fill(theirs, emulator, FIRST)
        await theirs.get_by_role("button", name="Continue").click()
        await theirs.wait_for_url(f"http://{urlsplit(emulator.base_url).netloc}/**")
        assert (await decide(theirs)).status == 200
        await operator.goto(CRM)
        await operator.get_by_text("pending", exact=True).first.wait_for()
        assert await theirs.locator('[name="setting.base_url"]').count() == 0
        # Their session reaches nothing else, and the link is spent once its credential is there.
        inside = await theirs.goto(f"{site.url}{CRM}")
        assert inside is not None and "/admin/sign-in" in theirs.url
        await theirs.goto(address)
        await fill(theirs, emulator, FIRST)
        await theirs.get_by_role("button", name="Continue").click()
        assert "not valid" in await theirs.locator("main").inner_text()
    site.complaints.clear()


async def test_connect_link_when_a_form_is_filled_in_then_tested_and_spent(site: Site) -> None:
    tenant = await site.tenant("harbour", "Harbour Homes")
    operator = await site.signed_in(Role.OPERATOR)
    address = await made_link(operator, "odoo")
    theirs = await site.page()
    await theirs.goto(address)
    for name, text in {**site.form("odoo"), "api_key": "not-the-key-of-this-user"}.items():
        await theirs.locator(f'[name="setting.{name}"]').fill(text)
    await theirs.get_by_role("button", name="Save and test").click()
    assert "live test failed" in await theirs.locator("main").inner_text()
    assert await violations(theirs) == []
    await theirs.locator('[name="setting.api_key"]').fill(site.form("odoo")["api_key"])
    await theirs.get_by_role("button", name="Save and test").click()
    await theirs.get_by_role("heading", level=1, name="Connected").wait_for()
    await shot(theirs, "connect-link-done")
    states = sorted(each.status.value for each in await site.services.connections.credentials(tenant))
    assert states == ["pending", "revoked"]
    other = await site.page()
    answer = await other.goto(address)
    assert answer is not None and answer.status == 400
    site.complaints.clear()


async def test_connect_link_when_expired_then_says_whom_to_ask(site: Site) -> None:
    tenant = await site.tenant("harbour", "Harbour Homes")
    made = await site.services.connections.links.make(tenant, "odoo", actor="test")
    async with site.services.db.tenant(tenant.id) as conn:
        await conn.execute("update connect_links set expires_at = now() - interval '1 second'")
    page = await site.page()
    answer = await page.goto(made.url)
    assert answer is not None and answer.status == 400
    assert "Ask whoever sent you the link" in await page.locator("main").inner_text()
    await shot(page, "connect-link-expired")
    site.complaints.clear()


async def test_rotation_when_consent_is_given_again_then_the_old_one_serves_until_activation(
    site: Site,
) -> None:
    tenant = await site.tenant("harbour", "Harbour Homes")
    async with provider(site, FIRST) as emulator:
        page = await site.signed_in(Role.OPERATOR)
        for turn in (1, 2):
            await begin(page, emulator, FIRST)
            assert (await decide(page)).status == 200
            await page.goto(CRM)
            if turn == 1:
                await page.get_by_role("button", name="Activate").click()
            else:
                states = [each.status.value for each in await site.services.connections.credentials(tenant)]
                assert states == ["pending", "active"]
                await page.get_by_role("link", name="Activate").click()
                await shot(page, "activate-confirm")
                await page.get_by_role("button", name="Activate").click()
            await page.get_by_text("active", exact=True).first.wait_for()
        states = [each.status.value for each in await site.services.connections.credentials(tenant)]
        assert states == ["active", "superseded"]
        await page.get_by_role("link", name="Revoke").last.click()
        await shot(page, "revoke-confirm")
        await page.get_by_role("button", name="Revoke").click()
        await page.get_by_text("revoked", exact=True).first.wait_for()
