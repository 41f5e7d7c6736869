"""Two CRMs of one tenant on the console: how they stand, pauses, routes told before they are saved, targets."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from tests.e2e.conftest import House
from tests.e2e.console_visitor import Visitor, text_of, visitor

from crmbridge.core.operations import Operation
from crmbridge.core.records import Object
from crmbridge.services.operators.model import Role

pytestmark = pytest.mark.postgres

API = "/api/tenants/harbour"
BASE = "/admin/tenants/harbour"
PAGE = f"{BASE}/connections"
ROUTES = f"{PAGE}/archive/routes"
REASON = "Data is moved <b>tonight</b>"


async def connect(house: House, slug: str, name: str) -> None:
    emulator = house.emulators[slug]
    settings = {**emulator.settings(), **emulator.secrets()}
    body = {"driver": slug, "settings": settings, "connection": name}
    made = await house.call("POST", f"{API}/credentials", json=body)
    for step in ("test", "activate"):
        answer = await house.call("POST", f"{API}/credentials/{made.json()['id']}/{step}")
        assert answer.status_code == 200, answer.text


@pytest.fixture
async def two(house: House) -> House:
    """The tenant harbour with Odoo as its primary and a REST service that has no routes yet."""
    await house.tenant("harbour")
    await connect(house, "odoo", "primary")
    await connect(house, "rest_api", "archive")
    return house


async def roles(house: House) -> dict[str, dict[str, str]]:
    answer = await house.call("GET", f"{API}/connections")
    return {each["name"]: each["routes"] for each in answer.json()["connections"]}


async def order(house: House, path: str, **body: Any) -> None:
    answer = await house.call("PUT" if path.endswith("routes") else "POST", f"{API}/{path}", json=body)
    assert answer.status_code == 200, answer.text


async def write(house: House, key: str, **fields: str) -> dict[str, Any]:
    answer = await house.call(
        "POST",
        f"{API}/records/lead",
        json={"fields": {"last_name": "Haddad", **fields}, "idempotency_key": key},
        headers={"Prefer": "wait=10"},
    )
    found: dict[str, Any] = answer.json()
    return found


def states(view: dict[str, Any]) -> dict[str, str]:
    return {target["connection"]: target["state"] for target in view["targets"]}


async def told(answer: Any, who: Visitor) -> str:
    return text_of(await who.follow(answer))


def form_of(page: Any) -> dict[str, str]:
    """The hidden fields of the page's form, as a browser would send them."""
    found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text)
    return {name: html.unescape(text) for name, text in found if name != "form_token"}


# ---------------------------------------------------------------------- how they stand


async def test_connections_when_one_is_paused_then_who_since_why_and_what_waits(two: House) -> None:
    await order(two, "connections/archive/routes", routes={"lead": "also"})
    async with visitor(two.services, Role.OPERATOR) as operator:
        asked = await operator.get(f"{PAGE}/archive/pause")
        assert "Pause the connection archive?" in text_of(asked) and "accepted and wait" in text_of(asked)
        for wrong in ("", "   ", "x" * 201):
            refused = await operator.post(f"{PAGE}/archive/pause", {"reason": wrong})
            assert refused.status_code == 422 and "A pause needs a reason" in text_of(refused)
        done = await operator.post(f"{PAGE}/archive/pause", {"reason": REASON})
        page = await operator.follow(done)
        assert "archive is paused" in text_of(page)
        assert re.search(rf"since \d{{4}}-\S+ \S+ by Olga Operator : {re.escape(REASON)}", text_of(page))
        assert "<b>tonight" not in page.text
        again = await told(await operator.post(f"{PAGE}/archive/pause", {"reason": "x"}), operator)
        assert "is paused already" in again
        assert states(await write(two, "a", email="a@example.com"))["archive"] == "accepted"
        await write(two, "b", email="b@example.com")
        listed = await operator.get(PAGE)
        assert "2 accepted on archive" in text_of(listed)
        assert f'href="{BASE}/writes?connection=archive&amp;state=accepted"' in listed.text
        resumed = text_of(await operator.get(f"{PAGE}/archive/resume"))
        assert "2 targets wait" in resumed and f"It was paused because: {REASON}" in resumed
        assert "archive goes on" in await told(await operator.post(f"{PAGE}/archive/resume"), operator)
        assert "is not paused" in await told(await operator.post(f"{PAGE}/archive/resume"), operator)
    tenant = await two.services.tenants.get("harbour")
    (row,) = await two.services.audit.read(tenant.id, action="connection.paused")
    assert row.details == {"connection": "archive", "reason": REASON} and row.request_id
    assert row.actor.startswith("operator:")


async def test_connections_when_read_by_an_auditor_then_all_is_there_and_no_step(two: House) -> None:
    await order(two, "connections/archive/pause", reason="moved")
    async with visitor(two.services, Role.AUDITOR) as auditor:
        page = await auditor.get(PAGE)
        seen = text_of(page)
        assert "Odoo" in seen and "active" in seen and "paused" in seen and "moved" in seen
        assert "Resume" not in seen and "Steps" not in seen and "/routes" not in page.text
        for path in (f"{PAGE}/archive/resume", ROUTES):
            assert (await auditor.get(path)).status_code == 403
            assert (await auditor.post(path, {"step": "preview"})).status_code == 403
    assert (await two.call("POST", f"{API}/connections/archive/resume")).status_code == 200


