"""Renewals ahead of expiry over many tokens: what is read to find those that are due, and how many go at once."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest

from crmbridge.db.pool import Database
from crmbridge.services.connections import store
from crmbridge.services.connections.ahead import Ahead

pytestmark = pytest.mark.postgres

_TENANT = "insert into tenants (id, slug, name, vertical) values ($1, 'a', 'A', 'general')"
_CONNECTIONS = """
insert into connections (id, tenant_id, name, driver, created_by)
select gen_random_uuid(), $1, 'c' || n, 'custom_webhook', 'test' from generate_series(1, $2::int) as n
"""
_CREDENTIALS = """
insert into tenant_credentials (id, tenant_id, connection_id, driver, status, sealed, created_by, refresh_due_at)
select gen_random_uuid(), $1, id, driver, 'active', '', 'test',
    now() + case when name in ('c1', 'c2') then interval '-1 second' else interval '1 hour' end
from connections
"""


async def _tokens(database: Database, count: int) -> UUID:
    tenant_id = uuid4()
    async with database.tenant(tenant_id) as conn:
        await conn.execute(_TENANT, tenant_id)
        await conn.execute(_CONNECTIONS, tenant_id, count)
        await conn.execute(_CREDENTIALS, tenant_id)
    return tenant_id


async def test_due_tokens_when_most_are_due_later_then_those_are_not_read(database: Database) -> None:
    tenant_id = await _tokens(database, 500)
    async with database.system() as conn:
        due = await store.due_tokens(conn, 200)
        await conn.execute("set local enable_seqscan = off")
        plan = await conn.fetch(f"explain (analyze, costs off) {store._DUE_TOKENS}".replace("$1", "200"))
    text = "\n".join(row[0] for row in plan)
    assert [owner for owner, _ in due] == [tenant_id] * 2
    assert "Index Cond: (refresh_due_at <= " in text
    assert "Rows Removed" not in text


async def test_renewals_when_two_hundred_are_due_then_a_few_at_once_and_all_of_them(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [(uuid4(), uuid4()) for _ in range(200)]

    async def due(conn: object, most: int) -> list[tuple[UUID, UUID]]:
        return ids[:most]

    monkeypatch.setattr(store, "due_tokens", due)
    ahead = Ahead(db=database, tenants=None, lending=None, load_driver=None)  # type: ignore[arg-type]
    seen: list[UUID] = []
    now, most = 0, 0

    async def renew(tenant_id: UUID, credential_id: UUID) -> bool:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        seen.append(credential_id)
        return True

    monkeypatch.setattr(ahead, "_renew", renew)
    assert await ahead.run() == 200
    assert len(set(seen)) == 200
    assert 2 <= most <= 8
