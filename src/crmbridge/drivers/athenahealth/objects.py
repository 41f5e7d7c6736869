"""What can be done with each object of athenahealth, and how it is read."""

from __future__ import annotations

import msgspec

from crmbridge.core.manifest import Call, Idempotency, IdempotencyKind, LookUp, ObjectSpec
from crmbridge.core.operations import COMPOSED, FULL, LIMITED, NEVER, NOT_YET, Operation, Support
from crmbridge.core.records import Object

__all__ = ["DOCS", "OBJECTS", "opened"]

DOCS = "https://docs.athenahealth.com/api/guides/overview"
_RETAINED = NEVER(
    "medical records are retained: the API cannot delete or erase; the practice decides by hand",
    DOCS,
    "Send the request to the practice's privacy officer with the patient's id: the practice decides what its duty to "
    "retain medical records leaves to erase, does it in athenaOne, and answers you. Close our own open cases there.",
)
_GONE = dict.fromkeys((Operation.DELETE, Operation.ERASE), _RETAINED)
_STATIC = LIMITED("from a table in the driver; custom fields are not asked for yet")
_FEED = NOT_YET("changed-data subscriptions come in a later version")
_OPT_IN = "only where the operator has switched it on for this connection"
_FOUND = Idempotency(kind=IdempotencyKind.MARK, field="ref")


def _absent(why: str) -> ObjectSpec:
    return ObjectSpec(native="none", operations=dict.fromkeys(Operation, NEVER(why, DOCS)))


OBJECTS = {
    # The least invasive write surface.
    Object.CASE: ObjectSpec(
        native="patientcase",
        path="/documents/patientcase",
        operations={
            Operation.DESCRIBE: _STATIC,
            Operation.CREATE: LIMITED("needs a link to a customer (the patient)"),
            Operation.GET: COMPOSED("from the list of the patient's cases"),
            Operation.UPDATE: LIMITED(
                "own open cases only; the description is written once, add a note instead"
            ),
            Operation.UPSERT: NEVER("a case has no natural key", DOCS),
            Operation.SEARCH: NOT_YET("cases are listed per patient only"),
            Operation.LIST: NOT_YET("cases are listed per patient only"),
            Operation.CHANGES: _FEED,
            **_GONE,
        },
        links={Object.CUSTOMER: "patientid"},
        idempotency=_FOUND,
    ),
    Object.NOTE: ObjectSpec(
        native="patientcase action",
        path="/documents/patientcase",
        operations={
            Operation.DESCRIBE: _STATIC,
            Operation.CREATE: LIMITED("needs a link to a case; never a chart note"),
            Operation.GET: COMPOSED("from the list of the case's actions, by our mark"),
            Operation.UPDATE: NEVER("a note is written once", DOCS),
            Operation.UPSERT: NEVER("a note has no natural key", DOCS),
            Operation.SEARCH: NOT_YET("notes are listed per case only"),
            Operation.LIST: NOT_YET("notes are listed per case only"),
            **_GONE,
        },
        links={Object.CASE: "case"},
        required=("actionnote",),
        idempotency=_FOUND,
    ),
    Object.CUSTOMER: ObjectSpec(
        native="patient",
        path="/patients",
        id_field="patientid",
        natural_keys=("firstname", "lastname", "dob"),
        operations={
            Operation.DESCRIBE: _STATIC,
            Operation.LOOKUP: COMPOSED("searches by phone and by e-mail, compared exactly"),
            Operation.SEARCH: LIMITED("by name, birth date, phone or e-mail; at most 1000 hits"),
            Operation.GET: FULL,
            Operation.LIST: NEVER("athenahealth lists no patients as a whole", DOCS),
            Operation.CREATE: LIMITED(
                f"match or create: a known person is answered, not made twice; {_OPT_IN}"
            ),
            Operation.UPDATE: LIMITED(_OPT_IN),
            Operation.UPSERT: LIMITED(f"a search for the match, then an update or a create; {_OPT_IN}"),
            Operation.CHANGES: _FEED,
            **_GONE,
        },
        calls={
            Operation.GET: Call(method="GET", path="/patients/{{ id }}", result="[0]"),
            Operation.SEARCH: Call(
                method="GET",
                path="/patients",
                query={
                    name: f"{{{{ filter.{name} }}}}"
                    for name in ("firstname", "lastname", "dob", "email", "anyphone")
                },
                result="patients",
            ),
        },
        required=("firstname", "lastname", "dob"),
        idempotency=Idempotency(kind=IdempotencyKind.NATURAL_KEY),
    ),
    Object.APPOINTMENT: ObjectSpec(
        native="appointment",
        path="/appointments",
        id_field="appointmentid",
        updated_field="lastmodified",
        operations={
            Operation.DESCRIBE: _STATIC,
            Operation.GET: FULL,
            Operation.LIST: LIMITED(
                "of the department, from a month back to a year ahead, not sorted by change"
            ),
            Operation.CREATE: LIMITED(
                f"books an open slot that begins then; needs a link to a customer; {_OPT_IN}"
            ),
            Operation.UPDATE: LIMITED(f"cancels, or moves to another slot (the id changes); {_OPT_IN}"),
            Operation.UPSERT: NEVER("an appointment has no natural key", DOCS),
            Operation.SEARCH: NOT_YET("appointments are listed per department or patient only"),
            Operation.CHANGES: _FEED,
            Operation.DELETE: NEVER(
                "an appointment cannot be deleted; cancel it: status cancelled",
                DOCS,
                "Update the appointment with the status cancelled instead.",
            ),
            Operation.ERASE: _RETAINED,
        },
        calls={
            Operation.GET: Call(method="GET", path="/appointments/{{ id }}", result="[0]"),
            Operation.LIST: Call(
                method="GET",
                path="/appointments/booked",
                query={
                    "departmentid": "{{ settings.department_id }}",
                    "showcancelled": "true",
                    **{
                        name: f"{{{{ filter.{name} }}}}"
                        for name in ("startdate", "enddate", "startlastmodified")
                    },
                },
                result="appointments",
            ),
        },
        links={Object.CUSTOMER: "patientid"},
        required=("startTime", "endTime"),
        # Booking is idempotent by slot; find_written looks among the patient's appointments.
        idempotency=Idempotency(kind=IdempotencyKind.NATURAL_KEY, field="startTime"),
        look_ups={Operation.UPDATE: LookUp.NONE},
        doubts={
            Operation.UPDATE: "it was moved: the old id shows neither yes nor no (a cancellation is seen)"
        },
    ),
    Object.LEAD: _absent(
        "a lead would be a prospective patient, whom athenahealth registers with a birth date only: "
        "create a customer, or a case on one"
    ),
    Object.DEAL: _absent("athenahealth has no deals"),
    Object.ACTIVITY: _absent("calls are not written into charts; use a case or a note on one"),
}


def opened(objects: dict[Object, ObjectSpec], switches: dict[Object, bool]) -> dict[Object, ObjectSpec]:
    """The objects with the writes of those that are not switched on taken away."""
    off: Support = NOT_YET(
        "switched off for this connection; an operator can switch it on in its settings",
        "An operator sets 'Write patients' or 'Write appointments' to yes in this connection's settings.",
    )
    return {
        obj: spec
        if switches.get(obj, True)
        else msgspec.structs.replace(
            spec,
            operations={
                operation: off if operation.is_write and support.is_usable else support
                for operation, support in spec.operations.items()
            },
        )
        for obj, spec in objects.items()
    }
