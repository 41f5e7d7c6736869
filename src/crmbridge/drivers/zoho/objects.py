"""What can be done with each module. Zoho has no idempotency key: a field of our own carries our mark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crmbridge.core.manifest import Idempotency, IdempotencyKind, LookUp, ObjectSpec
from crmbridge.core.operations import COMPOSED, FULL, LIMITED, NOT_YET, DeleteLevel, Operation, Support
from crmbridge.core.records import Object
from crmbridge.drivers.zoho.natives import API, MARK, NATIVES
from crmbridge.drivers.zoho.writing import MOST_WRITES

__all__ = ["OBJECTS"]

LAG = 10.0
_ALL: dict[Operation, Support] = {
    Operation.DESCRIBE: FULL,
    Operation.SEARCH: FULL,
    Operation.GET: FULL,
    Operation.LIST: FULL,
    Operation.CREATE: FULL,
    Operation.UPDATE: FULL,
    Operation.UPSERT: COMPOSED("a look for the match, then Zoho's upsert by that field (by several: by id)"),
    Operation.DELETE: FULL,
    Operation.ERASE: COMPOSED("the delete, then the removal from the recycle bin"),
    Operation.CHANGES: NOT_YET("polling by Modified_Time comes in a later version"),
}
_BY_ID = {
    Operation.UPSERT: COMPOSED("a look for the match, then a change by id or a create: no upsert in Zoho")
}
_NOTE = {
    Operation.UPSERT: NOT_YET("has no natural key"),
    Operation.SEARCH: NOT_YET("COQL has no notes, and Zoho's search would put the text into an address"),
}
_CALL = {
    **_BY_ID,
    Operation.CREATE: LIMITED(
        "calls only; write a chat or an e-mail as a note, and a recording as a link in its text"
    ),
}


_NO_FIELD = {Operation.CREATE: f"the module has no field {MARK}"}


def _spec(obj: Object, operations: Mapping[Operation, Support] | None = None, **more: Any) -> ObjectSpec:
    native = NATIVES[obj]
    declared = _ALL | dict(operations or {})
    written = (Operation.CREATE, Operation.UPDATE, Operation.UPSERT, Operation.DELETE)
    unique = Idempotency(kind=IdempotencyKind.EXTERNAL_ID, field=MARK, search_lag_seconds=LAG)
    return ObjectSpec(
        native=native.name,
        path=f"{API}/{native.name}",
        updated_field="Modified_Time",
        operations=declared,
        batch={one: MOST_WRITES for one in written if declared[one].is_usable},
        links=dict(native.links),
        required=native.required,
        delete_level=DeleteLevel.SOFT,
        erase_level=DeleteLevel.HARD,
        idempotency=more.pop("idempotency", unique),
        # Zoho's own upsert carries no mark. Whether an erased record left the recycle bin too cannot be seen.
        look_ups={
            Operation.UPSERT: LookUp.MARK
            if declared[Operation.UPSERT] is _BY_ID[Operation.UPSERT]
            else LookUp.REPEAT,
            Operation.ERASE: LookUp.REPEAT,
        },
        doubts=more.pop("doubts", _NO_FIELD),
        **more,
    )


_BY_MARK = Idempotency(kind=IdempotencyKind.MARK, field=MARK, search_lag_seconds=LAG)
_BY_TITLE = Idempotency(kind=IdempotencyKind.MARK, field="Note_Title", search_lag_seconds=LAG)

OBJECTS = {
    Object.LEAD: _spec(Object.LEAD, natural_keys=("Email",)),
    Object.CUSTOMER: _spec(Object.CUSTOMER, {Operation.LOOKUP: FULL}, natural_keys=("Email",)),
    Object.DEAL: _spec(Object.DEAL),
    Object.APPOINTMENT: _spec(Object.APPOINTMENT, _BY_ID, idempotency=_BY_MARK),
    Object.CASE: _spec(Object.CASE),
    Object.NOTE: _spec(
        Object.NOTE,
        _NOTE,
        idempotency=_BY_TITLE,
        doubts={Operation.CREATE: "a field is mapped to its title, which then has no room for our mark"},
    ),
    Object.ACTIVITY: _spec(Object.ACTIVITY, _CALL, idempotency=_BY_MARK),
}
