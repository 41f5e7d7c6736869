"""Reading an import file (CSV or JSON Lines) row by row, as hostile input, in constant memory.

What is wrong with one row makes a :class:`BadRow` with the reason and reading goes on; what is wrong with the
file makes an :class:`~crmbridge.cli.importing.encodings.UnreadableFile` before the first row. CSV is RFC 4180 with a
comma, semicolon, tab or pipe, strict about quotes: a quote that is opened and not closed spoils one line, not
the rest of the file. No reason holds anything of the row's content.
"""

from __future__ import annotations

import csv
import io
import json
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

import msgspec

from crmbridge.cli.importing.cells import clean_value
from crmbridge.cli.importing.encodings import Encoding, UnreadableFile, find_encoding
from crmbridge.cli.importing.headers import parse_map_option, suggest_mapping
from crmbridge.cli.importing.rejects import Rejects, bare_cell

__all__ = [
    "MAX_CELL",
    "MAX_COLUMNS",
    "MAX_ROW",
    "MAX_ROW_LINES",
    "BadRow",
    "Rejects",
    "Row",
    "RowReader",
    "UnreadableFile",
    "clean_value",
    "open_rows",
    "parse_map_option",
    "suggest_mapping",
]

MAX_CELL: Final = 100_000
"""Characters in one cell."""
MAX_ROW: Final = 1_000_000
"""Characters in one row, line ends included."""
MAX_ROW_LINES: Final = 1_000
"""Lines that one row may span."""
MAX_COLUMNS: Final = 1_000
MAX_OPEN_QUOTES: Final = 1_000
"""Rows with a quote that never ends, after which the file is given up."""
DELIMITERS: Final = (",", ";", "\t", "|")

_SNIFFED: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the number of its first line (from 1) and its cells by header; a missing JSON key is ``""``."""

    line: int
    values: dict[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not be split into cells: its first line, its text (cut at ``MAX_ROW``), and why."""

    line: int
    raw: str = field(repr=False)
    reason: str


class _Line(NamedTuple):
    text: str
    cut: bool  # longer than MAX_ROW; the rest was passed over


class _RowTooLong(Exception):
    pass


class _Lines:
    """The lines of a text, numbered, which can be given back."""

    def __init__(self, text: io.TextIOBase) -> None:
        self._text = text
        self._returned: deque[_Line] = deque()
        self.number = 0
        """Number of the line that was given last."""

    def take(self) -> _Line | None:
        line = self._returned.popleft() if self._returned else self._read()
        if line is not None:
            self.number += 1
        return line

    def give_back(self, lines: list[_Line]) -> None:
        self._returned.extendleft(reversed(lines))
        self.number -= len(lines)

    def _read(self) -> _Line | None:
        try:
            text = self._text.readline(MAX_ROW + 1)
            if len(text) <= MAX_ROW or text.endswith("\n"):
                return _Line(text, False) if text else None
            more = text
            while more and not more.endswith(("\n", "\r")):
                more = self._text.readline(MAX_ROW)
        except UnicodeError:
            raise UnreadableFile(
                "the text cannot be decoded any more: the file changed while it was read",
                fix="start again",
                line=self.number + 1,
            ) from None
        return _Line(text[:MAX_ROW], True)


class _Record:
    """Feeds the lines of one record to a ``csv.reader`` and remembers them."""

    def __init__(self, lines: _Lines) -> None:
        self._lines = lines
        self._size = 0
        self.used: list[_Line] = []

    def begin(self) -> None:
        self.used = []
        self._size = 0

    def __iter__(self) -> _Record:
        return self

    def __next__(self) -> str:
        line = self._lines.take()
        if line is None:
            raise StopIteration
        self.used.append(line)
        self._size += len(line.text)
        if line.cut or self._size > MAX_ROW or len(self.used) > MAX_ROW_LINES:
            raise _RowTooLong
        return line.text


