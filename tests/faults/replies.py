"""Replies that are cut, late or wrong: a few creates of everything, and ten thousand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Any

from tests.faults.connecting import Trade, connect, find_one, words
from tests.faults.house import FaultHouse
from tests.faults.ledger import PENDING, Line
from tests.faults.progress import progress

from crmbridge.cli.demo.plans import way_of
from crmbridge.conformance.run import contract_for
from crmbridge.core.records import Object

__all__ = ["consents", "cut_many", "cut_replies", "name_of_many"]

_ACCEPTED_AT_ONCE = 200
_STALL_SECONDS = 90.0


async def cut_replies(trade: Trade, objects: Sequence[Object], number: int) -> Line:
    """So many creates of each object; of the calls that write, a third goes wrong after the effect or before it.

    The schedule is drawn from the house's seed: which call is hit, and how. After the effect: the connection is cut, no
    answer comes within the time allowed, a 500 or a proxy's page comes instead. Late: the effect comes only after
    the caller has given up. Before: the connection is cut.
    """
    house, slug = trade.house, trade.slug
    line = Line(f"cut replies: {slug}")
    began = monotonic()
    await house.control("DELETE", slug, "faults")
    kinds = _faults_of(trade)
    drawn = dict.fromkeys(kinds, 0)
    expected = max(number * len(objects) // 2, 6)
    for call in range(expected):
        if house.random.random() < 0.34 or call == 0:
            kind = house.random.choice(list(kinds))
            drawn[kind] += 1
            # A fault waits until so many calls have passed it by; those already hit are not counted by the others.
            skip = call - sum(drawn.values()) + 1
            await house.control("POST", slug, "faults", {**kinds[kind], "only": "writes", "skip": skip})
    tokens = []
    for _ in range(number):
        for obj in objects:
            tokens.append(await trade.put(obj))
        await asyncio.sleep(0.05)
    await house.settle(60)
    left = await house.control("GET", slug, "faults")
    await house.control("DELETE", slug, "faults")
    await house.settle(30)
    line.seconds = monotonic() - began
    line.notes["faults"] = sum(drawn.values()) - len(left)
    looked = await house.fetch(
        "select count(*) as n from attempts a join write_targets w on w.id = a.target_id "
        "join tenants t on t.id = w.tenant_id where a.kind = 'look_up' and t.slug = $1",
        trade.tenant,
    )
    line.notes["look-ups"] = looked[0]["n"]
    return await house.judge(line, tokens)


def _faults_of(trade: Trade) -> dict[str, dict[str, Any]]:
    """The ways in which replies go wrong at this provider."""
    timeout = trade.house.plan.timeout_seconds or 30.0
    kinds: dict[str, dict[str, Any]] = {
        "cut_after": {"kind": "cut_after"},
        "no_answer": {"kind": "timeout_after"},
        "proxy_page": {"kind": "html", "status": 502, "after_commit": True},
        "late": {"kind": "latency", "latency_seconds": timeout + 0.2},
        "cut_before": {"kind": "cut_before"},
    }
    if not trade.contract.server_error_is_certain:
        kinds["error_500"] = {"kind": "status", "status": 500, "after_commit": True}
    return kinds


def name_of_many(slug: str, creates: int) -> str:
    """What the line of such a run is called."""
    return f"{creates} creates: {slug}"


def consents(slug: str) -> bool:
    """Whether each tenant of this driver consents by itself, which providers count."""
    return way_of(contract_for(slug).manifest()) == "consent"


async def cut_many(
    house: FaultHouse, slug: str, objects: Sequence[Object], creates: int, *, share: float, tenants: int = 10
) -> Line:
    """So many creates of this driver over all its objects, of several tenants, while a share of the calls that write
    goes wrong in one of the ways of :func:`cut_replies`, drawn at the emulator; repetitions and look-ups included.

    A batch is one call: where a driver has batches, one in ten calls unsettles one in ten records.
    """
    line = Line(name_of_many(slug, creates))
    first = await connect(house, slug, f"many-{words(slug)}-0")
    for obj in objects:
        await find_one(first, obj)
    these = [first]
    for number in range(1, tenants):
        trade = await connect(house, slug, f"many-{words(slug)}-{number}")
        # Records to be linked to are each tenant's own: one person with thousands of notes is nobody's CRM.
        await trade.prepare(list(objects))
        these.append(trade)
    kinds = _faults_of(first)
    for place, (name, kind) in enumerate(kinds.items()):
        left = len(kinds) - place
        part = share * left / len(kinds)
        each = (share / len(kinds)) / (1 - share + part)
        await house.control("POST", slug, "faults", {**kind, "only": "writes", "times": 0, "share": each})
        line.notes[name] = 0
    began = monotonic()
    tokens = await _accept(these, objects, creates)
    line.notes["accepted in s"] = round(monotonic() - began)
    await _deliver(house, slug, creates)
    line.seconds = monotonic() - began
    for name, fault in zip(kinds, await house.control("GET", slug, "faults"), strict=True):
        line.notes[name] = fault["hits"]
    await house.control("DELETE", slug, "faults")
    # What was late has arrived before anything is counted.
    await asyncio.sleep(2 * (house.plan.timeout_seconds or 30.0))
    looked = await house.fetch("select count(*) as n from attempts where kind = 'look_up'")
    line.notes |= {
        "calls": len(house.calls(slug)),
        "look-ups": looked[0]["n"],
        "tenants": tenants,
        "creates/s": round(creates / line.seconds),
    }
    if house.plan.budget_times > 1:
        line.notes["rate budgets of driver and emulator times"] = house.plan.budget_times
    return await house.judge(line, tokens)


def _portions(
    these: Sequence[Trade], objects: Sequence[Object], creates: int
) -> Iterator[tuple[Trade, Object, int]]:
    """Who writes how many of what in one request: objects and tenants in turn, all in equal parts."""
    left = {(trade, obj): 0 for trade in range(len(these)) for obj in objects}
    for number in range(creates):
        left[number % len(these), objects[number // len(these) % len(objects)]] += 1
    while any(left.values()):
        for (trade, obj), number in left.items():
            part = min(number, _ACCEPTED_AT_ONCE)
            if part:
                left[trade, obj] -= part
                yield these[trade], obj, part


async def _accept(these: Sequence[Trade], objects: Sequence[Object], creates: int) -> list[str]:
    portions = _portions(these, objects, creates)
    tokens: list[str] = []

    async def hand_over() -> None:
        for trade, obj, number in portions:
            bodies = {token: trade.body(obj, token) for token in (trade.house.token() for _ in range(number))}
            await trade.house.put_many(trade.tenant, trade.slug, obj.value, bodies)
            tokens.extend(bodies)

    await asyncio.gather(*(hand_over() for _ in range(3)))
    assert len(tokens) == creates
    return tokens


async def _deliver(house: FaultHouse, slug: str, creates: int) -> None:
    """Until nothing is pending, or nothing has moved for long; the ledger tells what is left."""
    least, moved_at = creates + 1, monotonic()
    with progress(slug, creates) as done:
        while least:
            rows = await house.fetch(
                "select count(*) as n from write_targets where state = any($1)", list(PENDING)
            )
            if rows[0]["n"] < least:
                least, moved_at = rows[0]["n"], monotonic()
            done(creates - least)
            if monotonic() - moved_at > _STALL_SECONDS:
                return
            await asyncio.sleep(0.5)
