"""Zoho's own Python SDK for version 8, unmodified and at its fixed hosts, before the emulated organisation.

The SDK keeps its state in one place of the process and asks for tokens, the user, the organisation and the fields of a
module by itself before the first call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.witnesses.loopback import Stage, connected, needed, staged

from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object, Write
from crmbridge.drivers.zoho.driver import Zoho
from crmbridge.drivers.zoho.emulator import ZohoEmulator

REQUIREMENT = "zohocrmsdk8-0>=7"
needed("zohocrmsdk", REQUIREMENT)

SDK = "zohocrmsdk.src.com.zoho"
T = TypeVar("T")


def part(place: str, name: str) -> Any:
    """A class of the SDK, which has no exports of its own."""
    return getattr(import_module(f"{SDK}.{place}"), name)


OAuthToken = part("api.authenticator.oauth_token", "OAuthToken")
FileStore = part("api.authenticator.store", "FileStore")
Initializer = part("crm.api", "Initializer")
ParameterMap = part("crm.api", "ParameterMap")
HeaderMap = part("crm.api", "HeaderMap")
USDataCenter = part("crm.api.dc", "USDataCenter")
SDKConfig = part("crm.api.sdk_config", "SDKConfig")
SDKException = part("crm.api.exception", "SDKException")
Record = part("crm.api.record", "Record")
RecordOperations = part("crm.api.record", "RecordOperations")
Body = part("crm.api.record", "BodyWrapper")
ListParam = part("crm.api.record", "GetRecordsParam")
SearchParam = part("crm.api.record", "SearchRecordsParam")
DeleteParam = part("crm.api.record", "DeleteRecordsParam")
CoqlOperations = part("crm.api.coql", "CoqlOperations")
CoqlBody = part("crm.api.coql", "BodyWrapper")


@dataclass
class Scene:
    """The emulated organisation, and the SDK signed in to it."""

    emulator: ZohoEmulator
    stage: Stage
    folder: Path

    async def ask(self, call: Callable[..., T], *given: Any, **more: Any) -> T:
        """The SDK blocks, and the emulator answers from this loop."""
        return await asyncio.to_thread(call, *given, **more)

    async def sign_in(self, refresh_token: str = "") -> None:
        """As the SDK's manual has it: a refresh token, a file for tokens, a folder for field definitions."""
        token = OAuthToken(
            client_id=self.emulator.client_id,
            client_secret=self.emulator.secret("client_secret"),
            refresh_token=refresh_token or self.emulator.secret("refresh_token"),
        )
        await self.ask(
            Initializer.initialize,
            USDataCenter.PRODUCTION(),
            token,
            store=FileStore(str(self.folder / "tokens.txt")),
            sdk_config=SDKConfig(connect_timeout=10, read_timeout=10),
            resource_path=str(self.folder),
        )

    async def create(self, rows: list[dict[str, Any]]) -> Any:
        """Leads; the SDK's answer."""
        return await self.ask(leads().create_records, body_of(rows), HeaderMap())

    async def people(self, count: int) -> list[int]:
        """So many leads, made in batches of 100."""
        ids: list[int] = []
        for start in range(0, count, 100):
            answer = await self.create([person(n) for n in range(start, min(start + 100, count))])
            ids += [int(one.get_details()["id"]) for one in answer.get_object().get_data()]
        return ids


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    emulator = ZohoEmulator()
    async with staged(emulator, tmp_path, "www.zohoapis.com", "accounts.zoho.com") as stage:
        for name, text in stage.environment().items():
            monkeypatch.setenv(name, text)
        folder = tmp_path / "sdk"
        folder.mkdir()
        made = Scene(emulator, stage, folder)
        await made.sign_in()
        yield made
        assert stage.refused == []
        assert set(stage.asked) == {"www.zohoapis.com", "accounts.zoho.com"}


def leads() -> Any:
    return RecordOperations("Leads")


