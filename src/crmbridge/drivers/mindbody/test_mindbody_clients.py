"""Clients: required fields, two ids, duplicates, look-ups, leads, deletes that a person does."""

from __future__ import annotations

import pytest

from crmbridge.core.errors import (
    Conflict,
    Unsupported,
    ValidationError,
)
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Filter, Object, Write
from crmbridge.drivers.mindbody.emulator import MindbodyEmulator
from crmbridge.drivers.mindbody.test_kit import SEEDED, booking, change, connected, sent, write
from crmbridge.drivers.mindbody.test_mindbody import PERSON


@pytest.fixture
def site() -> MindbodyEmulator:
    return MindbodyEmulator()


# -- required fields ------------------------------------------------------------------------------------


async def test_required_fields_when_missing_then_all_named_before_the_write(site: MindbodyEmulator) -> None:
    site.required = ["Email", "BirthDate", "EmergencyContactInfoName"]
    driver = await connected(site)
    with pytest.raises(ValidationError) as caught:
        await driver.create_record(write(Object.LEAD, {"full_name": "Mariam"}))
    names = [field.field for field in caught.value.fields]
    assert names == ["LastName", "Email", "BirthDate", "EmergencyContactInfoName"]
    assert site.write_calls == 0 and caught.value.outcome is Outcome.NOT_APPLIED


async def test_required_fields_when_the_site_asks_less_since_the_test_then_the_write_goes(
    site: MindbodyEmulator,
) -> None:
    driver = await connected(site)
    site.required = []
    fields = {"first_name": "Mariam", "last_name": "Okonkwo"}
    assert (await driver.create_record(write(Object.CUSTOMER, fields))).remote_id


async def test_required_fields_when_the_site_asks_more_since_the_test_then_still_named(
    site: MindbodyEmulator,
) -> None:
    driver = await connected(site)
    site.required = ["Email", "Gender"]
    with pytest.raises(ValidationError) as caught:
        await driver.create_record(write(Object.CUSTOMER, PERSON))
    assert [field.field for field in caught.value.fields] == ["Gender"]
    assert caught.value.outcome is Outcome.NOT_APPLIED


async def test_describe_when_asked_then_required_and_custom_fields_of_the_site(
    site: MindbodyEmulator,
) -> None:
    site.required = ["Email", "EmergencyContactInfoName"]
    facts = {fact.path: fact for fact in await (await connected(site)).describe(Object.CUSTOMER)}
    assert [path for path, fact in facts.items() if fact.is_required] == [
        "FirstName",
        "LastName",
        "Email",
        "EmergencyContactInfoName",
    ]
    assert (facts["custom.8"].label, facts["custom.8"].type, facts["custom.8"].is_custom) == (
        "Patch test",
        "date",
        True,
    )


async def test_custom_field_when_changed_then_linked_sites_are_left_alone(site: MindbodyEmulator) -> None:
    driver = await connected(site)
    update = change(Object.CUSTOMER, SEEDED, {"city": "Springfield"})
    update.fields["custom"] = {"7": "Dry"}
    await driver.update_record(update)
    assert sent(site)["CrossRegionalUpdate"] is False
    record = await driver.get_record(Object.CUSTOMER, SEEDED)
    assert record.native["custom"] == {"7": "Dry"}
    assert "ClientCreditCard" not in record.native


# -- two ids, duplicates --------------------------------------------------------------------------------


async def test_client_id_when_the_staff_change_it_then_the_remote_id_still_leads_there(
    site: MindbodyEmulator,
) -> None:
    driver = await connected(site)
    note = await driver.create_record(write(Object.NOTE, {"body": "Hello"}, links={"customer": SEEDED}))
    site.clients.update(int(SEEDED), {"Id": "BARCODE-7"})
    await driver.update_record(change(Object.CUSTOMER, SEEDED, {"city": "Springfield"}))
    assert sent(site)["Client"] == {"Id": "BARCODE-7", "City": "Springfield"}
    assert (await driver.get_record(Object.NOTE, note.remote_id)).native["Text"] == "Hello"
    await driver.create_record(booking())
    assert sent(site)["ClientId"] == "BARCODE-7"


async def test_customer_when_names_and_email_are_known_then_conflict_names_the_existing(
    site: MindbodyEmulator,
) -> None:
    driver = await connected(site)
    made = await driver.create_record(write(Object.CUSTOMER, PERSON))
    await driver.update_record(
        Write(
            target_id="t",
            operation=Operation.UPDATE,
            object=Object.CUSTOMER,
            remote_id=made.remote_id,
            fields={"Active": False},
        )
    )
    assert (await driver.get_record(Object.CUSTOMER, made.remote_id)).is_archived
    with pytest.raises(Conflict) as caught:
        await driver.create_record(write(Object.CUSTOMER, {**PERSON, "email": PERSON["email"].upper()}))
    assert caught.value.existing_remote_id == made.remote_id
    assert caught.value.outcome is Outcome.NOT_APPLIED and not caught.value.retry_safe
    assert await driver.create_record(write(Object.CUSTOMER, {**PERSON, "first_name": "Another"}))


