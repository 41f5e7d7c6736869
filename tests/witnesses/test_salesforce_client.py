"""simple-salesforce, the best-known Python client of Salesforce, unmodified before the emulated org at its own host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.witnesses.loopback import Stage, connected, needed, staged

from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object, Write
from crmbridge.drivers.salesforce.driver import Salesforce
from crmbridge.drivers.salesforce.emulator import SalesforceEmulator

REQUIREMENT = "simple-salesforce>=1.12.10"
simple: Any = needed("simple_salesforce", REQUIREMENT)
errors: Any = needed("simple_salesforce.exceptions", REQUIREMENT)

DOMAIN = "agency.my"
HOST = f"{DOMAIN}.salesforce.com"
VERSION = "66.0"
MARK = "crmbridge_mark__c"
T = TypeVar("T")


@dataclass
class Scene:
    """The emulated org, and the client of its users."""

    emulator: SalesforceEmulator
    stage: Stage
    client: Any

    async def ask(self, call: Callable[..., T], *given: Any, **more: Any) -> T:
        """The client blocks, and the emulator answers from this loop."""
        return await asyncio.to_thread(call, *given, **more)

    async def signed_in(self, secret: str = "") -> Any:
        """A client by the client-credentials flow, which signs in again by itself."""
        given = secret or self.emulator.secret("client_secret")
        return await self.ask(
            simple.Salesforce,
            consumer_key=self.emulator.client_id,
            consumer_secret=given,
            domain=DOMAIN,
            version=VERSION,
        )

    async def leads(self, count: int) -> list[str]:
        """So many leads, made in collections of 200."""
        ids = []
        for start in range(0, count, 200):
            rows = [
                {"attributes": {"type": "Lead"}, **person(n)} for n in range(start, min(start + 200, count))
            ]
            body = {"allOrNone": False, "records": rows}
            made = await self.ask(self.client.restful, "composite/sobjects", None, "POST", json=body)
            ids += [one["id"] for one in made]
        return ids


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    emulator = SalesforceEmulator()
    async with staged(emulator, tmp_path, HOST) as stage:
        for name, text in stage.environment().items():
            monkeypatch.setenv(name, text)
        made = Scene(emulator, stage, None)
        made.client = await made.ask(
            simple.Salesforce,
            instance_url=f"https://{HOST}",
            session_id=emulator.secrets()["access_token"],
            version=VERSION,
        )
        yield made
        assert stage.refused == []


def person(number: int, **more: Any) -> dict[str, Any]:
    return {
        "LastName": f"Lin {number}", "Company": "Example Trading", "Email": f"mei.{number}@example.com", **more
    }  # fmt: skip


# -- records -----------------------------------------------------------------------------------------------------


async def test_record_when_made_read_changed_and_deleted_then_as_live(scene: Scene) -> None:
    leads = scene.client.Lead
    made = await scene.ask(leads.create, person(1))
    assert (made["success"], made["errors"], len(made["id"])) == (True, [], 18)
    read = await scene.ask(leads.get, made["id"])
    assert (read["attributes"]["type"], read["LastName"], read["City"]) == ("Lead", "Lin 1", None)
    assert await scene.ask(leads.update, made["id"], {"City": "Dubai"}) == 204
    assert (await scene.ask(leads.get, made["id"][:15]))["City"] == "Dubai"
    assert await scene.ask(leads.delete, made["id"]) == 204
    with pytest.raises(errors.SalesforceResourceNotFound) as caught:
        await scene.ask(leads.get, made["id"])
    assert caught.value.content[0]["errorCode"] in ("ENTITY_IS_DELETED", "NOT_FOUND")


async def test_upsert_when_by_external_id_then_made_once_and_changed_after(scene: Scene) -> None:
    leads = scene.client.Lead
    assert await scene.ask(leads.upsert, f"{MARK}/w-1", person(1)) == 201
    assert await scene.ask(leads.upsert, f"{MARK}/w-1", {"City": "Dubai"}) == 200
    found = await scene.ask(leads.get_by_custom_id, MARK, "W-1")
    assert (found["LastName"], found["City"]) == ("Lin 1", "Dubai")
    with pytest.raises(errors.SalesforceMalformedRequest) as caught:
        await scene.ask(leads.create, person(2, **{MARK: "w-1"}))
    assert caught.value.content[0]["errorCode"] == "DUPLICATE_VALUE"
    assert found["Id"][:15] in caught.value.content[0]["message"]


async def test_schema_when_described_then_fields_with_types_and_picklists(scene: Scene) -> None:
    known = await scene.ask(scene.client.describe)
    assert {"Lead", "Contact", "Case"} <= {one["name"] for one in known["sobjects"]}
    fields = {one["name"]: one for one in (await scene.ask(scene.client.Lead.describe))["fields"]}
    assert (fields["LastName"]["nillable"], fields["Email"]["type"]) == (False, "email")
    assert "Web" in [one["value"] for one in fields["LeadSource"]["picklistValues"]]
    assert (fields[MARK]["unique"], fields[MARK]["externalId"]) == (True, True)


# -- queries -----------------------------------------------------------------------------------------------------


async def test_query_when_longer_than_a_page_then_the_locator_leads_on(scene: Scene) -> None:
    made = await scene.leads(2_100)
    text = "SELECT Id, LastName FROM Lead ORDER BY Id"
    first = await scene.ask(scene.client.query, text)
    assert (first["totalSize"], first["done"], len(first["records"])) == (2_100, False, 2_000)
    rest = await scene.ask(scene.client.query_more, first["nextRecordsUrl"], True)
    assert (rest["done"], len(rest["records"])) == (True, 100)
    everything = await scene.ask(scene.client.query_all, text)
    assert sorted(one["Id"] for one in everything["records"]) == sorted(made)


async def test_query_when_quoted_by_the_clients_formatter_then_found(scene: Scene) -> None:
    name = 'O\'Neill \\ "Mei"'
    made = await scene.ask(scene.client.Lead.create, person(1, LastName=name))
    text = simple.format_soql(
        "SELECT Id FROM Lead WHERE LastName = {} AND Email IN {}", name, ["mei.1@example.com"]
    )
    found = await scene.ask(scene.client.query, text)
    assert [one["Id"] for one in found["records"]] == [made["id"]]


async def test_query_when_deleted_records_are_wanted_then_only_query_all_has_them(scene: Scene) -> None:
    (made,) = await scene.leads(1)
    await scene.ask(scene.client.Lead.delete, made)
    text = "SELECT Id, IsDeleted FROM Lead"
    assert (await scene.ask(scene.client.query, text))["totalSize"] == 0
    found = await scene.ask(scene.client.query, text, include_deleted=True)
    assert [one["IsDeleted"] for one in found["records"]] == [True]


async def test_query_when_malformed_or_of_an_unknown_field_then_refused_by_code(scene: Scene) -> None:
    for text, code in (
        ("SELECT Id FROM Lead WHERE", "MALFORMED_QUERY"),
        ("SELECT Nope__c FROM Lead", "INVALID_FIELD"),
        ("SELECT Id FROM Nope__c", "INVALID_TYPE"),
    ):
        with pytest.raises(errors.SalesforceMalformedRequest) as caught:
            await scene.ask(scene.client.query, text)
        assert caught.value.content[0]["errorCode"] == code


# -- many records ------------------------------------------------------------------------------------------------


async def test_collection_when_one_row_is_bad_then_it_fails_alone_and_in_order(scene: Scene) -> None:
    rows = [{"attributes": {"type": "Lead"}, **person(n)} for n in range(3)]
    del rows[1]["LastName"]
    body = {"allOrNone": False, "records": rows}
    answer = await scene.ask(scene.client.restful, "composite/sobjects", None, "POST", json=body)
    assert [one["success"] for one in answer] == [True, False, True]
    assert answer[1]["errors"][0]["statusCode"] == "REQUIRED_FIELD_MISSING"
    assert answer[1]["errors"][0]["fields"] == ["LastName"]


async def test_bulk_when_one_row_is_bad_then_the_others_stand_and_it_is_told(scene: Scene) -> None:
    rows = [person(n) for n in range(5)]
    rows[3]["Email"] = "no e-mail"
    bulk = scene.client.bulk2.Lead
    (job,) = await scene.ask(bulk.insert, records=rows, wait=0.05)
    assert (job["numberRecordsProcessed"], job["numberRecordsFailed"]) == (5, 1)
    failed = await scene.ask(bulk.get_failed_records, job["job_id"])
    assert "INVALID_EMAIL_ADDRESS" in failed
    assert "Lin 3" in failed
    done = await scene.ask(bulk.get_successful_records, job["job_id"])
    assert done.count("00Q") == 4
    assert (await scene.ask(scene.client.query, "SELECT COUNT() FROM Lead"))["totalSize"] == 4


# -- refusals and sessions ---------------------------------------------------------------------------------------


async def test_validation_when_a_field_is_missing_or_unknown_then_named(scene: Scene) -> None:
    with pytest.raises(errors.SalesforceMalformedRequest) as caught:
        await scene.ask(scene.client.Lead.create, {"Company": "x"})
    assert caught.value.content[0]["errorCode"] == "REQUIRED_FIELD_MISSING"
    assert caught.value.content[0]["fields"] == ["LastName"]
    with pytest.raises(errors.SalesforceMalformedRequest) as caught:
        await scene.ask(scene.client.Lead.create, person(1, No_Such__c="1"))
    assert caught.value.content[0]["errorCode"] == "INVALID_FIELD"


async def test_session_when_given_and_ended_then_the_clients_exception(scene: Scene) -> None:
    scene.emulator.expire_sessions()
    with pytest.raises(errors.SalesforceExpiredSession) as caught:
        await scene.ask(scene.client.Lead.create, person(1))
    assert caught.value.content[0]["errorCode"] == "INVALID_SESSION_ID"


async def test_session_when_signed_in_by_secret_and_ended_then_the_client_signs_in_again(
    scene: Scene,
) -> None:
    client = await scene.signed_in()
    assert client.sf_instance == HOST
    await scene.ask(client.Lead.create, person(1))
    scene.emulator.expire_sessions()
    made = await scene.ask(client.Lead.create, person(2))
    assert made["success"]
    with pytest.raises(errors.SalesforceAuthenticationFailed):
        await scene.signed_in("not-the-secret")


async def test_budget_when_used_up_then_refused_and_the_usage_is_told(scene: Scene) -> None:
    scene.emulator.daily_limit = 2
    await scene.ask(scene.client.query, "SELECT Id FROM Lead")
    usage = scene.client.api_usage["api-usage"]
    assert (usage.used, usage.total) == (1, 2)
    assert (await scene.ask(scene.client.limits))["DailyApiRequests"]["Max"] == 2
    with pytest.raises(errors.SalesforceRefusedRequest) as caught:
        await scene.ask(scene.client.Lead.create, person(2))
    assert caught.value.content[0]["errorCode"] == "REQUEST_LIMIT_EXCEEDED"


async def test_right_when_missing_then_refused_by_code(scene: Scene) -> None:
    scene.emulator.denied.add("Lead")
    with pytest.raises((errors.SalesforceRefusedRequest, errors.SalesforceMalformedRequest)) as caught:
        await scene.ask(scene.client.Lead.create, person(1))
    assert caught.value.content[0]["errorCode"] in (
        "INSUFFICIENT_ACCESS_OR_READONLY",
        "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
    )


# -- our driver, as the client sees its work ---------------------------------------------------------------------


async def test_lead_when_the_driver_writes_it_then_the_client_finds_it_by_its_mark(scene: Scene) -> None:
    driver = await connected(Salesforce, scene.emulator)
    leads = [
        Write(target_id=f"target-{n}", operation=Operation.CREATE, object=Object.LEAD, fields=person(n))
        for n in range(3)
    ]
    results = await driver.write_batch(leads)
    assert {one.outcome for one in results} == {Outcome.APPLIED}
    for number, result in enumerate(results):
        found = await scene.ask(scene.client.Lead.get, result.remote_id)
        assert found["LastName"] == f"Lin {number}"
        same = await scene.ask(scene.client.Lead.get_by_custom_id, MARK, found[MARK])
        assert same["Id"] == found["Id"]
