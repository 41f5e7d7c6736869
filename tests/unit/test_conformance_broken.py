"""The suite is tried on a small good driver and on broken variants: each fails its topic and no other."""

from __future__ import annotations

import logging
import re
import unittest
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import msgspec
import pytest
from tests.unit.specimen_driver import ACME, Acme, AcmeEmulator, spec

from crmbridge.conformance import DriverContract, LiveContract
from crmbridge.conformance.run import Report, Verdict, contract_for, run_contract_class
from crmbridge.core.driver import CrmDriver, Proof, refuse
from crmbridge.core.errors import (
    Conflict,
    CrmError,
    NotConfigured,
    NotFound,
    RateLimited,
)
from crmbridge.core.operations import NEVER, DeleteLevel, Operation, Outcome
from crmbridge.core.records import Object, Page, Record, Write, WriteResult
from crmbridge.core.wire import HttpRequest, HttpResponse, TransportFailure
from crmbridge.emulation import InProcessTransport


class SameNames:
    """A field map whose paths are the slots' own names."""

    def to_native(self, fields: Mapping[str, Any], *, partial: bool = False) -> Any:
        return SimpleNamespace(fields=dict(fields), related=[], errors=[], leftover={})

    def to_canonical(self, native: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in native.items() if name not in ("id", "updated_at")}

    def native_path(self, slot: str) -> str:
        return slot if slot in AcmeEmulator.FIELDS else ""


class TestAcme(DriverContract):
    """The good one, under pytest itself."""

    driver = Acme
    emulator = AcmeEmulator
    refused: ClassVar[dict[Object, dict[str, Any]]] = {
        Object.CUSTOMER: {"no_such_field": 1},
        Object.DEAL: {"no_such_field": 1},
    }

    def field_map(self, obj: Object) -> SameNames:
        return SameNames()


async def run(broken: type[CrmDriver] = Acme, **stated: Any) -> Report:
    contract = type("TestBroken", (TestAcme,), {"driver": broken, **stated})
    return await run_contract_class(contract)


class LosesAccents(Acme):
    async def create_record(self, write: Write) -> WriteResult:
        fields = {
            name: value.encode("ascii", "ignore").decode() if isinstance(value, str) else value
            for name, value in write.fields.items()
        }
        return await super().create_record(msgspec.structs.replace(write, fields=fields))


class RoundsMoney(Acme):
    def record(self, obj: Object, tree: Any, is_write: bool = False) -> Record:
        record = super().record(obj, tree, is_write)
        if "amount" in record.native:
            record.native["amount"] = round(float(record.native["amount"]), 0)
        return record


class KeepsValuesOnNone(Acme):
    async def update_record(self, write: Write) -> WriteResult:
        fields = {name: value for name, value in write.fields.items() if value is not None}
        return await super().update_record(msgspec.structs.replace(write, fields=fields))


class AnswersWhatItDoesNotDeclare(Acme):
    async def changes(self, obj: Object, cursor: str = "") -> tuple[list[Any], str]:
        return [], ""


class RefusesAfterTheCall(Acme):
    async def get_record(self, obj: Object, remote_id: str) -> Record:
        if obj not in self.manifest.objects:
            await self.access.transport.send(HttpRequest(method="GET", url="https://acme.emulator.test/x"))
        return await super().get_record(obj, remote_id)


class PreparesAnew(Acme):
    count = 0

    async def prepare(self) -> dict[str, str]:
        type(self).count += 1
        return {"prepared": str(self.count)}


class SkipsAfterAPage(Acme):
    def page(self, obj: Object, tree: Any) -> Page:
        page = super().page(obj, tree)
        if page.next_cursor:
            page.next_cursor = str(int(page.next_cursor) + 1)
        return page


class NeverEnds(Acme):
    def page(self, obj: Object, tree: Any) -> Page:
        page = super().page(obj, tree)
        if len(page.records) >= 3 and not page.next_cursor:
            page.next_cursor = "0"
        return page


class DeniesWhatItWrote(Acme):
    async def find_written(self, write: Write) -> WriteResult:
        return WriteResult(outcome=Outcome.NOT_APPLIED)


class SendsAgainWhenLooking(Acme):
    async def find_written(self, write: Write) -> WriteResult:
        try:
            return await self.create_record(write)
        except Conflict:
            return await super().find_written(write)