async def test_find_written_when_no_email_then_not_found_is_no_proof(site: MindbodyEmulator) -> None:
    site.required = []
    driver = await connected(site)
    nameless = write(
        Object.CUSTOMER, {"first_name": "Mariam", "last_name": "Okonkwo", "phone": "+14155550123"}
    )
    assert (await driver.find_written(nameless)).outcome is Outcome.UNKNOWN
    made = await driver.create_record(nameless)
    found = await driver.find_written(nameless)
    assert (found.outcome, found.remote_id) == (Outcome.APPLIED, made.remote_id)
    guarded = write(Object.CUSTOMER, PERSON)
    assert (await driver.find_written(guarded)).outcome is Outcome.NOT_APPLIED


# -- look-ups -------------------------------------------------------------------------------------------


async def test_lookup_when_by_phone_then_compared_in_the_sites_country(site: MindbodyEmulator) -> None:
    driver = await connected(site)
    assert driver.access.facts["country"] == "US"
    site.clients.update(int(SEEDED), {"MobilePhone": None, "WorkPhone": "310.555.0100"})
    found = await driver.lookup_customer(phone="+13105550100")
    assert [one.remote_id for one in found] == [SEEDED]
    assert await driver.lookup_customer(phone="+13105550199") == []


async def test_lookup_when_by_phone_on_a_large_site_then_refused_after_one_call(
    site: MindbodyEmulator,
) -> None:
    driver = await connected(site, phone_pages="2")
    for number in range(401):
        site._insert_client({"FirstName": "P", "LastName": str(number)})
    with pytest.raises(Unsupported) as caught:
        await driver.lookup_customer(phone="+13105550100")
    assert "phone_pages" in caught.value.fix.hint and site.calls == {"clients.list": 1}
    driver = await connected(site, phone_pages="3")
    assert len(await driver.lookup_customer(phone="+13105550100")) == 1
    driver = await connected(site, phone_pages="0")
    with pytest.raises(Unsupported):
        await driver.lookup_customer(phone="+13105550100")
    assert site.requests == []


async def test_lookup_when_by_email_and_phone_then_the_caller_first(site: MindbodyEmulator) -> None:
    driver = await connected(site)
    family = [
        {**PERSON, "first_name": name, "phone": phone}
        for name, phone in (("Ann", "+14155550111"), ("Bea", "+14155550122"))
    ]
    ids = [(await driver.create_record(write(Object.CUSTOMER, one))).remote_id for one in family]
    found = await driver.lookup_customer(email=PERSON["email"], phone="+14155550122")
    assert [one.remote_id for one in found] == ids[::-1]


async def test_search_when_by_phone_alone_then_refused_before_a_call(site: MindbodyEmulator) -> None:
    driver = await connected(site)
    with pytest.raises(ValidationError, match="cannot search"):
        await driver.search_records(Object.CUSTOMER, Filter(equals={"MobilePhone": "+13105550100"}))
    assert site.requests == []


async def test_search_when_the_answer_is_wider_then_compared_exactly(site: MindbodyEmulator) -> None:
    driver = await connected(site)
    for email in ("ann@example.com", "joann@example.com"):
        await driver.create_record(write(Object.CUSTOMER, {**PERSON, "email": email}))
    page = await driver.search_records(Object.CUSTOMER, Filter(equals={"Email": "ann@example.com"}))
    assert [one.native["Email"] for one in page.records] == ["ann@example.com"]


# -- leads ----------------------------------------------------------------------------------------------


async def test_lead_when_the_client_buys_already_then_no_prospect_and_the_staffs_notes_stay(
    site: MindbodyEmulator,
) -> None:
    driver = await connected(site)
    made = await driver.create_record(write(Object.CUSTOMER, {**PERSON, "notes": "VIP."}))
    lead = write(Object.LEAD, {**PERSON, "message": "Asks for a colour."}, operation=Operation.UPSERT)
    lead.match = {"Email": PERSON["email"]}
    for _ in range(2):
        result = await driver.upsert_record(lead)
        assert (result.remote_id, result.was_created) == (made.remote_id, False)
    fields = site.clients.rows[int(made.remote_id)].fields
    assert (fields["IsProspect"], fields["Notes"]) == (False, "VIP.\n\nAsks for a colour.")
    with pytest.raises(ValidationError) as caught:
        await driver.update_record(change(Object.LEAD, made.remote_id, {"message": None}))
    assert [field.field for field in caught.value.fields] == ["lead.message"]
    assert (await driver.list_recent(Object.LEAD)).records == []


async def test_lead_when_upserted_new_then_a_prospect(site: MindbodyEmulator) -> None:
    driver = await connected(site)
    lead = write(Object.LEAD, PERSON, operation=Operation.UPSERT, match={"Email": PERSON["email"]})
    made = await driver.upsert_record(lead)
    assert made.was_created and site.clients.rows[int(made.remote_id)].fields["IsProspect"] is True
    assert [one.remote_id for one in (await driver.list_recent(Object.LEAD)).records] == [made.remote_id]


# -- deleting clients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("obj", [Object.CUSTOMER, Object.LEAD])
async def test_delete_when_it_is_a_client_then_a_persons_task_and_no_call(
    site: MindbodyEmulator, obj: Object
) -> None:
    driver = await connected(site)
    for verb in (driver.delete_record, driver.erase_record):
        with pytest.raises(Unsupported) as caught:
            await verb(obj, SEEDED)
        assert (caught.value.subcode, caught.value.fix.action) == ("delete_unsupported", "erase_by_hand")
        assert "In the Mindbody dashboard" in caught.value.fix.hint
    assert site.requests == []
