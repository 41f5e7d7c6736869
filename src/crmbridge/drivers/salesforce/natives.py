"""Salesforce's own objects behind ours, and what stands between a field map and the wire.

Pages: Object Reference (Lead, Contact, Opportunity, Event, Case, Task, Note), read 2026-11-22. Requiredness of Contact,
Opportunity and Case is general knowledge of the sheet, not read word for word; ``describe`` tells the truth per org.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from crmbridge.core.errors import FieldError, NotFound, ValidationError
from crmbridge.core.records import Object, Write
from crmbridge.drivers.salesforce.soql import Kind
from crmbridge.toolkit.batches import PLAIN
from crmbridge.toolkit.names import split_name

__all__ = [
    "DATA",
    "MARK",
    "NATIVES",
    "ROLE",
    "VERSION",
    "Native",
    "body_of",
    "refused",
    "same_record",
]

VERSION = "67.0"
DATA = f"/services/data/v{VERSION}"
MARK = "crmbridge_mark__c"
"""A text field, External ID and Unique, that an administrator makes: Salesforce has no idempotency key."""
ROLE = "OpportunityContactRole"
"""Where the contact of a deal stands: an opportunity has no field for it that can be read back."""


class Native(msgspec.Struct, frozen=True, kw_only=True):
    """One sObject. ``prefix`` begins its ids; ``links`` maps a linked object to the field with its id.

    ``texts`` are the fields that free text is looked for in, ``kinds`` those of standard fields that are no texts.
    """

    name: str
    prefix: str
    required: tuple[str, ...] = ()
    links: dict[Object, str] = {}
    texts: tuple[str, ...] = ()
    kinds: dict[str, Kind] = {}
    is_person: bool = False
    can_bear_mark: bool = True


_WHO_WHAT = {Object.CUSTOMER: "WhoId", Object.LEAD: "WhoId", Object.DEAL: "WhatId", Object.CASE: "WhatId"}
_PARENT = dict.fromkeys((Object.CUSTOMER, Object.LEAD, Object.DEAL, Object.CASE), "ParentId")
_ALWAYS = {
    "SystemModstamp": Kind.DATETIME,
    "CreatedDate": Kind.DATETIME,
    "LastModifiedDate": Kind.DATETIME,
    "IsDeleted": Kind.BOOLEAN,
}

NATIVES: dict[Object, Native] = {
    Object.CUSTOMER: Native(
        name="Contact",
        prefix="003",
        required=("LastName",),
        texts=("Name", "Email", "Phone"),
        kinds={**_ALWAYS, "Birthdate": Kind.DATE},
        is_person=True,
    ),
    Object.LEAD: Native(
        name="Lead",
        prefix="00Q",
        required=("LastName", "Company"),
        texts=("Name", "Email", "Phone", "Company"),
        kinds={**_ALWAYS, "IsConverted": Kind.BOOLEAN, "AnnualRevenue": Kind.NUMBER},
        is_person=True,
    ),
    Object.DEAL: Native(
        name="Opportunity",
        prefix="006",
        required=("Name", "StageName", "CloseDate"),
        links={Object.CUSTOMER: ROLE},
        texts=("Name",),
        kinds={**_ALWAYS, "Amount": Kind.NUMBER, "CloseDate": Kind.DATE, "Probability": Kind.NUMBER},
    ),
    Object.APPOINTMENT: Native(
        name="Event",
        prefix="00U",
        required=("StartDateTime", "EndDateTime"),
        links=_WHO_WHAT,
        texts=("Subject",),
        kinds={
            **_ALWAYS,
            "StartDateTime": Kind.DATETIME,
            "EndDateTime": Kind.DATETIME,
            "ActivityDateTime": Kind.DATETIME,
            "IsAllDayEvent": Kind.BOOLEAN,
            "DurationInMinutes": Kind.NUMBER,
        },
    ),
    Object.CASE: Native(
        name="Case",
        prefix="500",
        links={Object.CUSTOMER: "ContactId"},
        texts=("Subject", "CaseNumber"),
        kinds=_ALWAYS,
    ),
    Object.ACTIVITY: Native(
        name="Task",
        prefix="00T",
        links=_WHO_WHAT,
        texts=("Subject",),
        kinds={**_ALWAYS, "ActivityDate": Kind.DATE, "CallDurationInSeconds": Kind.NUMBER},
    ),
    Object.NOTE: Native(
        name="Note",
        prefix="002",
        required=("ParentId", "Title"),
        links=_PARENT,
        texts=("Title",),
        kinds=_ALWAYS,
        can_bear_mark=False,
    ),
}


def refused(name: str, problem: str) -> ValidationError:
    """A field that cannot be written."""
    return ValidationError(
        f"A field cannot be written to Salesforce: {name} {problem}.",
        provider="salesforce",
        fields=(FieldError(name, problem),),
    )


def same_record(native: Native, obj: Object, remote_id: str) -> str:
    """The id, if its first three letters are those of the object: Salesforce's batches take ids of any object.

    Raises NotFound.
    """
    if not remote_id.startswith(native.prefix):
        raise NotFound(
            f"This id is not of a {obj.value}: ids of {native.name} begin with {native.prefix}.",
            provider="salesforce",
        )
    return remote_id


_KEPT = ("attributes", "id")


@lru_cache(maxsize=1024)
def _refuse_kept(names: tuple[str, ...]) -> None:
    for name in names:
        if name.lower() in _KEPT:
            raise refused(name, "is kept by Salesforce itself; map the slot to another field")


def body_of(native: Native, write: Write) -> dict[str, Any]:
    """The fields of a write as Salesforce takes them, links included. Raises ValidationError."""
    fields = write.fields
    body = dict(fields)
    _refuse_kept(tuple(fields))
    if not PLAIN.issuperset(map(type, fields.values())):
        for name, value in fields.items():
            if isinstance(value, (list, tuple)):
                body[name] = _joined(name, value)
    if native.is_person and "full_name" in body:
        _split_name(body)
    for name, remote_id in write.links.items():
        path = native.links.get(Object(name))
        if path is None:
            raise refused(f"links.{name}", f"has no place on a {native.name}")
        if path == ROLE:
            continue
        if body.setdefault(path, remote_id) != remote_id:
            raise refused(
                f"links.{name}", f"would stand in {path}, which another link or field fills; keep one"
            )
    return body


def _joined(name: str, items: Any) -> str:
    texts = [str(item) for item in items]
    if any(";" in text for text in texts):
        raise refused(name, "has an entry with ';' in it, which Salesforce puts between entries")
    return ";".join(texts)


def _split_name(body: dict[str, Any]) -> None:
    """Salesforce keeps two names; one text is split at its last blank, unless a part was given by itself."""
    first, last = split_name(body.pop("full_name"))
    if "FirstName" in body or "LastName" in body:
        return
    if first:
        body["FirstName"] = first
    body["LastName"] = last or None
