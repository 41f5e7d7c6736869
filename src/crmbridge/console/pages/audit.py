"""The audit log, of one tenant or of the system (sign-in, operators, keys)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from crmbridge.console.pages.writes import moment_of
from crmbridge.console.visit import Page, Visit, link
from crmbridge.core.errors import FieldError, ValidationError
from crmbridge.services.audit.model import AuditRow

__all__ = ["show"]

_PER_PAGE = 100
_FILTERS = ("tenant", "action", "since", "until")


async def show(visit: Visit) -> Page:
    """Newest first, page by page."""
    query = visit.query
    tenant = await visit.tenant_named(query["tenant"]) if query.get("tenant") else None
    rows = await visit.services.audit.read(
        tenant.id if tenant else None,
        _PER_PAGE + 1,
        before=_before(query.get("before", "")),
        action=query.get("action", "") or None,
        since=moment_of("since", query.get("since", "")),
        until=moment_of("until", query.get("until", "")),
    )
    page = rows[:_PER_PAGE]
    chosen = {name: query.get(name, "") for name in _FILTERS}
    more = len(rows) > _PER_PAGE
    return visit.page(
        "audit.html",
        tenant=tenant,
        rows=[(row, _told(row)) for row in page],
        names=await _names(visit, page),
        chosen=chosen,
        next_path=link("/admin/audit", **chosen, before=page[-1].id) if more else "",
        is_later=bool(query.get("before")),
    )


def _before(text: str) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        message = "is no row of this log"
        raise ValidationError(f"before {message}.", fields=(FieldError("before", message),)) from None


def _told(row: AuditRow) -> list[tuple[str, Any]]:
    """The details that say something."""
    return [
        (name.replace("_", " "), value)
        for name, value in row.details.items()
        if value not in (None, "", [], {})
    ]


async def _names(visit: Visit, rows: list[AuditRow]) -> dict[str, str]:
    """Names of the operators of these rows: the log itself holds ids only."""
    if not any(row.actor.startswith("operator:") or row.action.startswith("operator.") for row in rows):
        return {}
    found = await visit.services.operators.list()
    return {key: each.name for each in found for key in (each.actor, str(each.id))}
