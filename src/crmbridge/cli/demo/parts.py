"""The parts of the demo: its folder, its ports, its emulators, and the server as one child process.

Nothing is left running, however the demo ends: the server stops by itself when the pipe to its standard input
closes, and its PostgreSQL with it. The lock on the folder is inherited by the server, so that the next demo waits
until the last process of the one before is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from crmbridge.cli.client import KEY_FILE, Client
from crmbridge.cli.problems import Problem

if TYPE_CHECKING:
    from crmbridge.emulation.serve import Served

__all__ = ["DemoServer", "Emulators", "free_port", "locked_folder", "running_emulators", "running_server"]

PORTS = range(28700, 30000)
_MARKER = "crmbridge-demo"
_KEPT = ("data",)
_ELSEWHERE = "crmbridge-demo-"
_LOCK_SECONDS = 40.0
_START_SECONDS = 90.0
_STOP_SECONDS = 30.0
_PORT_TRIES = 5
_ADDRESS = re.compile(r"[\w.+-]+@[\w.-]+")
_DIGITS, _BETWEEN = re.compile(r"\d{10,15}"), re.compile(r"(?<=\d)[ ().-]+(?=\d)")


@contextmanager
def locked_folder(folder: Path) -> Iterator[int]:
    """An empty folder of our own; yields the lock's descriptor. Raises Problem.

    A folder that no demo made is never emptied.
    """
    marker = folder / _MARKER
    try:
        if folder.exists() and any(folder.iterdir()) and not marker.exists():
            raise Problem(
                f"{folder} holds other things.", code="folder_in_use", hint="Name an empty folder: --dir PATH"
            )
        folder.mkdir(parents=True, exist_ok=True)
        marker.touch(mode=0o600)
        lock = os.open(marker, os.O_RDWR)
    except OSError as error:
        raise Problem(
            f"{folder} cannot be used: {error.strerror}.",
            code="folder_not_writable",
            hint="If another user ran the demo there, remove the folder or name another: --dir PATH",
        ) from None
    try:
        _take(lock, folder)
        _empty(folder)
        yield lock
    finally:
        os.close(lock)


def _take(lock: int, folder: Path) -> None:
    deadline = monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if _is_running(lock) or monotonic() > deadline:
                raise Problem(
                    f"A demo is running in {folder}.",
                    code="demo_running",
                    hint="Stop it with Ctrl-C, or start a second one with --dir PATH",
                ) from None
        sleep(0.2)


def _is_running(lock: int) -> bool:
    """Whether the process that wrote its id there is alive; its server may outlive it by some seconds."""
    text = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
    if not text.isdigit():
        return False
    try:
        os.kill(int(text), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return int(text) != os.getpid()


def _empty(folder: Path) -> None:
    """Removes what the demo before left, but not the PostgreSQL binaries that root copies."""
    for entry in folder.iterdir():
        if entry.name == _MARKER:
            continue
        if entry.is_symlink() and entry.readlink().name.startswith(_ELSEWHERE):
            _remove(entry.readlink())
        if entry.name in _KEPT and entry.is_dir() and not entry.is_symlink():
            for inner in entry.iterdir():
                if inner.name != "binaries":
                    _remove(inner)
        else:
            _remove(entry)
    handle = os.open(folder / _MARKER, os.O_WRONLY | os.O_TRUNC)
    os.write(handle, str(os.getpid()).encode())
    os.close(handle)


def data_folder(folder: Path) -> Path:
    """Where the server keeps its data: ``data`` inside, or behind a link of that name.

    Run by root, PostgreSQL runs as another user; where that one cannot enter (a repository under /root), the data
    goes to /var/tmp, and the link lets the next demo remove it.
    """
    from crmbridge.db.cluster import ServiceUser

    inside = folder / "data"
    user = ServiceUser.choose()
    if user.uid is None or user.run(["/bin/sh", "-c", 'cd "$0"', str(folder)]).returncode == 0:
        return inside
    _remove(inside)
    elsewhere = Path(tempfile.mkdtemp(prefix=_ELSEWHERE, dir="/var/tmp"))
    inside.symlink_to(elsewhere)
    return elsewhere


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def free_port(taken: set[int]) -> int:
    """The next port from 28700 on that nobody listens at on loopback. Raises Problem."""
    for port in PORTS:
        if port in taken:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        taken.add(port)
        return port
    raise Problem("No port from 28700 to 29999 is free on 127.0.0.1.", code="port_taken")


# ---------------------------------------------------------------- emulators


@dataclass
class Emulators:
    """Running emulators by slug, the page that shows them, and the hosts that the server may call."""

    by_slug: dict[str, Any]
    url: str
    allow: set[str] = field(default_factory=set)

    def rows(self, slug: str) -> dict[str, int]:
        """Records per table."""
        return {name: len(table) for name, table in self.by_slug[slug].store.tables.items()}

    def contacts(self, slug: str) -> set[str]:
        """E-mail addresses and phone numbers (their last ten digits) that the CRM holds."""
        found: set[str] = set()
        for table in self.by_slug[slug].store.tables.values():
            for row in table:
                text = str(row.fields)
                found.update(address.casefold() for address in _ADDRESS.findall(text))
                found.update(digits[-10:] for digits in _DIGITS.findall(_BETWEEN.sub("", text)))
        return found

    def calls(self, slug: str) -> int:
        """Requests seen."""
        return sum(self.by_slug[slug].calls.values())


@asynccontextmanager
async def running_emulators(taken: set[int]) -> AsyncIterator[Emulators]:
    """Every emulator of our own drivers, in this process."""
    from crmbridge.drivers import DRIVERS, load_emulator

    made = {slug: load_emulator(slug) for slug in sorted(DRIVERS)}
    emulators: dict[str, Any] = {slug: kind() for slug, kind in made.items() if kind is not None}
    served = await _serve(emulators, taken)
    running = Emulators(emulators, served.url, {urlsplit(url).netloc for url in served.urls.values()})
    try:
        yield running
    finally:
        await served.close()


async def _serve(emulators: dict[str, Any], taken: set[int]) -> Served:
    """A port each: a CRM of one's own host has no path before its addresses either. Raises Problem.

    A port that was free a moment ago may be another program's by now: then all are chosen anew.
    """
    from crmbridge.emulation.serve import serve_emulators

    for _ in range(_PORT_TRIES):
        page_port = free_port(taken)
        ports = {slug: free_port(taken) for slug in emulators}
        try:
            return await serve_emulators(emulators, "127.0.0.1", page_port, ports=ports)
        except OSError:
            continue
    raise Problem("Other programs take the ports from 28700 on as fast as they are found.", code="port_taken")


# ---------------------------------------------------------------- server


@dataclass(frozen=True)
class DemoServer:
    """The running server."""

    url: str
    key: str
    log: Path
    process: subprocess.Popen[bytes]


@asynccontextmanager
async def running_server(
    command: tuple[str, ...], folder: Path, lock: int, port: int, emulators: Emulators
) -> AsyncIterator[DemoServer]:
    """``serve`` with its worker and its own PostgreSQL, in a child process. Raises Problem with the log's end."""
    from crmbridge.services.vault import write_master_key_file

    data, log = data_folder(folder), folder / "server.log"
    key_file = folder / "master.key"
    write_master_key_file(key_file)
    environment = _environment(data, key_file, port, emulators)
    process = _spawn([*command, "serve", "--stop-with-parent"], environment, log, lock)
    url = f"http://127.0.0.1:{port}"
    try:
        await _wait_ready(process, url, log, data / KEY_FILE)
        key = (data / KEY_FILE).read_text(encoding="ascii").strip()
        yield DemoServer(url, key, log, process)
    finally:
        await asyncio.shield(asyncio.to_thread(_stop, process))
        if data.parent != folder:
            _remove(data)