class CallsACutSafe(Acme):
    def transport_error(self, failure: TransportFailure, operation: Operation) -> CrmError:
        error = super().transport_error(failure, operation)
        error.retry_safe = True
        return error


class LetsDecodeErrorsThrough(Acme):
    def tree(self, response: HttpResponse, operation: Operation) -> Any:
        return response.json()


class CallsA500NotApplied(Acme):
    def status_error(
        self, status: int, headers: Mapping[str, str], operation: Operation, is_write: bool
    ) -> CrmError:
        return super().status_error(status, headers, operation, is_write=False)


class TakesAny403ForDown(Acme):
    def status_error(
        self, status: int, headers: Mapping[str, str], operation: Operation, is_write: bool
    ) -> CrmError:
        return super().status_error(503 if status == 403 else status, headers, operation, is_write)


class TrustsRemoteIds(Acme):
    def path(self, obj: Object, remote_id: str = "") -> str:
        return self.manifest.objects[obj].path + (f"/{remote_id}" if remote_id else "")

    async def get_record(self, obj: Object, remote_id: str) -> Record:
        self.check(obj, Operation.GET)
        if not re.fullmatch("[0-9]+", remote_id):
            return Record(object=obj, remote_id=remote_id)
        return await super().get_record(obj, remote_id)


class IgnoresRetryAfter(Acme):
    def retry_after(self, text: str) -> float | None:
        return None


class RepeatsAfter429(Acme):
    async def create_record(self, write: Write) -> WriteResult:
        try:
            return await super().create_record(write)
        except RateLimited:
            return await super().create_record(write)


class AnswersBackwards(Acme):
    async def write_batch(self, writes: Sequence[Write]) -> list[WriteResult]:
        return (await super().write_batch(writes))[::-1]


class OneSpoilsAll(Acme):
    async def write_batch(self, writes: Sequence[Write]) -> list[WriteResult]:
        results = await super().write_batch(writes)
        bad = next((result for result in results if result.error is not None), None)
        if bad is None or writes[0].operation is not Operation.CREATE:
            return results
        return [bad for _ in results]


class SendsABatchOneByOne(Acme):
    async def write_batch(self, writes: Sequence[Write]) -> list[WriteResult]:
        return await CrmDriver.write_batch(self, writes)


class RaisesForABatch(Acme):
    async def write_batch(self, writes: Sequence[Write]) -> list[WriteResult]:
        results = await super().write_batch(writes)
        if len(results) > 1 and all(result.error is not None for result in results):
            assert results[0].error is not None
            raise results[0].error
        return results


class ClaimsSoftForHard(Acme):
    async def delete_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        await super().delete_record(obj, remote_id)
        return DeleteLevel.SOFT

    async def erase_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        self.check(obj, Operation.ERASE)
        return await Acme.delete_record(self, obj, remote_id)


class DeletesTheMissing(Acme):
    async def delete_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        try:
            return await super().delete_record(obj, remote_id)
        except NotFound:
            return DeleteLevel.HARD

    async def erase_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        self.check(obj, Operation.ERASE)
        return await Acme.delete_record(self, obj, remote_id)


class ErasesNothing(Acme):
    async def erase_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        self.check(obj, Operation.ERASE)
        await self.get_record(obj, remote_id)
        return DeleteLevel.HARD


class LosesTheDeleted(Acme):
    async def delete_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        self.access.facts[remote_id] = "deleted"
        return await super().delete_record(obj, remote_id)

    async def erase_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        if self.access.facts.get(remote_id):
            raise refuse(self.manifest, obj, Operation.ERASE)
        return await Acme.delete_record(self, obj, remote_id)


class SharesItsToken(Acme):
    shared = ""

    async def create_record(self, write: Write) -> WriteResult:
        self.check(write.object, Operation.CREATE)
        cls = type(self)
        cls.shared = cls.shared or self.access.secrets["token"].open()
        return await super().create_record(write)

    async def write_batch(self, writes: Sequence[Write]) -> list[WriteResult]:
        if len(writes) == 1:
            return await CrmDriver.write_batch(self, writes)
        return await super().write_batch(writes)

    def credential(self) -> str:
        return self.shared or super().credential()

    async def test_connection(self) -> Proof:
        cls = type(self)
        kept, cls.shared = cls.shared, ""
        try:
            return await super().test_connection()
        finally:
            cls.shared = kept


