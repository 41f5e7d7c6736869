"""Records: write, read, search, look up, bulk."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, patch, post

from crmbridge.api.authentication import Caller, object_named, tenant_of
from crmbridge.api.bodies import (
    BatchBody,
    BatchItem,
    ImportBody,
    LookupBody,
    PatchBody,
    RecordBody,
    SearchBody,
)
from crmbridge.api.parameters import FromPath, FromQuery, House, IdempotencyKey, JSONBody, Prefer, Who
from crmbridge.api.waiting import answer_accepted, idempotency_key_of, record_intent, seconds_to_wait
from crmbridge.core.errors import CrmError, FieldError, ValidationError
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object, Record
from crmbridge.services import Services
from crmbridge.services.connections.model import Intent
from crmbridge.services.delivery.model import NewWrite
from crmbridge.services.tenants.model import Tenant

__all__ = ["ImportRoutes", "RecordRoutes"]

MOST_BATCHED = 500


async def _write(
    services: Services,
    who: Caller,
    tenant: Tenant,
    intent: Intent,
    *,
    mode: str,
    key: str,
    prefer: str,
    connection: str,
    import_id: UUID | None = None,
) -> Response[Any]:
    if mode == "plan":
        first, *others = await services.delivery.reading.plan(tenant, intent, connection)
        plan: dict[str, Any] = {"driver": first.driver, "payload": first.payload}
        if others:
            plan["also"] = msgspec.to_builtins(others)
        return Response(plan, status_code=200)
    seconds = seconds_to_wait(prefer)
    accepted = await services.delivery.accept(
        who.actor,
        tenant,
        intent,
        idempotency_key=key,
        request_id=who.request_id,
        import_id=import_id,
        wait_seconds=seconds,
        connections=(connection,) if connection else (),
    )
    return answer_accepted(accepted, intent.operation, seconds > 0, who.request_id)


class RecordRoutes(Controller):
    """The record API: what agents call."""

    path = "/api/tenants/{tenant:str}"
    tags = ("records",)

    @post("/records/{object_name:str}", status_code=202, summary="Create or upsert one record")
    async def create(
        self,
        services: House,
        who: Who,
        tenant: FromPath[str],
        object_name: FromPath[str],
        data: JSONBody[RecordBody],
        idempotency_key: IdempotencyKey = "",
        prefer: Prefer = "",
        connection: FromQuery[str] = "",
    ) -> Response[Any]:
        obj = object_named(object_name)
        found = await tenant_of(services, who, tenant)
        who.require(f"write:{obj.value}")
        key = idempotency_key_of(idempotency_key, data.idempotency_key)
        return await _write(
            services,
            who,
            found,
            record_intent(obj, data),
            mode=data.mode,
            key=key,
            prefer=prefer,
            connection=connection,
            import_id=data.import_id,
        )

    @patch("/records/{object_name:str}/{remote_id:str}", status_code=202, summary="Change one record")
    async def update(
        self,
        services: House,
        who: Who,
        tenant: FromPath[str],
        object_name: FromPath[str],
        remote_id: FromPath[str],
        data: JSONBody[PatchBody],
        idempotency_key: IdempotencyKey = "",
        prefer: Prefer = "",
        connection: FromQuery[str] = "",
    ) -> Response[Any]:
        obj = object_named(object_name)
        found = await tenant_of(services, who, tenant)
        who.require(f"write:{obj.value}")
        intent = Intent(
            object=obj,
            operation=Operation.UPDATE,
            fields=data.fields,
            links=data.links,
            provider_extra=data.provider_extra,
            remote_id=remote_id,
        )
        key = idempotency_key_of(idempotency_key, data.idempotency_key)
        return await _write(
            services, who, found, intent, mode=data.mode, key=key, prefer=prefer, connection=connection
        )

    @delete("/records/{object_name:str}/{remote_id:str}", status_code=202, summary="Delete one record")
    async def remove(
        self,
        services: House,
        who: Who,
        tenant: FromPath[str],
        object_name: FromPath[str],
        remote_id: FromPath[str],
        idempotency_key: IdempotencyKey = "",
        prefer: Prefer = "",
        connection: FromQuery[str] = "",
    ) -> Response[Any]:
        obj = object_named(object_name)
        found = await tenant_of(services, who, tenant)
        who.require("delete")
        intent = Intent(object=obj, operation=Operation.DELETE, remote_id=remote_id)
        return await _write(
            services,
            who,
            found,
            intent,
            mode="apply",
            key=idempotency_key,
            prefer=prefer,
            connection=connection,
        )

    @get("/records/{object_name:str}/{remote_id:str}", summary="One record, with its slots filled")
    async def read(
        self,
        services: House,
        who: Who,
        tenant: FromPath[str],
        object_name: FromPath[str],
        remote_id: FromPath[str],
        connection: FromQuery[str] = "",
    ) -> Record:
        obj = object_named(object_name)
        found = await tenant_of(services, who, tenant)
        who.require("read")
        opened = await services.connections.routing.open(found.id, obj, connection)
        return await opened.get(obj, remote_id, actor=who.actor, request_id=who.request_id)

    @get("/records/{object_name:str}", summary="Records by last change, newest first")
    async def list_recent(
        self,
        services: House,
        who: Who,
        tenant: FromPath[str],
        object_name: FromPath[str],
        since: FromQuery[str] = "",
        cursor: FromQuery[str] = "",
        limit: FromQuery[int] = 50,
        connection: FromQuery[str] = "",
    ) -> dict[str, Any]:
        obj = object_named(object_name)
        found = await tenant_of(services, who, tenant)
        who.require("read")
        opened = await services.connections.routing.open(found.id, obj, connection)
        page = await opened.list_recent(
            obj, since=since, cursor=cursor, limit=_limit(limit), actor=who.actor, request_id=who.request_id
        )
        return {"records": page.records, "next_cursor": page.next_cursor}

    @post(
        "/records/{object_name:str}/search",
        status_code=200,
        summary="Records whose slots equal the given values",
    )
    async def search(
        self,
        services: House,
        who: Who,
        tenant: FromPath[str],
        object_name: FromPath[str],
        data: JSONBody[SearchBody],
        connection: FromQuery[str] = "",
    ) -> dict[str, Any]:
        obj = object_named(object_name)
        found = await tenant_of(services, who, tenant)
        who.require("read")
        if not data.equals and not data.text:
            problem = FieldError(
                "equals", "needs at least one slot, or give text; to list all, GET the records"
            )
            raise ValidationError("The search is empty.", fields=(problem,))
        opened = await services.connections.routing.open(found.id, obj, connection)
        page = await opened.search(
            obj,
            data.equals,
            text=data.text,
            cursor=data.cursor,
            limit=_limit(data.limit),
            actor=who.actor,
            request_id=who.request_id,
        )
        return {"records": page.records, "next_cursor": page.next_cursor}

    @post("/lookup", status_code=200, summary="A customer by phone or e-mail")
    async def lookup(
        self,
        services: House,
        who: Who,
        tenant: FromPath[str],
        data: JSONBody[LookupBody],
        connection: FromQuery[str] = "",
    ) -> dict[str, Any]:
        found = await tenant_of(services, who, tenant)
        who.require("read")
        if not data.phone and not data.email:
            problem = FieldError("phone", "give phone or email")
            raise ValidationError("There is nothing to look up.", fields=(problem,))
        opened = await services.connections.routing.open(found.id, Object.CUSTOMER, connection)
        records = await opened.lookup(
            phone=data.phone, email=data.email, actor=who.actor, request_id=who.request_id
        )
        return {"records": records}

    @post("/records/{object_name:str}/batch", status_code=200, summary="Up to 500 writes, an answer each")
    async def batch(
        self,
        services: House,
        who: Who,
        tenant: FromPath[str],
        object_name: FromPath[str],
        data: JSONBody[BatchBody],
        connection: FromQuery[str] = "",
    ) -> dict[str, Any]:
        obj = object_named(object_name)
        found = await tenant_of(services, who, tenant)
        who.require(f"write:{obj.value}")
        if any(item.operation == "delete" for item in data.writes):
            who.require("delete")
        if not 1 <= len(data.writes) <= MOST_BATCHED:
            problem = FieldError("writes", f"holds {len(data.writes)} writes; send 1 to {MOST_BATCHED}")
            raise ValidationError("The batch has a wrong size.", fields=(problem,))
        items = [
            NewWrite(intent=_intent(obj, item), idempotency_key=item.idempotency_key) for item in data.writes
        ]
        answers = await services.delivery.accept_many(
            who.actor,
            found,
            items,
            source="import" if data.import_id else "api",
            priority=1 if data.import_id else 0,
            request_id=who.request_id,
            import_id=data.import_id,
            connections=(connection,) if connection else (),
        )
        return {"results": [_batch_answer(answer) for answer in answers]}


def _limit(wanted: int) -> int:
    if not 1 <= wanted <= 200:
        raise ValidationError("The limit is out of range.", fields=(FieldError("limit", "must be 1 to 200"),))
    return wanted


def _intent(obj: Object, item: BatchItem) -> Intent:
    operation = Operation(item.operation)
    if item.match and operation is Operation.CREATE:
        operation = Operation.UPSERT
    return Intent(
        object=obj,
        operation=operation,
        fields=item.fields,
        links=item.links,
        match=item.match,
        provider_extra=item.provider_extra,
        remote_id=item.remote_id,
    )


def _batch_answer(answer: Any) -> dict[str, Any]:
    if isinstance(answer, CrmError):
        return {"error": answer.to_dict()}
    return {
        "write_id": str(answer.write_id),
        "replayed": answer.replayed,
        "targets": msgspec.to_builtins(answer.targets),
    }


class ImportRoutes(Controller):
    """Bulk loads: an id that groups writes."""

    path = "/api/tenants/{tenant:str}/imports"
    tags = ("records",)

    @post(summary="Begin a bulk load; its writes yield to live ones")
    async def begin(
        self, services: House, who: Who, tenant: FromPath[str], data: JSONBody[ImportBody]
    ) -> dict[str, str]:
        obj = object_named(data.object)
        found = await tenant_of(services, who, tenant)
        who.require(f"write:{obj.value}")
        import_id = await services.delivery.add_import(who.actor, found, obj)
        return {"id": str(import_id)}
