"""SIGTERM: what has begun is finished and saved, what has not is left as it was, and nobody counts an attempt."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import pytest
import pytest_asyncio
from tests.faults.child import Plan
from tests.faults.connecting import Trade
from tests.faults.house import Child, FaultHouse, opened
from tests.faults.ledger import Line, table_of
from tests.faults.load import trades
from tests.needs import missing

from crmbridge.core.records import Object
from crmbridge.db.cluster import find_binaries
from crmbridge.db.errors import EmbeddedPostgresFailed

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]
# More than two rounds of calls in flight, which is what a turn has time for.
_WRITES = 24
# Calls may take longer than a grace that is too short, and what was cut off is looked up after ten seconds.
_PLAN = Plan(
    limits={"turn_seconds": 1.0, "lease_seconds": 3.0, "send_seconds": 5.0, "settle_seconds": 0.8},
    timeout_seconds=5.0,
    lag_seconds=0.5,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[FaultHouse]:
    """One API and no worker that stays: each test starts the one that it stops."""
    try:
        find_binaries()
    except EmbeddedPostgresFailed as error:
        missing(f"no PostgreSQL: {error.message}")
    async with opened(["rest_api", "custom_webhook"], plan=_PLAN, workers=0) as made:
        yield made


async def slowed(house: FaultHouse, name: str, milliseconds: int) -> Trade:
    """A tenant whose CRM takes one record a call, so many milliseconds each."""
    [trade] = await trades(house, name, 1, ("rest_api",))
    await house.control("POST", "rest_api", "latency", {"ms": milliseconds})
    return trade


async def stopped(child: Child) -> float:
    """SIGTERM, and the seconds until it ended by itself, with 0."""
    began = monotonic()
    child.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(child.process.wait, 40) == 0, child.name
    return monotonic() - began


async def targets(house: FaultHouse, trade: Trade, tokens: list[str]) -> list[Any]:
    """State and number of attempts of these writes, with the rows that tell of attempts."""
    ids = [house.book[token].write_id for token in tokens]
    return await house.fetch(
        "select w.state, w.attempt_count, (select count(*) from attempts a where a.target_id = w.id) as rows, "
        "(select bool_and(a.outcome = 'applied') from attempts a where a.target_id = w.id) as is_well "
        "from write_targets w where w.write_id = any($1::uuid[]) order by w.seq",
        ids,
    )


async def kept(house: FaultHouse, what: str, tokens: list[str]) -> None:
    """A worker ends what is left; then one effect each."""
    await house.control("POST", "rest_api", "latency", {"ms": 0})
    house.clear_dead()
    if not house.workers:
        house.start_worker()
    await house.settle(60)
    line = await house.judge(Line(what), tokens)
    print("\n" + table_of([line]))
    assert line.is_kept, table_of([line])


async def until_calling(house: FaultHouse, trade: Trade) -> None:
    """Until a call of this tenant is under way."""
    deadline = monotonic() + 30
    while not await house.fetch(
        "select from write_targets w join tenants t on t.id = w.tenant_id "
        "where t.slug = $1 and w.state = 'sending'",
        trade.tenant,
    ):
        assert monotonic() < deadline, "no call began"
        await asyncio.sleep(0.02)


async def without_workers(house: FaultHouse) -> None:
    for child in house.workers:
        await stopped(child)
    house.clear_dead()


async def test_worker_when_stopped_during_a_call_then_it_is_saved_and_the_rest_is_as_it_was(
    house: FaultHouse,
) -> None:
    house.start_worker()
    trade = await slowed(house, "graceful", 700)
    await without_workers(house)
    tokens = [await trade.put(Object.LEAD) for _ in range(_WRITES)]
    worker = house.start_worker()
    await until_calling(house, trade)
    took = await stopped(worker)
    rows = await targets(house, trade, tokens)
    states = [row["state"] for row in rows]
    assert set(states) == {"applied", "accepted"}, states
    assert states == sorted(states, reverse=True), "the applied ones are the first"
    for row in rows:
        begun = row["state"] == "applied"
        assert (row["attempt_count"], row["rows"]) == ((1, 1) if begun else (0, 0)), dict(row)
        assert not begun or row["is_well"]
    lanes = await house.fetch(
        "select l.owner, l.leased_until, l.next_due <= clock_timestamp() as is_due, l.failures from lanes l "
        "join tenants t on t.id = l.tenant_id where t.slug = $1",
        trade.tenant,
    )
    # The next worker need not wait for a lease to end.
    assert (lanes[0]["owner"], lanes[0]["leased_until"], lanes[0]["is_due"]) == ("", None, True), dict(
        lanes[0]
    )
    assert lanes[0]["failures"] == 0 and took < 8
    await kept(house, "a worker stopped during a call", tokens)


async def test_worker_when_the_grace_is_shorter_than_the_call_then_it_is_looked_up_and_not_doubled(
    house: FaultHouse,
) -> None:
    """What an operator must avoid, and what happens when he does not."""
    house.clear_dead()
    if not house.workers:
        house.start_worker()
    trade = await slowed(house, "impatient", 3500)
    await without_workers(house)
    tokens = [await trade.put(Object.LEAD) for _ in range(3)]
    worker = house.start_worker(more={"CRMBRIDGE_SHUTDOWN_SECONDS": "1"})
    await until_calling(house, trade)
    assert await stopped(worker) < 4
    rows = await targets(house, trade, tokens)
    assert [row["state"] for row in rows].count("sending") >= 1, [dict(row) for row in rows]
    await kept(house, "a worker stopped too soon", tokens)


async def test_api_when_stopped_then_waited_and_open_requests_are_answered(house: FaultHouse) -> None:
    house.clear_dead()
    if not house.workers:
        house.start_worker()
    trade = await slowed(house, "answered", 1200)
    await without_workers(house)
    other = house.start_api()
    await house.ready(other)
    waited = house.token()
    headers = {"Authorization": f"Bearer {house.key}"}
    url = f"http://127.0.0.1:{other.port}/api/tenants/{trade.tenant}/records/lead"

    async def put(token: str, prefer: str = "") -> tuple[int, dict[str, Any]]:
        more = {"Idempotency-Key": token} | ({"Prefer": prefer} if prefer else {})
        async with house.http.post(
            url, json=trade.body(Object.LEAD, token), headers=headers | more
        ) as answer:
            tree: dict[str, Any] = await answer.json()
            house.enter(token, trade.tenant, trade.slug, "lead", tree["write_id"])
            return answer.status, tree

    waiting = asyncio.create_task(put(waited, "wait=10"))
    await until_calling(house, trade)
    opened_now = [house.token() for _ in range(8)]
    accepting = [asyncio.create_task(put(token)) for token in opened_now]
    # The requests are on their way, in the process or before it; whoever has a connection is answered.
    while len([task for task in accepting if task.done()]) < 1:
        await asyncio.sleep(0.002)
    took = await stopped(other)
    status, tree = await waiting
    assert (status, tree["targets"][0]["state"]) == (201, "applied"), tree
    answers = await asyncio.gather(*accepting)
    assert [status for status, _ in answers] == [202] * len(opened_now)
    rows = await targets(house, trade, [waited])
    assert (rows[0]["attempt_count"], rows[0]["rows"], rows[0]["is_well"]) == (1, 1, True)
    assert took < 12
    house.clear_dead()
    await kept(house, "an API stopped with open requests", [waited, *opened_now])
