"""Activation makes what must be at the provider before the first write, or says why it cannot."""

from __future__ import annotations

import pytest
from tests.e2e.acme.house import AcmeHouse

pytestmark = pytest.mark.postgres


async def test_activation_when_the_driver_prepares_then_made_once_and_kept_as_a_fact(acme: AcmeHouse) -> None:
    credential_id = await acme.connected()
    assert acme.acme.fields == ["external_id"]
    credential = await acme.credential(credential_id)
    assert credential["facts"]["mark"] == "external_id" and credential["facts"]["centre"] == "us"
    answer = await acme.http.post(f"{acme.path}/credentials/{credential_id}/test")
    assert answer.json()["credential"]["facts"]["mark"] == "external_id", "a later test keeps it"
    assert acme.acme.fields == ["external_id"]


async def test_activation_when_preparing_is_refused_then_not_active_and_the_reason_is_told(
    acme: AcmeHouse,
) -> None:
    await acme.put_app()
    link = await acme.start()
    async with acme.browser() as browser:
        await browser.get(link["url"], follow_redirects=True)
    acme.acme.refuses_fields = True
    answer = await acme.http.post(f"{acme.path}/credentials/{link['flow_id']}/activate")
    assert answer.json()["code"] == "auth_error" and answer.json()["operation"] == "prepare", answer.text
    assert (await acme.credential(link["flow_id"]))["status"] == "pending"
    acme.acme.refuses_fields = False
    await acme.activate(link["flow_id"])


async def test_service_key_when_pasted_then_no_consent_and_dead_once_refused(acme: AcmeHouse) -> None:
    acme.acme.access["service-key-of-acme"] = -1
    credential_id = await acme.by_form("acme", access_token="service-key-of-acme")
    assert (await acme.http.post(f"{acme.path}/credentials/{credential_id}/test")).json()["ok"]
    await acme.activate(credential_id)
    assert (await acme.recent()).status_code == 200
    acme.acme.expire_access()
    assert (await acme.recent()).json()["subcode"] == "refresh_failed"
    assert (await acme.credential(credential_id))["status"] == "needs_reauthorization"
    assert not acme.acme.grants, "no token endpoint was asked"
