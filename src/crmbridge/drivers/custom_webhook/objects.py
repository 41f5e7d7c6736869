"""What can be done with each object: it is told, it is not asked."""

from __future__ import annotations

from crmbridge.core.manifest import Idempotency, IdempotencyKind, ObjectSpec
from crmbridge.core.operations import FULL, LIMITED, NEVER, DeleteLevel, Operation
from crmbridge.core.records import Object

__all__ = ["OBJECTS", "SPECIFICATION"]

SPECIFICATION = "https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md"
_NO_READS = NEVER("a webhook is a write bridge: the receiver is told, it is not asked", SPECIFICATION)
_NEEDS_ID = LIMITED("only records for which the receiver answered a remote id can be named again")

_NO_NOTE_KEY = NEVER("a note has no slot by which the same note could be found again", SPECIFICATION)

_OBJECT = {
    **dict.fromkeys(
        (
            Operation.DESCRIBE,
            Operation.LOOKUP,
            Operation.SEARCH,
            Operation.GET,
            Operation.LIST,
            Operation.CHANGES,
        ),
        _NO_READS,
    ),
    Operation.CREATE: FULL,
    Operation.UPSERT: FULL,
    Operation.UPDATE: _NEEDS_ID,
    Operation.DELETE: _NEEDS_ID,
    Operation.ERASE: _NEEDS_ID,
}

OBJECTS = {
    obj: ObjectSpec(
        native=obj.value,
        id_field="remote_id",
        operations=_OBJECT | ({Operation.UPSERT: _NO_NOTE_KEY} if obj is Object.NOTE else {}),
        delete_level=DeleteLevel.PASS_THROUGH,
        erase_level=DeleteLevel.PASS_THROUGH,
        idempotency=Idempotency(kind=IdempotencyKind.KEY_SENT, field="webhook-id"),
    )
    for obj in Object
}
