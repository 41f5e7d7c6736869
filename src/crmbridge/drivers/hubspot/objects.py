"""What can be done with each object. Writes go in batches of 100; our mark is a property with unique values."""

from __future__ import annotations

from typing import Any

from crmbridge.core.manifest import Idempotency, IdempotencyKind, LookUp, ObjectSpec
from crmbridge.core.operations import COMPOSED, FULL, LIMITED, NOT_YET, DeleteLevel, Operation, Support
from crmbridge.core.records import Object
from crmbridge.drivers.hubspot.natives import LINKED, MARK, NATIVES
from crmbridge.drivers.hubspot.reading import MOST_ROWS

__all__ = ["APPOINTMENTS", "OBJECTS"]

SEARCH_LAG = 10.0
_BY_SEARCH = COMPOSED("a search for the match, then an update or a create; the search lags by some seconds")
_ARCHIVED = LIMITED(
    "archived only; HubSpot purges it after 90 days and has no privacy delete but for contacts"
)
_ALL: dict[Operation, Support] = {
    Operation.DESCRIBE: FULL,
    Operation.SEARCH: FULL,
    Operation.GET: FULL,
    Operation.LIST: FULL,
    Operation.CREATE: FULL,
    Operation.UPDATE: FULL,
    Operation.UPSERT: NOT_YET("has no natural key"),
    Operation.DELETE: COMPOSED("a look whether it is there, then the archive"),
    Operation.ERASE: _ARCHIVED,
    Operation.CHANGES: NOT_YET("polling by the modification date comes in a later version"),
}
_CONTACT = {
    **_ALL,
    Operation.UPSERT: COMPOSED("an exact look-up by e-mail (else a search), then an update or a create"),
    Operation.ERASE: COMPOSED(
        "a look whether it is there, then gdpr-delete, which takes associated content too"
    ),
}


def _spec(native: str, operations: dict[Operation, Support], **more: Any) -> ObjectSpec:
    batched = [Operation.CREATE, Operation.UPDATE, Operation.DELETE]
    if operations[Operation.UPSERT] is _CONTACT[Operation.UPSERT]:
        batched.append(Operation.UPSERT)
    given: dict[str, Any] = {
        "native": native,
        "updated_field": NATIVES[native].modified,
        "operations": operations,
        "batch": dict.fromkeys(batched, MOST_ROWS),
        "delete_level": DeleteLevel.SOFT,
        "erase_level": DeleteLevel.SOFT,
        "idempotency": Idempotency(
            kind=IdempotencyKind.EXTERNAL_ID, field=MARK, search_lag_seconds=SEARCH_LAG
        ),
        "look_ups": {Operation.UPSERT: LookUp.EXTERNAL_ID},
        "doubts": {Operation.CREATE: f"the account has no property {MARK} on this object"},
        "required": NATIVES[native].required,
        "links": {obj: to for obj, to in LINKED.items() if to in NATIVES[native].links},
    }
    return ObjectSpec(**(given | more))


_LEAD = {
    **_CONTACT,
    Operation.CREATE: COMPOSED("a contact, and beside it a deal or a native lead by setting or by mapping"),
    Operation.UPDATE: LIMITED("the contact; the deal or native lead beside it is updated as itself"),
}
_KEYED = {**_ALL, Operation.UPSERT: _BY_SEARCH}
_EMAIL = {"natural_keys": ("email",), "erase_level": DeleteLevel.HARD}

OBJECTS = {
    Object.CUSTOMER: _spec("contacts", {**_CONTACT, Operation.LOOKUP: FULL}, **_EMAIL),
    Object.LEAD: _spec("contacts", _LEAD, links={Object.CUSTOMER: "contacts"}, **_EMAIL),
    Object.DEAL: _spec("deals", _KEYED),
    Object.CASE: _spec("tickets", _KEYED),
    Object.APPOINTMENT: _spec("meetings", _ALL),
    Object.NOTE: _spec("notes", _ALL),
    Object.ACTIVITY: _spec(
        "calls",
        {**_ALL, Operation.CREATE: LIMITED("calls only; write a chat or an e-mail as a note")},
    ),
}
APPOINTMENTS = _spec("appointments", _ALL)
"""Of accounts that use the appointments object instead of meetings."""
