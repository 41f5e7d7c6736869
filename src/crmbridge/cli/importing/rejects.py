"""The file of rejected rows, which people open in a spreadsheet, repair and import again.

Columns: ``line``, ``reason``, the original columns, ``raw`` (the text of a row that could not be split). A cell
that a spreadsheet would take for a formula gets a single quote in front: one that starts, after blanks, with
``=``, ``+``, ``-``, ``@`` (or their full-width forms), or that starts with a tab or a line end (OWASP, CSV
injection). The one exception is what looks like a phone number and nothing else (``+`` and digits with blanks,
dots, dashes, slashes, parentheses): it stays as it is, and as a formula could only be a sum of numbers.
:func:`bare_cell` takes the quote away again when a rejects file is read.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, TextIO

__all__ = ["Rejects", "bare_cell", "safe_cell"]

_STARTS: Final = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_LINE_STARTS: Final = ("\t", "\r", "\n")
_PHONE: Final = re.compile(r"\+[0-9(][0-9 ().\-/]{4,24}")


def _formula(cell: str) -> bool:
    if cell.startswith(_LINE_STARTS):
        return True
    return cell.lstrip().startswith(_STARTS) and _PHONE.fullmatch(cell) is None


def safe_cell(cell: str) -> str:
    """``cell``, with a single quote in front if a spreadsheet could run it (or if :func:`bare_cell` would cut it)."""
    return f"'{cell}" if _formula(cell.lstrip("'")) else cell


def bare_cell(cell: str) -> str:
    """What :func:`safe_cell` was given."""
    return cell[1:] if cell.startswith("'") and _formula(cell.lstrip("'")) else cell


class Rejects:
    """Writes ``<file>.rejects.csv`` beside an import file; a context manager.

    The file is UTF-8 with a byte order mark, uses the delimiter of the import, is readable by its owner only
    and is made with the first rejected row. An older one is removed at once, unless ``append`` (a resumed
    import). Raises ``OSError``, also when the path is a symbolic link.
    """

    def __init__(
        self, source: Path, headers: Sequence[str], *, delimiter: str | None = ",", append: bool = False
    ) -> None:
        self.path = source.with_name(source.name + ".rejects.csv")
        self.count = 0
        """Rows written by this object."""
        self._headers = tuple(headers)
        self._delimiter = delimiter or ","
        self._file: TextIO | None = None
        if not append:
            self.path.unlink(missing_ok=True)

    def write(
        self, line: int, reason: str, *, values: Mapping[str, str] | None = None, raw: str = ""
    ) -> None:
        """Adds one row: its cells by header, or its text if it could not be split."""
        cells = [str(line), reason, *((values or {}).get(header, "") for header in self._headers), raw]
        self._write(cells)
        self.count += 1

    def flush(self) -> None:
        """Puts all rows so far on the disk (before a resume mark is moved past them)."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file, if there is one."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Rejects:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, cells: list[str]) -> None:
        if self._file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
            self._file = os.fdopen(os.open(self.path, flags, 0o600), "w", encoding="utf-8", newline="")
            if os.fstat(self._file.fileno()).st_size == 0:
                self._file.write("\ufeff")
                self._row(["line", "reason", *self._headers, "raw"])
        self._row(cells)

    def _row(self, cells: list[str]) -> None:
        assert self._file is not None
        writer = csv.writer(
            self._file, delimiter=self._delimiter, quoting=csv.QUOTE_ALL, lineterminator="\r\n"
        )
        writer.writerow([safe_cell(cell) for cell in cells])
