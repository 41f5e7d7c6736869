"""Reader: records out of ``search_read``, with labels where Odoo answers bare ids."""

from __future__ import annotations

import re
from typing import Any

from crmbridge.core.driver import Access
from crmbridge.core.errors import UnexpectedResponse
from crmbridge.core.manifest import Manifest
from crmbridge.core.records import Object, Record
from crmbridge.drivers.odoo import cells, messages, schema
from crmbridge.drivers.odoo.rpc import OdooRpc

__all__ = ["Reader"]

_ORGANIZER = re.compile(r"(?:<br\s*/?>)?<strong>Organized by</strong>")
"""Where the block begins that newer versions append to an event's description."""


class Reader:
    """Reads for one call. The names of fields worth reading are facts, or are asked for once."""

    def __init__(self, rpc: OdooRpc, access: Access, manifest: Manifest) -> None:
        self.rpc = rpc
        self.access = access
        self.manifest = manifest
        self._names: dict[str, list[str]] = {}

    async def schema(self, model: str) -> dict[str, dict[str, Any]]:
        """``fields_get`` with the attributes that we use."""
        answer = await self.rpc.call(model, "fields_get", purpose="describe", attributes=schema.ATTRIBUTES)
        if not isinstance(answer, dict) or not all(isinstance(fact, dict) for fact in answer.values()):
            raise odd("describe")
        return answer

    async def readable(self, model: str) -> list[str]:
        """The fields to read of a model."""
        names = self._names.get(model) or self.access.facts.get(f"fields.{model}", "").split()
        self._names[model] = names or schema.readable(await self.schema(model))
        return self._names[model]

    async def read(
        self, obj: Object, domain: list[Any], order: str, limit: int, *, purpose: str, archived: bool = False
    ) -> list[Record]:
        """Records in the order asked for; ``archived`` takes archived ones in."""
        model = self.manifest.objects[obj].native
        rows = await self.rpc.call(
            model,
            "search_read",
            purpose=purpose,
            context={"active_test": False} if archived else None,
            domain=domain,
            fields=await self.readable(model),
            order=order,
            limit=limit,
        )
        if not isinstance(rows, list) or not all(isinstance(row, dict) and row.get("id") for row in rows):
            raise odd(purpose)
        labels = await self._labels(rows, purpose)
        return [self._record(obj, row, labels) for row in rows]

    async def ids(
        self, obj: Object, domain: list[Any], limit: int, *, purpose: str, archived: bool = False
    ) -> list[int]:
        """Ids alone, lowest first."""
        ids = await self.rpc.call(
            self.manifest.objects[obj].native,
            "search",
            purpose=purpose,
            context={"active_test": False} if archived else None,
            domain=domain,
            limit=limit,
            order="id",
        )
        if not isinstance(ids, list) or not all(isinstance(item, int) for item in ids):
            raise odd(purpose)
        return ids

    async def _labels(self, rows: list[dict[str, Any]], purpose: str) -> dict[tuple[str, int], str]:
        """Country codes and tag names of a page: one call per kind, none where no record has any."""
        labels: dict[tuple[str, int], str] = {}
        for field, (model, column) in cells.LABELS.items():
            linked = [row[field] for row in rows if isinstance(row.get(field), list)]
            ids = {item for value in linked for item in value if isinstance(item, int)}
            if ids:
                named = await self.rpc.call(model, "read", purpose=purpose, ids=sorted(ids), fields=[column])
                labels |= {(field, row["id"]): str(row[column]) for row in named}
        return labels

    def _record(self, obj: Object, row: dict[str, Any], labels: dict[tuple[str, int], str]) -> Record:
        native = cells.native_from(row, labels)
        if obj is Object.APPOINTMENT and self.rpc.major < schema.NOTES_FROM:
            native["notes"] = _ORGANIZER.split(str(native.get("description") or ""), maxsplit=1)[0]
        if obj is Object.ACTIVITY:
            native["facts"], native["body"] = messages.facts_in(str(native.get("body") or ""))
        remote_id = str(row["id"])
        changed = str(row.get("write_date") or "")
        return Record(
            object=obj,
            remote_id=remote_id,
            native=native,
            updated_at=f"{changed.replace(' ', 'T')}Z" if changed else "",
            url=self.record_url(obj, remote_id),
            is_archived=row.get("active") is False,
        )

    def record_url(self, obj: Object, remote_id: str) -> str:
        """An address that opens the record in every version."""
        return self.url_prefix(obj) + remote_id

    def url_prefix(self, obj: Object) -> str:
        """What stands before the id in such an address."""
        return f"{self.rpc.url}/mail/view?model={self.manifest.objects[obj].native}&res_id="


def odd(purpose: str) -> UnexpectedResponse:
    """The answer has another shape than Odoo's."""
    return UnexpectedResponse("The answer is not one that Odoo gives.", provider="odoo", operation=purpose)