class ShowsTheToken(Acme):
    def error(
        self, kind: type[CrmError], message: str, operation: Operation, is_unknown: bool, **more: Any
    ) -> CrmError:
        return super().error(kind, f"{message} for {self.credential()}", operation, is_unknown, **more)


class ShowsTheAnswer(Acme):
    async def exchange(self, *arguments: Any, **more: Any) -> Any:
        try:
            return await super().exchange(*arguments, **more)
        except CrmError as error:
            error.provider_facts["sent"] = str(more.get("json"))
            raise


class LogsWhatItSends(Acme):
    async def create_record(self, write: Write) -> WriteResult:
        logging.getLogger("acme").debug("sending %s", write.fields)
        return await super().create_record(write)


class LooksUpInTheUrl(Acme):
    async def lookup_customer(self, *, phone: str = "", email: str = "") -> list[Record]:
        await self.exchange("GET", "/contacts", Operation.LIST, query={"email": email, "phone": phone})
        return await super().lookup_customer(phone=phone, email=email)


NO_LINK = msgspec.structs.replace(
    ACME, objects={**ACME.objects, Object.DEAL: spec("deals", {Operation.UPSERT: NEVER("no upsert", "")})}
)


class LacksALink(Acme):
    MANIFEST = NO_LINK


class LacksALevel(Acme):
    MANIFEST = msgspec.structs.replace(
        ACME,
        settings=(ACME.settings[0], msgspec.structs.replace(ACME.settings[1], help="")),
    )


BROKEN: list[tuple[type[Acme], str, str]] = [
    (LacksALink, "manifest", "test_manifest_support_gives_reasons_and_links"),
    (LacksALevel, "manifest", "test_manifest_settings_are_explained"),
    (PreparesAnew, "connection", "test_prepare_twice"),
    (AnswersWhatItDoesNotDeclare, "support", "test_undeclared_operations"),
    (RefusesAfterTheCall, "support", "test_undeclared_operations"),
    (LosesAccents, "round_trip", "test_round_trip_keeps_any_text"),
    (RoundsMoney, "round_trip", "test_round_trip_keeps_money"),
    (KeepsValuesOnNone, "round_trip", "test_none_clears"),
    (SkipsAfterAPage, "paging", "test_list_pages"),
    (NeverEnds, "paging", "test_list_pages"),
    (DeniesWhatItWrote, "idempotency", "test_find_written_when_applied"),
    (SendsAgainWhenLooking, "idempotency", "test_find_written_when_never_sent"),
    (CallsACutSafe, "idempotency", "test_create_when_answer_lost"),
    (LetsDecodeErrorsThrough, "failures", "test_broken_json"),
    (CallsA500NotApplied, "failures", "test_500_on_a_write"),
    (TakesAny403ForDown, "failures", "test_403"),
    (TrustsRemoteIds, "failures", "test_remote_id_with_a_path"),
    (IgnoresRetryAfter, "limits", "test_limits_429_with_seconds"),
    (RepeatsAfter429, "limits", "test_limits_when_limited"),
    (AnswersBackwards, "batch", "test_batch_gives_one_outcome"),
    (OneSpoilsAll, "batch", "test_batch_when_one_is_bad"),
    (SendsABatchOneByOne, "batch", "test_batch_of_the_declared_size"),
    (RaisesForABatch, "batch", "test_batch_when_cut"),
    (ClaimsSoftForHard, "deletes", "test_delete_reaches"),
    (DeletesTheMissing, "deletes", "test_delete_of_a_missing"),
    (ErasesNothing, "erasure", "test_erase_reaches"),
    (LosesTheDeleted, "erasure", "test_erase_after_delete"),
    (SharesItsToken, "tenancy", "test_tenancy_when_two"),
    (ShowsTheToken, "secrecy", "test_secrecy_errors"),
    (ShowsTheAnswer, "secrecy", "test_secrecy_errors"),
    (LogsWhatItSends, "secrecy", "test_secrecy_errors"),
    (LooksUpInTheUrl, "secrecy", "test_secrecy_urls_of_reads"),
]


