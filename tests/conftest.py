"""PostgreSQL for tests: one server per pytest process, one fresh migrated database per test.

The server is an embedded one in a temporary folder (about a second), or the one that
``CRMBRIDGE_TEST_DATABASE_ADMIN_URL`` names: a test server, for the passwords of our three roles are set on it.
Each test gets a copy of a migrated template, made by PostgreSQL in a few tens of milliseconds.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
import logging
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
import structlog
from tests.needs import folder_for_all, missing

from crmbridge import tracing
from crmbridge.db.cluster import find_binaries
from crmbridge.db.embedded import EmbeddedPostgres
from crmbridge.db.errors import EmbeddedPostgresFailed
from crmbridge.db.pool import Database, connect
from crmbridge.db.roles import OWNER, RoleDsns, RolePasswords, create_roles, dsn_for, prepare_database
from crmbridge.db.schema import migrate
from crmbridge.logs import configure_logs

_NUMBERS = itertools.count(1)


@dataclass
class PostgresServer:
    """A running server with a migrated template database."""

    admin_dsn: str
    passwords: RolePasswords
    template: str = field(default_factory=lambda: f"crmbridge_test_{os.getpid()}_template")

    async def prepare(self) -> None:
        dsns = await create_roles(self.admin_dsn, self.passwords, database=self.template)
        await migrate(dsns.owner)

    @asynccontextmanager
    async def new_database(self, *, empty: bool = False) -> AsyncIterator[RoleDsns]:
        """Yield the three addresses of a database of its own, dropped afterwards; ``empty`` = not migrated."""
        name = f"crmbridge_test_{os.getpid()}_{next(_NUMBERS)}"
        if empty:
            await create_roles(self.admin_dsn, self.passwords, database=name)
        else:
            await self._execute(f"create database {name} owner {OWNER} template {self.template}")
            await prepare_database(urlunsplit(urlsplit(self.admin_dsn)._replace(path=f"/{name}")))
        roles = (("crmbridge_owner", "owner"), ("crmbridge_app", "app"), ("crmbridge_scheduler", "scheduler"))
        try:
            yield RoleDsns(
                *(
                    dsn_for(self.admin_dsn, user=user, password=getattr(self.passwords, key), database=name)
                    for user, key in roles
                )
            )
        finally:
            await self.drop(name)

    async def drop(self, name: str) -> None:
        await self._execute(f"drop database if exists {name} with (force)")

    async def _execute(self, statement: str) -> None:
        conn = await connect(self.admin_dsn)
        try:
            await conn.execute(statement)
        finally:
            await conn.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The server of this pytest process (each xdist worker has its own database or its own server)."""
    named = os.environ.get("CRMBRIDGE_TEST_DATABASE_ADMIN_URL")
    if named:
        # The same for every xdist worker: roles belong to the whole server.
        secret = hashlib.sha256(named.encode()).hexdigest()[:24]
        server = PostgresServer(named, RolePasswords(secret, secret, secret))
        asyncio.run(server.prepare())
        yield server
        asyncio.run(server.drop(server.template))
        return
    try:
        find_binaries()
    except EmbeddedPostgresFailed as error:
        # A missing part is a skip on somebody's machine, and a failure in CI.
        missing(f"no PostgreSQL: {error.message}")
    # Not under tmp_path: its parent is closed to the user that PostgreSQL runs as when the tests run as root.
    folder = Path(tempfile.mkdtemp(prefix="crmb-test-"))
    embedded = EmbeddedPostgres(folder, durable=False)
    try:
        asyncio.run(embedded.start())
        server = PostgresServer(embedded.admin_dsn, embedded.passwords)
        asyncio.run(server.prepare())
        yield server
    finally:
        asyncio.run(embedded.stop())
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A fresh folder that another user may enter."""
    with folder_for_all("crmb-own-") as made:
        yield made


@pytest.fixture
async def database_dsns(postgres: PostgresServer) -> AsyncIterator[RoleDsns]:
    """The addresses of a fresh migrated database: for tests that start processes."""
    async with postgres.new_database() as dsns:
        yield dsns


@pytest.fixture
async def database(database_dsns: RoleDsns) -> AsyncIterator[Database]:
    """A ``Database`` on a fresh migrated database."""
    opened = await Database.open(database_dsns.app, database_dsns.scheduler)
    yield opened
    await opened.close()


@pytest.fixture
def spans() -> Iterator[Any]:
    """Where the spans of this process are kept: an ``InMemorySpanExporter``."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracing.start(provider)
    yield kept
    tracing.stop()


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """What is logged, as JSON lines from debug on."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    stream = io.StringIO()
    configure_logs("json", "debug", stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()
