"""A house to be broken: PostgreSQL, emulators, API and worker processes, each a process that may be killed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import aiohttp
import msgspec
from tests.faults.child import VARIABLE, Plan
from tests.faults.crm import Called, Wanted
from tests.faults.ledger import PENDING, Accepted, Holdings, Line
from tests.faults.machine import DATABASE_CLOCK, faketime
from tests.faults.nursery import Nursery
from tests.faults.process import Child, free_ports

from crmbridge.cli.client import Client
from crmbridge.db import embedded
from crmbridge.db.embedded import DATABASE, EmbeddedPostgres
from crmbridge.db.pool import connect
from crmbridge.db.roles import SCHEMA
from crmbridge.db.schema import migrate
from crmbridge.services.vault.master import new_master_key

__all__ = ["MANY", "PRODUCT", "QUICK", "Child", "FaultHouse", "free_ports", "opened"]

# A dozen processes are more than an embedded server is made for.
embedded._SETTINGS["max_connections"] = "250"

ROOT = Path(__file__).parents[2]

# Times that let a small run end soon. The large run uses the product's own (Plan()).
QUICK = Plan(
    limits={
        "lease_seconds": 1.5,
        "send_seconds": 1.0,
        "settle_seconds": 0.8,
        "retry_base_seconds": 0.05,
        "retry_cap_seconds": 0.5,
        "turn_seconds": 1.0,
    },
    timeout_seconds=0.6,
    lag_seconds=0.5,
)
# What is late at the CRM must have come when it is looked for: on a busy machine that takes more than QUICK's times.
MANY = msgspec.structs.replace(
    QUICK, limits={**QUICK.limits, "send_seconds": 3.0, "settle_seconds": 2.5}, timeout_seconds=1.0
)
PRODUCT = Plan()
_START_SECONDS = 60.0


@dataclass
class FaultHouse:
    """Everything that runs, and the book of what was accepted."""

    folder: Path
    postgres: EmbeddedPostgres
    plan: Plan
    environment: dict[str, str]
    seed: int
    http: aiohttp.ClientSession
    nursery: Nursery
    apis: list[Child] = field(default_factory=list)
    workers: list[Child] = field(default_factory=list)
    crms: list[Child] = field(default_factory=list)
    pages: dict[str, str] = field(default_factory=dict)
    emulators: dict[str, dict[str, Any]] = field(default_factory=dict)
    key: str = ""
    book: dict[str, Accepted] = field(default_factory=dict)
    one: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    started: int = 0
    kills: int = 0
    _tokens: Any = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.word = "".join(self.random.choice("abcdefghijkmnpqrstuvwxyz") for _ in range(4))

    def token(self) -> str:
        """A new one; see ``ledger.TOKEN``."""
        return f"Fx{self.word}{next(self._tokens):06d}"

    # -- processes -------------------------------------------------------------------------------------------------

    def _start(self, name: str, command: list[str], more: Mapping[str, str]) -> Child:
        """``crmbridge`` with these arguments: forked, or a fresh process where something must be loaded before it."""
        self.started += 1
        environment, log = {**self.environment, **more}, self.folder / f"{name}.log"
        log.touch()
        if "LD_PRELOAD" not in more:
            return Child(name, self.nursery.spawn(command, environment, log))
        with log.open("ab") as out:
            fresh = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.child", *command],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        return Child(name, fresh)

    def start_crm(self, slugs: Sequence[str], lag: float, **more: Any) -> None:
        """The emulators, in a process of their own; waits until they are there. ``more``: see :class:`crm.Wanted`."""
        wanted = Wanted(
            port=free_ports(len(slugs) + 1),
            slugs=list(slugs),
            lag_seconds=lag,
            log=str(self.folder / "calls.log"),
            **more,
        )
        with (self.folder / "crm.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.crm", msgspec.json.encode(wanted).decode()],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.started += 1
        child = Child(f"crm-{'-'.join(slugs)}", process)
        self.crms.append(child)
        assert child.process.stdout is not None
        line = child.process.stdout.readline()
        assert line, (self.folder / "crm.log").read_text()[-2000:]
        tree = json.loads(line)
        self.pages |= dict.fromkeys(slugs, tree["page"])
        self.emulators |= tree["emulators"]

    def change_rate(self, slug: str, limit: int, per_seconds: float) -> None:
        """Another rate in the document that operators give for this service. Before tenants are connected."""
        settings = self.emulators[slug]["settings"]
        document = json.loads(settings["manifest"])
        document["rate"] = {"limit": limit, "perSeconds": per_seconds}
        settings["manifest"] = json.dumps(document)

    def calls(self, slug: str) -> list[Called]:
        """Every call that this CRM has ended, in the order of their ends."""
        text = (self.folder / "calls.log").read_text() if (self.folder / "calls.log").exists() else ""
        return [Called.read(line) for line in text.splitlines() if f" {slug} " in line]

    def _planned(self, crash: str, plan: Plan | None) -> dict[str, str]:
        made = msgspec.structs.replace(plan or self.plan, crash=crash)
        return {VARIABLE: msgspec.json.encode(made).decode()}

    def start_worker(self, crash: str = "", *, more: Mapping[str, str] | None = None) -> Child:
        """``crmbridge worker``. ``crash``: see ``child.POINTS``."""
        environment = {**self._planned(crash, None), **(more or {})}
        child = self._start(f"worker-{self.started}", ["worker"], environment)
        self.workers.append(child)
        return child

    def start_api(
        self, crash: str = "", *, with_worker: bool = False, more: Mapping[str, str] | None = None
    ) -> Child:
        """``crmbridge serve``, without its worker unless told otherwise. The first one is awaited."""
        port = free_ports()
        url = f"http://127.0.0.1:{port}"
        environment = {
            **self._planned(crash, None),
            "CRMBRIDGE_PORT": str(port),
            "CRMBRIDGE_PUBLIC_URL": url,
            **(more or {}),
        }
        command = ["serve"] if with_worker else ["serve", "--no-worker"]
        child = self._start(f"api-{self.started}", command, environment)
        child.port = port
        self.apis.append(child)
        return child

    async def ready(self, child: Child) -> None:
        """Until an API answers."""
        deadline = monotonic() + _START_SECONDS
        while True:
            with suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with self.http.get(f"http://127.0.0.1:{child.port}/readyz") as answer:
                    if answer.status == 200:
                        return
            log = (self.folder / f"{child.name}.log").read_text()[-2000:]
            assert child.is_alive and monotonic() < deadline, f"{child.name} does not answer: {log}"
            await asyncio.sleep(0.05)

    async def working(self, child: Child) -> None:
        """Until a worker says that it works, or has died at its point."""
        deadline = monotonic() + _START_SECONDS
        while child.is_alive and not self.has_begun(child):
            log = (self.folder / f"{child.name}.log").read_text()
            assert monotonic() < deadline, f"{child.name} does not work: {log[-2000:]}"
            await asyncio.sleep(0.05)

    def has_begun(self, child: Child) -> bool:
        """Whether an API listens, or a worker works."""
        text = (self.folder / f"{child.name}.log").read_text()
        return ("Uvicorn running" if child.port else "working") in text

    def kill(self, child: Child) -> None:
        """SIGKILL, counted."""
        child.kill()
        self.kills += 1

    def clear_dead(self) -> list[Child]:
        """Forget processes that ended by themselves; answers them, each counted as killed."""
        dead = [child for child in (*self.apis, *self.workers) if not child.is_alive]
        self.apis = [child for child in self.apis if child.is_alive]
        self.workers = [child for child in self.workers if child.is_alive]
        return dead

    def note_ended(self, line: Line) -> None:
        """An API or a worker that ended, though nobody killed it, is wrong."""
        line.wrong += [f"{child.name} ended" for child in (*self.apis, *self.workers) if not child.is_alive]

    def close(self) -> None:
        """SIGTERM, patience, SIGKILL; ours only."""
        children = [*self.apis, *self.workers, *self.crms]
        for child in children:
            if child.is_alive:
                child.process.terminate()
        deadline = monotonic() + 8
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.1, deadline - monotonic()))
            if child.is_alive:
                child.kill()
            if child.process.stdout is not None:
                child.process.stdout.close()

    # -- database and CRM ------------------------------------------------------------------------------------------

    async def states(self) -> dict[str, str]:
        """State of every write of this house by write id; ``missing`` rows are not in it."""
        return {
            str(row["write_id"]): row["state"]
            for row in await self.fetch("select write_id, state from write_targets")
        }

    async def fetch(self, query: str, *values: Any) -> list[Any]:
        """As the database's superuser, past row-level security."""
        address = urlunsplit(urlsplit(self.postgres.admin_dsn)._replace(path=f"/{DATABASE}"))
        conn = await connect(address, patience_seconds=20)
        try:
            await conn.execute(f"set search_path = {SCHEMA}")
            found: list[Any] = await conn.fetch(query, *values)
            return found
        finally:
            await conn.close()

    async def settle(self, seconds: float = 60.0, *, without: Sequence[str] = ()) -> None:
        """Until nothing is pending, of tenants not named in ``without``. Leaves what stays pending to the ledger."""
        deadline = monotonic() + seconds
        while monotonic() < deadline:
            rows = await self.fetch(
                "select count(*) as n from write_targets w join tenants t on t.id = w.tenant_id "
                "where w.state = any($1) and t.slug <> all($2)",
                list(PENDING),
                list(without),
            )
            if not rows[0]["n"]:
                return
            await asyncio.sleep(0.1 if rows[0]["n"] < 2000 else 1.0)

    async def control(self, method: str, slug: str, what: str, body: Any = None) -> Any:
        """A control route of an emulator."""
        patient = aiohttp.ClientTimeout(total=180)
        async with self.http.request(
            method, f"{self.pages[slug]}/_control/{slug}/{what}", json=body, timeout=patient
        ) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def holdings(self, slug: str) -> Holdings:
        """What this CRM holds now."""
        return Holdings.read(await self.control("GET", slug, "records"))

    # -- writes ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """The command line's client of the first API."""
        async with Client(f"http://127.0.0.1:{self.apis[0].port}", self.key) as client:
            yield client

    async def put(
        self,
        tenant: str,
        slug: str,
        obj: str,
        token: str,
        body: dict[str, Any],
        *,
        prefer: str = "",
        patience: float = 60.0,
        port: int = 0,
    ) -> dict[str, Any]:
        """Hand one write over, with one key, at one API after the other, until it is accepted.

        That is what an agent does: an answer that did not come is asked for again with the same key.
        """
        began = monotonic()
        headers = {"Authorization": f"Bearer {self.key}", "Idempotency-Key": token}
        if prefer:
            headers["Prefer"] = prefer
        tries = 0
        while True:
            tries += 1
            at = port if port and tries == 1 else self.random.choice([child.port for child in self.apis])
            try:
                async with self.http.post(
                    f"http://127.0.0.1:{at}/api/tenants/{tenant}/records/{obj}", json=body, headers=headers
                ) as answer:
                    tree: dict[str, Any] = await answer.json(content_type=None)
                    if answer.status in (200, 201, 202):
                        break
                    assert answer.status in (429, 500, 502, 503) and "write_id" not in tree, tree
            except (aiohttp.ClientError, OSError, TimeoutError, json.JSONDecodeError):
                pass
            assert monotonic() - began < patience, f"{token} was not accepted in {patience} s"
            await asyncio.sleep(0.05)
        self.enter(token, tenant, slug, obj, tree["write_id"], seconds=monotonic() - began, tries=tries)
        return tree

    async def put_many(
        self,
        tenant: str,
        slug: str,
        obj: str,
        bodies: Mapping[str, dict[str, Any]],
        *,
        import_id: str = "",
        port: int = 0,
        patience: float = 60.0,
    ) -> None:
        """Hand up to 500 creates over in one request, token → body; what did not come is asked for again."""
        began = monotonic()
        headers = {"Authorization": f"Bearer {self.key}"}
        writes = [{**body, "idempotency_key": token} for token, body in bodies.items()]
        tree: dict[str, Any] = {"writes": writes, **({"import_id": import_id} if import_id else {})}
        tries = 0
        while True:
            tries += 1
            at = port if port and tries == 1 else self.random.choice([child.port for child in self.apis])
            url = f"http://127.0.0.1:{at}/api/tenants/{tenant}/records/{obj}/batch"
            with suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with self.http.post(url, json=tree, headers=headers) as answer:
                    told = await answer.json(content_type=None)
                    if answer.status == 200:
                        break
                    assert answer.status in (429, 500, 502, 503), told
            assert monotonic() - began < patience, f"{obj} of {tenant} were not accepted in {patience} s"
            await asyncio.sleep(0.05)
        for token, result in zip(bodies, told["results"], strict=True):
            assert "write_id" in result, (token, result)
            seconds = monotonic() - began
            self.enter(token, tenant, slug, obj, result["write_id"], seconds=seconds, tries=tries)

    def enter(
        self,
        token: str,
        tenant: str,
        slug: str,
        obj: str,
        write_id: str,
        *,
        seconds: float = 0.0,
        tries: int = 1,
    ) -> None:
        """Into the book: this was accepted."""
        self.book[token] = Accepted(tenant, slug, obj, write_id, seconds, tries)

    async def judge(self, line: Line, tokens: Sequence[str]) -> Line:
        """Compare book, database and CRM for these tokens, and count into the line."""
        states = await self.states()
        held = {slug: await self.holdings(slug) for slug in {self.book[token].slug for token in tokens}}
        for token in tokens:
            entry = self.book[token]
            state = states.get(entry.write_id)
            if state is None:
                line.accepted += 1
                line.lost += 1
                line.wrong.append(f"{token} was accepted and its write {entry.write_id} is not there")
                continue
            one = self.one[entry.slug, entry.object]
            doubled = line.doubled
            line.judge(token, state, held[entry.slug].by_token.get(token, Counter()), one)
            if line.doubled > doubled or (state in PENDING and len(line.wrong) < 8):
                line.wrong.append(await self._story(entry.write_id, held[entry.slug].made.get(token, [])))
        wrote = len({self.book[token].write_id for token in tokens})
        if wrote != len(set(tokens)):
            line.wrong.append(f"{len(set(tokens))} keys were answered with {wrote} writes")
        line.processes, line.kills = self.started, self.kills
        return line

    async def _story(self, write_id: str, made: Sequence[str]) -> str:
        """When the rows of one write were made, what was tried, and how its lane stands."""
        tries = await self.fetch(
            "select a.* from attempts a join write_targets w on w.id = a.target_id where w.write_id = $1 "
            "order by a.started_at",
            UUID(write_id),
        )
        told = [
            f"{row['kind']} {row['started_at']:%H:%M:%S.%f}-{row['finished_at']:%H:%M:%S.%f} "
            f"{row['outcome']} {row['code'] or ''}"
            for row in tries
        ]
        [lane] = await self.fetch(
            "select w.fence as sent_under, w.sent_at, w.due_at, l.fence, l.owner, l.leased_until, l.next_due, "
            "l.not_before, l.failures, l.is_paused, clock_timestamp() as now from write_targets w "
            "join lanes l on l.connection_id = w.connection_id where w.write_id = $1",
            UUID(write_id),
        )
        stands = ", ".join(f"{name} {value}" for name, value in lane.items() if value is not None)
        return f"its rows were made at {', '.join(made)}; tried: {'; '.join(told)}; {stands}"


