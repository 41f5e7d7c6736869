"""Clients: customers, and leads as prospects. One native record, two canonical objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from crmbridge.core.errors import Conflict, CrmError, FieldError, Fix, NotFound, Unsupported, ValidationError
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import FieldFact, Filter, Object, Record, Write, WriteResult
from crmbridge.core.wire import HttpRequest
from crmbridge.drivers.mindbody import shapes
from crmbridge.drivers.mindbody.fields import FIELDS
from crmbridge.drivers.mindbody.site import MOST, Site, total
from crmbridge.toolkit.phones import to_e164
from crmbridge.toolkit.rest import LOOKUP_LIMIT
from crmbridge.toolkit.schema import field_facts

__all__ = ["REQUIRED_FACT", "Clients"]

REQUIRED_FACT = "required_client_fields"
_SEARCHED = ("Email", "LastName", "FirstName", "FullName")
_TYPES = {"Number": "number", "Date": "date", "Boolean": "boolean"}


class Clients(Site):
    """Reading, finding and writing clients."""

    # -- what the site asks for ----------------------------------------------------------------------------

    async def required_fields(self) -> list[str]:
        """What this site requires of a new client, beside the names."""
        request = HttpRequest(method="GET", url="/client/requiredclientfields")
        tree = await self.exchange_json(request, operation="describe")
        names = tree.get("RequiredClientFields") if isinstance(tree, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self.unexpected(
                "something that is not a list of fields", Operation.DESCRIBE, is_write=False
            )
        return [name for name in names if name.isidentifier()][:100]

    async def client_fields(self, obj: Object) -> list[FieldFact]:
        """The table, with the site's required fields marked and its custom fields added (``custom.12``)."""
        facts = {fact.path: fact for fact in field_facts(FIELDS[obj])}
        for name in await self.required_fields():
            facts.setdefault(name, FieldFact(path=name, label=name)).is_required = True
        async for row in self.rows("/client/customclientfields", "CustomClientFields", {}):
            if number := self.id_text(row.get("Id")):
                native = str(row.get("DataType") or "")[:40]
                facts[f"custom.{number}"] = FieldFact(
                    path=f"custom.{number}",
                    label=str(row.get("Name") or "")[:200],
                    type=_TYPES.get(native, "text"),
                    native_type=native,
                    is_custom=True,
                )
        return list(facts.values())

    async def _check_required(self, write: Write, made: Mapping[str, Any]) -> None:
        """Names what the site requires and the write lacks. What the last test learned is asked anew before a no."""
        known = ["FirstName", "LastName", *self.access.facts.get(REQUIRED_FACT, "").split(",")]
        if any(name and not _is_given(made, name) for name in known):
            self._refuse_missing(write, made, ["FirstName", "LastName", *await self.required_fields()])

    def _refuse_missing(self, write: Write, made: Mapping[str, Any], required: list[str]) -> None:
        missing = [name for name in dict.fromkeys(required) if not _is_given(made, name)]
        if missing:
            raise ValidationError(
                f"This Mindbody site requires {', '.join(missing)} of a new client.",
                provider=self.manifest.slug,
                operation=Operation.CREATE.value,
                fields=tuple(FieldError(name, "is required by this Mindbody site") for name in missing),
                fix=Fix("fill_in", "Send these fields too, or let the site not require them of new clients."),
            )

    # -- reading -------------------------------------------------------------------------------------------

    async def get_client(self, obj: Object, remote_id: str) -> Record:
        if "." in remote_id:
            raise NotFound("Mindbody has no such client.", provider=self.manifest.slug, operation="get")
        return self.record_from(obj, await self.client_of(obj, remote_id))

    def asked(self, filter: Filter) -> Filter:
        """searchText looks into names and e-mails; what comes is compared again."""
        known = [name for name in _SEARCHED if filter.equals.get(name)]
        if not known and not filter.text:
            problem = f"needs one of {', '.join(_SEARCHED)}; Mindbody cannot search by phone"
            raise self.invalid("Mindbody cannot search so.", "filter", problem, operation="search")
        text = filter.text or str(filter.equals[known[0]])
        return msgspec.structs.replace(filter, text=text.split()[-1] if known[:1] == ["FullName"] else text)

    async def lookup_customer(self, *, phone: str = "", email: str = "") -> list[Record]:
        """By e-mail through a search; by phone through a comparison with all clients of a small site."""
        self.spec(Object.CUSTOMER, Operation.LOOKUP)
        found: dict[str, Record] = {}
        if email:
            page = await self.search_records(Object.CUSTOMER, Filter(equals={"Email": email}, limit=MOST))
            found = {one.remote_id: one for one in page.records}
        if phone and found:
            callers = {key for key, one in found.items() if self._has_phone(one.native, phone)}
            return sorted(found.values(), key=lambda one: one.remote_id not in callers)[:LOOKUP_LIMIT]
        if phone:
            found = {one.remote_id: one for one in await self._by_phone(phone)}
        return list(found.values())[:LOOKUP_LIMIT]

    async def _by_phone(self, phone: str) -> list[Record]:
        """Raises Unsupported when the site has more clients than may be read for one look-up."""
        most = self.number_setting("phone_pages") or 0
        found: list[Record] = []
        for number in range(most):
            tree = await self.page_of("/client/clients", {}, number * MOST)
            records = [
                self.record_from(Object.CUSTOMER, row)
                for row in self.records_in(Operation.LIST, Object.CUSTOMER, tree)
            ]
            found += [one for one in records if self._has_phone(one.native, phone)]
            seen = number * MOST + len(records)
            everybody = total(tree, seen + (len(records) >= MOST))
            if seen >= everybody or not records:
                return found
            if everybody > most * MOST:
                break
        raise Unsupported(
            "Mindbody cannot search by phone, and this site has too many clients to compare them all.",
            subcode="operation_unsupported",
            provider=self.manifest.slug,
            operation=Operation.LOOKUP.value,
            fix=Fix("ask_email", "Look up by e-mail or search by name, or raise the setting phone_pages."),
        )

    def _has_phone(self, native: Mapping[str, Any], phone: str) -> bool:
        """Sites keep numbers as people type them; without a country code they are the site's country's."""
        country = self.access.facts.get("country", "")
        return any(to_e164(str(native[name]), country) == phone for name in shapes.PHONES if native.get(name))

    # -- writing -------------------------------------------------------------------------------------------

    def client_request(self, write: Write, current: Mapping[str, Any] | None = None) -> HttpRequest:
        """The one write of a client; ``current`` is the client that is changed."""
        is_new = write.operation is Operation.CREATE or (
            write.operation is Operation.UPSERT and not write.remote_id
        )
        operation = Operation.CREATE if is_new else Operation.UPDATE
        fields = self._scope(write, operation)["record"]
        made = shapes.client_body(write.object, fields, is_new=is_new)
        if is_new:
            return HttpRequest(method="POST", url="/client/addclient", json=made)
        if write.operation is Operation.UPSERT:
            made.pop("IsProspect", None)  # who buys already does not become a prospect by asking again
        if write.object is Object.LEAD and "Notes" in made:
            made["Notes"] = _added((current or {}).get("Notes"), made["Notes"])
        client_id = (current or {}).get("Id") or "{{ the client's present Id }}"
        # With true, custom fields cannot be changed, and sites linked to this one would be written too.
        body = {"Client": {"Id": client_id, **made}, "CrossRegionalUpdate": False}
        return HttpRequest(method="POST", url="/client/updateclient", json=body)

    async def create_client(self, write: Write) -> WriteResult:
        request = self.client_request(write)
        await self._check_required(write, request.json)
        try:
            response = await self.exchange(request, operation="create", is_write=True)
        except ValidationError as error:
            if error.provider_facts.get("provider_code") == "MissingRequiredFields" and not error.fields:
                self._refuse_missing(write, request.json, await self.required_fields())
            raise
        except Conflict as conflict:  # the text names no id
            conflict.existing_remote_id = await self._twin(request.json)
            raise
        tree = self.tree_of(response, operation="create", is_write=True)
        return self._written(write, Operation.CREATE, response, tree)

    async def _twin(self, made: Mapping[str, Any]) -> str:
        """The client of the same names and e-mail, where a staff user may look for him."""
        if not self.manifest.supports(Object.CUSTOMER, Operation.SEARCH).is_usable:
            return ""
        query = {
            name[0].lower() + name[1:]: made.get(name, "") for name in ("FirstName", "LastName", "Email")
        }
        try:
            async for row in self.rows("/client/clientduplicates", "ClientDuplicates", query):
                return self.id_text(row.get("UniqueId"))
        except CrmError:
            pass  # the conflict itself is the news
        return ""

    async def update_client(self, write: Write) -> WriteResult:
        current = await self.client_of(write.object, write.remote_id)
        request = self.client_request(write, current)
        tree = await self.exchange_json(request, operation="update", is_write=True)
        if not isinstance(tree, dict) or not isinstance(tree.get("Client"), dict):
            raise self.unexpected("an update without the client", Operation.UPDATE, is_write=True)
        return self._applied(write, write.remote_id, was_created=False)

    # A lead may be a customer already; both are clients.
    async def matching(self, obj: Object, match: Mapping[str, Any]) -> list[Record]:
        return await super().matching(Object.CUSTOMER if obj is Object.LEAD else obj, match)

    async def find_client(self, write: Write) -> WriteResult:
        """A new client without an e-mail is not guarded against a second one: then not found is no proof."""
        if write.operation is Operation.CREATE and not write.fields.get("Email"):
            found = await super()._find(write)
            if found.outcome is Outcome.NOT_APPLIED:
                return WriteResult(outcome=Outcome.UNKNOWN)
            return found
        return await super()._find(write)


def _is_given(made: Mapping[str, Any], name: str) -> bool:
    return made.get(name) not in (None, "", [])


def _added(notes: Any, message: str) -> str:
    """The client's notes with the message below them, once. Raises ValidationError for an empty message."""
    if not message:
        problem = FieldError(
            "lead.message", "stands in the client's notes, which the staff write too; edit it there"
        )
        raise ValidationError(
            "A message cannot be taken out of the notes.", provider="mindbody", fields=(problem,)
        )
    before = notes if isinstance(notes, str) else ""
    return before if message in before else "\n\n".join(filter(None, (before, message)))
