"""``crmbridge demo`` from outside: all delivered, nothing left running, ready to run again after anything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from tests.needs import folder_for_all, missing

from crmbridge.core.manifest import AuthKind
from crmbridge.db.cluster import find_binaries
from crmbridge.db.errors import EmbeddedPostgresFailed
from crmbridge.drivers import DRIVERS, load, load_emulator

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(240)]
ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "crmbridge.app", "demo")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's own user may enter, also when the tests run as root."""
    try:
        find_binaries()
    except EmbeddedPostgresFailed as error:
        missing(f"no PostgreSQL: {error.message}")
    with folder_for_all("crmb-demo-") as outer:
        yield outer / "demo"


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
    shown = {slug for slug in DRIVERS if load_emulator(slug) or load(slug).MANIFEST.why_unavailable}
    assert set(results) == shown
    for slug, entry in results.items():
        manifest = load(slug).MANIFEST
        assert bool(entry["refusal"]) == bool(manifest.why_unavailable) == bool(entry["way_out"])
        if entry["refusal"]:
            continue
        assert entry["complaints"] == []
        assert (entry["connected_by"] == "consent") == (manifest.auth.kind is AuthKind.OAUTH_CODE)
        assert entry["gate"] == (manifest.gate or None)
        if not entry["object"]:
            continue
        assert entry["read"] == 1000 or (entry["read"] >= 10 and entry["fewer_rows_because"])
        assert entry["delivered"] + entry["dead_letters"] == entry["accepted"]
        assert entry["accepted"] >= 0.94 * entry["read"] and entry["delivered"] >= 0.8 * entry["accepted"]
        assert entry["held_by_crm"] == entry["delivered"]
        assert entry["dead_letters"] == 0 or entry["reasons"]
    assert sum(entry["read"] == 1000 for entry in results.values()) >= 3
    assert any(entry["connected_by"] == "consent" and entry["delivered"] for entry in results.values())
    wait_until_gone(folder, 5)


def test_demo_when_a_driver_needs_consent_then_a_browser_went_through_its_page_and_our_callback(
    folder: Path,
) -> None:
    process = start(folder, "--file", str(five_people(folder)), "--json")
    try:
        told = read_tree(process)
        by_consent = [entry for entry in told["drivers"] if entry["connected_by"] == "consent"]
        assert by_consent and all(entry["delivered"] == 5 for entry in by_consent), told
        headers = {"Authorization": f"Bearer {(folder / 'data' / 'admin.key').read_text().strip()}"}
        for slug in (entry["driver"] for entry in by_consent):
            path = f"{told['url']}/api/tenants/demo-{slug.replace('_', '-')}"
            found = httpx.get(f"{path}/credentials", headers=headers).json()["credentials"]
            assert [each["status"] for each in found] == ["active"] and found[0]["scopes"]
            entries = httpx.get(f"{path}/audit", headers=headers, params={"limit": 500}).json()["entries"]
            actions = {entry["action"] for entry in entries}
            assert {"oauth.started", "credential.tested", "credential.activated"} <= actions, actions
            seen = httpx.get(f"{told['page']}/_control/{slug}/requests", params={"limit": 1000}).json()
            # The person came with a browser, the code was exchanged by the server.
            agents = {request["headers"].get("User-Agent", "").partition("/")[0] for request in seen}
            assert "crmbridge-demo" in agents and len(agents) >= 2, agents
            redirect = f"{told['url']}/oauth/callback"
            asked = [r for r in seen if r["headers"].get("User-Agent", "").startswith("crmbridge-demo/")]
            assert any(redirect in unquote(r["url"]) for r in asked)
            assert any("authorization_code" in r["body"] for r in seen if r not in asked)
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0, told
    wait_until_gone(folder, 5)


def test_demo_when_a_crm_takes_none_of_the_rows_then_it_is_told_and_the_exit_code_is_1(folder: Path) -> None:
    nameless = folder.parent / "nameless.csv"
    nameless.write_text("E-Mail\n" + "".join(f"a{n}@x.example\n" for n in range(4)))
    process = start(folder, "--once", "--file", str(nameless), "--json")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 1, (out, err)
    amiss = [entry for entry in json.loads(out)["drivers"] if entry["complaints"]]
    assert any(entry["accepted"] == 4 and entry["delivered"] == 0 and entry["reasons"] for entry in amiss)
    wait_until_gone(folder, 5)


def five_people(folder: Path) -> Path:
    """A file that every CRM takes whole."""
    file = folder.parent / "five.csv"
    rows = [f"Ann,Lee{n},ann{n}@x.example,1985-03-0{n + 1}\n" for n in range(5)]
    file.write_text("First Name,Last Name,E-Mail,Date of Birth\n" + "".join(rows))
    return file


def read_tree(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The JSON that a demo prints before it stays."""
    assert process.stdout is not None
    text = ""
    while not text.endswith("\n}\n"):
        line = process.stdout.readline()
        assert line, process.communicate()
        text += line
    tree: dict[str, Any] = json.loads(text)
    return tree


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
    again = start(folder, "--once", "--file", str(five_people(folder)))
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
