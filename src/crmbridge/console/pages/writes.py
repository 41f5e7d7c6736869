"""Writes: search, one write with its tries, and the steps for those that got stuck."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from crmbridge.console.visit import Page, Visit, link
from crmbridge.core.errors import CrmError, FieldError, NotFound, ValidationError
from crmbridge.core.records import Object
from crmbridge.services.connections.model import ConnectionSummary
from crmbridge.services.connections.routing.table import unknown
from crmbridge.services.delivery.model import (
    TRANSITIONS,
    Event,
    TargetState,
    TargetView,
    WriteFilter,
    WriteView,
)
from crmbridge.services.tenants.model import Tenant

__all__ = [
    "confirm_redrive_all",
    "confirm_step",
    "find",
    "list_writes",
    "moment_of",
    "redrive_all",
    "show",
    "show_content",
    "take_step",
]

_PER_PAGE = 50
_REDRIVEN = (TargetState.DEAD_LETTER, TargetState.PARKED)
_STEPS = {
    "redrive": (
        Event.REDRIVE,
        "Send this write again?",
        "Send again",
        [
            "Its targets that are parked or dead letters are tried again now, with the same mark.",
            "What is parked is looked up in the CRM first: found, it is applied; surely not there, it is sent; "
            "where that cannot be told it is parked again.",
        ],
    ),
    "discard": (
        Event.DISCARD,
        "Give this write up?",
        "Discard write",
        [
            "It will never reach the CRM. This cannot be undone.",
            "Its content is then deleted on schedule; the audit log keeps that you discarded it, and your reason.",
        ],
    ),
    "cancel": (
        Event.CANCEL,
        "Take this write back?",
        "Cancel write",
        [
            "Targets that have not been sent will not be. This cannot be undone.",
            "What is being sent at this moment goes on.",
        ],
    ),
}


_WITHOUT_LOOKING = {
    "name": "without_looking",
    "label": "Send again without looking",
    "warning": "For what the look-up cannot tell, when you have looked in the CRM yourself. "
    "A parked write that did reach the CRM will be there twice.",
}


def moment_of(field: str, text: str) -> datetime | None:
    """A time of a form, in UTC; a day alone is its beginning. Raises ValidationError."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        message = "must be a day or a time, as 2026-11-23 or 2026-11-23T10:30"
        raise ValidationError(f"{field} {message}.", fields=(FieldError(field, message),)) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _one_of(field: str, text: str, known: list[str]) -> str:
    if text and text not in known:
        raise ValidationError(
            f"There is no {field} {text[:40]!r}.", fields=(FieldError(field, "is unknown"),)
        )
    return text


_FILTERS = ("state", "object", "connection", "since")


def _chosen(summaries: list[ConnectionSummary], name: str) -> UUID | None:
    """The id of a connection; None for all. Raises NotFound, naming those there are."""
    if not name:
        return None
    for summary in summaries:
        if summary.name == name:
            return summary.id
    raise unknown(name, [each.name for each in summaries])


def _wanted(values: Any, summaries: list[ConnectionSummary]) -> WriteFilter:
    state = _one_of("state", values.get("state", ""), list(TargetState))
    return WriteFilter(
        state=TargetState(state) if state else None,
        object=_one_of("object", values.get("object", ""), list(Object)),
        connection_id=_chosen(summaries, values.get("connection", "")),
        since=moment_of("since", values.get("since", "")),
    )


async def find(visit: Visit) -> Page:
    """Writes belong to a tenant: name it, and the write if you know it."""
    slug = visit.query.get("tenant", "")
    if slug:
        tenant = await visit.tenant_named(slug)
        write_id = _as_id(visit.query.get("write", ""))
        path = f"/admin/tenants/{tenant.slug}/writes"
        return visit.go(f"{path}/{write_id}" if write_id else path)
    tenants = await visit.services.tenants.list(limit=200)
    return visit.page("writes_find.html", tenants=tenants)


def _as_id(text: str) -> UUID | None:
    if not text:
        return None
    try:
        return UUID(text)
    except ValueError:
        message = "must be the id of a write"
        raise ValidationError(f"write {message}.", fields=(FieldError("write", message),)) from None


