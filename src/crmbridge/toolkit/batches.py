"""What drivers with provider batches share: how positions in a list of writes are grouped."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

__all__ = ["parts", "rounds"]

T = TypeVar("T")


def rounds(keys: Mapping[int, Hashable]) -> list[list[int]]:
    """Places in turns, so that no turn holds a key twice and the order per key is kept.

    Providers refuse a batch that names one record (or one external id) twice.
    """
    seen: dict[Hashable, int] = {}
    turns: list[list[int]] = []
    for place, key in keys.items():
        turn = seen[key] = seen.get(key, -1) + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(place)
    return turns


def parts(places: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The same in order, at most ``size`` (1 or more) at a time."""
    for start in range(0, len(places), size):
        yield places[start : start + size]
