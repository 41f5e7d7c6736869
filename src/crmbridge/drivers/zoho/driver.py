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
    Idempotency,
    IdempotencyKind,
    Manifest,
    ObjectSpec,
    Paging,
    PagingKind,
    Setting,
)
from crmbridge.core.operations import COMPOSED, FULL, LIMITED, NOT_YET, DeleteLevel, Operation, Support
from crmbridge.core.records import FieldFact, Object
from crmbridge.core.tokens import TokenFault
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.zoho import hosts, schema
from crmbridge.drivers.zoho.erasure import erase
from crmbridge.drivers.zoho.finding import Finder
from crmbridge.drivers.zoho.messages import error_of, read_credits
from crmbridge.drivers.zoho.natives import API, MARK, NATIVES
from crmbridge.drivers.zoho.reading import MOST_ROWS, Reader
from crmbridge.drivers.zoho.writing import MOST_WRITES, Writer
from crmbridge.toolkit.auth import SecretRef
from crmbridge.toolkit.composed import ComposedDriver
from crmbridge.toolkit.limits import LimitReading

__all__ = ["MANIFEST", "Zoho"]

DOCS = "https://www.zoho.com/crm/developer/docs/api/v8"
LAG = 10.0
_ALL: dict[Operation, Support] = {
    Operation.DESCRIBE: FULL,
    Operation.SEARCH: FULL,
    Operation.GET: FULL,
    Operation.LIST: FULL,
    Operation.CREATE: FULL,
    Operation.UPDATE: FULL,
    Operation.UPSERT: COMPOSED("a look for the match, then Zoho's upsert by that field (by several: by id)"),
    Operation.DELETE: FULL,
    Operation.ERASE: COMPOSED("the delete, then the removal from the recycle bin"),
    Operation.CHANGES: NOT_YET("polling by Modified_Time comes in a later version"),
}
_BY_ID = {
    Operation.UPSERT: COMPOSED("a look for the match, then a change by id or a create: no upsert in Zoho")
}
_NOTE = {
    Operation.UPSERT: NOT_YET("has no natural key"),
    Operation.SEARCH: NOT_YET("COQL has no notes, and Zoho's search would put the text into an address"),
}
_CALL = {
    **_BY_ID,
    Operation.CREATE: LIMITED(
        "calls only; write a chat or an e-mail as a note, and a recording as a link in its text"
    ),
}


def _spec(obj: Object, operations: Mapping[Operation, Support] | None = None, **more: Any) -> ObjectSpec:
    native = NATIVES[obj]
    declared = _ALL | dict(operations or {})
    written = (Operation.CREATE, Operation.UPDATE, Operation.UPSERT, Operation.DELETE)
    unique = Idempotency(kind=IdempotencyKind.EXTERNAL_ID, field=MARK, search_lag_seconds=LAG)
    return ObjectSpec(
        native=native.name,
        path=f"{API}/{native.name}",
        updated_field="Modified_Time",
        operations=declared,
        batch={one: MOST_WRITES for one in written if declared[one].is_usable},
        links=dict(native.links),
        required=native.required,
        delete_level=DeleteLevel.SOFT,
        erase_level=DeleteLevel.HARD,
        idempotency=more.pop("idempotency", unique),
        **more,
    )


_BY_MARK = Idempotency(kind=IdempotencyKind.NATURAL_KEY, field=MARK, search_lag_seconds=LAG)
_BY_TITLE = Idempotency(kind=IdempotencyKind.NATURAL_KEY, field="Note_Title", search_lag_seconds=LAG)

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
    settings=(
        Setting(
            name="accounts_url",
            label="Accounts address",
            help="Where the consent begins. Zoho leads on to the user's own data centre, but not to China's: for that"
            " one https://accounts.zoho.com.cn. Any other address only for tests against an emulator.",
            kind="url",
            pattern=hosts.ACCOUNTS_PATTERN,
            default=hosts.ACCOUNTS,
            is_required=False,
        ),
        Setting(
            name="environment",
            label="Environment",
            help="production, or the organisation's sandbox or developer environment.",
            kind="choice",
            options=tuple(hosts.ENVIRONMENTS),
            default="production",
            is_required=False,
        ),
        Setting(
            name="automations",
            label="Workflows and assignment rules",
            help="run: they run for what crmbridge writes, as for people. skip: they do not.",
            kind="choice",
            options=("run", "skip"),
            default="run",
            is_required=False,
        ),
    ),
    base_url="{api_domain}",
    data_centres=hosts.CENTRES,
    objects={
        Object.LEAD: _spec(Object.LEAD, natural_keys=("Email",)),
        Object.CUSTOMER: _spec(Object.CUSTOMER, {Operation.LOOKUP: FULL}, natural_keys=("Email",)),
        Object.DEAL: _spec(Object.DEAL),
        Object.APPOINTMENT: _spec(Object.APPOINTMENT, _BY_ID, idempotency=_BY_MARK),
        Object.CASE: _spec(Object.CASE),
        Object.NOTE: _spec(Object.NOTE, _NOTE, idempotency=_BY_TITLE),
        Object.ACTIVITY: _spec(Object.ACTIVITY, _CALL, idempotency=_BY_MARK),
    },
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
        name = "refresh_token" if self.access.secrets.get("refresh_token") else "access_token"
        accounts = hosts.accounts_of(self.access.settings, self.access.facts)
        request = HttpRequest(
            method="POST", url=f"{accounts}/oauth/v2/token/revoke", form={"token": SecretRef(name)}
        )
        await self.exchange(request, operation="revoke", is_write=True)
        return True

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
