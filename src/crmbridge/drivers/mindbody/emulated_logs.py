"""Contact logs of the emulated Mindbody: per client, today alone unless a window is asked for."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from crmbridge.core.wire import HttpResponse
from crmbridge.drivers.mindbody.emulated_site import STAFF, EmulatedSite, as_local
from crmbridge.emulation import Incoming, Row, Table, route

__all__ = ["EmulatedLogs"]


class EmulatedLogs(EmulatedSite):
    """The clients' table and what is written about them."""

    @property
    def clients(self) -> Table[int]:
        """By UniqueId; ``Id`` is another number that the staff can change."""
        return self.store.numbered("clients", first_id=100_000_001)

    @property
    def logs(self) -> Table[int]:
        return self.store.numbered("contactlogs", first_id=901)

    def client_of(self, client_id: Any) -> Row[int]:
        found = self.clients.find("Id", client_id) if isinstance(client_id, str) else []
        if not found:
            raise self.refusal("ClientNotFound", "The client was not found.")
        return found[0]

    def window(self, call: Incoming) -> tuple[date, date]:
        """Today alone unless told otherwise; whether appointmentIds lifts it is UNCONFIRMED, so here it does not."""
        today = self.clock.now().astimezone(self.zone).date().isoformat()
        first = as_local(self.one(call, "startDate", today))
        last = as_local(self.one(call, "endDate", self.one(call, "startDate", today)))
        if first is None or last is None:
            raise self.refusal("InvalidParameter", "startDate or endDate is not valid.")
        return first.date(), last.date()

    # -- contact logs --------------------------------------------------------------------------------------

    @route("GET", "/client/contactlogs", operation="contactlogs.list")
    def list_logs(self, call: Incoming) -> HttpResponse:
        client, (first, last) = self.client_of(self.one(call, "clientId")), self.window(call)
        rows = [
            self._log(row)
            for row in sorted(self.logs.find("client", client.id), key=lambda row: row.id)
            if first <= self._made(row).date() <= last
        ]
        return self.page(call, "ContactLogs", rows)

    @route("POST", "/client/addcontactlog", operation="contactlogs.create")
    def add_log(self, call: Incoming) -> HttpResponse:
        given = self.body(call)
        client = self.client_of(given.get("ClientId"))
        if not given.get("Text") or not given.get("ContactMethod"):
            raise self.refusal("MissingRequiredFields", "Text and ContactMethod are required.")
        fields = {"client": client.id, "ContactName": None, "FollowupByDate": None, "IsComplete": False}
        comments = [
            {"Id": number + 1, "Text": text} for number, text in enumerate(given.get("Comments") or ())
        ]
        return self.answer(self._log(self.logs.insert({**fields, **self._kept(given), "Comments": comments})))

    @route("POST", "/client/updatecontactlog", operation="contactlogs.update")
    def update_log(self, call: Incoming) -> HttpResponse:
        given = self.body(call)
        row = self.logs.get(given.get("Id", 0))
        if row is None:
            raise self.refusal("ItemNotFound", "The contact log was not found.")
        if "Text" in given and not given["Text"]:
            raise self.refusal("MissingRequiredFields", "Text is required.")
        listed = [dict(one) for one in row.fields["Comments"]]
        for change in given.get("Comments") or ():
            known = next((one for one in listed if one["Id"] == change.get("Id")), None)
            if known is not None:
                known["Text"] = change.get("Text")
            elif change.get("Id") == 0:
                listed.append({"Id": len(listed) + 1, "Text": change.get("Text")})
            else:
                raise self.refusal("InvalidParameter", "Comments is not valid.")
        return self.answer(self._log(self.logs.update(row.id, {**self._kept(given), "Comments": listed})))

    @route("DELETE", "/client/deletecontactlog", operation="contactlogs.delete")
    def delete_log(self, call: Incoming) -> HttpResponse:
        self.need_staff(call)
        client, number = self.client_of(self.one(call, "clientId")), self.one(call, "contactLogId", "0")
        row = self.logs.get(int(number)) if number.isdigit() else None
        if row is None or row.fields["client"] != client.id:
            raise self.refusal("ItemNotFound", "The contact log was not found.")
        self.logs.remove(row.id)
        return HttpResponse(status=204)

    def _kept(self, given: dict[str, Any]) -> dict[str, Any]:
        plain = ("Text", "ContactMethod", "ContactName", "FollowupByDate", "IsComplete", "AssignedToStaffId")
        if given.get("AssignedToStaffId") not in (None, *STAFF):
            raise self.refusal("InvalidParameter", "AssignedToStaffId is not valid.")
        if "IsComplete" in given and not isinstance(given["IsComplete"], bool):
            raise self.refusal("InvalidParameter", "IsComplete is not valid.")
        return {name: given[name] for name in plain if name in given}

    def _made(self, row: Row[int]) -> datetime:
        return row.created_at.astimezone(self.zone).replace(tzinfo=None, microsecond=0)

    def _log(self, row: Row[int]) -> dict[str, Any]:
        shown = {
            name: value for name, value in row.fields.items() if name not in ("client", "AssignedToStaffId")
        }
        client = self.clients.rows[row.fields["client"]].fields
        staff = row.fields.get("AssignedToStaffId")
        more: dict[str, Any] = {
            "Client": {"Id": client["Id"], "FirstName": client["FirstName"]},
            "CreatedBy": {"Id": 21},
        }
        more["AssignedTo"] = {"Id": staff} if staff else None
        return {"Id": row.id, **shown, **more, "CreatedDateTime": self._made(row).isoformat(), "Types": []}
