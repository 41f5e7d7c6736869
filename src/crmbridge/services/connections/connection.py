"""Connection: the portable type. Checks, maps, paces, lends, sends and audits around a small driver."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import structlog

from crmbridge.core.driver import CrmDriver, refuse
from crmbridge.core.errors import AuthError, CrmError, FieldError, UnexpectedResponse, ValidationError
from crmbridge.core.manifest import Manifest
from crmbridge.core.operations import Operation, Outcome, Support
from crmbridge.core.records import FieldFact, Filter, Object, Page, Record, Write, WriteResult
from crmbridge.core.wire import HttpRequest, HttpResponse, TransportFailure, TransportFault
from crmbridge.services.audit.model import AuditEntry
from crmbridge.services.connections.access import Metered, Renewal, access_for
from crmbridge.services.connections.budgets.purse import Purse
from crmbridge.services.connections.counting import Counted
from crmbridge.services.connections.lending import Lent, dead
from crmbridge.services.connections.model import CredentialStatus, Intent, Sent
from crmbridge.services.tenants.model import Tenant
from crmbridge.toolkit.fieldmap import FieldMap

if TYPE_CHECKING:
    from crmbridge.services.connections.opening import Opened
    from crmbridge.services.connections.service import Connections

__all__ = ["Connection"]

_log = structlog.get_logger("crmbridge.connections")
T = TypeVar("T")

# Where a "note" policy keeps slots that lead nowhere: the object's own free text.
_FREE_TEXT = {
    Object.CUSTOMER: "notes",
    Object.LEAD: "message",
    Object.DEAL: "description",
    Object.APPOINTMENT: "notes",
    Object.CASE: "description",
    Object.NOTE: "body",
    Object.ACTIVITY: "body",
}
_REFUSED_SUBCODES = frozenset({"invalid_credentials", "refresh_failed", "revoked"})


class _NoTransport:
    async def send(self, request: HttpRequest) -> HttpResponse:
        """A plan sends nothing."""
        raise TransportFailure(TransportFault.REFUSED_BY_POLICY, "a plan sends nothing", was_sent=False)


class Connection:
    """One CRM of one tenant, opened. Cheap; holds a sealed credential, opened anew for each call."""

    def __init__(self, owner: Connections, tenant: Tenant, opened: Opened) -> None:
        self._owner = owner
        self._opened = opened
        self.tenant = tenant
        self.id: UUID = opened.row.id
        self.name = opened.row.name
        self.driver = opened.row.driver
        self.manifest: Manifest = opened.manifest

    # -- asking first ------------------------------------------------------------------------------------------

    def supports(self, obj: Object, operation: Operation) -> Support:
        """The declared answer for this object and operation."""
        return self.manifest.supports(obj, operation)

    def get_ready(self) -> None:
        """A call will follow within milliseconds: what it needs of the rate budget is fetched meanwhile."""
        self._purse().get_ready()

    @property
    def calls_at_once(self) -> int:
        """So many calls this process may have in flight: what the provider allows, or its share of that."""
        return self._purse().at_once

    def step_aside(self) -> None:
        """This process makes no more calls for now: the others may have its share of the calls in flight."""
        self._purse().step_aside()

    def _purse(self) -> Purse:
        return self._owner.budgets.purse(self.tenant.id, self.id, self._opened.driver, self.manifest)

    def check(self, obj: Object, operation: Operation) -> None:
        """Raise Unsupported for what the provider cannot do; nothing has been opened by then."""
        if self.manifest.why_unavailable or not self.supports(obj, operation).is_usable:
            raise refuse(self.manifest, obj, operation)

    def batch_size(self, obj: Object, operation: Operation) -> int:
        """Most writes per :meth:`send`."""
        return self.manifest.batch_size(obj, operation)

    def field_map(self, obj: Object) -> FieldMap:
        """The effective map of one object."""
        return self._opened.field_map(self.tenant, obj)

    # -- writes ------------------------------------------------------------------------------------------------

    def map(self, intent: Intent, *, target_id: UUID, links: dict[str, str]) -> Write:
        """Turn an intent into the provider's fields. Raises Unsupported, or ValidationError naming every field."""
        self.check(intent.object, intent.operation)
        errors = self._structure_errors(intent, links)
        write = Write(
            target_id=str(target_id),
            operation=intent.operation,
            object=intent.object,
            remote_id=intent.remote_id,
            links=links,
        )
        if intent.operation in (Operation.DELETE, Operation.ERASE):
            self._raise_field_errors(intent, errors)
            return write
        field_map = self.field_map(intent.object)
        partial = intent.operation is Operation.UPDATE
        mapped = field_map.to_native(self._with_leftover(intent, field_map, errors), partial=partial)
        errors.extend(mapped.errors)
        write.fields, write.related = mapped.fields, mapped.related
        for slot in intent.match:
            if intent.fields.get(slot) in (None, ""):
                errors.append(
                    FieldError(f"{intent.object.value}.{slot}", "is named in match but has no value")
                )
            elif not any(error.field == f"{intent.object.value}.{slot}" for error in errors):
                self._add_match(write, field_map, intent.object, slot, errors)
        _merge(write.fields, intent.provider_extra)
        self._raise_field_errors(intent, errors)
        return write

    def _add_match(
        self, write: Write, field_map: FieldMap, obj: Object, slot: str, errors: list[FieldError]
    ) -> None:
        path = field_map.native_path(slot)
        if path:
            write.match[path] = _dig(write.fields, path)
        else:
            errors.append(
                FieldError(f"{obj.value}.{slot}", "is named in match but not mapped to a field of the CRM")
            )

    def _structure_errors(self, intent: Intent, links: dict[str, str]) -> list[FieldError]:
        errors = []
        spec = self.manifest.objects[intent.object]
        needs_id = intent.operation in (Operation.UPDATE, Operation.DELETE, Operation.ERASE)
        if needs_id and not intent.remote_id:
            errors.append(FieldError("remote_id", f"is required for {intent.operation.value}"))
        if intent.remote_id and not re.fullmatch(self.manifest.strict_ids, intent.remote_id):
            errors.append(FieldError("remote_id", f"is not an id of {self.manifest.display_name}"))
        if intent.operation is Operation.UPSERT and not intent.match:
            errors.append(
                FieldError("match", "names the slots that identify the record; an upsert needs at least one")
            )
        known = {obj.value for obj in spec.links}
        for name in {*intent.links, *links}:
            if name not in known:
                able = (
                    f"can be linked to {', '.join(sorted(known))}"
                    if known
                    else "cannot be linked to other records"
                )
                errors.append(FieldError(f"links.{name}", f"a {intent.object.value} {able} here"))
        return errors

    def _with_leftover(self, intent: Intent, field_map: FieldMap, errors: list[FieldError]) -> dict[str, Any]:
        """Under the note policy, slots that lead nowhere go into the object's free text on a create."""
        if self.tenant.unknown_slots != "note":
            return intent.fields
        leftover = field_map.to_native(intent.fields, partial=True).leftover
        if not leftover:
            return intent.fields
        free = _FREE_TEXT[intent.object]
        if intent.operation is not Operation.CREATE or not field_map.native_path(free):
            for slot in leftover:
                errors.append(
                    FieldError(
                        f"{intent.object.value}.{slot}",
                        "is not mapped, and only a create can keep it in a note",
                    )
                )
            return intent.fields
        lines = [f"{slot}: {value}" for slot, value in leftover.items()]
        text = "\n".join(filter(None, [str(intent.fields.get(free) or ""), *lines]))
        kept = {slot: value for slot, value in intent.fields.items() if slot not in leftover}
        return {**kept, free: text}

    def _raise_field_errors(self, intent: Intent, errors: list[FieldError]) -> None:
        if errors:
            raise ValidationError(
                f"{len(errors)} field(s) cannot be written to {self.manifest.display_name}.",
                provider=self.manifest.slug,
                operation=intent.operation.value,
                fields=tuple(errors),
            )

    def preview(self, write: Write) -> Any:
        """The payload that would be sent. Nothing leaves, no secret is opened."""
        lent = Lent(self._opened.held, {})
        return self._opened.driver(access_for(self.tenant, lent, _NoTransport())).preview(write)

    async def send(self, writes: Sequence[Write], *, actor: str, request_id: str = "") -> Sent:
        """One provider batch (all of one object and operation). A provider's failure is in the results."""
        operation, obj = writes[0].operation, writes[0].object

        async def call(driver: CrmDriver) -> list[WriteResult]:
            if len(writes) == 1:
                return [await driver.write_one(writes[0])]
            results = await driver.write_batch(writes)
            if len(results) != len(writes):
                raise UnexpectedResponse(
                    "The driver did not answer one outcome per write.", outcome=Outcome.UNKNOWN
                )
            return results

        results, entry = await self._measured(operation, obj, len(writes), actor, request_id, call)
        if isinstance(results, CrmError):
            error = results
            results = [WriteResult(outcome=error.outcome, remote_id=w.remote_id, error=error) for w in writes]
        for result in results:
            if isinstance(result.error, AuthError):
                await self._note_refusal(result.error)
                break
        return Sent(results=results, entry=entry)

    async def find_written(self, write: Write, *, actor: str) -> tuple[WriteResult, AuditEntry]:
        """Look for the effect of a write whose outcome is unknown. A failed look-up tells nothing: ``unknown``."""
        found, entry = await self._measured(
            Operation.SEARCH,
            write.object,
            1,
            actor,
            "",
            lambda driver: driver.find_written(write),
            name="find_written",
        )
        if isinstance(found, CrmError):
            await self._note_refusal(found)
            return WriteResult(outcome=Outcome.UNKNOWN, error=found), entry
        return found, entry

    # -- reads -------------------------------------------------------------------------------------------------

    async def describe(self, obj: Object, *, actor: str, request_id: str = "") -> list[FieldFact]:
        """The live schema of the native object."""
        return await self._read(
            Operation.DESCRIBE, obj, actor, request_id, lambda driver: driver.describe(obj)
        )

    async def lookup(
        self, *, phone: str = "", email: str = "", actor: str, request_id: str = ""
    ) -> list[Record]:
        """Customers with this phone or e-mail."""
        records = await self._read(
            Operation.LOOKUP,
            Object.CUSTOMER,
            actor,
            request_id,
            lambda driver: driver.lookup_customer(phone=phone, email=email),
        )
        return [self._canonical(record) for record in records]

    async def get(self, obj: Object, remote_id: str, *, actor: str, request_id: str = "") -> Record:
        """One record with its slots filled."""
        if not re.fullmatch(self.manifest.strict_ids, remote_id):
            problem = FieldError("remote_id", f"is not an id of {self.manifest.display_name}")
            raise ValidationError(
                "The remote id is malformed.", provider=self.manifest.slug, fields=(problem,)
            )
        record = await self._read(
            Operation.GET, obj, actor, request_id, lambda driver: driver.get_record(obj, remote_id)
        )
        return self._canonical(record)

    async def search(
        self,
        obj: Object,
        equals: dict[str, Any],
        *,
        text: str = "",
        cursor: str = "",
        limit: int = 50,
        actor: str,
        request_id: str = "",
    ) -> Page:
        """Records whose slots equal the given values."""
        self.check(obj, Operation.SEARCH)
        field_map = self.field_map(obj)
        mapped = field_map.to_native(equals, partial=True)
        errors = list(mapped.errors)
        errors += [
            FieldError(f"{obj.value}.{slot}", "is not mapped to a field of the CRM")
            for slot in mapped.leftover
        ]
        if errors:
            raise ValidationError(
                "The filter cannot be used.", provider=self.manifest.slug, fields=tuple(errors)
            )
        native = {
            field_map.native_path(slot): _dig(mapped.fields, field_map.native_path(slot)) for slot in equals
        }
        wanted = Filter(equals=native, text=text, limit=limit)
        page = await self._read(
            Operation.SEARCH,
            obj,
            actor,
            request_id,
            lambda driver: driver.search_records(obj, wanted, cursor),
        )
        return Page(records=[self._canonical(r) for r in page.records], next_cursor=page.next_cursor)

    async def list_recent(
        self,
        obj: Object,
        *,
        since: str = "",
        cursor: str = "",
        limit: int = 50,
        actor: str,
        request_id: str = "",
    ) -> Page:
        """Records by last change, newest first."""
        page = await self._read(
            Operation.LIST,
            obj,
            actor,
            request_id,
            lambda driver: driver.list_recent(obj, since=since, cursor=cursor, limit=limit),
        )
        return Page(records=[self._canonical(r) for r in page.records], next_cursor=page.next_cursor)

    def _canonical(self, record: Record) -> Record:
        record.fields = self.field_map(record.object).to_canonical(record.native)
        return record

    async def _read(
        self,
        operation: Operation,
        obj: Object,
        actor: str,
        request_id: str,
        call: Callable[[CrmDriver], Awaitable[T]],
    ) -> T:
        self.check(obj, operation)
        answer, entry = await self._measured(operation, obj, 1, actor, request_id, call)
        audit_id = await self._owner.audit.write_now(entry)
        if isinstance(answer, CrmError):
            await self._note_refusal(answer)
            answer.audit_id = str(audit_id)
            raise answer
        return answer

    # -- the one way to the provider ---------------------------------------------------------------------------

    async def _measured(
        self,
        operation: Operation,
        obj: Object,
        count: int,
        actor: str,
        request_id: str,
        call: Callable[[CrmDriver], Awaitable[T]],
        *,
        name: str = "",
    ) -> tuple[T | CrmError, AuditEntry]:
        """Lend the secret, call, and describe the call for the audit log. A failure is answered, not raised."""
        purse = self._purse()
        metered = Metered(self._owner.egress, purse)
        name = name or operation.value
        started = monotonic()
        answer: T | CrmError
        try:
            await self._owner.check_gate(self.tenant, self.manifest)
            if self._opened.credential.status is CredentialStatus.NEEDS_REAUTHORIZATION:
                raise dead(self._opened.driver, self.tenant)
            async with purse:
                with Counted(self.driver, name, obj.value, count, metered) as counted:
                    answer = await self._lent(metered, call)
                    counted.answer = answer
        except CrmError as error:
            answer = error
        except Exception as bug:
            _log.exception(
                "driver.failed", driver=self.driver, operation=operation.value, kind=type(bug).__name__
            )
            answer = UnexpectedResponse(
                f"The {self.manifest.display_name} driver failed on this answer ({type(bug).__name__}).",
                outcome=Outcome.UNKNOWN if metered.calls else Outcome.NOT_APPLIED,
            )
        if isinstance(answer, CrmError):
            answer.provider = answer.provider or self.manifest.slug
            answer.operation = answer.operation or operation.value
            answer.request_id = answer.request_id or request_id
        entry = AuditEntry(
            tenant_id=self.tenant.id,
            actor=actor,
            action="crm.call",
            connection_id=self.id,
            subject_id=str(self._opened.credential.id),
            request_id=request_id,
            details=_call_details(
                self.driver, name, obj, count, answer, metered, (monotonic() - started) * 1000
            ),
        )
        return answer, entry

    async def _lent(self, metered: Metered, call: Callable[[CrmDriver], Awaitable[T]]) -> T | CrmError:
        """Lend the secrets and call. A token that is renewed on the way counts for all who share this opening."""
        opened = self._opened
        lent = await self._owner.lending.lend(self.tenant, opened.driver, opened.held)
        access = access_for(self.tenant, lent, metered)
        renewal = Renewal(self._owner.lending, self.tenant, opened.driver, lent, access)
        answer: T | CrmError
        try:
            answer = await call(opened.driver(access))
        except CrmError as error:
            answer = error
        finally:
            opened.keep(renewal.lent.held)
        renewal.settle(answer)
        return answer

    async def _note_refusal(self, error: Exception | None) -> None:
        if isinstance(error, AuthError) and error.subcode in _REFUSED_SUBCODES:
            await self._owner.note_refusal(self.tenant, self._opened, error)


