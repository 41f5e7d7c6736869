"""Provider calls for 10,000 leads, counted at each driver's emulator.

Run: ``python -m benchmarks.provider_calls [--records 10000] [--singles 500] [--only odoo]``. Canonical samples go
through the driver's own field map, in batches of the size that the connection gives to a drain
(``Manifest.batch_size``), into ``write_batch``. All calls count, look-ups included; connecting does not. A driver
without leads writes its first object that can be created. A driver without batches is tried with fewer records
(``--singles``); its column "for 10,000" is that measurement scaled, the others are counted whole.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from importlib import import_module
from typing import Any

from rich.console import Console
from rich.table import Table

from crmbridge.conformance import DriverContract
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object
from crmbridge.drivers import DRIVERS

GOALS = {
    ("hubspot", "contact"): 100,
    ("hubspot", "lead"): 200,
    ("salesforce", ""): 50,
    ("zoho", ""): 100,
    ("odoo", ""): 50,
}
VARIANTS = {"hubspot": ({"lead_as": "contact"}, {"lead_as": "lead"})}
WANTED = 10_000


def contract_of(slug: str) -> DriverContract | None:
    """The driver's own statement of its emulator, samples and settings; None for a provider without an API."""
    module = import_module(f"crmbridge.drivers.{slug}.test_{slug}")
    kinds = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, DriverContract) and hasattr(kind, "driver")
    ]
    found = kinds[0]()
    return found if found.emulator is not None else None


def _object(contract: DriverContract) -> Object | None:
    manifest = contract.manifest()
    order = [Object.LEAD, Object.CUSTOMER, *Object]
    return next((one for one in order if manifest.supports(one, Operation.CREATE).is_usable), None)


async def count(
    contract: DriverContract, settings: dict[str, str], obj: Object, size: int, records: int
) -> tuple[int, float]:
    """Calls that reached the emulator, and seconds."""
    bench = await contract.make(settings=settings)
    emulator: Any = bench.emulator
    for quota in emulator.quotas:  # the product would wait: this counts calls, not minutes
        quota.limit = 10**9
    links = await bench.links_for(obj)  # made before the counting: they are other records
    emulator.calls.clear()
    began = time.perf_counter()
    for start in range(0, records, size):
        writes = []
        for number in range(start, min(start + size, records)):
            write = await bench.write(Operation.CREATE, obj, contract.sample(obj, number))
            write.links = links
            writes.append(write)
        results = await bench.open().write_batch(writes)
        if bad := [one.error for one in results if one.outcome is not Outcome.APPLIED]:
            raise SystemExit(f"{type(contract).__name__}: {len(bad)} of {len(writes)} failed: {bad[0]}")
        emulator.requests.clear()
    return emulator.calls.total(), time.perf_counter() - began


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=WANTED, help="for drivers with batches")
    parser.add_argument("--singles", type=int, default=500, help="for drivers without")
    parser.add_argument("--only", choices=sorted(DRIVERS), action="append")
    given = parser.parse_args()
    gc.freeze()
    table = Table(title=f"provider calls for {WANTED:,} leads")
    for name in ("driver", "object", "batch", "records", "calls", "for 10,000", "goal", "reached", "s"):
        table.add_column(name, justify="left" if name in ("driver", "object") else "right")
    for slug in given.only or DRIVERS:
        contract = contract_of(slug)
        obj = _object(contract) if contract is not None else None
        if contract is None or obj is None:
            table.add_row(slug, "-", "-", "-", "-", "-", "", "no API", "")
            continue
        for settings in VARIANTS.get(slug, ({},)):
            size = contract.manifest().batch_size(obj, Operation.CREATE)
            records = given.records if size > 1 else min(given.singles, given.records)
            calls, seconds = await count(contract, settings, obj, size, records)
            scaled = calls * WANTED / records
            goal = GOALS.get((slug, settings.get("lead_as", "")))
            shown = f"{obj.value} ({settings['lead_as']})" if settings else obj.value
            reached = "" if goal is None else "yes" if scaled <= goal else "NO"
            table.add_row(
                slug, shown, str(size), f"{records:,}", f"{calls:,}", f"{scaled:,.0f}", str(goal or ""), reached,
                f"{seconds:.1f}",
            )  # fmt: skip
    Console(width=110).print(table)
    print("goal: hubspot <= 100 (native leads <= 200), salesforce <= 50, zoho <= 100, odoo <= 50")


if __name__ == "__main__":
    asyncio.run(main())