async def list_writes(visit: Visit) -> Page:
    """Newest first, by state, object, connection and time."""
    tenant, query = await visit.tenant(), visit.query
    summaries = await visit.services.connections.summaries(tenant.id)
    wanted = _wanted(query, summaries)
    page = await visit.services.delivery.list(
        tenant.id, wanted, cursor=query.get("cursor", ""), limit=_PER_PAGE
    )
    path = f"/admin/tenants/{tenant.slug}/writes"
    chosen = {name: query.get(name, "") for name in _FILTERS}
    return visit.page(
        "writes.html",
        tenant=tenant,
        writes=page.writes,
        counts=await visit.services.delivery.counts(tenant.id),
        chosen=chosen,
        states=list(TargetState),
        objects=list(Object),
        connections=[each.name for each in summaries],
        next_path=link(path, **chosen, cursor=page.next_cursor) if page.next_cursor else "",
        redrive_path=link(f"{path}/redrive", **chosen) if wanted.state in _REDRIVEN else "",
        is_later=bool(query.get("cursor")),
    )


async def show(visit: Visit) -> Page:
    """One write: where each target stands, why, and what was tried."""
    tenant = await visit.tenant()
    return await _write_page(visit, tenant, None)


async def show_content(visit: Visit) -> Page:
    """The same with its content opened; the look is audited."""
    tenant = await visit.tenant()
    content = await visit.services.delivery.reading.content(
        tenant, visit.parameters["write"], actor=visit.actor, request_id=visit.request_id
    )
    return await _write_page(visit, tenant, content)


async def _write_page(visit: Visit, tenant: Tenant, content: Any) -> Page:
    services = visit.services
    write: WriteView = await services.delivery.read(tenant.id, visit.parameters["write"])
    summaries = await services.connections.summaries(tenant.id)
    return visit.page(
        "write.html",
        tenant=tenant,
        write=write,
        paused={each.id for each in summaries if each.is_paused},
        attempts=await services.delivery.reading.attempts(tenant.id, write.id),
        content=content,
        steps=_steps_of(write.targets, least=min(2, len(write.targets))),
        steps_of=lambda target: _steps_of([target]),
    )


def _steps_of(targets: list[TargetView], least: int = 1) -> list[str]:
    """The steps that at least so many of these targets may take."""
    return [
        step
        for step, (event, *_) in _STEPS.items()
        if sum((target.state, event) in TRANSITIONS for target in targets) >= least
    ]


def _step(visit: Visit) -> tuple[str, Event, str, str, list[str]]:
    step = str(visit.parameters["step"])
    if step not in _STEPS:
        raise NotFound("There is no such step.")
    return (step, *_STEPS[step])


async def confirm_step(visit: Visit) -> Page:
    """Asks, and says what the step does."""
    return await _ask(visit, visit.query.get("connection", ""))


async def _ask(visit: Visit, name: str, *, reason: str = "", error: CrmError | None = None) -> Page:
    tenant = await visit.tenant()
    step, event, title, button, facts = _step(visit)
    write = await visit.services.delivery.read(tenant.id, visit.parameters["write"])
    path = f"/admin/tenants/{tenant.slug}/writes/{write.id}"
    summaries = await visit.services.connections.summaries(tenant.id)
    chosen = _chosen(summaries, name)
    told = [f"The write: {write.operation} of a {write.object} of {tenant.name}."]
    targets = [target for target in write.targets if chosen in (None, target.connection_id)]
    if name:
        told.append(f"Only its target on {name}; the others stay as they are.")
    elif len(targets) > 1:
        goes = [target.connection for target in targets if (target.state, event) in TRANSITIONS]
        told.append(f"Its targets on {', '.join(goes) or 'no connection'}.")
    paused = [
        each.name for each in summaries if each.is_paused and each.id in {t.connection_id for t in targets}
    ]
    if paused and event is Event.REDRIVE:
        told.append(f"{', '.join(paused)} is paused: nothing is sent there before it is resumed.")
    return visit.page(
        "confirm.html",
        status=error.http_status if error else 200,
        title=title,
        facts=[*told, *facts],
        hidden={"connection": name} if name else {},
        action=f"{path}/{step}",
        button=button,
        back=path,
        is_danger=event is not Event.REDRIVE,
        asks_reason=event is Event.DISCARD,
        reason=reason,
        error=error,
        asks_whether=_WITHOUT_LOOKING
        if event is Event.REDRIVE and any(target.state is TargetState.PARKED for target in targets)
        else None,
    )


