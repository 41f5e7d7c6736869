"""Tokens that expire: one refresh over all callers and processes, one retry, and what a dead grant does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.acme.house import AcmeHouse
from tests.e2e.acme.processes import other_process, start

from crmbridge.core.records import Object
from crmbridge.core.secret import Secret
from crmbridge.db.pool import connect
from crmbridge.db.roles import RoleDsns
from crmbridge.services.connections.lending import ILL_SECONDS

pytestmark = pytest.mark.postgres
ROOT = Path(__file__).parents[2]
LEAD = {"fields": {"full_name": "Ann Lee", "email": "ann@example.com"}}


async def write(house: AcmeHouse, key: str) -> dict[str, Any]:
    headers = {"Idempotency-Key": key, "Prefer": "wait=10"}
    answer = await house.http.post(f"{house.path}/records/customer", json=LEAD, headers=headers)
    assert answer.status_code in (200, 201, 202), answer.text
    return dict(answer.json())


async def test_read_when_the_token_has_expired_then_one_refresh_and_one_retry(acme: AcmeHouse) -> None:
    credential_id = await acme.connected()
    before = await acme.credential(credential_id)
    acme.acme.expire_access()
    acme.acme.requests.clear()
    assert (await acme.recent()).status_code == 200
    paths = [request.url.split("?")[0].rsplit("/", 1)[1] for request in acme.acme.requests]
    assert paths == ["contacts", "token", "contacts"]
    after = await acme.credential(credential_id)
    assert after["row_version"] == before["row_version"] + 1 and after["rotated_at"] > before["rotated_at"]
    assert after["facts"]["instance"] != before["facts"]["instance"]
    assert (await acme.actions()).count("credential.refreshed") == 1
    # The renewed token serves the next calls.
    assert (await acme.recent()).status_code == 200
    assert acme.acme.grants["refresh_token"] == 1


async def test_write_when_the_token_has_expired_then_applied_once(acme: AcmeHouse) -> None:
    await acme.connected()
    acme.acme.expire_access()
    made = await write(acme, "first")
    assert made["targets"][0]["state"] == "applied", made
    assert acme.acme.grants["refresh_token"] == 1 and acme.acme.written == 1


async def test_token_when_past_its_time_then_renewed_before_the_call(acme: AcmeHouse) -> None:
    acme.acme.life = "1"
    await acme.connected()
    await asyncio.sleep(1.1)
    acme.acme.life = 1800
    acme.acme.requests.clear()
    assert (await acme.recent()).status_code == 200
    assert "/token" in acme.acme.requests[0].url and len(acme.acme.requests) == 2


async def test_second_401_when_the_new_token_is_refused_too_then_a_right_is_missing(acme: AcmeHouse) -> None:
    credential_id = await acme.connected()
    acme.acme.refuses_all_tokens = True
    for _ in range(4):
        answer = await acme.recent()
        assert answer.status_code == 403 and answer.json()["subcode"] == "insufficient_scope"
    assert acme.acme.grants["refresh_token"] == 1, "a denied right costs no token call each time"
    assert (await acme.credential(credential_id))["status"] == "active"
    acme.acme.refuses_all_tokens = False
    assert (await acme.recent()).status_code == 200


async def test_grant_when_revoked_then_one_incident_and_no_more_calls(acme: AcmeHouse) -> None:
    credential_id = await acme.connected()
    acme.acme.expire_access()
    acme.acme.refresh.clear()
    answers = await asyncio.gather(*(acme.recent() for _ in range(16)))
    assert {(a.json()["code"], a.json()["subcode"]) for a in answers} == {("auth_error", "refresh_failed")}
    assert (await acme.credential(credential_id))["status"] == "needs_reauthorization"
    incidents = (await acme.http.get("/api/incidents")).json()["incidents"]
    assert [each["kind"] for each in incidents] == ["reauthorization_needed"]
    assert (await acme.actions()).count("credential.refresh_failed") == 1
    seen = len(acme.acme.requests)
    again = await acme.recent()
    assert again.json()["subcode"] == "refresh_failed" and len(acme.acme.requests) == seen
    # A new consent heals it, and the incident goes.
    link = await acme.start()
    async with acme.browser() as browser:
        await browser.get(link["url"], follow_redirects=True)
    await acme.activate(link["flow_id"])
    assert (await acme.recent()).status_code == 200
    assert (await acme.http.get("/api/incidents")).json()["incidents"] == []


@pytest.mark.parametrize(
    ("status", "tree", "code"),
    [
        (401, {"error": "invalid_client"}, "not_configured/oauth_app_refused"),
        (400, {"error": "unauthorized_client"}, "not_configured/oauth_app_refused"),
        (503, {"error": "invalid_grant"}, "unavailable"),
        (400, {"error": "Access Denied"}, "rate_limited"),
        (429, {}, "rate_limited"),
        (200, {"error": "invalid_client"}, "not_configured/oauth_app_refused"),
        (200, {}, "unavailable"),
    ],
)
async def test_refresh_when_it_fails_for_another_reason_then_the_tenant_stays_connected(
    acme: AcmeHouse, status: int, tree: dict[str, Any], code: str
) -> None:
    credential_id = await acme.connected()
    acme.acme.expire_access()
    acme.acme.token_error = (status, tree)
    answer = (await acme.recent()).json()
    assert "/".join(filter(None, (answer["code"], answer["subcode"]))) == code
    assert answer["outcome"] == "not_applied"
    assert (await acme.credential(credential_id))["status"] == "active"
    assert (await acme.http.get("/api/incidents")).json()["incidents"] == []
    if code == "rate_limited":
        again = (await acme.recent()).json()
        assert again["retry_after_seconds"] > 50 and acme.acme.grants["refused"] == 1, "not asked again"
    else:
        acme.acme.token_error = None
        await asyncio.sleep(ILL_SECONDS)
        assert (await acme.recent()).status_code == 200


async def test_refresh_when_told_to_wait_and_the_clock_is_set_back_then_no_longer_than_told(
    acme: AcmeHouse,
) -> None:
    await acme.connected()
    acme.acme.expire_access()
    acme.acme.token_error = (429, {})
    assert (await acme.recent()).json()["code"] == "rate_limited"
    tenant_id = acme.tenant.id
    async with acme.services.db.tenant(tenant_id) as conn:
        await conn.execute(
            "update tenant_credentials set token_not_before = token_not_before + interval '5 hours'"
        )
    await acme.services.connections.mend_times(tenant_id, 900, 18_000)
    assert 30 < (await acme.recent()).json()["retry_after_seconds"] <= 60


async def test_waiting_writes_when_the_app_is_refused_then_they_go_on_once_it_is_corrected(
    acme: AcmeHouse,
) -> None:
    await acme.connected()
    acme.acme.expire_access()
    acme.acme.token_error = (401, {"error": "invalid_client"})
    headers = {"Idempotency-Key": "later", "Prefer": "wait=1"}
    answer = await acme.http.post(f"{acme.path}/records/customer", json=LEAD, headers=headers)
    assert answer.status_code == 202, answer.text
    acme.acme.token_error = None
    for _ in range(200):
        found = (await acme.http.get(f"{acme.path}/writes/{answer.json()['write_id']}")).json()
        if found["targets"][0]["state"] == "applied":
            break
        await asyncio.sleep(0.1)
    assert found["targets"][0]["state"] == "applied", found
    assert acme.acme.written == 1


async def test_refresh_when_the_caller_goes_away_then_the_tokens_are_saved(acme: AcmeHouse) -> None:
    await acme.connected()
    acme.acme.expire_access()
    acme.acme.token_seconds = 0.5
    connection = await acme.services.connections.open(acme.tenant.id)
    caller = asyncio.create_task(connection.list_recent(Object.CUSTOMER, actor="test"))
    await asyncio.sleep(0.2)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    await asyncio.sleep(0.6)
    assert (await acme.recent()).status_code == 200
    assert acme.acme.grants["refresh_token"] == 1 and acme.acme.deaths == 0


async def test_process_when_killed_between_exchange_and_save_then_the_row_is_whole(
    acme: AcmeHouse, master_key: Secret, database_dsns: RoleDsns
) -> None:
    credential_id = await acme.connected()
    before = await acme.credential(credential_id)
    acme.acme.expire_access()
    process = await other_process(acme, master_key, 1, "hang")
    conn = await connect(database_dsns.owner)
    # The save waits at this lock: the provider has answered by then, nothing is written.
    await conn.execute("begin")
    await conn.execute("lock table audit_log in access exclusive mode")
    start(process)
    while not acme.acme.grants["refresh_token"]:
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    process.kill()
    await process.wait()
    await conn.execute("rollback")
    await conn.close()
    after = await acme.credential(credential_id)
    assert (after["row_version"], after["status"]) == (before["row_version"], "active")
    # The grant itself is lost: Acme knows the old refresh token as used. That ends in one incident, not in silence.
    answer = await acme.recent()
    assert answer.json()["subcode"] == "refresh_failed"
    assert (await acme.credential(credential_id))["status"] == "needs_reauthorization"


async def test_tokens_when_rows_are_read_raw_then_nowhere_in_plain_text(
    acme: AcmeHouse, database_dsns: RoleDsns
) -> None:
    await acme.connected()
    acme.acme.expire_access()
    await acme.recent()
    conn = await connect(database_dsns.owner)
    tables = [
        row[0] for row in await conn.fetch("select tablename from pg_tables where schemaname = 'crmbridge'")
    ]
    raw = ""
    for table in tables:
        await conn.execute(f"alter table {table} no force row level security")
        raw += str([tuple(row) for row in await conn.fetch(f"select * from {table}")])
    await conn.close()
    tokens = [*acme.acme.access, *acme.acme.refresh, *acme.acme.used]
    assert len(tokens) >= 3 and not [token for token in tokens if token in raw]
