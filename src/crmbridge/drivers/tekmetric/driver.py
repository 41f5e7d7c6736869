"""Tekmetric, public API v1: customers, appointments, and repair orders to read.

Pages: https://api.tekmetric.com/ (partner-gated; public copies of its text and field notes of live use, see
NOTES.md), read 2026-11-22. One client has one token for all shops in its scope, so every record is checked against
the shop of this connection. A 200 with ``type: ERROR`` is a refusal. Nothing here was tried against a live shop.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from crmbridge.core.driver import Proof
from crmbridge.core.errors import (
    AuthError,
    Conflict,
    CrmError,
    FieldError,
    Fix,
    NotConfigured,
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
    Setting,
)
from crmbridge.core.operations import DeleteLevel, Operation, Outcome
from crmbridge.core.records import FieldFact, Filter, Object, Page, Record, Write, WriteResult
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.tekmetric import erasure, searching, shapes, wording
from crmbridge.drivers.tekmetric.fields import FIELDS
from crmbridge.drivers.tekmetric.objects import DOCS, OBJECTS
from crmbridge.toolkit import failures, paging
from crmbridge.toolkit.fieldmap import get_path
from crmbridge.toolkit.rest import RestDriver
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
    settings=(
        Setting(
            name="shop_id",
            label="Shop id",
            help="The number of the shop in Tekmetric. The shop must have granted access to your client.",
            pattern=r"[1-9][0-9]{0,17}",
            example="791",
        ),
        Setting(name="client_id", label="Client id", help="Of your approved Tekmetric API application."),
        Setting(
            name="client_secret",
            label="Client secret",
            help="Belongs to the client id; Tekmetric shows it once.",
            is_secret=True,
        ),
        Setting(
            name="base_url",
            label="Address",
            help="https://shop.tekmetric.com, or https://sandbox.tekmetric.com with a sandbox client.",
            kind="url",
            pattern=r"https?://[^\s?#@]{3,300}",
            default="https://shop.tekmetric.com",
        ),
        Setting(
            name="appointment_minutes",
            label="Minutes of an appointment",
            help="How long an appointment lasts when nobody gave its end; Tekmetric requires one.",
            pattern=r"[1-9][0-9]{0,3}",
            default="60",
        ),
    ),
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
_SHOP_FIX = Fix("grant_shop", "Let the shop grant your Tekmetric client access, or correct the shop id.")


class Tekmetric(RestDriver):
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
                fix=_SHOP_FIX,
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

    # One token sees the shops of other tenants: `shop=` in a list is asked for, and not trusted.
    def _number_of(self, name: str, pattern: str, default: str = "") -> str:
        text = self.access.settings.get(name) or default
        if not re.fullmatch(pattern, text):
            raise NotConfigured(
                f"The setting {name!r} of this connection is {'not valid' if text else 'missing'}.",
                provider=self.manifest.slug,
                fix=Fix("fill_in", f"Fill in {name!r} in the credential form and test it again."),
            )
        return text

    def _shop(self) -> str:
        """The shop of this connection. Raises NotConfigured."""
        return self._number_of("shop_id", r"[1-9][0-9]{0,17}")

    def _is_own(self, native: Mapping[str, Any]) -> bool:
        """Raises UnexpectedResponse for a record that tells no shop: unseen, it would be made again."""
        if not (shop := self.id_text(native.get("shopId"))):
            raise self.unexpected("a record without shopId", Operation.GET, is_write=False)
        return shop == self._shop()

    async def get_record(self, obj: Object, remote_id: str) -> Record:
        self._shop()
        record = await super().get_record(obj, remote_id)
        if not self._is_own(record.native):
            raise self._not_here("get")
        return record

    def _not_here(self, operation: str) -> NotFound:
        return NotFound(
            "Tekmetric has no such record in this shop.", provider=self.manifest.slug, operation=operation
        )

    # After the page is read, so that rows left out do not end the paging.
    async def _page(self, operation: Operation, obj: Object, *rest: Any) -> Page:
        self._shop()
        page = await super()._page(operation, obj, *rest)
        page.records = [one for one in page.records if self._is_own(one.native)]
        return page

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
                minutes = self._number_of("appointment_minutes", r"[1-9][0-9]{0,3}", "60")
                record = shapes.lasting(record, int(minutes))
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

    async def _raw(self, obj: Object, remote_id: str) -> dict[str, Any]:
        """The record in Tekmetric's own shape, of this shop."""
        self._shop()
        _, tree, _ = await self._perform(Operation.GET, obj, {"id": self.check_id(obj, remote_id)})
        if not isinstance(tree, dict):
            raise self.unexpected("something that is not a record", Operation.GET, is_write=False)
        if not self._is_own(tree):
            raise self._not_here("get")
        return tree

    async def _patch(self, obj: Object, remote_id: str, body: dict[str, Any], operation: Operation) -> None:
        path = self.manifest.objects[obj].path
        tree = await self.exchange_json(
            HttpRequest(method="PATCH", url=f"{path}/{remote_id}", json=body),
            operation=operation.value,
            is_write=True,
        )
        if not isinstance(tree, dict) or tree.get("type") != "SUCCESS":
            raise self.unexpected("a change without SUCCESS", operation, is_write=True)

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

    # Values of the block go out behind their labels; an echo may come without.
    def redactor_for(self, request: HttpRequest) -> Callable[[str], str]:
        body = request.json if isinstance(request.json, dict) else {}
        parts = [wording.split(body.get(name)) for name in ("notes", "description") if body.get(name)]
        bare = [text for free, about in parts for text in (free, *about.values())]
        return super().redactor_for(msgspec.structs.replace(request, query={**request.query, "bare": bare}))

    def error_from(self, response: HttpResponse, operation: str, is_write: bool) -> CrmError | None:
        """A refusal may come with 200; its fields stand in ``details``. 401 and 429 have empty bodies."""
        try:
            tree = response.json() if response.body else None
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return None
        if not isinstance(tree, dict):
            return None
        is_fine = 200 <= response.status < 300
        if is_fine and tree.get("type") != "ERROR":
            return None
        details = tree.get("details")
        return failures.error_for_status(
            response,
            provider=self.manifest.slug,
            operation=operation,
            is_write=is_write,
            overrides=_STATUSES | ({response.status: _REFUSED} if is_fine else {}),
            message=str(tree.get("message") or ""),
            fields=tuple(
                FieldError(_slot(name), str(text)) for name, text in details.items() if isinstance(text, str)
            )
            if isinstance(details, dict)
            else (),
        )


_REFUSED = failures.StatusRule(error=ValidationError, outcome=Outcome.NOT_APPLIED, retry_safe=False)
_STATUSES = {403: failures.StatusRule(error=AuthError, subcode="insufficient_scope", fix=_SHOP_FIX)}


def _takes_first_away(fields: Mapping[str, Any]) -> bool:
    """A repeat of such an update would take the next phone or e-mail."""
    return any(name in fields and not fields[name] for name in ("phone", "email"))


def _slot(name: Any) -> str:
    return re.sub(r"[^\w.\[\]-]", "", str(name))[:80]
