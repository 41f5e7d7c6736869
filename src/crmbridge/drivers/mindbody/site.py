"""One site: its headers, its zone, its lists, its answers to what went wrong."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from crmbridge.core.errors import (
    AuthError,
    Conflict,
    CrmError,
    Fix,
    NotConfigured,
    NotFound,
    RateLimited,
    Unavailable,
    ValidationError,
)
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.toolkit import failures
from crmbridge.toolkit.auth import SecretRef
from crmbridge.toolkit.filling import zone_named
from crmbridge.toolkit.formats import moment_text
from crmbridge.toolkit.rest import RestDriver

__all__ = ["CODES", "EVER", "MOST", "Site", "refusal_in_batch", "total"]

MOST = 200  # rows of a page
CLIENTS_AT_ONCE = 20
EVER = {
    "startDate": "1990-01-01",
    "endDate": "2099-12-31",
}  # lists of dated things show today alone when not asked
_MOST_PAGES = 50

_ACTIVATE = Fix(
    "activate_key", "Let the owner of the site activate your API key, or correct the key and the site id."
)
_LOGIN = Fix(
    "correct_login", "Correct the staff user name and password of this connection, then test it again."
)
_TIME = Fix("choose_time", "Offer another time, service or member of staff.")
_Rule = failures.StatusRule
# Mindbody's codes; several come with 400, so the status decides only where the code is none of these.
CODES: dict[str, failures.StatusRule] = {
    "MissingRequiredFields": _Rule(error=ValidationError),
    "InvalidParameter": _Rule(error=ValidationError),
    "ValidationFailed": _Rule(error=ValidationError),
    "InvalidClientCreation": _Rule(error=Conflict),
    "InvalidClientUpdate": _Rule(error=ValidationError),
    "SchedulingRestrictionsViolated": _Rule(error=ValidationError, fix=_TIME),
    "PaymentRequired": _Rule(
        error=ValidationError, fix=Fix("sell_first", "The client needs a purchase for this first.")
    ),
    "InvalidSourceCredentials": _Rule(error=AuthError, subcode="invalid_credentials", fix=_ACTIVATE),
    "InvalidUserCredentials": _Rule(error=AuthError, subcode="expired", fix=_LOGIN),
    "InvalidStaffCredentials": _Rule(error=AuthError, subcode="expired", fix=_LOGIN),
    "InvalidLoginCredentials": _Rule(error=AuthError, subcode="expired", fix=_LOGIN),
    "DeniedAccess": _Rule(
        error=AuthError,
        subcode="insufficient_scope",
        fix=Fix(
            "grant_right", "Give the staff user the right to do this in Mindbody, and activate the API key."
        ),
    ),
    "InvalidSiteId": _Rule(
        error=NotConfigured, fix=Fix("correct_site", "Correct the site id of this connection.")
    ),
    "ClientNotFound": _Rule(error=NotFound),
    "ItemNotFound": _Rule(error=NotFound),
    "TooManyRequests": _Rule(error=RateLimited, retry_safe=True),
    "SQLDBMaintenance": _Rule(error=Unavailable),
    "Unknown": _Rule(error=Unavailable),
}


class Site(RestDriver):
    """What every call to a site needs."""

    def number_setting(self, name: str) -> int | None:
        """A setting that is a number; None when it is empty or none."""
        text = self.setting(name)
        return int(text) if text.isdecimal() else None

    # Every call names key and site; the staff user's token comes by the declared auth where there is one.
    async def exchange(
        self,
        request: HttpRequest,
        *,
        operation: str,
        is_write: bool = False,
        ok_statuses: tuple[int, ...] = (),
    ) -> HttpResponse:
        request.headers |= {"Api-Key": SecretRef("api_key"), "SiteId": self.setting("site_id")}  # type: ignore[dict-item]
        return await super().exchange(
            request, operation=operation, is_write=is_write, ok_statuses=ok_statuses
        )

    def zone(self) -> ZoneInfo:
        """The site's zone: the setting, else the fact that the test learned. Raises NotConfigured."""
        name = self.setting("time_zone") or self.access.facts.get("time_zone", "")
        return zone_named(name, self.manifest.slug)

    def names(self, kind: str) -> dict[str, str]:
        """Number → name of the site's SessionType or Location, as the last test learned them."""
        try:
            return msgspec.json.decode(self.access.facts.get(kind, "{}"), type=dict[str, str])
        except msgspec.MsgspecError:
            return {}

    # -- the staff user's token ------------------------------------------------------------------------------

    async def sign_in(self) -> dict[str, Any]:
        """The staff user's token, good until ``Expires``. Raises NotConfigured, AuthError when Mindbody refuses."""
        body = {"Username": self.needed("staff_username"), "Password": SecretRef("staff_password")}
        try:
            tree = await self.exchange_json(
                HttpRequest(method="POST", url="/usertoken/issue", json=body), operation="sign_in"
            )
        except AuthError as error:
            error.subcode = "invalid_credentials" if error.subcode == "expired" else error.subcode
            raise
        token = tree.get("AccessToken") if isinstance(tree, dict) else None
        if not isinstance(token, str) or not token:
            raise self.unexpected("no token to a sign-in", Operation.GET, is_write=False)
        answer: dict[str, Any] = {"access_token": token}
        if seconds := _seconds_until(tree.get("Expires")):
            answer["expires_in"] = seconds
        return answer

    async def revoke(self) -> bool:
        """Revokes the staff user's token. The key and the password are the site's to take away."""
        if not self.access.secrets.get("access_token"):
            return False
        request = HttpRequest(method="DELETE", url="/usertoken/revoke")
        await self.exchange(request, operation="revoke", is_write=True)
        return True

    # -- lists ---------------------------------------------------------------------------------------------

    async def rows(self, path: str, name: str, query: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """All rows of a list, page by page. Raises UnexpectedResponse."""
        offset = 0
        for _ in range(_MOST_PAGES):
            tree = await self.page_of(path, query, offset)
            rows = tree.get(name) if isinstance(tree, dict) else None
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise self.unexpected(
                    "something that is not a list of records", Operation.GET, is_write=False
                )
            for row in rows:
                yield row
            offset += len(rows)
            if not rows or offset >= total(tree, offset + (len(rows) >= MOST)):
                return
        raise self.unexpected("a list that does not come to an end", Operation.GET, is_write=False)

    async def page_of(self, path: str, query: Mapping[str, Any], offset: int) -> Any:
        """One page as it comes."""
        asked = {**query, "limit": str(MOST), "offset": str(offset)}
        return await self.exchange_json(HttpRequest(method="GET", url=path, query=asked), operation="get")

    async def client_ids(self, unique_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Unique id → client; a missing one is left out."""
        wanted, found = list(dict.fromkeys(unique_ids)), {}
        for start in range(0, len(wanted), CLIENTS_AT_ONCE):
            asked = {"uniqueIds": wanted[start : start + CLIENTS_AT_ONCE], "includeInactive": "true"}
            async for row in self.rows("/client/clients", "Clients", asked):
                found[self.id_text(row.get("UniqueId"))] = row
        return {unique_id: found[unique_id] for unique_id in wanted if unique_id in found}

    async def client_of(self, obj: Object, unique_id: str) -> dict[str, Any]:
        """The client as Mindbody has it. Raises NotFound."""
        self.check_id(obj, unique_id)
        found = (await self.client_ids([unique_id])).get(unique_id)
        if found is None or not isinstance(found.get("Id"), str):
            raise NotFound("Mindbody has no such client.", provider=self.manifest.slug, operation="get")
        return found

    # -- failing -------------------------------------------------------------------------------------------

    def error_from(self, response: HttpResponse, operation: str, is_write: bool) -> CrmError | None:
        """``{Error: {Message, Code}}``, by code before status; some 500s have a ``Message`` alone."""
        tree = failures.tree_or_none(response)
        told = tree.get("Error") if isinstance(tree, dict) else None
        is_fine = 200 <= response.status < 300
        if not isinstance(told, dict):
            if is_fine or not isinstance(tree, dict) or not isinstance(tree.get("Message"), str):
                return None
            told = tree
        code, words = str(told.get("Code") or ""), str(told.get("Message") or "")
        overrides = {response.status: rule} if (rule := _rule(code, words, response.status, is_write)) else {}
        if is_fine and not overrides:
            overrides = {response.status: _Rule(error=ValidationError)}
        return failures.error_for_status(
            response,
            provider=self.manifest.slug,
            operation=operation,
            is_write=is_write,
            overrides=overrides,
            message=words,
            provider_code=code if re.fullmatch(r"[A-Za-z]{1,60}", code) else "",
        )


def refusal_in_batch(told: Mapping[str, Any], redact: Callable[[str], str]) -> CrmError:
    """The error of one part of a batch: its body is that of an answer, without a status of its own."""
    code = str(told.get("Code") or "")
    rule = CODES.get(code, _Rule(error=ValidationError))
    return rule.error(
        f"mindbody refused this one of a batch: {redact(str(told.get('Message') or code))}",
        subcode=rule.subcode,
        provider="mindbody",
        operation=Operation.CREATE.value,
        outcome=Outcome.UNKNOWN if rule.error is Unavailable else Outcome.NOT_APPLIED,
        fix=rule.fix,
        provider_facts={"provider_code": code} if re.fullmatch(r"[A-Za-z]{1,60}", code) else None,
    )


def _rule(code: str, words: str, status: int, is_write: bool) -> failures.StatusRule | None:
    # An identical booking of ours runs, or has run within two minutes: what became of it is to be looked up.
    if status == 409 and "in progress" in words.lower():
        return _Rule(error=Unavailable, outcome=Outcome.UNKNOWN if is_write else None, retry_safe=False)
    if code == "InvalidClientUpdate" and "duplicate" in words.lower():
        return _Rule(error=Conflict)
    if code == "Unknown" and is_write:
        return _Rule(error=Unavailable, outcome=Outcome.UNKNOWN, retry_safe=False)
    return CODES.get(code)


def total(tree: Any, otherwise: int) -> int:
    """``PaginationResponse.TotalResults`` of a list; ``otherwise`` where it is not told."""
    told = tree.get("PaginationResponse") if isinstance(tree, dict) else None
    number = told.get("TotalResults") if isinstance(told, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) else otherwise


def _seconds_until(text: Any) -> int:
    """Seconds until a UTC moment, 0 for an unreadable or past one."""
    moment = moment_text(text)
    left = (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds() if moment else 0
    return max(0, int(min(left, timedelta(days=7).total_seconds())))