class RowReader:
    """Iterates over the rows of one file, once. Made by :func:`open_rows`; a context manager.

    ``headers`` are the column names in order, trimmed and made unique; ``notices`` say in words what was made
    of odd headers and how sure the encoding is; ``delimiter`` is None for JSON Lines.
    """

    def __init__(self, path: Path, encoding: Encoding, delimiter: str | None, *, json_lines: bool) -> None:
        self.path = path
        self.encoding = encoding
        self.delimiter = delimiter
        self.json_lines = json_lines
        self.headers: tuple[str, ...] = ()
        self.notices: list[str] = []
        self.total_bytes = path.stat().st_size
        self._binary = path.open("rb")
        self._text = io.TextIOWrapper(self._binary, encoding=encoding.name, errors="strict", newline="")
        self._lines = _Lines(self._text)
        self._open_quotes = 0
        self._own_rejects = False
        if encoding.source == "guessed":
            self.notices.append(f"the encoding was guessed: {encoding.name}; --encoding names another")

    @property
    def position(self) -> int:
        """Bytes read so far, up to ``total_bytes``; some kilobytes ahead of the row given last."""
        return self.total_bytes if self._binary.closed else self._binary.tell()

    def close(self) -> None:
        """Closes the file; ``position`` then is ``total_bytes``."""
        self._text.close()

    def __enter__(self) -> RowReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Row | BadRow]:
        """The rows that hold anything, in file order.

        Raises :class:`UnreadableFile` only if the file changes while it is read or if more than
        ``MAX_OPEN_QUOTES`` rows have a quote that never ends.
        """
        return self._json_rows() if self.json_lines else self._csv_rows()

    # ---------------------------------------------------------------- CSV

    def _csv_records(self) -> Iterator[tuple[int, list[str], str] | BadRow]:
        """Every record as first line, cells and text, or the reason why it is none."""
        feed = _Record(self._lines)
        reader = csv.reader(feed, delimiter=self.delimiter or ",", strict=True)
        while True:
            feed.begin()
            first = self._lines.number + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except (_RowTooLong, csv.Error) as error:
                yield self._bad_record(first, feed.used, error)
                continue
            yield first, cells, "".join(line.text for line in feed.used).rstrip("\r\n")

    def _bad_record(self, first: int, used: list[_Line], error: Exception) -> BadRow:
        """Gives all lines but the first back: a quote opened by mistake must not swallow the rows after it."""
        self._lines.give_back(used[1:])
        raw = used[0].text.rstrip("\r\n")
        if used[0].cut:
            return BadRow(first, raw, f"the line is longer than {MAX_ROW:,} characters and was cut")
        if len(used) > 1 or "unexpected end" in str(error):
            self._open_quotes += 1
            if self._open_quotes > MAX_OPEN_QUOTES:
                raise UnreadableFile(
                    f"more than {MAX_OPEN_QUOTES:,} rows have a quote that is not closed",
                    fix="check --delimiter, or write quotes inside values twice",
                    line=first,
                )
            return BadRow(first, raw, "a quote is not closed properly; write quotes inside values twice")
        if "field limit" in str(error):
            return BadRow(first, raw, f"a value is longer than {MAX_CELL:,} characters")
        return BadRow(first, raw, "text follows a closing quote; write quotes inside values twice")

    def _csv_rows(self) -> Iterator[Row | BadRow]:
        for record in self._csv_records():
            if isinstance(record, BadRow):
                yield record
                continue
            line, cells, raw = record
            if not any(cell.strip() for cell in cells):
                continue
            yield self._own_row(line, cells) if self._own_rejects else self._row(line, cells, raw)

    def _row(self, line: int, cells: list[str], raw: str) -> Row | BadRow:
        width = len(self.headers)
        if len(cells) > width and not any(cell.strip() for cell in cells[width:]):
            del cells[width:]
        if len(cells) != width:
            return BadRow(line, raw, f"{len(cells)} columns, but the header has {width}")
        reason = _fault(cells)
        return BadRow(line, raw, reason) if reason else Row(line, dict(zip(self.headers, cells, strict=True)))

    def _own_row(self, line: int, cells: list[str]) -> Row | BadRow:
        """A row of a rejects file: ``line``, ``reason``, the original cells, ``raw``."""
        plain = [bare_cell(cell) for cell in cells]
        if len(plain) == len(self.headers) + 3:
            raw = plain.pop()
            if any(cell.strip() for cell in plain[2:]) or not raw:
                return self._row(line, plain[2:], raw)
            return BadRow(line, raw, "only the column raw is filled; split it into the other columns")
        return BadRow(
            line, ",".join(plain), f"{len(plain)} columns, but the header has {len(self.headers) + 3}"
        )

    def read_csv_header(self) -> None:
        """Reads up to the header. Raises :class:`UnreadableFile`."""
        for record in self._csv_records():
            if isinstance(record, BadRow):
                raise UnreadableFile(
                    f"the header cannot be read: {record.reason}", fix="repair that line", line=record.line
                )
            line, cells, raw = record
            if raw[:4].lstrip("\ufeff").lower() == "sep=" or not any(cell.strip() for cell in cells):
                continue
            reason = _fault(cells)
            if len(cells) > MAX_COLUMNS:
                reason = f"more than {MAX_COLUMNS:,} columns"
            if reason:
                fix = (
                    "give a text file whose first line names the columns; if it is UTF-16, --encoding utf-16"
                )
                raise UnreadableFile(f"the header cannot be used: {reason}", fix=fix, line=line)
            self._take_headers(cells)
            return
        raise UnreadableFile(
            "the file holds no line with text", fix="give a file with a header line and rows"
        )

    def _take_headers(self, cells: list[str]) -> None:
        names = [cell.strip() for cell in cells]
        names[0] = names[0].lstrip("\ufeff").strip()
        self._own_rejects = len(names) > 3 and names[:2] == ["line", "reason"] and names[-1] == "raw"
        if self._own_rejects:
            names = names[2:-1]
        unique: dict[str, None] = {}
        for column, name in enumerate(names, start=1):
            wanted, copy = name or f"column {column}", 1
            while wanted in unique:
                copy += 1
                wanted = f"{name or f'column {column}'} ({copy})"
            if copy > 1:
                self.notices.append(
                    f"column {column} has the name of an earlier one; it is called “{wanted}”"
                )
            elif not name:
                self.notices.append(f"column {column} has no name; it is called “{wanted}”")
            unique[wanted] = None
        self.headers = tuple(unique)

    # ---------------------------------------------------------------- JSON Lines

    def read_json_keys(self) -> None:
        """Takes the keys of all lines as headers, in the order in which they occur. Reads the file once.

        Raises :class:`UnreadableFile`: a JSON array, no object at all, more than ``MAX_COLUMNS`` keys.
        """
        keys: dict[str, None] = {}
        decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
        while line := self._lines.take():
            text = line.text.strip("\ufeff \t\r\n")
            if text.startswith("[") and not keys:
                raise UnreadableFile(
                    "the file is a JSON array", fix="give one object on each line", line=self._lines.number
                )
            try:
                keys.update(dict.fromkeys(decoder.decode(text)))
            except (msgspec.DecodeError, RecursionError, UnicodeError):
                continue
            if len(keys) > MAX_COLUMNS:
                raise UnreadableFile(
                    f"more than {MAX_COLUMNS:,} different keys", fix="give objects of one kind"
                )
        self.headers = tuple(key for key in keys if _fault([key]) is None)
        if not self.headers:
            raise UnreadableFile("the file holds no JSON object", fix="give one object on each line")
        self._text.seek(0)
        self._lines = _Lines(self._text)

    def _json_rows(self) -> Iterator[Row | BadRow]:
        while line := self._lines.take():
            text = line.text.strip("\ufeff \t\r\n")
            if line.cut:
                reason = f"the line is longer than {MAX_ROW:,} characters and was cut"
                yield BadRow(self._lines.number, text, reason)
            elif text:
                yield self._json_row(self._lines.number, text)

    def _json_row(self, line: int, text: str) -> Row | BadRow:
        try:
            found = json.loads(
                text, object_pairs_hook=_pairs, parse_int=str, parse_float=str, parse_constant=_no_constant
            )
        except json.JSONDecodeError as error:
            return BadRow(line, text, f"not JSON: {error.msg.lower()} at character {error.pos + 1}")
        except RecursionError:
            return BadRow(line, text, "not JSON: nested too deeply")
        except ValueError as error:
            return BadRow(line, text, str(error))
        if not isinstance(found, dict):
            return BadRow(line, text, "not a JSON object")
        values = dict.fromkeys(self.headers, "")
        for key, value in found.items():
            cell = _cell(value)
            if cell is None:
                return BadRow(
                    line, text, "a value is an object or a list; give one text or number for each key"
                )
            values[key] = cell
        reason = _fault([*found, *values.values()])
        return BadRow(line, text, reason) if reason else Row(line, values)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return record


