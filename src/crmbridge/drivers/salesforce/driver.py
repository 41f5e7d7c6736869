"""Salesforce (Sales and Service Cloud) by its REST API, over OAuth.

customer is a Contact, lead a Lead, deal an Opportunity (its customer a contact role beside it), appointment an
Event, case a Case, activity a Task, note a (classic) Note. Writes go as sObject collections, 200 a call, and
above 2,000 in one ``write_batch`` as a Bulk API 2.0 job. Salesforce has no idempotency key: a unique External Id
field that an administrator makes carries our mark. Calls go to the instance that the token names, if Salesforce's.
Pages: see ``MANIFEST.pages`` (read 2026-11-22). What they leave open is UNCONFIRMED in NOTES.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

import msgspec

from crmbridge.core.driver import Access, Proof
from crmbridge.core.errors import AuthError, CrmError, UnexpectedResponse
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
from crmbridge.core.records import FieldFact, Object
from crmbridge.core.tokens import TokenFault
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.salesforce import hosts, schema
from crmbridge.drivers.salesforce.credential import SETTINGS
from crmbridge.drivers.salesforce.erasure import erase
from crmbridge.drivers.salesforce.finding import Finder
from crmbridge.drivers.salesforce.messages import error_of, read_usage
from crmbridge.drivers.salesforce.natives import DATA, MARK, NATIVES, VERSION
from crmbridge.drivers.salesforce.objects import objects
from crmbridge.drivers.salesforce.reading import MOST_ROWS, Reader
from crmbridge.drivers.salesforce.writing import Writer
from crmbridge.toolkit.composed import ComposedDriver
from crmbridge.toolkit.limits import LimitReading

__all__ = ["MANIFEST", "Salesforce"]

MANIFEST = Manifest(
    slug="salesforce",
    display_name="Salesforce",
    api_version=VERSION,
    pages=(
        "https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/intro_rest.htm",
        "https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/sforce_api_objects_list.htm",
        "https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/asynch_api_intro.htm",
        "https://developer.salesforce.com/docs/atlas.en-us.soql_sosl.meta/soql_sosl/sforce_api_calls_soql.htm",
        "https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_flows.htm",
    ),
    read_on="2026-11-22",
    auth=Auth(
        kind=AuthKind.OAUTH_CODE,
        authorize_url="{login_url}/services/oauth2/authorize",
        token_url="{login_url}/services/oauth2/token",  # noqa: S106 - an address
        revoke_url="{login_url}/services/oauth2/revoke",
        scopes=("api", "refresh_token"),
        uses_pkce=True,
        # The answer tells no life: the session policy decides (2 hours unless changed), a 401 tells the end.
        access_seconds=7200,
        # Only where the app is configured so; a new refresh token in an answer is kept either way.
        refresh_rotates=False,
    ),
    settings=SETTINGS,
    base_url="{instance_url}",
    objects=objects(DeleteLevel.REDACTED),
    paging=Paging(kind=PagingKind.CURSOR, max_size=MOST_ROWS),
    budgets=(
        Budget(
            kind=BudgetKind.DAILY,
            limit=15_000,
            per_seconds=86_400,
            source="Developer Edition, the smallest; the org's own limit comes with every answer",
        ),
        Budget(kind=BudgetKind.CONCURRENT, limit=5, source="long calls in a developer or trial org"),
    ),
    test_call=Call(method="GET", path="/services/oauth2/userinfo"),
    verification_note="published pages and an emulator; the Python client simple-salesforce as witness",
    verticals=("general", "real_estate"),
    strict_ids=r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?",
    timeout_seconds=60.0,
    setup_help="Press Connect Salesforce and sign in as an integration user. Let an administrator make the field"
    f" {MARK} (text 80, External ID, Unique) on each object, then prepare again.",
)


@lru_cache(maxsize=4)
def _manifest(is_hard: bool) -> Manifest:
    return msgspec.structs.replace(MANIFEST, objects=objects(DeleteLevel.HARD)) if is_hard else MANIFEST


class Salesforce(ComposedDriver):
    """One org of Salesforce."""

    MANIFEST: ClassVar[Manifest] = MANIFEST

    def __init__(self, access: Access) -> None:
        super().__init__(access)
        self.reader: Reader = Reader(self)
        self.writer: Writer = Writer(self.reader)
        self.finder: Finder = Finder(self.writer)

    @classmethod
    def manifest_for(cls, settings: Mapping[str, str]) -> Manifest:
        """By the setting ``hard_delete``."""
        return _manifest(settings.get("hard_delete") == "yes")

    def base_url(self) -> str:
        return hosts.instance_of(self.access.settings, self.access.facts)

    # Codes tell more than statuses: a lock is a 400, a used-up limit a 403.
    def error_from(self, response: HttpResponse, operation: str, is_write: bool) -> CrmError | None:
        if response.status < 300:
            return None
        return error_of(response, operation=operation, is_write=is_write, hide=lambda text: text)

    @classmethod
    def budgets_from(cls, response: HttpResponse) -> dict[BudgetKind, LimitReading]:
        return {BudgetKind.DAILY: read_usage(response)}

    @classmethod
    def token_facts(cls, answer: Mapping[str, Any]) -> dict[str, str]:
        return hosts.token_facts(answer)

    # "full" holds "api"; "offline_access" is another name of "refresh_token".
    @classmethod
    def missing_scopes(cls, granted: frozenset[str]) -> list[str]:
        also = {"full": "api", "offline_access": "refresh_token"}
        has = granted | {also[scope] for scope in granted if scope in also}
        return [scope for scope in MANIFEST.auth.scopes if scope not in has]

    # Two refreshes at once answer invalid_grant although the grant is well (since mid-2024).
    @classmethod
    def token_fault(cls, status: int, answer: Mapping[str, Any]) -> TokenFault | None:
        error, said = str(answer.get("error", "")), str(answer.get("error_description", "")).lower()
        if error == "invalid_grant" and ("already being processed" in said or "authorization code" in said):
            return TokenFault.TRANSIENT
        if error in ("inactive_user", "inactive_org"):
            return TokenFault.REVOKED
        if error == "invalid_client_id" or error.startswith("OAUTH_"):
            return TokenFault.MISCONFIGURED
        return TokenFault.THROTTLED if error == "rate_limit_exceeded" else None

    # -- connect -------------------------------------------------------------------------------------------

    async def test_connection(self) -> Proof:
        """``userinfo`` (the list of API versions answers to anybody), then which of our objects this user may write:
        Salesforce has no scopes per object."""
        settings, facts = self.access.settings, self.access.facts
        door = facts.get("instance_url") or hosts.login_of(settings)
        door = door if hosts.is_salesforce(door) else hosts.login_of(settings)
        request = HttpRequest(method="GET", url=f"{door}/services/oauth2/userinfo")
        tree = await self.exchange_json(request, operation="test")
        if not isinstance(tree, dict) or not isinstance(tree.get("user_id"), str):
            raise self.unexpected("userinfo without user_id", Operation.GET, is_write=False)
        learned = hosts.userinfo_facts(tree)
        if facts.get("org_id") and learned.get("org_id", facts["org_id"]) != facts["org_id"]:
            raise AuthError(
                "The token is of another Salesforce org than this connection.",
                subcode="invalid_credentials",
                provider="salesforce",
                operation="test",
            )
        instance = hosts.instance_of(settings, {**learned, **facts})
        warnings, missing, usage = [], [], LimitReading()
        try:
            response = await self.exchange(
                HttpRequest(method="GET", url=f"{instance}{DATA}/sobjects"), operation="test"
            )
            usage, listed = read_usage(response), self.tree_of(response, operation="test")
            if not isinstance(listed, dict) or not isinstance(listed.get("sobjects"), list):
                raise self.unexpected("something that is no list of objects", Operation.GET, is_write=False)
            missing = schema.missing_rights(listed["sobjects"])
        except UnexpectedResponse as error:  # a very large org's list does not fit into an answer
            warnings.append(f"What this user may do could not be read: {error.message}")
        if usage.limit and usage.remaining is not None:
            learned |= {"budget.daily": str(usage.limit), "budget.daily-remaining": str(usage.remaining)}
            if usage.remaining * 10 < usage.limit:
                warnings.append(f"Only {usage.remaining} of {usage.limit} API calls of 24 hours are left.")
        org = learned.get("org_id", "")
        return Proof(
            account=f"Salesforce org {org}".strip(),
            facts={**learned, **({"instance_url": instance} if hosts.is_salesforce(instance) else {})},
            missing_rights=missing,
            warnings=warnings,
        )

    async def prepare(self) -> dict[str, str]:
        """Which objects have our mark, what may be read, and the first stage of a deal."""
        return await schema.prepare(self)

    async def describe(self, obj: Object) -> list[FieldFact]:
        self.spec(obj, Operation.DESCRIBE)
        native = NATIVES[obj]
        return schema.facts_of(native, await schema.describe(self, native, "describe"))

    # Each approval has a refresh token of its own, so this ends no other connection.
    async def revoke(self) -> bool:
        return await self.revoke_at(f"{hosts.login_of(self.access.settings)}/services/oauth2/revoke")

    async def erase_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        spec = self.spec(obj, Operation.ERASE)
        return await erase(self.writer, obj, remote_id, is_hard=spec.erase_level is DeleteLevel.HARD)
