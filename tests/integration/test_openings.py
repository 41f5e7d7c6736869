"""Opening a connection: one statement for all that a call needs, which shows nothing of others and believes no change
away.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import date
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from tests.integration.test_delivery_statements import PLANS

from crmbridge.core.driver import CrmDriver
from crmbridge.core.errors import NotConfigured, NotFound, Unsupported
from crmbridge.core.records import Object
from crmbridge.core.secret import Secret
from crmbridge.db.pool import Database
from crmbridge.drivers import load
from crmbridge.services.audit import AuditLog
from crmbridge.services.connections import store as connections_store
from crmbridge.services.connections.opening import Openings
from crmbridge.services.connections.opening import service as opening_service
from crmbridge.services.connections.opening import store as opening_store
from crmbridge.services.mapping.model import Rule
from crmbridge.services.mapping.service import Mapping
from crmbridge.services.tenants import Tenant, Tenants
from crmbridge.services.tenants.model import Gate
from crmbridge.services.vault import EnvKeyProvider, Vault

pytestmark = pytest.mark.postgres

MASTER = f"k1:{base64.b64encode(os.urandom(32)).decode()}"
DRIVER = "custom_webhook"
PAPERS = Gate(
    baa_reference="BAA-1",
    baa_signatory="A. Signatory",
    baa_signed_on=date(2026, 1, 2),
    reviewer="R. Reviewer",
    reviewed_on=date(2026, 1, 3),
)


class Process:
    """What one process keeps of tenants, keys and connections, and how many statements it has sent."""

    def __init__(self, db: Database, *, cache_seconds: float = 5.0) -> None:
        self.db = db
        self.audit = AuditLog(db)
        self.vault = Vault(db, EnvKeyProvider(Secret(MASTER)))
        self.tenants = Tenants(db, self.audit, self.vault.create_tenant_keys, cache_seconds=cache_seconds)
        self.mapping = Mapping(db, self.audit)
        self.routes: dict[UUID, list[str]] = {}
        self.load: Callable[[str], type[CrmDriver]] = load
        self.openings = Openings(
            db=db,
            tenants=self.tenants,
            vault=self.vault,
            load_driver=lambda name: self.load(name),
            learn_routes=lambda tenant_id, rows: self.routes.update({tenant_id: [row.name for row in rows]}),
        )
        self.sent = 0
        for name in ("alone", "peek", "tenant", "system"):
            self._count(name)

    def _count(self, name: str) -> None:
        """One statement alone is one round trip; a transaction is more, and no business of an opening."""
        method = getattr(self.db, name)

        def counted(*values: Any) -> Any:
            self.sent += 1 if name in ("alone", "peek") else 100
            return method(*values)

        setattr(self.db, name, counted)

    async def connected(self, slug: str, *names: str) -> tuple[Tenant, list[UUID]]:
        """A tenant with an active credential on each of these connections."""
        tenant = await self.tenants.add(slug, slug, "real_estate", "AE", "UTC")
        ids = []
        for name in names or ("primary",):
            ids.append(await self.credential(tenant, name, f"https://{slug}-{name}.example"))
        return tenant, ids

    async def credential(self, tenant: Tenant, name: str, url: str) -> UUID:
        """A new credential in use; answers its connection."""
        own_id = uuid4()
        sealed = await self.vault.seal_credential(
            {"secret": Secret(url)}, tenant_id=tenant.id, driver=DRIVER, credential_id=own_id, row_version=1
        )
        async with self.db.tenant(tenant.id) as conn:
            connection_id, _ = await connections_store.ensure_connection(
                conn, uuid4(), tenant.id, name, DRIVER, "test"
            )
            await connections_store.insert_credential(
                conn,
                credential_id=own_id,
                tenant_id=tenant.id,
                connection_id=connection_id,
                driver=DRIVER,
                row_version=1,
                sealed=sealed,
                settings={"url": url},
                previous_id=None,
                actor="test",
            )
            await connections_store.activate(conn, connection_id, own_id)
        return connection_id

    async def url(self, tenant: Tenant, name: str = "primary") -> str:
        """The setting and the secret of the credential that a call would use now: they are one text here."""
        _, opened = await self.openings.open(tenant.id, name=name)
        credential = opened.credential
        secrets = await self.vault.open_credential(
            opened.held.sealed,
            tenant_id=tenant.id,
            driver=DRIVER,
            credential_id=credential.id,
            row_version=credential.row_version,
        )
        assert secrets["secret"].open() == credential.settings["url"]
        return credential.settings["url"]


@pytest.fixture
async def here(database: Database) -> AsyncIterator[Process]:
    """The process of the test, which makes tenants and changes them."""
    process = Process(database)
    yield process
    await process.openings.close()


@pytest.fixture
async def elsewhere(database: Database, here: Process) -> AsyncIterator[Process]:
    """Another process on the same database."""
    process = await _other(database)
    yield process
    await process.openings.close()
    await process.db.close()


async def _other(database: Database, options: str = "") -> Process:
    return Process(await Database.open(database._app_dsn + options, database._scheduler_dsn))


async def test_open_when_nothing_is_known_then_two_statements_and_afterwards_none(
    here: Process, elsewhere: Process
) -> None:
    tenant, (connection_id,) = await here.connected("a")
    assert await elsewhere.tenants.get("a") == tenant
    assert elsewhere.sent == 1
    found, opened = await elsewhere.openings.open(tenant.id)
    assert (found, opened.row.id) == (tenant, connection_id)
    assert elsewhere.sent == 2
    by_id = await elsewhere.openings.open(tenant.id, connection_id=connection_id)
    assert by_id == (tenant, opened)
    assert (await elsewhere.vault.keys(tenant.id)).tenant_id == tenant.id
    assert await elsewhere.tenants.gate(tenant.id) == Gate()
    assert await elsewhere.tenants.get(str(tenant.id)) == tenant
    assert elsewhere.routes == {tenant.id: ["primary"]}
    assert elsewhere.sent == 3  # the id as a text was new, and is found once


async def test_open_when_by_id_of_a_tenant_never_seen_then_one_statement(
    here: Process, elsewhere: Process
) -> None:
    tenant, (connection_id,) = await here.connected("a")
    found, _ = await elsewhere.openings.open(tenant.id, connection_id=connection_id)
    await elsewhere.vault.keys(tenant.id)
    assert (found, elsewhere.sent) == (tenant, 1)


async def test_tenant_when_its_time_is_over_then_it_comes_with_its_connection_in_one_statement(
    here: Process, elsewhere: Process
) -> None:
    tenant, _ = await here.connected("a")
    await elsewhere.tenants.get("a")
    elsewhere.vault.forget(tenant.id)
    elsewhere.tenants._tenants._entries.clear()
    before = elsewhere.sent
    assert await elsewhere.tenants.get("a") == tenant
    await elsewhere.openings.open(tenant.id)
    await elsewhere.vault.keys(tenant.id)
    assert elsewhere.sent == before + 1


async def test_names_when_remembered_at_the_start_then_a_first_call_needs_one_statement(
    here: Process, elsewhere: Process
) -> None:
    (tenant, _), (closed, _) = await here.connected("a"), await here.connected("b")
    async with here.db.tenant(closed.id) as conn:
        await conn.execute("update tenants set closed_at = now()")
    await elsewhere.tenants.remember_names()
    before = elsewhere.sent
    assert await elsewhere.tenants.get("a") == tenant
    await elsewhere.openings.open(tenant.id)
    await elsewhere.vault.keys(tenant.id)
    assert elsewhere.sent == before + 1
    assert (await elsewhere.tenants.get("b")).closed_at is not None
    with pytest.raises(NotFound):
        await elsewhere.tenants.get("c")


async def test_key_of_a_tenant_when_used_then_one_statement_and_its_tenant_comes_with_the_connection(
    here: Process, elsewhere: Process
) -> None:
    tenant, _ = await here.connected("a")
    _, token = await here.tenants.create_key(tenant, "k", ["write:*"], "test")
    principal = await elsewhere.tenants.authenticate(token)
    assert (principal.tenant_id, elsewhere.sent) == (tenant.id, 1)
    assert await elsewhere.tenants.get("a") == tenant
    await elsewhere.openings.open(tenant.id)
    assert elsewhere.sent == 2


async def test_open_when_many_ask_at_once_then_one_statement_and_one_answer(
    here: Process, elsewhere: Process
) -> None:
    tenant, _ = await here.connected("a")
    answers = await asyncio.gather(*(elsewhere.openings.open(tenant.id) for _ in range(20)))
    assert elsewhere.sent == 1
    assert all(opened is answers[0][1] for _, opened in answers)


async def test_open_when_one_caller_is_cancelled_then_the_others_get_their_answer(
    here: Process, elsewhere: Process
) -> None:
    tenant, _ = await here.connected("a")
    first, second = (asyncio.create_task(elsewhere.openings.open(tenant.id)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second)[0] == tenant
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_open_when_there_is_no_such_thing_then_it_says_what_is_missing(here: Process) -> None:
    tenant, _ = await here.connected("a", "second")
    bare = await here.tenants.add("b", "B")
    with pytest.raises(NotFound, match="no such tenant"):
        await here.openings.open(uuid4())
    with pytest.raises(NotFound, match="third"):
        await here.openings.open(tenant.id, name="third")
    with pytest.raises(NotConfigured, match="'primary'"):
        await here.openings.open(bare.id)
    with pytest.raises(NotConfigured, match="the connection"):
        await here.openings.open(tenant.id, connection_id=uuid4())
    async with here.db.tenant(tenant.id) as conn:
        await conn.execute("update tenant_credentials set status = 'revoked'")
    here.openings.forget(tenant.id)
    with pytest.raises(NotConfigured, match="'second'"):
        await here.openings.open(tenant.id, name="second")


async def test_open_when_the_driver_is_not_there_then_refused_and_the_tenant_is_found_all_the_same(
    here: Process, database: Database
) -> None:
    tenant, _ = await here.connected("a")
    process = Process(database, cache_seconds=0)

    def refuse(name: str) -> type[CrmDriver]:
        raise Unsupported(f"no driver {name}")

    process.load = refuse
    for _ in range(2):
        assert await process.tenants.get("a") == tenant
        with pytest.raises(Unsupported):
            await process.openings.open(tenant.id)


# -- isolation ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=sorted(PLANS))
async def forced(request: pytest.FixtureRequest, database: Database) -> AsyncIterator[Process]:
    """A process whose every connection plans in one way, with generic plans from the start."""
    settings = dict.fromkeys(PLANS[request.param], "off") | {"plan_cache_mode": "force_generic_plan"}
    mark = "&" if "?" in database._app_dsn else "?"
    process = await _other(database, mark + "&".join(f"{name}={value}" for name, value in settings.items()))
    yield process
    await process.db.close()


async def _filled(here: Process, slug: str) -> tuple[Tenant, list[UUID]]:
    tenant, ids = await here.connected(slug, "primary", f"{slug}-crm")
    await here.tenants.record_gate(tenant, PAPERS, "test")
    for connection_id in ids:
        await here.mapping.put(
            tenant, connection_id, load(DRIVER), {"lead.email": Rule(path=f"of_{slug}")}, "test"
        )
    return tenant, ids


async def test_statement_when_planned_in_any_way_then_it_sees_its_tenant_and_no_other(
    here: Process, forced: Process
) -> None:
    (one, one_ids), (two, two_ids) = await _filled(here, "one"), await _filled(here, "two")

    async def find(setting: UUID, tenant_id: UUID, which: UUID | str) -> opening_store.Found | None:
        return await forced.db.alone(
            setting,
            lambda conn, text: opening_store.find(conn, text, tenant_id, which, with_keys=True),
        )

    for which in ("primary", one_ids[0]):
        found = await find(one.id, one.id, which)
        assert found is not None and found.row is not None and found.row.held is not None
        assert (found.tenant, found.row.id) == (one, one_ids[0])
        assert found.gate.is_open and found.gate.baa_signed_on == PAPERS.baa_signed_on
        assert [row.name for row in found.siblings] == ["primary", "one-crm"]
        assert found.overrides[Object.LEAD]["email"].path == "of_one"
        assert {(key.tenant_id, key.purpose) for key in found.keys} == {(one.id, "data"), (one.id, "index")}
        assert found.row.held.credential.settings == {"url": "https://one-primary.example"}
        # The tables have what is asked for; the policies do not show it under another tenant's setting.
        assert await find(one.id, two.id, which) is None
    strange = await find(one.id, one.id, two_ids[0])
    assert strange is not None and strange.row is None and strange.overrides == {}
    assert [row.name for row in strange.siblings] == ["primary", "one-crm"]


async def test_statement_when_it_forgets_to_filter_then_the_policies_still_do(
    here: Process, forced: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, ids), _ = await _filled(here, "one"), await _filled(here, "two")
    forgetful = opening_store._BY_NAME
    for filter_ in (
        " and o.tenant_id = t.id",
        " and tenant_id = t.id",
        " and m.connection_id = c.id",
        " and t.id = $2",
    ):
        assert forgetful.count(filter_) == 1
        forgetful = forgetful.replace(filter_, " and $2::uuid is not null" if "$2" in filter_ else "")
    monkeypatch.setattr(opening_store, "_BY_NAME", forgetful)
    found = await forced.db.alone(
        one.id, lambda conn, text: opening_store.find(conn, text, one.id, "primary", with_keys=True)
    )
    assert found is not None and found.row is not None
    assert (found.tenant.id, found.row.id) == (one.id, ids[0])
    assert [row.name for row in found.siblings] == ["primary", "one-crm"]
    assert len(found.keys) == 2
    assert {rule.path for rule in found.overrides[Object.LEAD].values()} == {"of_one"}


async def test_wrapped_keys_when_not_asked_for_then_not_read(here: Process) -> None:
    tenant, _ = await here.connected("a")
    found = await here.db.alone(
        tenant.id, lambda conn, text: opening_store.find(conn, text, tenant.id, "primary", with_keys=False)
    )
    assert found is not None and found.keys == []


# -- changes -----------------------------------------------------------------------------------------------------------


async def _rotate(here: Process, tenant: Tenant, connection_id: UUID) -> None:
    await here.credential(tenant, "primary", "https://new.example")


async def _map(here: Process, tenant: Tenant, connection_id: UUID) -> None:
    await here.mapping.put(tenant, connection_id, load(DRIVER), {"lead.email": Rule(path="mail_to")}, "test")


async def _pause(here: Process, tenant: Tenant, connection_id: UUID) -> None:
    async with here.db.tenant(tenant.id) as conn:
        await conn.execute("update connections set paused_at = now()")


async def _revoke(here: Process, tenant: Tenant, connection_id: UUID) -> None:
    async with here.db.tenant(tenant.id) as conn:
        await conn.execute("update tenant_credentials set status = 'revoked'")


async def _state(process: Process, tenant: Tenant) -> object:
    try:
        found, opened = await process.openings.open(tenant.id)
    except NotConfigured:
        return "not configured"
    path = opened.field_map(found, Object.LEAD).native_path("email")
    return await process.url(tenant), path, opened.row.is_paused


@pytest.mark.parametrize("change", [_rotate, _map, _pause, _revoke])
async def test_change_when_made_here_then_here_at_once_and_elsewhere_when_its_reading_is_old(
    here: Process,
    elsewhere: Process,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Process, Tenant, UUID], Awaitable[None]],
) -> None:
    tenant, (connection_id,) = await here.connected("a")
    before = await _state(here, tenant)
    assert await _state(elsewhere, tenant) == before
    await change(here, tenant, connection_id)
    here.openings.forget(tenant.id)
    after = await _state(here, tenant)
    assert after != before
    assert await _state(elsewhere, tenant) == before
    monkeypatch.setattr(opening_service, "FRESH_SECONDS", 0.0)
    assert await _state(elsewhere, tenant) == after


class Held:
    """Keeps the answer of the next statement of a tenant back, until it is let go."""

    def __init__(self, db: Database) -> None:
        self.was_read, self.goes = asyncio.Event(), asyncio.Event()
        self._db, self._alone = db, db.alone
        db.alone = self  # type: ignore[method-assign]

    async def __call__(self, tenant_id: UUID, call: Any) -> Any:
        self._db.alone = self._alone  # type: ignore[method-assign]
        answer = await self._alone(tenant_id, call)
        self.was_read.set()
        await self.goes.wait()
        return answer


async def test_change_when_made_during_a_reading_then_what_was_read_is_not_kept(here: Process) -> None:
    tenant, _ = await here.connected("a")
    held = Held(here.db)
    early = asyncio.create_task(here.openings.open(tenant.id))
    await held.was_read.wait()
    await here.credential(tenant, "primary", "https://new.example")
    here.openings.forget(tenant.id)
    late = asyncio.create_task(here.url(tenant))
    assert await late == "https://new.example"
    held.goes.set()
    assert (await early)[1].credential.settings["url"] == "https://a-primary.example"
    assert await here.url(tenant) == "https://new.example"


async def test_gate_when_closed_during_a_reading_then_it_is_closed_here_at_once(here: Process) -> None:
    tenant, _ = await here.connected("a")
    await here.tenants.record_gate(tenant, PAPERS, "test")
    held = Held(here.db)
    early = asyncio.create_task(here.openings.open(tenant.id))
    await held.was_read.wait()
    await here.tenants.close_gate(tenant, "test")
    held.goes.set()
    await early
    assert not (await here.tenants.gate(tenant.id)).is_open


async def test_keys_when_destroyed_during_a_reading_then_they_are_not_learned(here: Process) -> None:
    tenant, _ = await here.connected("a")
    here.vault.forget(tenant.id)
    held = Held(here.db)
    early = asyncio.create_task(here.openings.open(tenant.id))
    await held.was_read.wait()
    async with here.db.tenant(tenant.id) as conn:
        await here.vault.destroy_tenant_keys(conn, tenant.id)
    held.goes.set()
    await early
    with pytest.raises(NotFound):
        await here.vault.keys(tenant.id)


async def test_tenant_when_closed_elsewhere_then_seen_when_the_reading_is_old(
    here: Process, elsewhere: Process
) -> None:
    tenant, _ = await here.connected("a")
    assert (await elsewhere.tenants.get("a")).closed_at is None
    async with here.db.tenant(tenant.id) as conn:
        await conn.execute("update tenants set closed_at = now()")
    assert (await elsewhere.tenants.get("a")).closed_at is None
    elsewhere.tenants._tenants._seconds = 0.0
    assert (await elsewhere.tenants.get("a")).closed_at is not None


async def test_tenant_when_its_slug_becomes_anothers_then_the_slug_finds_the_other(
    here: Process, database: Database
) -> None:
    tenant, _ = await here.connected("a")
    process = Process(database, cache_seconds=0)
    assert (await process.tenants.get("a")).id == tenant.id
    async with here.db.tenant(tenant.id) as conn:
        await conn.execute("update tenants set slug = 'old-a'")
    other = await here.tenants.add("a", "Other")
    assert (await process.tenants.get("a")).id == other.id
    assert (await process.tenants.get("a")).id == other.id


async def test_newer_tokens_when_the_connection_is_read_again_then_an_older_row_does_not_replace_them(
    here: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, _ = await here.connected("a")
    _, opened = await here.openings.open(tenant.id)
    newer = msgspec.structs.replace(
        opened.held, credential=msgspec.structs.replace(opened.credential, row_version=2)
    )
    opened.keep(newer)
    monkeypatch.setattr(opening_service, "FRESH_SECONDS", 0.0)
    assert (await here.openings.open(tenant.id))[1].credential.row_version == 2
