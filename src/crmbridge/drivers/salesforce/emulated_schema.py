"""Objects and fields of an emulated org, and their describes, from Salesforce's Object Reference.

https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta (read 2026-11-22). Only fields that writes and
reads of a small org touch are here; shapes of describes follow recorded ones.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "PREFIXES",
    "STOCK",
    "FieldSpec",
    "checked",
    "custom_field",
    "described",
    "fields_of",
    "id_for",
    "listed",
]

PREFIXES = {
    "Account": "001",
    "Note": "002",
    "Contact": "003",
    "User": "005",
    "Opportunity": "006",
    "Lead": "00Q",
    "Task": "00T",
    "Event": "00U",
    "OpportunityContactRole": "00K",
    "Case": "500",
}
_PERSON = """
Salutation picklist - Mr.,Ms.,Dr. | FirstName string 40 | LastName string r80 | Name string o121
Email email 80 | Phone phone 40 | MobilePhone phone 40 | Title string 128 | Description textarea x32000
LeadSource picklist - Web,Phone Inquiry,Partner Referral,Purchased List,Other"""
_ACTIVITY = """
Subject combobox 255 | WhoId reference:Contact,Lead - | WhatId reference:Account,Opportunity,Case -
Description textarea x32000
"""
_ROWS = {
    "Account": "Name string r255 | Phone phone 40 | Website url 255 | Description textarea x32000",
    "Contact": _PERSON
    + """ | AccountId reference:Account - | Birthdate date - | MailingStreet textarea 255 | MailingCity string 40
MailingState string 80 | MailingPostalCode string 20 | MailingCountry string 80 | HasOptedOutOfEmail boolean d""",
    "Lead": _PERSON
    + """ | Company string r255 | Street textarea 255 | City string 40 | State string 80 | PostalCode string 20
Country string 80 | Status picklist d Open - Not Contacted,Working - Contacted,Closed - Converted
Rating picklist - Hot,Warm,Cold | AnnualRevenue currency - | IsConverted boolean od
ConvertedContactId reference:Contact o""",
    "Opportunity": """
Name string r120 | AccountId reference:Account - | Amount currency - | CloseDate date r | Description textarea x32000
StageName picklist r Prospecting,Qualification,Negotiation/Review,Closed Won,Closed Lost | Probability percent -
IsClosed boolean od | IsWon boolean od | LeadSource picklist - Web,Other""",
    "OpportunityContactRole": """
OpportunityId reference:Opportunity r | ContactId reference:Contact r | Role picklist - Decision Maker,Other
IsPrimary boolean d""",
    "Case": """
CaseNumber string o30 | ContactId reference:Contact - | AccountId reference:Account - | Subject string 255
Description textarea x32000 | Status picklist d New,Working,Escalated,Closed | Priority picklist dR Medium,High,Low
Origin picklist - Phone,Email,Web | Type picklist - Mechanical,Electrical,Other | SuppliedEmail email 80
SuppliedPhone string 40 | IsClosed boolean od""",
    "Event": _ACTIVITY
    + """| StartDateTime datetime - | EndDateTime datetime - | ActivityDateTime datetime - | DurationInMinutes int -
IsAllDayEvent boolean d | Location string 255""",
    "Task": _ACTIVITY
    + """| ActivityDate date -
 Status picklist d Not Started,In Progress,Completed | Priority picklist d Normal,High,Low
Type picklist - Call,Meeting,Other | CallType picklist - Internal,Inbound,Outbound | CallDurationInSeconds int -
CallDisposition string 255""",
    "Note": """
