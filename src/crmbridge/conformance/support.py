"""Topic support: every yes works, and every no is said before a request leaves."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from crmbridge.conformance.cases import NotApplicable, expect, per_operation
from crmbridge.conformance.harness import Bench, Harness
from crmbridge.core.driver import Access, CrmDriver
from crmbridge.core.errors import Unsupported
from crmbridge.core.operations import DeleteLevel, Operation, Outcome
from crmbridge.core.records import FieldFact, Filter, Object, Page, Record, Write
from crmbridge.core.secret import Secret
from crmbridge.core.wire import HttpRequest, HttpResponse, TransportFailure, TransportFault
from crmbridge.emulation import Emulator

__all__ = ["SupportTopic"]

_SEARCH_FIRST = ("email", "phone", "title", "name", "subject", "last_name")


class SupportTopic(Harness):
    """Each declared operation, each undeclared one."""

    @per_operation
    async def test_declared_operation_works(self, obj: Object, operation: Operation) -> None:
        bench = await self.make()
        trial = getattr(self, f"_try_{operation.value}", None)
        if trial is None:
            raise NotApplicable(f"{operation.value} gets its topic later")
        await trial(bench, obj)

    async def test_undeclared_operations_are_refused_before_a_request(self) -> None:
        manifest = self.manifest()
        seen = _CountingTransport()
        driver = self.driver(self._offline_access(seen))
        problems = []
        for obj in Object:
            for operation in Operation:
                if manifest.supports(obj, operation).is_usable or not _has_verb(obj, operation):
                    continue
                problem = await _refusal(driver, obj, operation)
                if problem:
                    problems.append(f"{obj.value}.{operation.value}: {problem}")
        expect(not problems, "; ".join(problems))
        expect(not seen.requests, f"{len(seen.requests)} requests left although nothing was declared")

    def _offline_access(self, transport: _CountingTransport) -> Access:
        emulator: Emulator | None = self.emulator() if self.emulator is not None else None
        texts = {**(emulator.secrets() if emulator else {}), **self.secrets}
        return Access(
            settings={**(emulator.settings() if emulator else {}), **self.settings},
            secrets={name: Secret(text) for name, text in texts.items()},
            transport=transport,
        )

    async def _try_describe(self, bench: Bench, obj: Object) -> None:
        facts = await bench.driver.describe(obj)
        expect(facts and all(isinstance(fact, FieldFact) and fact.path for fact in facts), "no field facts")

    async def _try_create(self, bench: Bench, obj: Object) -> None:
        result = await bench.create(obj)
        expect(result.outcome is Outcome.APPLIED, f"outcome {result.outcome.value}")
        if bench.has_emulator:
            expect(bench.emulator.written > 0, "the emulator committed nothing")

    async def _try_get(self, bench: Bench, obj: Object) -> None:
        made = await bench.create(obj)
        record = await bench.driver.get_record(obj, made.remote_id)
        expect(isinstance(record, Record) and record.object is obj, "get answered no record of the object")
        expect(record.remote_id == made.remote_id, "get answered another record")

    async def _try_list(self, bench: Bench, obj: Object) -> None:
        made = await bench.create(obj)
        await _pass_search_lag(bench, obj)
        page = await bench.driver.list_recent(obj)
        _expect_found(page, made.remote_id, "list")

    async def _try_search(self, bench: Bench, obj: Object) -> None:
        made = await bench.create(obj)
        await bench.create(obj, self.sample(obj, 7) | _other_texts(self.sample(obj)))
        await _pass_search_lag(bench, obj)
        slot = next((slot for slot in _SEARCH_FIRST if slot in self.sample(obj)), "")
        if not slot:
            raise NotApplicable("the sample has no slot to search by")
        mapped = self.map_for(obj).to_native({slot: self.sample(obj)[slot]}, partial=True).fields
        path = self.map_for(obj).native_path(slot)
        page = await bench.driver.search_records(obj, Filter(equals={path: _at(mapped, path)}))
        _expect_found(page, made.remote_id, "search")
        expect(len(page.records) == 1, f"search by {slot} found {len(page.records)} records, expected 1")
        none = await bench.driver.search_records(obj, Filter(equals={path: _nobody(slot)}))
        expect(not none.records and not none.next_cursor, "a search that matches nothing answered something")

    async def _try_lookup(self, bench: Bench, obj: Object) -> None:
        made = await bench.create(obj)
        await bench.create(obj, self.sample(obj, 7))
        await _pass_search_lag(bench, obj)
        sample = self.sample(obj)
        tried = {key: sample[key] for key in ("email", "phone") if sample.get(key)}
        expect(tried, "lookup is declared: the sample needs an email or a phone")
        for key, text in tried.items():
            found = await bench.driver.lookup_customer(**{key: text})
            ids = [record.remote_id for record in found]
            expect(ids == [made.remote_id], f"lookup by {key} found {len(ids)} customers, expected the one")
            none = await bench.driver.lookup_customer(**{key: _nobody(key)})
            expect(none == [], f"lookup of an unknown {key} found {len(none)} customers")

    async def _try_update(self, bench: Bench, obj: Object) -> None:
        made = await bench.create(obj)
        before = bench.emulator.written if bench.has_emulator else 0
        slot, value = self._changed(obj)
        result = await bench.update(obj, made.remote_id, {slot: value})
        expect(result.outcome is Outcome.APPLIED, f"outcome {result.outcome.value}")
        expect(result.remote_id in ("", made.remote_id), "update answered another id")
        if bench.has_emulator:
            expect(bench.emulator.written > before, "the emulator committed nothing")

    async def _try_upsert(self, bench: Bench, obj: Object) -> None:
        slot = next((slot for slot in _SEARCH_FIRST if slot in self.sample(obj)), "")
        expect(slot, "upsert is declared: the sample needs a slot to match by")
        write = await bench.write(Operation.UPSERT, obj, match=(slot,))
        result = await bench.send(write)
        expect(result.outcome is Outcome.APPLIED and result.remote_id, "the first upsert made no record")

    async def _try_delete(self, bench: Bench, obj: Object) -> None:
        made = await bench.create(obj)
        expect(
            isinstance(await bench.driver.delete_record(obj, made.remote_id), DeleteLevel),
            "delete answered no DeleteLevel",
        )

    async def _try_erase(self, bench: Bench, obj: Object) -> None:
        made = await bench.create(obj)
        expect(
            isinstance(await bench.driver.erase_record(obj, made.remote_id), DeleteLevel),
            "erase answered no DeleteLevel",
        )

    def _changed(self, obj: Object) -> tuple[str, Any]:
        texts = self.free_texts(obj)
        if texts:
            return texts[-1], f"{self.sample(obj)[texts[-1]]} (changed)"
        other = self.sample(obj, 9)
        changed = [slot for slot, value in self.sample(obj).items() if other[slot] != value]
        if not changed:
            raise NotApplicable("the sample has no slot that can take another value")
        return changed[0], other[changed[0]]


class _CountingTransport:
    """Answers nothing: whatever comes here should not have left."""

    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.requests.append(request)
        raise TransportFailure(TransportFault.CONNECT_FAILED, "no request was expected", was_sent=False)


def _has_verb(obj: Object, operation: Operation) -> bool:
    return operation is not Operation.LOOKUP or obj is Object.CUSTOMER


async def _refusal(driver: CrmDriver, obj: Object, operation: Operation) -> str:
    """What is wrong with the refusal of an operation that is not usable; empty when nothing is."""
    manifest = driver.manifest
    if manifest.why_unavailable:
        subcode = "driver_unavailable"
    elif obj not in manifest.objects:
        subcode = "object_unsupported"
    elif operation in (Operation.DELETE, Operation.ERASE):
        subcode = "delete_unsupported"
    else:
        subcode = "operation_unsupported"
    try:
        await _call(driver, obj, operation)
    except Unsupported as error:
        if error.subcode != subcode:
            return f"subcode {error.subcode!r}, expected {subcode!r}"
        return "" if error.outcome is Outcome.NOT_APPLIED else f"outcome {error.outcome.value}"
    except Exception as error:
        return f"raised {type(error).__name__}, expected Unsupported"
    return "was not refused"


def _call(driver: CrmDriver, obj: Object, operation: Operation) -> Awaitable[Any]:
    write = Write(target_id="t", operation=operation, object=obj, fields={"x": "y"}, remote_id="1")
    match operation:
        case Operation.DESCRIBE:
            return driver.describe(obj)
        case Operation.LOOKUP:
            return driver.lookup_customer(email="nobody@example.com")
        case Operation.SEARCH:
            return driver.search_records(obj, Filter(text="x"))
        case Operation.GET:
            return driver.get_record(obj, "1")
        case Operation.LIST:
            return driver.list_recent(obj)
        case Operation.CREATE:
            return driver.create_record(write)
        case Operation.UPDATE:
            return driver.update_record(write)
        case Operation.UPSERT:
            return driver.upsert_record(write)
        case Operation.DELETE:
            return driver.delete_record(obj, "1")
        case Operation.ERASE:
            return driver.erase_record(obj, "1")
        case Operation.CHANGES:
            return driver.changes(obj)


async def _pass_search_lag(bench: Bench, obj: Object) -> None:
    lag = bench.driver.manifest.objects[obj].idempotency.search_lag_seconds
    await bench.contract.wait(bench, lag)


def _expect_found(page: Page, remote_id: str, verb: str) -> None:
    ids = [record.remote_id for record in page.records]
    expect(remote_id in ids, f"{verb} did not find the record just created ({len(ids)} others)")


def _other_texts(sample: dict[str, Any]) -> dict[str, Any]:
    return {slot: f"Other {slot}" for slot in _SEARCH_FIRST[2:] if slot in sample}


def _nobody(slot: str) -> str:
    return {"email": "nobody.at.all@example.org", "phone": "+14155559876"}.get(slot, "Nobody at all 41")


def _at(tree: Any, path: str) -> Any:
    if isinstance(tree, dict) and path in tree:
        return tree[path]
    for part in path.split("."):
        tree = tree[int(part)] if isinstance(tree, list) else tree[part]
    return tree
