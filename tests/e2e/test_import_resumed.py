"""``crmbridge import`` from outside: killed, the server killed, run again; nothing lost, nothing doubled."""

from __future__ import annotations

import csv
import json
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from .cli_house import CliHouse, cli_house

__all__ = ["cli_house"]

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(240)]


def leads(path: Path, rows: int, *, start: int = 0) -> Path:
    """A clean file of distinct people."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["First Name", "Last Name", "E-Mail", "Budget (max)"])
        for number in range(start, start + rows):
            writer.writerow([f"Mei{number}", "Chen", f"mei{number}@example.com", f"AED {1000 + number}"])
    return path


def mark_of(file: Path) -> dict[str, Any]:
    try:
        marks = json.loads(file.with_name(file.name + ".crmbridge-import.json").read_text())
    except (OSError, ValueError):
        return {"line": 0}
    return dict(marks["imports"][0])


def wait_for_line(process: Any, file: Path, line: int) -> None:
    deadline = time.monotonic() + 60
    while mark_of(file)["line"] < line:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def emails(cli_house: CliHouse, prefix: str, driver: str = "odoo") -> Counter[str]:
    """How often each address with this beginning stands in records of a stand-in, whatever its fields are called."""
    rows = [{str(value) for value in row.values()} for row in cli_house.records(driver)]
    return Counter(text for row in rows for text in row if text.startswith(prefix) and "@" in text)


def test_import_when_killed_and_run_again_then_every_row_is_there_once(
    cli_house: CliHouse, tmp_path: Path
) -> None:
    cli_house.connect("killed")
    file = leads(tmp_path / "leads.csv", 4000)
    process = cli_house.start("import", str(file), "--tenant", "killed", "--batch", "50")
    wait_for_line(process, file, 500)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = mark_of(file)
    assert not before["finished"] and 500 <= before["line"] < 4000

    again = cli_house.json("import", str(file), "--tenant", "killed", "--batch", "50")
    assert again["accepted"] + again["replayed"] == again["read"] == 4000
    assert again["delivered"] == 4000 and again["dead_letters"] == 0
    found = emails(cli_house, "mei")
    assert len(found) == 4000 and set(found.values()) == {1}

    third = cli_house.json("import", str(file), "--tenant", "killed")
    assert third["accepted"] == 0 and third["replayed"] == 4000
    assert emails(cli_house, "mei") == found


def test_import_when_the_server_is_killed_meanwhile_then_it_waits_and_goes_on(
    cli_house: CliHouse, tmp_path: Path
) -> None:
    cli_house.connect("outage", "rest_api")
    file = leads(tmp_path / "out.csv", 1000, start=100_000)
    process = cli_house.start("import", str(file), "--tenant", "outage", "--batch", "50", "--json")
    wait_for_line(process, file, 300)
    cli_house.kill_server()
    restart = threading.Timer(2.0, cli_house.start_server)
    restart.start()
    out, err = process.communicate(timeout=150)
    restart.join()
    assert process.returncode == 0, (out, err)
    told = json.loads(out)
    assert told["delivered"] == 1000 == told["accepted"] + told["replayed"]
    found = emails(cli_house, "mei10", "rest_api")
    assert len(found) == 1000 and set(found.values()) == {1}


def test_import_when_rows_are_bad_then_they_stand_in_the_rejects_with_reasons(
    cli_house: CliHouse, tmp_path: Path
) -> None:
    cli_house.connect("bad-rows")
    file = tmp_path / "bad.csv"
    file.write_text(
        "First Name,E-Mail,Mobile Phone,Budget (max),Bedrooms\n"
        "Ana,ana@example.com,050 123 4567 ext. 12,AED 900000,2\n"
        "Bo,not-an-address,,,\n"
        "Cy,cy@example.com,,,,too many\n"
    )
    told = cli_house.json("import", str(file), "--tenant", "bad-rows", code=1)
    assert (told["read"], told["accepted"], told["rejected"], told["delivered"]) == (3, 1, 2, 1)
    rejects = list(csv.DictReader((tmp_path / "bad.csv.rejects.csv").open(encoding="utf-8-sig")))
    assert [row["line"] for row in rejects] == ["3", "4"]
    assert "E-Mail" in rejects[0]["reason"] and "columns" in rejects[1]["reason"]
    kept = next(row for row in cli_house.records("odoo") if row.get("email_from") == "ana@example.com")
    for fact in ("Extension of phone: 12", "Currency: AED", "Bedrooms: 2"):
        assert fact in kept["description"]
    assert kept["phone"] == "+971501234567"

    file.write_text("First Name,E-Mail\nDee,dee@example.com\n")
    refused = cli_house.run("import", str(file), "--tenant", "bad-rows", code=1)
    assert "import_differs" in refused.stderr


def test_import_when_interrupted_by_sigint_then_says_where_and_goes_on(
    cli_house: CliHouse, tmp_path: Path
) -> None:
    cli_house.connect("stopped")
    file = leads(tmp_path / "int.csv", 3000, start=200_000)
    process = cli_house.start("import", str(file), "--tenant", "stopped", "--batch", "50")
    wait_for_line(process, file, 200)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Run the same command again" in err and "Traceback" not in err
    told = cli_house.json("import", str(file), "--tenant", "stopped")
    assert told["read"] == 3000 == told["delivered"]
    assert set(emails(cli_house, "mei20").values()) == {1}


def test_import_when_the_server_is_not_there_then_exits_3_and_says_so(
    cli_house: CliHouse, tmp_path: Path
) -> None:
    file = leads(tmp_path / "none.csv", 3)
    done = cli_house.run(
        "import", str(file), "--tenant", "x", "--url", "http://127.0.0.1:1", "--patience", "1", code=3
    )
    assert "server_unreachable" in done.stderr and "Traceback" not in done.stderr
