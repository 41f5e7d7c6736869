"""Toast platform APIs: the guests of one restaurant, and nothing else.

Pages: https://doc.toasttab.com/doc/devguide/authentication.html, the guides and specifications beside it (see
NOTES.md), read 2026-11-22. UNCONFIRMED BY VENDOR: no published page shows a guest API for new partners. It is built on
a base path that the operator sets (objects.py holds its calls in one table). Without it, guests are read from orders,
which is documented; writes and erasures are refused with the way out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from crmbridge.core.driver import Proof
from crmbridge.core.errors import (
    Conflict,
    CrmError,
    FieldError,
    NotConfigured,
    NotFound,
    RateLimited,
)
from crmbridge.core.manifest import Auth, AuthKind, Budget, BudgetKind, Manifest, Paging, PagingKind
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import FieldFact, Filter, Object, Page, Record, Write, WriteResult
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.toast import shapes
from crmbridge.drivers.toast.credential import GUID, SETTINGS
from crmbridge.drivers.toast.messages import CONNECT, error_of
from crmbridge.drivers.toast.objects import DOCS, guests_by_api, guests_on_orders
from crmbridge.drivers.toast.redaction import Redaction
from crmbridge.toolkit.auth import SecretRef
from crmbridge.toolkit.schema import field_facts

_GUIDE = "https://doc.toasttab.com/doc/devguide"
_SIGN_IN = "/authentication/v1/authentication/login"
_SIGN_IN_AUTH = Auth(kind=AuthKind.SIGN_IN)

MANIFEST = Manifest(
    slug="toast",
    display_name="Toast",
    api_version="orders v2, authentication v1, guests unconfirmed",
    pages=(
        f"{_GUIDE}/authentication.html",
        f"{_GUIDE}/apiOrdersGetScopes.html",
        f"{_GUIDE}/apiRateLimiting.html",
        DOCS,
    ),
    read_on="2026-11-22",
    auth=Auth(
        kind=AuthKind.CLIENT_CREDENTIALS,
        user="client_id",
        secret="client_secret",  # noqa: S106 - the name of a setting
        token_url="{base_url}" + _SIGN_IN,
        scopes=("restaurants:read", "guest.pi:read"),
        access_seconds=86_400,
        # Asked for at most twice an hour: a repeated call answers the same token until its last minute.
        token_calls_per_minute=1,
    ),
    settings=SETTINGS,
    base_url="{base_url}",
    objects=guests_by_api("/guests"),
    paging=Paging(
        kind=PagingKind.PAGE, size_param="pageSize", cursor_param="page", first_page=1, size=50, max_size=100
    ),
    # 20 a second and 10,000 in 15 minutes: 11 a second keep to both.
    budgets=(
        Budget(kind=BudgetKind.BURST, limit=11, per_seconds=1, source=f"{_GUIDE}/apiRateLimiting.html"),
    ),
    verification_note="unconfirmed by vendor: no published guest API; sign-in, orders, errors and limits by spec",
    verticals=("restaurant",),
    strict_ids=r"[A-Za-z0-9-]{1,64}(\.[A-Za-z0-9-]{1,64})?",
    setup_help="Become a Toast partner; the restaurant then connects your client in Toast Web. "
    "Standard API access cannot write.",
)
_BULK = Budget(kind=BudgetKind.SEARCH, limit=5, per_seconds=1, source=f"{_GUIDE}/apiRateLimiting.html")
_FROM_ORDERS = msgspec.structs.replace(
    MANIFEST,
    objects=guests_on_orders(),
    auth=msgspec.structs.replace(MANIFEST.auth, scopes=(*MANIFEST.auth.scopes, "orders:read")),
    budgets=(*MANIFEST.budgets, _BULK),
)

_SIGN_IN_PAUSE_SECONDS = 1800.0


@lru_cache(maxsize=64)
def _manifest(guest_path: str) -> Manifest:
    if not guest_path:
        return _FROM_ORDERS
    return msgspec.structs.replace(MANIFEST, objects=guests_by_api(guest_path))


class Toast(Redaction):
    """One restaurant through one partner client."""

    MANIFEST = MANIFEST

    @classmethod
    def manifest_for(cls, settings: Mapping[str, str]) -> Manifest:
        """What the guest base path makes possible; the whole without settings."""
        return _manifest(settings.get("guest_path", "").strip().rstrip("/")) if settings else cls.MANIFEST

    # -- who calls -----------------------------------------------------------------------------------------

    @classmethod
    def token_facts(cls, answer: Mapping[str, Any]) -> dict[str, str]:
        return {"scopes": str(answer["scope"])[:4000]} if answer.get("scope") else {}

    # Client credentials, but neither a form nor the names of RFC 6749. The field scope of the answer is null; the
    # scopes stand in the token.
    async def sign_in(self) -> dict[str, Any]:
        """A token and the seconds left of it: a repeated call answers the same one. Never tried twice."""
        secrets = {
            name: one for name, one in self.access.secrets.items() if name in ("client_id", "client_secret")
        }
        signing = type(self)(msgspec.structs.replace(self.access, secrets=secrets, renew=None))
        signing.manifest = msgspec.structs.replace(self.manifest, auth=_SIGN_IN_AUTH)
        own_id = self.access.settings.get("client_id", "").strip()
        body = {
            "clientId": SecretRef("client_id") if secrets.get("client_id") else own_id,
            "clientSecret": SecretRef("client_secret"),
            "userAccessType": "TOAST_MACHINE_CLIENT",
        }
        request = HttpRequest(method="POST", url=_SIGN_IN, json=body)
        try:
            # Not as a read, which would be repeated: sign-ins are few and counted by our address.
            tree = await signing.exchange_json(request, operation="token", is_write=True)
        except RateLimited as error:
            error.retry_after_seconds = error.retry_after_seconds or _SIGN_IN_PAUSE_SECONDS
            raise
        token = tree.get("token") if isinstance(tree, dict) else None
        text = token.get("accessToken") if isinstance(token, dict) else None
        if not isinstance(token, dict) or not isinstance(text, str) or not text:
            raise self.unexpected("a sign-in without a token", Operation.GET, is_write=False)
        return {"access_token": text, "expires_in": token.get("expiresIn"), "scope": shapes.scopes_in(text)}

    # The restaurant's header is on every call that is about one, and not on the sign-in.
    async def exchange(self, request: HttpRequest, **told: Any) -> HttpResponse:
        if request.url != _SIGN_IN:
            guid = self.access.settings.get("restaurant_guid", "").strip()
            request.headers.setdefault("Toast-Restaurant-External-ID", guid)
        return await super().exchange(request, **told)

    async def test_connection(self) -> Proof:
        """The restaurant, by its GUID; scopes that the token lacks are named."""
        guid = self.access.settings.get("restaurant_guid", "").strip()
        if not re.fullmatch(GUID, guid):
            raise _no_restaurant()
        request = HttpRequest(method="GET", url=f"/restaurants/v1/restaurants/{guid}")
        try:
            tree = await self.exchange_json(request, operation="test")
        except NotFound:
            raise _no_restaurant() from None
        general = tree.get("general") if isinstance(tree, dict) else None
        if not isinstance(general, dict):
            raise self.unexpected("something that is not a restaurant", Operation.GET, is_write=False)
        names = [str(general[name]) for name in ("name", "locationName") if general.get(name)]
        granted = self.access.facts.get("scopes", "").split()
        needed = self.manifest.auth.scopes if granted else ()
        zone = general.get("timeZone")
        warnings = ["Toast marks this restaurant as archived."] if general.get("archived") is True else []
        return Proof(
            account=", ".join(names)[:200] or guid,
            facts={"time_zone": zone[:60]} if isinstance(zone, str) else {},
            scopes=granted,
            missing_rights=[scope for scope in needed if scope not in granted],
            warnings=warnings,
        )

    async def describe(self, obj: Object) -> list[FieldFact]:
        self.spec(obj, Operation.DESCRIBE)
        facts = field_facts(shapes.FIELDS)
        for fact in facts:
            fact.is_read_only |= not self.manifest.supports(obj, Operation.UPDATE).is_usable
        return facts

    # -- reading -------------------------------------------------------------------------------------------

    def record_from(self, obj: Object, native: dict[str, Any]) -> Record:
        record = super().record_from(obj, shapes.guest(native) if "guid" in native else native)
        record.is_archived = native.get("active") is False
        return record

    async def search_records(self, obj: Object, filter: Filter, cursor: str = "") -> Page:
        self.spec(obj, Operation.SEARCH)
        asked = {name: filter.equals[name] for name in ("email", "phone") if filter.equals.get(name)}
        if filter.text or not asked:
            problem = "needs an e-mail or a phone; nothing else is searchable"
            raise self.invalid("Toast cannot search so.", "filter", problem, operation="search")
        sent = {
            name: text for key, value in asked.items() for name, text in shapes.wanted(key, value).items()
        }
        page = await super().search_records(obj, msgspec.structs.replace(filter, equals=sent), cursor)
        page.records = [one for one in page.records if self._is_match(one, filter.equals)]
        return page

    # -- writing -------------------------------------------------------------------------------------------

    def request_for(self, operation: Operation, obj: Object, scope: Mapping[str, Any]) -> HttpRequest:
        if operation in (Operation.CREATE, Operation.UPDATE):
            record = shapes.body(scope["record"])
            if operation is Operation.CREATE:
                record["guid"] = shapes.guid_of(scope["key"])
            scope = {**scope, "record": record}
        return super().request_for(operation, obj, scope)

    async def create_record(self, write: Write) -> WriteResult:
        try:
            return await super().create_record(write)
        except Conflict as conflict:
            conflict.existing_remote_id = await self._twin(write)
            raise

    async def _twin(self, write: Write) -> str:
        """The guest in the way: the one of this very write, or the one with the same e-mail or phone."""
        try:
            found = await self._find(write)
            if not found.remote_id:
                for record in await self._alike(write):
                    return record.remote_id
        except CrmError:
            return ""  # the conflict itself is the news
        return found.remote_id

    async def _alike(self, write: Write) -> list[Record]:
        found: list[Record] = []
        for name in ("email", "phone"):
            if value := write.fields.get(name):
                found += (await self.search_records(write.object, Filter(equals={name: value}))).records
        return found

    # That Toast keeps a client-made id is UNCONFIRMED, so its absence alone proves nothing.
    async def _find(self, write: Write) -> WriteResult:
        if write.operation is not Operation.CREATE:
            return await super()._find(write)
        try:
            record = await self.get_record(write.object, shapes.guid_of(self.mark(write)))
            return self._found(record.remote_id, Outcome.UNKNOWN)
        except NotFound:
            has_key = any(write.fields.get(name) for name in ("email", "phone"))
            is_there = not has_key or any(
                self.holds(one, write.fields, exact=False) for one in await self._alike(write)
            )
            return WriteResult(outcome=Outcome.UNKNOWN if is_there else Outcome.NOT_APPLIED)

    def error_from(self, response: HttpResponse, operation: str, is_write: bool) -> CrmError | None:
        return error_of(response, provider=self.manifest.slug, operation=operation, is_write=is_write)


def _no_restaurant() -> NotConfigured:
    problem = FieldError("restaurant_guid", "is no restaurant that this client may see")
    return NotConfigured(
        "Toast has no such restaurant.", provider="toast", operation="test", fields=(problem,), fix=CONNECT
    )
