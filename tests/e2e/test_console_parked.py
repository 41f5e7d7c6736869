"""The incident of parked writes, as the console and the API show it."""

from __future__ import annotations

import pytest
from tests.e2e.conftest import House
from tests.e2e.console_visitor import text_of, visitor

from crmbridge.services.delivery.lane import telling
from crmbridge.services.delivery.lane.store import Lease
from crmbridge.services.operators.model import Role

pytestmark = pytest.mark.postgres

BASE = "/admin/tenants/harbour/writes"


async def parked(house: House, count: int) -> list[str]:
    """Writes whose outcome cannot be told, with their incident, oldest first."""
    await house.tenant("harbour")
    await house.connect("harbour", "odoo")
    tenant = await house.services.tenants.get("harbour")
    await house.services.connections.routing.pause(tenant, "primary", actor="test")
    ids = []
    for number in range(count):
        body = {"fields": {"last_name": "Reyes"}, "idempotency_key": f"k{number}"}
        answer = await house.call("POST", "/api/tenants/harbour/records/customer", json=body)
        ids.append(answer.json()["write_id"])
    async with house.services.db.tenant(tenant.id) as conn:
        await conn.execute("update write_targets set state = 'parked', finished_at = clock_timestamp()")
        connection_id = await conn.fetchval("select id from connections")
        lease = Lease(connection_id, tenant.id, 1, 0, False)
        last = {"provider": "Odoo", "write_id": ids[-1], "why": "The look-up cannot tell."}
        await telling.tell_parked(conn, house.services.incidents, lease, last)
    return ids


async def test_incident_when_eleven_are_parked_then_its_page_counts_and_leads_to_all_of_them(
    house: House,
) -> None:
    ids = await parked(house, 11)
    (found,) = (await house.call("GET", "/api/incidents?kind=write_parked")).json()["incidents"]
    path = f"/admin/incidents/harbour/{found['id']}"
    async with visitor(house.services, Role.OPERATOR) as operator:
        page = await operator.get(path)
        text = text_of(page)
        assert "11 on primary: list them all" in text and "The look-up cannot tell." in text
        assert "crmbridge writes list harbour --state parked --connection primary" in text
        assert f'href="{BASE}?state=parked&amp;connection=primary"' in page.text
        assert f'href="{BASE}/{ids[0]}"' in page.text and f'href="{BASE}/{ids[-1]}"' in page.text
        listed = await operator.get(f"{BASE}?state=parked&connection=primary")
        assert all(f"{BASE}/{write_id}" in listed.text for write_id in ids)
        assert "resolves itself" in text and "Resolve: its cause is gone" not in text


async def test_incident_when_asked_for_over_http_then_its_details_and_no_early_resolve(house: House) -> None:
    ids = await parked(house, 2)
    (found,) = (await house.call("GET", "/api/incidents?kind=write_parked")).json()["incidents"]
    path = f"/api/incidents/harbour/{found['id']}"
    shown = (await house.call("GET", path)).json()
    assert shown == found and shown["details"]["parked"] == 2
    assert shown["details"]["oldest"]["write_id"] == ids[0]
    await house.tenant("other")
    assert (await house.call("GET", path.replace("harbour", "other"))).status_code == 404
    token = await house.token("harbour", "read")
    assert (await house.call("GET", path, token=token)).status_code == 404
    refused = await house.call("POST", f"{path}/resolve")
    assert refused.status_code == 409 and "2 writes are still parked" in refused.text
    for write_id in ids:
        assert (
            await house.call("POST", f"/api/tenants/harbour/writes/{write_id}/discard")
        ).status_code == 200
    assert (await house.call("GET", path)).json()["state"] == "resolved"


