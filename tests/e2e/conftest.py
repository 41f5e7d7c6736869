"""A whole house per test: real PostgreSQL, the HTTP face, a worker, and emulators over loopback sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.acme.house import AcmeHouse, acme_house

from crmbridge.api.server import build_api
from crmbridge.app import running_services
from crmbridge.core.secret import Secret
from crmbridge.db.roles import RoleDsns
from crmbridge.drivers import load_emulator
from crmbridge.emulation.serve import serve_emulators
from crmbridge.services import Services
from crmbridge.services.vault.master import new_master_key
from crmbridge.settings import Settings


@dataclass
class House:
    """The running parts, and shortcuts in the words of the HTTP contract."""

    services: Services
    http: httpx.AsyncClient
    emulators: dict[str, Any]
    admin: str

    def key(self, token: str | None = None) -> dict[str, str]:
        """The header of a key; the operator's without a token."""
        return {"Authorization": f"Bearer {token or self.admin}"}

    async def call(self, method: str, path: str, *, token: str | None = None, **rest: Any) -> httpx.Response:
        """One call as the operator, or with another token."""
        headers = {**self.key(token), **rest.pop("headers", {})}
        return await self.http.request(method, path, headers=headers, **rest)

    async def tenant(self, slug: str, **rest: Any) -> str:
        """A new tenant; answers its slug."""
        body = {"slug": slug, "name": slug.title(), "vertical": "real_estate", "region": "AE", **rest}
        answer = await self.call("POST", "/api/tenants", json=body)
        assert answer.status_code == 201, answer.text
        return slug

    async def token(self, tenant: str, *scopes: str) -> str:
        """A new API key of a tenant."""
        body = {"name": "agent", "scopes": list(scopes)}
        answer = await self.call("POST", f"/api/tenants/{tenant}/keys", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    async def connect(self, tenant: str, slug: str, **changes: str) -> str:
        """Connect, test and activate a driver against its emulator; answers the credential's id."""
        emulator = self.emulators[slug]
        settings = {**emulator.settings(), **emulator.secrets(), **changes}
        path = f"/api/tenants/{tenant}/credentials"
        made = await self.call("POST", path, json={"driver": slug, "settings": settings})
        assert made.status_code == 201, made.text
        credential_id = str(made.json()["id"])
        tested = await self.call("POST", f"{path}/{credential_id}/test")
        assert tested.json()["ok"], tested.text
        active = await self.call("POST", f"{path}/{credential_id}/activate")
        assert active.json()["status"] == "active", active.text
        return credential_id


OpenHouse = Callable[..., AbstractAsyncContextManager[House]]
WAIT = {"Prefer": "wait=10"}
PERSON = {
    "first_name": "Mariam",
    "last_name": "Reyes",
    "email": "mariam@example.com",
    "phone": "+14155550123",
}
PAPERS = {
    "baa_reference": "BAA-2026-14",
    "baa_signatory": "Dr. Ann Lee",
    "baa_signed_on": "2026-10-01",
    "reviewer": "Sam Roe",
    "reviewed_on": "2026-10-20",
}
"""What opens the gate for health data."""


@pytest.fixture
def master_key() -> Secret:
    made = new_master_key()
    return Secret(made if ":" in made else f"k1:{made}")


@pytest.fixture
def open_house(database_dsns: RoleDsns, master_key: Secret, tmp_path: Path) -> OpenHouse:
    """Opens a house with the emulators of the named drivers; ``ports`` and settings as they are wanted."""

    @asynccontextmanager
    async def opened(
        *slugs: str, ports: dict[str, int] | None = None, **settings: Any
    ) -> AsyncIterator[House]:
        made = Settings(
            database_url=database_dsns.app,
            database_scheduler_url=database_dsns.scheduler,
            data_dir=tmp_path,
            master_key=master_key,
            egress_allow=("127.0.0.1",),
            **settings,
        )
        emulators: dict[str, Any] = {}
        for slug in slugs:
            kind = load_emulator(slug)
            assert kind is not None
            emulators[slug] = kind()
        served = await serve_emulators(emulators, ports=ports)
        async with running_services(made) as services:
            stop = asyncio.Event()
            worker = asyncio.create_task(services.jobs.run(stop))
            _, admin = await services.tenants.create_key(None, "operator", ["admin"], "test")
            app: Any = build_api(services, max_body_bytes=made.max_body_bytes)
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://house", timeout=30) as http:
                yield House(services=services, http=http, emulators=emulators, admin=admin)
            stop.set()
            await worker
        await served.close()

    return opened


@pytest.fixture
async def house(open_house: OpenHouse) -> AsyncIterator[House]:
    """API, worker and the emulators of all form-based drivers."""
    slugs = ("custom_webhook", "odoo", "rest_api")
    async with open_house(*slugs, ports={"odoo": 0}, max_body_bytes=64 * 1024) as house:
        yield house


@pytest.fixture
async def acme(database_dsns: RoleDsns, master_key: Secret, tmp_path: Path) -> AsyncIterator[AcmeHouse]:
    """A house with a provider of our own making, over real sockets."""
    async with acme_house(database_dsns, master_key, tmp_path) as house:
        yield house
