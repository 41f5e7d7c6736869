"""Zoho CRM by its REST API, version 8, over OAuth in every data centre.

customer is a Contact, lead a Lead, deal a Deal, appointment a meeting (Events), case a Case, note a Note, activity a
Call. Writes go 100 a call with an answer per row; reads are COQL, which travels in a body. Zoho has no idempotency
key: ``prepare`` makes a custom field that every create carries as its mark. The data centre comes with the consent
and is held to Zoho's hosts (``hosts``). Pages: see ``MANIFEST.pages`` (read 2026-11-25); what they leave open is
UNCONFIRMED in NOTES.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

import msgspec

from crmbridge.core.driver import Access, Proof
from crmbridge.core.errors import AuthError, CrmError
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
from crmbridge.drivers.zoho import hosts, schema
from crmbridge.drivers.zoho.credential import SETTINGS
from crmbridge.drivers.zoho.erasure import erase
from crmbridge.drivers.zoho.finding import Finder
from crmbridge.drivers.zoho.messages import error_of, read_credits
from crmbridge.drivers.zoho.natives import API, NATIVES
from crmbridge.drivers.zoho.objects import OBJECTS
from crmbridge.drivers.zoho.reading import MOST_ROWS, Reader
from crmbridge.drivers.zoho.writing import Writer
from crmbridge.toolkit.composed import ComposedDriver
from crmbridge.toolkit.limits import LimitReading

__all__ = ["MANIFEST", "Zoho"]

DOCS = "https://www.zoho.com/crm/developer/docs/api/v8"
MANIFEST = Manifest(
    slug="zoho",
    display_name="Zoho CRM",
    api_version="v8",
    pages=(
        f"{DOCS}/multi-dc.html",
        f"{DOCS}/access-refresh.html",
        f"{DOCS}/insert-records.html",
        f"{DOCS}/upsert-records.html",
        f"{DOCS}/Get-Records-through-COQL-Query.html",
        f"{DOCS}/COQL-Limitations.html",
        f"{DOCS}/create-custom-field.html",
        f"{DOCS}/status-codes.html",
        f"{DOCS}/api-limits.html",
    ),
    read_on="2026-11-25",
    auth=Auth(
        kind=AuthKind.OAUTH_CODE,
        prefix="Zoho-oauthtoken ",
        authorize_url="{accounts_url}/oauth/v2/auth",
        token_url="{accounts_url}/oauth/v2/token",  # noqa: S106 - an address
        scopes=(
            "ZohoCRM.modules.ALL",
            "ZohoCRM.coql.READ",
            "ZohoCRM.org.READ",
            "ZohoCRM.settings.fields.READ",
            "ZohoCRM.settings.fields.CREATE",
            "ZohoCRM.settings.layouts.READ",
            "ZohoCRM.settings.recycle_bin.DELETE",
        ),
        scope_separator=",",
        # Without these two there is no refresh token, at a second consent neither.
        authorize_extra={"access_type": "offline", "prompt": "consent"},
        access_seconds=3600,
        token_calls_per_minute=1,
    ),
    settings=SETTINGS,
    base_url="{api_domain}",
    data_centres=hosts.CENTRES,
    objects=OBJECTS,
    paging=Paging(kind=PagingKind.CURSOR, cursor_param="page_token", max_size=MOST_ROWS),
    budgets=(
        Budget(
            kind=BudgetKind.DAILY,
            limit=50_000,
            per_seconds=86_400,
            source=f"{DOCS}/api-limits.html (Standard)",
        ),
        Budget(kind=BudgetKind.CONCURRENT, limit=5, source=f"{DOCS}/api-limits.html (smallest edition)"),
    ),
    test_call=Call(method="GET", path=f"{API}/org"),
    verification_note="published pages and specs, and an emulator",
    verticals=("general", "real_estate"),
    strict_ids=r"[1-9][0-9]{0,19}",
    setup_help="Press Connect Zoho CRM and sign in as an administrator of the organisation.",
)


@lru_cache(maxsize=8)
def _manifest(own: str) -> Manifest:
    """The token endpoint of an operator's own address stands fast, whatever data centre a callback names."""
    auth = msgspec.structs.replace(MANIFEST.auth, token_url=f"{own}/oauth/v2/token")
    return msgspec.structs.replace(MANIFEST, auth=auth)