def _spawn(
    command: list[str], environment: Mapping[str, str], log: Path, lock: int
) -> subprocess.Popen[bytes]:
    """In a session of its own: Ctrl-C on the terminal reaches the demo only, which then stops the server."""
    with log.open("wb") as output:
        return subprocess.Popen(  # noqa: S603 - our own command line
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=(lock,),
            start_new_session=True,
        )


def _environment(data: Path, key_file: Path, port: int, emulators: Emulators) -> Mapping[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("CRMBRIDGE_")}
    if "CRMBRIDGE_PG_BINDIR" in os.environ:
        kept["CRMBRIDGE_PG_BINDIR"] = os.environ["CRMBRIDGE_PG_BINDIR"]
    return {
        **kept,
        "CRMBRIDGE_DATA_DIR": str(data),
        "CRMBRIDGE_MASTER_KEY_FILE": str(key_file),
        "CRMBRIDGE_HOST": "127.0.0.1",
        "CRMBRIDGE_PORT": str(port),
        "CRMBRIDGE_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "CRMBRIDGE_EGRESS_ALLOW": ",".join(sorted(emulators.allow)),
        "CRMBRIDGE_LOG_FORMAT": "json",
    }


async def _wait_ready(process: subprocess.Popen[bytes], url: str, log: Path, key: Path) -> None:
    """Its key file tells our server from a stranger's that took the port in between."""
    deadline = monotonic() + _START_SECONDS
    async with Client(url, "") as client:
        while not (await asyncio.to_thread(key.exists) and await client.is_ready()):
            if process.poll() is not None or monotonic() > deadline:
                raise _not_started(log)
            await asyncio.sleep(0.1)


def _not_started(log: Path) -> Problem:
    tail = log.read_text(encoding="utf-8", errors="replace")[-1500:]
    return Problem(f"The server did not start:\n{tail}", code="server_failed", hint=f"Read {log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Closing the pipe asks it to stop; patience, then force."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    for force in (None, process.terminate, process.kill):
        if force is not None:
            force()
        try:
            process.wait(_STOP_SECONDS)
            return
        except subprocess.TimeoutExpired:
            continue
