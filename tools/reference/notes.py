"""NOTES.md of a driver: the headings that all have, and the text under each."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["HEADINGS", "problems_of", "sections_of"]

HEADINGS = (
    "At a glance",
    "Get credentials",
    "Fields",
    "Limits",
    "Limitations and quirks",
    "Webhooks",
    "Erasure",
    "Removal",
    "Verified against",
)
"""The ``##`` headings of every NOTES.md, in this order; anything else goes under one of them as ``###``."""


def sections_of(notes: Path) -> dict[str, str]:
    """Heading → text, in the order of the file; empty without a file. Headings in code blocks do not count."""
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    is_code = False
    text = notes.read_text(encoding="utf-8") if notes.is_file() else ""
    for line in text.splitlines():
        is_code ^= line.startswith("```")
        if not is_code and (found := re.fullmatch(r"## (.+?)\s*", line)):
            lines = sections.setdefault(found[1], [])
        else:
            lines.append(line)
    return {heading: "\n".join(part).strip() for heading, part in sections.items()}


def problems_of(notes: Path) -> list[str]:
    """What is wrong with a NOTES.md, each as a sentence that says what to do."""
    if not notes.is_file():
        return ["NOTES.md is missing"]
    text = notes.read_text(encoding="utf-8")
    sections = sections_of(notes)
    problems = [f"write '## {heading}'" for heading in HEADINGS if heading not in sections]
    problems += [
        f"move '## {heading}' under one of the agreed headings, as '###'"
        for heading in sections
        if heading not in HEADINGS
    ]
    if not problems and tuple(sections) != HEADINGS:
        problems.append(f"bring the headings into the order {', '.join(HEADINGS)}")
    problems += [f"'## {heading}' has no text" for heading, part in sections.items() if not part]
    if not re.match(r"# \S", text):
        problems.append("begin with '# <display name>'")
    if "FILL IN" in text:
        problems.append("FILL IN still stands in it")
    return problems
