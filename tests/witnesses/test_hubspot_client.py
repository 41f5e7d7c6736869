"""HubSpot's own Python client, unmodified and at its fixed host, before the emulated HubSpot.

It must see what it would see live: records, pages, partial batches, associations, refusals and their bodies. The
client speaks v3 and v4, which HubSpot keeps beside the dated API; ``tools/spec_check.py`` covers the dated one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.witnesses.loopback import Stage, access_to, needed, staged

from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object, RelatedWrite, Write
from crmbridge.drivers.hubspot.driver import HubSpot
from crmbridge.drivers.hubspot.emulator import HubSpotEmulator
from crmbridge.emulation import Quota

REQUIREMENT = "hubspot-api-client>=12"
hubspot: Any = needed("hubspot", REQUIREMENT)
contacts: Any = needed("hubspot.crm.contacts", REQUIREMENT)
exceptions: Any = needed("hubspot.crm.contacts.exceptions", REQUIREMENT)
associations: Any = needed("hubspot.crm.associations.v4", REQUIREMENT)
notes: Any = needed("hubspot.crm.objects.notes", REQUIREMENT)
oauth: Any = needed("hubspot.oauth", REQUIREMENT)

T = TypeVar("T")


@dataclass
class Scene:
    """The emulated account, and the client that its users have."""

    emulator: HubSpotEmulator
    stage: Stage
    client: Any

    async def ask(self, call: Callable[..., T], *given: Any, **more: Any) -> T:
        """The client blocks, and the emulator answers from this loop."""
        return await asyncio.to_thread(call, *given, **more)

    async def refused(self, call: Callable[..., Any], *given: Any, **more: Any) -> Any:
        """The client's own exception."""
        with pytest.raises(exceptions.ApiException) as caught:
            await self.ask(call, *given, **more)
        return caught.value

    def client_with(self, token: str) -> Any:
        """Another client of the same account."""
        return hubspot.HubSpot(
            access_token=token, ssl_ca_cert=self.stage.ca_file, proxy=self.stage.proxy_url, retry=False
        )

    async def people(self, count: int) -> list[str]:
        """So many contacts, made in batches."""
        ids: list[str] = []
        for start in range(0, count, 100):
            inputs = [batched(n) for n in range(start, min(start + 100, count))]
            answer = await self.ask(self.client.crm.contacts.batch_api.create, in_batch(inputs))
            ids += [one.id for one in sorted(answer.results, key=lambda one: int(one.object_write_trace_id))]
        return ids


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    emulator = HubSpotEmulator()
    emulator.quotas.clear()
    async with staged(emulator, tmp_path, "api.hubapi.com") as stage:
        made = Scene(emulator, stage, None)
        made.client = made.client_with(emulator.secrets()["access_token"])
        yield made
        assert stage.refused == []


def person(number: int, **more: str) -> dict[str, str]:
    return {"firstname": "Mei", "lastname": f"Lin {number}", "email": f"mei.{number}@example.com", **more}


def batched(number: int, trace: bool = True, **more: str) -> Any:
    return contacts.SimplePublicObjectBatchInputForCreate(
        properties=person(number, **more), object_write_trace_id=str(number) if trace else None
    )


def in_batch(inputs: list[Any]) -> Any:
    return contacts.BatchInputSimplePublicObjectBatchInputForCreate(inputs=inputs)


def for_create(properties: dict[str, str]) -> Any:
    return contacts.SimplePublicObjectInputForCreate(properties=properties)


def search_for(value: str, limit: int = 5, after: str | None = None, name: str = "email") -> Any:
    filters = [{"propertyName": name, "operator": "EQ", "value": value}]
    return contacts.PublicObjectSearchRequest(
        filter_groups=[{"filters": filters}], properties=["email", name], limit=limit, after=after
    )


# -- records -----------------------------------------------------------------------------------------------------


async def test_record_when_made_read_changed_and_archived_then_as_live(scene: Scene) -> None:
    api = scene.client.crm.contacts.basic_api
    made = await scene.ask(api.create, for_create(person(1)))
    assert made.id.isdigit()
    assert made.created_at is not None
    read = await scene.ask(api.get_by_id, made.id, properties=["email", "city"])
    assert (read.properties["email"], read.properties["city"], read.archived) == (
        "mei.1@example.com",
        None,
        False,
    )
    by_email = await scene.ask(api.get_by_id, "MEI.1@example.com", id_property="email")
    assert by_email.id == made.id
    change = contacts.SimplePublicObjectInput(properties={"city": "Dubai"})
    assert (await scene.ask(api.update, made.id, change)).properties["city"] == "Dubai"
    await scene.ask(api.archive, made.id)
    await scene.ask(api.archive, made.id)  # HubSpot answers 204 for what is gone, too
    with pytest.raises(exceptions.NotFoundException):
        await scene.ask(api.get_by_id, made.id)
    archived = (await scene.ask(api.get_page, archived=True)).results
    assert [one.id for one in archived] == [made.id]
    assert archived[0].archived_at is not None