def person(number: int, **more: Any) -> dict[str, Any]:
    return {"Last_Name": f"Lin {number}", "Company": "Example", "Email": f"mei.{number}@example.com", **more}


def body_of(rows: list[dict[str, Any]], *, match: list[str] | None = None) -> Any:
    body, records = Body(), []
    for row in rows:
        record = Record()
        for name, value in row.items():
            record.add_key_value(name, value)
        records.append(record)
    body.set_data(records)
    if match:
        body.set_duplicate_check_fields(match)
    return body


def parameters(**given: Any) -> Any:
    made = ParameterMap()
    for name, value in given.items():
        made.add(getattr(ListParam, name), value)
    return made


def code_of(answer: Any) -> str:
    """The code of a refusal as the SDK reads it."""
    return str(answer.get_object().get_code().get_value())


# -- records -----------------------------------------------------------------------------------------------------


async def test_record_when_made_read_changed_and_deleted_then_as_live(scene: Scene) -> None:
    answer = await scene.create([person(1)])
    assert answer.get_status_code() == 201
    (made,) = answer.get_object().get_data()
    assert (made.get_status().get_value(), made.get_code().get_value()) == ("success", "SUCCESS")
    number = int(made.get_details()["id"])
    read = await scene.ask(leads().get_record, number, ParameterMap(), HeaderMap())
    (record,) = read.get_object().get_data()
    assert record.get_id() == number
    assert record.get_key_value("Email") == "mei.1@example.com"
    assert record.get_key_value("Owner").get_id() is not None
    assert record.get_created_time().utcoffset() is not None
    changed = await scene.ask(leads().update_record, number, body_of([{"City": "Dubai"}]), HeaderMap())
    assert changed.get_status_code() == 200
    read = await scene.ask(leads().get_record, number, ParameterMap(), HeaderMap())
    assert read.get_object().get_data()[0].get_key_value("City") == "Dubai"
    gone = ParameterMap()
    gone.add(DeleteParam.ids, str(number))
    answer = await scene.ask(leads().delete_records, gone, HeaderMap())
    assert answer.get_object().get_data()[0].get_code().get_value() == "SUCCESS"
    read = await scene.ask(leads().get_record, number, ParameterMap(), HeaderMap())
    assert (read.get_status_code(), read.get_object()) == (204, None)


async def test_pages_when_beyond_2000_records_then_page_tokens_lead_on(scene: Scene) -> None:
    made = await scene.people(2_100)
    seen: list[int] = []
    given: dict[str, Any] = {"fields": "Last_Name", "per_page": 200}
    while True:
        answer = await scene.ask(leads().get_records, parameters(**given), HeaderMap())
        page = answer.get_object()
        seen += [one.get_id() for one in page.get_data()]
        if not page.get_info().get_more_records():
            break
        given["page_token"] = page.get_info().get_next_page_token()
    assert sorted(seen) == sorted(made)
    late = await scene.ask(
        leads().get_records, parameters(fields="Last_Name", page=11, per_page=200), HeaderMap()
    )
    assert (late.get_status_code(), code_of(late)) == (400, "DISCRETE_PAGINATION_LIMIT_EXCEEDED")


async def test_search_when_just_written_then_lags_and_coql_does_not(scene: Scene) -> None:
    (made,) = await scene.people(1)
    wanted = ParameterMap()
    wanted.add(SearchParam.email, "mei.0@example.com")
    answer = await scene.ask(leads().search_records, wanted, HeaderMap())
    assert answer.get_status_code() == 204
    query = CoqlBody()
    query.set_select_query("select Last_Name, Email from Leads where Email = 'mei.0@example.com' limit 5")
    found = await scene.ask(CoqlOperations().get_records, query)
    assert [one.get_id() for one in found.get_object().get_data()] == [made]
    scene.emulator.clock.advance(60)
    answer = await scene.ask(leads().search_records, wanted, HeaderMap())
    assert [one.get_id() for one in answer.get_object().get_data()] == [made]
    query.set_select_query("select Nope from Leads where id is not null limit 5")
    assert code_of(await scene.ask(CoqlOperations().get_records, query)) == "INVALID_QUERY"


