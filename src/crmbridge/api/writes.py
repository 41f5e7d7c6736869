"""Accepted writes: where they are, and what a person may do with the ones that got stuck."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
from litestar import Controller, get, post

from crmbridge.api.authentication import Caller, object_named, require_admin, tenant_of
from crmbridge.api.bodies import CancelBody, DiscardBody, RedriveBody, ResendBody, StepBody
from crmbridge.api.parameters import FromPath, FromQuery, House, JSONBody, ObjectFilter, StateFilter, Who
from crmbridge.core.errors import FieldError, NotFound, ValidationError
from crmbridge.services import Services
from crmbridge.services.delivery.model import Event, Moved, TargetState, WriteFilter, WriteView
from crmbridge.services.tenants.model import Tenant

__all__ = ["WriteRoutes"]


class WriteRoutes(Controller):
    """Writes and their targets."""

    path = "/api/tenants/{tenant:str}/writes"
    tags = ("writes",)

    @get(summary="Writes, newest first, with counts per state")
    async def list_writes(
        self,
        services: House,
        who: Who,
        tenant: FromPath[str],
        state_filter: StateFilter = "",
        object_filter: ObjectFilter = "",
        import_id: FromQuery[UUID | None] = None,
        connection: FromQuery[str] = "",
        cursor: FromQuery[str] = "",
        limit: FromQuery[int] = 50,
    ) -> dict[str, Any]:
        found = await tenant_of(services, who, tenant)
        who.require("read")
        wanted = WriteFilter(
            state=_state(state_filter),
            object=object_filter,
            import_id=import_id,
            connection_id=await _connection(services, found, connection),
        )
        page = await services.delivery.list(found.id, wanted, cursor=cursor, limit=max(1, min(limit, 200)))
        answer: dict[str, Any] = msgspec.to_builtins(page)
        answer["counts"] = await services.delivery.counts(found.id, import_id=import_id)
        return answer

    @get("/{write_id:uuid}", summary="One write with its targets")
    async def read_write(
        self, services: House, who: Who, tenant: FromPath[str], write_id: FromPath[UUID]
    ) -> dict[str, Any]:
        found = await tenant_of(services, who, tenant)
        who.require("read")
        view: dict[str, Any] = msgspec.to_builtins(await services.delivery.read(found.id, write_id))
        return view

    @post(
        "/redrive", status_code=200, summary="Try all matching dead letters or parked writes again (operator)"
    )
    async def redrive_many(
        self, services: House, who: Who, tenant: FromPath[str], data: JSONBody[ResendBody]
    ) -> dict[str, Any]:
        event = Event.RESEND if data.without_looking else Event.REDRIVE
        moved = await _steer(services, who, tenant, event, data)
        return {"redriven": moved.moved, "left": moved.left, "until": moved.until}

    @post("/discard", status_code=200, summary="Give all that match up for good (operator)")
    async def discard_many(
        self, services: House, who: Who, tenant: FromPath[str], data: JSONBody[DiscardBody]
    ) -> dict[str, Any]:
        moved = await _steer(services, who, tenant, Event.DISCARD, data, data.reason)
        return {"discarded": moved.moved, "left": moved.left, "until": moved.until}

    @post("/cancel", status_code=200, summary="Take back all that match and still wait (operator)")
    async def cancel_many(
        self, services: House, who: Who, tenant: FromPath[str], data: JSONBody[CancelBody]
    ) -> dict[str, Any]:
        moved = await _steer(services, who, tenant, Event.CANCEL, data)
        return {"cancelled": moved.moved, "left": moved.left, "until": moved.until}

    @post(
        "/{write_id:uuid}/{step:str}",
        status_code=200,
        summary="redrive, cancel or discard one write, or its target on one connection (operator)",
        description="A redrive looks up what is parked before it sends it; without_looking=true sends it at once. "
        "The reason of a discard goes into the audit log.",
    )
    async def move(
        self,
        services: House,
        who: Who,
        tenant: FromPath[str],
        write_id: FromPath[UUID],
        step: FromPath[str],
        connection: FromQuery[str] = "",
        without_looking: FromQuery[bool] = False,
        data: JSONBody[StepBody | None] = None,
    ) -> dict[str, Any]:
        require_admin(who)
        found = await tenant_of(services, who, tenant)
        delivery = services.delivery
        steps: dict[str, Callable[..., Awaitable[WriteView]]] = {
            "redrive": partial(delivery.redrive, without_looking=without_looking),
            "cancel": delivery.cancel,
            "discard": partial(delivery.discard, reason=data.reason if data else ""),
        }
        if step not in steps:
            raise NotFound("There is no such step; use redrive, cancel or discard.")
        if without_looking and step != "redrive":
            raise ValidationError(
                "Only a redrive can go without a look-up.",
                fields=(FieldError("without_looking", f"has no meaning for {step}; leave it out"),),
            )
        if data and data.reason and step != "discard":
            raise ValidationError(
                "Only a discard has a reason.",
                fields=(FieldError("reason", f"has no meaning for {step}; leave it out"),),
            )
        moved = await steps[step](
            found.id,
            write_id,
            actor=who.actor,
            request_id=who.request_id,
            connection_id=await _connection(services, found, connection),
        )
        view: dict[str, Any] = msgspec.to_builtins(moved)
        return view


async def _steer(
    services: Services,
    who: Caller,
    tenant: str,
    event: Event,
    data: RedriveBody | CancelBody,
    reason: str = "",
) -> Moved:
    require_admin(who)
    found = await tenant_of(services, who, tenant)
    if data.object:
        object_named(data.object)
    wanted = WriteFilter(
        state=_state(data.state),
        object=data.object,
        import_id=data.import_id,
        connection_id=await _connection(services, found, data.connection),
        since=data.since,
        code=data.code,
    )
    return await services.delivery.steer_many(
        found.id,
        event,
        wanted,
        actor=who.actor,
        reason=reason,
        request_id=who.request_id,
        limit=data.limit,
        until=data.until,
    )


async def _connection(services: Services, tenant: Tenant, name: str) -> UUID | None:
    return await services.connections.routing.find(tenant.id, name) if name else None


def _state(text: str) -> TargetState | None:
    if not text:
        return None
    try:
        return TargetState(text)
    except ValueError:
        known = ", ".join(TargetState)
        raise ValidationError(
            "There is no such state.", fields=(FieldError("state", f"must be one of {known}"),)
        ) from None