async def test_erasure_when_purged_then_gone_from_the_archive_too(scene: Scene) -> None:
    api = scene.client.crm.contacts.basic_api
    made = await scene.ask(api.create, for_create(person(1)))
    await scene.ask(api.purge, contacts.PublicGdprDeleteInput(object_id=made.id))
    assert (await scene.ask(api.get_page, archived=True)).results == []
    again = await scene.ask(api.create, for_create(person(1)))
    assert again.id != made.id


async def test_merge_when_done_then_the_old_id_leads_to_the_survivor(scene: Scene) -> None:
    api = scene.client.crm.contacts.basic_api
    kept, gone = await scene.people(2)
    merge = contacts.PublicMergeInput(primary_object_id=kept, object_id_to_merge=gone)
    assert (await scene.ask(api.merge, merge)).id == kept
    assert (await scene.ask(api.get_by_id, gone)).id == kept


async def test_pages_when_all_are_fetched_then_each_record_once(scene: Scene) -> None:
    made = await scene.people(250)
    first = await scene.ask(scene.client.crm.contacts.basic_api.get_page)
    assert len(first.results) == 10
    assert first.paging.next.after
    found = await scene.ask(scene.client.crm.contacts.get_all)
    assert sorted(one.id for one in found) == sorted(made)


async def test_search_when_asked_at_once_then_lags_and_then_pages(scene: Scene) -> None:
    await scene.people(4)
    api = scene.client.crm.contacts.search_api
    assert (await scene.ask(api.do_search, search_for("mei.2@example.com"))).total == 0
    scene.emulator.clock.advance(60)
    found = await scene.ask(api.do_search, search_for("MEI.2@example.com"))
    assert found.total == 1
    assert found.results[0].properties["email"] == "mei.2@example.com"
    page = await scene.ask(api.do_search, search_for("mei", limit=2, name="firstname"))
    assert (page.total, len(page.results), page.paging.next.after) == (4, 2, "2")
    rest = await scene.ask(api.do_search, search_for("mei", limit=2, after="2", name="firstname"))
    assert len(rest.results) == 2
    assert rest.paging is None
    error = await scene.refused(api.do_search, search_for("mei", limit=100, after="9950", name="firstname"))
    assert error.status == 400  # no search goes beyond 10,000 rows
    await scene.ask(api.do_search, search_for("mei", limit=100, after="9900", name="firstname"))


# -- batches -----------------------------------------------------------------------------------------------------


async def test_batch_when_traced_and_one_row_is_bad_then_207_and_the_others_stand(scene: Scene) -> None:
    inputs = [batched(1), batched(2, no_such_property="1"), batched(3)]
    api = scene.client.crm.contacts.batch_api
    answer, status, _ = await scene.ask(api.create_with_http_info, in_batch(inputs))
    assert status == 207
    assert type(answer).__name__ == "BatchResponseSimplePublicObjectWithErrors"
    assert (answer.num_errors, len(answer.results)) == (1, 2)
    error = answer.errors[0]
    assert (error.category, error.context["objectWriteTraceId"]) == ("VALIDATION_ERROR", ["2"])
    assert error.errors[0].code == "PROPERTY_DOESNT_EXIST"


async def test_batch_when_not_traced_and_one_row_is_bad_then_all_are_refused(scene: Scene) -> None:
    inputs = [batched(1, trace=False), batched(2, trace=False, no_such_property="1")]
    error = await scene.refused(scene.client.crm.contacts.batch_api.create, in_batch(inputs))
    assert error.status == 400
    assert json.loads(error.body)["category"] == "VALIDATION_ERROR"
    assert len(scene.emulator.store.numbered("contacts")) == 0


async def test_batch_when_reading_by_email_then_missing_ones_are_named(scene: Scene) -> None:
    await scene.people(2)
    wanted = contacts.BatchReadInputSimplePublicObjectId(
        inputs=[{"id": "mei.1@example.com"}, {"id": "none@example.com"}],
        id_property="email",
        properties=["email"],
        properties_with_history=[],
    )
    answer = await scene.ask(scene.client.crm.contacts.batch_api.read, wanted)
    assert [one.properties["email"] for one in answer.results] == ["mei.1@example.com"]
    assert answer.errors[0].context["ids"] == ["none@example.com"]


