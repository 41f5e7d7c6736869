"""A process of the room that knows another set of migrations: ``python -m tests.faults.release serve|worker ...``.

``CRMBRIDGE_TEST_MIGRATIONS`` is the folder. It stands for an older release when the last ones are missing in it, for a
newer one when it holds more than the product's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from tests.faults.child import VARIABLE, Plan
from tests.faults.house import ROOT, Child, FaultHouse, free_ports

from crmbridge.db import schema

__all__ = ["FOLDER", "Release", "archived", "migrations_with"]

FOLDER = "CRMBRIDGE_TEST_MIGRATIONS"


@dataclass(frozen=True)
class Release:
    """Code in ``tree`` (a checkout), and the migrations that it knows."""

    name: str
    tree: Path
    migrations: Path

    def start(self, house: FaultHouse, kind: str, plan: Plan | None = None) -> Child:
        """``serve`` (without worker) or ``worker``, a fresh process; it is one of the house's from then on."""
        house.started += 1
        name = f"{kind}-{self.name}-{house.started}"
        log = house.folder / f"{name}.log"
        environment = {
            **house.environment,
            "PYTHONPATH": os.pathsep.join([str(self.tree / "src"), str(self.tree)]),
            VARIABLE: msgspec.json.encode(plan or house.plan).decode(),
            FOLDER: str(self.migrations),
        }
        port = 0
        command = [kind]
        if kind == "serve":
            port = free_ports()
            environment |= {"CRMBRIDGE_PORT": str(port), "CRMBRIDGE_PUBLIC_URL": f"http://127.0.0.1:{port}"}
            command.append("--no-worker")
        # A real older tree knows its own migrations; it is the product of then, with the product's times.
        module = "tests.faults.release" if self.tree == ROOT else "crmbridge.app"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *command],
                cwd=self.tree,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        child = Child(name, process, port)
        (house.apis if port else house.workers).append(child)
        return child


def migrations_with(folder: Path, more: Sequence[tuple[str, str]]) -> Path:
    """The product's migrations, copied there, and further ones, each a name without its number and its text.

    None is left out for an older release: this code may need the last of its own.
    """
    folder.mkdir()
    for path in schema.migration_files(schema.MIGRATIONS):
        shutil.copy(path, folder)
    first = len(list(folder.iterdir())) + 1
    for number, (name, text) in enumerate(more, start=first):
        (folder / f"{number:04d}_{name}.sql").write_text(text, encoding="utf-8")
    return folder


def archived(revision: str, folder: Path) -> Release:
    """An older release as git has it. Raises where there is no history, or not that revision."""
    folder.mkdir()
    packed = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True)
    name = re.sub(r"[^a-z0-9]+", "-", revision.lower()).strip("-")
    return Release(name, folder, folder / "src" / "crmbridge" / "db" / "migrations")


def main() -> None:
    """Let this process know the folder's migrations and no others, then be the room's child."""
    folder = Path(os.environ[FOLDER])
    for function in (
        schema.migrate,
        schema.pending,
        schema.require_schema,
        schema.unapplied,
        schema.unfit,
    ):
        # The folder is each one's only default that is not by keyword.
        function.__defaults__ = (folder,)
    from tests.faults.child import main as child

    child()


if __name__ == "__main__":
    main()
