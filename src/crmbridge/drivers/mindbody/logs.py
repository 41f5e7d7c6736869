"""Contact logs of a client: notes, cases and activities. Their remote id is ``<client's unique id>.<log>``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from crmbridge.core.errors import NotConfigured, NotFound
from crmbridge.core.operations import DeleteLevel, Operation, Outcome
from crmbridge.core.records import Object, Record, Write, WriteResult
from crmbridge.core.wire import HttpRequest
from crmbridge.drivers.mindbody import shapes
from crmbridge.drivers.mindbody.site import EVER, Site
from crmbridge.toolkit.fieldmap import get_path

__all__ = ["ContactLogs"]

_METHOD = {Object.NOTE: "Other", Object.CASE: "Other", Object.ACTIVITY: "Phone"}
_TIMES = ("FollowupByDate",)


class ContactLogs(Site):
    """Contact logs are read and written through their client."""

    async def _logs(self, client_id: str) -> AsyncIterator[dict[str, Any]]:
        query = {"clientId": client_id, **EVER}
        async for row in self.rows("/client/contactlogs", "ContactLogs", query):
            yield row

    async def _log(self, obj: Object, remote_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The client and the contact log as Mindbody has them. Raises NotFound."""
        unique_id, _, number = self.check_id(obj, remote_id).partition(".")
        client = await self.client_of(obj, unique_id)
        async for row in self._logs(client["Id"]):
            if number and self.id_text(row.get("Id")) == number:
                return client, row
        raise NotFound(f"There is no such {obj.value}.", provider=self.manifest.slug, operation="get")

    async def get_log(self, obj: Object, remote_id: str) -> Record:
        _, raw = await self._log(obj, remote_id)
        return self.log_record(obj, raw, remote_id.partition(".")[0])

    def log_record(self, obj: Object, raw: dict[str, Any], unique_id: str) -> Record:
        """A contact log with the id of its client before its own."""
        try:
            zone = self.zone()
        except NotConfigured:
            zone = None  # its text is readable without
        return super().record_from(obj, shapes.log(raw, unique_id, zone))

    def log_request(self, write: Write, client_id: str, current: dict[str, Any] | None = None) -> HttpRequest:
        """The one write of a contact log."""
        fields = self._scope(write, write.operation)["record"]
        fields.pop("client", None)
        about = fields.pop("about", {})
        body = {name: "" if value is None else value for name, value in fields.items()}
        for name in _TIMES:
            if body.get(name):
                body[name] = shapes.local(body[name], self.zone(), f"{write.object.value}.{name}")
        if current is not None:
            body |= {"Id": current.get("Id"), "Comments": shapes.comments(about, current)}
            if not body["Comments"]:
                del body["Comments"]
            return HttpRequest(method="POST", url="/client/updatecontactlog", json=body)
        if not body.get("Text"):
            problem = "is required: a contact log without a text says nothing"
            raise self.invalid("The text is missing.", f"{write.object.value}.Text", problem)
        body = {"ClientId": client_id, "ContactMethod": _METHOD[write.object], **body}
        body["Comments"] = shapes.comments({**about, "Ref": self.mark(write)})
        staff = self.number_setting("staff_id")
        if write.object is Object.CASE and staff:
            body.setdefault("AssignedToStaffId", staff)
        return HttpRequest(method="POST", url="/client/addcontactlog", json=body)

    # Values go out behind their labels.
    def bare_texts(self, request: HttpRequest) -> list[str]:
        body = request.json if isinstance(request.json, dict) else {}
        lines = [str(one.get("Text") if isinstance(one, dict) else one) for one in body.get("Comments") or ()]
        return [line.partition(": ")[2] for line in lines]

    async def create_log(self, write: Write) -> WriteResult:
        unique_id = self.linked_client(write)
        self.log_request(write, "")  # what cannot be sent is said before the client is read
        client = await self.client_of(write.object, unique_id)
        request = self.log_request(write, client["Id"])
        tree = await self.exchange_json(request, operation="create", is_write=True)
        # Some list it bare, some below its name: both are the contact log.
        made = tree.get("ContactLog", tree) if isinstance(tree, dict) else None
        number = self.id_text(made.get("Id")) if isinstance(made, dict) else ""
        if not number:
            raise self.unexpected(f"a new {write.object.value} without Id", Operation.CREATE, is_write=True)
        return self._applied(write, f"{unique_id}.{number}", was_created=True)

    async def update_log(self, write: Write) -> WriteResult:
        _, raw = await self._log(write.object, write.remote_id)
        request = self.log_request(write, "", raw)
        tree = await self.exchange_json(request, operation="update", is_write=True)
        if not isinstance(tree, dict) or not (tree.get("Id") or tree.get("ContactLog")):
            raise self.unexpected("an update without the contact log", Operation.UPDATE, is_write=True)
        return self._applied(write, write.remote_id, was_created=False)

    async def delete_log(self, obj: Object, remote_id: str, operation: Operation) -> DeleteLevel:
        client, raw = await self._log(obj, remote_id)
        query = {"clientId": client["Id"], "contactLogId": str(raw["Id"])}
        request = HttpRequest(method="DELETE", url="/client/deletecontactlog", query=query)
        await self.exchange(request, operation=operation.value, is_write=True)
        spec = self.manifest.objects[obj]
        return spec.delete_level if operation is Operation.DELETE else spec.erase_level

    async def find_log(self, write: Write) -> WriteResult:
        """By our mark among the client's contact logs."""
        unique_id = self.linked_client(write)
        client = await self.client_of(write.object, unique_id)
        async for raw in self._logs(client["Id"]):
            record = self.log_record(write.object, raw, unique_id)
            if get_path(record.native, "about.Ref") == self.mark(write):
                return self._found(record.remote_id, Outcome.NOT_APPLIED)
        return WriteResult(outcome=Outcome.NOT_APPLIED)

    def linked_client(self, write: Write) -> str:
        """The unique id of the client that a write belongs to. Raises ValidationError."""
        unique_id = write.links.get("customer") or write.links.get("lead", "")
        if not unique_id:
            problem = f"is required: a {write.object.value} belongs to a client"
            raise self.invalid("A link is missing.", "links.customer", problem)
        return unique_id
