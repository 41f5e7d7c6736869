"""Topic limits: the provider's wish to slow down is passed on at once, and calls in flight are declared."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from crmbridge.conformance.cases import expect
from crmbridge.conformance.harness import Harness
from crmbridge.core.operations import Operation, Outcome
from crmbridge.emulation import Quota

__all__ = ["LimitsTopic"]

_MANY = 40


class LimitsTopic(Harness):
    """Quotas by the emulator's clock; waiting is delivery's task, never the driver's."""

    def test_limits_in_flight_is_sane(self) -> None:
        limit = self.manifest().in_flight_limit()
        expect(1 <= limit <= 1000, f"in_flight_limit is {limit}")

    async def test_limits_429_with_seconds_tells_them(self) -> None:
        await self._expect_limited("7", 7.0)

    async def test_limits_429_with_a_date_tells_the_seconds(self) -> None:
        at = datetime.now(UTC) + timedelta(seconds=40)
        await self._expect_limited(format_datetime(at, usegmt=True), 40.0)

    async def test_limits_429_without_a_header_is_rate_limited(self) -> None:
        await self._expect_limited("", None)

    async def test_limits_when_quota_is_used_up_then_told_and_over_when_the_window_ends(self) -> None:
        bench = await self.make()
        obj = self.first(Operation.CREATE)
        await bench.links_for(obj)
        bench.emulator.clock.freeze()
        bench.emulator.quotas.append(Quota(limit=_MANY, per_seconds=60, name="conformance"))
        error = None
        for number in range(_MANY + 1):
            write = await bench.write(Operation.CREATE, obj, self.sample(obj, number))
            results = await bench.driver.write_batch([write])
            error = results[0].error
            if error is not None:
                break
        expect(error is not None, f"more than {_MANY} calls passed a quota of {_MANY}")
        expect(getattr(error, "code", "") == "rate_limited", f"a used-up quota gives {error}")
        expect(results[0].outcome is Outcome.NOT_APPLIED, "a used-up quota: the outcome is certain")
        told = getattr(error, "retry_after_seconds", None)
        expect(told is None or 0 < told <= 61, f"retry_after_seconds is {told}, the window ends in 60")
        bench.emulator.clock.advance(61)
        await bench.create(obj, self.sample(obj, _MANY + 2))

    async def test_limits_when_limited_then_the_driver_neither_waits_nor_repeats(self) -> None:
        bench = await self.make()
        obj = self.first(Operation.CREATE)
        write = await bench.write(Operation.CREATE, obj)
        before = bench.emulator.write_calls
        bench.emulator.faults.add("status", status=429, retry_after="1", only="writes", times=0)
        await bench.fails(bench.send(write), "429 on a create")
        sent = bench.emulator.write_calls - before
        expect(sent == 1, f"the driver sent {sent} writes after a 429")

    async def _expect_limited(self, retry_after: str, seconds: float | None) -> None:
        bench = await self.make()
        write = await bench.write(Operation.CREATE, self.first(Operation.CREATE))
        bench.emulator.faults.add("status", status=429, retry_after=retry_after, only="writes", times=0)
        error = await bench.fails(bench.send(write), "429 on a create")
        expect(error.code == "rate_limited", f"429 gives {error.full_code}")
        expect(error.outcome is Outcome.NOT_APPLIED, f"429: outcome {error.outcome.value}")
        told = error.retry_after_seconds
        if seconds is not None:
            expect(told is not None, "429: Retry-After is not passed on")
            expect(abs((told or 0) - seconds) <= 3, f"429: Retry-After {seconds} s is passed on as {told}")
        elif told is not None:
            expect(told > 0, f"429 without a header: retry_after_seconds is {told}")