# -- batches -----------------------------------------------------------------------------------------------------


async def test_batch_when_one_row_is_bad_then_207_and_the_others_stand(scene: Scene) -> None:
    answer = await scene.create([person(1), person(2, Email="no e-mail"), person(3)])
    assert answer.get_status_code() == 207
    rows = answer.get_object().get_data()
    assert [type(one).__name__ for one in rows] == ["SuccessResponse", "APIException", "SuccessResponse"]
    assert rows[1].get_code().get_value() == "INVALID_DATA"
    assert rows[1].get_details()["api_name"] == "Email"


async def test_upsert_when_matched_by_email_then_told_what_was_done(scene: Scene) -> None:
    (old,) = await scene.people(1)
    body = body_of([person(0, City="Dubai"), person(7)], match=["Email"])
    answer = await scene.ask(leads().upsert_records, body, HeaderMap())
    rows = answer.get_object().get_data()
    assert [one.get_action().get_value() for one in rows] == ["update", "insert"]
    assert int(rows[0].get_details()["id"]) == old


# -- tokens and refusals -----------------------------------------------------------------------------------------


async def test_sign_in_when_it_works_then_one_token_call_and_a_kept_token(scene: Scene) -> None:
    await scene.people(1)
    assert scene.emulator.calls["oauth.token"] == 1
    assert "Zoho-oauthtoken" not in (scene.folder / "tokens.txt").read_text()
    assert scene.emulator.secret("refresh_token") in (scene.folder / "tokens.txt").read_text()


async def test_sign_in_when_the_grant_is_gone_then_the_sdk_says_so(scene: Scene) -> None:
    with pytest.raises(SDKException) as caught:
        await scene.sign_in("1000.gone")
    assert "invalid_code" in str(caught.value)


async def test_token_when_expired_then_invalid_token_and_a_new_sign_in_cures_it(scene: Scene) -> None:
    await scene.people(1)
    scene.emulator.clock.advance(3601)
    answer = await scene.create([person(2)])
    assert (answer.get_status_code(), code_of(answer)) == (401, "INVALID_TOKEN")
    (scene.folder / "tokens.txt").unlink()
    await scene.sign_in()
    assert (await scene.create([person(2)])).get_status_code() == 201


async def test_credits_when_used_up_then_too_many_requests(scene: Scene) -> None:
    await scene.people(1)
    scene.emulator.credits = scene.emulator.credits_used
    answer = await scene.create([person(2)])
    assert (answer.get_status_code(), code_of(answer)) == (429, "TOO_MANY_REQUESTS")


async def test_scope_when_missing_then_mismatch(scene: Scene) -> None:
    await scene.people(1)
    scene.emulator.missing_scopes.add("ZohoCRM.modules.leads.CREATE")
    answer = await scene.create([person(2)])
    assert (answer.get_status_code(), code_of(answer)) == (401, "OAUTH_SCOPE_MISMATCH")


# -- our driver, as the SDK sees its work ------------------------------------------------------------------------


async def test_lead_when_the_driver_writes_it_then_the_sdk_reads_it(scene: Scene) -> None:
    driver = await connected(Zoho, scene.emulator)
    writes = [
        Write(target_id=f"target-{n}", operation=Operation.CREATE, object=Object.LEAD, fields=person(n))
        for n in range(3)
    ]
    results = await driver.write_batch(writes)
    assert {one.outcome for one in results} == {Outcome.APPLIED}
    for number, result in enumerate(results):
        read = await scene.ask(leads().get_record, int(result.remote_id), ParameterMap(), HeaderMap())
        (record,) = read.get_object().get_data()
        assert record.get_key_value("Last_Name") == f"Lin {number}"
