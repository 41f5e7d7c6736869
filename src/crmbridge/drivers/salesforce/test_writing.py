"""Batches, bulk jobs, marks, upserts and deletes: one test per oddity."""

from __future__ import annotations

from typing import Any

import pytest

from crmbridge.core.errors import (
    Conflict,
    CrmError,
    NotFound,
    Unavailable,
    UnexpectedResponse,
    ValidationError,
)
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object
from crmbridge.drivers.salesforce import bulk
from crmbridge.drivers.salesforce.emulated_schema import custom_field
from crmbridge.drivers.salesforce.emulator import SalesforceEmulator
from crmbridge.drivers.salesforce.test_kit import MARK, UNKNOWN, connected, person, sent, write


@pytest.fixture(autouse=True)
def impatient_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "FIRST_PAUSE", 0.0)


@pytest.fixture
def org() -> SalesforceEmulator:
    return SalesforceEmulator()


def lead(number: int, **more: Any) -> Any:
    return write(number, {**person(number), **more})


# -- collections -----------------------------------------------------------------------------------------------


async def test_backlog_of_10000_leads_when_sent_in_declared_batches_then_50_calls(
    org: SalesforceEmulator,
) -> None:
    driver = await connected(org)
    size = driver.manifest.batch_size(Object.LEAD, Operation.CREATE)
    for start in range(0, 10_000, size):
        results = await driver.write_batch([lead(n) for n in range(start, start + size)])
        assert all(result.outcome is Outcome.APPLIED for result in results)
    assert sum(org.calls.values()) <= 50
    assert len(org.table("Lead")) == 10_000


@pytest.mark.parametrize("spoils", [True, False])
async def test_batch_when_a_column_is_unknown_then_its_row_fails_alone(
    org: SalesforceEmulator, spoils: bool
) -> None:
    driver = await connected(org)
    org.spoils_requests = spoils
    results = await driver.write_batch([lead(n, **(UNKNOWN if n == 70 else {})) for n in range(200)])
    assert [n for n, result in enumerate(results) if result.error] == [70]
    assert isinstance(results[70].error, ValidationError)
    assert results[70].error.fields[0].field == "No_Such_Field__c"
    assert len(org.table("Lead")) == 199
    assert sum(org.calls.values()) == (17 if spoils else 1)


async def test_batch_when_rows_fail_in_their_own_ways_then_each_has_its_error(
    org: SalesforceEmulator,
) -> None:
    driver = await connected(org)
    org.validation_rules.append(("Lead", lambda row: row.get("City") == "Nowhere", "There is no such town."))
    writes = [
        lead(1, Email="not an address"),
        lead(2),
        lead(3, City="Nowhere"),
        write(4, {"LastName": "No company"}),
        lead(5, LastName="x" * 81),
        lead(6, OwnerId="005Hu0000000001AAA"),
    ]
    results = await driver.write_batch(writes)
    codes = [
        one.error.provider_facts["provider_code"] if isinstance(one.error, CrmError) else ""
        for one in results
    ]
    assert codes == [
        "INVALID_EMAIL_ADDRESS",
        "",
        "FIELD_CUSTOM_VALIDATION_EXCEPTION",
        "REQUIRED_FIELD_MISSING",
        "STRING_TOO_LONG",
        "",
    ]
    assert all("not an address" not in str(one.error) and "xxxx" not in str(one.error) for one in results)
    assert org.calls == {"collection.create": 1}


async def test_batch_when_a_trigger_reaches_its_limits_then_halves_pass(org: SalesforceEmulator) -> None:
    driver = await connected(org)
    org.governor_rows = 60
    results = await driver.write_batch([lead(n) for n in range(200)])
    assert {result.outcome for result in results} == {Outcome.APPLIED}
    assert org.calls == {"collection.create": 7}
    assert len(org.table("Lead")) == 200


async def test_batch_when_a_row_is_locked_then_it_may_be_sent_again(org: SalesforceEmulator) -> None:
    driver = await connected(org)
    org.locked = {"Lead": 1}
    results = await driver.write_batch([lead(1), lead(2)])
    error = results[0].error
    assert isinstance(error, Unavailable)
    assert (error.outcome, error.retry_safe) == (Outcome.NOT_APPLIED, True)
    assert results[1].outcome is Outcome.APPLIED


