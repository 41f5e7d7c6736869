"""SIGTERM to ``crmbridge serve``: readiness turns first, callers are served on for a while, then the process ends."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from .cli_house import CliHouse, cli_house, wait_for

__all__ = ["cli_house"]

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(240)]


@contextmanager
def served(house: CliHouse, delay: int) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A server of its own with this delay, and a caller that keeps its connections."""
    assert house.server is not None
    if house.server.poll() is None:
        house.server.send_signal(signal.SIGTERM)
        house.server.wait(30)
    house.environment["CRMBRIDGE_SHUTDOWN_DELAY_SECONDS"] = str(delay)
    house.start_server()
    key = (house.folder / "data" / "admin.key").read_text().strip()
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{house.port}", headers=headers, timeout=20) as caller:
        yield house.server, caller


def test_serve_when_told_to_stop_with_a_delay_then_not_ready_and_writes_are_taken_until_it_ends(
    cli_house: CliHouse,
) -> None:
    cli_house.connect("harbour")
    with served(cli_house, 4) as (process, caller):
        path = "/api/tenants/harbour/records/lead"
        body = {"fields": {"first_name": "Mei", "last_name": "Chen", "email": "stop@example.com"}}
        before = caller.get("/readyz")
        assert before.status_code == 200 and "connection" not in before.headers
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: caller.get("/readyz").status_code == 503, 3)
        told = caller.get("/readyz")
        assert [reason["check"] for reason in told.json()["reasons"]] == ["stopping"], told.text
        assert told.headers["connection"] == "close"
        assert caller.get("/healthz").status_code == 200
        taken = caller.post(path, json=body, headers={"Idempotency-Key": "while-stopping"})
        assert taken.status_code == 202 and taken.headers["connection"] == "close", taken.text
        assert caller.get("/admin/sign-in").headers.get_list("connection") == ["close"]
        assert process.poll() is None
        assert process.wait(30) == 0
        assert 3.5 < time.monotonic() - began < 15
        with pytest.raises(httpx.ConnectError):
            caller.get("/healthz")
    with served(cli_house, 0) as (_, caller):
        again = caller.post(path, json=body, headers={"Idempotency-Key": "while-stopping"})
        assert again.json()["write_id"] == taken.json()["write_id"]
        url = f"/api/tenants/harbour/writes/{taken.json()['write_id']}"
        wait_for(lambda: caller.get(url).json()["targets"][0]["state"] == "applied", 20)


def test_serve_when_told_twice_to_stop_then_the_delay_is_over_at_once(cli_house: CliHouse) -> None:
    with served(cli_house, 120) as (process, caller):
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: caller.get("/readyz").status_code == 503, 3)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert time.monotonic() - began < 15


def test_serve_when_told_to_stop_without_a_delay_then_it_ends_at_once(cli_house: CliHouse) -> None:
    with served(cli_house, 0) as (process, caller):
        assert caller.get("/readyz").status_code == 200
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert time.monotonic() - began < 15
