"""Associations between emulated records: default and labelled, one by one and in batches.

https://developers.hubspot.com/docs/api/crm/associations and the published specs: v4 answers 201, 207 and 204 where the
dated API answers 200; pages show ``toObjectId`` as a number in v4, the dated spec declares a text.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from crmbridge.core.wire import HttpResponse
from crmbridge.drivers.hubspot.emulated_properties import ASSOCIATIONS, DEFAULTS, KINDS
from crmbridge.drivers.hubspot.emulated_records import RecordRefused, Records
from crmbridge.drivers.hubspot.emulated_schema import SchemaPages, stamp
from crmbridge.emulation import Incoming, Refusal, route

__all__ = ["AssociationPages"]

MOST_CREATED = 2_000
MOST_READ = 1_000
_STATUSES = {"MISSING_SCOPES": 403, "OBJECT_NOT_FOUND": 404, "CONFLICT": 409, "VALIDATION_ERROR": 400}
_ONE = "/{kind}/{id}/associations/{to}/{to_id}"
_DEFAULT = "/{kind}/{id}/associations/default/{to}/{to_id}"
_BATCH = "/{kind}/{to}/batch/{verb:rest}"
End = tuple[str, str]


class AssociationPages(SchemaPages):
    """``links``: from each end to the other, with the ids of the association types seen from there."""

    def seed(self) -> None:
        super().seed()
        self.links: dict[End, dict[End, set[int]]] = defaultdict(dict)
        self.merged: dict[str, str] = {}
        self.blocked: set[str] = set()
        self.answers_207 = True
        self.records = Records(self)

    def refused(self, error: RecordRefused) -> Refusal:
        """The answer to a refused call on one record."""
        return Refusal(self.problem(_STATUSES[error.category], error.category, error.message, **error.more))

    # -- one pair ------------------------------------------------------------------------------------------

    @route("PUT", "/crm/objects/{version}" + _DEFAULT, operation="associate")
    @route("PUT", "/crm/v4/objects" + _DEFAULT, operation="associate")
    def associate_default(self, call: Incoming) -> HttpResponse:
        one, other = self._ends(call)
        return self.batch_answer([self._linked_default(one, other)], [], 200)

    @route("PUT", "/crm/objects/{version}" + _ONE, operation="associate")
    @route("PUT", "/crm/v4/objects" + _ONE, operation="associate")
    def associate_labelled(self, call: Incoming) -> HttpResponse:
        one, other = self._ends(call)
        try:
            return self.answer(self._linked(one, other, call.json), 201)
        except RecordRefused as error:
            raise self.refused(error) from None

    @route("DELETE", "/crm/objects/{version}" + _ONE, operation="dissociate")
    @route("DELETE", "/crm/v4/objects" + _ONE, operation="dissociate")
    def dissociate(self, call: Incoming) -> HttpResponse:
        self._unlink((self.kind(call), call.params["id"]), (self.kind(call, "to"), call.params["to_id"]))
        return HttpResponse(status=204)

    @route("GET", "/crm/v4/objects/{kind}/{id}/associations/{to}", operation="associations.list")
    def associations_of(self, call: Incoming) -> HttpResponse:
        kind, to = self.kind(call), self.kind(call, "to")
        self._there(kind, call.params["id"])
        return self.answer({"results": self._seen(kind, call.params["id"], to, is_number=True)})

    @route("GET", "/crm/associations/{version}/{kind}/{to}/labels", operation="associations.labels")
    @route("GET", "/crm/v4/associations/{kind}/{to}/labels", operation="associations.labels")
    def labels(self, call: Incoming) -> HttpResponse:
        known = ASSOCIATIONS.get((self.kind(call), self.kind(call, "to")), set())
        return self.answer({"results": [_spec(number) for number in sorted(known)]})

    # -- batches -------------------------------------------------------------------------------------------

    @route("POST", "/crm/associations/{version}" + _BATCH, operation="associate")
    @route("POST", "/crm/v4/associations" + _BATCH, operation="associate")
    def batch_of_associations(self, call: Incoming) -> HttpResponse:
        kind, to, verb = self.kind(call), self.kind(call, "to"), call.params["verb"]
        inputs = call.json.get("inputs") if isinstance(call.json, dict) else None
        most = MOST_READ if verb == "read" else MOST_CREATED
        if not isinstance(inputs, list) or not 1 <= len(inputs) <= most:
            raise Refusal(self.problem(400, "VALIDATION_ERROR", f"The number of inputs must be 1 to {most}"))
        is_v4 = call.path.startswith("/crm/v4/")
        if verb == "read":
            results = [
                {"from": {"id": str(one["id"])}, "to": seen}
                for one in inputs
                if (seen := self._seen(kind, str(one["id"]), to, is_number=is_v4))
            ]
            return self.batch_answer(results, [], 200)
        if verb in ("archive", "labels/archive"):
            for one in inputs:
                self._archive(kind, to, one)
            return HttpResponse(status=204) if is_v4 else self.batch_answer([], [], 200)
        if verb not in ("create", "associate/default"):
            return self.on_unknown_route(call)
        results, errors = [], []
        for one in inputs:
            try:
                results.append(self._make(kind, to, one, is_labelled=verb == "create"))
            except RecordRefused as error:
                errors.append(error)
        return self.batch_answer(results, errors, 201 if is_v4 and verb == "create" else 200)

    def _make(self, kind: str, to: str, given: Any, *, is_labelled: bool) -> dict[str, Any]:
        one, other = (kind, str(given["from"]["id"])), (to, str(given["to"]["id"]))
        for place, number in (one, other):
            if self.records.find(place, number) is None:
                raise RecordRefused("OBJECT_NOT_FOUND", "resource not found", context={"ids": [number]})
        return self._linked(one, other, given["types"]) if is_labelled else self._linked_default(one, other)

    def _archive(self, kind: str, to: str, given: Any) -> None:
        ends = given["to"] if isinstance(given["to"], list) else [given["to"]]
        labels = {each["associationTypeId"] for each in given.get("types") or ()}
        for end in ends:
            self._unlink((kind, str(given["from"]["id"])), (to, str(end["id"])), labels)

    def batch_answer(
        self, results: list[dict[str, Any]], errors: list[RecordRefused], status: int
    ) -> HttpResponse:
        """The body of all batches; refused rows make it a 207 where ``answers_207``."""
        now = stamp(self.clock.now())
        tree: dict[str, Any] = {
            "status": "COMPLETE",
            "results": results,
            "startedAt": now,
            "completedAt": now,
        }
        if errors:
            tree["numErrors"] = len(errors)
            tree["errors"] = [one.told() for one in errors]
        return self.answer(tree, 207 if errors and self.answers_207 else status)

    # -- links ---------------------------------------------------------------------------------------------

    def _ends(self, call: Incoming) -> tuple[End, End]:
        ends = (self.kind(call), call.params["id"]), (self.kind(call, "to"), call.params["to_id"])
        for kind, number in ends:
            self._there(kind, number)
        return ends

    def _there(self, kind: str, number: str) -> None:
        if self.records.find(kind, number) is None:
            raise Refusal(self.problem(404, "OBJECT_NOT_FOUND", "resource not found"))

    def _linked_default(self, one: End, other: End) -> dict[str, Any]:
        self.records.link(one, other)
        number = DEFAULTS.get((one[0], other[0]), 0)
        spec = {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": number}
        return {"from": {"id": one[1]}, "to": {"id": other[1]}, "associationSpec": spec}

    def _linked(self, one: End, other: End, given: Any) -> dict[str, Any]:
        """A labelled link replaces the labels that were there. Raises RecordRefused."""
        numbers = {each.get("associationTypeId") for each in given} if isinstance(given, list) else set()
        unknown = numbers - ASSOCIATIONS.get((one[0], other[0]), set())
        if not numbers or unknown:
            text = f"No association type {sorted(map(str, unknown))} from {one[0]} to {other[0]}"
            raise RecordRefused("VALIDATION_ERROR", text)
        self.records.link(one, other, numbers)
        return {
            "fromObjectTypeId": KINDS[one[0]],
            "fromObjectId": one[1],
            "toObjectTypeId": KINDS[other[0]],
            "toObjectId": other[1],
            "labels": [],
        }

    def _unlink(self, one: End, other: End, labels: set[int] | None = None) -> None:
        left = self.links[one].get(other, set()) - (labels or set())
        if labels and left:
            self.links[one][other] = left
            return
        self.links[one].pop(other, None)
        self.links[other].pop(one, None)

    def ids_from(self, kind: str, number: str, to: str) -> list[str]:
        """The ids of one object that a record is associated with."""
        return [end for other, end in sorted(self.links[kind, number]) if other == to]

    def _seen(self, kind: str, number: str, to: str, *, is_number: bool) -> list[dict[str, Any]]:
        return [
            {
                "toObjectId": int(end) if is_number else end,
                "associationTypes": [_spec(each) for each in sorted(numbers)],
            }
            for (other, end), numbers in sorted(self.links[kind, number].items())
            if other == to
        ]


def _spec(number: int) -> dict[str, Any]:
    return {"category": "HUBSPOT_DEFINED", "typeId": number, "label": None}
