"""Egress against a real server: what is sent, what is refused, where redirects lead."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.unit.egress_sites import (
    FixedResolver,
    Site,
    Speak,
    egress,
    failure_of,
    free_port,
    open_to,
    site,
    speak,
)

from crmbridge.core.wire import HttpRequest, TransportFailure, TransportFault
from crmbridge.toolkit.egress import Egress, EgressPolicy

__all__ = ["egress", "site", "speak"]


async def test_send_when_server_answers_then_status_headers_and_body_come_back(
    site: Site, egress: Egress
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"id": 7}, status=201, headers={"X-Request-Id": "abc"})

    site.answers["/leads"] = answer
    response = await egress.send(
        HttpRequest(method="POST", url=f"{site.url}/leads", query={"tag": ["a b", "ü"]}, json={"name": "Zoë"})
    )
    assert (response.status, response.json(), response.header("X-Request-Id")) == (201, {"id": 7}, "abc")
    method, path, headers, body = site.seen[0]
    assert (method, path) == ("POST", "/leads?tag=a+b&tag=%C3%BC")
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == "crmbridge"
    assert body == '{"name":"Zoë"}'.encode()


async def test_send_when_path_is_encoded_then_it_arrives_unaltered(site: Site, egress: Egress) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=request.raw_path)

    site.answers["/a/b/../x"] = answer
    response = await egress.send(HttpRequest(method="GET", url=f"{site.url}/a%2Fb/%2E%2E/x"))
    assert response.body == b"/a%2Fb/%2E%2E/x"


@pytest.mark.parametrize("scheme_and_host", ["http://169.254.169.254", "https://10.0.0.1", "https://[::1]"])
async def test_send_when_read_is_redirected_inside_then_refused(
    site: Site, egress: Egress, scheme_and_host: str
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": f"{scheme_and_host}/latest/meta-data"})

    site.answers["/leads"] = answer
    failure = await failure_of(egress, HttpRequest(method="GET", url=f"{site.url}/leads", idempotent=True))
    assert failure.fault is TransportFault.REFUSED_BY_POLICY
    assert not failure.was_sent


async def test_send_when_read_is_redirected_then_followed_three_times_at_most(
    site: Site, egress: Egress
) -> None:
    async def answer(request: web.Request) -> web.Response:
        left = int(request.query["left"])
        if left == 0:
            return web.Response(text="there")
        return web.Response(status=307, headers={"Location": f"/leads?left={left - 1}"})

    site.answers["/leads"] = answer
    url = f"{site.url}/leads"
    headers = {"Authorization": "Bearer hush"}
    three = HttpRequest(method="GET", url=url, query={"left": "3"}, headers=headers, idempotent=True)
    assert (await egress.send(three)).body == b"there"
    assert [seen[2]["authorization"] for seen in site.seen] == ["Bearer hush"] * 4
    four = HttpRequest(method="GET", url=url, query={"left": "4"}, idempotent=True)
    assert (await egress.send(four)).status == 307


async def test_send_when_write_is_redirected_then_the_redirect_comes_back(site: Site, egress: Egress) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "/other"})

    site.answers["/leads"] = answer
    for method in ("POST", "PUT", "DELETE", "GET"):
        response = await egress.send(HttpRequest(method=method, url=f"{site.url}/leads"))
        assert response.status == 307
    assert {seen[1] for seen in site.seen} == {"/leads"}


async def test_send_when_redirected_to_another_origin_then_keys_stay_behind(site: Site, speak: Speak) -> None:
    heads: list[bytes] = []

    async def speaking(reader: Any, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.head())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()

    other = await speak(speaking)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": f"{other.url}/x"})

    site.answers["/leads"] = answer
    egress = Egress(EgressPolicy(("127.0.0.1",)))
    headers = {
        "Authorization": "Bearer hush",
        "X-Api-Key": "hush",
        "Cookie": "hush=1",
        "Accept": "text/plain",
    }
    request = HttpRequest(method="GET", url=f"{site.url}/leads", headers=headers, idempotent=True)
    assert (await egress.send(request)).body == b"ok"
    await egress.close()
    assert b"hush" not in heads[0]
    assert b"accept: text/plain" in heads[0].lower()


async def test_send_when_name_resolves_to_loopback_then_refused(site: Site) -> None:
    egress = Egress(EgressPolicy(), resolver=FixedResolver(["127.0.0.1"]))
    failure = await failure_of(
        egress, HttpRequest(method="POST", url=f"https://crm.example.com:{site.port}/leads", json={})
    )
    await egress.close()
    assert failure.fault is TransportFault.REFUSED_BY_POLICY
    assert not failure.was_sent
    assert "loopback" in failure.message
    assert site.seen == []


async def test_send_when_any_of_several_addresses_is_inside_then_that_one_is_not_dialled(site: Site) -> None:
    """All addresses of the name are inside: happy eyeballs tries each, and each is refused."""
    egress = Egress(
        EgressPolicy(), resolver=FixedResolver(["169.254.169.254", "::1", "127.0.0.1", "10.0.0.1"])
    )
    failure = await failure_of(egress, HttpRequest(method="GET", url="https://crm.example.com/"))
    await egress.close()
    assert failure.fault is TransportFault.REFUSED_BY_POLICY


async def test_send_when_name_is_rebound_after_first_call_then_second_dial_is_refused(site: Site) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="ok", headers={"Connection": "close"})

    site.answers["/"] = answer
    policy = EgressPolicy((f"crm.internal:{site.port}",))
    egress = Egress(policy, resolver=FixedResolver(["127.0.0.1"], ["169.254.169.254"]))
    request = HttpRequest(method="GET", url=f"http://crm.internal:{site.port}/")
    assert (await egress.send(request)).status == 200
    session = egress._open_session()
    assert isinstance(session.connector, aiohttp.TCPConnector)
    session.connector.clear_dns_cache()
    failure = await failure_of(egress, request)
    await egress.close()
    assert failure.fault is TransportFault.REFUSED_BY_POLICY
    assert "metadata" in failure.message


async def test_send_when_body_is_gzipped_then_decompressed(site: Site, egress: Egress) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(b"[1]"), headers={"Content-Encoding": "gzip"})

    site.answers["/leads"] = answer
    assert (await egress.send(HttpRequest(method="GET", url=f"{site.url}/leads"))).json() == [1]


async def test_send_when_head_tells_a_large_length_then_answered(site: Site, egress: Egress) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 200_000)

    site.answers["/leads"] = answer
    response = await egress.send(HttpRequest(method="HEAD", url=f"{site.url}/leads"))
    assert (response.status, response.body) == (200, b"")


async def test_send_when_server_sets_a_cookie_then_it_is_not_kept(site: Site, egress: Egress) -> None:
    async def answer(request: web.Request) -> web.Response:
        response = web.Response()
        response.set_cookie("session", "hush")
        return response

    site.answers["/leads"] = answer
    for _ in range(2):
        await egress.send(HttpRequest(method="GET", url=f"{site.url}/leads"))
    assert all("cookie" not in headers for _, _, headers, _ in site.seen)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Name", "a\r\nX-Evil: 1"),
        ("X-Name", "a\nb"),
        ("X-Name", "a\0b"),
        ("X-Na\r\nme", "a"),
        ("X Name", "a"),
        ("", "a"),
        ("Host", "169.254.169.254"),
        ("Content-Length", "0"),
        ("transfer-encoding", "chunked"),
        ("Connection", "upgrade"),
    ],
)
async def test_send_when_header_could_split_or_reframe_then_refused(
    site: Site, egress: Egress, name: str, value: str
) -> None:
    request = HttpRequest(method="POST", url=f"{site.url}/leads", headers={name: value}, json={})
    failure = await failure_of(egress, request)
    assert (failure.fault, failure.was_sent) == (TransportFault.REFUSED_BY_POLICY, False)
    assert site.seen == []


@pytest.mark.parametrize("url", ["/leads\r\nX: y", "/a b", "/leads\\x"])
async def test_send_when_url_holds_control_characters_then_refused(
    site: Site, egress: Egress, url: str
) -> None:
    failure = await failure_of(egress, HttpRequest(method="GET", url=site.url + url))
    assert failure.fault is TransportFault.REFUSED_BY_POLICY


async def test_send_when_environment_names_a_proxy_then_it_is_not_used(
    site: Site, egress: Egress, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="direct")

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    site.answers["/leads"] = answer
    assert (await egress.send(HttpRequest(method="GET", url=f"{site.url}/leads"))).body == b"direct"


async def test_send_when_many_at_once_then_each_keeps_its_own_dial(site: Site) -> None:
    """The guard knows the host of each dial although all run at the same time."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="ok")

    site.answers["/"] = answer
    policy = EgressPolicy((f"good.internal:{site.port}",))
    egress = Egress(policy, resolver=FixedResolver(["127.0.0.1"]))

    async def one(number: int) -> str:
        host = f"http://good.internal:{site.port}" if number % 2 else f"https://evil.example:{site.port}"
        try:
            return str((await egress.send(HttpRequest(method="GET", url=f"{host}/"))).status)
        except TransportFailure as failure:
            return failure.fault.value

    answers = await asyncio.gather(*(one(number) for number in range(40)))
    await egress.close()
    assert answers == ["refused_by_policy", "200"] * 20


async def test_send_when_failing_then_message_holds_no_path_or_query() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    egress = open_to(url)
    request = HttpRequest(method="GET", url=f"{url}/jane@example.com", query={"key": "hush"})
    failure = await failure_of(egress, request)
    await egress.close()
    assert "hush" not in failure.message and "jane" not in failure.message


async def test_close_when_closed_then_send_fails() -> None:
    egress = Egress(EgressPolicy())
    await egress.close()
    with pytest.raises(RuntimeError):
        await egress.send(HttpRequest(method="GET", url="https://crm.example.com/"))


def test_import_when_egress_is_imported_then_aiohttp_is_not() -> None:
    code = "import sys, crmbridge.toolkit.egress as e; e.Egress(e.EgressPolicy()); print('aiohttp' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
