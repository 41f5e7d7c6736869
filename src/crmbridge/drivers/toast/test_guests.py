"""Guests on orders and guests of the API: what is read, written, found again and redacted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from crmbridge.core.errors import Conflict, CrmError, NotFound, Unavailable, Unsupported, ValidationError
from crmbridge.core.operations import DeleteLevel, Operation, Outcome
from crmbridge.core.records import Filter, Object
from crmbridge.drivers.toast import shapes
from crmbridge.drivers.toast.emulated_till import OTHER_RESTAURANT
from crmbridge.drivers.toast.emulator import ToastEmulator
from crmbridge.drivers.toast.test_toast import PERSON, OrdersOnly, driver_for, held, write


@pytest.fixture
def toast() -> ToastEmulator:
    return ToastEmulator()


@pytest.fixture
def orders() -> OrdersOnly:
    return OrdersOnly()


# -- guests of orders ----------------------------------------------------------------------------------------


async def test_orders_when_listed_then_guests_only_and_each_once_with_the_newest(orders: OrdersOnly) -> None:
    orders.add_order(21, {**_person(21), "email": "test@example.net"}, test=True)
    orders.add_order(22, {**_person(22), "email": "excess@example.net"}, excess_food=True)
    orders.add_order(23, {**_person(23), "email": "deleted@example.net"}, deleted=True)
    page = await driver_for(orders).list_recent(Object.CUSTOMER)
    seen = [(one.native["email"], one.native["phone"]) for one in page.records]
    assert seen == [("ann.marlowe@example.net", "+14155550199"), ("bo.quist@example.net", "+14155550172")]
    assert page.next_cursor == ""
    assert all(one.updated_at.endswith("Z") for one in page.records)


async def test_orders_when_many_then_every_page_has_the_same_window(orders: OrdersOnly) -> None:
    for number in range(30, 35):
        orders.add_order(number, {**_person(number), "email": f"g{number}@example.net"}, days=0.5)
    driver = driver_for(orders)
    page = await driver.list_recent(Object.CUSTOMER, limit=4)
    emails = [one.native["email"] for one in page.records]
    while page.next_cursor:
        page = await driver.list_recent(Object.CUSTOMER, cursor=page.next_cursor, limit=4)
        emails += [one.native["email"] for one in page.records]
    assert {f"g{number}@example.net" for number in range(30, 35)} < set(emails)
    windows = {(one.query["startDate"], one.query["endDate"]) for one in orders.requests}
    assert len(windows) == 1 and [one.query["page"] for one in orders.requests] == ["1", "2", "3"]


async def test_orders_when_since_then_only_what_changed_after(orders: OrdersOnly) -> None:
    since = (datetime.now(UTC) - timedelta(days=1, hours=12)).isoformat()
    page = await driver_for(orders).list_recent(Object.CUSTOMER, since=since)
    assert [one.native["email"] for one in page.records] == ["ann.marlowe@example.net"]


@pytest.mark.parametrize("since", ["2020-01-01T00:00:00Z", "yesterday"])
async def test_orders_when_since_is_too_old_then_refused_not_cut(orders: OrdersOnly, since: str) -> None:
    with pytest.raises(ValidationError) as caught:
        await driver_for(orders).list_recent(Object.CUSTOMER, since=since)
    assert [field.field for field in caught.value.fields] == ["since"] and orders.requests == []


@pytest.mark.parametrize("cursor", ["2", "1.2.x", "../x", "1.1.999999999999"])
async def test_orders_when_the_cursor_is_foreign_then_refused(orders: OrdersOnly, cursor: str) -> None:
    with pytest.raises(ValidationError, match="cursor"):
        await driver_for(orders).list_recent(Object.CUSTOMER, cursor=cursor)


async def test_orders_when_the_scope_for_guests_lacks_then_nobody_is_listed(orders: OrdersOnly) -> None:
    orders.scopes.remove("guest.pi:read")
    page = await driver_for(orders).list_recent(Object.CUSTOMER)
    assert page.records == []


@pytest.mark.parametrize(
    "body", [{}, [1], [{"checks": 5}], [{"checks": [{"customer": {"guid": "g g"}}]}], None]
)
async def test_orders_when_of_another_shape_then_unexpected(orders: OrdersOnly, body: Any) -> None:
    orders.faults.add("wrong_shape", operation="orders.bulk", body=body)
    with pytest.raises(CrmError) as caught:
        await driver_for(orders).list_recent(Object.CUSTOMER)
    assert caught.value.code == "unexpected_response"


async def test_order_when_gone_or_another_guest_then_not_found(orders: OrdersOnly) -> None:
    driver = driver_for(orders)
    known = (await driver.list_recent(Object.CUSTOMER)).records[0].remote_id.partition(".")[0]
    for remote_id in (f"{known}.{OTHER_RESTAURANT}", f"{OTHER_RESTAURANT}.{OTHER_RESTAURANT}", "987654"):
        with pytest.raises(NotFound):
            await driver.get_record(Object.CUSTOMER, remote_id)


def _person(number: int) -> dict[str, Any]:
    return {"guid": f"7e570000-0000-4000-8000-0000000{number:05d}", "firstName": f"G{number}", "phone": None}


async def test_fields_when_guests_come_from_orders_then_all_are_read_only(
    orders: OrdersOnly, toast: ToastEmulator
) -> None:
    assert all(fact.is_read_only for fact in await driver_for(orders).describe(Object.CUSTOMER))
    assert [fact.path for fact in await driver_for(toast).describe(Object.CUSTOMER) if fact.is_read_only] == [
        "modifiedDate"
    ]


# -- guests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phone", "code", "national"),
    [
        ("+14155550123", "1", "4155550123"),
        ("+971501234567", "971", "501234567"),
        ("+390612345678", "39", "0612345678"),
    ],
)
async def test_phone_when_written_then_code_and_number_apart_and_e164_again(
    toast: ToastEmulator, phone: str, code: str, national: str
) -> None:
    driver = driver_for(toast)
    made = await driver.create_record(write({**PERSON, "phone": phone}))
    row = held(toast, made.remote_id)
    assert (row["phoneCountryCode"], row["phone"]) == (code, national)
    assert (await driver.get_record(Object.CUSTOMER, made.remote_id)).native["phone"] == phone
    toast.clock.advance(10)
    assert [one.remote_id for one in await driver.lookup_customer(phone=phone)] == [made.remote_id]


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ({"phone": "(415) 555-0123"}, "+14155550123"),
        ({"phone": "501234567", "phoneCountryCode": "+971"}, "+971501234567"),
        ({"phone": "+44 7911 123456", "phoneCountryCode": "1"}, "+447911123456"),
        ({"phone": "12345"}, "12345"),
        ({"phone": None}, None),
        ({}, None),
    ],
)
def test_phone_when_read_then_e164_where_it_can_be_told(raw: dict[str, Any], shown: str | None) -> None:
    assert shapes.guest(raw)["phone"] == shown


async def test_full_name_when_alone_then_split_at_its_first_blank(toast: ToastEmulator) -> None:
    made = await driver_for(toast).create_record(
        write({"full_name": "Ann van der Berg", "email": "ann@example.com"})
    )
    row = held(toast, made.remote_id)
    assert (row["firstName"], row["lastName"]) == ("Ann", "van der Berg")


async def test_create_when_sent_then_our_own_guid_marks_it(toast: ToastEmulator) -> None:
    driver = driver_for(toast)
    change = write(PERSON)
    made = await driver.create_record(change)
    assert made.remote_id == shapes.guid_of(driver.mark(change))
    with pytest.raises(Conflict) as caught:
        await driver.create_record(change)
    assert caught.value.existing_remote_id == made.remote_id


async def test_create_when_toast_makes_its_own_guid_then_unknown_and_never_doubled(
    toast: ToastEmulator,
) -> None:
    driver = driver_for(toast)
    change = write(PERSON)
    row = toast.guests.insert({**shapes.body(change.fields), "active": True}, OTHER_RESTAURANT)
    toast.clock.advance(10)
    assert (await driver.find_written(change)).outcome is Outcome.UNKNOWN
    assert row.id == OTHER_RESTAURANT
    other = write({**PERSON, "first_name": "Somebody", "last_name": "Else"}, target_id="target-2")
    assert (await driver.find_written(other)).outcome is Outcome.NOT_APPLIED


async def test_find_when_conflict_is_with_another_guest_then_that_one_is_named(toast: ToastEmulator) -> None:
    driver = driver_for(toast)
    first = await driver.create_record(write(PERSON))
    toast.clock.advance(10)
    toast.faults.add("status", status=409, operation="guests.create")
    with pytest.raises(Conflict) as caught:
        await driver.create_record(write(PERSON, target_id="target-2"))
    assert caught.value.existing_remote_id == first.remote_id


async def test_search_when_not_by_e_mail_or_phone_then_refused_before_a_call(toast: ToastEmulator) -> None:
    for filter in (Filter(text="Mariam"), Filter(equals={"lastName": "Reyes"}), Filter()):
        with pytest.raises(ValidationError, match="cannot search"):
            await driver_for(toast).search_records(Object.CUSTOMER, filter)
    assert toast.requests == []


async def test_search_when_many_have_one_phone_then_all_pages(toast: ToastEmulator) -> None:
    driver = driver_for(toast)
    for number in range(5):
        person = {**PERSON, "email": f"m{number}@example.com"}
        await driver.create_record(write(person, target_id=f"target-{number}"))
    toast.clock.advance(10)
    filter, seen, cursor = Filter(equals={"phone": PERSON["phone"]}, limit=2), [], "first"
    while cursor:
        page = await driver.search_records(Object.CUSTOMER, filter, "" if cursor == "first" else cursor)
        seen += [one.native["email"] for one in page.records]
        cursor = page.next_cursor
    assert seen == [f"m{number}@example.com" for number in range(5)]


async def test_erase_when_done_then_scrubbed_inactive_and_never_deleted(toast: ToastEmulator) -> None:
    driver = driver_for(toast)
    made = await driver.create_record(write(PERSON))
    held(toast, made.remote_id)["externalId"] = "loyalty:mariam"
    assert await driver.erase_record(Object.CUSTOMER, made.remote_id) is DeleteLevel.REDACTED
    row = held(toast, made.remote_id)
    assert {name for name, value in row.items() if value} == {"entityType", "firstName"}
    assert (row["firstName"], row["active"]) == ("Redacted", False)
    assert (await driver.get_record(Object.CUSTOMER, made.remote_id)).is_archived
    assert "DELETE" not in {request.method for request in toast.requests}
    toast.clock.advance(10)
    assert await driver.lookup_customer(email=str(PERSON["email"]), phone=str(PERSON["phone"])) == []


async def test_erase_when_toast_keeps_something_then_no_level_is_claimed(toast: ToastEmulator) -> None:
    driver = driver_for(toast)
    made = await driver.create_record(write(PERSON))
    held(toast, made.remote_id)["loyaltyNote"] = {"favourite": "corner table"}
    real = toast.guests.update

    def keeps(id: str, fields: dict[str, Any]) -> Any:
        return real(id, {name: value for name, value in fields.items() if name != "email"})

    toast.guests.update = keeps  # type: ignore[method-assign, assignment]
    toast._given = lambda call: dict(call.json)  # type: ignore[method-assign]
    with pytest.raises(Unsupported, match="still shows") as caught:
        await driver.erase_record(Object.CUSTOMER, made.remote_id)
    assert (caught.value.subcode, caught.value.outcome) == ("delete_unsupported", Outcome.UNKNOWN)
    assert "Individual Rights" in caught.value.fix.hint


async def test_erase_when_the_check_fails_then_the_outcome_is_unknown(toast: ToastEmulator) -> None:
    driver = driver_for(toast)
    made = await driver.create_record(write(PERSON))
    toast.faults.add("status", status=503, operation="guests.get", skip=1)
    with pytest.raises(Unavailable) as caught:
        await driver.erase_record(Object.CUSTOMER, made.remote_id)
    assert (caught.value.outcome, caught.value.retry_safe) == (Outcome.UNKNOWN, False)
    erase = write({}, operation=Operation.ERASE, remote_id=made.remote_id)
    assert (await driver.find_written(erase)).outcome is Outcome.APPLIED


async def test_erase_when_only_inactive_then_not_found_as_erased(toast: ToastEmulator) -> None:
    driver = driver_for(toast)
    made = await driver.create_record(write(PERSON))
    held(toast, made.remote_id)["active"] = False
    erase = write({}, operation=Operation.ERASE, remote_id=made.remote_id)
    assert (await driver.find_written(erase)).outcome is Outcome.NOT_APPLIED
