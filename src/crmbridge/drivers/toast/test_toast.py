"""The contract on the emulated Toast, with a guest API and without, then one test per oddity."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from crmbridge.conformance import Bench, DriverContract
from crmbridge.core.driver import Access
from crmbridge.core.errors import (
    AuthError,
    CrmError,
    NotConfigured,
    NotFound,
    RateLimited,
    Unavailable,
    Unsupported,
    ValidationError,
)
from crmbridge.core.operations import DeleteLevel, Operation, Outcome, SupportLevel
from crmbridge.core.records import Object, Write
from crmbridge.core.secret import Secret
from crmbridge.core.verticals import Vertical, slots_for
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.toast import shapes
from crmbridge.drivers.toast.driver import MANIFEST, Toast
from crmbridge.drivers.toast.emulated_till import LOGIN, OTHER_RESTAURANT, RESTAURANT
from crmbridge.drivers.toast.emulator import GUESTS, ToastEmulator
from crmbridge.emulation import InProcessTransport
from crmbridge.toolkit.fieldmap import FieldMap, load_fields

FIXTURES = Path(__file__).parent / "fixtures"
PERSON = {
    "first_name": "Mariam",
    "last_name": "Okonkwo-Reyes",
    "email": "mariam.okonkwo@example.com",
    "phone": "+14155550123",
}
BY_KEY = "unconfirmed: guests are searched by e-mail or phone only, never by name"


class TestToast(DriverContract):
    driver = Toast
    emulator = ToastEmulator
    vertical = Vertical.RESTAURANT
    samples: ClassVar = {Object.CUSTOMER: PERSON}
    refused: ClassVar = {Object.CUSTOMER: {"email": "no address"}}
    gaps: ClassVar = {"test_search_pages_when_0_1_page_and_page_plus_one__customer": BY_KEY}


class OrdersOnly(ToastEmulator):
    has_guests = False


class TestToastWithoutGuestApi(DriverContract):
    driver = Toast
    emulator = OrdersOnly
    vertical = Vertical.RESTAURANT

    # Guests come from orders that are there already.
    async def _try_list(self, bench: Bench, obj: Object) -> None:
        page = await bench.driver.list_recent(obj)
        assert [bench.canonical(one).fields["first_name"] for one in page.records] == ["Ann", "Bo"]

    async def _try_get(self, bench: Bench, obj: Object) -> None:
        bo = (await bench.driver.list_recent(obj)).records[1]
        assert (await bench.get(obj, bo.remote_id)).fields == {
            "first_name": "Bo",
            "last_name": "Quist",
            "email": "bo.quist@example.net",
            "phone": "+14155550172",
        }


@pytest.fixture
def toast() -> ToastEmulator:
    return ToastEmulator()


@pytest.fixture
def orders() -> OrdersOnly:
    return OrdersOnly()


def driver_for(emulator: ToastEmulator, **settings: str) -> Toast:
    return Toast(
        Access(
            settings={**emulator.settings(), **settings},
            secrets={name: Secret(text) for name, text in emulator.secrets().items()},
            transport=InProcessTransport(emulator),
        )
    )


def write(fields: dict[str, Any], **more: Any) -> Write:
    operation = more.pop("operation", Operation.CREATE)
    rules = load_fields(Toast).rules(Object.CUSTOMER, Vertical.RESTAURANT)
    slots = slots_for(Object.CUSTOMER, Vertical.RESTAURANT)
    made = FieldMap(Object.CUSTOMER, rules, slots, region="US").to_native(
        fields, partial=operation is Operation.UPDATE
    )
    assert made.errors == []
    given = {"target_id": "target-1", "object": Object.CUSTOMER, **more}
    return Write(operation=operation, fields=made.fields, **given)


def held(emulator: ToastEmulator, guid: str) -> dict[str, Any]:
    return emulator.guests.rows[guid].fields


# -- sign-in -------------------------------------------------------------------------------------------------


async def test_sign_in_when_asked_then_the_odd_body_and_no_restaurant_header(toast: ToastEmulator) -> None:
    toast.clock.freeze()
    answer = await driver_for(toast).sign_in()
    request = toast.requests[-1]
    assert msgspec.json.decode(request.body or b"") == {
        "clientId": "emulated-partner",
        "clientSecret": toast.secrets()["client_secret"],
        "userAccessType": "TOAST_MACHINE_CLIENT",
    }
    names = {name.lower() for name in request.headers}
    assert request.url.endswith(LOGIN) and not names & {"authorization", "toast-restaurant-external-id"}
    assert answer["expires_in"] == 86_400
    assert answer["scope"].split()[:2] == ["restaurants:read", "orders:read"]
    assert Toast.token_facts(answer) == {"scopes": answer["scope"]}


async def test_sign_in_when_sent_then_egress_may_not_repeat_it(toast: ToastEmulator) -> None:
    seen: list[bool] = []

    class Watched(InProcessTransport):
        async def send(self, request: HttpRequest) -> HttpResponse:
            seen.append(request.idempotent)
            return await super().send(request)

    driver = driver_for(toast)
    driver.access.transport = Watched(toast)
    await driver.sign_in()
    await driver.test_connection()
    assert seen == [False, True]


async def test_sign_in_when_the_client_id_is_the_installations_then_it_is_sent(toast: ToastEmulator) -> None:
    driver = driver_for(toast, client_id="")
    driver.access.secrets["client_id"] = Secret("emulated-partner")
    assert (await driver.sign_in())["access_token"] == toast.secrets()["access_token"]


async def test_sign_in_when_repeated_then_the_same_token_with_fewer_seconds(toast: ToastEmulator) -> None:
    toast.clock.freeze()
    driver = driver_for(toast)
    first = await driver.sign_in()
    toast.clock.advance(3_600)
    again = await driver.sign_in()
    toast.clock.advance(86_400 - 3_600 - 59)
    last_minute = await driver.sign_in()
    assert (again["access_token"], again["expires_in"]) == (first["access_token"], 82_800)
    assert last_minute["access_token"] != first["access_token"]
    with pytest.raises(AuthError) as caught:
        await driver.test_connection()
    assert caught.value.subcode == "invalid_credentials"


async def test_sign_in_when_refused_then_invalid_credentials_without_the_secret(toast: ToastEmulator) -> None:
    driver = driver_for(toast)
    driver.access.secrets["client_secret"] = Secret("not-the-secret-4711")
    with pytest.raises(AuthError) as caught:
        await driver.sign_in()
    assert caught.value.subcode == "invalid_credentials"
    assert "4711" not in str(caught.value.to_dict())


@pytest.mark.parametrize("retry_after", ["", "40"])
async def test_sign_in_when_throttled_then_half_an_hour_unless_told(
    toast: ToastEmulator, retry_after: str
) -> None:
    toast.faults.add("status", status=429, operation="login", retry_after=retry_after)
    with pytest.raises(RateLimited) as caught:
        await driver_for(toast).sign_in()
    assert caught.value.retry_after_seconds == float(retry_after or 1_800)
    assert len(toast.requests) == 1


@pytest.mark.parametrize("body", [{}, [], {"token": None}, {"token": {"accessToken": 7}}, "text"])
async def test_sign_in_when_it_brings_no_token_then_unexpected(toast: ToastEmulator, body: Any) -> None:
    toast.faults.add("wrong_shape", operation="login", body=body)
    with pytest.raises(CrmError) as caught:
        await driver_for(toast).sign_in()
    assert caught.value.code == "unexpected_response"


async def test_sign_in_when_published_answer_then_its_seconds_left_and_scopes(toast: ToastEmulator) -> None:
    tree = msgspec.json.decode((FIXTURES / "sign_in.with_seconds_left.json").read_bytes())
    toast.faults.add("wrong_shape", operation="login", body=tree)
    answer = await driver_for(toast).sign_in()
    assert (answer["expires_in"], answer["scope"]) == (19_168, "restaurants:read orders:read")


@pytest.mark.parametrize("token", ["", "a.b.c", "a.e30.c", "a.W10.c", "a.eyJzY29wZSI6N30.c", "no token"])
def test_scopes_when_the_token_is_odd_then_none(token: str) -> None:
    assert shapes.scopes_in(token) == ""


# -- the restaurant ------------------------------------------------------------------------------------------


async def test_connection_when_tested_then_restaurant_zone_and_missing_scopes(toast: ToastEmulator) -> None:
    driver = driver_for(toast)
    driver.access.facts["scopes"] = "restaurants:read stock:read"
    proof = await driver.test_connection()
    assert proof.account == "Harbour Table, Pier 4"
    assert proof.facts == {"time_zone": "America/Los_Angeles"}
    assert proof.missing_rights == ["guest.pi:read"]
    assert toast.requests[-1].headers["Toast-Restaurant-External-ID"] == RESTAURANT


@pytest.mark.parametrize("guid", ["a1b2c3d4-0000-4000-8000-000000000009", "5", ""])
async def test_connection_when_the_restaurant_is_unknown_then_the_setting_is_named(
    toast: ToastEmulator, guid: str
) -> None:
    with pytest.raises(NotConfigured) as caught:
        await driver_for(toast, restaurant_guid=guid).test_connection()
    assert [field.field for field in caught.value.fields] == ["restaurant_guid"]


async def test_connection_when_the_restaurant_is_not_connected_then_access_is_the_way_out(
    toast: ToastEmulator,
) -> None:
    with pytest.raises(AuthError) as caught:
        await driver_for(toast, restaurant_guid=OTHER_RESTAURANT).test_connection()
    assert (caught.value.subcode, caught.value.fix.action) == ("insufficient_scope", "grant_access")


async def test_write_when_standard_access_then_only_reads_are_let_through(toast: ToastEmulator) -> None:
    standard = type("Standard", (ToastEmulator,), {"is_standard": True})()
    driver = driver_for(standard)
    await driver.test_connection()
    with pytest.raises(AuthError, match="GET requests only") as caught:
        await driver.create_record(write(PERSON))
    assert "Standard API access" in caught.value.fix.hint


async def test_call_when_any_then_it_carries_the_restaurant(toast: ToastEmulator) -> None:
    driver = driver_for(toast)
    made = await driver.create_record(write(PERSON))
    await driver.get_record(Object.CUSTOMER, made.remote_id)
    toast.clock.advance(10)
    await driver.lookup_customer(email=str(PERSON["email"]))
    await driver.erase_record(Object.CUSTOMER, made.remote_id)
    assert len(toast.requests) == 6
    assert {one.headers["Toast-Restaurant-External-ID"] for one in toast.requests} == {RESTAURANT}


# -- what is declared ----------------------------------------------------------------------------------------


def test_manifest_when_read_then_it_says_unconfirmed() -> None:
    assert MANIFEST.verification_note.startswith("unconfirmed by vendor")
    guest = MANIFEST.objects[Object.CUSTOMER]
    for operation in (Operation.CREATE, Operation.UPDATE, Operation.DELETE, Operation.ERASE):
        assert guest.operations[operation].level is SupportLevel.LIMITED
        assert "unconfirmed by vendor" in guest.operations[operation].reason
    assert (guest.delete_level, guest.erase_level) == (DeleteLevel.REDACTED, DeleteLevel.REDACTED)


async def test_write_when_no_guest_path_then_refused_with_the_setting(orders: OrdersOnly) -> None:
    driver = driver_for(orders)
    for operation, verb in (
        (Operation.CREATE, driver.create_record),
        (Operation.UPDATE, driver.update_record),
        (Operation.UPSERT, driver.upsert_record),
    ):
        with pytest.raises(Unsupported) as caught:
            await verb(write(PERSON, operation=operation, remote_id="x", match={"email": "a@example.com"}))
        assert caught.value.subcode == "operation_unsupported"
        assert caught.value.fix.action == "change_settings"
        assert "Guest base path" in caught.value.fix.hint
    assert orders.requests == []


@pytest.mark.parametrize("blank", ["", " ", "/"])
async def test_erase_when_no_guest_path_then_a_task_for_a_person(orders: OrdersOnly, blank: str) -> None:
    driver = driver_for(orders, guest_path=blank)
    for verb in (driver.delete_record, driver.erase_record):
        with pytest.raises(Unsupported) as caught:
            await verb(Object.CUSTOMER, "x")
        assert (caught.value.subcode, caught.value.fix.action) == ("delete_unsupported", "erase_by_hand")
        assert "Individual Rights request" in caught.value.fix.hint
    assert orders.requests == []


@pytest.mark.parametrize("obj", [one for one in Object if one is not Object.CUSTOMER])
async def test_objects_when_not_a_guest_then_refused_with_the_reason(
    toast: ToastEmulator, obj: Object
) -> None:
    driver = driver_for(toast)
    with pytest.raises(Unsupported) as caught:
        await driver.create_record(write(PERSON, object=obj))
    assert caught.value.subcode == "operation_unsupported"
    assert len(caught.value.message) > 50 and toast.requests == []


async def test_guest_path_when_another_then_called_there(toast: ToastEmulator) -> None:
    driver = driver_for(toast, guest_path="/crm/v9/customers/")
    with pytest.raises(NotFound):
        await driver.create_record(write(PERSON))
    assert toast.requests[-1].url == f"{toast.base_url}/crm/v9/customers"


# -- limits and refusals -------------------------------------------------------------------------------------


async def test_limits_when_more_than_20_in_a_second_then_told_and_on_every_answer(
    toast: ToastEmulator,
) -> None:
    toast.clock.freeze()
    driver = driver_for(toast)
    results = [await driver.write_one(write(PERSON, target_id=f"target-{number}")) for number in range(21)]
    assert [one.outcome for one in results] == [Outcome.APPLIED] * 20 + [Outcome.NOT_APPLIED]
    error = results[-1].error
    assert isinstance(error, RateLimited) and error.retry_after_seconds == 2.0
    answer = await raw(toast, "/restaurants/v1/restaurants/" + RESTAURANT)
    assert answer.header("x-toast-ratelimit-remaining") == "0"
    assert answer.header("x-toast-ratelimit-by") == "GLOBAL"


async def test_limits_when_only_the_reset_is_told_then_read_from_it(toast: ToastEmulator) -> None:
    at = int(datetime.now(UTC).timestamp()) + 30
    toast.faults.add("status", status=429, headers={"X-Toast-RateLimit-Reset": str(at)})
    toast.limits = dict  # type: ignore[method-assign]
    with pytest.raises(RateLimited) as caught:
        await driver_for(toast).test_connection()
    assert 25 < (caught.value.retry_after_seconds or 0) <= 30


@pytest.mark.parametrize("is_write", [True, False])
async def test_status_499_when_answered_then_a_write_is_unknown(toast: ToastEmulator, is_write: bool) -> None:
    toast.faults.add("status", status=499)
    driver = driver_for(toast)
    with pytest.raises(Unavailable) as caught:
        await (driver.create_record(write(PERSON)) if is_write else driver.test_connection())
    assert caught.value.outcome is (Outcome.UNKNOWN if is_write else Outcome.NOT_APPLIED)
    assert caught.value.retry_safe is not is_write


@pytest.mark.parametrize("name", sorted(path.name for path in FIXTURES.glob("error.*.json")))
async def test_published_error_when_answered_then_words_code_and_request_id(
    toast: ToastEmulator, name: str
) -> None:
    tree = msgspec.json.decode((FIXTURES / name).read_bytes())
    for status, kind in (
        (400, ValidationError),
        (422, ValidationError),
        (403, AuthError),
        (500, Unavailable),
    ):
        toast.faults.add("status", status=status, body=tree, only="writes")
        with pytest.raises(kind) as caught:
            await driver_for(toast).create_record(write(PERSON))
        facts = caught.value.provider_facts
        assert facts["provider_code"] == str(tree["code"])
        assert facts["provider_request_id"] == tree["requestId"]
        said = [tree["message"], *(one["message"] for one in tree["errors"])]
        assert facts["provider_message"] == "; ".join(said)


@pytest.mark.parametrize("body", [None, [], {"errors": 5}, {"errors": [None]}, {"message": {}, "code": []}])
async def test_error_when_of_another_shape_then_by_status(toast: ToastEmulator, body: Any) -> None:
    toast.faults.add("status", status=400, body=body, only="writes")
    with pytest.raises(ValidationError):
        await driver_for(toast).create_record(write(PERSON))


# -- the emulator's own oddities -----------------------------------------------------------------------------


async def raw(emulator: ToastEmulator, path: str, *, with_restaurant: bool = True) -> HttpResponse:
    headers = {"Authorization": f"Bearer {emulator.secrets()['access_token']}"}
    if with_restaurant:
        headers["Toast-Restaurant-External-ID"] = RESTAURANT
    return await emulator.handle(HttpRequest(method="GET", url=emulator.base_url + path, headers=headers))


async def test_emulator_when_the_restaurant_header_lacks_then_refused(toast: ToastEmulator) -> None:
    assert (await raw(toast, GUESTS + "/" + RESTAURANT, with_restaurant=False)).status == 400


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("startDate=2026-01-01T00:00:00.000%2B0000&endDate=2026-01-02T00:00:00.000%2B0000", 200),
        ("startDate=2026-01-01T00:00:00.000%2B0000&endDate=2026-03-02T00:00:00.000%2B0000", 400),
        ("startDate=2026-01-01T00:00:00.000+0000&endDate=2026-01-02T00:00:00.000+0000", 400),
        ("startDate=2026-01-01T00:00:00Z&endDate=2026-01-02T00:00:00Z", 400),
        ("startDate=2026-01-01T00:00:00.000%2B0000", 400),
        ("businessDate=20260101&pageSize=101", 400),
        ("businessDate=20260101&page=0", 400),
        ("businessDate=20260101", 200),
    ],
)
async def test_emulator_when_orders_are_asked_then_window_and_pages_are_checked(
    toast: ToastEmulator, query: str, status: int
) -> None:
    assert (await raw(toast, f"/orders/v2/ordersBulk?{query}")).status == status


async def test_emulator_when_a_list_goes_on_then_links_and_a_bare_list(toast: ToastEmulator) -> None:
    now = toast.clock.now()
    window = "&".join(
        f"{name}={(now - timedelta(days=days)).strftime('%Y-%m-%dT%H:%M:%S.000%%2B0000')}"
        for name, days in (("startDate", 5), ("endDate", -1))
    )
    answer = await raw(toast, f"/orders/v2/ordersBulk?{window}&pageSize=2&page=2")
    assert len(answer.json()) == 2
    assert [part.split('rel="')[1][:-1] for part in answer.header("link").split(", ")] == [
        "first",
        "self",
        "prev",
        "next",
    ]
