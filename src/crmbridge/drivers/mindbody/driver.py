"""Mindbody, public API v6: clients as customers and leads, appointments, contact logs.

Pages: https://developers.mindbodyonline.com/PublicDocumentation/V6 (public copies of its text, the specification
generated from the official SDK, community clients; see NOTES.md), read 2026-11-22. An API key names the caller, the
SiteId the business; most reads want a staff user's token besides. Clients are never deleted. Nothing here was tried
against a live site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from crmbridge.core.driver import Proof, refuse
from crmbridge.core.errors import AuthError
from crmbridge.core.manifest import Auth, AuthKind, Budget, BudgetKind, Manifest, Paging, PagingKind
from crmbridge.core.operations import DeleteLevel, Operation
from crmbridge.core.records import FieldFact, Filter, Object, Page, Record, Write, WriteResult
from crmbridge.core.wire import HttpResponse
from crmbridge.drivers.mindbody import shapes
from crmbridge.drivers.mindbody.appointments import AT_ONCE, Appointments
from crmbridge.drivers.mindbody.clients import REQUIRED_FACT, Clients
from crmbridge.drivers.mindbody.credential import SETTINGS
from crmbridge.drivers.mindbody.fields import FIELDS
from crmbridge.drivers.mindbody.objects import CLIENTS, DOCS, LOGS, OBJECTS, without_staff
from crmbridge.drivers.mindbody.site import total
from crmbridge.toolkit import paging
from crmbridge.toolkit.formats import moment_text
from crmbridge.toolkit.schema import field_facts

MANIFEST = Manifest(
    slug="mindbody",
    display_name="Mindbody",
    api_version="v6",
    pages=(DOCS, "https://github.com/mindbody/API-Examples"),
    read_on="2026-11-22",
    # The key goes out as a header of every call; this is the staff user's token on top of it.
    auth=Auth(
        kind=AuthKind.SIGN_IN,
        user="staff_username",
        secret="staff_password",  # noqa: S106 - the name of a setting
        access_seconds=86_400,  # where the answer does not tell when it expires
    ),
    settings=SETTINGS,
    base_url="{base_url}",
    objects={
        **OBJECTS,
        Object.APPOINTMENT: msgspec.structs.replace(
            OBJECTS[Object.APPOINTMENT], batch={Operation.CREATE: AT_ONCE}
        ),
    },
    paging=Paging(kind=PagingKind.OFFSET, size_param="limit", cursor_param="offset", size=100, max_size=200),
    budgets=(
        Budget(kind=BudgetKind.BURST, limit=2000, per_seconds=60, source=f"{DOCS} (per key)"),
        Budget(
            kind=BudgetKind.DAILY,
            limit=1000,
            per_seconds=86_400,
            source="free calls a day; setting daily_calls",
        ),
    ),
    verification_note="specification generated from the official SDK, and community clients",
    verticals=("salon",),
    strict_ids=r"[1-9][0-9]{0,18}(\.[1-9][0-9]{0,18})?",
    setup_help=(
        "Get an API key in the Mindbody developer portal, let the owner of the site activate it, and ask him for a "
        "staff user; then connect."
    ),
)

_KEY_ALONE = Auth(kind=AuthKind.API_KEY, secret="api_key", header="Api-Key")  # noqa: S106 - the name of a setting
_FILL_IN = (
    "a staff user: fill in the staff user name and password, else clients are created and nothing is read"
)


@lru_cache(maxsize=64)
def _manifest(has_staff: bool, daily: int) -> Manifest:
    budgets = (MANIFEST.budgets[0], msgspec.structs.replace(MANIFEST.budgets[1], limit=daily))
    made = msgspec.structs.replace(MANIFEST, budgets=budgets)
    if has_staff:
        return made
    return msgspec.structs.replace(made, auth=_KEY_ALONE, objects=without_staff(OBJECTS))


class Mindbody(Clients, Appointments):
    """One site through one API key, and through one staff user where there is one."""

    MANIFEST = MANIFEST

    @classmethod
    def manifest_for(cls, settings: Mapping[str, str]) -> Manifest:
        """What this connection may do: little without a staff user; the whole without settings."""
        if not settings:
            return cls.MANIFEST
        daily = settings.get("daily_calls") or ""
        return _manifest(bool(settings.get("staff_username")), int(daily) if daily.isdecimal() else 1000)

    # -- connecting ----------------------------------------------------------------------------------------

    async def test_connection(self) -> Proof:
        """Proves key and site by the locations, and the staff user's right by a page of clients.

        The facts are the site's zone and country, what it requires of new clients, and its locations and services by
        name.
        """
        locations = [row async for row in self.rows("/site/locations", "Locations", {})]
        facts = {"Location": shapes.named(locations)}
        site_id, account = self.setting("site_id"), ""
        async for site in self.rows("/site/sites", "Sites", {"siteIds": site_id}):
            if str(site.get("Id")) == site_id:
                account = str(site.get("Name") or "")[:200]
                facts |= shapes.site_facts(site)
        facts[REQUIRED_FACT] = ",".join(await self.required_fields())
        facts["SessionType"] = shapes.named(
            [row async for row in self.rows("/site/sessiontypes", "SessionTypes", {})]
        )
        missing, warnings = [], []
        if not (self.setting("time_zone") or facts.get("time_zone")):
            warnings.append(
                "The site tells no time zone: fill it in, or no appointment can be read or booked."
            )
        if self.manifest.auth.kind is AuthKind.API_KEY:
            missing.append(_FILL_IN)
        else:
            try:
                await self.page_of("/client/clients", {}, 0)
            except AuthError as error:
                if error.subcode != "insufficient_scope":
                    raise
                missing.append("reading clients: give the staff user the right to see clients")
        return Proof(
            account=account or f"site {site_id}", facts=facts, missing_rights=missing, warnings=warnings
        )

    async def describe(self, obj: Object) -> list[FieldFact]:
        self.spec(obj, Operation.DESCRIBE)
        return await self.client_fields(obj) if obj in CLIENTS else field_facts(FIELDS[obj])

    # -- reading -------------------------------------------------------------------------------------------

    def record_from(self, obj: Object, native: dict[str, Any]) -> Record:
        if obj is Object.APPOINTMENT:
            return self.appointment_record(obj, native)
        record = super().record_from(obj, shapes.client(native) if obj in CLIENTS else native)
        record.is_archived = obj in CLIENTS and native.get("Active") is False
        return record

    def next_page(
        self, operation: Operation, obj: Object, response: HttpResponse, tree: Any, asked: paging.Asked
    ) -> str:
        here = int(asked.cursor or 0) + asked.count
        has_more = asked.count > 0 and here < total(tree, here + (asked.count >= asked.limit))
        return str(here) if has_more else ""

    async def get_record(self, obj: Object, remote_id: str) -> Record:
        self.spec(obj, Operation.GET)
        self.check_id(obj, remote_id)
        if obj in CLIENTS:
            return await self.get_client(obj, remote_id)
        return await (self.get_log(obj, remote_id) if obj in LOGS else self.get_appointment(remote_id))

    async def list_recent(self, obj: Object, *, since: str = "", cursor: str = "", limit: int = 50) -> Page:
        self.spec(obj, Operation.LIST)
        if obj is Object.APPOINTMENT:
            return await self.list_appointments(since, cursor, limit)
        names = {"since": shapes.day_before(since)} if since else {}
        page = await self._page(Operation.LIST, obj, names, {}, cursor, limit)
        start = moment_text(since)
        page.records = [one for one in page.records if not one.updated_at or one.updated_at >= start]
        return page

    async def search_records(self, obj: Object, filter: Filter, cursor: str = "") -> Page:
        self.spec(obj, Operation.SEARCH)
        if obj in CLIENTS:
            page = await super().search_records(obj, self.asked(filter), cursor)
        else:
            start = filter.equals.get("StartDateTime")
            if not start or filter.text:
                problem = "needs a start; Mindbody searches appointments by nothing else"
                raise self.invalid("Mindbody cannot search so.", "filter", problem, operation="search")
            names = shapes.days_around(start, self.zone(), "appointment.start_at")
            page = await self._page(Operation.SEARCH, obj, names, {}, cursor, filter.limit)
        page.records = [one for one in page.records if self._is_match(one, filter.equals)]
        return page

    # -- writing -------------------------------------------------------------------------------------------

    async def create_record(self, write: Write) -> WriteResult:
        self.spec(write.object, Operation.CREATE)
        if write.object in CLIENTS:
            return await self.create_client(write)
        return await (self.create_log(write) if write.object in LOGS else self.create_appointment(write))

    async def update_record(self, write: Write) -> WriteResult:
        self.spec(write.object, Operation.UPDATE)
        self.check_id(write.object, write.remote_id)
        if write.object in CLIENTS:
            return await self.update_client(write)
        return await (self.update_log(write) if write.object in LOGS else self.update_appointment(write))

    async def delete_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        self.spec(obj, Operation.DELETE)
        if obj in LOGS:
            return await self.delete_log(obj, remote_id, Operation.DELETE)
        return await self.cancel_appointment(self.check_id(obj, remote_id))

    async def erase_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        self.spec(obj, Operation.ERASE)
        return await self.delete_log(obj, remote_id, Operation.ERASE)

    async def write_batch(self, writes: Sequence[Write]) -> list[WriteResult]:
        """Bookings go together; Mindbody has no batch of clients or contact logs."""
        results: list[WriteResult] = []
        are_bookings = all(
            one.object is Object.APPOINTMENT and one.operation is Operation.CREATE for one in writes
        )
        if not are_bookings or len(writes) < 2:
            return await super().write_batch(writes)
        for start in range(0, len(writes), AT_ONCE):
            results += await self.book_many(writes[start : start + AT_ONCE])
        return results

    def preview(self, write: Write) -> Any:
        """The body as it would leave, with names that only the site can turn into numbers."""
        if write.operation not in (Operation.CREATE, Operation.UPDATE, Operation.UPSERT):
            raise refuse(self.manifest, write.object, write.operation)
        if write.object in CLIENTS:
            request = self.client_request(write)
        elif write.object in LOGS:
            request = self.log_request(write, "{{ the client's present Id }}")
        else:
            return {"method": "POST", "path": "/appointment", "body": self._fields(write)}
        shown = {"method": request.method, "path": request.url, "body": request.json}
        return {**shown, "match": write.match} if write.match else shown

    # -- after an unknown outcome --------------------------------------------------------------------------

    async def _find(self, write: Write) -> WriteResult:
        if write.object in CLIENTS:
            return await self.find_client(write)
        if write.operation is not Operation.CREATE:
            return await super()._find(write)
        return await (self.find_log(write) if write.object in LOGS else self.find_booked(write))
