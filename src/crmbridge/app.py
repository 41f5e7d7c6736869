"""The composition root: the one file that knows everybody. Builds the services of a process and runs its faces."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crmbridge.services import Services
    from crmbridge.services.operators import Oidc
    from crmbridge.services.vault import Vault
    from crmbridge.services.watch import Watch
    from crmbridge.settings import Settings
    from crmbridge.toolkit.egress import Egress

# All else is imported where it is used: `crmbridge --help` and the commands that only call a server stay quick.

__all__ = ["ADMIN_KEY_FILE", "build_faces", "main", "running_services", "serve", "work"]

# Where `serve` leaves the first operator's API key on a new embedded installation (mode 0600).
ADMIN_KEY_FILE = "admin.key"


@asynccontextmanager
async def running_services(settings: Settings) -> AsyncIterator[Services]:
    """All services of one process over a migrated database; everything is closed on the way out.

    Raises MasterKeyMissing before anything starts, DatabaseUnavailable, DatabaseMisconfigured (a superuser, an
    owner or a BYPASSRLS role; migrations that are not applied, or a newer version's that took away what this one uses).
    """
    from crmbridge import metrics, tracing
    from crmbridge._version import __version__
    from crmbridge.db.clock import DatabaseClock
    from crmbridge.db.jobs import PgQueuerJobs
    from crmbridge.db.pool import Database
    from crmbridge.db.roles import check_role
    from crmbridge.db.schema import require_schema
    from crmbridge.db.signals import Signals
    from crmbridge.drivers import load
    from crmbridge.services import Services
    from crmbridge.services.audit import AuditLog
    from crmbridge.services.connections.service import Connections
    from crmbridge.services.delivery.service import Delivery
    from crmbridge.services.incidents import Incidents
    from crmbridge.services.mapping.service import Mapping
    from crmbridge.services.oauth.service import OAuth
    from crmbridge.services.operators import Operators
    from crmbridge.services.tenants import Tenants
    from crmbridge.services.vault import Vault, provider_from
    from crmbridge.services.watch import Watch
    from crmbridge.toolkit.egress import Egress, EgressPolicy

    provider = provider_from(settings)
    async with AsyncExitStack() as stack:
        if settings.traces:
            tracing.start()
            stack.callback(tracing.stop)
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
        await require_schema(db.scheduler)
        jobs = await PgQueuerJobs.open(scheduler_dsn, prepared_statements=settings.prepared_statements)
        stack.push_async_callback(jobs.close)
        policy = EgressPolicy(allow=settings.egress_allow)
        egress = Egress(policy, user_agent=f"crmbridge/{__version__}", on_refused=metrics.note_egress_refusal)
        stack.push_async_callback(egress.close)

        audit = AuditLog(db)
        stack.push_async_callback(audit.close)
        incidents = Incidents(db, audit)
        vault = Vault(db, provider)
        await vault.installation()
        operators = Operators(db, audit, oidc=_oidc(settings, vault, egress))
        tenants = Tenants(db, audit, vault.create_tenant_keys)
        oauth = OAuth(db=db, audit=audit, vault=vault, egress=egress, base_url=settings.base_url)
        mapping = Mapping(db, audit)
        connections = Connections(
            db=db,
            audit=audit,
            incidents=incidents,
            tenants=tenants,
            vault=vault,
            oauth=oauth,
            egress=egress,
            policy=policy,
            load_driver=load,
        )
        stack.push_async_callback(connections.close)
        clock = DatabaseClock(db, on_leap=metrics.note_clock_leap)
        clock.on_set_back.append(jobs.mend_times)
        signals = Signals(db, scheduler_dsn, prepared_statements=settings.prepared_statements)
        delivery = Delivery(
            db=db,
            vault=vault,
            connections=connections,
            audit=audit,
            incidents=incidents,
            jobs=jobs,
            signals=signals,
            clock=clock,
        )
        signals.start()
        stack.push_async_callback(signals.close)
        clock.start()
        stack.push_async_callback(clock.close)
        stack.push_async_callback(delivery.close)
        connections.ahead.register(jobs)
        delivery.register(jobs, concurrency=settings.worker_concurrency)
        yield Services(
            db=db,
            jobs=jobs,
            audit=audit,
            incidents=incidents,
            operators=operators,
            tenants=tenants,
            vault=vault,
            oauth=oauth,
            mapping=mapping,
            connections=connections,
            delivery=delivery,
            watch=Watch(
                db=db,
                vault=vault,
                jobs=jobs,
                connections=connections,
                delivery=delivery,
                incidents=incidents,
                data_dir=settings.data_dir if settings.is_embedded else None,
                token=settings.metrics_token,
            ),
        )


def _oidc(settings: Settings, vault: Vault, egress: Egress) -> Oidc | None:
    """Sign-in of operators elsewhere, when it is set up."""
    from crmbridge.services.operators import Oidc

    if not settings.oidc_issuer:
        return None
    return Oidc(
        issuer=settings.oidc_issuer,
        client_id=settings.oidc_client_id,
        client_secret=settings.oidc_client_secret,
        redirect_uri=f"{settings.base_url}/admin/oidc/callback",
        label=settings.oidc_name,
        is_required=settings.oidc_required,
        seals=vault,
        transport=egress,
    )


async def _database(settings: Settings, stack: AsyncExitStack) -> tuple[str, str]:
    """The addresses of both roles: an embedded server, started and migrated, or the one that is configured."""
    from crmbridge.db.schema import migrate, pending

    if settings.is_embedded:
        from crmbridge.db.embedded import EmbeddedPostgres

        postgres = EmbeddedPostgres(settings.data_dir, bin_dir=settings.pg_bindir)
        await stack.enter_async_context(postgres)
        keeper = asyncio.create_task(postgres.supervise())
        stack.callback(keeper.cancel)
        applied = await migrate(postgres.owner_dsn)
        if applied:
            _log().info("database.migrated", applied=len(applied))
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


def build_faces(services: Services, settings: Settings) -> Any:
    """The ASGI application of ``serve``: the console under ``/admin`` and ``/connect``, the API for everything else."""
    from crmbridge.api.server import build_api
    from crmbridge.console.server import build_console

    api = build_api(services, max_body_bytes=settings.max_body_bytes)
    console = build_console(services, trusted_proxies=settings.trusted_proxies)

    async def faces(scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        face = console if path == "/admin" or path.startswith(("/admin/", "/connect/")) else api
        await face(scope, receive, _closing(send) if services.watch.is_stopping else send)

    return faces


def _closing(send: Any) -> Any:
    """Whoever keeps the connection is told to open another one, which then is to another process."""

    async def closing(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await send(message)

    return closing


async def serve(settings: Settings, *, with_worker: bool = True) -> None:
    """The API and, unless told otherwise, a worker in the same process, until SIGINT or SIGTERM."""
    import uvicorn

    class Server(uvicorn.Server):
        """uvicorn raises the signal again when it has stopped: we would end before worker and database do."""

        def capture_signals(self) -> Any:
            return nullcontext()

    async with running_services(settings) as services:
        key_file = await first_admin_key(services, settings.data_dir)
        if key_file is not None:
            _log().info("admin.key_made", file=str(key_file), hint="the command line uses it by itself")
        if not await services.operators.are_there():
            _log().info(
                "operators.none",
                console=f"{settings.base_url}/admin",
                hint="nobody can sign in yet; make the first admin: crmbridge operators add EMAIL --role admin",
            )
        server = Server(
            uvicorn.Config(
                build_faces(services, settings),
                host=settings.host,
                port=settings.port,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                lifespan="off",
                timeout_graceful_shutdown=settings.shutdown_seconds,
            )
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(
                number, _stop, server, services.watch, settings.shutdown_delay_seconds
            )
        await services.tenants.remember_names()
        _get_ready()
        stop = asyncio.Event()
        # The longer time is only a bound: _finish below ends it.
        grace = settings.shutdown_seconds + 5
        worker = asyncio.create_task(services.jobs.run(stop, grace_seconds=grace)) if with_worker else None
        watcher = asyncio.create_task(_announce(server, settings))
        try:
            await server.serve()
        except SystemExit:
            raise _port_taken(settings) from None
        finally:
            stop.set()
            watcher.cancel()
            if worker is not None:
                await _finish(worker, settings.shutdown_seconds)
        _log().info("stopped")


def _get_ready() -> None:
    """Before the first request or job: no write waits for what is loaded late, nor while the collector walks it."""
    import aiohttp  # noqa: F401
    import phonenumbers  # noqa: F401

    # What is loaded by now stays.
    gc.collect()
    gc.freeze()
    # A request makes some thousand objects, nearly all without cycles.
    gc.set_threshold(20_000, 20, 20)


def _stop(server: Any, watch: Watch, delay_seconds: float) -> None:
    """The first signal ends gracefully, a second one at once.

    With ``delay_seconds`` the first one lets callers go elsewhere before; a second one ends that, a third is at once.
    """
    if not watch.is_stopping:
        watch.is_stopping = True
        if delay_seconds and server.started:
            _log().info("stopping.soon", seconds=delay_seconds)
            asyncio.get_running_loop().call_later(delay_seconds, setattr, server, "should_exit", True)
            return
    server.force_exit = server.should_exit
    server.should_exit = True


async def _finish(worker: asyncio.Task[None], seconds: float) -> None:
    done, _ = await asyncio.wait({worker}, timeout=seconds)
    if not done:
        worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)


def _port_taken(settings: Settings) -> Exception:
    from crmbridge.core.errors import Fix, NotConfigured

    return NotConfigured(
        f"The server could not listen on {settings.host}:{settings.port}; something else may hold the port.",
        fix=Fix("choose_port", "Stop the other process, or set CRMBRIDGE_PORT (and CRMBRIDGE_HOST)."),
    )


async def work(settings: Settings) -> None:
    """Only a worker, until SIGINT or SIGTERM."""
    from crmbridge.worker.run import stop_on_signal
    from crmbridge.worker.run import work as run

    # A process that is stopped while it starts ends in order too.
    stop = stop_on_signal()
    async with running_services(settings) as services:
        _get_ready()
        await run(
            services,
            stop,
            host=settings.host,
            port=settings.worker_port,
            grace_seconds=settings.shutdown_seconds,
        )


async def _announce(server: Any, settings: Settings) -> None:
    while not server.started:  # noqa: ASYNC110 - uvicorn offers a flag, no event
        await asyncio.sleep(0.02)
    _log().info("serving", url=settings.base_url, docs=f"{settings.base_url}/api/openapi.json")


def _log() -> Any:
    import structlog

    return structlog.get_logger("crmbridge.app")


def main() -> None:
    """The console script: the command line over the processes of this file."""
    from crmbridge.cli.main import build
    from crmbridge.cli.processes import Processes

    command = (sys.executable, "-m", "crmbridge.app")
    build(Processes(serve=serve, work=work, services=running_services, command=command))()


if __name__ == "__main__":
    main()
