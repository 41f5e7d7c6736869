"""tools/new_driver.py: what it writes, what it refuses, and that nothing is half written."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
REGISTRY = "src/crmbridge/drivers/__init__.py"
FILES = {
    "NOTES.md", "__init__.py", "driver.py", "emulator.py", "fields.toml", "fixtures/README.md", "test_pipedrive.py"
}  # fmt: skip


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("new_driver", ROOT / "tools" / "new_driver.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = _tool()
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """As much of the source as the tool looks at."""
    root = tmp_path / "house"
    for name in (
        REGISTRY,
        "src/crmbridge/_version.py",
        "src/crmbridge/core/driver.py",
        "src/crmbridge/core/ids.py",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    return root


@pytest.fixture
def run(house: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = TOOL.main([*arguments, "--root", str(house)])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


def _tree(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def _slugs(registry: str) -> list[str]:
    table = next(
        node.value
        for node in ast.walk(ast.parse(registry))
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "DRIVERS"
    )
    return list(ast.literal_eval(table))  # type: ignore[arg-type]


def test_scaffold_when_made_then_the_folder_and_one_alphabetical_line(house: Path, run: Run) -> None:
    before = _tree(house)
    code, out, _ = run("pipedrive")
    after = _tree(house)
    assert code == 0
    folder = "src/crmbridge/drivers/pipedrive/"
    assert {name.removeprefix(folder) for name in after.keys() - before.keys()} == FILES
    assert {name for name in before if after[name] != before[name]} == {REGISTRY}
    slugs = _slugs(after[REGISTRY])
    assert slugs == sorted([*_slugs(before[REGISTRY]), "pipedrive"])
    added = [line for line in after[REGISTRY].splitlines() if line not in before[REGISTRY].splitlines()]
    assert added == ['    "pipedrive": "crmbridge.drivers.pipedrive.driver:Pipedrive",']
    assert "undo: rm -r src/crmbridge/drivers/pipedrive" in out and "next: " in out


def test_scaffold_when_undone_as_told_then_the_house_is_as_before(house: Path, run: Run) -> None:
    before = _tree(house)
    _, out, _ = run("pipedrive")
    undo = next(line for line in out.splitlines() if line.startswith("undo: ")).removeprefix("undo: ")
    command, _, rest = undo.partition(", and take the line ")
    subprocess.run(command.split(), cwd=house, check=True)
    line, _, place = rest.partition(" out of ")
    text = (house / place).read_text()
    (house / place).write_text(
        "".join(each for each in text.splitlines(keepends=True) if f"{line}:" not in each)
    )
    assert _tree(house) == before


@pytest.mark.parametrize(
    ("slug", "klass", "display"),
    [("pipedrive", "Pipedrive", "Pipedrive"), ("close_crm", "CloseCrm", "Close Crm")],
)
def test_scaffold_when_made_then_names_follow_the_slug(
    house: Path, run: Run, slug: str, klass: str, display: str
) -> None:
    run(slug)
    tree = _tree(house / "src/crmbridge/drivers" / slug)
    assert f"class {klass}(RestDriver)" in tree["driver.py"] and f'slug="{slug}"' in tree["driver.py"]
    assert f"class {klass}Emulator(Emulator)" in tree["emulator.py"]
    assert f"class Test{klass}(DriverContract)" in tree[f"test_{slug}.py"]
    assert tree["NOTES.md"].startswith(f"# {display}\n")
    assert all("$" not in text for text in tree.values())


def test_scaffold_when_a_display_name_is_given_then_it_is_shown(house: Path, run: Run) -> None:
    assert run("followup_boss", "--display", "Follow Up Boss & Sons")[0] == 0
    tree = _tree(house / "src/crmbridge/drivers/followup_boss")
    assert 'display_name="Follow Up Boss & Sons"' in tree["driver.py"]


@pytest.mark.parametrize("display", ['Bad"Name', "a\nb", "x" * 61, "back\\slash"])
def test_display_name_when_it_could_break_the_code_then_refused(house: Path, run: Run, display: str) -> None:
    before = _tree(house)
    code, _, told = run("pipedrive", "--display", display)
    assert code == 2 and "cannot be a display name" in told and _tree(house) == before


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Pipedrive", "lower-case letters"),
        ("pipe-drive", "lower-case letters"),
        ("../etc", "lower-case letters"),
        ("1crm", "a letter first"),
        ("a__b", "single underscores"),
        ("x" * 31, "at most 30"),
        ("", "cannot be a slug"),
        ("class", "a word of Python"),
        ("match", "a word of Python"),
        ("lead", "a word of crmbridge itself"),
        ("manager", "a word of crmbridge itself"),
        ("odoo", "a driver 'odoo' already"),
        ("transport", "is used as a word in the code (src/crmbridge/core/driver.py"),
    ],
)
def test_name_when_it_cannot_be_a_slug_then_refused_with_the_reason_and_nothing_written(
    house: Path, run: Run, name: str, told: str
) -> None:
    before = _tree(house)
    code, out, err = run(name)
    assert (code, out) == (2, "") and told in err and "Traceback" not in err
    assert _tree(house) == before


def test_folder_when_it_exists_already_then_refused_and_untouched(house: Path, run: Run) -> None:
    mine = house / "src/crmbridge/drivers/pipedrive/driver.py"
    mine.parent.mkdir()
    mine.write_text("mine")
    before = _tree(house)
    code, _, told = run("pipedrive")
    assert code == 2 and "exists already" in told and _tree(house) == before


def test_scaffold_when_made_twice_then_the_second_is_refused(house: Path, run: Run) -> None:
    run("pipedrive")
    before = _tree(house)
    code, _, told = run("pipedrive")
    assert code == 2 and "a driver 'pipedrive' already" in told and _tree(house) == before


def test_registry_when_it_has_another_shape_then_refused_before_anything_is_written(
    house: Path, run: Run
) -> None:
    (house / REGISTRY).write_text("DRIVERS = load_all()\n")
    before = _tree(house)
    code, _, told = run("pipedrive")
    assert code == 2 and "no table DRIVERS" in told and _tree(house) == before


def test_dry_run_when_asked_then_tells_the_files_and_writes_none(house: Path, run: Run) -> None:
    before = _tree(house)
    code, out, _ = run("pipedrive", "--dry-run")
    assert code == 0 and _tree(house) == before
    assert all(name in out for name in FILES) and "nothing was written" in out


def test_outside_when_asked_then_a_package_with_an_entry_point_and_the_house_untouched(
    house: Path, run: Run, tmp_path: Path
) -> None:
    before, own = _tree(house), tmp_path / "own"
    code, out, _ = run("close", "--outside", str(own))  # inside, this word of the code would be refused
    assert code == 0 and _tree(house) == before
    tree = _tree(own)
    assert {
        "pyproject.toml",
        "README.md",
        "src/crmbridge_close/driver.py",
        "src/crmbridge_close/test_close.py",
    } < set(tree)
    project = tomllib.loads(tree["pyproject.toml"])["project"]
    assert project["entry-points"] == {"crmbridge.drivers": {"close": "crmbridge_close.driver:Close"}}
    assert project["name"] == "crmbridge-close"
    assert "crmbridge.drivers.close" not in "".join(tree.values())
    assert f"undo: rm -r {own}" in out


def test_outside_when_the_folder_holds_files_of_that_name_then_refused(
    house: Path, run: Run, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "pyproject.toml").write_text("mine")
    code, _, told = run("pipedrive", "--outside", str(own))
    assert code == 2 and "exist already" in told and _tree(own) == {"pyproject.toml": "mine"}


def test_outside_when_our_name_is_taken_or_inside_the_source_then_refused(house: Path, run: Run) -> None:
    assert "a driver 'odoo' already" in run("odoo", "--outside", str(house / "own"))[2]
    assert "folder of its own" in run("pipedrive", "--outside", str(house / "src" / "own"))[2]


def test_make_target_when_run_dry_then_the_tool_is_called_with_the_name() -> None:
    shown = subprocess.run(
        ["make", "-n", "new-driver", "NAME=pipedrive", "DRY_RUN=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "tools/new_driver.py pipedrive" in shown.stdout and "--dry-run" in shown.stdout
