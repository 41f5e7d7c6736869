"""``serve``, ``worker``, ``emulate``, ``conformance``: commands that run until they are stopped, or long."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crmbridge.cli.options import AsJson, parse_texts, read_text
from crmbridge.cli.output import Output, guarded
from crmbridge.cli.problems import Problem, UsageProblem
from crmbridge.cli.processes import Processes

if TYPE_CHECKING:
    from crmbridge.settings import Settings

__all__ = ["add_serving", "read_settings", "stop_with_parent"]

_CLIENT_VARIABLES = (
    "CRMBRIDGE_URL",
    "CRMBRIDGE_API_KEY",
    "CRMBRIDGE_CLIENT_SECRET",
    "CRMBRIDGE_OPERATOR_PASSWORD",
)
_LAST_EXIT_SECONDS = 30.0

UntilClosed = Annotated[
    bool, typer.Option("--stop-with-parent", hidden=True, help="Stop when standard input closes.")
]


def read_settings(environ: Mapping[str, str] = os.environ, *, logs: bool = False) -> Settings:
    """The settings of the environment. ``logs`` also sets up logging and warns of misspelt variables.

    Raises SettingRefused naming every bad variable.
    """
    from crmbridge.settings import Settings, unknown_variables

    settings = Settings.from_environment(environ)
    if logs:
        from crmbridge.logs import configure_logs, get_logger

        configure_logs(settings.log_format, settings.log_level)
        for name, nearest in unknown_variables(environ).items():
            if name not in _CLIENT_VARIABLES:
                get_logger("crmbridge.cli").warning("setting.unknown", variable=name, did_you_mean=nearest)
    return settings


def stop_with_parent() -> None:
    """When standard input closes (the parent is gone, in whatever way), asks this process to stop, then makes it."""

    def watch() -> None:
        try:
            while os.read(0, 4096):
                pass
        except OSError:
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(_LAST_EXIT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="stop-with-parent", daemon=True).start()


def add_serving(app: typer.Typer, processes: Processes) -> None:
    """Adds the commands that need the composition root."""

    @app.command(rich_help_panel="Server")
    @guarded
    def serve(
        no_worker: Annotated[
            bool, typer.Option("--no-worker", help="Only the API; run `crmbridge worker` beside it.")
        ] = False,
        until_closed: UntilClosed = False,
    ) -> None:
        """Run the API and a worker. Starts its own PostgreSQL unless CRMBRIDGE_DATABASE_URL is set."""
        settings = read_settings(logs=True)
        if until_closed:
            stop_with_parent()
        _run(processes.serve(settings, with_worker=not no_worker))

    @app.command(rich_help_panel="Server")
    @guarded
    def worker(until_closed: UntilClosed = False) -> None:
        """Run only a worker: delivers what is due."""
        settings = read_settings(logs=True)
        if until_closed:
            stop_with_parent()
        _run(processes.work(settings))


def _run(running: Any) -> None:
    """The faster event loop where there is one."""
    try:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(running)
    except ImportError:
        asyncio.run(running)


# ---------------------------------------------------------------- emulators


@guarded
async def emulate(
    slugs: Annotated[
        list[str] | None, typer.Argument(metavar="[SLUG]...", help="Which providers; default: all.")
    ] = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65000, help="Of the page; each CRM takes the next. 0: any.")
    ] = 28790,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    latency_ms: Annotated[float, typer.Option("--latency-ms", min=0, help="Delay of every answer.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Run local stand-ins for CRM providers, with a page that shows what they hold."""
    from crmbridge.emulation.serve import serve_emulators

    output = Output(as_json)
    emulators = {slug: make() for slug, make in _emulator_classes(slugs or []).items()}
    try:
        ports = {slug: port and port + place for place, slug in enumerate(emulators, start=1)}
        served = await serve_emulators(emulators, host, port, ports=ports, latency_ms=latency_ms)
    except OSError as error:
        raise Problem(
            f"A port from {port} on cannot be used: {error.strerror}.",
            code="port_taken",
            hint="Name another: --port 0.",
        ) from None
    try:
        _show_emulators(output, served, emulators)
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()
    finally:
        await served.close()


def _emulator_classes(wanted: list[str]) -> dict[str, type[Any]]:
    from crmbridge.core.errors import NotConfigured
    from crmbridge.drivers import DRIVERS, load_emulator
    from crmbridge.drivers import slugs as known_slugs

    classes = {}
    for slug in wanted or known_slugs():
        try:
            classes[slug] = load_emulator(slug)
        except NotConfigured as error:
            if wanted or slug in DRIVERS:
                raise
            Output().remark(error.message)  # another package's driver must not keep ours from being tried
    if missing := [slug for slug in wanted if classes[slug] is None]:
        raise UsageProblem(f"There is no emulator of {', '.join(missing)}.")
    return {slug: made for slug, made in classes.items() if made is not None}


