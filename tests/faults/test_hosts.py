"""Several hosts in network namespaces, small. ``python -m tests.faults.run hosts`` makes it large."""

from __future__ import annotations

import pytest
from tests.faults.hosts import hosts_apart, partitions
from tests.faults.ledger import table_of
from tests.faults.network import why_no_network
from tests.needs import missing

from crmbridge.db.cluster import find_binaries
from crmbridge.db.errors import EmbeddedPostgresFailed

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", autouse=True)
def has_hosts() -> None:
    """A missing part is a skip on somebody's machine, and a failure in CI."""
    try:
        find_binaries()
    except EmbeddedPostgresFailed as error:
        missing(f"no PostgreSQL: {error.message}")
    if why := why_no_network():
        missing(why)


async def test_hosts_when_their_cables_are_pulled_under_load_then_nothing_lost_or_doubled() -> None:
    async with hosts_apart() as room:
        line = await partitions(room, seconds=5)
    print("\n" + table_of([line]))
    assert line.is_kept, table_of([line])
    assert line.accepted > 0
    assert line.takeover_seconds is not None and 0 < line.takeover_seconds < 20
    assert line.notes["late saves refused"] > 0, "no save came late: the fence was not asked"
    assert line.notes["accepted with an API off"] > 0
    assert line.notes["seconds behind the locks of a host that vanished"] < 20
