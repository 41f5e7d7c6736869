"""The suite is tried on a small good driver and on broken variants: each fails its topic and no other."""

from __future__ import annotations

import logging
import re
import unittest
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Any, ClassVar

import msgspec
import pytest

from crmbridge.conformance import DriverContract, LiveContract
from crmbridge.conformance.run import Report, Verdict, contract_for, run_contract_class
from crmbridge.core.driver import CrmDriver, Proof, refuse
from crmbridge.core.errors import (
    AuthError,
    Conflict,
    CrmError,
    FieldError,
    NotConfigured,
    NotFound,
    RateLimited,
    Unavailable,
    UnexpectedResponse,
    ValidationError,
)
from crmbridge.core.manifest import (
    Auth,
    AuthKind,
    Idempotency,
    IdempotencyKind,
    Manifest,
    ObjectSpec,
    Setting,
)
from crmbridge.core.operations import FULL, NEVER, DeleteLevel, Operation, Outcome, Support
from crmbridge.core.records import FieldFact, Filter, Object, Page, Record, Write, WriteResult
from crmbridge.core.wire import HttpRequest, HttpResponse, TransportFailure
from crmbridge.emulation import Emulator, Incoming, InProcessTransport, Row, route

PAGE = "https://acme.example/api"
ALL = dict.fromkeys(
    (
        Operation.GET,
        Operation.LIST,
        Operation.SEARCH,
        Operation.CREATE,
        Operation.UPDATE,
        Operation.DELETE,
        Operation.ERASE,
        Operation.DESCRIBE,
    ),
    FULL,
)
MARK = Idempotency(kind=IdempotencyKind.EXTERNAL_ID, field="external_id")


def spec(native: str, more: dict[Operation, Support] | None = None) -> ObjectSpec:
    never = {Operation.CHANGES: NEVER("no change feed", PAGE)}
    return ObjectSpec(
        native=native,
        path=f"/{native}",
        operations=ALL | (more or {}) | never,
        batch={Operation.CREATE: 10},
        delete_level=DeleteLevel.HARD,
        erase_level=DeleteLevel.HARD,
        idempotency=MARK,
    )


ACME = Manifest(
    slug="acme",
    display_name="Acme",
    api_version="1",
    pages=(PAGE,),
    read_on="2026-11-22",
    auth=Auth(kind=AuthKind.BEARER, secret="token"),
    settings=(
        Setting(name="url", label="Address", help="Where your Acme is."),
        Setting(name="token", label="Token", help="Made under Settings.", is_secret=True),
    ),
    base_url="{url}",
    objects={
        Object.CUSTOMER: spec("contacts", {Operation.LOOKUP: FULL, Operation.UPSERT: FULL}),
        Object.DEAL: spec("deals"),
    },
)


