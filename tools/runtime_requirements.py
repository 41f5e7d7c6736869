"""Prints the entries of constraints.txt that crmbridge needs to run, with their hashes: no tests, no tools.

Run by the interpreter of an environment in which constraints.txt and crmbridge's wheel are installed:
``python tools/runtime_requirements.py constraints.txt > runtime.txt``.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["entries_of", "main", "needed_by"]

_ENTRY = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)


def needed_by(name: str) -> set[str]:
    """Canonical names of all that this distribution asks for here, and what those ask for. Extras only where asked."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(canonicalize_name(name), frozenset[str]())]
    while waiting:
        one, extras = waiting.pop()
        if (one, extras) in seen:
            continue
        seen.add((one, extras))
        try:
            declared = requires(one) or []
        except PackageNotFoundError:
            raise SystemExit(f"{one} is not installed here; install constraints.txt first") from None
        for line in declared:
            wish = Requirement(line)
            if wish.marker is None or any(wish.marker.evaluate({"extra": extra}) for extra in extras or {""}):
                waiting.append((canonicalize_name(wish.name), frozenset(wish.extras)))
    return {one for one, _ in seen} - {canonicalize_name(name)}


def entries_of(text: str) -> dict[str, str]:
    """Canonical name → its entry of a pinned and hashed file, as it stands."""
    places = [*_ENTRY.finditer(text)]
    ends = [place.start() for place in places[1:]] + [len(text)]
    return {
        canonicalize_name(place[1]): text[place.start() : end].rstrip()
        for place, end in zip(places, ends, strict=True)
    }


def main() -> int:
    """Exit 1 when something needed is not pinned."""
    entries, needed = entries_of(Path(sys.argv[1]).read_text()), needed_by("crmbridge")
    if missing := sorted(needed - set(entries)):
        print(f"not pinned: {', '.join(missing)}", file=sys.stderr)
        return 1
    print("\n".join(entries[name] for name in sorted(needed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
