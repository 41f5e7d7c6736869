"""The settings of an emulated organisation: itself, its users, modules, fields, layouts and the recycle bin.

https://www.zoho.com/crm/developer/docs/api/v8/get-org-data.html, .../modules-api.html, .../field-meta.html,
.../create-custom-field.html, .../layouts-meta.html: a module takes two unique custom fields, notes take none; a field's
API name is made from its label.
"""

from __future__ import annotations

import re
from typing import Any

from crmbridge.core.wire import HttpResponse
from crmbridge.drivers.zoho.emulated_fields import MODULES, ORG, Defined, shown, singular
from crmbridge.drivers.zoho.emulated_oauth import OAuthPages
from crmbridge.drivers.zoho.emulated_records import PARENTS, USER, Records, stamp
from crmbridge.emulation import Incoming, Refusal, route

__all__ = ["SettingsPages"]

_BORN = "2024-03-01T09:00:00+04:00"
_KINDS = (
    "text",
    "textarea",
    "email",
    "phone",
    "integer",
    "bigint",
    "double",
    "currency",
    "boolean",
    "date",
    "datetime",
)
_KINDS_MORE = ("picklist", "multiselectpicklist", "website", "percent")


class SettingsPages(OAuthPages):
    """``most_unique``: unique custom fields that a module takes."""

    def seed(self) -> None:
        super().seed()
        self.most_unique = 2
        self.records = Records(self.store)

    def module(self, call: Incoming, name: str = "") -> str:
        """The module of the path or of a parameter. Raises Refusal."""
        found = name or call.params.get("module", "")
        if found not in self.records.fields:
            text = "the module name given seems to be invalid"
            raise Refusal(self.problem(400, "INVALID_MODULE", text, {"resource_path_index": 0}))
        return found

    @route("GET", "/crm/{version}/org", operation="org")
    def org(self, call: Incoming) -> HttpResponse:
        tree = {
            "id": str(ORG + 1),
            "zgid": "874312345",
            "company_name": "Harbour Agency",
            "alias": None,
            "country": "United Arab Emirates",
            "country_code": "AE",
            "iso_code": "AED",
            "currency": "UAE Dirham",
            "currency_symbol": "AED",
            "currency_locale": "en_AE",
            "time_zone": "Asia/Dubai",
            "primary_email": USER["email"],
            "primary_zuid": "694579958",
            "domain_name": "org874312345",
            "mc_status": False,
            "gapps_enabled": False,
            "translation_enabled": False,
            "hipaa_compliance_enabled": False,
            "license_details": {
                "paid_expiry": None,
                "users_license_purchased": 10,
                "trial_type": None,
                "trial_expiry": None,
                "paid": True,
                "paid_type": "enterprise",
            },
        }
        return self.answer({"org": [tree]})

    @route("GET", "/crm/{version}/users", operation="users")
    def users(self, call: Incoming) -> HttpResponse:
        user = {
            "id": USER["id"],
            "full_name": USER["name"],
            "first_name": "Noor",
            "last_name": "Haddad",
            "email": USER["email"],
            "zuid": "694579958",
            "status": "active",
            "confirm": True,
            "role": {"name": "CEO", "id": str(ORG + 201)},
            "profile": {"name": "Administrator", "id": str(ORG + 202)},
            "time_zone": "Asia/Dubai",
            "country_locale": "en_US",
            "locale": "en_US",
            "language": "en_US",
            "created_time": _BORN,
            "Modified_Time": _BORN,
        }
        counted = {"per_page": 200, "count": 1, "page": 1, "more_records": False}
        return self.answer({"users": [user], "info": counted})

    # -- modules, fields, layouts --------------------------------------------------------------------------

    @route("GET", "/crm/{version}/settings/modules", operation="modules")
    def modules(self, call: Incoming) -> HttpResponse:
        if call.headers.get("if-modified-since"):
            return HttpResponse(status=304)
        return self.answer({"modules": [self._module(name, place) for place, name in enumerate(MODULES)]})

    @route("GET", "/crm/{version}/settings/modules/{module}", operation="modules")
    def one_module(self, call: Incoming) -> HttpResponse:
        name = self.module(call)
        return self.answer({"modules": [self._module(name, MODULES.index(name))]})

    def _module(self, name: str, place: int) -> dict[str, Any]:
        yes = dict.fromkeys(
            ("api_supported", "creatable", "editable", "deletable", "viewable", "visible", "show_as_tab"),
            True,
        )
        label = "Meetings" if name == "Events" else name
        return {
            "id": str(ORG + 2_000 + place),
            "api_name": name,
            "module_name": "Potentials" if name == "Deals" else name,
            "singular_label": singular(name),
            "plural_label": label,
            "generated_type": "default",
            "global_search_supported": True,
            "quick_create": True,
            "convertable": name == "Leads",
            "feeds_required": False,
            "isBlueprintSupported": True,
            "inventory_template_supported": False,
            "webform_supported": name in ("Leads", "Contacts", "Cases"),
            "triggers_supported": True,
            "scoring_supported": True,
            "presence_sub_menu": False,
            "sequence_number": place + 1,
            "business_card_field_limit": 5,
            "profile_count": 1,
            "has_more_profiles": False,
            "profiles": [{"name": "Administrator", "id": str(ORG + 202)}],
            "parent_module": {},
            "arguments": [],
            "modified_by": None,
            "modified_time": None,
            "web_link": None,
            **yes,
        }

    @route("GET", "/crm/{version}/settings/fields", operation="fields.list")
    def list_fields(self, call: Incoming) -> HttpResponse:
        module = self._asked_module(call)
        return self.answer({"fields": [shown(module, one) for one in self.records.fields[module].values()]})

    @route("GET", "/crm/{version}/settings/fields/{id}", operation="fields.get")
    def get_field(self, call: Incoming) -> HttpResponse:
        module = self._asked_module(call)
        found = [one for one in self.records.fields[module].values() if str(one.number) == call.params["id"]]
        if not found:
            return HttpResponse(status=204)
        return self.answer({"fields": [shown(module, found[0])]})

    def _asked_module(self, call: Incoming) -> str:
        if not call.first("module"):
            text = "One of the expected parameter is missing"
            raise Refusal(self.problem(400, "REQUIRED_PARAM_MISSING", text, {"param_name": "module"}))
        return self.module(call, call.first("module"))

    @route("POST", "/crm/{version}/settings/fields", operation="fields.create")
    def create_fields(self, call: Incoming) -> HttpResponse:
        module = self._asked_module(call)
        given = call.json.get("fields") if isinstance(call.json, dict) else None
        if not isinstance(given, list) or not 1 <= len(given) <= 5:
            return self.problem(
                400, "INVALID_DATA", "invalid data", {"api_name": "fields", "maximum_length": 5}
            )
        if module == "Notes":
            return self.problem(400, "INVALID_MODULE", "the module name given seems to be invalid")
        rows = [self._make_field(module, one, place) for place, one in enumerate(given)]
        return self.answer({"fields": rows}, 201 if all(row["status"] == "success" for row in rows) else 400)

    def _make_field(self, module: str, given: Any, place: int) -> dict[str, Any]:
        known = self.records.fields[module]
        label = str(given.get("field_label", "")) if isinstance(given, dict) else ""
        kind = given.get("data_type") if isinstance(given, dict) else None
        name = re.sub(r"\W+", "_", label, flags=re.ASCII).strip("_")

        def refused(code: str, message: str, **details: Any) -> dict[str, Any]:
            path = f"$.fields[{place}]"
            return {
                "code": code,
                "details": {"json_path": path, **details},
                "message": message,
                "status": "error",
            }

        if not name:
            return refused("MANDATORY_NOT_FOUND", "required field not found", api_name="field_label")
        if kind not in (*_KINDS, *_KINDS_MORE):
            return refused("INVALID_DATA", "invalid data", api_name="data_type")
        if name in known or any(one.label == label for one in known.values()):
            return refused("DUPLICATE_DATA", "duplicate data", api_name="field_label")
        is_unique = bool(given.get("unique"))
        if is_unique and sum(one.is_unique for one in known.values()) >= self.most_unique:
            return refused(
                "LIMIT_EXCEEDED", "unique field limit exceeded", api_name="unique", limit=self.most_unique
            )
        number = ORG + 900_000 + sum(len(fields) for fields in self.records.fields.values())
        flags = f"c{'u' if is_unique else ''}"
        self.records.add_field(
            module, Defined(number, name, str(kind), int(given.get("length") or 255), flags, label)
        )
        return {
            "code": "SUCCESS",
            "details": {"id": str(number)},
            "message": "field created",
            "status": "success",
        }

    @route("GET", "/crm/{version}/settings/layouts", operation="layouts")
    def layouts(self, call: Incoming) -> HttpResponse:
        module = self._asked_module(call)
        fields = [
            {**shown(module, one), "required": one.is_mandatory, "sequence_number": place + 1}
            for place, one in enumerate(self.records.fields[module].values())
        ]
        section = {
            "display_label": f"{singular(module)} Information",
            "api_name": f"{module}_Information",
            "name": f"{module} Information",
            "sequence_number": 1,
            "column_count": 2,
            "tab_traversal": 2,
            "issubformsection": False,
            "isSubformSection": False,
            "type": "used",
            "fields": fields,
        }
        layout = {
            "id": str(ORG + 5_000 + MODULES.index(module)),
            "name": "Standard",
            "api_name": "Standard",
            "display_label": "Standard",
            "status": "active",
            "visible": True,
            "generated_type": "default",
            "source": "crm",
            "has_more_profiles": False,
            "created_for": None,
            "profiles": [{"name": "Administrator", "id": str(ORG + 202), "default": True}],
            "sections": [section],
        }
        return self.answer({"layouts": [layout]})

    @route("GET", "/crm/{version}/settings/related_lists", operation="related_lists")
    def related_lists(self, call: Incoming) -> HttpResponse:
        module = self._asked_module(call)
        if module not in PARENTS:
            return HttpResponse(status=204)
        notes = {
            "id": str(ORG + 6_000 + MODULES.index(module)),
            "sequence_number": "1",
            "display_label": "Notes",
            "api_name": "Notes",
            "name": "Notes",
            "module": {"api_name": "Notes", "id": str(ORG + 2_000 + MODULES.index("Notes"))},
            "action": None,
            "href": f"{module}/{{ENTITYID}}/Notes",
            "type": "default",
            "connectedmodule": None,
            "linkingmodule": None,
            "visible": True,
        }
        return self.answer({"related_lists": [notes]})

    # -- recycle bin ---------------------------------------------------------------------------------------

    @route("GET", "/crm/{version}/settings/recycle_bin", operation="bin.list")
    def bin(self, call: Incoming) -> HttpResponse:
        rows = [
            self._binned(name, row) for name in MODULES for row in self.records.table(name) if row.is_archived
        ]
        if not rows:
            return HttpResponse(status=204)
        return self.answer({"recycle_bin": rows, "info": {"count": len(rows), "more_records": False}})

    @route("GET", "/crm/{version}/settings/recycle_bin/{id}", operation="bin.get")
    def one_binned(self, call: Incoming) -> HttpResponse:
        for name in MODULES:
            for row in self.records.table(name):
                if row.is_archived and str(row.id) == call.params["id"]:
                    return self.answer({"recycle_bin": [self._binned(name, row)]})
        return HttpResponse(status=204)

    def _binned(self, module: str, row: Any) -> dict[str, Any]:
        return {
            "id": str(row.id),
            "display_name": self.records.name_of(module, str(row.id)),
            "deleted_time": stamp(row.updated_at),
            "module": {"api_name": module, "id": str(ORG + 2_000 + MODULES.index(module))},
            "deleted_by": {"name": USER["name"], "id": USER["id"]},
            "owner": {"name": USER["name"], "id": USER["id"]},
        }

    @route("DELETE", "/crm/{version}/settings/recycle_bin/{id}", operation="bin.delete")
    def empty_one(self, call: Incoming) -> HttpResponse:
        return self._purged([call.params["id"]])

    @route("DELETE", "/crm/{version}/settings/recycle_bin", operation="bin.delete")
    def empty_some(self, call: Incoming) -> HttpResponse:
        return self._purged([one for one in call.first("ids").split(",") if one])

    def _purged(self, ids: list[str]) -> HttpResponse:
        rows: list[dict[str, Any]] = []
        for remote_id in ids:
            owner = next((name for name in MODULES if self._is_binned(name, remote_id)), "")
            if owner:
                self.records.table(owner).remove(int(remote_id))
                rows.append(
                    {
                        "code": "SUCCESS",
                        "details": {"id": remote_id},
                        "message": "record deleted permanently",
                        "status": "success",
                    }
                )
            else:
                text = "the id given seems to be invalid"
                details = {"id": remote_id, "resource_path_index": 2}
                rows.append({"code": "INVALID_DATA", "details": details, "message": text, "status": "error"})
        good = sum(row["status"] == "success" for row in rows)
        return self.answer({"recycle_bin": rows}, 200 if good == len(rows) else 207 if good else 400)

    def _is_binned(self, module: str, remote_id: str) -> bool:
        row = self.records.table(module).rows.get(int(remote_id)) if remote_id.isdecimal() else None
        return row is not None and row.is_archived
