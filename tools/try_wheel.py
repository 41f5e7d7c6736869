"""Builds the wheel and tries it without the source beside it: data files in, tests and fixtures out."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
_TRY = """
import crmbridge, sys
from crmbridge.drivers import DRIVERS, load, load_emulator
from crmbridge.console.rendering import asset, render
from crmbridge.core.errors import NotFound
from crmbridge.toolkit.fieldmap import load_fields
assert "src" not in crmbridge.__file__, crmbridge.__file__
for slug in sorted(DRIVERS):
    driver = load(slug)
    if driver.MANIFEST.why_unavailable:
        continue
    load_fields(driver)
    load_emulator(slug)().settings()
nobody = type("Nobody", (), {"session": None, "flash": None})
assert asset("style.css")[0] and "<h1>" in render("error.html", visit=nobody, error=NotFound("x"), is_admin=False)
print("the wheel works:", crmbridge.__version__, ", ".join(sorted(DRIVERS)))
"""


def main() -> int:
    """Exit 0 when the wheel is whole."""
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, str(ROOT)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        wheel = next(Path(folder).glob("*.whl"))
        names = zipfile.ZipFile(wheel).namelist()
        wanted = ["crmbridge/py.typed", "crmbridge/db/migrations/0001_create_ground.sql"]
        wanted += ["crmbridge/console/style.css", "crmbridge/console/icon.svg"]
        wanted += [
            f"crmbridge/console/templates/{path.name}"
            for path in ROOT.glob("src/crmbridge/console/templates/*.html")
        ]
        wanted += [
            f"crmbridge/{path.relative_to(ROOT / 'src/crmbridge')}"
            for path in ROOT.glob("src/crmbridge/services/**/*.sql")
        ]
        wanted += [
            f"crmbridge/drivers/{path.parent.name}/fields.toml"
            for path in ROOT.glob("src/crmbridge/drivers/*/fields.toml")
        ]
        missing = [name for name in wanted if name not in names]
        unwanted = [name for name in names if "/fixtures/" in name or "/test_" in name]
        if missing or unwanted:
            print(f"missing: {missing}\nunwanted: {unwanted}")
            return 1
        site = Path(folder) / "site"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        # The extracted wheel comes before the editable install on the path.
        code = f"import sys; sys.path.insert(0, {str(site)!r})\n{_TRY}"
        return subprocess.run([sys.executable, "-P", "-c", code], cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
