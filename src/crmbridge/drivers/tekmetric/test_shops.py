"""Shops of one token kept apart, erasure after a delete, lists of e-mails, settings that are missing."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest

from crmbridge.core.errors import (
    Conflict,
    CrmError,
    NotConfigured,
    NotFound,
    UnexpectedResponse,
    Unsupported,
    ValidationError,
)
from crmbridge.core.operations import DeleteLevel, Operation, Outcome
from crmbridge.core.records import Filter, Object, Write
from crmbridge.core.wire import HttpRequest
from crmbridge.drivers.tekmetric import shapes
from crmbridge.drivers.tekmetric.driver import Tekmetric
from crmbridge.drivers.tekmetric.emulator import TekmetricEmulator
from crmbridge.drivers.tekmetric.test_tekmetric import PERSON, driver_for, write

BOOKED = {"title": "Mariam's brakes", "start_at": "2027-01-15T10:30:00Z", "notes": "Call Mariam."}


class MixedShops(TekmetricEmulator):
    ignores_shop = True


class MixedBareLists(MixedShops):
    answers_bare_lists = True


class DeletedIsClosed(TekmetricEmulator):
    changes_deleted = False


class TextsStay(TekmetricEmulator):
    """Says SUCCESS to empty texts and keeps what stood there."""

    kept: ClassVar = ("title", "description")

    def _stored_appointment(self, given: dict[str, Any], shop: int) -> dict[str, Any]:
        stored = super()._stored_appointment(given, shop)
        return stored if "startTime" in given else {k: v for k, v in stored.items() if k not in self.kept}


@pytest.fixture
def shop() -> TekmetricEmulator:
    return TekmetricEmulator()


async def booked(driver: Tekmetric) -> str:
    return (await driver.create_record(write(Object.APPOINTMENT, BOOKED))).remote_id


# -- rows of other shops -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mixed", [MixedShops, MixedBareLists])
async def test_lists_when_another_shops_rows_come_along_then_none_is_shown(
    mixed: type[TekmetricEmulator],
) -> None:
    emulator = mixed()
    hers, his = driver_for(emulator), driver_for(emulator, shop_id="792")
    known = (await hers.create_record(write(Object.CUSTOMER, PERSON))).remote_id
    await his.create_record(write(Object.CUSTOMER, PERSON))
    await booked(hers)
    await booked(his)
    for obj in (Object.CUSTOMER, Object.APPOINTMENT, Object.DEAL):
        listed = (await hers.list_recent(obj)).records
        assert listed and {one.native["shopId"] for one in listed} == {791}
    email, phone = PERSON["email"], PERSON["phone"]
    searched = await hers.search_records(Object.CUSTOMER, Filter(equals={"email": email}))
    assert [one.remote_id for one in searched.records] == [known]
    free = await hers.search_records(Object.LEAD, Filter(text="Okonkwo"))
    assert [one.remote_id for one in free.records] == [known]
    for asked in ({"email": email}, {"phone": phone}):
        assert [one.remote_id for one in await hers.lookup_customer(**asked)] == [known]
    orders = await hers.search_records(Object.DEAL, Filter(equals={"repairOrderNumber": "1002"}))
    assert orders.records == []  # a number of shop 792


async def test_conflict_when_the_twin_stands_in_another_shop_then_it_is_not_named() -> None:
    emulator = MixedShops()
    await driver_for(emulator, shop_id="792").create_record(write(Object.CUSTOMER, PERSON))
    emulator.faults.add("status", status=409, body={"type": "ERROR", "message": "exist"}, only="writes")
    with pytest.raises(Conflict) as caught:
        await driver_for(emulator).create_record(write(Object.CUSTOMER, PERSON))
    assert caught.value.existing_remote_id == ""


async def test_upsert_when_the_match_stands_in_another_shop_then_created_in_this_one() -> None:
    emulator = MixedShops()
    other = await driver_for(emulator, shop_id="792").create_record(write(Object.CUSTOMER, PERSON))
    change = write(Object.CUSTOMER, PERSON, operation=Operation.UPSERT)
    change.match = {"email": PERSON["email"]}
    made = await driver_for(emulator).upsert_record(change)
    assert made.was_created and made.remote_id != other.remote_id


async def test_mark_when_another_shops_appointment_holds_it_then_not_applied() -> None:
    emulator = MixedShops()
    change = write(Object.APPOINTMENT, BOOKED)
    await driver_for(emulator, shop_id="792").create_record(change)
    assert (await driver_for(emulator).find_written(change)).outcome is Outcome.NOT_APPLIED


@pytest.mark.parametrize("is_bare", [False, True], ids=["pages", "bare"])
async def test_paging_when_a_whole_page_is_of_another_shop_then_goes_on(is_bare: bool) -> None:
    """What is left out does not end the paging."""
    emulator = MixedBareLists() if is_bare else MixedShops()
    his = driver_for(emulator, shop_id="792")
    for number in range(3):
        await his.create_record(write(Object.CUSTOMER, {"first_name": f"Other{number}"}))
    last = await driver_for(emulator).create_record(write(Object.CUSTOMER, {"first_name": "Own"}))
    found, cursor, pages = [], "", 0
    while pages == 0 or cursor:
        page = await driver_for(emulator).list_recent(Object.CUSTOMER, cursor=cursor, limit=1)
        found += [one.remote_id for one in page.records]
        cursor, pages = page.next_cursor, pages + 1
    assert found[-1] == last.remote_id and len(found) == 2 and pages >= 6


async def test_rows_when_they_tell_no_shop_then_refused(shop: TekmetricEmulator) -> None:
    """Left out in silence they would make an upsert believe that there is no match."""
    driver = driver_for(shop)
    row = next(row for row in shop.customers if row.fields["shopId"] == 791)
    bare = {"id": row.id, "firstName": "Seeded", "email": "seed0@example.net"}
    for body, call in (
        ({"content": [bare], "last": True}, lambda: driver.list_recent(Object.CUSTOMER)),
        ({"content": [bare], "last": True}, lambda: driver.lookup_customer(email="seed0@example.net")),
        (bare, lambda: driver.get_record(Object.CUSTOMER, str(row.id))),
    ):
        shop.faults.add("status", status=200, body=body)
        with pytest.raises(UnexpectedResponse, match="shopId"):
            await call()


# -- erasure -----------------------------------------------------------------------------------------------


async def test_erase_when_already_deleted_then_the_texts_are_emptied(shop: TekmetricEmulator) -> None:
    driver = driver_for(shop)
    remote_id = await booked(driver)
    assert await driver.delete_record(Object.APPOINTMENT, remote_id) is DeleteLevel.SOFT
    assert await driver.erase_record(Object.APPOINTMENT, remote_id) is DeleteLevel.SOFT
    row = shop.appointments.rows[int(remote_id)]
    assert (row.fields["title"], row.fields["description"], row.is_archived) == ("Erased", "", True)


async def test_erase_when_done_twice_then_soft_again_and_nothing_is_written(shop: TekmetricEmulator) -> None:
    driver = driver_for(shop)
    remote_id = await booked(driver)
    await driver.erase_record(Object.APPOINTMENT, remote_id)
    written = shop.store.written
    assert await driver.erase_record(Object.APPOINTMENT, remote_id) is DeleteLevel.SOFT
    assert shop.store.written == written


async def test_erase_when_a_deleted_one_takes_no_change_then_a_person_gets_the_task() -> None:
    emulator = DeletedIsClosed()
    driver = driver_for(emulator)
    remote_id = await booked(driver)
    await driver.delete_record(Object.APPOINTMENT, remote_id)
    with pytest.raises(Unsupported) as caught:
        await driver.erase_record(Object.APPOINTMENT, remote_id)
    error = caught.value
    assert (error.subcode, error.operation, error.outcome) == (
        "delete_unsupported",
        "erase",
        Outcome.NOT_APPLIED,
    )
    assert error.fix.action == "erase_by_hand" and "title" in error.fix.hint
    assert "Mariam" not in str(error.to_dict())


async def test_erase_when_success_is_said_and_texts_stay_then_it_does_not_count() -> None:
    emulator = TextsStay()
    driver = driver_for(emulator)
    remote_id = await booked(driver)
    with pytest.raises(Unsupported) as caught:
        await driver.erase_record(Object.APPOINTMENT, remote_id)
    assert caught.value.fix.action == "erase_by_hand"
    assert not emulator.appointments.rows[int(remote_id)].is_archived  # the person still finds it


async def test_erase_when_unknown_after_a_delete_then_only_emptied_texts_are_proof(
    shop: TekmetricEmulator,
) -> None:
    driver = driver_for(shop)
    remote_id = await booked(driver)
    await driver.delete_record(Object.APPOINTMENT, remote_id)
    erase = Write(
        target_id="target-2", operation=Operation.ERASE, object=Object.APPOINTMENT, remote_id=remote_id
    )
    assert (await driver.find_written(erase)).outcome is Outcome.NOT_APPLIED
    await driver.erase_record(Object.APPOINTMENT, remote_id)
    assert (await driver.find_written(erase)).outcome is Outcome.APPLIED


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
async def test_erase_when_a_call_of_it_fails_then_the_error_says_erase(
    shop: TekmetricEmulator, method: str
) -> None:
    driver = driver_for(shop)
    remote_id = await booked(driver)
    shop.faults.add("status", status=500, body={"type": "ERROR"}, method=method)
    with pytest.raises(CrmError) as caught:
        await driver.erase_record(Object.APPOINTMENT, remote_id)
    assert (caught.value.operation, caught.value.outcome) == ("erase", Outcome.UNKNOWN)
    assert await driver.erase_record(Object.APPOINTMENT, remote_id) is DeleteLevel.SOFT


async def test_erase_when_of_another_shop_then_not_found_and_untouched(shop: TekmetricEmulator) -> None:
    remote_id = await booked(driver_for(shop, shop_id="792"))
    for verb in (driver_for(shop).erase_record, driver_for(shop).delete_record):
        with pytest.raises(NotFound):
            await verb(Object.APPOINTMENT, remote_id)
    row = shop.appointments.rows[int(remote_id)]
    assert (row.fields["title"], row.is_archived) == ("Mariam's brakes", False)


# -- e-mails -----------------------------------------------------------------------------------------------


async def two_emails(shop: TekmetricEmulator) -> tuple[Tekmetric, str, Any]:
    """A customer with ann@ and, added by the shop, home@."""
    driver = driver_for(shop)
    made = await driver.create_record(
        write(Object.CUSTOMER, {"first_name": "Ann", "email": "ann@example.com"})
    )
    answer = await shop.handle(
        HttpRequest(
            method="PATCH",
            url=f"{shop.base_url}/api/v1/customers/{made.remote_id}",
            headers={"Authorization": f"Bearer {shop.secrets()['access_token']}"},
            json={"email": ["ann@example.com", "home@example.com"]},
        )
    )
    assert answer.json()["data"]["email"] == "ann@example.com, home@example.com"
    return driver, made.remote_id, shop.customers.rows[int(made.remote_id)]


@pytest.mark.parametrize(
    ("new", "kept"),
    [
        ("new@example.com", "new@example.com, home@example.com"),
        ("home@example.com", "ann@example.com, home@example.com"),
        ("Home@example.com", "ann@example.com, Home@example.com"),
        (None, "home@example.com"),
    ],
)
async def test_email_when_changed_then_others_stay(
    shop: TekmetricEmulator, new: str | None, kept: str
) -> None:
    driver, remote_id, row = await two_emails(shop)
    change = write(Object.CUSTOMER, {"email": new}, operation=Operation.UPDATE, remote_id=remote_id)
    await driver.update_record(change)
    assert row.fields["email"] == kept
    if new:
        assert (await driver.find_written(change)).outcome is Outcome.APPLIED


@pytest.mark.parametrize("slot", ["email", "phone"])
async def test_cleared_when_unknown_and_another_one_is_left_then_not_sent_again(
    shop: TekmetricEmulator, slot: str
) -> None:
    """A repeat would take the next one away."""
    driver, remote_id, row = await two_emails(shop)
    row.fields["phone"] = [{"id": n, "number": f"415555012{n}", "primary": n == 1} for n in (1, 2)]
    change = write(Object.CUSTOMER, {slot: None}, operation=Operation.UPDATE, remote_id=remote_id)
    await driver.update_record(change)
    assert (await driver.find_written(change)).outcome is Outcome.UNKNOWN
    await driver.update_record(change)
    assert (await driver.find_written(change)).outcome is Outcome.APPLIED


async def test_email_when_another_field_changes_then_both_stay(shop: TekmetricEmulator) -> None:
    driver, remote_id, row = await two_emails(shop)
    change = {"operation": Operation.UPDATE, "remote_id": remote_id}
    await driver.update_record(write(Object.CUSTOMER, {"last_name": "Lee"}, **change))
    assert "email" not in msgspec.json.decode(shop.requests[-1].body or b"")
    assert row.fields["email"] == "ann@example.com, home@example.com"


@pytest.mark.parametrize("email", ["ann@example.com", "home@example.com", "HOME@example.com"])
async def test_lookup_when_by_either_email_then_found(shop: TekmetricEmulator, email: str) -> None:
    driver, remote_id, _ = await two_emails(shop)
    assert [one.remote_id for one in await driver.lookup_customer(email=email)] == [remote_id]
    assert await driver.lookup_customer(email="other@example.com") == []
    shown = await driver.get_record(Object.CUSTOMER, remote_id)
    assert shown.native["email"] == "ann@example.com"


async def test_email_when_the_second_one_is_known_then_conflict_names_the_existing(
    shop: TekmetricEmulator,
) -> None:
    driver, remote_id, _ = await two_emails(shop)
    with pytest.raises(Conflict) as caught:
        await driver.create_record(write(Object.CUSTOMER, {"first_name": "Ann", "email": "home@example.com"}))
    assert caught.value.existing_remote_id == remote_id


@pytest.mark.parametrize("odd", [5, {"a": 1}, [None, 7, {"number": None}], "text", True])
def test_customer_when_its_lists_have_wrong_shapes_then_no_bare_exception(odd: Any) -> None:
    names = ("email", "phone", "address", "notes", "firstName")
    raw = {"id": 1, "shopId": 791, **dict.fromkeys(names, odd)}
    for obj in (Object.CUSTOMER, Object.LEAD):
        assert shapes.native(obj, raw)["id"] == 1
        fields = {"email": "a@example.com", "phone": "+14155550123", "address": {"city": "X"}, "notes": "n"}
        sent = shapes.body(obj, fields, raw)
        assert sent["email"][0] == "a@example.com"
        assert sent["phones"][0]["number"] == "4155550123"
    assert shapes.native(Object.APPOINTMENT, {"id": 1, "startTime": odd, "description": odd})["id"] == 1


# -- settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["", "main shop"])
async def test_shop_when_not_given_then_not_configured_and_no_call(
    shop: TekmetricEmulator, given: str
) -> None:
    driver = driver_for(shop, shop_id=given)
    change = write(Object.CUSTOMER, {"last_name": "X"}, operation=Operation.UPDATE, remote_id="5")
    for call in (
        lambda: driver.create_record(write(Object.CUSTOMER, PERSON)),
        lambda: driver.create_record(write(Object.APPOINTMENT, BOOKED)),
        lambda: driver.update_record(change),
        lambda: driver.get_record(Object.CUSTOMER, "5"),
        lambda: driver.list_recent(Object.CUSTOMER),
        lambda: driver.search_records(Object.CUSTOMER, Filter(text="Ann")),
        lambda: driver.lookup_customer(email="ann@example.com"),
        lambda: driver.erase_record(Object.APPOINTMENT, "5"),
        driver.test_connection,
    ):
        with pytest.raises(NotConfigured, match="shop_id") as caught:
            await call()
        assert caught.value.fix.action == "fill_in"
    with pytest.raises(NotConfigured):
        driver.preview(write(Object.CUSTOMER, PERSON))
    assert shop.requests == []


async def test_shop_when_the_setting_is_absent_then_not_configured(shop: TekmetricEmulator) -> None:
    driver = driver_for(shop)
    driver.access.settings = {
        name: text for name, text in driver.access.settings.items() if name != "shop_id"
    }
    with pytest.raises(NotConfigured, match="shop_id"):
        await driver.create_record(write(Object.CUSTOMER, PERSON))
    assert shop.requests == []


@pytest.mark.parametrize("given", ["an hour", "0", "-5", "99999", "1.5"])
async def test_minutes_when_not_a_number_of_them_then_not_configured(
    shop: TekmetricEmulator, given: str
) -> None:
    with pytest.raises(NotConfigured, match="appointment_minutes"):
        await driver_for(shop, appointment_minutes=given).create_record(write(Object.APPOINTMENT, BOOKED))
    assert shop.requests == []


@pytest.mark.parametrize("fields", [{"customerId": "none"}, {"vehicleId": [1]}, {"startTime": "soon"}])
async def test_appointment_when_a_raw_value_does_not_fit_then_refused_before_a_call(
    shop: TekmetricEmulator, fields: dict[str, Any]
) -> None:
    change = write(Object.APPOINTMENT, BOOKED)
    change.fields = {"title": "Brakes", "startTime": "2027-01-15T10:30:00Z", **fields}
    with pytest.raises(ValidationError) as caught:
        await driver_for(shop).create_record(change)
    assert [one.field for one in caught.value.fields] == [f"appointment.{next(iter(fields))}"]
    assert shop.requests == []