def _call_details(
    driver: str,
    operation: str,
    obj: Object,
    count: int,
    answer: object,
    metered: Metered,
    milliseconds: float,
) -> dict[str, Any]:
    """Facts of one call for the audit log: no content, no personal data."""
    details: dict[str, Any] = {
        "driver": driver,
        "operation": operation,
        "object": obj.value,
        "records": count,
        "http_calls": metered.calls,
        "duration_ms": round(milliseconds, 1),
    }
    if metered.status:
        details["http_status"] = metered.status
    if metered.provider_request_id:
        details["provider_request_id"] = metered.provider_request_id
    if isinstance(answer, CrmError):
        details.update(outcome=answer.outcome.value, code=answer.full_code)
    elif isinstance(answer, list) and answer and isinstance(answer[0], WriteResult):
        outcomes: dict[str, int] = {}
        for result in answer:
            outcomes[result.outcome.value] = outcomes.get(result.outcome.value, 0) + 1
        details["outcomes"] = outcomes
    elif isinstance(answer, WriteResult):
        details["outcome"] = answer.outcome.value
    return details


def _merge(into: dict[str, Any], extra: dict[str, Any]) -> None:
    for key, value in extra.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _dig(tree: dict[str, Any], path: str) -> Any:
    value: Any = tree
    with suppress(KeyError, TypeError):
        if path in tree:
            return tree[path]
        for part in path.split("."):
            value = value[part]
        return value
    return None
