"""``connections routes``, ``pause``, ``resume`` and steps on one connection as processes against a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.e2e.cli_house import CliHouse, cli_house, wait_for

from crmbridge.drivers import load

__all__ = ["cli_house"]

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(180)]


def states(write: dict[str, Any]) -> dict[str, str]:
    return {target["connection"]: target["state"] for target in write["targets"]}


def test_two_crms_when_routed_paused_and_resumed_then_both_end_up_with_every_write(
    cli_house: CliHouse,
) -> None:
    run = cli_house.json
    run("tenants", "add", "acme", "--name", "Acme", "--vertical", "real_estate")
    for slug, name in (("odoo", "primary"), ("rest_api", "second")):
        asked = {setting.name for setting in load(slug).MANIFEST.settings}
        known = cli_house.credentials[slug].items()
        settings = [word for key, value in known if key in asked for word in ("--set", f"{key}={value}")]
        run("connect", "acme", slug, "--name", name, *settings)
    routed = run("connections", "routes", "acme", "second", "lead=also")["connections"]
    assert {each["name"]: each["routes"].get("lead") for each in routed} == {
        "primary": "primary",
        "second": "also",
    }
    lead = ("write", "acme", "lead", "--field", "last_name=Haddad", "--wait", "10")
    assert states(run(*lead, "--field", "email=a@example.com")) == {
        "primary": "applied",
        "second": "applied",
    }
    run("connections", "pause", "acme", "second", "--reason", "its servers move")
    paused = run(*lead, "--field", "email=b@example.com")
    assert states(paused) == {"primary": "applied", "second": "accepted"}
    assert run("connections", "pause", "acme", "second", code=1)["error"]["code"] == "conflict"
    run("connections", "resume", "acme", "second")
    shown = ("writes", "show", "acme", paused["write_id"])
    wait_for(lambda: states(run(*shown)) == {"primary": "applied", "second": "applied"})
    for words in (
        ("mapping", "show", "acme"),
        ("mapping", "unset", "acme", "lead.email"),
        ("describe", "acme", "lead"),
    ):
        lost = run(*words, "--connection", "third", code=1)["error"]
        assert lost["code"] == "not_found" and "primary, second" in lost["fix"]["hint"], lost
    lost = run("connections", "routes", "acme", "third", code=1)["error"]
    assert lost["code"] == "not_found" and "primary, second" in lost["fix"]["hint"], lost
    run("mapping", "set", "acme", "lead.email=", "--connection", "second")
    refused = run(*lead, "--field", "email=c@example.com")
    assert states(refused) == {"primary": "applied", "second": "dead_letter"}
    run("mapping", "unset", "acme", "lead.email", "--connection", "second")
    assert run("writes", "redrive", "acme", "--all", "--connection", "second") == {"redriven": 1}
    shown = ("writes", "show", "acme", refused["write_id"])
    wait_for(lambda: states(run(*shown)) == {"primary": "applied", "second": "applied"})
    emails = [row.get("email") for row in cli_house.records("rest_api")]
    assert sorted(filter(None, emails)) == ["a@example.com", "b@example.com", "c@example.com"]


def test_import_when_one_of_two_crms_has_no_place_for_a_column_then_said_before_and_after(
    cli_house: CliHouse, tmp_path: Path
) -> None:
    run = cli_house.json
    run("tenants", "add", "twofold", "--vertical", "real_estate", "--region", "AE")
    for slug, name in (("odoo", "primary"), ("rest_api", "second")):
        asked = {setting.name for setting in load(slug).MANIFEST.settings}
        known = cli_house.credentials[slug].items()
        settings = [word for key, value in known if key in asked for word in ("--set", f"{key}={value}")]
        run("connect", "twofold", slug, "--name", name, *settings)
    run("connections", "routes", "twofold", "second", "lead=also")
    run("mapping", "set", "twofold", "lead.phone=", "--connection", "second")
    file = tmp_path / "leads.csv"
    file.write_text(
        "Last Name,E-Mail,Phone\n"
        "Chen,chen@example.com,0501234567\n"
        "Reyes,reyes@example.com,\n"
        "Haddad,haddad@example.com,0501234568\n"
    )
    tried = run("import", str(file), "--tenant", "twofold", "--dry-run")
    assert tried["connections"] == ["primary", "second"] and tried["good"] == 3
    assert tried["would_refuse"] == [
        {"connection": "second", "rows": 2, "reason": "no place there for lead.phone"}
    ]
    done = run("import", str(file), "--tenant", "twofold", code=1)
    assert (done["accepted"], done["delivered"], done["dead_letters"]) == (3, 4, 2)
    (why,) = done["reasons"]
    assert (why["count"], why["connection"]) == (2, "second") and "lead.phone" in why["reason"]
