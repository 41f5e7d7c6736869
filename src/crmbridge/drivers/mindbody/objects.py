"""What can be done with each object of Mindbody, and how lists are asked for."""

from __future__ import annotations

from typing import Any

import msgspec

from crmbridge.core.manifest import Call, Idempotency, IdempotencyKind, ObjectSpec
from crmbridge.core.operations import (
    COMPOSED,
    FULL,
    LIMITED,
    NEVER,
    NOT_YET,
    DeleteLevel,
    Operation,
)
from crmbridge.core.records import Object

__all__ = ["CLIENTS", "DOCS", "LOGS", "OBJECTS", "without_staff"]

DOCS = "https://developers.mindbodyonline.com/PublicDocumentation/V6"
CLIENTS = (Object.CUSTOMER, Object.LEAD)
LOGS = (Object.NOTE, Object.CASE, Object.ACTIVITY)

_BY_HAND = NEVER(
    "clients cannot be deleted through Mindbody's API, nor by the business for good; a person must do it",
    DOCS,
    fix=(
        "In the Mindbody dashboard open the client, take out name, e-mail, phones, address, birth date and notes, "
        "deactivate the client, and ask Mindbody's privacy team to delete what it keeps itself."
    ),
)
_BOOKED = NEVER(
    "an appointment cannot be erased: Mindbody keeps it in the client's history, cancelled or not",
    DOCS,
    fix="In the Mindbody dashboard open the client's appointments and empty their notes; the visits themselves stay.",
)
_CLIENT_ONLY = NEVER("contact logs are listed per client only", DOCS)
_NO_FEED = NOT_YET("webhooks and polling for changes come in a later version")
_LIVE = LIMITED("required and custom fields come from the site, the others from a table in the driver")
_STATIC = LIMITED("from a table in the driver; Mindbody tells no schema")
_RESOLVED = COMPOSED("reads the client first: writes want the changeable client id, not the unique one")
_ALL = {"includeInactive": "true"}
_DAYS = {"startDate": "{{ filter.startDate }}", "endDate": "{{ filter.endDate }}"}


def _clients(**query: str) -> Call:
    return Call(method="GET", path="/client/clients", query={**_ALL, **query}, result="Clients")


def _client_spec(only: dict[str, str], **more: Any) -> ObjectSpec:
    operations = {
        Operation.DESCRIBE: _LIVE,
        Operation.SEARCH: LIMITED("by e-mail, name or free text; Mindbody cannot search by phone"),
        Operation.GET: FULL,
        Operation.LIST: LIMITED("by the time of the last change, but not sorted by it"),
        Operation.CREATE: LIMITED(
            "the site's required fields must be given; the same first name, last name and e-mail is a conflict"
        ),
        Operation.UPDATE: _RESOLVED,
        Operation.UPSERT: COMPOSED("a search for the match, then an update or a create"),
        Operation.DELETE: _BY_HAND,
        Operation.ERASE: _BY_HAND,
        Operation.CHANGES: _NO_FEED,
    }
    return ObjectSpec(
        native="client",
        path="/client/clients",
        # Id (the barcode) can be changed by the staff, UniqueId never.
        id_field="UniqueId",
        updated_field="LastModifiedDateTime",
        natural_keys=("Email", "FirstName", "LastName"),
        operations={**operations, **more.pop("operations", {})},
        calls={
            Operation.SEARCH: _clients(searchText="{{ filter.text }}", **only),
            Operation.LIST: _clients(lastModifiedDate="{{ filter.since }}", **only),
            Operation.CREATE: Call(
                method="POST", path="/client/addclient", body="{{ record }}", result="Client"
            ),
        },
        required=("FirstName", "LastName"),
        idempotency=Idempotency(kind=IdempotencyKind.NATURAL_KEY),
        doubts={
            Operation.CREATE: "no such client is found and it has no e-mail (Mindbody then allows a second one), or "
            "the connection has no staff user, without whom nothing can be read"
        },
    )


