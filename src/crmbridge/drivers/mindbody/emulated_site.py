"""What every call of the emulated Mindbody has in common: key, site, tokens, lists, errors, the site's own facts."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from crmbridge.core.wire import HttpResponse
from crmbridge.emulation import Clock, Emulator, Incoming, Quota, Refusal, route
from crmbridge.emulation.faults import Fault

__all__ = ["EmulatedSite", "as_local", "stamp"]

DEFAULT_PAGE, LARGEST_PAGE = 100, 200
TOKEN_LIFE = timedelta(hours=24)
MOST_RENEWALS = 7
SESSION_TYPES = {11: "Hair cut", 12: "Colour", 13: "Deep tissue massage"}
STAFF = {21: ("Iris", "Lindqvist"), 22: ("Tomas", "Abara")}
LOCATIONS = {1: "Harbour Salon"}
PROSPECT_STAGES = {1: "New", 2: "Contacted"}
CUSTOM_FIELDS = {7: ("Skin type", "Text"), 8: ("Patch test", "Date")}
# Status by code, as the sheet of codes has them; most pairs are a reading, not a published table.
STATUS = {
    "InvalidSourceCredentials": 401,
    "InvalidUserCredentials": 401,
    "InvalidLoginCredentials": 401,
    "DeniedAccess": 403,
    "InvalidSiteId": 400,
    "ClientNotFound": 404,
    "ItemNotFound": 404,
    "TooManyRequests": 429,
}
FAULT_CODES = {
    401: "InvalidSourceCredentials",
    403: "DeniedAccess",
    404: "ItemNotFound",
    422: "ValidationFailed",
    429: "TooManyRequests",
}


class EmulatedSite(Emulator):
    """One business. ``has_staff_rights`` False makes its staff user one who may see no clients."""

    slug = "mindbody"
    display_name = "Mindbody"
    zone_name: ClassVar[str] = "America/Los_Angeles"
    told_zone: ClassVar[str] = "America/Los_Angeles"
    site_id = "41095"
    sandbox_calls_a_day = 1000

    def __init__(self, clock: Clock | None = None) -> None:
        self.is_activated = True
        self.has_staff_rights = True
        self.required = ["Email"]
        super().__init__(clock)
        self.quotas.append(Quota(limit=2000, per_seconds=60))

    def seed(self) -> None:
        self._tokens: dict[str, tuple[datetime, int]] = {}
        self._issued = 0
        self._day = Quota(limit=self.sandbox_calls_a_day, per_seconds=86_400, name="sandbox day")

    def settings(self) -> dict[str, str]:
        return {
            "site_id": self.site_id,
            "staff_username": "emulated-staff",
            "location_id": "1",
            "session_type_id": "11",
            "staff_id": "21",
            "base_url": self.base_url,
        }

    def secrets(self) -> dict[str, str]:
        return {"api_key": self.secret("api_key", 32), "staff_password": self.secret("staff_password", 20)}

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.zone_name)

    # -- who calls -----------------------------------------------------------------------------------------

    def authenticate(self, call: Incoming) -> HttpResponse | None:
        key = call.headers.get("api-key", "")
        if not key:
            return self.error("InvalidSourceCredentials", "Missing API key")
        if not hmac.compare_digest(key.encode(), self.secrets()["api_key"].encode()):
            return self.error("InvalidSourceCredentials", "Invalid API key")
        if call.headers.get("siteid", "") != self.site_id:
            return self.error("InvalidSiteId", "The site id is not valid.")
        if not self.is_activated:
            return self.error("DeniedAccess", "The API key has not been activated for this site.")
        if self.site_id == "-99" and self._day.take(self.clock):
            return self.error("TooManyRequests", "The sandbox allows 1,000 calls a day.")
        if call.headers.get("authorization") and not self._token(call):
            return self.error("InvalidUserCredentials", "The user token is not valid.")
        return None

    def _token(self, call: Incoming) -> str:
        """The live token of a call, with ``Bearer`` or raw as older clients send it."""
        given = call.headers.get("authorization", "").removeprefix("Bearer ").strip()
        expires, _ = self._tokens.get(given, (self.clock.now(), 0))
        return given if expires > self.clock.now() else ""

    def need_staff(self, call: Incoming) -> None:
        if not self._token(call):
            raise self.refusal("InvalidUserCredentials", "Staff user credentials are required.")
        if not self.has_staff_rights:
            raise self.refusal("DeniedAccess", "The staff member has no permission for this.")

    @route("POST", "/usertoken/issue", operation="usertoken.issue", writes=False)
    def issue(self, call: Incoming) -> HttpResponse:
        given = self.body(call)
        password = str(given.get("Password") or "")
        if given.get("Username") != "emulated-staff" or not hmac.compare_digest(
            password.encode(), self.secrets()["staff_password"].encode()
        ):
            return self.error("InvalidLoginCredentials", "The user name or password is not valid.")
        self._issued += 1
        token = self.secret(f"token{self._issued}", 64)
        expires = self.clock.now() + TOKEN_LIFE
        self._tokens[token] = (expires, 0)
        user = {"Id": 21, "FirstName": "Iris", "LastName": "Lindqvist", "Type": "Staff"}
        return self.answer(
            {"TokenType": "Bearer", "AccessToken": token, "Expires": stamp(expires), "User": user}
        )

    @route("POST", "/usertoken/renew", operation="usertoken.renew", writes=False)
    def renew(self, call: Incoming) -> HttpResponse:
        token = self._token(call)
        if not token or self._tokens[token][1] >= MOST_RENEWALS:
            return self.error("InvalidUserCredentials", "The user token cannot be renewed.")
        expires, count = self._tokens[token]
        self._tokens[token] = (expires + TOKEN_LIFE, count + 1)
        return self.answer({"AccessToken": token, "Expires": stamp(expires + TOKEN_LIFE)})

    @route("DELETE", "/usertoken/revoke", operation="usertoken.revoke", writes=False)
    def revoke(self, call: Incoming) -> HttpResponse:
        self._tokens.pop(self._token(call), None)
        return HttpResponse(status=204)

    # -- answers -------------------------------------------------------------------------------------------

    def error(self, code: str, message: str, status: int = 0) -> HttpResponse:
        tree = {"Error": {"Message": message, "Code": code}}
        return self.answer(tree, status or STATUS.get(code, 400))

    def refusal(self, code: str, message: str) -> Refusal:
        return Refusal(self.error(code, message))

    def on_fault(self, fault: Fault, call: Incoming) -> HttpResponse:
        if fault.status >= 500:
            return self.answer({"Message": "An error has occurred."}, fault.status)
        return self.error(FAULT_CODES.get(fault.status, ""), "Fault on demand", fault.status)

    def on_limited(self, quota: Quota, wait_seconds: float, call: Incoming) -> HttpResponse:
        return self.error("TooManyRequests", "Too many requests")

    def on_unknown_route(self, call: Incoming) -> HttpResponse:
        return self.answer({"Message": "No HTTP resource was found that matches the request URI."}, 404)

    def on_broken_json(self, call: Incoming) -> HttpResponse:
        return self.error("InvalidParameter", "The body is not JSON.")

    def body(self, call: Incoming) -> dict[str, Any]:
        if not isinstance(call.json, dict):
            raise self.refusal("InvalidParameter", "The body is not valid.")
        return call.json

    def asked(self, call: Incoming, name: str) -> list[str]:
        """A query parameter by any case, bare or as ``request.name``; arrays repeat the key."""
        found = []
        for key, values in call.query.items():
            if key.lower().removeprefix("request.") == name.lower():
                found += values
        return [value for value in found if value]

    def one(self, call: Incoming, name: str, default: str = "") -> str:
        return next(iter(self.asked(call, name)), default)

    def page(self, call: Incoming, name: str, rows: Iterable[dict[str, Any]]) -> HttpResponse:
        limit, offset = self.one(call, "limit", str(DEFAULT_PAGE)), self.one(call, "offset", "0")
        if not (limit.isdigit() and offset.isdigit()):
            raise self.refusal("InvalidParameter", "limit and offset are numbers.")
        size, start, listed = min(int(limit), LARGEST_PAGE), int(offset), list(rows)
        some = listed[start : start + size]
        told = {
            "RequestedLimit": size,
            "RequestedOffset": start,
            "PageSize": len(some),
            "TotalResults": len(listed),
        }
        return self.answer({"PaginationResponse": told, name: some})

    # -- the site's own facts ------------------------------------------------------------------------------

    @route("GET", "/site/locations", operation="site.locations")
    def locations(self, call: Incoming) -> HttpResponse:
        return self.page(
            call, "Locations", ({"Id": number, "Name": name} for number, name in LOCATIONS.items())
        )

    @route("GET", "/site/sites", operation="site.sites")
    def sites(self, call: Incoming) -> HttpResponse:
        site = {"Id": int(self.site_id), "Name": "Harbour Salon and Spa", "CountryCode": "US"}
        return self.page(call, "Sites", [{**site, "TimeZone": self.told_zone}])

    @route("GET", "/site/sessiontypes", operation="site.sessiontypes")
    def session_types(self, call: Incoming) -> HttpResponse:
        rows = (
            {"Id": number, "Name": name, "DefaultTimeLength": 60} for number, name in SESSION_TYPES.items()
        )
        return self.page(call, "SessionTypes", rows)

    @route("GET", "/staff/staff", operation="staff.staff")
    def staff(self, call: Incoming) -> HttpResponse:
        rows = (
            {"Id": number, "FirstName": first, "LastName": last, "Name": f"{first} {last}"}
            for number, (first, last) in STAFF.items()
        )
        return self.page(call, "StaffMembers", rows)

    @route("GET", "/client/requiredclientfields", operation="client.requiredclientfields")
    def required_fields(self, call: Incoming) -> HttpResponse:
        return self.answer({"RequiredClientFields": self.required})

    @route("GET", "/client/customclientfields", operation="client.customclientfields")
    def custom_fields(self, call: Incoming) -> HttpResponse:
        rows = (
            {"Id": number, "Name": name, "DataType": kind} for number, (name, kind) in CUSTOM_FIELDS.items()
        )
        return self.page(call, "CustomClientFields", rows)


def stamp(moment: datetime) -> str:
    """A UTC instant as the Webhooks API and LastModifiedDateTime have it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def as_local(text: Any) -> datetime | None:
    """A site-local text without an offset; one with an offset is read as if it had none, as live."""
    try:
        return datetime.fromisoformat(str(text)).replace(tzinfo=None)
    except ValueError:
        return None
