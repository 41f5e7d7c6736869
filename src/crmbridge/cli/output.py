"""How answers look: quiet tables for people, JSON for programs, one clear block for an error.

Texts of a CRM are hostile: control characters (a terminal obeys some) and direction marks are shown, never sent.
rich is imported when the first table is drawn.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

import typer

from crmbridge.cli.problems import Problem, problem_of
from crmbridge.core.errors import CrmError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = ["Output", "guarded", "moment", "plain", "to_json"]

P = ParamSpec("P")
_PIPE_WIDTH = 160
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != 10}
_MARKS = dict.fromkeys(map(ord, "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"), "")
_STATE_STYLES = {
    **dict.fromkeys(("applied", "active", "ok", "full", "resolved"), "green"),
    **dict.fromkeys(("dead_letter", "parked", "revoked", "refused", "needs_reauthorization"), "red"),
    **dict.fromkeys(("retrying", "unknown", "pending", "limited", "composed", "open", "not_yet"), "yellow"),
    **dict.fromkeys(("discarded", "cancelled", "superseded", "never", "-"), "dim"),
}


def plain(value: Any) -> str:
    """One cell's text, safe for a terminal; trees as compact JSON, nothing as an empty text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping | list | tuple):
        value = json.dumps(value, ensure_ascii=False, separators=(", ", ": "), default=str)
    return str(value).translate(_CONTROL).translate(_MARKS)


def moment(text: Any) -> str:
    """An RFC 3339 time, shorter: ``2026-11-22 10:02:03``."""
    return plain(text)[:19].replace("T", " ")


def to_json(tree: Any) -> str:
    """Indented JSON in which no character can steer a terminal."""
    text = json.dumps(tree, ensure_ascii=False, indent=2, default=str)
    return "".join(
        letter if letter == "\n" or ord(letter) not in _CONTROL else f"\\u{ord(letter):04x}"
        for letter in text
    )


class Output:
    """Where a command writes: results to standard output, remarks and errors to standard error."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self._consoles: dict[bool, Console] = {}

    def console(self, *, errors: bool = False) -> Console:
        """The rich console of standard output or standard error; a pipe gets wide lines without colours."""
        if errors not in self._consoles:
            from rich.console import Console

            stream = sys.stderr if errors else sys.stdout
            width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
            self._consoles[errors] = Console(
                stderr=errors, width=width, highlight=False, soft_wrap=False, emoji=False, markup=False
            )
        return self._consoles[errors]

    def line(self, text: str = "", style: str = "") -> None:
        """One line of the answer; nothing with ``--json``."""
        if not self.as_json:
            self.console().print(plain(text), style=style or None, soft_wrap=True)

    def remark(self, text: str) -> None:
        """One line beside the answer, on standard error."""
        if not self.as_json:
            self.console(errors=True).print(plain(text), style="dim", soft_wrap=True)

    def tree(self, tree: Any) -> None:
        """The answer as JSON on standard output."""
        sys.stdout.write(to_json(tree) + "\n")
        sys.stdout.flush()

    def table(
        self,
        headers: Sequence[str],
        rows: Iterable[Sequence[Any]],
        *,
        empty: str = "Nothing here.",
        right: Sequence[str] = (),
    ) -> None:
        """A table without lines. Columns in ``right`` are aligned right; a known state gets its colour."""
        from rich.table import Table

        drawn = list(rows)
        if not drawn:
            self.line(empty, style="dim")
            return
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        for header in headers:
            table.add_column(
                header, justify="right" if header in right else "left", overflow="fold", no_wrap=False
            )
        for row in drawn:
            table.add_row(*(_cell(value) for value in row))
        self.console().print(table)

    def facts(self, pairs: Iterable[tuple[str, Any]]) -> None:
        """Names and values, one pair a line; pairs without a value are left out."""
        from rich.table import Table

        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, pad_edge=False)
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in pairs:
            if value not in (None, "", [], {}):
                table.add_row(name, _cell(value))
        self.console().print(table)

    def error(self, problem: Problem) -> None:
        """The one block of an error: JSON on standard output with ``--json``, else text on standard error."""
        if self.as_json:
            self.tree({"error": problem.body})
            return
        console = self.console(errors=True)
        from rich.text import Text

        console.print(
            Text.assemble(("✗ ", "red"), (plain(problem.code), "bold red"), ("  "), plain(problem.message)),
            soft_wrap=True,
        )
        fields = problem.body.get("fields") or []
        width = max((len(plain(field.get("field"))) for field in fields), default=0)
        for field in fields:
            name = plain(field.get("field")).ljust(width)
            console.print(
                Text.assemble("  ", (name, "bold"), "  ", plain(field.get("message"))), soft_wrap=True
            )
        for name, value in _facts_of(problem.body):
            console.print(Text.assemble("  ", (f"{name}: ", "dim"), plain(value)), soft_wrap=True)


def _facts_of(body: Mapping[str, Any]) -> list[tuple[str, Any]]:
    facts = body.get("provider_facts") or {}
    pairs = [
        ("fix", (body.get("fix") or {}).get("hint")),
        ("existing record", body.get("existing_remote_id")),
        ("try again after", f"{body['retry_after_seconds']} s" if body.get("retry_after_seconds") else None),
        ("provider said", facts or None),
        ("write", body.get("write_id")),
        ("request", body.get("request_id")),
    ]
    return [(name, value) for name, value in pairs if value]


def _cell(value: Any) -> Text:
    from rich.text import Text

    text = plain(value)
    return Text(text, style=_STATE_STYLES.get(text, ""))


def guarded(function: Callable[P, Coroutine[Any, Any, None] | None]) -> Callable[P, None]:
    """Makes a command of a function, async or not: runs it, shows its error as one block, sets the exit code."""

    @functools.wraps(function)
    def command(*args: P.args, **keywords: P.kwargs) -> None:
        output = Output(bool(keywords.get("as_json")))
        try:
            running = function(*args, **keywords)
            if running is not None:
                asyncio.run(running)
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except BrokenPipeError:
            _drop_stdout()
            raise typer.Exit(141) from None
        except Exception as error:
            problem = _shown(error)
            output.error(problem)
            raise typer.Exit(problem.exit_code) from None

    return command


def _shown(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, CrmError):
        return problem_of(error)
    if os.environ.get("CRMBRIDGE_LOG_LEVEL", "").lower() == "debug":
        traceback.print_exc()
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "crmbridge" in frame.filename]
    place = f" in {frames[-1].name}" if frames else ""
    return Problem(
        f"Something failed that should not: {type(error).__name__}{place}.",
        code="internal",
        hint="Run it again with CRMBRIDGE_LOG_LEVEL=debug and report what it prints.",
    )


def _drop_stdout() -> None:
    """The reader of the pipe is gone: keep the interpreter from complaining while it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
