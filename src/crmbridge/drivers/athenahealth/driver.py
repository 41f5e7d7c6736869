"""athenahealth (athenaOne REST API v1): patient cases and notes on them; patients and appointments where switched on.

Pages: https://docs.athenahealth.com/api/guides/overview and the guides beside it, and community SDKs exercised
against the vendor (see NOTES.md), read 2026-11-22. Everything here is health data: ``gate`` keeps every call back
until the tenant's papers are recorded. Bodies are forms, single reads are lists of one, a 200 may be a refusal, and
nothing can be deleted. Nothing here was tried against a live practice.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec

from crmbridge.core.driver import Proof, refuse
from crmbridge.core.errors import (
    CrmError,
    FieldError,
    NotConfigured,
    NotFound,
)
from crmbridge.core.manifest import Auth, AuthKind, Budget, BudgetKind, Manifest, Paging, PagingKind
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import FieldFact, Filter, Object, Page, Record, Write, WriteResult
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.athenahealth import shapes
from crmbridge.drivers.athenahealth.charts import Charts
from crmbridge.drivers.athenahealth.credential import SETTINGS
from crmbridge.drivers.athenahealth.fields import FIELDS
from crmbridge.drivers.athenahealth.messages import error_of, first
from crmbridge.drivers.athenahealth.objects import DOCS, OBJECTS, opened
from crmbridge.drivers.athenahealth.schedule import CANCELLED
from crmbridge.toolkit.phones import nanp_digits
from crmbridge.toolkit.schema import field_facts

_SERVICE_SCOPE = "athena/service/Athenanet.MDP."

MANIFEST = Manifest(
    slug="athenahealth",
    display_name="athenahealth",
    api_version="v1",
    pages=(DOCS, "https://docs.athenahealth.com/api/guides/authentication-authorization-guide"),
    read_on="2026-11-22",
    auth=Auth(
        kind=AuthKind.CLIENT_CREDENTIALS,
        user="client_id",
        secret="client_secret",  # noqa: S106 - the name of a setting
        token_url="{base_url}/oauth2/v1/token",  # noqa: S106 - an address
        scopes=(f"{_SERVICE_SCOPE}*",),
        client_auth="basic",
        access_seconds=3600,
        token_calls_per_minute=5,  # preview; production allows 50
    ),
    settings=SETTINGS,
    base_url="{base_url}/v1/{practice_id}",
    objects=OBJECTS,
    paging=Paging(
        kind=PagingKind.OFFSET, size_param="limit", cursor_param="offset", next="next", size=50, max_size=1000
    ),
    budgets=(
        Budget(kind=BudgetKind.BURST, limit=10, per_seconds=1, source="UNCONFIRMED: shown in the portal"),
    ),
    verification_note="guides and community SDKs; no published specification",
    verticals=("clinic",),
    gate="phi",
    strict_ids=r"[1-9][0-9]{0,18}(\.[A-Za-z0-9-]{1,64})?",
    setup_help="Make a 2-legged app in athenahealth's developer portal; the practice must grant it access.",
)

_LIST_BACK, _LIST_AHEAD = timedelta(days=31), timedelta(days=366)


@lru_cache(maxsize=8)
def _manifest(is_preview: bool, patients: bool, appointments: bool) -> Manifest:
    limit = 5 if is_preview else 10
    return msgspec.structs.replace(
        MANIFEST,
        objects=opened(OBJECTS, {Object.CUSTOMER: patients, Object.APPOINTMENT: appointments}),
        budgets=(msgspec.structs.replace(MANIFEST.budgets[0], limit=limit),),
    )


class Athenahealth(Charts):
    """One practice, one department."""

    MANIFEST = MANIFEST

    @classmethod
    def manifest_for(cls, settings: Mapping[str, str]) -> Manifest:
        """What the operator has switched on; the whole without settings."""
        if not settings:
            return cls.MANIFEST
        asked = (settings.get(f"write_{name}") == "yes" for name in ("patients", "appointments"))
        return _manifest("preview" in settings.get("base_url", ""), *asked)

    # A grant may be narrowed to one practice: the star becomes its number.
    @classmethod
    def missing_scopes(cls, granted: frozenset[str]) -> list[str]:
        if any(scope.startswith(_SERVICE_SCOPE) for scope in granted):
            return []
        return list(cls.MANIFEST.auth.scopes)

    async def test_connection(self) -> Proof:
        """Ping (token and practice), then the department that every write needs."""
        tree = await self.exchange_json(HttpRequest(method="GET", url="/ping"), operation="test")
        if not isinstance(tree, dict) or str(tree.get("pong")).lower() != "true":
            raise self.unexpected("no pong to a ping", Operation.GET, is_write=False)
        department = self.setting("department_id")
        try:
            tree = await self.exchange_json(
                HttpRequest(method="GET", url=f"/departments/{department}"), operation="test"
            )
        except NotFound:
            problem = FieldError("department_id", "is no department of this practice")
            raise NotConfigured(
                "The practice has no such department.", provider="athenahealth", fields=(problem,)
            ) from None
        name = first(tree).get("name") or f"department {department}"
        return Proof(account=f"practice {self.setting('practice_id')}, {name}"[:200])

    async def describe(self, obj: Object) -> list[FieldFact]:
        self.spec(obj, Operation.DESCRIBE)
        return field_facts(FIELDS[obj])

    # -- reading -------------------------------------------------------------------------------------------

    def record_from(self, obj: Object, native: dict[str, Any]) -> Record:
        if obj is Object.CUSTOMER:
            return super().record_from(obj, shapes.patient(native))
        if obj is Object.APPOINTMENT:
            record = super().record_from(obj, shapes.appointment(native, self._zone()))
            record.is_archived = record.native.get("appointmentstatus") == CANCELLED
            return record
        return super().record_from(obj, native)

    async def get_record(self, obj: Object, remote_id: str) -> Record:
        self.spec(obj, Operation.GET)
        first, _, second = self.check_id(obj, remote_id).partition(".")
        if obj in (Object.CASE, Object.NOTE):
            records = self._cases(first) if obj is Object.CASE else self._notes(first)
            async for record in records:
                if record.remote_id == remote_id and second:
                    return record
            raise NotFound(f"There is no such {obj.value}.", provider=self.manifest.slug, operation="get")
        return await super().get_record(obj, remote_id)

    async def list_recent(self, obj: Object, *, since: str = "", cursor: str = "", limit: int = 50) -> Page:
        self.spec(obj, Operation.LIST)
        now = datetime.now(UTC)
        names = {"startdate": (now - _LIST_BACK).strftime("%m/%d/%Y")}
        names["enddate"] = (now + _LIST_AHEAD).strftime("%m/%d/%Y")
        if since:
            names["startlastmodified"] = shapes.eastern(since)
        return await self._page(Operation.LIST, obj, names, {}, cursor, limit)

    async def search_records(self, obj: Object, filter: Filter, cursor: str = "") -> Page:
        self.spec(obj, Operation.SEARCH)
        asked = dict(filter.equals)
        if asked.get("mobilephone"):
            asked["anyphone"] = nanp_digits(str(asked["mobilephone"])) or str(asked["mobilephone"])
        if asked.get("dob"):
            asked["dob"] = shapes.us_date(str(asked["dob"]))
        if not filter.text and not any(
            asked.get(name) for name in ("firstname", "lastname", "dob", "email", "anyphone")
        ):
            problem = "needs a name, a birth date, a phone or an e-mail"
            raise self.invalid("athenahealth cannot search so.", "filter", problem, operation="search")
        page = await super().search_records(obj, msgspec.structs.replace(filter, equals=asked), cursor)
        page.records = [one for one in page.records if self._fits(one, filter.equals)]
        return page

    def _fits(self, record: Record, equals: Mapping[str, Any]) -> bool:
        """Compares; a patient found by another of his phones shows that one."""
        wanted = equals.get("mobilephone")
        numbers = [record.native.get(name) for name in shapes.PHONES]
        if wanted and (same := [one for one in numbers if one and self.is_same("", wanted, one)]):
            record.native["mobilephone"] = same[0]
        return self._is_match(record, equals)

    # -- writing -------------------------------------------------------------------------------------------

    def preview(self, write: Write) -> Any:
        if write.operation not in (Operation.CREATE, Operation.UPDATE, Operation.UPSERT):
            raise refuse(self.manifest, write.object, write.operation)
        request = self._request(write)
        return {"method": request.method, "path": request.url, "body": request.form}

    async def create_record(self, write: Write) -> WriteResult:
        self.spec(write.object, Operation.CREATE)
        request = self._request(write)
        was_created: bool | None = True
        if write.object is Object.APPOINTMENT:
            slot = await self._slot(write.fields)
            request.url = f"/appointments/{slot['appointmentid']}"
            if request.form is not None and "reasonid" not in request.form:
                request.form["appointmenttypeid"] = str(slot.get("appointmenttypeid", ""))
        tree = await self._sent(request, Operation.CREATE)
        if write.object is Object.CASE:
            found = self.id_text(first(tree).get("patientcaseid"))
            remote_id = f"{write.links['customer']}.{found}" if found else ""
        elif write.object is Object.NOTE:
            remote_id = f"{write.links['case'].partition('.')[2]}.{write.target_id}" if first(tree) else ""
        else:  # a known person is answered with his id: nobody tells which it was
            was_created = None if write.object is Object.CUSTOMER else True
            remote_id = self.id_text(first(tree).get(self.manifest.objects[write.object].id_field))
        if not self.id_text(remote_id):
            raise self.unexpected(
                f"a new {write.object.value} without an id", Operation.CREATE, is_write=True
            )
        return self._applied(write, remote_id, was_created=was_created)

    async def update_record(self, write: Write) -> WriteResult:
        self.spec(write.object, Operation.UPDATE)
        self.check_id(write.object, write.remote_id)
        if write.object is Object.APPOINTMENT:
            return await self._moved(write)
        await self._sent(self._request(write), Operation.UPDATE)
        return self._applied(write, write.remote_id, was_created=False)

    # -- after an unknown outcome --------------------------------------------------------------------------

    async def _find(self, write: Write) -> WriteResult:
        if write.object is Object.CUSTOMER or write.operation is not Operation.CREATE:
            if write.object is Object.APPOINTMENT and "startTime" in write.fields:
                return WriteResult(outcome=Outcome.UNKNOWN)  # moved or not: the old id tells neither
            return await super()._find(write)
        if write.object is Object.APPOINTMENT:
            return await self._find_booked(write)
        link = write.links.get("customer" if write.object is Object.CASE else "case", "")
        is_case = write.object is Object.CASE
        async for record in self._cases(link) if is_case else self._notes(link.partition(".")[2]):
            if record.native.get("ref") == self.mark(write):
                return self._found(record.remote_id, Outcome.NOT_APPLIED)
        return WriteResult(outcome=Outcome.NOT_APPLIED)

    # -- failing -------------------------------------------------------------------------------------------

    # A text goes out with our mark or a label.
    def bare_texts(self, request: HttpRequest) -> list[str]:
        lines = [line for text in (request.form or {}).values() for line in text.splitlines()]
        bare = [shapes.without_mark(line)[0] for line in lines]
        return bare + [line.removeprefix(shapes.REASON) for line in bare]

    def error_from(self, response: HttpResponse, operation: str, is_write: bool) -> CrmError | None:
        return error_of(response, provider=self.manifest.slug, operation=operation, is_write=is_write)