async def test_connections_when_none_is_primary_for_an_object_then_a_note_says_so(house: House) -> None:
    await house.tenant("harbour")
    async with visitor(house.services, Role.OPERATOR) as operator:
        assert "No CRM is connected" in text_of(await operator.get(PAGE))
        await connect(house, "odoo", "archive")
        assert "No connection is primary for customer, lead" in text_of(await operator.get(PAGE))
        await order(house, "connections/archive/routes", routes={"all": "primary"})
        assert "No connection is primary" not in text_of(await operator.get(PAGE))


# ---------------------------------------------------------------------- routes


async def test_routes_when_changed_then_the_effect_is_said_first_and_saved_after(two: House) -> None:
    before = await roles(two)
    async with visitor(two.services, Role.OPERATOR) as operator:
        form = await operator.get(ROUTES)
        assert form.text.count("<select") == 7 and form.text.count('value="none" selected') == 7
        wanted = {"route.lead": "also", "route.customer": "also", "route.note": "primary"}
        preview = await operator.post(ROUTES, {**wanted, "step": "preview"})
        seen = text_of(preview)
        assert preview.status_code == 200
        assert "customer and lead: archive gets every write too. Reads stay with primary." in seen
        assert "note: reads go to archive, and it decides whether a write is accepted." in seen
        assert "primary, the primary until now, gets every write too" in seen
        assert "are not copied to archive" in seen and "Nothing is saved yet" in seen
        assert await roles(two) == before
        hidden = form_of(preview)
        again = await operator.post(ROUTES, {**hidden, "step": "edit"})
        assert again.text.count('value="also" selected') == 2 and await roles(two) == before
        saved = await operator.post(ROUTES, {**hidden, "step": "save"})
        assert "The routes of archive are saved" in await told(saved, operator)
    after = await roles(two)
    assert after["archive"] == {"customer": "also", "lead": "also", "note": "primary"}
    assert after["primary"] == {**before["primary"], "note": "also"}
    tenant = await two.services.tenants.get("harbour")
    rows = await two.services.audit.read(tenant.id, action="connection.routed")
    assert {row.details["connection"] for row in rows} == {"archive", "primary"}


async def test_routes_when_an_object_would_lose_its_primary_then_refused_in_the_services_words(
    two: House,
) -> None:
    before = await roles(two)
    path = f"{PAGE}/primary/routes"
    wanted = {f"route.{obj}": role for obj, role in before["primary"].items()}
    spoken = (
        await two.call("PUT", f"{API}/connections/primary/routes", json={"routes": {"lead": "none"}})
    ).json()
    async with visitor(two.services, Role.OPERATOR) as operator:
        for step in ("preview", "save"):
            page = await operator.post(path, {**wanted, "route.lead": "none", "step": step})
            assert page.status_code == 409 and spoken["message"] in text_of(page), page.text
            assert spoken["fix"]["hint"] in text_of(page)
            assert re.search(r'name="route.lead".*?value="none" selected', page.text), (
                "what was chosen is lost"
            )
        wrong = await operator.post(path, {**wanted, "route.lead": "sideways", "step": "preview"})
        assert wrong.status_code == 422 and "must be one of primary, also, none" in text_of(wrong)
        same = await operator.post(path, {**wanted, "step": "preview"})
        assert "the routes stand so already" in text_of(same) and "Save these" not in text_of(same)
        assert (await operator.post(path, {**wanted, "step": "explode"})).status_code == 404
    assert await roles(two) == before


async def test_routes_when_changed_by_another_between_look_and_save_then_nothing_is_saved(
    two: House,
) -> None:
    async with visitor(two.services, Role.OPERATOR) as operator:
        preview = await operator.post(ROUTES, {"route.lead": "also", "step": "preview"})
        await order(two, "connections/archive/routes", routes={"note": "also"})
        late = await operator.post(ROUTES, {**form_of(preview), "step": "save"})
        assert late.status_code == 409 and "have changed since you looked" in text_of(late)
        for wrong in ("", "[]", '{"a": 1}'):
            forged = {**form_of(preview), "seen": wrong, "step": "save"}
            assert (await operator.post(ROUTES, forged)).status_code == 422
    assert (await roles(two))["archive"] == {"note": "also"}


async def test_routes_when_not_connected_yet_or_the_driver_cannot_then_said(two: House) -> None:
    emulator = two.emulators["rest_api"]
    settings = {**emulator.settings(), **emulator.secrets()}
    body = {"driver": "rest_api", "settings": settings, "connection": "third"}
    assert (await two.call("POST", f"{API}/credentials", json=body)).status_code == 201
    await order(two, "connections/archive/pause")
    opened = await two.services.connections.open(
        (await two.services.tenants.get("harbour")).id, name="archive"
    )
    cannot = [obj for obj in Object if not opened.manifest.supports(obj, Operation.CREATE).is_usable]
    everything = {f"route.{obj}": "also" for obj in (await roles(two))["primary"]}
    async with visitor(two.services, Role.OPERATOR) as operator:
        page = await operator.post(f"{PAGE}/third/routes", {"route.lead": "also", "step": "preview"})
        assert page.status_code == 409 and "no credential in use" in text_of(page)
        seen = text_of(await operator.post(ROUTES, {**everything, "step": "preview"}))
        assert "archive is paused: what goes to it waits." in seen
        for obj in cannot:
            assert f"cannot create a {obj}, so each create becomes a dead letter there" in seen


