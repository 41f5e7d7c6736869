"""The map of a connection on the console: shown, tried out, changed and put back."""

from __future__ import annotations

import re

import pytest
from tests.e2e.conftest import House
from tests.e2e.console_visitor import text_of, visitor

from crmbridge.services.operators.model import Role

pytestmark = pytest.mark.postgres

MAP = "/admin/tenants/harbour/crm/mapping"


@pytest.fixture
async def connected(house: House) -> House:
    await house.tenant("harbour")
    await house.connect("harbour", "odoo")
    return house


async def path_in_use(house: House, slot: str) -> str | None:
    answer = await house.call("GET", "/api/tenants/harbour/mappings")
    (line,) = [
        each
        for each in answer.json()["mappings"]
        if f"{each['object']}.{each['slot']}" == slot and each["rule"]
    ]
    path: str | None = line["rule"]["path"]
    return path


async def test_map_when_read_then_every_slot_with_its_field_and_no_step_for_an_auditor(
    connected: House,
) -> None:
    async with visitor(connected.services, Role.AUDITOR) as auditor:
        page = await auditor.get(f"{MAP}?object=customer")
        told = text_of(page)
        assert "email" in told and "driver" in told and "Change" not in told and "Try a record" not in told
        assert f"{MAP}?connection=primary" in (await auditor.get("/admin/tenants/harbour/crm")).text
        for wrong in ("?object=nonsense", "?connection=nonsense"):
            assert (await auditor.get(MAP + wrong)).status_code == 404


async def test_record_when_tried_out_then_the_payload_and_nothing_is_sent(connected: House) -> None:
    before = len(connected.emulators["odoo"].requests)
    sample = {"slot.first_name": "Mei", "slot.last_name": "Lin", "slot.email": "mei@example.com"}
    async with visitor(connected.services, Role.OPERATOR) as operator:
        page = await operator.post(
            f"{MAP}/preview", {"object": "customer", "connection": "primary", **sample}
        )
        told = text_of(page)
        assert page.status_code == 200 and '"email": "mei@example.com"' in told and "Mei Lin" in told
        assert 'value="mei@example.com"' in page.text
        wrong = await operator.post(
            f"{MAP}/preview", {"object": "customer", "slot.email": "<no address>", "slot.last_name": "x"}
        )
        assert wrong.status_code == 422 and "customer.email" in text_of(wrong)
        assert "<no address>" not in wrong.text
    assert len(connected.emulators["odoo"].requests) == before
    assert (await connected.call("GET", "/api/tenants/harbour/writes")).json()["writes"] == []


async def test_slot_when_changed_then_previewed_saved_audited_and_put_back(connected: House) -> None:
    slot = f"{MAP}/customer/phone"
    async with visitor(connected.services, Role.OPERATOR) as operator:
        form = await operator.get(f"{slot}?connection=primary")
        (before,) = re.findall(r'name="path" type="text" value="([^"]*)"', form.text)
        rule = {
            "path": "x_mobile_2",
            "direction": "both",
            "sample": "+971 50 123 4567",
            "connection": "primary",
        }
        preview = await operator.post(slot, {**rule, "step": "preview"})
        assert '"x_mobile_2": "+971501234567"' in text_of(preview)
        assert await path_in_use(connected, "customer.phone") == before
        saved = await operator.post(slot, {**rule, "step": "save"})
        assert "customer.phone is changed" in text_of(await operator.follow(saved))
        assert await path_in_use(connected, "customer.phone") == "x_mobile_2"
        tenant = await connected.services.tenants.get("harbour")
        (row,) = await connected.services.audit.read(tenant.id, action="mapping.changed")
        assert row.actor.startswith("operator:") and row.details["path"] == "x_mobile_2"
        await operator.post(slot, {**rule, "step": "unmap"})
        assert await path_in_use(connected, "customer.phone") is None
        await operator.post(slot, {**rule, "step": "driver"})
        assert await path_in_use(connected, "customer.phone") == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": ""},
        {"path": "two words"},
        {"path": "x", "values": "not json"},
        {"path": "x", "values": "[1]"},
        {"path": "x", "format": "no_such_format"},
        {"path": "x", "direction": "sideways"},
        {"path": "x", "default": "{"},
    ],
)
async def test_slot_when_the_rule_is_wrong_then_told_and_not_changed(
    connected: House, wrong: dict[str, str]
) -> None:
    before = await path_in_use(connected, "customer.phone")
    async with visitor(connected.services, Role.OPERATOR) as operator:
        page = await operator.post(f"{MAP}/customer/phone", {"direction": "both", **wrong, "step": "save"})
        assert page.status_code == 422 and 'role="alert"' in page.text
        assert (await operator.post(f"{MAP}/customer/phone", {"step": "explode"})).status_code == 404
        assert (await operator.get(f"{MAP}/customer/nonsense")).status_code == 404
    assert await path_in_use(connected, "customer.phone") == before
