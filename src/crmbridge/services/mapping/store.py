"""SQL of tenant_crm_field_mappings."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import msgspec

from crmbridge.core.records import Object
from crmbridge.db.pool import setting_first
from crmbridge.services.mapping.model import Rule, StoredRule

__all__ = ["delete_rule", "find_rules", "put_rule", "read_rules"]

# The overrides of one connection.
_READ = """
select connection_id, object, slot, rule from tenant_crm_field_mappings
where connection_id = $1 order by object, slot
"""

# The same in a transaction of its own, which sets the tenant before the first row is read.
_READ_ALONE = setting_first(2) + _READ.replace("where ", "where (select is_set from tenants_set) and ")

# One override, new or changed.
_PUT = """
insert into tenant_crm_field_mappings (id, tenant_id, connection_id, object, slot, rule, updated_by)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (connection_id, object, slot)
do update set rule = excluded.rule, updated_by = excluded.updated_by, updated_at = now()
"""

# Back to the driver's own rule.
_DELETE = "delete from tenant_crm_field_mappings where connection_id = $1 and object = $2 and slot = $3 returning slot"


async def read_rules(conn: Any, connection_id: UUID) -> list[StoredRule]:
    """All overrides of one connection, by object and slot."""
    return [_stored(row) for row in await conn.fetch(_READ, connection_id)]


async def find_rules(conn: Any, connection_id: UUID, setting: str) -> list[StoredRule]:
    """The same, for ``Database.alone``."""
    return [_stored(row) for row in await conn.fetch(_READ_ALONE, connection_id, setting)]


def _stored(row: Any) -> StoredRule:
    return StoredRule(
        connection_id=row["connection_id"],
        object=Object(row["object"]),
        slot=row["slot"],
        rule=msgspec.convert(row["rule"], Rule),
    )


async def put_rule(
    conn: Any, tenant_id: UUID, connection_id: UUID, obj: Object, slot: str, rule: Rule, actor: str
) -> None:
    """Insert or replace one override."""
    await conn.execute(
        _PUT, uuid4(), tenant_id, connection_id, obj.value, slot, msgspec.to_builtins(rule), actor
    )


async def delete_rule(conn: Any, connection_id: UUID, obj: Object, slot: str) -> bool:
    """Remove one override; False when there was none."""
    return await conn.fetchval(_DELETE, connection_id, obj.value, slot) is not None
