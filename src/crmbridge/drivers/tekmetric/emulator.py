"""Tekmetric's public API v1, two shops in one client's scope and a third outside it.

From https://api.tekmetric.com/ (public copies of its text) and field notes of live use, read 2026-11-22. What no
source tells is marked UNCONFIRMED where it stands: the body of a 404 and of a 409, PATCH of ``address``, empty texts,
PATCH of a deleted appointment, how several e-mails of a customer are shown in one text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from crmbridge.core.wire import HttpResponse
from crmbridge.drivers.tekmetric.emulated_desk import API, EmulatedDesk, digits, moment, shown, stamp
from crmbridge.emulation import Incoming, Refusal, Row, Table, route

__all__ = ["TekmetricEmulator"]

COLORS = {"navy": "#0D4A80", "red": "#D01919", "orange": "#F0572A", "yellow": "#FCB70D"}
NAMES = {*COLORS, "pink", "light green", "green", "blue", "lavender", "purple"}
RIDES = {"LOANER": (1, "LOANDER "), "RIDE": (2, "RIDE "), "NONE": (3, "NONE ")}
STATUSES = ("NONE", "ARRIVED", "NO_SHOW", "CANCELED")
SOURCES = ("Google", "Referral", "Walk-in")
ADDRESS = ("address1", "address2", "city", "state", "zip")
ORDER_FIELDS = ("keyTag", "milesIn", "milesOut", "technicianId", "serviceWriterId", "customerTimeOut")
ESTIMATE, WORKING, COMPLETE = (
    (1, "ESTIMATE", "Estimate"),
    (2, "WORKINPROGRESS", "Work-in-Progress"),
    (3, "COMPLETE", "Complete"),
)


class TekmetricEmulator(EmulatedDesk):
    """Customers, vehicles, appointments and repair orders of the shops."""

    changes_deleted: ClassVar[bool] = True

    def seed(self) -> None:
        super().seed()
        self._by_contact: dict[tuple[int, str], set[int]] = {}
        for number, shop in enumerate((791, 792, 900)):
            fields = {
                "shopId": shop,
                "firstName": "Seeded",
                "lastName": f"Person{number}",
                "email": [f"seed{number}@example.net"],
            }
            owner = self._insert_customer({**fields, "phones": [{"number": f"212555010{number}"}]})
            for status, done in ((ESTIMATE, None), (COMPLETE, "2026-11-20T16:00:00Z")):
                self._seed_order(shop, owner.id, status, done)

    def _seed_order(self, shop: int, customer: int, status: tuple[int, str, str], done: str | None) -> None:
        orders = self.orders
        orders.insert(
            {
                "repairOrderNumber": 1000 + len(orders),
                "shopId": shop,
                "repairOrderStatus": {"id": status[0], "code": f"{status[1]} ", "name": status[2]},
                "customerId": customer,
                "vehicleId": None,
                "milesIn": None,
                "milesOut": None,
                "keytag": None,
                "laborSales": 20000,
                "totalSales": 45678,
                "amountPaid": 0,
                "completedDate": done,
                "jobs": [],
                "deletedDate": None,
            }
        )

    @property
    def customers(self) -> Table[int]:
        """Ids near 2^31, as live ones are."""
        return self.store.numbered("customers", first_id=2_147_483_600)

    @property
    def appointments(self) -> Table[int]:
        return self.store.numbered("appointments", first_id=5_000_001)

    @property
    def vehicles(self) -> Table[int]:
        return self.store.numbered("vehicles", first_id=700_001)

    @property
    def orders(self) -> Table[int]:
        return self.store.numbered("repair-orders", first_id=90_001)

    # -- customers -----------------------------------------------------------------------------------------

    @route("GET", f"{API}/customers", operation="customers.list")
    def list_customers(self, call: Incoming) -> HttpResponse:
        text = call.first("search").casefold()
        number = digits(text)

        def fits(fields: dict[str, Any]) -> bool:
            names = f"{fields['firstName']} {fields.get('lastName') or ''}".casefold()
            is_phone = len(number) >= 3 and any(number in one["number"] for one in fields["phone"])
            return text in names or text in (fields.get("email") or "").casefold() or is_phone

        return self.page(call, self.customers, fits if text else None)

    @route("GET", f"{API}/customers/{{id}}", operation="customers.get")
    def get_customer(self, call: Incoming) -> HttpResponse:
        return self.answer(shown(self.row(call, self.customers)))

    @route("POST", f"{API}/customers", operation="customers.create")
    def create_customer(self, call: Incoming) -> HttpResponse:
        given = self.body(call)
        self.check_shop(given.get("shopId"))
        self._check_customer(given, {"firstName": "First name is required."})
        self._check_twin(given, given["shopId"], None)
        return self.envelope("SUCCESS", "Customer created", shown(self._insert_customer(given)))

    @route("PATCH", f"{API}/customers/{{id}}", operation="customers.update")
    def update_customer(self, call: Incoming) -> HttpResponse:
        row, given = self.row(call, self.customers), self.body(call)
        self._check_customer(given, {})
        self._check_twin(given, row.fields["shopId"], row.id)
        self._forget_contacts(row)
        row = self.customers.update(row.id, self._stored_customer(given, row.fields["shopId"]))
        self._remember_contacts(row)
        return self.envelope("SUCCESS", "Customer created", shown(row))

    def _check_customer(self, given: dict[str, Any], required: dict[str, str]) -> None:
        problems = {name: text for name, text in required.items() if not given.get(name)}
        if "firstName" in given and not given["firstName"]:
            problems["firstName"] = "First name is required."
        if given.get("customerTypeId") not in (None, 1, 2):
            problems["customerTypeId"] = "Invalid customer type."
        if problems:
            raise self.refusal("Customer invalid", problems)
        if any(not isinstance(one, str) for one in given.get("email") or ()):
            raise Refusal(self._twin_answer())  # seen live: objects instead of texts

    def _check_twin(self, given: dict[str, Any], shop: int, own: int | None) -> None:
        """By e-mail or phone, per shop."""
        numbers = [digits(one.get("number")) for one in given.get("phones") or ()]
        for contact in (*(email.lower() for email in given.get("email") or ()), *numbers):
            if self._by_contact.get((shop, contact), set()) - {own}:
                raise Refusal(self._twin_answer())

    def _twin_answer(self) -> HttpResponse:
        return self.envelope("ERROR", "Customer(s) with the same email and/or phone exist", None, 409)

    def _insert_customer(self, given: dict[str, Any]) -> Row[int]:
        empty: dict[str, Any] = {
            "lastName": None,
            "email": None,
            "phone": [],
            "address": None,
            "notes": None,
            "birthday": None,
        }
        kind = {"customerType": {"id": 1, "code": "PERSON ", "name": "Person"}, "okForMarketing": True}
        fields = {"shopId": given["shopId"], **empty, **kind, "deletedDate": None}
        row = self.customers.insert({**fields, **self._stored_customer(given, given["shopId"])})
        self._remember_contacts(row)
        return row

    def _stored_customer(self, given: dict[str, Any], shop: int) -> dict[str, Any]:
        """Lists replace; unknown names (``streetAddress``, …) are dropped in silence."""
        plain = ("firstName", "lastName", "notes", "okForMarketing", "birthday")
        kept = {name: given[name] for name in plain if name in given}
        if "email" in given:
            kept["email"] = ", ".join(given["email"] or ()) or None
        if "phones" in given:
            kept["phone"] = [
                {
                    "id": one.get("id") or 40_000 + self.store.written + number,
                    "number": digits(one.get("number")),
                    "type": one.get("type") or "Mobile",
                    "primary": bool(one.get("primary", number == 0)),
                }
                for number, one in enumerate(given["phones"] or ())
            ]
        if "address" in given:
            address = given["address"] or {}
            kept["address"] = {name: address.get(name) for name in ADDRESS}
        return kept

    def _remember_contacts(self, row: Row[int]) -> None:
        for contact in _contacts(row):
            self._by_contact.setdefault((row.fields["shopId"], contact), set()).add(row.id)

    def _forget_contacts(self, row: Row[int]) -> None:
        for contact in _contacts(row):
            self._by_contact.get((row.fields["shopId"], contact), set()).discard(row.id)

    # -- vehicles and repair orders ------------------------------------------------------------------------

    @route("GET", f"{API}/vehicles", operation="vehicles.list")
    def list_vehicles(self, call: Incoming) -> HttpResponse:
        return self.page(call, self.vehicles, _by_ids(call, "customerId"))

    @route("POST", f"{API}/vehicles", operation="vehicles.create")
    def create_vehicle(self, call: Incoming) -> HttpResponse:
        given = self.body(call)
        missing = [name for name in ("customerId", "year", "make", "model") if not given.get(name)]
        if missing:
            raise self.refusal("Vehicle invalid", dict.fromkeys(missing, "is required"))
        owner = self.customers.get(given["customerId"])
        self.check_shop(owner.fields["shopId"] if owner else None)
        row = self.vehicles.insert(
            {**given, "shopId": owner.fields["shopId"] if owner else 0, "deletedDate": None}
        )
        return self.envelope("SUCCESS", "Vehicle created", shown(row))

    @route("GET", f"{API}/repair-orders", operation="orders.list")
    def list_orders(self, call: Incoming) -> HttpResponse:
        return self.page(call, self.orders, _by_ids(call, "customerId", "vehicleId", "repairOrderNumber"))

    @route("GET", f"{API}/repair-orders/{{id}}", operation="orders.get")
    def get_order(self, call: Incoming) -> HttpResponse:
        return self.answer(shown(self.row(call, self.orders)))

    @route("PATCH", f"{API}/repair-orders/{{id}}", operation="orders.update")
    def update_order(self, call: Incoming) -> HttpResponse:
        row, given = self.row(call, self.orders), self.body(call)
        if row.fields["repairOrderStatus"]["id"] > WORKING[0]:
            raise self.refusal("Repair Order must be active to update data", {})
        kept = {name: given[name] for name in ORDER_FIELDS if name in given}
        if "keyTag" in kept:
            kept["keytag"] = kept.pop("keyTag")  # read under another name
        return self.envelope("SUCCESS", "Repair Order updated", shown(self.orders.update(row.id, kept)))

    # -- appointments --------------------------------------------------------------------------------------

    @route("GET", f"{API}/appointments", operation="appointments.list")
    def list_appointments(self, call: Incoming) -> HttpResponse:
        start, end = moment(call.first("start")), moment(call.first("end"))
        by_ids = _by_ids(call, "customerId", "vehicleId")

        def fits(fields: dict[str, Any]) -> bool:
            at = moment(fields["startTime"])
            return by_ids(fields) and (not start or start <= at) and (not end or at <= end)

        with_deleted = call.first("includeDeleted", "true") != "false"
        return self.page(call, self.appointments, fits, with_deleted=with_deleted)

    @route("GET", f"{API}/appointments/{{id}}", operation="appointments.get")
    def get_appointment(self, call: Incoming) -> HttpResponse:
        return self.answer(shown(self.row(call, self.appointments, with_deleted=True)))

    @route("POST", f"{API}/appointments", operation="appointments.create")
    def create_appointment(self, call: Incoming) -> HttpResponse:
        given = self.body(call)
        missing = [name for name in ("startTime", "endTime", "title") if not given.get(name)]
        if missing:
            raise self.refusal("Appointment invalid", dict.fromkeys(missing, "is required"))
        self.check_shop(given.get("shopId"))
        fields: dict[str, Any] = dict.fromkeys(
            ("customerId", "vehicleId", "description", "leadSource", "dropoffTime")
        )
        fields |= {"pickupTime": None, "rideOption": None, "arrived": False, "appointmentStatus": "NONE"}
        fields |= {"color": COLORS["navy"], "confirmationStatus": "NONE", "deletedDate": None}
        fields |= self._stored_appointment(given, given["shopId"])
        row = self.appointments.insert({"shopId": given["shopId"], **fields})
        return self.envelope("SUCCESS", "Appointment Saved", row.id)

    @route("PATCH", f"{API}/appointments/{{id}}", operation="appointments.update")
    def update_appointment(self, call: Incoming) -> HttpResponse:
        row = self.row(call, self.appointments, with_deleted=self.changes_deleted)
        fields = self._stored_appointment(self.body(call), row.fields["shopId"])
        return self.envelope(
            "SUCCESS", "Appointment Updated", shown(self.appointments.update(row.id, fields))
        )

    @route("DELETE", f"{API}/appointments/{{id}}", operation="appointments.delete")
    def delete_appointment(self, call: Incoming) -> HttpResponse:
        row = self.row(call, self.appointments)
        row.fields["deletedDate"] = stamp(self.clock.now())
        self.appointments.archive(row.id)
        return self.envelope("SUCCESS", "Appointment Deleted", row.id)

    def _stored_appointment(self, given: dict[str, Any], shop: int) -> dict[str, Any]:
        """Checked; ``appointmentOption`` and ``confirmationStatus`` are dropped in silence, as live."""
        if given.get("status") is not None and given["status"] not in STATUSES:
            problem = {"status": f"Invalid status {given['status']}"}
            raise self.refusal("Appointment invalid", problem, 200)  # an error with 200
        for name in ("startTime", "endTime"):
            if name in given and not moment(given[name]):
                raise self.refusal("Appointment invalid", {name: "is not a date"})
        ride = given.get("rideOption")
        if ride and ride != "NONE" and not (given.get("dropoffTime") and given.get("pickupTime")):
            raise self.refusal("Drop-off and Pick-up times are required when ride option is provided.", {})
        if given.get("leadSource") and given["leadSource"] not in SOURCES:
            raise self.refusal("Appointment invalid", {"leadSource": "Lead source not found"})
        if given.get("color") and given["color"] not in NAMES:
            raise self.refusal("Appointment invalid", {"color": "Invalid color"})
        if given.get("customerId"):
            owner = self.customers.get(given["customerId"])
            if owner is None or owner.fields["shopId"] != shop:
                raise self.refusal("Appointment invalid", {"customerId": "Customer not found"})
        plain = ("title", "description", "customerId", "vehicleId", "leadSource", "dropoffTime", "pickupTime")
        kept = {name: given[name] for name in plain if name in given}
        # Read back without the Z: seen live.
        kept |= {name: stamp(moment(given[name]))[:-1] for name in ("startTime", "endTime") if name in given}
        if given.get("status"):
            kept |= {"appointmentStatus": given["status"], "arrived": given["status"] == "ARRIVED"}
        if given.get("color"):
            kept["color"] = COLORS.get(given["color"], "#888888")
        if ride:
            kept["rideOption"] = {"id": RIDES[ride][0], "code": RIDES[ride][1], "name": ride.title()}
        return kept


def _contacts(row: Row[int]) -> list[str]:
    emails = (row.fields["email"] or "").lower().split(", ")
    return [*filter(None, emails), *(one["number"] for one in row.fields["phone"])]


def _by_ids(call: Incoming, *names: str) -> Callable[[dict[str, Any]], bool]:
    wanted = {name: call.first(name) for name in names if call.first(name)}
    return lambda fields: all(str(fields.get(name)) == text for name, text in wanted.items())