@pytest.mark.parametrize(("broken", "topic", "test"), BROKEN, ids=[row[0].__name__ for row in BROKEN])
async def test_suite_when_driver_is_broken_then_its_topic_fails(
    broken: type[Acme], topic: str, test: str
) -> None:
    report = await run(broken)
    failed = [result.name for result in report.results if result.verdict is Verdict.FAILED]
    assert report.failed_topics == {topic}, report.to_text()
    assert any(name.startswith(test) for name in failed), failed
    assert not report.is_kept


async def test_suite_when_driver_is_good_then_all_topics_pass() -> None:
    report = await run()
    assert report.is_kept, report.to_text()
    topics = report.topics()
    assert set(topics) == {topic for _, topic, _ in BROKEN}
    assert all(row["passed"] for row in topics.values())


async def test_gap_when_it_fails_then_reported_as_gap() -> None:
    gaps = {
        "test_none_clears_a_slot__customer": "provider: keeps it",
        "test_none_clears_a_slot__deal": "same",
    }
    report = await run(KeepsValuesOnNone, gaps=gaps)
    assert report.is_kept, report.to_text()
    assert report.topics()["round_trip"]["gap"] == 2


async def test_gap_when_it_passes_then_fails() -> None:
    report = await run(gaps={"test_none_clears_a_slot__deal": "provider: keeps it"})
    assert [r.name for r in report.results if r.verdict is Verdict.FAILED] == [
        "test_none_clears_a_slot__deal"
    ]


async def test_gap_when_it_names_no_test_then_fails() -> None:
    report = await run(gaps={"test_nothing_like_this": "typing error"})
    assert [r.name for r in report.results if r.verdict is Verdict.FAILED] == [
        "test_gaps_name_tests_and_give_reasons"
    ]


async def test_report_when_printed_then_names_topics_and_failures() -> None:
    report = await run(ErasesNothing)
    text = report.to_text()
    assert "erasure" in text and "failed test_erase_reaches_the_declared_level__customer" in text
    assert msgspec.json.decode(msgspec.json.encode(report.to_dict()))["topics"]["erasure"]["failed"] == 2


async def test_gap_under_pytest_when_it_fails_then_xfail() -> None:
    name = "test_none_clears_a_slot__deal"
    contract: Any = type("TestGap", (TestAcme,), {"driver": KeepsValuesOnNone, "gaps": {name: "keeps it"}})
    with pytest.raises(pytest.xfail.Exception, match="keeps it"):
        await getattr(contract(), name)()


async def test_gap_under_pytest_when_it_passes_then_fails() -> None:
    name = "test_none_clears_a_slot__deal"
    contract: Any = type("TestGap", (TestAcme,), {"gaps": {name: "keeps it"}})
    with pytest.raises(AssertionError, match="passes now"):
        await getattr(contract(), name)()


async def test_case_under_pytest_when_not_applicable_then_skipped_with_reason() -> None:
    contract: Any = type("TestBare", (TestAcme,), {"refused": {}})
    with pytest.raises(unittest.SkipTest, match="no refused field"):
        await contract().test_batch_when_one_is_bad_then_others_pass__deal()


def test_cases_when_expanded_then_templates_are_hidden_from_pytest() -> None:
    contract: Any = TestAcme
    assert contract.test_none_clears_a_slot is None
    assert callable(contract.test_none_clears_a_slot__customer)


async def test_live_contract_when_no_emulator_then_cleans_up_and_skips_faults() -> None:
    emulator = AcmeEmulator()

    class TestLive(LiveContract):
        driver = Acme
        live_settings: ClassVar[dict[str, str]] = emulator.settings()
        live_secrets: ClassVar[dict[str, str]] = emulator.secrets()

        def field_map(self, obj: Object) -> SameNames:
            return SameNames()

        def live_transport(self) -> InProcessTransport:
            return InProcessTransport(emulator)

    report = await run_contract_class(TestLive, target="live")
    assert report.is_kept, report.to_text()
    assert report.topics()["failures"]["skipped"] > 5
    assert report.topics()["round_trip"]["passed"] >= 14
    assert emulator.written > 0
    assert [len(table) for table in emulator.store.tables.values()] == [0, 0]
    assert report.left_behind == []


def test_contract_for_when_named_by_path_then_found() -> None:
    with pytest.raises(NotConfigured, match="cannot be loaded"):
        contract_for("crmbridge.nowhere:Driver")
    with pytest.raises(NotConfigured):
        contract_for("no_such_driver")
