"""A house on a real loopback port with Acme beside it; what a person with a browser does is an httpx client."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from tests.e2e.acme.emulator import CLIENT, AcmeEmulator

from crmbridge.api.server import build_api
from crmbridge.app import running_services
from crmbridge.core.secret import Secret
from crmbridge.db.roles import RoleDsns
from crmbridge.drivers import DRIVERS
from crmbridge.emulation.serve import serve_emulators
from crmbridge.services import Services
from crmbridge.services.tenants.model import Tenant
from crmbridge.settings import Settings

ACME_DRIVERS = {
    "acme": "tests.e2e.acme.driver:Acme",
    "acme_machine": "tests.e2e.acme.driver:AcmeMachine",
    "acme_login": "tests.e2e.acme.driver:AcmeLogin",
}


class _Server(uvicorn.Server):
    def capture_signals(self) -> Any:
        return nullcontext()


@dataclass
class AcmeHouse:
    """``http`` is the operator, :meth:`browser` a person; both over real sockets."""

    services: Services
    settings: Settings
    acme: AcmeEmulator
    http: httpx.AsyncClient
    tenant: Tenant

    @property
    def path(self) -> str:
        return f"/api/tenants/{self.tenant.slug}"

    def browser(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.settings.base_url, timeout=30)

    async def put_app(self, name: str = "acme-app", secret: str = "") -> httpx.Response:
        body = {"client_id": name, "client_secret": secret or CLIENT[name]}
        return await self.http.put("/api/oauth/apps/acme", json=body)

    async def start(self, **body: Any) -> dict[str, Any]:
        answer = await self.http.post(
            f"{self.path}/oauth/acme/start", json={"settings": self.acme.settings(), **body}
        )
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def consent(self, **body: Any) -> httpx.Response:
        """The whole way of a person: link, provider, callback. Returns the last page."""
        link = await self.start(**body)
        async with self.browser() as browser:
            return await browser.get(link["url"], follow_redirects=True)

    async def connected(self) -> str:
        """Consent given and the credential put to use; its id."""
        await self.put_app()
        link = await self.start()
        async with self.browser() as browser:
            page = await browser.get(link["url"], follow_redirects=True)
        assert page.status_code == 200, page.text
        await self.activate(link["flow_id"])
        return str(link["flow_id"])

    async def by_form(self, driver: str, **settings: str) -> str:
        body = {"driver": driver, "settings": {**self.acme.settings(), **settings}}
        answer = await self.http.post(f"{self.path}/credentials", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def activate(self, credential_id: str) -> None:
        answer = await self.http.post(f"{self.path}/credentials/{credential_id}/activate")
        assert answer.status_code == 200, answer.text

    async def credential(self, credential_id: str) -> dict[str, Any]:
        answer = await self.http.get(f"{self.path}/credentials")
        found = [each for each in answer.json()["credentials"] if each["id"] == credential_id]
        assert found, answer.text
        return dict(found[0])

    async def recent(self) -> httpx.Response:
        return await self.http.get(f"{self.path}/records/customer")

    async def actions(self) -> list[str]:
        rows = await self.services.audit.read(self.tenant.id, limit=1000)
        return [row.action for row in rows]


def listening() -> socket.socket:
    """A socket bound to a loopback port from 20000 to 27999, kept so that no other test takes the port."""
    for port in random.sample(range(20000, 28000), 200):
        bound = socket.socket()
        try:
            bound.bind(("127.0.0.1", port))
        except OSError:
            bound.close()
            continue
        return bound
    raise AssertionError("no port from 20000 to 27999 is free")


@asynccontextmanager
async def acme_house(dsns: RoleDsns, master_key: Secret, folder: Path) -> AsyncIterator[AcmeHouse]:
    bound = listening()
    port = bound.getsockname()[1]
    settings = Settings(
        database_url=dsns.app,
        database_scheduler_url=dsns.scheduler,
        data_dir=folder,
        master_key=master_key,
        egress_allow=("127.0.0.1",),
        port=port,
        public_url=f"http://127.0.0.1:{port}",
    )
    acme = AcmeEmulator()
    patch = pytest.MonkeyPatch()
    for slug, place in ACME_DRIVERS.items():
        patch.setitem(DRIVERS, slug, place)
    served = await serve_emulators({"acme": acme}, ports={"acme": 0})
    async with running_services(settings) as services:
        api = build_api(services, max_body_bytes=settings.max_body_bytes)
        server = _Server(uvicorn.Config(api, log_config=None, lifespan="off"))
        stop = asyncio.Event()
        tasks = [
            asyncio.create_task(server.serve(sockets=[bound])),
            asyncio.create_task(services.jobs.run(stop)),
        ]
        while not server.started:
            await asyncio.sleep(0.01)
        _, token = await services.tenants.create_key(None, "operator", ["admin"], "test")
        tenant = await services.tenants.add("clinic", "Clinic", actor="test")
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=settings.base_url, headers=headers, timeout=60) as http:
            yield AcmeHouse(services=services, settings=settings, acme=acme, http=http, tenant=tenant)
        server.should_exit = True
        stop.set()
        await asyncio.gather(*tasks)
    await served.close()
    patch.undo()
