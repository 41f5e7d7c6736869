"""Many records at once: composite requests, sObject collections, bulk jobs."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from crmbridge.core.wire import HttpResponse
from crmbridge.drivers.salesforce.emulated_org import BASE, Org
from crmbridge.drivers.salesforce.emulated_records import RecordRefused
from crmbridge.emulation import Incoming, Refusal, route

__all__ = ["Many"]

MOST = 200
_ROLLED_BACK = (
    "Record rolled back because not all records were valid and the request was using AllOrNone header"
)


class Many(Org):
    """Collections answer 200 whatever becomes of their rows."""

    @route("POST", BASE + "/composite", operation="composite")
    @route("POST", BASE + "/composite/", operation="composite")
    async def composite(self, call: Incoming) -> HttpResponse:
        parts = call.json.get("compositeRequest") if isinstance(call.json, dict) else None
        if not isinstance(parts, list) or not 1 <= len(parts) <= 25:
            raise Refusal(self.refused("INVALID_INPUT", "A composite request takes 1 to 25 subrequests"))
        answers = []
        for part in parts:
            split = urlsplit(part["url"])
            inner = Incoming(
                part["method"], split.path, parse_qs(split.query, keep_blank_values=True), call.headers
            )
            inner.body = msgspec.json.encode(part["body"]) if "body" in part else b""
            made = self._match(inner)
            response = await self._inner(inner, made)
            answers.append(
                {
                    "body": msgspec.json.decode(response.body) if response.body else None,
                    "httpHeaders": {},
                    "httpStatusCode": response.status,
                    "referenceId": part.get("referenceId"),
                }
            )
        return self.answer({"compositeResponse": answers})

    async def _inner(self, call: Incoming, made: Any) -> HttpResponse:
        if made is None or unquote(call.path).rstrip("/").endswith("/composite"):
            return self.on_unknown_route(call)
        try:
            response: HttpResponse = getattr(self, made.name)(call)
        except Refusal as error:
            return error.response
        return response

    # -- collections ---------------------------------------------------------------------------------------

    @route("POST", BASE + "/composite/sobjects", operation="collection.create")
    @route("POST", BASE + "/composite/sobjects/", operation="collection.create")
    @route("PATCH", BASE + "/composite/sobjects", operation="collection.update")
    @route("PATCH", BASE + "/composite/sobjects/", operation="collection.update")
    @route("PATCH", BASE + "/composite/sobjects/{kind}/{key}", operation="collection.upsert")
    def collection(self, call: Incoming) -> HttpResponse:
        tree = call.json if isinstance(call.json, dict) else {}
        given = tree.get("records")
        if not isinstance(given, list) or not given:
            raise Refusal(self.refused("REQUIRED_FIELD_MISSING", "At least 1 record is required"))
        if len(given) > MOST:
            text = f"record count exceeds {MOST}: {len(given)}"
            raise Refusal(self.refused("EXCEEDED_ID_LIMIT", text))
        kinds = [str(one.get("attributes", {}).get("type") or call.params.get("kind", "")) for one in given]
        if sum(1 for place, kind in enumerate(kinds) if place == 0 or kinds[place - 1] != kind) > 10:
            raise Refusal(self.refused("INVALID_INPUT", "at most 10 chunks of consecutive types"))
        if self.spoils_requests:
            for kind, one in zip(kinds, given, strict=True):
                if (problem := self.records.column_problem(kind, one)) is not None:
                    raise self.refused_record(problem)
        return self.answer(self._all(call, kinds, given, is_atomic=tree.get("allOrNone") is True))

    @route("DELETE", BASE + "/composite/sobjects", operation="collection.delete")
    def delete_collection(self, call: Incoming) -> HttpResponse:
        ids = [one for one in call.first("ids").split(",") if one]
        if not 1 <= len(ids) <= MOST:
            raise Refusal(self.refused("EXCEEDED_ID_LIMIT", f"1 to {MOST} ids"))
        rows = []
        for one in ids:
            try:
                kind = self.kind_of(one)
                if self.records.find(kind, one, with_deleted=True) is None:
                    raise RecordRefused("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
                self.records.delete(kind, one)
                rows.append({"id": one, "success": True, "errors": []})
            except RecordRefused as error:
                rows.append({"success": False, "errors": [error.in_row()]})
        return self.answer(rows)

    def _all(
        self, call: Incoming, kinds: list[str], given: list[dict[str, Any]], *, is_atomic: bool
    ) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        too_many = bool(self.governor_rows) and len(given) > self.governor_rows
        seen: set[str] = set()
        for kind, one in zip(kinds, given, strict=True):
            try:
                if too_many:
                    text = "LeadTrigger: execution of BeforeInsert caused by: System.LimitException: Too many SOQL"
                    text += " queries: 101"
                    raise RecordRefused("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", text)
                rows.append(self._row(call, kind, one, seen))
            except RecordRefused as error:
                rows.append({"success": False, "errors": [error.in_row()]})
        if is_atomic and not all(row["success"] for row in rows):
            refused = RecordRefused("ALL_OR_NONE_OPERATION_ROLLED_BACK", _ROLLED_BACK)
            for place, row in enumerate(rows):
                if row["success"]:
                    if call.method == "POST":
                        self.table(kinds[place]).remove(row["id"])
                    rows[place] = {"success": False, "errors": [refused.in_row()]}
        return rows

    def _row(self, call: Incoming, kind: str, given: dict[str, Any], seen: set[str]) -> dict[str, Any]:
        if "key" in call.params:
            key = call.params["key"]
            value = str(given.get(key) or "").casefold()
            if value in seen:
                raise RecordRefused("DUPLICATE_VALUE", f"Duplicate external id specified: {value}", [key])
            seen.add(value)
            row, is_new = self.records.upsert(kind, key, given.get(key), given)
            return {"id": row.id, "success": True, "errors": [], "created": is_new}
        if call.method == "POST":
            is_anyway = "allowsave=true" in call.headers.get("sforce-duplicate-rule-header", "").lower()
            row = self.records.create(kind, given, is_saved_anyway=is_anyway)
            return {"id": row.id, "success": True, "errors": []}
        record_id = given.get("id") or given.get("Id")
        if not isinstance(record_id, str):
            raise RecordRefused("MISSING_ARGUMENT", "Id not specified in an update call")
        if record_id[:15] in seen:
            raise RecordRefused("DUPLICATE_VALUE", f"duplicate id in list: {record_id}", ["Id"])
        seen.add(record_id[:15])
        if self.records.find(kind, record_id, with_deleted=True) is None:
            raise RecordRefused("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
        body = {name: value for name, value in given.items() if name != "Id"}
        return {"id": self.records.update(kind, record_id, body).id, "success": True, "errors": []}

    @route("GET", BASE + "/composite/sobjects/{kind}", operation="collection.get")
    @route("POST", BASE + "/composite/sobjects/{kind}", operation="collection.get", writes=False)
    def read_collection(self, call: Incoming) -> HttpResponse:
        kind = call.params["kind"]
        if call.method == "POST":
            ids, names = call.json["ids"], call.json["fields"]
        else:
            ids, names = call.first("ids").split(","), call.first("fields").split(",")
        rows = [self.records.find(kind, one) for one in ids]
        return self.answer(
            [self.shown(kind, row, names, call.params["version"]) if row else None for row in rows]
        )

    # -- bulk ----------------------------------------------------------------------------------------------

    @route("POST", BASE + "/jobs/ingest", operation="job.open", writes=False)
    @route("POST", BASE + "/jobs/ingest/", operation="job.open", writes=False)
    def open_job(self, call: Incoming) -> HttpResponse:
        try:
            return self.answer(self.jobs.open(call.json, call.params["version"]))
        except RecordRefused as error:
            raise self.refused_record(error) from None

    @route("GET", BASE + "/jobs/ingest", operation="job.list")
    def list_jobs(self, call: Incoming) -> HttpResponse:
        return self.answer({"done": True, "records": list(self.jobs.all.values()), "nextRecordsUrl": None})

    @route("PUT", BASE + "/jobs/ingest/{id}/batches", operation="job.fill", writes=False)
    def fill_job(self, call: Incoming) -> HttpResponse:
        try:
            self.jobs.fill(call.params["id"], call.body.decode())
        except RecordRefused as error:
            raise self.refused_record(error) from None
        return HttpResponse(status=201)

    @route("PATCH", BASE + "/jobs/ingest/{id}", operation="job.close")
    @route("GET", BASE + "/jobs/ingest/{id}", operation="job.look")
    def turn_job(self, call: Incoming) -> HttpResponse:
        job_id = call.params["id"]
        try:
            if call.method == "PATCH":
                return self.answer(self.jobs.turn(job_id, str(call.json.get("state"))))
            return self.answer(self.jobs.look(job_id))
        except RecordRefused as error:
            raise self.refused_record(error) from None

    @route("GET", BASE + "/jobs/ingest/{id}/{name}", operation="job.file")
    def job_file(self, call: Incoming) -> HttpResponse:
        name = call.params["name"]
        if name.lower() not in ("successfulresults", "failedresults", "unprocessedrecords"):
            return self.on_unknown_route(call)
        try:
            text = self.jobs.file(call.params["id"], name)
        except RecordRefused as error:
            raise self.refused_record(error) from None
        return HttpResponse(status=200, headers={"content-type": "text/csv"}, body=text.encode())
