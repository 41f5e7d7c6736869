"""A house to test from outside: the real commands as processes, a real PostgreSQL, CRM stand-ins on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.faults.process import free_ports
from tests.needs import folder_for_all, missing

from crmbridge.db.cluster import find_binaries
from crmbridge.db.errors import EmbeddedPostgresFailed

COMMAND = (sys.executable, "-m", "crmbridge.app")


def wait_for(what: Any, seconds: float = 60.0) -> Any:
    """Polls until ``what()`` is true, and answers it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


def get(url: str) -> Any:
    """JSON of a loopback address, or None when nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)
    except OSError:
        return None


def unmetered(credential: dict[str, str]) -> dict[str, str]:
    """Without the rate of the example document, which would stretch a thousand calls over two minutes."""
    document = json.loads(credential.get("manifest", "{}"))
    document.pop("rate", None)
    return {name: json.dumps(document) if name == "manifest" else text for name, text in credential.items()}


@dataclass
class CliHouse:
    """A folder with a server and stand-ins; :meth:`run` is the command line."""

    folder: Path
    port: int
    environment: dict[str, str]
    server: subprocess.Popen[bytes] | None = None
    crm: subprocess.Popen[bytes] | None = None
    page: str = ""
    credentials: dict[str, dict[str, str]] = field(default_factory=dict)

    def start_crm(self) -> None:
        self.crm = subprocess.Popen(
            [*COMMAND, "emulate", "odoo", "rest_api", "--port", "0", "--json"],
            stdout=subprocess.PIPE,
            env=self.environment,
        )
        assert self.crm.stdout is not None
        text = b""
        while not text.endswith(b"\n}\n"):
            piece = self.crm.stdout.readline()
            assert piece, "the stand-ins did not start"
            text += piece
        tree = json.loads(text)
        self.page, self.credentials = tree["page"], tree["emulators"]

    def start_server(self) -> None:
        with (self.folder / "server.log").open("ab") as log:
            self.server = subprocess.Popen(
                [*COMMAND, "serve"], stdout=log, stderr=log, env=self.environment, start_new_session=True
            )
        process = self.server
        url = f"http://127.0.0.1:{self.port}/readyz"
        wait_for(lambda: get(url) or process.poll() is not None, 90)
        assert process.poll() is None, (self.folder / "server.log").read_text()[-2000:]

    def kill_server(self) -> None:
        assert self.server is not None
        self.server.kill()
        self.server.wait()

    def run(
        self, *arguments: str, code: int | None = 0, seconds: float = 90
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*COMMAND, *arguments],
            capture_output=True,
            text=True,
            timeout=seconds,
            env=self.environment,
            stdin=subprocess.DEVNULL,
        )
        assert code is None or done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        return done

    def json(self, *arguments: str, code: int | None = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def connect(self, tenant: str, driver: str = "odoo") -> None:
        """A new tenant, connected to a stand-in."""
        self.run("tenants", "add", tenant, "--vertical", "real_estate", "--region", "AE")
        pairs = [
            part
            for name, text in unmetered(self.credentials[driver]).items()
            if (driver, name) != ("rest_api", "url")  # where it runs, which is no setting of this driver
            for part in ("--set", f"{name}={text}")
        ]
        self.run("connect", tenant, driver, *pairs)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=self.environment,
        )

    def records(self, slug: str) -> list[dict[str, Any]]:
        """What a stand-in holds, of all its tables."""
        tables = get(f"{self.page}/_control/{slug}/records")
        return [row["fields"] for rows in tables.values() for row in rows]

    def close(self) -> None:
        for process in (self.server, self.crm):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@pytest.fixture(scope="module")
def cli_house() -> Iterator[CliHouse]:
    """A running house, one per test module, torn down whatever happens."""
    try:
        find_binaries()
    except EmbeddedPostgresFailed as error:
        missing(f"no PostgreSQL: {error.message}")
    with folder_for_all("crmb-e2e-") as folder:
        yield from running(folder)


def running(folder: Path) -> Iterator[CliHouse]:
    """The house in this folder; all its processes end with it."""
    port = free_ports()
    environment = {name: text for name, text in os.environ.items() if not name.startswith("CRMBRIDGE_")}
    environment |= {
        "CRMBRIDGE_DATA_DIR": str(folder / "data"),
        "CRMBRIDGE_MASTER_KEY_FILE": str(folder / "master.key"),
        "CRMBRIDGE_PORT": str(port),
        "CRMBRIDGE_URL": f"http://127.0.0.1:{port}",
        "CRMBRIDGE_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "CRMBRIDGE_EGRESS_ALLOW": "127.0.0.1",
    }
    made = CliHouse(folder, port, environment)
    try:
        made.run("keys", "init", "--file", str(folder / "master.key"))
        made.start_crm()
        made.start_server()
        yield made
    finally:
        made.close()
