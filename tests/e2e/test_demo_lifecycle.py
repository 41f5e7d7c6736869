"""``crmbridge demo`` from outside: all delivered, nothing left running, ready to run again after anything."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crmbridge.db.cluster import find_binaries
from crmbridge.db.errors import EmbeddedPostgresFailed

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(240)]
ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "crmbridge.app", "demo")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's own user may enter, also when the tests run as root."""
    try:
        find_binaries()
    except EmbeddedPostgresFailed as error:
        pytest.skip(f"no PostgreSQL: {error.message}")
    outer = Path(tempfile.mkdtemp(prefix="crmb-demo-"))
    outer.chmod(0o755)
    yield outer / "demo"
    shutil.rmtree(outer, ignore_errors=True)


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "--dir", str(folder), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )


def processes_of(folder: Path) -> list[str]:
    """Command lines of every process that has something of the folder open or named."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            told = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            surroundings = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in told or str(folder) in surroundings:
            found.append(told)
    return found


def wait_until_gone(folder: Path, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while left := processes_of(folder):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def wait_for_server(process: subprocess.Popen[str], folder: Path) -> None:
    """Until the demo has begun to import."""
    deadline = time.monotonic() + 90
    while not list(folder.glob("imports/*/*.crmbridge-import.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_demo_when_run_once_then_every_good_row_is_in_every_crm_and_nothing_runs_on(folder: Path) -> None:
    process = start(folder, "--once", "--json")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, (out, err)
    results = {entry["driver"]: entry for entry in json.loads(out)["drivers"]}
    delivering = [entry for entry in results.values() if not entry["refusal"]]
    assert len(delivering) >= 3
    for entry in delivering:
        assert entry["read"] == 1000 and entry["complaints"] == []
        assert entry["delivered"] + entry["dead_letters"] == entry["accepted"] >= 980
        assert entry["held_by_crm"] == entry["delivered"]
    assert any(entry["refusal"] and entry["way_out"] for entry in results.values())
    wait_until_gone(folder, 5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_demo_when_signalled_during_the_import_then_stops_everything_quietly(
    folder: Path, number: signal.Signals
) -> None:
    process = start(folder)
    wait_for_server(process, folder)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err and "Everything is stopped" in err
    wait_until_gone(folder, 5)


def test_demo_when_killed_then_nothing_runs_on_and_the_next_one_works(folder: Path) -> None:
    process = start(folder)
    wait_for_server(process, folder)
    process.kill()
    process.communicate()
    again = start(folder, "--once")
    out, err = again.communicate(timeout=200)
    assert again.returncode == 0, (out, err)
    wait_until_gone(folder)


def test_demo_when_one_is_running_then_a_second_in_its_folder_is_refused(folder: Path) -> None:
    first = start(folder)
    try:
        wait_for_server(first, folder)
        second = start(folder, "--once")
        _, err = second.communicate(timeout=60)
        assert second.returncode == 1 and "demo_running" in err
        assert first.poll() is None
    finally:
        first.terminate()
        first.communicate(timeout=60)


def test_demo_when_the_folder_holds_other_things_then_they_stay(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    process = start(tmp_path, "--once")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "holds other things" in err
    assert (tmp_path / "precious.txt").read_text() == "mine"
