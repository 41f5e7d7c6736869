"""What an emulated account is made of: its details, properties, pipelines and owners.

https://developers.hubspot.com/docs/api/crm/properties, /pipelines and /owners, in the shapes of the published specs.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from crmbridge.core.wire import HttpResponse
from crmbridge.drivers.hubspot.emulated_oauth import PORTAL, OAuthPages
from crmbridge.drivers.hubspot.emulated_properties import KINDS, PIPELINES, definitions, kind_of
from crmbridge.emulation import Incoming, Refusal, Table, route

__all__ = ["SchemaPages", "stamp"]

_BORN = "2024-03-01T09:00:00.000Z"
_OWNERS = (("77001", "Noor", "Haddad"), ("77002", "Sam", "Rivera"))
_NEEDED = ("name", "label", "groupName", "type", "fieldType")


def stamp(moment: datetime) -> str:
    """ISO 8601 with milliseconds and Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")[:23] + "Z"


class SchemaPages(OAuthPages):
    """Tables and definitions. ``can_be_unique``: whether a property with unique values may be made."""

    def seed(self) -> None:
        super().seed()
        self.can_be_unique = True
        self.properties = {kind: definitions(kind) for kind in KINDS}
        for place, kind in enumerate(KINDS):
            table = self.store.numbered(kind, first_id=10_000 * (place + 1) + 1)
            if kind == "contacts":
                table.index("email", str.lower)

    def kind(self, call: Incoming, name: str = "kind") -> str:
        """The object of the path. Raises Refusal."""
        kind = kind_of(call.params[name])
        if not kind:
            text = f"Unable to infer object type from: {call.params[name]}"
            raise Refusal(self.problem(400, "", text))
        return kind

    def table(self, kind: str) -> Table[int]:
        """The rows of one object."""
        return self.store.numbered(kind)

    @route("GET", "/account-info/{version}/details", operation="account")
    def account(self, call: Incoming) -> HttpResponse:
        return self.answer(
            {
                "portalId": PORTAL,
                "accountType": "DEVELOPER_TEST",
                "timeZone": "Asia/Dubai",
                "companyCurrency": "AED",
                "additionalCurrencies": [],
                "utcOffset": "+04:00",
                "utcOffsetMilliseconds": 14_400_000,
                "uiDomain": "app.hubspot.com",
                "dataHostingLocation": "na1",
            }
        )

    # -- properties ----------------------------------------------------------------------------------------

    @route("GET", "/crm/properties/{version}/{kind}", operation="properties.list")
    @route("GET", "/crm/v3/properties/{kind}", operation="properties.list")
    def list_properties(self, call: Incoming) -> HttpResponse:
        wanted = call.first("archived").lower() == "true"
        known = self.properties[self.kind(call)].values()
        return self.answer({"results": [one for one in known if one["archived"] is wanted]})

    @route("GET", "/crm/properties/{version}/{kind}/{name}", operation="properties.get")
    @route("GET", "/crm/v3/properties/{kind}/{name}", operation="properties.get")
    def get_property(self, call: Incoming) -> HttpResponse:
        known = self.properties[self.kind(call)].get(call.params["name"])
        if known is None:
            raise Refusal(self.problem(404, "OBJECT_NOT_FOUND", "resource not found"))
        return self.answer(known)

    @route("POST", "/crm/properties/{version}/{kind}", operation="properties.create")
    @route("POST", "/crm/v3/properties/{kind}", operation="properties.create")
    def create_property(self, call: Incoming) -> HttpResponse:
        kind, body = self.kind(call), call.json
        if not isinstance(body, dict) or not all(isinstance(body.get(name), str) for name in _NEEDED):
            raise Refusal(self.problem(400, "VALIDATION_ERROR", "Some required fields were not set"))
        known = self.properties[kind]
        if body["name"] in known:
            text = f"A property named '{body['name']}' already exists."
            raise Refusal(self.problem(409, "OBJECT_ALREADY_EXISTS", text))
        groups = {one["groupName"] for one in known.values()}
        if body["groupName"] not in groups or (body.get("hasUniqueValue") and not self.can_be_unique):
            raise Refusal(self.problem(400, "VALIDATION_ERROR", "The property cannot be created as asked"))
        stock = definitions(kind)["hs_object_id"]
        metadata = {"archivable": True, "readOnlyDefinition": False, "readOnlyValue": False}
        made = {**stock, "options": [], **body, "hubspotDefined": False, "modificationMetadata": metadata}
        known[body["name"]] = made
        if body.get("hasUniqueValue"):
            self.table(kind).index(body["name"])
        return self.answer(made, 201)

    @route("GET", "/crm/property-validations/{version}/{kind}", operation="properties.validations")
    @route("GET", "/crm/v3/property-validations/{kind}", operation="properties.validations")
    def validations(self, call: Incoming) -> HttpResponse:
        """No property of the emulated account has a rule of its own."""
        self.kind(call)
        return self.answer({"results": []})

    # -- pipelines and owners ------------------------------------------------------------------------------

    @route("GET", "/crm/pipelines/{version}/{kind}", operation="pipelines")
    @route("GET", "/crm/v3/pipelines/{kind}", operation="pipelines")
    def pipelines(self, call: Incoming) -> HttpResponse:
        kind = self.kind(call)
        born = {"archived": False, "createdAt": _BORN, "updatedAt": _BORN}
        results = [
            {
                "id": name,
                "label": name.title(),
                "displayOrder": place,
                "stages": [
                    {
                        "id": stage,
                        "label": stage.title(),
                        "displayOrder": order,
                        "metadata": {},
                        "writePermissions": "CRM_PERMISSIONS_ENFORCEMENT",
                        **born,
                    }
                    for order, stage in enumerate(stages)
                ],
                **born,
            }
            for place, (name, stages) in enumerate(PIPELINES.get(kind, {}).items())
        ]
        return self.answer({"results": results})

    @route("GET", "/crm/owners/{version}", operation="owners.list")
    @route("GET", "/crm/v3/owners", operation="owners.list")
    @route("GET", "/crm/v3/owners/", operation="owners.list")
    def owners(self, call: Incoming) -> HttpResponse:
        wanted = call.first("email").lower()
        found = [one for one in map(_owner, _OWNERS) if not wanted or one["email"] == wanted]
        return self.answer({"results": found})

    @route("GET", "/crm/owners/{version}/{id}", operation="owners.get")
    def owner(self, call: Incoming) -> HttpResponse:
        for one in map(_owner, _OWNERS):
            if one["id"] == call.params["id"]:
                return self.answer(one)
        return self.on_unknown_route(call)  # an unknown owner has been answered with a page


def _owner(row: tuple[str, str, str]) -> dict[str, Any]:
    number, first, last = row
    return {
        "id": number,
        "email": f"{first}.{last}@agency.example".lower(),
        "firstName": first,
        "lastName": last,
        "type": "PERSON",
        "userId": int(number) + 1000,
        "createdAt": _BORN,
        "updatedAt": _BORN,
        "archived": False,
    }
