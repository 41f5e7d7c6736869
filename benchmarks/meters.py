"""What a process and a PostgreSQL server have used: CPU, memory, log written. Linux only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

__all__ = ["cpu_seconds", "postgres_cpu_seconds", "pss_mib", "wal_bytes"]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def postgres_cpu_seconds(postmaster: int | None) -> float:
    """User and system time of a server so far: the postmaster, its processes, and those that have ended."""
    if postmaster is None:
        raise RuntimeError("the server is not running")
    spent = cpu_seconds(postmaster) + _of_ended_children(postmaster)
    for child in _children(postmaster):
        try:
            spent += cpu_seconds(child)
        except (FileNotFoundError, ProcessLookupError):  # ended meanwhile: counted with the next reading
            continue
    return spent


def _children(parent: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        found += [int(word) for word in (task / "children").read_text().split()]
    return found


def _of_ended_children(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def pss_mib(pid: int) -> float:
    """Memory of one process, shared pages counted by share."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no memory is told of process {pid}")


def postgres_pss_mib(postmaster: int | None) -> float:
    """The same of a whole server."""
    if postmaster is None:
        raise RuntimeError("the server is not running")
    total = pss_mib(postmaster)
    for child in _children(postmaster):
        try:
            total += pss_mib(child)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


async def wal_bytes(conn: Any) -> int:
    """How much the server has written to its log since it was made."""
    written: int = await conn.fetchval("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
    return int(written)
