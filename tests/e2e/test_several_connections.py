"""Two CRMs of one tenant over HTTP: routes, one accept to both, one of them down, paused or unwilling."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from .conftest import House

pytestmark = pytest.mark.postgres

TENANT = "/api/tenants/acme"
LEADS = f"{TENANT}/records/lead"
LEAD = {"first_name": "Layla", "last_name": "Haddad", "email": "layla@example.com"}
WAIT = {"Prefer": "wait=10"}


async def connect(house: House, slug: str, name: str) -> None:
    emulator = house.emulators[slug]
    settings = {**emulator.settings(), **emulator.secrets()}
    path = f"{TENANT}/credentials"
    made = await house.call("POST", path, json={"driver": slug, "settings": settings, "connection": name})
    assert made.status_code == 201, made.text
    for step in ("test", "activate"):
        answer = await house.call("POST", f"{path}/{made.json()['id']}/{step}")
        assert answer.status_code == 200, answer.text


async def route(house: House, name: str, **routes: str) -> httpx.Response:
    return await house.call("PUT", f"{TENANT}/connections/{name}/routes", json={"routes": routes})


@pytest.fixture
async def two(house: House) -> House:
    """The tenant acme with Odoo as its primary and a REST service that gets everything also."""
    await house.tenant("acme")
    await connect(house, "odoo", "primary")
    await connect(house, "rest_api", "second")
    answer = await route(house, "second", all="also")
    assert answer.status_code == 200, answer.text
    return house


async def write(
    house: House, key: str, *, path: str = LEADS, wait: bool = True, **body: Any
) -> httpx.Response:
    body = {"fields": LEAD, "idempotency_key": key, **body}
    return await house.call("POST", path, json=body, headers=WAIT if wait else {})


def states(answer: httpx.Response) -> dict[str, str]:
    return {target["connection"]: target["state"] for target in answer.json()["targets"]}


async def until(house: House, write_id: str, wanted: dict[str, str], seconds: float = 15) -> dict[str, Any]:
    for _ in range(int(seconds * 20)):
        view = await house.call("GET", f"{TENANT}/writes/{write_id}")
        if states(view) == wanted:
            found: dict[str, Any] = view.json()
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(view.text)


async def test_write_when_two_are_routed_then_both_have_it_and_reads_go_to_the_primary(two: House) -> None:
    made = await write(two, "k1")
    assert made.status_code == 201, made.text
    assert states(made) == {"primary": "applied", "second": "applied"}
    ids = {target["connection"]: target["remote_id"] for target in made.json()["targets"]}
    assert made.json()["targets"][0]["connection"] == "primary"
    read = await two.call("GET", f"{LEADS}/{ids['primary']}")
    assert read.json()["fields"]["email"] == "layla@example.com", read.text
    there = await two.call("GET", f"{LEADS}/{ids['second']}?connection=second")
    assert there.json()["fields"]["email"] == "layla@example.com", there.text
    again = await write(two, "k1")
    assert again.json()["replayed"] and states(again) == states(made)
    changed = await two.call(
        "PATCH", f"{LEADS}/{ids['primary']}", json={"fields": {"phone": "+971501234568"}}, headers=WAIT
    )
    assert states(changed) == {"primary": "applied", "second": "applied"}, changed.text
    there = await two.call("GET", f"{LEADS}/{ids['second']}?connection=second")
    assert there.json()["fields"]["phone"] == "+971501234568", there.text
    alone = await two.call("DELETE", f"{LEADS}/{ids['second']}?connection=second", headers=WAIT)
    assert states(alone) == {"second": "applied"}
    assert (await two.call("GET", f"{LEADS}/{ids['primary']}")).status_code == 200


async def test_note_when_linked_to_a_write_then_it_hangs_on_each_crms_own_customer(two: House) -> None:
    person = await write(
        two,
        "p",
        path=f"{TENANT}/records/customer",
        fields={"full_name": "Omar Aziz", "email": "o@example.com"},
    )
    assert states(person) == {"primary": "applied", "second": "applied"}, person.text
    note = await write(
        two,
        "n",
        path=f"{TENANT}/records/note",
        fields={"body": "Called about a flat."},
        links={"customer": {"write_id": person.json()["write_id"]}},
    )
    assert states(note) == {"primary": "applied", "second": "applied"}, note.text
    ids = {target["connection"]: target["remote_id"] for target in person.json()["targets"]}
    rows = two.emulators["rest_api"].store.named("notes")
    assert [str(row.fields["customer_id"]) for row in rows] == [ids["second"]]


async def test_write_when_one_turns_away_then_the_other_is_applied_and_the_one_follows(two: House) -> None:
    emulator = two.emulators["rest_api"]
    emulator.faults.add("status", status=429, retry_after="1", times=0)
    made = await write(two, "k1", wait=False)
    view = await until(two, made.json()["write_id"], {"primary": "applied", "second": "retrying"})
    assert view["targets"][1]["error"]["code"] == "rate_limited"
    waited = await write(two, "k2")
    assert waited.status_code == 201 and states(waited)["primary"] == "applied", waited.text
    assert states(waited)["second"] in ("accepted", "sending", "retrying")
    sent = len([one for one in two.emulators["odoo"].requests if "create" in str(one)])
    emulator.faults.clear()
    for one in (made, waited):
        await until(two, one.json()["write_id"], {"primary": "applied", "second": "applied"}, 30)
    assert len([one for one in two.emulators["odoo"].requests if "create" in str(one)]) == sent


async def test_write_when_the_second_can_never_take_it_then_accepted_seen_and_redriven_alone(
    two: House,
) -> None:
    changes = {"lead.email": {"path": None}}
    mapped = await two.call("PUT", f"{TENANT}/mappings?connection=second", json={"changes": changes})
    assert mapped.status_code == 200, mapped.text
    made = await write(two, "k1")
    assert made.status_code == 201 and states(made) == {"primary": "applied", "second": "dead_letter"}, (
        made.text
    )
    error = made.json()["targets"][1]["error"]
    assert error["code"] == "validation_error" and error["fields"][0]["field"] == "lead.email"
    page = (await two.call("GET", f"{TENANT}/writes?state=dead_letter&connection=second")).json()
    assert len(page["writes"]) == 1 and page["counts"]["dead_letter"] == 1
    plan = await write(two, "k2", wait=False, mode="plan")
    assert plan.json()["driver"] == "odoo" and plan.json()["also"][0]["error"]["code"] == "validation_error"
    mapped = await two.call(
        "PUT", f"{TENANT}/mappings?connection=second", json={"changes": {"lead.email": None}}
    )
    step = f"{TENANT}/writes/{made.json()['write_id']}/redrive"
    wrong = await two.call("POST", f"{step}?connection=primary")
    assert wrong.status_code == 409, wrong.text
    assert (await two.call("POST", f"{step}?connection=nobody")).status_code == 404
    before = len(two.emulators["odoo"].requests)
    redriven = await two.call("POST", f"{step}?connection=second")
    assert redriven.status_code == 200, redriven.text
    await until(two, made.json()["write_id"], {"primary": "applied", "second": "applied"})
    assert len(two.emulators["odoo"].requests) == before


async def test_pause_when_ordered_then_nothing_is_sent_and_all_of_it_after_the_resume(two: House) -> None:
    emulator = two.emulators["rest_api"]
    paused = await two.call("POST", f"{TENANT}/connections/second/pause")
    assert {c["name"]: c["is_paused"] for c in paused.json()["connections"]} == {
        "primary": False,
        "second": True,
    }
    assert (await two.call("POST", f"{TENANT}/connections/second/pause")).status_code == 409
    before = len(emulator.requests)
    made = [await write(two, f"k{number}") for number in range(3)]
    assert all(one.status_code == 201 for one in made)
    assert {states(one)["second"] for one in made} == {"accepted"}
    await asyncio.sleep(1.2)  # a sweep
    assert len(emulator.requests) == before
    resumed = await two.call("POST", f"{TENANT}/connections/second/resume")
    assert not any(c["is_paused"] for c in resumed.json()["connections"])
    for one in made:
        await until(two, one.json()["write_id"], {"primary": "applied", "second": "applied"})
    assert (await two.call("POST", f"{TENANT}/connections/nobody/pause")).status_code == 404
    actions = [row["action"] for row in (await two.call("GET", f"{TENANT}/audit")).json()["entries"]]
    assert actions.count("connection.paused") == actions.count("connection.resumed") == 1


async def test_routes_when_the_primary_moves_then_the_next_write_leads_there_and_is_audited(
    two: House,
) -> None:
    moved = await route(two, "second", lead="primary", note="none")
    connections = {entry["name"]: entry["routes"] for entry in moved.json()["connections"]}
    assert connections["primary"]["lead"] == "also" and connections["second"]["lead"] == "primary"
    assert connections["primary"]["note"] == "primary" and "note" not in connections["second"]
    made = await write(two, "k1")
    assert [target["connection"] for target in made.json()["targets"]] == ["second", "primary"], made.text
    read = await two.call("GET", f"{LEADS}/{made.json()['targets'][0]['remote_id']}")
    assert read.status_code == 200, read.text
    refused = await route(two, "second", lead="none")
    assert refused.status_code == 409 and "primary" in refused.json()["message"]
    bad = await route(two, "second", invoice="also", lead="second")
    assert bad.status_code == 422
    assert {field["field"] for field in bad.json()["fields"]} == {"routes.invoice", "routes.lead"}
    assert (await route(two, "nobody", lead="also")).status_code == 404
    token = await two.token("acme", "read", "write:*")
    orders: list[tuple[str, str, dict[str, Any]]] = [
        ("PUT", "routes", {"routes": {"lead": "none"}}),
        ("POST", "pause", {"reason": "x"}),
        ("POST", "resume", {}),
    ]
    for method, path, body in orders:
        answer = await two.call(method, f"{TENANT}/connections/second/{path}", token=token, json=body)
        assert answer.status_code == 404, answer.text
    rows = (await two.call("GET", f"{TENANT}/audit?action=connection.routed")).json()["entries"]
    assert {row["details"]["connection"] for row in rows[:2]} == {"primary", "second"}


async def test_routes_when_the_connection_is_not_in_use_yet_then_refused(house: House) -> None:
    await house.tenant("acme")
    await connect(house, "odoo", "primary")
    emulator = house.emulators["rest_api"]
    settings = {**emulator.settings(), **emulator.secrets()}
    body = {"driver": "rest_api", "settings": settings, "connection": "second"}
    assert (await house.call("POST", f"{TENANT}/credentials", json=body)).status_code == 201
    refused = await route(house, "second", lead="also")
    assert refused.status_code == 409 and refused.json()["code"] == "not_configured", refused.text
    assert (await route(house, "second", lead="none")).status_code == 200


async def test_key_when_used_for_another_connection_then_conflict_and_not_a_lost_write(two: House) -> None:
    assert (await write(two, "k1")).status_code == 201
    other = await write(two, "k1", path=f"{LEADS}?connection=second")
    assert other.status_code == 409, other.text


async def test_import_when_two_are_routed_then_each_row_reaches_both(two: House) -> None:
    import_id = (await two.call("POST", f"{TENANT}/imports", json={"object": "lead"})).json()["id"]
    writes = [
        {"fields": {**LEAD, "email": f"p{n}@example.com"}, "idempotency_key": f"i{n}"} for n in range(20)
    ]
    answer = await two.call("POST", f"{LEADS}/batch", json={"writes": writes, "import_id": import_id})
    assert {len(result["targets"]) for result in answer.json()["results"]} == {2}, answer.text
    for _ in range(300):
        counts = (await two.call("GET", f"{TENANT}/writes?import_id={import_id}&limit=1")).json()["counts"]
        if counts["applied"] == 40:
            break
        await asyncio.sleep(0.05)
    assert counts["applied"] == 40, counts


async def test_steps_by_filter_when_in_parts_then_counted_and_only_of_that_connection(two: House) -> None:
    two.emulators["rest_api"].faults.add("status", status=422, only="writes", times=0)
    made = [await write(two, f"k{n}") for n in range(5)]
    assert {states(one)["second"] for one in made} == {"dead_letter"}
    two.emulators["rest_api"].faults.clear()
    wanted = {"connection": "second", "code": "validation_error", "limit": 2}
    first = (await two.call("POST", f"{TENANT}/writes/redrive", json=wanted)).json()
    assert (first["redriven"], first["left"]) == (2, 3), first
    rest = await two.call(
        "POST", f"{TENANT}/writes/redrive", json={**wanted, "until": first["until"], "limit": 9}
    )
    assert (rest.json()["redriven"], rest.json()["left"]) == (3, 0), rest.text
    for one in made:
        await until(two, one.json()["write_id"], {"primary": "applied", "second": "applied"})
    nothing = await two.call("POST", f"{TENANT}/writes/discard", json={"connection": "second"})
    assert nothing.json()["discarded"] == 0
    bad = await two.call("POST", f"{TENANT}/writes/cancel", json={"state": "parked"})
    assert bad.status_code in (400, 422), bad.text
    await two.call("POST", f"{TENANT}/connections/second/pause")
    waiting = await write(two, "waits")
    gone = await two.call("POST", f"{TENANT}/writes/cancel", json={"connection": "second"})
    assert gone.json()["cancelled"] == 1, gone.text
    await until(two, waiting.json()["write_id"], {"primary": "applied", "second": "cancelled"})


async def test_accept_when_routes_are_known_then_no_look_at_the_database_for_them(
    two: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crmbridge.services.connections.routing import store as routes_store

    async def never(*args: Any, **named: Any) -> Any:
        raise AssertionError("the routes were read")

    monkeypatch.setattr(routes_store, "read_routes", never)
    for number in range(3):
        assert (await write(two, f"k{number}", wait=False)).status_code == 202


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "supports"),
        ("GET", "schema/lead"),
        ("GET", "mappings"),
        ("PUT", "mappings"),
        ("GET", "records/lead/7"),
        ("POST", "records/lead"),
        ("GET", "writes"),
    ],
)
async def test_connection_when_unknown_then_404_names_it_and_those_there_are(
    two: House, method: str, path: str
) -> None:
    bodies: dict[str, Any] = {
        "mappings": {"changes": {"lead.email": None}},
        "records/lead": {"fields": LEAD, "idempotency_key": "k"},
    }
    body = bodies.get(path)
    rest = {"json": body} if method != "GET" else {}
    answer = await two.call(method, f"{TENANT}/{path}?connection=nobody", **rest)
    assert answer.status_code == 404, answer.text
    told = answer.json()
    assert told["code"] == "not_found" and told["message"] == "There is no connection 'nobody'."
    assert told["fix"]["hint"] == "The tenant's connections: primary, second."


async def test_supports_and_map_when_asked_of_the_second_then_its_own(two: House) -> None:
    for name, driver in (("", "odoo"), ("?connection=primary", "odoo"), ("?connection=second", "rest_api")):
        for path in ("supports", "mappings"):
            assert (await two.call("GET", f"{TENANT}/{path}{name}")).json()["driver"] == driver, (path, name)


async def test_writes_when_state_and_connection_are_asked_then_of_the_same_target(two: House) -> None:
    two.emulators["rest_api"].faults.add("status", status=422, only="writes", times=0)
    made = await write(two, "k1")
    assert states(made) == {"primary": "applied", "second": "dead_letter"}
    for state, name, count in (
        ("dead_letter", "second", 1),
        ("dead_letter", "primary", 0),
        ("applied", "primary", 1),
        ("applied", "second", 0),
    ):
        page = await two.call("GET", f"{TENANT}/writes?state={state}&connection={name}")
        assert len(page.json()["writes"]) == count, (state, name)


async def test_pause_when_a_reason_is_given_then_kept_in_the_audit_log_alone(two: House) -> None:
    path = f"{TENANT}/connections/second"
    too_long = await two.call("POST", f"{path}/pause", json={"reason": "x" * 201})
    assert too_long.status_code == 422, too_long.text
    paused = await two.call("POST", f"{path}/pause", json={"reason": "moved to new servers"})
    assert paused.status_code == 200 and "new servers" not in paused.text
    resumed = await two.call("POST", f"{path}/resume", json={"reason": "moved"})
    assert resumed.status_code == 200, resumed.text
    rows = (await two.call("GET", f"{TENANT}/audit")).json()["entries"]
    reasons = {row["action"]: row["details"].get("reason") for row in rows}
    assert reasons["connection.paused"] == "moved to new servers"
    assert reasons["connection.resumed"] == "moved"


async def test_openapi_when_read_then_names_the_connection_and_the_reason(house: House) -> None:
    document = (await house.http.get("/api/openapi.json")).json()
    for path, method in (("supports", "get"), ("mappings", "get"), ("mappings", "put")):
        operation = document["paths"][f"/api/tenants/{{tenant}}/{path}"][method]
        assert "connection" in {each["name"] for each in operation["parameters"]}, path
    body = document["paths"]["/api/tenants/{tenant}/connections/{name}/pause"]["post"]["requestBody"]
    assert "PauseBody" in str(body) and "reason" in str(document["components"]["schemas"]["PauseBody"])
