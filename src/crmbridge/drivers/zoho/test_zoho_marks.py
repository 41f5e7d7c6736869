"""Marks, what became of lost writes, and upserts."""

from __future__ import annotations

from typing import Any

import pytest

from crmbridge.core.errors import Conflict, CrmError, Unavailable
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object
from crmbridge.drivers.zoho.emulated_fields import Defined
from crmbridge.drivers.zoho.emulator import ZohoEmulator
from crmbridge.drivers.zoho.test_kit import connected, fixture, person, sent, write


@pytest.fixture
def zoho() -> ZohoEmulator:
    return ZohoEmulator()


# -- marks -------------------------------------------------------------------------------------------------------


async def test_batch_when_sent_again_then_the_same_records(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    writes = [write(n, {"Deal_Name": f"Deal {n}"}, Object.DEAL) for n in range(60)]
    first = await driver.write_batch(writes)
    again = await driver.write_batch(writes)
    assert [one.remote_id for one in again] == [one.remote_id for one in first]
    assert len(zoho.records.table("Deals")) == 60
    assert zoho.calls == {"create": 2, "coql": 2}


async def test_create_when_another_record_has_the_unique_value_then_conflict_with_its_id(
    zoho: ZohoEmulator,
) -> None:
    driver = await connected(zoho)
    zoho.records.fields["Leads"]["Email"].is_unique = True
    first = await driver.create_record(write(1, person(1)))
    with pytest.raises(Conflict) as caught:
        await driver.create_record(write(2, person(1)))
    assert caught.value.existing_remote_id == first.remote_id
    assert caught.value.fields[0].field == "Email"


async def test_create_when_the_duplicate_stands_in_another_module_then_no_id_of_ours(
    zoho: ZohoEmulator,
) -> None:
    driver = await connected(zoho)
    row = fixture("error.duplicate")
    row["details"]["duplicate_record"]["module"]["api_name"] = "Contacts"
    zoho.faults.add("status", operation="create", status=400, body={"data": [row]})
    with pytest.raises(Conflict) as caught:
        await driver.create_record(write(1, person(1)))
    assert caught.value.existing_remote_id == ""
    assert "Contacts" in caught.value.fix.hint


async def test_prepare_when_first_run_then_one_unique_field_per_module_and_none_on_notes(
    zoho: ZohoEmulator,
) -> None:
    driver = await connected(zoho)
    facts = driver.access.facts
    assert facts["unique_marks"].split() == ["Leads", "Contacts", "Deals", "Events", "Cases", "Calls"]
    assert "Notes" not in facts["marks"]
    assert facts["unmarked"] == ""
    assert facts["first_stage"] == "Qualification"
    made = [one for one in zoho.records.fields["Leads"].values() if one.is_custom]
    assert [(one.name, one.is_unique) for one in made] == [("crmbridge_mark", True)]


async def test_prepare_when_unique_fields_are_used_up_then_a_plain_mark(zoho: ZohoEmulator) -> None:
    zoho.most_unique = 0
    driver = await connected(zoho)
    assert driver.access.facts["unique_marks"] == ""
    lost = write(1, person(1))
    zoho.faults.add("cut_after", operation="create")
    with pytest.raises(Unavailable):
        await driver.create_record(lost)
    assert (await driver.find_written(lost)).outcome is Outcome.APPLIED


async def test_prepare_when_fields_may_not_be_made_then_lost_creates_stay_unknown_and_say_why(
    zoho: ZohoEmulator,
) -> None:
    zoho.missing_scopes = {"ZohoCRM.settings.fields.CREATE"}
    driver = await connected(zoho)
    assert driver.access.facts["marks"] == ""
    assert "Leads:no_right" in driver.access.facts["unmarked"].split()
    made = await driver.create_record(write(1, person(1)))
    assert made.outcome is Outcome.APPLIED
    found = await driver.find_written(write(1, person(1)))
    assert found.outcome is Outcome.UNKNOWN
    assert isinstance(found.error, CrmError)
    assert "crmbridge mark" in found.error.fix.hint


async def test_prepare_when_the_edition_has_no_cases_then_the_others_are_prepared(zoho: ZohoEmulator) -> None:
    del zoho.records.fields["Cases"]
    facts = (await connected(zoho)).access.facts
    assert facts["unmarked"] == "Cases:module_missing"
    assert "Calls:crmbridge_mark" in facts["marks"].split()


async def test_prepare_when_an_administrator_made_the_field_under_another_name_then_it_is_used(
    zoho: ZohoEmulator,
) -> None:
    zoho.records.add_field("Leads", Defined(77, "crmbridge_mark1", "text", 100, "cu", "crmbridge mark"))
    driver = await connected(zoho)
    lost = write(1, person(1))
    made = await driver.create_record(lost)
    assert sent(zoho, "/Leads")[0]["data"][0]["crmbridge_mark1"] == "t1-target-1"
    assert (await driver.find_written(lost)).remote_id == made.remote_id


async def test_find_written_when_a_note_was_made_then_told_by_the_end_of_its_title(
    zoho: ZohoEmulator,
) -> None:
    driver = await connected(zoho)
    customer = await driver.create_record(write(1, person(1), Object.CUSTOMER))
    links = {"customer": customer.remote_id}
    notes = [write(n, {"Note_Content": "Same text"}, Object.NOTE, links=links) for n in range(2, 5)]
    made = await driver.create_record(notes[1])
    assert (await driver.find_written(notes[1])).remote_id == made.remote_id
    assert (await driver.find_written(notes[0])).outcome is Outcome.NOT_APPLIED
    assert (await driver.find_written(notes[2])).outcome is Outcome.NOT_APPLIED
    titled = write(9, {"Note_Content": "x", "Note_Title": "By the tenant"}, Object.NOTE, links=links)
    await driver.create_record(titled)
    assert (await driver.find_written(titled)).outcome is Outcome.UNKNOWN


async def test_find_written_when_the_record_has_more_notes_than_a_page_then_the_next_ones_are_read(
    zoho: ZohoEmulator,
) -> None:
    driver = await connected(zoho)
    customer = await driver.create_record(write(1, person(1), Object.CUSTOMER))
    links = {"customer": customer.remote_id}
    notes = [write(n, {"Note_Content": "Same"}, Object.NOTE, links=links) for n in range(1000, 1250)]
    made = await driver.write_batch(notes)
    zoho.calls.clear()
    for place in (0, 249):
        assert (await driver.find_written(notes[place])).remote_id == made[place].remote_id
    assert zoho.calls == {"related": 3}
    zoho.faults.add("wrong_shape", operation="related", body={"data": [], "info": {"more_records": True}})
    assert (await driver.find_written(notes[0])).outcome is Outcome.UNKNOWN


async def test_find_written_when_an_erased_record_is_gone_then_not_applied_since_the_bin_is_not_seen(
    zoho: ZohoEmulator,
) -> None:
    driver = await connected(zoho)
    erase = write(1, {}, operation=Operation.ERASE, remote_id="5545974000010000001")
    assert (await driver.find_written(erase)).outcome is Outcome.NOT_APPLIED
    lost = write(2, {"City": "Dubai"}, operation=Operation.UPDATE, remote_id="5545974000010000001")
    assert (await driver.find_written(lost)).outcome is Outcome.NOT_APPLIED


async def test_find_written_when_an_upsert_was_lost_then_sent_again_without_a_second_record(
    zoho: ZohoEmulator,
) -> None:
    driver = await connected(zoho)
    lost = upsert(1, person(1), Email=person(1)["Email"])
    zoho.faults.add("cut_after", operation="upsert")
    with pytest.raises(Unavailable) as caught:
        await driver.upsert_record(lost)
    assert caught.value.outcome is Outcome.UNKNOWN
    assert (await driver.find_written(lost)).outcome is Outcome.NOT_APPLIED
    await driver.upsert_record(lost)
    assert len(zoho.records.table("Leads")) == 1


async def test_find_written_when_an_update_was_made_then_applied_and_else_not(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    made = await driver.create_record(write(1, {**person(1), "City": "Dubai"}))

    def change(**fields: Any) -> Any:
        return write(2, fields, operation=Operation.UPDATE, remote_id=made.remote_id)

    for fields, outcome in (
        ({"City": "Dubai"}, Outcome.APPLIED),
        ({"City": "dubai"}, Outcome.NOT_APPLIED),
        ({"City": "Dubai", "State": None}, Outcome.APPLIED),
        ({"City": "Dubai", "Phone": "+97141234567"}, Outcome.NOT_APPLIED),
    ):
        assert (await driver.find_written(change(**fields))).outcome is outcome
    await driver.delete_record(Object.LEAD, made.remote_id)
    delete = write(3, {}, operation=Operation.DELETE, remote_id=made.remote_id)
    assert (await driver.find_written(delete)).outcome is Outcome.APPLIED


# -- upserts -----------------------------------------------------------------------------------------------------


def upsert(number: int, fields: dict[str, Any], obj: Object = Object.LEAD, **match: Any) -> Any:
    return write(number, fields, obj, operation=Operation.UPSERT, match=match)


async def test_upserts_in_a_batch_when_some_are_there_then_a_look_and_one_upsert(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    made = await driver.write_batch([write(n, {**person(n), "Company": "Own"}) for n in range(10)])
    zoho.calls.clear()
    writes = [
        upsert(50 + n, {**person(n), "City": "Dubai"}, Email=person(n)["Email"].upper()) for n in range(20)
    ]
    results = await driver.write_batch(writes)
    assert [one.was_created for one in results] == [False] * 10 + [True] * 10
    assert [one.remote_id for one in results[:10]] == [one.remote_id for one in made]
    assert zoho.calls == {"coql": 1, "upsert": 1}
    assert sent(zoho, "/upsert")[0]["duplicate_check_fields"] == ["Email"]
    assert not any("crmbridge_mark" in one for one in sent(zoho, "/upsert")[0]["data"])
    record = await driver.get_record(Object.LEAD, made[0].remote_id)
    assert record.native["Company"] == "Own", "what a new lead is given must not overwrite an old one's"
    assert record.native["crmbridge_mark"] == "t1-target-0", "the mark is of the write that made the record"


async def test_upsert_when_several_match_then_conflict_and_nothing_changes(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    await driver.write_batch([write(n, {"Deal_Name": "Same"}, Object.DEAL) for n in range(2)])
    with pytest.raises(Conflict):
        await driver.upsert_record(
            upsert(3, {"Deal_Name": "Same", "Amount": 5}, Object.DEAL, Deal_Name="Same")
        )
    assert not zoho.calls["upsert"]
    assert not any("Amount" in row.fields for row in zoho.records.table("Deals"))


async def test_upsert_when_the_match_is_not_among_the_fields_then_a_new_record_has_it(
    zoho: ZohoEmulator,
) -> None:
    driver = await connected(zoho)
    made = await driver.upsert_record(upsert(1, {"Last_Name": "Lin"}, Email="mei@example.com"))
    assert (await driver.get_record(Object.LEAD, made.remote_id)).native["Email"] == "mei@example.com"


async def test_upsert_when_two_fields_match_then_both_must_hold(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    made = await driver.create_record(write(1, person(1)))
    other = await driver.upsert_record(
        upsert(2, {**person(2), "Last_Name": "Lin 1"}, Last_Name="Lin 1", Email=person(2)["Email"])
    )
    assert other.remote_id != made.remote_id
    again = await driver.upsert_record(
        upsert(3, {**person(1), "City": "Dubai"}, Last_Name="Lin 1", Email=person(1)["Email"])
    )
    assert (again.remote_id, again.was_created) == (made.remote_id, False)
    assert not zoho.calls["upsert"]


async def test_upsert_when_the_key_itself_changes_then_by_id(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    made = await driver.create_record(write(1, person(1)))
    result = await driver.upsert_record(upsert(2, {"Email": "new@example.com"}, Email=person(1)["Email"]))
    assert result.remote_id == made.remote_id
    assert zoho.calls["update"] == 1
    assert (await driver.get_record(Object.LEAD, made.remote_id)).native["Email"] == "new@example.com"


async def test_upsert_of_a_meeting_when_zoho_has_none_then_by_id_or_new(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    fields = {
        "Event_Title": "Viewing",
        "Start_DateTime": "2027-01-15T14:30:00+04:00",
        "End_DateTime": "2027-01-15T15:30:00+04:00",
    }
    first = await driver.upsert_record(upsert(1, fields, Object.APPOINTMENT, Event_Title="Viewing"))
    again = await driver.upsert_record(
        upsert(2, {**fields, "Venue": "Gate 3"}, Object.APPOINTMENT, Event_Title="Viewing")
    )
    assert (first.was_created, again.was_created) == (True, False)
    assert first.remote_id == again.remote_id
    assert not zoho.calls["upsert"]


async def test_upsert_when_the_field_is_unique_then_one_call(zoho: ZohoEmulator) -> None:
    zoho.records.fields["Contacts"]["Email"].is_unique = True
    driver = await connected(zoho)
    writes = [upsert(n, person(n), Object.CUSTOMER, Email=person(n)["Email"]) for n in range(100)]
    assert {one.outcome for one in await driver.write_batch(writes)} == {Outcome.APPLIED}
    assert zoho.calls == {"upsert": 1}


async def test_upserts_when_one_key_twice_then_the_second_changes_what_the_first_made(
    zoho: ZohoEmulator,
) -> None:
    driver = await connected(zoho)
    writes = [upsert(n, {**person(1), "City": city}, Email=person(1)["Email"]) for n, city in enumerate("AB")]
    results = await driver.write_batch(writes)
    assert results[0].remote_id == results[1].remote_id
    assert len(zoho.records.table("Leads")) == 1