class AcmeEmulator(Emulator):
    slug = "acme"
    FIELDS: ClassVar[set[str]] = {
        *("first_name", "last_name", "email", "phone", "notes", "birth_date", "external_id"),
        *("name", "amount", "close_date", "description"),
    }

    def seed(self) -> None:
        for name in ("contacts", "deals"):
            self.store.numbered(name).index("external_id")

    def settings(self) -> dict[str, str]:
        return {"url": self.base_url}

    def secrets(self) -> dict[str, str]:
        return {"token": self.secret("token")}

    def authenticate(self, call: Incoming) -> HttpResponse | None:
        if call.headers.get("authorization") == f"Bearer {self.secret('token')}":
            return None
        return self.answer({"code": "unauthorized"}, 401)

    def is_write(self, call: Incoming, made: Any) -> bool:
        return bool(made.writes and not call.path.endswith("/search"))

    @route("GET", "/me", operation="me")
    def me(self, call: Incoming) -> HttpResponse:
        return self.answer({"user": "demo"})

    @route("POST", "/{table}", operation="{table}.create")
    def create(self, call: Incoming) -> HttpResponse:
        status, tree = self._create(call.params["table"], call.json)
        return self.answer(tree, status)

    @route("POST", "/{table}/batch", operation="{table}.batch")
    def batch(self, call: Incoming) -> HttpResponse:
        made = [self._create(call.params["table"], fields) for fields in call.json]
        return self.answer([{"status": status, **tree} for status, tree in made])

    @route("POST", "/{table}/search", operation="{table}.search")
    def search(self, call: Incoming) -> HttpResponse:
        wanted = call.json["equals"]
        rows = self.store.numbered(call.params["table"]).search(
            lambda fields: all(fields.get(name) == value for name, value in wanted.items())
        )
        return self._page(rows, int(call.json["offset"]), int(call.json["limit"]))

    @route("GET", "/{table}", operation="{table}.list")
    def list_rows(self, call: Incoming) -> HttpResponse:
        since = call.first("since")
        rows = [
            row
            for row in self.store.numbered(call.params["table"])
            if not since or row.updated_at >= datetime.fromisoformat(since)
        ]
        rows.sort(key=lambda row: (row.updated_at, row.id), reverse=True)
        return self._page(rows, int(call.first("offset", "0")), int(call.first("limit", "50")))

    @route("GET", "/{table}/{id}", operation="{table}.get")
    def get_row(self, call: Incoming) -> HttpResponse:
        row = self._row(call)
        return self.answer(self._shown(row)) if row else self.answer({"code": "missing"}, 404)

    @route("PATCH", "/{table}/{id}", operation="{table}.update")
    def patch(self, call: Incoming) -> HttpResponse:
        row = self._row(call)
        if row is None:
            return self.answer({"code": "missing"}, 404)
        self.store.numbered(call.params["table"]).update(row.id, call.json)
        return self.answer(self._shown(row))

    @route("DELETE", "/{table}/{id}", operation="{table}.delete")
    def remove(self, call: Incoming) -> HttpResponse:
        row = self._row(call)
        if row is None:
            return self.answer({"code": "missing"}, 404)
        self.store.numbered(call.params["table"]).remove(row.id)
        return HttpResponse(status=204)

    def _create(self, name: str, fields: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        table = self.store.numbered(name)
        if unknown := sorted(fields.keys() - self.FIELDS):
            return 422, {"code": "invalid", "field": unknown[0]}
        if found := table.find("external_id", fields.get("external_id")):
            return 409, {"code": "exists", "id": found[0].id}
        return 201, self._shown(table.insert(fields))

    def _row(self, call: Incoming) -> Row[int] | None:
        text = call.params["id"]
        return self.store.numbered(call.params["table"]).get(int(text)) if text.isdigit() else None

    def _shown(self, row: Row[int]) -> dict[str, Any]:
        return {"id": row.id, "updated_at": row.updated_at, **row.fields}

    def _page(self, rows: Sequence[Row[int]], offset: int, limit: int) -> HttpResponse:
        following = offset + limit if len(rows) > offset + limit else None
        return self.answer(
            {"items": [self._shown(row) for row in rows[offset : offset + limit]], "next": following}
        )


class Acme(CrmDriver):
    """A good driver, written out; every broken one below changes one thing of it."""

    MANIFEST = ACME

    async def test_connection(self) -> Proof:
        tree = await self.exchange("GET", "/me", operation=Operation.GET)
        return Proof(account=str(tree["user"]), facts={"user": str(tree["user"])})

    async def describe(self, obj: Object) -> list[FieldFact]:
        self.check(obj, Operation.DESCRIBE)
        return [FieldFact(path=name) for name in ("first_name", "email")]

    async def get_record(self, obj: Object, remote_id: str) -> Record:
        self.check(obj, Operation.GET)
        return self.record(
            obj, await self.exchange("GET", self.path(obj, remote_id), operation=Operation.GET)
        )

    async def list_recent(self, obj: Object, *, since: str = "", cursor: str = "", limit: int = 50) -> Page:
        self.check(obj, Operation.LIST)
        query = {"limit": limit, "offset": cursor or "0", **({"since": since} if since else {})}
        return self.page(obj, await self.exchange("GET", self.path(obj), Operation.LIST, query=query))

    async def search_records(self, obj: Object, filter: Filter, cursor: str = "") -> Page:
        self.check(obj, Operation.SEARCH)
        tree = {"equals": filter.equals, "limit": filter.limit, "offset": int(cursor or 0)}
        return self.page(
            obj, await self.exchange("POST", self.path(obj) + "/search", Operation.SEARCH, json=tree)
        )

    async def lookup_customer(self, *, phone: str = "", email: str = "") -> list[Record]:
        equals = {"email": email} if email else {"phone": phone}
        return (await self.search_records(Object.CUSTOMER, Filter(equals=equals))).records

    async def create_record(self, write: Write) -> WriteResult:
        self.check(write.object, Operation.CREATE)
        fields = {**write.fields, "external_id": write.target_id}
        tree = await self.exchange("POST", self.path(write.object), Operation.CREATE, json=fields)
        return WriteResult(outcome=Outcome.APPLIED, remote_id=self.record(write.object, tree, True).remote_id)

    async def update_record(self, write: Write) -> WriteResult:
        self.check(write.object, Operation.UPDATE)
        path = self.path(write.object, write.remote_id)
        tree = await self.exchange("PATCH", path, Operation.UPDATE, json=write.fields)
        return WriteResult(outcome=Outcome.APPLIED, remote_id=self.record(write.object, tree, True).remote_id)

    async def upsert_record(self, write: Write) -> WriteResult:
        self.check(write.object, Operation.UPSERT)
        found = (await self.search_records(write.object, Filter(equals=write.match))).records
        if found:
            result = await self.update_record(msgspec.structs.replace(write, remote_id=found[0].remote_id))
            return msgspec.structs.replace(result, was_created=False)
        return msgspec.structs.replace(await self.create_record(write), was_created=True)

    async def delete_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        self.check(obj, Operation.DELETE)
        await self.exchange("DELETE", self.path(obj, remote_id), Operation.DELETE)
        return DeleteLevel.HARD

    async def erase_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        self.check(obj, Operation.ERASE)
        return await self.delete_record(obj, remote_id)

    async def write_batch(self, writes: Sequence[Write]) -> list[WriteResult]:
        if writes[0].operation is not Operation.CREATE:
            return await super().write_batch(writes)
        sent = [{**write.fields, "external_id": write.target_id} for write in writes]
        try:
            path = self.path(writes[0].object) + "/batch"
            answers = await self.exchange("POST", path, Operation.CREATE, json=sent)
        except CrmError as error:
            return [WriteResult(outcome=error.outcome, error=error) for _ in writes]
        return [self.result(answer) for answer in answers]

    async def find_written(self, write: Write) -> WriteResult:
        found = await self.search_records(write.object, Filter(equals={"external_id": write.target_id}))
        if not found.records:
            return WriteResult(outcome=Outcome.NOT_APPLIED)
        return WriteResult(outcome=Outcome.APPLIED, remote_id=found.records[0].remote_id)

    # Bricks.

    def check(self, obj: Object, operation: Operation) -> None:
        if not self.manifest.supports(obj, operation).is_usable:
            raise refuse(self.manifest, obj, operation)

    def path(self, obj: Object, remote_id: str = "") -> str:
        if remote_id and not re.fullmatch(self.manifest.strict_ids, remote_id):
            raise ValidationError("not an id", fields=(FieldError("remote_id", "not an id"),))
        return self.manifest.objects[obj].path + (f"/{remote_id}" if remote_id else "")

    def record(self, obj: Object, tree: Any, is_write: bool = False) -> Record:
        if not isinstance(tree, dict) or "id" not in tree:
            raise self.error(UnexpectedResponse, "no record", Operation.GET, is_write)
        return Record(object=obj, remote_id=str(tree["id"]), native=tree, updated_at=tree["updated_at"])

    def page(self, obj: Object, tree: Any) -> Page:
        if not isinstance(tree, dict) or "items" not in tree:
            raise self.error(UnexpectedResponse, "no list", Operation.LIST, False)
        following = tree["next"]
        return Page(
            records=[self.record(obj, each) for each in tree["items"]],
            next_cursor="" if following is None else str(following),
        )

    def result(self, answer: dict[str, Any]) -> WriteResult:
        if answer["status"] == 201:
            return WriteResult(outcome=Outcome.APPLIED, remote_id=str(answer["id"]))
        error = self.status_error(answer["status"], {}, Operation.CREATE, is_write=True)
        return WriteResult(outcome=error.outcome, error=error)

    def credential(self) -> str:
        return self.access.secrets["token"].open()

    async def exchange(
        self, method: str, path: str, operation: Operation, query: Any = None, json: Any = msgspec.UNSET
    ) -> Any:
        request = HttpRequest(
            method=method,
            url=self.access.settings["url"] + path,
            query=query or {},
            headers={"Authorization": f"Bearer {self.credential()}"},
            json=json,
        )
        try:
            response = await self.access.transport.send(request)
        except TransportFailure as failure:
            raise self.transport_error(failure, operation) from None
        if response.status >= 400:
            raise self.status_error(response.status, response.headers, operation, operation.is_write)
        if response.status == 204:
            return None
        return self.tree(response, operation)

    def tree(self, response: HttpResponse, operation: Operation) -> Any:
        try:
            if response.is_json:
                return response.json()
        except msgspec.DecodeError:
            pass
        raise self.error(UnexpectedResponse, "not JSON", operation, operation.is_write)

    def transport_error(self, failure: TransportFailure, operation: Operation) -> CrmError:
        is_unknown = failure.was_sent and operation.is_write
        return self.error(Unavailable, "no answer", operation, is_unknown, retry_safe=not failure.was_sent)

    def status_error(
        self, status: int, headers: Mapping[str, str], operation: Operation, is_write: bool
    ) -> CrmError:
        kinds = {401: AuthError, 403: AuthError, 404: NotFound, 409: Conflict, 422: ValidationError}
        kinds |= {400: ValidationError, 429: RateLimited}
        kind = kinds.get(status, Unavailable)
        more: dict[str, Any] = {"provider_facts": {"http_status": status}}
        if status == 429:
            more["retry_after_seconds"] = self.retry_after(headers.get("retry-after", ""))
        return self.error(kind, f"Acme answered {status}", operation, status >= 500 and is_write, **more)

    def retry_after(self, text: str) -> float | None:
        if not text or text.isdigit():
            return float(text) if text else None
        return (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()

    def error(
        self, kind: type[CrmError], message: str, operation: Operation, is_unknown: bool, **more: Any
    ) -> CrmError:
        return kind(
            message,
            provider="acme",
            operation=operation.value,
            outcome=Outcome.UNKNOWN if is_unknown else Outcome.NOT_APPLIED,
            **more,
        )


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
