"""Finding the encoding of an import file."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from crmbridge.cli.importing.encodings import UnreadableFile, find_encoding
from crmbridge.cli.importing.rows import Row, open_rows

TEXT = "Name,Ort\nZoë,Köln\n"


@pytest.mark.parametrize(
    ("content", "name", "source"),
    [
        (TEXT.encode(), "utf-8", "utf-8"),
        (b"Name,Ort\nA,B\n", "utf-8", "utf-8"),
        (TEXT.encode("utf-8-sig"), "utf-8-sig", "bom"),
        (TEXT.encode("utf-16"), "utf-16", "bom"),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "utf-16", "bom"),
        (TEXT.encode("utf-32"), "utf-32", "bom"),
        (TEXT.encode("utf-16-le"), "utf-16-le", "guessed"),
        (TEXT.encode("utf-16-be"), "utf-16-be", "guessed"),
        (TEXT.encode("cp1252"), "cp1252", "guessed"),
    ],
)
def test_encoding_when_not_given_then_is_found(
    tmp_path: Path, content: bytes, name: str, source: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    found = find_encoding(path)
    assert (found.name, found.source) == (name, source)
    with open_rows(path) as reader:
        assert reader.headers == ("Name", "Ort")
        (row,) = reader
        assert isinstance(row, Row) and row.values["Name"] in ("Zoë", "A")
        assert bool(reader.notices) == (source == "guessed")


def test_encoding_when_a_late_byte_is_not_utf8_then_the_whole_file_is_windows_1252(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"Name,Ort\n" + b"Ann,Rome\n" * 300_000 + "Zoë,Köln\n".encode("cp1252"))
    assert find_encoding(path).name == "cp1252"


@pytest.mark.parametrize("prefix", [b"", codecs.BOM_UTF8])
def test_encoding_when_one_byte_is_broken_then_error_names_line_byte_and_fix(
    tmp_path: Path, prefix: bytes
) -> None:
    path = tmp_path / "a.csv"
    before = prefix + b"Name,Ort\n" + "Zoë,Köln\n".encode() * 150_000
    path.write_bytes(before + b"Caf\xe9,x\n")
    with pytest.raises(UnreadableFile) as caught:
        find_encoding(path)
    assert (caught.value.line, caught.value.byte) == (150_002, len(before) + 3)
    assert "0xE9" in str(caught.value) and "--encoding" in caught.value.fix


def test_encoding_when_a_byte_is_in_no_guess_then_error(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"Name\nA\x81\n")
    with pytest.raises(UnreadableFile, match=r"line 2, byte 6: byte 0x81 .* Windows-1252"):
        find_encoding(path)


@pytest.mark.parametrize("given", ["nonsense", "rot13", "hex", "idna", "unicode_escape", "utf-7", "", "a\0b"])
def test_encoding_when_given_one_is_no_text_codec_then_error(tmp_path: Path, given: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"Name\nA\n")
    with pytest.raises(UnreadableFile, match="not known"):
        find_encoding(path, given)


def test_encoding_when_given_then_is_used(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("Имя,Город\nЮрий,Київ\n".encode("cp1251"))
    with open_rows(path, encoding="windows-1251") as reader:
        assert reader.headers == ("Имя", "Город")
    path.write_bytes("\ufeffName\nA\n".encode())
    with open_rows(path, encoding="utf8") as reader:
        assert reader.headers == ("Name",)
