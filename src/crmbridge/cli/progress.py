"""Progress bars in one calm style."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from crmbridge.cli.output import Output

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["make_progress"]


def make_progress(output: Output, *columns: Any) -> Progress:
    """Bars on standard error in one calm style; they vanish from pipes, where lines are written instead."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    class Elapsed(TimeElapsedColumn):
        def render(self, task: Any) -> Any:
            text = super().render(task)
            text.style = "dim"
            return text

    elapsed = Elapsed()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=32, complete_style="cyan", finished_style="green", pulse_style="dim"),
        *columns,
        TextColumn("{task.fields[told]}", style="dim", markup=False),
        elapsed,
        console=output.console(errors=True),
        transient=False,
        disable=not sys.stderr.isatty(),
    )
