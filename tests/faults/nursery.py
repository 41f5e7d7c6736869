"""Where processes are made quickly: one process that has imported everything, and forks.

A start of ``crmbridge`` costs more than a second of CPU, nearly all of it imports; a room that kills dozens of
processes would do little else. What is forked runs the same ``main`` as a fresh process, before any event loop,
thread or connection is there.

Lines of JSON, asked and answered: ``["spawn", argv, environment, log]`` → pid, ``["poll", pid]`` → exit code or null
(negative: the signal, as ``subprocess`` says it).
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["Forked", "Nursery"]


class Forked:
    """A process of the nursery, with the part of ``subprocess.Popen`` that is used here."""

    stdout = None

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery = nursery
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        if self.returncode is None:
            self.returncode = self._nursery.ask("poll", self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Until it has ended. Raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(0.02)
        return code

    def send_signal(self, number: int) -> None:
        """A signal, if it still runs: its zombie keeps the id from being given away."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The side of the test."""

    def __init__(self, environment: Mapping[str, str], folder: Path, root: Path) -> None:
        with (folder / "nursery.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.nursery"],
                cwd=root,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self._lock = threading.Lock()

    def ask(self, *question: Any) -> Any:
        """One question, its answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        assert line, "the nursery has ended; see nursery.log"
        return json.loads(line)

    def spawn(self, argv: list[str], environment: Mapping[str, str], log: Path) -> Forked:
        """A new process of :mod:`tests.faults.child`."""
        return Forked(self, self.ask("spawn", argv, dict(environment), str(log)))

    def close(self) -> None:
        """End it; its children are ended before."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(10)
        if self._process.stdout is not None:
            self._process.stdout.close()


def _load() -> None:
    """Import what ``serve`` and ``worker`` import."""
    import pgqueuer  # noqa: F401
    import uvicorn.loops.auto
    import uvicorn.protocols.http.auto  # noqa: F401
    import uvloop  # noqa: F401
    from tests.faults import child  # noqa: F401

    import crmbridge.api.server
    import crmbridge.app
    import crmbridge.cli.main
    import crmbridge.console.server
    import crmbridge.db.jobs
    import crmbridge.services.operators
    import crmbridge.services.vault
    import crmbridge.worker.run  # noqa: F401
    from crmbridge import drivers

    for slug in drivers.DRIVERS:
        drivers.load(slug)


def _spawn(argv: list[str], environment: dict[str, str], log: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        # Nothing stays behind when the test is killed: the nursery ends with its pipe, and its children with it.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(nothing, 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["crmbridge", *argv]
        from tests.faults.child import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _poll(pid: int) -> int | None:
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return -1
    return os.waitstatus_to_exitcode(status) if found else None


def main() -> None:
    """Serve the two questions until the test closes the pipe."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _load()
    for line in sys.stdin:
        what, *rest = json.loads(line)
        print(json.dumps(_spawn(*rest) if what == "spawn" else _poll(*rest)), file=answers, flush=True)


if __name__ == "__main__":
    main()
