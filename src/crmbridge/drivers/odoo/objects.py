"""What can be done with each model. Creates and updates go through ``load``: an external id of ours is the mark."""

from __future__ import annotations

from typing import Any

from crmbridge.core.manifest import Idempotency, IdempotencyKind, LookUp, ObjectSpec
from crmbridge.core.operations import COMPOSED, FULL, LIMITED, NOT_YET, DeleteLevel, Operation, Support
from crmbridge.core.records import Object
from crmbridge.drivers.odoo import messages
from crmbridge.drivers.odoo.loading import MOST_ROWS

__all__ = ["OBJECTS"]

_RECORDS: dict[Operation, Support] = {
    Operation.DESCRIBE: FULL,
    Operation.SEARCH: FULL,
    Operation.GET: FULL,
    Operation.LIST: FULL,
    Operation.CREATE: FULL,
    Operation.UPDATE: FULL,
    Operation.UPSERT: COMPOSED("a search for the match, then load"),
    Operation.DELETE: FULL,
    Operation.ERASE: FULL,
    Operation.CHANGES: NOT_YET("Odoo has no change feed; polling by write_date comes in a later version"),
}
_OWN = LIMITED("Odoo lets only a message's author (or an administrator) change or delete it")
_MESSAGES: dict[Operation, Support] = {
    **_RECORDS,
    Operation.CREATE: LIMITED("needs a link to a customer, lead, deal or appointment to stand on"),
    Operation.UPDATE: _OWN,
    Operation.UPSERT: NOT_YET("messages have no natural key"),
    Operation.DELETE: _OWN,
    Operation.ERASE: _OWN,
}
_NO_CASE = NOT_YET("cases are the Helpdesk app of Odoo Enterprise, which this driver does not know yet")
_BATCHED = (Operation.CREATE, Operation.UPDATE, Operation.UPSERT, Operation.DELETE, Operation.ERASE)
_MARK = Idempotency(kind=IdempotencyKind.EXTERNAL_ID, field="id")


def _spec(native: str, operations: dict[Operation, Support], **more: Any) -> ObjectSpec:
    return ObjectSpec(
        native=native,
        updated_field="write_date",
        operations=operations,
        batch={each: MOST_ROWS for each in _BATCHED if operations[each].is_usable},
        delete_level=DeleteLevel.HARD,
        erase_level=DeleteLevel.HARD,
        idempotency=_MARK,
        look_ups={Operation.UPSERT: LookUp.EXTERNAL_ID},
        doubts={Operation.CREATE: "the record is there, but the connected user may not see it"},
        **more,
    )


_KEYS = ("email_from", "phone")
_CONTACT_LINK = {Object.CUSTOMER: "partner_id.id"}

OBJECTS = {
    Object.CUSTOMER: _spec(
        "res.partner",
        {**_RECORDS, Operation.LOOKUP: FULL},
        natural_keys=("email", "phone"),
        required=("name",),
    ),
    Object.LEAD: _spec("crm.lead", _RECORDS, natural_keys=_KEYS, links=_CONTACT_LINK, required=("name",)),
    Object.DEAL: _spec("crm.lead", _RECORDS, links=_CONTACT_LINK, required=("name",)),
    Object.APPOINTMENT: _spec(
        "calendar.event",
        _RECORDS,
        links={
            Object.CUSTOMER: "partner_ids.id",
            Object.LEAD: "opportunity_id.id",
            Object.DEAL: "opportunity_id.id",
        },
        required=("name", "start"),
    ),
    Object.NOTE: _spec(
        "mail.message", _MESSAGES, links=dict.fromkeys(messages.CARRIERS, "res_id"), required=("body",)
    ),
    Object.ACTIVITY: _spec(
        "mail.message",
        {**_MESSAGES, Operation.UPDATE: NOT_YET("an activity is written once")},
        links=dict.fromkeys(messages.CARRIERS, "res_id"),
    ),
    Object.CASE: ObjectSpec(native="helpdesk.ticket", operations=dict.fromkeys(Operation, _NO_CASE)),
}
