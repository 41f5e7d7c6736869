"""A small stateful HubSpot, from its published specs and pages: CRM objects, batches, search, OAuth, quotas.

Dated paths first, v3 and v4 as aliases. Results of batches come in another order than they were asked for, since
HubSpot promises none. Switches: ``honours_trace_ids`` (False: one bad row fails its batch, always), ``answers_207``
(False: partial success is a 200 or 201 with ``errors``), ``echoes_trace_ids``, ``missing_scopes``, ``can_be_unique``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.hubspot.emulated_associations import AssociationPages
from crmbridge.drivers.hubspot.emulated_properties import KINDS, kind_of
from crmbridge.drivers.hubspot.emulated_records import RecordRefused
from crmbridge.drivers.hubspot.emulated_search import SearchRefused, chosen, page_of
from crmbridge.emulation import Fault, Incoming, Quota, Refusal, Row, route

__all__ = ["HubSpotEmulator"]

OBJECTS = "/crm/objects/{version}/{kind}"
OLD_OBJECTS = "/crm/v3/objects/{kind}"
MOST = 100


class HubSpotEmulator(AssociationPages):
    """One account. Its service key does not expire; tokens from the consent page do."""

    slug: ClassVar[str] = "hubspot"
    display_name: ClassVar[str] = "HubSpot"

    def seed(self) -> None:
        super().seed()
        self.quotas = [
            Quota(limit=110, per_seconds=10, name="TEN_SECONDLY_ROLLING"),
            Quota(limit=5, per_seconds=1, name="SECONDLY", only="search"),
        ]
        self.store.search_lag_seconds = 3.0
        self.honours_trace_ids = self.echoes_trace_ids = True
        self.missing_scopes: set[str] = set()

    def settings(self) -> dict[str, str]:
        return {"api_url": self.base_url, "app_url": self.base_url}

    def secrets(self) -> dict[str, str]:
        return {"access_token": self.secret("access_token")}

    # -- the door ------------------------------------------------------------------------------------------

    def authenticate(self, call: Incoming) -> HttpResponse | None:
        if call.path.startswith("/oauth/"):
            return None
        return self.bearer_problem(call) or self._scope_problem(call)

    def _scope_problem(self, call: Incoming) -> HttpResponse | None:
        kind = kind_of(call.params.get("kind", ""))
        verb = "write" if call.is_write else "read"
        needed = "tickets" if kind == "tickets" else f"crm.objects.{kind}.{verb}"
        if call.path.startswith("/crm/properties") and call.is_write:
            needed = f"crm.schemas.{kind}.write"
        if needed not in self.missing_scopes:
            return None
        text = "This app hasn't been granted all required scopes to make this call."
        errors = [
            {
                "message": "One or more of the following scopes are required.",
                "context": {"requiredGranularScopes": [needed]},
            }
        ]
        return self.problem(403, "MISSING_SCOPES", text, errors=errors, links={"scopes": "https://example"})

    async def handle(self, request: HttpRequest) -> HttpResponse:
        response = await super().handle(request)
        burst = next((quota for quota in self.quotas if quota.name == "TEN_SECONDLY_ROLLING"), None)
        if burst is not None and not request.url.endswith("/search"):
            response.headers = {
                **response.headers,
                "x-hubspot-ratelimit-max": str(burst.limit),
                "x-hubspot-ratelimit-remaining": str(burst.remaining),
                "x-hubspot-ratelimit-interval-milliseconds": "10000",
            }
        return response

    def on_limited(self, quota: Quota, wait_seconds: float, call: Incoming) -> HttpResponse:
        return self._limited(quota.name)

    def _limited(self, policy: str) -> HttpResponse:
        text = f"You have reached your {policy.lower()} limit."
        return self.problem(429, "", text, errorType="RATE_LIMIT", policyName=policy)

    def on_fault(self, fault: Fault, call: Incoming) -> HttpResponse:
        shapes: dict[int, Callable[[], HttpResponse]] = {
            400: lambda: self.problem(400, "VALIDATION_ERROR", "Property values were not valid: []"),
            401: lambda: self.problem(
                401, "EXPIRED_AUTHENTICATION", "The OAuth token expired 5 minute(s) ago."
            ),
            403: lambda: self.problem(
                403, "MISSING_SCOPES", "One or more of the following scopes are required."
            ),
            404: lambda: self.problem(404, "OBJECT_NOT_FOUND", "resource not found"),
            409: lambda: self.problem(409, "CONFLICT", "Contact already exists. Existing ID: 987654"),
            429: lambda: self._limited("TEN_SECONDLY_ROLLING"),
        }
        return shapes.get(fault.status, lambda: self.problem(fault.status, "", "internal error"))()

    def on_unknown_route(self, call: Incoming) -> HttpResponse:
        page = b"<html><head><title>Error 404 Not Found</title></head></html>"
        return HttpResponse(status=404, headers={"content-type": "text/html"}, body=page)

    def on_broken_json(self, call: Incoming) -> HttpResponse:
        return self.problem(400, "", "Invalid input JSON on line 1, column 1: Unexpected end-of-input")

    # -- one record ----------------------------------------------------------------------------------------

    @route("GET", OBJECTS, operation="list")
    @route("GET", OLD_OBJECTS, operation="list")
    def page(self, call: Incoming) -> HttpResponse:
        kind, is_archived = self.kind(call), call.first("archived").lower() == "true"
        after, limit = self._number(call, "after", 0), min(self._number(call, "limit", 10), MOST)
        rows = [row for row in self.table(kind) if row.is_archived is is_archived and row.id > after]
        tree: dict[str, Any] = {"results": [self._shown(call, kind, row) for row in rows[:limit]]}
        if len(rows) > limit:
            tree["paging"] = {"next": {"after": str(rows[limit - 1].id)}}
        return self.answer(tree)

    @route("GET", OBJECTS + "/{id}", operation="get")
    @route("GET", OLD_OBJECTS + "/{id}", operation="get")
    def get(self, call: Incoming) -> HttpResponse:
        kind = self.kind(call)
        row = self.records.find(
            kind,
            call.params["id"],
            call.first("idProperty"),
            is_archived=call.first("archived").lower() == "true",
        )
        if row is None:
            raise Refusal(self.problem(404, "OBJECT_NOT_FOUND", "resource not found"))
        return self.answer(self._shown(call, kind, row))

    @route("POST", OBJECTS, operation="create")
    @route("POST", OLD_OBJECTS, operation="create")
    def create(self, call: Incoming) -> HttpResponse:
        kind = self.kind(call)
        try:
            row = self.records.create(kind, call.json)
        except RecordRefused as error:
            raise self.refused(error) from None
        return self.answer(self.records.shown(kind, row, set(row.fields)), 201)

    @route("PATCH", OBJECTS + "/{id}", operation="update")
    @route("PATCH", OLD_OBJECTS + "/{id}", operation="update")
    def update(self, call: Incoming) -> HttpResponse:
        kind = self.kind(call)
        try:
            row = self.records.find(kind, call.params["id"], call.first("idProperty"))
            if row is None:
                raise RecordRefused("OBJECT_NOT_FOUND", "resource not found")
            self.records.update(kind, row, call.json.get("properties"))
        except RecordRefused as error:
            raise self.refused(error) from None
        return self.answer(self.records.shown(kind, row, set(call.json["properties"])))

    @route("DELETE", OBJECTS + "/{id}", operation="archive")
    @route("DELETE", OLD_OBJECTS + "/{id}", operation="archive")
    def archive(self, call: Incoming) -> HttpResponse:
        self.records.archive(self.kind(call), call.params["id"])
        return HttpResponse(status=204)

    @route("POST", OBJECTS + "/gdpr-delete", operation="gdpr_delete")
    @route("POST", OLD_OBJECTS + "/gdpr-delete", operation="gdpr_delete")
    def gdpr_delete(self, call: Incoming) -> HttpResponse:
        if self.kind(call) != "contacts":
            return self.on_unknown_route(call)
        self.records.erase(str(call.json["objectId"]), call.json.get("idProperty") or "")
        return HttpResponse(status=204)

    @route("POST", OBJECTS + "/merge", operation="merge")
    @route("POST", OLD_OBJECTS + "/merge", operation="merge")
    def merge(self, call: Incoming) -> HttpResponse:
        kind, kept = self.kind(call), str(call.json["primaryObjectId"])
        self.records.archive(kind, str(call.json["objectIdToMerge"]))
        self.merged[str(call.json["objectIdToMerge"])] = kept
        row = self.records.find(kind, kept)
        return self.answer(self._shown(call, kind, row) if row else {})

    @route("POST", OBJECTS + "/search", operation="search", writes=False)
    @route("POST", OLD_OBJECTS + "/search", operation="search", writes=False)
    def search(self, call: Incoming) -> HttpResponse:
        kind, body = self.kind(call), call.json
        now = self.clock.timestamp()
        try:
            accepts = chosen(body, len(call.body))
            seen = (
                (row, self.records.all_of(kind, row, row.searchable_fields(now) or {}))
                for row in self.table(kind).search()
            )
            total, rows, after = page_of((pair for pair in seen if accepts(pair[1])), body)
        except SearchRefused as error:
            raise Refusal(self.problem(400, "VALIDATION_ERROR", str(error))) from None
        names = set(body.get("properties") or ())
        results = [self.records.shown(kind, row, names, found) for row, found in rows]
        paging = {"paging": {"next": {"after": after}}} if after else {}
        return self.answer({"total": total, "results": results, **paging})

    def _shown(self, call: Incoming, kind: str, row: Row[int]) -> dict[str, Any]:
        names = {name for text in call.query.get("properties", []) for name in text.split(",")}
        tree = self.records.shown(kind, row, names)
        for name in (name for text in call.query.get("associations", []) for name in text.split(",")):
            if (to := kind_of(name)) and (seen := self.ids_from(kind, str(row.id), to)):
                kinds = f"{kind[:-1]}_to_{to[:-1]}"
                ends = [{"id": number, "type": kinds} for number in seen]
                tree.setdefault("associations", {})[to] = {"results": ends}
        return tree

    def _number(self, call: Incoming, name: str, usual: int) -> int:
        text = call.first(name) or str(usual)
        if not text.isdecimal():
            raise Refusal(self.problem(400, "VALIDATION_ERROR", f"Invalid {name}: {text}"))
        return int(text)

    # -- batches -------------------------------------------------------------------------------------------

    @route("POST", OBJECTS + "/batch/{verb}", operation="batch.{verb}")
    @route("POST", OLD_OBJECTS + "/batch/{verb}", operation="batch.{verb}")
    def batch(self, call: Incoming) -> HttpResponse:
        kind, verb, inputs = self.kind(call), call.params["verb"], call.json.get("inputs")
        if verb not in ("create", "read", "update", "upsert", "archive"):
            return self.on_unknown_route(call)
        if not isinstance(inputs, list) or not 1 <= len(inputs) <= MOST:
            raise Refusal(self.problem(400, "VALIDATION_ERROR", f"The number of inputs must be 1 to {MOST}"))
        ids = [one.get("id") for one in inputs]
        if verb in ("read", "update") and len(set(ids)) < len(ids):
            twice = sorted({one for one in ids if ids.count(one) > 1})
            text = f"Duplicate IDs found in batch input: {twice}. IDs must be unique"
            raise Refusal(self.problem(400, "VALIDATION_ERROR", text))
        if verb == "archive":
            for one in ids:
                self.records.archive(kind, str(one))
            return HttpResponse(status=204)
        if verb == "read":
            return self._read_all(call, kind, ids)
        return self._write_all(kind, verb, inputs)

    def is_write(self, call: Incoming, made: Any) -> bool:
        return bool(made.writes) and call.params.get("verb") != "read"

    def _read_all(self, call: Incoming, kind: str, ids: list[Any]) -> HttpResponse:
        by = call.json.get("idProperty") or ""
        if by and not self.properties[kind].get(by, {}).get("hasUniqueValue"):
            text = f"Unable to perform read by non-unique {KINDS[kind]} property '{by}'"
            raise Refusal(self.problem(400, "VALIDATION_ERROR", text))
        names = set(call.json.get("properties") or ())
        is_archived = call.first("archived").lower() == "true"
        found = {one: self.records.find(kind, str(one), by, is_archived=is_archived) for one in ids}
        results = [self.records.shown(kind, row, names) for row in found.values() if row]
        lost = [one for one, row in found.items() if row is None]
        text = "Could not get some objects, they may be deleted or not exist. Check that ids are valid."
        errors = [RecordRefused("OBJECT_NOT_FOUND", text, context={"ids": lost})] if lost else []
        return self.batch_answer(results, errors, 200)

    def _write_all(self, kind: str, verb: str, inputs: list[dict[str, Any]]) -> HttpResponse:
        traces = [one.get("objectWriteTraceId") for one in inputs]
        is_partial = self.honours_trace_ids and all(traces) and len(set(traces)) == len(traces)
        if not is_partial:
            problem = self.records.first_problem(kind, verb, inputs)
            if problem is not None and problem.category == "CONFLICT":  # told without the id in a batch
                problem.message = problem.message.partition(". Existing")[0]
            if problem is not None and problem.category != "OBJECT_NOT_FOUND":
                raise self.refused(problem)
        results, errors = [], []
        for one in inputs:
            try:
                row, is_new = self.records.apply(kind, verb, one)
            except RecordRefused as error:
                context = error.more.setdefault("context", {})
                if one.get("objectWriteTraceId"):
                    context["objectWriteTraceId"] = [one["objectWriteTraceId"]]
                errors.append(error)
                continue
            shown = self.records.shown(kind, row, set(one["properties"]))
            if verb == "upsert":
                shown["new"] = is_new
            if self.echoes_trace_ids and one.get("objectWriteTraceId"):
                shown["objectWriteTraceId"] = one["objectWriteTraceId"]
            results.append(shown)
        return self.batch_answer(results[::-1], errors, 201 if verb == "create" else 200)