@pytest.mark.parametrize(
    "body",
    [
        [],
        [{"id": "00QHu0000000001MAA", "success": True}],
        {"records": []},
        [None, 5],
        [{"success": True}] * 2,
    ],
)
async def test_batch_when_results_do_not_fit_the_records_then_unknown(
    org: SalesforceEmulator, body: Any
) -> None:
    driver = await connected(org)
    org.faults.add("wrong_shape", operation="collection.create", body=body)
    results = await driver.write_batch([lead(1), lead(2)])
    assert {result.outcome for result in results} == {Outcome.UNKNOWN}
    assert all(isinstance(result.error, UnexpectedResponse) for result in results)


async def test_updates_when_one_record_twice_then_in_order_in_two_calls(org: SalesforceEmulator) -> None:
    driver = await connected(org)
    made = [one.remote_id for one in await driver.write_batch([lead(n) for n in range(3)])]
    org.calls.clear()
    changes = [(made[0], "A"), (made[1], "B"), (made[0][:15], "C"), (made[2], "D")]
    writes = [
        write(n, {"City": city}, operation=Operation.UPDATE, remote_id=one)
        for n, (one, city) in enumerate(changes)
    ]
    assert {one.outcome for one in await driver.write_batch(writes)} == {Outcome.APPLIED}
    assert org.table("Lead").rows[made[0]].fields["City"] == "C"
    assert sum(org.calls.values()) == 2


async def test_update_when_the_lead_was_converted_then_refused_with_its_code(org: SalesforceEmulator) -> None:
    driver = await connected(org)
    made = await driver.create_record(lead(1))
    org.table("Lead").update(made.remote_id, {"IsConverted": True})
    with pytest.raises(ValidationError) as caught:
        await driver.update_record(
            write(2, {"City": "X"}, operation=Operation.UPDATE, remote_id=made.remote_id)
        )
    assert caught.value.provider_facts["provider_code"] == "CANNOT_UPDATE_CONVERTED_LEAD"


async def test_ids_when_of_another_object_then_not_found_without_a_call(org: SalesforceEmulator) -> None:
    driver = await connected(org)
    contact = await driver.create_record(write(1, {"LastName": "Lin"}, Object.CUSTOMER))
    org.calls.clear()
    for operation in (Operation.DELETE, Operation.UPDATE, Operation.ERASE):
        results = await driver.write_batch([write(2, {}, operation=operation, remote_id=contact.remote_id)])
        assert isinstance(results[0].error, NotFound)
    assert not org.calls
    assert not org.table("Contact").rows[contact.remote_id].is_archived


async def test_deletes_in_a_batch_when_some_are_gone_then_not_found_for_those(
    org: SalesforceEmulator,
) -> None:
    driver = await connected(org)
    made = [one.remote_id for one in await driver.write_batch([lead(n) for n in range(3)])]
    await driver.delete_record(Object.LEAD, made[1])
    org.calls.clear()
    ids = [*made, "00QHu0000009999MAA", made[0]]
    writes = [write(n, {}, operation=Operation.DELETE, remote_id=one) for n, one in enumerate(ids)]
    results = await driver.write_batch(writes)
    assert [result.delete_level for result in results] == ["soft", "", "soft", "", ""]
    assert all(isinstance(results[n].error, NotFound) for n in (1, 3, 4))
    assert org.calls == {"collection.delete": 1, "delete": 1}


# -- marks -----------------------------------------------------------------------------------------------------


async def test_batch_when_sent_again_then_the_same_records_untouched(org: SalesforceEmulator) -> None:
    driver = await connected(org)
    writes = [lead(n) for n in range(5)]
    first = await driver.write_batch(writes)
    org.table("Lead").update(first[0].remote_id, {"City": "changed by a person", "FirstName": "Changed"})
    again = await driver.write_batch(writes)
    assert [one.remote_id for one in again] == [one.remote_id for one in first]
    assert len(org.table("Lead")) == 5
    assert org.table("Lead").rows[first[0].remote_id].fields["FirstName"] == "Changed"


@pytest.mark.parametrize("misspells", [True, False])
async def test_create_when_sent_again_and_a_duplicate_rule_strikes_first_then_it_is_ours(
    org: SalesforceEmulator, misspells: bool
) -> None:
    driver = await connected(org)
    org.duplicate_rule, org.misspells = "block", misspells
    first = await driver.create_record(lead(1))
    assert (await driver.create_record(lead(1))).remote_id == first.remote_id
    with pytest.raises(Conflict) as caught:
        await driver.create_record(write(2, person(1)))
    assert caught.value.existing_remote_id == first.remote_id


