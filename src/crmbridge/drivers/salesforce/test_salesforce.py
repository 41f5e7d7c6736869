"""The contract on the emulated Salesforce, and the erasure topic once more past the recycle bin."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from crmbridge.conformance import DriverContract
from crmbridge.conformance.erasure import ErasureTopic
from crmbridge.core.driver import CrmDriver
from crmbridge.core.errors import Unsupported, ValidationError
from crmbridge.core.operations import DeleteLevel, Operation
from crmbridge.core.records import Object
from crmbridge.drivers.salesforce import bulk
from crmbridge.drivers.salesforce.driver import MANIFEST, Salesforce
from crmbridge.drivers.salesforce.emulated_schema import custom_field
from crmbridge.drivers.salesforce.emulator import SalesforceEmulator
from crmbridge.drivers.salesforce.test_kit import UNKNOWN, connected, person, sent, write
from crmbridge.emulation import Emulator


@pytest.fixture(autouse=True)
def impatient_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "FIRST_PAUSE", 0.0)


class TestSalesforce(DriverContract):
    driver: ClassVar[type[CrmDriver]] = Salesforce
    emulator: ClassVar[type[Emulator] | None] = SalesforceEmulator
    refused: ClassVar[dict[Object, dict[str, Any]]] = dict.fromkeys(Object, UNKNOWN)
    # These have 20 and 40 letters at most.
    fixed_texts: ClassVar[tuple[str, ...]] = (
        *DriverContract.fixed_texts,
        "postal_code",
        "first_name",
        "city",
    )


class OrgWithHardDelete(SalesforceEmulator):
    """The connected user may delete past the recycle bin, and notes have a bulk service."""

    def seed(self) -> None:
        super().seed()
        self.may_hard_delete = True
        self.not_in_bulk = set()


class TestErasurePastTheBin(ErasureTopic):
    driver: ClassVar[type[CrmDriver]] = Salesforce
    emulator: ClassVar[type[Emulator] | None] = OrgWithHardDelete
    settings: ClassVar[dict[str, str]] = {"hard_delete": "yes"}


def test_manifest_when_hard_delete_is_set_then_erasing_is_declared_hard() -> None:
    declared = Salesforce.manifest_for({"hard_delete": "yes"})
    assert {spec.erase_level for spec in declared.objects.values()} == {DeleteLevel.HARD}
    assert {spec.erase_level for spec in MANIFEST.objects.values()} == {DeleteLevel.REDACTED}


# -- erasing -------------------------------------------------------------------------------------------------------


async def test_erase_when_own_fields_hold_the_person_then_they_are_emptied_too() -> None:
    org = SalesforceEmulator()
    org.add_field("Contact", custom_field("Passport__c"))
    org.add_field("Contact", custom_field("Age__c", "double"))
    driver = await connected(org)
    fields = {"LastName": "Lin", "Passport__c": "X1234567", "Age__c": 41, "LeadSource": "Web"}
    made = await driver.create_record(write(1, fields, Object.CUSTOMER))
    assert await driver.erase_record(Object.CUSTOMER, made.remote_id) is DeleteLevel.REDACTED
    left = org.table("Contact").rows[made.remote_id]
    assert left.is_archived
    assert (left.fields["LastName"], left.fields["Passport__c"], left.fields["Age__c"]) == (
        "Erased",
        None,
        None,
    )
    assert left.fields["LeadSource"] == "Web"


async def test_erase_when_the_record_lies_in_the_bin_then_unsupported_with_the_way_out() -> None:
    org = SalesforceEmulator()
    driver = await connected(org)
    made = await driver.create_record(write(1, person(1)))
    await driver.delete_record(Object.LEAD, made.remote_id)
    with pytest.raises(Unsupported) as caught:
        await driver.erase_record(Object.LEAD, made.remote_id)
    assert (caught.value.subcode, caught.value.fix.action) == ("delete_unsupported", "empty_bin")


async def test_erase_past_the_bin_when_the_record_lies_in_it_or_is_converted_then_gone() -> None:
    org = OrgWithHardDelete()
    driver = await connected(org, hard_delete="yes")
    made = [one.remote_id for one in await driver.write_batch([write(n, person(n)) for n in range(2)])]
    await driver.delete_record(Object.LEAD, made[0])
    org.table("Lead").update(made[1], {"IsConverted": True})
    for remote_id in made:
        assert await driver.erase_record(Object.LEAD, remote_id) is DeleteLevel.HARD
    assert len(org.table("Lead")) == 0


async def test_erase_when_the_user_may_not_hard_delete_then_auth_error_names_it() -> None:
    org = SalesforceEmulator()
    driver = await connected(org, hard_delete="yes")
    made = await driver.create_record(write(1, person(1)))
    result = (await driver.write_batch([write(2, {}, operation=Operation.ERASE, remote_id=made.remote_id)]))[
        0
    ]
    assert getattr(result.error, "subcode", "") == "insufficient_scope"
    assert not org.table("Lead").rows[made.remote_id].is_archived


async def test_erase_when_the_object_has_no_bulk_service_then_the_level_says_redacted() -> None:
    org = SalesforceEmulator()
    org.may_hard_delete = True
    driver = await connected(org, hard_delete="yes")
    lead = await driver.create_record(write(1, person(1)))
    note = await driver.create_record(write(2, {"Body": "x"}, Object.NOTE, links={"lead": lead.remote_id}))
    assert await driver.erase_record(Object.NOTE, note.remote_id) is DeleteLevel.REDACTED
    assert await driver.erase_record(Object.LEAD, lead.remote_id) is DeleteLevel.HARD
    assert lead.remote_id not in org.table("Lead").rows


# -- notes, links and names ----------------------------------------------------------------------------------------


async def test_note_when_two_are_alike_then_each_is_found_by_its_own_title() -> None:
    org = SalesforceEmulator()
    driver = await connected(org)
    lead = (await driver.create_record(write(1, person(1)))).remote_id
    notes = [write(n, {"Body": "Called back.\nAgain."}, Object.NOTE, links={"lead": lead}) for n in (2, 3)]
    made = await driver.create_record(notes[0])
    assert (await driver.find_written(notes[0])).remote_id == made.remote_id
    assert (await driver.find_written(notes[1])).outcome.value == "not_applied"
    record = await driver.get_record(Object.NOTE, made.remote_id)
    assert record.native["Title"] == "Called back. [000000000002]"
    assert record.native["Body"] == "Called back.\nAgain."


async def test_note_when_its_first_line_is_long_then_the_title_still_fits_and_ends_with_the_mark() -> None:
    org = SalesforceEmulator()
    driver = await connected(org)
    lead = (await driver.create_record(write(1, person(1)))).remote_id
    made = await driver.create_record(write(9, {"Body": "word " * 90}, Object.NOTE, links={"lead": lead}))
    title = (await driver.get_record(Object.NOTE, made.remote_id)).native["Title"]
    assert len(title) <= 80
    assert title.endswith("[000000000009]")


@pytest.mark.parametrize(
    ("obj", "links"),
    [
        (Object.APPOINTMENT, {"customer": "003Hu0000000001AAA", "lead": "00QHu0000000001MAA"}),
        (Object.NOTE, {"customer": "003Hu0000000001AAA", "deal": "006Hu0000000001AAA"}),
        (Object.LEAD, {"customer": "003Hu0000000001AAA"}),
        (Object.CASE, {"customer": "00QHu0000000001MAA"}),
    ],
)
async def test_links_when_they_clash_or_have_no_place_then_refused_before_a_call(
    obj: Object, links: dict[str, str]
) -> None:
    org = SalesforceEmulator()
    driver = await connected(org)
    results = await driver.write_batch([write(1, {"Subject": "x"}, obj, links=links)])
    assert getattr(results[0].error, "code", "") in ("validation_error", "not_found")
    assert not org.calls


async def test_appointment_when_linked_to_lead_and_deal_then_who_and_what() -> None:
    org = SalesforceEmulator()
    driver = await connected(org)
    lead = (await driver.create_record(write(1, person(1)))).remote_id
    deal = (
        await driver.create_record(write(2, {"Name": "Flat", "CloseDate": "2027-01-31"}, Object.DEAL))
    ).remote_id
    times = {"StartDateTime": "2027-01-15T10:30:00Z", "EndDateTime": "2027-01-15T11:00:00Z"}
    made = await driver.create_record(write(3, times, Object.APPOINTMENT, links={"lead": lead, "deal": deal}))
    native = (await driver.get_record(Object.APPOINTMENT, made.remote_id)).native
    assert (native["WhoId"], native["WhatId"], native["DurationInMinutes"]) == (lead, deal, 30)
    assert (await driver.get_record(Object.DEAL, deal)).native["StageName"] == "Prospecting"


@pytest.mark.parametrize(
    ("given", "first", "last"),
    [
        ({"full_name": "Mariam Okonkwo Reyes"}, "Mariam Okonkwo", "Reyes"),
        ({"full_name": " Cher "}, None, "Cher"),
        ({"full_name": "Mariam Reyes", "LastName": "Okonkwo"}, None, "Okonkwo"),
    ],
)
async def test_full_name_when_given_then_split_at_the_last_blank(
    given: dict[str, Any], first: str | None, last: str
) -> None:
    org = SalesforceEmulator()
    driver = await connected(org)
    await driver.create_record(write(1, {**given, "Company": "X"}))
    body = sent(org, "/sobjects/Lead")[0]
    assert (body.get("FirstName"), body["LastName"]) == (first, last)
    assert "full_name" not in body


@pytest.mark.parametrize("name", ["Id", "id", "attributes", "Attributes"])
async def test_fields_when_they_are_salesforces_own_then_refused(name: str) -> None:
    org = SalesforceEmulator()
    driver = await connected(org)
    results = await driver.write_batch([write(1, {**person(1), name: "00QHu0000000001MAA"})])
    assert getattr(results[0].error, "code", "") == "validation_error"
    assert not org.calls


async def test_tags_when_mapped_to_a_multi_picklist_then_joined_and_semicolons_refused() -> None:
    org = SalesforceEmulator()
    org.add_field("Lead", custom_field("Tags__c", "multipicklist"))
    driver = await connected(org)
    good, bad = write(1, {**person(1), "Tags__c": ["a", "b"]}), write(2, {**person(2), "Tags__c": ["a;b"]})
    results = await driver.write_batch([good, bad])
    assert (await driver.get_record(Object.LEAD, results[0].remote_id)).native["Tags__c"] == "a;b"
    assert getattr(results[1].error, "code", "") == "validation_error"


# -- reading -------------------------------------------------------------------------------------------------------


async def test_lists_when_a_mapped_field_is_hidden_then_they_still_work() -> None:
    org = SalesforceEmulator()
    org.hidden = {("Lead", "Phone"), ("Contact", "MailingCity")}
    driver = await connected(org)
    made = await driver.create_record(write(1, person(1)))
    assert [one.remote_id for one in (await driver.list_recent(Object.LEAD)).records] == [made.remote_id]


async def test_lists_when_a_tenant_maps_another_standard_field_then_it_is_read_too() -> None:
    org = SalesforceEmulator()
    driver = await connected(org)
    await driver.create_record(write(1, {**person(1), "Title": "Head of Sales", "AnnualRevenue": 5}))
    (record,) = (await driver.search_records(Object.LEAD, _filter(equals={"AnnualRevenue": 5}))).records
    assert record.native["Title"] == "Head of Sales"


async def test_lists_when_a_field_is_hidden_since_then_they_still_work_and_wrong_searches_still_fail() -> (
    None
):
    org = SalesforceEmulator()
    driver = await connected(org)
    made = await driver.create_record(write(1, {**person(1), "City": "Dubai"}))
    org.hidden = {("Lead", "Phone")}
    (record,) = (await driver.list_recent(Object.LEAD)).records
    assert (record.remote_id, record.native["City"]) == (made.remote_id, "Dubai")
    with pytest.raises(ValidationError):
        await driver.search_records(Object.LEAD, _filter(equals={"Phone": "+14155550123"}))


async def test_lists_when_never_prepared_then_all_fields_are_asked_for() -> None:
    org = SalesforceEmulator()
    driver = await connected(org)
    await driver.create_record(write(1, {**person(1), "City": "Dubai"}))
    driver.access.facts.clear()
    page = await Salesforce(driver.access).list_recent(Object.LEAD)
    assert page.records[0].native["City"] == "Dubai"


async def test_own_fields_when_prepared_then_they_are_read_and_searched_by_their_kind() -> None:
    org = SalesforceEmulator()
    org.add_field("Lead", custom_field("Budget_Max__c", "currency"))
    org.add_field("Lead", custom_field("Move_In_Date__c", "date"))
    driver = await connected(org)
    fields = {**person(1), "Budget_Max__c": 1250000.5, "Move_In_Date__c": "2027-02-28"}
    made = await driver.create_record(write(1, fields))
    for equals in ({"Budget_Max__c": "1250000.5"}, {"Move_In_Date__c": "2027-02-28"}, {"City": ""}):
        page = await driver.search_records(Object.LEAD, _filter(equals=equals))
        assert [one.remote_id for one in page.records] == [made.remote_id]
        assert page.records[0].native["Budget_Max__c"] == 1250000.5


@pytest.mark.parametrize("text", ["O'Hara", "100%", "a_b", "back\\slash", "' OR Id != '"])
async def test_search_by_text_when_hostile_then_only_what_holds_it(text: str) -> None:
    org = SalesforceEmulator()
    driver = await connected(org)
    made = await driver.create_record(write(1, {"LastName": f"x {text} y", "Company": "C"}))
    await driver.create_record(write(2, person(2)))
    page = await driver.search_records(Object.LEAD, _filter(text=text))
    assert [one.remote_id for one in page.records] == [made.remote_id]


@pytest.mark.parametrize("typed", ["(415) 555-0123", "415.555.0123", "+1 415 555 0123", "14155550123 x7"])
async def test_lookup_by_phone_when_somebody_typed_it_then_found(typed: str) -> None:
    org = SalesforceEmulator()
    driver = await connected(org)
    org.table("Contact").insert({"LastName": "Typed", "MobilePhone": typed})
    org.table("Contact").insert({"LastName": "Other", "Phone": "41 555 501 234"})
    found = await driver.lookup_customer(phone="+14155550123")
    assert [one.native["LastName"] for one in found] == ["Typed"]


async def test_lookup_by_both_when_one_has_both_then_it_comes_first() -> None:
    org = SalesforceEmulator()
    driver = await connected(org)
    rows = [{"Phone": "+14155550123"}, {"Phone": "+14155550123", "Email": "a@example.com"}]
    for row in rows:
        org.table("Contact").insert({"LastName": "X", **row})
    found = await driver.lookup_customer(phone="+14155550123", email="A@example.com")
    assert [one.native.get("Email") for one in found] == ["a@example.com", None]


@pytest.mark.parametrize("cursor", ["1", "2027-01-01T00:00:00Z|x", "2027-01-01T00:00:00Z|00Q' OR Id != '"])
async def test_list_when_the_cursor_is_not_ours_then_refused(cursor: str) -> None:
    driver = await connected(SalesforceEmulator())
    for call in (
        driver.list_recent(Object.LEAD, cursor=cursor),
        driver.search_records(Object.LEAD, _filter(), cursor),
    ):
        with pytest.raises(Exception, match="cursor"):
            await call


async def test_queries_when_sent_then_they_stand_in_bodies_not_in_urls() -> None:
    org = SalesforceEmulator()
    driver = await connected(org)
    await driver.lookup_customer(email="mei@example.com", phone="+14155550123")
    assert [(one.method, one.query) for one in org.requests] == [("POST", {})]
    assert not org.write_calls


async def test_describe_when_required_by_the_org_then_told() -> None:
    org = SalesforceEmulator()
    org.add_field("Lead", custom_field("Unit__c", nillable=False))
    facts = {fact.path: fact for fact in await (await connected(org)).describe(Object.LEAD)}
    required = {path for path, fact in facts.items() if fact.is_required}
    assert required == {"LastName", "Company", "Unit__c"}
    assert facts["crmbridge_mark__c"].is_read_only
    assert facts["Status"].options[0] == "Open - Not Contacted"
    assert facts["Description"].max_length == 32000


def _filter(**given: Any) -> Any:
    from crmbridge.core.records import Filter

    return Filter(**given)
