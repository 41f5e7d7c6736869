"""Every driver is documented under the same headings, and the generated pages tell what the manifests say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tools.reference.drivers import SECTIONS, driver_page, drivers_page, matrix
from tools.reference.notes import HEADINGS, problems_of, sections_of

from crmbridge.core.matrix import matrix_row
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object
from crmbridge.drivers import DRIVERS, load

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "src" / "crmbridge" / "drivers"


@pytest.mark.parametrize("slug", sorted(DRIVERS))
def test_notes_when_read_then_they_have_the_agreed_headings(slug: str) -> None:
    assert problems_of(FOLDER / slug / "NOTES.md") == []


@pytest.mark.parametrize("slug", sorted(DRIVERS))
def test_page_when_made_then_has_all_headings_in_order_and_every_setting_and_object(slug: str) -> None:
    page = driver_page(slug)
    without_code = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    assert tuple(re.findall(r"^## (.+)$", without_code, re.MULTILINE)) == SECTIONS
    manifest = load(slug).MANIFEST
    assert all(f"`{setting.name}`" in page for setting in manifest.settings)
    assert all(f"| {obj.value} |" in page for obj in manifest.objects)
    assert "Nothing to tell." not in page


@pytest.mark.parametrize("slug", sorted(DRIVERS))
def test_page_when_an_operation_is_not_full_then_its_reason_stands_there(slug: str) -> None:
    manifest, page = load(slug).MANIFEST, driver_page(slug)
    for obj in manifest.objects:
        for operation in (Operation.GET, Operation.CREATE, Operation.UPSERT, Operation.DELETE):
            support = manifest.supports(obj, operation)
            assert not support.reason or support.reason in page, (obj, operation)


def test_matrix_when_made_then_one_row_per_driver_with_the_derived_columns() -> None:
    lines = matrix("x").splitlines()[2:]
    assert len(lines) == len(DRIVERS)
    for line, slug in zip(lines, sorted(DRIVERS), strict=True):
        told = matrix_row(load(slug).MANIFEST)
        assert f"(x/{slug}.md)" in line
        if told.is_available:
            for cell in (told.auth, told.renewal, told.delete_text(), str(told.largest_batch)):
                assert f"| {cell} |" in line


def test_overview_when_made_then_every_object_of_every_available_driver_has_a_row() -> None:
    page = drivers_page()
    for slug in DRIVERS:
        rows = page.count(f"| [{slug}](drivers/{slug}.md) |")
        assert rows == (0 if load(slug).MANIFEST.why_unavailable else len(Object))


def test_links_when_relative_then_their_targets_are_there() -> None:
    broken = []
    for page in [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if (
                not target.startswith(("http://", "https://", "mailto:"))
                and not (page.parent / target).exists()
            ):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []


def test_generator_when_run_twice_then_the_same_and_quick() -> None:
    pages = {slug: driver_page(slug) for slug in DRIVERS}
    assert pages == {slug: driver_page(slug) for slug in DRIVERS}
    # Another hash seed is another order of sets.
    code = "from tools.reference.drivers import drivers_page; print(drivers_page(), end='')"
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == drivers_page()


def test_notes_problems_when_headings_are_missing_moved_or_empty_then_each_is_told(tmp_path: Path) -> None:
    notes = tmp_path / "NOTES.md"
    assert problems_of(notes) == ["NOTES.md is missing"]
    whole = "# X\n\n" + "".join(f"## {heading}\ntext\n\n" for heading in HEADINGS)
    notes.write_text(whole)
    assert problems_of(notes) == []
    notes.write_text(whole.replace("## Limits\ntext\n\n", "") + "## Errors\ntext\n")
    assert problems_of(notes) == [
        "write '## Limits'",
        "move '## Errors' under one of the agreed headings, as '###'",
    ]
    notes.write_text(whole.replace("## Erasure\ntext", "## Erasure\n").replace("# X", "X", 1))
    assert problems_of(notes) == ["'## Erasure' has no text", "begin with '# <display name>'"]
    notes.write_text(whole.replace("## Erasure", "## Removal!").replace("Removal!", "Erasure") + "FILL IN")
    assert problems_of(notes) == ["FILL IN still stands in it"]


def test_notes_sections_when_a_code_block_holds_a_heading_then_it_is_no_section(tmp_path: Path) -> None:
    notes = tmp_path / "NOTES.md"
    notes.write_text("# X\n## Fields\n```\n## no heading\n```\n### detail\n## Limits\nnone\n")
    assert sections_of(notes) == {"Fields": "```\n## no heading\n```\n### detail", "Limits": "none"}
