"""Zoho's modules behind our objects, and what stands between a field map and the wire.

Pages: https://www.zoho.com/crm/developer/docs/api/v8/modules-api.html, .../insert-records.html, .../upsert-records.html
(read 2026-11-25). What is required depends on the layout of the organisation; ``describe`` tells the truth.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from crmbridge.core.errors import FieldError, ValidationError
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object, Write
from crmbridge.drivers.zoho.coql import Kind
from crmbridge.toolkit.names import split_name

__all__ = [
    "API",
    "MARK",
    "MARK_LABEL",
    "NATIVES",
    "Native",
    "body_of",
    "read_values",
    "refused",
]

API = "/crm/v8"
MARK, MARK_LABEL = "crmbridge_mark", "crmbridge mark"
"""A custom text field, unique where Zoho allows it: Zoho has no idempotency key. Zoho makes the name from the label."""
_DURATION = re.compile(r"(?:(\d{1,4}):)?(\d{1,5}):(\d{1,2})", re.ASCII)


class Native(msgspec.Struct, frozen=True, kw_only=True):
    """One module. ``links`` maps a linked object to the lookup with its id, ``kinds`` the compared system fields.

    ``texts`` are the fields that free text is looked for in, ``tab`` the module's name in page addresses, ``defaults``
    what a new record is given where nobody said it: the standard layouts want these.
    """

    name: str
    tab: str = ""
    required: tuple[str, ...] = ()
    links: dict[Object, str] = {}
    texts: tuple[str, ...] = ()
    kinds: dict[str, Kind] = {}
    defaults: dict[str, str] = {}
    can_upsert: bool = False
    can_bear_mark: bool = True
    is_queried: bool = True


_ALWAYS = {"Modified_Time": Kind.DATETIME, "Created_Time": Kind.DATETIME}
_WHAT = dict.fromkeys((Object.LEAD, Object.DEAL, Object.CASE), "What_Id")
_WHO_WHAT = {Object.CUSTOMER: "Who_Id", **_WHAT}
_PARENTS = (Object.CUSTOMER, Object.LEAD, Object.DEAL, Object.CASE, Object.APPOINTMENT)

NATIVES: dict[Object, Native] = {
    Object.LEAD: Native(
        name="Leads",
        tab="Leads",
        required=("Last_Name", "Company"),
        texts=("Full_Name", "Email", "Phone", "Company"),
        kinds={**_ALWAYS, "Annual_Revenue": Kind.NUMBER},
        defaults={"Company": "[not provided]"},
        can_upsert=True,
    ),
    Object.CUSTOMER: Native(
        name="Contacts",
        tab="Contacts",
        required=("Last_Name",),
        texts=("Full_Name", "Email", "Phone"),
        kinds={**_ALWAYS, "Date_of_Birth": Kind.DATE},
        can_upsert=True,
    ),
    Object.DEAL: Native(
        name="Deals",
        tab="Potentials",
        required=("Deal_Name",),
        links={Object.CUSTOMER: "Contact_Name"},
        texts=("Deal_Name",),
        kinds={**_ALWAYS, "Amount": Kind.NUMBER, "Closing_Date": Kind.DATE},
        can_upsert=True,
    ),
    Object.APPOINTMENT: Native(
        name="Events",
        tab="Events",
        required=("Event_Title", "Start_DateTime", "End_DateTime"),
        links=_WHO_WHAT,
        texts=("Event_Title",),
        kinds={**_ALWAYS, "Start_DateTime": Kind.DATETIME, "End_DateTime": Kind.DATETIME},
    ),
    Object.CASE: Native(
        name="Cases",
        tab="Cases",
        required=("Subject",),
        links={Object.CUSTOMER: "Related_To", Object.DEAL: "Deal_Name"},
        texts=("Subject",),
        kinds=_ALWAYS,
        defaults={"Status": "New", "Case_Origin": "Phone"},
        can_upsert=True,
    ),
    Object.NOTE: Native(
        name="Notes",
        required=("Parent_Id",),
        links=dict.fromkeys(_PARENTS, "Parent_Id"),
        kinds=_ALWAYS,
        can_bear_mark=False,
        is_queried=False,
    ),
    Object.ACTIVITY: Native(
        name="Calls",
        tab="Calls",
        required=("Subject", "Call_Type", "Call_Start_Time"),
        links=_WHO_WHAT,
        texts=("Subject",),
        kinds={**_ALWAYS, "Call_Start_Time": Kind.DATETIME},
    ),
}


def refused(name: str, problem: str) -> ValidationError:
    """A field that cannot be written."""
    return ValidationError(
        f"A field cannot be written to Zoho CRM: {name} {problem}.",
        provider="zoho",
        fields=(FieldError(name, problem),),
    )


@lru_cache(maxsize=1024)
def _refuse_kept(names: tuple[str, ...]) -> None:
    for name in names:
        if name == "id" or name.startswith("$"):
            raise refused(name, "is kept by Zoho itself; map the slot to another field")


def body_of(native: Native, write: Write) -> dict[str, Any]:
    """The fields of a write as Zoho takes them, links included. Raises ValidationError."""
    body = dict(write.fields)
    _refuse_kept(tuple(body))
    if native.name == "Calls":
        if body.pop("kind", "call") != "call":
            raise refused("kind", "cannot be changed: calls are a module of their own")
        if body.get("Call_Duration") is not None:
            body["Call_Duration"] = _written_duration(body["Call_Duration"])
    if "full_name" in body:
        _split_name(body)
    _link(native, write.links, body)
    if native.name == "Notes" and write.operation is Operation.CREATE and "Parent_Id" not in body:
        raise refused(
            "links", "names no record; a note of Zoho stands on a customer, lead, deal, case or appointment"
        )
    return body


def _link(native: Native, links: Mapping[str, str], body: dict[str, Any]) -> None:
    for name, remote_id in links.items():
        path = native.links.get(Object(name))
        if path is None:
            raise refused(f"links.{name}", f"has no place in {native.name}")
        target = NATIVES[Object(name)].name
        value: dict[str, Any] = {"id": remote_id}
        if path == "Parent_Id":
            value["module"] = {"api_name": target}
        if body.setdefault(path, value) != value:
            raise refused(
                f"links.{name}", f"would stand in {path}, which another link or field fills; keep one"
            )
        if path == "What_Id":
            body["$se_module"] = target


def _split_name(body: dict[str, Any]) -> None:
    """Zoho keeps two names; one text is split at its last blank, unless a part was given by itself."""
    first, last = split_name(body.pop("full_name"))
    if "First_Name" in body or "Last_Name" in body:
        return
    if first:
        body["First_Name"] = first
    body["Last_Name"] = last or None


def _written_duration(value: Any) -> str:
    """Seconds as Zoho's ``minutes:seconds``."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 6_000_000:
        raise refused("Call_Duration", "needs a whole number of seconds")
    return f"{value // 60:02d}:{value % 60:02d}"


def read_values(native: Native, tree: Mapping[str, Any]) -> dict[str, Any]:
    """A record's fields as the map reads them: what is null is left out, a call's length is in seconds."""
    fields = {name: value for name, value in tree.items() if value is not None}
    if native.name == "Calls":
        fields["kind"] = "call"
        found = _DURATION.fullmatch(str(fields.get("Call_Duration", "")).strip())
        if found:
            fields["Call_Duration"] = int(found[1] or 0) * 3600 + int(found[2]) * 60 + int(found[3])
    return fields
