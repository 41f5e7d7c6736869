"""The contract on the emulated athenahealth, then one test per oddity."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import msgspec
import pytest

from crmbridge.conformance import DriverContract
from crmbridge.core.driver import Access
from crmbridge.core.errors import (
    AuthError,
    Conflict,
    CrmError,
    NotConfigured,
    NotFound,
    RateLimited,
    Unsupported,
    ValidationError,
)
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Filter, Object, Write
from crmbridge.core.secret import Secret
from crmbridge.core.verticals import Vertical, slots_for
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.athenahealth import shapes
from crmbridge.drivers.athenahealth.driver import MANIFEST, Athenahealth
from crmbridge.drivers.athenahealth.emulator import AthenahealthEmulator
from crmbridge.emulation import InProcessTransport
from crmbridge.toolkit.fieldmap import FieldMap, load_fields

FIXTURES = Path(__file__).parent / "fixtures"
PERSON = {
    "first_name": "Mariam",
    "last_name": "Okonkwo-Reyes",
    "email": "mariam.okonkwo@example.com",
    "phone": "+14155550123",
    "birth_date": "1987-03-09",
    "city": "Springfield",
    "region": "IL",
    "postal_code": "62701",
    "street": "12 Harbour Road",
}
VISIT = {"start_at": "2027-01-15T14:30:00+04:00", "end_at": "2027-01-15T15:00:00+04:00"}
SHORT = "provider: names hold 20 characters, so longer ones are refused"


class TestAthenahealth(DriverContract):
    driver = Athenahealth
    emulator = AthenahealthEmulator
    vertical = Vertical.CLINIC
    samples: ClassVar = {
        Object.CUSTOMER: PERSON,
        Object.CASE: {"subject": "Refill asked", "description": "Call back after four.", "priority": "high"},
        Object.NOTE: {"body": "Called back at noon."},
        Object.APPOINTMENT: {**VISIT, "notes": "First visit.", "reason": "Check-up"},
    }
    changes: ClassVar = {
        Object.APPOINTMENT: {"start_at": "2027-01-15T15:30:00+04:00", "end_at": "2027-01-15T16:00:00+04:00"}
    }
    linked: ClassVar = {
        Object.CASE: (Object.CUSTOMER,),
        Object.NOTE: (Object.CASE,),
        Object.APPOINTMENT: (Object.CUSTOMER,),
    }
    refused: ClassVar = {
        Object.CUSTOMER: {"sex": "perhaps"},
        Object.CASE: {"priority": "9"},
        Object.NOTE: {"actionnote": ""},
    }
    missing_id = "987654.987654"
    gaps: ClassVar = {
        "test_round_trip_keeps_any_text__customer": SHORT,
        "test_round_trip_keeps_long_text__case": "provider: an internal note holds 4000 characters",
        "test_declared_operation_works__case_update": "provider: a case's description is written once",
        "test_round_trip_keeps_money_dates_and_zones_exact__appointment": (
            "provider: an appointment is an open slot, which has a length"
        ),
        "test_find_written_when_never_sent_then_not_found__appointment": (
            "provider: of a booking only patient, slot and status can be read back, so another booking of the same "
            "patient for the same minute counts as this one; a second one would be the greater harm"
        ),
    }


def driver_for(emulator: AthenahealthEmulator, **settings: str) -> Athenahealth:
    return Athenahealth(
        Access(
            settings={**emulator.settings(), **settings},
            secrets={name: Secret(text) for name, text in emulator.secrets().items()},
            transport=InProcessTransport(emulator),
        )
    )


@pytest.fixture
def practice() -> AthenahealthEmulator:
    return AthenahealthEmulator()


def write(obj: Object, fields: dict[str, Any], **more: Any) -> Write:
    facts: dict[str, Any] = {"target_id": "target-1", "operation": Operation.CREATE, **more}
    rules = load_fields(Athenahealth).rules(obj, Vertical.CLINIC)
    field_map = FieldMap(obj, rules, slots_for(obj, Vertical.CLINIC), region="US")
    mapped = field_map.to_native(fields, partial=facts["operation"] is Operation.UPDATE)
    assert mapped.errors == []
    return Write(object=obj, fields=mapped.fields, **facts)


async def patient(driver: Athenahealth, **changes: Any) -> str:
    return (await driver.create_record(write(Object.CUSTOMER, {**PERSON, **changes}))).remote_id


async def token(emulator: AthenahealthEmulator) -> HttpResponse:
    pair = base64.b64encode(f"emulated-client:{emulator.secrets()['client_secret']}".encode()).decode()
    return await emulator.handle(
        HttpRequest(
            method="POST",
            url=f"{emulator.base_url}/oauth2/v1/token",
            headers={"Authorization": f"Basic {pair}"},
            form={"grant_type": "client_credentials", "scope": " ".join(MANIFEST.auth.scopes)},
        )
    )


def sent(emulator: AthenahealthEmulator) -> str:
    return (emulator.requests[-1].body or b"").decode()


# -- gate, tokens, practice --------------------------------------------------------------------------------


def test_gate_when_declared_then_phi() -> None:
    assert MANIFEST.gate == "phi"


async def test_token_when_asked_six_times_a_minute_then_429(practice: AthenahealthEmulator) -> None:
    """Without a cache that all workers share, a driver fails in preview at once."""
    practice.clock.freeze()
    assert [(await token(practice)).status for _ in range(6)] == [200] * 5 + [429]
    practice.clock.advance(61)
    assert (await token(practice)).status == 200
    assert MANIFEST.auth.token_calls_per_minute == 5 and MANIFEST.auth.client_auth == "basic"


async def test_token_when_an_hour_old_then_401_of_the_gateway(practice: AthenahealthEmulator) -> None:
    practice.clock.freeze()
    driver = driver_for(practice)
    driver.access.secrets["access_token"] = Secret((await token(practice)).json()["access_token"])
    assert (await driver.test_connection()).account == "practice 195900, Harbour Clinic"
    practice.clock.advance(3601)
    with pytest.raises(AuthError) as caught:
        await driver.test_connection()
    assert caught.value.subcode == "invalid_credentials"
    assert "Developer Inactive" in caught.value.message


@pytest.mark.parametrize(
    ("is_renewed", "subcode"), [(False, "invalid_credentials"), (True, "insufficient_scope")]
)
async def test_practice_when_not_granted_then_one_new_token_tells(
    practice: AthenahealthEmulator, is_renewed: bool, subcode: str
) -> None:
    driver = driver_for(practice, practice_id="195901")
    asked = []

    async def renew() -> bool:
        asked.append(1)
        return True

    driver.access.renew = renew if is_renewed else None
    with pytest.raises(AuthError, match="Incorrect permissions") as caught:
        await driver.test_connection()
    assert (caught.value.subcode, len(asked)) == (subcode, int(is_renewed))


async def test_practice_when_unknown_then_not_found(practice: AthenahealthEmulator) -> None:
    with pytest.raises(NotFound, match="Invalid practice"):
        await driver_for(practice, practice_id="5").test_connection()


async def test_department_when_unknown_then_the_setting_is_named(practice: AthenahealthEmulator) -> None:
    with pytest.raises(NotConfigured) as caught:
        await driver_for(practice, department_id="9").test_connection()
    assert [field.field for field in caught.value.fields] == ["department_id"]


def test_scopes_when_the_star_is_narrowed_to_the_practice_then_none_is_missing() -> None:
    assert Athenahealth.missing_scopes(frozenset({"athena/service/Athenanet.MDP.195900"})) == []
    assert Athenahealth.missing_scopes(frozenset({"system/Patient.read"})) == [*MANIFEST.auth.scopes]


# -- least necessary write ---------------------------------------------------------------------------------


@pytest.mark.parametrize("obj", [Object.CUSTOMER, Object.APPOINTMENT])
async def test_writes_when_not_switched_on_then_refused_before_a_call(
    practice: AthenahealthEmulator, obj: Object
) -> None:
    driver = driver_for(practice, write_patients="", write_appointments="no")
    with pytest.raises(Unsupported, match="switched off") as caught:
        await driver.create_record(Write(target_id="t", operation=Operation.CREATE, object=obj))
    assert caught.value.subcode == "operation_unsupported"
    assert (caught.value.fix.action, "settings" in caught.value.fix.hint) == ("change_settings", True)
    assert driver.manifest.supports(Object.CASE, Operation.CREATE).is_usable
    assert driver.manifest.supports(obj, Operation.GET).is_usable
    assert practice.requests == []


@pytest.mark.parametrize("obj", [Object.CUSTOMER, Object.CASE, Object.NOTE, Object.APPOINTMENT])
async def test_delete_when_asked_then_never_and_no_call(practice: AthenahealthEmulator, obj: Object) -> None:
    driver = driver_for(practice)
    for verb in (driver.delete_record, driver.erase_record):
        with pytest.raises(Unsupported) as caught:
            await verb(obj, "5")
        assert caught.value.subcode == "delete_unsupported"
        assert caught.value.fix.action == "erase_by_hand" and len(caught.value.fix.hint) > 40
    assert practice.requests == []


async def test_patient_when_read_then_nothing_clinical_comes_up(practice: AthenahealthEmulator) -> None:
    driver = driver_for(practice)
    record = await driver.get_record(Object.CUSTOMER, await patient(driver))
    assert set(record.native) <= {*shapes.PATIENT_FIELDS, *shapes.PHONES, "fullname"}
    assert not any("ssn" in request.full_url().lower() for request in practice.requests)


# -- patients ----------------------------------------------------------------------------------------------


async def test_patient_when_created_then_the_body_is_a_form_of_texts(practice: AthenahealthEmulator) -> None:
    driver = driver_for(practice)
    assert await patient(driver) == "100"
    assert practice.requests[-1].headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert "dob=03%2F09%2F1987" in sent(practice) and "mobilephone=4155550123" in sent(practice)


async def test_patient_when_known_then_the_same_id_and_no_second_chart(
    practice: AthenahealthEmulator,
) -> None:
    driver = driver_for(practice)
    first = await driver.create_record(write(Object.CUSTOMER, PERSON))
    again = await driver.create_record(write(Object.CUSTOMER, PERSON, target_id="target-2"))
    assert (again.remote_id, again.was_created, len(practice.patients)) == (first.remote_id, None, 1)


async def test_patient_when_without_birth_date_then_the_field_is_named(
    practice: AthenahealthEmulator,
) -> None:
    fields = {name: value for name, value in PERSON.items() if name != "birth_date"}
    with pytest.raises(ValidationError) as caught:
        await driver_for(practice).create_record(write(Object.CUSTOMER, fields))
    assert [field.field for field in caught.value.fields] == ["dob"]


@pytest.mark.parametrize(
    ("change", "field"),
    [({"first_name": "A" * 21}, "customer.firstname"), ({"phone": "+971501234567"}, "customer.mobilephone")],
)
async def test_patient_when_a_value_would_be_lost_then_refused_before_a_call(
    practice: AthenahealthEmulator, change: dict[str, str], field: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        await patient(driver_for(practice), **change)
    assert [each.field for each in caught.value.fields] == [field]
    assert practice.requests == []


async def test_email_when_declined_then_empty(practice: AthenahealthEmulator) -> None:
    driver = driver_for(practice)
    made = await patient(driver)
    practice.patients.update(int(made), {"email": "declined"})
    assert "email" not in (await driver.get_record(Object.CUSTOMER, made)).native


async def test_lookup_when_home_phone_calls_then_found(practice: AthenahealthEmulator) -> None:
    driver = driver_for(practice)
    made = await patient(driver)
    practice.patients.update(int(made), {"homephone": "4155550177"})
    assert [one.remote_id for one in await driver.lookup_customer(phone="+14155550177")] == [made]


async def test_search_when_too_many_hits_then_refine(practice: AthenahealthEmulator) -> None:
    for number in range(1001):
        practice.patients.insert({"firstname": "Ann", "lastname": f"N{number}", "dob": "", "name": ""})
    with pytest.raises(ValidationError, match="refine"):
        await driver_for(practice).search_records(Object.CUSTOMER, Filter(equals={"firstname": "Ann"}))


async def test_search_when_too_thin_then_refused_before_a_call(practice: AthenahealthEmulator) -> None:
    with pytest.raises(ValidationError):
        await driver_for(practice).search_records(Object.CUSTOMER, Filter(equals={"city": "Springfield"}))
    assert practice.requests == []


# -- cases and notes ---------------------------------------------------------------------------------------


async def test_case_when_created_then_source_and_class_come_from_the_settings(
    practice: AthenahealthEmulator,
) -> None:
    driver = driver_for(practice, case_source="PHONE", case_class="REFILL", provider_id="71")
    links = {"customer": await patient(driver)}
    made = await driver.create_record(write(Object.CASE, {"subject": "Refill"}, links=links))
    stored = practice.cases.rows[491_696].fields
    assert made.remote_id == "100.491696"
    assert (stored["documentsource"], stored["documentsubclass"], stored["providerid"]) == (
        "PHONE",
        "REFILL",
        "71",
    )
    assert stored["subject"] == "Refill [ref crmbridge-target-1]"
    record = await driver.get_record(Object.CASE, made.remote_id)
    assert (record.native["subject"], record.native["documentsubclass"]) == ("Refill", "REFILL")


@pytest.mark.parametrize(("obj", "linked"), [(Object.CASE, "customer"), (Object.NOTE, "case")])
async def test_link_when_missing_then_named_before_a_call(
    practice: AthenahealthEmulator, obj: Object, linked: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        await driver_for(practice).create_record(Write(target_id="t", operation=Operation.CREATE, object=obj))
    assert [field.field for field in caught.value.fields] == [f"links.{linked}"]
    assert practice.requests == []


async def test_case_when_made_by_another_user_or_closed_then_not_changed(
    practice: AthenahealthEmulator,
) -> None:
    driver = driver_for(practice)
    links = {"customer": await patient(driver)}
    made = await driver.create_record(write(Object.CASE, {"subject": "Refill"}, links=links))
    practice.cases.update(491_696, {"status": "CLOSED"})
    change = write(Object.CASE, {"subject": "New"}, operation=Operation.UPDATE, remote_id=made.remote_id)
    with pytest.raises(ValidationError, match="cannot be changed") as caught:
        await driver.update_record(change)
    assert caught.value.outcome is Outcome.NOT_APPLIED


async def test_case_when_patient_is_of_another_department_then_not_found(
    practice: AthenahealthEmulator,
) -> None:
    made = await patient(driver_for(practice, department_id="2"))
    with pytest.raises(NotFound, match="department"):
        await driver_for(practice).create_record(
            write(Object.CASE, {"subject": "Refill"}, links={"customer": made})
        )


async def test_note_when_written_then_found_by_its_mark_among_others(practice: AthenahealthEmulator) -> None:
    driver = driver_for(practice)
    links = {"customer": await patient(driver)}
    case = (await driver.create_record(write(Object.CASE, {"subject": "Refill"}, links=links))).remote_id
    practice.actions.insert({"case": 491_696, "actionnote": "Written by a nurse"})
    change = write(Object.NOTE, {"body": "Called back."}, links={"case": case})
    made = await driver.create_record(change)
    assert made.remote_id == "491696.target-1"
    assert (await driver.get_record(Object.NOTE, made.remote_id)).native["actionnote"] == "Called back."
    assert (await driver.find_written(change)).remote_id == made.remote_id


async def test_error_when_a_line_of_a_text_is_echoed_then_hidden(practice: AthenahealthEmulator) -> None:
    driver = driver_for(practice)
    links = {"customer": await patient(driver)}
    practice.faults.add(
        "status", status=400, body={"error": "Refill of Xanax: Cough since May"}, only="writes", times=0
    )
    for obj, fields in (
        (Object.CASE, {"subject": "Refill of Xanax", "description": "Cough since May"}),
        (Object.APPOINTMENT, {**VISIT, "title": "Refill of Xanax", "reason": "Cough since May"}),
    ):
        with pytest.raises(ValidationError) as caught:
            await driver.create_record(write(obj, fields, links=links))
        assert "Xanax" not in str(caught.value) and "May" not in str(caught.value.to_dict())


# -- answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("error.fields_missing.json", 400, ValidationError),
        ("error.practice_not_granted.json", 401, AuthError),
        ("error.not_in_department.json", 400, NotFound),
        ("error.document_not_found.json", 404, NotFound),
        ("error.frozen_with_200.json", 200, Conflict),
    ],
)
async def test_published_error_when_answered_then_its_kind(
    practice: AthenahealthEmulator, name: str, status: int, kind: type[CrmError]
) -> None:
    tree = msgspec.json.decode((FIXTURES / name).read_bytes())
    practice.faults.add("status", status=status, body=tree, only="writes")
    with pytest.raises(kind) as caught:
        await patient(driver_for(practice))
    assert type(caught.value) is kind and caught.value.outcome is Outcome.NOT_APPLIED
    if "missing" in name:
        assert [field.field for field in caught.value.fields] == ["notetext"]


@pytest.mark.parametrize("refusal", [False, "false"])
async def test_success_when_false_in_a_200_then_refused_whatever_its_type(
    practice: AthenahealthEmulator, refusal: Any
) -> None:
    practice.faults.add("status", status=200, body={"success": refusal}, only="writes")
    with pytest.raises(ValidationError) as caught:
        await patient(driver_for(practice))
    assert caught.value.outcome is Outcome.NOT_APPLIED


@pytest.mark.parametrize("words", ["Developer Over Qps", "Developer Over Rate"])
async def test_gateway_when_of_the_old_kind_and_over_rate_then_rate_limited(
    practice: AthenahealthEmulator, words: str
) -> None:
    class Old(InProcessTransport):
        async def send(self, request: HttpRequest) -> HttpResponse:
            return HttpResponse(status=403, headers={"content-type": "text/xml"}, body=words.encode())

    driver = driver_for(practice)
    driver.access.transport = Old(practice)
    with pytest.raises(RateLimited):
        await driver.test_connection()


@pytest.mark.parametrize(
    ("given", "expected"),
    [("03/09/1987", "1987-03-09"), ("3/9/1987", "1987-03-09"), ("1987-03-09", ""), ("x", "")],
)
def test_dates_when_read_then_iso_or_nothing(given: str, expected: str) -> None:
    assert shapes.iso_date(given) == expected


def test_times_when_daylight_changes_then_the_right_hour() -> None:
    zone = ZoneInfo("America/New_York")
    assert shapes.local("2027-03-14T07:30:00Z", zone) == ("03/14/2027", "03:30")
    assert shapes.local("2027-11-07T06:30:00Z", zone) == ("11/07/2027", "01:30")
    assert shapes.eastern("2027-07-01T04:00:00Z") == "07/01/2027 00:00:00"


async def test_feed_when_read_then_marked_as_processed_unless_left(practice: AthenahealthEmulator) -> None:
    """The emulator's own: a changed-data read is destructive."""
    await patient(driver_for(practice))
    headers = {"Authorization": f"Bearer {practice.secrets()['access_token']}"}

    async def read(method: str, tail: str) -> Any:
        url = f"{practice.base_url}/v1/195900/patients/changed{tail}"
        return (await practice.handle(HttpRequest(method=method, url=url, headers=headers))).json()

    await read("POST", "/subscription")
    counts = [(await read("GET", tail))["totalcount"] for tail in ("?leaveunprocessed=true", "", "")]
    assert counts == [1, 1, 0]
    assert (await read("GET", "?showprocessedstartdatetime=01%2F01%2F2020%2000:00:00"))["totalcount"] == 1


def test_budget_when_preview_then_five_a_second() -> None:
    preview = Athenahealth.manifest_for({"base_url": "https://api.preview.platform.athenahealth.com"})
    assert (preview.budgets[0].limit, MANIFEST.budgets[0].limit) == (5, 10)
