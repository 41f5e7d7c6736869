"""Emulators over real sockets: prefixes, own ports, faults that cut, control routes, the overview page."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest

from crmbridge.core.wire import HttpResponse
from crmbridge.emulation import Emulator, Incoming, route
from crmbridge.emulation.serve import Served, serve_emulators


class Shop(Emulator):
    slug = "shop"
    display_name = "Shop <b>&</b> Co"

    def settings(self) -> dict[str, str]:
        return {"url": self.base_url}

    def secrets(self) -> dict[str, str]:
        return {"key": self.secret("key")}

    @route("POST", "/people", operation="people.create")
    def create(self, call: Incoming) -> HttpResponse:
        return self.answer({"id": self.store.numbered("people").insert(call.json).id}, 201)

    @route("GET", "/people", operation="people.list")
    def show(self, call: Incoming) -> HttpResponse:
        return self.answer({"q": call.first("q"), "n": len(self.store.numbered("people"))})

    @route("GET", "/", operation="root")
    def root(self, call: Incoming) -> HttpResponse:
        return self.answer("root")


def free_port() -> int:
    """A loopback port between 20000 and 29999 that nobody listens on."""
    while True:
        port = random.randint(20000, 29999)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


@pytest.fixture
async def shop() -> AsyncIterator[tuple[Shop, Shop, Served, aiohttp.ClientSession]]:
    shared, own = Shop(), Shop()
    emulators = {"shop": shared, "own_shop": own}
    served = await serve_emulators(emulators, port=free_port(), ports={"own_shop": free_port()})
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as client:
        yield shared, own, served, client
    await served.close()


Kit = tuple[Shop, Shop, Served, aiohttp.ClientSession]


async def test_serve_when_called_then_prefix_is_stripped_and_state_kept(shop: Kit) -> None:
    shared, own, served, client = shop
    assert shared.settings()["url"] == served.urls["shop"] == f"{served.url}/shop"
    async with client.post(f"{served.urls['shop']}/people", json={"name": "A"}) as answer:
        assert answer.status == 201
    async with client.get(f"{served.urls['shop']}/people?q=a%20b") as answer:
        assert await answer.json() == {"q": "a b", "n": 1}
    async with client.get(served.urls["shop"]) as answer:
        assert await answer.json() == "root"
    async with client.get(f"{served.urls['own_shop']}/people") as answer:
        assert await answer.json() == {"q": "", "n": 0}
    assert (shared.written, own.written) == (1, 0)


async def test_serve_when_cut_then_the_connection_breaks_and_the_effect_is_as_named(shop: Kit) -> None:
    shared, _, served, client = shop
    for kind, written in (("cut_before", 0), ("cut_after", 1)):
        async with client.post(f"{served.url}/_control/shop/faults", json={"kind": kind}) as answer:
            assert answer.status == 200
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.post(f"{served.urls['shop']}/people", json={"name": "A"})
        assert shared.written == written


async def test_serve_when_told_to_time_out_then_the_client_gives_up(shop: Kit) -> None:
    shared, _, served, client = shop
    shared.faults.add("timeout_after")
    with pytest.raises(TimeoutError):
        await client.post(f"{served.urls['shop']}/people", json={}, timeout=aiohttp.ClientTimeout(total=0.2))
    assert shared.written == 1


async def test_control_when_asked_then_tells_and_changes(shop: Kit) -> None:
    shared, _, served, client = shop
    control = f"{served.url}/_control/shop"
    await client.post(f"{served.urls['shop']}/people", json={"name": "A"})
    async with client.get(f"{control}/records") as answer:
        assert (await answer.json())["people"][0]["fields"] == {"name": "A"}
    async with client.get(f"{control}/requests?limit=1") as answer:
        assert (await answer.json())[0]["body"] == '{"name": "A"}'
    before = shared.clock.now()
    await client.post(f"{control}/clock", json={"advance_seconds": 3600})
    assert (shared.clock.now() - before).total_seconds() >= 3600
    await client.post(f"{control}/latency", json={"ms": 5})
    assert shared.latency_seconds == 0.005
    shared.faults.add("html")
    async with client.get(f"{control}/faults") as answer:
        assert (await answer.json())[0]["kind"] == "html"
    await client.delete(f"{control}/faults")
    assert shared.faults.waiting == []
    await client.post(f"{control}/reset")
    assert len(shared.store.numbered("people")) == 0


@pytest.mark.parametrize("body", ["{", "[]", '{"kind": "explode"}', "{}", '{"kind": "html", "x": 1}'])
async def test_control_when_fault_is_wrong_then_400_says_why(shop: Kit, body: str) -> None:
    _, _, served, client = shop
    async with client.post(f"{served.url}/_control/shop/faults", data=body) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]


async def test_overview_when_records_hold_markup_then_escaped(shop: Kit) -> None:
    shared, _, served, client = shop
    shared.store.numbered("people").insert({"name": "<script>alert(1)</script>", "note": "x" * 500})
    async with client.get(served.url) as answer:
        page = await answer.text()
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "Shop &lt;b&gt;" in page
    assert shared.secret("key") in page
    assert served.urls["own_shop"] in page
    assert "x" * 100 not in page


async def test_serve_when_ports_name_nobody_then_told() -> None:
    with pytest.raises(ValueError, match="nobody"):
        await serve_emulators({"shop": Shop()}, ports={"nobody": 0})
