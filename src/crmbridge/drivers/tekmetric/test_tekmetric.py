"""The contract on the emulated Tekmetric, then one test per oddity."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.conformance import Bench, DriverContract
from crmbridge.core.driver import Access
from crmbridge.core.errors import AuthError, Conflict, CrmError, NotFound, Unsupported, ValidationError
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Filter, Object, Write
from crmbridge.core.secret import Secret
from crmbridge.core.verticals import Vertical, slots_for
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.tekmetric import wording
from crmbridge.drivers.tekmetric.driver import MANIFEST, Tekmetric
from crmbridge.drivers.tekmetric.emulator import TekmetricEmulator
from crmbridge.emulation import InProcessTransport
from crmbridge.toolkit.fieldmap import FieldMap, load_fields
from crmbridge.toolkit.phones import nanp_digits

FIXTURES = Path(__file__).parent / "fixtures"
PERSON = {
    "first_name": "Mariam",
    "last_name": "Okonkwo-Reyes",
    "email": "mariam.okonkwo@example.com",
    "phone": "+14155550123",
    "street": "12 Harbour Road",
    "city": "Springfield",
    "region": "IL",
    "postal_code": "62701",
}
VEHICLE = {"vehicle.make": "Kia", "vehicle.model": "Sportage", "vehicle.year": 2019}
BY_GET = "provider: Tekmetric searches by GET, so the person stands in the query"
BY_TITLE = "provider: appointments are listed by start, customer and vehicle only, never by title"


class TestTekmetric(DriverContract):
    driver = Tekmetric
    emulator = TekmetricEmulator
    vertical = Vertical.AUTO_SERVICE
    samples: ClassVar = {
        Object.CUSTOMER: {**PERSON, "notes": "Prefers to be called after four."},
        Object.LEAD: {
            **PERSON,
            **VEHICLE,
            "company": "Example Trading",
            "title": "Brakes squeal",
            "message": "Since Monday.\n\nOnly when it rains.",
            "concern": "Noise from the front left wheel",
        },
        Object.APPOINTMENT: {
            **VEHICLE,
            "title": "Brakes",
            "start_at": "2027-01-15T14:30:00+04:00",
            "end_at": "2027-01-15T15:15:00+04:00",
            "notes": "Waits in the shop.",
            "concern": "Noise from the front left wheel",
            "vehicle.odometer": 81200,
        },
    }
    linked: ClassVar = {Object.APPOINTMENT: (Object.CUSTOMER,)}
    refused: ClassVar = {
        Object.CUSTOMER: {"firstName": ""},
        Object.LEAD: {"customerTypeId": 7},
        Object.APPOINTMENT: {"status": "PERHAPS"},
    }
    gaps: ClassVar = {
        "test_secrecy_urls_of_reads_hold_no_person": BY_GET,
        "test_declared_operation_works__appointment_search": BY_TITLE,
        "test_search_pages_when_0_1_page_and_page_plus_one__appointment": BY_TITLE,
    }

    # Repair orders cannot be created; the emulated shop has some.
    async def _try_get(self, bench: Bench, obj: Object) -> None:
        if obj is not Object.DEAL:
            await super()._try_get(bench, obj)
            return
        record = await bench.get(obj, "90002")
        assert record.fields["amount"] == "456.78"
        assert (record.fields["name"], record.fields["stage"]) == ("1001", "Complete")
        assert record.fields["close_date"] == "2026-11-20"
        assert record.native["repairOrderStatus"]["code"] == "COMPLETE"

    async def _try_list(self, bench: Bench, obj: Object) -> None:
        if obj is not Object.DEAL:
            await super()._try_list(bench, obj)
            return
        assert {one.remote_id for one in (await bench.driver.list_recent(obj)).records} == {"90001", "90002"}

    async def _try_search(self, bench: Bench, obj: Object) -> None:
        if obj is not Object.DEAL:
            await super()._try_search(bench, obj)
            return
        page = await bench.driver.search_records(obj, Filter(equals={"repairOrderNumber": "1000"}))
        assert [one.remote_id for one in page.records] == ["90001"]


class BareLists(TekmetricEmulator):
    answers_bare_lists = True


class TestTekmetricWithBareLists(TestTekmetric):
    emulator = BareLists


def driver_for(emulator: TekmetricEmulator, **settings: str) -> Tekmetric:
    return Tekmetric(
        Access(
            settings={**emulator.settings(), **settings},
            secrets={name: Secret(text) for name, text in emulator.secrets().items()},
            transport=InProcessTransport(emulator),
        )
    )


@pytest.fixture
def shop() -> TekmetricEmulator:
    return TekmetricEmulator()


def mapped(obj: Object, fields: dict[str, Any], *, partial: bool = False) -> dict[str, Any]:
    vertical = Vertical.AUTO_SERVICE
    rules = load_fields(Tekmetric).rules(obj, vertical)
    made = FieldMap(obj, rules, slots_for(obj, vertical), region="US").to_native(fields, partial=partial)
    assert made.errors == []
    return made.fields


def write(obj: Object, fields: dict[str, Any], **more: Any) -> Write:
    operation = more.pop("operation", Operation.CREATE)
    native = mapped(obj, fields, partial=operation is Operation.UPDATE)
    return Write(target_id="target-1", operation=operation, object=obj, fields=native, **more)


async def raw(emulator: TekmetricEmulator, path: str) -> Any:
    token = emulator.secrets()["access_token"]
    answer = await emulator.handle(
        HttpRequest(
            method="GET",
            url=f"{emulator.base_url}/api/v1{path}",
            headers={"Authorization": f"Bearer {token}"},
        )
    )
    return answer.json()


# -- token and shops ---------------------------------------------------------------------------------------


async def test_token_when_asked_twice_then_the_same_with_shop_ids_as_scope(shop: TekmetricEmulator) -> None:
    pair = base64.b64encode(f"emulated-client:{shop.secrets()['client_secret']}".encode()).decode()
    request = HttpRequest(
        method="POST",
        url=f"{shop.base_url}/api/v1/oauth/token",
        headers={"Authorization": f"Basic {pair}"},
        form={"grant_type": "client_credentials"},
    )
    first, second = [(await shop.handle(request)).json() for _ in range(2)]
    assert (
        first
        == second
        == {
            "access_token": shop.secrets()["access_token"],
            "token_type": "bearer",
            "scope": "791 792",
        }
    )
    assert MANIFEST.auth.client_auth == "basic" and MANIFEST.auth.access_seconds == 0


async def test_shop_when_not_in_scope_then_the_test_names_it(shop: TekmetricEmulator) -> None:
    proof = await driver_for(shop).test_connection()
    assert (proof.account, proof.scopes) == ("Harbour Auto Care", ["791", "792"])
    with pytest.raises(AuthError, match="shop 900") as caught:
        await driver_for(shop, shop_id="900").test_connection()
    assert caught.value.subcode == "insufficient_scope"
    assert caught.value.provider_facts["shops_in_scope"] == ["791", "792"]


async def test_record_when_of_another_shop_of_the_same_token_then_not_found(shop: TekmetricEmulator) -> None:
    other = next(row for row in shop.customers if row.fields["shopId"] == 792)
    driver = driver_for(shop)
    with pytest.raises(NotFound):
        await driver.get_record(Object.CUSTOMER, str(other.id))
    change = write(Object.CUSTOMER, {"last_name": "X"}, operation=Operation.UPDATE, remote_id=str(other.id))
    with pytest.raises(NotFound):
        await driver.update_record(change)
    assert other.fields["lastName"] == "Person1"
    listed = await driver.list_recent(Object.CUSTOMER)
    assert str(other.id) not in {one.remote_id for one in listed.records}


# -- shapes ------------------------------------------------------------------------------------------------


async def test_customer_when_created_then_lists_are_written_and_texts_read(shop: TekmetricEmulator) -> None:
    driver = driver_for(shop)
    made = await driver.create_record(write(Object.CUSTOMER, PERSON))
    sent = msgspec.json.decode(shop.requests[-1].body or b"")
    assert sent["email"] == ["mariam.okonkwo@example.com"]
    assert sent["phones"] == [{"number": "4155550123", "type": "Mobile", "primary": True}]
    assert sent["shopId"] == 791
    stored = await raw(shop, f"/customers/{made.remote_id}")
    assert stored["email"] == "mariam.okonkwo@example.com"
    assert int(made.remote_id) > 2_147_483_000


async def test_phone_when_changed_then_other_numbers_stay(shop: TekmetricEmulator) -> None:
    """A PATCH replaces the whole list."""
    driver = driver_for(shop)
    made = await driver.create_record(write(Object.CUSTOMER, PERSON))
    row = shop.customers.rows[int(made.remote_id)]
    row.fields["phone"].append({"id": 7, "number": "4155550177", "type": "Home", "primary": False})
    change = {"operation": Operation.UPDATE, "remote_id": made.remote_id}
    await driver.update_record(write(Object.CUSTOMER, {"phone": "+14155550188"}, **change))
    assert [one["number"] for one in row.fields["phone"]] == ["4155550188", "4155550177"]
    await driver.update_record(write(Object.CUSTOMER, {"phone": "+14155550177"}, **change))
    assert [one["number"] for one in row.fields["phone"]] == ["4155550188", "4155550177"]
    await driver.update_record(write(Object.CUSTOMER, {"phone": None}, **change))
    assert [one["number"] for one in row.fields["phone"]] == ["4155550177"]


async def test_address_when_one_part_changes_then_others_stay(shop: TekmetricEmulator) -> None:
    driver = driver_for(shop)
    made = await driver.create_record(write(Object.CUSTOMER, PERSON))
    change = write(
        Object.CUSTOMER, {"city": "Shelbyville"}, operation=Operation.UPDATE, remote_id=made.remote_id
    )
    await driver.update_record(change)
    address = shop.customers.rows[int(made.remote_id)].fields["address"]
    assert (address["city"], address["address1"], address["zip"]) == (
        "Shelbyville",
        "12 Harbour Road",
        "62701",
    )


async def test_phone_when_not_north_american_then_refused_before_a_call(shop: TekmetricEmulator) -> None:
    with pytest.raises(ValidationError) as caught:
        await driver_for(shop).create_record(write(Object.CUSTOMER, {**PERSON, "phone": "+971501234567"}))
    assert [field.field for field in caught.value.fields] == ["customer.phone"]
    assert shop.requests == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("+14155550123", "4155550123"),
        ("(415) 555-0123", "4155550123"),
        ("+9715012345", ""),
        ("", ""),
    ],
)
def test_digits_when_given_then_ten_or_none(text: str, found: str) -> None:
    assert nanp_digits(text) == found


async def test_name_when_only_full_then_split_at_the_first_blank(shop: TekmetricEmulator) -> None:
    driver = driver_for(shop)
    made = await driver.create_record(write(Object.CUSTOMER, {"full_name": "Mei Lin Chen"}))
    record = await driver.get_record(Object.CUSTOMER, made.remote_id)
    assert (record.native["firstName"], record.native["lastName"]) == ("Mei", "Lin Chen")


async def test_lookup_when_second_phone_calls_then_found(shop: TekmetricEmulator) -> None:
    driver = driver_for(shop)
    made = await driver.create_record(write(Object.CUSTOMER, PERSON))
    row = shop.customers.rows[int(made.remote_id)]
    row.fields["phone"].append({"id": 7, "number": "4155550177", "type": "Home", "primary": False})
    found = await driver.lookup_customer(phone="+14155550177")
    assert [one.remote_id for one in found] == [made.remote_id]


async def test_search_when_fuzzy_answers_more_then_compared_exactly(shop: TekmetricEmulator) -> None:
    driver = driver_for(shop)
    for email in ("ann@example.com", "joann@example.com"):
        await driver.create_record(write(Object.CUSTOMER, {"first_name": "Ann", "email": email}))
    page = await driver.search_records(Object.CUSTOMER, Filter(equals={"email": "ann@example.com"}))
    assert [one.native["email"] for one in page.records] == ["ann@example.com"]


# -- conflicts, refusals -----------------------------------------------------------------------------------


async def test_customer_when_email_is_known_then_conflict_names_the_existing(shop: TekmetricEmulator) -> None:
    driver = driver_for(shop)
    made = await driver.create_record(write(Object.CUSTOMER, PERSON))
    with pytest.raises(Conflict) as caught:
        await driver.create_record(write(Object.LEAD, {**PERSON, "phone": "+14155550190"}))
    assert caught.value.existing_remote_id == made.remote_id
    assert caught.value.outcome is Outcome.NOT_APPLIED


async def test_error_when_it_comes_with_200_then_validation_names_the_field(shop: TekmetricEmulator) -> None:
    driver = driver_for(shop)
    fields = {"title": "Brakes", "start_at": "2027-01-15T10:30:00Z", "status": "PERHAPS"}
    with pytest.raises(ValidationError) as caught:
        await driver.create_record(write(Object.APPOINTMENT, fields))
    assert [field.field for field in caught.value.fields] == ["status"]
    assert caught.value.provider_facts["http_status"] == 200
    assert caught.value.outcome is Outcome.NOT_APPLIED and not caught.value.retry_safe


async def test_403_when_scope_is_short_then_the_fix_is_to_grant_the_shop(shop: TekmetricEmulator) -> None:
    driver = driver_for(shop)
    body = msgspec.json.decode((FIXTURES / "error.scope_of_a_shop.json").read_bytes())
    shop.faults.add("status", status=403, body=body)
    with pytest.raises(AuthError) as caught:
        await driver.list_recent(Object.CUSTOMER)
    assert (caught.value.subcode, caught.value.fix.action) == ("insufficient_scope", "grant_shop")


@pytest.mark.parametrize("obj", [Object.CUSTOMER, Object.LEAD, Object.DEAL])
async def test_delete_when_tekmetric_has_none_then_unsupported_and_no_call(
    shop: TekmetricEmulator, obj: Object
) -> None:
    driver = driver_for(shop)
    for verb in (driver.delete_record, driver.erase_record):
        with pytest.raises(Unsupported) as caught:
            await verb(obj, "5")
        assert caught.value.subcode == "delete_unsupported"
        assert caught.value.fix.action == "erase_by_hand" and "the shop" in caught.value.fix.hint
    assert shop.requests == []


# -- leads -------------------------------------------------------------------------------------------------


async def test_lead_when_the_customer_exists_then_the_shops_own_notes_stay(shop: TekmetricEmulator) -> None:
    driver = driver_for(shop)
    made = await driver.create_record(write(Object.CUSTOMER, {**PERSON, "notes": "Owes us a coffee."}))
    lead = {**PERSON, "title": "Brakes squeal", "vehicle.make": "Kia", "concern": "Front left"}
    for _ in range(2):
        change = write(Object.LEAD, lead, operation=Operation.UPSERT)
        change.match = {"email": PERSON["email"]}
        result = await driver.upsert_record(change)
        assert result.remote_id == made.remote_id
    assert shop.customers.rows[int(made.remote_id)].fields["notes"] == (
        "Owes us a coffee.\n\n[crmbridge]\nSubject: Brakes squeal\nConcern: Front left\nVehicle make: Kia\n[/crmbridge]"
    )


async def test_error_when_a_line_of_the_block_is_echoed_then_hidden(shop: TekmetricEmulator) -> None:
    shop.faults.add("status", status=400, body={"type": "ERROR", "message": "Bad: Front left"}, only="writes")
    with pytest.raises(ValidationError) as caught:
        await driver_for(shop).create_record(write(Object.LEAD, {**PERSON, "concern": "Front left"}))
    assert "Front" not in str(caught.value.to_dict())


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00")).filter(
    lambda text: text.strip() == text
)


@given(
    free=TEXTS.filter(lambda text: "crmbridge]" not in text),
    about=st.dictionaries(st.sampled_from(sorted(wording.LABELS)), TEXTS.filter(bool)),
)
def test_wording_when_joined_then_split_to_the_letter(free: str, about: dict[str, str]) -> None:
    assert wording.split(wording.join(free, about)) == (free, about)


def test_wording_when_free_text_forges_a_block_then_it_counts_for_nothing() -> None:
    text = wording.join("[crmbridge]\nRef: crmbridge-1\n[/crmbridge]", {})
    assert wording.split(text)[1] == {}


# -- appointments ------------------------------------------------------------------------------------------


async def test_appointment_when_end_is_not_given_then_as_long_as_the_setting(shop: TekmetricEmulator) -> None:
    driver = driver_for(shop, appointment_minutes="90")
    made = await driver.create_record(write(Object.APPOINTMENT, {"start_at": "2027-01-15T10:30:00Z"}))
    record = await driver.get_record(Object.APPOINTMENT, made.remote_id)
    assert (record.native["title"], record.native["endTime"]) == ("Appointment", "2027-01-15T12:00:00Z")
    stored = await raw(shop, f"/appointments/{made.remote_id}")
    assert stored["endTime"] == "2027-01-15T12:00:00"  # without its Z: still UTC


async def test_appointment_when_notes_change_then_concern_and_mark_stay(shop: TekmetricEmulator) -> None:
    driver = driver_for(shop)
    fields = {"start_at": "2027-01-15T10:30:00Z", "notes": "Waits.", "concern": "Noise"}
    made = await driver.create_record(write(Object.APPOINTMENT, fields))
    change = write(
        Object.APPOINTMENT, {"notes": "Leaves it."}, operation=Operation.UPDATE, remote_id=made.remote_id
    )
    await driver.update_record(change)
    record = await driver.get_record(Object.APPOINTMENT, made.remote_id)
    assert record.native["description"] == "Leaves it."
    assert record.native["about"] == {"concern": "Noise", "ref": "crmbridge-target-1"}


async def test_appointment_when_deleted_then_left_out_of_lists_and_still_found_by_mark(
    shop: TekmetricEmulator,
) -> None:
    driver = driver_for(shop)
    change = write(Object.APPOINTMENT, {"start_at": "2027-01-15T10:30:00Z"})
    made = await driver.create_record(change)
    await driver.delete_record(Object.APPOINTMENT, made.remote_id)
    assert (await driver.get_record(Object.APPOINTMENT, made.remote_id)).is_archived
    assert (await driver.list_recent(Object.APPOINTMENT)).records == []
    assert (await driver.find_written(change)).remote_id == made.remote_id


async def test_appointment_when_erased_then_its_texts_are_emptied_first(shop: TekmetricEmulator) -> None:
    driver = driver_for(shop)
    fields = {"title": "Mariam's brakes", "start_at": "2027-01-15T10:30:00Z", "notes": "Call Mariam."}
    made = await driver.create_record(write(Object.APPOINTMENT, fields))
    await driver.erase_record(Object.APPOINTMENT, made.remote_id)
    row = shop.appointments.rows[int(made.remote_id)]
    assert (row.fields["title"], row.fields["description"], row.is_archived) == ("Erased", "", True)


async def test_appointment_when_customer_is_of_another_shop_then_refused(shop: TekmetricEmulator) -> None:
    other = next(row for row in shop.customers if row.fields["shopId"] == 792)
    change = write(
        Object.APPOINTMENT, {"start_at": "2027-01-15T10:30:00Z"}, links={"customer": str(other.id)}
    )
    with pytest.raises(ValidationError):
        await driver_for(shop).create_record(change)


async def test_appointment_search_when_by_title_then_refused_before_a_call(shop: TekmetricEmulator) -> None:
    with pytest.raises(ValidationError, match="cannot search"):
        await driver_for(shop).search_records(Object.APPOINTMENT, Filter(equals={"title": "Brakes"}))
    assert shop.requests == []


async def test_appointment_search_when_by_customer_and_start_then_found(shop: TekmetricEmulator) -> None:
    driver = driver_for(shop)
    customer = (await driver.create_record(write(Object.CUSTOMER, PERSON))).remote_id
    links = {"customer": customer}
    made = [
        await driver.create_record(write(Object.APPOINTMENT, {"start_at": start}, links=links))
        for start in ("2027-01-15T10:30:00Z", "2027-01-15T11:30:00Z")
    ]
    equals = {"customerId": customer, "startTime": "2027-01-15T11:30:00Z"}
    page = await driver.search_records(Object.APPOINTMENT, Filter(equals=equals))
    assert [one.remote_id for one in page.records] == [made[1].remote_id]


# -- the emulator's own oddities ----------------------------------------------------------------------------


async def test_lists_when_size_is_above_100_then_capped_in_silence(shop: TekmetricEmulator) -> None:
    tree = await raw(shop, "/customers?shop=791&size=5000")
    assert (tree["size"], tree["last"], tree["number"]) == (100, True, 0)


async def test_lists_when_deleted_dates_are_asked_then_only_deleted_rows_come(
    shop: TekmetricEmulator,
) -> None:
    driver = driver_for(shop)
    ids = [
        (
            await driver.create_record(write(Object.APPOINTMENT, {"start_at": f"2027-01-15T1{n}:30:00Z"}))
        ).remote_id
        for n in range(2)
    ]
    await driver.delete_record(Object.APPOINTMENT, ids[0])
    query = "/appointments?shop=791&updatedDateStart=2020-01-01&deletedDateStart=2020-01-01"
    assert [one["id"] for one in (await raw(shop, query))["content"]] == [int(ids[0])]
    assert len((await raw(shop, "/appointments?shop=791"))["content"]) == 2  # deleted ones by default


async def test_order_when_finished_then_no_patch(shop: TekmetricEmulator) -> None:
    token = {"Authorization": f"Bearer {shop.secrets()['access_token']}"}

    async def patch(order: int) -> HttpResponse:
        url = f"{shop.base_url}/api/v1/repair-orders/{order}"
        return await shop.handle(HttpRequest(method="PATCH", url=url, headers=token, json={"keyTag": "K7"}))

    assert (await patch(90_001)).json()["data"]["keytag"] == "K7"
    refused = await patch(90_002)
    assert (refused.status, refused.json()["message"]) == (400, "Repair Order must be active to update data")


def test_budget_when_sandbox_then_half() -> None:
    sandbox = Tekmetric.manifest_for({"base_url": "https://sandbox.tekmetric.com"})
    assert [sandbox.budgets[0].limit, MANIFEST.budgets[0].limit] == [300, 600]


@pytest.mark.parametrize("name", sorted(path.name for path in FIXTURES.glob("error.*.json")))
async def test_published_error_when_answered_then_no_bare_exception(
    shop: TekmetricEmulator, name: str
) -> None:
    tree = msgspec.json.decode((FIXTURES / name).read_bytes())
    for status in (200, 400, 403, 404, 409, 500):
        shop.faults.add("status", status=status, body=tree, only="writes")
        with pytest.raises(CrmError):
            await driver_for(shop).create_record(write(Object.CUSTOMER, PERSON))
