"""Topic erasure: the privacy delete leaves the person nowhere the manifest claims to reach."""

from __future__ import annotations

from typing import Any

import msgspec

from crmbridge.conformance.cases import ContractBroken, expect, per_object
from crmbridge.conformance.harness import Bench, Harness
from crmbridge.core.errors import CrmError, NotFound, Unsupported
from crmbridge.core.operations import DeleteLevel, Operation
from crmbridge.core.records import Object

__all__ = ["ErasureTopic", "persons_of", "traces"]

_COMPLETE = (DeleteLevel.HARD, DeleteLevel.REDACTED)


class ErasureTopic(Harness):
    """``erase_record``, then a search of everything the provider still holds."""

    @per_object(Operation.CREATE, Operation.ERASE)
    async def test_erase_reaches_the_declared_level(self, obj: Object) -> None:
        declared = self.manifest().objects[obj].erase_level
        bench = await self.make()
        made = await bench.create(obj)
        level = await bench.driver.erase_record(obj, made.remote_id)
        expect(level is declared, f"erase answered {level!r}, declared is {declared.value}")
        if level not in _COMPLETE:
            return
        await self._expect_person_gone(bench, obj, made.remote_id)
        if bench.has_emulator:
            left = traces(_held(bench), persons_of(self, obj))
            expect(not left, f"after erase the provider still holds {len(left)} of the person's values")

    @per_object(Operation.CREATE, Operation.DELETE, Operation.ERASE)
    async def test_erase_after_delete_reaches_the_declared_level(self, obj: Object) -> None:
        """The order of a forget request: it must leave no more of the person than an erase alone does. Not found is
        fine then, and so is a task for a person; any other answer stops the erasure half way."""
        declared = self.manifest().objects[obj].erase_level
        bench = await self.make()
        made = await bench.create(obj)
        await bench.driver.delete_record(obj, made.remote_id)
        try:
            level = await bench.driver.erase_record(obj, made.remote_id)
            expect(level is declared, f"erase after delete answered {level!r}, declared is {declared.value}")
        except Unsupported as error:
            has_task = error.subcode == "delete_unsupported" and error.fix != Unsupported.default_fix
            expect(has_task, f"erase after delete gives {error.full_code} and no task for a person")
            return
        except NotFound:
            pass
        except CrmError as error:
            raise ContractBroken(f"erase after delete gives {error.full_code}") from error
        if declared in _COMPLETE:
            await self._expect_person_gone(bench, obj, made.remote_id)
        if bench.has_emulator:
            expected = [] if declared in _COMPLETE else await self._left_by_erase(obj)
            left = [value for value in traces(_held(bench), persons_of(self, obj)) if value not in expected]
            expect(not left, f"erase after delete leaves {len(left)} of the person's values that erase takes")

    async def _left_by_erase(self, obj: Object) -> list[str]:
        bench = await self.make()
        made = await bench.create(obj)
        await bench.driver.erase_record(obj, made.remote_id)
        return traces(_held(bench), persons_of(self, obj))

    @per_object(Operation.CREATE, Operation.ERASE)
    async def test_erase_leaves_other_persons_alone(self, obj: Object) -> None:
        bench = await self.make()
        made = await bench.create(obj)
        other = await bench.create(obj, self.sample(obj, 4))
        await bench.driver.erase_record(obj, made.remote_id)
        if self.manifest().supports(obj, Operation.GET).is_usable:
            record = await bench.driver.get_record(obj, other.remote_id)
            expect(not record.is_archived, "erasing one person archived another's record")

    @per_object(Operation.CREATE, Operation.ERASE)
    async def test_erase_of_a_missing_record_is_not_found(self, obj: Object) -> None:
        bench = await self.make()
        made = await bench.create(obj)
        call = bench.driver.erase_record(obj, self.absent_id(made.remote_id))
        error = await bench.fails(call, "erase of a missing record")
        expect(error.code == "not_found", f"erase of a missing record gives {error.full_code}")

    async def _expect_person_gone(self, bench: Bench, obj: Object, remote_id: str) -> None:
        if not self.manifest().supports(obj, Operation.GET).is_usable:
            return
        try:
            record = await bench.driver.get_record(obj, remote_id)
        except NotFound:
            return
        left = traces(record.native, persons_of(self, obj))
        expect(not left, f"after erase the record still shows {len(left)} of the person's values")


def persons_of(contract: Harness, obj: Object) -> list[str]:
    """Values of the sample that identify the person: e-mail, phone (also without its plus), full texts."""
    slots = contract.slots(obj)
    others = [value for other in contract.linked_first(obj) for value in contract.sample(other).values()]
    values = []
    for name, value in contract.sample(obj).items():
        if slots[name].personal == "no" or not isinstance(value, str) or len(value) < 5:
            continue
        if slots[name].type.value in ("datetime", "date", "url"):
            continue
        if value in others:
            continue  # stands in the linked record too, which this erase is not for
        values.append(value.lstrip("+").lower())
    return values


def traces(tree: Any, values: list[str]) -> list[str]:
    """Those of the values that stand anywhere in the tree."""
    text = msgspec.json.encode(tree, enc_hook=str).decode().lower()
    return [value for value in values if value in text or msgspec.json.encode(value).decode()[1:-1] in text]


def _held(bench: Bench) -> list[Any]:
    return [row.fields for table in bench.emulator.store.tables.values() for row in table]
