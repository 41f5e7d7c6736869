"""All benchmarks that need nothing from outside, small, one after another: ``make bench``."""

from __future__ import annotations

import subprocess
import sys

COMMANDS = (
    ("benchmarks.accept", "--rounds", "3", "--requests", "3000"),
    ("benchmarks.waited", "--requests", "400"),
    ("benchmarks.delivery", "--records", "4000"),
    ("benchmarks.driver_cpu", "--rounds", "3", "--singles", "100", "--batches", "5"),
    ("benchmarks.provider_calls", "--records", "2000", "--singles", "50"),
    ("benchmarks.cold_start", "--processes", "5"),
    ("benchmarks.serve_memory", "--writes", "20000"),
    ("benchmarks.deep", "--records", "1500", "--rounds", "2"),
    ("benchmarks.tenants", "--tenants", "1000", "--rounds", "1"),
    ("benchmarks.population", "--tenants", "1000", "--rounds", "1", "--requests", "100", "--idle", "10"),
    ("benchmarks.cost", "--tenants", "500", "--waited", "200", "--bulk", "4000"),
)


def main() -> int:
    """Run each in a process of its own; the first failure ends it."""
    for module, *options in COMMANDS:
        done = subprocess.run([sys.executable, "-m", module, *options], check=False)
        if done.returncode:
            return done.returncode
    print("benchmarks.odoo_records needs a real Odoo: see tools/real_odoo")
    return 0


if __name__ == "__main__":
    sys.exit(main())
