"""Property definitions of an emulated account and the checks of values, from HubSpot's pages.

https://developers.hubspot.com/docs/api/crm/properties and the object pages. Texts of refusals other than
PROPERTY_DOESNT_EXIST, INVALID_INTEGER and CONFLICTING_UNIQUE_VALUE are modelled on published client code.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import msgspec

__all__ = [
    "ASSOCIATIONS",
    "DEFAULTS",
    "KINDS",
    "PIPELINES",
    "REQUIRED",
    "definitions",
    "kind_of",
    "value_problem",
]

KINDS = {
    "contacts": "0-1",
    "companies": "0-2",
    "deals": "0-3",
    "tickets": "0-5",
    "tasks": "0-27",
    "notes": "0-46",
    "meetings": "0-47",
    "calls": "0-48",
    "leads": "0-136",
    "appointments": "0-421",
}
DEFAULTS: dict[tuple[str, str], int] = {
    ("contacts", "companies"): 279,
    ("companies", "contacts"): 280,
    ("contacts", "deals"): 4,
    ("deals", "contacts"): 3,
    ("deals", "companies"): 341,
    ("companies", "deals"): 342,
    ("contacts", "tickets"): 15,
    ("tickets", "contacts"): 16,
    ("tickets", "companies"): 339,
    ("companies", "tickets"): 340,
    ("tickets", "deals"): 28,
    ("deals", "tickets"): 27,
    ("contacts", "meetings"): 199,
    ("meetings", "contacts"): 200,
    ("deals", "meetings"): 211,
    ("meetings", "deals"): 212,
    ("tickets", "meetings"): 225,
    ("meetings", "tickets"): 226,
    ("contacts", "notes"): 201,
    ("notes", "contacts"): 202,
    ("companies", "notes"): 189,
    ("notes", "companies"): 190,
    ("deals", "notes"): 213,
    ("notes", "deals"): 214,
    ("tickets", "notes"): 227,
    ("notes", "tickets"): 228,
    ("contacts", "tasks"): 203,
    ("tasks", "contacts"): 204,
    ("contacts", "calls"): 193,
    ("calls", "contacts"): 194,
    ("deals", "calls"): 205,
    ("calls", "deals"): 206,
    ("tickets", "calls"): 219,
    ("calls", "tickets"): 220,
    ("contacts", "leads"): 609,
    ("leads", "contacts"): 608,
    ("contacts", "appointments"): 907,
    ("appointments", "contacts"): 906,
    ("deals", "appointments"): 945,
    ("appointments", "deals"): 944,
    ("tickets", "appointments"): 947,
    ("appointments", "tickets"): 946,
}
"""The unlabelled association type from one object to another."""

_PRIMARIES = {
    ("contacts", "companies"): 1,
    ("companies", "contacts"): 2,
    ("deals", "companies"): 5,
    ("companies", "deals"): 6,
    ("tickets", "companies"): 26,
    ("companies", "tickets"): 25,
    ("leads", "contacts"): 578,
}
ASSOCIATIONS: dict[tuple[str, str], set[int]] = {
    pair: {number, *([_PRIMARIES[pair]] if pair in _PRIMARIES else [])} for pair, number in DEFAULTS.items()
}
REQUIRED = {
    "deals": ("dealname", "dealstage"),
    "tickets": ("subject", "hs_pipeline_stage"),
    "leads": ("hs_lead_name",),
    "notes": ("hs_timestamp",),
    "meetings": ("hs_timestamp",),
    "calls": ("hs_timestamp",),
    "appointments": ("hs_appointment_name",),
}
PIPELINES: dict[str, dict[str, list[str]]] = {
    "deals": {"default": ["appointmentscheduled", "qualifiedtobuy", "closedwon", "closedlost"]},
    "tickets": {"0": ["1", "2", "3", "4"]},
    "leads": {"lead-pipeline-id": ["new-stage-id", "attempting-stage-id"]},
}
STAGES = {
    "deals": ("pipeline", "dealstage"),
    "tickets": ("hs_pipeline", "hs_pipeline_stage"),
    "leads": ("hs_pipeline", "hs_pipeline_stage"),
}
LIFECYCLE = ["subscriber", "lead", "marketingqualifiedlead", "salesqualifiedlead", "opportunity", "customer"]

_ROWS = {
    "contacts": """
firstname string text | lastname string text | email string text | phone string phonenumber
mobilephone string phonenumber | company string text | address string text | city string text | state string text
zip string text | country string text | date_of_birth string text | message string textarea
jobtitle string text | website string text | hs_additional_emails enumeration checkbox
lifecyclestage enumeration radio subscriber,lead,marketingqualifiedlead,salesqualifiedlead,opportunity,customer
hs_lead_status enumeration radio NEW,OPEN,IN_PROGRESS,OPEN_DEAL,UNQUALIFIED,CONNECTED,BAD_TIMING
hs_language enumeration select en,ar,de,fr | hubspot_owner_id enumeration select | lastmodifieddate datetime date
hs_searchable_calculated_phone_number string text | hs_searchable_calculated_mobile_number string text""",
    "companies": "name string text | domain string text | phone string text | city string text",
    "deals": """
dealname string text | amount number number | closedate datetime date | description string textarea
dealstage enumeration radio | pipeline enumeration select | deal_currency_code enumeration select USD,EUR,AED
dealtype enumeration radio newbusiness,existingbusiness | hubspot_owner_id enumeration select""",
    "tickets": """
subject string text | content string textarea | hs_pipeline enumeration select
hs_pipeline_stage enumeration radio | hs_ticket_priority enumeration select LOW,MEDIUM,HIGH,URGENT
hs_ticket_category enumeration select PRODUCT_ISSUE,BILLING_ISSUE,FEATURE_REQUEST,GENERAL_INQUIRY""",
    "leads": """
