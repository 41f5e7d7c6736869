"""``crmbridge keys``: the master key that wraps every tenant's keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crmbridge.cli.options import AsJson
from crmbridge.cli.output import Output, guarded
from crmbridge.cli.problems import Problem
from crmbridge.cli.processes import Processes
from crmbridge.cli.progress import make_progress
from crmbridge.cli.serving import read_settings

__all__ = ["build_keys"]


def build_keys(processes: Processes) -> typer.Typer:
    """The command group; all but ``init`` open the services."""
    app = typer.Typer(no_args_is_help=True, help="Make, look at and rotate the master key.")

    @app.command()
    @guarded
    def init(
        file: Annotated[
            Path | None, typer.Option("--file", help="Write it there (mode 0600) and print no key.")
        ] = None,
        rotate: Annotated[
            bool, typer.Option("--rotate", help="Put the new key before those that --file holds.")
        ] = False,
        as_json: AsJson = False,
    ) -> None:
        """Make a master key. Losing it loses all that it wraps: keep a copy apart from the database."""
        _init(Output(as_json), file, rotate=rotate)

    @app.command()
    @guarded
    async def status(as_json: AsJson = False) -> None:
        """How many keys each master key wraps."""
        output = Output(as_json)
        async with processes.services(read_settings()) as services:
            found = await services.vault.status()
        if as_json:
            output.tree(
                {
                    "current": found.current_id,
                    "held": list(found.known_ids),
                    "wrapped": found.counts,
                    "behind": found.behind,
                    "missing": list(found.missing_ids),
                }
            )
        else:
            ids = dict.fromkeys([*found.known_ids, *found.counts])
            rows = [
                (
                    key_id,
                    found.counts.get(key_id, 0),
                    "current"
                    if key_id == found.current_id
                    else "MISSING here"
                    if key_id in found.missing_ids
                    else "older",
                )
                for key_id in ids
            ]
            output.table(("master key", "wraps", ""), rows, right=("wraps",))
            if found.behind:
                output.remark(f"{found.behind} keys are behind: run `crmbridge keys rotate`.")
        if found.missing_ids:
            raise typer.Exit(1)

    @app.command()
    @guarded
    async def rotate(as_json: AsJson = False) -> None:
        """Bring every key under the current master key, while the servers run. May be stopped and run again."""
        output = Output(as_json)
        progress = make_progress(output)
        progress.disable = progress.disable or as_json
        rewrapped = tenants = 0
        async with processes.services(read_settings()) as services:
            with progress:
                task = progress.add_task("rewrapping", total=None, told="")
                async for step in services.vault.rewrap():
                    rewrapped, tenants = step.rewrapped, step.tenants_total
                    progress.update(
                        task,
                        completed=step.tenants_done,
                        total=max(step.tenants_total, 1),
                        told=f"{step.tenants_done:,} of {step.tenants_total:,} tenants, {rewrapped:,} keys",
                    )
                progress.update(task, completed=max(tenants, 1), total=max(tenants, 1))
            found = await services.vault.status()
        if as_json:
            output.tree({"rewrapped": rewrapped, "tenants": tenants, "behind": found.behind})
        else:
            output.line(f"{rewrapped:,} keys of {tenants:,} tenants were brought under {found.current_id}.")
            for key_id in found.known_ids[1:]:
                output.remark(f"`crmbridge keys retire {key_id}` tells whether {key_id} may be removed now.")

    @app.command()
    @guarded
    async def retire(
        master_key_id: Annotated[str, typer.Argument(help="Id of the older master key.")],
        as_json: AsJson = False,
    ) -> None:
        """Tell whether an older master key may be removed; refuses while anything needs it."""
        output = Output(as_json)
        async with processes.services(read_settings()) as services:
            await services.vault.retire(master_key_id)
        if as_json:
            output.tree({"master_key": master_key_id, "may_be_removed": True})
        else:
            output.line(f"Nothing needs {master_key_id} any more: remove it from every server.")

    return app


def _init(output: Output, file: Path | None, *, rotate: bool) -> None:
    from crmbridge.services.vault import new_master_key, write_master_key_file

    if rotate and file is None:
        raise Problem("--rotate needs --file.", code="usage", hint="Name the file that holds the keys.")
    if file is None:
        key = new_master_key()
        if output.as_json:
            output.tree({"environment": {"CRMBRIDGE_MASTER_KEY": key}})
            return
        output.line(f"CRMBRIDGE_MASTER_KEY={key}")
        output.remark(
            "Shown once. Set it for every server and worker, and keep a copy apart from the database."
        )
        return
    try:
        key_id = write_master_key_file(file, rotate=rotate)
    except FileExistsError:
        raise Problem(
            f"{file} exists already; writing over a master key destroys all that it wraps.",
            code="file_exists",
            hint="Use --rotate to put a new key before the old ones, or name another file.",
        ) from None
    except OSError as error:
        raise Problem(f"{file} cannot be written: {error.strerror}.", code="file_not_written") from None
    if output.as_json:
        output.tree({"key_id": key_id, "environment": {"CRMBRIDGE_MASTER_KEY_FILE": str(file.absolute())}})
        return
    output.line(f"CRMBRIDGE_MASTER_KEY_FILE={file.absolute()}")
    output.remark(f"Made {key_id}. Keep a copy of the file apart from the database.")
