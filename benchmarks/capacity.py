"""From the measured costs of one write to machines: prints the arithmetic, or puts it into the page of the operator.

``python -m benchmarks.capacity`` reads ``docs/operations/cost.json`` (written by ``python -m benchmarks.cost --out``).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

_HOME = Path(__file__).parents[1] / "docs" / "operations"
_MONTH_SECONDS = 30 * 86_400
# A core that is asked for more than this answers late.
_USE = 0.6
_BEGIN, _END = "<!-- begin: python -m benchmarks.capacity --write -->", "<!-- end -->"
_ROWS = (
    ("API CPU, µs", "accept_cpu_us"),
    ("worker CPU, µs", "deliver_cpu_us"),
    ("PostgreSQL CPU for the accept, µs", "accept_postgres_us"),
    ("PostgreSQL CPU for the delivery, µs", "deliver_postgres_us"),
    ("PostgreSQL log (WAL) of the accept, bytes", "accept_wal_bytes"),
    ("PostgreSQL log of the delivery, bytes", "deliver_wal_bytes"),
    ("provider calls", "provider_calls"),
)
_WAYS = ("waited", "live", "bulk")


def cost_table(figures: dict[str, Any]) -> list[str]:
    """The measured figures as the lines of a table."""
    lines = ["| one write | waited | live | bulk |", "| --- | ---: | ---: | ---: |"]
    for label, name in _ROWS:
        cells = [figures[way].get(name) for way in _WAYS]
        shown = ["–" if cell is None else _short(cell) for cell in cells]
        lines.append(f"| {label} | {' | '.join(shown)} |")
    lines += ["", "| storage of one write, bytes, indexes included | |", "| --- | ---: |"]
    names = {
        "a": "(a) in flight",
        "b": "(b) telemetry",
        "c": "(c) content",
        "d": "(d) evidence",
        "in all": "in all",
    }
    lines += [
        f"| {names.get(key, key)} | {_short(size)} |" for key, size in sorted(figures["storage"].items())
    ]
    memory = figures["memory_mib"]
    lines += ["", "| memory (PSS) at the end, MiB | |", "| --- | ---: |"]
    lines += [f"| {name} | {size:.0f} |" for name, size in memory.items()]
    return lines


def _short(value: float) -> str:
    return f"{value:.3f}" if 0 < value < 1 else f"{value:,.0f}"


def arithmetic(
    figures: dict[str, Any], *, tenants: int, writes: float, peak: float, shares: dict[str, float]
) -> list[str]:
    """Line by line: what so many writes a month ask for."""

    def mean(name: str) -> float:
        return float(sum(shares[way] * figures[way].get(name, 0.0) for way in _WAYS))

    api, worker = mean("accept_cpu_us"), mean("deliver_cpu_us")
    server = mean("accept_postgres_us") + mean("deliver_postgres_us")
    log = mean("accept_wal_bytes") + mean("deliver_wal_bytes")
    calls = mean("provider_calls")
    average = writes / _MONTH_SECONDS
    most = average * peak
    mix = ", ".join(f"{shares[way]:.0%} {way}" for way in _WAYS)
    each = " + ".join(f"{shares[way]:g}·{figures[way]['accept_cpu_us']:,.0f}" for way in _WAYS)
    storage = figures["storage"]
    cores = {
        name: most * cost / 1e6 / _USE
        for name, cost in (("API", api), ("worker", worker), ("PostgreSQL", server))
    }
    daily = writes / 30
    telemetry, content, whole = storage.get("b", 0.0), storage.get("c", 0.0), storage["in all"]
    kept = telemetry * 90 + content * 30
    lines = [
        f"{tenants:,} tenants, {writes:,.0f} writes a month; {mix}; peak {peak:g} times the average.",
        "",
        "```",
        f"rate, average        {writes:,.0f} / {_MONTH_SECONDS:,} s = {average:.1f} writes/s",
        f"rate, peak           {average:.1f} · {peak:g} = {most:.0f} writes/s",
        f"API, one write       {each} = {api:,.0f} µs",
        f"API cores            {most:.0f} · {api:,.0f} µs / {_USE:g} = {cores['API']:.1f}",
        f"worker, one write    {worker:,.0f} µs (waited ones are delivered by the API)",
        f"worker cores         {most:.0f} · {worker:,.0f} µs / {_USE:g} = {cores['worker']:.1f}",
        f"PostgreSQL           {server:,.0f} µs a write",
        f"PostgreSQL cores     {most:.0f} · {server:,.0f} µs / {_USE:g} = {cores['PostgreSQL']:.1f}",
        f"PostgreSQL log       {daily:,.0f} writes/day · {log:,.0f} bytes = {daily * log / 1e9:.0f} GB a day,"
        f" {most * log / 1e6:.1f} MB/s at the peak",
        f"provider calls       {writes:,.0f} · {calls:.3f} = {writes * calls / 1e6:.0f} million a month,"
        f" {most * calls:.0f}/s at the peak, {writes * calls / tenants / 30:.0f} a tenant and day",
        f"storage, a day       {daily:,.0f} · {whole:,.0f} bytes = {daily * whole / 1e9:.0f} GB",
        f"kept, (c) 30 days    {daily:,.0f} · {content:,.0f} · 30 = {daily * content * 30 / 1e9:.0f} GB",
        f"kept, (b) 90 days    {daily:,.0f} · {telemetry:,.0f} · 90 = {daily * telemetry * 90 / 1e9:.0f} GB",
        f"in all, (b) and (c)  {daily * kept / 1e9:.0f} GB, and (d) grows by"
        f" {daily * storage.get('d', 0) * 365 / 1e9:.0f} GB a year for 7 years",
    ]
    api_processes, worker_processes = _processes(cores["API"]), _processes(cores["worker"])
    memory = figures["memory_mib"]
    lines += [
        f"processes            {api_processes} API, {worker_processes} worker (a process uses one core)",
        f"connections          {api_processes} · (10 app + 6 scheduler + 2 jobs + 1 signals)"
        f" + {worker_processes} · (10 app + 6 scheduler + 6 jobs + 1 signals)"
        f" = {api_processes * 19 + worker_processes * 23} at most",
        f"memory, processes    {api_processes} · {memory['api']:.0f} + {worker_processes} · {memory['worker']:.0f}"
        f" = {api_processes * memory['api'] + worker_processes * memory['worker']:.0f} MiB",
        "```",
    ]
    return lines


def _processes(cores: float) -> int:
    return max(1, int(cores + 0.999))


def one_machine(figures: dict[str, Any], shares: dict[str, float], peak: float) -> list[str]:
    """What a machine of two cores carries with everything on it."""
    cost = sum(
        shares[way] * figures[way].get(name, 0.0)
        for way in _WAYS
        for name in ("accept_cpu_us", "deliver_cpu_us", "accept_postgres_us", "deliver_postgres_us")
    )
    most = 2 * _USE * 1e6 / cost
    return [
        "```",
        f"all parts, one write {cost:,.0f} µs",
        f"peak                 2 cores · {_USE:g} / {cost:,.0f} µs = {most:.0f} writes/s",
        f"average              {most:.0f} / {peak:g} = {most / peak:.0f} writes/s"
        f" = {most / peak * _MONTH_SECONDS / 1e6:.0f} million writes a month",
        "```",
    ]


def page(figures: dict[str, Any], options: argparse.Namespace) -> str:
    """The measured table and the arithmetic, as they stand in the page."""
    shares = {"waited": options.waited, "live": options.live, "bulk": options.bulk}
    measured = figures["measured"]
    lines = [
        f"Measured on {measured['on']}: {measured['machine']}. `{measured['command']}`",
        "",
        *cost_table(figures),
        "",
        "## 10,000 tenants",
        "",
        *arithmetic(
            figures, tenants=options.tenants, writes=options.writes, peak=options.peak, shares=shares
        ),
        "",
        "## One machine of 2 cores",
        "",
        *one_machine(figures, shares, options.peak),
    ]
    return "\n".join(lines)


def main() -> None:
    """Print, or write into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cost", type=Path, default=_HOME / "cost.json")
    parser.add_argument("--tenants", type=int, default=10_000)
    parser.add_argument("--writes", type=float, default=100e6, help="a month of 30 days")
    parser.add_argument("--peak", type=float, default=5.0, help="times the average")
    for way, share in (("waited", 0.5), ("live", 0.3), ("bulk", 0.2)):
        parser.add_argument(f"--{way}", type=float, default=share, help="share of the writes")
    parser.add_argument(
        "--write", action="store_true", help="replace the part of docs/operations/capacity.md"
    )
    options = parser.parse_args()
    made = page(json.loads(options.cost.read_text(encoding="utf-8")), options)
    if not options.write:
        print(made)
        return
    path = _HOME / "capacity.md"
    before, rest = path.read_text(encoding="utf-8").split(_BEGIN, 1)
    after = rest.split(_END, 1)[1]
    path.write_text(f"{before}{_BEGIN}\n{made}\n{_END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
