"""Leads and their companions, values on the wire, look-ups, lists, deletion."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.core.errors import (
    NotFound,
    Unavailable,
    ValidationError,
)
from crmbridge.core.operations import DeleteLevel, Operation, Outcome
from crmbridge.core.records import Filter, Object
from crmbridge.core.verticals import Vertical, slots_for
from crmbridge.drivers.hubspot.driver import HubSpot
from crmbridge.drivers.hubspot.emulator import HubSpotEmulator
from crmbridge.drivers.hubspot.test_kit import connected, person, related, sent, write
from crmbridge.toolkit.fieldmap import FieldMap, load_fields


@pytest.fixture
def hubspot() -> HubSpotEmulator:
    return HubSpotEmulator()


# -- leads and their companions -----------------------------------------------------------------------------------


async def test_lead_when_a_field_is_mapped_to_deals_then_contact_and_deal_associated(
    hubspot: HubSpotEmulator,
) -> None:
    driver = await connected(hubspot)
    result = await driver.create_record(
        write(1, person(1), related=related(dealname="Flat", amount="1250000.5"))
    )
    deal = await driver.get_record(Object.DEAL, result.related_ids["deals"])
    assert (deal.native["dealname"], deal.native["amount"]) == ("Flat", "1250000.5")
    assert ("deals", deal.remote_id) in hubspot.links["contacts", result.remote_id]


async def test_real_estate_map_when_budget_is_given_then_it_is_the_deals_amount() -> None:
    rules = load_fields(HubSpot).rules(Object.LEAD, Vertical.REAL_ESTATE)
    slots = slots_for(Object.LEAD, Vertical.REAL_ESTATE)
    mapped = FieldMap(Object.LEAD, rules, slots).to_native({"first_name": "Mei", "budget_max": "1250000.50"})
    assert mapped.errors == []
    assert mapped.related == related(amount="1250000.5")


async def test_lead_when_native_then_named_and_associated_with_its_contact(hubspot: HubSpotEmulator) -> None:
    driver = await connected(hubspot, lead_as="lead")
    result = await driver.create_record(write(1, person(1), related=related(dealname="Flat")))
    row = hubspot.store.numbered("leads").get(int(result.related_ids["leads"]))
    assert row is not None
    assert row.fields["hs_lead_name"] == "Flat"
    assert ("contacts", result.remote_id) in hubspot.links["leads", str(row.id)]


async def test_native_lead_when_a_deal_field_has_no_place_then_nothing_is_sent(
    hubspot: HubSpotEmulator,
) -> None:
    driver = await connected(hubspot, lead_as="lead")
    with pytest.raises(ValidationError) as caught:
        await driver.create_record(write(1, person(1), related=related(amount="5")))
    assert caught.value.fields[0].field == "lead.amount"
    assert not hubspot.requests


async def test_lead_when_only_half_was_made_then_sending_again_completes_it(hubspot: HubSpotEmulator) -> None:
    driver = await connected(hubspot, lead_as="deal")
    lead = write(1, person(1))
    hubspot.faults.add("cut_before", path="*/deals")
    with pytest.raises(Unavailable) as caught:
        await driver.create_record(lead)
    assert caught.value.outcome is Outcome.UNKNOWN
    assert (await driver.find_written(lead)).outcome is Outcome.NOT_APPLIED
    result = await driver.create_record(lead)
    assert len(hubspot.store.numbered("contacts")) == len(hubspot.store.numbered("deals")) == 1
    found = await driver.find_written(lead)
    assert (found.remote_id, found.related_ids) == (result.remote_id, result.related_ids)


async def test_lead_when_linked_to_a_customer_then_the_deal_stands_on_that_contact(
    hubspot: HubSpotEmulator,
) -> None:
    driver = await connected(hubspot, lead_as="deal")
    customer = await driver.create_record(write(1, person(1), Object.CUSTOMER))
    lead = write(2, {"city": "Dubai", "lifecyclestage": "lead"}, links={"customer": customer.remote_id})
    result = await driver.create_record(lead)
    assert result.remote_id == customer.remote_id
    assert len(hubspot.store.numbered("contacts")) == 1
    assert ("deals", result.related_ids["deals"]) in hubspot.links["contacts", customer.remote_id]


async def test_lead_update_when_a_deal_field_is_named_then_refused_with_the_way_out(
    hubspot: HubSpotEmulator,
) -> None:
    driver = await connected(hubspot)
    made = await driver.create_record(write(1, person(1)))
    with pytest.raises(ValidationError):
        await driver.update_record(
            write(2, {}, operation=Operation.UPDATE, remote_id=made.remote_id, related=related(amount="5"))
        )


# -- values ------------------------------------------------------------------------------------------------------


async def test_values_when_not_texts_then_texts_on_the_wire(hubspot: HubSpotEmulator) -> None:
    driver = await connected(hubspot)
    fields = {"dealname": "A", "amount": 1250000.1, "closedate": "2027-02-28", "description": None}
    await driver.create_record(write(1, fields, Object.DEAL))
    properties = sent(hubspot, "/deals")[0]["properties"]
    assert properties["amount"] == "1250000.1"
    assert properties["closedate"] == "2027-02-28T00:00:00.000Z"
    assert (properties["description"], properties["pipeline"]) == ("", "default")
    assert properties["dealstage"] == "appointmentscheduled"


@pytest.mark.parametrize(
    ("given", "first", "last"),
    [
        ("Mei Lin", "Mei", "Lin"),
        ("Mei", "Mei", ""),
        ("Ana de la Cruz", "Ana de la", "Cruz"),
        (" x  y ", "x", "y"),
    ],
)
async def test_full_name_when_alone_then_split_at_its_last_blank(
    hubspot: HubSpotEmulator, given: str, first: str, last: str
) -> None:
    driver = await connected(hubspot)
    made = await driver.create_record(write(1, {"full_name": given}))
    native = (await driver.get_record(Object.LEAD, made.remote_id)).native
    assert (native.get("firstname", ""), native.get("lastname", "")) == (first, last)


async def test_activity_when_no_call_then_refused_and_not_sent_as_one(hubspot: HubSpotEmulator) -> None:
    driver = await connected(hubspot)
    with pytest.raises(ValidationError) as caught:
        await driver.create_record(write(1, {"kind": "chat", "hs_call_body": "hi"}, Object.ACTIVITY))
    assert caught.value.fields[0].field == "kind"
    assert not hubspot.requests


async def test_note_when_linked_then_associated_by_the_type_of_its_direction(
    hubspot: HubSpotEmulator,
) -> None:
    driver = await connected(hubspot)
    customer = await driver.create_record(write(1, person(1), Object.CUSTOMER))
    deal = await driver.create_record(
        write(2, {"dealname": "A"}, Object.DEAL, links={"customer": customer.remote_id})
    )
    links = {"customer": customer.remote_id, "lead": customer.remote_id, "deal": deal.remote_id}
    await driver.create_record(write(3, {"hs_note_body": "x"}, Object.NOTE, links=links))
    types = [one["types"][0]["associationTypeId"] for one in sent(hubspot, "/notes")[0]["associations"]]
    assert types == [202, 214]


async def test_update_when_it_names_a_link_then_associated_by_default_type(hubspot: HubSpotEmulator) -> None:
    driver = await connected(hubspot)
    customer = await driver.create_record(write(1, person(1), Object.CUSTOMER))
    case = await driver.create_record(write(2, {"subject": "A"}, Object.CASE))
    update = write(3, {"content": "B"}, Object.CASE, operation=Operation.UPDATE, remote_id=case.remote_id)
    update.links = {"customer": customer.remote_id}
    await driver.update_record(update)
    assert ("contacts", customer.remote_id) in hubspot.links["tickets", case.remote_id]


async def test_own_properties_when_learned_by_prepare_then_read_back(hubspot: HubSpotEmulator) -> None:
    group = hubspot.properties["deals"]["dealname"]["groupName"]
    for name in ("budget_aed", *(f"own_property_of_the_tenant_number_{n}" for n in range(100))):
        hubspot.properties["deals"][name] = {
            **hubspot.properties["deals"]["amount"], "name": name, "groupName": group, "hubspotDefined": False,
        }  # fmt: skip
    driver = await connected(hubspot)
    made = await driver.create_record(write(1, {"dealname": "A", "budget_aed": 5}, Object.DEAL))
    assert (await driver.get_record(Object.DEAL, made.remote_id)).native["budget_aed"] == "5"
    hubspot.clock.advance(60)
    page = await driver.search_records(Object.DEAL, Filter(equals={"dealname": "A"}))
    assert page.records[0].native["budget_aed"] == "5"
    assert all(len(one.body or b"") <= 3000 for one in hubspot.requests if one.url.endswith("/search"))


async def test_describe_when_asked_then_types_options_and_read_only(hubspot: HubSpotEmulator) -> None:
    facts = {fact.path: fact for fact in await (await connected(hubspot)).describe(Object.CASE)}
    assert facts["hs_ticket_priority"].options == ["LOW", "MEDIUM", "HIGH", "URGENT"]
    assert facts["subject"].is_required
    assert facts["hs_object_id"].is_read_only
    assert facts["content"].type == "long_text"


@given(st.text(max_size=40))
async def test_search_when_any_text_then_an_answer_or_one_of_our_errors(text: str) -> None:
    driver = await connected(HubSpotEmulator())
    try:
        page = await driver.search_records(Object.CUSTOMER, Filter(equals={"lastname": text}))
    except ValidationError:
        return
    assert page.records == []


# -- look-ups and lists ---------------------------------------------------------------------------------------------


async def test_lookup_by_email_when_just_written_then_found_without_search(hubspot: HubSpotEmulator) -> None:
    driver = await connected(hubspot)
    made = await driver.create_record(write(1, person(1), Object.CUSTOMER))
    found = await driver.lookup_customer(email="MEI.1@example.com ")
    assert [one.remote_id for one in found] == [made.remote_id]
    assert "search" not in hubspot.calls


@pytest.mark.parametrize("stored", ["+14155550123", "(415) 555-0123", "415.555.0123"])
async def test_lookup_by_phone_when_stored_otherwise_then_found_by_the_calculated_property(
    hubspot: HubSpotEmulator, stored: str
) -> None:
    driver = await connected(hubspot)
    made = await driver.create_record(write(1, {**person(1), "phone": stored}, Object.CUSTOMER))
    hubspot.clock.advance(60)
    found = await driver.lookup_customer(phone="+14155550123")
    assert [one.remote_id for one in found] == [made.remote_id]


async def test_list_when_longer_than_a_search_may_be_then_goes_on_by_a_bound(
    hubspot: HubSpotEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crmbridge.drivers.hubspot.reading.SEARCH_CAP", 120)
    driver = await connected(hubspot)
    hubspot.quotas.clear()
    made = set()
    for n in range(60):
        made.add((await driver.create_record(write(n, person(n), Object.CUSTOMER))).remote_id)
        hubspot.clock.advance(2)
    hubspot.clock.advance(60)
    seen: list[str] = []
    cursor, bounds = "", set()
    while True:
        page = await driver.list_recent(Object.CUSTOMER, cursor=cursor, limit=10)
        seen += [one.remote_id for one in page.records]
        cursor = page.next_cursor
        bounds.add(cursor.partition(":")[0])
        if not cursor:
            break
    assert set(seen) == made
    assert len(bounds) > 2


@pytest.mark.parametrize("cursor", ["x", "1:2:3", "-1:0", "99999999999999:0", ":123456"])
async def test_list_when_cursor_is_not_ours_then_refused(hubspot: HubSpotEmulator, cursor: str) -> None:
    with pytest.raises(ValidationError):
        await (await connected(hubspot)).list_recent(Object.CUSTOMER, cursor=cursor)


# -- deletion ------------------------------------------------------------------------------------------------------


async def test_erase_when_archived_before_then_gdpr_delete_as_second_stage(hubspot: HubSpotEmulator) -> None:
    driver = await connected(hubspot)
    made = await driver.create_record(write(1, person(1), Object.CUSTOMER))
    assert await driver.delete_record(Object.CUSTOMER, made.remote_id) is DeleteLevel.SOFT
    assert (await driver.get_record(Object.CUSTOMER, made.remote_id)).is_archived
    assert await driver.erase_record(Object.CUSTOMER, made.remote_id) is DeleteLevel.HARD
    with pytest.raises(NotFound):
        await driver.get_record(Object.CUSTOMER, made.remote_id)
    assert not hubspot.blocked


async def test_erase_when_a_deal_bears_the_name_then_it_is_unnamed_and_stays(
    hubspot: HubSpotEmulator,
) -> None:
    driver = await connected(hubspot, lead_as="deal")
    made = await driver.create_record(write(1, person(1)))
    await driver.erase_record(Object.LEAD, made.remote_id)
    deal = await driver.get_record(Object.DEAL, made.related_ids["deals"])
    assert deal.native["dealname"] == "Erased"
    assert not deal.is_archived


async def test_find_written_when_erasure_is_lost_and_contact_only_archived_then_not_applied(
    hubspot: HubSpotEmulator,
) -> None:
    driver = await connected(hubspot)
    made = await driver.create_record(write(1, person(1), Object.CUSTOMER))
    await driver.delete_record(Object.CUSTOMER, made.remote_id)
    lost = write(2, {}, Object.CUSTOMER, operation=Operation.ERASE, remote_id=made.remote_id)
    assert (await driver.find_written(lost)).outcome is Outcome.NOT_APPLIED
