"""The marks beside an import file: how far each of its imports came, so that an interrupted one goes on from there.

One mark per place that the file was imported to: server, tenant, object, connection.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from crmbridge.cli.problems import Problem

__all__ = ["Mark", "fingerprint_of", "import_lock", "mark_path", "read_mark", "write_mark"]

_CHUNK = 1 << 20


class Mark(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``line``: every row that begins up to this line has its answer. ``rejects_bytes``: what of the rejects file
    belongs to those rows. ``settings`` is the digest of all that decides which values a row becomes.
    """

    fingerprint: str
    size: int
    settings: str
    import_id: str
    url: str
    tenant: str
    object: str
    connection: str = ""
    line: int = 0
    read: int = 0
    accepted: int = 0
    replayed: int = 0
    rejected: int = 0
    rejects_bytes: int = 0
    seconds: float = 0.0
    finished: bool = False

    @property
    def place(self) -> tuple[str, str, str, str]:
        """Where the file went."""
        return (self.url, self.tenant, self.object, self.connection)


class _Marks(msgspec.Struct, kw_only=True):
    format: int = 1
    imports: list[Mark] = []


def mark_path(source: Path) -> Path:
    """``leads.csv`` → ``leads.csv.crmbridge-import.json``."""
    return source.with_name(source.name + ".crmbridge-import.json")


def fingerprint_of(source: Path) -> str:
    """SHA-256 of the whole file, read in pieces."""
    digest = hashlib.sha256()
    with source.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


@contextmanager
def import_lock(source: Path) -> Iterator[None]:
    """One import of a file at a time: they share its rejects and its marks. Raises Problem, OSError."""
    with source.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Problem(
                f"Another import of {source.name} is running.",
                code="import_running",
                hint="Wait for its end.",
            ) from None
        yield


def read_mark(source: Path, place: tuple[str, str, str, str]) -> Mark | None:
    """The mark of ``source`` for one place; None when there is none, or none that can be used."""
    return next((mark for mark in _read(source).imports if mark.place == place), None)


def write_mark(source: Path, mark: Mark) -> None:
    """Replaces the mark at once and for good: a crash leaves the old one or the new one. Raises OSError."""
    others = [other for other in _read(source).imports if other.place != mark.place]
    text = msgspec.json.format(msgspec.json.encode(_Marks(imports=[*others, mark])))
    path = mark_path(source)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text + b"\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _read(source: Path) -> _Marks:
    try:
        return msgspec.json.decode(mark_path(source).read_bytes(), type=_Marks)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return _Marks()
