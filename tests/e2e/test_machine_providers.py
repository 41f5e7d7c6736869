"""Providers that know us by client credentials, against their emulators over sockets: the gate, one token for all
callers, and what a refusal says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from .conftest import PAPERS, PERSON, WAIT, House, OpenHouse

pytestmark = pytest.mark.postgres


@pytest.fixture
async def machines(open_house: OpenHouse) -> AsyncIterator[House]:
    """The emulators of the providers with client credentials."""
    async with open_house("athenahealth", "tekmetric", "toast") as house:
        yield house


async def fill_in(house: House, tenant: str, slug: str, **changes: str) -> str:
    """The form as an operator fills it in: without an access token."""
    emulator = house.emulators[slug]
    secrets = {name: text for name, text in emulator.secrets().items() if name != "access_token"}
    settings = {**emulator.settings(), **secrets, **changes}
    body = {"driver": slug, "settings": {name: text for name, text in settings.items() if text}}
    made = await house.call("POST", f"/api/tenants/{tenant}/credentials", json=body)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def connect(house: House, tenant: str, slug: str, **changes: str) -> None:
    path = f"/api/tenants/{tenant}/credentials/{await fill_in(house, tenant, slug, **changes)}"
    tested = await house.call("POST", f"{path}/test")
    assert tested.json()["ok"], tested.text
    active = await house.call("POST", f"{path}/activate")
    assert active.json()["status"] == "active", active.text


async def create(house: House, tenant: str, obj: str, fields: dict[str, Any], **more: Any) -> httpx.Response:
    body = {"fields": fields, "idempotency_key": f"{obj}-{len(fields)}", **more}
    return await house.call("POST", f"/api/tenants/{tenant}/records/{obj}", json=body, headers=WAIT)


def remote_id(answer: httpx.Response) -> str:
    assert answer.status_code == 201, answer.text
    return str(answer.json()["targets"][0]["remote_id"])


# -- health data -----------------------------------------------------------------------------------------------


async def test_clinic_when_no_papers_are_recorded_then_no_call_leaves(machines: House) -> None:
    clinic = await machines.tenant("clinic", vertical="clinic", region="US")
    practice = machines.emulators["athenahealth"]
    path = f"/api/tenants/{clinic}"
    credential = f"{path}/credentials/{await fill_in(machines, clinic, 'athenahealth')}"
    tested = (await machines.call("POST", f"{credential}/test")).json()
    assert not tested["ok"] and tested["error"]["code"] == "gate_closed"
    assert (await machines.call("POST", f"{credential}/activate")).status_code in (403, 409)
    for call in (
        machines.call("POST", f"{path}/lookup", json={"email": PERSON["email"]}),
        machines.call("GET", f"{path}/records/customer/100"),
        machines.call("GET", f"{path}/schema/case"),
        create(machines, clinic, "case", {"subject": "Refill"}),
    ):
        assert (await call).json()["code"] in ("gate_closed", "not_configured")
    assert practice.requests == []


async def test_clinic_when_the_papers_are_there_then_a_case_is_written_with_one_token(
    machines: House,
) -> None:
    clinic = await machines.tenant("clinic", vertical="clinic", region="US")
    practice = machines.emulators["athenahealth"]
    await machines.call("PUT", f"/api/tenants/{clinic}/gate", json=PAPERS)
    await connect(machines, clinic, "athenahealth")
    patient = remote_id(await create(machines, clinic, "customer", {**PERSON, "birth_date": "1987-03-09"}))
    links = {"customer": {"remote_id": patient}}
    case = await create(machines, clinic, "case", {"subject": "Refill asked"}, links=links)
    assert remote_id(case).startswith(f"{patient}.")
    read = machines.call("GET", f"/api/tenants/{clinic}/records/customer/{patient}")
    answers = await asyncio.gather(read, *(_get(machines, clinic, patient) for _ in range(15)))
    assert {answer.status_code for answer in answers} == {200}
    assert practice.calls["token"] == 1
    gone = await machines.call(
        "DELETE",
        f"/api/tenants/{clinic}/records/customer/{patient}",
        headers={**WAIT, "Idempotency-Key": "d"},
    )
    problem = gone.json()
    assert (problem["subcode"], problem["fix"]["action"]) == ("delete_unsupported", "erase_by_hand")
    # Shut again: reads are refused, a write waits, and nothing leaves.
    await machines.call("DELETE", f"/api/tenants/{clinic}/gate")
    seen = len(practice.requests)
    assert (await _get(machines, clinic, patient)).json()["code"] == "gate_closed"
    await machines.call(
        "POST",
        f"/api/tenants/{clinic}/records/case",
        json={"fields": {"subject": "Second"}, "links": links, "idempotency_key": "second"},
        headers={"Prefer": "wait=1"},
    )
    assert len(practice.requests) == seen


async def _get(house: House, tenant: str, record: str) -> httpx.Response:
    return await house.call("GET", f"/api/tenants/{tenant}/records/customer/{record}")


# -- a token without an end ------------------------------------------------------------------------------------


async def test_shop_when_connected_then_one_token_and_customers_are_never_deleted(machines: House) -> None:
    garage = await machines.tenant("garage", vertical="auto_service", region="US")
    shop = machines.emulators["tekmetric"]
    await connect(machines, garage, "tekmetric")
    customer = remote_id(await create(machines, garage, "customer", PERSON))
    links = {"customer": {"remote_id": customer}}
    visit = {"start_at": "2027-01-15T10:30:00Z", "concern": "Brakes squeal", "vehicle.make": "Kia"}
    appointment = remote_id(await create(machines, garage, "appointment", visit, links=links))
    answers = await asyncio.gather(*(_get(machines, garage, customer) for _ in range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert shop.calls["token"] == 1
    headers = {**WAIT, "Idempotency-Key": "one"}
    refused = await machines.call(
        "DELETE", f"/api/tenants/{garage}/records/customer/{customer}", headers=headers
    )
    assert refused.status_code == 422 and refused.json()["subcode"] == "delete_unsupported", refused.text
    assert "in Tekmetric" in refused.json()["fix"]["hint"]
    gone = await machines.call(
        "DELETE",
        f"/api/tenants/{garage}/records/appointment/{appointment}",
        headers={**WAIT, "Idempotency-Key": "two"},
    )
    assert gone.json()["targets"][0]["delete_level"] == "soft", gone.text


async def test_shop_when_not_in_scope_then_the_test_names_those_that_are(machines: House) -> None:
    garage = await machines.tenant("garage", vertical="auto_service", region="US")
    credential = await fill_in(machines, garage, "tekmetric", shop_id="900")
    tested = (await machines.call("POST", f"/api/tenants/{garage}/credentials/{credential}/test")).json()
    assert not tested["ok"] and tested["error"]["subcode"] == "insufficient_scope"
    assert tested["error"]["provider_facts"]["shops_in_scope"] == ["791", "792"]


# -- a sign-in of its own --------------------------------------------------------------------------------------


async def test_restaurant_when_connected_then_one_sign_in_until_the_token_ends(machines: House) -> None:
    diner = await machines.tenant("diner", vertical="restaurant", region="US")
    till = machines.emulators["toast"]
    await connect(machines, diner, "toast")
    guest = remote_id(await create(machines, diner, "customer", PERSON))
    answers = await asyncio.gather(*(_get(machines, diner, guest) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert till.calls["login"] == 1
    till.clock.advance(86_400)
    answers = await asyncio.gather(*(_get(machines, diner, guest) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert till.calls["login"] == 2
    gone = await machines.call(
        "DELETE", f"/api/tenants/{diner}/records/customer/{guest}", headers={**WAIT, "Idempotency-Key": "d"}
    )
    assert gone.json()["targets"][0]["delete_level"] == "redacted", gone.text
    assert (await _get(machines, diner, guest)).json()["fields"].get("email") is None


async def test_restaurant_when_no_guest_path_then_read_from_orders_and_writes_name_the_setting(
    machines: House,
) -> None:
    diner = await machines.tenant("diner", vertical="restaurant", region="US")
    till = machines.emulators["toast"]
    await connect(machines, diner, "toast", guest_path="")
    recent = (await machines.call("GET", f"/api/tenants/{diner}/records/customer")).json()
    assert [one["fields"]["first_name"] for one in recent["records"]] == ["Ann", "Bo"]
    seen = len(till.requests)
    refused = (await create(machines, diner, "customer", PERSON)).json()
    assert (refused["subcode"], refused["fix"]["action"]) == ("operation_unsupported", "change_settings")
    guest = recent["records"][0]["remote_id"]
    gone = await machines.call(
        "DELETE", f"/api/tenants/{diner}/records/customer/{guest}", headers={**WAIT, "Idempotency-Key": "d"}
    )
    assert gone.json()["subcode"] == "delete_unsupported"
    assert "Individual Rights request" in gone.json()["fix"]["hint"]
    assert len(till.requests) == seen