hs_lead_name string text | hs_lead_type enumeration select NEW_BUSINESS,UPSELL | hs_pipeline enumeration select
hs_lead_label enumeration select HOT,WARM,COLD | hs_pipeline_stage enumeration select""",
    "notes": "hs_timestamp datetime date | hs_note_body string html | hs_attachment_ids string text",
    "tasks": "hs_timestamp datetime date | hs_task_subject string text | hs_task_body string html",
    "meetings": """
hs_timestamp datetime date | hs_meeting_title string text | hs_meeting_body string html
hs_meeting_start_time datetime date | hs_meeting_end_time datetime date | hs_meeting_location string text
hs_meeting_outcome enumeration select SCHEDULED,COMPLETED,RESCHEDULED,NO_SHOW,CANCELED
hs_internal_meeting_notes string html | hs_meeting_external_url string text""",
    "calls": """
hs_timestamp datetime date | hs_call_title string text | hs_call_body string html | hs_call_duration number number
hs_call_direction enumeration select INBOUND,OUTBOUND | hs_call_recording_url string text
hs_call_status enumeration select COMPLETED,BUSY,NO_ANSWER,CANCELED,FAILED,MISSED | hs_call_disposition string text""",
    "appointments": """
hs_appointment_name string text | hs_appointment_start datetime date | hs_appointment_end datetime date
hs_duration number number | hs_pipeline enumeration select | hs_pipeline_stage enumeration select""",
}
_READ_ONLY = ("hs_object_id", "createdate", "hs_createdate", "lastmodifieddate", "hs_lastmodifieddate")


def kind_of(text: str) -> str:
    """The object's name from its name, singular or type id; empty for an unknown one."""
    by_type = {type_id: name for name, type_id in KINDS.items()}
    name = by_type.get(text, text)
    return name if name in KINDS else {name[:-1]: name for name in KINDS}.get(text, "")


def definitions(kind: str) -> dict[str, dict[str, Any]]:
    """The stock properties of one object, in HubSpot's shape."""
    rows = re.split(r"[|\n]", _ROWS[kind])
    changed = "lastmodifieddate" if kind == "contacts" else "hs_lastmodifieddate"
    rows += ["hs_object_id number number", "createdate datetime date", f"{changed} datetime date"]
    made = {}
    for row in filter(None, (row.strip() for row in rows)):
        name, kind_of_value, field, *options = row.split()
        is_kept = name in _READ_ONLY or name.startswith("hs_searchable_calculated")
        made[name] = {
            "name": name,
            "label": name.replace("_", " ").title(),
            "type": kind_of_value,
            "fieldType": field,
            "description": "",
            "groupName": f"{kind[:-1]}information",
            "options": [
                {"label": text.title(), "value": text, "displayOrder": place, "hidden": False}
                for place, text in enumerate(options[0].split(",") if options else _stages(kind, name))
            ],
            "hasUniqueValue": name == "email" and kind == "contacts",
            "hidden": False,
            "hubspotDefined": True,
            "calculated": name.startswith("hs_searchable_calculated"),
            "externalOptions": name == "hubspot_owner_id",
            "formField": not is_kept,
            "archived": False,
            "displayOrder": -1,
            "modificationMetadata": {
                "archivable": False,
                "readOnlyDefinition": True,
                "readOnlyValue": is_kept,
            },
        }
    return made


def _stages(kind: str, name: str) -> list[str]:
    pipelines = PIPELINES.get(kind, {})
    names = STAGES.get(kind, ("", ""))
    if name == names[0]:
        return list(pipelines)
    return [stage for stages in pipelines.values() for stage in stages] if name == names[1] else []


def value_problem(definition: dict[str, Any] | None, name: str, value: str) -> dict[str, Any] | None:
    """What is wrong with a value, as an entry of the list inside HubSpot's message; None when nothing is."""
    if definition is None:
        return _problem(name, f'Property "{name}" does not exist', "PROPERTY_DOESNT_EXIST")
    if definition["modificationMetadata"]["readOnlyValue"]:
        return _problem(name, f'"{name}" is a read only property', "READ_ONLY_VALUE")
    if value == "":
        return None
    kind = definition["type"]
    if kind == "number" and not re.fullmatch(r"-?\d{1,20}(\.\d{1,20})?", value):
        return _problem(name, f"{value} was not a valid number.", "INVALID_NUMBER")
    if kind in ("date", "datetime") and not _is_moment(value):
        return _problem(name, f"{value} was not a valid {kind}.", "INVALID_DATE")
    if kind == "bool" and value not in ("true", "false"):
        return _problem(name, f"{value} was not one of the allowed options", "INVALID_OPTION")
    if kind == "enumeration" and not definition["externalOptions"]:
        known = [option["value"] for option in definition["options"]]
        if known and any(part not in known for part in value.strip(";").split(";")):
            return _problem(name, f"{value} was not one of the allowed options: {known}", "INVALID_OPTION")
    if name == "email" and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", value):
        return _problem(name, f"Email address {value} is invalid", "INVALID_EMAIL")
    if len(value) > 65_536:
        return _problem(name, "The value is too long", "VALUE_TOO_LONG")
    return None


def _problem(name: str, message: str, error: str) -> dict[str, Any]:
    return {"isValid": False, "message": message, "error": error, "name": name}


def _is_moment(value: str) -> bool:
    if re.fullmatch(r"-?\d{1,14}", value):
        return True
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def problems_text(problems: list[dict[str, Any]]) -> str:
    """HubSpot puts the list of problems into the message, as JSON."""
    return f"Property values were not valid: {msgspec.json.encode(problems).decode()}"
