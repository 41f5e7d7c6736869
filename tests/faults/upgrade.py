"""A release is replaced by the next one, process by process, under load; the database is migrated first.

The older release is this code, or, by ``--old``, a real one out of git. The newer one is this code with further
migrations of the kinds that are allowed: a nullable column on the busiest table, a column with a default, a new table,
an index built concurrently. It says that such migrations and the replacement hurt nobody; it cannot say that a
migration of tomorrow does not (that is tests/architecture/test_migrations.py), nor that code of tomorrow writes what
code of today reads.

``python -m tests.faults.upgrade --old REVISION [--seconds 10]`` takes the older release out of git.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic

from tests.faults.child import Plan
from tests.faults.house import ROOT, Child, FaultHouse
from tests.faults.ledger import Line, table_of
from tests.faults.load import trades
from tests.faults.release import Release, archived, migrations_with
from tests.faults.traffic import Traffic, first_key, housed, traffic
from tests.needs import folder_for_all

from crmbridge.db.embedded import EmbeddedPostgres
from crmbridge.db.pool import connect
from crmbridge.db.schema import migrate

__all__ = ["PATIENT", "Upgrade", "between_releases", "rolling_upgrade"]

_SLUGS = ("odoo", "rest_api", "custom_webhook")
# Here nothing is killed: a call may take its time on a busy machine without being an unknown outcome.
PATIENT = Plan(limits={"turn_seconds": 1.0}, timeout_seconds=20.0, lag_seconds=0.5)
_ADDED = (
    ("add_target_note", "alter table write_targets add column note_of_tomorrow text;\n"),
    ("add_lane_rank", "alter table lanes add column rank_of_tomorrow integer not null default 0;\n"),
    (
        "create_tomorrow",
        "create table of_tomorrow (id uuid primary key, tenant_id uuid not null references tenants (id));\n"
        "select isolate_by_tenant('of_tomorrow');\nselect declare_retention('of_tomorrow', 'b');\n",
    ),
    (
        "index_attempts",
        "-- transaction: false\ndrop index concurrently if exists attempts_of_tomorrow;\n"
        "create index concurrently attempts_of_tomorrow on attempts (started_at);\n",
    ),
)


class Upgrade:
    """The house and its two releases."""

    def __init__(self, house: FaultHouse, owner_dsn: str, old: Release, new: Release) -> None:
        self.house = house
        self.owner_dsn = owner_dsn
        self.old = old
        self.new = new


@asynccontextmanager
async def between_releases(
    *, old: str = "", apis: int = 2, workers: int = 2, seed: int = 7
) -> AsyncIterator[Upgrade]:
    """A house that runs the older release. ``old``: a git revision; empty for this code as it is."""
    with folder_for_all("crmb-upgrade-") as folder:
        newer = Release("new", ROOT, migrations_with(folder / "newer", _ADDED))
        if old:
            older = await asyncio.to_thread(archived, old, folder / "older")
        else:
            older = Release("old", ROOT, migrations_with(folder / "older", ()))
        async with EmbeddedPostgres(folder / "pg") as postgres:
            await migrate(postgres.owner_dsn, older.migrations)
            async with housed(
                folder, postgres, postgres.app_dsn, postgres.scheduler_dsn, _SLUGS, plan=PATIENT, seed=seed
            ) as house:
                older.start(house, "serve")
                await first_key(house)
                for _ in range(apis - 1):
                    await house.ready(older.start(house, "serve"))
                for _ in range(workers):
                    await house.working(older.start(house, "worker"))
                yield Upgrade(house, postgres.owner_dsn, older, newer)


async def rolling_upgrade(up: Upgrade, *, seconds: float, callers: int = 4, latency_ms: int = 60) -> Line:
    """Refused too early, migrated, rolled, and one old process started again on the new schema, as for a way back.

    ``latency_ms`` of every CRM lets the stops find calls under way.
    """
    house = up.house
    line = Line("rolling upgrade")
    began = monotonic()
    these = await trades(house, "upgrade", 3, _SLUGS)
    for slug in _SLUGS:
        await house.control("POST", slug, "latency", {"ms": latency_ms})
    before = await _attempts(house)
    stopped: dict[int, tuple[float, float]] = {}
    async with traffic(these, callers, waited=0.2) as met:
        await asyncio.sleep(0.5)
        calm = monotonic()
        await asyncio.sleep(seconds)
        line.wrong += await _refuses(up)
        migrating = monotonic()
        held = await _long_transaction(up, seconds=1.0)
        applied = await migrate(up.owner_dsn, up.new.migrations)
        migrated = monotonic()
        await held
        await asyncio.sleep(seconds / 2)
        line.wrong += await _still_ready(house)
        rolling = monotonic()
        for kind, children in (("serve", list(house.apis)), ("worker", list(house.workers))):
            for child in children:
                line.wrong += await _replaced(up, kind, child, stopped)
                await asyncio.sleep(seconds / 4)
        rolled = monotonic()
        back = await _listening(house, up.old)
        await asyncio.sleep(seconds / 2)
        line.wrong += await _stopped(house, back, stopped)
    await house.settle(90)
    line.notes |= {
        "migrations": len(applied),
        "migrated in s": round(migrated - migrating, 1),
        "p99 ms calm": met.p99_ms(calm, migrating),
        "migrating": met.p99_ms(migrating, migrated),
        "rolling": met.p99_ms(rolling, rolled),
        "slowest stop s": round(max(end - start for start, end in stopped.values()), 1),
    }
    _judge_tries(line, met, stopped)
    await _judge_attempts(line, house, met.tokens, before)
    line.seconds = monotonic() - began
    return await house.judge(line, met.tokens)


async def _refuses(up: Upgrade) -> list[str]:
    """A newer process on the schema that it does not know yet: it must end by itself and name the command."""
    wrong = []
    for kind in ("serve", "worker"):
        child = up.new.start(up.house, kind)
        (up.house.apis if child.port else up.house.workers).remove(child)
        try:
            code = await asyncio.to_thread(child.process.wait, 90)
        finally:
            if child.is_alive:
                child.kill()
        log = (up.house.folder / f"{child.name}.log").read_text()
        if code == 0 or "crmbridge db migrate" not in log:
            wrong.append(f"{kind} of the newer release ended with {code} and said {log[-300:]!r}")
    return wrong


async def _long_transaction(up: Upgrade, *, seconds: float) -> asyncio.Task[None]:
    """Somebody reads the busiest table for a while, as a backup does: the migration must not queue up for long."""
    conn = await connect(up.owner_dsn)
    await conn.execute("begin; select count(*) from crmbridge.write_targets")

    async def end() -> None:
        await asyncio.sleep(seconds)
        await conn.close()

    return asyncio.create_task(end())


async def _still_ready(house: FaultHouse) -> list[str]:
    """The older APIs on the newer schema."""
    wrong = []
    for child in house.apis:
        async with house.http.get(f"http://127.0.0.1:{child.port}/readyz") as answer:
            if answer.status != 200:
                wrong.append(f"{child.name} is not ready on the newer schema: {await answer.text()}")
    return wrong


async def _replaced(up: Upgrade, kind: str, old: Child, stopped: dict[int, tuple[float, float]]) -> list[str]:
    """First the new one, then the end of the old one."""
    if kind == "serve":
        await _listening(up.house, up.new)
    else:
        await up.house.working(up.new.start(up.house, kind))
    return await _stopped(up.house, old, stopped)


async def _listening(house: FaultHouse, release: Release) -> Child:
    """A new API, which callers use as soon as it answers."""
    child = release.start(house, "serve")
    house.apis.remove(child)
    try:
        await house.ready(child)
    except BaseException:
        child.kill()
        raise
    house.apis.append(child)
    return child


async def _stopped(house: FaultHouse, child: Child, stopped: dict[int, tuple[float, float]]) -> list[str]:
    began = monotonic()
    child.process.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(child.process.wait, 30)
    stopped[child.port or -child.process.pid] = began, monotonic()
    # Callers find out by themselves, as behind a load balancer that has not noticed yet.
    await asyncio.sleep(0.3)
    (house.apis if child.port else house.workers).remove(child)
    return [] if code == 0 else [f"{child.name} ended with {code}"]


def _judge_tries(line: Line, met: Traffic, stopped: dict[int, tuple[float, float]]) -> None:
    """A try may fail where a process is being stopped, for nobody listens there any more; nowhere else."""
    line.notes["requests"] = len(met.tries)
    ends: Counter[str] = Counter()
    for one in met.tries:
        if one.end == "accepted":
            continue
        ends[one.end] += 1
        stop = stopped.get(one.port)
        is_excused = stop is not None and one.at + one.seconds >= stop[0] and one.end in ("refused", "cut")
        if not is_excused:
            line.wrong.append(f"a request failed where nobody was stopped, or otherwise: {one}")
    line.notes["not accepted at first"] = dict(ends) or "none"


async def _attempts(house: FaultHouse) -> int:
    return int((await house.fetch("select coalesce(max(id), 0) as n from attempts"))[0]["n"])


async def _judge_attempts(line: Line, house: FaultHouse, tokens: Sequence[str], before: int) -> None:
    """One attempt per write, and it applied: a stop is neither an attempt nor an unknown outcome.

    What our own rate budgets kept back at this load has nothing to do with the upgrade.
    """
    rows = await house.fetch(
        "select count(*) as n, count(distinct target_id) as targets, "
        "count(*) filter (where outcome <> 'applied') as odd "
        "from attempts where id > $1 and not (code = 'rate_limited' and http_status is null)",
        before,
    )
    line.notes["attempts"] = rows[0]["n"]
    if rows[0]["odd"] or rows[0]["n"] != rows[0]["targets"] or rows[0]["n"] != len(tokens):
        line.wrong.append(f"{len(tokens)} writes took {dict(rows[0])} attempts")
        more = await house.fetch(
            "select kind, outcome, code, http_status, count(*) as n, min(started_at)::text as first, "
            "max(started_at)::text as last, max(finished_at - started_at)::text as longest from attempts "
            "where id > $1 and outcome <> 'applied' group by 1, 2, 3, 4",
            before,
        )
        line.wrong += [str(dict(row)) for row in more]


async def _run(old: str, seconds: float) -> Line:
    async with between_releases(old=old) as up:
        return await rolling_upgrade(up, seconds=seconds)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--old", default="", help="a git revision; default: this code")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    line = asyncio.run(_run(options.old, options.seconds))
    print(table_of([line]))
    return 0 if line.is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
