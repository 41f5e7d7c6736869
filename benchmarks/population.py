"""10,000 connected tenants beside 10: live creates, memory of the serving process, background work (design 13, row 9).

Two whole installations stand side by side, each with its own PostgreSQL and one ``serve`` process (API and worker);
bursts go to them in turn. ``few`` sends to ten tenants of each: what callers of ten busy tenants notice of the
others. ``all`` sends to every tenant of the large one by turns, so that nearly every request finds its tenant in no
cache: the worst spread there is. ``touched`` is the memory after every tenant was written to at least once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import uuid
from contextlib import AsyncExitStack

import aiohttp
import msgspec

from benchmarks.accept import START
from benchmarks.crowd import Member, administered, connected_crowd
from benchmarks.house import Prepared, cpu_seconds, free_port, prepared, process
from benchmarks.load import Burst, burst, percentile
from benchmarks.meters import postgres_cpu_seconds, postgres_pss_mib, pss_mib
from crmbridge.app import running_services
from crmbridge.drivers import load_emulator

_FEW = 10
_CLIENTS = 8
# Tokens that fall due some time after the run: the index that the renewals read is full, and nothing is renewed.
_TOKENS = """
update tenant_credentials set expires_at = now() + interval '1 day',
    refresh_due_at = now() + interval '12 hours' * (1 + random())
