"""Records of the emulated account: what is accepted, what clashes, what a record looks like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crmbridge.drivers.hubspot.emulated_properties import (
    ASSOCIATIONS,
    DEFAULTS,
    LIFECYCLE,
    PIPELINES,
    REQUIRED,
    STAGES,
    problems_text,
    value_problem,
)
from crmbridge.drivers.hubspot.emulated_schema import stamp
from crmbridge.drivers.hubspot.emulated_search import local_number
from crmbridge.emulation import Row

if TYPE_CHECKING:
    from crmbridge.drivers.hubspot.emulated_associations import AssociationPages

__all__ = ["RecordRefused", "Records"]

_ACTIVITIES = ("notes", "calls", "meetings", "tasks")
_SHOWN = {"contacts": ("firstname", "lastname", "email"), "deals": ("dealname", "amount", "dealstage")}


class RecordRefused(Exception):
    """One record is not accepted. ``more`` holds further keys of HubSpot's error."""

    def __init__(self, category: str, message: str, **more: Any) -> None:
        super().__init__(category)
        self.category = category
        self.message = message
        self.more: dict[str, Any] = more

    def told(self) -> dict[str, Any]:
        """As an entry of a batch's ``errors``, with all that the published spec requires there."""
        given = {"context": {}, "errors": [], "links": {}, **self.more}
        return {"status": "error", "category": self.category, "message": self.message, **given}


