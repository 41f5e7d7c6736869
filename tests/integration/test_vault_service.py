"""The key tree on a real PostgreSQL: create, lend, swap attacks, rewrap, retire, destroy."""

from __future__ import annotations

import asyncio
import base64
import os
from uuid import UUID, uuid4

import msgspec
import pytest

from crmbridge.core.errors import Conflict, NotFound
from crmbridge.core.secret import Secret
from crmbridge.db.pool import Database
from crmbridge.services.audit import AuditLog
from crmbridge.services.tenants import Tenant, Tenants
from crmbridge.services.vault import EnvKeyProvider, MasterKeyMissing, SealBroken, Vault, write_aad
from crmbridge.services.vault import store as vault_store

pytestmark = pytest.mark.postgres

K1, K2 = (f"k{number}:{base64.b64encode(os.urandom(32)).decode()}" for number in (1, 2))


class Counting(EnvKeyProvider):
    """Counts what a key service would be asked."""

    unwrapped = 0

    async def unwrap(self, key_id: str, wrapped: bytes, aad: bytes) -> bytes:
        self.unwrapped += 1
        await asyncio.sleep(0)
        return await super().unwrap(key_id, wrapped, aad)


def vault_with(database: Database, *keys: str, cache_seconds: float = 300) -> Vault:
    return Vault(database, EnvKeyProvider(Secret(",".join(keys))), cache_seconds=cache_seconds)


async def add(database: Database, vault: Vault, slug: str) -> Tenant:
    return await Tenants(database, AuditLog(database), vault.create_tenant_keys).add(slug, slug)


async def test_sealed_by_one_process_when_opened_by_another_then_the_same(database: Database) -> None:
    tenant = await add(database, vault_with(database, K1), "a")
    keys = await vault_with(database, K1).keys(tenant.id)
    write_id = uuid4()
    sealed = keys.seal(b"fields", write_aad(tenant.id, write_id))
    other = await vault_with(database, K1).keys(tenant.id)
    assert other.open(sealed, write_aad(tenant.id, write_id)) == b"fields"
    assert keys.hash("email", "x@y.z") == other.hash("email", "x@y.z")


async def test_credential_when_opened_in_its_row_then_secrets_and_elsewhere_broken(
    database: Database,
) -> None:
    vault = vault_with(database, K1)
    one, two = await add(database, vault, "a"), await add(database, vault, "b")
    credential_id = uuid4()

    async def open_as(tenant_id: UUID, driver: str, row_id: UUID, version: int) -> dict[str, Secret]:
        return await vault.open_credential(
            sealed, tenant_id=tenant_id, driver=driver, credential_id=row_id, row_version=version
        )

    sealed = await vault.seal_credential(
        {"token": Secret("pat-1"), "other": Secret("ü")},
        tenant_id=one.id,
        driver="x",
        credential_id=credential_id,
        row_version=1,
    )
    assert b"pat-1" not in sealed
    opened = await open_as(one.id, "x", credential_id, 1)
    assert opened == {"token": Secret("pat-1"), "other": Secret("ü")}
    for wrong in (
        (two.id, "x", credential_id, 1),
        (one.id, "y", credential_id, 1),
        (one.id, "x", uuid4(), 1),
        (one.id, "x", credential_id, 2),
    ):
        with pytest.raises(SealBroken):
            await open_as(*wrong)


async def test_keys_when_asked_many_times_at_once_then_unwrapped_once_and_cached(database: Database) -> None:
    provider = Counting(Secret(K1))
    vault = Vault(database, provider)
    tenant = await add(database, vault, "a")
    lent = await asyncio.gather(*(vault.keys(tenant.id) for _ in range(20)))
    assert provider.unwrapped == 2
    assert all(each is lent[0] for each in lent)
    vault.forget(tenant.id)
    await vault.keys(tenant.id)
    assert provider.unwrapped == 4


