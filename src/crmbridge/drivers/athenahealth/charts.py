"""Cases of a patient and notes on them, and the one request of a write: bodies are forms."""

from __future__ import annotations

from collections.abc import AsyncIterator

from crmbridge.core.operations import Operation
from crmbridge.core.records import Object, Record, Write
from crmbridge.core.wire import HttpRequest
from crmbridge.drivers.athenahealth import shapes
from crmbridge.drivers.athenahealth.schedule import Schedule

__all__ = ["Charts"]


class Charts(Schedule):
    """Cases and notes are read through their patient and their case."""

    # Single reads of a case are in no source; the list of the patient's cases is.
    async def _cases(self, patient_id: str) -> AsyncIterator[Record]:
        query = {"departmentid": self.setting("department_id")}
        async for raw in self._rows(f"/patients/{patient_id}/patientcases", "patientcases", query):
            yield self.record_from(Object.CASE, shapes.case(raw, patient_id))

    # An action has no id in any source: ours is the mark at its end.
    async def _notes(self, case_id: str) -> AsyncIterator[Record]:
        async for raw in self._rows(f"/documents/patientcase/{case_id}/actions", "actions", {}):
            text, mark = shapes.without_mark(str(raw.get("actionnote") or ""))
            if mark.startswith(prefix := f"{self.access.mark_prefix}-"):
                native = {"id": f"{case_id}.{mark.removeprefix(prefix)}", "actionnote": text, "ref": mark}
                yield self.record_from(Object.NOTE, native)

    def _request(self, write: Write) -> HttpRequest:
        """The one request of a write; a booking's slot is chosen later (``{slot}``)."""
        obj, is_new = write.object, write.operation is not Operation.UPDATE
        fields = self._scope(write, write.operation)["record"]
        patient, case, department = (
            fields.pop("patientid", ""),
            fields.pop("case", ""),
            self.setting("department_id"),
        )
        if is_new and not (patient or case or obj is Object.CUSTOMER):
            linked = "case" if obj is Object.NOTE else "customer"
            problem = f"is required: a {obj.value} belongs to a {linked}"
            raise self.invalid("A link is missing.", f"links.{linked}", problem)
        if obj is Object.NOTE and not fields.get("actionnote"):
            raise self.invalid("The note is empty.", "note.body", "is required")
        own, _, case_id = write.remote_id.partition(".")
        if obj is Object.CUSTOMER:
            method, path = ("POST", "/patients") if is_new else ("PUT", f"/patients/{own}")
            form = {"departmentid": department, **fields}
        elif obj is Object.NOTE:
            method, path = "POST", f"/documents/patientcase/{case.partition('.')[2]}/actions"
            form = {"actionnote": shapes.with_mark(str(fields.get("actionnote") or ""), self.mark(write))}
        elif obj is Object.CASE and is_new:
            method, path = "POST", f"/patients/{patient}/documents/patientcase"
            form = {
                "departmentid": department,
                "documentsource": self.setting("case_source"),
                "documentsubclass": self.setting("case_class"),
                **({"providerid": self.setting("provider_id")} if self.setting("provider_id") else {}),
                **{name: value for name, value in fields.items() if value is not None},
                "subject": shapes.with_mark(str(fields.get("subject") or ""), self.mark(write)),
            }
        elif obj is Object.CASE:
            if "internalnote" in fields:
                problem = "is written once; add a note to the case instead"
                raise self.invalid("A case keeps its text.", "case.description", problem)
            method, path = "PUT", f"/patients/{own}/documents/patientcase/{case_id}"
            form = {"departmentid": department, **fields}
        else:
            method, path, form = "PUT", "/appointments/{slot}", self._booking(patient, fields)
        return HttpRequest(method=method, url=path, form=shapes.form(obj, form))
