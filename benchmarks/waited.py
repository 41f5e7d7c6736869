"""A waited create on an idle lane beside the same call made directly (design 13, row 2).

One client, one request at a time: first the record API with ``Prefer: wait=10`` (durable accept, sealing, mapping,
lane, delivery, attempt and audit rows, all committed), then the same create sent straight to the same emulator.
What crmbridge adds is the difference of the percentiles.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import uuid

from benchmarks.accept import START
from benchmarks.house import free_port, prepared, process, tenant_with, unmetered
from benchmarks.load import burst, percentile
from crmbridge.drivers import load_emulator

# nango-measured: our strongest peer's proxy, one client, loopback provider, 2026-11-22.
PEER = "14-19 ms p50, 40-92 ms p99 (a proxy without a durable write; measured on 2026-11-22)"


async def measure(rounds: int, requests: int) -> dict[str, float]:
    """Milliseconds: ours, direct, and what ours adds."""
    kind = load_emulator("rest_api")
    assert kind is not None
    provider = free_port(28000)
    twin = kind()
    twin.base_url = f"http://127.0.0.1:{provider}"
    form = unmetered({**twin.settings(), **twin.secrets()})
    bearer = twin.secrets()
    async with prepared() as house:
        environment = house.environment
        async with process(
            "-m", "benchmarks.emulator", "rest_api", str(provider), environment=environment, port=provider
        ):
            _, token = await tenant_with(house, "bench", "rest_api", form)
            ours = free_port(27000)
            environment = {**environment, "CRMBRIDGE_PORT": str(ours)}
            async with process("-c", START, "serve", environment=environment, port=ours):
                waited: list[float] = []
                direct: list[float] = []
                for number in range(rounds + 1):
                    run = uuid.uuid4().hex

                    def through(n: int, run: str = run) -> tuple[bytes, bytes]:
                        fields = {
                            "first_name": "Layla",
                            "email": f"l{n}@example.com",
                            "phone": "+971501234567",
                        }
                        body = {"fields": fields, "idempotency_key": f"{run}{n}"}
                        head = f"Authorization: Bearer {token}\r\nPrefer: wait=10\r\n"
                        return head.encode(), json.dumps(body).encode()

                    def straight(n: int, run: str = run) -> tuple[bytes, bytes]:
                        body = {
                            "first_name": "Layla",
                            "email": f"d{run}{n}@example.com",
                            "phone": "+971501234567",
                        }
                        key = next(iter(bearer.values()))
                        return f"Authorization: Bearer {key}\r\n".encode(), json.dumps(body).encode()

                    a = await burst(ours, 1, requests, through, path="/api/tenants/bench/records/lead")
                    b = await burst(provider, 1, requests, straight, path="/v1/leads")
                    if set(a.statuses) != {201} or not set(b.statuses) <= {200, 201}:
                        raise RuntimeError(f"unexpected answers: {a.statuses} {b.statuses}")
                    if number:
                        waited += a.latencies
                        direct += b.latencies
    return {
        "waited_p50_ms": percentile(waited, 50) * 1000,
        "waited_p99_ms": percentile(waited, 99) * 1000,
        "direct_p50_ms": percentile(direct, 50) * 1000,
        "direct_p99_ms": percentile(direct, 99) * 1000,
        "adds_p50_ms": (percentile(waited, 50) - percentile(direct, 50)) * 1000,
        "adds_p99_ms": (percentile(waited, 99) - percentile(direct, 99)) * 1000,
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=200, help="per round and way")
    options = parser.parse_args()
    figures = asyncio.run(measure(options.rounds, options.requests))
    print("waited create on an idle lane, one client")
    for name, value in figures.items():
        print(f"  {name:20} {value:10.2f}")
    print(f"  goal: adds <= 5 ms p50, <= 25 ms p99; peer: {PEER}")


if __name__ == "__main__":
    main()
