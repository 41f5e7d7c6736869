"""The file of rejected rows."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.cli.importing.rejects import Rejects, bare_cell, safe_cell
from crmbridge.cli.importing.rows import BadRow, Row, open_rows


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1",
        "+cmd|' /C calc'!A0",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        "\uff1d1",
        "+1;=x",
        "-",
        "+A1+971",
    ],
)
def test_cell_when_a_spreadsheet_could_run_it_then_gets_a_quote(cell: str) -> None:
    assert safe_cell(cell) == "'" + cell


@pytest.mark.parametrize(
    "cell", ["+971501234567", "+49 (0)30 23125-123", "+1.212.555.0123", "Zoë", "", "a=b", "'tis"]
)
def test_cell_when_harmless_then_stays(cell: str) -> None:
    assert safe_cell(cell) == cell


@given(st.one_of(st.text(), st.text("'=+-@\t 1a", max_size=8)))
def test_cell_when_made_safe_and_bare_then_is_the_same(cell: str) -> None:
    safe = safe_cell(cell)
    assert bare_cell(safe) == cell
    assert not safe.lstrip().startswith(("=", "-", "@"))


def test_rejects_when_written_then_can_be_imported_again(tmp_path: Path) -> None:
    source = tmp_path / "leads.csv"
    source.write_text('Name;Phone\n=evil;+971501234567\nonly one\n"x\ny";call me\n')
    with open_rows(source) as reader, Rejects(source, reader.headers, delimiter=reader.delimiter) as rejects:
        for row in reader:
            if isinstance(row, BadRow):
                rejects.write(row.line, row.reason, raw=row.raw)
            else:
                rejects.write(row.line, "no phone number", values=row.values)
        rejects.flush()
        assert rejects.count == 3
    assert stat.S_IMODE(rejects.path.stat().st_mode) == 0o600
    text = rejects.path.read_text(encoding="utf-8-sig")
    assert text.splitlines()[0] == '"line";"reason";"Name";"Phone";"raw"'
    assert '"\'=evil";"+971501234567"' in text
    with open_rows(rejects.path) as again:
        assert again.headers == ("Name", "Phone")
        first, second, third = again
    assert isinstance(first, Row) and first.values == {"Name": "=evil", "Phone": "+971501234567"}
    assert isinstance(second, BadRow) and second.raw == "only one" and "raw" in second.reason
    assert isinstance(third, Row) and third.values["Name"] == "x\ny"


def test_rejects_when_nothing_is_rejected_then_no_file_and_the_old_one_is_gone(tmp_path: Path) -> None:
    source = tmp_path / "leads.csv"
    old = tmp_path / "leads.csv.rejects.csv"
    old.write_text("old")
    Rejects(source, ["a"]).close()
    assert not old.exists()


def test_rejects_when_resumed_then_appends_under_one_header(tmp_path: Path) -> None:
    source = tmp_path / "leads.csv"
    for line in (2, 3):
        with Rejects(source, ["a"], append=line == 3) as rejects:
            rejects.write(line, "why", values={"a": "x"})
    lines = rejects.path.read_text(encoding="utf-8-sig").splitlines()
    assert [text.split(",")[0] for text in lines] == ['"line"', '"2"', '"3"']
