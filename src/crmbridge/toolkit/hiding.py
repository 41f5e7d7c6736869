"""Hides what a request said from a provider's words: providers repeat values in their messages, people read our errors.

The cost does not grow with a batch: a text is looked at once, by the lengths of the values that begin like it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from crmbridge.core.wire import HttpRequest

__all__ = ["hide_texts", "sent_texts"]

SHORTEST = 3
"""Letters of the shortest value that is hidden; shorter ones would hide half of a sentence."""
SCANNED = 4_000
"""Letters of a text that are looked at; the rest is cut off."""


def sent_texts(request: HttpRequest) -> Iterator[str]:
    """The texts and numbers among the values of a request, and the lines of the texts."""
    tree: Any = [request.query, request.form, request.json]
    if request.body:
        try:
            tree.append(msgspec.json.decode(request.body))
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            pass
    waiting = [tree]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, (list, tuple)):
            waiting.extend(item)
        elif isinstance(item, (str, int, float)) and not isinstance(item, bool):
            text = str(item).strip()
            if _is_hidden(text):
                yield text
                if not text.isprintable():  # such as line breaks
                    yield from filter(_is_hidden, map(str.strip, text.splitlines()))


def hide_texts(values: Iterable[str]) -> Callable[[str], str]:
    """A function that puts ``[value]`` for each of the values, where it stands as a whole word, in any case of letters.

    The longest value wins. Values of fewer than three letters are left. ``values`` is read when the first text comes,
    so that a function which is never called costs nothing.
    """
    index: list[_Index] = []

    def hide(text: str) -> str:
        if not index:
            index.append(_Index(values))
        return index[0].hide(text)

    return hide


class _Index:
    """The values, by how they begin."""

    def __init__(self, values: Iterable[str]) -> None:
        self.known = {_folded(value) for value in values if _is_hidden(value)}
        by_head: dict[str, set[int]] = {}
        for value in self.known:
            by_head.setdefault(value[:SHORTEST], set()).add(len(value))
        self.lengths = {head: sorted(found, reverse=True) for head, found in by_head.items()}
        self.longest = max(map(len, self.known), default=0)

    def hide(self, text: str) -> str:
        """The text without them."""
        folded = _folded(text[: SCANNED + self.longest])  # a value may begin before the cut and end after it
        text = text[:SCANNED]
        shown: list[str] = []
        start = place = 0
        while place < len(text):
            head = folded[place : place + SHORTEST]
            for length in () if _is_word(folded, place - 1) else self.lengths.get(head, ()):
                end = place + length
                if not _is_word(folded, end) and folded[place:end] in self.known:
                    shown += (text[start:place], "[value]")
                    start = place = end
                    break
            else:
                place += 1
        return "".join([*shown, text[start:]])


def _is_hidden(value: str) -> bool:
    return len(value) >= SHORTEST


def _is_word(text: str, place: int) -> bool:
    return 0 <= place < len(text) and (text[place].isalnum() or text[place] == "_")


def _folded(text: str) -> str:
    """Without the case of letters, as long as before: a letter that folds to several stays."""
    folded = text.casefold()
    if len(folded) == len(text):
        return folded
    return "".join(fold if len(fold := letter.casefold()) == 1 else letter for letter in text)
