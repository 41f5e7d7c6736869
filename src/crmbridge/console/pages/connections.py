"""A tenant's connections side by side: how each stands, what it gets; pause, resume, and the routes of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from crmbridge.console.pages.crm import budget_text
from crmbridge.console.pages.rows import WAITING, actor_names, display_name
from crmbridge.console.visit import Page, Visit
from crmbridge.core.errors import CrmError, FieldError, NotFound, ValidationError
from crmbridge.core.manifest import Manifest
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object
from crmbridge.services.connections.model import ConnectionSummary
from crmbridge.services.connections.routing import Pause, Role, RouteChange
from crmbridge.services.connections.routing.table import unknown
from crmbridge.services.delivery.model import TargetState
from crmbridge.services.tenants.model import Tenant

__all__ = [
    "change_routes",
    "confirm_pause",
    "confirm_resume",
    "pause",
    "resume",
    "show",
    "show_routes",
]

_TIGHT = 0.1
_MOST_REASON = 200
_Seen = dict[str, dict[str, str]]


class Line(NamedTuple):
    """One connection of the list. ``waiting`` names the states with how many targets are in each."""

    summary: ConnectionSummary
    name: str
    pause: Pause | None
    waiting: list[tuple[TargetState, int]]
    parked: int
    dead_letters: int
    budgets: list[str]

    @property
    def waiting_count(self) -> int:
        """Targets that wait or are under way."""
        return sum(count for _, count in self.waiting)


class Effect(NamedTuple):
    """What a change of routes does, in words. ``is_warning``: somebody should think twice."""

    text: str
    is_warning: bool = False


async def show(visit: Visit) -> Page:
    """Every connection with what waits for it, and the table of routes."""
    tenant = await visit.tenant()
    services = visit.services
    summaries = await services.connections.summaries(tenant.id)
    backlog = await services.delivery.reading.backlog(tenant.id)
    lines = []
    for summary in summaries:
        paused = None
        if summary.is_paused:
            paused = await services.connections.routing.pause_of(tenant.id, summary.id)
        lines.append(_line(summary, backlog.get(summary.id, {}), paused))
    leaderless = [obj for obj in Object if not any(s.routes.get(obj) == Role.PRIMARY for s in summaries)]
    return visit.page(
        "connections.html",
        tenant=tenant,
        lines=lines,
        names=await actor_names(visit, [line.pause.actor for line in lines if line.pause]),
        objects=list(Object),
        leaderless=leaderless if summaries else [],
    )


def _line(summary: ConnectionSummary, counts: Mapping[TargetState, int], paused: Pause | None) -> Line:
    return Line(
        summary=summary,
        name=display_name(summary.driver),
        pause=paused,
        waiting=[(state, counts[state]) for state in WAITING if counts.get(state)],
        parked=counts.get(TargetState.PARKED, 0),
        dead_letters=counts.get(TargetState.DEAD_LETTER, 0),
        budgets=_budgets(summary),
    )


def _budgets(summary: ConnectionSummary) -> list[str]:
    """``burst: 96 left of 110 per 10 s``; calls in flight have nothing that runs out."""
    told = []
    for each in summary.budgets:
        if not each.per_seconds:
            continue
        most = budget_text(each)
        held = f", held for {each.held_seconds:,.0f} s" if each.held_seconds else ""
        told.append(f"{each.kind.replace('_', ' ')}: {each.remaining:,} left of {most}{held}")
    return told


# ---------------------------------------------------------------------- pause and resume


async def _named(visit: Visit) -> tuple[Tenant, ConnectionSummary, list[ConnectionSummary]]:
    tenant = await visit.tenant()
    name = str(visit.parameters["connection"])
    summaries = await visit.services.connections.summaries(tenant.id)
    for summary in summaries:
        if summary.name == name:
            return tenant, summary, summaries
    raise unknown(name, [each.name for each in summaries])


def _path(tenant: Tenant) -> str:
    return f"/admin/tenants/{tenant.slug}/connections"


def _confirm(
    visit: Visit, tenant: Tenant, name: str, step: str, facts: list[str], error: CrmError | None = None
) -> Page:
    is_pause = step == "pause"
    return visit.page(
        "confirm.html",
        status=error.http_status if error else 200,
        title=f"{step.capitalize()} the connection {name}?",
        facts=facts,
        action=f"{_path(tenant)}/{quote(name, safe='')}/{step}",
        button=f"{step.capitalize()} {name}",
        back=_path(tenant),
        is_danger=is_pause,
        asks_reason=True,
        is_reason_needed=is_pause,
        error=error,
    )


def _pause_facts(summary: ConnectionSummary) -> list[str]:
    return [
        f"Nothing is sent to {display_name(summary.driver)} until somebody resumes it. A call under way ends.",
        "Writes are accepted and wait; the other connections go on. Whoever waits for the answer of a write to this "
        "connection is told that it is accepted, not applied.",
        "Reads and live tests still reach it.",
    ]


async def confirm_pause(visit: Visit) -> Page:
    """Asks, and wants a reason: the next person reads it at night."""
    tenant, summary, _ = await _named(visit)
    return _confirm(visit, tenant, summary.name, "pause", _pause_facts(summary))


async def pause(visit: Visit) -> Page:
    """Accept on, send nothing."""
    tenant, summary, _ = await _named(visit)
    reason = visit.form.get("reason", "").strip()
    if not reason or len(reason) > _MOST_REASON:
        message = "says why, for whoever finds the pause" if not reason else "has at most 200 characters"
        error = ValidationError("A pause needs a reason.", fields=(FieldError("reason", message),))
        return _confirm(visit, tenant, summary.name, "pause", _pause_facts(summary), error)
    try:
        await visit.services.connections.routing.pause(
            tenant, summary.name, actor=visit.actor, reason=reason, request_id=visit.request_id
        )
    except CrmError as refused:
        return visit.back(_path(tenant), refused)
    return visit.go(_path(tenant), f"{summary.name} is paused. Writes wait until it is resumed.")


async def confirm_resume(visit: Visit) -> Page:
    """Asks, and says how much will go out."""
    tenant, summary, _ = await _named(visit)
    backlog = (await visit.services.delivery.reading.backlog(tenant.id)).get(summary.id, {})
    waiting = sum(backlog.get(state, 0) for state in WAITING)
    found = await visit.services.connections.routing.pause_of(tenant.id, summary.id)
    facts = [
        f"It goes on where it stopped, within a second or so: {waiting:,} "
        f"{'target waits' if waiting == 1 else 'targets wait'}, and they are sent as fast as the rate budgets allow."
    ]
    if found and found.reason:
        facts.insert(0, f"It was paused because: {found.reason}")
    return _confirm(visit, tenant, summary.name, "resume", facts)


async def resume(visit: Visit) -> Page:
    """Go on where it stopped."""
    tenant, summary, _ = await _named(visit)
    reason = visit.form.get("reason", "").strip()
    try:
        await visit.services.connections.routing.resume(
            tenant, summary.name, actor=visit.actor, reason=reason, request_id=visit.request_id
        )
    except CrmError as refused:
        return visit.back(_path(tenant), refused)
    return visit.go(_path(tenant), f"{summary.name} goes on. What waited is sent now.")


# ---------------------------------------------------------------------- routes


async def show_routes(visit: Visit) -> Page:
    """The form: what this connection is for each object."""
    tenant, summary, summaries = await _named(visit)
    roles = {obj.value: summary.routes.get(obj.value, Role.NONE.value) for obj in Object}
    return _routes_page(visit, tenant, summary, summaries, roles)


def _routes_page(
    visit: Visit,
    tenant: Tenant,
    summary: ConnectionSummary,
    summaries: list[ConnectionSummary],
    roles: Mapping[str, str],
    **rest: Any,
) -> Page:
    error: CrmError | None = rest.pop("error", None)
    return visit.page(
        "connection_routes.html",
        status=error.http_status if error else 200,
        tenant=tenant,
        summary=summary,
        name=display_name(summary.driver),
        others=[each for each in summaries if each.id != summary.id],
        objects=list(Object),
        roles=roles,
        all_roles=list(Role),
        path=f"{_path(tenant)}/{quote(summary.name, safe='')}/routes",
        back=_path(tenant),
        seen=msgspec.json.encode(_seen(summaries)).decode(),
        error=error,
        **{"effects": None, **rest},
    )


def _seen(summaries: list[ConnectionSummary]) -> _Seen:
    return {each.name: each.routes for each in summaries}


async def change_routes(visit: Visit) -> Page:
    """Say what would change; save it when the same form comes back with that said."""
    tenant, summary, summaries = await _named(visit)
    step = visit.form.get("step", "")
    if step not in ("preview", "save", "edit"):
        raise NotFound("There is no such step.")
    roles = {obj.value: visit.form.get(f"route.{obj.value}", Role.NONE.value) for obj in Object}
    if step == "edit":
        return _routes_page(visit, tenant, summary, summaries, roles)
    said = {obj: role for obj, role in roles.items() if role != summary.routes.get(obj, Role.NONE.value)}
    routing = visit.services.connections.routing
    try:
        changes = await routing.preview(tenant, summary.name, said) if said else []
        if step == "preview" or not said:
            effects = _effects(changes, summary, summaries, await _manifest(visit, tenant, summary))
            return _routes_page(visit, tenant, summary, summaries, roles, effects=effects)
        await routing.change(
            tenant,
            summary.name,
            said,
            actor=visit.actor,
            request_id=visit.request_id,
            seen=_read_seen(visit.form.get("seen", "")),
        )
    except CrmError as refused:
        return _routes_page(visit, tenant, summary, summaries, roles, error=refused)
    return visit.go(_path(tenant), f"The routes of {summary.name} are saved.")


def _read_seen(text: str) -> _Seen:
    try:
        return msgspec.json.decode(text, type=_Seen)
    except msgspec.MsgspecError:
        message = "is not what the page sent"
        raise ValidationError(f"seen {message}.", fields=(FieldError("seen", message),)) from None


def _effects(
    changes: list[RouteChange],
    summary: ConnectionSummary,
    summaries: list[ConnectionSummary],
    manifest: Manifest | None,
) -> list[Effect]:
    """One sentence for all objects that fare alike, then what somebody may not expect."""
    mine = [each for each in changes if each.connection == summary.name]
    others = [each for each in changes if each.connection != summary.name]
    groups: dict[tuple[Role, Role, str], list[Object]] = {}
    for each in mine:
        old = next((other.connection for other in others if other.object is each.object), "")
        groups.setdefault((each.before, each.after, old), []).append(each.object)
    effects = []
    for (before, after, old), objects in groups.items():
        effects.append(Effect(_sentence(summary, summaries, before, after, old, objects)))
    gained = [each.object for each in mine if each.before is Role.NONE]
    if manifest is not None:
        effects += _refusals(manifest, [each for each in mine if each.after is not Role.NONE])
    if gained:
        effects.append(Effect(f"Records that are in other CRMs already are not copied to {summary.name}."))
    if gained and summary.is_paused:
        effects.append(Effect(f"{summary.name} is paused: what goes to it waits.", True))
    return effects


def _sentence(
    summary: ConnectionSummary,
    summaries: list[ConnectionSummary],
    before: Role,
    after: Role,
    old: str,
    objects: list[Object],
) -> str:
    name, what = summary.name, _joined([obj.value for obj in objects])
    if after is Role.PRIMARY:
        follows = f" {old}, the primary until now, gets every write too (also)." if old else ""
        return f"{what}: reads go to {name}, and it decides whether a write is accepted.{follows}"
    if after is Role.ALSO:
        leaders = {each.name for each in summaries for obj in objects if each.routes.get(obj) == Role.PRIMARY}
        return f"{what}: {name} gets every write too. Reads stay with {_joined(sorted(leaders)) or 'nobody'}."
    return f"{what}: {name} gets no more writes. What was accepted for it before is still sent."


def _joined(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def _refusals(manifest: Manifest, gets: list[RouteChange]) -> list[Effect]:
    """Objects that its driver cannot create: said now, not at the first write."""
    effects = []
    for each in gets:
        support = manifest.supports(each.object, Operation.CREATE)
        if support.is_usable:
            continue
        end = "is refused" if each.after is Role.PRIMARY else "becomes a dead letter there"
        why = f": {support.reason}" if support.reason else ""
        effects.append(
            Effect(f"{manifest.display_name} cannot create a {each.object}, so each create {end}{why}.", True)
        )
    return effects


async def _manifest(visit: Visit, tenant: Tenant, summary: ConnectionSummary) -> Manifest | None:
    """Under the connection's settings; None where it has no credential in use."""
    try:
        return (await visit.services.connections.open(tenant.id, name=summary.name)).manifest
    except CrmError:
        return None
