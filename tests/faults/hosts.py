"""Several hosts: a database, two APIs, two workers and a CRM, each on its own, and cables that are pulled.

A pulled cable is a partition, not a crash: the process lives on with its old view, and what it sends late arrives when
the cable is back.
"""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import aiohttp
import msgspec
from tests.faults.child import Plan
from tests.faults.connecting import Trade
from tests.faults.house import QUICK, ROOT, FaultHouse
from tests.faults.ledger import Line
from tests.faults.load import trades, until
from tests.faults.network import HOST_VARIABLE, Network, laid
from tests.faults.nursery import Nursery
from tests.faults.pair import Server
from tests.faults.process import Child
from tests.faults.traffic import Traffic, first_key, traffic
from tests.needs import folder_for_all

from crmbridge.db import cluster as os_side
from crmbridge.db.pool import connect
from crmbridge.db.roles import RoleDsns, RolePasswords, create_roles
from crmbridge.db.schema import migrate
from crmbridge.services.vault.master import new_master_key

__all__ = ["Room", "hosts_apart", "partitions"]

HOSTS = {"db": 10, "crm": 20, "api1": 31, "api2": 32, "work1": 41, "work2": 42}
_SLUGS = ("odoo", "rest_api", "custom_webhook")
_ADMIN = "hosts_admin"
# Longer than QUICK's: with 100 ms to the database a lease must be renewed and a call ended in them.
PLAN = msgspec.structs.replace(
    QUICK,
    limits={**QUICK.limits, "lease_seconds": 3.0, "send_seconds": 3.0, "settle_seconds": 2.0},
    timeout_seconds=1.5,
)


