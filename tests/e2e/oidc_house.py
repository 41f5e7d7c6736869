"""A console with sign-in by OpenID Connect, its provider, and somebody in front of both."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.e2e.console_visitor import BASE, PASSWORD, Visitor, visitor
from tests.e2e.oidc_provider import CLIENT_ID, CLIENT_SECRET, Provider, running_provider

from crmbridge.app import running_services
from crmbridge.core.secret import Secret
from crmbridge.db.roles import RoleDsns
from crmbridge.services import Services
from crmbridge.services.audit import AuditRow
from crmbridge.services.operators import Oidc
from crmbridge.services.vault.master import new_master_key
from crmbridge.settings import Settings
from crmbridge.toolkit.egress import Egress, EgressPolicy

__all__ = ["CALLBACK", "Clock", "assert_refused", "clock", "go", "guest", "last_row", "provider", "services"]

CALLBACK = "/admin/oidc/callback"


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with running_provider() as provider:
        yield provider


@pytest.fixture
async def services(database_dsns: RoleDsns, provider: Provider, tmp_path: Path) -> AsyncIterator[Services]:
    """Services as ``serve`` builds them, with Ann as the one operator."""
    made = new_master_key()
    settings = Settings(
        database_url=database_dsns.app,
        database_scheduler_url=database_dsns.scheduler,
        data_dir=tmp_path,
        master_key=Secret(made if ":" in made else f"k1:{made}"),
        egress_allow=("127.0.0.1",),
        oidc_issuer=provider.issuer,
        oidc_client_id=CLIENT_ID,
        oidc_client_secret=Secret(CLIENT_SECRET),
        oidc_name="Sign in with Harbour",
    )
    async with running_services(settings) as services:
        await services.operators.add("ann@example.com", "Ann", "operator", PASSWORD, "test")
        yield services


@pytest.fixture
async def guest(services: Services) -> AsyncIterator[Visitor]:
    async with visitor(services, None) as guest:
        yield guest


class Clock:
    """``ahead`` moves the steady clock of what is cached, ``late`` the time of day."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.late = 0.0

    def now(self) -> float:
        return time.monotonic() + self.ahead

    def clock(self) -> float:
        return time.time() + self.late


@pytest.fixture
async def clock(services: Services, provider: Provider) -> AsyncIterator[Clock]:
    """The same set-up with clocks that a test can put forward."""
    clock = Clock()
    egress = Egress(EgressPolicy(("127.0.0.1",)))
    services.operators.oidc = Oidc(
        issuer=provider.issuer,
        client_id=CLIENT_ID,
        client_secret=Secret(CLIENT_SECRET),
        redirect_uri=f"{BASE}{CALLBACK}",
        seals=services.vault,
        transport=egress,
        clock=clock.clock,
        now=clock.now,
    )
    yield clock
    await egress.close()


async def go(guest: Visitor, provider: Provider, **changes: str) -> httpx.Response:
    """From the button to the page after the callback."""
    there = await guest.get("/admin/oidc")
    assert there.status_code == 303, there.text
    return await guest.get(f"{CALLBACK}?{provider.consent(there.headers['location'], **changes)}")


async def last_row(services: Services) -> AuditRow:
    return (await services.audit.read(None))[0]


async def assert_refused(
    services: Services, guest: Visitor, page: httpx.Response, reason: str, status: int = 401
) -> None:
    """A page in our words, a row with the reason and nothing personal, no session, and the flow is over."""
    assert page.status_code == status, page.text
    assert "crmbridge-session" not in guest.http.cookies and "crmbridge-flow" not in guest.http.cookies
    assert (await guest.get("/admin")).status_code == 303
    row = await last_row(services)
    assert (row.actor, row.action) == ("nobody", "operator.sign_in_failed")
    assert row.details == {"method": "oidc", "reason": reason}
    assert "@" not in str(row) and "subject-1" not in str(row)
