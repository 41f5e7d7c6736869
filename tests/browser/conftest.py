"""A house on a real port with its console, stand-ins beside it, and Chromium in front of it.

``CRMBRIDGE_CHROMIUM`` names another program than Debian's; ``CRMBRIDGE_SCREENSHOTS`` the folder of the pictures.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright
from tests.e2e.acme.house import listening
from tests.needs import missing

from crmbridge.app import build_faces, running_services
from crmbridge.core.secret import Secret
from crmbridge.db.roles import RoleDsns
from crmbridge.drivers import load_emulator
from crmbridge.emulation.serve import serve_emulators
from crmbridge.services import Services
from crmbridge.services.operators.model import Role
from crmbridge.services.tenants.model import Tenant
from crmbridge.services.vault.master import new_master_key
from crmbridge.settings import Settings

CHROMIUM = Path(os.environ.get("CRMBRIDGE_CHROMIUM", "/usr/bin/chromium"))
SCREENSHOTS = Path(
    os.environ.get("CRMBRIDGE_SCREENSHOTS") or Path(__file__).parents[2] / ".ci-logs" / "screenshots"
)
PASSWORD = "seven quiet herons wade"
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class _Server(uvicorn.Server):
    def capture_signals(self) -> Any:
        return nullcontext()


@dataclass
class Site:
    """The running house. ``complaints`` gathers what a browser says against our pages."""

    services: Services
    url: str
    emulators: dict[str, Any]
    browser: Browser
    complaints: list[str] = field(default_factory=list)

    async def context(self, **options: Any) -> BrowserContext:
        """A new browser profile."""
        made = await self.browser.new_context(base_url=self.url, **options)
        made.set_default_timeout(15_000)
        return made

    async def page(self, **options: Any) -> Page:
        """A page of a new profile."""
        page = await (await self.context(**options)).new_page()
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        return page

    def _note(self, said: ConsoleMessage) -> None:
        # The pages of stand-ins are not ours. A page of ours with the status 4xx (a form with a wrong field, say) is
        # told as a failure to load, too.
        place = str(said.location.get("url", ""))
        is_ours = place.startswith(self.url) or not place.startswith("http")
        is_page = "status of 4" in said.text and not place.partition("?")[0].endswith((".css", ".svg"))
        if said.type == "error" and is_ours and not is_page:
            self.complaints.append(said.text)

    async def operator(self, role: Role = Role.ADMIN) -> str:
        """A new operator; answers the e-mail address."""
        email = f"{role.value}@example.com"
        await self.services.operators.add(email, f"Olga {role.value.title()}", role, PASSWORD, "test")
        return email

    async def signed_in(self, role: Role = Role.ADMIN, **options: Any) -> Page:
        """A page of a new operator who has signed in."""
        email = await self.operator(role)
        page = await self.page(**options)
        await sign_in(page, email)
        return page

    async def tenant(self, slug: str, name: str = "") -> Tenant:
        return await self.services.tenants.add(
            slug, name or slug.title(), "real_estate", region="AE", actor="test"
        )

    def form(self, slug: str) -> dict[str, str]:
        """What its stand-in wants in a connect form."""
        emulator = self.emulators[slug]
        return {**emulator.settings(), **emulator.secrets()}

    async def connected(self, tenant: Tenant, slug: str, name: str = "primary") -> Any:
        """Connect, test and activate without the console."""
        connections = self.services.connections
        made = await connections.connect(tenant, slug, self.form(slug), actor="test", name=name)
        assert (await connections.test(tenant, made.id, actor="test")).ok
        return await connections.activate(tenant, made.id, actor="test")


async def sign_in(page: Page, email: str, password: str = PASSWORD) -> None:
    """By the form, as a person does."""
    await page.goto("/admin/sign-in")
    await page.get_by_label("E-mail").fill(email)
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("heading", level=1, name="Overview").wait_for()


async def shot(page: Page, name: str) -> None:
    """A picture of the whole page."""
    await asyncio.to_thread(SCREENSHOTS.mkdir, parents=True, exist_ok=True)
    await page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


async def violations(page: Page, *rules: str) -> list[str]:
    """What axe finds wrong with the page, one line each; by these rules only, or by all and the size of targets."""
    chosen: dict[str, Any] = (
        {"runOnly": {"type": "rule", "values": list(rules)}}
        if rules
        else {"rules": {"target-size": {"enabled": True}}}
    )
    found = await Axe().run(page, options={"resultTypes": ["violations"], **chosen})
    return [
        f"{each['id']}: {node['html'][:160]} {' '.join(node.get('failureSummary', '').split())[:200]}"
        for each in found.response["violations"]
        for node in each["nodes"]
    ]


@pytest.fixture
async def site(database_dsns: RoleDsns, tmp_path: Path) -> AsyncIterator[Site]:
    if not CHROMIUM.exists():
        # A missing part is a skip on somebody's machine, and a failure in CI.
        missing(f"no Chromium at {CHROMIUM}")
    bound = listening()
    port = bound.getsockname()[1]
    made = new_master_key()
    settings = Settings(
        database_url=database_dsns.app,
        database_scheduler_url=database_dsns.scheduler,
        data_dir=tmp_path,
        master_key=Secret(made if ":" in made else f"k1:{made}"),
        egress_allow=("127.0.0.1",),
        port=port,
        public_url=f"http://127.0.0.1:{port}",
    )
    emulators: dict[str, Any] = {}
    for slug in ("custom_webhook", "odoo", "rest_api"):
        kind = load_emulator(slug)
        assert kind is not None
        emulators[slug] = kind()
    served = await serve_emulators(emulators, ports=dict.fromkeys(emulators, 0))
    async with running_services(settings) as services, async_playwright() as playwright:
        server = _Server(uvicorn.Config(build_faces(services, settings), log_config=None, lifespan="off"))
        stop = asyncio.Event()
        tasks = [
            asyncio.create_task(server.serve(sockets=[bound])),
            asyncio.create_task(services.jobs.run(stop)),
        ]
        while not server.started:
            await asyncio.sleep(0.01)
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        site = Site(services, settings.base_url, emulators, browser)
        yield site
        await browser.close()
        server.should_exit = True
        stop.set()
        await asyncio.gather(*tasks)
    await served.close()
    assert site.complaints == []
