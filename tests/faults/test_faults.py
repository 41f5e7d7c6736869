"""Nothing lost, nothing doubled: through the whole product, with what breaks broken on purpose.

Small by default. ``CRMBRIDGE_FAULTS_SCALE=large`` makes the same scenarios long; ``python -m tests.faults.run`` prints
them as a table.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio
from tests.faults import scenarios
from tests.faults.connecting import connect, declared, find_one
from tests.faults.house import MANY, PRODUCT, FaultHouse, opened
from tests.faults.ledger import Line, table_of
from tests.faults.machine import find_faketime, small_disk
from tests.needs import missing

from crmbridge.db.cluster import find_binaries
from crmbridge.db.errors import EmbeddedPostgresFailed

pytestmark = [
    pytest.mark.faults,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),
]
IS_LARGE = os.environ.get("CRMBRIDGE_FAULTS_SCALE") == "large"
DECLARED = declared()


def held(line: Line) -> None:
    """The promise, and the line for whoever reads the log."""
    print("\n" + table_of([line]))
    assert line.is_kept, table_of([line])
    assert line.accepted > 0


@pytest.fixture(scope="module")
def has_postgres() -> None:
    try:
        find_binaries()
    except EmbeddedPostgresFailed as error:
        missing(f"no PostgreSQL: {error.message}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(has_postgres: None) -> AsyncIterator[FaultHouse]:
    """One house for all scenarios of this file; each uses tenants of its own."""
    async with opened(list(DECLARED), seed=int(os.environ.get("CRMBRIDGE_FAULTS_SEED", "7"))) as made:
        yield made


@pytest.mark.parametrize("slug", list(DECLARED))
async def test_reply_when_cut_late_or_wrong_after_the_effect_then_one_record(
    house: FaultHouse, slug: str
) -> None:
    trade = await connect(house, slug, f"cut-{slug.replace('_', '-')}")
    for obj in DECLARED[slug]:
        await find_one(trade, obj)
    line = await scenarios.cut_replies(trade, DECLARED[slug], 40 if IS_LARGE else 2)
    held(line)
    assert line.notes["faults"] > 0


async def test_process_when_killed_at_any_named_point_then_nothing_lost_or_doubled(
    house: FaultHouse,
) -> None:
    these = await scenarios.trades(house, "points", 4)
    held(await scenarios.named_points(house, these))


async def test_processes_when_killed_at_random_then_nothing_lost_or_doubled(house: FaultHouse) -> None:
    these = await scenarios.trades(house, "random", 4)
    seconds, workers = (120, 4) if IS_LARGE else (5, 2)
    held(await scenarios.random_kills(house, these, seconds=seconds, apis=2, workers=workers))


async def test_lane_when_its_worker_is_killed_after_sending_then_another_takes_over(
    house: FaultHouse,
) -> None:
    [trade] = await scenarios.trades(house, "takeover", 1, ("rest_api",))
    line = await scenarios.takeover(house, trade, rounds=5 if IS_LARGE else 1)
    held(line)
    # The lease of 1.5 s, a sweep a second, and the other worker's start on a busy machine.
    assert line.takeover_seconds is not None and line.takeover_seconds < 10


async def test_database_when_killed_under_load_then_all_goes_on(house: FaultHouse) -> None:
    these = await scenarios.trades(house, "database", 3)
    held(await scenarios.database_killed(house, these, times=10 if IS_LARGE else 1))


async def test_crm_when_down_for_long_then_other_tenants_go_on(house: FaultHouse) -> None:
    [ill] = await scenarios.trades(house, "ill", 1, ("custom_webhook",))
    [well] = await scenarios.trades(house, "well", 1, ("odoo",))
    line = await scenarios.crm_down(
        house, ill, well, backlog=200 if IS_LARGE else 20, rounds=200 if IS_LARGE else 30
    )
    held(line)
    assert line.ratios["live p50"] < 3, line.notes


async def test_import_when_beside_live_writes_then_live_go_first(house: FaultHouse) -> None:
    [trade] = await scenarios.trades(house, "import", 1, ("custom_webhook",))
    [other] = await scenarios.trades(house, "beside", 1, ("odoo",))
    line = await scenarios.import_beside_live(
        house, trade, other, rows=10_000 if IS_LARGE else 600, rounds=300 if IS_LARGE else 30
    )
    held(line)
    # A live write waits for the few calls that are read ahead, not for the import; the figure itself is reported.
    assert line.ratios["same connection p50"] < 15, line.notes
    assert line.ratios["other tenant (odoo) p50"] < 5, line.notes


async def test_budget_when_shared_by_all_processes_then_used_up_and_nothing_refused(
    has_postgres: None,
) -> None:
    async with opened(["rest_api"], plan=PRODUCT, workers=2, apis=2, quotas={"rest_api": (60, 6.0)}) as own:
        own.change_rate("rest_api", 60, 6.0)
        [trade] = await scenarios.trades(own, "budget", 1, ("rest_api",))
        await asyncio.sleep(6.5)
        held(await scenarios.shared_budget(own, trade, limit=60, per_seconds=6.0, periods=2))


async def test_creates_when_many_and_a_share_of_the_calls_goes_wrong_then_each_stands_once(
    has_postgres: None,
) -> None:
    plan = msgspec.structs.replace(MANY, budget_times=100)
    for slug in ("zoho", "toast") if not IS_LARGE else DECLARED:
        async with opened([slug], plan=plan, quota_times=100) as own:
            number = 10_000 if IS_LARGE else 200
            line = await scenarios.cut_many(own, slug, DECLARED[slug], number, share=0.2, tenants=5)
            held(line)
            assert line.accepted == number and line.notes["look-ups"] > 0, line.notes


async def test_record_when_poisonous_then_a_dead_letter_alone(house: FaultHouse) -> None:
    [trade] = await scenarios.trades(house, "poison", 1, ("odoo",))
    held(await scenarios.poison(house, trade, number=20))


async def test_clock_when_it_jumps_in_some_processes_then_nothing_lost_or_doubled(house: FaultHouse) -> None:
    library = find_faketime()
    if library is None:
        # A missing part is a skip on somebody's machine, and a failure in CI.
        why = "libfaketime is not on this machine (Debian: apt-get install faketime)"
        missing(why)
    these = await scenarios.trades(house, "clock", 2, ("odoo", "rest_api"))
    held(await scenarios.clock_jump(house, these, library=library, seconds=60 if IS_LARGE else 5))


async def test_clock_when_postgres_own_leaps_with_calls_under_way_then_nothing_lost_or_doubled(
    has_postgres: None,
) -> None:
    library = find_faketime()
    if library is None:
        missing("libfaketime is not on this machine (Debian: apt-get install faketime)")
    async with opened(
        ["rest_api", "tekmetric"], plan=scenarios.LEAPS_PLAN, workers=2, faketime_library=library
    ) as own:
        these = await scenarios.trades(own, "leaps", 2, ("rest_api", "tekmetric"))
        line = await scenarios.database_clock(own, these, seconds=20 if IS_LARGE else 2)
        held(line)
        assert line.notes["leaps"] == 5


async def test_disk_when_full_then_refused_and_nothing_accepted_is_lost(has_postgres: None) -> None:
    with small_disk(320) as folder:
        if folder is None:
            why = "mounting a small tmpfs needs root and the right to mount"
            missing(why)
        async with opened(["odoo", "rest_api"], postgres_folder=folder / "pg") as own:
            these = await scenarios.trades(own, "disk", 2, ("odoo", "rest_api"))
            held(await scenarios.disk_full(own, these, seconds=30 if IS_LARGE else 2))
