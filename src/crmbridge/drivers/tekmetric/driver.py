"""Tekmetric, public API v1: customers, appointments, and repair orders to read.

Pages: https://api.tekmetric.com/ (partner-gated; public copies of its text and field notes of live use, see
NOTES.md), read 2026-11-22. One client has one token for all shops in its scope, so every record is checked against
the shop of this connection. A 200 with ``type: ERROR`` is a refusal. Nothing here was tried against a live shop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from crmbridge.core.driver import Proof
from crmbridge.core.errors import (
    AuthError,
    Conflict,
    CrmError,
    NotFound,
    ValidationError,
)
from crmbridge.core.manifest import (
    Auth,
    AuthKind,
    Budget,
    BudgetKind,
    Manifest,
    Paging,
    PagingKind,
)
from crmbridge.core.operations import DeleteLevel, Operation, Outcome
from crmbridge.core.records import FieldFact, Filter, Object, Page, Record, Write, WriteResult
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.tekmetric import erasure, searching, shapes, wording
from crmbridge.drivers.tekmetric.credential import SETTINGS
from crmbridge.drivers.tekmetric.fields import FIELDS
from crmbridge.drivers.tekmetric.messages import SHOP_FIX, error_of
from crmbridge.drivers.tekmetric.objects import DOCS, OBJECTS
from crmbridge.drivers.tekmetric.shop import Shop
from crmbridge.toolkit import paging
from crmbridge.toolkit.fieldmap import get_path
from crmbridge.toolkit.schema import field_facts

MANIFEST = Manifest(
    slug="tekmetric",
    display_name="Tekmetric",
    api_version="v1",
    pages=(DOCS,),
    read_on="2026-11-22",
    auth=Auth(
        kind=AuthKind.CLIENT_CREDENTIALS,
        user="client_id",
        secret="client_secret",  # noqa: S106 - the name of a setting
        token_url="{base_url}/api/v1/oauth/token",  # noqa: S106 - an address
        client_auth="basic",
        # The token stays valid until revoked, and a repeated call answers the same one.
        access_seconds=0,
    ),
    settings=SETTINGS,
    base_url="{base_url}/api/v1",
    objects=OBJECTS,
    paging=Paging(
        kind=PagingKind.PAGE, size_param="size", cursor_param="page", first_page=0, size=50, max_size=100
    ),
    budgets=(Budget(kind=BudgetKind.BURST, limit=600, per_seconds=60, source=f"{DOCS} (per client)"),),
    verification_note="no published specification; public copies of the documentation and field notes",
    verticals=("auto_service",),
    strict_ids=r"[1-9][0-9]{0,18}",
    setup_help="Apply for API access at api.tekmetric.com (weeks), let the shop grant your client, then connect.",
)
SANDBOX = msgspec.structs.replace(
    MANIFEST, budgets=(Budget(kind=BudgetKind.BURST, limit=300, per_seconds=60, source=f"{DOCS} (sandbox)"),)
)

_MARK_PAGES = 20


class Tekmetric(Shop):
    """One shop through one client."""

    MANIFEST = MANIFEST

    @classmethod
    def manifest_for(cls, settings: Mapping[str, str]) -> Manifest:
        """The sandbox allows half the calls."""
        return SANDBOX if "//sandbox." in settings.get("base_url", "") else cls.MANIFEST

    # The token's scope is a list of shop ids; GET /shops answers them as a bare list.
    async def test_connection(self) -> Proof:
        """The shops in scope. Raises AuthError when this connection's shop is not among them."""
        own = self._shop()
        tree = await self.exchange_json(HttpRequest(method="GET", url="/shops"), operation="test")
        if not isinstance(tree, list) or not all(isinstance(shop, dict) for shop in tree):
            raise self.unexpected("something that is not a list of shops", Operation.GET, is_write=False)
        shops = {self.id_text(shop.get("id")): str(shop.get("name", ""))[:200] for shop in tree}
        if own not in shops:
            raise AuthError(
                f"Tekmetric does not let this client into shop {own}.",
                subcode="insufficient_scope",
                provider=self.manifest.slug,
                operation="test",
                fix=SHOP_FIX,
                provider_facts={"shops_in_scope": sorted(shops)[:50]},
            )
        return Proof(account=shops[own] or f"shop {own}", scopes=sorted(shops))

    async def describe(self, obj: Object) -> list[FieldFact]:
        self.spec(obj, Operation.DESCRIBE)
        return field_facts(FIELDS[obj])

    # -- reading -------------------------------------------------------------------------------------------

    def record_from(self, obj: Object, native: dict[str, Any]) -> Record:
        record = super().record_from(obj, shapes.native(obj, native))
        record.is_archived = bool(native.get("deletedDate"))
        return record

    # Lists are a Spring page; some deployments answered a bare list.
    def records_in(self, operation: Operation, obj: Object, tree: Any) -> list[dict[str, Any]]:
        return super().records_in(operation, obj, tree.get("content") if isinstance(tree, dict) else tree)

    def next_page(
        self, operation: Operation, obj: Object, response: HttpResponse, tree: Any, asked: paging.Asked
    ) -> str:
        if not isinstance(tree, dict):
            return super().next_page(operation, obj, response, tree, asked)
        has_more = tree.get("last") is False and asked.count > 0
        return str(int(asked.cursor or 0) + 1) if has_more else ""

    # `search` is a fuzzy substring over name, e-mail and phone: what comes is compared again.
    async def search_records(self, obj: Object, filter: Filter, cursor: str = "") -> Page:
        self.spec(obj, Operation.SEARCH)
        page = await super().search_records(obj, searching.asked(obj, filter), cursor)
        page.records = [one for one in page.records if self._fits(one, filter.equals)]
        return page

    def _fits(self, record: Record, equals: Mapping[str, Any]) -> bool:
        self._turn_to(record, equals)
        return self._is_match(record, equals)

    def _turn_to(self, record: Record, wanted: Mapping[str, Any]) -> None:
        """A customer who was asked for by his second phone or e-mail shows that one."""
        for name in ("phone", "email"):
            all_of_them = record.native.get(f"{name}s", ()) if wanted.get(name) else ()
            if same := [one for one in all_of_them if self.is_same(name, wanted[name], one)]:
                record.native[name] = same[0]

    def holds(self, record: Record, fields: Mapping[str, Any], *, exact: bool = True) -> bool:
        self._turn_to(record, fields)
        return super().holds(record, fields, exact=exact)

    # -- writing -------------------------------------------------------------------------------------------

    def request_for(self, operation: Operation, obj: Object, scope: Mapping[str, Any]) -> HttpRequest:
        if operation not in (Operation.CREATE, Operation.UPDATE):
            return super().request_for(operation, obj, scope)
        record = dict(scope["record"])
        if operation is Operation.CREATE:
            record["shopId"] = int(self._shop())
            if obj is Object.APPOINTMENT:
                record = shapes.lasting(record, int(self.needed("appointment_minutes")))
                record["about"] = {**record.get("about", {}), "ref": scope["key"]}
        return super().request_for(operation, obj, {**scope, "record": shapes.body(obj, record)})

    async def create_record(self, write: Write) -> WriteResult:
        try:
            return await super().create_record(write)
        except Conflict as conflict:  # the text names no id
            conflict.existing_remote_id = await self._twin(write)
            raise

    async def _twin(self, write: Write) -> str:
        for path in self.manifest.objects[write.object].natural_keys:
            try:
                if value := write.fields.get(path):
                    page = await self.search_records(write.object, Filter(equals={path: value}))
                    if page.records:
                        return page.records[0].remote_id
            except CrmError:
                break  # the conflict itself is the news
        return ""

    async def update_record(self, write: Write) -> WriteResult:
        self.spec(write.object, Operation.UPDATE)
        fields = self._scope(write, Operation.UPDATE)["record"]
        current = await self._raw(write.object, write.remote_id)
        body = shapes.body(write.object, fields, current)
        await self._patch(write.object, write.remote_id, body, Operation.UPDATE)
        return self._applied(write, write.remote_id, was_created=False)

    async def delete_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        self.spec(obj, Operation.DELETE)
        await self.get_record(obj, remote_id)
        return await super().delete_record(obj, remote_id)

    # A soft delete keeps the texts, so they go first, and also from what is deleted already. That Tekmetric takes
    # empty texts, and changes of a deleted appointment, is UNCONFIRMED: what it keeps becomes a task for the shop.
    async def erase_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        level = self.spec(obj, Operation.ERASE).erase_level
        current = await self._raw(obj, remote_id)
        if not erasure.is_emptied(current):
            try:
                await self._patch(obj, remote_id, erasure.ERASED, Operation.ERASE)
            except (NotFound, ValidationError, Conflict) as refusal:
                if isinstance(refusal, NotFound) and not current.get("deletedDate"):
                    raise  # gone since it was read
                raise erasure.kept() from None
            if not erasure.is_emptied(await self._raw(obj, remote_id)):
                raise erasure.kept()
        return level if current.get("deletedDate") else await super().erase_record(obj, remote_id)

    async def _find(self, write: Write) -> WriteResult:
        if write.operation is Operation.ERASE:  # deleted alone is not erased
            try:
                current = await self._raw(write.object, write.remote_id)
            except NotFound:
                return self._found(write.remote_id, Outcome.APPLIED)
            is_done = current.get("deletedDate") and erasure.is_emptied(current)
            return self._found(write.remote_id if is_done else "", Outcome.NOT_APPLIED)
        if write.object is not Object.APPOINTMENT or write.operation is not Operation.CREATE:
            result = await super()._find(write)
            is_certain = write.operation is not Operation.UPDATE or not _takes_first_away(write.fields)
            return result if result.remote_id or is_certain else WriteResult(outcome=Outcome.UNKNOWN)
        names = {**searching.window(write.fields.get("startTime")), "includeDeleted": "true"}
        mark, cursor = self.mark(write), ""
        for _ in range(_MARK_PAGES):
            page = await self._page(Operation.SEARCH, write.object, names, {}, cursor, 100)
            found = [one for one in page.records if get_path(one.native, "about.ref") == mark]
            cursor = page.next_cursor
            if found or not cursor:
                return self._found(found[0].remote_id if found else "", Outcome.NOT_APPLIED)
        return WriteResult(outcome=Outcome.UNKNOWN)

    # -- failing -------------------------------------------------------------------------------------------

    # Values of the block go out behind their labels.
    def bare_texts(self, request: HttpRequest) -> list[str]:
        body = request.json if isinstance(request.json, dict) else {}
        parts = [wording.split(body.get(name)) for name in ("notes", "description") if body.get(name)]
        return [str(text) for free, about in parts for text in (free, *about.values())]

    def error_from(self, response: HttpResponse, operation: str, is_write: bool) -> CrmError | None:
        return error_of(response, provider=self.manifest.slug, operation=operation, is_write=is_write)


def _takes_first_away(fields: Mapping[str, Any]) -> bool:
    """A repeat of such an update would take the next phone or e-mail."""
    return any(name in fields and not fields[name] for name in ("phone", "email"))