async def test_redrive_when_parked_then_the_box_insists_and_without_it_a_look_up_is_first(
    house: House,
) -> None:
    first, second, third = await parked(house, 3)

    async def state(write_id: str) -> str:
        view = (await house.call("GET", f"/api/tenants/harbour/writes/{write_id}")).json()
        return str(view["targets"][0]["state"])

    async with visitor(house.services, Role.OPERATOR) as operator:
        asked = await operator.get(f"{BASE}/{first}/redrive")
        assert "looked up in the CRM first" in text_of(asked)
        assert 'name="without_looking"' in asked.text and "will be there twice" in text_of(asked)
        # The connection is paused: what is ordered is seen as it was ordered.
        await operator.post(f"{BASE}/{first}/redrive")
        assert await state(first) == "unknown"
        await operator.post(f"{BASE}/{second}/redrive", {"without_looking": "yes"})
        assert await state(second) == "retrying"
        again = await operator.get(f"{BASE}/{first}/cancel")
        assert "without_looking" not in again.text
        many = await operator.get(f"{BASE}/redrive?state=parked")
        assert 'name="without_looking"' in many.text and "looked up in the CRM first" in text_of(many)
        assert "without_looking" not in (await operator.get(f"{BASE}/redrive?state=dead_letter")).text
        await operator.post(f"{BASE}/redrive", {"state": "parked", "without_looking": "yes"})
        assert await state(third) == "retrying"


async def test_redrive_when_over_http_then_looks_first_unless_it_says_without(house: House) -> None:
    first, second, third = await parked(house, 3)
    path = "/api/tenants/harbour/writes"
    looked = (await house.call("POST", f"{path}/{first}/redrive")).json()
    assert looked["targets"][0]["state"] == "unknown"
    for step in ("discard", "cancel"):
        refused = await house.call("POST", f"{path}/{second}/{step}?without_looking=true")
        assert refused.status_code == 422 and "without_looking" in refused.text
    insisted = (await house.call("POST", f"{path}/{second}/redrive?without_looking=true")).json()
    assert insisted["targets"][0]["state"] == "retrying"
    body = {"state": "parked", "without_looking": True}
    assert (await house.call("POST", f"{path}/discard", json=body)).status_code == 422
    assert (await house.call("POST", f"{path}/redrive", json=body)).json()["redriven"] == 1
    view = (await house.call("GET", f"{path}/{third}")).json()
    assert view["targets"][0]["state"] == "retrying"
    assert (await house.call("GET", "/api/incidents?kind=write_parked")).json()["incidents"] == []


async def test_discard_when_it_has_a_reason_then_the_audit_log_keeps_it_whole(house: House) -> None:
    first, second, third = await parked(house, 3)
    path = "/api/tenants/harbour/writes"
    whole = "sent by hand, " + "é" * 486
    assert len(whole) == 500
    for bad in (7, None, ["text"], whole + "!", "a\0b"):
        for address in (f"{path}/{first}/discard", f"{path}/discard"):
            refused = await house.call("POST", address, json={"reason": bad})
            assert refused.status_code == 422, (bad, address, refused.text)
            assert [each["field"] for each in refused.json()["fields"]] == ["reason"], refused.text
    for step in ("redrive", "cancel"):
        refused = await house.call("POST", f"{path}/{first}/{step}", json={"reason": "why"})
        assert refused.status_code == 422 and "Only a discard has a reason" in refused.text
    for write_id, body in ((first, {"reason": whole}), (second, {}), (third, None)):
        done = await house.call("POST", f"{path}/{write_id}/discard", json=body)
        assert done.json()["targets"][0]["state"] == "discarded", done.text
    tenant = await house.services.tenants.get("harbour")
    rows = await house.services.audit.read(tenant.id, action="write.discarded")
    kept = {row.subject_id: row.details.get("reason") for row in rows}
    assert kept == {str(first): whole, str(second): None, str(third): None}


async def test_discard_of_many_when_it_has_a_reason_then_the_audit_log_keeps_it_whole(house: House) -> None:
    await parked(house, 2)
    body = {"state": "parked", "reason": "r" * 500}
    done = await house.call("POST", "/api/tenants/harbour/writes/discard", json=body)
    assert done.json()["discarded"] == 2
    tenant = await house.services.tenants.get("harbour")
    (row,) = await house.services.audit.read(tenant.id, action="write.discarded")
    assert row.details["reason"] == "r" * 500
