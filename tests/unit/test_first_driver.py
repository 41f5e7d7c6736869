"""docs/tutorial/first-driver.md, executed: its blocks go into a scaffold, and the suite is as red as it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial" / "first-driver.md"
TOOL = ROOT / "tools" / "new_driver.py"
SLUG = "pipedrive"


class Step(msgspec.Struct, frozen=True):
    """``verb`` is write, append (of ``name``, with ``text``), red (``text``: test names by line) or green."""

    verb: str
    name: str
    text: str


def steps(page: str) -> Iterator[Step]:
    """What the marked blocks and tables of the page ask for, in order."""
    block = r"<!-- (write|append): (\S+) -->\n```\w+\n(.*?)\n```\n"
    table = r"<!-- (red) -->\n((?:\|[^\n]*\n)+)"
    for found in re.finditer(f"{block}|{table}|<!-- (green) -->", page, re.DOTALL):
        verb, name, text, red, rows, green = found.groups()
        if red:
            yield Step("red", "", "\n".join(re.findall(r"^\| `(\w+)` \|", rows, re.MULTILINE)))
        else:
            yield Step(verb or green, name or "", f"{text}\n" if verb else "")


def house(folder: Path) -> Path:
    """A copy of the source, so that nothing is written into the real one."""
    keep_out = shutil.ignore_patterns("fixtures", "test_*.py")  # compiled files come along: quicker
    shutil.copytree(ROOT / "src", folder / "src", ignore=keep_out)
    shutil.copy(ROOT / "pyproject.toml", folder / "pyproject.toml")
    return folder


def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOOL), *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def run_python(*arguments: str, folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    """``python -m …`` there; pytest loads only the plugins that the suites need, for others take seconds."""
    environment = {**os.environ, "PYTHONPATH": path, "MYPYPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=110
    )


def failing(folder: Path, suite: str, path: str) -> set[str]:
    """The names of the failing tests; raises when the suite could not run at all."""
    plugins = ("-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin", "-p", "pytest_timeout")
    done = run_python("pytest", "-q", "--tb=no", "--assert=plain", *plugins, suite, folder=folder, path=path)
    names = set(re.findall(r"^FAILED \S+::(\w+)", done.stdout, re.MULTILINE))
    ran = re.search(r"(\d+) (?:passed|failed)", done.stdout)
    assert ran and "error" not in done.stdout.splitlines()[-1], done.stdout[-3000:] + done.stderr
    assert done.returncode == (1 if names else 0), done.stdout[-3000:]
    return names


def clean(files: Path, folder: Path, path: str, *, is_typed: bool = True) -> None:
    """Formatted, linted and strictly typed (asked once for the same text: it takes a while)."""
    for arguments in (("ruff", "format", "--check"), ("ruff", "check")):
        done = run_python(*arguments, "--no-cache", str(files), folder=folder, path=path)
        assert done.returncode == 0, done.stdout + done.stderr
    if not is_typed:
        return
    done = run_python("mypy", "--cache-dir", str(folder / ".mypy"), str(files), folder=folder, path=path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_tutorial_when_followed_then_red_as_told_and_green_at_the_end(tmp_path: Path) -> None:
    folder = house(tmp_path)
    path = str(folder / "src")
    assert tool(SLUG, "--root", str(folder)).returncode == 0
    driver = folder / "src" / "crmbridge" / "drivers" / SLUG
    clean(driver, folder, path)
    checks: list[tuple[str, set[str]]] = []
    for step in steps(TUTORIAL.read_text(encoding="utf-8")):
        if step.verb in ("write", "append"):
            place = driver / step.name
            place.parent.mkdir(exist_ok=True)
            before = f"{place.read_text(encoding='utf-8')}\n" if step.verb == "append" else ""
            place.write_text(before + step.text, encoding="utf-8")
        else:
            told = set(step.text.split())
            assert failing(folder, str(driver), path) == told, f"check {len(checks) + 1} of the tutorial"
            checks.append((step.verb, told))
    assert [verb for verb, _ in checks] == ["red"] * 5 + ["green"]
    assert len(checks[0][1]) == 10
    clean(driver, folder, path)


@pytest.mark.timeout(300)
def test_outside_package_when_made_of_the_tutorial_then_its_suite_and_the_command_are_green(
    tmp_path: Path,
) -> None:
    own = tmp_path / "own"
    assert tool(SLUG, "--outside", str(own)).returncode == 0
    package = own / "src" / f"crmbridge_{SLUG}"
    path = f"{own / 'src'}{os.pathsep}{ROOT / 'src'}"
    clean(package, own, path, is_typed=False)
    assert len(failing(own, "src", path)) == 10
    for step in steps(TUTORIAL.read_text(encoding="utf-8")):
        if step.verb in ("write", "append"):
            text = step.text.replace(f"crmbridge.drivers.{SLUG}", f"crmbridge_{SLUG}")
            place = package / step.name
            before = f"{place.read_text(encoding='utf-8')}\n" if step.verb == "append" else ""
            place.write_text(before + text, encoding="utf-8")
    assert failing(own, "src", path) == set()
    # Installed, as far as Python can tell: the entry point of the package's own pyproject.
    entry = re.search(
        r'^\[project\.entry-points\."(.+)"\]\n(\w+) = "(.+)"', (own / "pyproject.toml").read_text(), re.M
    )
    assert entry is not None
    info = own / "src" / f"crmbridge_{SLUG}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: crmbridge-{SLUG}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[{entry[1]}]\n{entry[2]} = {entry[3]}\n")
    code = f"from crmbridge.app import main; import sys; sys.argv[1:] = ['conformance', '{SLUG}']; main()"
    (tmp_path / "command.py").write_text(code)
    done = run_python("command", folder=tmp_path, path=f"{tmp_path}{os.pathsep}{path}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 gap" in done.stdout, "the contract of the package's own test file is used, its gap included"


@pytest.mark.parametrize("page", [TUTORIAL.read_text(encoding="utf-8")])
def test_tutorial_when_read_then_names_no_class_of_the_driver_in_the_emulator(page: str) -> None:
    emulator = next(step.text for step in steps(page) if step.name == "emulator.py")
    assert "toolkit" not in emulator and ".driver import" not in emulator and "MANIFEST" not in emulator
