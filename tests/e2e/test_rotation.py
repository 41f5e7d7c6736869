"""Rotation of form credentials: the old one serves until the new one is proven, and a way back stays open."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import House

pytestmark = pytest.mark.postgres
CREDENTIALS = "/api/tenants/acme/credentials"


async def written(house: House, key: str) -> Any:
    body = {"fields": {"first_name": "Layla"}, "idempotency_key": key}
    answer = await house.call(
        "POST", "/api/tenants/acme/records/lead", json=body, headers={"Prefer": "wait=10"}
    )
    assert answer.status_code == 201, answer.text
    return house.emulators["custom_webhook"].requests[-1]


async def status(house: House) -> dict[str, str]:
    rows = (await house.call("GET", CREDENTIALS)).json()["credentials"]
    return {row["id"]: row["status"] for row in rows}


async def test_webhook_secret_when_rotated_then_both_signatures_until_the_old_one_is_revoked(
    house: House,
) -> None:
    emulator = house.emulators["custom_webhook"]
    await house.tenant("acme")
    old_id = await house.connect("acme", "custom_webhook")
    assert (await written(house, "k1")).headers["webhook-signature"].count("v1,") == 1
    made = (
        await house.call(
            "POST", CREDENTIALS, json={"driver": "custom_webhook", "settings": emulator.settings()}
        )
    ).json()
    new_id, new_secret = made["id"], made["generated"]["secret"]
    assert made["status"] == "pending" and made["previous_id"] == old_id
    assert (await written(house, "k2")).headers["webhook-signature"].count("v1,") == 1, "the old one serves"
    # The receiver knows only the old secret so far: the test event carries both signatures.
    assert (await house.call("POST", f"{CREDENTIALS}/{new_id}/test")).json()["ok"]
    await house.call("POST", f"{CREDENTIALS}/{new_id}/activate")
    assert await status(house) == {new_id: "active", old_id: "superseded"}
    assert (await written(house, "k3")).headers["webhook-signature"].count("v1,") == 2
    emulator.accepted_secrets = [new_secret]
    assert (await written(house, "k4")).headers["webhook-signature"].count("v1,") == 2
    await house.call("POST", f"{CREDENTIALS}/{old_id}/revoke")
    assert await status(house) == {new_id: "active", old_id: "revoked"}
    assert (await written(house, "k5")).headers["webhook-signature"].count("v1,") == 1
    entries = (await house.call("GET", "/api/tenants/acme/audit?limit=200")).json()["entries"]
    told = {(entry["action"], entry["subject_id"]): entry["details"] for entry in entries}
    assert told["credential.activated", new_id]["previous_credential_id"] == old_id
    assert told["credential.revoked", old_id]["overlap_ended"] is True
    assert new_secret not in str(entries)


async def test_rotation_when_the_new_one_disappoints_then_the_old_one_comes_back(house: House) -> None:
    await house.tenant("acme")
    old_id = await house.connect("acme", "custom_webhook")
    emulator = house.emulators["custom_webhook"]
    body = {"driver": "custom_webhook", "settings": emulator.settings()}
    new_id = (await house.call("POST", CREDENTIALS, json=body)).json()["id"]
    await house.call("POST", f"{CREDENTIALS}/{new_id}/test")
    await house.call("POST", f"{CREDENTIALS}/{new_id}/activate")
    back = await house.call("POST", f"{CREDENTIALS}/{old_id}/activate")
    assert back.status_code == 200, back.text
    assert await status(house) == {old_id: "active", new_id: "superseded"}
    await written(house, "k1")


async def test_rotation_when_the_test_fails_then_the_new_one_cannot_be_activated(house: House) -> None:
    await house.tenant("acme")
    old_id = await house.connect("acme", "rest_api")
    emulator = house.emulators["rest_api"]
    settings = {**emulator.settings(), **dict.fromkeys(emulator.secrets(), "wrong-key-of-the-right-length")}
    made = await house.call("POST", CREDENTIALS, json={"driver": "rest_api", "settings": settings})
    new_id = made.json()["id"]
    assert not (await house.call("POST", f"{CREDENTIALS}/{new_id}/test")).json()["ok"]
    refused = await house.call("POST", f"{CREDENTIALS}/{new_id}/activate")
    assert refused.status_code == 409 and refused.json()["fix"]["action"] == "test_first"
    assert (await status(house))[old_id] == "active"
