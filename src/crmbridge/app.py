"""The composition root: the one file that knows everybody. Builds the services of a process and runs its faces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog

from crmbridge._version import __version__
from crmbridge.db.embedded import EmbeddedPostgres
from crmbridge.db.jobs import PgQueuerJobs
from crmbridge.db.pool import Database
from crmbridge.db.roles import check_role
from crmbridge.db.schema import migrate, pending
from crmbridge.drivers import load
from crmbridge.services import Services
from crmbridge.services.audit import AuditLog
from crmbridge.services.connections.service import Connections
from crmbridge.services.delivery.service import Delivery
from crmbridge.services.incidents import Incidents
from crmbridge.services.mapping.service import Mapping
from crmbridge.services.tenants import Tenants
from crmbridge.services.vault import Vault, provider_from
from crmbridge.settings import Settings
from crmbridge.toolkit.egress import Egress, EgressPolicy

__all__ = ["ADMIN_KEY_FILE", "running_services", "serve"]

_log = structlog.get_logger("crmbridge.app")

# Where `serve` leaves the first operator's API key on a new embedded installation (mode 0600).
ADMIN_KEY_FILE = "admin.key"


@asynccontextmanager
async def running_services(settings: Settings) -> AsyncIterator[Services]:
    """All services of one process over a migrated database; everything is closed on the way out.

    Raises MasterKeyMissing before anything starts, DatabaseUnavailable, DatabaseMisconfigured (a superuser, an
    owner or a BYPASSRLS role; migrations that are not applied).
    """
    provider = provider_from(settings)
    async with AsyncExitStack() as stack:
        app_dsn, scheduler_dsn = await _database(settings, stack)
        db = await Database.open(
            app_dsn,
            scheduler_dsn,
            app_connections=settings.pool_size,
            scheduler_connections=settings.scheduler_pool_size,
            prepared_statements=settings.prepared_statements,
        )
        stack.push_async_callback(db.close)
        for pool in (db.app, db.scheduler):
            async with pool.acquire() as conn:
                await check_role(conn)
        jobs = await PgQueuerJobs.open(scheduler_dsn)
        stack.push_async_callback(jobs.close)
        policy = EgressPolicy(allow=settings.egress_allow)
        egress = Egress(policy, user_agent=f"crmbridge/{__version__}")
        stack.push_async_callback(egress.close)

        audit = AuditLog(db)
        incidents = Incidents(db, audit)
        vault = Vault(db, provider)
        await vault.installation()
        tenants = Tenants(db, audit, vault.create_tenant_keys)
        mapping = Mapping(db, audit)
        connections = Connections(
            db=db,
            audit=audit,
            incidents=incidents,
            tenants=tenants,
            vault=vault,
            mapping=mapping,
            egress=egress,
            policy=policy,
            load_driver=load,
        )
        delivery = Delivery(
            db=db, vault=vault, connections=connections, audit=audit, incidents=incidents, jobs=jobs
        )
        stack.push_async_callback(delivery.close)
        delivery.register(jobs, concurrency=settings.worker_concurrency)
        yield Services(
            db=db,
            jobs=jobs,
            audit=audit,
            incidents=incidents,
            tenants=tenants,
            vault=vault,
            mapping=mapping,
            connections=connections,
            delivery=delivery,
        )


async def _database(settings: Settings, stack: AsyncExitStack) -> tuple[str, str]:
    """The addresses of both roles: an embedded server, started and migrated, or the one that is configured."""
    if settings.is_embedded:
        postgres = await stack.enter_async_context(
            EmbeddedPostgres(settings.data_dir, bin_dir=settings.pg_bindir)
        )
        applied = await migrate(postgres.owner_dsn)
        if applied:
            _log.info("database.migrated", applied=len(applied))
        return postgres.app_dsn, postgres.scheduler_dsn
    if settings.database_owner_url:
        missing = await pending(settings.database_owner_url)
        if missing:
            await migrate(settings.database_owner_url)
    return settings.database_url, settings.database_scheduler_url


async def first_admin_key(services: Services, folder: Path) -> Path | None:
    """On a new installation, make an operator's API key and leave it in a file; None when keys exist already."""
    if await services.tenants.list_keys(None):
        return None
    _, token = await services.tenants.create_key(None, "first operator", ["admin"], "system")
    return await asyncio.to_thread(_write_private, folder / ADMIN_KEY_FILE, token + "\n")


def _write_private(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600, exist_ok=True)
    path.chmod(0o600)
    path.write_text(text, encoding="ascii")
    return path


async def serve(
    settings: Settings, *, with_worker: bool = True, started: asyncio.Event | None = None
) -> None:
    """The API and, unless told otherwise, a worker in the same process, until SIGINT or SIGTERM."""
    import uvicorn

    from crmbridge.api.server import build_api

    async with running_services(settings) as services:
        key_file = await first_admin_key(services, settings.data_dir)
        if key_file is not None:
            _log.info("admin.key_made", file=str(key_file), hint="the command line uses it by itself")
        stop = asyncio.Event()
        worker = asyncio.create_task(services.jobs.run(stop)) if with_worker else None
        server = uvicorn.Server(
            uvicorn.Config(
                build_api(services, max_body_bytes=settings.max_body_bytes),
                host=settings.host,
                port=settings.port,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=settings.shutdown_seconds,
            )
        )
        watcher = asyncio.create_task(_announce(server, settings, started))
        try:
            await server.serve()
        finally:
            stop.set()
            watcher.cancel()
            if worker is not None:
                await worker


async def _announce(server: object, settings: Settings, started: asyncio.Event | None) -> None:
    while not getattr(server, "started", False):  # noqa: ASYNC110 - uvicorn offers a flag, no event
        await asyncio.sleep(0.02)
    _log.info("serving", url=settings.base_url, docs=f"{settings.base_url}/api/openapi.json")
    if started is not None:
        started.set()
