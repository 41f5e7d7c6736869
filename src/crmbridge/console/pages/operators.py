"""Operators: add, disable, change role, new password. For admins."""

from __future__ import annotations

from typing import Any

from crmbridge.console.visit import Page, Visit
from crmbridge.core.errors import Conflict, CrmError, ValidationError
from crmbridge.services.operators.model import Operator, Role

__all__ = [
    "add",
    "confirm_disable",
    "confirm_password",
    "disable",
    "enable",
    "list_operators",
    "set_password",
    "set_role",
]

_PATH = "/admin/operators"


async def list_operators(visit: Visit) -> Page:
    """All of them, and the form for a new one."""
    return await _list(visit)


async def _list(visit: Visit, *, status: int = 200, error: CrmError | None = None) -> Page:
    values: dict[str, Any] = {name: visit.form.get(name, "") for name in ("email", "name", "role")}
    return visit.page(
        "operators.html",
        status=status,
        operators=await visit.services.operators.list(),
        roles=list(Role),
        values=values,
        error=error,
    )


async def add(visit: Visit) -> Page:
    """A new operator with a password that crmbridge makes and shows once."""
    form = visit.form
    try:
        operator, made = await visit.services.operators.add(
            form.get("email", ""), form.get("name", ""), form.get("role", ""), None, visit.actor
        )
    except (ValidationError, Conflict) as error:
        return await _list(visit, status=error.http_status, error=error)
    return _shown_once(visit, operator, made, "New operator")


def _shown_once(visit: Visit, operator: Operator, made: str, title: str) -> Page:
    return visit.page(
        "shown_once.html",
        title=title,
        what=f"The password of {operator.name}",
        values={"E-mail": operator.email, "Password": made},
        hints=[f"Hand it over in person or by a safe way; {operator.name} can change it after signing in."],
        next_path=_PATH,
        next_text="Done, back to operators",
    )


async def _operator(visit: Visit) -> Operator:
    return await visit.services.operators.get(visit.parameters["operator"])


async def set_role(visit: Visit) -> Page:
    """Counts from the operator's next page on."""
    try:
        changed = await visit.services.operators.set_role(
            visit.parameters["operator"], visit.form.get("role", ""), visit.actor
        )
    except CrmError as error:
        return visit.back(_PATH, error)
    to = _PATH if changed.id != visit.operator.id or changed.role is Role.ADMIN else "/admin"
    return visit.go(to, f"{changed.name} is {changed.role.value} now.")


async def confirm_disable(visit: Visit) -> Page:
    """Asks before an operator is shut out."""
    operator = await _operator(visit)
    return visit.page(
        "confirm.html",
        title=f"Disable {operator.name}?",
        facts=[
            "All sessions of this operator end now, and nobody can sign in with this address.",
            "What was done stays in the audit log. You can enable the operator again.",
        ],
        action=f"{_PATH}/{operator.id}/disable",
        button="Disable operator",
        back=_PATH,
    )


async def disable(visit: Visit) -> Page:
    """Shut out."""
    try:
        changed = await visit.services.operators.disable(visit.parameters["operator"], visit.actor)
    except CrmError as error:
        return visit.back(_PATH, error)
    return visit.go(_PATH, f"{changed.name} is disabled.")


async def enable(visit: Visit) -> Page:
    """Let in again."""
    changed = await visit.services.operators.enable(visit.parameters["operator"], visit.actor)
    return visit.go(_PATH, f"{changed.name} may sign in again.")


async def confirm_password(visit: Visit) -> Page:
    """Asks before the old password stops working."""
    operator = await _operator(visit)
    return visit.page(
        "confirm.html",
        title=f"Make a new password for {operator.name}?",
        facts=[
            "crmbridge makes one and shows it once. The old one stops working.",
            "All sessions of this operator end now, and so does a pause after failed sign-ins.",
        ],
        action=f"{_PATH}/{operator.id}/password",
        button="Make a new password",
        back=_PATH,
    )


async def set_password(visit: Visit) -> Page:
    """A new password, shown once."""
    operator, made = await visit.services.operators.set_password(
        visit.parameters["operator"], None, visit.actor
    )
    return _shown_once(visit, operator, made, "New password")