@asynccontextmanager
async def opened(
    slugs: Sequence[str],
    *,
    plan: Plan = QUICK,
    lag: float = 0.3,
    seed: int = 1,
    postgres_folder: Path | None = None,
    workers: int = 1,
    apis: int = 1,
    faketime_library: str = "",
    **more: Any,
) -> AsyncIterator[FaultHouse]:
    """A running house over a durable PostgreSQL that is started again when it ends; gone afterwards.

    With ``faketime_library`` PostgreSQL reads its time through the file ``machine.DATABASE_CLOCK``.
    ``more``: how the emulators differ, see :class:`crm.Wanted`."""
    folder = Path(tempfile.mkdtemp(prefix="crmb-faults-"))
    folder.chmod(0o755)
    made = new_master_key()
    environment = {name: text for name, text in os.environ.items() if not name.startswith("CRMBRIDGE_")}
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "CRMBRIDGE_MASTER_KEY": made if ":" in made else f"k1:{made}",
        "CRMBRIDGE_EGRESS_ALLOW": "127.0.0.1",
        "CRMBRIDGE_DATA_DIR": str(folder / "own"),
        "CRMBRIDGE_LOG_FORMAT": "json",
        "CRMBRIDGE_SHUTDOWN_SECONDS": "3",
        "CRMBRIDGE_POOL_SIZE": "6",
        "CRMBRIDGE_SCHEDULER_POOL_SIZE": "4",
    }
    try:
        async with AsyncExitStack() as stack:
            faked = faketime(faketime_library, folder / DATABASE_CLOCK) if faketime_library else {}
            with patch.dict(os.environ, faked):
                postgres = await stack.enter_async_context(EmbeddedPostgres(postgres_folder or folder / "pg"))
            await migrate(postgres.owner_dsn)
            environment["CRMBRIDGE_DATABASE_URL"] = postgres.app_dsn
            environment["CRMBRIDGE_DATABASE_SCHEDULER_URL"] = postgres.scheduler_dsn
            keeper = asyncio.create_task(postgres.supervise())
            timeout = aiohttp.ClientTimeout(total=15)
            async with aiohttp.ClientSession(timeout=timeout) as http:
                nursery = Nursery(environment, folder, ROOT)
                house = FaultHouse(folder, postgres, plan, environment, seed, http, nursery)
                try:
                    house.start_crm(slugs, lag, **more)
                    first = house.start_api()
                    for _ in range(workers):
                        house.start_worker()
                    await house.ready(first)
                    house.key = (folder / "own" / "admin.key").read_text().strip()
                    for _ in range(apis - 1):
                        await house.ready(house.start_api())
                    yield house
                finally:
                    await asyncio.to_thread(house.close)
                    nursery.close()
                    keeper.cancel()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
