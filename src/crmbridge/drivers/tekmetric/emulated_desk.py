"""What every call of the emulated Tekmetric has in common: token, shops, envelope, pages."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar

from crmbridge.core.wire import HttpResponse
from crmbridge.emulation import Clock, Emulator, Incoming, Quota, Refusal, Row, Table, route
from crmbridge.emulation.faults import Fault

__all__ = ["API", "EmulatedDesk", "digits", "moment", "shown", "stamp"]

API = "/api/v1"
SHOPS = {791: "Harbour Auto Care", 792: "Hillside Garage"}
MOST = 100


class EmulatedDesk(Emulator):
    """One partner client. ``scope`` holds the shops that have granted it."""

    slug = "tekmetric"
    display_name = "Tekmetric"
    answers_bare_lists: ClassVar[bool] = False
    # Whether every list keeps to `shop` for a token of many shops is UNCONFIRMED.
    ignores_shop: ClassVar[bool] = False

    def __init__(self, clock: Clock | None = None) -> None:
        self.scope = dict(SHOPS)
        super().__init__(clock)
        self.quotas.append(Quota(limit=600, per_seconds=60))

    def seed(self) -> None:
        self.scope = dict(SHOPS)

    def settings(self) -> dict[str, str]:
        return {"shop_id": "791", "client_id": "emulated-client", "base_url": self.base_url}

    def secrets(self) -> dict[str, str]:
        token = self.secret("token", 32)
        shown = "-".join((token[:8], token[8:12], token[12:16], token[16:20], token[20:]))
        return {"client_secret": self.secret("client_secret"), "access_token": shown}

    # -- who calls -----------------------------------------------------------------------------------------

    def authenticate(self, call: Incoming) -> HttpResponse | None:
        if call.path == f"{API}/oauth/token":
            return None
        given = call.headers.get("authorization", "")
        if hmac.compare_digest(given.encode(), f"Bearer {self.secrets()['access_token']}".encode()):
            return None
        return HttpResponse(status=401)

    @route("POST", f"{API}/oauth/token", operation="token", writes=False)
    def token(self, call: Incoming) -> HttpResponse:
        pair = f"emulated-client:{self.secrets()['client_secret']}"
        expected = "Basic " + base64.b64encode(pair.encode()).decode()
        if not hmac.compare_digest(call.headers.get("authorization", "").encode(), expected.encode()):
            return self.answer({"error": "invalid_client"}, 401)
        if call.form.get("grant_type") != ["client_credentials"]:
            tree = {"error": "unsupported_grant_type", "error_description": "OAuth 2.0 Parameter: grant_type"}
            return self.answer(tree, 400)
        scope = " ".join(map(str, self.scope))
        return self.answer(
            {"access_token": self.secrets()["access_token"], "token_type": "bearer", "scope": scope}
        )

    def on_limited(self, quota: Quota, wait_seconds: float, call: Incoming) -> HttpResponse:
        return HttpResponse(status=429)

    def on_fault(self, fault: Fault, call: Incoming) -> HttpResponse:
        if fault.status in (401, 429):
            return HttpResponse(status=fault.status)
        return self.envelope(
            "ERROR", "Access Denied" if fault.status == 403 else "Fault on demand", None, fault.status
        )

    def on_unknown_route(self, call: Incoming) -> HttpResponse:
        return self.envelope("ERROR", "Not found", None, 404)

    # -- shops ---------------------------------------------------------------------------------------------

    @route("GET", f"{API}/shops", operation="shops.list")
    def list_shops(self, call: Incoming) -> HttpResponse:
        return self.answer([{"id": shop, "name": name, "address": {}} for shop, name in self.scope.items()])

    @route("DELETE", f"{API}/shops/{{id}}/scope", operation="shops.leave")
    def leave_shop(self, call: Incoming) -> HttpResponse:
        self.scope.pop(self.number(call.params["id"]), None)
        return self.envelope("SUCCESS", "Shop has been removed from scope", int(call.params["id"]))

    # -- answers -------------------------------------------------------------------------------------------

    def page(
        self,
        call: Incoming,
        table: Table[int],
        fits: Callable[[dict[str, Any]], bool] | None,
        *,
        with_deleted: bool = False,
    ) -> HttpResponse:
        if call.first("shop"):
            self.check_shop(self.number(call.first("shop")))
        start, end = moment(call.first("updatedDateStart")), moment(call.first("updatedDateEnd"))
        gone = bool(call.first("deletedDateStart"))  # then only deleted rows come, whatever else is asked
        rows = [
            row
            for row in table.search(fits, with_archived=with_deleted or gone)
            if row.fields["shopId"] in self.scope
            and (self.ignores_shop or call.first("shop") in ("", str(row.fields["shopId"])))
            and (not start or row.updated_at.replace(microsecond=0) >= start)
            and (not end or row.updated_at <= end)
            and (row.is_archived or not gone)
        ]
        size, page = (
            min(self.number(call.first("size", "10")) or 10, MOST),
            self.number(call.first("page", "0")),
        )
        some = [shown(row) for row in rows[page * size : (page + 1) * size]]
        if self.answers_bare_lists:
            return self.answer(some)
        pages = -(-len(rows) // size)
        sort = {"sorted": False, "unsorted": True, "empty": True}
        return self.answer(
            {
                "content": some,
                "pageable": {
                    "sort": sort,
                    "offset": page * size,
                    "pageNumber": page,
                    "pageSize": size,
                    "paged": True,
                },
                "totalPages": pages,
                "totalElements": len(rows),
                "last": page + 1 >= pages,
                "first": page == 0,
                "size": size,
                "number": page,
                "numberOfElements": len(some),
                "sort": sort,
                "empty": not some,
            }
        )

    def row(self, call: Incoming, table: Table[int], *, with_deleted: bool = False) -> Row[int]:
        row = table.get(self.number(call.params["id"]), with_archived=with_deleted)
        if row is None:
            raise Refusal(self.envelope("ERROR", "Not found", None, 404))
        self.check_shop(row.fields["shopId"])
        return row

    def check_shop(self, shop: Any) -> None:
        if shop not in self.scope:
            raise Refusal(self.envelope("ERROR", "Access Denied", None, 403))

    def body(self, call: Incoming) -> dict[str, Any]:
        if not isinstance(call.json, dict):
            raise self.refusal("Body invalid", {})
        return call.json

    def number(self, text: str) -> int:
        if not re.fullmatch(r"\d{1,19}", text):
            raise self.refusal("Number invalid", {})
        return int(text)

    def envelope(self, kind: str, message: str, tree: Any, status: int = 200) -> HttpResponse:
        return self.answer({"type": kind, "message": message, "data": tree, "details": {}}, status)

    def refusal(self, message: str, details: dict[str, str], status: int = 400) -> Refusal:
        tree = {"type": "ERROR", "message": message, "data": None, "details": details}
        return Refusal(self.answer(tree, status))


def digits(text: Any) -> str:
    found = re.sub(r"\D", "", str(text))
    return found[1:] if len(found) == 11 and found[0] == "1" else found


def moment(text: Any) -> Any:
    """A moment or None; a date alone is its first instant. Any: emulators compare them freely."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def shown(row: Row[int]) -> dict[str, Any]:
    return {
        "id": row.id,
        **row.fields,
        "createdDate": stamp(row.created_at),
        "updatedDate": stamp(row.updated_at),
    }
