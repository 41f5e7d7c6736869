"""Times local to the site, appointments, contact logs."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.core.errors import (
    NotConfigured,
    NotFound,
    Unavailable,
    Unsupported,
    ValidationError,
)
from crmbridge.core.operations import DeleteLevel, Outcome
from crmbridge.core.records import Object
from crmbridge.core.secret import Secret
from crmbridge.drivers.mindbody import shapes
from crmbridge.drivers.mindbody.emulator import MindbodyEmulator
from crmbridge.drivers.mindbody.test_kit import (
    BOOKING,
    PACIFIC,
    SEEDED,
    bare,
    booking,
    change,
    connected,
    sent,
    write,
)


@pytest.fixture
def site() -> MindbodyEmulator:
    return MindbodyEmulator()


# -- times ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        ("2027-01-15T18:30:00Z", "2027-01-15T10:30:00"),
        ("2027-03-14T09:59:59Z", "2027-03-14T01:59:59"),  # the last second of winter
        ("2027-03-14T10:00:00Z", "2027-03-14T03:00:00"),  # 02:00 to 03:00 does not exist
        ("2027-11-07T08:30:00Z", "2027-11-07T01:30:00"),  # the first 01:30 of that night
        ("2027-11-07T10:00:00Z", "2027-11-07T02:00:00"),
        ("2027-07-01T00:00:00Z", "2027-06-30T17:00:00"),
    ],
)
def test_time_when_written_then_the_sites_clock_and_back_to_the_instant(moment: str, shown: str) -> None:
    assert shapes.local(moment, PACIFIC, "start") == shown
    assert shapes.to_utc(shown, PACIFIC) == moment


async def test_time_when_the_clocks_show_it_twice_then_the_second_is_refused_before_a_write(
    site: MindbodyEmulator,
) -> None:
    driver = await connected(site)
    first = await driver.create_record(booking(1, start_at="2027-11-07T08:30:00Z"))
    record = await driver.get_record(Object.APPOINTMENT, first.remote_id)
    assert record.native["StartDateTime"] == "2027-11-07T08:30:00Z"
    site.write_calls = 0
    with pytest.raises(ValidationError) as caught:
        await driver.create_record(booking(2, start_at="2027-11-07T09:30:00Z"))
    assert [field.field for field in caught.value.fields] == ["appointment.start_at"]
    assert site.write_calls == 0


@given(st.integers(631_152_000, 3_786_912_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)))
def test_time_when_any_instant_then_exact_or_refused(moment: datetime) -> None:
    text = moment.replace(microsecond=0, tzinfo=None).isoformat() + "Z"
    for zone in (PACIFIC, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Asia/Dubai")):
        try:
            shown = shapes.local(text, zone, "start")
        except ValidationError:
            assert moment.astimezone(zone).fold == 1
        else:
            assert shapes.to_utc(shown, zone) == text


async def test_zone_when_the_setting_names_one_then_it_wins_over_the_sites(site: MindbodyEmulator) -> None:
    driver = await connected(site, time_zone="America/New_York")
    assert driver.access.facts["time_zone"] == "America/Los_Angeles"
    await driver.create_record(booking())
    assert sent(site)["StartDateTime"] == "2027-01-15T13:30:00"


async def test_zone_when_nobody_tells_it_then_a_warning_and_no_booking(site: MindbodyEmulator) -> None:
    class Zoneless(MindbodyEmulator):
        told_zone = "Pacific Standard Time"  # not of the IANA list

    emulator = Zoneless()
    driver = bare(emulator)
    driver.access.secrets["access_token"] = Secret((await driver.sign_in())["access_token"])
    proof = await driver.test_connection()
    driver.access.facts.update(proof.facts)
    assert "time_zone" not in proof.facts and "time zone" in proof.warnings[0]
    with pytest.raises(NotConfigured) as caught:
        await driver.create_record(booking())
    assert caught.value.fields[0].field == "time_zone" and emulator.write_calls == 0


# -- appointments ---------------------------------------------------------------------------------------


async def test_booking_when_sent_then_numbers_local_times_mark_and_no_payment(site: MindbodyEmulator) -> None:
    driver = await connected(site)
    await driver.create_record(
        booking(staff="tomas  abara", notes="Allergic.", end_at="2027-01-15T19:15:00Z")
    )
    assert sent(site) == {
        "ClientId": "15001",
        "ApplyPayment": False,
        "StartDateTime": "2027-01-15T10:30:00",
        "EndDateTime": "2027-01-15T11:15:00",
        "Notes": "Allergic.",
        "SessionTypeId": 11,
        "StaffId": 22,
        "LocationId": 1,
        "PartnerExternalId": "crmbridge-target-1",
    }


async def test_booking_when_the_service_is_unknown_then_the_sites_services_are_told(
    site: MindbodyEmulator,
) -> None:
    driver = await connected(site)
    with pytest.raises(ValidationError) as caught:
        await driver.create_record(booking(service="Perm"))
    assert caught.value.fields[0].field == "appointment.service"
    assert "Hair cut, Colour, Deep tissue massage" in caught.value.fields[0].message
    assert site.write_calls == 0


async def test_booking_when_service_staff_or_client_is_missing_then_named_before_a_call(
    site: MindbodyEmulator,
) -> None:
    driver = await connected(site, session_type_id="", staff_id="", location_id="")
    for fields, links, name in (
        ({"start_at": BOOKING["start_at"]}, {"customer": SEEDED}, "appointment.service"),
        (BOOKING, {"customer": SEEDED}, "appointment.staff"),
        ({"service": "11", "staff": "21"}, {"customer": SEEDED}, "appointment.start_at"),
        ({**BOOKING, "staff": "21"}, {}, "links.customer"),
    ):
        with pytest.raises(ValidationError) as caught:
            await driver.create_record(write(Object.APPOINTMENT, fields, links=links))
        assert caught.value.fields[0].field == name
    assert site.requests == []
    await driver.create_record(booking(staff="21"))  # the site has one location
    assert sent(site)["LocationId"] == 1


async def test_booking_when_the_client_is_unknown_then_refused_without_a_write(
    site: MindbodyEmulator,
) -> None:
    driver = await connected(site)
    write_ = booking()
    write_.links = {"customer": "100009999"}
    with pytest.raises(ValidationError):
        await driver.create_record(write_)
    assert site.write_calls == 0


async def test_booking_when_staff_are_busy_then_the_fix_is_another_time(site: MindbodyEmulator) -> None:
    site.refuses_double_booking = True
    driver = await connected(site)
    await driver.create_record(booking(1))
    with pytest.raises(ValidationError) as caught:
        await driver.create_record(booking(2, start_at="2027-01-15T19:00:00Z"))
    assert caught.value.fix.action == "choose_time" and caught.value.outcome is Outcome.NOT_APPLIED


async def test_booking_when_an_identical_one_is_in_progress_then_unknown_and_found_by_mark(
    site: MindbodyEmulator,
) -> None:
    driver = await connected(site)
    made = await driver.create_record(booking())
    with pytest.raises(Unavailable) as caught:
        await driver.create_record(booking())
    assert caught.value.outcome is Outcome.UNKNOWN and not caught.value.retry_safe
    found = await driver.find_written(booking())
    assert (found.outcome, found.remote_id) == (Outcome.APPLIED, made.remote_id)
    assert (await driver.find_written(booking(2))).outcome is Outcome.NOT_APPLIED


async def test_status_when_changed_then_by_mindbodys_own_steps(site: MindbodyEmulator) -> None:
    driver = await connected(site)
    made = await driver.create_record(booking())
    steps = []
    for status in ("confirmed", "booked", "arrived", "booked", "cancelled"):
        await driver.update_record(change(Object.APPOINTMENT, made.remote_id, {"status": status}))
        steps.append(sent(site)["Execute"])
    assert steps == ["confirm", "unconfirm", "arrive", "unarrive", "cancel"]
    with pytest.raises(ValidationError) as caught:
        await driver.update_record(change(Object.APPOINTMENT, made.remote_id, {"status": "requested"}))
    assert [field.field for field in caught.value.fields] == ["appointment.status"]
    with pytest.raises(ValidationError):
        await driver.update_record(change(Object.APPOINTMENT, made.remote_id, {"service": None}))


async def test_appointment_when_deleted_then_cancelled_once_and_kept(site: MindbodyEmulator) -> None:
    driver = await connected(site)
    made = await driver.create_record(booking())
    for _ in range(2):
        assert await driver.delete_record(Object.APPOINTMENT, made.remote_id) is DeleteLevel.SOFT
    assert site.calls["appointments.update"] == 1
    assert (await driver.get_record(Object.APPOINTMENT, made.remote_id)).is_archived
    with pytest.raises(Unsupported) as caught:
        await driver.erase_record(Object.APPOINTMENT, made.remote_id)
    assert caught.value.fix.action == "erase_by_hand"


async def test_appointments_when_listed_by_change_then_refused(site: MindbodyEmulator) -> None:
    driver = await connected(site)
    with pytest.raises(ValidationError, match="listed by change"):
        await driver.list_recent(Object.APPOINTMENT, since="2027-01-01T00:00:00Z")
    assert site.requests == []


async def test_bookings_when_many_then_two_calls_and_each_its_own_outcome(site: MindbodyEmulator) -> None:
    driver = await connected(site)
    writes = [booking(number) for number in range(20)]
    writes[3].fields["Staff"] = "99"  # Mindbody refuses it
    writes[5].fields["Staff"] = "Nobody"  # we do
    results = await driver.write_batch(writes)
    bad = [number for number, one in enumerate(results) if one.outcome is not Outcome.APPLIED]
    assert bad == [3, 5]
    assert all(isinstance(results[number].error, ValidationError) for number in bad)
    assert (site.calls["appointments.create_many"], site.calls["clients.list"]) == (1, 1)
    for number, one in enumerate(results):
        if number not in bad:
            row = site.appointments.rows[int(one.remote_id)]
            assert row.fields["PartnerExternalId"] == f"crmbridge-target-{number}"


async def test_bookings_when_an_outcome_is_missing_then_that_one_is_unknown(site: MindbodyEmulator) -> None:
    driver = await connected(site)
    mark = "crmbridge-target-2"
    body = {"AddAppointmentOutcomes": [{"Request": {"PartnerExternalId": mark}, "Appointment": {"Id": 5}}]}
    site.faults.add("wrong_shape", operation="appointments.create_many", body=body)
    results = await driver.write_batch([booking(1), booking(2)])
    assert [one.outcome for one in results] == [Outcome.UNKNOWN, Outcome.APPLIED]


# -- contact logs ---------------------------------------------------------------------------------------


async def test_activity_when_written_then_text_method_and_labelled_comments(site: MindbodyEmulator) -> None:
    driver = await connected(site)
    fields = {"kind": "sms", "subject": "Colour", "body": "Hello.\nBye.", "duration_seconds": 30}
    made = await driver.create_record(write(Object.ACTIVITY, fields, links={"customer": SEEDED}))
    assert sent(site) == {
        "ClientId": "15001",
        "ContactMethod": "Text message",
        "Text": "Hello.\nBye.",
        "Comments": ["Subject: Colour", "Seconds: 30", "Ref: crmbridge-target-1"],
    }
    site.logs.rows[901].fields["Comments"].append({"Id": 9, "Text": "Staff: she was in a hurry"})
    await driver.update_record(change(Object.ACTIVITY, made.remote_id, {"subject": None, "result": "Booked"}))
    assert [one["Text"] for one in site.logs.rows[901].fields["Comments"]] == [
        "Subject: ",
        "Seconds: 30",
        "Ref: crmbridge-target-1",
        "Staff: she was in a hurry",
        "Result: Booked",
    ]
    assert site.logs.rows[901].fields["Text"] == "Hello.\nBye."


async def test_case_when_written_then_assigned_and_closed_by_is_complete(site: MindbodyEmulator) -> None:
    driver = await connected(site)
    made = await driver.create_record(
        write(Object.CASE, {"subject": "Faded", "description": "Since Monday."}, links={"lead": SEEDED})
    )
    assert sent(site)["AssignedToStaffId"] == 21
    await driver.update_record(change(Object.CASE, made.remote_id, {"status": "closed"}))
    record = await driver.get_record(Object.CASE, made.remote_id)
    assert (record.native["IsComplete"], record.native["about"]["Subject"]) == (True, "Faded")


async def test_note_when_read_long_after_then_the_day_window_is_wide(site: MindbodyEmulator) -> None:
    driver = await connected(site)
    made = await driver.create_record(write(Object.NOTE, {"body": "Hello"}, links={"customer": SEEDED}))
    site.clock.advance(90 * 86_400)
    driver.access.secrets["access_token"] = Secret((await bare(site).sign_in())["access_token"])
    assert (await driver.get_record(Object.NOTE, made.remote_id)).native["Text"] == "Hello"


async def test_note_when_deleted_then_gone_and_the_client_stays(site: MindbodyEmulator) -> None:
    driver = await connected(site)
    made = await driver.create_record(write(Object.NOTE, {"body": "Hello"}, links={"customer": SEEDED}))
    assert await driver.erase_record(Object.NOTE, made.remote_id) is DeleteLevel.HARD
    assert len(site.logs) == 0 and int(SEEDED) in site.clients.rows
    with pytest.raises(NotFound):
        await driver.get_record(Object.NOTE, made.remote_id)


async def test_note_when_no_client_is_linked_or_no_text_then_refused_before_a_call(
    site: MindbodyEmulator,
) -> None:
    driver = await connected(site)
    for fields, links, name in (
        ({"body": "Hello"}, {}, "links.customer"),
        ({}, {"customer": SEEDED}, "note.Text"),
    ):
        with pytest.raises(ValidationError) as caught:
            await driver.create_record(write(Object.NOTE, fields, links=links))
        assert caught.value.fields[0].field == name
    assert site.requests == []


async def test_error_when_a_comment_is_echoed_without_its_label_then_hidden(site: MindbodyEmulator) -> None:
    driver = await connected(site)
    body = {"Error": {"Message": "Bad: Colour faded", "Code": "InvalidParameter"}}
    site.faults.add("status", status=400, body=body, only="writes")
    fields = {"subject": "Colour faded", "description": "x"}
    with pytest.raises(ValidationError) as caught:
        await driver.create_record(write(Object.CASE, fields, links={"customer": SEEDED}))
    assert "faded" not in str(caught.value.to_dict())


async def test_appointment_when_only_the_start_moves_then_it_lasts_as_long(site: MindbodyEmulator) -> None:
    driver = await connected(site)
    made = await driver.create_record(booking(end_at="2027-01-15T19:15:00Z"))
    await driver.update_record(
        change(Object.APPOINTMENT, made.remote_id, {"start_at": "2027-01-16T18:00:00Z"})
    )
    record = await driver.get_record(Object.APPOINTMENT, made.remote_id)
    assert record.native["EndDateTime"] == "2027-01-16T18:45:00Z"
