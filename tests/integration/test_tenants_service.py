"""Tenants and API keys on a real PostgreSQL."""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import UUID, uuid4

import pytest

from crmbridge.core.errors import Conflict, NotFound, ValidationError
from crmbridge.core.verticals import Vertical
from crmbridge.db.pool import Database
from crmbridge.services.audit import AuditLog
from crmbridge.services.tenants import KeyRefused, Principal, Tenants

pytestmark = pytest.mark.postgres


class KeyMaker:
    """Stands for the vault: notes for whom it was asked, on which connection."""

    def __init__(self) -> None:
        self.asked: list[UUID] = []
        self.fails = False

    async def __call__(self, conn: Any, tenant_id: UUID) -> None:
        self.asked.append(tenant_id)
        if self.fails:
            raise RuntimeError("no key")


@pytest.fixture
def keys() -> KeyMaker:
    return KeyMaker()


@pytest.fixture
def audit(database: Database) -> AuditLog:
    return AuditLog(database)


@pytest.fixture
def tenants(database: Database, audit: AuditLog, keys: KeyMaker) -> Tenants:
    return Tenants(database, audit, keys)


async def test_add_when_valid_then_found_by_id_and_slug_with_keys_and_audit(
    tenants: Tenants, keys: KeyMaker, audit: AuditLog
) -> None:
    added = await tenants.add("city-clinic", " City Clinic ", "clinic", "ae", "Asia/Dubai", "operator:1")
    assert (added.slug, added.name, added.vertical) == ("city-clinic", "City Clinic", Vertical.CLINIC)
    assert (added.region, added.time_zone, added.closed_at) == ("AE", "Asia/Dubai", None)
    assert keys.asked == [added.id]
    for key in (added.id, str(added.id), "city-clinic"):
        assert await tenants.get(key) == added
    (row,) = await audit.read(added.id)
    assert (row.action, row.actor, row.subject_id) == ("tenant.created", "operator:1", str(added.id))


async def test_add_when_the_keys_fail_then_no_tenant(tenants: Tenants, keys: KeyMaker) -> None:
    keys.fails = True
    with pytest.raises(RuntimeError):
        await tenants.add("a", "A")
    assert await tenants.list() == []


async def test_add_when_the_slug_is_taken_then_conflict_and_nothing_is_left(
    tenants: Tenants, keys: KeyMaker
) -> None:
    await tenants.add("a", "A")
    with pytest.raises(Conflict, match="'a'") as caught:
        await tenants.add("a", "B")
    assert caught.value.fields[0].field == "slug"
    assert len(await tenants.list()) == 1
    assert len(keys.asked) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("slug", ""),
        ("slug", "City Clinic"),
        ("slug", "-a"),
        ("slug", "a" * 64),
        ("slug", "a\nb"),
        ("slug", "../x"),
        ("name", " "),
        ("name", "x" * 201),
        ("vertical", "bakery"),
        ("region", "UAE"),
        ("time_zone", "Dubai"),
        ("time_zone", "../../etc/passwd"),
        ("time_zone", ""),
        ("unknown_slots", "drop"),
    ],
)
async def test_add_when_a_field_is_wrong_then_named(tenants: Tenants, field: str, value: str) -> None:
    values = {"slug": "a", "name": "A", field: value}
    with pytest.raises(ValidationError) as caught:
        await tenants.add(**values)
    assert [each.field for each in caught.value.fields] == [field]
    assert field in caught.value.message


async def test_add_when_several_fields_are_wrong_then_all_are_named(tenants: Tenants) -> None:
    with pytest.raises(ValidationError) as caught:
        await tenants.add("A B", "", "x", "xxx", "y")
    assert {each.field for each in caught.value.fields} == {"slug", "name", "vertical", "region", "time_zone"}


@pytest.mark.parametrize(
    "key", ["nobody", "0197fbd0-0000-7000-8000-000000000000", uuid4(), "", "' or 1=1 --"]
)
async def test_get_when_unknown_then_not_found(tenants: Tenants, key: UUID | str) -> None:
    with pytest.raises(NotFound):
        await tenants.get(key)


async def test_get_when_a_slug_looks_like_an_id_then_found(tenants: Tenants) -> None:
    slug = "0197fbd0-0000-7000-8000-000000000000"
    added = await tenants.add(slug, "A")
    assert await tenants.get(slug) == added


async def test_list_when_paged_then_in_order_of_slug(tenants: Tenants) -> None:
    for slug in ("c", "a", "b"):
        await tenants.add(slug, slug)
    assert [each.slug for each in await tenants.list(limit=2)] == ["a", "b"]
    assert [each.slug for each in await tenants.list(after_slug="b")] == ["c"]


async def test_key_when_made_then_it_authenticates_and_only_its_hash_is_kept(
    tenants: Tenants, database: Database, audit: AuditLog
) -> None:
    tenant = await tenants.add("a", "A")
    key, token = await tenants.create_key(tenant, "phone agent", ["read", "write:lead", "read"], "operator:1")
    assert token.startswith("crmb_live_")
    assert len(token) == 53
    assert token.startswith(key.prefix)
    assert len(key.prefix) == 14
    principal = await tenants.authenticate(token)
    assert principal == Principal(
        key_id=key.id, tenant_id=tenant.id, scopes=frozenset({"read", "write:lead"}), actor=f"key:{key.id}"
    )
    async with database.tenant(tenant.id) as conn:
        row = await conn.fetchrow("select * from api_keys")
    assert row["key_hash"] == hashlib.sha256(token.encode()).digest()
    assert token[14:] not in str(dict(row))
    rows = await audit.read(tenant.id, action="key.created")
    assert rows[0].details == {"name": "phone agent", "scopes": ["read", "write:lead"]}


