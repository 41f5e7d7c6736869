"""The routing table: one primary for each object, any number of others, and how it may change."""

from __future__ import annotations

from uuid import UUID

import pytest

from crmbridge.core.errors import Conflict, NotConfigured, NotFound, ValidationError
from crmbridge.core.records import Object
from crmbridge.services.connections.routing.table import (
    Role,
    RouteChange,
    RouteRow,
    change,
    changed_roles,
    effective,
    read_changes,
    routes_of,
    unknown,
)


def rows(**routes: dict[str, str]) -> list[RouteRow]:
    return [RouteRow(UUID(int=number), name, said) for number, (name, said) in enumerate(routes.items())]


def told(table: list[RouteRow], obj: Object = Object.LEAD) -> list[str]:
    return [f"{route.connection}:{route.role}" for route in routes_of(table, obj)]


def test_routes_when_nothing_is_said_then_the_one_named_primary_gets_everything() -> None:
    assert told(rows(second={}, primary={})) == ["primary:primary"]
    assert effective(rows(primary={}), rows(primary={})[0]) == {}  # another table's row is nobody here
    table = rows(primary={}, second={})
    assert set(effective(table, table[0])) == set(Object) and effective(table, table[1]) == {}


def test_routes_when_others_get_it_also_then_after_the_primary_and_by_age() -> None:
    table = rows(b={"lead": "also"}, primary={}, a={"lead": "also", "deal": "primary"}, c={"lead": "none"})
    assert told(table) == ["primary:primary", "b:also", "a:also"]
    assert told(table, Object.DEAL) == ["a:primary"]
    assert told(table, Object.NOTE) == ["primary:primary"]


def test_routes_when_nobody_is_primary_then_says_how_to_make_one() -> None:
    with pytest.raises(NotConfigured, match="no connection"):
        routes_of([], Object.LEAD)
    with pytest.raises(NotConfigured, match="primary for lead") as refused:
        routes_of(rows(second={}), Object.LEAD)
    assert "lead=primary" in refused.value.fix.hint and "second" in refused.value.fix.hint


def test_change_when_another_becomes_primary_then_the_old_one_goes_on_also() -> None:
    table = rows(primary={}, second={})
    changed = change(table, "second", {Object.LEAD: Role.PRIMARY})
    assert {row.name for row in changed} == {"primary", "second"}
    assert told(table) == ["second:primary", "primary:also"]
    assert [row.name for row in change(table, "primary", {Object.LEAD: Role.NONE})] == ["primary"]
    assert told(table) == ["second:primary"]
    change(table, "primary", {Object.LEAD: Role.PRIMARY})
    assert told(table) == ["primary:primary", "second:also"]


def test_change_when_it_would_leave_no_primary_then_refused() -> None:
    table = rows(primary={}, second={"lead": "also"})
    for role in (Role.ALSO, Role.NONE):
        with pytest.raises(Conflict, match="is the primary connection for lead"):
            change(table, "primary", {Object.LEAD: role})
    with pytest.raises(NotFound, match="third"):
        change(table, "third", {Object.LEAD: Role.ALSO})


def test_change_when_it_is_so_already_then_nothing_changes() -> None:
    assert change(rows(primary={}, second={"lead": "also"}), "second", {Object.LEAD: Role.ALSO}) == []


def test_read_changes_when_all_is_named_then_the_named_ones_keep_their_own() -> None:
    changes = read_changes({"all": "also", "note": "none"})
    assert set(changes) == set(Object)
    assert changes[Object.NOTE] is Role.NONE and changes[Object.LEAD] is Role.ALSO


@pytest.mark.parametrize("said", [{}, {"invoice": "also"}, {"lead": "secondary"}, {"all": ""}])
def test_read_changes_when_a_word_is_wrong_then_every_one_is_named(said: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as refused:
        read_changes(said)
    assert refused.value.fields[0].field.startswith("routes")


def test_changed_roles_when_another_becomes_primary_then_both_sides_and_nothing_else() -> None:
    table = rows(primary={}, second={"note": "also"})
    before = {row.name: effective(table, row) for row in table}
    change(table, "second", {Object.LEAD: Role.PRIMARY, Object.NOTE: Role.ALSO, Object.DEAL: Role.NONE})
    assert changed_roles(before, {row.name: effective(table, row) for row in table}) == [
        RouteChange(Object.LEAD, "primary", Role.PRIMARY, Role.ALSO),
        RouteChange(Object.LEAD, "second", Role.NONE, Role.PRIMARY),
    ]
    assert changed_roles(before, before) == []


def test_unknown_when_there_are_others_then_names_them_and_cuts_a_long_name() -> None:
    refused = unknown("x" * 500, ["primary", "second"])
    assert refused.code == "not_found" and len(refused.message) < 100
    assert refused.fix.hint == "The tenant's connections: primary, second."
    assert "no connection yet" in unknown("x", []).fix.hint