# ---------------------------------------------------------------------- one row per target


async def test_write_when_it_has_two_targets_then_a_row_each_with_its_own_steps(two: House) -> None:
    await order(two, "connections/archive/routes", routes={"lead": "also"})
    two.emulators["rest_api"].faults.add("status", status=422, only="writes", times=0)
    made = [await write(two, f"k{n}", email=f"k{n}@example.com") for n in range(3)]
    assert [states(one) for one in made] == [{"primary": "applied", "archive": "dead_letter"}] * 3
    two.emulators["rest_api"].faults.clear()
    base = f"{BASE}/writes"
    path = f"{base}/{made[0]['write_id']}"
    async with visitor(two.services, Role.OPERATOR) as operator:
        page = await operator.get(path)
        assert f'href="{path}/redrive?connection=archive"' in page.text
        assert f'href="{path}/discard?connection=archive"' in page.text
        assert "connection=primary" not in page.text and "Send again all" not in text_of(page)
        asked = await operator.get(f"{path}/redrive?connection=archive")
        assert "Only its target on archive" in text_of(asked) and form_of(asked) == {"connection": "archive"}
        wrong = await told(await operator.post(f"{path}/redrive", {"connection": "primary"}), operator)
        assert "cannot follow" in wrong
        lost = await operator.post(f"{path}/redrive", {"connection": "nobody"})
        assert lost.status_code == 404 and "primary, archive" in text_of(lost)
        done = await operator.post(f"{path}/redrive", {"connection": "archive"})
        assert "tried again on archive" in await told(done, operator)
        tenant = await two.services.tenants.get("harbour")
        for _ in range(200):
            view = (await two.call("GET", f"{API}/writes/{made[0]['write_id']}")).json()
            if states(view)["archive"] == "applied":
                break
            await two.services.delivery.wait(tenant.id, view["id"], 0.1)
        assert states(view) == {"primary": "applied", "archive": "applied"}
        discarded = f"{base}/{made[1]['write_id']}/discard"
        await operator.post(discarded, {"connection": "archive", "reason": "not wanted there"})
        (row,) = await two.services.audit.read(tenant.id, action="write.discarded")
        assert row.connection_id and row.details["reason"] == "not wanted there"

        # The list and the step for many look at the same target: dead, and on that connection.
        dead = text_of(await operator.get(f"{base}?state=dead_letter&connection=archive"))
        assert dead.count("create lead") == 1 and made[2]["write_id"][-8:] in dead
        none = text_of(await operator.get(f"{base}?state=dead_letter&connection=primary"))
        assert "No write fits" in none
        assert (await operator.get(f"{base}?connection=nobody")).status_code == 404
        many = await operator.get(f"{base}/redrive?state=dead_letter&connection=archive")
        assert "dead letter on archive: up to 1" in text_of(many)
        assert form_of(many)["connection"] == "archive"
        sent = await operator.post(f"{base}/redrive", form_of(many))
        assert "1 target(s) are tried again" in await told(sent, operator)


async def test_write_when_it_waits_on_a_paused_connection_then_that_target_alone_is_cancelled(
    two: House,
) -> None:
    await order(two, "connections/archive/routes", routes={"lead": "also"})
    await order(two, "connections/archive/pause", reason="moved")
    made = await write(two, "a", email="a@example.com")
    path = f"{BASE}/writes/{made['write_id']}"
    async with visitor(two.services, Role.OPERATOR) as operator:
        page = await operator.get(path)
        assert f'href="{path}/cancel?connection=archive"' in page.text and "paused" in text_of(page)
        done = await operator.post(f"{path}/cancel", {"connection": "archive"})
        assert "cancelled on archive" in await told(done, operator)
    view = (await two.call("GET", f"{API}/writes/{made['write_id']}")).json()
    assert states(view) == {"primary": "applied", "archive": "cancelled"}


# ---------------------------------------------------------------------- names


async def test_connection_when_unknown_then_every_page_names_it_and_those_there_are(two: House) -> None:
    async with visitor(two.services, Role.OPERATOR) as operator:
        for path in (
            f"{PAGE}/nobody/pause",
            f"{PAGE}/nobody/resume",
            f"{PAGE}/nobody/routes",
            f"{BASE}/crm/mapping?connection=nobody",
            f"{BASE}/crm/mapping/lead/email?connection=nobody",
            f"{BASE}/writes?connection=nobody",
        ):
            page = await operator.get(path)
            assert page.status_code == 404, path
            assert "There is no connection 'nobody'." in text_of(page), path
            assert "The tenant's connections: primary, archive." in text_of(page), path
