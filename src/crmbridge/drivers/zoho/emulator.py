"""A small stateful Zoho CRM, version 8, from its pages and published specs: records, batches, search, COQL, credits.

It is one organisation in one data centre. Switches: ``mixed_status`` (207, by older versions 200 or 202, of a batch
with bad rows), ``coql_lags`` (COQL sees what the search index sees), ``credits`` and ``concurrency`` (then 429,
without Retry-After), ``missing_scopes``, ``most_unique``, ``records.checks_choices``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.zoho.emulated_fields import MODULES
from crmbridge.drivers.zoho.emulated_query import Criteria, QueryRefused, order_of, parse
from crmbridge.drivers.zoho.emulated_records import PARENTS, UPSERTED, RowRefused, stamp
from crmbridge.drivers.zoho.emulated_settings import SettingsPages
from crmbridge.emulation import Fault, Incoming, Quota, Refusal, Row, route

__all__ = ["ZohoEmulator"]

MODULE = "/crm/{version}/{module}"
MOST_ROWS, MOST_PAGE, MOST_DISCRETE, MOST_TOKENS = 100, 200, 2_000, 100_000
DAY_SECONDS = 86_400.0
NO_SUCH_ID = "the id given seems to be invalid"


class ZohoEmulator(SettingsPages):
    """One organisation. Its fixed access token does not expire; those of the accounts pages do."""

    slug: ClassVar[str] = "zoho"
    display_name: ClassVar[str] = "Zoho CRM"

    def seed(self) -> None:
        super().seed()
        self.store.search_lag_seconds = 5.0
        self.mixed_status = 207
        self.coql_lags = False
        self.credits, self.credits_used, self.credits_from = 100_000, 0, self.clock.timestamp()
        self.concurrency = 20
        self.page_tokens: dict[str, tuple[float, str, int]] = {}

    def settings(self) -> dict[str, str]:
        return {"accounts_url": self.base_url}

    def secrets(self) -> dict[str, str]:
        return {"access_token": self.secret("access_token")}

    # -- the door ------------------------------------------------------------------------------------------

    def authenticate(self, call: Incoming) -> HttpResponse | None:
        if call.path.startswith("/oauth/"):
            return None
        if self.in_flight > self.concurrency:
            return self._limited()
        return self.token_problem(call) or self._credit_problem(call)

    def _credit_problem(self, call: Incoming) -> HttpResponse | None:
        """One credit a call, one for each ten records that are written, two for deleted ids."""
        now = self.clock.timestamp()
        if now >= self.credits_from + DAY_SECONDS:
            self.credits_from, self.credits_used = now, 0
        cost = 2 if call.operation == "deleted" else 1
        if call.operation in ("create", "update", "upsert") and isinstance(call.json, dict):
            rows = call.json.get("data")
            cost = max(1, -(-len(rows) // 10)) if isinstance(rows, list) else 1
        if self.credits_used + cost > self.credits:
            return self._limited()
        self.credits_used += cost
        return None

    async def handle(self, request: HttpRequest) -> HttpResponse:
        response = await super().handle(request)
        if self.credits_used * 2 >= self.credits:
            left = str(max(0, self.credits - self.credits_used))
            response.headers = {**response.headers, "x-api-credits-remaining": left}
        return response

    def _limited(self) -> HttpResponse:
        return self.problem(429, "TOO_MANY_REQUESTS", "Too many requests fired in the past 24 hours")

    def on_limited(self, quota: Quota, wait_seconds: float, call: Incoming) -> HttpResponse:
        return self._limited()

    def on_fault(self, fault: Fault, call: Incoming) -> HttpResponse:
        shapes: dict[int, tuple[str, str]] = {
            400: ("INVALID_DATA", "invalid data"),
            401: ("INVALID_TOKEN", "invalid oauth token"),
            403: ("NO_PERMISSION", "permission denied"),
            404: ("INVALID_URL_PATTERN", "Please check if the URL trying to access is a correct one"),
            409: ("DUPLICATE_DATA", "duplicate data"),
            412: ("ALREADY_MODIFIED", "the record was modified meanwhile"),
            422: ("INVALID_DATA", "invalid data"),
            429: ("TOO_MANY_REQUESTS", "Too many requests fired in the past 24 hours"),
        }
        code, text = shapes.get(fault.status, ("INTERNAL_ERROR", "Internal Server Error"))
        return self.problem(fault.status, code, text)

    def on_unknown_route(self, call: Incoming) -> HttpResponse:
        text = "Please check if the URL trying to access is a correct one"
        return self.problem(404, "INVALID_URL_PATTERN", text)

    def on_broken_json(self, call: Incoming) -> HttpResponse:
        return self.problem(
            400, "INVALID_DATA", "body is not a valid JSON", {"expected_data_type": "jsonobject"}
        )

    # -- reading -------------------------------------------------------------------------------------------

    @route("GET", MODULE + "/{id}", operation="get")
    def get(self, call: Incoming) -> HttpResponse:
        module = self.module(call)
        if not call.params["id"].isdecimal():
            return self.problem(400, "INVALID_DATA", NO_SUCH_ID, {"resource_path_index": 1})
        row = self.records.find(module, call.params["id"])
        if row is None:
            return HttpResponse(status=204)
        names = call.first("fields").split(",") if call.first("fields") else None
        return self.answer({"data": [self.records.shown(module, row, names)]})

    @route("GET", MODULE, operation="list")
    def page(self, call: Incoming) -> HttpResponse:
        module = self.module(call)
        return self._listed(call, module, [row for row in self.records.table(module) if not row.is_archived])

    @route("GET", MODULE + "/{id}/{related}", operation="related")
    def related(self, call: Incoming) -> HttpResponse:
        module = self.module(call)
        if call.params["related"] != "Notes" or module not in PARENTS:
            return self.problem(400, "INVALID_DATA", "the relation name given seems to be invalid")
        remote_id = call.params["id"]
        rows = [
            row
            for row in self.records.table("Notes")
            if not row.is_archived and row.fields["Parent_Id"]["id"] == remote_id
        ]
        return self._listed(call, "Notes", rows)

    def _listed(self, call: Incoming, module: str, rows: list[Row[int]]) -> HttpResponse:
        names = [name for name in call.first("fields").split(",") if name]
        if not names:
            text = "One of the expected parameter is missing"
            return self.problem(400, "REQUIRED_PARAM_MISSING", text, {"param_name": "fields"})
        if len(names) > 50:
            return self.problem(
                400, "LIMIT_EXCEEDED", "too many fields", {"param_name": "fields", "limit": 50}
            )
        if since := call.headers.get("if-modified-since"):
            rows = [row for row in rows if order_of(stamp(row.updated_at)) >= order_of(since)]
            if not rows:
                return HttpResponse(status=304)
        if ids := call.first("ids"):
            rows = [row for row in rows if str(row.id) in ids.split(",")]
        sort, is_down = call.first("sort_by", "id"), call.first("sort_order", "desc") == "desc"
        if sort not in ("id", "Created_Time", "Modified_Time"):
            return self.problem(400, "INVALID_DATA", "invalid sort_by", {"param_name": "sort_by"})
        keys: dict[str, Callable[[Row[int]], Any]] = {
            "id": lambda row: row.id,
            "Created_Time": lambda row: (stamp(row.created_at), row.id),
            "Modified_Time": lambda row: (stamp(row.updated_at), row.id),
        }
        rows.sort(key=keys[sort], reverse=is_down)
        start, size, page = self._place(call)
        part = rows[start : start + size]
        if not part:
            return HttpResponse(status=204)
        has_more = len(rows) > start + size
        told: dict[str, Any] = {
            "per_page": size,
            "count": len(part),
            "page": page,
            "sort_by": sort,
            "sort_order": "desc" if is_down else "asc",
            "more_records": has_more,
            "next_page_token": self._token(call, start + size) if has_more else None,
            "previous_page_token": None,
            "page_token_expiry": stamp(self.clock.now()) if has_more else None,
        }
        return self.answer({"data": [self.records.shown(module, row, names) for row in part], "info": told})

    def _number(self, call: Incoming, name: str, usual: int, most: int) -> int:
        text = call.first(name) or str(usual)
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise Refusal(self.problem(400, "INVALID_DATA", f"invalid {name}", {"param_name": name}))
        return int(text)

    def _place(self, call: Incoming) -> tuple[int, int, int]:
        size = self._number(call, "per_page", MOST_PAGE, MOST_PAGE)
        if not call.first("page_token"):
            page = self._number(call, "page", 1, 1_000_000)
            if page * size > MOST_DISCRETE:
                text = "use page_token beyond 2000 records"
                raise Refusal(self.problem(400, "DISCRETE_PAGINATION_LIMIT_EXCEEDED", text))
            return (page - 1) * size, size, page
        until, bound, start = self.page_tokens.get(call.first("page_token"), (0.0, "", 0))
        if call.first("page"):
            raise Refusal(
                self.problem(400, "AMBIGUITY_DURING_PROCESSING", "page and page_token exclude each other")
            )
        if until <= self.clock.timestamp():
            raise Refusal(
                self.problem(400, "EXPIRED_VALUE", "page_token expired", {"param_name": "page_token"})
            )
        if bound != self._bound(call):
            raise Refusal(
                self.problem(400, "TOKEN_BOUND_DATA_MISMATCH", "parameters differ from the token's")
            )
        if start >= MOST_TOKENS:
            raise Refusal(self.problem(400, "PAGINATION_LIMIT_EXCEEDED", "more than 100000 records"))
        return start, size, start // size + 1

    def _bound(self, call: Incoming) -> str:
        given = {name: values for name, values in call.query.items() if name not in ("page", "page_token")}
        return f"{call.path}?{sorted(given.items())}"

    def _token(self, call: Incoming, start: int) -> str:
        token = self.secret(f"page {len(self.page_tokens)}", 48)
        self.page_tokens[token] = (self.clock.timestamp() + DAY_SECONDS, self._bound(call), start)
        return token

    @route("GET", MODULE + "/search", operation="search")
    def search(self, call: Incoming) -> HttpResponse:
        module = self.module(call)
        columns = {name: one.kind for name, one in self.records.fields[module].items()}
        now = self.clock.timestamp()
        seen = [
            (row, self.records.values(module, row, row.searchable_fields(now)))
            for row in self.records.table(module).search()
        ]
        try:
            accepts = self._sought(call, columns)
        except QueryRefused as error:
            raise Refusal(self.problem(400, error.code, error.message, error.details)) from None
        rows = [row for row, found in seen if accepts(found)]
        start, size, page = self._place(call)
        names = call.first("fields").split(",") if call.first("fields") else None
        part = rows[start : start + size]
        if not part:
            return HttpResponse(status=204)
        told = {"per_page": size, "count": len(part), "page": page, "more_records": len(rows) > start + size}
        return self.answer({"data": [self.records.shown(module, row, names) for row in part], "info": told})

    def _sought(self, call: Incoming, columns: dict[str, str]) -> Callable[[dict[str, Any]], bool]:
        if text := call.first("criteria"):
            return Criteria(text, columns).accepts
        for name, kind in (("email", "email"), ("phone", "phone")):
            if wanted := call.first(name).casefold():
                fields = [one for one, its_kind in columns.items() if its_kind == kind]
                return lambda found: any(str(found.get(one) or "").casefold() == wanted for one in fields)
        if words := call.first("word").casefold():
            return lambda found: any(words in str(value).casefold() for value in found.values())
        text = "One of the expected parameter is missing"
        raise Refusal(self.problem(400, "EXPECTED_PARAM_MISSING", text, {"param_name": "criteria"}))

    @route("POST", "/crm/{version}/coql", operation="coql", writes=False)
    def coql(self, call: Incoming) -> HttpResponse:
        text = call.json.get("select_query") if isinstance(call.json, dict) else None
        if not isinstance(text, str):
            return self.problem(
                400, "MANDATORY_NOT_FOUND", "required field not found", {"api_name": "select_query"}
            )
        try:
            query = parse(text, self._columns)
        except QueryRefused as error:
            raise Refusal(self.problem(400, error.code, error.message, error.details)) from None
        now = self.clock.timestamp()
        found = []
        for row in self.records.table(query.module):
            fields = row.searchable_fields(now) if self.coql_lags else row.fields
            if not row.is_archived and fields is not None:
                values = self.records.values(query.module, row, fields)
                if query.accepts(values):
                    found.append(values)
        part = query.ordered(found)[query.start : query.start + query.limit]
        if not part:
            return HttpResponse(status=204)
        rows = [{name: _flat(one.get(name)) for name in ("id", *query.fields)} for one in part]
        has_more = len(found) > query.start + query.limit
        return self.answer({"data": rows, "info": {"count": len(rows), "more_records": has_more}})

    def _columns(self, module: str) -> dict[str, str] | None:
        if module not in MODULES or module == "Notes":
            return None
        return {name: one.kind for name, one in self.records.fields[module].items()}

    @route("GET", MODULE + "/deleted", operation="deleted")
    def deleted(self, call: Incoming) -> HttpResponse:
        module = self.module(call)
        rows = [row for row in self.records.table(module) if row.is_archived]
        start, size, page = self._place(call)
        part = rows[start : start + size]
        if not part:
            return HttpResponse(status=204)
        shown = [{**self._binned(module, row), "type": "recycle", "created_by": None} for row in part]
        told = {"per_page": size, "count": len(part), "page": page, "more_records": len(rows) > start + size}
        return self.answer({"data": shown, "info": told})

    @route("GET", MODULE + "/actions/count", operation="count")
    def count(self, call: Incoming) -> HttpResponse:
        return self.answer(
            {"count": sum(not row.is_archived for row in self.records.table(self.module(call)))}
        )

    # -- writing -------------------------------------------------------------------------------------------

    @route("POST", MODULE, operation="create")
    def create(self, call: Incoming) -> HttpResponse:
        module = self.module(call)
        return self._each(call, 201, lambda one, place: self._created(module, one, place))

    @route("POST", MODULE + "/{id}/Notes", operation="create")
    def create_note(self, call: Incoming) -> HttpResponse:
        parent = {"id": call.params["id"], "module": {"api_name": self.module(call)}}
        return self._each(
            call, 201, lambda one, place: self._created("Notes", {**one, "Parent_Id": parent}, place)
        )

    def _created(self, module: str, one: Any, place: int) -> dict[str, Any]:
        return self.records.success(self.records.create(module, one, place), "record added")

    @route("PUT", MODULE, operation="update")
    def update_all(self, call: Incoming) -> HttpResponse:
        module = self.module(call)
        return self._each(call, 200, lambda one, place: self._updated(module, one, place))

    @route("PUT", MODULE + "/{id}", operation="update")
    def update(self, call: Incoming) -> HttpResponse:
        module, remote_id = self.module(call), call.params["id"]
        return self._each(
            call, 200, lambda one, place: self._updated(module, {**one, "id": remote_id}, place)
        )

    def _updated(self, module: str, one: Any, place: int) -> dict[str, Any]:
        row = self.records.by_id(module, one, place)
        self.records.update(module, row, one, place)
        return self.records.success(row, "record updated")

    @route("POST", MODULE + "/upsert", operation="upsert")
    def upsert(self, call: Incoming) -> HttpResponse:
        if (module := self.module(call)) not in UPSERTED:
            return self.problem(400, "NOT_SUPPORTED", "upsert is not supported for this module")
        keys = call.json.get("duplicate_check_fields") if isinstance(call.json, dict) else None
        keys = [str(one) for one in keys] if isinstance(keys, list) else []

        def write(one: Any, place: int) -> dict[str, Any]:
            row, action, key = self.records.upsert(module, one, keys, place)
            text = "record added" if action == "insert" else "record updated"
            return self.records.success(row, text, action=action, duplicate_field=key)

        return self._each(call, 200, write)

    def _each(self, call: Incoming, good: int, write: Callable[[Any, int], dict[str, Any]]) -> HttpResponse:
        given = call.json.get("data") if isinstance(call.json, dict) else None
        if not isinstance(given, list) or not given:
            details = {"api_name": "data", "expected_data_type": "jsonarray"}
            return self.problem(400, "INVALID_DATA", "invalid data", details)
        if len(given) > MOST_ROWS:
            return self.problem(400, "INVALID_DATA", "invalid data", {"maximum_length": MOST_ROWS})
        rows = []
        for place, one in enumerate(given):
            try:
                rows.append(write(one, place))
            except RowRefused as error:
                rows.append(error.shown())
        return self.answer({"data": rows}, self._status(rows, good))

    def _status(self, rows: list[dict[str, Any]], good: int) -> int:
        passed = sum(row["status"] == "success" for row in rows)
        return good if passed == len(rows) else self.mixed_status if passed else 400

    @route("DELETE", MODULE, operation="delete")
    def delete_all(self, call: Incoming) -> HttpResponse:
        return self._deleted(self.module(call), [one for one in call.first("ids").split(",") if one])

    @route("DELETE", MODULE + "/{id}", operation="delete")
    def delete(self, call: Incoming) -> HttpResponse:
        return self._deleted(self.module(call), [call.params["id"]])

    def _deleted(self, module: str, ids: list[str]) -> HttpResponse:
        if not 1 <= len(ids) <= MOST_ROWS:
            return self.problem(400, "REQUIRED_PARAM_MISSING", "ids is missing", {"param_name": "ids"})
        rows: list[dict[str, Any]] = []
        for remote_id in ids:
            row = self.records.find(module, remote_id)
            shown: dict[str, Any] = {"code": "SUCCESS", "details": {"id": remote_id}, "status": "success"}
            if row is None:
                rows.append({**shown, "code": "INVALID_DATA", "message": NO_SUCH_ID, "status": "error"})
                continue
            self.records.table(module).archive(row.id)
            rows.append({**shown, "message": "record deleted"})
        return self.answer({"data": rows}, self._status(rows, 200))


def _flat(value: Any) -> Any:
    """COQL shows the id of a lookup alone."""
    return {"id": value["id"]} if isinstance(value, dict) and "id" in value else value