async def test_cache_when_full_or_old_then_keys_are_unwrapped_again(database: Database) -> None:
    provider = Counting(Secret(K1))
    vault = Vault(database, provider, cached_tenants=2)
    ids = [(await add(database, vault, slug)).id for slug in ("a", "b", "c")]
    for tenant_id in (*ids, ids[0]):
        await vault.keys(tenant_id)
    assert provider.unwrapped == 8
    short = Vault(database, provider, cache_seconds=0)
    for _ in range(2):
        await short.keys(ids[0])
    assert provider.unwrapped == 12
    with pytest.raises(ValueError, match="cache_seconds"):
        Vault(database, provider, cache_seconds=301)


async def test_keys_when_their_time_is_over_then_they_are_not_kept_either(database: Database) -> None:
    vault = vault_with(database, K1, cache_seconds=0.2)
    ids = [(await add(database, vault, slug)).id for slug in ("a", "b")]
    await vault.keys(ids[0])
    await asyncio.sleep(0.1)
    await vault.keys(ids[1])
    assert list(vault._cache) == ids
    async with asyncio.timeout(5):
        while vault._cache:
            await asyncio.sleep(0.02)
    assert (await vault.keys(ids[0])).tenant_id == ids[0]


async def test_rows_when_learned_then_keys_come_from_them_and_altered_ones_are_refused(
    database: Database,
) -> None:
    provider = Counting(Secret(K1))
    vault = Vault(database, provider)
    one, two = await add(database, vault, "a"), await add(database, vault, "b")
    async with database.tenant(one.id) as conn:
        rows = await vault_store.select_tenant(conn, one.id)
    assert vault.lacks(one.id)
    vault.learn(one.id, rows, vault.times_forgotten)
    vault.learn(one.id, rows, vault.times_forgotten)
    assert not vault.lacks(one.id)
    keys = await vault.keys(one.id)
    assert (keys.tenant_id, provider.unwrapped) == (one.id, 2)
    # Rows of another tenant do not open, and the next call reads its own.
    vault.learn(
        two.id, [msgspec.structs.replace(row, tenant_id=two.id) for row in rows], vault.times_forgotten
    )
    with pytest.raises(MasterKeyMissing):
        await vault.keys(two.id)
    assert (await vault.keys(two.id)).tenant_id == two.id


async def test_rows_when_read_before_something_was_forgotten_then_not_learned(database: Database) -> None:
    vault = vault_with(database, K1)
    tenant = await add(database, vault, "a")
    async with database.tenant(tenant.id) as conn:
        rows = await vault_store.select_tenant(conn, tenant.id)
        was = vault.times_forgotten
        await vault.destroy_tenant_keys(conn, tenant.id)
    vault.learn(tenant.id, rows, was)
    with pytest.raises(NotFound):
        await vault.keys(tenant.id)


async def test_keys_when_the_tenant_is_unknown_then_not_found(database: Database) -> None:
    with pytest.raises(NotFound):
        await vault_with(database, K1).keys(uuid4())


async def test_wrapped_keys_when_swapped_between_tenants_then_refused(database: Database) -> None:
    vault = vault_with(database, K1)
    one, two = await add(database, vault, "a"), await add(database, vault, "b")
    async with database.tenant(one.id) as conn:
        stolen = await conn.fetchval("select wrapped from tenant_keys where purpose = 'data'")
    async with database.tenant(two.id) as conn:
        await conn.execute("update tenant_keys set wrapped = $1 where purpose = 'data'", stolen)
    with pytest.raises(MasterKeyMissing, match="altered"):
        await vault.keys(two.id)


async def test_start_when_the_master_key_is_another_under_the_same_id_then_refused(
    database: Database,
) -> None:
    await vault_with(database, K1).installation()
    impostor = f"k1:{base64.b64encode(os.urandom(32)).decode()}"
    with pytest.raises(MasterKeyMissing, match="same id"):
        await vault_with(database, impostor).installation()
    with pytest.raises(MasterKeyMissing, match="'k1'"):
        await vault_with(database, K2).installation()


