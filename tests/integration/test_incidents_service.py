"""Incidents on a real PostgreSQL."""

from __future__ import annotations

from uuid import UUID

import pytest

from crmbridge.core.errors import Conflict, NotFound, ValidationError
from crmbridge.core.ids import new_id
from crmbridge.db.pool import Database
from crmbridge.services.audit import AuditLog
from crmbridge.services.incidents import Incident, IncidentKind, Incidents, IncidentState

pytestmark = pytest.mark.postgres


@pytest.fixture
def audit(database: Database) -> AuditLog:
    return AuditLog(database)


@pytest.fixture
def incidents(database: Database, audit: AuditLog) -> Incidents:
    return Incidents(database, audit)


async def tenant(database: Database, slug: str = "a") -> UUID:
    tenant_id = new_id()
    async with database.tenant(tenant_id) as conn:
        await conn.execute(
            "insert into tenants (id, slug, name, vertical) values ($1, $2, 'A', 'general')", tenant_id, slug
        )
    return tenant_id


async def open_one(
    database: Database, incidents: Incidents, tenant_id: UUID, key: str = "k", title: str = "Not delivered"
) -> Incident:
    async with database.tenant(tenant_id) as conn:
        return await incidents.open(conn, tenant_id, "crm_sync_failure", key, title, {"writes": 1})


async def test_open_when_it_repeats_then_counted_and_audited_once(
    database: Database, incidents: Incidents, audit: AuditLog
) -> None:
    tenant_id = await tenant(database)
    first = await open_one(database, incidents, tenant_id)
    second = await open_one(database, incidents, tenant_id, title="Still not delivered")
    assert (first.id, first.times_seen) == (second.id, 1)
    assert (second.times_seen, second.title) == (2, "Still not delivered")
    assert len(await incidents.list_open(tenant_id)) == 1
    assert [row.action for row in await audit.read(tenant_id)] == ["incident.opened"]


async def test_open_when_resolved_before_then_a_new_one(database: Database, incidents: Incidents) -> None:
    tenant_id = await tenant(database)
    first = await open_one(database, incidents, tenant_id)
    await incidents.resolve(tenant_id, first.id, "operator:1")
    second = await open_one(database, incidents, tenant_id)
    assert second.id != first.id
    assert second.times_seen == 1


async def test_open_when_acknowledged_then_counted_and_stays_acknowledged(
    database: Database, incidents: Incidents
) -> None:
    tenant_id = await tenant(database)
    first = await open_one(database, incidents, tenant_id)
    await incidents.acknowledge(tenant_id, first.id, "operator:1")
    again = await open_one(database, incidents, tenant_id)
    assert (again.id, again.state, again.times_seen) == (first.id, IncidentState.ACKNOWLEDGED, 2)


async def test_life_when_acknowledged_and_resolved_then_told_by_whom(
    database: Database, incidents: Incidents, audit: AuditLog
) -> None:
    tenant_id = await tenant(database)
    opened = await open_one(database, incidents, tenant_id)
    acknowledged = await incidents.acknowledge(tenant_id, opened.id, "operator:1")
    assert (acknowledged.state, acknowledged.acknowledged_by) == (IncidentState.ACKNOWLEDGED, "operator:1")
    with pytest.raises(Conflict):
        await incidents.acknowledge(tenant_id, opened.id, "operator:2")
    resolved = await incidents.resolve(tenant_id, opened.id, "operator:2")
    assert (resolved.state, resolved.resolved_by) == (IncidentState.RESOLVED, "operator:2")
    with pytest.raises(Conflict):
        await incidents.resolve(tenant_id, opened.id, "operator:1")
    assert await incidents.list_open(tenant_id) == []
    assert await incidents.get(tenant_id, opened.id) == resolved
    actions = {(row.action, row.actor) for row in await audit.read(tenant_id)}
    assert actions == {
        ("incident.opened", "system"),
        ("incident.acknowledged", "operator:1"),
        ("incident.resolved", "operator:2"),
    }


async def test_other_tenants_incident_when_touched_then_not_found(
    database: Database, incidents: Incidents
) -> None:
    one, two = await tenant(database, "a"), await tenant(database, "b")
    opened = await open_one(database, incidents, one)
    for verb in (incidents.acknowledge, incidents.resolve):
        with pytest.raises(NotFound):
            await verb(two, opened.id, "operator:1")
    with pytest.raises(NotFound):
        await incidents.get(two, opened.id)
    assert await incidents.list_open(two) == []
    assert (await incidents.get(one, opened.id)).state is IncidentState.OPEN


async def test_list_open_when_no_tenant_then_all_tenants_newest_first(
    database: Database, incidents: Incidents
) -> None:
    one, two = await tenant(database, "a"), await tenant(database, "b")
    first, second = await open_one(database, incidents, one), await open_one(database, incidents, two)
    assert [each.id for each in await incidents.list_open()] == [second.id, first.id]
    assert await incidents.list_open(kind=IncidentKind.MAPPING_DRIFT) == []
    assert len(await incidents.list_open(limit=1)) == 1
    with pytest.raises(ValidationError):
        await incidents.list_open(limit=0)
    with pytest.raises(ValidationError, match="mapping_drift"):
        await incidents.list_open(kind="bogus")


async def test_resolve_by_key_when_its_cause_is_gone_then_resolved(
    database: Database, incidents: Incidents
) -> None:
    tenant_id = await tenant(database)
    opened = await open_one(database, incidents, tenant_id)
    async with database.tenant(tenant_id) as conn:
        assert await incidents.resolve_by_key(conn, tenant_id, "crm_sync_failure", "other") is None
        resolved = await incidents.resolve_by_key(conn, tenant_id, "crm_sync_failure", "k")
    assert resolved is not None
    assert resolved.id == opened.id


async def test_title_when_it_holds_a_person_then_masked(database: Database, incidents: Incidents) -> None:
    tenant_id = await tenant(database)
    opened = await open_one(database, incidents, tenant_id, title="jane@example.com not delivered")
    assert opened.title == "[email] not delivered"
