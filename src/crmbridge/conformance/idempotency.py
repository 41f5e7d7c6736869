"""Topic idempotency: a write whose answer was lost is found again, and never doubled."""

from __future__ import annotations

from typing import Any

from crmbridge.conformance.cases import ContractBroken, NotApplicable, expect, per_object, per_write
from crmbridge.conformance.harness import Bench, Harness
from crmbridge.core.errors import Conflict, CrmError
from crmbridge.core.manifest import Idempotency, IdempotencyKind, LookUp
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object, Write, WriteResult

__all__ = ["IdempotencyTopic"]

_MATCH_BY = ("email", "phone", "title", "name", "subject")


class IdempotencyTopic(Harness):
    """The documented procedure: outcome unknown → wait for the search lag → find_written → perhaps again."""

    @per_object(Operation.CREATE)
    async def test_same_create_twice_does_as_declared(self, obj: Object) -> None:
        means = self._means(obj)
        if means.kind not in (IdempotencyKind.EXTERNAL_ID, IdempotencyKind.KEY_SENT):
            raise NotApplicable(
                f"idempotency is {means.kind.value}: a blind repeat may double, so none is sent"
            )
        bench = await self.make()
        write = await bench.write(Operation.CREATE, obj)
        first = await bench.send(write)
        rows = bench.rows() if bench.has_emulator else 0
        await self.wait(bench, means.search_lag_seconds)
        try:
            again = await bench.send(write)
            expect(again.remote_id == first.remote_id, "the same create twice made two records")
        except Conflict as error:
            expect(
                error.existing_remote_id in ("", first.remote_id),
                "the conflict names another record as existing",
            )
        if bench.has_emulator:
            expect(bench.rows() == rows, f"the same create twice left {bench.rows() - rows} more rows")

    @per_object(Operation.CREATE)
    async def test_find_written_when_applied_then_found(self, obj: Object) -> None:
        means = self._means(obj)
        bench = await self.make()
        write = await bench.write(Operation.CREATE, obj)
        made = await bench.send(write)
        found = await self._find(bench, write)
        if means.kind not in (IdempotencyKind.NONE, IdempotencyKind.KEY_SENT):
            expect(found.outcome is Outcome.APPLIED, f"find_written says {found.outcome.value}, not applied")
        expect(found.outcome is not Outcome.NOT_APPLIED, "find_written denies a write that was applied")
        if found.outcome is Outcome.APPLIED:
            expect(found.remote_id == made.remote_id, "find_written found another record")

    @per_object(Operation.CREATE)
    async def test_find_written_when_never_sent_then_not_found(self, obj: Object) -> None:
        bench = await self.make()
        await bench.create(obj, self.sample(obj, 3))
        write = await bench.write(Operation.CREATE, obj)
        found = await self._find(bench, write)
        expect(found.outcome is not Outcome.APPLIED, "find_written found a write that was never sent")

    @per_object(Operation.CREATE)
    async def test_create_when_answer_lost_after_commit_then_one_record(self, obj: Object) -> None:
        for fault in ("cut_after", "timeout_after"):
            await self._lose_answer(obj, fault, was_committed=True)

    @per_object(Operation.CREATE)
    async def test_create_when_cut_before_commit_then_one_record(self, obj: Object) -> None:
        for fault in ("cut_before", "timeout_before"):
            await self._lose_answer(obj, fault, was_committed=False)

    @per_object(Operation.UPDATE, Operation.CREATE)
    async def test_update_when_answer_lost_then_outcome_unknown(self, obj: Object) -> None:
        bench = await self.make()
        made = await bench.create(obj)
        sample = self.two_way(obj, self.sample(obj))
        if not sample:
            raise NotApplicable("no slot to update")
        slot, value = next(iter(sample.items()))
        bench.emulator.faults.add("cut_after", only="writes")
        error = await bench.fails(bench.update(obj, made.remote_id, {slot: value}), "a cut update")
        expect(error.outcome is Outcome.UNKNOWN, f"a cut update has outcome {error.outcome.value}")

    @per_object(Operation.UPSERT)
    async def test_upsert_twice_then_one_record(self, obj: Object) -> None:
        bench = await self.make()
        slot = next((slot for slot in _MATCH_BY if slot in self.sample(obj)), "")
        expect(slot, "upsert is declared: the sample needs a slot to match by")
        first = await bench.send(await bench.write(Operation.UPSERT, obj, match=(slot,)))
        await self.wait(bench, self._means(obj).search_lag_seconds)
        rows = bench.rows() if bench.has_emulator else 0
        again = await bench.send(await bench.write(Operation.UPSERT, obj, match=(slot,)))
        expect(again.remote_id == first.remote_id, "the second upsert made another record")
        expect(first.was_created is not False, "the first upsert says it created nothing")
        expect(again.was_created is not True, "the second upsert says it created a record")
        if bench.has_emulator:
            expect(bench.rows() == rows, "the second upsert left more rows")

    @per_write
    async def test_look_up_does_as_declared(self, obj: Object, operation: Operation) -> None:
        """Before the write it is not found; after it, the declared means finds it, or none says that it cannot."""
        means = self.manifest().look_up(obj, operation)
        bench = await self.make()
        write = await self.some_write(bench, obj, operation)
        if operation is Operation.UPDATE and not self._another_value(obj):
            raise NotApplicable("the sample has no slot that can be changed to another value")
        before = await self._find(bench, write)
        expect(before.outcome is not Outcome.APPLIED, "find_written finds a write that was never sent")
        result = await bench.open().write_one(write)
        expect(result.error is None, f"the write fails: {result.error}")
        if operation in (Operation.CREATE, Operation.UPSERT):
            bench.made.append((obj, result.remote_id))
        after = await self._find(bench, write)
        blind = (LookUp.NONE, LookUp.KEY_SENT)
        if means in blind:
            told = {before.outcome, after.outcome}
            expect(
                told == {Outcome.UNKNOWN}, f"declared {means.value}, but find_written tells; declare by what"
            )
        elif means is not LookUp.REPEAT:
            said = after.outcome.value
            expect(after.outcome is Outcome.APPLIED, f"declared {means.value}, but find_written says {said}")
        if means not in blind and operation is not Operation.CREATE:
            expect(before.outcome is Outcome.NOT_APPLIED, f"declared {means.value}, but it denies nothing")

    async def test_declared_lag_covers_the_search_that_lags(self) -> None:
        bench = await self.make()
        lag = bench.emulator.store.search_lag_seconds
        manifest = self.manifest()
        for obj, spec in manifest.objects.items():
            told = spec.idempotency.search_lag_seconds
            if manifest.supports(obj, Operation.CREATE).is_usable:
                expect(told >= lag, f"{obj.value}: search_lag_seconds is {told:g}, the provider's is {lag:g}")

    async def some_write(self, bench: Bench, obj: Object, operation: Operation) -> Write:
        """A write that can be sent to this bench; the record that it changes is there. Raises NotApplicable."""
        if operation is Operation.CREATE:
            return await bench.write(operation, obj)
        if operation is Operation.UPSERT:
            slot = next((slot for slot in _MATCH_BY if slot in self.sample(obj)), "")
            expect(slot, "upsert is declared: the sample needs a slot to match by")
            return await bench.write(operation, obj, match=(slot,))
        if not self.manifest().supports(obj, Operation.CREATE).is_usable:
            raise NotApplicable(f"no {obj.value} can be made to {operation.value}")
        made = await bench.create(obj)
        await self.wait(bench, self._means(obj).search_lag_seconds)
        if operation is not Operation.UPDATE:
            return await bench.write(operation, obj, remote_id=made.remote_id)
        changed = self._another_value(obj) or self.sample(obj)
        return await bench.write(operation, obj, changed, remote_id=made.remote_id)

    def _another_value(self, obj: Object) -> dict[str, Any]:
        """One slot with another value than the sample's."""
        if obj in self.changes:
            return dict(self.changes[obj])
        now = self.sample(obj)
        for slot in self.free_texts(obj):
            return {slot: f"{now[slot]} again"}
        other = self.two_way(obj, self.sample(obj, 1))
        return dict(list({slot: value for slot, value in other.items() if value != now[slot]}.items())[:1])

    async def _lose_answer(self, obj: Object, fault: str, *, was_committed: bool) -> None:
        expected = await self._rows_of_one(obj)
        bench = await self.make()
        await bench.links_for(obj)
        before = bench.rows()
        write = await bench.write(Operation.CREATE, obj)
        bench.emulator.faults.add(fault, only="writes")
        error = await bench.fails(bench.send(write), f"{fault} on a create")
        expect(error.outcome is Outcome.UNKNOWN, f"{fault}: outcome {error.outcome.value}, expected unknown")
        is_honest = not error.retry_safe or self.may_repeat(obj)
        expect(is_honest, f"{fault}: retry_safe, although a repeat could double the record")
        sent = bench.emulator.write_calls
        found = await self._find(bench, write)
        expect(bench.emulator.write_calls == sent, "find_written sent a write; it may only look")
        if was_committed:
            expect(found.outcome is not Outcome.NOT_APPLIED, f"{fault}: find_written denies what was applied")
        else:
            expect(found.outcome is not Outcome.APPLIED, f"{fault}: find_written found what never was")
        if found.outcome is Outcome.NOT_APPLIED:
            await bench.send(write)
        made = bench.rows() - before
        expect(made <= expected, f"{fault}: doubled; the procedure left {made} rows, one create {expected}")
        is_lost = found.outcome is Outcome.NOT_APPLIED and made < expected
        expect(not is_lost, f"{fault}: lost; the procedure left {made} rows, one create {expected}")

    async def _rows_of_one(self, obj: Object) -> int:
        bench = await self.make()
        await bench.links_for(obj)
        before = bench.rows()
        await bench.create(obj)
        return bench.rows() - before

    async def _find(self, bench: Bench, write: Write) -> WriteResult:
        await self.wait(bench, self._means(write.object).search_lag_seconds)
        try:
            return await bench.open().find_written(write)
        except CrmError as error:
            raise ContractBroken(
                f"find_written raised {error.full_code}; it answers unknown instead"
            ) from error

    def _means(self, obj: Object) -> Idempotency:
        return self.manifest().objects[obj].idempotency