async def take_step(visit: Visit) -> Page:
    """Redrive, discard or cancel."""
    tenant = await visit.tenant()
    _, event, *_ = _step(visit)
    write_id: UUID = visit.parameters["write"]
    delivery = visit.services.delivery
    path = f"/admin/tenants/{tenant.slug}/writes/{write_id}"
    name = visit.form.get("connection", "")
    reason = visit.form.get("reason", "").strip()
    chosen = _chosen(await visit.services.connections.summaries(tenant.id), name)
    who: dict[str, Any] = {
        "actor": visit.actor,
        "request_id": visit.request_id,
        "connection_id": chosen,
    }
    try:
        if event is Event.REDRIVE:
            await delivery.redrive(tenant.id, write_id, without_looking=_insists(visit), **who)
        elif event is Event.CANCEL:
            await delivery.cancel(tenant.id, write_id, **who)
        else:
            await delivery.discard(tenant.id, write_id, reason=reason, **who)
    except CrmError as error:
        if any(each.field == "reason" for each in error.fields):
            return await _ask(visit, name, reason=reason, error=error)
        return visit.back(path, error)
    told = {Event.REDRIVE: "tried again", Event.CANCEL: "cancelled", Event.DISCARD: "discarded"}[event]
    return visit.go(path, f"The write is {told}{f' on {name}' if name else ''}.")


def _insists(visit: Visit) -> bool:
    return visit.form.get("without_looking", "") == "yes"


async def confirm_redrive_all(visit: Visit) -> Page:
    """Asks before all writes of a filter are sent again."""
    tenant = await visit.tenant()
    summaries = await visit.services.connections.summaries(tenant.id)
    wanted = _redriven(visit.query, summaries)
    counts = await visit.services.delivery.reading.backlog(tenant.id)
    path = f"/admin/tenants/{tenant.slug}/writes"
    chosen = {name: visit.query.get(name, "") for name in _FILTERS}
    state = wanted.state
    assert state is not None
    most = sum(each.get(state, 0) for key, each in counts.items() if wanted.connection_id in (None, key))
    limits = [f"of the object {wanted.object}"] if wanted.object else []
    limits += [f"on {chosen['connection']}"] if wanted.connection_id else []
    limits += [f"accepted since {wanted.since:%Y-%m-%d %H:%M} UTC"] if wanted.since else []
    return visit.page(
        "confirm.html",
        title="Send all of these again?",
        facts=[
            f"Targets that are {' '.join([state.value.replace('_', ' '), ' and '.join(limits)]).strip()}: "
            f"up to {most:,}.",
            "They are tried again now, with the same marks.",
            *(
                ["Each is looked up in the CRM first, and parked again where that cannot be told."]
                if state is TargetState.PARKED
                else []
            ),
        ],
        asks_whether=_WITHOUT_LOOKING if state is TargetState.PARKED else None,
        action=f"{path}/redrive",
        button="Send all again",
        back=link(path, **chosen),
        hidden=chosen,
        is_danger=False,
    )


def _redriven(values: Any, summaries: list[ConnectionSummary]) -> WriteFilter:
    wanted = _wanted(values, summaries)
    if wanted.state not in _REDRIVEN:
        message = f"must be {' or '.join(_REDRIVEN)}"
        raise ValidationError(f"state {message}.", fields=(FieldError("state", message),))
    return wanted


async def redrive_all(visit: Visit) -> Page:
    """Send all writes of a filter again."""
    tenant = await visit.tenant()
    wanted = _redriven(visit.form, await visit.services.connections.summaries(tenant.id))
    moved = await visit.services.delivery.redrive_many(
        tenant.id,
        wanted,
        actor=visit.actor,
        request_id=visit.request_id,
        without_looking=_insists(visit),
    )
    return visit.go(f"/admin/tenants/{tenant.slug}/writes", f"{moved:,} target(s) are tried again.")
