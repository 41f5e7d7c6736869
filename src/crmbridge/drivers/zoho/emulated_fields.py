"""The fields of an emulated organisation: standard layouts, in the shapes of the fields API.

https://www.zoho.com/crm/developer/docs/api/v8/field-meta.html and the records that Zoho's Python SDK 8.0 names. Lengths
are those of the standard layouts where a page tells them, else plausible.
"""

from __future__ import annotations

from typing import Any

__all__ = ["LOOKUPS", "MODULES", "Defined", "definitions", "shown"]

ORG = 5545974000000000000
MODULES = ("Leads", "Contacts", "Accounts", "Deals", "Events", "Calls", "Cases", "Notes")
_SINGULAR = {"Events": "Meeting", "Cases": "Case", "Deals": "Deal"}
_SYSTEM = """
id bigint 20 r Record Id
Owner ownerlookup 120 - Owner
Created_By ownerlookup 120 r Created By
Modified_By ownerlookup 120 r Modified By
Created_Time datetime 120 r Created Time
Modified_Time datetime 120 r Modified Time
"""
_PERSON = """
First_Name text 40 - First Name
Last_Name text 80 m Last Name
Full_Name text 80 r Full Name
Email email 100 - Email
Secondary_Email email 100 - Secondary Email
Phone phone 30 - Phone
Mobile phone 30 - Mobile
Lead_Source picklist 120 - Lead Source
Email_Opt_Out boolean 5 - Email Opt Out
Description textarea 32000 - Description
"""
_TABLES: dict[str, str] = {
    "Leads": _SYSTEM
    + _PERSON
    + """
Company text 200 m Company
Designation text 100 - Title
Lead_Status picklist 120 - Lead Status
Annual_Revenue currency 16 - Annual Revenue
No_of_Employees integer 16 - No. of Employees
Street text 250 - Street
City text 100 - City
State text 100 - State
Zip_Code text 30 - Zip Code
Country text 100 - Country
Website website 450 - Website
Converted__s boolean 5 r Is Converted
""",
    "Contacts": _SYSTEM
    + _PERSON
    + """
Account_Name lookup 120 - Account Name
Title text 100 - Title
Department text 50 - Department
Date_of_Birth date 20 - Date of Birth
Mailing_Street text 250 - Mailing Street
Mailing_City text 100 - Mailing City
Mailing_State text 100 - Mailing State
Mailing_Zip text 30 - Mailing Zip
Mailing_Country text 100 - Mailing Country
""",
    "Accounts": _SYSTEM
    + """
Account_Name text 200 m Account Name
Phone phone 30 - Phone
Website website 450 - Website
Industry picklist 120 - Industry
Description textarea 32000 - Description
""",
    "Deals": _SYSTEM
    + """
Deal_Name text 120 m Deal Name
Stage picklist 120 m Stage
Amount currency 16 - Amount
Closing_Date date 20 - Closing Date
Account_Name lookup 120 - Account Name
Contact_Name lookup 120 - Contact Name
Probability integer 3 - Probability (%)
Lead_Source picklist 120 - Lead Source
Description textarea 32000 - Description
""",
    "Events": _SYSTEM
    + """
Event_Title text 255 m Title
Start_DateTime datetime 120 m From
End_DateTime datetime 120 m To
All_day boolean 5 - All day
Venue text 255 - Location
Who_Id lookup 120 - Contact Name
What_Id lookup 120 - Related To
Description textarea 32000 - Description
""",
    "Calls": _SYSTEM
    + """
Subject text 255 m Subject
Call_Type picklist 120 m Call Type
Call_Start_Time datetime 120 m Call Start Time
Call_Duration text 120 m Call Duration
Call_Duration_in_seconds integer 9 r Call Duration (in seconds)
Call_Purpose picklist 120 - Call Purpose
Call_Result picklist 120 - Call Result
Who_Id lookup 120 - Contact Name
What_Id lookup 120 - Related To
Description textarea 32000 - Description
""",
    "Cases": _SYSTEM
    + """
Subject text 255 m Subject
Status picklist 120 m Status
Case_Origin picklist 120 m Case Origin
Priority picklist 120 - Priority
Type picklist 120 - Type
Email email 100 - Email
Phone phone 30 - Phone
Related_To lookup 120 - Related To
Account_Name lookup 120 - Account Name
Deal_Name lookup 120 - Deal Name
Case_Number autonumber 120 r Case Number
Description textarea 32000 - Description
""",
    "Notes": _SYSTEM
    + """
Note_Title text 120 - Note Title
Note_Content textarea 32000 - Note Content
Parent_Id lookup 120 m Parent ID
""",
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "Lead_Source": ("Advertisement", "Cold Call", "Web Research", "Chat"),
    "Lead_Status": ("Not Contacted", "Contacted", "Lost Lead"),
    "Industry": ("Real Estate", "Technology"),
    "Stage": ("Qualification", "Needs Analysis", "Closed Won", "Closed Lost"),
    "Call_Type": ("Outbound", "Inbound", "Missed"),
    "Call_Purpose": ("Prospecting", "Administrative"),
    "Call_Result": ("Interested", "Not interested", "No response/Busy"),
    "Status": ("New", "On Hold", "Escalated", "Closed"),
    "Case_Origin": ("Email", "Phone", "Web"),
    "Priority": ("High", "Medium", "Low"),
    "Type": ("Problem", "Feature Request", "Question"),
}
LOOKUPS = {
    "Account_Name": "Accounts",
    "Contact_Name": "Contacts",
    "Related_To": "Contacts",
    "Who_Id": "Contacts",
    "Deal_Name": "Deals",
}
_JSON = {
    "integer": "integer",
    "bigint": "string",
    "boolean": "boolean",
    "double": "double",
    "currency": "double",
}