def _log_spec(native: str) -> ObjectSpec:
    return ObjectSpec(
        native=native,
        path="/client/contactlogs",
        operations={
            Operation.DESCRIBE: _STATIC,
            Operation.GET: COMPOSED("from the client's contact logs"),
            Operation.CREATE: LIMITED("a contact log; needs a link to a customer or lead"),
            Operation.UPDATE: COMPOSED("reads the contact log first, for the numbers of its comments"),
            Operation.UPSERT: NEVER("a contact log has no natural key", DOCS),
            Operation.SEARCH: _CLIENT_ONLY,
            Operation.LIST: _CLIENT_ONLY,
            Operation.DELETE: COMPOSED("reads the client first, for the changeable client id"),
            Operation.ERASE: COMPOSED("the same call as delete"),
            Operation.CHANGES: NEVER("Mindbody tells no changes of contact logs", DOCS),
        },
        links={Object.CUSTOMER: "client", Object.LEAD: "client"},
        required=("Text",),
        delete_level=DeleteLevel.HARD,
        erase_level=DeleteLevel.HARD,
        # Our mark stands in a comment, find_written looks for it.
        idempotency=Idempotency(kind=IdempotencyKind.MARK, field="about.Ref"),
    )


OBJECTS = {
    Object.CUSTOMER: _client_spec(
        {},
        operations={
            Operation.LOOKUP: LIMITED(
                "by e-mail; by phone only on sites small enough to compare all clients (setting phone_pages)"
            )
        },
    ),
    Object.LEAD: _client_spec({"isProspect": "true"}),
    Object.APPOINTMENT: ObjectSpec(
        native="appointment",
        path="/appointment/staffappointments",
        id_field="Id",
        operations={
            Operation.DESCRIBE: _STATIC,
            Operation.GET: FULL,
            Operation.LIST: LIMITED("from a month back to a year ahead; Mindbody tells no time of change"),
            Operation.SEARCH: LIMITED("by start only"),
            Operation.CREATE: LIMITED(
                "needs a link to a customer or lead, a service, a member of staff, a location"
            ),
            Operation.UPDATE: LIMITED("time, service, staff, notes, and the status by Mindbody's own steps"),
            Operation.UPSERT: NEVER("an appointment has no natural key", DOCS),
            Operation.DELETE: LIMITED("soft: the appointment is cancelled and stays in the client's history"),
            Operation.ERASE: _BOOKED,
            Operation.CHANGES: _NO_FEED,
        },
        calls={
            operation: Call(
                method="GET",
                path="/appointment/staffappointments",
                query={**_DAYS, "appointmentIds": "{{ filter.id }}"},
                result="Appointments",
            )
            for operation in (Operation.LIST, Operation.SEARCH, Operation.GET)
        },
        links={Object.CUSTOMER: "client", Object.LEAD: "client"},
        required=("StartDateTime", "SessionType", "Staff", "Location"),
        delete_level=DeleteLevel.SOFT,
        # PartnerExternalId holds our mark; there is no filter for it, find_written looks through the days around.
        idempotency=Idempotency(kind=IdempotencyKind.MARK, field="PartnerExternalId"),
    ),
    Object.NOTE: _log_spec("contact log"),
    Object.CASE: _log_spec("contact log to follow up"),
    Object.ACTIVITY: _log_spec("contact log of a conversation"),
    Object.DEAL: ObjectSpec(
        native="none",
        operations=dict.fromkeys(Operation, NEVER("Mindbody's API v6 has no sales opportunities", DOCS)),
    ),
}

_NO_STAFF = NOT_YET(
    "Mindbody lets only a signed-in staff user do this, and this connection has none",
    fix="Fill in the staff user name and password of this connection and test it again.",
)
_WITHOUT = {Operation.DESCRIBE, Operation.CREATE}


def without_staff(objects: dict[Object, ObjectSpec]) -> dict[Object, ObjectSpec]:
    """The objects as an API key alone may use them: clients can be created, nothing can be read or changed."""
    made = {}
    for obj, spec in objects.items():
        kept = {Operation.DESCRIBE} | (_WITHOUT if obj in CLIENTS else set())
        made[obj] = msgspec.structs.replace(
            spec,
            operations={
                operation: _NO_STAFF if support.is_usable and operation not in kept else support
                for operation, support in spec.operations.items()
            },
            delete_level=DeleteLevel.UNSUPPORTED,
            erase_level=DeleteLevel.UNSUPPORTED,
            idempotency=Idempotency(),  # what cannot be read cannot be found again
        )
    return made
