"""Rate-limit headers, and the brake on calls in flight."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.toolkit.limits import InFlight, LimitReading, read_limits

NOW = 1_795_341_600.0


@pytest.mark.parametrize(
    ("headers", "reading"),
    [
        ({}, LimitReading()),
        (
            {"x-ratelimit-limit": "100", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"},
            LimitReading(limit=100, remaining=0, reset_seconds=30.0),
        ),
        ({"x-ratelimit-reset": str(int(NOW) + 12)}, LimitReading(reset_seconds=12.0)),
        ({"x-ratelimit-reset": str((int(NOW) + 12) * 1000)}, LimitReading(reset_seconds=12.0)),
        ({"x-ratelimit-reset": str(int(NOW) - 12)}, LimitReading(reset_seconds=0.0)),
        (
            {"ratelimit-limit": "100, 100;w=60", "ratelimit-remaining": "9", "ratelimit-reset": "5"},
            LimitReading(limit=100, remaining=9, reset_seconds=5.0),
        ),
        (
            {"ratelimit": '"default";r=50;t=30', "ratelimit-policy": '"default";q=100;w=60'},
            LimitReading(limit=100, remaining=50, reset_seconds=30.0),
        ),
        ({"retry-after": "9"}, LimitReading(reset_seconds=9.0)),
        ({"x-ratelimit-limit": "many", "x-ratelimit-remaining": "-1"}, LimitReading()),
    ],
)
def test_read_limits_when_usual_headers_then_read(headers: dict[str, str], reading: LimitReading) -> None:
    assert read_limits(headers, now=NOW) == reading


def test_read_limits_when_provider_has_its_own_family_then_it_leads() -> None:
    headers = {"x-acme-ratelimit-remaining": "3", "ratelimit-remaining": "9", "ratelimit-limit": "10"}
    reading = read_limits(headers, prefix="x-acme-ratelimit", now=NOW)
    assert reading == LimitReading(limit=10, remaining=3)
    assert not reading.is_exhausted


@given(
    st.dictionaries(
        st.sampled_from(["x-ratelimit-reset", "ratelimit", "ratelimit-policy", "retry-after"]), st.text()
    )
)
def test_read_limits_when_any_text_then_never_raises(headers: dict[str, str]) -> None:
    reading = read_limits(headers, now=NOW)
    assert reading.reset_seconds is None or 0 <= reading.reset_seconds <= 86_400


async def test_in_flight_when_more_wait_than_fit_then_never_more_at_once() -> None:
    gate = InFlight(3)
    most = 0

    async def call() -> None:
        nonlocal most
        async with gate:
            most = max(most, gate.count)
            await asyncio.sleep(0.005)

    await asyncio.gather(*(call() for _ in range(20)))
    assert (most, gate.count) == (3, 0)


async def test_in_flight_when_a_call_fails_or_is_cancelled_then_its_place_is_free() -> None:
    gate = InFlight(1)

    async def hang() -> None:
        async with gate:
            await asyncio.sleep(10)

    task = asyncio.create_task(hang())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(KeyError):
        async with gate:
            raise KeyError
    async with gate:
        assert gate.count == 1