class Room:
    """A house whose processes stand on hosts of their own."""

    def __init__(self, network: Network, house: FaultHouse) -> None:
        self.network = network
        self.house = house
        self.at: dict[str, Child] = {}
        self._doors: list[asyncio.Server] = []

    def _there(self, host: str) -> dict[str, str]:
        return {
            HOST_VARIABLE: str(self.network.namespace(host)),
            "CRMBRIDGE_HOST": self.network.addresses[host],
        }

    async def start_api(self, host: str) -> Child:
        """``crmbridge serve --no-worker`` there, and a door to it on the switch's loopback, where callers knock."""
        child = self.at[host] = self.house.start_api(more=self._there(host))
        address = self.network.addresses[host]

        async def door(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                theirs, ours = await asyncio.wait_for(asyncio.open_connection(address, child.port), 3)
            except (OSError, TimeoutError):
                writer.transport.abort()
                return
            await asyncio.gather(_carry(reader, ours), _carry(theirs, writer))

        self._doors.append(await asyncio.start_server(door, "127.0.0.1", child.port))
        return child

    def start_worker(self, host: str) -> Child:
        """``crmbridge worker`` there."""
        child = self.at[host] = self.house.start_worker(more=self._there(host))
        return child

    async def lanes(self) -> dict[Any, tuple[str, int]]:
        """Lanes that somebody holds: connection → (process id of the holder, fence)."""
        rows = await self.house.fetch(
            "select connection_id, owner, fence from lanes where owner <> '' and leased_until > clock_timestamp()"
        )
        return {row["connection_id"]: (row["owner"].rpartition(":")[2], row["fence"]) for row in rows}

    async def fences(self) -> dict[Any, int]:
        rows = await self.house.fetch("select connection_id, fence from lanes")
        return {row["connection_id"]: row["fence"] for row in rows}

    def told(self, host: str, event: str) -> int:
        """How often the process of this host logged that."""
        text = (self.house.folder / f"{self.at[host].name}.log").read_text()
        return text.count(f'"{event}"')

    def close(self) -> None:
        for door in self._doors:
            door.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while some := await reader.read(65_536):
            writer.write(some)
            await writer.drain()
    writer.close()


class _Database:
    """PostgreSQL on its host, reached by password over the network only."""

    def __init__(self, network: Network, folder: Path) -> None:
        self._network = network
        user = os_side.ServiceUser.choose()
        folder.mkdir(mode=0o755)
        user.own(folder)
        binaries = os_side.readable_binaries(os_side.find_binaries(), folder, user)
        self.server = Server("database", folder / "data", binaries, user)
        self._secret, self._user, self._folder = secrets.token_urlsafe(18), user, folder
        place = f"{network.addresses['db']}:{self.server.port}"
        self.admin_dsn = f"postgresql://{_ADMIN}:{self._secret}@{place}/postgres"

    async def start(self) -> RoleDsns:
        secret = self._folder / "secret"
        secret.write_text(self._secret)
        self._user.own(secret)
        self.server.run(
            "initdb",
            *("-D", str(self.server.folder), "-U", _ADMIN, f"--pwfile={secret}", "--auth=scram-sha-256"),
            *("--data-checksums", "--encoding=UTF8", "--locale=C", "--no-instructions"),
        )
        secret.unlink()
        with (self.server.folder / "pg_hba.conf").open("a") as out:
            out.write("host all all 10.203.119.0/24 scram-sha-256\n")
        with self._network.at("db"):
            self.server.start({"listen_addresses": self._network.addresses["db"]})
        conn = await connect(self.admin_dsn, patience_seconds=40)
        await conn.close()
        made = await create_roles(self.admin_dsn, RolePasswords.generate())
        await migrate(made.owner)
        return made


@asynccontextmanager
async def hosts_apart(*, plan: Plan = PLAN, seed: int = 7) -> AsyncIterator[Room]:
    """The whole room, working; gone afterwards."""
    with laid(HOSTS) as network, folder_for_all("crmb-hosts-") as folder:
        database = _Database(network, folder / "pg")
        try:
            dsns = await database.start()
            made = new_master_key()
            environment = {
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
                "CRMBRIDGE_MASTER_KEY": made if ":" in made else f"k1:{made}",
                "CRMBRIDGE_EGRESS_ALLOW": network.addresses["crm"],
                "CRMBRIDGE_DATA_DIR": str(folder / "own"),
                "CRMBRIDGE_LOG_FORMAT": "json",
                "CRMBRIDGE_SHUTDOWN_SECONDS": "5",
                "CRMBRIDGE_DATABASE_URL": dsns.app,
                "CRMBRIDGE_DATABASE_SCHEDULER_URL": dsns.scheduler,
            }
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http:
                nursery = Nursery(environment, folder, ROOT)
                postgres: Any = SimpleNamespace(admin_dsn=database.admin_dsn)
                house = FaultHouse(folder, postgres, plan, environment, seed, http, nursery)
                room = Room(network, house)
                try:
                    with network.at("crm"):
                        house.start_crm(_SLUGS, 0.3, host=network.addresses["crm"])
                    await room.start_api("api1")
                    room.start_worker("work1")
                    room.start_worker("work2")
                    await first_key(house)
                    await house.ready(await room.start_api("api2"))
                    for host in ("work1", "work2"):
                        await house.working(room.at[host])
                    yield room
                finally:
                    room.close()
                    await asyncio.to_thread(house.close)
                    nursery.close()
        finally:
            await asyncio.to_thread(database.server.stop)


async def partitions(room: Room, *, seconds: float, rounds: int = 1, callers: int = 4) -> Line:
    """Under load: each worker's cable is pulled and put back, an API's too, and the database gets far away."""
    house, line = room.house, Line("hosts: cables pulled")
    began = monotonic()
    these = await trades(house, "hosts", 6, _SLUGS)
    for slug in _SLUGS:
        # A call takes long enough to be under way when the cable is pulled.
        await house.control("POST", slug, "latency", {"ms": 250})
    taken: list[float] = []
    async with traffic(these, callers, pause=0.02, waited=0.2) as met:
        await asyncio.sleep(seconds)
        for number in range(rounds):
            taken.append(await _worker_unplugged(room, number, seconds))
        line.notes["seconds behind the locks of a host that vanished"] = await _locks_left(room, these[0])
        await _api_unplugged(room, met, line, seconds)
        line.notes["round trip of 100 ms to the database by"] = await _far_database(room, met, line, seconds)
    line.takeover_seconds = max(taken)
    for slug in _SLUGS:
        await house.control("POST", slug, "latency", {"ms": 0})
    await house.settle(240)
    workers = ("work1", "work2")
    line.notes["late saves refused"] = sum(room.told(host, "save.refused") for host in workers)
    for host, child in room.at.items():
        if not child.is_alive:
            line.wrong.append(f"the process of {host} ended")
    line.seconds = monotonic() - began
    return await house.judge(line, met.tokens)


async def _worker_unplugged(room: Room, number: int, seconds: float) -> float:
    """Pull the cable of a worker that holds a lane; seconds until every lane that it held was somebody else's."""
    pids = {str(room.at[host].process.pid): host for host in ("work1", "work2")}
    deadline = monotonic() + 30
    while True:
        held = {lane: entry for lane, entry in (await room.lanes()).items() if entry[0] in pids}
        wanted = f"work{1 + number % 2}"
        its = {lane: fence for lane, (pid, fence) in held.items() if pids[pid] == wanted}
        if its:
            break
        assert monotonic() < deadline, f"{wanted} never held a lane"
        await asyncio.sleep(0.02)
    room.network.unplug(wanted)
    pulled = monotonic()
    # It may have given a lane free before the cable was out, or taken another one.
    its = {lane: fence for lane, (pid, fence) in (await room.lanes()).items() if pids.get(pid) == wanted}
    gone = 0.0
    while its:
        assert monotonic() - pulled < 120, "nobody took the lanes over"
        now = await room.fences()
        its = {lane: fence for lane, fence in its.items() if now[lane] == fence}
        gone = monotonic() - pulled
        await asyncio.sleep(0.05)
    # Until its call has timed out there, and its save waits on the dead cable.
    await asyncio.sleep(max(0.0, seconds - (monotonic() - pulled)))
    room.network.plug(wanted)
    await asyncio.sleep(seconds)
    return gone


async def _locks_left(room: Room, trade: Trade) -> float:
    """A host vanishes with the lock of a lane in its hand; seconds until that lane takes a write again."""
    house = room.house
    (lane,) = await house.fetch(
        "select l.connection_id, l.tenant_id from lanes l join tenants t on t.id = l.tenant_id where t.slug = $1",
        trade.tenant,
    )
    with room.network.at("work1"):
        holder = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.holder", str(lane["tenant_id"]), str(lane["connection_id"])],
            cwd=ROOT,
            env=house.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    try:
        assert holder.stdout is not None
        assert await asyncio.to_thread(holder.stdout.readline) == b"locked\n"
        room.network.unplug("work1")
        pulled = monotonic()
        # What an accept does with its lane. Callers meet the same lock meanwhile, and ask again.
        pull = "update lanes set next_due = clock_timestamp() where connection_id = $1 returning true"
        await asyncio.wait_for(house.fetch(pull, lane["connection_id"]), 60)
        seconds = monotonic() - pulled
    finally:
        holder.kill()
        holder.communicate()
        room.network.plug("work1")
    return seconds


async def _api_unplugged(room: Room, met: Traffic, line: Line, seconds: float) -> None:
    room.network.unplug("api2")
    pulled, before = monotonic(), len(met.tokens)
    await until(lambda: len(met.tokens) > before + 10, 30, "accepts at the other API")
    await asyncio.sleep(seconds)
    line.notes["accepted with an API off"] = len(met.tokens) - before
    room.network.plug("api2")
    port, back = room.at["api2"].port, monotonic()

    def is_there() -> bool:
        return any(one.port == port and one.end == "accepted" and one.at > back for one in met.tries)

    await until(is_there, 30, "an accept at the API that came back")
    line.notes["cut tries"] = met.ends(pulled, monotonic())["cut"]


async def _far_database(room: Room, met: Traffic, line: Line, seconds: float) -> str:
    made = room.network.slow("db", 0.05)
    if made:
        await asyncio.sleep(seconds)
        began, before = monotonic(), len(met.tokens)
        await until(lambda: len(met.tokens) > before + 10, 60, "accepts over the long way")
        line.notes["accept p99 ms then"] = met.p99_ms(began, monotonic())
    return made or "nothing here: neither netem nor /dev/net/tun"
