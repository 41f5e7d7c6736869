"""``crmbridge demo``: every driver that has an emulator, connected and loaded, with nothing to set up."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from crmbridge.cli.client import KEY_FILE, Client
from crmbridge.cli.options import AsJson
from crmbridge.cli.output import Output, guarded
from crmbridge.cli.problems import Problem
from crmbridge.cli.processes import Processes

if TYPE_CHECKING:
    from crmbridge.cli.demo.imports import Sources
    from crmbridge.cli.demo.parts import DemoServer, Emulators
    from crmbridge.cli.demo.report import Result

__all__ = ["add_demo"]

_LEADS, _PEOPLE = Path("samples") / "leads.csv", Path("samples") / "people.csv"


def add_demo(app: typer.Typer, processes: Processes, *, panel: str) -> None:
    """Adds the command."""

    @app.command(rich_help_panel=panel)
    @guarded
    def demo(
        once: Annotated[
            bool, typer.Option("--once", help="End when all is delivered; exit 0 only if nothing is amiss.")
        ] = False,
        folder: Annotated[
            Path, typer.Option("--dir", help="Folder of the demo; emptied at the start.")
        ] = Path(".demo"),
        file: Annotated[
            Path | None,
            typer.Option("--file", help="Import this everywhere; default: samples/leads.csv and people.csv."),
        ] = None,
        as_json: AsJson = False,
    ) -> None:
        """Start everything on this machine, connect every CRM stand-in, import 1,000 rows into each, show the outcome.

        CRMs that connect by consent are connected by real redirects over the stand-in's own page. A CRM with a small
        call budget gets fewer rows; the table says how many and why.
        """
        from crmbridge.cli.demo.imports import Sources
        from crmbridge.cli.demo.parts import locked_folder

        source = Sources(
            leads=_find(file or _LEADS), people=_find(file or _PEOPLE), is_named=file is not None
        )
        folder = folder.absolute()
        with locked_folder(folder) as lock:
            code = asyncio.run(_demo(Output(as_json), processes.command, folder, lock, source, once=once))
        if code:
            raise typer.Exit(code)


def _find(wanted: Path) -> Path:
    for place in (wanted, Path(__file__).parents[4] / wanted):
        if place.is_file():
            return place
    raise Problem(
        f"{wanted} is not there.",
        code="file_not_found",
        hint="Run it in the folder of the repository, or name a file of leads: --file leads.csv",
    )


class _Signals:
    """SIGINT and SIGTERM cancel the demo once; while it stops, they are only noted."""

    def __init__(self) -> None:
        self.came = False
        self._task = asyncio.current_task()

    def come(self) -> None:
        if not self.came and self._task is not None:
            self.came = True
            self._task.cancel()


@contextmanager
def _signals() -> Iterator[_Signals]:
    signals, loop = _Signals(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, signals.come)
    yield signals


async def _demo(
    output: Output, command: tuple[str, ...], folder: Path, lock: int, source: Sources, *, once: bool
) -> int:
    """The exit code: 0, 1 when something is amiss, 130 when interrupted before the end of the imports."""
    from crmbridge.cli.demo.imports import import_everywhere
    from crmbridge.cli.demo.parts import free_port, running_emulators, running_server
    from crmbridge.cli.demo.report import show_results

    code = 130
    taken: set[int] = set()
    with _signals() as signals:
        try:
            port = free_port(taken)
            began = monotonic()
            output.remark("Starting PostgreSQL, the server and the CRM stand-ins …")
            async with (
                running_emulators(taken) as emulators,
                running_server(command, folder, lock, port, emulators) as server,
                Client(server.url, server.key) as client,
            ):
                output.remark(
                    f"Ready after {monotonic() - began:.1f} s. Connecting each CRM, then importing {source.told}."
                )
                results = await import_everywhere(client, emulators, folder, source, output)
                code = 1 if any(result.complaints for result in results) else 0
                if output.as_json:
                    drivers = [result.to_dict() for result in results]
                    places = {"url": server.url, "page": emulators.url, "log": str(server.log)}
                    output.tree({"drivers": drivers, **places})
                else:
                    output.line()
                    show_results(output, results)
                if not once:
                    await _stay(client, server, emulators, output, folder, results)
        except asyncio.CancelledError:
            if not signals.came:
                raise
    output.remark("Everything is stopped.")
    return code


async def _stay(
    client: Client,
    server: DemoServer,
    emulators: Emulators,
    output: Output,
    folder: Path,
    results: list[Result],
) -> None:
    """Shows what to try and waits for a signal. Raises Problem when the server ends by itself."""
    from crmbridge.cli.demo.imports import tenant_slug
    from crmbridge.cli.demo.report import show_next_steps

    taking_leads = [result for result in results if result.object == "lead" and result.delivered]
    working = max(taking_leads, key=lambda result: result.delivered / (result.seconds or 1), default=None)
    if working and not output.as_json:
        tenant = tenant_slug(working.slug)
        body = {"name": "demo agent", "scopes": ["read", "write:*"]}
        token = (await client.post("tenants", tenant, "keys", body=body))["token"]
        show_next_steps(
            output,
            url=server.url,
            page=emulators.url,
            tenant=tenant,
            token=token,
            key_path=_short(folder / "data" / KEY_FILE),
            log=_short(server.log),
            consent=_consent(results, emulators),
            command=_short(Path(sys.argv[0])) if Path(sys.argv[0]).name == "crmbridge" else "crmbridge",
        )
    while server.process.poll() is None:  # noqa: ASYNC110 - a process is asked, it does not tell
        await asyncio.sleep(0.5)
    raise Problem("The server has ended.", code="server_failed", hint=f"Read {server.log}")


def _consent(results: list[Result], emulators: Emulators) -> tuple[str, str, dict[str, str]] | None:
    """A driver that was connected by consent: its tenant, its slug, its settings."""
    from crmbridge.cli.demo.imports import tenant_slug
    from crmbridge.cli.demo.plans import form_of
    from crmbridge.drivers import load

    slug = next((result.slug for result in results if result.way == "consent" and not result.error), "")
    if not slug:
        return None
    return tenant_slug(slug), slug, form_of(load(slug).MANIFEST, emulators.by_slug[slug])


def _short(path: Path) -> str:
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
