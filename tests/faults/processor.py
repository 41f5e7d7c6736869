"""Whose work the processors did in a while: emulators, PostgreSQL, API and worker processes, the test, others."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from time import monotonic

from tests.faults.house import FaultHouse

__all__ = ["Shares"]

_TICKS = os.sysconf("SC_CLK_TCK")


def _spent(pids: Iterable[int]) -> float:
    """Seconds of CPU of those processes that still run."""
    seconds = 0.0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        user, system = text.rpartition(")")[2].split()[11:13]
        seconds += (int(user) + int(system)) / _TICKS
    return seconds


def _children(parent: int | None) -> list[int]:
    found = [parent] if parent else []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue
            if int(text.rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.name))
    return found


def _machine() -> tuple[float, float]:
    """(busy, all) seconds of all processors."""
    numbers = [int(text) / _TICKS for text in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(numbers) - numbers[3] - numbers[4], sum(numbers)


class Shares:
    """From its making on. Processes that end meanwhile count as others."""

    def __init__(self, house: FaultHouse) -> None:
        self._groups = {
            "emulators": [child.process.pid for child in house.crms],
            "PostgreSQL": _children(house.postgres.pid),
            "APIs": [child.process.pid for child in house.apis],
            "workers": [child.process.pid for child in house.workers],
            "the test": [os.getpid()],
        }
        self._began = monotonic()
        self._before = {name: _spent(pids) for name, pids in self._groups.items()}
        self._machine = _machine()

    def told(self) -> str:
        """Percent of all processors: busy in all, and each group's part."""
        busy, total = (now - before for now, before in zip(_machine(), self._machine, strict=True))
        spent = {name: max(0.0, _spent(pids) - self._before[name]) for name, pids in self._groups.items()}
        spent["others"] = max(0.0, busy - sum(spent.values()))
        parts = ", ".join(f"{name} {100 * part / max(total, 0.01):.0f}" for name, part in spent.items())
        return f"{100 * busy / max(total, 0.01):.0f} % busy ({parts})"
