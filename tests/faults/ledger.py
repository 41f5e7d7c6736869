"""What was accepted, what the CRM holds, and the difference: applied, parked, lost, doubled."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

__all__ = ["TOKEN", "Accepted", "Holdings", "Line", "table_of"]

# Stands in a text field of every record written here; short, for some names hold 20 letters.
TOKEN = re.compile(r"Fx[a-z]{4}[0-9]{6}")
PENDING = ("accepted", "sending", "retrying", "unknown")


@dataclass
class Accepted:
    """One write that the API answered for. ``seconds``: from the first try to the answer."""

    tenant: str
    slug: str
    object: str
    write_id: str
    seconds: float
    tries: int


@dataclass
class Holdings:
    """What one CRM holds: rows per table for each token, when each was made, and all rows per table."""

    by_token: dict[str, Counter[str]]
    rows: Counter[str]
    made: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, tables: dict[str, list[dict[str, Any]]]) -> Holdings:
        """From the control route ``records``. A row counts once for a token, in however many fields it stands."""
        by_token: dict[str, Counter[str]] = defaultdict(Counter)
        rows: Counter[str] = Counter()
        made: dict[str, list[str]] = defaultdict(list)
        for name, entries in tables.items():
            rows[name] = len(entries)
            for entry in entries:
                for token in set(TOKEN.findall(json.dumps(entry["fields"]))):
                    by_token[token][name] += 1
                    made[token].append(str(entry.get("created_at", "")))
        return cls(by_token, rows, made)


@dataclass
class Line:
    """One run, as a row of the report. ``notes`` are further figures of the scenario, in its own words, ``ratios``
    those of them that are compared with a goal."""

    what: str
    processes: int = 0
    kills: int = 0
    accepted: int = 0
    applied: int = 0
    parked: int = 0
    refused: int = 0
    lost: int = 0
    doubled: int = 0
    takeover_seconds: float | None = None
    seconds: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def is_kept(self) -> bool:
        """Whether the promise held: every accepted write has one effect or is parked where it is seen."""
        return not (self.lost or self.doubled or self.refused or self.wrong) and (
            self.accepted == self.applied + self.parked
        )

    def add(self, more: Line) -> None:
        """Another run of the same, in the same house: what was counted adds up, of figures the last stays."""
        for name in ("accepted", "applied", "parked", "refused", "lost", "doubled", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(more, name))
        self.processes, self.kills = more.processes, more.kills
        self.notes |= more.notes
        self.wrong += more.wrong

    def judge(self, token: str, state: str, held: Counter[str], one: Counter[str]) -> None:
        """Count one accepted write. ``one`` is what a single undisturbed create leaves."""
        self.accepted += 1
        self.applied += state == "applied"
        self.parked += state == "parked"
        self.refused += state in ("dead_letter", "discarded", "cancelled")
        if state in PENDING:
            self.wrong.append(f"{token} is still {state}")
        more = {name: count for name, count in held.items() if count > one[name]}
        fewer = {name: held[name] for name, count in one.items() if held[name] < count}
        if more:
            self.doubled += 1
            self.wrong.append(f"{token} is {state} and stands {dict(held)}, one create makes {dict(one)}")
        elif fewer and state != "parked":
            self.lost += 1
            self.wrong.append(f"{token} is {state} and stands {dict(held)}, one create makes {dict(one)}")


def table_of(lines: list[Line]) -> str:
    """The report, in columns."""
    counted = ("processes", "kills", "accepted", "applied", "parked", "refused", "lost", "doubled")
    head = ["what", *counted, "takeover/s", "seconds", "notes"]
    rows = [
        [
            line.what,
            *(str(getattr(line, name)) for name in counted),
            "-" if line.takeover_seconds is None else f"{line.takeover_seconds:.1f}",
            f"{line.seconds:.1f}",
            ", ".join(f"{name} {value}" for name, value in line.notes.items()),
        ]
        for line in lines
    ]
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    told = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [head, *rows]
    ]
    return "\n".join([*told, *(f"  ! {line.what}: {text}" for line in lines for text in line.wrong[:20])])
