"""Records of an emulated organisation: what Zoho takes, what it refuses, and how it shows them.

https://www.zoho.com/crm/developer/docs/api/v8/insert-records.html, .../upsert-records.html and the status codes page.
Names that are not fields, and read-only ones, are passed over without a word. Ids are texts of 19 digits; times carry
the organisation's offset and no milliseconds.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta, timezone
from typing import Any

from crmbridge.drivers.zoho.emulated_fields import LOOKUPS, MODULES, ORG, Defined, definitions
from crmbridge.emulation import EmulatorStore, Row, Table

__all__ = ["PARENTS", "USER", "Records", "RowRefused", "stamp"]

ZONE = timezone(timedelta(hours=4))
USER = {"name": "Noor Haddad", "id": str(ORG + 101), "email": "noor@agency.example"}
PARENTS = ("Leads", "Contacts", "Accounts", "Deals", "Cases", "Events")
UPSERTED = ("Leads", "Contacts", "Accounts", "Deals", "Cases")
_SYSTEM_KEYS = {
    "Leads": ("Email",),
    "Contacts": ("Email",),
    "Accounts": ("Account_Name",),
    "Deals": ("Deal_Name",),
}
_EMAIL = re.compile(r"[^\s@<>,;]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?\.[A-Za-z]{2,}")
_DATETIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_TYPES: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "bigint": (int, str),
    "currency": (int, float),
    "double": (int, float),
    "boolean": (bool,),
    "lookup": (dict,),
    "ownerlookup": (dict,),
    "multiselectpicklist": (list,),
}


class RowRefused(Exception):
    """One record is refused; the rest of the batch goes on."""

    def __init__(self, code: str, message: str, details: dict[str, Any]) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def shown(self) -> dict[str, Any]:
        """The row of the answer."""
        return {"code": self.code, "details": self.details, "message": self.message, "status": "error"}


def stamp(moment: datetime) -> str:
    """``2026-01-28T13:00:05+04:00``."""
    return moment.astimezone(ZONE).isoformat(timespec="seconds")


class Records:
    """All modules. ``checks_choices``: values outside a pick list are refused (else taken as they are)."""

    def __init__(self, store: EmulatorStore) -> None:
        self.store = store
        self.checks_choices = False
        self.fields: dict[str, dict[str, Defined]] = {module: definitions(module) for module in MODULES}
        for place, module in enumerate(MODULES):
            table = store.numbered(module, first_id=ORG + 10_000_001 * (place + 1))
            for name in _SYSTEM_KEYS.get(module, ()):
                table.index(name, lambda value: str(value).casefold())

    def table(self, module: str) -> Table[int]:
        """The rows of a module."""
        return self.store.numbered(module)

    def add_field(self, module: str, one: Defined) -> None:
        """Makes a custom field; a unique one is looked up in constant time."""
        self.fields[module][one.name] = one
        if one.is_unique:
            self.table(module).index(one.name, lambda value: str(value).casefold())

    def find(self, module: str, remote_id: Any) -> Row[int] | None:
        """A living row."""
        text = str(remote_id)
        return self.table(module).get(int(text)) if re.fullmatch(r"\d{1,20}", text, re.ASCII) else None

    # -- writing -------------------------------------------------------------------------------------------

    def create(self, module: str, given: Any, place: int) -> Row[int]:
        """Raises RowRefused."""
        fields = self._checked(module, given, place)
        for name, one in self.fields[module].items():
            if one.is_mandatory and fields.get(name) in (None, "") and name != "Call_Duration":
                details = {"api_name": name, "json_path": f"$.data[{place}].{name}"}
                raise RowRefused("MANDATORY_NOT_FOUND", "required field not found", details)
        self._check_unique(module, fields, place, None)
        return self.table(module).insert({name: value for name, value in fields.items() if value is not None})

    def update(self, module: str, row: Row[int], given: Any, place: int) -> None:
        """Raises RowRefused."""
        fields = self._checked(module, given, place, row.fields)
        for name, value in fields.items():
            one = self.fields[module].get(name)
            if one is not None and one.is_mandatory and value in (None, ""):
                details = {"api_name": name, "json_path": f"$.data[{place}].{name}"}
                raise RowRefused("INVALID_DATA", "invalid data", {**details, "expected_data_type": one.kind})
        self._check_unique(module, fields, place, row)
        self.table(module).update(row.id, fields)

    def by_id(self, module: str, given: Any, place: int) -> Row[int]:
        """The row that a change is for. Raises RowRefused."""
        remote_id = given.get("id") if isinstance(given, dict) else None
        if remote_id is None:
            details = {"api_name": "id", "json_path": f"$.data[{place}].id"}
            raise RowRefused("MANDATORY_NOT_FOUND", "required field not found", details)
        row = self.find(module, remote_id)
        if row is None:
            details = {"api_name": "id", "json_path": f"$.data[{place}].id"}
            raise RowRefused("INVALID_DATA", "the id given seems to be invalid", details)
        return row

    def upsert(
        self, module: str, given: Any, keys: list[str], place: int
    ) -> tuple[Row[int], str, str | None]:
        """The row, ``insert`` or ``update``, and the field that matched. Raises RowRefused."""
        if not isinstance(given, dict):
            raise RowRefused("INVALID_DATA", "invalid data", {"expected_data_type": "jsonobject"})
        own = [name for name, one in self.fields[module].items() if one.is_unique]
        for key in keys or [*_SYSTEM_KEYS.get(module, ()), *own]:
            wanted = given.get(key)
            if wanted in (None, ""):
                continue
            found = self._having(module, key, wanted)
            if found:
                self.update(module, found[0], given, place)
                return found[0], "update", key
        return self.create(module, given, place), "insert", None

    def _having(self, module: str, name: str, value: Any) -> list[Row[int]]:
        table = self.table(module)
        try:
            return table.find(name, value)
        except KeyError:
            wanted = str(value).casefold()
            return [
                row
                for row in table
                if not row.is_archived and str(row.fields.get(name, "")).casefold() == wanted
            ]

    # -- checking ------------------------------------------------------------------------------------------

    def _checked(
        self, module: str, given: Any, place: int, before: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        if not isinstance(given, dict):
            raise RowRefused("INVALID_DATA", "invalid data", {"expected_data_type": "jsonobject"})
        fields: dict[str, Any] = {}
        for name, value in given.items():
            one = self.fields[module].get(name)
            if one is None or one.is_read_only:
                continue
            fields[name] = None if value in (None, "") else self._value(module, one, value, given, place)
        if module == "Events":
            whole = {**(before or {}), **fields}
            start, end = whole.get("Start_DateTime"), whole.get("End_DateTime")
            if start and end and datetime.fromisoformat(end) < datetime.fromisoformat(start):
                details = {"api_name": "End_DateTime", "json_path": f"$.data[{place}].End_DateTime"}
                raise RowRefused("INVALID_DATA", "the end is before the start", details)
        return fields

    def _value(self, module: str, one: Defined, value: Any, given: dict[str, Any], place: int) -> Any:
        details: dict[str, Any] = {"api_name": one.name, "json_path": f"$.data[{place}].{one.name}"}

        def refuse(**more: Any) -> RowRefused:
            return RowRefused("INVALID_DATA", "invalid data", {**details, **more})

        wanted = _TYPES.get(one.kind, (str,))
        is_right = isinstance(value, wanted) and (type(value) is not bool or bool in wanted)
        if not is_right:
            raise refuse(expected_data_type=one.kind)
        if one.kind == "date" and not _is_date(value):
            raise refuse(expected_data_type="date")
        if one.kind == "datetime":
            if not _DATETIME.fullmatch(value):
                raise refuse(expected_data_type="datetime")
            return stamp(datetime.fromisoformat(value))
        if one.kind == "email" and not _EMAIL.fullmatch(value):
            raise refuse(expected_data_type="email")
        if isinstance(value, str) and len(value) > one.length:
            raise refuse(maximum_length=one.length)
        if one.choices and self.checks_choices and value not in one.choices:
            raise refuse(expected_data_type="picklist")
        if one.kind == "lookup":
            return self._lookup(one, value, given, details)
        return value

    def _lookup(
        self, one: Defined, value: dict[str, Any], given: dict[str, Any], details: dict[str, Any]
    ) -> Any:
        module = LOOKUPS.get(one.name, "")
        if one.name == "What_Id":
            module = str(given.get("$se_module", ""))
        if one.name == "Parent_Id":
            named = value.get("module")
            module = str(named.get("api_name", "")) if isinstance(named, dict) else ""
        if module not in self.fields:
            raise RowRefused(
                "DEPENDENT_FIELD_MISSING", "the module of the related record is missing", details
            )
        if self.find(module, value.get("id")) is None:
            raise RowRefused("INVALID_DATA", "the related id given seems to be invalid", details)
        kept = {"id": str(value["id"]), "name": self.name_of(module, str(value["id"]))}
        return (
            {**kept, "module": {"api_name": module, "id": str(ORG + 1)}} if one.name == "Parent_Id" else kept
        )

    def _check_unique(self, module: str, fields: dict[str, Any], place: int, row: Row[int] | None) -> None:
        for name, one in self.fields[module].items():
            if not one.is_unique or fields.get(name) in (None, ""):
                continue
            others = [other for other in self._having(module, name, fields[name]) if other is not row]
            if others:
                duplicate = {
                    "id": str(others[0].id),
                    "module": {"api_name": module, "id": str(ORG + 1)},
                    "Owner": dict(USER),
                }
                details = {
                    "api_name": name,
                    "json_path": f"$.data[{place}].{name}",
                    "duplicate_record": duplicate,
                }
                raise RowRefused("DUPLICATE_DATA", "duplicate data", details)

    # -- showing -------------------------------------------------------------------------------------------

    def name_of(self, module: str, remote_id: str) -> str:
        """The name of a record as lookups show it."""
        row = self.table(module).get(int(remote_id), with_archived=True)
        fields = row.fields if row else {}
        for name in ("Account_Name", "Deal_Name", "Event_Title", "Subject"):
            if isinstance(fields.get(name), str):
                return str(fields[name])
        return full_name(fields)

    def values(self, module: str, row: Row[int], fields: dict[str, Any] | None = None) -> dict[str, Any]:
        """All values of a row, computed ones too; ``fields`` as a lagging index sees them."""
        own = row.fields if fields is None else fields
        found = {
            **own,
            "id": str(row.id),
            "Owner": dict(USER),
            "Created_By": dict(USER),
            "Modified_By": dict(USER),
            "Created_Time": stamp(row.created_at),
            "Modified_Time": stamp(row.updated_at),
        }
        if "Full_Name" in self.fields[module]:
            found["Full_Name"] = full_name(own)
        if module == "Leads":
            found.setdefault("Converted__s", False)
        if module == "Cases":
            found["Case_Number"] = str(row.id)[-6:]
        if module == "Calls" and (length := re.fullmatch(r"(\d+):(\d\d)", str(own.get("Call_Duration", "")))):
            found["Call_Duration_in_seconds"] = int(length[1]) * 60 + int(length[2])
        return found

    def shown(self, module: str, row: Row[int], names: list[str] | None = None) -> dict[str, Any]:
        """A record as GET answers it: all fields, or the named ones."""
        found = self.values(module, row)
        wanted = (
            self.fields[module] if names is None else [name for name in names if name in self.fields[module]]
        )
        tree = {name: found.get(name) for name in wanted}
        tree["id"] = str(row.id)
        if names is None:
            tree |= {
                "$approved": True,
                "$approval_state": "approved",
                "$editable": True,
                "$locked_for_me": False,
                "$in_merge": False,
                "Tag": [],
            }
        return tree

    def success(self, row: Row[int], message: str, **more: Any) -> dict[str, Any]:
        """The row of an answer for a record that was written."""
        details = {
            "id": str(row.id),
            "Created_Time": stamp(row.created_at),
            "Modified_Time": stamp(row.updated_at),
            "Created_By": {"name": USER["name"], "id": USER["id"]},
            "Modified_By": {"name": USER["name"], "id": USER["id"]},
            "$approval_state": "approved",
        }
        return {"code": "SUCCESS", "details": details, "message": message, "status": "success", **more}


def full_name(fields: dict[str, Any]) -> str:
    """First and last name as one."""
    return " ".join(str(fields[part]) for part in ("First_Name", "Last_Name") if fields.get(part))


def _is_date(value: str) -> bool:
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return len(value) == 10
