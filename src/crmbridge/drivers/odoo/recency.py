"""Cursors for lists by ``write_date``, exact although Odoo tells and compares it by the second only.

A cursor is ``<second>|<ids already given of that second>``, the ids as ranges: what one call wrote shares
one ``write_date`` and mostly has ids in a row. The next page asks for everything before the second's end and
leaves the given ids out, which holds on every version (19 compares whole seconds, 14 microseconds).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from crmbridge.core.errors import FieldError, ValidationError

__all__ = ["FORMAT", "cursor", "parse", "second_after"]

FORMAT = "%Y-%m-%d %H:%M:%S"
_SHAPE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\|(\d{1,10}(?:-\d{1,10})?(?:,\d{1,10}(?:-\d{1,10})?)*)")
_MOST_IDS = 100_000


def parse(text: str) -> tuple[str, set[int]]:
    """The last second and the ids given of it. Raises ValidationError for a cursor that is not ours."""
    if not text:
        return "", set()
    found = _SHAPE.fullmatch(text)
    given: set[int] = set()
    for part in found[2].split(",") if found else ():
        first, _, last = part.partition("-")
        if not 0 <= int(last or first) - int(first) < _MOST_IDS - len(given):
            found = None
            break
        given.update(range(int(first), int(last or first) + 1))
    if found is None:
        problem = "is not one that a list answered; start again without it"
        raise ValidationError(
            f"The cursor {problem}.", provider="odoo", fields=(FieldError("cursor", problem),)
        )
    return found[1], given


def second_after(text: str) -> str:
    """The end of a second."""
    return (datetime.strptime(text, FORMAT) + timedelta(seconds=1)).strftime(FORMAT)  # noqa: DTZ007


def cursor(last: str, given: Iterable[int], stamps: Sequence[tuple[str, int]]) -> str:
    """The cursor after a page of (second, id); ``given`` are those of ``last`` from pages before."""
    second = stamps[-1][0]
    ids = {number for at, number in stamps if at == second} | (set(given) if second == last else set())
    ranges: list[list[int]] = []
    for number in sorted(ids):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return f"{second}|" + ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
