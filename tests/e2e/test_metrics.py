"""Metrics through the whole house: the right numbers after some writes, and nobody's name in them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.request import urlopen

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from crmbridge.api.server import build_api
from crmbridge.core.errors import AuthError, NotConfigured
from crmbridge.core.secret import Secret
from crmbridge.services.watch import Watch
from crmbridge.worker.port import answering, build_port

from .conftest import House
from .test_api_writes import settled

pytestmark = pytest.mark.postgres

CANARY = {
    "first_name": "Zephyrine",
    "last_name": "Quackenbush",
    "email": "zephyrine.q@canary.example",
    "phone": "+971 50 765 4321",
    "message": "my cat is called Mephisto",
}
TOLD = ("zephyrine", "quackenbush", "canary", "7654321", "765 4321", "mephisto")
WAIT = {"Prefer": "wait=10"}
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def read(house: House) -> Samples:
    answer = await house.http.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def grown(before: Samples, after: Samples, name: str, **labels: str) -> float:
    """By how much the sum over all series with these labels grew."""

    def total(samples: Samples) -> float:
        return sum(v for (n, had), v in samples.items() if n == name and labels.items() <= dict(had).items())

    return total(after) - total(before)


async def test_metrics_when_writes_were_made_then_their_numbers(house: House) -> None:
    await house.tenant("acme")
    await house.connect("acme", "rest_api")
    records = "/api/tenants/acme/records/lead"
    before = await read(house)
    ids = []
    for number in range(3):
        body = {"fields": CANARY, "idempotency_key": f"k{number}"}
        made = await house.call("POST", records, json=body, headers=WAIT)
        assert made.status_code == 201, made.text
        ids.append(made.json()["targets"][0]["remote_id"])
    body = {"fields": CANARY, "idempotency_key": "k0"}
    again = await house.call("POST", records, json=body)
    assert again.status_code == 202 and again.json()["replayed"]
    assert (await house.call("GET", f"{records}/{ids[0]}")).status_code == 200
    for status in (200, 404):
        assert (await house.call("DELETE", f"{records}/{ids[0]}", headers=WAIT)).status_code == status
    assert (await house.call("POST", records, json={"fields": CANARY})).status_code == 422
    assert (await house.http.get(records)).status_code == 401
    assert (await house.http.put("/healthz")).status_code == 405
    after = await read(house)

    def more(name: str, **labels: str) -> float:
        return grown(before, after, f"crmbridge_{name}", **labels)

    assert more("writes_accepted_total") == 5
    assert more("writes_accepted_total", object="lead", operation="create", source="api") == 3
    assert more("writes_accepted_total", object="lead", operation="delete", source="api") == 2
    assert more("writes_replayed_total") == 1
    assert more("accept_seconds_count") == 5
    assert 0 < more("accept_seconds_sum") < 30
    # The replay was flushed as well: its key was found there.
    assert more("flush_writes_sum") == 6 and more("flush_writes_count") == more("flush_seconds_count")
    settled_as: dict[str, str] = {"driver": "rest_api", "object": "lead"}
    assert more("targets_settled_total", **settled_as, operation="create", state="applied") == 3
    assert more("targets_settled_total", **settled_as, operation="delete", state="applied") == 1
    assert more("targets_settled_total", **settled_as, operation="delete", state="dead_letter") == 1
    assert more("targets_settled_total") == 5
    assert more("attempts_total", driver="rest_api", kind="send", outcome="applied") == 4
    assert more("attempts_total", driver="rest_api", kind="send", outcome="not_applied") == 1
    calls: dict[str, str] = {"driver": "rest_api", "object": "lead"}
    assert more("provider_calls_total", **calls, operation="create", outcome="applied", code="") == 3
    assert more("provider_calls_total", **calls, operation="get", outcome="ok", code="") == 1
    assert (
        more("provider_calls_total", **calls, operation="delete", outcome="not_applied", code="not_found")
        == 1
    )
    assert more("provider_seconds_count", driver="rest_api", operation="delete") == 2
    assert more("provider_requests_total", driver="rest_api") >= 6
    assert more("http_refusals_total", code="validation_error", status="422") == 1
    assert more("http_refusals_total", code="auth_error", status="401") == 1
    assert more("http_refusals_total", status="405") == 1


async def test_metrics_when_people_redrive_and_discard_then_counted_as_steps(house: House) -> None:
    await house.tenant("acme")
    await house.connect("acme", "rest_api")
    gone = await house.call("DELETE", "/api/tenants/acme/records/lead/999999", headers=WAIT)
    write_id = gone.json()["write_id"]
    before = await read(house)
    path = f"/api/tenants/acme/writes/{write_id}"
    assert (await house.call("POST", f"{path}/redrive")).is_success
    await settled(house, "acme", write_id)
    by_filter = await house.call("POST", "/api/tenants/acme/writes/redrive", json={"without_looking": True})
    assert by_filter.json()["redriven"] == 1
    await settled(house, "acme", write_id)
    assert (await house.call("POST", f"{path}/discard", json={"reason": "it never was"})).is_success
    after = await read(house)
    for step, times in {"redrive": 2, "discard": 1}.items():
        assert grown(before, after, "crmbridge_target_steps_total", step=step) == times
    assert grown(before, after, "crmbridge_targets_settled_total", state="dead_letter") == 2


async def test_gauges_when_a_lane_cannot_deliver_then_it_is_seen_waiting(house: House) -> None:
    await house.tenant("acme")
    credential = await house.connect("acme", "rest_api")
    quiet = await read(house)
    assert quiet["crmbridge_database_up", ()] == 1
    assert quiet["crmbridge_lane_oldest_waiting_seconds", ()] == 0
    assert quiet["crmbridge_worker_late_seconds", ()] < 5
    revoked = await house.call("POST", f"/api/tenants/acme/credentials/{credential}/revoke")
    assert revoked.is_success, revoked.text
    tenant = (await house.services.tenants.get("acme")).id
    async with house.services.db.tenant(tenant) as conn:
        await house.services.incidents.open(conn, tenant, "mapping_drift", "k", "A field is gone")
        await conn.execute(
            "update lanes set next_due = now() - interval '90 seconds', waiting_since = now() - interval '90 seconds'"
            ", not_before = now() + interval '1 hour'"
        )
    await asyncio.sleep(2.1)
    seen = await read(house)
    assert 90 <= seen["crmbridge_lane_oldest_waiting_seconds", ()] < 120
    assert seen["crmbridge_lanes_held_back", ()] == 1 and seen["crmbridge_lanes_due", ()] == 0
    assert seen["crmbridge_incidents_open", (("kind", "mapping_drift"), ("state", "open"))] == 1


async def test_metrics_when_persons_were_written_then_nothing_of_them_nor_of_the_tenant(house: House) -> None:
    await house.tenant("quackenbush-motors")
    await house.connect("quackenbush-motors", "odoo")
    records = "/api/tenants/quackenbush-motors/records"
    ids = []
    for obj in ("lead", "customer"):
        fields = {name: value for name, value in CANARY.items() if obj == "lead" or name != "message"}
        body = {"fields": fields, "idempotency_key": f"zephyrine-{obj}"}
        made = await house.call("POST", f"{records}/{obj}", json=body, headers=WAIT)
        assert made.status_code == 201, made.text
        ids += [made.json()["write_id"], made.json()["targets"][0]["id"]]
    lookup = "/api/tenants/quackenbush-motors/lookup"
    assert (await house.call("POST", lookup, json={"email": CANARY["email"]})).is_success
    assert (await house.call("POST", lookup, json={"email": "nobody@canary.example"})).json()["records"] == []
    assert (await house.call("GET", f"{records}/lead/zephyrine.q@canary.example")).status_code >= 400
    assert (await house.call("GET", "/api/canary/zephyrine")).status_code == 404
    assert (await house.call("POST", f"{records}/quackenbush", json={})).status_code >= 400
    answer = await house.http.get("/metrics")
    text = answer.text.lower()
    assert 'driver="odoo"' in text
    for word in (*TOLD, "motors", str((await house.services.tenants.get("quackenbush-motors")).id), *ids):
        assert word not in text, word


async def test_metrics_when_the_database_is_away_then_still_answered(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails() -> Any:
        raise OSError("gone")

    await asyncio.sleep(2.1)
    monkeypatch.setattr(house.services.delivery, "count_lanes", fails)
    seen = await read(house)
    assert seen["crmbridge_database_up", ()] == 0
    assert ("crmbridge_lanes_due", ()) not in seen and ("crmbridge_writes_replayed_total", ()) in seen


def elsewhere(app: Any, peer: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, client=(peer, 40000))
    return httpx.AsyncClient(transport=transport, base_url="http://house")


async def test_metrics_when_asked_from_another_machine_then_refused_and_told_how(house: House) -> None:
    app = build_api(house.services)
    async with elsewhere(app, "10.1.2.3") as http:
        refused = await http.get("/metrics")
    assert refused.status_code == 403 and "CRMBRIDGE_METRICS_TOKEN" in refused.json()["detail"]
    async with elsewhere(app, "127.0.0.1") as http:
        proxied = await http.get("/metrics", headers={"X-Forwarded-For": "203.0.113.9"})
        assert proxied.status_code == 403
        assert (await http.get("/metrics")).status_code == 200


def gate(token: str = "") -> Watch:
    nothing: Any = None
    rooms = {"db": nothing, "vault": nothing, "jobs": nothing, "connections": nothing, "delivery": nothing}
    return Watch(**rooms, incidents=nothing, token=Secret(token))


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_reader_when_local_and_no_token_is_set_then_let_in(peer: str) -> None:
    gate().require_reader(peer, {})


@pytest.mark.parametrize("peer", ["10.0.0.1", "::ffff:10.0.0.1", "", "unix", "localhost"])
def test_reader_when_not_local_and_no_token_is_set_then_refused(peer: str) -> None:
    with pytest.raises(AuthError) as caught:
        gate().require_reader(peer, {"authorization": "Bearer "})
    assert caught.value.http_status == 403


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", "Basic right", "right"])
def test_reader_when_a_token_is_set_then_only_with_it(header: str) -> None:
    with pytest.raises(AuthError) as caught:
        gate("right").require_reader("127.0.0.1", {"authorization": header} if header else {})
    assert caught.value.http_status == 401
    gate("right").require_reader("203.0.113.9", {"authorization": "bearer right"})


async def test_readyz_when_a_migration_is_missing_then_503_with_the_reason_and_healthz_stays(
    house: House, database_dsns: Any
) -> None:
    from crmbridge.db.pool import connect

    ready = await house.http.get("/readyz")
    assert ready.status_code == 200 and ready.json()["checks"]["worker"] == "ok"
    conn = await connect(database_dsns.owner)
    await conn.execute("delete from public._pogo_migration where migration_id like '0001%'")
    await conn.close()
    red = await house.http.get("/readyz")
    assert red.status_code == 503 and red.json()["status"] == "not_ready"
    (reason,) = red.json()["reasons"]
    assert reason["check"] == "migrations" and "0001_create_ground" in reason["problem"]
    assert "crmbridge db migrate" in reason["fix"]
    assert (await house.http.get("/healthz")).status_code == 200


@pytest.fixture
async def port(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with elsewhere(build_port(house.services.watch), "127.0.0.1") as http:
        yield http


async def test_worker_port_when_asked_then_the_same_answers(house: House, port: httpx.AsyncClient) -> None:
    assert (await port.get("/healthz")).json()["status"] == "ok"
    ready = await port.get("/readyz")
    assert ready.status_code == 200 and ready.json()["checks"]["worker"] == "ok"
    told = await port.get("/metrics")
    assert told.status_code == 200 and "crmbridge_build{" in told.text
    assert (await port.get("/metrics", headers={"Forwarded": "for=1.2.3.4"})).status_code == 403
    assert (await port.get("/api/tenants")).status_code == 404
    assert (await port.post("/metrics")).status_code == 404


async def test_worker_port_when_served_then_on_a_socket_and_a_taken_port_is_told(
    house: House, unused_tcp_port: int
) -> None:
    number = unused_tcp_port

    def ask() -> dict[str, Any]:
        with urlopen(f"http://127.0.0.1:{number}/readyz", timeout=5) as answer:
            told: dict[str, Any] = json.load(answer)
        return told

    async with answering(house.services.watch, "127.0.0.1", number):
        assert (await asyncio.to_thread(ask))["status"] == "ready"
        with pytest.raises(NotConfigured, match=str(number)):
            async with answering(house.services.watch, "127.0.0.1", number):
                pass
    with pytest.raises(OSError):
        await asyncio.to_thread(ask)
