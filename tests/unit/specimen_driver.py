"""A small good driver with its emulator: what the broken variants of test_conformance_broken vary."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar

import msgspec

from crmbridge.core.driver import CrmDriver, Proof, refuse
from crmbridge.core.errors import (
    AuthError,
    Conflict,
    CrmError,
    FieldError,
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
    LookUp,
    Manifest,
    ObjectSpec,
    Setting,
)
from crmbridge.core.operations import FULL, NEVER, DeleteLevel, Operation, Outcome, Support
from crmbridge.core.records import FieldFact, Filter, Object, Page, Record, Write, WriteResult
from crmbridge.core.wire import HttpRequest, HttpResponse, TransportFailure
from crmbridge.emulation import Emulator, Incoming, Row, route

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
        look_ups=dict.fromkeys(
            (Operation.UPDATE, Operation.UPSERT, Operation.DELETE, Operation.ERASE), LookUp.REPEAT
        ),
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
