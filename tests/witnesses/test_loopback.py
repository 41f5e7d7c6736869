"""The stage that witnesses stand on: it must really be TLS, really the vendor's name, and lead nowhere else."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.witnesses.loopback import Stage, staged

from crmbridge.core.wire import HttpResponse
from crmbridge.emulation import Emulator, Incoming, route

HOST = "api.vendor.example"


class Echo(Emulator):
    slug = "echo"

    @route("GET", "/hello")
    def hello(self, call: Incoming) -> HttpResponse:
        return self.answer({"host": call.headers["host"], "link": f"{self.base_url}/next"})


def ask(stage: Stage, host: str, ca_file: str | None) -> dict[str, str]:
    """One request through the proxy, as any client makes it."""
    proxy = urlsplit(stage.proxy_url)
    context = ssl.create_default_context(cafile=ca_file)
    client = http.client.HTTPSConnection(proxy.hostname or "", proxy.port, timeout=10, context=context)
    client.set_tunnel(host, 443)
    try:
        client.request("GET", "/hello")
        answer: dict[str, str] = json.loads(client.getresponse().read())
        return answer
    finally:
        client.close()


async def test_stage_when_asked_for_the_vendors_host_then_the_emulator_answers_over_tls(
    tmp_path: Path,
) -> None:
    async with staged(Echo(), tmp_path, HOST) as stage:
        answer = await asyncio.to_thread(ask, stage, HOST, stage.ca_file)
    assert answer == {"host": HOST, "link": f"https://{HOST}/next"}
    assert stage.asked == [HOST]


async def test_stage_when_the_authority_is_not_trusted_then_refused_by_the_client(tmp_path: Path) -> None:
    async with staged(Echo(), tmp_path, HOST) as stage:
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.to_thread(ask, stage, HOST, None)


async def test_stage_when_another_host_is_asked_for_then_no_tunnel(tmp_path: Path) -> None:
    async with staged(Echo(), tmp_path, HOST) as stage:
        with pytest.raises(OSError, match="403"):
            await asyncio.to_thread(ask, stage, "elsewhere.example", stage.ca_file)
    assert stage.refused == ["elsewhere.example:443"]


async def test_stage_when_the_emulator_cuts_then_the_client_is_cut(tmp_path: Path) -> None:
    emulator = Echo()
    emulator.faults.add("cut_before")
    async with staged(emulator, tmp_path, HOST) as stage:
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError, ssl.SSLError)):
            await asyncio.to_thread(ask, stage, HOST, stage.ca_file)
