"""Many connected tenants in little time: rows as the product makes them, each with keys and a seal of its own.

The first tenant is connected through the services, live test included. The others are its rows again under ids of their
own: keys wrapped by the master key, the credential sealed by the vault under the tenant's key. The product opens them
like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4

import asyncpg

from benchmarks.house import Prepared
from crmbridge.db.embedded import DATABASE
from crmbridge.services import Services
from crmbridge.services.tenants.model import Tenant

__all__ = ["Member", "administered", "connected_crowd"]

_CHUNK = 500
_AT_ONCE = 8

_TENANTS = """
insert into tenants (id, slug, name, vertical, region, time_zone)
select * , 'real_estate', 'AE', 'UTC' from unnest($1::uuid[], $2::text[], $2::text[])
"""
_CONNECTIONS = """
insert into connections (id, tenant_id, name, driver, created_by)
select n.id, n.tenant_id, c.name, c.driver, c.created_by
from unnest($2::uuid[], $3::uuid[]) as n (id, tenant_id), connections c where c.id = $1
"""
_CREDENTIALS = """
insert into tenant_credentials (id, tenant_id, connection_id, driver, status, row_version, sealed, settings, facts,
    scopes, missing_rights, account, created_by, tested_at, activated_at, expires_at, refresh_due_at)
select n.id, n.tenant_id, n.connection_id, k.driver, k.status, 1, n.sealed, k.settings, k.facts, k.scopes,
    k.missing_rights, k.account, k.created_by, k.tested_at, k.activated_at, k.expires_at, k.refresh_due_at
from unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::bytea[]) as n (id, tenant_id, connection_id, sealed),
    tenant_credentials k where k.id = $1
"""
_LANES = "insert into lanes (connection_id, tenant_id) select * from unnest($1::uuid[], $2::uuid[])"


class Member:
    """One connected tenant of the crowd."""

    __slots__ = ("connection_id", "slug", "tenant_id")

    def __init__(self, tenant_id: UUID, slug: str, connection_id: UUID) -> None:
        self.tenant_id = tenant_id
        self.slug = slug
        self.connection_id = connection_id


@asynccontextmanager
async def administered(house: Prepared) -> AsyncIterator[Any]:
    """A superuser's connection to the product's database: for preparing and for looking, never for the product."""
    dsn = urlunsplit(urlsplit(house.postgres.admin_dsn)._replace(path=f"/{DATABASE}"))
    conn = await asyncpg.connect(dsn, server_settings={"search_path": "crmbridge, public"})
    try:
        yield conn
    finally:
        await conn.close()


async def connected_crowd(
    house: Prepared, services: Services, driver: str, form: dict[str, str], count: int
) -> list[Member]:
    """``count`` tenants with one active connection each."""
    tenant, connection_id, credential_id = await _first(services, driver, form)
    members = [Member(tenant.id, tenant.slug, connection_id)]
    async with administered(house) as admin:
        row = await admin.fetchrow(
            "select sealed, row_version, driver from tenant_credentials where id = $1", credential_id
        )
        secrets = await services.vault.open_credential(
            row["sealed"],
            tenant_id=tenant.id,
            driver=row["driver"],
            credential_id=credential_id,
            row_version=row["row_version"],
        )
        while len(members) < count:
            start = len(members)
            new = [
                Member(uuid4(), f"crowd-{number:06}", uuid4())
                for number in range(start, min(start + _CHUNK, count))
            ]
            async with admin.transaction():
                slugs = [member.slug for member in new]
                ids = [member.tenant_id for member in new]
                await admin.execute(_TENANTS, ids, slugs)
                for member in new:
                    await services.vault.create_tenant_keys(admin, member.tenant_id)
            credentials = [uuid4() for _ in new]
            gate = asyncio.Semaphore(_AT_ONCE)

            async def sealed(member: Member, own_id: UUID, gate: asyncio.Semaphore = gate) -> bytes:
                async with gate:
                    return await services.vault.seal_credential(
                        secrets,
                        tenant_id=member.tenant_id,
                        driver=driver,
                        credential_id=own_id,
                        row_version=1,
                    )

            seals = await asyncio.gather(*map(sealed, new, credentials))
            async with admin.transaction():
                connection_ids = [member.connection_id for member in new]
                await admin.execute(_CONNECTIONS, connection_id, connection_ids, ids)
                await admin.execute(_CREDENTIALS, credential_id, credentials, ids, connection_ids, seals)
                await admin.execute(_LANES, connection_ids, ids)
            members += new
        # What autovacuum does within minutes of such a load.
        await admin.execute("analyze")
    return members


async def _first(services: Services, driver: str, form: dict[str, str]) -> tuple[Tenant, UUID, UUID]:
    tenant = await services.tenants.add("crowd-000000", "Crowd", "real_estate", "AE", "UTC", "bench")
    credential = await services.connections.connect(tenant, driver, form, actor="bench")
    report = await services.connections.test(tenant, credential.id, actor="bench")
    if not report.ok:
        raise RuntimeError(f"the emulator refused the connection: {report.error}")
    await services.connections.activate(tenant, credential.id, actor="bench")
    return tenant, credential.connection_id, credential.id
