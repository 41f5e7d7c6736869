"""Which encoding a text file is in, found by reading all of it once, in constant memory.

A file of unknown origin is hostile: what cannot be told is refused with the line, the byte and the way out,
before any row of it is used.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

__all__ = ["Encoding", "UnreadableFile", "find_encoding"]

_CHUNK: Final = 1 << 20
_HEAD: Final = 1 << 16

_BOMS: Final = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_TEXT: Final = (
    (b"PK\x03\x04", "an Excel or zip file: save the sheet as CSV (UTF-8) first"),
    (b"\xd0\xcf\x11\xe0", "an old Excel file: save the sheet as CSV (UTF-8) first"),
    (b"\x1f\x8b", "a gzip file: unpack it first"),
    (b"%PDF", "a PDF file: export the rows as CSV first"),
)
_NO_FILE_CODECS: Final = frozenset({"idna", "punycode", "unicode-escape", "raw-unicode-escape", "utf-7"})
_UTF8_SEQUENCE: Final = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)
_HIGH_BYTE: Final = re.compile(rb"[\x80-\xff]")


class UnreadableFile(ValueError):
    """The file as a whole cannot be read; no row of it should be used.

    ``line`` counts from 1, ``byte`` is the offset from the start of the file, counted from 0; either may be
    unknown. ``fix`` says what the person can do. The text holds none of the file's content.
    """

    def __init__(self, reason: str, *, fix: str, line: int | None = None, byte: int | None = None) -> None:
        self.reason = reason
        self.fix = fix
        self.line = line
        self.byte = byte
        place = f"line {line}" if line is not None else ""
        if byte is not None:
            place += f"{', ' if place else ''}byte {byte}"
        super().__init__(f"{place + ': ' if place else ''}{reason}; {fix}")


@dataclass(frozen=True, slots=True)
class Encoding:
    """A Python codec and how it was found: ``given``, ``bom``, ``utf-8`` (all of the file is) or ``guessed``."""

    name: str
    source: str


def find_encoding(path: Path, given: str | None = None) -> Encoding:
    """The encoding of the file at ``path``; the whole file decodes in it.

    Without ``given``: a byte order mark decides; else NUL bytes at every other place mean UTF-16; else UTF-8
    if all of the file is; else Windows-1252 if the bytes that are not UTF-8 outnumber those that are.

    Raises :class:`UnreadableFile` (empty, not text, unknown codec, a byte that does not decode) and
    ``OSError``.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
        if not head:
            raise UnreadableFile("the file is empty", fix="give a file with a header line and rows")
        for magic, what in _NOT_TEXT:
            if head.startswith(magic):
                raise UnreadableFile("this is not a text file", fix=f"it looks like {what}")
        found = _guess(file, head) if given is None else Encoding(_codec(given, head), "given")
        _check(file, found)
        return found


def _codec(given: str, head: bytes) -> str:
    try:
        name = codecs.lookup(given).name
        "a".encode(name)
        if name.replace("_", "-") in _NO_FILE_CODECS:
            raise LookupError(name)
    except (LookupError, ValueError, TypeError, AttributeError):
        raise UnreadableFile(
            "the given encoding is not known",
            fix="use --encoding with utf-8, utf-16, windows-1252 or another text codec of Python",
        ) from None
    if name == "utf-8" and head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    return name


def _guess(file: BinaryIO, head: bytes) -> Encoding:
    for mark, name in _BOMS:
        if head.startswith(mark):
            return Encoding(name, "bom")
    even, odd = head[0::2].count(0), head[1::2].count(0)
    pairs = len(head) // 2
    if pairs and odd > pairs * 0.4 and even < pairs * 0.1:
        return Encoding("utf-16-le", "guessed")
    if pairs and even > pairs * 0.4 and odd < pairs * 0.1:
        return Encoding("utf-16-be", "guessed")
    if _first_fault(file, "utf-8") is None:
        return Encoding("utf-8", "utf-8")
    whole, stray = _count_high_bytes(file)
    return Encoding("utf-8", "guessed") if whole > stray else Encoding("cp1252", "guessed")


def _count_high_bytes(file: BinaryIO) -> tuple[int, int]:
    """How many multi-byte sequences are well-formed UTF-8, and how many bytes above 127 are in none."""
    whole = stray = 0
    file.seek(0)
    while chunk := file.read(_CHUNK):
        rest, found = _UTF8_SEQUENCE.subn(b"", chunk)
        whole += found
        stray += len(_HIGH_BYTE.findall(rest))
    return whole, stray


def _check(file: BinaryIO, encoding: Encoding) -> None:
    fault = None if encoding.source == "utf-8" else _first_fault(file, encoding.name)
    if fault is None:
        return
    byte = fault
    line, value = _place(file, byte)
    what = {"utf-8": "UTF-8", "utf-8-sig": "UTF-8", "cp1252": "Windows-1252"}.get(
        encoding.name, encoding.name
    )
    if encoding.source == "guessed" and encoding.name == "utf-8":
        reason = f"byte 0x{value:02X} is not UTF-8, while most of the file is"
        fix = "repair that line, or name the encoding with --encoding (windows-1252, for example)"
    else:
        reason = f"byte 0x{value:02X} cannot be read as {what}"
        fix = "name the right encoding with --encoding, or save the file as UTF-8"
    raise UnreadableFile(reason, fix=fix, line=line, byte=byte)


def _first_fault(file: BinaryIO, name: str) -> int | None:
    """Offset of the first byte that does not decode, or None."""
    if name == "utf-8-sig":
        name = "utf-8"  # the mark is a letter like any other, and the offsets then count from the start
    decoder = codecs.getincrementaldecoder(name)("strict")
    file.seek(0)
    start = 0
    while True:
        chunk = file.read(_CHUNK)
        pending = decoder.getstate()[0]
        held = len(pending) if isinstance(pending, bytes) else 0
        try:
            decoder.decode(chunk, not chunk)
        except UnicodeDecodeError as error:
            return max(0, start - held + error.start)
        except (UnicodeError, ValueError):
            return max(0, start - held)
        if not chunk:
            return None
        start += len(chunk)


def _place(file: BinaryIO, byte: int) -> tuple[int, int]:
    """Line number (by line feeds) and value of the byte at an offset; at the end of the file, its last byte."""
    file.seek(0)
    left, lines, last = byte, 1, 0
    while left > 0 and (chunk := file.read(min(_CHUNK, left))):
        lines += chunk.count(b"\n")
        last = chunk[-1]
        left -= len(chunk)
    here = file.read(1)
    return lines, here[0] if here else last
