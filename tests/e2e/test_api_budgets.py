"""What callers see of rate budgets: the remainder in lists, and a refusal that says when to come again."""

from __future__ import annotations

import json

import msgspec
import pytest

from .conftest import House

pytestmark = pytest.mark.postgres


async def test_budget_when_used_up_then_shown_and_reads_are_refused_and_a_write_waits_in_its_lane(
    house: House,
) -> None:
    tenant = await house.tenant("acme")
    emulator = house.emulators["rest_api"]
    document = msgspec.to_builtins(emulator.document())
    document["rate"] = {"limit": 4, "perSeconds": 600}
    await house.connect(tenant, "rest_api", manifest=json.dumps(document))
    path = f"/api/tenants/{tenant}"

    async def left() -> int:
        [connection] = (await house.call("GET", f"{path}/connections")).json()["connections"]
        burst = next(budget for budget in connection["budgets"] if budget["kind"] == "burst")
        assert burst["limit"] == 4 and burst["per_seconds"] == 600
        return int(burst["remaining"])

    before = await left()
    assert before < 4, "the live test has spent some"
    seen = len(emulator.requests)
    for _ in range(before):
        assert (await house.call("GET", f"{path}/records/lead")).status_code == 200
    assert await left() == 0
    refused = await house.call("GET", f"{path}/records/lead")
    assert refused.status_code == 429, refused.text
    problem = refused.json()
    assert problem["code"] == "rate_limited" and problem["outcome"] == "not_applied"
    assert 500 < problem["retry_after_seconds"] <= 610
    body = {"fields": {"first_name": "Layla", "email": "layla@example.com"}, "idempotency_key": "budget-1"}
    written = await house.call("POST", f"{path}/records/lead", json=body, headers={"Prefer": "wait=2"})
    assert written.status_code == 202, written.text
    view = (await house.call("GET", f"{path}/writes/{written.json()['write_id']}")).json()
    [target] = view["targets"]
    assert target["state"] == "retrying" and target["error"]["code"] == "rate_limited"
    assert len(emulator.requests) == seen + before, "nothing went beyond the budget"
