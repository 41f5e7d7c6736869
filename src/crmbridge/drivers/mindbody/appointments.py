"""Appointments: times local to the site, services and staff by name, a status that moves by steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from crmbridge.core.errors import CrmError, FieldError, NotFound, ValidationError
from crmbridge.core.operations import DeleteLevel, Operation, Outcome
from crmbridge.core.records import Object, Page, Record, Write, WriteResult
from crmbridge.core.wire import HttpRequest
from crmbridge.drivers.mindbody import shapes
from crmbridge.drivers.mindbody.logs import ContactLogs
from crmbridge.drivers.mindbody.site import EVER, refusal_in_batch
from crmbridge.toolkit.formats import utc_text

__all__ = ["AT_ONCE", "Appointments"]

# How many addmultipleappointments takes is UNCONFIRMED; so many clients can be read in one call.
AT_ONCE = 20
_BACK, _AHEAD = timedelta(days=31), timedelta(days=366)
_GONE = ("Cancelled", "LateCancelled")
# Status → what to execute; the others are Mindbody's own doing.
_STEPS = {
    "Confirmed": "confirm",
    "Arrived": "arrive",
    "Completed": "complete",
    "Cancelled": "cancel",
    "LateCancelled": "latecancel",
}
_BACK_STEPS = {"Confirmed": "unconfirm", "Arrived": "unarrive"}
# kind → list, rows, slot, setting
_KINDS = {
    "SessionType": ("/site/sessiontypes", "SessionTypes", "appointment.service", "session_type_id"),
    "Staff": ("/staff/staff", "StaffMembers", "appointment.staff", "staff_id"),
    "Location": ("/site/locations", "Locations", "appointment.location", "location_id"),
}
_SHOWN = 20


class Appointments(ContactLogs):
    """Booking, moving, cancelling."""

    def appointment_record(self, obj: Object, native: dict[str, Any]) -> Record:
        names = {kind: self.names(kind) for kind in ("SessionType", "Location")}
        record = super().record_from(obj, shapes.appointment(native, self.zone(), names))
        record.is_archived = record.native.get("Status") in _GONE
        return record

    async def get_appointment(self, remote_id: str) -> Record:
        obj = Object.APPOINTMENT
        names = {**EVER, "id": self.check_id(obj, remote_id)}
        if "." not in remote_id:
            page = await self._page(Operation.GET, obj, names, {}, "", 10)
            for record in page.records:
                if record.remote_id == remote_id:
                    return record
        raise NotFound("There is no such appointment.", provider=self.manifest.slug, operation="get")

    async def list_appointments(self, since: str, cursor: str, limit: int) -> Page:
        if since:
            problem = "cannot be asked: Mindbody tells no time of change for appointments"
            text = "Appointments cannot be listed by change."
            raise self.invalid(text, "since", problem, operation="list")
        today = datetime.now(UTC).astimezone(self.zone())
        names = {
            "startDate": (today - _BACK).date().isoformat(),
            "endDate": (today + _AHEAD).date().isoformat(),
        }
        return await self._page(Operation.LIST, Object.APPOINTMENT, names, {}, cursor, limit)

    # -- writing -------------------------------------------------------------------------------------------

    def _fields(self, write: Write) -> dict[str, Any]:
        """The fields of a write in Mindbody's words but for names; what can never be sent is refused."""
        fields: dict[str, Any] = self._scope(write, write.operation)["record"]
        fields.pop("client", None)
        is_new = write.operation is Operation.CREATE
        zone = self.zone()
        for name, slot in (("StartDateTime", "start_at"), ("EndDateTime", "end_at")):
            if fields.get(name):
                fields[name] = shapes.local(fields[name], zone, f"appointment.{slot}")
            elif name in fields or (is_new and name == "StartDateTime"):
                raise _refused(f"appointment.{slot}", "is required: a date and time")
        if "Notes" in fields:
            fields["Notes"] = fields["Notes"] or ""
        if not is_new:
            for name, slot in (
                ("Status", "status"),
                *((kind, parts[2].partition(".")[2]) for kind, parts in _KINDS.items()),
            ):
                if name in fields and not fields[name]:
                    raise _refused(f"appointment.{slot}", "cannot be taken away, only changed")
        status = fields.pop("Status", None)
        if status and is_new:
            if status not in ("Requested", "Booked"):
                raise _refused("appointment.status", "can only be requested or booked when it is new")
            fields["IsRequest"] = status == "Requested"
        elif status:
            fields["Status"] = status
        if not is_new and "Location" in fields:
            raise _refused("appointment.location", "cannot be changed; cancel and book anew")
        return fields

    async def _with_numbers(self, fields: dict[str, Any], *, is_new: bool) -> dict[str, Any]:
        """Service, staff and location by number."""
        made = dict(fields)
        for kind, (_, _, slot, setting) in _KINDS.items():
            text = str(made.pop(kind, None) or (self.setting(setting) if is_new else "")).strip()
            places = self.names("Location")
            if not text and is_new and kind == "Location" and len(places) == 1:
                text = next(iter(places))
            if text:
                made[f"{kind}Id"] = await self._number(kind, text)
            elif is_new:
                raise _refused(slot, f"is required, or set {setting} in this connection's settings")
        return made

    async def _number(self, kind: str, text: str) -> int:
        path, rows, slot, _ = _KINDS[kind]
        if text.isdecimal():
            return int(text)
        known = [number for number, name in self.names(kind).items() if _same(name, text)]
        if len(known) == 1:
            return int(known[0])
        found, names = set(), []
        async for row in self.rows(path, rows, {}):
            name = str(row.get("Name") or f"{row.get('FirstName') or ''} {row.get('LastName') or ''}").strip()
            names.append(name)
            if self.id_text(row.get("Id")) and _same(name, text):
                found.add(int(row["Id"]))
        if len(found) == 1:
            return found.pop()
        offered = f"; it knows {', '.join(names[:_SHOWN])}" if kind != "Staff" and names else ""
        raise _refused(slot, f"names {'more than one' if found else 'none'} of this site{offered}")

    async def _bookings(self, writes: Sequence[Write]) -> list[dict[str, Any] | CrmError]:
        """The body of each booking, or why it cannot be sent; clients are read together."""
        made: list[dict[str, Any] | CrmError] = []
        links = []
        for write in writes:
            try:
                self.spec(write.object, Operation.CREATE)
                link = self.check_id(write.object, self.linked_client(write))
                fields = await self._with_numbers(self._fields(write), is_new=True)
            except CrmError as error:
                made.append(error)
                links.append("")
                continue
            # ApplyPayment is true unless said otherwise, and fails where nothing was bought.
            made.append({"ApplyPayment": False, **fields, "PartnerExternalId": self.mark(write)})
            links.append(link)
        clients = await self.client_ids(filter(None, links))
        for number, link in enumerate(links):
            body = made[number]
            if isinstance(body, dict):
                if link in clients:
                    made[number] = {"ClientId": clients[link].get("Id"), **body}
                else:
                    made[number] = _refused("links.customer", "is no client of this site")
        return made

    async def create_appointment(self, write: Write) -> WriteResult:
        (body,) = await self._bookings([write])
        if isinstance(body, CrmError):
            raise body
        request = HttpRequest(method="POST", url="/appointment/addappointment", json=body)
        tree = await self.exchange_json(request, operation="create", is_write=True)
        made = tree.get("Appointment") if isinstance(tree, dict) else None
        return self._booked(write, made)

    def _booked(self, write: Write, made: Any) -> WriteResult:
        remote_id = self.id_text(made.get("Id")) if isinstance(made, dict) else ""
        if not remote_id:
            raise self.unexpected("a new appointment without Id", Operation.CREATE, is_write=True)
        return self._applied(write, remote_id, was_created=True)

    async def book_many(self, writes: Sequence[Write]) -> list[WriteResult]:
        """addmultipleappointments: each has its own outcome, told by our mark or by its place."""
        try:
            bodies = await self._bookings(writes)
        except CrmError as error:
            return [WriteResult(outcome=Outcome.NOT_APPLIED, error=error) for _ in writes]
        sent = [number for number, body in enumerate(bodies) if isinstance(body, dict)]
        results: list[WriteResult] = [
            WriteResult(outcome=Outcome.NOT_APPLIED, error=body if isinstance(body, CrmError) else None)
            for body in bodies
        ]
        if not sent:
            return results
        request = HttpRequest(
            method="POST",
            url="/appointment/addmultipleappointments",
            json={"AddAppointmentRequests": [bodies[number] for number in sent]},
        )
        try:
            tree = await self.exchange_json(request, operation="create", is_write=True)
            outcomes = tree.get("AddAppointmentOutcomes") if isinstance(tree, dict) else None
            if not isinstance(outcomes, list) or not all(isinstance(one, dict) for one in outcomes):
                raise self.unexpected("no outcomes of a batch", Operation.CREATE, is_write=True)
        except CrmError as error:
            for number in sent:
                results[number] = WriteResult(outcome=error.outcome, error=error)
            return results
        by_mark = {_mark_of(one): one for one in outcomes if _mark_of(one)}
        for place, number in enumerate(sent):
            told = by_mark.get(self.mark(writes[number]))
            if told is None and not by_mark and len(outcomes) == len(sent):
                told = outcomes[place]
            results[number] = self._outcome(writes[number], told, request)
        return results

    def _outcome(self, write: Write, told: Mapping[str, Any] | None, request: HttpRequest) -> WriteResult:
        try:
            refusal = (told or {}).get("Error")
            if isinstance(refusal, dict) and not (told or {}).get("Appointment"):
                error = refusal_in_batch(refusal, self.redactor_for(request))
                return WriteResult(outcome=error.outcome, error=error)
            return self._booked(write, (told or {}).get("Appointment"))
        except CrmError as error:
            return WriteResult(outcome=error.outcome, error=error)

    async def update_appointment(self, write: Write) -> WriteResult:
        fields = await self._with_numbers(self._fields(write), is_new=False)
        status = fields.pop("Status", None)
        now = await self.get_appointment(write.remote_id)
        present = now.native.get("Status")
        if status and status != present:
            step = _STEPS.get(status) or (_BACK_STEPS.get(str(present)) if status == "Booked" else None)
            if step is None:
                raise _refused("appointment.status", f"cannot go from {present} to {status} in Mindbody")
            fields["Execute"] = step
        if "StartDateTime" in fields and "EndDateTime" not in fields:
            fields |= self._same_length(write.fields["StartDateTime"], now.native)
        if fields:
            await self._change(write.remote_id, fields, Operation.UPDATE)
        return self._applied(write, write.remote_id, was_created=False)

    def _same_length(self, start: Any, native: Mapping[str, Any]) -> dict[str, str]:
        """The end of an appointment that is moved and lasts as long as before; what Mindbody does is UNCONFIRMED."""
        try:
            ends = [datetime.fromisoformat(native[name]) for name in ("StartDateTime", "EndDateTime")]
        except (KeyError, TypeError, ValueError):
            return {}
        end = utc_text(datetime.fromisoformat(start) + (ends[1] - ends[0]))
        return {"EndDateTime": shapes.local(end, self.zone(), "appointment.end_at")}

    async def _change(self, remote_id: str, fields: Mapping[str, Any], operation: Operation) -> None:
        body = {"AppointmentId": int(remote_id), **fields}
        request = HttpRequest(method="POST", url="/appointment/updateappointment", json=body)
        tree = await self.exchange_json(request, operation=operation.value, is_write=True)
        if not isinstance(tree, dict) or not isinstance(tree.get("Appointment"), dict):
            raise self.unexpected("an update without the appointment", operation, is_write=True)

    async def cancel_appointment(self, remote_id: str) -> DeleteLevel:
        """Cancels, once: what is cancelled already stays so."""
        now = await self.get_appointment(remote_id)
        if not now.is_archived:
            await self._change(remote_id, {"Execute": "cancel"}, Operation.DELETE)
        return self.manifest.objects[Object.APPOINTMENT].delete_level

    async def find_booked(self, write: Write) -> WriteResult:
        """By our mark among the appointments of the days around."""
        obj, cursor = Object.APPOINTMENT, ""
        names = shapes.days_around(write.fields.get("StartDateTime"), self.zone(), "appointment.start_at")
        while True:
            page = await self._page(Operation.SEARCH, obj, names, {}, cursor, 200)
            for record in page.records:
                if record.native.get("PartnerExternalId") == self.mark(write):
                    return self._found(record.remote_id, Outcome.NOT_APPLIED)
            if not page.next_cursor:
                return WriteResult(outcome=Outcome.NOT_APPLIED)
            cursor = page.next_cursor


def _mark_of(told: Mapping[str, Any]) -> str:
    for name in ("Request", "Appointment"):
        part = told.get(name)
        if isinstance(part, dict) and isinstance(part.get("PartnerExternalId"), str):
            return str(part["PartnerExternalId"])
    return ""


def _same(left: str, right: str) -> bool:
    return " ".join(left.split()).casefold() == " ".join(right.split()).casefold()


def _refused(place: str, problem: str) -> ValidationError:
    return ValidationError(
        f"The appointment cannot be sent: {place} {problem}.",
        provider="mindbody",
        fields=(FieldError(place, problem),),
    )
