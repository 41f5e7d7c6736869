"""Durable accept over HTTP, 32 clients, one process, beside a bare handler of the same framework (design 13, row 1).

The floor does one group-committed insert of the same body. Both run in their own process on the same PostgreSQL
(fsync and synchronous_commit on), in turn, round by round; the ratio is taken pair by pair.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import uuid

from benchmarks.house import cpu_seconds, free_port, prepared, process, tenant_with
from benchmarks.load import Burst, burst
from crmbridge.drivers import load_emulator
from crmbridge.emulation.serve import serve_emulators

CLIENTS = 32
START = "from crmbridge.app import main; main()"


def _bodies(run: str, token: str):  # type: ignore[no-untyped-def]
    auth = f"Authorization: Bearer {token}\r\n".encode()

    def request(number: int) -> tuple[bytes, bytes]:
        fields = {
            "first_name": "Layla",
            "last_name": f"Haddad {number}",
            "email": f"layla.{number}@example.com",
            "phone": f"+97150{number % 10_000_000:07d}",
            "budget_max": "1250000",
            "bedrooms": 3,
            "area": "Dubai Marina",
            "message": "Three bedrooms with a view, before summer.",
        }
        body = {"fields": fields, "idempotency_key": f"{run}-{number}"}
        return auth, json.dumps(body).encode()

    return request


async def measure(rounds: int, requests: int) -> dict[str, float]:
    """Medians over the rounds: requests/s of both, their ratio, and our p50 and p99 in milliseconds."""
    emulator_class = load_emulator("custom_webhook")
    assert emulator_class is not None
    emulator = emulator_class()
    served = await serve_emulators({"custom_webhook": emulator})
    async with prepared() as house:
        form = {**emulator.settings(), **emulator.secrets()}
        _, token = await tenant_with(house, "bench", "custom_webhook", form)
        ours, floor = free_port(27000), free_port(27500)
        environment = {**house.environment, "CRMBRIDGE_PORT": str(ours)}
        bare = [house.postgres.admin_dsn, str(floor)]
        async with (
            process("-c", START, "serve", "--no-worker", environment=environment, port=ours) as our_pid,
            process("-m", "benchmarks.bare", *bare, environment=environment, port=floor) as floor_pid,
        ):
            pairs: list[tuple[Burst, Burst]] = []
            cpu: list[tuple[float, float]] = []
            for number in range(rounds + 1):
                request = _bodies(uuid.uuid4().hex, token)
                path = "/api/tenants/bench/records/lead"
                before = cpu_seconds(our_pid), cpu_seconds(floor_pid)
                a = await burst(ours, CLIENTS, requests, request, path=path)
                b = await burst(floor, CLIENTS, requests, request, path="/bare")
                spent = cpu_seconds(our_pid) - before[0], cpu_seconds(floor_pid) - before[1]
                if set(a.statuses) != {202} or set(b.statuses) != {202}:
                    raise RuntimeError(f"unexpected answers: {a.statuses} {b.statuses}")
                if number:  # the first round warms up
                    pairs.append((a, b))
                    cpu.append((spent[0] / requests * 1e6, spent[1] / requests * 1e6))
    await served.close()
    return {
        "ours_per_second": statistics.median(a.per_second for a, _ in pairs),
        "floor_per_second": statistics.median(b.per_second for _, b in pairs),
        "ratio": statistics.median(a.per_second / b.per_second for a, b in pairs),
        "ours_p50_ms": statistics.median(a.milliseconds(50) for a, _ in pairs),
        "ours_p99_ms": statistics.median(a.milliseconds(99) for a, _ in pairs),
        "ours_cpu_us": statistics.median(a for a, _ in cpu),
        "floor_cpu_us": statistics.median(b for _, b in cpu),
        "floor_p99_ms": statistics.median(b.milliseconds(99) for _, b in pairs),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=4000, help="per round and server")
    options = parser.parse_args()
    figures = asyncio.run(measure(options.rounds, options.requests))
    print("accept over HTTP, 32 clients, one process")
    for name, value in figures.items():
        print(f"  {name:20} {value:10.2f}")
    print("  goal: ratio >= 0.5, p99 <= 25 ms")


if __name__ == "__main__":
    main()
