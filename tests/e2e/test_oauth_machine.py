"""Client credentials with a shared token, a provider's own sign-in, and the gate for health data."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.e2e.acme.house import AcmeHouse
from tests.e2e.conftest import PAPERS

pytestmark = pytest.mark.postgres
OWN = {"client_id": "tenants-own", "client_secret": "s3cret-of-the-tenant"}


async def live_test(house: AcmeHouse, credential_id: str) -> dict[str, Any]:
    answer = await house.http.post(f"{house.path}/credentials/{credential_id}/test")
    return dict(answer.json())


async def machine(house: AcmeHouse) -> str:
    assert (await house.http.put(f"{house.path}/gate", json=PAPERS)).json()["is_open"]
    credential_id = await house.by_form("acme_machine", **OWN)
    assert (await live_test(house, credential_id))["ok"]
    await house.activate(credential_id)
    return credential_id


async def test_burst_when_64_callers_find_no_token_then_one_token_call(acme: AcmeHouse) -> None:
    await machine(acme)
    assert acme.acme.grants == {"client_credentials": 1}
    acme.acme.expire_access()
    answers = await asyncio.gather(*(acme.recent() for _ in range(64)))
    assert {answer.status_code for answer in answers} == {200}
    assert acme.acme.grants == {"client_credentials": 2}


async def test_token_when_never_said_to_expire_then_kept_until_refused(acme: AcmeHouse) -> None:
    acme.acme.life = None
    credential_id = await machine(acme)
    assert (await acme.credential(credential_id))["expires_at"] is None
    assert (await acme.recent()).status_code == 200
    assert acme.acme.grants == {"client_credentials": 1}


async def test_client_when_the_tenants_own_is_refused_then_the_tenant_must_reconnect(acme: AcmeHouse) -> None:
    credential_id = await machine(acme)
    acme.acme.expire_access()
    acme.acme.token_error = (401, {"error": "invalid_client"})
    assert (await acme.recent()).json()["subcode"] == "invalid_credentials"
    assert (await acme.credential(credential_id))["status"] == "needs_reauthorization"
    # Corrected at the provider: the live test brings it back.
    acme.acme.token_error = None
    assert (await live_test(acme, credential_id))["ok"]
    assert (await acme.recent()).status_code == 200


async def test_form_when_the_secret_is_wrong_then_the_test_says_so(acme: AcmeHouse) -> None:
    await acme.http.put(f"{acme.path}/gate", json=PAPERS)
    credential_id = await acme.by_form("acme_machine", client_id="tenants-own", client_secret="wrong-one")
    report = await live_test(acme, credential_id)
    assert not report["ok"] and report["error"]["subcode"] == "invalid_credentials"
    assert "wrong-one" not in str(report)


async def test_sign_in_when_a_provider_has_its_own_then_its_token_is_shared_and_renewed(
    acme: AcmeHouse,
) -> None:
    credential_id = await acme.by_form("acme_login", user="ann", password="opensesame")
    assert (await live_test(acme, credential_id))["ok"]
    await acme.activate(credential_id)
    await asyncio.gather(*(acme.recent() for _ in range(16)))
    assert acme.acme.grants == {"login": 1}
    acme.acme.expire_access()
    answers = await asyncio.gather(*(acme.recent() for _ in range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert acme.acme.grants == {"login": 2}


async def test_gate_when_shut_then_no_test_no_activation_and_no_socket(acme: AcmeHouse) -> None:
    credential_id = await acme.by_form("acme_machine", **OWN)
    report = await live_test(acme, credential_id)
    assert report["error"]["code"] == "gate_closed" and "baa_reference" in report["error"]["message"]
    half = {name: PAPERS[name] for name in ("baa_reference", "baa_signatory", "baa_signed_on")}
    shown = (await acme.http.put(f"{acme.path}/gate", json=half)).json()
    assert not shown["is_open"] and shown["missing"] == ["reviewer", "reviewed_on"]
    refused = await acme.http.post(f"{acme.path}/credentials/{credential_id}/activate")
    assert refused.status_code in (403, 409)
    assert not (await live_test(acme, credential_id))["ok"]
    assert acme.acme.requests == []


async def test_gate_when_closed_again_then_calls_stop_and_the_vault_stays_shut(
    acme: AcmeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    credential_id = await machine(acme)
    assert (await acme.recent()).status_code == 200
    closed = (await acme.http.delete(f"{acme.path}/gate")).json()
    assert closed["is_closed"] and not closed["is_open"] and closed["baa_reference"] == "BAA-2026-14"
    seen = len(acme.acme.requests)
    opened: list[str] = []
    real = acme.services.vault.open_credential

    async def watched(*parts: Any, **names: Any) -> Any:
        opened.append("a credential")
        return await real(*parts, **names)

    monkeypatch.setattr(acme.services.vault, "open_credential", watched)
    answer = await acme.recent()
    assert answer.status_code == 403 and answer.json()["code"] == "gate_closed"
    headers = {"Idempotency-Key": "gate", "Prefer": "wait=1"}
    body = {"fields": {"full_name": "Ann"}}
    waiting = await acme.http.post(f"{acme.path}/records/customer", json=body, headers=headers)
    assert waiting.status_code == 202
    again = await acme.http.post(f"{acme.path}/credentials/{credential_id}/activate")
    assert again.status_code == 403 and again.json()["code"] == "gate_closed"
    assert len(acme.acme.requests) == seen and opened == []
    monkeypatch.undo()
    await acme.http.put(f"{acme.path}/gate", json=PAPERS)
    assert (await acme.recent()).status_code == 200


async def test_gate_when_recorded_then_audited_without_names(acme: AcmeHouse) -> None:
    await acme.http.put(f"{acme.path}/gate", json=PAPERS)
    await acme.http.delete(f"{acme.path}/gate")
    shown = (await acme.http.get(f"{acme.path}/gate")).json()
    assert shown["baa_signatory"] == "Dr. Ann Lee" and shown["recorded_by"].startswith("key:")
    rows = await acme.services.audit.read(acme.tenant.id, limit=100)
    told = {row.action: row.details for row in rows}
    assert told["gate.recorded"]["baa_reference"] == "BAA-2026-14" and told["gate.recorded"]["is_open"]
    assert "gate.closed" in told and "Ann" not in str(told) and "Roe" not in str(told)


@pytest.mark.parametrize(
    "change", [{"reviewed_on": "2999-01-01"}, {"reviewer": "a\nb"}, {"baa_reference": "x" * 201}]
)
async def test_gate_when_a_paper_is_wrong_then_named(acme: AcmeHouse, change: dict[str, str]) -> None:
    answer = await acme.http.put(f"{acme.path}/gate", json={**PAPERS, **change})
    assert answer.status_code == 422 and answer.json()["fields"]
    assert not (await acme.http.get(f"{acme.path}/gate")).json()["is_open"]
