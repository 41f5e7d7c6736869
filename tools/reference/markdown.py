"""Bricks of Markdown."""

from __future__ import annotations

__all__ = ["NOTE", "code", "head", "row"]

NOTE = "<!-- Written by `make docs` from the code. Do not edit. -->\n\n"


def row(*cells: str) -> str:
    """One row of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"


def head(*cells: str) -> str:
    """The first two rows of a table."""
    return row(*cells) + "|" + " --- |" * len(cells) + "\n"


def code(text: str) -> str:
    """Code in a line; a dash for nothing."""
    return f"`{text}`" if text else "–"
