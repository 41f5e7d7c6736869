"""Topic failures: every way a call goes wrong has its code, and its outcome is never guessed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from crmbridge.conformance.cases import NotApplicable, expect
from crmbridge.conformance.harness import Bench, Harness
from crmbridge.core.errors import CrmError
from crmbridge.core.operations import Operation, Outcome

__all__ = ["FailuresTopic"]

_DOWN = ("unavailable", "unexpected_response")


class FailuresTopic(Harness):
    """One fault each on a create (the first object that has one) and on a read."""

    async def test_401_is_an_auth_error(self) -> None:
        await self._expect_status(401, "auth_error", Outcome.NOT_APPLIED, is_retry_safe=False)

    async def test_403_is_an_auth_error(self) -> None:
        await self._expect_status(403, "auth_error", Outcome.NOT_APPLIED, is_retry_safe=False)

    async def test_422_is_a_validation_error(self) -> None:
        await self._expect_status(
            422, "validation_error", Outcome.NOT_APPLIED, is_retry_safe=False, on_read=False
        )

    async def test_409_is_a_conflict(self) -> None:
        bench, error = await self._failing_write("status", status=409)
        expect(error.code in ("conflict", "validation_error"), f"409 gives {error.full_code}")
        _expect_facts(bench, error, "409", Outcome.NOT_APPLIED)

    async def test_404_on_a_read_is_not_found(self) -> None:
        bench = await self.make()
        obj = self.first(Operation.GET)
        absent = self.absent_id((await bench.create(obj)).remote_id) if self._may_create(obj) else "987654"
        error = await bench.fails(bench.driver.get_record(obj, absent), "get of a missing record")
        expect(error.code == "not_found", f"a missing record gives {error.full_code}")

    async def test_update_of_a_missing_record_is_not_found(self) -> None:
        bench = await self.make()
        obj = self.first(Operation.UPDATE)
        made = await bench.create(obj)
        slot, value = next(iter(self.two_way(obj, self.sample(obj)).items()))
        absent = self.absent_id(made.remote_id)
        error = await bench.fails(bench.update(obj, absent, {slot: value}), "update of a missing record")
        expect(error.code == "not_found", f"an update of a missing record gives {error.full_code}")
        expect(error.outcome is Outcome.NOT_APPLIED, f"outcome {error.outcome.value}")

    async def test_remote_id_with_a_path_in_it_stays_in_its_place(self) -> None:
        bench = await self.make()
        obj = self.first(Operation.GET)
        for hostile in ("../../admin", "1?x=y", "1#x", "1/../2", "a b", "%2e%2e", "1\r\nX: y"):
            error = await bench.fails(bench.driver.get_record(obj, hostile), f"remote id {hostile!r}")
            expect(
                error.code in ("validation_error", "not_found"),
                f"remote id {hostile!r} gives {error.full_code}",
            )

    async def test_500_on_a_write_leaves_the_outcome_unknown(self) -> None:
        bench, error = await self._failing_write("status", status=500)
        expect(error.code in _DOWN, f"500 gives {error.full_code}")
        if not self.server_error_is_certain:
            _expect_facts(bench, error, "500", Outcome.UNKNOWN)
            self._expect_no_repeat(error, "500 on a create: retry_safe, although it may have been done")

    async def test_502_page_on_a_write_leaves_the_outcome_unknown(self) -> None:
        bench, error = await self._failing_write("html", status=502)
        expect(error.code in _DOWN, f"a 502 page gives {error.full_code}")
        _expect_facts(bench, error, "502", Outcome.UNKNOWN)
        self._expect_no_repeat(error, "a 502 page on a create: retry_safe, although it may have been done")

    async def test_500_on_a_read_is_unavailable(self) -> None:
        _, error = await self._failing_read("status", status=500)
        expect(error.code in _DOWN, f"500 on a read gives {error.full_code}")

    async def test_html_for_json_is_unexpected(self) -> None:
        await self._expect_unexpected("html")

    async def test_broken_json_is_unexpected(self) -> None:
        await self._expect_unexpected("garbage")

    async def test_wrong_shape_is_unexpected(self) -> None:
        await self._expect_unexpected("wrong_shape")

    async def test_empty_answer_to_a_read_is_unexpected(self) -> None:
        _, error = await self._failing_read("empty")
        expect(error.code == "unexpected_response", f"an empty answer to a read gives {error.full_code}")

    async def test_cut_read_is_unavailable(self) -> None:
        for kind in ("cut_before", "timeout_before"):
            _, error = await self._failing_read(kind)
            expect(error.code == "unavailable", f"{kind} on a read gives {error.full_code}")

    async def test_cut_write_is_unavailable_and_unknown(self) -> None:
        for kind in ("cut_after", "timeout_after", "cut_before", "timeout_before"):
            bench, error = await self._failing_write(kind)
            expect(error.code == "unavailable", f"{kind} on a write gives {error.full_code}")
            _expect_facts(bench, error, kind, Outcome.UNKNOWN)

    async def test_refused_connection_is_certain_and_retry_safe(self) -> None:
        bench, error = await self._failing_write("refused")
        expect(error.code == "unavailable", f"a refused connection gives {error.full_code}")
        _expect_facts(bench, error, "refused", Outcome.NOT_APPLIED)
        expect(error.retry_safe, "a refused connection proves that nothing was done: retry_safe is true")

    async def test_refused_field_is_a_validation_error(self) -> None:
        obj = self.first(Operation.CREATE)
        if obj not in self.refused:
            raise NotApplicable(f"the contract names no refused field of {obj.value}")
        bench = await self.make()
        write = await bench.write(Operation.CREATE, obj)
        write.fields = {**write.fields, **self.refused[obj]}
        error = await bench.fails(bench.send(write), "a field that the provider refuses")
        expect(error.code == "validation_error", f"a refused field gives {error.full_code}")
        expect(error.outcome is Outcome.NOT_APPLIED, f"outcome {error.outcome.value}")

    async def _expect_status(
        self, status: int, code: str, outcome: Outcome, *, is_retry_safe: bool, on_read: bool = True
    ) -> None:
        bench, error = await self._failing_write("status", status=status)
        expect(error.code == code, f"{status} on a write gives {error.full_code}, expected {code}")
        _expect_facts(bench, error, str(status), outcome)
        expect(error.retry_safe is is_retry_safe, f"{status}: retry_safe is {error.retry_safe}")
        if on_read and self._has_read():
            _, error = await self._failing_read("status", status=status)
            expect(error.code == code, f"{status} on a read gives {error.full_code}, expected {code}")

    async def _expect_unexpected(self, kind: str) -> None:
        if self._has_read():
            _, error = await self._failing_read(kind)
            expect(error.code == "unexpected_response", f"{kind} on a read gives {error.full_code}")
        bench, error = await self._failing_write(kind)
        expect(error.code == "unexpected_response", f"{kind} on a write gives {error.full_code}")
        _expect_facts(bench, error, kind, Outcome.UNKNOWN)
        self._expect_no_repeat(error, f"{kind} on a create: retry_safe, although it may have been done")

    def _expect_no_repeat(self, error: CrmError, message: str) -> None:
        expect(not error.retry_safe or self.may_repeat(self.first(Operation.CREATE)), message)

    async def _failing_write(self, kind: str, **matchers: Any) -> tuple[Bench, CrmError]:
        bench = await self.make()
        write = await bench.write(Operation.CREATE, self.first(Operation.CREATE))
        before = bench.emulator.write_calls
        bench.emulator.faults.add(kind, only="writes", times=0, **matchers)
        error = await bench.fails(bench.send(write), f"{kind} {matchers.get('status', '')} on a create")
        expect(bench.emulator.faults.hit, f"{kind}: the create sent no write request")
        expect(bench.emulator.write_calls - before <= 1, f"{kind}: the driver sent the write again by itself")
        return bench, error

    async def _failing_read(self, kind: str, **matchers: Any) -> tuple[Bench, CrmError]:
        bench = await self.make()
        read = await self._a_read(bench)
        bench.emulator.faults.add(kind, only="reads", times=0, **matchers)
        error = await bench.fails(read(), f"{kind} {matchers.get('status', '')} on a read")
        expect(error.provider == self.manifest().slug, f"{kind}: error.provider is {error.provider!r}")
        return bench, error

    async def _a_read(self, bench: Bench) -> Callable[[], Awaitable[Any]]:
        manifest = self.manifest()
        for obj in manifest.objects:
            if manifest.supports(obj, Operation.GET).is_usable and self._may_create(obj):
                made = await bench.create(obj)
                return lambda: bench.driver.get_record(obj, made.remote_id)
        obj = self.first(Operation.LIST)
        return lambda: bench.driver.list_recent(obj)

    def _has_read(self) -> bool:
        manifest = self.manifest()
        return any(
            manifest.supports(obj, operation).is_usable
            for obj in manifest.objects
            for operation in (Operation.GET, Operation.LIST)
        )

    def _may_create(self, obj: Any) -> bool:
        return self.manifest().supports(obj, Operation.CREATE).is_usable


def _expect_facts(bench: Bench, error: CrmError, what: str, outcome: Outcome) -> None:
    expect(error.outcome is outcome, f"{what}: outcome {error.outcome.value}, expected {outcome.value}")
    expect(error.provider == bench.driver.manifest.slug, f"{what}: error.provider is {error.provider!r}")
    expect(error.operation, f"{what}: error.operation is empty")
    expect(error.fix.action and error.fix.hint, f"{what}: the error names no fix")
