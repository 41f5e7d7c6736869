"""What can be done with each object, and how far an erasure goes.

Writes go as sObject collections, 200 a call. Salesforce has no idempotency key: a unique External Id field that an
administrator makes carries our mark; a note, which has no own fields, is found by its title.
"""

from __future__ import annotations

from typing import Any

from crmbridge.core.manifest import Idempotency, IdempotencyKind, LookUp, ObjectSpec
from crmbridge.core.operations import COMPOSED, FULL, LIMITED, NOT_YET, DeleteLevel, Operation, Support
from crmbridge.core.records import Object
from crmbridge.drivers.salesforce.natives import DATA, MARK, NATIVES
from crmbridge.drivers.salesforce.reading import MOST_ROWS

__all__ = ["objects"]

_BY_MATCH = COMPOSED("one call by a unique External Id field; by others a query, then updates and creates")
_REDACTED = COMPOSED("a describe, a change that empties the fields, then the delete; only before a delete")
_ALL: dict[Operation, Support] = {
    Operation.DESCRIBE: FULL,
    Operation.SEARCH: FULL,
    Operation.GET: FULL,
    Operation.LIST: FULL,
    Operation.CREATE: FULL,
    Operation.UPDATE: FULL,
    Operation.UPSERT: _BY_MATCH,
    Operation.DELETE: FULL,
    Operation.ERASE: _REDACTED,
    Operation.CHANGES: NOT_YET("polling by SystemModstamp comes in a later version"),
}
_TASK = LIMITED("the day of a conversation, not its hour; a recording's address has no field")


_NO_FIELD = {Operation.CREATE: f"the org has no field {MARK} on this object"}


def _spec(obj: Object, erase_level: DeleteLevel = DeleteLevel.REDACTED, **more: Any) -> ObjectSpec:
    native = NATIVES[obj]
    operations = _ALL | more.pop("operations", {})
    written = (Operation.CREATE, Operation.UPDATE, Operation.UPSERT, Operation.DELETE)
    return ObjectSpec(
        native=native.name,
        path=f"{DATA}/sobjects/{native.name}",
        id_field="Id",
        updated_field="SystemModstamp",
        url="{instance_url}/{id}",
        operations=operations,
        batch={one: MOST_ROWS for one in written if operations[one].is_usable},
        links=dict(native.links),
        required=native.required,
        delete_level=DeleteLevel.SOFT,
        erase_level=erase_level,
        idempotency=more.pop("idempotency", Idempotency(kind=IdempotencyKind.EXTERNAL_ID, field=MARK)),
        look_ups={Operation.UPSERT: LookUp.EXTERNAL_ID},
        doubts=more.pop("doubts", _NO_FIELD),
        **more,
    )


def objects(erase_level: DeleteLevel) -> dict[Object, ObjectSpec]:
    """The objects, erased as far as this level."""
    return {
        Object.LEAD: _spec(Object.LEAD, erase_level, natural_keys=("Email",)),
        Object.CUSTOMER: _spec(
            Object.CUSTOMER, erase_level, natural_keys=("Email",), operations={Operation.LOOKUP: FULL}
        ),
        Object.DEAL: _spec(
            Object.DEAL,
            erase_level,
            operations={
                Operation.CREATE: COMPOSED("an opportunity, and for a linked customer a contact role")
            },
        ),
        Object.APPOINTMENT: _spec(Object.APPOINTMENT, erase_level),
        Object.CASE: _spec(Object.CASE, erase_level),
        Object.ACTIVITY: _spec(Object.ACTIVITY, erase_level, operations={Operation.CREATE: _TASK}),
        Object.NOTE: _spec(
            Object.NOTE,
            erase_level,
            operations={Operation.UPSERT: NOT_YET("a note has no field of its own to match by")},
            idempotency=Idempotency(kind=IdempotencyKind.MARK, field="Title"),
            doubts={Operation.CREATE: "a field is mapped to its title, which then has no room for our mark"},
        ),
    }
