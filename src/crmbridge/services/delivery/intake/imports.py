"""Imports: the id under which the writes of one file are found together."""

from __future__ import annotations

from uuid import UUID

from crmbridge.core.ids import new_id
from crmbridge.core.records import Object
from crmbridge.db.pool import Database
from crmbridge.services.audit.model import AuditEntry
from crmbridge.services.audit.service import AuditLog
from crmbridge.services.delivery.intake import store
from crmbridge.services.tenants.model import Tenant

__all__ = ["add_import"]


async def add_import(
    db: Database, audit: AuditLog, actor: str, tenant: Tenant, obj: Object, connection_id: UUID | None
) -> UUID:
    """A new import, noted in the audit log; its id."""
    import_id = new_id()
    async with db.tenant(tenant.id) as conn:
        await store.add_import(conn, import_id, tenant.id, obj.value, connection_id, actor)
        await audit.write(
            conn,
            AuditEntry(
                tenant_id=tenant.id,
                actor=actor,
                action="import.started",
                connection_id=connection_id,
                subject_id=str(import_id),
                details={"object": obj.value},
            ),
        )
    return import_id