class Records:
    """Checks and changes of rows."""

    def __init__(self, account: AssociationPages) -> None:
        self.account = account

    # -- reading -------------------------------------------------------------------------------------------

    def find(self, kind: str, text: str, by: str = "", *, is_archived: bool = False) -> Row[int] | None:
        """By id (a merged one leads to the survivor) or by a property with unique values."""
        table = self.account.table(kind)
        if by:
            rows = table.find(by, text.strip(), with_archived=True)
            return next((row for row in rows if row.is_archived is is_archived), None)
        text = self.account.merged.get(text, text)
        row = table.get(int(text), with_archived=True) if text.isdigit() else None
        return row if row is not None and row.is_archived is is_archived else None

    def all_of(self, kind: str, row: Row[int], fields: dict[str, Any]) -> dict[str, Any]:
        """Stored and computed properties."""
        changed = "lastmodifieddate" if kind == "contacts" else "hs_lastmodifieddate"
        found = {
            **fields,
            "hs_object_id": str(row.id),
            "createdate": stamp(row.created_at),
            changed: stamp(row.updated_at),
        }
        if kind == "contacts":
            found["hs_searchable_calculated_phone_number"] = local_number(fields.get("phone"))
            found["hs_searchable_calculated_mobile_number"] = local_number(fields.get("mobilephone"))
        return found

    def shown(
        self, kind: str, row: Row[int], names: set[str], found: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The record as it is answered: texts or null."""
        found = self.all_of(kind, row, row.fields if found is None else found)
        changed = "lastmodifieddate" if kind == "contacts" else "hs_lastmodifieddate"
        wanted = (names or set(_SHOWN.get(kind, ()))) | {"hs_object_id", "createdate", changed}
        known = self.account.properties[kind]
        tree = {
            "id": str(row.id),
            "properties": {name: found.get(name) or None for name in wanted if name in known},
            "createdAt": stamp(row.created_at),
            "updatedAt": stamp(row.updated_at),
            "archived": row.is_archived,
        }
        if row.is_archived:
            tree["archivedAt"] = stamp(row.updated_at)
        return tree

    # -- writing -------------------------------------------------------------------------------------------

    def create(self, kind: str, body: Any) -> Row[int]:
        """A new row with its associations. Raises RecordRefused."""
        properties = self._checked(kind, body.get("properties") if isinstance(body, dict) else None)
        self._check_required(kind, properties, body)
        self._check_unique(kind, properties, None)
        links = self._checked_links(kind, body.get("associations") or [])
        row = self.account.table(kind).insert(properties)
        for to, number in links:
            self.link((kind, str(row.id)), to, {number})
        return row

    def update(self, kind: str, row: Row[int], given: Any) -> None:
        """Changes the given properties. Raises RecordRefused."""
        properties = self._checked(kind, given)
        self._check_unique(kind, properties, row)
        stage = properties.get("lifecyclestage")
        if stage and (old := row.fields.get("lifecyclestage")) and _rank(stage) < _rank(old):
            del properties["lifecyclestage"]  # moves forward only
        self.account.table(kind).update(row.id, properties)

    def apply(self, kind: str, verb: str, one: dict[str, Any]) -> tuple[Row[int], bool]:
        """One input of a batch. Raises RecordRefused."""
        if verb == "create":
            return self.create(kind, one), True
        by = one.get("idProperty") or ""
        if verb == "update":
            # Old ids of merged records work on a single update, not in a batch.
            row = None if one["id"] in self.account.merged else self.find(kind, str(one["id"]), by)
            if row is None:
                raise RecordRefused("OBJECT_NOT_FOUND", "resource not found", context={"ids": [one["id"]]})
        else:
            row = self.find(kind, str(one["id"]), by)
            if row is None:
                return self.create(kind, {"properties": {by: one["id"], **one["properties"]}}), True
        self.update(kind, row, one["properties"])
        return row, False

    def first_problem(self, kind: str, verb: str, inputs: list[dict[str, Any]]) -> RecordRefused | None:
        """What fails the entire batch when rows cannot fail alone; nothing is changed."""
        taken: set[tuple[str, str]] = set()
        for one in inputs:
            try:
                properties = self._checked(kind, one.get("properties"))
                if verb == "create":
                    self._check_required(kind, properties, one)
                    self._check_unique(kind, properties, None)
                    self._checked_links(kind, one.get("associations") or [])
                for name in self._unique_names(kind):
                    value = properties.get(name, "").lower()
                    if value and (name, value) in taken:
                        raise RecordRefused("CONFLICT", "Contact already exists. Existing ID: 0")
                    taken.add((name, value))
            except RecordRefused as error:
                return error
        return None

    def archive(self, kind: str, text: str) -> None:
        """Nothing happens to what is not there."""
        row = self.find(kind, text)
        if row is not None:
            self.account.table(kind).archive(row.id)

    def erase(self, text: str, by: str) -> None:
        """The privacy delete of a contact, archived or not, with its activities."""
        row = self.find("contacts", text, by) or self.find("contacts", text, by, is_archived=True)
        if row is None:
            if by == "email":
                self.account.blocked.add(text.lower())
            return
        for kind, number in self.account.links.pop(("contacts", str(row.id)), {}):
            self.account.links[kind, number].pop(("contacts", str(row.id)), None)
            if kind in (*_ACTIVITIES, "leads") and self.account.table(kind).get(
                int(number), with_archived=True
            ):
                self.account.table(kind).remove(int(number))
        self.account.table("contacts").remove(row.id)

    def link(self, one: tuple[str, str], other: tuple[str, str], numbers: set[int] | None = None) -> None:
        """An association is seen from both ends. ``numbers`` replace its types as seen from ``one``."""
        links = self.account.links
        links[one][other] = numbers or links[one].get(other) or {DEFAULTS.get((one[0], other[0]), 0)}
        links[other].setdefault(one, {DEFAULTS.get((other[0], one[0]), 0)})

    # -- checks --------------------------------------------------------------------------------------------

    def _checked(self, kind: str, given: Any) -> dict[str, str]:
        if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
            raise RecordRefused("VALIDATION_ERROR", "Invalid input JSON: properties must be a map of texts")
        known = self.account.properties[kind]
        found = (value_problem(known.get(name), name, value) for name, value in given.items())
        if problems := [one for one in found if one]:
            errors = [
                {
                    "message": one["message"],
                    "code": one["error"],
                    "context": {"propertyName": [one["name"]]},
                }
                for one in problems
            ]
            raise RecordRefused("VALIDATION_ERROR", problems_text(problems), errors=errors)
        properties = dict(given)
        if "email" in properties:
            properties["email"] = properties["email"].strip().lower()
        return properties

    def _check_required(self, kind: str, properties: dict[str, str], body: dict[str, Any]) -> None:
        if kind in STAGES:
            name, stage = STAGES[kind]
            pipeline = properties.setdefault(name, next(iter(PIPELINES[kind])))
            stages = PIPELINES[kind].get(pipeline, [])
            if kind == "leads":
                properties.setdefault(stage, stages[0] if stages else "")
            if properties.get(stage) and properties[stage] not in stages:
                problem = {
                    "message": f"{properties[stage]} was not valid",
                    "error": "INVALID_OPTION",
                    "name": stage,
                }
                raise RecordRefused("VALIDATION_ERROR", problems_text([problem]))
        lacking = [name for name in REQUIRED.get(kind, ()) if not properties.get(name)]
        if kind == "contacts" and not any(
            properties.get(name) for name in ("email", "firstname", "lastname")
        ):
            lacking = ["email", "firstname", "lastname"]
        if lacking:
            errors = [
                {"message": "is required", "code": "REQUIRED_FIELD", "context": {"propertyName": [name]}}
                for name in lacking
            ]
            text = f"Error creating {kind[:-1].upper()}. Some required properties were not set."
            raise RecordRefused("VALIDATION_ERROR", text, errors=errors)
        if kind == "leads" and not body.get("associations"):
            raise RecordRefused("VALIDATION_ERROR", "A lead must be associated with a contact.")

    def _unique_names(self, kind: str) -> list[str]:
        return [name for name, one in self.account.properties[kind].items() if one.get("hasUniqueValue")]

    def _check_unique(self, kind: str, properties: dict[str, str], row: Row[int] | None) -> None:
        if properties.get("email") in self.account.blocked:
            raise RecordRefused("VALIDATION_ERROR", "email has been GDPR blacklisted")
        for name in self._unique_names(kind):
            if not properties.get(name):
                continue
            others = [one for one in self.account.table(kind).find(name, properties[name]) if one is not row]
            if not others:
                continue
            number = str(others[0].id)
            if name == "email":
                text = f"Contact already exists. Existing ID: {number}"
                raise RecordRefused("CONFLICT", text, context={"existingId": [number]})
            problem = {
                "isValid": False,
                "message": f"{number} already has that value.",
                "error": "CONFLICTING_UNIQUE_VALUE",
                "name": name,
            }
            raise RecordRefused("VALIDATION_ERROR", problems_text([problem]))

    def _checked_links(self, kind: str, given: list[dict[str, Any]]) -> list[tuple[tuple[str, str], int]]:
        found = []
        for one in given:
            number = one["types"][0]["associationTypeId"]
            to = next(
                (to for (start, to), ids in ASSOCIATIONS.items() if start == kind and number in ids), ""
            )
            if not to:
                raise RecordRefused("VALIDATION_ERROR", f"No association type {number} from {kind}")
            if self.find(to, str(one["to"]["id"])) is None:
                raise RecordRefused("VALIDATION_ERROR", f"No {to[:-1]} with ID {one['to']['id']} exists")
            found.append(((to, str(one["to"]["id"])), number))
        return found


def _rank(stage: str) -> int:
    return LIFECYCLE.index(stage) if stage in LIFECYCLE else -1
