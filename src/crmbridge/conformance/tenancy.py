"""Topic tenancy: two connections of one driver never mix, not even side by side."""

from __future__ import annotations

import asyncio

from crmbridge.conformance.cases import expect
from crmbridge.conformance.harness import Bench, Harness
from crmbridge.conformance.secrecy import sent_text
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object

__all__ = ["TenancyTopic"]

_ROUNDS = 6


class TenancyTopic(Harness):
    """Two emulators with other secrets, called at the same time."""

    async def test_tenancy_when_two_connections_write_at_once_then_nothing_mixes(self) -> None:
        obj = self.first(Operation.CREATE)
        benches = [await self.make(variant="one"), await self.make(variant="two")]
        for bench in benches:
            await bench.links_for(obj)
            bench.emulator.latency_seconds = 0.001
        rows = [bench.rows() for bench in benches]
        await asyncio.gather(
            *(self._write(benches[number % 2], obj, number) for number in range(2 * _ROUNDS)),
        )
        made = [bench.rows() - before for bench, before in zip(benches, rows, strict=True)]
        expect(made[0] == made[1] > 0, f"each connection wrote {_ROUNDS} records; rows made: {made}")
        for own, other in (benches, benches[::-1]):
            foreign = [text for text in other.emulator.secrets().values() if len(text) >= 8]
            foreign = [text for text in foreign if text not in own.emulator.secrets().values()]
            seen = sent_text(own.emulator)
            expect(not any(text in seen for text in foreign), "one connection sent the other's secret")

    async def test_tenancy_when_secrets_are_swapped_then_auth_error(self) -> None:
        foreign = await self.make(variant="two", is_prepared=False)
        secrets = foreign.emulator.secrets()
        own = await self.make(variant="one", is_prepared=False, secrets=secrets)
        if secrets == own.emulator.secrets():
            expect(not secrets, "the emulator's secrets do not differ by variant: make them by secret()")
            return
        error = await own.fails(own.driver.test_connection(), "another tenant's secret")
        expect(error.code == "auth_error", f"another tenant's secret gives {error.full_code}")

    async def _write(self, bench: Bench, obj: Object, number: int) -> None:
        driver = self.driver(bench.access)
        write = await bench.write(Operation.CREATE, obj, self.sample(obj, number))
        result = (await driver.write_batch([write]))[0]
        expect(result.error is None, f"write {number}: {result.error}")
