"""The routing table of one tenant. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from uuid import UUID

import msgspec

from crmbridge.core.errors import Conflict, FieldError, Fix, NotConfigured, NotFound, ValidationError
from crmbridge.core.records import Object

__all__ = [
    "FIRST",
    "Role",
    "Route",
    "RouteChange",
    "RouteRow",
    "change",
    "changed_roles",
    "effective",
    "read_changes",
    "routes_of",
    "unknown",
]

# The connection that is primary for what no route says.
FIRST = "primary"
EVERYTHING = "all"


class Role(StrEnum):
    """What a connection is for an object: it is asked and obeyed, it gets the writes too, or it gets nothing."""

    PRIMARY = "primary"
    ALSO = "also"
    NONE = "none"


class Route(msgspec.Struct, frozen=True):
    """One connection that an object goes to."""

    connection_id: UUID
    connection: str
    role: Role


class RouteChange(msgspec.Struct, frozen=True):
    """What one connection was and will be for one object."""

    object: Object
    connection: str
    before: Role
    after: Role


class RouteRow(msgspec.Struct):
    """A connection with what was said of it: object → role."""

    id: UUID
    name: str
    routes: dict[str, str]


def primary_of(rows: Sequence[RouteRow], obj: str) -> RouteRow | None:
    """The one that is said to be primary, else the connection of that name unless another role is said of it."""
    for row in rows:
        if row.routes.get(obj) == Role.PRIMARY:
            return row
    for row in rows:
        if row.name == FIRST and obj not in row.routes:
            return row
    return None


def routes_of(rows: Sequence[RouteRow], obj: Object) -> tuple[Route, ...]:
    """Where an object goes: the primary, then the others by age. Raises NotConfigured without a primary."""
    leading = primary_of(rows, obj.value)
    if leading is None:
        if not rows:
            raise NotConfigured("The tenant has no connection.")
        names = ", ".join(row.name for row in rows)
        raise NotConfigured(
            f"No connection of the tenant is primary for {obj.value}.",
            fix=Fix(
                "set_route",
                f"Connect one named {FIRST!r}, or give a route: "
                f"`crmbridge connections routes TENANT NAME {obj.value}=primary` (there are {names}).",
            ),
        )
    others = [row for row in rows if row is not leading and row.routes.get(obj.value) == Role.ALSO]
    return (
        Route(leading.id, leading.name, Role.PRIMARY),
        *(Route(row.id, row.name, Role.ALSO) for row in others),
    )


def effective(rows: Sequence[RouteRow], row: RouteRow) -> dict[str, str]:
    """What this connection is for each object, the defaults included; objects that it does not get are left out."""
    found = {}
    for obj in Object:
        if primary_of(rows, obj.value) is row:
            found[obj.value] = Role.PRIMARY.value
        elif row.routes.get(obj.value) == Role.ALSO:
            found[obj.value] = Role.ALSO.value
    return found


def read_changes(said: Mapping[str, str]) -> dict[Object, Role]:
    """``{"lead": "also"}`` checked; ``all`` names every object not named itself. Raises ValidationError."""
    errors, roles, changes = [], {}, {}
    for name, text in said.items():
        if name != EVERYTHING and name not in set(Object):
            errors.append(FieldError(f"routes.{name[:40]}", f"is no object; use {', '.join(Object)} or all"))
        elif text not in set(Role):
            errors.append(FieldError(f"routes.{name}", f"must be one of {', '.join(Role)}"))
        else:
            roles[name] = Role(text)
    if not said:
        errors.append(FieldError("routes", "names no object"))
    if errors:
        raise ValidationError("The routes cannot be used.", fields=tuple(errors))
    for obj in Object:
        role = roles.get(obj.value, roles.get(EVERYTHING))
        if role is not None:
            changes[obj] = role
    return changes


def change(rows: Sequence[RouteRow], name: str, changes: Mapping[Object, Role]) -> list[RouteRow]:
    """Say what a connection is from now on; answers the rows that have changed.

    Who was primary before goes on as ``also``, so that nothing stops silently. Raises NotFound for an unknown
    name, Conflict when an object would be left without a primary.
    """
    chosen = next((row for row in rows if row.name == name), None)
    if chosen is None:
        raise unknown(name, [row.name for row in rows])
    before = {row.id: dict(row.routes) for row in rows}
    for obj, role in changes.items():
        leading = primary_of(rows, obj.value)
        if role is Role.PRIMARY:
            if leading is not None and leading is not chosen:
                leading.routes[obj.value] = Role.ALSO.value
        elif leading is chosen:
            raise Conflict(
                f"{name} is the primary connection for {obj.value}; without it nothing would be.",
                fix=Fix(
                    "choose_primary",
                    f"Make another connection primary for {obj.value} first; then {name} can become {role.value}.",
                ),
            )
        chosen.routes[obj.value] = role.value
    return [row for row in rows if row.routes != before[row.id]]


def changed_roles(
    before: Mapping[str, Mapping[str, str]], after: Mapping[str, Mapping[str, str]]
) -> list[RouteChange]:
    """What differs between two tables of roles in effect (connection → object → role), by object."""
    found = []
    for obj in Object:
        for name, roles in after.items():
            was = Role(before.get(name, {}).get(obj.value, Role.NONE))
            will = Role(roles.get(obj.value, Role.NONE))
            if was is not will:
                found.append(RouteChange(obj, name, was, will))
    return found


def unknown(name: str, known: Sequence[str]) -> NotFound:
    """The refusal of a name that no connection of the tenant has."""
    told = f"The tenant's connections: {', '.join(known)}." if known else "The tenant has no connection yet."
    return NotFound(f"There is no connection {name[:63]!r}.", fix=Fix("choose_connection", told))
