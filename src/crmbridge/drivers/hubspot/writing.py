"""Writer: creates, updates, upserts and deletes in HubSpot's batches of 100, one outcome per write.

A create carries our mark in a property with unique values, so that a second one is refused and the first is found
again. Pages: https://developers.hubspot.com/docs/guides/api/crm/using-object-apis (batch, objectWriteTraceId,
associations), read 2026-11-22. Results are taken by trace id: their order is promised nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from crmbridge.core.errors import (
    Conflict,
    CrmError,
    FieldError,
    NotFound,
    UnexpectedResponse,
    ValidationError,
)
from crmbridge.core.operations import DeleteLevel, Operation, Outcome
from crmbridge.core.records import Object, Write, WriteResult
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.hubspot.answers import BATCH, MARKED, PAIRS, ROW
from crmbridge.drivers.hubspot.messages import context_of, error_of
from crmbridge.drivers.hubspot.natives import (
    LINKED,
    MARK,
    VERSION,
    Native,
    association,
    complete,
    wire_properties,
)
from crmbridge.drivers.hubspot.reading import Reader, decoded
from crmbridge.toolkit.batches import Results, built, failed, match_key, rounds

__all__ = ["Writer"]


class Writer:
    """Writes to one object of HubSpot at a time; places are positions in the caller's list."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.driver = reader.driver
        self.access = reader.driver.access
        self.marked = frozenset(self.access.facts.get("marks", "").split())

    # -- what is sent --------------------------------------------------------------------------------------

    def mark(self, write: Write) -> str:
        """The text that tells which write made a record."""
        return self.driver.mark(write)

    def input(self, native: Native, write: Write, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The body of a create. Raises ValidationError."""
        properties = wire_properties(native, fields)
        if native.pipeline[0] or native.stamp:
            complete(native, properties, self.access.facts)
        if native.name in self.marked:
            properties[MARK] = f"{self.access.mark_prefix}-{write.target_id}"
        links = [association(native, *pair) for pair in self.links(native, write)] if write.links else []
        return {"properties": properties, "associations": links}

    def links(self, native: Native, write: Write) -> list[tuple[str, str]]:
        """(native object, id) of each link. Raises ValidationError for one that has no place here."""
        pairs = []
        for name, remote_id in write.links.items():
            to = LINKED.get(Object(name), "")
            if to not in native.links:
                if write.object is Object.LEAD and to == "contacts":
                    continue  # the lead stands on this contact
                problem = FieldError(f"links.{name}", f"has no place on {native.name} of HubSpot")
                raise ValidationError("A link cannot be kept.", provider="hubspot", fields=(problem,))
            pairs.append((to, self.driver.check_id(Object(name), remote_id)))
        return list(dict.fromkeys(pairs))

    def inputs(
        self, native: Native, writes: Mapping[int, Write], results: Results
    ) -> dict[int, dict[str, Any]]:
        """The bodies of those writes that can be said; the others get their results."""
        bodies = {}
        for place, write in writes.items():
            try:
                bodies[place] = self.input(native, write, write.fields)
            except ValidationError as error:
                results[place] = failed(error, write.remote_id)
        return bodies

    # -- create --------------------------------------------------------------------------------------------

    async def create(
        self, native: Native, writes: Mapping[int, Write], bodies: Mapping[int, dict[str, Any]]
    ) -> Results:
        """New records. A create that is refused because of our own mark had been done before."""
        if not bodies:
            return {}
        results = (
            await self._create_one(native, bodies)
            if len(bodies) == 1
            else await self._all(native, "create", bodies)
        )
        clashes = {
            place: self.mark(writes[place])
            for place, result in results.items()
            if isinstance(result.error, Conflict) and native.name in self.marked
        }
        for place, remote_id in (await self._by_mark(native, clashes)).items():
            results[place] = self.applied(native, remote_id, was_created=True)
        return results

    async def _create_one(self, native: Native, bodies: Mapping[int, dict[str, Any]]) -> Results:
        ((place, body),) = bodies.items()
        body.pop("objectWriteTraceId", None)  # only batches have it
        try:
            request = HttpRequest(method="POST", url=native.path, json=body)
            response = await self.driver.exchange(request, operation="create", is_write=True)
            row = decoded(ROW, response, "create", is_write=True)
        except CrmError as error:
            return {place: failed(error)}
        return {place: self.applied(native, row.id, was_created=True)}

    async def _all(self, native: Native, verb: str, bodies: Mapping[int, dict[str, Any]]) -> Results:
        """One batch. What is refused on the whole is taken apart: HubSpot did not isolate the bad rows."""
        places: dict[str | None, int] = {}
        for place, body in bodies.items():
            body["objectWriteTraceId"] = trace = str(place)
            places[trace] = place
        request = HttpRequest(
            method="POST", url=f"{native.path}/batch/{verb}", json={"inputs": list(bodies.values())}
        )
        try:
            response = await self.driver.exchange(request, operation=verb, is_write=True)
            answer = decoded(BATCH, response, verb, is_write=True)
        except (ValidationError, Conflict):
            return await self._halves(native, verb, bodies)
        except CrmError as error:
            return {place: failed(error, body.get("id", "")) for place, body in bodies.items()}
        results: Results = {}
        prefix, done = self.url_prefix(native), Outcome.APPLIED
        ids = {body["id"]: place for place, body in bodies.items() if "id" in body}
        for row in answer.results:
            place = places.get(row.object_write_trace_id, -1)
            place = ids.get(row.id, -1) if place < 0 else place
            if place >= 0:
                results[place] = WriteResult(
                    outcome=done,
                    remote_id=row.id,
                    url=prefix + row.id if prefix else "",
                    was_created=not ids,
                )
        if len(answer.results) > len(results) and not ids:
            results |= self._by_echo(native, response, bodies)
        if len(results) < len(bodies):
            self._explain(request, response, answer.errors, bodies, results, verb)
        return results

    async def _halves(self, native: Native, verb: str, bodies: Mapping[int, dict[str, Any]]) -> Results:
        send_one = self._create_one if verb == "create" else self._update_one
        places = list(bodies)
        results: Results = {}
        for part in (places[: len(places) // 2], places[len(places) // 2 :]):
            some = {place: bodies[place] for place in part}
            results |= await (send_one(native, some) if len(some) == 1 else self._all(native, verb, some))
        return results

    def _by_echo(
        self, native: Native, response: HttpResponse, bodies: Mapping[int, dict[str, Any]]
    ) -> Results:
        """Results by our mark among the echoed properties, where trace ids are not echoed."""
        rows = decoded(MARKED, response, "create", is_write=True).results
        ids = {row.properties.crmbridge_mark: row.id for row in rows if row.properties.crmbridge_mark}
        return {
            place: self.applied(native, ids[mark], was_created=True)
            for place, body in bodies.items()
            if (mark := body["properties"].get(MARK)) in ids
        }

    async def _by_mark(self, native: Native, marks: Mapping[int, str]) -> dict[int, str]:
        """The ids of records that stand already under these marks; none when that cannot be told."""
        if not marks:
            return {}
        try:
            found = await self.reader.many(native, marks.values(), by=MARK, names=(MARK,), operation="search")
        except CrmError:
            return {}
        ids = {one.properties.get(MARK): one.id for one in found}
        return {place: ids[mark] for place, mark in marks.items() if mark in ids}

    async def find_mark(self, native: Native, write: Write) -> str | None:
        """The id of the record with this write's mark, empty when there is none, None when it cannot be told."""
        if native.name not in self.marked:
            return None
        found = await self.reader.many(native, [self.mark(write)], by=MARK, names=(MARK,), operation="search")
        return found[0].id if found else ""

    def _explain(
        self,
        request: HttpRequest,
        response: HttpResponse,
        errors: Sequence[Mapping[str, Any]],
        bodies: Mapping[int, dict[str, Any]],
        results: Results,
        operation: str,
    ) -> None:
        """Gives each write without a result the error that names it; an error that names none is everybody's."""
        hide = self.driver.redactor_for(request)
        by_id = {body.get("id"): place for place, body in bodies.items() if body.get("id")}
        shared: CrmError | None = None
        for one in errors:
            error = error_of(
                response,
                operation=operation,
                is_write=True,
                hide=hide,
                facts=self.access.facts,
                problem=one,
            )
            named = [_place(trace, bodies) for trace in context_of(one, "objectWriteTraceId")]
            named += [by_id.get(remote_id, -1) for remote_id in context_of(one, "ids")]
            if all(place < 0 for place in named):
                shared = shared or error
            for place in named:
                if place >= 0:
                    results.setdefault(place, failed(error, bodies[place].get("id", "")))
        for place in bodies.keys() - results.keys():
            results[place] = failed(shared or _untold(operation), bodies[place].get("id", ""))

    # -- update --------------------------------------------------------------------------------------------

    async def update(self, obj: Object, writes: Mapping[int, Write]) -> Results:
        """Changes by id; two changes of one record go one after the other."""
        results: Results = {}
        for places in rounds({place: write.remote_id for place, write in writes.items()}):
            results |= await self._update_round(obj, {place: writes[place] for place in places})
        return results

    async def _update_round(self, obj: Object, writes: Mapping[int, Write]) -> Results:
        native = self.reader.natives[obj]
        results: Results = {}
        bodies: dict[int, dict[str, Any]] = {}
        for place, write in writes.items():
            try:
                remote_id = self.driver.check_id(obj, write.remote_id)
                properties = wire_properties(native, write.fields)
                self.links(native, write)
                bodies[place] = {"id": remote_id, "properties": properties}
            except ValidationError as error:
                results[place] = failed(error, write.remote_id)
        if len(bodies) == 1:
            results |= await self._update_one(native, bodies)
        elif bodies:
            results |= await self._all(native, "update", bodies)
            for place, result in list(results.items()):
                if isinstance(result.error, NotFound) and place in bodies:
                    # An id that was merged away works alone, not in a batch.
                    results |= await self._update_one(native, {place: bodies[place]})
        await self._relate(native, writes, results)
        return results

    async def _update_one(self, native: Native, bodies: Mapping[int, dict[str, Any]]) -> Results:
        ((place, body),) = bodies.items()
        try:
            request = HttpRequest(
                method="PATCH",
                url=f"{native.path}/{body['id']}",
                json={"properties": body["properties"]},
            )
            response = await self.driver.exchange(request, operation="update", is_write=True)
            row = decoded(ROW, response, "update", is_write=True)
        except CrmError as error:
            return {place: failed(error, body["id"])}
        return {place: self.applied(native, row.id, was_created=False)}

    async def _relate(self, native: Native, writes: Mapping[int, Write], results: Results) -> None:
        """Default associations for records that stand already; saying one twice changes nothing."""
        wanted: dict[str, list[tuple[int, str]]] = {}
        for place, write in writes.items():
            if write.links and results[place].outcome is Outcome.APPLIED:
                for to, remote_id in self.links(native, write):
                    wanted.setdefault(to, []).append((place, remote_id))
        for to, pairs in wanted.items():
            inputs = [{"from": {"id": results[place].remote_id}, "to": {"id": one}} for place, one in pairs]
            url = f"/crm/associations/{VERSION}/{native.name}/{to}/batch/associate/default"
            request = HttpRequest(method="POST", url=url, json={"inputs": inputs})
            try:
                response = await self.driver.exchange(request, operation="update", is_write=True)
                answer = decoded(PAIRS, response, "update", is_write=True)
            except CrmError as error:
                for place, _ in pairs:
                    results[place] = failed(error, results[place].remote_id)
                continue
            if answer.errors:
                made = {(one.start.id, one.to.id) for one in answer.results}
                made |= {(one.to.id, one.start.id) for one in answer.results}  # either direction may be told
                refused = error_of(
                    response,
                    operation="update",
                    is_write=True,
                    hide=self.driver.redactor_for(request),
                    facts=self.access.facts,
                    problem=answer.errors[0],
                )
                for place, one in pairs:
                    if (remote_id := results[place].remote_id, one) not in made:
                        results[place] = failed(refused, remote_id)

    # -- upsert --------------------------------------------------------------------------------------------

    async def upsert(self, obj: Object, writes: Mapping[int, Write]) -> Results:
        """A look for the match, then updates and creates. A contact's e-mail is looked up exactly and without lag.

        HubSpot's own upsert is not used: with an e-mail it is said not to be partial, and it makes no associations.
        """
        native = self.reader.natives[obj]
        results: Results = {}
        for places in rounds({place: match_key(write) for place, write in writes.items()}):
            some = {place: writes[place] for place in places}
            ids = await self._matching(obj, some, results)
            old = {place: _with_id(some[place], one) for place, one in ids.items() if one}
            new = {place: some[place] for place, one in ids.items() if not one}
            results |= await self.update(obj, old)
            results |= await self.create(native, new, self.inputs(native, new, results))
            beaten = {
                place: _with_id(new[place], error.existing_remote_id)
                for place in new
                if isinstance(error := results[place].error, Conflict) and error.existing_remote_id
            }
            results |= await self.update(obj, beaten)
        return results

    async def _matching(self, obj: Object, writes: Mapping[int, Write], results: Results) -> dict[int, str]:
        """The id that each upsert matches, empty for none; what cannot be told has its result."""
        native = self.reader.natives[obj]
        emails = {
            place: str(write.match["email"]).strip().lower()
            for place, write in writes.items()
            if native.name == "contacts" and write.match.keys() == {"email"} and write.match["email"]
        }
        ids: dict[int, str] = {}
        try:
            found = await self.reader.many(
                native, emails.values(), by="email", names=("email",), operation="upsert"
            )
        except CrmError as error:
            results |= {place: failed(error) for place in emails}
        else:
            known = {str(one.properties.get("email")).lower(): one.id for one in found}
            ids |= {place: known.get(email, "") for place, email in emails.items()}
        for place, write in writes.items():
            if place not in emails:
                try:
                    ids[place] = await self.reader.matching(obj, write.match)
                except CrmError as error:
                    results[place] = failed(error)
        return ids

    # -- delete --------------------------------------------------------------------------------------------

    async def archive(self, obj: Object, ids: Mapping[int, str]) -> Results:
        """Archives what is there. HubSpot answers 204 for a missing record too, so it is looked for first."""
        native = self.reader.natives[obj]
        valid, results = built(ids, partial(self.driver.check_id, obj))
        try:
            there = await self.reader.there(obj, valid.values(), Operation.DELETE)
            if there:
                body = {"inputs": [{"id": remote_id} for remote_id in sorted(there)]}
                request = HttpRequest(method="POST", url=f"{native.path}/batch/archive", json=body)
                await self.driver.exchange(request, operation="delete", is_write=True)
        except CrmError as error:
            return results | {place: failed(error, remote_id) for place, remote_id in valid.items()}
        for place, remote_id in valid.items():
            results[place] = (
                WriteResult(outcome=Outcome.APPLIED, remote_id=remote_id, delete_level=DeleteLevel.SOFT.value)
                if remote_id in there
                else failed(missing("delete"), remote_id)
            )
        return results

    # -- results -------------------------------------------------------------------------------------------

    def url_prefix(self, native: Native) -> str:
        """What stands before the id in a record's page; empty until the account is known."""
        facts = self.access.facts
        portal = facts.get("portal_id")
        host = facts.get("ui_domain") or "app.hubspot.com"
        return f"https://{host}/contacts/{portal}/record/{native.type_id}/" if portal else ""

    def applied(self, native: Native, remote_id: str, *, was_created: bool) -> WriteResult:
        """A success."""
        prefix = self.url_prefix(native)
        url = prefix + remote_id if prefix else ""
        return WriteResult(outcome=Outcome.APPLIED, remote_id=remote_id, url=url, was_created=was_created)


def missing(operation: str) -> NotFound:
    """HubSpot itself does not say so."""
    return NotFound("The record is not there, or archived already.", provider="hubspot", operation=operation)


def _untold(operation: str) -> UnexpectedResponse:
    return UnexpectedResponse(
        "HubSpot answered the batch without a word about this write.",
        provider="hubspot",
        operation=operation,
        outcome=Outcome.UNKNOWN,
    )


def _place(trace: Any, bodies: Mapping[int, Any]) -> int:
    """The place that a trace id names, -1 for none of ours."""
    place = int(trace) if isinstance(trace, str) and trace.isdecimal() and len(trace) < 10 else -1
    return place if place in bodies else -1


def _with_id(write: Write, remote_id: str) -> Write:
    return msgspec.structs.replace(write, remote_id=remote_id)
