"""Upgrades and failovers, small. ``python -m tests.faults.run upgrade failover lossy`` makes them large."""

from __future__ import annotations

import pytest
from tests.faults.failover import failover, lossy_failover, paired
from tests.faults.ledger import Line, table_of
from tests.faults.upgrade import between_releases, rolling_upgrade
from tests.needs import missing

from crmbridge.db.cluster import find_binaries
from crmbridge.db.errors import EmbeddedPostgresFailed

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


def held(line: Line) -> None:
    print("\n" + table_of([line]))
    assert line.is_kept, table_of([line])
    assert line.accepted > 0


@pytest.fixture(scope="module", autouse=True)
def has_postgres() -> None:
    try:
        folder = find_binaries()
    except EmbeddedPostgresFailed as error:
        missing(f"no PostgreSQL: {error.message}")
    lacking = [name for name in ("pg_basebackup", "pg_rewind") if not (folder / name).exists()]
    if lacking:
        missing(f"{folder} lacks {', '.join(lacking)}")


async def test_releases_when_rolled_under_load_then_nothing_lost_doubled_or_tried_twice() -> None:
    async with between_releases() as up:
        held(await rolling_upgrade(up, seconds=2, callers=3))


async def test_primary_when_it_dies_and_the_standby_is_promoted_then_all_goes_on() -> None:
    async with paired(synchronous=True) as (house, pair):
        line = await failover(house, pair, seconds=2, standby_seconds=1, callers=3)
    held(line)
    assert line.notes["accepting again s after promotion"] < 10
    assert line.notes["accepted with the old primary back"] > 0
    assert line.notes["accepted with it as standby"] > 0


async def test_primary_when_replication_is_asynchronous_then_only_the_window_is_lost() -> None:
    """What this promises is little, and it is told in docs/howto/upgrade-and-failover.md."""
    async with paired(synchronous=False) as (house, pair):
        line = await lossy_failover(house, pair, seconds=1, lag_seconds=1.5, callers=3)
    held(line)
    assert line.notes["accepted and forgotten"] > 0, "nothing was lost: the window was too small to tell"
