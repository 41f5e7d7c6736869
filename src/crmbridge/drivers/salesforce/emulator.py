"""A small stateful Salesforce org, from the published guides: records, SOQL, collections, composite, bulk, OAuth.

Switches: ``hidden`` ((object, field) pairs that field-level security hides), ``denied`` (objects the user may not
write), ``locked`` (object → refusals by a row lock), ``validation_rules``, ``duplicate_rule`` (``alert`` or ``block``),
``misspells``, ``spoils_requests`` (a column that is not there fails the request, not its row), ``governor_rows``,
``daily_limit``, ``may_hard_delete``, ``not_in_bulk``, ``bulk_looks``, ``stops_bulk_after``.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.salesforce.emulated_many import Many
from crmbridge.drivers.salesforce.emulated_org import BASE
from crmbridge.drivers.salesforce.emulated_queries import Queries
from crmbridge.drivers.salesforce.emulated_records import RecordRefused
from crmbridge.drivers.salesforce.emulated_schema import STOCK, described, id_for, listed
from crmbridge.emulation import Fault, Incoming, Quota, route

__all__ = ["SalesforceEmulator"]


class SalesforceEmulator(Queries, Many):
    """One org. Its first session does not expire by itself; those of the consent page do."""

    slug: ClassVar[str] = "salesforce"
    display_name: ClassVar[str] = "Salesforce"

    def settings(self) -> dict[str, str]:
        return {"login_url": self.base_url}

    def secrets(self) -> dict[str, str]:
        return {"access_token": self.secret("access_token")}

    # -- the door ------------------------------------------------------------------------------------------

    def authenticate(self, call: Incoming) -> HttpResponse | None:
        is_open = call.path.rstrip("/") == "/services/data" or (
            call.path.startswith("/services/oauth2/") and not call.path.endswith("/userinfo")
        )
        if is_open:
            return None
        if (problem := self.session_problem(call)) is not None:
            return problem
        if call.path.startswith("/services/data/v"):
            if self.daily_used >= self.daily_limit:
                return self.refused("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
            self.daily_used += 1
        return None

    async def handle(self, request: HttpRequest) -> HttpResponse:
        response = await super().handle(request)
        if "/services/data/v" in request.url and response.status != 401:
            usage = f"api-usage={self.daily_used}/{self.daily_limit}"
            response.headers = {**response.headers, "sforce-limit-info": usage}
        return response

    def is_write(self, call: Incoming, made: Any) -> bool:
        """A composite request of reads is a read."""
        if not call.path.rstrip("/").endswith("/composite"):
            return bool(made.writes)
        try:
            parts = call.json["compositeRequest"]
            return any(part.get("method") != "GET" for part in parts)
        except (msgspec.MsgspecError, TypeError, KeyError, AttributeError):
            return True

    def on_limited(self, quota: Quota, wait_seconds: float, call: Incoming) -> HttpResponse:
        return self.refused(
            "REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests (Concurrent API Requests) Limit exceeded."
        )

    def on_fault(self, fault: Fault, call: Incoming) -> HttpResponse:
        codes = {
            400: ("JSON_PARSER_ERROR", "Unexpected character"),
            401: ("INVALID_SESSION_ID", "Session expired or invalid"),
            403: ("INSUFFICIENT_ACCESS_OR_READONLY", "insufficient access rights on object id"),
            404: ("NOT_FOUND", "The requested resource does not exist"),
            409: (
                "DUPLICATE_VALUE",
                "duplicate value found: Ext__c duplicates value on record with id: 00QHu0000000009",
            ),
            422: ("FIELD_CUSTOM_VALIDATION_EXCEPTION", "a rule of the org says no"),
            429: ("REQUEST_LIMIT_EXCEEDED", "ConcurrentPerOrgLongTxn Limit exceeded"),
        }
        code, message = codes.get(
            fault.status, ("UNKNOWN_EXCEPTION", "An unexpected error occurred. ErrorId: 1-2 (3)")
        )
        return self.refused(code, message, fault.status)

    def on_unknown_route(self, call: Incoming) -> HttpResponse:
        return self.refused("NOT_FOUND", "The requested resource does not exist")

    def on_broken_json(self, call: Incoming) -> HttpResponse:
        return self.refused("JSON_PARSER_ERROR", "Unexpected character at [line:1, column:1]")

    # -- the org -------------------------------------------------------------------------------------------

    @route("GET", "/services/data", operation="versions")
    @route("GET", "/services/data/", operation="versions")
    def versions(self, call: Incoming) -> HttpResponse:
        known = [
            ("Spring '24", 60),
            ("Summer '25", 64),
            ("Winter '26", 65),
            ("Spring '26", 66),
            ("Summer '26", 67),
        ]
        return self.answer(
            [
                {"label": label, "url": f"/services/data/v{one}.0", "version": f"{one}.0"}
                for label, one in known
            ]
        )

    @route("GET", BASE + "/limits", operation="limits")
    @route("GET", BASE + "/limits/", operation="limits")
    def limits(self, call: Incoming) -> HttpResponse:
        left = self.daily_limit - self.daily_used
        return self.answer(
            {
                "DailyApiRequests": {"Max": self.daily_limit, "Remaining": left},
                "DailyBulkApiBatches": {"Max": 15_000, "Remaining": 15_000 - len(self.jobs.all)},
            }
        )

    @route("GET", BASE + "/sobjects", operation="sobjects")
    @route("GET", BASE + "/sobjects/", operation="sobjects")
    def list_objects(self, call: Incoming) -> HttpResponse:
        version = call.params["version"]
        known = [listed(kind, kind in self.denied, version=version) for kind in STOCK]
        return self.answer({"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": known})

    @route("GET", BASE + "/sobjects/{kind}/describe", operation="describe")
    @route("GET", BASE + "/sobjects/{kind}/describe/", operation="describe")
    def describe(self, call: Incoming) -> HttpResponse:
        kind = call.params["kind"]
        fields = self.visible(kind)
        return self.answer(described(kind, fields, kind in self.denied, version=call.params["version"]))

    # -- one record ----------------------------------------------------------------------------------------

    @route("POST", BASE + "/sobjects/{kind}", operation="create")
    @route("POST", BASE + "/sobjects/{kind}/", operation="create")
    def create(self, call: Incoming) -> HttpResponse:
        self.table(call.params["kind"])
        try:
            row = self.records.create(
                call.params["kind"], call.json, is_saved_anyway=self._saves_anyway(call)
            )
        except RecordRefused as error:
            raise self.refused_record(error) from None
        return self.answer({"id": row.id, "success": True, "errors": []}, 201)

    @staticmethod
    def _saves_anyway(call: Incoming) -> bool:
        return "allowsave=true" in call.headers.get("sforce-duplicate-rule-header", "").lower()

    @route("GET", BASE + "/sobjects/{kind}/{id}", operation="get")
    def get(self, call: Incoming) -> HttpResponse:
        kind = call.params["kind"]
        self.table(kind)
        try:
            row = self.records.need(kind, call.params["id"])
        except RecordRefused as error:
            raise self.refused_record(error) from None
        names = [name for text in call.query.get("fields", []) for name in text.split(",")]
        return self.answer(self.shown(kind, row, names or list(self.visible(kind)), call.params["version"]))

    @route("PATCH", BASE + "/sobjects/{kind}/{id}", operation="update")
    def update(self, call: Incoming) -> HttpResponse:
        try:
            self.records.update(call.params["kind"], call.params["id"], call.json)
        except RecordRefused as error:
            raise self.refused_record(error) from None
        return HttpResponse(status=204)

    @route("DELETE", BASE + "/sobjects/{kind}/{id}", operation="delete")
    def delete(self, call: Incoming) -> HttpResponse:
        try:
            self.records.delete(call.params["kind"], call.params["id"])
        except RecordRefused as error:
            raise self.refused_record(error) from None
        return HttpResponse(status=204)

    @route("GET", BASE + "/sobjects/{kind}/{key}/{value}", operation="get_by_key")
    @route("PATCH", BASE + "/sobjects/{kind}/{key}/{value}", operation="upsert")
    def by_key(self, call: Incoming) -> HttpResponse:
        kind, key, value = (call.params[name] for name in ("kind", "key", "value"))
        try:
            found = self.records.by_key(kind, key, value)
            if len(found) > 1:
                base = f"/services/data/{call.params['version']}/sobjects/{kind}"
                return self.answer([f"{base}/{row.id}" for row in found], 300)
            if call.method == "GET":
                row = found[0] if found else self.records.need(kind, id_for(kind, 0))
                return self.answer(self.shown(kind, row, list(self.visible(kind)), call.params["version"]))
            row, is_new = self.records.upsert(kind, key, value, call.json)
        except RecordRefused as error:
            raise self.refused_record(error) from None
        return self.answer(
            {"id": row.id, "success": True, "errors": [], "created": is_new}, 201 if is_new else 200
        )