async def test_create_when_the_duplicate_is_of_another_object_then_its_id_is_no_remote_id(
    org: SalesforceEmulator,
) -> None:
    driver = await connected(org)
    org.duplicate_rule = "alert"
    email = {"Email": "mei@example.com", "LastName": "Lin"}
    contact = await driver.create_record(write(1, email, Object.CUSTOMER))
    with pytest.raises(Conflict) as caught:
        await driver.create_record(write(2, {**email, "Company": "X"}))
    assert caught.value.existing_remote_id == ""
    assert caught.value.provider_facts["existing_record"] == contact.remote_id


@pytest.mark.parametrize(("rule", "passes"), [("alert", True), ("block", False)])
async def test_create_when_alerts_are_saved_then_only_block_rules_refuse(
    org: SalesforceEmulator, rule: str, passes: bool
) -> None:
    driver = await connected(org, duplicate_alerts="save")
    org.duplicate_rule = rule
    for numbers in ((1, 2), (3, 4)):
        results = await driver.write_batch([write(n, person(9)) for n in numbers])
    assert (results[1].error is None) is passes


async def test_prepare_when_nobody_made_the_field_then_lost_creates_stay_unknown(
    org: SalesforceEmulator,
) -> None:
    org.remove_field("Lead", MARK)
    driver = await connected(org)
    assert "Lead" not in driver.access.facts["marks"].split()
    assert "Contact" in driver.access.facts["unique_marks"].split()
    org.faults.add("cut_after", operation="create")
    with pytest.raises(Unavailable):
        await driver.create_record(lead(1))
    assert MARK not in sent(org, "/sobjects/Lead")[0]
    assert (await driver.find_written(lead(1))).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    "changes",
    [{"createable": False}, {"length": 20}, {"filterable": False}],
)
async def test_prepare_when_the_field_cannot_serve_then_it_is_not_used(
    org: SalesforceEmulator, changes: dict[str, Any]
) -> None:
    org.fields["Lead"][MARK] |= changes
    driver = await connected(org)
    assert "Lead" not in driver.access.facts["marks"].split()
    assert (await driver.create_record(lead(1))).outcome is Outcome.APPLIED


async def test_prepare_when_the_field_is_not_unique_then_it_finds_but_does_not_bar(
    org: SalesforceEmulator,
) -> None:
    org.fields["Lead"][MARK]["unique"] = False
    driver = await connected(org)
    assert "Lead" not in driver.access.facts["unique_marks"].split()
    org.faults.add("cut_after", operation="create")
    with pytest.raises(Unavailable):
        await driver.create_record(lead(1))
    assert (await driver.find_written(lead(1))).outcome is Outcome.APPLIED


async def test_prepare_when_the_user_may_not_see_an_object_then_the_rest_is_prepared(
    org: SalesforceEmulator,
) -> None:
    driver = await connected(org)
    org.faults.add("status", operation="describe", path="*/Case/describe", status=403, times=0)
    org.faults.add("status", operation="describe", path="*/Note/describe", status=404, times=0)
    facts = await driver.prepare()
    assert "fields.Lead" in facts
    assert "fields.Case" not in facts


async def test_find_written_when_the_record_was_deleted_since_then_applied(org: SalesforceEmulator) -> None:
    driver = await connected(org)
    made = await driver.create_record(lead(1))
    await driver.delete_record(Object.LEAD, made.remote_id)
    found = await driver.find_written(lead(1))
    assert (found.outcome, found.remote_id) == (Outcome.APPLIED, made.remote_id)


async def test_find_written_of_an_update_when_values_differ_by_case_or_kind_then_told(
    org: SalesforceEmulator,
) -> None:
    driver = await connected(org)
    fields = {"Name": "Flat", "CloseDate": "2027-01-31", "Amount": 5}
    made = (await driver.create_record(write(1, fields, Object.DEAL))).remote_id
    for change, outcome in (
        ({"Amount": "5.0", "CloseDate": "2027-01-31"}, Outcome.APPLIED),
        ({"Name": "flat"}, Outcome.NOT_APPLIED),
        ({"Description": None}, Outcome.APPLIED),
        ({"Amount": 6}, Outcome.NOT_APPLIED),
    ):
        update = write(2, change, Object.DEAL, operation=Operation.UPDATE, remote_id=made)
        assert (await driver.find_written(update)).outcome is outcome


