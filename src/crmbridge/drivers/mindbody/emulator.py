"""Mindbody's public API v6 for one business: clients, appointments, contact logs.

From the specification generated from the official SDK, public copies of the documentation and community clients,
read 2026-11-22. What no source tells is marked UNCONFIRMED where it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from crmbridge.core.wire import HttpResponse
from crmbridge.drivers.mindbody.emulated_logs import EmulatedLogs
from crmbridge.drivers.mindbody.emulated_site import (
    CUSTOM_FIELDS,
    LOCATIONS,
    PROSPECT_STAGES,
    SESSION_TYPES,
    STAFF,
    as_local,
    stamp,
)
from crmbridge.emulation import Incoming, Refusal, Row, Table, route

__all__ = ["MindbodyEmulator"]

MOST_CLIENT_IDS = 20
DEDUP = timedelta(minutes=2)
TEXTS = """FirstName MiddleName LastName Email MobilePhone HomePhone WorkPhone WorkExtension AddressLine1 AddressLine2
City State PostalCode Country BirthDate Gender ReferredBy Notes""".split()  # noqa: SIM905
FLAGS = ("IsProspect", "Active", "SendPromotionalEmails", "SendAccountEmails", "SendScheduleEmails")
MOVES = {
    "confirm": (("Booked", "Requested", "None"), "Confirmed"),
    "unconfirm": (("Confirmed",), "Booked"),
    "arrive": (("Booked", "Confirmed"), "Arrived"),
    "unarrive": (("Arrived",), "Booked"),
    "cancel": (("None", "Requested", "Booked", "Confirmed"), "Cancelled"),
    "latecancel": (("Requested", "Booked", "Confirmed"), "LateCancelled"),
    "complete": (("Booked", "Confirmed", "Arrived"), "Completed"),
}
OVER = ("Cancelled", "LateCancelled", "Completed", "NoShow")


class MindbodyEmulator(EmulatedLogs):
    """``refuses_double_booking``: one member of staff, one appointment at a time (off: a large team)."""

    refuses_double_booking = False

    def seed(self) -> None:
        super().seed()
        self._recent: dict[str, datetime] = {}
        self.clients.index("Id")
        self.clients.index("Email", lambda value: str(value).casefold())
        self.logs.index("client")
        self.appointments.index("ClientId")
        person = {"FirstName": "Seeded", "LastName": "Person", "Email": "seed@example.net"}
        self._insert_client({**person, "MobilePhone": "(310) 555-0100"})

    @property
    def appointments(self) -> Table[int]:
        return self.store.numbered("appointments", first_id=5_001)

    # -- clients -------------------------------------------------------------------------------------------

    @route("GET", "/client/clients", operation="clients.list")
    def list_clients(self, call: Incoming) -> HttpResponse:
        self.need_staff(call)
        unique, ids = self.asked(call, "uniqueIds"), self.asked(call, "clientIDs")
        text = self.one(call, "searchText").casefold()
        if len(ids) > MOST_CLIENT_IDS or (unique and (ids or text)):
            raise self.refusal("InvalidParameter", "These filters cannot be used so.")
        with_inactive = self.one(call, "includeInactive", "false").lower() == "true"
        prospects = self.one(call, "isProspect").lower()
        since = as_local(self.one(call, "lastModifiedDate").removesuffix("Z"))

        def fits(row: Row[int]) -> bool:
            fields = row.fields
            names = f"{fields['FirstName']} {fields['LastName']}".casefold()
            return (
                (not unique or str(row.id) in unique)
                and (not ids or fields["Id"] in ids)
                and (not text or text in names or text in (fields.get("Email") or "").casefold())
                and (not prospects or fields["IsProspect"] is (prospects == "true"))
                and (with_inactive or fields["Active"])
                and (since is None or row.updated_at.replace(tzinfo=None) >= since)
            )

        named = [row for one in sorted(ids) for row in self.clients.find("Id", one, with_archived=True)]
        some = sorted(named, key=lambda row: row.id) if ids else self.clients
        return self.page(call, "Clients", [self._shown(row) for row in some if fits(row)])

    @route("GET", "/client/clientduplicates", operation="clients.duplicates")
    def list_duplicates(self, call: Incoming) -> HttpResponse:
        self.need_staff(call)
        given = {name: self.one(call, name) for name in ("FirstName", "LastName", "Email")}
        shown = ("Id", "UniqueId", "FirstName", "LastName", "Email")
        rows = ({name: self._shown(row)[name] for name in shown} for row in self._twins(given, 0))
        return self.page(call, "ClientDuplicates", rows)

    @route("POST", "/client/addclient", operation="clients.create")
    def add_client(self, call: Incoming) -> HttpResponse:
        given = self.body(call)
        missing = [name for name in ("FirstName", "LastName", *self.required) if not given.get(name)]
        if missing:
            raise self.refusal("MissingRequiredFields", f"Missing required fields: {', '.join(missing)}")
        kept = self._checked(given)
        for row in self._twins(given, 0):
            if not row.fields["Active"] and given.get("ReactivateInactiveClient"):
                return self._client(self.clients.update(row.id, {**kept, "Active": True}))
            raise self.refusal(
                "InvalidClientCreation", "Client creation cannot result in duplicate client records."
            )
        if given.get("Test"):
            return self.answer({"Client": given})
        return self._client(self._insert_client({**kept, "NewId": given.get("NewId")}))

    @route("POST", "/client/updateclient", operation="clients.update")
    def update_client(self, call: Incoming) -> HttpResponse:
        body = self.body(call)
        given = body.get("Client")
        if not isinstance(given, dict):
            raise self.refusal("MissingRequiredFields", "Client is required.")
        found = self.clients.find("Id", given.get("Id"))
        if not found:
            raise self.refusal("ClientNotFound", "The client was not found.")
        row = found[0]
        if body.get("CrossRegionalUpdate", True) and given.get("CustomClientFields"):
            raise self.refusal("InvalidClientUpdate", "Custom fields cannot be updated cross-regionally.")
        empty = [
            name for name in ("FirstName", "LastName", *self.required) if name in given and not given[name]
        ]
        if empty:
            raise self.refusal("MissingRequiredFields", f"Missing required fields: {', '.join(empty)}")
        kept = self._checked(given)
        if any(True for _ in self._twins({**row.fields, **kept}, row.id)):
            raise self.refusal("InvalidClientUpdate", "The update would result in duplicate client records.")
        if body.get("NewId"):
            kept["Id"] = str(body["NewId"])
        return self._client(row if body.get("Test") else self.clients.update(row.id, kept))

    def _twins(self, given: dict[str, Any], own: int) -> Iterator[Row[int]]:
        """Same first name, last name and e-mail: all three, by any case."""
        wanted = [str(given.get(name) or "").casefold() for name in ("FirstName", "LastName", "Email")]
        alike = self.clients.find("Email", wanted[2], with_archived=True) if all(wanted) else []
        for row in sorted(alike, key=lambda row: row.id):
            have = [str(row.fields.get(name) or "").casefold() for name in ("FirstName", "LastName", "Email")]
            if have == wanted and row.id != own:
                yield row

    def _checked(self, given: dict[str, Any]) -> dict[str, Any]:
        if given.get("BirthDate") and as_local(given["BirthDate"]) is None:
            raise self.refusal("InvalidParameter", "BirthDate is not valid.")
        for name in FLAGS:
            if name in given and not isinstance(given[name], bool):
                raise self.refusal("InvalidParameter", f"{name} is not valid.")
        kept = {name: given[name] for name in (*TEXTS, *FLAGS) if name in given}
        if kept.get("BirthDate"):
            kept["BirthDate"] = f"{str(kept['BirthDate'])[:10]}T00:00:00"
        stage = given.get("ProspectStage")
        if stage:
            if stage.get("Id") not in PROSPECT_STAGES:
                raise self.refusal("InvalidParameter", "ProspectStage is not valid.")
            kept["ProspectStage"] = {
                "Id": stage["Id"],
                "Description": PROSPECT_STAGES[stage["Id"]],
                "Active": True,
            }
        if given.get("CustomClientFields"):
            for one in given["CustomClientFields"]:
                if one.get("Id") not in CUSTOM_FIELDS:
                    raise self.refusal("InvalidParameter", "CustomClientFields is not valid.")
            kept["CustomClientFields"] = [
                {
                    "Id": one["Id"],
                    "Name": CUSTOM_FIELDS[one["Id"]][0],
                    "DataType": CUSTOM_FIELDS[one["Id"]][1],
                    "Value": one.get("Value"),
                }
                for one in given["CustomClientFields"]
            ]
        return kept

    def _insert_client(self, kept: dict[str, Any]) -> Row[int]:
        number = str(kept.pop("NewId", None) or 15_001 + len(self.clients))
        empty: dict[str, Any] = {**dict.fromkeys(TEXTS), "IsProspect": False, "Active": True}
        more: dict[str, Any] = {
            "ProspectStage": None,
            "CustomClientFields": [],
            "Status": "Non-Member",
            "Id": number,
        }
        return self.clients.insert({**empty, **more, **kept})

    def _shown(self, row: Row[int]) -> dict[str, Any]:
        created = row.created_at.astimezone(self.zone).replace(tzinfo=None, microsecond=0).isoformat()
        return {
            **row.fields,
            "UniqueId": row.id,
            "CreationDate": created,
            "LastModifiedDateTime": stamp(row.updated_at),
            "ClientCreditCard": {"LastFour": "4242"},
        }

    def _client(self, row: Row[int]) -> HttpResponse:
        return self.answer({"Client": self._shown(row)})

    # -- appointments --------------------------------------------------------------------------------------

    @route("GET", "/appointment/staffappointments", operation="appointments.list")
    def list_appointments(self, call: Incoming) -> HttpResponse:
        self.need_staff(call)
        ids, first, last = self.asked(call, "appointmentIds"), *self.window(call)
        client = self.one(call, "clientId")
        theirs = self.appointments.find("ClientId", client, with_archived=True)
        rows = [
            self._appointment(row)
            for row in (sorted(theirs, key=lambda row: row.id) if client else self.appointments)
            if (not ids or str(row.id) in ids)
            and first <= datetime.fromisoformat(row.fields["StartDateTime"]).date() <= last
            and client in ("", row.fields["ClientId"])
        ]
        return self.page(call, "Appointments", rows)

    @route("POST", "/appointment/addappointment", operation="appointments.create")
    def add_appointment(self, call: Incoming) -> HttpResponse:
        self.need_staff(call)
        key, now = f"{call.path} {call.body!r}", self.clock.now()
        is_repeat = now - self._recent.get(key, now - DEDUP) < DEDUP
        if is_repeat and call.headers.get("x-requestdeduplication-skip") != "true":
            return self.error("", "Identical request is still in progress.", 409)
        row = self._book(self.body(call))
        self._recent[key] = now
        return self.answer({"Appointment": self._appointment(row)})

    @route("POST", "/appointment/addmultipleappointments", operation="appointments.create_many")
    def add_appointments(self, call: Incoming) -> HttpResponse:
        self.need_staff(call)
        outcomes = []
        for given in self.body(call).get("AddAppointmentRequests") or ():
            told: dict[str, Any] = {"Request": given, "Appointment": None, "Error": None}
            try:
                told["Appointment"] = self._appointment(self._book(given))
            except Refusal as refused:
                told["Error"] = refused.response.json()["Error"]
            outcomes.append(told)
        return self.answer({"AddAppointmentOutcomes": outcomes})

    def _book(self, given: dict[str, Any]) -> Row[int]:
        needed = ("ClientId", "LocationId", "SessionTypeId", "StaffId", "StartDateTime")
        missing = [name for name in needed if not given.get(name)]
        if missing:
            raise self.refusal("MissingRequiredFields", f"Missing required fields: {', '.join(missing)}")
        self.client_of(given["ClientId"])
        if given.get("ApplyPayment", True):
            raise self.refusal("PaymentRequired", "The client has no usable purchase.")
        fields = {
            "Notes": None,
            "PartnerExternalId": None,
            "LocationId": None,
            "Duration": 60,
            **self._slot(given, {}),
        }
        fields |= {
            name: given[name] for name in ("ClientId", "PartnerExternalId", "LocationId") if name in given
        }
        if fields["LocationId"] not in LOCATIONS:
            raise self.refusal("InvalidParameter", "LocationId is not valid.")
        status = "Requested" if given.get("IsRequest") else "Booked"
        return self.appointments.insert(
            {**fields, "Status": status, "FirstAppointment": False, "IsWaitlist": False}
        )

    def _slot(self, given: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
        """When, what and with whom, checked."""
        plain: tuple[str, ...] = ("SessionTypeId", "StaffId", "Notes")
        kept = {name: given[name] for name in plain if name in given}
        for name, known in (("SessionTypeId", SESSION_TYPES), ("StaffId", STAFF)):
            if name in kept and kept[name] not in known:
                raise self.refusal("InvalidParameter", f"{name} is not valid.")
        start, end = as_local(given.get("StartDateTime", now.get("StartDateTime"))), None
        if start is None:
            raise self.refusal("InvalidParameter", "StartDateTime is not valid.")
        if "EndDateTime" in given:
            end = as_local(given["EndDateTime"])
        elif now.get("EndDateTime"):
            end = datetime.fromisoformat(now["EndDateTime"])  # whether it moves with the start is UNCONFIRMED
        end = end or start + timedelta(minutes=60)
        if end < start:
            raise self.refusal("InvalidParameter", "EndDateTime is before StartDateTime.")
        staff = kept.get("StaffId", now.get("StaffId"))
        if self.refuses_double_booking and self._is_busy(staff, start, end, now.get("StartDateTime")):
            raise self.refusal("SchedulingRestrictionsViolated", "The staff member is not available.")
        return {**kept, "StartDateTime": start.isoformat(), "EndDateTime": end.isoformat()}

    def _is_busy(self, staff: Any, start: datetime, end: datetime, own: Any) -> bool:
        return any(
            row.fields["StaffId"] == staff
            and row.fields["Status"] not in OVER
            and row.fields["StartDateTime"] != own
            and datetime.fromisoformat(row.fields["StartDateTime"]) < end
            and start < datetime.fromisoformat(row.fields["EndDateTime"])
            for row in self.appointments
        )

    @route("POST", "/appointment/updateappointment", operation="appointments.update")
    def update_appointment(self, call: Incoming) -> HttpResponse:
        self.need_staff(call)
        given = self.body(call)
        row = self.appointments.get(given.get("AppointmentId", 0))
        if row is None:
            raise self.refusal("ItemNotFound", "The appointment was not found.")
        if row.fields["Status"] in OVER:
            raise self.refusal("SchedulingRestrictionsViolated", "The appointment is over or cancelled.")
        kept = self._slot(given, row.fields)
        if step := given.get("Execute"):
            froms, to = MOVES.get(step, ((), ""))
            if row.fields["Status"] not in froms:
                raise self.refusal("InvalidParameter", f"Execute {step} is not possible.")
            kept["Status"] = to
        return self.answer({"Appointment": self._appointment(self.appointments.update(row.id, kept))})

    def _appointment(self, row: Row[int]) -> dict[str, Any]:
        return {"Id": row.id, **row.fields}
