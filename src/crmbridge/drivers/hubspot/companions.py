"""Companions: the deal or the native lead that stands beside a lead's contact.

A canonical lead is a contact of lifecycle stage ``lead``. By the setting ``lead_as``, or because a field is mapped to
deals, a second record is made and associated with it. Both carry the mark of the write: a lead of which only one half
was made is completed by sending it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from crmbridge.core.errors import CrmError, FieldError, ValidationError
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object, Write, WriteResult
from crmbridge.drivers.hubspot.natives import NATIVES, Native, association
from crmbridge.drivers.hubspot.writing import Writer
from crmbridge.toolkit.batches import Results, failed

__all__ = ["ALWAYS", "LeadWriter"]

ALWAYS = {"lead": "leads", "deal": "deals"}
_IN_LEADS = {"dealname": "hs_lead_name"}


class LeadWriter:
    """Leads in batches: all contacts, then all companions."""

    def __init__(self, writer: Writer, lead_as: str) -> None:
        self.writer = writer
        self.always = ALWAYS.get(lead_as, "")

    def companion_of(self, write: Write) -> tuple[Native, dict[str, Any]] | None:
        """The second record of a lead and its fields, without a name if none is given. Raises ValidationError."""
        fields: dict[str, Any] = {}
        name = self.always or ("deals" if write.related else "")
        for part in write.related:
            for path, value in part.fields.items():
                own = _IN_LEADS.get(path, "") if name == "leads" and part.native_object == "deals" else path
                if part.native_object != name and not own:
                    problem = (
                        f"is mapped to {path} of deals; map it to a property of leads, or set lead_as to deal"
                    )
                    raise _refused(f"lead.{path}", problem)
                if part.native_object not in ("deals", name):
                    raise _refused(
                        f"lead.{path}", f"is mapped to {part.native_object}, which no lead has here"
                    )
                fields[own] = value
        return (NATIVES[name], fields) if name else None

    async def create(self, writes: Mapping[int, Write]) -> Results:
        """New contacts (or those that are linked already, brought up to date), then their companions."""
        results, companions = self._companions(writes)
        rest = {place: write for place, write in writes.items() if place not in results}
        old = {place: _of_contact(one) for place, one in rest.items() if one.links and _contact(one)}
        new = {place: write for place, write in rest.items() if place not in old}
        results |= await self.writer.update(Object.LEAD, old)
        contacts = NATIVES["contacts"]
        results |= await self.writer.create(contacts, new, self.writer.inputs(contacts, new, results))
        return await self._add(writes, companions, results)

    async def upsert(self, writes: Mapping[int, Write]) -> Results:
        """The contact by its match; a companion for a new contact, and for every lead that has fields of one."""
        results, companions = self._companions(writes)
        rest = {place: write for place, write in writes.items() if place not in results}
        results |= await self.writer.upsert(Object.LEAD, rest)
        for place in list(companions):
            if not writes[place].related and results[place].was_created is False:
                del companions[place]
        return await self._add(writes, companions, results)

    async def update(self, writes: Mapping[int, Write]) -> Results:
        """The contact only: which of its deals is meant cannot be known."""
        results: Results = {}
        for place, write in writes.items():
            if write.related:
                path = next(iter(write.related[0].fields), "*")
                problem = (
                    f"stands on one of the contact's {write.related[0].native_object}; update that record"
                )
                results[place] = failed(_refused(f"lead.{path}", problem), write.remote_id)
        rest = {place: write for place, write in writes.items() if place not in results}
        return results | await self.writer.update(Object.LEAD, rest)

    def _companions(
        self, writes: Mapping[int, Write]
    ) -> tuple[Results, dict[int, tuple[Native, dict[str, Any]]]]:
        """Bodies of companions, made before anything is sent: what cannot be said leaves no half lead behind."""
        results: Results = {}
        companions = {}
        for place, write in writes.items():
            if not (self.always or write.related):
                continue
            try:
                if (found := self.companion_of(write)) is not None:
                    native, fields = found
                    named = {native.required[0]: _name(write.fields), **fields}
                    linked = msgspec.structs.replace(write, links={})
                    companions[place] = native, self.writer.input(native, linked, named)
            except ValidationError as error:
                results[place] = failed(error)
        return results, companions

    async def _add(
        self,
        writes: Mapping[int, Write],
        companions: Mapping[int, tuple[Native, dict[str, Any]]],
        results: Results,
    ) -> Results:
        bodies: dict[int, dict[str, Any]] = {}
        native = NATIVES["deals"]
        for place, (native, body) in companions.items():
            if results[place].outcome is Outcome.APPLIED:
                body["associations"] = [association(native, "contacts", results[place].remote_id)]
                bodies[place] = body
        made = await self.writer.create(native, writes, bodies)
        for place, result in made.items():
            contact = results[place]
            if result.error is None:
                contact.related_ids = {native.name: result.remote_id}
            else:
                results[place] = WriteResult(
                    outcome=result.outcome, remote_id=contact.remote_id, url=contact.url, error=result.error
                )
        return results

    async def find(self, write: Write) -> WriteResult:
        """A created lead by the marks of its halves; applied only when both stand."""
        companion = self.companion_of(write)
        linked = _contact(write)
        contact = linked or await self._marked(NATIVES["contacts"], write)
        if contact is None:
            return WriteResult(outcome=Outcome.UNKNOWN)
        if not contact or (companion is None and linked):
            return WriteResult(outcome=Outcome.NOT_APPLIED)
        result = self.writer.applied(NATIVES["contacts"], contact, was_created=not linked)
        if companion is not None:
            found = await self._marked(companion[0], write)
            if not found:
                outcome = Outcome.UNKNOWN if found is None else Outcome.NOT_APPLIED
                return WriteResult(outcome=outcome, remote_id=contact)
            result.related_ids = {companion[0].name: found}
        return result

    async def _marked(self, native: Native, write: Write) -> str | None:
        return await self.writer.find_mark(native, write)


def _contact(write: Write) -> str:
    return write.links.get("customer", "") if write.operation is Operation.CREATE else ""


def _of_contact(write: Write) -> Write:
    """The update of a contact that is there already; HubSpot moves a lifecycle stage forward only."""
    fields = {name: value for name, value in write.fields.items() if name != "lifecyclestage"}
    return msgspec.structs.replace(write, remote_id=_contact(write), fields=fields, links={})


def _name(fields: Mapping[str, Any]) -> str:
    """A name for a companion that has none."""
    full = " ".join(str(fields[part]) for part in ("firstname", "lastname") if fields.get(part))
    for text in (
        full,
        fields.get("full_name"),
        fields.get("company"),
        fields.get("email"),
        fields.get("phone"),
    ):
        if text:
            return str(text)
    return "Lead"


def _refused(name: str, problem: str) -> CrmError:
    return ValidationError(
        "A field of a lead has no place.", provider="hubspot", fields=(FieldError(name, problem),)
    )