async def test_batch_when_upserted_updated_and_archived_then_told_which_are_new(scene: Scene) -> None:
    (old,) = await scene.people(1)
    api = scene.client.crm.contacts.batch_api
    inputs = [
        contacts.SimplePublicObjectBatchInputUpsert(
            id=f"mei.{n}@example.com", id_property="email", properties={"city": "Dubai"}
        )
        for n in (0, 7)
    ]
    upsert = contacts.BatchInputSimplePublicObjectBatchInputUpsert(inputs=inputs)
    answer = await scene.ask(api.upsert, upsert)
    told = {one.properties.get("email") or one.id: one.new for one in answer.results}
    assert sorted(told.values()) == [False, True]
    update = contacts.BatchInputSimplePublicObjectBatchInput(
        inputs=[{"id": old, "properties": {"city": "Ajman"}}, {"id": "999999", "properties": {"city": "x"}}]
    )
    answer = await scene.ask(api.update, update)
    assert [one.properties["city"] for one in answer.results] == ["Ajman"]
    assert answer.errors[0].category == "OBJECT_NOT_FOUND"
    await scene.ask(api.archive, contacts.BatchInputSimplePublicObjectId(inputs=[{"id": old}]))
    assert len(await scene.ask(scene.client.crm.contacts.get_all)) == 1


# -- associations ------------------------------------------------------------------------------------------------


async def test_associations_when_made_listed_and_removed_then_by_type_and_direction(scene: Scene) -> None:
    contact, other = await scene.people(2)
    deal = await scene.ask(
        scene.client.crm.deals.basic_api.create,
        for_create({"dealname": "Flat", "dealstage": "qualifiedtobuy", "pipeline": "default"}),
    )
    api = scene.client.crm.associations.v4.basic_api
    await scene.ask(api.create_default, "deals", deal.id, "contacts", contact)
    spec = [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 3}]
    made = await scene.ask(api.create, "deals", deal.id, "contacts", other, spec)
    assert (made.from_object_type_id, made.to_object_type_id) == ("0-3", "0-1")
    seen = await scene.ask(api.get_page, "deals", deal.id, "contacts")
    assert [str(one.to_object_id) for one in seen.results] == [contact, other]
    assert seen.results[0].association_types[0].type_id == 3
    back = await scene.ask(api.get_page, "contacts", contact, "deals")
    assert back.results[0].association_types[0].type_id == 4
    await scene.ask(api.archive, "deals", deal.id, "contacts", other)
    wanted = associations.BatchInputPublicFetchAssociationsBatchRequest(inputs=[{"id": deal.id}])
    batch = await scene.ask(scene.client.crm.associations.v4.batch_api.get_page, "deals", "contacts", wanted)
    assert [str(end.to_object_id) for end in batch.results[0].to] == [contact]
    labels = await scene.ask(
        scene.client.crm.associations.v4.schema.definitions_api.get_all, "leads", "contacts"
    )
    assert [one.type_id for one in labels.results] == [578, 608]


async def test_note_when_made_with_an_association_then_seen_beside_the_record(scene: Scene) -> None:
    (contact,) = await scene.people(1)
    types = [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 202}]
    given = notes.SimplePublicObjectInputForCreate(
        properties={"hs_timestamp": "2026-11-22T09:00:00Z", "hs_note_body": "<p>Rang twice</p>"},
        associations=[{"to": {"id": contact}, "types": types}],
    )
    note = await scene.ask(scene.client.crm.objects.notes.basic_api.create, given)
    api = scene.client.crm.contacts.basic_api
    read = await scene.ask(api.get_by_id, contact, associations=["notes"])
    assert [(one.id, one.type) for one in read.associations["notes"].results] == [
        (note.id, "contact_to_note")
    ]


# -- the account -------------------------------------------------------------------------------------------------


async def test_schema_when_asked_then_properties_pipelines_and_owners(scene: Scene) -> None:
    crm = scene.client.crm
    properties = await scene.ask(crm.properties.core_api.get_all, "contacts")
    stage = next(one for one in properties.results if one.name == "lifecyclestage")
    assert stage.type == "enumeration"
    assert "lead" in [option.value for option in stage.options]
    pipelines = await scene.ask(crm.pipelines.pipelines_api.get_all, "deals")
    assert pipelines.results[0].stages[0].id == "appointmentscheduled"
    owners = await scene.ask(crm.owners.owners_api.get_page, limit=10)
    assert owners.results[0].email.endswith("@agency.example")


# -- refusals ----------------------------------------------------------------------------------------------------


async def test_conflict_when_the_email_is_taken_then_the_id_stands_in_the_text(scene: Scene) -> None:
    (made,) = await scene.people(1)
    error = await scene.refused(scene.client.crm.contacts.basic_api.create, for_create(person(0)))
    assert error.status == 409
    tree = json.loads(error.body)
    assert (tree["category"], tree["message"]) == ("CONFLICT", f"Contact already exists. Existing ID: {made}")


