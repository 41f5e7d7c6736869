"""The key tree over the database: master key → key per tenant → data key per credential."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from time import monotonic
from uuid import UUID

import asyncpg
import msgspec

from crmbridge.core.errors import Conflict, Fix, NotFound
from crmbridge.core.secret import Secret
from crmbridge.db.pool import Database
from crmbridge.services.vault import store
from crmbridge.services.vault.keys import SealBroken, SealingKeys, TenantKeys, bound, credential_aad, new_key
from crmbridge.services.vault.master import KeyProvider, MasterKeyMissing
from crmbridge.services.vault.model import KeyStatus, RewrapProgress, WrappedKey

__all__ = ["Vault"]

CACHE_SECONDS = 300.0
# A tenant's keys take about 4 kB. Without them a call needs no further round trip: they come with its connection.
CACHED_TENANTS = 2_000
_DATA, _INDEX = "data", "index"
_FIRST = UUID(int=0)
_TEXTS = msgspec.json.Decoder(dict[str, str])


class Vault:
    """Creates, lends, rewraps and destroys keys. Unwrapped tenant keys are kept at most five minutes, opened
    credentials never.
    """

    def __init__(
        self,
        db: Database,
        provider: KeyProvider,
        *,
        cache_seconds: float = CACHE_SECONDS,
        cached_tenants: int = CACHED_TENANTS,
    ) -> None:
        if not 0 <= cache_seconds <= CACHE_SECONDS:
            raise ValueError(f"cache_seconds must be from 0 to {CACHE_SECONDS:.0f}, got {cache_seconds}")
        self._db = db
        self._provider = provider
        self._cache_seconds = cache_seconds
        self._cached_tenants = cached_tenants
        self._cache: OrderedDict[UUID, tuple[float, TenantKeys]] = OrderedDict()
        self._loading: dict[UUID, asyncio.Task[TenantKeys]] = {}
        self._times_forgotten = 0
        self._timer: asyncio.TimerHandle | None = None
        self._installation: SealingKeys | None = None

    # ------------------------------------------------------------------ lending keys

    async def create_tenant_keys(self, conn: asyncpg.Connection, tenant_id: UUID) -> None:
        """Make a tenant's data key and index key in the transaction that creates the tenant."""
        for purpose in (_DATA, _INDEX):
            await store.insert_tenant(conn, await self._wrapped(tenant_id, purpose, 1))

    async def keys(self, tenant_id: UUID) -> TenantKeys:
        """A tenant's keys, unwrapped. Concurrent first calls unwrap once.

        Raises NotFound when the tenant has no keys (unknown, or destroyed), MasterKeyMissing, SealBroken.
        """
        held = self._cache.get(tenant_id)
        if held is not None and held[0] > monotonic():
            return held[1]
        loading = self._loading.get(tenant_id)
        if loading is None:
            loading = self._begin(tenant_id, self._load(tenant_id))
        return await asyncio.shield(loading)

    def lacks(self, tenant_id: UUID) -> bool:
        """Whether :meth:`keys` would read the tables."""
        held = self._cache.get(tenant_id)
        return tenant_id not in self._loading and (held is None or held[0] <= monotonic())

    @property
    def times_forgotten(self) -> int:
        """Grows with every :meth:`forget`: rows that were read before it must not be learned after it."""
        return self._times_forgotten

    def learn(self, tenant_id: UUID, rows: Sequence[WrappedKey], times_forgotten: int) -> None:
        """Unwrap on the side what a statement read along; :meth:`keys` then waits for that instead of reading.

        ``times_forgotten`` is how it stood when the statement was sent.
        """
        if times_forgotten == self._times_forgotten and self.lacks(tenant_id):
            self._begin(tenant_id, self._opened(tenant_id, rows))

    async def installation(self) -> SealingKeys:
        """The installation's own keys (OAuth app secrets, signing keys, sessions); made at the first call.

        Calling it at start proves the master key: raises MasterKeyMissing or SealBroken when it is not the one.
        """
        if self._installation is None:
            async with self._db.system() as conn:
                rows = await store.select_installation(conn)
                if not rows:
                    for purpose in (_DATA, _INDEX):
                        await store.insert_installation(conn, await self._wrapped(None, purpose, 1))
                    rows = await store.select_installation(conn)
            data, active, index = await self._unwrapped(rows)
            self._installation = SealingKeys(bound("installation"), data, active, index)
        return self._installation

    async def prove(self) -> None:
        """Open the installation's keys anew. Raises MasterKeyMissing when the master key no longer does."""
        async with self._db.system() as conn:
            rows = await store.select_installation(conn)
        await self._unwrapped(rows)

    def check(self) -> None:
        """Raise MasterKeyMissing until :meth:`installation` has proved the master key in this process."""
        if self._installation is None:
            raise MasterKeyMissing("The master key has not been tried on this database yet.")

    def forget(self, tenant_id: UUID) -> None:
        """Drop a tenant's unwrapped keys from this process, those being loaded included."""
        self._times_forgotten += 1
        self._loading.pop(tenant_id, None)
        self._cache.pop(tenant_id, None)

    async def destroy_tenant_keys(
        self, conn: asyncpg.Connection, tenant_id: UUID, *, keep_index: bool = False
    ) -> None:
        """Shred all that the tenant's data key sealed, in the caller's transaction.

        Other processes may still hold the key for up to five minutes, backups until they expire. ``keep_index``
        keeps the index key, so that tombstones still recognise a forgotten person.
        """
        await store.destroy_tenant(conn, tenant_id, [_DATA] if keep_index else [_DATA, _INDEX])
        self.forget(tenant_id)

    # ------------------------------------------------------------------ credentials

    async def seal_credential(
        self,
        secrets: Mapping[str, Secret],
        *,
        tenant_id: UUID,
        driver: str,
        credential_id: UUID,
        row_version: int,
    ) -> bytes:
        """The secret settings of one credential, under a fresh data key, bound to exactly this row."""
        keys = await self.keys(tenant_id)
        plaintext = msgspec.json.encode({name: secret.open() for name, secret in secrets.items()})
        return keys.seal_enveloped(plaintext, credential_aad(tenant_id, driver, credential_id, row_version))

    async def open_credential(
        self, sealed: bytes, *, tenant_id: UUID, driver: str, credential_id: UUID, row_version: int
    ) -> dict[str, Secret]:
        """The inverse; nothing is kept. Raises SealBroken for an altered or swapped row."""
        keys = await self.keys(tenant_id)
        plaintext = keys.open_enveloped(sealed, credential_aad(tenant_id, driver, credential_id, row_version))
        opened = _TEXTS.decode(plaintext)
        return {name: Secret(text) for name, text in opened.items()}

    async def seal_secrets(
        self, secrets: Mapping[str, Secret], *, tenant_id: UUID | None, kind: str, row: str
    ) -> bytes:
        """Named secrets of one row that is no credential, bound to its owner (None: the installation), kind and row."""
        keys = await self._keys_of(tenant_id)
        plaintext = msgspec.json.encode({name: secret.open() for name, secret in secrets.items()})
        return keys.seal_enveloped(plaintext, bound(kind, row))

    async def open_secrets(
        self, sealed: bytes, *, tenant_id: UUID | None, kind: str, row: str
    ) -> dict[str, Secret]:
        """The inverse. Raises SealBroken for an altered or swapped row."""
        keys = await self._keys_of(tenant_id)
        opened = _TEXTS.decode(keys.open_enveloped(sealed, bound(kind, row)))
        return {name: Secret(text) for name, text in opened.items()}

    async def _keys_of(self, tenant_id: UUID | None) -> SealingKeys:
        return await self.installation() if tenant_id is None else await self.keys(tenant_id)

    def show_once(self, secrets: Mapping[str, Secret], names: Iterable[str]) -> dict[str, str]:
        """The texts of the named secrets, for the one answer that shows what crmbridge itself generated."""
        return {name: secrets[name].open() for name in names}

    # ------------------------------------------------------------------ rotation of the master key

    async def status(self) -> KeyStatus:
        """Count wrapped keys per master key; one short transaction per tenant."""
        counts: Counter[str] = Counter()
        async with self._db.system() as conn:
            counts.update(await store.count_installation(conn))
        async for tenant_ids in self._tenants(500):
            for tenant_id in tenant_ids:
                async with self._db.tenant(tenant_id) as conn:
                    counts.update(await store.count_tenant(conn, tenant_id))
        return KeyStatus(
            current_id=self._provider.current_id,
            known_ids=self._provider.ids,
            counts=dict(sorted(counts.items())),
        )

    async def rewrap(self, batch: int = 100) -> AsyncGenerator[RewrapProgress, None]:
        """Bring every wrapped key under the current master key, while others work. Keys themselves do not change.

        One transaction per tenant, so it may be stopped and started again at any time: what is done stays done.
        """
        async with self._db.system() as conn:
            total = await store.count_tenants(conn)
            rewrapped = await self._rewrap_rows(conn, await store.select_installation(conn))
        done = 0
        yield RewrapProgress(tenants_done=0, tenants_total=total, rewrapped=rewrapped)
        async for tenant_ids in self._tenants(batch):
            for tenant_id in tenant_ids:
                async with self._db.tenant(tenant_id) as conn:
                    rewrapped += await self._rewrap_rows(conn, await store.select_tenant(conn, tenant_id))
            done += len(tenant_ids)
            yield RewrapProgress(tenants_done=done, tenants_total=max(total, done), rewrapped=rewrapped)

    async def retire(self, master_key_id: str) -> None:
        """Tell whether a master key may be removed from the environment or the file now.

        Raises Conflict while any row is behind on it, and for the current key. Every process must run with the new
        current key first: one that still runs with the old one wraps new tenants' keys by it.
        """
        status = await self.status()
        if master_key_id == status.current_id:
            raise Conflict(
                f"Master key {master_key_id} is the current one.",
                fix=Fix(
                    "rotate_first", "Put a new key before it (`crmbridge keys init --rotate`), then rotate."
                ),
            )
        behind = status.counts.get(master_key_id, 0)
        if behind:
            raise Conflict(
                f"{behind} keys are still wrapped by master key {master_key_id}; removing it would lose them.",
                fix=Fix("rotate_first", "Run `crmbridge keys rotate`, then try again."),
            )

    async def _rewrap_rows(self, conn: asyncpg.Connection, rows: Sequence[WrappedKey]) -> int:
        count = 0
        current = self._provider.current_id
        for row in rows:
            if row.master_key_id == current:
                continue
            key = await self._provider.unwrap(
                row.master_key_id, row.wrapped, _key_aad(row, row.master_key_id)
            )
            wrapped = await self._provider.wrap(key, _key_aad(row, current))
            count += await store.replace(conn, row, wrapped, current)
        return count

    async def _tenants(self, batch: int) -> AsyncIterator[list[UUID]]:
        after = _FIRST
        while True:
            async with self._db.system() as conn:
                tenant_ids = await store.tenant_ids_after(conn, after, batch)
            if not tenant_ids:
                return
            yield tenant_ids
            after = tenant_ids[-1]

    # ------------------------------------------------------------------ inside

    async def _wrapped(self, tenant_id: UUID | None, purpose: str, version: int) -> WrappedKey:
        row = WrappedKey(
            tenant_id=tenant_id,
            purpose=purpose,
            version=version,
            wrapped=b"",
            master_key_id=self._provider.current_id,
            state="active",
        )
        wrapped = await self._provider.wrap(new_key(), _key_aad(row, row.master_key_id))
        return msgspec.structs.replace(row, wrapped=wrapped)

    async def _load(self, tenant_id: UUID) -> TenantKeys:
        rows = await self._db.alone(
            tenant_id, lambda conn, setting: store.read_tenant(conn, tenant_id, setting)
        )
        return await self._opened(tenant_id, rows)

    async def _opened(self, tenant_id: UUID, rows: Sequence[WrappedKey]) -> TenantKeys:
        if {_DATA, _INDEX} - {row.purpose for row in rows}:
            raise NotFound(
                "This tenant has no keys: it is unknown, or its keys were destroyed when it was offboarded."
            )
        data, active, index = await self._unwrapped(rows)
        return TenantKeys(tenant_id, data, active, index)

    def _begin(self, tenant_id: UUID, load: Coroutine[None, None, TenantKeys]) -> asyncio.Task[TenantKeys]:
        task = self._loading[tenant_id] = asyncio.create_task(load)
        task.add_done_callback(lambda task: self._loaded(tenant_id, task))
        return task

    def _loaded(self, tenant_id: UUID, task: asyncio.Task[TenantKeys]) -> None:
        was_forgotten = self._loading.get(tenant_id) is not task
        if not was_forgotten:
            del self._loading[tenant_id]
        if task.cancelled() or task.exception() is not None or was_forgotten:
            return
        # In the order of their end: what is over is in front.
        self._cache.pop(tenant_id, None)
        self._cache[tenant_id] = (monotonic() + self._cache_seconds, task.result())
        while len(self._cache) > self._cached_tenants:
            self._cache.popitem(last=False)
        if self._timer is None:
            self._expire()

    def _expire(self) -> None:
        """Keys whose time is over are dropped, not only not used: again and again, while there are any."""
        now, self._timer = monotonic(), None
        while self._cache:
            tenant_id, (until, _) = next(iter(self._cache.items()))
            if until > now:
                self._timer = asyncio.get_running_loop().call_later(until - now, self._expire)
                return
            del self._cache[tenant_id]

    async def _unwrapped(self, rows: Sequence[WrappedKey]) -> tuple[dict[int, bytes], int, bytes]:
        data: dict[int, bytes] = {}
        active, index = 0, b""
        for row in rows:
            try:
                key = await self._provider.unwrap(
                    row.master_key_id, row.wrapped, _key_aad(row, row.master_key_id)
                )
            except SealBroken:
                raise MasterKeyMissing(
                    f"Master key {row.master_key_id!r} does not open the keys that bear its id: the key was changed "
                    "under the same id, or the row was altered.",
                    fix=Fix("restore_master_key", "Put the key back that the installation was started with."),
                ) from None
            if row.purpose == _DATA:
                data[row.version] = key
                active = row.version if row.state == "active" else active
            elif row.state == "active":
                index = key
        if not index or active not in data:
            raise MasterKeyMissing("The key tables hold no active data key or no index key; restore them.")
        return data, active, index


def _key_aad(row: WrappedKey, master_key_id: str) -> bytes:
    owner = "installation" if row.tenant_id is None else row.tenant_id
    return bound("key", owner, row.purpose, row.version, master_key_id)
