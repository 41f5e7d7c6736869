"""athenahealth's API v1 for one practice: patients, patient cases, appointments, and changed-data feeds.

From https://docs.athenahealth.com/api/guides/overview, its guides, and fixtures of community SDKs, read 2026-11-22.
What no source tells is marked UNCONFIRMED where it stands: the score of a match, what a case's ``description`` shows,
the shape of an action, empty form values that clear.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from crmbridge.core.wire import HttpResponse
from crmbridge.drivers.athenahealth.emulated_practice import EASTERN, V1, EmulatedPractice, day, stamp
from crmbridge.emulation import Incoming, Refusal, Row, Table, route

__all__ = ["AthenahealthEmulator"]

MOST_HITS = 1000
CONTACTS = ("email", "guarantoremail", "ssn", "homephone", "mobilephone", "workphone", "zip")
PHONES = ("homephone", "mobilephone", "workphone")
CRITERIA = ("firstname", "lastname", "dob", "email", "anyphone", *PHONES)
PATIENT = frozenset(
    """departmentid firstname lastname middlename suffix dob sex email homephone mobilephone workphone address1
    address2 city state zip countrycode status contactpreference""".split()  # noqa: SIM905
)
BOOKED = ("f", "x", "2", "3", "4")
FEEDS = {"patients": "patients", "appointments": "appointments", "documents/patientcase": "patientcases"}


class AthenahealthEmulator(EmulatedPractice):
    """The registration desk of the practice."""

    def seed(self) -> None:
        super().seed()
        self.subscribed: set[str] = set()
        self.processed: dict[tuple[str, int], datetime] = {}
        self.patients.index("name")
        self.appointments.index("date")
        self.appointments.index("patientid")

    @property
    def patients(self) -> Table[int]:
        return self.store.numbered("patients", first_id=100)

    @property
    def cases(self) -> Table[int]:
        return self.store.numbered("patientcases", first_id=491_696)

    @property
    def actions(self) -> Table[int]:
        return self.store.numbered("actions")

    # -- patients ------------------------------------------------------------------------------------------

    @route("GET", f"{V1}/patients", operation="patients.search")
    def search_patients(self, call: Incoming) -> HttpResponse:
        wanted = {name: call.first(name).strip().casefold() for name in CRITERIA if call.first(name).strip()}
        if not wanted:
            text = "Data for one or more of the fields listed above are required to successfully find a patient record."
            raise self.refusal(400, text, fields=list(CRITERIA))

        def fits(fields: dict[str, Any]) -> bool:
            phone = wanted.get("anyphone")
            if phone and phone not in [fields.get(name) for name in PHONES]:
                return False
            return all(
                str(fields.get(name) or "").casefold() == text
                for name, text in wanted.items()
                if name != "anyphone"
            )

        rows = self.patients.search(fits)
        if len(rows) > MOST_HITS:
            text = f"The given search parameters would produce a result set larger than {MOST_HITS} patients."
            raise self.refusal(400, f"{text} Please refine your search.")
        return self.page(call, "patients", [_patient(row) for row in rows])

    @route("GET", f"{V1}/patients/enhancedbestmatch", operation="patients.bestmatch")
    def best_match(self, call: Incoming) -> HttpResponse:
        given = {name: call.first(name) for name in PATIENT if call.first(name)}
        missing = [name for name in ("dob", "firstname", "lastname") if name not in given]
        if missing:
            raise self.refusal(400, "Additional fields are required.", missingfields=missing)
        row = self._twin(given)
        return self.answer([{**_patient(row), "score": "26"}] if row else [])

    @route("GET", f"{V1}/patients/{{id}}", operation="patients.get")
    def get_patient(self, call: Incoming) -> HttpResponse:
        return self.answer([_patient(self.row(self.patients, call.params["id"], "Patient"))])

    @route("POST", f"{V1}/patients", operation="patients.create")
    def create_patient(self, call: Incoming) -> HttpResponse:
        given = self.form(call, "departmentid", "firstname", "lastname", "dob")
        self.department(given["departmentid"])
        if not any(given.get(name) for name in CONTACTS):
            raise self.refusal(400, "Additional fields are required.", missingfields=list(CONTACTS))
        row = self._twin(given)  # a known person is answered, not made twice
        if row is not None and given.get("showerrormessage") == "true":
            return self.answer([{"errormessage": "A patient with this information already exists."}])
        if row is None:
            fields = {"status": "active", **self._stored(given)}
            fields["registrationdate"] = self.clock.now().strftime("%m/%d/%Y")
            row = self.patients.insert({**fields, "name": _name(fields)})
        return self.answer([{"patientid": str(row.id), "errormessage": ""}])

    @route("PUT", f"{V1}/patients/{{id}}", operation="patients.update")
    def update_patient(self, call: Incoming) -> HttpResponse:
        row = self.row(self.patients, call.params["id"], "Patient")
        given = self.form(call, "departmentid")
        if any(given.get(name) == "" for name in ("firstname", "lastname", "dob")):
            raise self.refusal(
                400, "The data provided is invalid.", "A name and a date of birth are required."
            )
        fields = self._stored(given)
        self.patients.update(row.id, {**fields, "name": _name({**row.fields, **fields})})
        return self.answer([{"patientid": str(row.id)}])

    def _stored(self, given: dict[str, str]) -> dict[str, Any]:
        """Checked. Bad phones are dropped in silence; an empty value clears (UNCONFIRMED)."""
        kept: dict[str, Any] = {name: given[name] for name in PATIENT if name in given}
        if kept.get("sex") not in (None, "", "M", "F"):
            raise self.refusal(400, "The data provided is invalid.", "Expecting format M or F for sex")
        for name in PHONES:
            if kept.get(name) and (
                len(kept[name]) != 10 or not kept[name].isdigit() or kept[name][0] in "01"
            ):
                del kept[name]
        return kept

    def _twin(self, given: dict[str, str]) -> Row[int] | None:
        """Name, birth date and one way of contact; the vendor's score is UNCONFIRMED."""
        for row in self.patients.find("name", _name(given)):
            same = [
                name for name in ("email", *PHONES) if given.get(name) and given[name] == row.fields.get(name)
            ]
            if same:
                return row
        return None

    # -- cases ---------------------------------------------------------------------------------------------

    @route("POST", f"{V1}/patients/{{id}}/documents/patientcase", operation="cases.create")
    def create_case(self, call: Incoming) -> HttpResponse:
        patient = self.row(self.patients, call.params["id"], "Patient")
        given = self.form(call, "departmentid", "documentsource", "documentsubclass")
        if self.department(given["departmentid"]) != patient.fields["departmentid"]:
            raise self.refusal(400, "The specified patient does not exist in that department.")
        return self.answer({"success": True, "patientcaseid": self._open_case(patient, given).id})

    def _open_case(self, patient: Row[int], given: dict[str, str], owner: str = "api") -> Row[int]:
        if given.get("priority") not in (None, "", "1", "2"):
            raise self.refusal(400, "The data provided is invalid.", "Expecting format 1 or 2 for priority")
        if len(given.get("internalnote", "")) > 4000:
            raise self.refusal(
                400, "The data provided is invalid.", "internalnote is longer than 4000 characters"
            )
        fields = {"patientid": str(patient.id), "status": "REVIEW", "owner": owner, "priority": "2", **given}
        return self.cases.insert({**fields, "createddate": self.clock.now().strftime("%m/%d/%Y")})

    @route("GET", f"{V1}/patients/{{id}}/patientcases", operation="cases.list")
    @route("GET", f"{V1}/patients/{{id}}/documents/patientcase", operation="cases.list")
    def list_cases(self, call: Incoming) -> HttpResponse:
        patient = self.row(self.patients, call.params["id"], "Patient")
        if not call.first("departmentid"):
            raise self.refusal(400, "Additional fields are required.", missingfields=["departmentid"])
        rows = [_case(row) for row in self.cases if row.fields["patientid"] == str(patient.id)]
        return self.page(call, "patientcases", rows)

    @route("PUT", f"{V1}/patients/{{id}}/documents/patientcase/{{case}}", operation="cases.update")
    def update_case(self, call: Incoming) -> HttpResponse:
        row = self._own_case(call)
        given = self.form(call)
        self.cases.update(
            row.id, {name: given[name] for name in given if name not in ("departmentid", "internalnote")}
        )
        return self.answer({"success": True, "patientcaseid": row.id})

    @route("PUT", f"{V1}/patients/{{id}}/documents/patientcase/{{case}}/close", operation="cases.close")
    def close_case(self, call: Incoming) -> HttpResponse:
        row = self._own_case(call)
        self.form(call, "actionreasonid")
        self.cases.update(row.id, {"status": "CLOSED"})
        return self.answer({"success": True, "patientcaseid": row.id})

    def _own_case(self, call: Incoming) -> Row[int]:
        """Only cases that the same API user has made, and only while they are open."""
        row = self.row(self.cases, call.params["case"], "Document")
        if row.fields["patientid"] != call.params["id"]:
            raise self.refusal(404, "The requested ID does not exist.", "Document not found")
        if row.fields["owner"] != "api" or row.fields["status"] == "CLOSED":
            raise Refusal(self.answer({"success": False, "errormessage": "This document cannot be changed."}))
        return row

    @route("POST", f"{V1}/documents/patientcase/{{id}}/actions", operation="actions.create")
    def create_action(self, call: Incoming) -> HttpResponse:
        row = self.row(self.cases, call.params["id"], "Document")
        note = self.form(call, "actionnote")["actionnote"]
        self.actions.insert({"case": row.id, "actionnote": note})
        return self.answer({"success": True})

    @route("GET", f"{V1}/documents/patientcase/{{id}}/actions", operation="actions.list")
    def list_actions(self, call: Incoming) -> HttpResponse:
        row = self.row(self.cases, call.params["id"], "Document")
        rows = [
            {
                "actionnote": one.fields["actionnote"],
                "createddatetime": one.created_at.isoformat(),
                "createdby": "API",
            }
            for one in self.actions
            if one.fields["case"] == row.id
        ]
        return self.page(call, "actions", rows)

    # -- appointments --------------------------------------------------------------------------------------

    @route("GET", f"{V1}/appointments/booked", operation="appointments.booked")
    def list_booked(self, call: Incoming) -> HttpResponse:
        start, end = day(call.first("startdate")), day(call.first("enddate"))
        if start is None or end is None:
            raise self.refusal(400, "Additional fields are required.", missingfields=["startdate", "enddate"])
        since = call.first("startlastmodified")
        after = datetime.strptime(since, "%m/%d/%Y %H:%M:%S").replace(tzinfo=EASTERN) if since else None
        rows = [
            _appointment(row)
            for row in self.appointments
            if row.fields["appointmentstatus"] in BOOKED
            and start <= (day(row.fields["date"]) or start) <= end
            and call.first("departmentid") in ("", row.fields["departmentid"])
            and (call.first("showcancelled") == "true" or row.fields["appointmentstatus"] != "x")
            and (after is None or row.updated_at.replace(microsecond=0) >= after)
        ]
        return self.page(call, "appointments", rows)

    @route("GET", f"{V1}/patients/{{id}}/appointments", operation="appointments.of_patient")
    def list_of_patient(self, call: Incoming) -> HttpResponse:
        patient = str(self.row(self.patients, call.params["id"], "Patient").id)
        booked = self.appointments.find("patientid", patient, with_archived=True)
        rows = [_appointment(row) for row in sorted(booked, key=lambda row: row.id)]
        return self.page(call, "appointments", rows)

    @route("GET", f"{V1}/appointments/{{id}}", operation="appointments.get")
    def get_appointment(self, call: Incoming) -> HttpResponse:
        return self.answer([_appointment(self.row(self.appointments, call.params["id"], "Appointment"))])

    @route("PUT", f"{V1}/appointments/{{id}}", operation="appointments.book")
    def book(self, call: Incoming) -> HttpResponse:
        given = self.form(call, "patientid")
        if not given.get("reasonid") and not given.get("appointmenttypeid"):
            raise self.refusal(
                400, "Additional fields are required.", missingfields=["reasonid", "appointmenttypeid"]
            )
        patient = self.row(self.patients, given["patientid"], "Patient")
        row = self._take(call.params["id"], patient, given.get("bookingnote", ""))
        if given.get("nopatientcase") != "true":
            self._open_case(patient, {"subject": "Appointment booked"}, "scheduler")  # the hidden extra write
        return self.answer([_appointment(row)])

    def _take(self, slot: str, patient: Row[int], note: str) -> Row[int]:
        row = self.row(self.appointments, slot, "Appointment")
        if row.fields["appointmentstatus"] != "o":
            raise Refusal(self.gateway(404, "The appointment is not available."))
        taken = {"appointmentstatus": "f", "patientid": str(patient.id), "bookingnote": note}
        return self.appointments.update(row.id, taken)

    @route("PUT", f"{V1}/appointments/{{id}}/reschedule", operation="appointments.reschedule")
    def reschedule(self, call: Incoming) -> HttpResponse:
        given = self.form(call, "patientid", "newappointmentid")
        row = self._future(call.params["id"], given["patientid"])
        patient = self.row(self.patients, given["patientid"], "Patient")
        new = self._take(given["newappointmentid"], patient, row.fields.get("bookingnote", ""))
        self.appointments.update(row.id, {"appointmentstatus": "x"})
        return self.answer([_appointment(new)])

    @route("PUT", f"{V1}/appointments/{{id}}/cancel", operation="appointments.cancel")
    def cancel(self, call: Incoming) -> HttpResponse:
        given = self.form(call, "patientid")
        row = self._future(call.params["id"], given["patientid"])
        self.appointments.update(row.id, {"appointmentstatus": "x"})
        return self.answer({"status": "x"})

    def _future(self, appointment: str, patient: str) -> Row[int]:
        row = self.row(self.appointments, appointment, "Appointment")
        if row.fields["patientid"] != patient or row.fields["appointmentstatus"] != "f":
            raise Refusal(
                self.answer({"success": False, "errormessage": "This appointment cannot be changed."})
            )
        return row

    # -- changed-data feeds: a read marks what it answers as processed --------------------------------------

    @route("POST", f"{V1}/{{feed:rest}}/changed/subscription", operation="changed.subscribe")
    def subscribe(self, call: Incoming) -> HttpResponse:
        self.subscribed.add(self._feed(call))
        return self.answer({"success": True})  # the body is UNCONFIRMED

    @route("GET", f"{V1}/{{feed:rest}}/changed", operation="changed.read")
    def read_changed(self, call: Incoming) -> HttpResponse:
        feed = self._feed(call)
        if feed not in self.subscribed:
            raise self.refusal(400, "No subscription exists.")  # UNCONFIRMED
        shown = {"patients": _patient, "appointments": _appointment, "patientcases": _case}[FEEDS[feed]]
        since = call.first("showprocessedstartdatetime")
        after = datetime.strptime(since, "%m/%d/%Y %H:%M:%S").replace(tzinfo=EASTERN) if since else None
        rows = [
            row
            for row in self.store.tables[FEEDS[feed]]
            if (row.updated_at >= after if after else self.processed.get((feed, row.id)) != row.updated_at)
            and row.fields.get("appointmentstatus") != "o"
        ]
        if call.first("leaveunprocessed") != "true":
            self.processed |= {(feed, row.id): row.updated_at for row in rows}
        return self.page(call, feed.rpartition("/")[2], [shown(row) for row in rows])

    def _feed(self, call: Incoming) -> str:
        if call.params["feed"] not in FEEDS:
            raise Refusal(self.on_unknown_route(call))
        return call.params["feed"]


def _name(fields: dict[str, Any]) -> str:
    return "|".join(str(fields.get(name) or "").casefold() for name in ("firstname", "lastname", "dob"))


def _patient(row: Row[int]) -> dict[str, Any]:
    """Ids are texts; what is empty is missing. The masked ssn and clinical keys come without being asked for."""
    kept = {name: text for name, text in row.fields.items() if text and name != "name"}
    return {"patientid": str(row.id), **kept, "ssn": "*****0000", "caresummarydeliverypreference": "PORTAL"}


def _case(row: Row[int]) -> dict[str, Any]:
    """Here the id is a number. ``description`` shows the internal note (UNCONFIRMED)."""
    tree = {name: row.fields.get(name) for name in ("subject", "createddate", "status")}
    tree |= {
        "description": row.fields.get("internalnote"),
        "patientcasetype": row.fields.get("documentsubclass"),
    }
    return {"patientcaseid": row.id, **{name: text for name, text in tree.items() if text}}


def _appointment(row: Row[int]) -> dict[str, Any]:
    kept = {name: str(text) for name, text in row.fields.items() if text != "" and name != "bookingnote"}
    return {"appointmentid": str(row.id), **kept, "lastmodified": stamp(row.updated_at)}
