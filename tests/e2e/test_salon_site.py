"""A salon by form: an API key, and a staff user that is optional. Against its emulator over a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from .conftest import PERSON, WAIT, House, OpenHouse

pytestmark = pytest.mark.postgres


@pytest.fixture
async def salon(open_house: OpenHouse) -> AsyncIterator[House]:
    """The emulated site; the tenant ``salon`` is there."""
    async with open_house("mindbody") as house:
        await house.tenant("salon", vertical="salon", region="US")
        yield house


async def connect(house: House, **changes: str) -> dict[str, Any]:
    """The form as an operator fills it in; answers the test's report."""
    site = house.emulators["mindbody"]
    settings = {**site.settings(), **site.secrets(), **changes}
    body = {"driver": "mindbody", "settings": {name: text for name, text in settings.items() if text}}
    path = "/api/tenants/salon/credentials"
    made = await house.call("POST", path, json=body)
    assert made.status_code == 201, made.text
    tested = (await house.call("POST", f"{path}/{made.json()['id']}/test")).json()
    assert tested["ok"], tested
    active = await house.call("POST", f"{path}/{made.json()['id']}/activate")
    assert active.json()["status"] == "active", active.text
    return dict(tested)


async def create(house: House, obj: str, fields: dict[str, Any], **more: Any) -> str:
    body = {"fields": fields, "idempotency_key": f"{obj}-1", **more}
    answer = await house.call("POST", f"/api/tenants/salon/records/{obj}", json=body, headers=WAIT)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["targets"][0]["remote_id"])


async def test_salon_when_a_staff_user_is_there_then_one_token_for_all_and_a_booking(salon: House) -> None:
    site = salon.emulators["mindbody"]
    await connect(salon)
    client = await create(salon, "customer", PERSON)
    links = {"customer": {"remote_id": client}}
    start = {"start_at": "2027-01-15T18:30:00Z", "service": "Hair cut", "staff": "Iris Lindqvist"}
    booked = await create(salon, "appointment", start, links=links)
    path = f"/api/tenants/salon/records/appointment/{booked}"
    answers = await asyncio.gather(*(salon.call("GET", path) for _ in range(12)))
    assert {answer.status_code for answer in answers} == {200}
    assert answers[0].json()["fields"]["start_at"] == "2027-01-15T18:30:00Z"
    assert site.appointments.rows[int(booked)].fields["StartDateTime"] == "2027-01-15T10:30:00"
    assert site.calls["usertoken.issue"] == 1
    site._tokens.clear()
    answers = await asyncio.gather(*(salon.call("GET", path) for _ in range(12)))
    assert {answer.status_code for answer in answers} == {200}
    assert site.calls["usertoken.issue"] == 2


async def test_salon_when_no_staff_user_then_leads_are_written_and_reads_say_what_to_fill_in(
    salon: House,
) -> None:
    site = salon.emulators["mindbody"]
    report = await connect(salon, staff_username="", staff_password="")
    assert "staff user" in str(report)
    lead = await create(salon, "lead", PERSON)
    assert site.clients.rows[int(lead)].fields["IsProspect"] is True
    seen = len(site.requests)
    refused = await salon.call("GET", f"/api/tenants/salon/records/customer/{lead}")
    assert refused.json()["code"] == "unsupported"
    assert "staff user name and password" in refused.json()["fix"]["hint"]
    assert (len(site.requests), site.calls["usertoken.issue"]) == (seen, 0)


async def test_salon_when_a_client_is_to_be_deleted_then_the_task_for_a_person(salon: House) -> None:
    await connect(salon)
    client = await create(salon, "customer", PERSON)
    headers = {**WAIT, "Idempotency-Key": "d"}
    gone = await salon.call("DELETE", f"/api/tenants/salon/records/customer/{client}", headers=headers)
    problem = gone.json()
    assert (problem["code"], problem["subcode"]) == ("unsupported", "delete_unsupported")
    assert problem["fix"]["action"] == "erase_by_hand" and "Mindbody dashboard" in problem["fix"]["hint"]


async def test_salon_when_a_required_field_is_missing_then_a_dead_letter_names_it(salon: House) -> None:
    site = salon.emulators["mindbody"]
    site.required = ["Email", "BirthDate"]
    await connect(salon)
    body = {"fields": PERSON, "idempotency_key": "no-birthday"}
    answer = await salon.call("POST", "/api/tenants/salon/records/customer", json=body, headers=WAIT)
    assert "BirthDate" in answer.text and site.calls["clients.create"] == 0
