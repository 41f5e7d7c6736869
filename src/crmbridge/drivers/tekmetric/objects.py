"""What can be done with each object of Tekmetric, and how it is called."""

from __future__ import annotations

from typing import Any

from crmbridge.core.manifest import Call, Idempotency, IdempotencyKind, ObjectSpec
from crmbridge.core.operations import (
    COMPOSED,
    FULL,
    LIMITED,
    NEVER,
    NOT_YET,
    DeleteLevel,
    Operation,
    Support,
)
from crmbridge.core.records import Object

__all__ = ["DOCS", "OBJECTS"]

DOCS = "https://api.tekmetric.com/"
_STATIC = LIMITED("from a table in the driver; Tekmetric tells no schema")
_MERGE = COMPOSED("reads the record first: the shop is checked, and a PATCH replaces whole lists")
_UNSORTED = LIMITED("by the time of the last change, but not sorted by it")
_BY_HAND = NEVER(
    "the API cannot delete a customer; the shop does it in Tekmetric, by hand",
    DOCS,
    "Ask the shop to open this customer in Tekmetric, to take out name, e-mail, phones, address and notes, and to tell "
    "you when it is done. Repair orders keep a copy by the shop's own duties: note them as residue.",
)
_READ_ONLY = NEVER(
    "repair orders are made and kept by the shop; the API changes a few workshop fields only", DOCS
)
_KEPT = NEVER(
    "repair orders are kept by the shop; the API cannot delete one",
    DOCS,
    "Repair orders keep a copy of the customer by the shop's own duties: ask the shop what it can take out, and note "
    "the order as residue.",
)
_NO_FEED = NOT_YET("webhooks and polling for changes come in a later version")
_SHOP = {"shop": "{{ settings.shop_id }}"}
_DELETED = {"includeDeleted": "{{ filter.includeDeleted | default('false') }}"}


def _absent(native: str, why: str) -> ObjectSpec:
    return ObjectSpec(native=native, operations=dict.fromkeys(Operation, NEVER(why, DOCS)))


def _list(path: str, **query: str) -> Call:
    return Call(method="GET", path=path, query={**_SHOP, "updatedDateStart": "{{ filter.since }}", **query})


_PERSON = Call(method="GET", path="/customers", query={**_SHOP, "search": "{{ filter.text }}"})
_PERSON_OPERATIONS: dict[Operation, Support] = {
    Operation.DESCRIBE: _STATIC,
    Operation.SEARCH: LIMITED("by e-mail, phone, name or free text"),
    Operation.GET: FULL,
    Operation.CREATE: LIMITED("phones of North America only; a known e-mail or phone is a conflict"),
    Operation.UPDATE: _MERGE,
    Operation.UPSERT: COMPOSED("a search for the match, then an update or a create"),
    Operation.DELETE: _BY_HAND,
    Operation.ERASE: _BY_HAND,
}
_PERSON_FACTS: dict[str, Any] = {
    "path": "/customers",
    "updated_field": "updatedDate",
    "natural_keys": ("email", "phone"),
    "required": ("firstName",),
    "idempotency": Idempotency(kind=IdempotencyKind.NATURAL_KEY),
    "doubts": {Operation.UPDATE: "it takes an e-mail or a phone away: a repeat would take away the next one"},
}

OBJECTS = {
    Object.CUSTOMER: ObjectSpec(
        native="customer",
        operations={
            **_PERSON_OPERATIONS,
            Operation.LOOKUP: COMPOSED("searches by phone and by e-mail, compared exactly"),
            Operation.LIST: _UNSORTED,
            Operation.CHANGES: _NO_FEED,
        },
        calls={
            Operation.SEARCH: _PERSON,
            Operation.LIST: _list("/customers"),
            Operation.CREATE: Call(method="POST", path="/customers", body="{{ record }}", id="data.id"),
        },
        **_PERSON_FACTS,
    ),
    # Tekmetric has no leads: a lead is a customer, with what he wants in a marked block of his notes.
    Object.LEAD: ObjectSpec(
        native="customer",
        operations={
            **_PERSON_OPERATIONS,
            Operation.LIST: NEVER("Tekmetric cannot tell leads from customers; list customers", DOCS),
        },
        calls={
            Operation.SEARCH: _PERSON,
            Operation.CREATE: Call(method="POST", path="/customers", body="{{ record }}", id="data.id"),
        },
        **_PERSON_FACTS,
    ),
    Object.APPOINTMENT: ObjectSpec(
        native="appointment",
        path="/appointments",
        updated_field="updatedDate",
        operations={
            Operation.DESCRIBE: _STATIC,
            Operation.GET: FULL,
            Operation.LIST: _UNSORTED,
            Operation.SEARCH: LIMITED("by start, customer or vehicle only"),
            Operation.CREATE: FULL,
            Operation.UPDATE: _MERGE,
            Operation.UPSERT: NEVER("an appointment has no natural key", DOCS),
            Operation.DELETE: LIMITED("soft: Tekmetric keeps the appointment, marked as deleted"),
            Operation.ERASE: LIMITED(
                "soft: its texts are emptied, then it is marked as deleted; a refusal gives the shop the task"
            ),
            Operation.CHANGES: _NO_FEED,
        },
        calls={
            Operation.LIST: _list("/appointments", **_DELETED),
            Operation.SEARCH: Call(
                method="GET",
                path="/appointments",
                query={
                    **_SHOP,
                    **_DELETED,
                    **{
                        name: f"{{{{ filter.{name} }}}}"
                        for name in ("customerId", "vehicleId", "start", "end")
                    },
                },
            ),
            # Create answers the id alone.
            Operation.CREATE: Call(method="POST", path="/appointments", body="{{ record }}", id="data"),
        },
        links={Object.CUSTOMER: "customerId", Object.LEAD: "customerId"},
        required=("title", "startTime", "endTime"),
        delete_level=DeleteLevel.SOFT,
        erase_level=DeleteLevel.SOFT,
        # Tekmetric guards no appointment: our mark stands in the description, find_written looks for it.
        idempotency=Idempotency(kind=IdempotencyKind.MARK, field="about.ref"),
        doubts={Operation.CREATE: "too many appointments stand in the days around its start to look through"},
    ),
    Object.DEAL: ObjectSpec(
        native="repair order",
        path="/repair-orders",
        updated_field="updatedDate",
        operations={
            Operation.DESCRIBE: _STATIC,
            Operation.GET: FULL,
            Operation.LIST: _UNSORTED,
            Operation.SEARCH: LIMITED("by number, customer, vehicle or free text"),
            **dict.fromkeys((Operation.CREATE, Operation.UPDATE, Operation.UPSERT), _READ_ONLY),
            **dict.fromkeys((Operation.DELETE, Operation.ERASE), _KEPT),
            Operation.CHANGES: _NO_FEED,
        },
        calls={
            Operation.LIST: _list("/repair-orders", sort="createdDate", sortDirection="DESC"),
            Operation.SEARCH: Call(
                method="GET",
                path="/repair-orders",
                query={
                    **_SHOP,
                    "search": "{{ filter.text }}",
                    **{
                        name: f"{{{{ filter.{name} }}}}"
                        for name in ("repairOrderNumber", "customerId", "vehicleId")
                    },
                },
            ),
        },
    ),
    Object.NOTE: _absent("none", "Tekmetric has no notes; use customer.notes or appointment.notes"),
    Object.CASE: _absent("none", "Tekmetric has no cases; a repair order's concerns are read-only"),
    Object.ACTIVITY: _absent("none", "Tekmetric keeps no calls or chats; use customer.notes"),
}
