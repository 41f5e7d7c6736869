"""Where a database is: one server, or several of which one takes writes; how soon a dead one is given up, and we by it.

``postgresql://user:password@one:5432,two:5432/crmbridge?target_session_attrs=read-write`` names a primary and its
standby. asyncpg tries such hosts in order under one timeout for all, so a first host that is off the network would
keep the second from ever being asked. Here each has its own time, and the one that took writes last is asked first.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg

__all__ = ["Hosts", "hosts_of", "one_by_one"]

CONNECT_SECONDS = 10.0
# Of several, each: a machine that is gone answers nothing at all.
EACH_SECONDS = 3.0
_WRITES = "read-write"
# A connection whose other end is gone (no power, no network) would wait for an answer for hours: given up after
# 12 s with something unacknowledged, after 5 + 3 * 3 s in silence. Seconds, seconds, number, milliseconds.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 12_000}
# The same from the server's side: it keeps what a vanished machine had locked until it notices, by default for two
# hours, and whoever needs the row waits. A process that stands still in a transaction is cut after a minute: the
# longest wait in one is a token call (15 s). Set by a statement, for PgBouncer refuses them at the start.
_SESSION = f"""
set tcp_keepalives_idle = {_KEEP_ALIVE["TCP_KEEPIDLE"]}; set tcp_keepalives_interval = {_KEEP_ALIVE["TCP_KEEPINTVL"]};
set tcp_keepalives_count = {_KEEP_ALIVE["TCP_KEEPCNT"]}; set tcp_user_timeout = {_KEEP_ALIVE["TCP_USER_TIMEOUT"]};
set idle_in_transaction_session_timeout = 60000
"""


def hosts_of(dsn: str) -> list[tuple[str, str]]:
    """Hosts and ports of a PostgreSQL URL, as written; an empty port is 5432. A folder of a socket counts as host.

    Raises ValueError: a port that is no number, or ports that do not match the hosts.
    """
    parts = urlsplit(dsn)
    query = dict(parse_qsl(parts.query))
    listed = parts.netloc.rpartition("@")[2]
    if listed:
        found = [_host_and_port(one) for one in listed.split(",")]
    else:
        names = query.get("host", "localhost").split(",")
        ports = query.get("port", "").split(",")
        ports = ports * len(names) if len(ports) == 1 else ports
        if len(ports) != len(names):
            raise ValueError("as many ports as hosts, or one for all")
        found = list(zip(names, ports, strict=True))
    for _, port in found:
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
            raise ValueError(f"not a port: {port}")
    return found


def _host_and_port(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, _, port = text.partition("]")
        return f"{host}]", port.removeprefix(":")
    host, _, port = text.partition(":")
    return host, port


def one_by_one(dsn: str) -> list[str]:
    """The same address for each host alone. Of several, each must take writes, unless the URL says otherwise."""
    found = hosts_of(dsn)
    if len(found) == 1:
        return [dsn]
    parts = urlsplit(dsn)
    rest = [(name, text) for name, text in parse_qsl(parts.query) if name not in ("host", "port")]
    if "target_session_attrs" not in dict(rest):
        rest.append(("target_session_attrs", _WRITES))
    user, at, _ = parts.netloc.rpartition("@")
    made = []
    for host, port in found:
        if host.startswith("/"):
            place, more = "", [("host", host), ("port", port or "5432")]
        else:
            place, more = f"{host}:{port}" if port else host, []
        query = urlencode([*more, *rest], safe="/")
        made.append(f"{parts.scheme}://{user}{at}{place}{parts.path}?{query}")
    return made


class Hosts:
    """The servers of one address; ``connect`` is what asyncpg's pool calls for each new connection."""

    def __init__(self, dsn: str) -> None:
        self._each = one_by_one(dsn)
        self._last = 0

    async def connect(self, *_: Any, timeout: float = CONNECT_SECONDS, **options: Any) -> Any:
        """A connection to the server, of several to the one that takes writes.

        The address of a pool that is handed along is the one given at construction. Raises what the last server raised;
        when one of them is a standby, that is told.
        """
        if len(self._each) == 1:
            return await _kept_alive(await asyncpg.connect(self._each[0], timeout=timeout, **options))
        failure: BaseException | None = None
        for step in range(len(self._each)):
            place = (self._last + step) % len(self._each)
            try:
                conn = await asyncpg.connect(self._each[place], timeout=min(timeout, EACH_SECONDS), **options)
            except (OSError, asyncpg.PostgresError, asyncpg.InternalClientError) as error:
                if not isinstance(failure, asyncpg.TargetServerAttributeNotMatched):
                    failure = error
                continue
            self._last = place
            return await _kept_alive(conn)
        assert failure is not None
        raise failure


async def _kept_alive(conn: Any) -> Any:
    """Let both ends notice a dead peer. asyncpg has no option for its own and does not tell its socket."""
    transport = getattr(conn, "_transport", None)
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        # Where the system lacks one of them, it keeps its own time.
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, number in _KEEP_ALIVE.items():
                if hasattr(socket, name):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), number)
    try:
        await conn.execute(_SESSION)
    except BaseException:
        conn.terminate()
        raise
    return conn
