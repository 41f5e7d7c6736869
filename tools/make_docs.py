"""Writes docs/reference and the generated part of the README from the code. ``--check`` fails when one is stale."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # so that `python tools/make_docs.py` finds tools.reference

from tools.reference import pages  # noqa: E402
from tools.reference.drivers import driver_page, drivers_page, matrix  # noqa: E402
from tools.reference.retries import retries_page  # noqa: E402

from crmbridge.drivers import DRIVERS  # noqa: E402

REFERENCE = ROOT / "docs" / "reference"
BEGIN, END = "<!-- generated: drivers -->", "<!-- end of generated -->"

PAGES: dict[str, Callable[[], str]] = {
    "drivers.md": drivers_page,
    "errors.md": pages.errors_page,
    "layers.md": pages.layers_page,
    "retries.md": retries_page,
    "settings.md": pages.settings_page,
    "slots.md": pages.slots_page,
    "states.md": pages.states_page,
    **{f"drivers/{slug}.md": partial(driver_page, slug) for slug in sorted(DRIVERS)},
}


def readme() -> str:
    """The README with its matrix brought up to date."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{matrix('docs/reference/drivers')}{END}{after}"


def main() -> int:
    """Write all pages, or with --check name the stale ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a page is stale")
    only_check = parser.parse_args().check
    wanted = {REFERENCE / name: page() for name, page in PAGES.items()} | {ROOT / "README.md": readme()}
    stale = [
        path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    left = [path for path in sorted((REFERENCE / "drivers").glob("*.md")) if path not in wanted]
    if only_check and (stale or left):
        print(
            "stale: " + ", ".join(str(path.relative_to(ROOT)) for path in stale + left) + "\nrun: make docs"
        )
        return 1
    if not only_check:
        for path in stale:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path], encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
        for path in left:
            path.unlink()
            print(f"removed {path.relative_to(ROOT)}: there is no such driver")
    return 0


if __name__ == "__main__":
    sys.exit(main())
