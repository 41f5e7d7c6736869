"""What an emulated org does with records: checks of values, rules, unique fields, the recycle bin.

From the Object Reference, recorded error bodies and the guide's table of status codes (read 2026-11-22).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from crmbridge.drivers.salesforce.emulated_schema import FieldSpec, checked
from crmbridge.emulation import Row

if TYPE_CHECKING:
    from crmbridge.drivers.salesforce.emulated_org import Org

__all__ = ["RecordRefused", "Records", "stamp"]

BIN_SECONDS = 15 * 86_400
_EMAIL = re.compile(r"[^@\s,;]+@[^@\s,;]+\.[^@\s,;]+")
_TEXTS = (
    "string",
    "textarea",
    "combobox",
    "phone",
    "url",
    "email",
    "picklist",
    "multipicklist",
    "encryptedstring",
)
_NUMBERS = ("double", "currency", "percent", "int")


class RecordRefused(Exception):
    """One refused record."""

    def __init__(self, code: str, message: str, fields: list[str] | None = None, **more: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fields = fields or []
        self.more = more

    def in_row(self) -> dict[str, Any]:
        """As an entry of a row's errors."""
        return {"statusCode": self.code, "message": self.message, "fields": self.fields, **self.more}

    def in_body(self) -> dict[str, Any]:
        """As an entry of a whole answer."""
        return {"message": self.message, "errorCode": self.code, "fields": self.fields, **self.more}