async def test_validation_when_a_property_is_unknown_then_named_in_the_body(scene: Scene) -> None:
    error = await scene.refused(
        scene.client.crm.contacts.basic_api.create, for_create({**person(1), "no_such_property": "1"})
    )
    assert error.status == 400
    tree = json.loads(error.body)
    assert tree["category"] == "VALIDATION_ERROR"
    assert tree["errors"][0]["context"]["propertyName"] == ["no_such_property"]
    assert error.headers["X-HubSpot-Correlation-Id"] == tree["correlationId"]


async def test_token_when_expired_then_unauthorized_and_a_refresh_cures_it(scene: Scene) -> None:
    hub = scene.emulator
    hub.is_installed = True

    async def fresh() -> Any:
        answer = await scene.ask(
            scene.client.oauth.tokens_api.create,
            grant_type="refresh_token",
            client_id=hub.client_id,
            client_secret=hub.secret("client_secret"),
            refresh_token=hub.refresh_token,
        )
        assert answer.expires_in == 1800
        return scene.client_with(answer.access_token)

    client = await fresh()
    await scene.ask(client.crm.contacts.basic_api.get_page)
    hub.clock.advance(1801)
    with pytest.raises(exceptions.UnauthorizedException) as caught:
        await scene.ask(client.crm.contacts.basic_api.get_page)
    tree = json.loads(caught.value.body)
    assert tree["category"] == "EXPIRED_AUTHENTICATION"
    await scene.ask((await fresh()).crm.contacts.basic_api.get_page)


async def test_token_when_the_grant_is_gone_then_the_endpoint_says_so(scene: Scene) -> None:
    with pytest.raises(oauth.exceptions.ApiException) as caught:
        await scene.ask(
            scene.client.oauth.tokens_api.create,
            grant_type="refresh_token",
            client_id=scene.emulator.client_id,
            client_secret=scene.emulator.secret("client_secret"),
            refresh_token="na1-00000000",
        )
    assert caught.value.status == 400
    assert json.loads(caught.value.body)["status"] == "BAD_REFRESH_TOKEN"


async def test_budget_when_used_up_then_429_names_the_policy(scene: Scene) -> None:
    scene.emulator.clock.freeze()
    scene.emulator.quotas = [Quota(limit=3, per_seconds=10, name="TEN_SECONDLY_ROLLING")]
    api = scene.client.crm.contacts.basic_api
    _, _, headers = await scene.ask(api.get_page_with_http_info)
    assert (headers["X-HubSpot-RateLimit-Max"], headers["X-HubSpot-RateLimit-Remaining"]) == ("3", "2")
    await scene.ask(api.get_page)
    await scene.ask(api.get_page)
    error = await scene.refused(api.get_page)
    assert error.status == 429
    assert json.loads(error.body)["policyName"] == "TEN_SECONDLY_ROLLING"
    scene.emulator.clock.advance(11)
    await scene.ask(api.get_page)


async def test_scope_when_missing_then_forbidden_and_named(scene: Scene) -> None:
    scene.emulator.missing_scopes = {"crm.objects.contacts.write"}
    with pytest.raises(exceptions.ForbiddenException) as caught:
        await scene.ask(scene.client.crm.contacts.basic_api.create, for_create(person(1)))
    assert "crm.objects.contacts.write" in caught.value.body


async def test_trouble_when_hubspot_fails_then_the_clients_service_exception(scene: Scene) -> None:
    scene.emulator.faults.add("status", status=503)
    with pytest.raises(exceptions.ServiceException):
        await scene.ask(scene.client.crm.contacts.basic_api.get_page)


# -- our driver, as HubSpot's client sees its work ---------------------------------------------------------------


async def test_lead_when_the_driver_writes_it_then_the_client_reads_contact_and_deal(scene: Scene) -> None:
    access = access_to(scene.emulator, lead_as="deal")
    access.facts.update(await HubSpot(access).prepare())
    driver = HubSpot(access)
    fields = {**person(1), "lifecyclestage": "lead"}
    related = [RelatedWrite(native_object="deals", fields={"dealname": "Flat", "amount": "1250000.5"})]
    lead = Write(
        target_id="target-1", operation=Operation.CREATE, object=Object.LEAD, fields=fields, related=related
    )
    (result,) = await driver.write_batch([lead])
    assert result.outcome is Outcome.APPLIED
    read = await scene.ask(
        scene.client.crm.contacts.basic_api.get_by_id,
        result.remote_id,
        properties=["email", "lifecyclestage"],
        associations=["deals"],
    )
    assert read.properties["lifecyclestage"] == "lead"
    (end,) = read.associations["deals"].results
    deal = await scene.ask(
        scene.client.crm.deals.basic_api.get_by_id, end.id, properties=["dealname", "amount"]
    )
    assert (deal.properties["dealname"], deal.properties["amount"]) == ("Flat", "1250000.5")
