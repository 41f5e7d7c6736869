"""``crmbridge db status`` against a server."""

from __future__ import annotations

import asyncpg
import pytest

from crmbridge.cli.databases import _version
from crmbridge.db.roles import RoleDsns

pytestmark = pytest.mark.postgres


async def test_status_when_asked_then_tells_both_numbers_of_the_servers_version(
    database_dsns: RoleDsns,
) -> None:
    conn: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(database_dsns.app)
    try:
        number = int(await conn.fetchval("select current_setting('server_version_num')"))
    finally:
        await conn.close()
    assert number % 10000 != 0, "a first release cannot tell the two apart"
    assert await _version(database_dsns.app) == f"PostgreSQL {number // 10000}.{number % 10000}"