class Defined:
    """One field. ``is_unique`` refuses a second record with the same value."""

    def __init__(self, number: int, name: str, kind: str, length: int, flags: str, label: str) -> None:
        self.number = number
        self.name = name
        self.kind = kind
        self.length = length
        self.label = label
        self.is_mandatory = "m" in flags
        self.is_read_only = "r" in flags
        self.is_custom = "c" in flags
        self.is_unique = "u" in flags
        self.choices = _CHOICES.get(name, ()) if kind == "picklist" else ()


def definitions(module: str) -> dict[str, Defined]:
    """The fields of a new organisation, by API name."""
    made: dict[str, Defined] = {}
    base = ORG + 10_000 * (MODULES.index(module) + 1)
    for place, row in enumerate(filter(None, _TABLES[module].splitlines())):
        name, kind, length, flags, label = row.split(maxsplit=4)
        made[name] = Defined(base + place, name, kind, int(length), flags, label)
    return made


def shown(module: str, one: Defined) -> dict[str, Any]:
    """A field as the API shows it."""
    may_write = not one.is_read_only
    lookup: dict[str, Any] = {}
    if one.kind == "lookup":
        target = LOOKUPS.get(one.name, "")
        lookup = {"api_name": one.name, "id": str(one.number), "display_label": one.label}
        lookup["module"] = {"api_name": target, "id": str(ORG + 1)} if target else None
    return {
        "id": str(one.number),
        "api_name": one.name,
        "field_label": one.label,
        "display_label": one.label,
        "data_type": one.kind,
        "json_type": "jsonobject" if "lookup" in one.kind else _JSON.get(one.kind, "string"),
        "length": one.length,
        "decimal_place": 2 if one.kind in ("currency", "double") else None,
        "system_mandatory": one.is_mandatory,
        "read_only": one.is_read_only,
        "field_read_only": one.is_read_only,
        "custom_field": one.is_custom,
        "visible": True,
        "webhook": True,
        "searchable": one.kind != "textarea",
        "sortable": one.kind != "textarea",
        "filterable": one.kind != "textarea",
        "type": "used",
        "created_source": "default",
        "display_type": -1,
        "ui_type": 1,
        "show_type": 7,
        "quick_sequence_number": None,
        "default_value": None,
        "tooltip": None,
        "operation_type": {
            "web_update": may_write,
            "api_create": may_write,
            "web_create": may_write,
            "api_update": may_write,
        },
        "view_type": {"view": True, "edit": may_write, "quick_create": False, "create": may_write},
        "pick_list_values": [
            {
                "display_value": text,
                "actual_value": text,
                "reference_value": text,
                "sequence_number": place + 1,
                "colour_code": None,
                "type": "used",
                "id": str(one.number * 10 + place),
            }
            for place, text in enumerate(one.choices)
        ],
        "unique": {"casesensitive": "false"} if one.is_unique else {},
        "external": None,
        "lookup": lookup,
        "multiselectlookup": {},
        "formula": {},
        "auto_number": {},
        "currency": {"rounding_option": "normal", "precision": 2} if one.kind == "currency" else {},
        "mass_update": may_write,
        "blueprint_supported": may_write,
        "pick_list_values_sorted_lexically": False,
        "history_tracking": None,
        "associated_module": None,
        "profiles": [],
    }


def singular(module: str) -> str:
    """The label of one record."""
    return _SINGULAR.get(module, module[:-1])
