"""The emulation kit: clock, store, faults, quotas, routes, in-process transport."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.core.wire import HttpRequest, HttpResponse, TransportFailure, TransportFault
from crmbridge.emulation import (
    Clock,
    Emulator,
    EmulatorStore,
    Faults,
    Incoming,
    InProcessTransport,
    Quota,
    Refusal,
    route,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Shop(Emulator):
    slug = "shop"

    def seed(self) -> None:
        self.store.numbered("people").insert({"name": "Seeded"})

    def authenticate(self, call: Incoming) -> HttpResponse | None:
        if call.path.startswith("/closed"):
            raise Refusal(self.answer({"no": "entry"}, 403))
        return None

    @route("POST", "/people", operation="people.create")
    def create(self, call: Incoming) -> HttpResponse:
        return self.answer({"id": self.store.numbered("people").insert(call.json).id}, 201)

    @route("GET", "/people/{id}")
    async def show(self, call: Incoming) -> HttpResponse:
        return self.answer({"id": call.params["id"], "q": call.query})

    @route("GET", "/people/me")
    def me(self, call: Incoming) -> HttpResponse:
        return self.answer({"id": "me"})

    @route("POST", "/rpc/{model}/{method}", operation="{model}.{method}", writes=False)
    def rpc(self, call: Incoming) -> HttpResponse:
        return self.answer(call.form)

    @route("GET", "/files/{path:rest}")
    def file(self, call: Incoming) -> HttpResponse:
        return self.answer(call.params["path"])


def request(method: str, path: str, **more: Any) -> HttpRequest:
    return HttpRequest(method=method, url=f"https://shop.emulator.test{path}", **more)


async def send(shop: Shop, method: str, path: str, **more: Any) -> HttpResponse:
    return await InProcessTransport(shop).send(request(method, path, **more))


def test_clock_when_started_then_frozen_and_moved_by_hand() -> None:
    clock = Clock(NOON)
    clock.advance(90)
    assert clock.now() == datetime(2026, 11, 22, 12, 1, 30, tzinfo=UTC)
    with pytest.raises(ValueError, match="time zone"):
        clock.set(datetime(2026, 1, 1))  # noqa: DTZ001


def test_clock_when_running_then_advance_keeps_it_running() -> None:
    clock = Clock()
    clock.advance(3600)
    ahead = (clock.now() - datetime.now(UTC)).total_seconds()
    assert 3599 < ahead < 3601
    clock.freeze()
    assert clock.now() == clock.now()


def test_store_when_written_then_counted_and_stamped() -> None:
    store = EmulatorStore(Clock(NOON))
    people = store.numbered("people", first_id=7)
    row = people.insert({"name": "A"})
    assert (row.id, row.created_at, store.written) == (7, NOON, 1)
    store.clock.advance(5)
    people.update(7, {"name": "B"})
    assert people.rows[7].updated_at > people.rows[7].created_at
    people.archive(7)
    assert people.get(7) is None
    assert people.get(7, with_archived=True) is row
    people.remove(7)
    assert (len(people), store.written) == (0, 4)


def test_store_when_text_ids_then_made_by_the_given_function() -> None:
    store = EmulatorStore(Clock(NOON))
    assert store.named("deals", lambda count: f"d-{count:03}").insert({}).id == "d-001"


def test_search_when_lagging_then_shows_the_old_state_until_it_has_passed() -> None:
    store = EmulatorStore(Clock(NOON))
    store.search_lag_seconds = 10
    people = store.numbered("people")
    people.insert({"name": "A"})
    assert people.search() == []
    store.clock.advance(11)
    assert len(people.search(lambda fields: fields["name"] == "A")) == 1
    people.update(1, {"name": "B"})
    assert len(people.search(lambda fields: fields["name"] == "A")) == 1
    assert people.search(lambda fields: fields["name"] == "B") == []
    store.clock.advance(11)
    assert len(people.search(lambda fields: fields["name"] == "B")) == 1


@given(st.lists(st.tuples(st.sampled_from("iurac"), st.integers(0, 5), st.sampled_from(["x", "Y", "y", ""]))))
def test_index_when_rows_change_then_equals_a_scan(steps: list[tuple[str, int, str]]) -> None:
    store = EmulatorStore(Clock(NOON))
    table = store.numbered("t")
    table.index("k", str.lower)
    for step, id, key in steps:
        if step == "i":
            table.insert({"k": key})
        elif id in table.rows and step == "u":
            table.update(id, {"k": key})
        elif id in table.rows and step == "r":
            table.remove(id)
        elif id in table.rows and step == "a":
            table.archive(id)
        elif step == "c":
            store.clear()
    for key in ("x", "y"):
        scanned = {row.id for row in table if not row.is_archived and row.fields["k"].lower() == key}
        assert {row.id for row in table.find("k", key.upper())} == scanned


def test_faults_when_matched_then_used_up_in_order() -> None:
    faults = Faults()
    faults.add("status", status=503, operation="people.*", times=2, skip=1)
    faults.add("cut_before", only="writes")
    kinds = [faults.take("POST", "/people", "people.create", True) for _ in range(4)]
    assert [fault.kind.value if fault else "" for fault in kinds] == ["cut_before", "status", "status", ""]
    assert faults.waiting == []


def test_faults_when_a_share_then_so_many_of_the_matching_and_the_same_ones_for_a_seed() -> None:
    def drawn(seed: int) -> list[bool]:
        faults = Faults(seed)
        faults.add("cut_after", only="writes", share=0.1, times=0)
        assert faults.take("GET", "/people", "people.list", False) is None
        return [faults.take("POST", "/people", "people.create", True) is not None for _ in range(5000)]

    assert 400 < sum(drawn(1)) < 600
    assert drawn(1) == drawn(1) != drawn(2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "explode"},
        {"kind": "cut_after", "colour": 1},
        {"kind": "status", "times": "x"},
        {"kind": "status", "share": 0.0},
        {"kind": "status", "share": 1.5},
    ],
)
def test_faults_when_not_a_fault_then_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="fault"):
        Faults().add(**wrong)


def test_quota_when_window_ends_then_full_again() -> None:
    clock = Clock(NOON)
    quota = Quota(limit=2, per_seconds=10)
    assert [quota.take(clock) for _ in range(3)] == [0.0, 0.0, 10.0]
    clock.advance(10)
    assert quota.take(clock) == 0.0
    assert quota.remaining == 1


async def test_routes_when_both_fit_then_the_literal_one_answers() -> None:
    shop = Shop()
    assert (await send(shop, "GET", "/people/me")).json() == {"id": "me"}
    shown = await send(shop, "GET", "/people/a%20b", query={"x": ["1", "2"]})
    assert shown.json() == {"id": "a b", "q": {"x": ["1", "2"]}}
    assert (await send(shop, "GET", "/files/a/b/c")).json() == "a/b/c"
    assert (await send(shop, "GET", "/nowhere")).status == 404
    assert (await send(shop, "GET", "/closed/door")).status == 403


async def test_calls_when_rpc_then_counted_by_filled_in_name() -> None:
    shop = Shop()
    answer = await send(shop, "POST", "/rpc/crm.lead/search", form={"a": ["1", "2"]})
    assert answer.json() == {"a": ["1", "2"]}
    assert shop.calls == {"crm.lead.search": 1}
    assert shop.write_calls == 0


async def test_written_when_seeded_then_zero_and_reset_brings_the_seed_back() -> None:
    shop = Shop()
    assert shop.written == 0
    assert (await send(shop, "POST", "/people", json={"name": "B"})).json() == {"id": 2}
    assert (shop.written, shop.write_calls, len(shop.requests)) == (1, 1, 1)
    shop.reset()
    assert [row.fields["name"] for row in shop.store.numbered("people")] == ["Seeded"]
    assert (shop.written, shop.write_calls, shop.requests) == (0, 0, [])


async def test_body_when_not_json_then_the_provider_says_so() -> None:
    assert (await send(Shop(), "POST", "/people", body=b"{")).status == 400


@pytest.mark.parametrize(
    ("kind", "fault", "was_sent", "written"),
    [
        ("cut_before", TransportFault.CUT, True, 0),
        ("cut_after", TransportFault.CUT, True, 1),
        ("timeout_before", TransportFault.TIMEOUT, True, 0),
        ("timeout_after", TransportFault.TIMEOUT, True, 1),
        ("refused", TransportFault.CONNECT_FAILED, False, 0),
    ],
)
async def test_fault_when_no_answer_then_commit_as_named(
    kind: str, fault: TransportFault, was_sent: bool, written: int
) -> None:
    shop = Shop()
    shop.faults.add(kind)
    with pytest.raises(TransportFailure) as caught:
        await send(shop, "POST", "/people", json={"name": "B"})
    assert (caught.value.fault, caught.value.was_sent, shop.written) == (fault, was_sent, written)
    assert (await send(shop, "POST", "/people", json={"name": "C"})).status == 201


async def test_fault_when_answer_is_wrong_then_shaped_as_named() -> None:
    shop = Shop()
    shop.faults.add("status", status=429, retry_after="3")
    answer = await send(shop, "POST", "/people", json={})
    assert (answer.status, answer.header("Retry-After"), shop.written) == (429, "3", 0)
    shop.faults.add("status", status=500, after_commit=True, body={"own": "body"})
    assert (await send(shop, "POST", "/people", json={})).json() == {"own": "body"}
    assert shop.written == 1
    shop.faults.add("html")
    assert not (await send(shop, "GET", "/people/1")).is_json
    shop.faults.add("garbage")
    with pytest.raises(Exception, match="truncated"):
        (await send(shop, "GET", "/people/1")).json()
    shop.faults.add("empty")
    assert (await send(shop, "GET", "/people/1")).body == b""
    shop.faults.add("wrong_shape")
    assert "surprise" in (await send(shop, "GET", "/people/1")).json()


async def test_quota_when_used_up_then_429_by_the_clock() -> None:
    shop = Shop(Clock(NOON))
    shop.quotas.append(Quota(limit=1, per_seconds=30, only="writes"))
    assert (await send(shop, "POST", "/people", json={})).status == 201
    limited = await send(shop, "POST", "/people", json={})
    assert (limited.status, limited.header("retry-after")) == (429, "30")
    assert (await send(shop, "GET", "/people/1")).status == 200
    shop.clock.advance(31)
    assert (await send(shop, "POST", "/people", json={})).status == 201


async def test_transport_when_address_is_wrong_then_name_not_found() -> None:
    with pytest.raises(TransportFailure) as caught:
        await InProcessTransport(Shop()).send(
            HttpRequest(method="GET", url="https://shop.emulator.test.evil/")
        )
    assert caught.value.fault is TransportFault.NAME_NOT_FOUND


def test_secret_when_variant_differs_then_differs() -> None:
    one, two = Shop(), Shop()
    assert one.secret("key") == two.secret("key")
    two.variant = "two"
    assert one.secret("key") != two.secret("key")
    assert len(one.secret("key", 33)) == 33