ParentId reference:Contact,Lead,Opportunity,Case,Account r | Title string r80 | Body textarea x32000
IsPrivate boolean d""",
    "User": "Username string o80 | Name string o121 | Email email o80",
}
_SYSTEM = """
Id id o18 | IsDeleted boolean od | OwnerId reference:User d | CreatedDate datetime o | CreatedById reference:User o
LastModifiedDate datetime o | LastModifiedById reference:User o | SystemModstamp datetime o"""
STOCK = tuple(_ROWS)

FieldSpec = dict[str, Any]
_SOAP = {
    "boolean": "xsd:boolean",
    "int": "xsd:int",
    "date": "xsd:date",
    "datetime": "xsd:dateTime",
    "id": "tns:ID",
}
_NUMBERS = ("double", "currency", "percent")


def fields_of(kind: str) -> dict[str, FieldSpec]:
    """The stock fields of one object, as entries of its describe."""
    made = {}
    text = _SYSTEM + " | " + _ROWS[kind]
    for row in filter(None, (one.strip() for one in text.replace("\n", "|").split("|"))):
        name, kind_of_value, flags, *options = (
            row.split(" ", 3) if row.count(" ") > 1 else [*row.split(), "-"]
        )
        made[name] = _field(name, kind_of_value, flags, options[0].split(",") if options else [])
    return made


def custom_field(name: str, kind: str = "string", **changes: Any) -> FieldSpec:
    """A field as an administrator makes it."""
    flags = "x32000" if kind == "textarea" else "255" if kind == "string" else "-"
    return {**_field(name, kind, flags, changes.pop("options", [])), "custom": True, **changes}


def _field(name: str, kind: str, flags: str, options: list[str]) -> FieldSpec:
    kind, _, targets = kind.partition(":")
    digits = "".join(filter(str.isdigit, flags))
    is_open = "o" not in flags
    return {
        "name": name,
        "label": name,
        "type": kind,
        "soapType": _SOAP.get(kind, "xsd:double" if kind in _NUMBERS else "xsd:string"),
        "length": int(digits)
        if digits
        else 18
        if kind in ("reference", "id")
        else 255
        if kind == "picklist"
        else 0,
        "precision": 18 if kind in _NUMBERS else 0,
        "scale": 2 if kind == "currency" else 0,
        "nillable": "r" not in flags and "d" not in flags and kind not in ("id", "boolean"),
        "createable": is_open,
        "updateable": is_open and name not in ("ParentId", "OpportunityId"),
        "defaultedOnCreate": "d" in flags or kind == "boolean" or not is_open,
        "calculated": False,
        "custom": False,
        "unique": False,
        "externalId": False,
        "idLookup": kind == "id",
        "caseSensitive": False,
        "filterable": "x" not in flags,
        "sortable": "x" not in flags,
        "restrictedPicklist": "R" in flags,
        "picklistValues": [
            {"value": one, "label": one, "active": True, "defaultValue": place == 0, "validFor": None}
            for place, one in enumerate(options)
        ],
        "referenceTo": targets.split(",") if targets else [],
        "relationshipName": name[:-2] if kind == "reference" else None,
    }


def described(kind: str, fields: dict[str, FieldSpec], is_denied: bool, *, version: str) -> dict[str, Any]:
    """The describe of one object; ``fields`` are those the user may see."""
    return {
        **listed(kind, is_denied, version=version),
        "childRelationships": [],
        "recordTypeInfos": [],
        "supportedScopes": [{"label": "All", "name": "everything"}],
        "fields": list(fields.values()),
    }


def listed(kind: str, is_denied: bool, *, version: str) -> dict[str, Any]:
    """The entry of one object in the list of all objects."""
    base = f"/services/data/{version}/sobjects/{kind}"
    is_open = not is_denied
    return {
        "name": kind,
        "label": kind,
        "labelPlural": f"{kind}s",
        "keyPrefix": PREFIXES[kind],
        "custom": False,
        "createable": is_open and kind != "User",
        "updateable": is_open and kind != "User",
        "deletable": is_open and kind != "User",
        "undeletable": is_open,
        "queryable": True,
        "searchable": True,
        "retrieveable": True,
        "replicateable": True,
        "triggerable": True,
        "layoutable": True,
        "mergeable": kind in ("Lead", "Contact", "Account"),
        "urls": {
            "sobject": base,
            "describe": f"{base}/describe",
            "rowTemplate": f"{base}/{{ID}}",
        },
    }


def id_for(kind: str, number: int) -> str:
    """The 18 letters of the record's id: 15, and 3 that make up for lost upper case."""
    return checked(f"{PREFIXES.get(kind, 'a00')}Hu0{number:09d}")


def checked(id15: str) -> str:
    """A 15-letter id with its three checking letters."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
    tail = ""
    for start in (0, 5, 10):
        part = id15[start : start + 5]
        tail += letters[sum(1 << place for place, each in enumerate(part) if "A" <= each <= "Z")]
    return id15 + tail
