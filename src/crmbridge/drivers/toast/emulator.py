"""An emulated Toast: sign-in, one restaurant, its orders, and guests on a base path that is UNCONFIRMED BY VENDOR.

Sign-in, restaurants, orders, errors and limits are written from the published specifications and guides. No page shows
a guest API for new partners; the guests here follow the customers of the CRM API that was withdrawn in 2022 (the
client makes the id, a search takes an e-mail or a phone, every create makes a new guest), and the common habits of
Toast's other APIs. Nothing here proves that Toast would answer so.
"""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from crmbridge.core.wire import HttpResponse
from crmbridge.drivers.toast.emulated_till import RESTAURANT, EmulatedTill, stamp
from crmbridge.emulation import Clock, Incoming, Row, Table, route

__all__ = ["GUESTS", "ToastEmulator"]

GUESTS = "/loyalty/v1/guests"
MOST = 100
INDEXED_AFTER_SECONDS = 5.0
WRITABLE = ("guid", "firstName", "lastName", "email", "phone", "phoneCountryCode", "externalId", "active")
_NEVER = "1970-01-01T00:00:00.000+0000"


class ToastEmulator(EmulatedTill):
    """Two tables: ``orders``, seeded, and ``guests``, empty. ``has_guests`` says whether Toast has named the path."""

    has_guests: ClassVar[bool] = True

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self.store.search_lag_seconds = INDEXED_AFTER_SECONDS

    @property
    def guests(self) -> Table[str]:
        return self.store.named("guests")

    @property
    def orders(self) -> Table[str]:
        return self.store.named("orders")

    def settings(self) -> dict[str, str]:
        return {**super().settings(), "guest_path": GUESTS} if self.has_guests else super().settings()

    def seed(self) -> None:
        super().seed()
        ann = _customer(1, "Ann", "Marlowe", "ann.marlowe@example.net", "4155550171")
        bo = _customer(2, "Bo", "Quist", "bo.quist@example.net", "4155550172")
        self.add_order(1, ann, days=3)
        self.add_order(2, bo, days=2)
        self.add_order(3, {**ann, "guid": _guid(3), "phone": "4155550199"}, days=1)
        self.add_order(4, None, days=1)
        self.add_order(5, _customer(5, "Test", "Order", "test.order@example.net", "4155550175"), test=True)

    def add_order(
        self, number: int, customer: dict[str, Any] | None, *, days: float = 0, **marks: Any
    ) -> str:
        """An order; one without a customer was eaten in the restaurant."""
        at = self.clock.now() - timedelta(days=days)
        check: dict[str, Any] = {
            "guid": _guid(2000 + number),
            "entityType": "Check",
            "customer": customer,
            "amount": 21.5,
            "taxAmount": 1.9,
            "totalAmount": 23.4,
            "paymentStatus": "CLOSED",
            "tabName": None,
            "deleted": False,
            "voided": False,
            "selections": [],
            "payments": [],
        }
        order: dict[str, Any] = {
            "entityType": "Order",
            "externalId": None,
            "openedDate": stamp(at),
            "modifiedDate": stamp(at),
            "createdDate": stamp(at),
            "closedDate": stamp(at),
            "deletedDate": _NEVER,
            "deleted": marks.get("deleted", False),
            "voided": False,
            "businessDate": int(at.strftime("%Y%m%d")),
            "diningOption": {"guid": _guid(3000 + (customer is None)), "entityType": "DiningOption"},
            "source": "Online" if customer else "In Store",
            "numberOfGuests": 1,
            "approvalStatus": "APPROVED",
            "deliveryInfo": None,
            "checks": [check],
            "createdInTestMode": marks.get("test", False),
            "excessFood": marks.get("excess_food", False),
        }
        row = self.orders.insert(order, _guid(1000 + number))
        row.updated_at = at
        row.searchable_at = 0.0
        return row.id

    # -- restaurant and orders -----------------------------------------------------------------------------

    @route("GET", "/restaurants/v1/restaurants/{id}", operation="restaurants.get")
    def restaurant(self, call: Incoming) -> HttpResponse:
        self.need("restaurants:read")
        if self.guid(call.params["id"]) != RESTAURANT:
            raise self.refusal(404, "Restaurant not found")
        general = {
            "name": "Harbour Table",
            "locationName": "Pier 4",
            "timeZone": "America/Los_Angeles",
            "closeoutHour": 4,
            "managementGroupGuid": _guid(9000),
            "currencyCode": "USD",
            "archived": False,
        }
        return self.answer({"guid": RESTAURANT, "general": general, "location": {}, "urls": {}})

    @route("GET", "/orders/v2/ordersBulk", operation="orders.bulk")
    def bulk(self, call: Incoming) -> HttpResponse:
        self.need("orders:read")
        size, page = self._paging(call)
        day, texts = call.first("businessDate"), (call.first("startDate"), call.first("endDate"))
        if not day and not all(texts):
            raise self.refusal(400, "Either businessDate or both startDate and endDate are required")
        if day:
            rows = [row for row in self.orders if str(row.fields["businessDate"]) == day]
        else:
            start, end = (self._moment(text) for text in texts)
            if end - start > timedelta(days=31):
                raise self.refusal(400, "The interval between startDate and endDate is longer than one month")
            rows = [row for row in self.orders if start <= row.updated_at < end]
        return self._listed(call, [self._order(row) for row in rows], size, page)

    @route("GET", "/orders/v2/orders/{id}", operation="orders.get")
    def order(self, call: Incoming) -> HttpResponse:
        self.need("orders:read")
        row = self.orders.get(self.guid(call.params["id"]))
        if row is None:
            raise self.refusal(404, "Order not found")
        return self.answer(self._order(row))

    def _order(self, row: Row[str]) -> dict[str, Any]:
        """Without the scope for guests the key is missing, not null."""
        checks = row.fields["checks"]
        if "guest.pi:read" not in self.scopes:
            checks = [{name: value for name, value in one.items() if name != "customer"} for one in checks]
        return {"guid": row.id, **row.fields, "checks": checks}

    # -- guests: UNCONFIRMED -------------------------------------------------------------------------------

    @route("POST", GUESTS, operation="guests.create")
    def create_guest(self, call: Incoming) -> HttpResponse:
        given = self._given(call)
        guid = self.guid(str(given.pop("guid"))) if given.get("guid") else _guid(5000 + len(self.guests))
        if self.guests.get(guid) is not None:
            raise self.refusal(409, "A guest with this GUID exists")
        self._check({"email": None, "phone": None, **given})
        row = self.guests.insert({"entityType": "Guest", "active": True, **given}, guid)
        return self.answer(self._guest(row))

    @route("GET", GUESTS + "/{id}", operation="guests.get")
    def get_guest(self, call: Incoming) -> HttpResponse:
        return self.answer(self._guest(self._row(call)))

    @route("PATCH", GUESTS + "/{id}", operation="guests.update")
    def update_guest(self, call: Incoming) -> HttpResponse:
        row, given = self._row(call), self._given(call)
        given.pop("guid", None)
        if given.get("active", row.fields["active"]) is not False:
            self._check({**row.fields, **given})
        return self.answer(self._guest(self.guests.update(row.id, given)))

    @route("POST", GUESTS + "/search", operation="guests.search", writes=False)
    def search_guests(self, call: Incoming) -> HttpResponse:
        self.need("guest.pi:read")
        query = call.json.get("query") if isinstance(call.json, dict) else None
        if not isinstance(query, dict) or not (query.get("email") or query.get("phone")):
            raise self.refusal(400, "A search needs an email or a phone")
        size, page = self._paging(call)

        def fits(fields: dict[str, Any]) -> bool:
            return all(
                str(fields.get(name) or "").casefold() == str(text).casefold()
                for name, text in query.items()
                if text
            )

        return self._listed(call, [self._guest(row) for row in self.guests.search(fits)], size, page)

    def _guest(self, row: Row[str]) -> dict[str, Any]:
        empty = dict.fromkeys(("firstName", "lastName", "email", "phone", "phoneCountryCode", "externalId"))
        dates = {"createdDate": stamp(row.created_at), "modifiedDate": stamp(row.updated_at)}
        return {"guid": row.id, **empty, **row.fields, **dates}

    def _row(self, call: Incoming) -> Row[str]:
        self.need("guest.pi:read")
        row = self.guests.get(self.guid(call.params["id"]))
        if row is None:
            raise self.refusal(404, "Guest not found")
        return row

    def _given(self, call: Incoming) -> dict[str, Any]:
        if not isinstance(call.json, dict):
            raise self.refusal(400, "The request body is not an object")
        if unknown := sorted(call.json.keys() - set(WRITABLE)):
            raise self.refusal(400, "Unsupported fields", [f"{name} is not supported" for name in unknown])
        return dict(call.json)

    def _check(self, fields: dict[str, Any]) -> None:
        problems = []
        texts = ("firstName", "lastName", "email", "phone", "phoneCountryCode")
        problems += [
            f"{name} is not a text" for name in texts if not isinstance(fields.get(name), str | None)
        ]
        if not problems:
            if not (fields.get("firstName") or "").strip():
                problems.append("firstName is required")
            if not (fields["email"] or fields["phone"]):
                problems.append("email or phone is required")
            if fields["email"] and not re.fullmatch(r"[^@\s]+@[^@\s]+", fields["email"]):
                problems.append("email is not valid")
            if fields["phone"] and not re.fullmatch(r"\d{5,14}", fields["phone"]):
                problems.append("phone is not valid")
        if problems:
            raise self.refusal(400, "The guest is not valid", problems)

    # -- lists ---------------------------------------------------------------------------------------------

    def _paging(self, call: Incoming) -> tuple[int, int]:
        texts = call.first("pageSize", "100"), call.first("page", "1")
        if not all(re.fullmatch(r"[1-9]\d{0,5}", text) for text in texts) or int(texts[0]) > MOST:
            raise self.refusal(400, "page or pageSize is not valid")
        return int(texts[0]), int(texts[1])

    def _listed(self, call: Incoming, shown: list[Any], size: int, page: int) -> HttpResponse:
        """A bare list. Links to the next and the previous page, and no count."""
        links = {"first": 1, "self": page, "prev": page - 1, "next": page + 1}
        wanted = {"first", "self"} | ({"prev"} if page > 1 else set())
        wanted |= {"next"} if page * size < len(shown) else set()
        here = f"{self.base_url}{call.path}?pageSize={size}&page="
        text = ", ".join(f'<{here}{links[name]}>; rel="{name}"' for name in links if name in wanted)
        return self.answer(shown[(page - 1) * size : page * size], headers={"link": text})

    def _moment(self, text: str) -> datetime:
        """Milliseconds and an offset are required; a plus sign that was not encoded arrives as a blank."""
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d{4}", text):
            raise self.refusal(400, "A date is not valid")
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z").astimezone(UTC)


def _guid(number: int) -> str:
    return str(uuid.UUID(int=0x7E570000000040008000000000000000 + number))


def _customer(number: int, first: str, last: str, email: str, phone: str) -> dict[str, Any]:
    return {
        "guid": _guid(number),
        "entityType": "Customer",
        "firstName": first,
        "lastName": last,
        "phone": phone,
        "phoneCountryCode": "1",
        "email": email,
    }