async def test_operator_key_when_made_then_bound_to_no_tenant_and_audited_by_the_system(
    tenants: Tenants, audit: AuditLog
) -> None:
    key, token = await tenants.create_key(None, "ops", ["admin"], "cli")
    principal = await tenants.authenticate(token)
    assert principal.tenant_id is None
    assert principal.reaches(uuid4())
    assert [row.subject_id for row in await audit.read(None, action="key.created")] == [str(key.id)]
    assert [each.id for each in await tenants.list_keys(None)] == [key.id]


@pytest.mark.parametrize(
    "token",
    [
        "",
        "crmb_live_",
        "crmb_live_" + "a" * 43,
        "crmb_live_" + "a" * 44,
        "Bearer x",
        "crmb_live_" + "é" * 43,
        "\0",
    ],
)
async def test_authenticate_when_unknown_or_malformed_then_the_same_401(tenants: Tenants, token: str) -> None:
    with pytest.raises(KeyRefused) as caught:
        await tenants.authenticate(token)
    assert caught.value.http_status == 401
    assert caught.value.full_code == "auth_error/invalid_credentials"
    assert caught.value.message == "The API key is not valid."


async def test_revoked_key_when_used_then_refused_at_once_here_and_within_seconds_elsewhere(
    database: Database, audit: AuditLog, keys: KeyMaker
) -> None:
    here, elsewhere = Tenants(database, audit, keys), Tenants(database, audit, keys, cache_seconds=0)
    tenant = await here.add("a", "A")
    key, token = await here.create_key(tenant, "k", ["read"], "cli")
    await here.authenticate(token)
    await elsewhere.authenticate(token)
    revoked = await here.revoke_key(tenant, key.id, "cli")
    assert revoked.revoked_at is not None
    for service in (here, elsewhere):
        with pytest.raises(KeyRefused):
            await service.authenticate(token)
    again = await here.revoke_key(tenant, key.id, "cli")
    assert again.revoked_at == revoked.revoked_at


async def test_revoked_key_when_it_was_being_read_then_refused_at_once_all_the_same(
    database: Database, tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = await tenants.add("a", "A")
    key, token = await tenants.create_key(tenant, "k", ["read"], "cli")
    peek = database.peek

    async def slow(call: Any) -> Any:
        found = await peek(call)
        await tenants.revoke_key(tenant, key.id, "cli")
        return found

    monkeypatch.setattr(database, "peek", slow)
    await tenants.authenticate(token)
    monkeypatch.undo()
    with pytest.raises(KeyRefused):
        await tenants.authenticate(token)


async def test_names_when_too_many_are_remembered_then_tenants_are_still_found(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crmbridge.services.tenants.service.REMEMBERED_NAMES", 2)
    ids = {slug: (await tenants.add(slug, slug)).id for slug in ("a", "b", "c", "d")}
    for slug, tenant_id in [*ids.items(), *ids.items()]:
        assert (await tenants.get(slug)).id == tenant_id
    assert len(tenants._ids) <= 2


async def test_revoke_when_the_key_is_another_tenants_or_an_operators_then_not_found(
    tenants: Tenants,
) -> None:
    one, two = await tenants.add("a", "A"), await tenants.add("b", "B")
    key, token = await tenants.create_key(one, "k", ["read"], "cli")
    operator_key, _ = await tenants.create_key(None, "k", ["read"], "cli")
    for owner, key_id in ((two, key.id), (None, key.id), (one, operator_key.id), (one, uuid4())):
        with pytest.raises(NotFound):
            await tenants.revoke_key(owner, key_id, "cli")
    assert (await tenants.authenticate(token)).key_id == key.id


async def test_key_when_its_tenant_is_closed_then_refused(tenants: Tenants, database: Database) -> None:
    tenant = await tenants.add("a", "A")
    _, token = await tenants.create_key(tenant, "k", ["read"], "cli")
    async with database.tenant(tenant.id) as conn:
        await conn.execute("update tenants set closed_at = now()")
    with pytest.raises(KeyRefused):
        await tenants.authenticate(token)


@pytest.mark.parametrize("scopes", [[], ["write"], ["write:invoice"], ["read", "root"], ["*"]])
async def test_create_key_when_a_scope_is_unknown_then_named(tenants: Tenants, scopes: list[str]) -> None:
    with pytest.raises(ValidationError, match="scopes"):
        await tenants.create_key(None, "k", scopes, "cli")


def test_principal_when_asked_then_scopes_cover_what_they_name() -> None:
    def may(scopes: set[str], scope: str) -> bool:
        return Principal(key_id=None, tenant_id=None, scopes=frozenset(scopes), actor="x").may(scope)

    assert may({"write:lead"}, "write:lead")
    assert not may({"write:lead"}, "write:customer")
    assert may({"write:*"}, "write:customer")
    assert not may({"write:*"}, "read")
    assert not may({"write:*"}, "delete")
    assert not may({"read"}, "admin")
    assert may({"admin"}, "erase")