async def test_find_written_of_an_update_when_a_time_is_spelt_otherwise_then_applied(
    org: SalesforceEmulator,
) -> None:
    driver = await connected(org)
    times = {"StartDateTime": "2027-01-15T10:30:00Z", "EndDateTime": "2027-01-15T11:00:00Z"}
    made = (await driver.create_record(write(1, times, Object.APPOINTMENT))).remote_id
    for end, outcome in (
        ("2027-01-15T15:00:00+04:00", Outcome.APPLIED),
        ("2027-01-15T11:30:00Z", Outcome.NOT_APPLIED),
    ):
        change = {"EndDateTime": end}
        update = write(2, change, Object.APPOINTMENT, operation=Operation.UPDATE, remote_id=made)
        assert (await driver.find_written(update)).outcome is outcome


# -- upserts ---------------------------------------------------------------------------------------------------


def upsert(number: int, fields: dict[str, Any], *paths: str) -> Any:
    return write(number, fields, operation=Operation.UPSERT, match={path: fields[path] for path in paths})


async def test_upserts_by_email_when_in_a_batch_then_three_calls(org: SalesforceEmulator) -> None:
    driver = await connected(org)
    await driver.write_batch([lead(n) for n in range(50)])
    org.calls.clear()
    results = await driver.write_batch([upsert(n + 1000, person(n), "Email") for n in range(100)])
    assert [one.was_created for one in results] == [False] * 50 + [True] * 50
    assert org.calls == {"composite": 1, "collection.update": 1, "collection.create": 1}


async def test_upserts_by_a_unique_external_id_when_in_a_batch_then_one_call(org: SalesforceEmulator) -> None:
    org.add_field("Lead", custom_field("Ref__c", externalId=True, unique=True, idLookup=True))
    driver = await connected(org)
    await driver.write_batch([lead(n, Ref__c=f"R{n}") for n in range(2)])
    org.calls.clear()
    results = await driver.write_batch(
        [upsert(n + 9, {**person(n), "Ref__c": f"r{n}"}, "Ref__c") for n in range(4)]
    )
    assert [one.was_created for one in results] == [False, False, True, True]
    assert org.calls == {"collection.upsert": 1}


async def test_upserts_when_one_key_comes_twice_then_one_record_with_the_later_values(
    org: SalesforceEmulator,
) -> None:
    org.add_field("Lead", custom_field("Ref__c", externalId=True, unique=True, idLookup=True))
    driver = await connected(org)
    for path in ("Email", "Ref__c"):
        pair = [{**person(1), "Ref__c": "a", "City": "First"}, {**person(1), "Ref__c": "A", "City": "Second"}]
        results = await driver.write_batch([upsert(n, fields, path) for n, fields in enumerate(pair)])
        assert results[0].remote_id == results[1].remote_id
        assert org.table("Lead").rows[results[0].remote_id].fields["City"] == "Second"
    assert len(org.table("Lead")) == 1


async def test_upsert_when_several_match_then_conflict(org: SalesforceEmulator) -> None:
    driver = await connected(org)
    await driver.write_batch([lead(1), lead(1_000_001, Email="mei.1@example.com")])
    with pytest.raises(Conflict):
        await driver.upsert_record(upsert(3, person(1), "Email"))


async def test_upsert_when_two_fields_must_match_then_both_do(org: SalesforceEmulator) -> None:
    driver = await connected(org)
    made = await driver.write_batch([lead(1, City="A"), lead(2, City="B", Email="mei.1@example.com")])
    fields = {**person(1), "City": "B", "Phone": "+14155550123"}
    result = await driver.upsert_record(upsert(3, fields, "Email", "City"))
    assert (result.remote_id, result.was_created) == (made[1].remote_id, False)


async def test_upsert_when_two_race_then_the_loser_updates(org: SalesforceEmulator) -> None:
    org.add_field("Lead", custom_field("Ref__c", externalId=True, unique=True, idLookup=True))
    driver = await connected(org)
    made = await driver.create_record(lead(1, Ref__c="a"))
    nothing = {"compositeResponse": [{"body": {"done": True, "records": []}, "httpStatusCode": 200}]}
    org.faults.add("wrong_shape", operation="composite", body=nothing)
    result = await driver.upsert_record(upsert(2, {**person(1), "Ref__c": "a", "City": "Dubai"}, "Email"))
    assert (result.remote_id, result.was_created) == (made.remote_id, False)
    taken = [
        {"success": False, "errors": [{"statusCode": "DUPLICATE_VALUE", "message": "duplicate value found"}]}
    ]
    org.faults.add("wrong_shape", operation="collection.upsert", body=taken)
    result = await driver.upsert_record(
        upsert(3, {**person(1), "Ref__c": "a", "City": "Abu Dhabi"}, "Ref__c")
    )
    assert (result.remote_id, result.was_created) == (made.remote_id, False)
    assert org.table("Lead").rows[made.remote_id].fields["City"] == "Abu Dhabi"


