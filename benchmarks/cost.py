"""What one write costs: CPU of API, worker and PostgreSQL, log, storage by retention class, provider calls.

Three ways, all through real processes and real HTTP on both sides: ``live`` (accepted, delivered by a worker, one
call a write, spread over many tenants: nothing is shared), ``waited`` (the API delivers it itself), ``bulk`` (the
batch endpoint, delivered in the provider's batches of 200). The worker stands still while the API is measured, so
that what PostgreSQL spends can be told apart. ``docs/operations/capacity.md`` is made from the result: ``python -m
benchmarks.capacity``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from benchmarks.accept import START
from benchmarks.crowd import Member, administered, connected_crowd
from benchmarks.house import Prepared, cpu_seconds, free_port, prepared, process
from benchmarks.load import burst
from benchmarks.meters import postgres_cpu_seconds, postgres_pss_mib, pss_mib, wal_bytes
from crmbridge.app import running_services
from crmbridge.drivers import load_emulator

_BATCH = 200
_WORK = "from crmbridge.app import main; main()"
# What a write leaves behind, and how long. `jobs`: the engine's own log, pruned after 7 days.
_TABLES = ("writes", "write_targets", "write_subjects", "idempotency_keys", "attempts", "audit_log")
_SIZES = """
select c.relname as name, coalesce(sum(pg_total_relation_size(coalesce(i.inhrelid, c.oid))), 0)::bigint as bytes
from pg_class c left join pg_inherits i on i.inhparent = c.oid
where c.relnamespace = 'crmbridge'::regnamespace and c.relname = any($1) and c.relkind in ('r', 'p') group by 1
"""
_COLUMNS = """
select a.attname as name,
    coalesce(substring(col_description(a.attrelid, a.attnum) from 'retention: (.*)'), '?') as class