class Records:
    """The records of one emulator, through its tables."""

    def __init__(self, emulator: Org) -> None:
        self.emulator = emulator

    # -- reading -------------------------------------------------------------------------------------------

    def find(self, kind: str, record_id: str, *, with_deleted: bool = False) -> Row[str] | None:
        """By 15 or 18 letters."""
        if not re.fullmatch(r"[A-Za-z0-9]{15}([A-Za-z0-9]{3})?", record_id):
            raise RecordRefused("MALFORMED_ID", f"{kind} ID: id value of incorrect type")
        return self.emulator.table(kind).get(checked(record_id[:15]), with_archived=with_deleted)

    def need(self, kind: str, record_id: str) -> Row[str]:
        """The living record. Raises RecordRefused."""
        row = self.find(kind, record_id, with_deleted=True)
        if row is None:
            raise RecordRefused("NOT_FOUND", "The requested resource does not exist")
        if row.is_archived:
            raise RecordRefused("ENTITY_IS_DELETED", "entity is deleted")
        return row

    def by_key(self, kind: str, field: str, value: str) -> list[Row[str]]:
        """Living records with this external id, without regard to case. Raises RecordRefused."""
        spec = self.emulator.visible(kind).get(field)
        if spec is None or not (spec["externalId"] or spec["idLookup"]):
            text = "Provided external ID field does not exist or is not accessible: "
            raise RecordRefused("NOT_FOUND", text + field)
        folded = value.casefold()
        table = self.emulator.table(kind)
        if field in self.emulator.indexed[kind]:
            return table.find(field, value)
        return [
            row
            for row in table
            if not row.is_archived and str(row.fields.get(field) or "").casefold() == folded
        ]

    # -- writing -------------------------------------------------------------------------------------------

    def create(self, kind: str, given: Any, *, is_saved_anyway: bool = False) -> Row[str]:
        """A new record. Raises RecordRefused."""
        self._allowed(kind)
        values = self._values(kind, given, is_new=True)
        missing = [
            name
            for name, spec in self.emulator.fields[kind].items()
            if spec["createable"] and not spec["nillable"] and not spec["defaultedOnCreate"]
            if values.get(name) is None
        ]
        if missing:
            raise RecordRefused(
                "REQUIRED_FIELD_MISSING", f"Required fields are missing: [{', '.join(missing)}]", missing
            )
        self._rules(kind, values, None)
        self._unique(kind, values, None)
        self._duplicates(kind, values, is_saved_anyway)
        full = {**self._defaults(kind), **values}
        self._derived(kind, full)
        return self.emulator.table(kind).insert(full)

    def update(self, kind: str, record_id: str, given: Any) -> Row[str]:
        """A changed record. Raises RecordRefused."""
        self._allowed(kind)
        row = self.need(kind, record_id)
        if kind == "Lead" and row.fields.get("IsConverted"):
            raise RecordRefused("CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead")
        values = self._values(kind, given, is_new=False)
        empty = [
            name
            for name, value in values.items()
            if value is None and not self.emulator.fields[kind][name]["nillable"]
        ]
        if empty:
            raise RecordRefused(
                "REQUIRED_FIELD_MISSING", f"Required fields are missing: [{', '.join(empty)}]", empty
            )
        merged = {**row.fields, **values}
        self._rules(kind, merged, row)
        self._unique(kind, values, row)
        self._derived(kind, merged)
        return self.emulator.table(kind).update(row.id, merged)

    def upsert(self, kind: str, field: str, value: Any, given: dict[str, Any]) -> tuple[Row[str], bool]:
        """Changed or made by external id. Raises RecordRefused."""
        if value in (None, ""):
            raise RecordRefused("MISSING_ARGUMENT", f"{field} not specified")
        found = self.by_key(kind, field, str(value))
        if len(found) > 1:
            raise RecordRefused("DUPLICATE_EXTERNAL_ID", f"{field}: more than one record found")
        body = {name: one for name, one in given.items() if name != field}
        if found:
            return self.update(kind, found[0].id, body), False
        return self.create(kind, {**body, field: value}), True

    def delete(self, kind: str, record_id: str) -> None:
        """Into the recycle bin. Raises RecordRefused."""
        self._allowed(kind)
        row = self.need(kind, record_id)
        self.emulator.table(kind).archive(row.id)

    def delete_for_good(self, kind: str, record_id: str) -> None:
        """Past the recycle bin. Raises RecordRefused."""
        row = self.find(kind, record_id, with_deleted=True)
        if row is None:
            raise RecordRefused("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
        self.emulator.table(kind).remove(row.id)

    def empty_old_bins(self) -> None:
        """What has lain in the recycle bin for 15 days is gone."""
        now = self.emulator.clock.timestamp()
        for table in self.emulator.store.tables.values():
            for row in [one for one in table if one.is_archived]:
                if now - row.updated_at.timestamp() > BIN_SECONDS:
                    table.remove(row.id)

    # -- checks --------------------------------------------------------------------------------------------

    def _allowed(self, kind: str) -> None:
        if kind in self.emulator.denied:
            raise RecordRefused("INSUFFICIENT_ACCESS_OR_READONLY", "insufficient access rights on object id")
        if self.emulator.locked.get(kind, 0) > 0:
            self.emulator.locked[kind] -= 1
            text = "unable to obtain exclusive access to this record or 1 records: 001Hu0000000001AAA"
            raise RecordRefused("UNABLE_TO_LOCK_ROW", text)

    def column_problem(self, kind: str, given: Any) -> RecordRefused | None:
        """A field that is not there, for which Salesforce may refuse a whole request."""
        known = self.emulator.visible(kind)
        for name in given if isinstance(given, dict) else ():
            if name in ("attributes", "id") or name in known:
                continue
            if name.endswith("__r") or f"{name}Id" in known:
                continue
            return RecordRefused("INVALID_FIELD", f"No such column '{name}' on sobject of type {kind}")
        return None

    def _values(self, kind: str, given: Any, *, is_new: bool) -> dict[str, Any]:
        if not isinstance(given, dict):
            raise RecordRefused("JSON_PARSER_ERROR", "Can not deserialize SObject out of VALUE_STRING token")
        if (problem := self.column_problem(kind, given)) is not None:
            raise problem
        known = self.emulator.visible(kind)
        values: dict[str, Any] = {}
        for name, value in given.items():
            if name in ("attributes", "id"):
                continue
            if isinstance(value, dict):
                values[f"{name}Id"] = self._related(known.get(f"{name}Id"), name, value)
                continue
            spec = known[name]
            if not spec["createable" if is_new else "updateable"]:
                text = f"Unable to create/update fields: {name}. Please check the security settings of this field"
                raise RecordRefused("INVALID_FIELD_FOR_INSERT_UPDATE", text, [name])
            values[name] = self._value(spec, value)
        return values

    def _related(self, spec: FieldSpec | None, name: str, value: dict[str, Any]) -> str:
        pairs = [(key, one) for key, one in value.items() if key != "attributes"]
        for target in spec["referenceTo"] if spec else ():
            rows = self.by_key(target, pairs[0][0], str(pairs[0][1]))
            if len(rows) == 1:
                return rows[0].id
        raise RecordRefused(
            "INVALID_FIELD", f"Foreign key external ID: {pairs[0][1] if pairs else ''} not found for {name}"
        )

    def _value(self, spec: FieldSpec, value: Any) -> Any:
        name, kind = spec["name"], spec["type"]
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        if kind in _TEXTS:
            return self._text(spec, value)
        if kind == "boolean":
            if str(value).lower() not in ("true", "false"):
                raise RecordRefused("JSON_PARSER_ERROR", f"Cannot deserialize instance of boolean for {name}")
            return str(value).lower() == "true"
        try:
            if kind in _NUMBERS:
                number = float(value)
                return int(number) if kind == "int" and number == int(number) else number
            if kind == "date":
                return datetime.fromisoformat(str(value)[:10]).date().isoformat()
            if kind == "datetime":
                return stamp(datetime.fromisoformat(str(value)))
        except (TypeError, ValueError):
            raise RecordRefused(
                "JSON_PARSER_ERROR", f"Cannot deserialize instance of {kind} from VALUE_STRING value {value}"
            ) from None
        return self._reference(spec, str(value))

    def _text(self, spec: FieldSpec, value: Any) -> str:
        name, kind = spec["name"], spec["type"]
        if isinstance(value, (list, dict)):
            raise RecordRefused(
                "JSON_PARSER_ERROR", f"Cannot deserialize instance of {kind} from START_ARRAY"
            )
        text = str(value).strip().replace("\r\n", "\n")
        if len(text) > spec["length"] > 0:
            told = f"{name}: data value too large: {text[:60]} (max length={spec['length']})"
            raise RecordRefused("STRING_TOO_LONG", told, [name])
        if kind == "email" and not _EMAIL.fullmatch(text):
            raise RecordRefused("INVALID_EMAIL_ADDRESS", f"{name}: invalid email address: {text}", [name])
        options = [option["value"] for option in spec["picklistValues"] if option["active"]]
        if spec["restrictedPicklist"] and any(part not in options for part in text.split(";")):
            told = f"{name}: bad value for restricted picklist field: {text}"
            raise RecordRefused("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", told, [name])
        return text

    def _reference(self, spec: FieldSpec, value: str) -> str:
        for target in spec["referenceTo"]:
            if target == "User":
                return value
            row = self.find(target, value)
            if row is not None:
                return row.id
        raise RecordRefused("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", [spec["name"]])

    def _rules(self, kind: str, values: dict[str, Any], row: Row[str] | None) -> None:
        if kind == "Event":
            _event_times(values, row)
        for wanted, check, message in self.emulator.validation_rules:
            if wanted == kind and check(values):
                raise RecordRefused("FIELD_CUSTOM_VALIDATION_EXCEPTION", message)

    def _unique(self, kind: str, values: dict[str, Any], row: Row[str] | None) -> None:
        for name in self.emulator.indexed[kind]:
            value = values.get(name)
            for other in self.emulator.table(kind).find(name, value) if value else ():
                if row is None or other.id != row.id:
                    text = (
                        f"duplicate value found: {name} duplicates value on record with id: {other.id[:15]}"
                    )
                    raise RecordRefused("DUPLICATE_VALUE", text)

    def _duplicates(self, kind: str, values: dict[str, Any], is_saved_anyway: bool) -> None:
        rule = self.emulator.duplicate_rule
        email = values.get("Email")
        if not rule or not email or kind not in ("Lead", "Contact"):
            return
        if rule == "alert" and is_saved_anyway:
            return
        for other in (kind, "Contact" if kind == "Lead" else "Lead"):
            found = [
                row
                for row in self.emulator.table(other)
                if not row.is_archived and row.fields.get("Email") == email
            ]
            if found:
                raise self._duplicate(kind, other, found[0].id)

    def _duplicate(self, kind: str, other: str, record_id: str) -> RecordRefused:
        match = {
            "entityType": other,
            "errors": [],
            "matchEngine": "FuzzyMatchEngine",
            "matchRecords": [
                {
                    "additionalInformation": [],
                    "fieldDiffs": [],
                    "matchConfidence": 100.0,
                    "record": {"attributes": {"type": other, "url": ""}, "Id": record_id},
                }
            ],
            "rule": "Standard_Matching_Rule",
            "size": 1,
            "success": True,
        }
        told = {
            "allowSave": self.emulator.duplicate_rule == "alert",
            "duplicateRule": f"Standard_{kind}_Duplicate_Rule",
            "duplicateRuleEntityType": kind,
            "errorMessage": "Use one of these records?",
            "matchResults": [match],
        }
        key = "duplicateResut" if self.emulator.misspells else "duplicateResult"
        return RecordRefused("DUPLICATES_DETECTED", "Use one of these records?", [], **{key: told})

    def _defaults(self, kind: str) -> dict[str, Any]:
        made: dict[str, Any] = {"OwnerId": self.emulator.user_id}
        for name, spec in self.emulator.fields[kind].items():
            if spec["type"] == "boolean":
                made[name] = False
            elif spec["type"] == "picklist" and spec["defaultedOnCreate"] and spec["picklistValues"]:
                made[name] = spec["picklistValues"][0]["value"]
        return made

    def _derived(self, kind: str, values: dict[str, Any]) -> None:
        if kind in ("Lead", "Contact"):
            values["Name"] = " ".join(filter(None, (values.get("FirstName"), values.get("LastName"))))
        if kind == "Case" and not values.get("CaseNumber"):
            values["CaseNumber"] = f"{len(self.emulator.table(kind)) + 1001:08d}"
        if kind == "Opportunity":
            values["IsWon"] = values.get("StageName") == "Closed Won"
            values["IsClosed"] = str(values.get("StageName")).startswith("Closed")


def _event_times(values: dict[str, Any], row: Row[str] | None) -> None:
    """Start and duration, or start and end; both only if they agree."""
    start = values.get("StartDateTime") or values.get("ActivityDateTime")
    end, minutes = values.get("EndDateTime"), values.get("DurationInMinutes")
    if not start or (end is None and minutes is None and not values.get("IsAllDayEvent")):
        missing = ["ActivityDateTime" if not start else "DurationInMinutes"]
        raise RecordRefused("REQUIRED_FIELD_MISSING", f"Required fields are missing: {missing}", missing)
    begun = datetime.fromisoformat(start)
    if end is not None:
        length = (datetime.fromisoformat(end) - begun).total_seconds() / 60
        if length < 0:
            text = "Event duration can't be negative. End is before start"
            raise RecordRefused("FIELD_INTEGRITY_EXCEPTION", text, ["EndDateTime"])
        if length > 14 * 1440:
            raise RecordRefused("FIELD_INTEGRITY_EXCEPTION", "An event can't last longer than 14 days")
        if row is None and minutes is not None and minutes != int(length):
            raise RecordRefused("FIELD_INTEGRITY_EXCEPTION", "Duration and end are not consistent")
        values["DurationInMinutes"] = int(length)
    values["StartDateTime"] = values["ActivityDateTime"] = start


def stamp(when: datetime) -> str:
    """A moment as Salesforce answers it: to the second, with three noughts and a zone without colon."""
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")
