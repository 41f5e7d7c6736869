"""The shop of a connection: one token sees the shops of other tenants, so every record is checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crmbridge.core.errors import NotFound
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object, Page, Record
from crmbridge.core.wire import HttpRequest
from crmbridge.toolkit.rest import RestDriver

__all__ = ["Shop"]


class Shop(RestDriver):
    """Reads and changes of one shop's records alone."""

    # One token sees the shops of other tenants: `shop=` in a list is asked for, and not trusted.
    def _shop(self) -> str:
        """The shop of this connection. Raises NotConfigured."""
        return self.needed("shop_id")

    def _is_own(self, native: Mapping[str, Any]) -> bool:
        """Raises UnexpectedResponse for a record that tells no shop: unseen, it would be made again."""
        if not (shop := self.id_text(native.get("shopId"))):
            raise self.unexpected("a record without shopId", Operation.GET, is_write=False)
        return shop == self._shop()

    async def get_record(self, obj: Object, remote_id: str) -> Record:
        self._shop()
        record = await super().get_record(obj, remote_id)
        if not self._is_own(record.native):
            raise self._not_here("get")
        return record

    def _not_here(self, operation: str) -> NotFound:
        return NotFound(
            "Tekmetric has no such record in this shop.", provider=self.manifest.slug, operation=operation
        )

    # After the page is read, so that rows left out do not end the paging.
    async def _page(self, operation: Operation, obj: Object, *rest: Any) -> Page:
        self._shop()
        page = await super()._page(operation, obj, *rest)
        page.records = [one for one in page.records if self._is_own(one.native)]
        return page

    async def _raw(self, obj: Object, remote_id: str) -> dict[str, Any]:
        """The record in Tekmetric's own shape, of this shop."""
        self._shop()
        _, tree, _ = await self._perform(Operation.GET, obj, {"id": self.check_id(obj, remote_id)})
        if not isinstance(tree, dict):
            raise self.unexpected("something that is not a record", Operation.GET, is_write=False)
        if not self._is_own(tree):
            raise self._not_here("get")
        return tree

    async def _patch(self, obj: Object, remote_id: str, body: dict[str, Any], operation: Operation) -> None:
        path = self.manifest.objects[obj].path
        tree = await self.exchange_json(
            HttpRequest(method="PATCH", url=f"{path}/{remote_id}", json=body),
            operation=operation.value,
            is_write=True,
        )
        if not isinstance(tree, dict) or tree.get("type") != "SUCCESS":
            raise self.unexpected("a change without SUCCESS", operation, is_write=True)
