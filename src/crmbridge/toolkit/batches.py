"""What drivers with provider batches share: how positions in a list of writes are grouped, and one result for each."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from crmbridge.core.errors import CrmError
from crmbridge.core.operations import Outcome
from crmbridge.core.records import Write, WriteResult

__all__ = [
    "PLAIN",
    "TEXT",
    "Results",
    "applied",
    "built",
    "failed",
    "match_key",
    "match_parts",
    "parts",
    "rounds",
]

Results = dict[int, WriteResult]
"""Results by the place of their write."""
PLAIN = frozenset({str, int, float, bool, type(None)})
"""Types of field values that are one value. ``PLAIN.issuperset(map(type, values))`` asks a whole record at once."""
TEXT = frozenset({str})
"""The same of texts alone."""
T = TypeVar("T")
B = TypeVar("B")


def rounds(keys: Mapping[int, Hashable]) -> list[list[int]]:
    """Places in turns, so that no turn holds a key twice and the order per key is kept.

    Providers refuse a batch that names one record (or one external id) twice.
    """
    if keys and len(set(keys.values())) == len(keys):
        return [list(keys)]
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


def match_key(write: Write) -> str:
    """The same text for upserts that would meet the same record."""
    return repr(sorted((path, str(value).strip().casefold()) for path, value in write.match.items()))


def match_parts(writes: Mapping[int, Write], size: int) -> Iterator[dict[int, Write]]:
    """Upserts, at most ``size`` at a time: all of a part match by the same fields, no two by the same values."""
    groups: dict[tuple[str, ...], dict[int, str]] = {}
    for place, write in writes.items():
        groups.setdefault(tuple(sorted(write.match)), {})[place] = match_key(write)
    for keys in groups.values():
        for turn in rounds(keys):
            for places in parts(turn, size):
                yield {place: writes[place] for place in places}


def applied(
    places: Iterable[int], ids: Iterable[str], page: str, *, was_created: bool | None = None
) -> Results:
    """Successes, an id for each place. ``page`` is what stands before the id in a record's address, or empty."""
    done = Outcome.APPLIED
    return {
        place: WriteResult(
            outcome=done, remote_id=one, url=page + one if page else "", was_created=was_created
        )
        for place, one in zip(places, ids, strict=True)
    }


def failed(error: CrmError, remote_id: str = "") -> WriteResult:
    """The result that an error is."""
    return WriteResult(outcome=error.outcome, remote_id=remote_id, error=error)


def built(items: Mapping[int, T], make: Callable[[T], B]) -> tuple[dict[int, B], Results]:
    """What ``make`` makes of each write (or remote id), and the results of those where it raises a CrmError."""
    bodies: dict[int, B] = {}
    results: Results = {}
    for place, item in items.items():
        try:
            bodies[place] = make(item)
        except CrmError as error:
            remote_id = item.remote_id if isinstance(item, Write) else str(item)
            results[place] = failed(error, remote_id)
    return bodies, results
