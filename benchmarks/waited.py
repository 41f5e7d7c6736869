"""A waited create on an idle lane beside the same call made directly (design 13, row 2).

One client that makes the two by turns: a create through the record API with ``Prefer: wait=10`` (durable accept,
sealing, mapping, lane, delivery, attempt and audit rows, all committed), then the same create sent straight to the same
emulator. So both meet the same machine, and the direct call its provider in the same rhythm. What crmbridge adds is the
difference of the percentiles.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import uuid

from benchmarks.accept import START
from benchmarks.house import free_port, prepared, process, tenant_with, unmetered
from benchmarks.load import line_to, percentile
from crmbridge.drivers import load_emulator

# nango-measured: our strongest peer's proxy, one client, loopback provider, 2026-11-22.
PEER = "14-19 ms p50, 40-92 ms p99 (a proxy without a durable write; measured on 2026-11-22)"


async def measure(requests: int, warm_up: int = 200) -> dict[str, float]:
    """Milliseconds: ours, direct, and what ours adds."""
    kind = load_emulator("rest_api")
    assert kind is not None
    provider = free_port(28000)
    twin = kind()
    twin.base_url = f"http://127.0.0.1:{provider}"
    form = unmetered({**twin.settings(), **twin.secrets()})
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
                key = next(iter(twin.secrets().values()))
                to_ours = f"Authorization: Bearer {token}\r\nPrefer: wait=10\r\n".encode()
                to_provider = f"Authorization: Bearer {key}\r\n".encode()
                async with line_to(ours) as through, line_to(provider) as straight:
                    for number in range(warm_up + requests):
                        fields = {
                            "first_name": "Layla",
                            "email": f"{uuid.uuid4().hex}@example.com",
                            "phone": "+971501234567",
                        }
                        body = json.dumps({"fields": fields, "idempotency_key": uuid.uuid4().hex}).encode()
                        status, seconds = await through.post("/api/tenants/bench/records/lead", to_ours, body)
                        fields["email"] = f"{uuid.uuid4().hex}@example.com"
                        other, other_seconds = await straight.post(
                            "/v1/leads", to_provider, json.dumps(fields).encode()
                        )
                        if status != 201 or other not in (200, 201):
                            raise RuntimeError(f"unexpected answers: {status} {other}")
                        if number >= warm_up:
                            waited.append(seconds)
                            direct.append(other_seconds)
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
    parser.add_argument("--requests", type=int, default=1000, help="of each way")
    options = parser.parse_args()
    figures = asyncio.run(measure(options.requests))
    print("waited create on an idle lane, one client, by turns with the direct call")
    for name, value in figures.items():
        print(f"  {name:20} {value:10.2f}")
    print(f"  goal: adds <= 5 ms p50, <= 25 ms p99; peer: {PEER}")


if __name__ == "__main__":
    main()
