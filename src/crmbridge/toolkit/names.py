"""Names and titles that a provider wants in another form than ours."""

from __future__ import annotations

from crmbridge.core.records import Write

__all__ = ["note_title", "split_name", "title_mark"]

_TITLE_TEXT = 60


def split_name(whole: object) -> tuple[str, str]:
    """One text as first and last name, parted at its last blank; a single word is a last name."""
    first, _, last = str(whole or "").strip().rpartition(" ")
    return first.strip(), last


def title_mark(write: Write) -> str:
    """The end of a title that tells which write made the note, where notes have no field for our mark."""
    return f"[{write.target_id.replace('-', '')[-12:]}]"


def note_title(text: object, write: Write) -> str:
    """A title for a note without one: its first line, at most 60 letters, and the mark by which it is found."""
    lines = text.strip().splitlines() if isinstance(text, str) else []
    line = (lines[0] if lines else "Note").strip()
    line = line if len(line) <= _TITLE_TEXT else line[: _TITLE_TEXT - 1].rstrip() + "…"
    return f"{line} {title_mark(write)}"
