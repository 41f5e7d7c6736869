"""Addresses of several servers: read, split, and asked one after the other. No database."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import asyncpg
import pytest

from crmbridge.db import hosts
from crmbridge.db.errors import DatabaseUnavailable, describe_dsn
from crmbridge.db.hosts import Hosts, hosts_of, one_by_one
from crmbridge.db.pool import clear_errors
from crmbridge.settings import SettingRefused, Settings

PAIR = "postgresql://crm:p%40ss@one.example:5432,two.example:6432/crmbridge?target_session_attrs=read-write"


@pytest.mark.parametrize(
    ("dsn", "found"),
    [
        (PAIR, [("one.example", "5432"), ("two.example", "6432")]),
        ("postgresql://u:p@one,two:6432/x", [("one", ""), ("two", "6432")]),
        ("postgresql://u@[::1]:5433,[fe80::1]/x", [("[::1]", "5433"), ("[fe80::1]", "")]),
        ("postgresql:///x?host=/run/a,/run/b&port=5433", [("/run/a", "5433"), ("/run/b", "5433")]),
        ("postgresql:///x?host=a,b&port=1,2", [("a", "1"), ("b", "2")]),
        ("postgresql://h/x", [("h", "")]),
    ],
)
def test_hosts_when_written_in_any_way_then_read(dsn: str, found: list[tuple[str, str]]) -> None:
    assert hosts_of(dsn) == found


@pytest.mark.parametrize("dsn", ["postgresql://u@h:bad/x", "postgresql:///x?host=a,b,c&port=1,2"])
def test_hosts_when_ports_are_wrong_then_refused(dsn: str) -> None:
    with pytest.raises(ValueError, match="port"):
        hosts_of(dsn)


def test_addresses_when_several_then_one_each_that_must_take_writes() -> None:
    assert one_by_one(PAIR) == [
        "postgresql://crm:p%40ss@one.example:5432/crmbridge?target_session_attrs=read-write",
        "postgresql://crm:p%40ss@two.example:6432/crmbridge?target_session_attrs=read-write",
    ]
    assert all("read-write" in one for one in one_by_one("postgresql://u:p@one,two/x?sslmode=require"))
    assert one_by_one("postgresql:///x?host=/run/a,/run/b&port=1,2") == [
        "postgresql:///x?host=/run/a&port=1&target_session_attrs=read-write",
        "postgresql:///x?host=/run/b&port=2&target_session_attrs=read-write",
    ]
    alone = "postgresql://u:p@one/x"
    assert one_by_one(alone) == [alone]


def test_error_when_several_hosts_then_all_are_named_and_no_password() -> None:
    assert describe_dsn(PAIR) == "one.example:5432,two.example:6432/crmbridge as crm"


def test_settings_when_two_hosts_then_taken() -> None:
    both = {"CRMBRIDGE_DATABASE_URL": PAIR, "CRMBRIDGE_DATABASE_SCHEDULER_URL": PAIR}
    assert Settings.from_environment(both).database_url == PAIR


@pytest.mark.parametrize(
    "url",
    ["postgresql://u:p@one,,two/x", "postgresql://u:p@one:port,two/x", "mysql://a,b/x", "postgresql:///x"],
)
def test_settings_when_hosts_are_wrong_then_refused(url: str) -> None:
    with pytest.raises(SettingRefused):
        Settings.from_environment({"CRMBRIDGE_DATABASE_URL": url, "CRMBRIDGE_DATABASE_SCHEDULER_URL": PAIR})


class Conn:
    """Of a connection, what is asked of it when it is new."""

    def __init__(self, transport: Any = None) -> None:
        self._transport = transport
        self.told: list[str] = []

    async def execute(self, statement: str) -> None:
        self.told.append(statement)


class Servers:
    """Instead of asyncpg: who answers how, and who was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []
        monkeypatch.setattr(asyncpg, "connect", self.connect)

    async def connect(self, dsn: str, *, timeout: float, **options: Any) -> Any:
        name = hosts_of(dsn)[0][0].partition(".")[0]
        self.asked.append(name)
        answer = self.answers[name]
        if answer == "silent":
            async with asyncio.timeout(timeout):
                await asyncio.sleep(60)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_connect_when_the_first_is_off_the_network_then_the_second_and_it_is_asked_first_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hosts, "EACH_SECONDS", 0.05)
    servers = Servers(monkeypatch, one="silent", two=(second := Conn()))
    both = Hosts(PAIR)
    assert [await both.connect(PAIR), await both.connect(PAIR)] == [second] * 2
    assert servers.asked == ["one", "two", "two"]


async def test_connect_when_only_a_standby_answers_then_told_so_with_a_time_to_try_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Servers(monkeypatch, one=asyncpg.TargetServerAttributeNotMatched("standby"), two=ConnectionRefusedError())
    with (
        pytest.raises(DatabaseUnavailable, match="takes no writes: only a standby") as refusal,
        clear_errors(PAIR),
    ):
        await Hosts(PAIR).connect()
    assert refusal.value.http_status == 503 and refusal.value.retry_after_seconds == 2.0
    assert refusal.value.retry_safe


async def test_connection_when_over_the_network_then_a_dead_peer_is_noticed_soon() -> None:
    """asyncpg does not tell its socket: this fails when a newer one hides it elsewhere."""
    kept: list[Any] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept.append(writer)
        await reader.read(8)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        conn = Conn(writer.transport)
        assert await hosts._kept_alive(conn) is conn
        (told,) = conn.told
        assert "tcp_user_timeout = 12000" in told and "idle_in_transaction_session_timeout" in told
        sock = writer.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 12_000
        writer.close()
        for one in kept:
            one.close()
    assert "_transport" in asyncpg.Connection.__slots__
