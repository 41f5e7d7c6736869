"""``crmbridge demo``: every driver that has an emulator, connected and loaded, with nothing to set up."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crmbridge.cli.client import KEY_FILE, Client
from crmbridge.cli.options import AsJson
from crmbridge.cli.output import Output, guarded
from crmbridge.cli.problems import Problem, ServerRefusal
from crmbridge.cli.processes import Processes

if TYPE_CHECKING:
    from crmbridge.cli.demo.parts import DemoServer, Emulators
    from crmbridge.cli.demo.report import Result
    from crmbridge.cli.importing.marks import Mark
    from crmbridge.cli.importing.run import Delivered

__all__ = ["add_demo"]

_SAMPLE = Path("samples") / "leads.csv"
_REGION, _ZONE = "AE", "Asia/Dubai"
_NAMES = ("first_name", "last_name", "full_name")


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
            Path | None, typer.Option("--file", help="Leads to import; default: samples/leads.csv.")
        ] = None,
        as_json: AsJson = False,
    ) -> None:
        """Start everything on this machine, import 1,000 leads into every CRM stand-in, show what became of them."""
        from crmbridge.cli.demo.parts import locked_folder

        source = _find_sample(file)
        folder = folder.absolute()
        with locked_folder(folder) as lock:
            code = asyncio.run(_demo(Output(as_json), processes.command, folder, lock, source, once=once))
        if code:
            raise typer.Exit(code)


def _find_sample(named: Path | None) -> Path:
    places = [named] if named else [_SAMPLE, Path(__file__).parents[4] / _SAMPLE]
    for place in places:
        if place.is_file():
            return place
    raise Problem(
        f"{places[0]} is not there.",
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
    output: Output, command: tuple[str, ...], folder: Path, lock: int, source: Path, *, once: bool
) -> int:
    """The exit code: 0, 1 when something is amiss, 130 when interrupted before the end of the imports."""
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
                    f"Ready after {monotonic() - began:.1f} s. Importing {source.name} into each CRM."
                )
                results = await _import_everywhere(client, emulators, folder, source, output)
                code = 1 if any(result.complaints for result in results) else 0
                if output.as_json:
                    output.tree({"drivers": [result.to_dict() for result in results], "log": str(server.log)})
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
    from crmbridge.cli.demo.report import show_next_steps

    working = max(results, key=lambda result: result.delivered / (result.seconds or 1)).slug
    if working and not output.as_json:
        tenant = _tenant_slug(working)
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
            command=_short(Path(sys.argv[0])) if Path(sys.argv[0]).name == "crmbridge" else "crmbridge",
        )
    while server.process.poll() is None:  # noqa: ASYNC110 - a process is asked, it does not tell
        await asyncio.sleep(0.5)
    raise Problem("The server has ended.", code="server_failed", hint=f"Read {server.log}")


def _short(path: Path) -> str:
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _tenant_slug(driver: str) -> str:
    return f"demo-{driver.replace('_', '-')}"


# ---------------------------------------------------------------- imports


async def _import_everywhere(
    client: Client, emulators: Emulators, folder: Path, source: Path, output: Output
) -> list[Result]:
    from crmbridge.cli.progress import make_progress

    entries = (await client.get("drivers"))["drivers"]
    progress = make_progress(output)
    progress.disable = progress.disable or output.as_json
    with progress:
        return list(
            await asyncio.gather(
                *(
                    _try_driver(client, entry, emulators, folder, source, progress)
                    for entry in entries
                    if entry["slug"] in emulators.by_slug or entry.get("why_unavailable")
                )
            )
        )


async def _try_driver(
    client: Client, entry: dict[str, Any], emulators: Emulators, folder: Path, source: Path, progress: Any
) -> Result:
    """A tenant, a connection, an import; what goes wrong is part of the result."""
    from crmbridge.cli.demo.report import Result

    slug = entry["slug"]
    result = Result(slug=slug)
    try:
        tenant = _tenant_slug(slug)
        body = {
            "slug": tenant,
            "name": f"Demo of {entry['display_name']}",
            "vertical": "real_estate",
            "region": _REGION,
            "time_zone": _ZONE,
        }
        await client.post("tenants", body=body)
        if not await _connect(client, tenant, slug, emulators, result):
            return result
        await _import(client, tenant, slug, emulators, folder, source, progress, result)
    except Problem as problem:
        result.error = f"{problem.code}: {problem.message}"
        fields = problem.body.get("fields") or []
        result.error += "".join(f"; {entry.get('field')}: {entry.get('message')}" for entry in fields)
    return result


async def _connect(client: Client, tenant: str, slug: str, emulators: Emulators, result: Result) -> bool:
    form = emulators.credential(slug) if slug in emulators.by_slug else {}
    try:
        credential = await client.post(
            "tenants", tenant, "credentials", body={"driver": slug, "settings": form}
        )
    except ServerRefusal as refusal:
        if refusal.body.get("subcode") != "driver_unavailable":
            raise
        result.refusal = refusal.message
        result.way_out = str((refusal.body.get("fix") or {}).get("hint", ""))
        return False
    path = ("tenants", tenant, "credentials", credential["id"])
    report = await client.post(*path, "test")
    if not report["ok"]:
        error = report.get("error") or {}
        raise Problem(str(error.get("message", "the live test failed")), body=error)
    await client.post(*path, "activate")
    return True


async def _import(
    client: Client,
    tenant: str,
    slug: str,
    emulators: Emulators,
    folder: Path,
    source: Path,
    progress: Any,
    result: Result,
) -> None:
    from crmbridge.cli.importing.command import ImportForm, begin, load, prepare
    from crmbridge.cli.importing.run import Target, follow

    own = folder / "imports" / slug
    own.mkdir(parents=True)
    copy = Path(shutil.copy(source, own / source.name))
    form = ImportForm(source=copy, tenant=tenant, dayfirst=True)
    rows_before, calls_before = emulators.rows(slug), emulators.calls(slug)
    prepared = await prepare(client, form)
    with prepared.reader:
        result.good = _count_good(form, prepared)
        mark, _ = await begin(client, form, prepared, restart=True)
        target = Target(tenant=tenant, object=form.object, import_id=mark.import_id)
        bar = _Bar(progress, slug)
        began = monotonic()
        await load(client, form, prepared, mark, target, bar)
    delivered = await follow(client, target, bar, began=began, patience=120.0, every=0.1)
    result.read, result.rejected = mark.read, mark.rejected
    result.accepted = mark.accepted + mark.replayed
    result.delivered, result.given_up = delivered.applied, delivered.given_up
    result.reasons, result.seconds = delivered.reasons, delivered.seconds
    result.calls = emulators.calls(slug) - calls_before
    rows_after = emulators.rows(slug)
    result.held = max((rows_after[name] - rows_before.get(name, 0) for name in rows_after), default=0)


def _count_good(form: Any, prepared: Any) -> int:
    """Rows that every CRM has to take: readable, clean, and with a name."""
    from crmbridge.cli.importing.cleaning import SpoiltRow
    from crmbridge.cli.importing.rows import Row, open_rows

    good = 0
    with open_rows(form.source) as reader:
        for row in reader:
            try:
                fields = prepared.cleaner.fields(row.values) if isinstance(row, Row) else {}
            except SpoiltRow:
                continue
            good += any(fields.get(name) for name in _NAMES)
    return good


class _Bar:
    """A View: one driver's line among the bars."""

    def __init__(self, progress: Any, slug: str) -> None:
        self._progress = progress
        self._task = progress.add_task(slug.ljust(15), total=None, told="")
        self._position = 0
        self._read = 0

    def loading(self, position: int, total: int, mark: Mark) -> None:
        """Rows accepted."""
        self._read = mark.read
        told = f"{mark.read:,} rows read"
        self._progress.update(self._task, completed=position, total=total, told=told)

    def delivering(self, delivered: Delivered) -> None:
        """Records in the CRM."""
        told = f"{self._read:,} rows read, {delivered.applied:,} delivered"
        total = max(delivered.total, 1)
        self._progress.update(
            self._task, completed=delivered.total - delivered.pending, total=total, told=told
        )

    def trouble(self, text: str) -> None:
        """Nothing to say: the demo's own server is beside it."""
