"""Connections, pools, and the transaction that belongs to a tenant.

Every tenant table has forced row-level security on the transaction-local setting ``crmbridge.tenants``. It is set
here and nowhere else: ``Database.tenant`` and ``Database.alone`` (one tenant), ``Database.tenants`` and
``Database.at_once`` (the accept flusher only), ``Database.system`` (the scheduler role, content-free tables only). The
statements of ``alone`` and ``at_once`` set the value that they are handed themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import msgspec

from crmbridge.db.at_hand import AtHand, is_gone
from crmbridge.db.errors import DatabaseMisconfigured, DatabaseUnavailable, describe_dsn
from crmbridge.db.hosts import CONNECT_SECONDS, Hosts

T = TypeVar("T")

__all__ = ["Database", "clear_errors", "connect", "patient", "savepoint", "setting_first"]

# A server that restarts refuses connections for about a second; a caller waits that out rather than fail.
CONNECT_PATIENCE_SECONDS = 5.0
_RETRY_PAUSE_SECONDS = 0.1

_REFUSED = (
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)
_GONE = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.exceptions.ConnectionDoesNotExistError,
    asyncpg.InternalClientError,  # asyncpg 0.32 says this when the server ends a connection between two statements
    asyncpg.ReadOnlySQLTransactionError,  # a standby that is not promoted yet
    asyncpg.IdleInTransactionSessionTimeoutError,  # this process stood still in a transaction
)
_STANDBY = (asyncpg.ReadOnlySQLTransactionError, asyncpg.TargetServerAttributeNotMatched)


class PooledConnection(asyncpg.Connection):  # type: ignore[misc]
    """A connection that is not reset on release: one round trip less per transaction.

    It is sound because nothing here leaves session state: settings are transaction-local, advisory locks are of
    the transaction, cursors live in transactions. An open transaction is still rolled back by asyncpg.
    """

    def get_reset_query(self) -> str:
        return ""


async def _set_codecs(conn: Any) -> None:
    for name, prefix in (("jsonb", b"\x01"), ("json", b"")):
        await conn.set_type_codec(
            name,
            schema="pg_catalog",
            format="binary",
            encoder=_json_encoder(prefix),
            decoder=_json_decoder(prefix),
        )


def _json_encoder(prefix: bytes) -> Any:
    """Return a function of any msgspec-encodable value to the wire form (jsonb begins with a version byte)."""
    return lambda value: prefix + msgspec.json.encode(value)


def _json_decoder(prefix: bytes) -> Any:
    skip = len(prefix)
    return lambda data: msgspec.json.decode(memoryview(data)[skip:])


@contextmanager
def clear_errors(dsn: str) -> Iterator[None]:
    """Turn a lost or refused connection into ``DatabaseUnavailable``, a wrong login into ``DatabaseMisconfigured``."""
    try:
        yield
    except _REFUSED as error:
        raise DatabaseMisconfigured(f"The database {describe_dsn(dsn)} refused the login: {error}") from None
    except (*_GONE, OSError) as error:
        raise _unavailable(dsn, error, "cannot be reached") from None


async def connect(dsn: str, *, patience_seconds: float = CONNECT_PATIENCE_SECONDS) -> Any:
    """Open one connection of its own (migrations, checks); the caller closes it."""
    with clear_errors(dsn):
        return await patient(Hosts(dsn).connect, patience_seconds)


def _unavailable(dsn: str, error: BaseException, what: str) -> DatabaseUnavailable:
    if isinstance(error, _STANDBY):
        return DatabaseUnavailable(
            f"The database {describe_dsn(dsn)} takes no writes: only a standby answers there, or no other server does."
        )
    return DatabaseUnavailable(f"The database {describe_dsn(dsn)} {what} ({type(error).__name__}).")


async def patient(open_: Any, patience_seconds: float = CONNECT_PATIENCE_SECONDS) -> Any:
    """Await ``open_()`` again and again while the server is away, up to the given time; then raise what it raised."""
    deadline = monotonic() + patience_seconds
    while True:
        try:
            return await open_()
        except (*_GONE, ConnectionError, FileNotFoundError):
            if monotonic() >= deadline:
                raise
            await asyncio.sleep(_RETRY_PAUSE_SECONDS)


@asynccontextmanager
async def savepoint(conn: Any, name: str = "step") -> AsyncIterator[None]:
    """Run a part of the current transaction that may fail alone. ``name`` is a plain identifier."""
    if not name.isidentifier():
        raise ValueError(f"savepoint name must be an identifier, got {name!r}")
    await conn.execute(f"savepoint {name}")
    try:
        yield
    except BaseException:
        await conn.execute(f"rollback to savepoint {name}")
        raise
    await conn.execute(f"release savepoint {name}")


def setting_first(parameter: int) -> str:
    """The beginning of a statement for ``Database.alone``: it sets its tenant from this parameter.

    Each part that reads a table then says ``(select is_set from tenants_set)``: a condition that depends on no row,
    and so is evaluated before the first one is read. Should that ever come too late, the policies show no rows.
    """
    return f"""with tenants_set as materialized (
    select coalesce(set_config('crmbridge.tenants', ${parameter}, true), '') <> '' as is_set
)
"""


class Database:
    """The two pools a process works with, and the only ways to a transaction.

    ``app`` and ``scheduler`` are asyncpg pools; use them bare only for statements on tables without row-level
    security. ``app_at_hand`` and ``scheduler_at_hand`` lend their connections to all else here. A connection that the
    server cut (restart, failover) is replaced at the next use.
    """

    def __init__(self, app: Any, scheduler: Any, app_dsn: str, scheduler_dsn: str) -> None:
        self.app = app
        self.scheduler = scheduler
        self.app_at_hand = AtHand(app)
        self.scheduler_at_hand = AtHand(scheduler)
        self._app_dsn = app_dsn
        self._scheduler_dsn = scheduler_dsn

    @classmethod
    async def open(
        cls,
        app_dsn: str,
        scheduler_dsn: str,
        *,
        app_connections: int = 10,
        scheduler_connections: int = 6,
        application_name: str = "crmbridge",
        prepared_statements: bool = True,
    ) -> Database:
        """Open both pools, up to the given numbers of connections, and try each role once.

        ``prepared_statements=False`` is for a PgBouncer in transaction mode before 1.21.
        Raises ``DatabaseUnavailable`` or ``DatabaseMisconfigured``.
        """
        options: dict[str, Any] = {} if prepared_statements else {"statement_cache_size": 0}
        pools = [
            await asyncpg.create_pool(
                dsn,
                min_size=0,
                max_size=most,
                init=_set_codecs,
                connection_class=PooledConnection,
                connect=Hosts(dsn).connect,
                server_settings={"application_name": application_name},
                timeout=CONNECT_SECONDS,
                **options,
            )
            for dsn, most in ((app_dsn, app_connections), (scheduler_dsn, scheduler_connections))
        ]
        database = cls(pools[0], pools[1], app_dsn, scheduler_dsn)
        try:
            for at_hand, dsn in (
                (database.app_at_hand, app_dsn),
                (database.scheduler_at_hand, scheduler_dsn),
            ):
                async with database._transaction(at_hand, dsn, "begin"):
                    pass
        except BaseException:
            await database.close()
            raise
        return database

    async def close(self) -> None:
        """Close both pools; connections still in use after 5 s are cut."""
        for at_hand in (self.app_at_hand, self.scheduler_at_hand):
            try:
                async with asyncio.timeout(5):
                    await at_hand.close()
                    await at_hand.pool.close()
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                at_hand.pool.terminate()

    @asynccontextmanager
    async def tenant(self, tenant_id: UUID) -> AsyncIterator[Any]:
        """A transaction of the app role that sees and writes the rows of this tenant only.

        Begin and setting travel in one round trip. Leaves with commit, or with rollback on any exception. For a
        part that may fail alone use ``savepoint``: asyncpg's own ``transaction()`` cannot nest in it.
        """
        async with self._transaction(self.app_at_hand, self._app_dsn, _begin_as([tenant_id])) as conn:
            yield conn

    @asynccontextmanager
    async def tenants(self, tenant_ids: Iterable[UUID]) -> AsyncIterator[Any]:
        """The same for several tenants: for the accept flusher of ``services/delivery`` and no one else.

        It flushes the writes of requests that were each authenticated for their own tenant. An architecture test
        looks for other callers.
        """
        async with self._transaction(self.app_at_hand, self._app_dsn, _begin_as(tenant_ids)) as conn:
            yield conn

    async def at_once(self, tenant_ids: Iterable[UUID], call: Callable[[Any, str], Awaitable[T]]) -> T:
        """One statement for several tenants, in a transaction of its own that sets them itself: two round trips less.

        For the accept flusher and no one else, as :meth:`tenants`. ``call`` gets a connection of the app role and the
        value of ``crmbridge.tenants``. It is called again when the server cut the connection, so it may be repeated
        without another effect.
        """
        setting = _setting_of(tenant_ids)

        async def called() -> T:
            return await _lent(
                self.app_at_hand, await self.app_at_hand.take(), lambda conn: call(conn, setting)
            )

        with clear_errors(self._app_dsn):
            answer: T = await patient(called, CONNECT_PATIENCE_SECONDS)
        return answer

    async def alone(self, tenant_id: UUID, call: Callable[[Any, str], Awaitable[T]]) -> T:
        """One statement for one tenant, in a transaction of its own that sets it itself: one round trip for four.

        ``call`` gets a connection of the app role and the value of ``crmbridge.tenants``. A connection that is cut
        raises DatabaseUnavailable: the statement may then have had its effect, or not.
        """
        setting = _setting_of([tenant_id])
        with clear_errors(self._app_dsn):
            conn = await patient(self.app_at_hand.take, CONNECT_PATIENCE_SECONDS)
            answer: T = await _lent(self.app_at_hand, conn, lambda conn: call(conn, setting))
        return answer

    @asynccontextmanager
    async def system(self) -> AsyncIterator[Any]:
        """A transaction of the scheduler role: across tenants, on content-free tables only."""
        async with self._transaction(self.scheduler_at_hand, self._scheduler_dsn, "begin") as conn:
            yield conn

    async def peek(self, call: Callable[[Any], Awaitable[T]]) -> T:
        """One statement of the scheduler role, without a transaction around it: one round trip for three.

        It is repeated when the server cut the connection, so it reads, or may be done twice.
        """

        async def called() -> T:
            return await _lent(self.scheduler_at_hand, await self.scheduler_at_hand.take(), call)

        with clear_errors(self._scheduler_dsn):
            answer: T = await patient(called, CONNECT_PATIENCE_SECONDS)
        return answer

    @asynccontextmanager
    async def _transaction(self, at_hand: AtHand, dsn: str, begin: str) -> AsyncIterator[Any]:
        with clear_errors(dsn):
            conn = await patient(lambda: _begun(at_hand, begin), CONNECT_PATIENCE_SECONDS)
        try:
            with _clear_cut(dsn, conn):
                try:
                    yield conn
                except BaseException:
                    # The release below rolls back too; this keeps asyncpg from reporting an unfinished transaction.
                    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                        await conn.execute("rollback")
                    raise
                await conn.execute("commit")
        except BaseException:
            await at_hand.drop(conn)
            raise
        at_hand.give(conn)


async def _begun(at_hand: AtHand, begin: str) -> Any:
    """Return a connection in a transaction. A pooled one that the server cut meanwhile shows here, before any work."""
    conn = await at_hand.take()
    try:
        await conn.execute(begin)
    except BaseException:
        await at_hand.drop(conn)
        raise
    return conn


async def _lent(at_hand: AtHand, conn: Any, call: Callable[[Any], Awaitable[T]]) -> T:
    """One call on a connection that was taken, which goes back whatever becomes of it."""
    try:
        answer = await call(conn)
    except BaseException:
        await at_hand.drop(conn)
        raise
    at_hand.give(conn)
    return answer


@contextmanager
def _clear_cut(dsn: str, conn: Any) -> Iterator[None]:
    """Like ``clear_errors`` for a transaction in progress: an OSError there may be the caller's own."""
    try:
        yield
    except _GONE as error:
        raise _unavailable(dsn, error, "cut the connection") from None
    except asyncpg.InterfaceError as error:
        # What asyncpg says when the server ended the connection between two statements; else it is a mistake of ours.
        if not is_gone(conn):
            raise
        raise _unavailable(dsn, error, "cut the connection") from None


def _begin_as(tenant_ids: Iterable[UUID]) -> str:
    """Build the one-round-trip begin."""
    return f"begin; select set_config('crmbridge.tenants', '{_setting_of(tenant_ids)}', true)"


def _setting_of(tenant_ids: Iterable[UUID]) -> str:
    """The value of ``crmbridge.tenants``. Only UUID objects are let in, so nothing can be injected."""
    ids = list(tenant_ids)
    for tenant_id in ids:
        if not isinstance(tenant_id, UUID):
            raise TypeError(f"tenant ids must be uuid.UUID, got {type(tenant_id).__name__}")
    if not ids:
        raise ValueError("at least one tenant id is needed")
    # str() of a UUID subclass could be anything; the integer cannot.
    joined = ",".join(f"{tenant_id.int:032x}" for tenant_id in ids)
    return f"{{{joined}}}"
