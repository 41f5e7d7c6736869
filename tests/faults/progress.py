"""How far a long run is: a bar where somebody looks, a line now and then where nobody does. On standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["progress"]

_LINE_SECONDS = 15.0


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields what is called with the number that is done."""
    if not sys.stderr.isatty():
        told = [monotonic()]

        def say(done: int) -> None:
            if monotonic() - told[0] >= _LINE_SECONDS:
                told[0] = monotonic()
                print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)

        yield say
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=total)
        yield lambda done: bars.update(task, completed=done)
