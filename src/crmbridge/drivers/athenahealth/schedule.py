"""The schedule: an appointment is an open slot that a patient takes, leaves, or changes for another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from crmbridge.core.errors import Conflict, FieldError, Fix, ValidationError
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object, Write, WriteResult
from crmbridge.core.wire import HttpRequest
from crmbridge.drivers.athenahealth import shapes
from crmbridge.toolkit.filling import zone_named
from crmbridge.toolkit.rest import RestDriver

__all__ = ["Schedule"]

CANCELLED = "x"
_MOST_PAGES = 20


class Schedule(RestDriver):
    """Lists of any kind, and how appointments are written."""

    def _zone(self) -> ZoneInfo:
        return zone_named(self.setting("time_zone"), self.manifest.slug)

    async def _rows(self, path: str, name: str, query: dict[str, str]) -> AsyncIterator[dict[str, Any]]:
        """All rows of a list, page by page; some lists come without their wrapping object."""
        offset = 0
        for _ in range(_MOST_PAGES):
            asked = {**query, "limit": "1000", "offset": str(offset)}
            request = HttpRequest(method="GET", url=path, query=asked)
            tree = await self.exchange_json(request, operation="get")
            rows = tree.get(name) if isinstance(tree, dict) else tree
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise self.unexpected(
                    "something that is not a list of records", Operation.GET, is_write=False
                )
            for row in rows:
                yield row
            offset += len(rows)
            if not rows or not (isinstance(tree, dict) and tree.get("next")):
                return

    async def _sent(self, request: HttpRequest, operation: Operation) -> Any:
        return await self.exchange_json(request, operation=operation.value, is_write=True)

    def _booking(self, patient: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Without nopatientcase a booking opens a case by itself."""
        note = "\n".join(
            f"{label}{fields[name]}"
            for name, label in (("title", ""), ("reason", shapes.REASON), ("notes", ""))
            if fields.get(name)
        )
        form = {"patientid": patient, "departmentid": self.setting("department_id"), "nopatientcase": True}
        form |= {name: fields[name] for name in ("departmentid", "reasonid") if fields.get(name)}
        return {**form, "bookingnote": note} if note else form

    async def _slot(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The open slot that begins (and ends) then. Raises Conflict where there is none."""
        day, time = shapes.local(fields.get("startTime"), self._zone())
        query = {
            "departmentid": str(fields.get("departmentid") or self.setting("department_id")),
            "startdate": day,
            "enddate": day,
            "reasonid": str(fields.get("reasonid") or -1),
            **({"providerid": str(fields["providerid"])} if fields.get("providerid") else {}),
        }
        length = _minutes(fields)
        async for row in self._rows("/appointments/open", "appointments", query):
            fits = not length or str(row.get("duration")) == str(length)
            if fits and (row.get("date"), str(row.get("starttime"))[:5]) == (day, time):
                self.check_id(Object.APPOINTMENT, str(row.get("appointmentid")))
                return row
        raise Conflict(
            "The department has no open slot at that time.",
            provider=self.manifest.slug,
            operation="create",
            fix=Fix("choose_time", "Offer another time, or leave out the end."),
        )

    async def _moved(self, write: Write) -> WriteResult:
        """Cancels, or takes another slot: then the appointment gets that slot's id."""
        fields = self._scope(write, Operation.UPDATE)["record"]
        other = sorted(
            fields.keys() - {"startTime", "endTime", "appointmentstatus", "departmentid", "providerid"}
        )
        is_cancel = fields.get("appointmentstatus") == CANCELLED
        if other or not (is_cancel or (fields.get("startTime") and "appointmentstatus" not in fields)):
            names = other or ["appointmentstatus"]
            problems = tuple(FieldError(f"appointment.{name}", "cannot be changed so") for name in names)
            raise ValidationError(
                "An appointment is moved by its start or cancelled by its status.",
                provider=self.manifest.slug,
                fields=problems,
            )
        now = await self.get_record(Object.APPOINTMENT, write.remote_id)
        form = {"patientid": str(now.native.get("patientid", ""))}
        remote_id, verb = write.remote_id, "cancel"
        if is_cancel:
            form["cancellationreason"] = "Cancelled through the CRM"
        else:
            kept = {"departmentid": now.native.get("departmentid"), **fields}
            remote_id, verb = str((await self._slot(kept))["appointmentid"]), "reschedule"
            form |= {"newappointmentid": remote_id, "reschedulereason": "Moved through the CRM"}
        url = f"/appointments/{write.remote_id}/{verb}"
        await self._sent(HttpRequest(method="PUT", url=url, form=form), Operation.UPDATE)
        return self._applied(write, remote_id, was_created=False)

    async def _find_booked(self, write: Write) -> WriteResult:
        path = f"/patients/{write.links.get('customer', '')}/appointments"
        async for raw in self._rows(path, "appointments", {}):
            record = self.record_from(Object.APPOINTMENT, raw)
            is_same = record.native.get("startTime") == write.fields.get("startTime")
            if is_same and record.native.get("appointmentstatus") == "f":
                return self._found(record.remote_id, Outcome.NOT_APPLIED)
        return WriteResult(outcome=Outcome.NOT_APPLIED)


def _minutes(fields: Mapping[str, Any]) -> int:
    if not fields.get("endTime"):
        return 0
    try:
        start, end = (datetime.fromisoformat(str(fields[name])) for name in ("startTime", "endTime"))
    except (KeyError, ValueError):
        return 0
    return int((end - start).total_seconds() // 60) or -1
