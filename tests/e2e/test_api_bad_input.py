"""Bad input is answered with a clear error that names the place and the way out; nothing is half-written."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

from .conftest import House

pytestmark = pytest.mark.postgres

FIELDS = {
    "type", "title", "status", "detail", "code", "subcode", "message", "provider", "operation", "outcome",
    "retry_safe", "retry_after_seconds", "fix", "say_to_customer", "request_id", "audit_id", "provider_facts",
}  # fmt: skip


def check(
    answer: httpx.Response, status: int, code: str, *, field: str = "", says: str = ""
) -> dict[str, Any]:
    """The answer is a problem of this status and code, whole, and names what it should."""
    body: dict[str, Any] = answer.json()
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert body["code"] == code, body
    assert body.keys() >= FIELDS, FIELDS - body.keys()
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["fix"]["action"] and body["fix"]["hint"]
    assert "Traceback" not in answer.text
    if field:
        assert field in {entry["field"] for entry in body.get("fields", [])}, body
    if says:
        assert says in answer.text, answer.text
    return body


async def test_key_when_missing_or_wrong_then_401(house: House) -> None:
    await house.tenant("acme")
    for headers in ({}, {"Authorization": "Bearer crmb_live_" + "x" * 43}, {"Authorization": "Basic abc"}):
        answer = await house.http.get("/api/tenants/acme", headers=headers)
        check(answer, 401, "auth_error")
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_tenant_when_of_another_key_then_404_like_an_unknown_one(house: House) -> None:
    await house.tenant("acme")
    await house.tenant("other")
    token = await house.token("other", "read", "write:lead")
    for tenant in ("acme", "nobody", str(uuid4())):
        check(await house.call("GET", f"/api/tenants/{tenant}", token=token), 404, "not_found")
        body = {"fields": {"email": "a@example.com"}, "idempotency_key": "k"}
        check(
            await house.call("POST", f"/api/tenants/{tenant}/records/lead", token=token, json=body),
            404,
            "not_found",
        )


async def test_scope_when_missing_then_403_names_it(house: House) -> None:
    await house.tenant("acme")
    token = await house.token("acme", "read")
    body = {"fields": {"email": "a@example.com"}, "idempotency_key": "k"}
    answer = await house.call("POST", "/api/tenants/acme/records/lead", token=token, json=body)
    assert check(answer, 403, "auth_error", says="write:lead")["subcode"] == "insufficient_scope"
    check(
        await house.call("POST", "/api/tenants", token=token, json={"slug": "x", "name": "x"}),
        404,
        "not_found",
    )


async def test_object_when_unknown_then_404_names_the_known_ones(house: House) -> None:
    await house.tenant("acme")
    answer = await house.call("POST", "/api/tenants/acme/records/spaceship", json={"fields": {}})
    check(answer, 404, "not_found", says="appointment")


async def test_body_when_not_json_or_of_wrong_shape_then_422_names_the_place(house: House) -> None:
    await house.tenant("acme")
    path = "/api/tenants/acme/records/lead"
    headers = {"Content-Type": "application/json"}
    check(await house.call("POST", path, content=b"{not json", headers=headers), 422, "validation_error")
    check(await house.call("POST", path, content=b"", headers=headers), 422, "validation_error")
    check(await house.call("POST", path, json={"fields": "text"}), 422, "validation_error", field="fields")
    check(
        await house.call("POST", path, json={"fields": {}, "filds": 1}), 422, "validation_error", says="filds"
    )


async def test_body_when_too_large_then_413_names_the_limit(house: House) -> None:
    await house.tenant("acme")
    body = {"fields": {"message": "x" * 70_000}, "idempotency_key": "k"}
    check(
        await house.call("POST", "/api/tenants/acme/records/lead", json=body),
        413,
        "validation_error",
        says="65536",
    )


async def test_write_when_tenant_has_no_connection_then_409_not_configured(house: House) -> None:
    await house.tenant("acme")
    body = {"fields": {"email": "a@example.com"}, "idempotency_key": "k"}
    check(await house.call("POST", "/api/tenants/acme/records/lead", json=body), 409, "not_configured")
    check(await house.call("GET", "/api/tenants/acme/records/lead/7"), 409, "not_configured")


async def test_create_when_key_is_missing_then_422_names_it(house: House) -> None:
    await house.tenant("acme")
    await house.connect("acme", "custom_webhook")
    answer = await house.call(
        "POST", "/api/tenants/acme/records/lead", json={"fields": {"email": "a@example.com"}}
    )
    check(answer, 422, "validation_error", field="idempotency_key")


async def test_key_when_reused_with_another_body_then_409_and_with_the_same_the_first_answer(
    house: House,
) -> None:
    await house.tenant("acme")
    await house.connect("acme", "custom_webhook")
    path = "/api/tenants/acme/records/lead"
    first = await house.call(
        "POST", path, json={"fields": {"email": "a@example.com"}, "idempotency_key": "k"}
    )
    again = await house.call(
        "POST", path, json={"fields": {"email": "a@example.com"}, "idempotency_key": "k"}
    )
    assert first.status_code == again.status_code == 202
    assert first.json()["write_id"] == again.json()["write_id"] and again.json()["replayed"]
    other = await house.call(
        "POST", path, json={"fields": {"email": "b@example.com"}, "idempotency_key": "k"}
    )
    check(other, 409, "conflict")
    twice = {"fields": {"email": "a@example.com"}, "idempotency_key": "k"}
    headers = {"Idempotency-Key": "another"}
    check(await house.call("POST", path, json=twice, headers=headers), 422, "validation_error")


async def test_fields_when_unknown_or_of_wrong_type_then_all_are_named_at_once(house: House) -> None:
    await house.tenant("acme")
    await house.connect("acme", "rest_api")
    fields = {"email": "not an address", "phone": "12", "budget_max": "much", "shoe_size": 44}
    body = {"fields": fields, "idempotency_key": "k"}
    answer = check(
        await house.call("POST", "/api/tenants/acme/records/lead", json=body), 422, "validation_error"
    )
    assert {entry["field"] for entry in answer["fields"]} == {
        "lead.email", "lead.phone", "lead.budget_max", "lead.shoe_size",
    }  # fmt: skip
    assert "not an address" not in str(answer), "a refusal does not repeat what may be personal"
    counts = (await house.call("GET", "/api/tenants/acme/writes")).json()["counts"]
    assert set(counts.values()) == {0}


async def test_slot_when_unknown_under_the_note_policy_then_kept_in_the_free_text(house: House) -> None:
    await house.tenant("keeper", unknown_slots="note")
    await house.connect("keeper", "rest_api")
    body = {"fields": {"email": "a@example.com", "shoe_size": 44}, "idempotency_key": "k", "mode": "plan"}
    answer = await house.call("POST", "/api/tenants/keeper/records/lead", json=body)
    assert answer.status_code == 200, answer.text
    assert "shoe_size: 44" in answer.text


async def test_reserved_driver_when_connected_then_refused_with_the_way_out(house: House) -> None:
    await house.tenant("acme")
    body = {"driver": "opentable", "settings": {}}
    answer = await house.call("POST", "/api/tenants/acme/credentials", json=body)
    assert check(answer, 422, "unsupported", says="custom_webhook")["subcode"] == "driver_unavailable"
    check(
        await house.call("POST", "/api/tenants/acme/credentials", json={"driver": "nothing", "settings": {}}),
        409,
        "not_configured",
        says="rest_api",
    )


@pytest.mark.parametrize(
    "address", ["http://169.254.169.254/", "http://10.0.0.1/", "ftp://example.com", "odoo.example"]
)
async def test_address_when_private_or_odd_then_the_form_names_the_setting(
    house: House, address: str
) -> None:
    await house.tenant("acme")
    settings = {"url": address, "database": "d", "username": "u", "api_key": "k" * 40}
    answer = await house.call(
        "POST", "/api/tenants/acme/credentials", json={"driver": "odoo", "settings": settings}
    )
    check(answer, 422, "validation_error", field="url")
    assert "k" * 40 not in answer.text


async def test_address_when_unknown_then_404_problem(house: House) -> None:
    check(await house.call("GET", "/api/nothing"), 404, "not_found")


async def test_write_when_unknown_then_404(house: House) -> None:
    await house.tenant("acme")
    check(await house.call("GET", f"/api/tenants/acme/writes/{uuid4()}"), 404, "not_found")
    check(
        await house.call("GET", "/api/tenants/acme/writes?state=lost"), 422, "validation_error", field="state"
    )