def _show_emulators(output: Output, served: Any, emulators: Mapping[str, Any]) -> None:
    tree = {
        slug: {"url": served.urls[slug], **emulator.settings(), **emulator.secrets()}
        for slug, emulator in emulators.items()
    }
    apps = {slug: app for slug, emulator in emulators.items() if (app := emulator.oauth_app())}
    if output.as_json:
        output.tree({"page": served.url, "emulators": tree, "oauth_apps": apps})
        return
    for slug, credential in tree.items():
        output.line(slug, "bold")
        app = {f"OAuth app, {name}": text for name, text in apps.get(slug, {}).items()}
        output.facts({**credential, **app}.items())
        output.line()
    output.line(f"Credentials and records: {served.url}    Stop with Ctrl-C.")


# ---------------------------------------------------------------- conformance


@guarded
def conformance(
    slug: Annotated[str, typer.Argument(help="A driver, or module:Class of one that lives elsewhere.")] = "",
    all_drivers: Annotated[bool, typer.Option("--all", help="Every registered driver.")] = False,
    live: Annotated[bool, typer.Option("--live", help="Against the real provider, with --set.")] = False,
    values: Annotated[
        list[str] | None, typer.Option("--set", help="name=value of the test account; - reads stdin.")
    ] = None,
    files: Annotated[list[str] | None, typer.Option("--set-file", help="name=path of a value.")] = None,
    allow: Annotated[
        list[str] | None, typer.Option("--egress-allow", help="Private host:port that may be called.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the contract that every driver keeps, against its emulator or (--live) the real provider."""
    if bool(slug) == all_drivers:
        raise UsageProblem("Name one driver, or give --all.")
    if live and all_drivers:
        raise UsageProblem("--live takes one driver.")
    from crmbridge.conformance.run import run_contract
    from crmbridge.core.errors import NotConfigured
    from crmbridge.drivers import load, slugs

    output = Output(as_json)
    names = slugs() if all_drivers else [slug]
    reports, broken = [], []
    for name in names:
        try:
            if all_drivers and load(name).MANIFEST.why_unavailable:
                continue
            output.remark(f"{name} …")
            target = _live_target(name, values or [], files or [], allow or []) if live else None
            reports.append(run_contract(name, target))
        except NotConfigured as error:  # another package's driver must not keep the others from being tried
            if not all_drivers:
                raise
            broken.append(name)
            Output().remark(error.message)
    if as_json:
        output.tree({"reports": [report.to_dict() for report in reports]})
    else:
        _show_reports(output, reports)
    if broken or not all(report.is_kept for report in reports):
        raise typer.Exit(1)


def _live_target(slug: str, values: list[str], files: list[str], allow: list[str]) -> Any:
    from crmbridge.conformance.run import LiveTarget, contract_for

    given = {
        name: read_text("-") if text == "-" else text for name, text in parse_texts(values, "--set").items()
    }
    given |= {name: read_text(path) for name, path in parse_texts(files, "--set-file").items()}
    secret = {setting.name for setting in contract_for(slug).driver.MANIFEST.settings if setting.is_secret}
    return LiveTarget(
        settings={name: text for name, text in given.items() if name not in secret},
        secrets={name: text for name, text in given.items() if name in secret},
        egress_allow=tuple(allow),
    )


def _show_reports(output: Output, reports: list[Any]) -> None:
    topics = list(dict.fromkeys(topic for report in reports for topic in report.topics()))
    rows = []
    for topic in topics:
        cells = []
        for report in reports:
            row = report.topics().get(topic, {})
            told = f"{row.get('passed', 0)} ok" if row.get("passed") else "-"
            told += f", {row['failed']} FAILED" if row.get("failed") else ""
            told += f", {row['gap']} gap" if row.get("gap") else ""
            cells.append(told)
        rows.append((topic, *cells))
    output.table(("topic", *(f"{report.driver} ({report.target})" for report in reports)), rows)
    for report in reports:
        for result in report.results:
            if result.verdict.value == "failed":
                output.line(f"{report.driver} {result.name}: {result.message}", "red")
        for obj, remote_id in report.left_behind:
            output.line(f"{report.driver} left behind: {obj} {remote_id}", "yellow")