async def test_check_when_the_master_key_is_not_proved_yet_then_refused(database: Database) -> None:
    vault = vault_with(database, K1)
    with pytest.raises(MasterKeyMissing):
        vault.check()
    await vault.installation()
    vault.check()


async def test_show_once_when_some_were_generated_then_only_those_are_shown(database: Database) -> None:
    secrets = {"made": Secret("m"), "typed": Secret("t")}
    assert vault_with(database, K1).show_once(secrets, ("made",)) == {"made": "m"}


async def test_installation_keys_when_two_processes_start_at_once_then_the_same_keys(
    database: Database,
) -> None:
    one, two = await asyncio.gather(*(vault_with(database, K1).installation() for _ in range(2)))
    assert two.open(one.seal(b"x", b""), b"") == b"x"
    assert one.hash("session", "s") == two.hash("session", "s")


async def test_rewrap_when_run_then_everything_opens_without_the_old_key(database: Database) -> None:
    old = vault_with(database, K1)
    await old.installation()
    tenants = [await add(database, old, slug) for slug in ("a", "b", "c")]
    sealed = (await old.keys(tenants[0].id)).seal(b"x", b"")
    hashed = (await old.keys(tenants[0].id)).hash("email", "x")
    both = vault_with(database, K2, K1)
    before = await both.status()
    assert (before.counts, before.behind) == ({"k1": 8}, 8)
    with pytest.raises(Conflict, match="8 keys"):
        await both.retire("k1")
    with pytest.raises(Conflict, match="current"):
        await both.retire("k2")

    progress = [each async for each in both.rewrap(batch=2)]
    assert [(each.tenants_done, each.tenants_total, each.rewrapped) for each in progress] == [
        (0, 3, 2),
        (2, 3, 6),
        (3, 3, 8),
    ]
    assert (await both.status()).counts == {"k2": 8}
    await both.retire("k1")
    new = vault_with(database, K2)
    await new.installation()
    keys = await new.keys(tenants[0].id)
    assert keys.open(sealed, b"") == b"x"
    assert keys.hash("email", "x") == hashed


async def test_rewrap_when_stopped_halfway_then_it_goes_on_where_it_was(database: Database) -> None:
    old = vault_with(database, K1)
    for slug in ("a", "b", "c"):
        await add(database, old, slug)
    both = vault_with(database, K2, K1)
    run = both.rewrap(batch=1)
    await anext(run)
    await anext(run)
    await run.aclose()
    assert (await both.status()).counts == {"k1": 4, "k2": 2}
    with pytest.raises(Conflict):
        await both.retire("k1")
    last = [each async for each in both.rewrap()][-1]
    assert last.rewrapped == 4
    assert (await both.status()).behind == 0


async def test_rewrap_when_two_run_at_once_then_every_key_still_opens(database: Database) -> None:
    old = vault_with(database, K1)
    ids = [(await add(database, old, slug)).id for slug in "abcdefgh"]
    both = [vault_with(database, K2, K1) for _ in range(2)]

    async def run(vault: Vault) -> None:
        async for _ in vault.rewrap(batch=3):
            pass

    await asyncio.gather(*(run(vault) for vault in both))
    new = vault_with(database, K2)
    for tenant_id in ids:
        await new.keys(tenant_id)


async def test_status_when_a_needed_master_key_is_not_held_then_named(database: Database) -> None:
    await add(database, vault_with(database, K1), "a")
    assert (await vault_with(database, K2).status()).missing_ids == ("k1",)


async def test_destroyed_keys_when_asked_for_then_gone_for_good(database: Database) -> None:
    vault = vault_with(database, K1)
    one, two = await add(database, vault, "a"), await add(database, vault, "b")
    await vault.keys(one.id)
    async with database.tenant(one.id) as conn:
        await vault.destroy_tenant_keys(conn, one.id)
    with pytest.raises(NotFound):
        await vault.keys(one.id)
    async with database.tenant(one.id) as conn:
        assert {bytes(row["wrapped"]) for row in await conn.fetch("select wrapped from tenant_keys")} == {b""}
    await vault.keys(two.id)
