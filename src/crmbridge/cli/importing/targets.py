"""Where the rows of an import go, and what each connection but the first would refuse of them.

A write goes to its object's primary connection and to all that get it also. Rows are made for the primary: what has
no place there is kept in a note or left out. Another connection gets the same fields under a mapping of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from crmbridge.cli.client import Client
from crmbridge.cli.importing.cleaning import Slots, slots_from
from crmbridge.cli.importing.run import reason_of
from crmbridge.cli.problems import ServerRefusal, UsageProblem

__all__ = ["Refusals", "Targets", "ask_targets", "would_refuse"]

MOST_ASKED: Final = 20
"""Rows that the server is asked about in a dry run: the first of each set of slots."""


@dataclass(frozen=True)
class Targets:
    """The connections of an import by name, the primary first, with the slots that have a place there."""

    slots: Mapping[str, Slots]

    @property
    def first(self) -> Slots:
        """Of the primary: by these the cells are read."""
        return next(iter(self.slots.values()))

    @property
    def others(self) -> dict[str, Slots]:
        """Of those that get the rows also."""
        return dict(list(self.slots.items())[1:])

    def lacking(self, slot: str) -> list[str]:
        """The other connections that have no place for a slot which the primary takes."""
        if not self.first.reaches(slot):
            return []
        return [name for name, slots in self.others.items() if not slots.reaches(slot)]


async def ask_targets(client: Client, known: Mapping[str, Any], obj: str, connection: str = "") -> Targets:
    """Reads routes and mappings of the tenant ``known``: of one connection when it is named, else of all that the
    object goes to. Raises Problem for a connection that is not there.
    """
    tenant = known["slug"]
    names = [connection] if connection else await _routed(client, tenant, obj)
    found = {}
    for name in names:
        answer = await client.get("tenants", tenant, "mappings", connection=name)
        found[name] = slots_from(
            obj,
            known["vertical"],
            answer["mappings"],
            keeps_unknown=known.get("unknown_slots") == "note",
        )
    return Targets(found)


async def _routed(client: Client, tenant: str, obj: str) -> list[str]:
    answer = await client.get("tenants", tenant, "connections")
    roles = {each["name"]: each["routes"].get(obj) for each in answer["connections"]}
    first = [name for name, role in roles.items() if role == "primary"]
    if roles and not first:
        raise UsageProblem(
            f"No connection of {tenant} is primary for {obj}.",
            hint=f"Give a route: `crmbridge connections routes {tenant} NAME {obj}=primary` "
            f"(there are {', '.join(roles)}), or name one with --connection.",
        )
    # Without any, the server's own words about the primary that is missing.
    return [*(first or ["primary"]), *(name for name, role in roles.items() if role == "also")]


@dataclass
class Refusals:
    """What connections would refuse, counted over all rows: (connection, reason) → rows."""

    targets: Targets
    object: str
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    asked: dict[frozenset[str], tuple[int, dict[str, Any]]] = field(default_factory=dict)

    def note(self, line: int, fields: dict[str, Any]) -> None:
        """One row as it would be sent."""
        for name, slots in self.targets.others.items():
            if missing := sorted(slot for slot in fields if not slots.reaches(slot)):
                told = ", ".join(f"{self.object}.{slot}" for slot in missing)
                self.counts[name, f"no place there for {told}"] += 1
        if len(self.asked) < MOST_ASKED:
            self.asked.setdefault(frozenset(fields), (line, fields))

    def lines(self) -> list[tuple[str, int, str]]:
        """(connection, rows, reason), in the order of the connections, most rows first."""
        order = list(self.targets.slots)
        found = [(name, count, reason) for (name, reason), count in self.counts.items()]
        return sorted(found, key=lambda each: (order.index(each[0]), -each[1], each[2]))


async def would_refuse(
    client: Client, tenant: str, refusals: Refusals, *, connection: str = "", match: Sequence[str] = ()
) -> list[tuple[str, int, str]]:
    """What each connection says of sample rows, without sending them: (connection, line, reason).

    What ``refusals`` has counted is left out. The server is asked for its plan of each sample.
    """
    told = []
    for slots, (line, fields) in refusals.asked.items():
        try:
            plan = await client.post(
                "tenants",
                tenant,
                "records",
                refusals.object,
                body={"fields": fields, "match": list(match), "mode": "plan"},
                connection=connection,
            )
        except ServerRefusal as refusal:
            if refusal.status >= 500 or refusal.status in (401, 403, 429):
                raise
            told.append(
                (next(iter(refusals.targets.slots)), line, f"{refusal.code}: {reason_of(refusal.body)}")
            )
            continue
        for other in plan.get("also") or []:
            error = other.get("error")
            known = refusals.targets.others.get(other["connection"])
            if error and not _is_counted(error, known, slots, refusals.object):
                told.append((other["connection"], line, f"{error.get('code', '')}: {reason_of(error)}"))
    return told


def _is_counted(error: Mapping[str, Any], known: Slots | None, slots: frozenset[str], obj: str) -> bool:
    """Whether an error says no more than that slots have no place."""
    named = {str(entry.get("field", "")) for entry in error.get("fields") or []}
    missing = {f"{obj}.{slot}" for slot in slots if known is not None and not known.reaches(slot)}
    return bool(named) and named <= missing
