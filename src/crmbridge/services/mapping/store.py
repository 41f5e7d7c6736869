"""SQL of tenant_crm_field_mappings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID, uuid4

import msgspec

from crmbridge.core.records import Object
from crmbridge.services.mapping.model import Overrides, Rule

__all__ = ["delete_rule", "overrides_from", "put_rule", "read_rules"]

# The overrides of one connection.
_READ = """
select object, slot, rule from tenant_crm_field_mappings
where connection_id = $1 order by object, slot
"""

# One override, new or changed.
_PUT = """
insert into tenant_crm_field_mappings (id, tenant_id, connection_id, object, slot, rule, updated_by)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (connection_id, object, slot)
do update set rule = excluded.rule, updated_by = excluded.updated_by, updated_at = now()
"""

# Back to the driver's own rule.
_DELETE = "delete from tenant_crm_field_mappings where connection_id = $1 and object = $2 and slot = $3 returning slot"


async def read_rules(conn: Any, connection_id: UUID) -> Overrides:
    """All overrides of one connection."""
    return overrides_from(await conn.fetch(_READ, connection_id))


def overrides_from(rows: Iterable[Mapping[str, Any]]) -> Overrides:
    """By object and slot; of each rule of one connection a row with both and the rule."""
    found: Overrides = {}
    for row in rows:
        found.setdefault(Object(row["object"]), {})[row["slot"]] = msgspec.convert(row["rule"], Rule)
    return found


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
