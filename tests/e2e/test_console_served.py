"""The console as it is served: the command that makes the first admin, beside a running server, and sign-in there."""

from __future__ import annotations

import re

import httpx
import pytest
from tests.e2e.cli_house import CliHouse, cli_house

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]

__all__ = ["cli_house"]


def test_first_operator_when_made_beside_the_server_then_signs_in(cli_house: CliHouse) -> None:
    log = (cli_house.folder / "server.log").read_text()
    assert "operators.none" in log and "crmbridge operators add EMAIL --role admin" in log
    made = cli_house.json("operators", "add", "ann@example.com", "--role", "admin", "--generate")
    assert made["role"] == "admin"
    listed = cli_house.json("operators", "list")["operators"]
    assert [each["email"] for each in listed] == ["ann@example.com"] and "password" not in listed[0]
    refused = cli_house.json("operators", "disable", "ann@example.com", code=None)
    assert refused["error"]["code"] == "conflict"

    base = f"http://127.0.0.1:{cli_house.port}"
    with httpx.Client(base_url=base, timeout=30) as browser:
        assert browser.get("/admin").headers["location"] == "/admin/sign-in"
        page = browser.get("/admin/sign-in")
        assert "Nobody can sign in yet" not in page.text
        (token,) = re.findall(r'name="form_token" value="([0-9a-f]+)"', page.text)
        form = {"email": "ann@example.com", "password": made["password"], "form_token": token}
        done = browser.post("/admin/sign-in", data=form, headers={"Origin": base})
        assert done.status_code == 303, done.text
        page = browser.get("/admin")
        assert page.status_code == 200 and "No tenant yet" in page.text
        assert browser.get("/admin/nothing").status_code == 404
        assert browser.get("/api/openapi.json").status_code == 200
    log = (cli_house.folder / "server.log").read_text()
    assert made["password"] not in log and "ann@example.com" not in log