from pg_attribute a where a.attrelid = ('crmbridge.' || $1)::regclass and a.attnum > 0 and not a.attisdropped
"""


class Meter:
    """Readings of one installation, as differences."""

    def __init__(self, house: Prepared, admin: Any) -> None:
        self._house = house
        self._admin = admin

    @asynccontextmanager
    async def over(self, writes: int, pid: int, into: dict[str, float], who: str) -> AsyncIterator[None]:
        """CPU of process ``pid`` and of PostgreSQL, and log, a write, under ``{who}_…``."""
        process, server = cpu_seconds(pid), postgres_cpu_seconds(self._house.postgres.pid)
        log, started = await wal_bytes(self._admin), time.perf_counter()
        yield
        into[f"{who}_seconds"] = time.perf_counter() - started
        into[f"{who}_cpu_us"] = (cpu_seconds(pid) - process) / writes * 1e6
        into[f"{who}_postgres_us"] = (postgres_cpu_seconds(self._house.postgres.pid) - server) / writes * 1e6
        into[f"{who}_wal_bytes"] = (await wal_bytes(self._admin) - log) / writes

    async def until_delivered(self) -> None:
        """Until no lane has anything left."""
        while await self._admin.fetchval("select exists (select from lanes where next_due is not null)"):
            await asyncio.sleep(0.05)

    async def expect(self, state: str, count: int) -> None:
        """Raises RuntimeError unless so many targets are in this state."""
        found = await self._admin.fetchval("select count(*) from write_targets where state = $1", state)
        if found != count:
            raise RuntimeError(f"{found} instead of {count} targets are {state}")

    async def calls(self) -> int:
        """HTTP requests to providers so far, as the audit log counts them."""
        return int(
            await self._admin.fetchval(
                "select coalesce(sum((details ->> 'http_calls')::int), 0) from audit_log where action = 'crm.call'"
            )
        )


async def measure(tenants: int, waited: int, bulk: int) -> dict[str, Any]:
    """Figures by way; ``tenants`` live writes, one each; ``bulk`` writes over four connections."""
    ports = {"custom_webhook": free_port(28000), "odoo": free_port(28500)}
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(prepared())
        forms = {}
        for slug, port in ports.items():
            kind = load_emulator(slug)
            assert kind is not None
            twin = kind()
            twin.base_url = f"http://127.0.0.1:{port}"
            forms[slug] = {**twin.settings(), **twin.secrets()}
            await stack.enter_async_context(
                process(
                    "-m", "benchmarks.emulator", slug, str(port), environment=house.environment, port=port
                )
            )
        async with running_services(house.settings) as services:
            crowd = await connected_crowd(house, services, "custom_webhook", forms["custom_webhook"], tenants)
            deep = []
            for number in range(4):
                tenant = await services.tenants.add(
                    f"deep-{number}", "D", "real_estate", "AE", "UTC", "bench"
                )
                credential = await services.connections.connect(tenant, "odoo", forms["odoo"], actor="bench")
                await services.connections.test(tenant, credential.id, actor="bench")
                await services.connections.activate(tenant, credential.id, actor="bench")
                deep.append(tenant.slug)
            _, token = await services.tenants.create_key(None, "bench", ["admin"], "bench")
        admin = await stack.enter_async_context(administered(house))
        port = free_port(27000)
        environment = {
            **house.environment,
            "CRMBRIDGE_PORT": str(port),
            "CRMBRIDGE_WORKER_PORT": str(free_port(27500)),
        }
        api = await stack.enter_async_context(
            process("-c", START, "serve", "--no-worker", environment=environment, port=port)
        )
        worker = await stack.enter_async_context(
            process(
                "-c", _WORK, "worker", environment=environment, port=int(environment["CRMBRIDGE_WORKER_PORT"])
            )
        )
        meter = Meter(house, admin)
        sizes = {row["name"]: row["bytes"] for row in await admin.fetch(_SIZES, list(_TABLES))}
        figures: dict[str, Any] = {}
        figures["live"] = await _live(meter, port, token, crowd, api, worker)
        # Again with warm processes: the first was for both to load what they need.
        figures["live"] = await _live(meter, port, token, crowd, api, worker)
        figures["bulk"] = await _bulk(meter, port, token, deep, bulk, api, worker)
        figures["waited"] = await _waited(meter, port, token, crowd[:10], waited, api)
        await admin.execute("vacuum analyze")
        total = await admin.fetchval("select count(*) from writes")
        await meter.expect("applied", total)
        figures["storage"] = await _storage(admin, sizes, total)
        figures["memory_mib"] = {
            "api": pss_mib(api),
            "worker": pss_mib(worker),
            "postgres": postgres_pss_mib(house.postgres.pid),
        }
    return figures


def _fields(number: int) -> dict[str, Any]:
    return {
        "first_name": "Layla",
        "last_name": f"Haddad {number}",
        "email": f"layla.{number}@example.com",
        "phone": f"+97150{number % 10_000_000:07d}",
        "budget_max": "1250000",
        "area": "Dubai Marina",
        "message": "Three bedrooms with a view, before summer. Please call after five in the afternoon.",
    }


async def _live(
    meter: Meter, port: int, token: str, crowd: list[Member], api: int, worker: int
) -> dict[str, float]:
    found: dict[str, float] = {}
    run, calls = uuid.uuid4().hex, await meter.calls()

    def request(number: int) -> tuple[bytes, bytes]:
        body = {"fields": _fields(number), "idempotency_key": f"{run}{number}"}
        return f"Authorization: Bearer {token}\r\n".encode(), json.dumps(body).encode()

    with _standing(worker):
        async with meter.over(len(crowd), api, found, "accept"):
            done = await burst(
                port, 32, len(crowd), request, path=lambda n: f"/api/tenants/{crowd[n].slug}/records/lead"
            )
        _check(done.statuses, 202)
        await asyncio.sleep(0.5)
        # Begins before the worker moves again.
        metered = meter.over(len(crowd), worker, found, "deliver")
        await metered.__aenter__()
    await meter.until_delivered()
    await metered.__aexit__(None, None, None)
    found["provider_calls"] = (await meter.calls() - calls) / len(crowd)
    return found


async def _bulk(
    meter: Meter, port: int, token: str, slugs: list[str], count: int, api: int, worker: int
) -> dict[str, float]:
    found: dict[str, float] = {}
    run, calls = uuid.uuid4().hex, await meter.calls()
    requests = max(len(slugs), count // _BATCH)
    total = requests * _BATCH

    def request(number: int) -> tuple[bytes, bytes]:
        first = number * _BATCH
        writes = []
        for n in range(first, first + _BATCH):
            fields = _fields(n)
            fields["city"] = fields.pop("area")  # this provider has no field for the area
            writes.append({"fields": fields, "idempotency_key": f"{run}{n}"})
        return f"Authorization: Bearer {token}\r\n".encode(), json.dumps({"writes": writes}).encode()

    with _standing(worker):
        async with meter.over(total, api, found, "accept"):
            done = await burst(
                port,
                4,
                requests,
                request,
                path=lambda n: f"/api/tenants/{slugs[n % len(slugs)]}/records/lead/batch",
            )
        _check(done.statuses, 200)
        await meter.expect("accepted", total)
        metered = meter.over(total, worker, found, "deliver")
        await metered.__aenter__()
    await meter.until_delivered()
    await metered.__aexit__(None, None, None)
    found["provider_calls"] = (await meter.calls() - calls) / total
    return found


async def _waited(
    meter: Meter, port: int, token: str, members: list[Member], count: int, api: int
) -> dict[str, float]:
    found: dict[str, float] = {}
    calls = await meter.calls()
    for warm_up in (True, False):
        run = uuid.uuid4().hex
        many = count // 4 if warm_up else count

        def request(number: int, run: str = run) -> tuple[bytes, bytes]:
            body = {"fields": _fields(number), "idempotency_key": f"{run}{number}"}
            head = f"Authorization: Bearer {token}\r\nPrefer: wait=10\r\n"
            return head.encode(), json.dumps(body).encode()

        if not warm_up:
            calls = await meter.calls()
        async with meter.over(many, api, found, "accept"):
            done = await burst(
                port,
                1,
                many,
                request,
                path=lambda n: f"/api/tenants/{members[n % len(members)].slug}/records/lead",
            )
        _check(done.statuses, 201)
    found["provider_calls"] = (await meter.calls() - calls) / count
    return found


class _standing:
    """A process that stands still meanwhile."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __enter__(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGCONT)


