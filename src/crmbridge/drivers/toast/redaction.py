"""Deletes of a guest. No page shows a hard one: both redact, and what Toast shows afterwards is checked."""

from __future__ import annotations

from typing import Any

from crmbridge.core.errors import CrmError, Fix, Unsupported
from crmbridge.core.operations import DeleteLevel, Operation, Outcome
from crmbridge.core.records import Object, Write, WriteResult
from crmbridge.drivers.toast import shapes
from crmbridge.drivers.toast.objects import guests_on_orders
from crmbridge.drivers.toast.visits import Visits

__all__ = ["Redaction"]


class Redaction(Visits):
    """Guests as they stand at Toast, and as a redaction leaves them."""

    async def _raw(self, obj: Object, remote_id: str) -> dict[str, Any]:
        """The guest in Toast's own shape."""
        _, tree, _ = await self._perform(Operation.GET, obj, {"id": self.check_id(obj, remote_id)})
        if not isinstance(tree, dict) or not tree.get("guid"):
            raise self.unexpected("something that is not a guest", Operation.GET, is_write=False)
        return tree

    async def _remove(self, obj: Object, remote_id: str, operation: Operation) -> DeleteLevel:
        spec = self.spec(obj, operation)
        before = await self._raw(obj, remote_id)
        scope = {"id": remote_id, "record": shapes.redacted(before), "object": obj.value}
        await self.exchange(
            super().request_for(Operation.UPDATE, obj, scope), operation=operation.value, is_write=True
        )
        try:
            left = await self._raw(obj, remote_id)
        except CrmError as error:
            error.outcome, error.retry_safe = Outcome.UNKNOWN, False
            raise
        if not shapes.is_redacted(left):
            raise Unsupported(
                "Toast took the redaction of the guest and still shows something of the person.",
                subcode="delete_unsupported",
                provider=self.manifest.slug,
                operation=operation.value,
                outcome=Outcome.UNKNOWN,
                fix=Fix("erase_by_hand", guests_on_orders()[obj].operations[Operation.ERASE].fix),
            )
        return spec.erase_level if operation is Operation.ERASE else spec.delete_level

    async def _find_changed(self, write: Write) -> WriteResult:
        if write.operation is Operation.UPDATE:
            return await super()._find_changed(write)
        is_done = shapes.is_redacted(await self._raw(write.object, write.remote_id))
        return self._found(write.remote_id if is_done else "", Outcome.NOT_APPLIED)
