"""The path of a write and of a read, through the public HTTP face, against emulators over sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from .conftest import House

pytestmark = pytest.mark.postgres

LEAD = {"first_name": "Layla", "last_name": "Haddad", "email": "Layla@Example.com", "phone": "050 123 4567"}


async def settled(house: House, tenant: str, write_id: str, *, seconds: float = 10) -> dict[str, Any]:
    """The write once nothing more happens by itself."""
    for _ in range(int(seconds * 20)):
        view: dict[str, Any] = (await house.call("GET", f"/api/tenants/{tenant}/writes/{write_id}")).json()
        if view["targets"][0]["state"] in ("applied", "dead_letter", "parked"):
            return view
        await asyncio.sleep(0.05)
    raise AssertionError(f"not settled: {view}")


@pytest.mark.parametrize("slug", ["rest_api", "odoo"])
async def test_record_when_written_read_changed_and_deleted_then_every_verb_works(
    house: House, slug: str
) -> None:
    await house.tenant("acme")
    await house.connect("acme", slug)
    records = "/api/tenants/acme/records/lead"
    wait = {"Prefer": "wait=10"}
    made = await house.call("POST", records, json={"fields": LEAD, "idempotency_key": "k1"}, headers=wait)
    assert made.status_code == 201, made.text
    remote_id = made.json()["targets"][0]["remote_id"]
    read = (await house.call("GET", f"{records}/{remote_id}")).json()
    assert read["remote_id"] == remote_id and read["fields"]["phone"] == "+971501234567"
    changed = await house.call(
        "PATCH", f"{records}/{remote_id}", json={"fields": {"phone": "+971501234568"}}, headers=wait
    )
    assert changed.status_code == 200, changed.text
    found = await house.call("POST", f"{records}/search", json={"equals": {"phone": "+971501234568"}})
    assert [record["remote_id"] for record in found.json()["records"]] == [remote_id], found.text
    recent = await house.call("GET", f"{records}?limit=5")
    assert remote_id in [record["remote_id"] for record in recent.json()["records"]]
    schema = await house.call("GET", "/api/tenants/acme/schema/lead")
    assert schema.status_code in (200, 422)
    gone = await house.call("DELETE", f"{records}/{remote_id}", headers=wait)
    assert gone.status_code == 200 and gone.json()["targets"][0]["delete_level"] == "hard", gone.text
    assert (await house.call("GET", f"{records}/{remote_id}")).status_code == 404
    late = await house.call("DELETE", f"{records}/{remote_id}", headers=wait)
    assert late.status_code == 404 and late.json()["code"] == "not_found", late.text


async def test_upsert_when_the_record_exists_then_updated_and_not_doubled(house: House) -> None:
    await house.tenant("acme")
    await house.connect("acme", "odoo")
    wait = {"Prefer": "wait=10"}
    ids = set()
    for number, city in enumerate(("Dubai", "Sharjah")):
        body = {
            "fields": {"full_name": "Omar", "email": "omar@example.com", "city": city},
            "match": ["email"],
            "idempotency_key": f"k{number}",
        }
        answer = await house.call("POST", "/api/tenants/acme/records/customer", json=body, headers=wait)
        assert answer.status_code == 201, answer.text
        ids.add(answer.json()["targets"][0]["remote_id"])
    assert len(ids) == 1
    looked = await house.call("POST", "/api/tenants/acme/lookup", json={"email": "OMAR@example.com"})
    assert [record["fields"]["city"] for record in looked.json()["records"]] == ["Sharjah"], looked.text


async def test_plan_when_asked_then_shows_the_payload_and_sends_nothing(house: House) -> None:
    await house.tenant("acme")
    await house.connect("acme", "odoo")
    before = len(house.emulators["odoo"].requests)
    body = {"fields": LEAD, "mode": "plan"}
    answer = await house.call("POST", "/api/tenants/acme/records/lead", json=body)
    assert answer.status_code == 200 and "layla@example.com" in answer.text.lower(), answer.text
    assert len(house.emulators["odoo"].requests) == before


async def test_mapping_when_overridden_then_the_next_write_uses_it(house: House) -> None:
    await house.tenant("acme")
    await house.connect("acme", "odoo")
    path = "/api/tenants/acme/mappings"
    changes = {"changes": {"lead.bedrooms": {"path": "x_bedrooms"}, "lead.no_such_slot": {"path": "x"}}}
    refused = await house.call("PUT", path, json=changes)
    assert refused.status_code == 422 and "no_such_slot" in refused.text
    changes["changes"].pop("lead.no_such_slot")
    changed = await house.call("PUT", path, json=changes)
    assert changed.status_code == 200, changed.text
    lines = {f"{line['object']}.{line['slot']}": line for line in changed.json()["mappings"]}
    assert lines["lead.bedrooms"]["origin"] == "tenant" and lines["lead.email"]["origin"] == "driver"
    body = {"fields": {**LEAD, "bedrooms": 3}, "mode": "plan"}
    planned = await house.call("POST", "/api/tenants/acme/records/lead", json=body)
    assert planned.json()["payload"]["row"]["x_bedrooms"] == "3", planned.text


async def test_field_when_the_crm_does_not_know_it_then_dead_letter_with_the_field(house: House) -> None:
    await house.tenant("acme")
    await house.connect("acme", "odoo")
    await house.call(
        "PUT", "/api/tenants/acme/mappings", json={"changes": {"lead.area": {"path": "x_nowhere"}}}
    )
    body = {"fields": {**LEAD, "area": "Marina"}, "idempotency_key": "k"}
    answer = await house.call(
        "POST", "/api/tenants/acme/records/lead", json=body, headers={"Prefer": "wait=10"}
    )
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "validation_error" and "x_nowhere" in answer.text
    view = await settled(house, "acme", answer.json()["write_id"])
    assert view["targets"][0]["state"] == "dead_letter"
    await house.call("PUT", "/api/tenants/acme/mappings", json={"changes": {"lead.area": None}})
    again = await house.call("POST", f"/api/tenants/acme/writes/{view['id']}/redrive")
    assert again.status_code == 200, again.text


async def test_reply_when_cut_after_the_commit_then_found_and_not_sent_again(house: House) -> None:
    await house.tenant("acme")
    await house.connect("acme", "odoo")
    emulator = house.emulators["odoo"]
    emulator.faults.add("cut_after", only="writes", times=1)
    body = {"fields": LEAD, "idempotency_key": "k"}
    answer = await house.call("POST", "/api/tenants/acme/records/lead", json=body)
    view = await settled(house, "acme", answer.json()["write_id"], seconds=30)
    assert view["targets"][0]["state"] == "applied", view
    found = await house.call(
        "POST", "/api/tenants/acme/records/lead/search", json={"equals": {"email": LEAD["email"]}}
    )
    assert len(found.json()["records"]) == 1


async def test_batch_when_one_write_is_bad_then_the_others_are_taken(house: House) -> None:
    await house.tenant("acme")
    await house.connect("acme", "custom_webhook")
    writes = [{"fields": {"email": f"p{n}@example.com"}, "idempotency_key": f"k{n}"} for n in range(5)]
    writes[2]["fields"] = {"email": "broken"}
    answer = await house.call("POST", "/api/tenants/acme/records/lead/batch", json={"writes": writes})
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [("error" in result) for result in results] == [False, False, True, False, False]
    assert results[2]["error"]["fields"][0]["field"] == "lead.email"
    for result in results:
        if "write_id" in result:
            assert (await settled(house, "acme", result["write_id"]))["targets"][0]["state"] == "applied"
    counted = (await house.call("GET", "/api/tenants/acme/writes?limit=2")).json()
    assert counted["counts"]["applied"] == 4 and counted["next_cursor"]
    for wanted, found in (("lead", 4), ("deal", 0)):
        page = (await house.call("GET", f"/api/tenants/acme/writes?object={wanted}")).json()
        assert len(page["writes"]) == found


async def test_credential_when_the_provider_refuses_it_then_one_incident_and_no_hammering(
    house: House,
) -> None:
    await house.tenant("acme")
    await house.connect("acme", "odoo")
    emulator = house.emulators["odoo"]
    emulator.faults.add("status", status=401, times=1, body={"name": "werkzeug.exceptions.Unauthorized"})
    refused = await house.call("GET", "/api/tenants/acme/records/lead")
    assert refused.json()["code"] == "auth_error", refused.text
    before = len(emulator.requests)
    for _ in range(3):
        answer = await house.call("GET", "/api/tenants/acme/records/lead")
        assert (answer.json()["code"], answer.json()["subcode"]) == ("auth_error", "refresh_failed")
    assert len(emulator.requests) == before
    incidents = (await house.call("GET", "/api/incidents?tenant=acme")).json()["incidents"]
    assert [incident["kind"] for incident in incidents] == ["reauthorization_needed"]
    credentials = (await house.call("GET", "/api/tenants/acme/credentials")).json()["credentials"]
    path = f"/api/tenants/acme/credentials/{credentials[0]['id']}"
    assert (await house.call("POST", f"{path}/test")).json()["ok"]
    assert (await house.call("GET", "/api/tenants/acme/records/lead")).status_code == 200


async def test_credential_when_rotated_then_the_old_one_works_until_the_new_is_active(house: House) -> None:
    await house.tenant("acme")
    old = await house.connect("acme", "rest_api")
    new = await house.connect("acme", "rest_api")
    states = {
        entry["id"]: entry["status"]
        for entry in (await house.call("GET", "/api/tenants/acme/credentials")).json()["credentials"]
    }
    assert states == {old: "superseded", new: "active"}
    back = await house.call("POST", f"/api/tenants/acme/credentials/{old}/activate")
    assert back.json()["status"] == "active"
    gone = await house.call("POST", f"/api/tenants/acme/credentials/{new}/revoke")
    assert gone.json()["status"] == "revoked"
    refused = await house.call("POST", f"/api/tenants/acme/credentials/{new}/activate")
    assert refused.status_code == 409
    audit = (await house.call("GET", "/api/tenants/acme/audit?action=credential.activated")).json()["entries"]
    assert audit[0]["details"]["new_credential_id"] == old
    assert audit[0]["details"]["previous_credential_id"] == new


async def test_secrets_when_everything_is_read_back_then_nowhere(house: House) -> None:
    await house.tenant("acme")
    await house.connect("acme", "rest_api")
    secrets = house.emulators["rest_api"].secrets().values()
    for path in ("credentials", "connections", "audit", "mappings", "supports", "writes"):
        answer = await house.call("GET", f"/api/tenants/acme/{path}")
        assert answer.status_code == 200, answer.text
        for secret in secrets:
            assert secret not in answer.text


async def test_openapi_when_asked_then_lists_the_contract(house: House) -> None:
    document = (await house.http.get("/api/openapi.json")).json()
    assert "/api/tenants/{tenant}/records/{object_name}" in document["paths"]
    assert (await house.http.get("/healthz")).json()["status"] == "ok"
    ready = await house.http.get("/readyz")
    assert ready.status_code == 200, ready.text
