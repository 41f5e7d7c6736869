"""Guests without a guest API: the copies of them on take-out and delivery orders, to read.

Source: https://doc.toasttab.com/openapi/orders/operation/ordersBulkGet/ and the guide of its paging.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from crmbridge.core.errors import FieldError, NotFound, ValidationError
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object, Page, Record
from crmbridge.core.wire import HttpRequest
from crmbridge.drivers.toast import shapes
from crmbridge.drivers.toast.objects import ORDER_LIST
from crmbridge.toolkit import paging
from crmbridge.toolkit.rest import RestDriver

__all__ = ["Visits"]

_MONTH = timedelta(days=30)  # ordersBulk takes a month at most


class Visits(RestDriver):
    """Lists and single reads by way of orders."""

    async def get_record(self, obj: Object, remote_id: str) -> Record:
        spec = self.spec(obj, Operation.GET)
        if spec.id_field == "guid":
            return await super().get_record(obj, remote_id)
        order, _, _ = self.check_id(obj, remote_id).partition(".")
        if "." in remote_id:
            url = f"{spec.path}/{order}"
            tree = await self.exchange_json(HttpRequest(method="GET", url=url), operation="get")
            if not isinstance(tree, dict):
                raise self.unexpected("something that is not an order", Operation.GET, is_write=False)
            for native in self._guests([tree]):
                if native["id"] == remote_id:
                    return self.record_from(obj, native)
        raise NotFound("No guest of an order has this id.", provider=self.manifest.slug, operation="get")

    # Without a guest API: orders by the time of their change, a month at most, a bare list per page.
    async def list_recent(self, obj: Object, *, since: str = "", cursor: str = "", limit: int = 50) -> Page:
        self.spec(obj, Operation.LIST)
        start, end, page = _window(since, cursor)
        size = paging.page_size(self.manifest.paging, limit)
        query = {"startDate": _stamp(start), "endDate": _stamp(end), "pageSize": str(size), "page": str(page)}
        request = HttpRequest(method="GET", url=ORDER_LIST, query=query, budget="search")
        orders = await self.exchange_json(request, operation="list")
        if not isinstance(orders, list) or not all(isinstance(order, dict) for order in orders):
            raise self.unexpected("something that is not a list of orders", Operation.GET, is_write=False)
        newest: dict[str, dict[str, Any]] = {}
        for native in sorted(self._guests(orders), key=lambda one: str(one["modifiedDate"]), reverse=True):
            # One guest has a copy on each of his orders; the e-mail is what tells guests apart.
            person = str(native.get("email") or native.get("phone") or native.get("guid")).casefold()
            newest.setdefault(person, native)
        more = f"{page + 1}.{start}.{end}" if len(orders) >= size else ""
        return Page(records=[self.record_from(obj, one) for one in newest.values()], next_cursor=more)

    def _guests(self, orders: list[dict[str, Any]]) -> list[dict[str, Any]]:
        try:
            return [one for order in orders for one in shapes.guests_on(order)]
        except (TypeError, AttributeError):
            raise self.unexpected("orders of another shape", Operation.GET, is_write=False) from None


def _window(since: str, cursor: str) -> tuple[int, int, int]:
    """Start and end in Unix seconds, and the page: the same window on all pages. Raises ValidationError."""
    if cursor:
        if not (found := re.fullmatch(r"(\d{1,6})\.(\d{1,11})\.(\d{1,11})", cursor)):
            problem = FieldError("cursor", "is not a cursor of this list; start again without one")
            raise ValidationError("The cursor is not one of ours.", provider="toast", fields=(problem,))
        return int(found[2]), int(found[3]), int(found[1])
    # The end is exclusive.
    end = datetime.now(UTC) + timedelta(seconds=1)
    try:
        start = datetime.fromisoformat(since) if since else end - _MONTH
        start = start if start.tzinfo else start.replace(tzinfo=UTC)
    except ValueError:
        start = end - 2 * _MONTH
    if start < end - _MONTH - timedelta(minutes=5):
        problem = FieldError(
            "since", "must be a moment of the last 30 days: orders are listed a month at a time"
        )
        raise ValidationError("The list cannot begin there.", provider="toast", fields=(problem,))
    return int(start.timestamp()), int(end.timestamp()), 1


def _stamp(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")
