"""A marked block of labelled lines inside a free text, read back to the letter.

Tekmetric has no field for a customer's concern, a lead's wish or our mark, but a customer's ``notes`` and an
appointment's ``description`` are texts that the shop reads. What stands outside the block is the shop's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["LABELS", "join", "split"]

LABELS = {
    "title": "Subject",
    "message": "Message",
    "company": "Company",
    "source": "Source",
    "concern": "Concern",
    "make": "Vehicle make",
    "model": "Vehicle model",
    "year": "Vehicle year",
    "vin": "VIN",
    "plate": "Licence plate",
    "odometer": "Odometer",
    "ref": "Ref",
}
_NAMES = {label: name for name, label in LABELS.items()}
_OPEN, _CLOSE = "[crmbridge]", "[/crmbridge]"
_BLOCK = re.compile(r"(?:\n\n|^)\[crmbridge\]\n(.*?)\n\[/crmbridge\](?=\n|\Z)", re.DOTALL | re.MULTILINE)
_LINE = re.compile(r"([A-Z][A-Za-z ]{1,30}): (.*(?:\n  .*)*)")


def split(text: str | None) -> tuple[str, dict[str, str]]:
    """The free text and the labelled values of the (last) block; unknown labels are left out."""
    text = (text or "").replace("\r\n", "\n")
    found = list(_BLOCK.finditer(text))
    if not found:
        return text, {}
    about = {
        _NAMES[label]: value.replace("\n  ", "\n")
        for label, value in _LINE.findall(found[-1][1])
        if label in _NAMES
    }
    return text[: found[-1].start()] + text[found[-1].end() :], about


def join(free: str, about: Mapping[str, object]) -> str:
    """The text with its block; empty values are left out. A line of the free text that looks like the block is moved
    in by a blank, so that nobody can forge a mark."""
    free = re.sub(r"^(?=\[/?crmbridge\]$)", " ", free, flags=re.MULTILINE)
    lines = [
        f"{label}: {str(about[name]).replace(chr(10), chr(10) + '  ')}"
        for name, label in LABELS.items()
        if about.get(name) not in (None, "")
    ]
    block = "\n".join((_OPEN, *lines, _CLOSE)) if lines else ""
    return "\n\n".join(filter(None, (free, block)))