def _no_constant(name: str) -> str:
    raise ValueError(f"{name} is not JSON")


def _cell(value: object) -> str | None:
    """The text of a JSON scalar (numbers come as text already); None for an object or a list."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return ""
    return value if isinstance(value, str) else None


def _fault(cells: list[str]) -> str | None:
    """Why these cells cannot be used, or None."""
    for cell in cells:
        if len(cell) > MAX_CELL:
            return f"a value is longer than {MAX_CELL:,} characters"
        if "\0" in cell:
            return "it holds a NUL byte"
        if not cell.isascii() and any("\ud800" <= letter <= "\udfff" for letter in cell):
            return "it holds half of a surrogate pair"
    return None


def sniff_delimiter(sample: str) -> str:
    """The delimiter of CSV text: the one that splits the most rows into as many cells as the first; else a comma."""
    first = sample.lstrip("\ufeff\r\n ").splitlines()[:1]
    if first and len(first[0]) == 5 and first[0].lower().startswith("sep="):
        sample = sample.split(first[0], 1)[1]
        if first[0][4] in DELIMITERS:
            return first[0][4]
    best, best_score = ",", (0.0, 0)
    for delimiter in DELIMITERS:
        widths = []
        try:
            for cells in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter):
                if any(cells):
                    widths.append(len(cells))
                if len(widths) == 100:
                    break
        except csv.Error:
            pass
        if widths and widths[0] > 1:
            score = (widths.count(widths[0]) / len(widths), widths[0])
            if score > best_score:
                best, best_score = delimiter, score
    return best


def open_rows(path: Path | str, *, encoding: str | None = None, delimiter: str | None = None) -> RowReader:
    """Opens an import file: JSON Lines if its name ends in ``.jsonl`` or ``.ndjson`` or its text starts with ``{``
    or ``[``, else CSV.

    ``encoding`` is a Python codec, else it is found (``encodings.py``); ``delimiter`` one character or
    ``tab``, else it is found. The file is read once before the first row, to be sure that all of it decodes.
    Raises :class:`UnreadableFile` and ``OSError``.
    """
    path = Path(path)
    if not stat.S_ISREG(path.stat().st_mode):
        raise UnreadableFile("this is not a regular file", fix="give the path of a CSV or JSON Lines file")
    wanted = {"tab": "\t", "\\t": "\t"}.get(delimiter or "", delimiter)
    if wanted is not None and (len(wanted) != 1 or wanted in '"\r\n\0 ' or wanted.isalnum()):
        raise UnreadableFile(
            "the given delimiter cannot be used", fix='use --delimiter with "," ";" "|" or tab'
        )
    found = find_encoding(path, encoding)
    with path.open("r", encoding=found.name, newline="") as file:
        sample = file.read(_SNIFFED)
    start = sample.lstrip("\ufeff \t\r\n")[:1]
    json_lines = path.suffix.lower() in (".jsonl", ".ndjson") or (start in ("{", "[") and wanted is None)
    reader = RowReader(
        path, found, None if json_lines else wanted or sniff_delimiter(sample), json_lines=json_lines
    )
    try:
        if json_lines:
            reader.read_json_keys()
        else:
            reader.read_csv_header()
    except BaseException:
        reader.close()
        raise
    return reader