class Zoho(ComposedDriver):
    """One organisation of Zoho CRM."""

    MANIFEST: ClassVar[Manifest] = MANIFEST

    def __init__(self, access: Access) -> None:
        super().__init__(access)
        self.reader: Reader = Reader(self)
        self.writer: Writer = Writer(self.reader)
        self.finder: Finder = Finder(self.writer)

    @classmethod
    def manifest_for(cls, settings: Mapping[str, str]) -> Manifest:
        """By the setting ``accounts_url``."""
        own = hosts.own_address(settings)
        return _manifest(own) if own else MANIFEST

    def base_url(self) -> str:
        return hosts.api_of(self.access.settings, self.access.facts)

    def record_url(self, obj: Object, remote_id: str) -> str:
        pages, org, tab = hosts.pages_of(self.access.facts), self.access.facts.get("zgid"), NATIVES[obj].tab
        return f"{pages}/crm/org{org}/tab/{tab}/{remote_id}" if pages and org and tab else ""

    # Codes tell more than statuses, and a batch with a bad row may come as a 400.
    def error_from(self, response: HttpResponse, operation: str, is_write: bool) -> CrmError | None:
        return error_of(response, operation=operation, is_write=is_write, hide=lambda text: text)

    # -- tokens --------------------------------------------------------------------------------------------

    @classmethod
    def callback_facts(cls, parameters: Mapping[str, str]) -> dict[str, str]:
        return hosts.callback_facts(parameters)

    @classmethod
    def budgets_from(cls, response: HttpResponse) -> dict[BudgetKind, LimitReading]:
        # Credits, of which a call may cost several: what is told corrects what we count.
        return {BudgetKind.DAILY: read_credits(response)}

    @classmethod
    def token_facts(cls, answer: Mapping[str, Any]) -> dict[str, str]:
        return hosts.token_facts(answer)

    # Refusals come with status 200; "Access Denied" is no revocation but too many token calls (10 in 10 minutes).
    @classmethod
    def token_fault(cls, status: int, answer: Mapping[str, Any]) -> TokenFault | None:
        error, said = str(answer.get("error", "")), str(answer.get("error_description", "")).lower()
        if error.lower() in ("access denied", "access_denied") or "too many requests" in said:
            return TokenFault.THROTTLED
        if error in ("invalid_code", "invalid_token"):
            return TokenFault.REVOKED
        if error.startswith(("invalid_client", "invalid_redirect")) or error in (
            "missing_org_info",
            "invalid_oauthscope",
        ):
            return TokenFault.MISCONFIGURED
        return TokenFault.TRANSIENT if error == "general_error" else None

    @classmethod
    def missing_scopes(cls, granted: frozenset[str]) -> list[str]:
        """``ZohoCRM.settings.ALL`` covers ``ZohoCRM.settings.fields.READ``, and so on upwards."""

        def is_covered(scope: str) -> bool:
            parts = scope.split(".")
            wider = {".".join([*parts[:place], "ALL"]) for place in range(2, len(parts))}
            return bool(({scope} | wider) & granted)

        return [scope for scope in cls.MANIFEST.auth.scopes if not is_covered(scope)]

    async def revoke(self) -> bool:
        """The refresh token of this consent and its access tokens; other consents keep theirs."""
        accounts = hosts.accounts_of(self.access.settings, self.access.facts)
        return await self.revoke_at(f"{accounts}/oauth/v2/token/revoke")

    # -- connect -------------------------------------------------------------------------------------------

    async def test_connection(self) -> Proof:
        """The organisation, one credit. Scopes are compared at the consent; a connection keeps to its organisation."""
        response = await self.exchange(HttpRequest(method="GET", url=f"{API}/org"), operation="test")
        tree = self.tree_of(response, operation="test")
        listed = tree.get("org") if isinstance(tree, dict) else None
        org = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else {}
        number = self.id_text(org.get("zgid"))
        if not number:
            raise self.unexpected("an organisation without zgid", Operation.GET, is_write=False)
        if self.access.facts.get("zgid", number) != number:
            raise AuthError(
                "The token is of another Zoho organisation than this connection.",
                subcode="invalid_credentials",
                provider="zoho",
                operation="test",
            )
        facts = {"zgid": number}
        for fact, name in {"time_zone": "time_zone", "currency": "iso_code"}.items():
            if isinstance(org.get(name), str):
                facts[fact] = org[name][:80]
        warnings = []
        left = read_credits(response).remaining
        if left is not None:
            facts["budget.daily-remaining"] = str(left)
            warnings.append(f"More than half of the day's API credits are used: {left} are left.")
        return Proof(
            account=f"Zoho CRM organisation {str(org.get('company_name') or number)[:120]}",
            facts=facts,
            warnings=warnings,
        )

    async def prepare(self) -> dict[str, str]:
        """Our mark in every module that takes one, and the fields that are there."""
        return await schema.prepare(self)

    async def describe(self, obj: Object) -> list[FieldFact]:
        self.spec(obj, Operation.DESCRIBE)
        return await schema.describe(self, NATIVES[obj])

    async def erase_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        self.spec(obj, Operation.ERASE)
        await erase(self.writer, obj, remote_id)
        return DeleteLevel.HARD
