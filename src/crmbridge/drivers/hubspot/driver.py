"""HubSpot CRM by its dated API (one constant: ``natives.VERSION``), over OAuth or a service key.

customer and lead are contacts (a lead has the lifecycle stage ``lead``, and beside it a deal or a native lead by the
tenant's choice), deal a deal, case a ticket, appointment a meeting (or the appointments object), note a note, activity
a call. Writes go in batches of 100 with a trace id each, so that one bad row fails alone. HubSpot has no idempotency
key: ``prepare`` makes a property with unique values, which every create carries as its mark.
Pages: see ``MANIFEST.pages`` (read 2026-11-22). What they leave open is UNCONFIRMED in NOTES.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

import msgspec

from crmbridge.core.driver import Access, Proof
from crmbridge.core.errors import CrmError, ValidationError
from crmbridge.core.manifest import (
    Auth,
    AuthKind,
    Budget,
    BudgetKind,
    Call,
    Manifest,
    Paging,
    PagingKind,
)
from crmbridge.core.operations import DeleteLevel, Operation
from crmbridge.core.records import FieldFact, Filter, Object, Page, Record, Write, WriteResult
from crmbridge.core.tokens import TokenFault
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.hubspot import preparation, schema
from crmbridge.drivers.hubspot.companions import LeadWriter
from crmbridge.drivers.hubspot.credential import API, SETTINGS
from crmbridge.drivers.hubspot.erasure import erase_contact
from crmbridge.drivers.hubspot.finding import Finder
from crmbridge.drivers.hubspot.messages import error_of
from crmbridge.drivers.hubspot.natives import NATIVES, VERSION
from crmbridge.drivers.hubspot.objects import APPOINTMENTS, OBJECTS
from crmbridge.drivers.hubspot.people import customers
from crmbridge.drivers.hubspot.reading import MOST_ROWS, Reader, equal, milliseconds, term
from crmbridge.drivers.hubspot.writing import Writer
from crmbridge.toolkit.batches import Results, failed
from crmbridge.toolkit.composed import BatchDriver

__all__ = ["MANIFEST", "HubSpot"]

_RATE_HEADERS = "x-hubspot-ratelimit"

MANIFEST = Manifest(
    slug="hubspot",
    display_name="HubSpot",
    api_version=VERSION,
    pages=(
        "https://developers.hubspot.com/docs/guides/api/crm/using-object-apis",
        "https://developers.hubspot.com/docs/guides/api/crm/search",
        "https://developers.hubspot.com/docs/guides/api/app-management/oauth-tokens",
        "https://developers.hubspot.com/docs/guides/apps/api-usage/usage-details",
        "https://developers.hubspot.com/docs/api/error-handling",
        "https://github.com/HubSpot/HubSpot-public-api-spec-collection",
    ),
    read_on="2026-11-22",
    auth=Auth(
        kind=AuthKind.OAUTH_CODE,
        authorize_url="{app_url}/oauth/authorize",
        token_url="{api_url}/oauth/" + VERSION + "/token",
        # No revoke_url: all connections to one account share one refresh token, so revoking it for a rotated
        # credential would end the new one too. The app is uninstalled in HubSpot.
        scopes=(
            "oauth",
            "crm.objects.contacts.read",
            "crm.objects.contacts.write",
            "crm.objects.deals.read",
            "crm.objects.deals.write",
            "crm.schemas.contacts.write",
            "crm.schemas.deals.write",
            "tickets",
        ),
        authorize_extra={
            "optional_scope": "crm.objects.leads.read crm.objects.leads.write crm.schemas.leads.write"
            " crm.objects.appointments.read crm.objects.appointments.write crm.schemas.appointments.write"
        },
        uses_pkce=True,
        access_seconds=1800,
    ),
    settings=SETTINGS,
    base_url="{api_url}",
    objects=OBJECTS,
    paging=Paging(kind=PagingKind.CURSOR, cursor_param="after", next="paging.next.after", max_size=MOST_ROWS),
    budgets=(
        Budget(kind=BudgetKind.BURST, limit=110, per_seconds=10, source="OAuth", headers=_RATE_HEADERS),
        Budget(kind=BudgetKind.SEARCH, limit=5, per_seconds=1, source="per account, over all apps"),
        Budget(kind=BudgetKind.CONCURRENT, limit=6, source="what HubSpot's own Node client allows itself"),
    ),
    test_call=Call(method="GET", path=f"/account-info/{VERSION}/details"),
    verification_note="the published files of 2026-09, and HubSpot's Python client 12.0.0 (v3, v4) as witness",
    verticals=("general", "real_estate", "clinic", "auto_service"),
    strict_ids=r"[1-9][0-9]{0,19}",
    setup_help="Press Connect HubSpot and sign in as a super admin, or paste a service key.",
)


@lru_cache(maxsize=8)
def _manifest(appointment_as: str) -> Manifest:
    if appointment_as != "appointment":
        return MANIFEST
    return msgspec.structs.replace(MANIFEST, objects=OBJECTS | {Object.APPOINTMENT: APPOINTMENTS})


class HubSpot(BatchDriver):
    """One account of HubSpot."""

    MANIFEST: ClassVar[Manifest] = MANIFEST

    def __init__(self, access: Access) -> None:
        super().__init__(access)
        self.natives = {obj: NATIVES[spec.native] for obj, spec in self.manifest.objects.items()}
        self.reader = Reader(self, self.natives)
        self.writer = Writer(self.reader)
        self.leads = LeadWriter(self.writer, access.settings.get("lead_as", ""))
        self.finder = Finder(self.writer, self.leads)

    @classmethod
    def manifest_for(cls, settings: Mapping[str, str]) -> Manifest:
        """By the setting ``appointment_as``."""
        return _manifest(settings.get("appointment_as", ""))

    def base_url(self) -> str:
        return (self.access.settings.get("api_url") or API).rstrip("/")

    def record_url(self, obj: Object, remote_id: str) -> str:
        prefix = self.writer.url_prefix(self.natives[obj])
        return prefix + remote_id if prefix else ""

    # Bodies tell more than statuses: a property with unique values clashes as a 400.
    def error_from(self, response: HttpResponse, operation: str, is_write: bool) -> CrmError | None:
        if response.status < 400:
            return None
        return error_of(
            response, operation=operation, is_write=is_write, hide=lambda text: text, facts=self.access.facts
        )

    # The token endpoint answers 400 to everything, and older replies have only HubSpot's own ``status``.
    @classmethod
    def token_fault(cls, status: int, answer: Mapping[str, Any]) -> TokenFault | None:
        said = str(answer.get("status", ""))
        if said in ("BAD_REFRESH_TOKEN", "BAD_HUB"):
            return TokenFault.REVOKED
        if said.startswith("BAD_") and said != "BAD_AUTH_CODE":
            return TokenFault.MISCONFIGURED
        return TokenFault.TRANSIENT if status in (423, 477) else None

    @classmethod
    def token_facts(cls, answer: Mapping[str, Any]) -> dict[str, str]:
        hub = answer.get("hub_id")
        return {"portal_id": str(hub)} if isinstance(hub, int) else {}

    # -- connect -------------------------------------------------------------------------------------------

    async def test_connection(self) -> Proof:
        """Account details: the token is good. Object scopes are compared at consent; a service key shows its own gaps
        at the first call, by name."""
        request = HttpRequest(method="GET", url=f"/account-info/{VERSION}/details")
        response = await self.exchange(request, operation="test")
        tree = self.tree_of(response, operation="test")
        portal = tree.get("portalId") if isinstance(tree, dict) else None
        if not isinstance(portal, int) or isinstance(portal, bool):
            raise self.unexpected("account details without portalId", Operation.GET, is_write=False)
        named = {"ui_domain": "uiDomain", "time_zone": "timeZone", "currency": "companyCurrency"}
        facts = {fact: str(tree[name]) for fact, name in named.items() if isinstance(tree.get(name), str)}
        for name in ("max", "interval-milliseconds", "daily", "daily-remaining"):
            if value := response.header(f"x-hubspot-ratelimit-{name}"):
                facts[f"budget.{name}"] = value[:20]
        return Proof(account=f"HubSpot account {portal}", facts={"portal_id": str(portal), **facts})

    async def prepare(self) -> dict[str, str]:
        """Our mark on every object, the names of the tenant's own properties, and where pipelines begin."""
        names = dict.fromkeys([*(native.name for native in self.natives.values()), self.leads.always])
        return await preparation.prepare(self, [NATIVES[name] for name in names if name])

    async def describe(self, obj: Object) -> list[FieldFact]:
        self.spec(obj, Operation.DESCRIBE)
        native = self.natives[obj]
        return schema.facts_of(native, await preparation.properties_of(self, native, "describe"))

    # -- read ----------------------------------------------------------------------------------------------

    async def lookup_customer(self, *, phone: str = "", email: str = "") -> list[Record]:
        self.spec(Object.CUSTOMER, Operation.LOOKUP)
        return await customers(self.reader, email=email, phone=phone)

    async def search_records(self, obj: Object, filter: Filter, cursor: str = "") -> Page:
        self.spec(obj, Operation.SEARCH)
        if cursor and not (cursor.isdecimal() and len(cursor) <= 5):
            raise ValidationError("The cursor is not one of this search.", provider="hubspot")
        group = [*equal(self.natives[obj], filter.equals), *self._kind(obj)]
        records, following = await self.reader.search(
            obj, [group], text=filter.text, after=cursor, limit=filter.limit
        )
        return Page(records=records, next_cursor=following)

    def _kind(self, obj: Object) -> list[dict[str, str]]:
        return [term("lifecyclestage", "EQ", "lead")] if obj is Object.LEAD else []

    async def get_record(self, obj: Object, remote_id: str) -> Record:
        self.spec(obj, Operation.GET)
        return await self.reader.get(obj, remote_id)

    async def list_recent(self, obj: Object, *, since: str = "", cursor: str = "", limit: int = 50) -> Page:
        self.spec(obj, Operation.LIST)
        base = self._kind(obj)
        if since:
            base.append(term(self.natives[obj].modified, "GTE", milliseconds(since)))
        return await self.reader.recent(obj, base, cursor, limit)

    # -- write ---------------------------------------------------------------------------------------------

    async def results_of(self, obj: Object, operation: Operation, writes: dict[int, Write]) -> Results:
        results: Results = {}
        places = list(writes)
        for start in range(0, len(places), MOST_ROWS):
            part = {place: writes[place] for place in places[start : start + MOST_ROWS]}
            results |= await self._send(obj, operation, part)
        return results

    async def _send(self, obj: Object, operation: Operation, writes: dict[int, Write]) -> Results:
        if operation is Operation.DELETE:
            return await self.writer.archive(obj, {place: one.remote_id for place, one in writes.items()})
        if obj is Object.LEAD:
            verbs = {Operation.CREATE: self.leads.create, Operation.UPSERT: self.leads.upsert}
            return await verbs.get(operation, self.leads.update)(writes)
        results, writes = _without_related(writes)
        if operation is Operation.UPDATE:
            return results | await self.writer.update(obj, writes)
        if operation is Operation.UPSERT:
            return results | await self.writer.upsert(obj, writes)
        native = self.natives[obj]
        bodies = self.writer.inputs(native, writes, results)
        return results | await self.writer.create(native, writes, bodies)

    # gdpr-delete is for contacts alone.
    async def erase_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        self.spec(obj, Operation.ERASE)
        if self.natives[obj].name != "contacts":
            return await self.delete_record(obj, remote_id)
        await erase_contact(self.reader, obj, remote_id)
        return DeleteLevel.HARD

    async def find_written(self, write: Write) -> WriteResult:
        return await self.finder.find(write)

    def preview(self, write: Write) -> Any:
        return self.finder.preview(write)


def _without_related(writes: dict[int, Write]) -> tuple[Results, dict[int, Write]]:
    results: Results = {}
    for place, write in writes.items():
        if write.related:
            names = ", ".join(part.native_object for part in write.related)
            text = f"Fields of a {write.object.value} are mapped to {names}; only a lead has a second record."
            results[place] = failed(ValidationError(text, provider="hubspot"), write.remote_id)
    return results, {place: write for place, write in writes.items() if place not in results}
