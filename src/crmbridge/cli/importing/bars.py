"""The two progress bars of an import: rows that the server took, records that the CRM has."""

from __future__ import annotations

from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from crmbridge.cli.output import Output, plain
from crmbridge.cli.progress import make_progress

if TYPE_CHECKING:
    from crmbridge.cli.importing.marks import Mark
    from crmbridge.cli.importing.run import Delivered

__all__ = ["Bars"]

_LINE_EVERY = 5.0


class Bars:
    """A :class:`crmbridge.cli.importing.run.View` for one import; a context manager."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._progress = make_progress(output)
        self._is_drawn = not self._progress.disable and not output.as_json
        if output.as_json:
            self._progress.disable = True
        self._load: Any = None
        self._deliver: Any = None
        self._line_at = monotonic()
        self._trouble = ""

    def __enter__(self) -> Self:
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)

    def loading(self, position: int, total: int, mark: Mark) -> None:
        """Bytes answered, and rows."""
        told = f"{mark.read:,} rows" + (f", {mark.rejected:,} rejected" if mark.rejected else "")
        if self._load is None:
            self._load = self._progress.add_task("reading   ", total=total, told=told)
        self._progress.update(self._load, completed=position, total=total, told=told)
        self._say(f"read {mark.read:,} rows, {position * 100 // max(total, 1)} % of the file")

    def delivering(self, delivered: Delivered) -> None:
        """Records settled, of all that were accepted."""
        if not delivered.total:
            return
        done = delivered.total - delivered.pending
        told = f"{delivered.applied:,} of {delivered.total:,}"
        retrying = delivered.counts.get("retrying", 0)
        told += f", {retrying:,} waiting for another try" if retrying else ""
        unknown = delivered.counts.get("unknown", 0)
        told += f", {unknown:,} being looked up in the CRM" if unknown else ""
        told += f", {delivered.given_up:,} given up" if delivered.given_up else ""
        if self._deliver is None:
            self._deliver = self._progress.add_task("delivering", total=delivered.total, told=told)
        self._progress.update(self._deliver, completed=done, total=delivered.total, told=told)
        self._say(f"delivered {told}")

    def trouble(self, text: str) -> None:
        """Why it does not go on just now, once per text."""
        reason = text.partition(",")[0]
        if reason and reason != self._trouble:
            self._progress.console.print(plain(text), style="yellow")
        elif not text and self._trouble:
            self._progress.console.print("the server answers again", style="dim")
        self._trouble = reason

    def _say(self, text: str) -> None:
        if not self._is_drawn and monotonic() - self._line_at > _LINE_EVERY:
            self._line_at = monotonic()
            self._output.remark(text)