def _check(statuses: dict[int, int], wanted: int) -> None:
    if set(statuses) != {wanted}:
        raise RuntimeError(f"unexpected answers: {statuses}")


async def _storage(admin: Any, before: dict[str, int], writes: int) -> dict[str, float]:
    """Bytes a write by retention class: a table's size, indexes included, by the share of the columns of each class."""
    by_class: dict[str, float] = {}
    for row in await admin.fetch(_SIZES, list(_TABLES)):
        grown = (row["bytes"] - before.get(row["name"], 0)) / writes
        classes: dict[str, float] = {}
        for column in await admin.fetch(_COLUMNS, row["name"]):
            size = await admin.fetchval(
                f'select coalesce(avg(pg_column_size("{column["name"]}")), 0) from {row["name"]}'
            )
            classes[column["class"]] = classes.get(column["class"], 0.0) + float(size)
        whole = sum(classes.values()) or 1.0
        for name, size in classes.items():
            by_class[name] = by_class.get(name, 0.0) + grown * size / whole
    by_class["in all"] = sum(by_class.values())
    return by_class


def main() -> None:
    """Print JSON (for ``benchmarks.capacity``) or a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, default=1000, help="and as many live writes, one each")
    parser.add_argument("--waited", type=int, default=400)
    parser.add_argument("--bulk", type=int, default=8000)
    parser.add_argument("--out", default="", help="file for the JSON as well")
    options = parser.parse_args()
    figures = asyncio.run(measure(options.tenants, options.waited, options.bulk))
    machine = f"{os.cpu_count()} cores ({platform.machine()}), {platform.system()}"
    sizes = f"--tenants {options.tenants} --waited {options.waited} --bulk {options.bulk}"
    figures["measured"] = {
        "on": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": f"{machine}, CPython {platform.python_version()}, load {os.getloadavg()[0]:.1f} at the end",
        "command": f"python -m benchmarks.cost {sizes}",
    }
    text = json.dumps(figures, indent=1)
    if options.out:
        with open(options.out, "w", encoding="utf-8") as out:
            out.write(text + "\n")
    print(text)
    from benchmarks.capacity import cost_table

    print("\n".join(cost_table(figures)))


if __name__ == "__main__":
    main()