"""


class Installation(msgspec.Struct, kw_only=True):
    """One that runs. Latencies in seconds, by kind of burst."""

    house: Prepared
    members: list[Member]
    token: str
    port: int = 0
    pid: int = 0
    latencies: dict[str, list[float]] = msgspec.field(default_factory=dict)
    figures: dict[str, float] = msgspec.field(default_factory=dict)


async def measure(tenants: int, rounds: int, requests: int, idle_seconds: float) -> dict[str, float]:
    """Milliseconds, MiB, and CPU milliseconds a minute; ratios of the large installation to the small one."""
    kind = load_emulator("custom_webhook")
    assert kind is not None
    provider = free_port(28000)
    twin = kind()
    twin.base_url = f"http://127.0.0.1:{provider}"
    form = {**twin.settings(), **twin.secrets()}
    async with AsyncExitStack() as stack:
        small, large = [await _installed(stack, form, count) for count in (_FEW, tenants)]
        environment = small.house.environment
        await stack.enter_async_context(
            process(
                "-m",
                "benchmarks.emulator",
                "custom_webhook",
                str(provider),
                environment=environment,
                port=provider,
            )
        )
        for one in (small, large):
            await _serve(stack, one)
            one.figures["started_mib"] = pss_mib(one.pid)
        for number in range(rounds + 1):
            for one in (small, large):
                await _round(one, requests, is_warm=number > 0)
        for one in (small, large):
            one.figures["few_mib"] = pss_mib(one.pid)
        await _send(small, "", small.members, tenants, wait=False)
        await _send(large, "", large.members, tenants, wait=False)
        for one in (small, large):
            await _quiet(one)
        # Twice, so that what the first touch left behind has been collected.
        await asyncio.gather(*(_idle(one, 5.0) for one in (small, large)))
        for one in (small, large):
            one.figures["touched_mib"] = pss_mib(one.pid)
            one.figures["postgres_mib"] = postgres_pss_mib(one.house.postgres.pid)
        await asyncio.gather(*(_idle(one, idle_seconds) for one in (small, large)))
    return _compared(small, large)


def _compared(small: Installation, large: Installation) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name in ("waited few", "waited all", "accepted few", "accepted all"):
        base = small.latencies[name.replace("all", "few")]
        for percent in (50, 99):
            there, here = percentile(base, percent) * 1000, percentile(large.latencies[name], percent) * 1000
            figures[f"{name} p{percent} ms, 10"] = there
            figures[f"{name} p{percent} ms, many"] = here
            figures[f"{name} p{percent} ratio"] = here / there
    for name in ("started_mib", "few_mib", "touched_mib", "postgres_mib"):
        figures[f"{name}, 10"] = small.figures[name]
        figures[f"{name}, many"] = large.figures[name]
        figures[f"{name} ratio"] = large.figures[name] / small.figures[name]
    for name in ("idle_serve_cpu_ms_a_minute", "idle_postgres_cpu_ms_a_minute", "scrape_ms"):
        figures[f"{name}, 10"] = small.figures[name]
        figures[f"{name}, many"] = large.figures[name]
    return figures


async def _installed(stack: AsyncExitStack, form: dict[str, str], count: int) -> Installation:
    house = await stack.enter_async_context(prepared())
    # The live test of the first tenant needs its emulator, the others do not.
    emulator = load_emulator("custom_webhook")
    assert emulator is not None
    served = emulator()
    from crmbridge.emulation.serve import serve_emulators

    there = await serve_emulators({"custom_webhook": served})
    async with running_services(house.settings) as services:
        members = await connected_crowd(
            house, services, "custom_webhook", {**form, "url": f"{served.base_url}/receive"}, count
        )
        _, token = await services.tenants.create_key(None, "bench", ["admin"], "bench")
    await there.close()
    async with administered(house) as admin:
        await admin.execute(
            "update tenant_credentials set settings = settings || $1::text::jsonb",
            json.dumps({"url": form["url"]}),
        )
        await admin.execute(_TOKENS)
        await admin.execute("vacuum analyze")
    return Installation(house=house, members=members, token=token)


async def _serve(stack: AsyncExitStack, one: Installation) -> None:
    one.port = free_port(27000)
    environment = {**one.house.environment, "CRMBRIDGE_PORT": str(one.port)}
    one.pid = await stack.enter_async_context(
        process("-c", START, "serve", environment=environment, port=one.port)
    )


async def _round(one: Installation, requests: int, *, is_warm: bool) -> None:
    few = one.members[:_FEW]
    for name, members in (("few", few), ("all", one.members)):
        if members is few or len(one.members) > _FEW:
            waited = await _send(one, "" if not is_warm else f"waited {name}", members, requests, wait=True)
            _check(waited, 201)
            accepted = await _send(
                one, "" if not is_warm else f"accepted {name}", members, 4 * requests, wait=False
            )
            _check(accepted, 202)
            await _quiet(one)


def _check(done: Burst, status: int) -> None:
    if set(done.statuses) != {status}:
        raise RuntimeError(f"unexpected answers: {done.statuses}")


async def _send(one: Installation, name: str, members: list[Member], requests: int, *, wait: bool) -> Burst:
    run = uuid.uuid4().hex
    # By turns over all, beginning anywhere: the next burst does not find what the last one has just read.
    start = int(run[:6], 16) % len(members)
    head = f"Authorization: Bearer {one.token}\r\n" + ("Prefer: wait=10\r\n" if wait else "")

    def request(number: int) -> tuple[bytes, bytes]:
        fields = {"first_name": "Layla", "email": f"l{number}@example.com", "phone": "+971501234567"}
        return head.encode(), json.dumps({"fields": fields, "idempotency_key": f"{run}{number}"}).encode()

    def path(number: int) -> str:
        return f"/api/tenants/{members[(start + number) % len(members)].slug}/records/lead"

    done = await burst(one.port, 1 if wait else _CLIENTS, requests, request, path=path)
    if name:
        one.latencies.setdefault(name, []).extend(done.latencies)
    return done


async def _quiet(one: Installation) -> None:
    """Until nothing is left to deliver."""
    async with administered(one.house) as admin:
        while await admin.fetchval("select exists (select from lanes where next_due is not null)"):
            await asyncio.sleep(0.2)


async def _idle(one: Installation, seconds: float) -> None:
    """Nobody writes; a Prometheus looks every 15 seconds."""
    serve, server = cpu_seconds(one.pid), postgres_cpu_seconds(one.house.postgres.pid)
    started, scrapes = time.perf_counter(), []
    async with aiohttp.ClientSession() as session:
        while (left := started + seconds - time.perf_counter()) > 0:
            began = time.perf_counter()
            async with session.get(f"http://127.0.0.1:{one.port}/metrics") as answer:
                await answer.read()
            scrapes.append(time.perf_counter() - began)
            await asyncio.sleep(min(15.0, left))
    minutes = (time.perf_counter() - started) / 60
    one.figures["idle_serve_cpu_ms_a_minute"] = (cpu_seconds(one.pid) - serve) * 1000 / minutes
    one.figures["idle_postgres_cpu_ms_a_minute"] = (
        (postgres_cpu_seconds(one.house.postgres.pid) - server) * 1000 / minutes
    )
    one.figures["scrape_ms"] = percentile(scrapes, 50) * 1000


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--requests", type=int, default=300, help="waited creates per round; four times as many accepts"
    )
    parser.add_argument("--idle", type=float, default=60.0, help="seconds to watch the background work")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = asyncio.run(measure(options.tenants, options.rounds, options.requests, options.idle))
    if options.json:
        print(json.dumps(figures, indent=1))
        return
    print(f"{options.tenants} connected tenants beside {_FEW}")
    for name, value in figures.items():
        print(f"  {name:42} {value:10.2f}")
    print("  goal: p99 ratio <= 1.25, touched_mib ratio <= 2")


if __name__ == "__main__":
    main()
