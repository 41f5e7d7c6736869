"""Booking, moving and cancelling on the emulated athenahealth."""

from __future__ import annotations

from pathlib import Path

import pytest

from crmbridge.core.errors import Conflict, CrmError, ValidationError
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.athenahealth.emulator import AthenahealthEmulator
from crmbridge.drivers.athenahealth.test_athenahealth import VISIT, driver_for, patient, sent, write
from crmbridge.emulation import InProcessTransport

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def practice() -> AthenahealthEmulator:
    return AthenahealthEmulator()


async def test_booking_when_a_slot_is_open_then_taken_at_local_time_without_a_hidden_case(
    practice: AthenahealthEmulator,
) -> None:
    driver = driver_for(practice, time_zone="America/Chicago")
    change = write(
        Object.APPOINTMENT,
        {"title": "Check-up", "start_at": "2027-07-01T14:30:00Z", "reason": "Cough"},
        links={"customer": await patient(driver)},
    )
    made = await driver.create_record(change)
    row = practice.appointments.rows[int(made.remote_id)]
    assert (row.fields["date"], row.fields["starttime"]) == ("07/01/2027", "09:30")
    assert row.fields["bookingnote"] == "Check-up\nReason: Cough"
    assert len(practice.cases) == 0 and "nopatientcase=true" in sent(practice)
    record = await driver.get_record(Object.APPOINTMENT, made.remote_id)
    assert (record.native["startTime"], record.native["endTime"]) == (
        "2027-07-01T14:30:00Z",
        "2027-07-01T15:00:00Z",
    )


async def test_booking_when_no_slot_begins_then_conflict_and_nothing_written(
    practice: AthenahealthEmulator,
) -> None:
    driver = driver_for(practice)
    links = {"customer": await patient(driver)}
    for fields in ({"start_at": "2027-07-01T14:35:00Z"}, {**VISIT, "end_at": "2027-01-15T16:00:00+04:00"}):
        with pytest.raises(Conflict) as caught:
            await driver.create_record(write(Object.APPOINTMENT, fields, links=links))
        assert caught.value.fix.action == "choose_time"
    assert all(row.fields["appointmentstatus"] == "o" for row in practice.appointments)


async def test_booking_when_the_slot_is_taken_meanwhile_then_conflict_safe_to_repeat(
    practice: AthenahealthEmulator,
) -> None:
    driver = driver_for(practice)
    change = write(Object.APPOINTMENT, VISIT, links={"customer": await patient(driver)})
    text = (FIXTURES / "error.slot_taken.txt").read_bytes().strip()

    class Late(InProcessTransport):
        async def send(self, request: HttpRequest) -> HttpResponse:
            if request.method == "PUT":
                return HttpResponse(status=404, headers={"content-type": "text/html"}, body=text)
            return await super().send(request)

    driver.access.transport = Late(practice)
    with pytest.raises(Conflict) as caught:
        await driver.create_record(change)
    assert caught.value.retry_safe and caught.value.outcome is Outcome.NOT_APPLIED


async def test_booking_when_the_answer_is_lost_then_found_and_not_booked_twice(
    practice: AthenahealthEmulator,
) -> None:
    driver = driver_for(practice)
    change = write(Object.APPOINTMENT, VISIT, links={"customer": await patient(driver)})
    assert (await driver.find_written(change)).outcome is Outcome.NOT_APPLIED
    practice.faults.add("cut_after", only="writes")
    with pytest.raises(CrmError):
        await driver.create_record(change)
    found = await driver.find_written(change)
    assert found.outcome is Outcome.APPLIED
    assert practice.appointments.rows[int(found.remote_id)].fields["appointmentstatus"] == "f"


async def test_appointment_when_moved_then_the_new_id_is_answered(practice: AthenahealthEmulator) -> None:
    driver = driver_for(practice)
    made = await driver.create_record(
        write(Object.APPOINTMENT, VISIT, links={"customer": await patient(driver)})
    )
    change = {"operation": Operation.UPDATE, "remote_id": made.remote_id}
    moved = await driver.update_record(
        write(Object.APPOINTMENT, {"start_at": "2027-01-16T15:00:00Z"}, **change)
    )
    assert moved.remote_id != made.remote_id
    assert (await driver.get_record(Object.APPOINTMENT, made.remote_id)).is_archived
    now = await driver.get_record(Object.APPOINTMENT, moved.remote_id)
    assert (now.native["startTime"], now.is_archived) == ("2027-01-16T15:00:00Z", False)
    change["remote_id"] = moved.remote_id
    await driver.update_record(write(Object.APPOINTMENT, {"status": "cancelled"}, **change))
    assert (await driver.get_record(Object.APPOINTMENT, moved.remote_id)).is_archived
    with pytest.raises(ValidationError, match="cannot be changed"):  # a 200 with success: false
        await driver.update_record(write(Object.APPOINTMENT, {"status": "cancelled"}, **change))


async def test_appointment_when_another_field_changes_then_refused_before_a_call(
    practice: AthenahealthEmulator,
) -> None:
    change = write(Object.APPOINTMENT, {"notes": "x"}, operation=Operation.UPDATE, remote_id="1000001")
    with pytest.raises(ValidationError) as caught:
        await driver_for(practice).update_record(change)
    assert [field.field for field in caught.value.fields] == ["appointment.notes"]
    assert practice.requests == []
