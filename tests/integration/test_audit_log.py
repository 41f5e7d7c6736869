"""The audit log on a real PostgreSQL: in the caller's transaction, group-committed, paged, append-only."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from crmbridge.core.errors import ValidationError
from crmbridge.core.secret import Secret
from crmbridge.db.pool import Database
from crmbridge.services.audit import AuditEntry, AuditLog
from crmbridge.services.audit import store as audit_store

pytestmark = pytest.mark.postgres

A, B = UUID(int=0xA), UUID(int=0xB)


def entry(tenant_id: UUID | None = A, action: str = "crm.call", **values: Any) -> AuditEntry:
    return AuditEntry(tenant_id, "key:1", action, **values)


async def test_write_when_the_transaction_fails_then_no_row(database: Database) -> None:
    audit = AuditLog(database)
    with pytest.raises(RuntimeError):
        async with database.tenant(A) as conn:
            await audit.write(conn, entry())
            raise RuntimeError
    assert await audit.read(A) == []


async def test_write_when_read_back_then_every_value_is_there(database: Database) -> None:
    audit = AuditLog(database)
    connection_id = uuid4()
    written = entry(
        connection_id=connection_id,
        subject_id="w1",
        request_id="r1",
        details={"count": 3, "objects": ["lead"]},
    )
    async with database.tenant(A) as conn:
        await audit.write(conn, written, entry(action="key.created"))
    rows = await audit.read(A)
    assert {row.action for row in rows} == {"crm.call", "key.created"}
    (row,) = await audit.read(A, action="crm.call")
    assert (row.id, row.tenant_id, row.actor) == (written.id, A, "key:1")
    assert (row.connection_id, row.subject_id, row.request_id) == (connection_id, "w1", "r1")
    assert row.details == {"count": 3, "objects": ["lead"]}
    assert row.at.tzinfo is not None


async def test_write_now_when_many_at_once_then_all_durable_in_few_transactions(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = AuditLog(database)
    inserts: list[set[UUID | None]] = []
    original = audit_store.insert

    async def counted(conn: Any, entries: Any) -> None:
        inserts.append({each.tenant_id for each in entries})
        await original(conn, entries)

    monkeypatch.setattr(audit_store, "insert", counted)
    tenants: list[UUID | None] = [A, B, None]
    entries = [entry(tenants[number % 3]) for number in range(900)]
    ids = await asyncio.gather(*(audit.write_now(each) for each in entries))
    assert ids == [each.id for each in entries]
    assert all(len(each) == 1 for each in inserts), "tenants must not share a transaction"
    assert len(inserts) <= 9
    for tenant_id in tenants:
        assert len(await audit.read(tenant_id, limit=1000)) == 300


async def test_write_now_when_one_entry_is_bad_then_only_its_caller_fails(database: Database) -> None:
    audit = AuditLog(database)
    good = [entry(), entry()]
    bad = [AuditEntry(A, "\ud800", "crm.call"), AuditEntry(A, "zero \0", "crm.call")]
    results = await asyncio.gather(*(audit.write_now(each) for each in (*good, *bad)), return_exceptions=True)
    assert results[:2] == [good[0].id, good[1].id]
    assert all(isinstance(each, Exception) for each in results[2:])
    assert len(await audit.read(A)) == 2


async def test_write_now_when_the_caller_is_cancelled_then_the_entry_is_still_written(
    database: Database,
) -> None:
    audit = AuditLog(database)
    task = asyncio.create_task(audit.write_now(entry(subject_id="kept")))
    await asyncio.sleep(0)
    task.cancel()
    await audit.close()
    assert [row.subject_id for row in await audit.read(A)] == ["kept"]


async def test_write_now_when_the_database_is_gone_then_every_caller_is_told(database: Database) -> None:
    audit = AuditLog(database)
    await database.app.close()
    results = await asyncio.gather(*(audit.write_now(entry()) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(each, Exception) for each in results)
    assert not any(isinstance(each, asyncio.CancelledError) for each in results)


async def test_details_when_they_hold_a_secret_then_refused_and_nothing_written(database: Database) -> None:
    audit = AuditLog(database)
    with pytest.raises(TypeError):
        await audit.write_now(entry(details={"key": Secret("s3cret")}))
    assert await audit.read(A) == []


async def test_details_when_they_hold_a_person_then_masked(database: Database) -> None:
    audit = AuditLog(database)
    await audit.write_now(
        entry(
            subject_id="jane@example.com",
            details={
                "why": "no +971501234567",
                "url": "https://h/x?q=1",
                "provider_request_id": "1234567890123",
            },
        )
    )
    (row,) = await audit.read(A)
    assert row.subject_id == "[email]"
    assert row.details == {
        "why": "no [phone]",
        "url": "https://h/x?[query]",
        "provider_request_id": "1234567890123",
    }


async def test_read_when_paged_then_every_row_once_newest_first(database: Database) -> None:
    audit = AuditLog(database)
    async with database.tenant(A) as conn:
        await audit.write(conn, *(entry(subject_id=str(number)) for number in range(25)))
    seen: list[str] = []
    before = None
    while page := await audit.read(A, limit=10, before=before):
        seen += [row.subject_id for row in page]
        before = page[-1].id
    assert sorted(seen, key=int) == [str(number) for number in range(25)]
    assert len(seen) == 25


async def test_read_when_before_is_another_tenants_row_then_refused(database: Database) -> None:
    audit = AuditLog(database)
    foreign = await audit.write_now(entry(B))
    with pytest.raises(ValidationError, match="before"):
        await audit.read(A, before=foreign)
    with pytest.raises(ValidationError, match="limit"):
        await audit.read(A, limit=0)


async def test_read_when_tenants_differ_then_each_sees_its_own(database: Database) -> None:
    audit = AuditLog(database)
    for tenant_id in (A, B, None):
        await audit.write_now(entry(tenant_id, subject_id=str(tenant_id)))
    for tenant_id in (A, B, None):
        assert [row.subject_id for row in await audit.read(tenant_id)] == [str(tenant_id)]


@pytest.mark.parametrize("action", ["call", "Crm.Call", "crm.", "crm.call.now", "drop table"])
def test_entry_when_the_action_is_no_noun_verb_then_refused(action: str) -> None:
    with pytest.raises(ValueError, match=r"noun\.verb"):
        entry(action=action)
