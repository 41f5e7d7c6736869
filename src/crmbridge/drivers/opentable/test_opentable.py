"""OpenTable: everything is refused, and the refusal shows the way out."""

from __future__ import annotations

from typing import Any

import pytest

from crmbridge.conformance import DriverContract
from crmbridge.core.driver import Access
from crmbridge.core.errors import Unsupported
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Filter, Object, Write
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.opentable.driver import OpenTable


class TestOpenTable(DriverContract):
    driver = OpenTable
    emulator = None


class Silent:
    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.requests.append(request)
        return HttpResponse(status=200)


def calls(driver: OpenTable, obj: Object) -> list[Any]:
    write = Write(
        target_id="t-1", operation=Operation.CREATE, object=obj, remote_id="1", match={"email": "a@b.cc"}
    )
    return [
        driver.test_connection,
        lambda: driver.describe(obj),
        lambda: driver.lookup_customer(email="a@example.com"),
        lambda: driver.search_records(obj, Filter(text="x")),
        lambda: driver.get_record(obj, "1"),
        lambda: driver.list_recent(obj),
        lambda: driver.create_record(write),
        lambda: driver.update_record(write),
        lambda: driver.upsert_record(write),
        lambda: driver.delete_record(obj, "1"),
        lambda: driver.erase_record(obj, "1"),
        lambda: driver.changes(obj),
        lambda: driver.find_written(write),
        lambda: driver.verify_event({}, b""),
        lambda: driver.parse_events({}, b""),
    ]


@pytest.mark.parametrize("obj", list(Object))
async def test_any_verb_when_called_then_refused_with_the_way_out(obj: Object) -> None:
    transport = Silent()
    driver = OpenTable(Access(settings={}, secrets={}, transport=transport))
    for call in calls(driver, obj):
        with pytest.raises(Unsupported) as caught:
            await call()
        assert caught.value.subcode == "driver_unavailable"
        assert caught.value.outcome is Outcome.NOT_APPLIED
        assert caught.value.fix.action == "use_custom_webhook"
        assert "custom_webhook" in caught.value.message
    assert transport.requests == []


async def test_write_batch_when_called_then_each_write_has_the_refusal() -> None:
    driver = OpenTable(Access(settings={}, secrets={}, transport=Silent()))
    writes = [Write(target_id=f"t-{n}", operation=Operation.CREATE, object=Object.LEAD) for n in range(3)]
    results = await driver.write_batch(writes)
    assert [result.outcome for result in results] == [Outcome.NOT_APPLIED] * 3
    assert all(isinstance(result.error, Unsupported) for result in results)