async def test_upsert_when_a_duplicate_rule_names_another_record_then_conflict_and_nothing_is_changed(
    org: SalesforceEmulator,
) -> None:
    driver = await connected(org)
    made = await driver.create_record(lead(1))
    org.duplicate_rule = "block"
    with pytest.raises(Conflict) as caught:
        await driver.upsert_record(upsert(2, {**person(1), "Phone": "+14155550123"}, "Phone"))
    assert caught.value.existing_remote_id == made.remote_id
    assert "Phone" not in org.table("Lead").rows[made.remote_id].fields


@pytest.mark.parametrize("match", [{}, {"Email": ""}, {"Email": None}])
async def test_upsert_when_the_match_is_empty_then_refused_before_a_call(
    org: SalesforceEmulator, match: dict[str, Any]
) -> None:
    driver = await connected(org)
    with pytest.raises(ValidationError):
        await driver.upsert_record(write(1, person(1), operation=Operation.UPSERT, match=match))
    assert not org.calls


async def test_upsert_when_many_rows_match_then_all_pages_are_read(org: SalesforceEmulator) -> None:
    driver = await connected(org)
    for n in range(2_001):
        org.table("Lead").insert({"LastName": "Same", "Email": "same@example.com", "Company": f"C{n}"})
    with pytest.raises(Conflict):
        await driver.upsert_record(upsert(1, {**person(1), "Email": "same@example.com"}, "Email"))


# -- deals and their contacts ----------------------------------------------------------------------------------


def deal(number: int, contact: str) -> Any:
    fields = {"Name": f"Flat {number}", "CloseDate": "2027-01-31"}
    return write(number, fields, Object.DEAL, links={"customer": contact})


async def test_deal_when_linked_to_a_customer_then_one_contact_role_however_often_it_is_sent(
    org: SalesforceEmulator,
) -> None:
    driver = await connected(org)
    contact = (await driver.create_record(write(1, {"LastName": "Lin"}, Object.CUSTOMER))).remote_id
    for _ in range(2):
        results = await driver.write_batch([deal(n, contact) for n in (2, 3)])
        assert {one.outcome for one in results} == {Outcome.APPLIED}
    roles = [row.fields for row in org.table("OpportunityContactRole")]
    assert [(one["OpportunityId"], one["ContactId"]) for one in roles] == [
        (r.remote_id, contact) for r in results
    ]


async def test_deal_when_its_contact_role_is_refused_then_not_applied_and_completed_by_sending_again(
    org: SalesforceEmulator,
) -> None:
    driver = await connected(org)
    contact = (await driver.create_record(write(1, {"LastName": "Lin"}, Object.CUSTOMER))).remote_id
    org.locked = {"OpportunityContactRole": 1}
    with pytest.raises(Unavailable) as caught:
        await driver.create_record(deal(2, contact))
    assert caught.value.retry_safe
    assert (await driver.find_written(deal(2, contact))).outcome is Outcome.NOT_APPLIED
    made = await driver.create_record(deal(2, contact))
    assert (await driver.find_written(deal(2, contact))).remote_id == made.remote_id
    assert (len(org.table("Opportunity")), len(org.table("OpportunityContactRole"))) == (1, 1)


async def test_batch_when_a_refused_row_speaks_of_another_then_neithers_values_are_shown(
    org: SalesforceEmulator,
) -> None:
    driver = await connected(org)
    said = "Lin 0 of mei.0@example.com stands before lin 149, mei.149@example.com"
    rows = [{"success": False, "errors": [{"statusCode": "OTHER", "message": said}]}] * 150
    org.faults.add("wrong_shape", operation="collection.create", body=rows)
    results = await driver.write_batch([lead(n) for n in range(150)])
    assert all(isinstance(one.error, CrmError) for one in results)
    shown = " ".join(str(one.error.to_dict()) for one in results if isinstance(one.error, CrmError)).lower()
    assert "[value] of [value] stands before [value]" in shown
    assert "lin 0" not in shown and "lin 149" not in shown and "mei." not in shown
