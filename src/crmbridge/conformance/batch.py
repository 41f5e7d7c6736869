"""Topic batch: one outcome per write, in order; one bad write does not spoil the others."""

from __future__ import annotations

from crmbridge.conformance.cases import NotApplicable, expect, per_object
from crmbridge.conformance.harness import Bench, Harness
from crmbridge.core.errors import CrmError
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object, Write, WriteResult

__all__ = ["BatchTopic"]

_FEW = 5


class BatchTopic(Harness):
    """``write_batch`` of every object that can be created, whether or not the provider has batches."""

    @per_object(Operation.CREATE)
    async def test_batch_gives_one_outcome_per_write_in_order(self, obj: Object) -> None:
        bench = await self.make()
        results = await self._send(bench, await self._creates(bench, obj, _FEW))
        for number, result in enumerate(results):
            expect(
                result.outcome is Outcome.APPLIED, f"write {number}: {result.outcome.value} {result.error}"
            )
            expect(isinstance(result.remote_id, str) and result.remote_id, f"write {number} has no remote id")
        expect(len({result.remote_id for result in results}) == _FEW, "two writes share one remote id")
        await self._expect_order(bench, obj, results)

    @per_object(Operation.CREATE)
    async def test_batch_when_one_is_bad_then_others_pass(self, obj: Object) -> None:
        if obj not in self.refused:
            raise NotApplicable(f"the contract names no refused field of {obj.value}")
        bench = await self.make()
        writes = await self._creates(bench, obj, _FEW)
        bad = _FEW // 2
        writes[bad].fields = {**writes[bad].fields, **self.refused[obj]}
        results = await self._send(bench, writes)
        for number, result in enumerate(results):
            wanted = Outcome.NOT_APPLIED if number == bad else Outcome.APPLIED
            expect(
                result.outcome is wanted,
                f"write {number} of {_FEW}: {result.outcome.value}, expected {wanted.value} ({result.error})",
            )
        error = results[bad].error
        expect(
            isinstance(error, CrmError) and error.code == "validation_error", f"the bad write has {error!r}"
        )

    @per_object(Operation.CREATE)
    async def test_batch_of_the_declared_size_is_one_call(self, obj: Object) -> None:
        size = self.manifest().batch_size(obj, Operation.CREATE)
        if size < 2:
            raise NotApplicable(f"no batch of {obj.value} is declared")
        bench = await self.make()
        writes = await self._creates(bench, obj, size)
        before = bench.emulator.write_calls
        results = await self._send(bench, writes)
        calls = bench.emulator.write_calls - before
        failed = [result for result in results if result.outcome is not Outcome.APPLIED]
        expect(not failed, f"{len(failed)} of {size} failed: {failed[0].error if failed else ''}")
        expect(calls == 1, f"a batch of the declared size {size} took {calls} write calls")

    @per_object(Operation.CREATE)
    async def test_batch_when_cut_then_every_outcome_is_unknown(self, obj: Object) -> None:
        if self.manifest().batch_size(obj, Operation.CREATE) < 2:
            raise NotApplicable(f"no batch of {obj.value} is declared")
        bench = await self.make()
        writes = await self._creates(bench, obj, 2)
        bench.emulator.faults.add("cut_after", only="writes", times=0)
        for number, result in enumerate(await self._send(bench, writes)):
            expect(
                result.outcome is Outcome.UNKNOWN,
                f"write {number} of a cut batch: {result.outcome.value}, expected unknown",
            )

    @per_object(Operation.CREATE, Operation.UPDATE)
    async def test_batch_of_updates_gives_one_outcome_per_write(self, obj: Object) -> None:
        bench = await self.make()
        ids = [(await bench.create(obj, self.sample(obj, number))).remote_id for number in range(3)]
        fields = self.two_way(obj, self.sample(obj))
        if not fields:
            raise NotApplicable("no slot to update")
        slot = next(iter(fields))
        ids[1] = self.absent_id(ids[1])
        writes = [
            await bench.write(Operation.UPDATE, obj, {slot: fields[slot]}, remote_id=remote_id)
            for remote_id in ids
        ]
        outcomes = [result.outcome for result in await self._send(bench, writes)]
        wanted = [Outcome.APPLIED, Outcome.NOT_APPLIED, Outcome.APPLIED]
        expect(
            outcomes == wanted, f"updates of a real, a missing, a real record: {[o.value for o in outcomes]}"
        )

    async def _creates(self, bench: Bench, obj: Object, count: int) -> list[Write]:
        return [await bench.write(Operation.CREATE, obj, self.sample(obj, number)) for number in range(count)]

    async def _send(self, bench: Bench, writes: list[Write]) -> list[WriteResult]:
        try:
            results = await bench.open().write_batch(writes)
        except CrmError as error:
            expect(False, f"write_batch raised {error.full_code}; it answers one result per write instead")
        expect(len(results) == len(writes), f"{len(writes)} writes gave {len(results)} results")
        for write, result in zip(writes, results, strict=True):
            is_told = result.error is not None or result.outcome is not Outcome.NOT_APPLIED
            expect(is_told, "a write was not applied and its result has no error")
            if result.remote_id and write.operation is Operation.CREATE:
                bench.made.append((write.object, result.remote_id))
        return list(results)

    async def _expect_order(self, bench: Bench, obj: Object, results: list[WriteResult]) -> None:
        slots = [slot for slot in ("email", "phone") if slot in self.two_way(obj, self.sample(obj))]
        if not slots or not self.manifest().supports(obj, Operation.GET).is_usable:
            return
        for number, result in enumerate(results):
            record = await bench.get(obj, result.remote_id)
            wanted = self.sample(obj, number)[slots[0]]
            expect(record.fields.get(slots[0]) == wanted, f"result {number} names another write's record")
