"""Topic deletes: the ordinary delete reaches the declared level, and a missing record is NotFound."""

from __future__ import annotations

from crmbridge.conformance.cases import NotApplicable, expect, per_object
from crmbridge.conformance.erasure import persons_of, traces
from crmbridge.conformance.harness import Harness
from crmbridge.core.errors import NotFound
from crmbridge.core.operations import DeleteLevel, Operation, Outcome
from crmbridge.core.records import Object

__all__ = ["DeletesTopic"]


class DeletesTopic(Harness):
    """``delete_record`` and what a look afterwards shows."""

    @per_object(Operation.CREATE, Operation.DELETE)
    async def test_delete_reaches_the_declared_level(self, obj: Object) -> None:
        declared = self.manifest().objects[obj].delete_level
        bench = await self.make()
        made = await bench.create(obj)
        level = await bench.driver.delete_record(obj, made.remote_id)
        expect(level is declared, f"delete answered {level!r}, declared is {declared.value}")
        expect(level is not DeleteLevel.UNSUPPORTED, "unsupported is declared, never returned")
        if level is DeleteLevel.PASS_THROUGH or not self.manifest().supports(obj, Operation.GET).is_usable:
            return
        try:
            record = await bench.get(obj, made.remote_id)
        except NotFound:
            expect(level is not DeleteLevel.REDACTED, "a redacted record is gone: declare hard")
            return
        expect(level is not DeleteLevel.HARD, "a hard-deleted record can still be read")
        if level is DeleteLevel.SOFT:
            expect(record.is_archived, "a soft-deleted record reads as if nothing had happened")
        if level is DeleteLevel.REDACTED:
            left = traces(record.native, persons_of(self, obj))
            expect(not left, f"a redacted record still holds {len(left)} of the person's values")

    @per_object(Operation.CREATE, Operation.DELETE)
    async def test_delete_hard_leaves_nothing_at_the_provider(self, obj: Object) -> None:
        if self.manifest().objects[obj].delete_level is not DeleteLevel.HARD:
            raise NotApplicable("the delete is not declared hard")
        bench = await self.make()
        await bench.links_for(obj)
        rows = bench.rows()
        made = await bench.create(obj)
        await bench.driver.delete_record(obj, made.remote_id)
        expect(bench.rows() <= rows, "rows of the deleted record are left at the provider")

    @per_object(Operation.CREATE, Operation.DELETE)
    async def test_delete_of_a_missing_record_is_not_found(self, obj: Object) -> None:
        if self.manifest().objects[obj].delete_level is DeleteLevel.PASS_THROUGH:
            raise NotApplicable("a passed-on delete cannot know")
        bench = await self.make()
        made = await bench.create(obj)
        absent = self.absent_id(made.remote_id)
        error = await bench.fails(bench.driver.delete_record(obj, absent), "delete of a missing record")
        expect(error.code == "not_found", f"delete of a missing record gives {error.full_code}")

    @per_object(Operation.CREATE, Operation.DELETE)
    async def test_delete_in_a_batch_tells_its_level(self, obj: Object) -> None:
        bench = await self.make()
        made = await bench.create(obj)
        write = await bench.write(Operation.DELETE, obj, remote_id=made.remote_id)
        result = (await bench.driver.write_batch([write]))[0]
        expect(result.outcome is Outcome.APPLIED, f"outcome {result.outcome.value} {result.error}")
        declared = self.manifest().objects[obj].delete_level.value
        expect(
            result.delete_level == declared, f"delete_level {result.delete_level!r}, declared {declared!r}"
        )

    @per_object(Operation.CREATE, Operation.DELETE)
    async def test_delete_when_answer_lost_then_outcome_unknown(self, obj: Object) -> None:
        bench = await self.make()
        made = await bench.create(obj)
        bench.emulator.faults.add("cut_after", only="writes")
        error = await bench.fails(bench.driver.delete_record(obj, made.remote_id), "a cut delete")
        expect(error.outcome is Outcome.UNKNOWN, f"a cut delete has outcome {error.outcome.value}")
