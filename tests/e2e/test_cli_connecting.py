"""``connect`` by consent, ``oauth`` and ``tenants gate`` as processes against a real server and stand-ins."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from tests.e2e.cli_house import CliHouse, cli_house

from crmbridge.core.manifest import AuthKind, Manifest
from crmbridge.drivers import DRIVERS, load, load_emulator

__all__ = ["cli_house"]

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(180)]


def first_driver(fits: Callable[[Manifest], bool]) -> str:
    """The first driver with a stand-in that ``fits``."""
    return next(slug for slug in sorted(DRIVERS) if load_emulator(slug) and fits(load(slug).MANIFEST))


def by_consent(manifest: Manifest) -> bool:
    return manifest.auth.kind is AuthKind.OAUTH_CODE


def behind_a_gate(manifest: Manifest) -> bool:
    return bool(manifest.gate)


class Crm:
    """One stand-in as a process of its own."""

    def __init__(self, house: CliHouse, slug: str) -> None:
        self.slug = slug
        self.process = house.start("emulate", slug, "--port", "0", "--json")
        assert self.process.stdout is not None
        text = ""
        while not text.endswith("\n}\n"):
            line = self.process.stdout.readline()
            assert line, "the stand-in did not start"
            text += line
        tree = json.loads(text)
        self.app: dict[str, str] = tree["oauth_apps"].get(slug, {})
        self.credential: dict[str, str] = tree["emulators"][slug]

    def options(self) -> list[str]:
        """What the form asks for; by consent neither a client nor a key that could stand in for it."""
        named = [
            setting.name
            for setting in load(self.slug).MANIFEST.settings
            if setting.name in self.credential and not (self.app and setting.is_secret)
        ]
        return [part for name in named for part in ("--set", f"{name}={self.credential[name]}")]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)


@pytest.fixture(scope="module")
def crm(cli_house: CliHouse) -> Iterator[Crm]:
    """The first provider that connects by consent, with its app set."""
    made = Crm(cli_house, first_driver(by_consent))
    file = cli_house.folder / "client.secret"
    file.write_text(made.app["client_secret"] + "\n")
    shown = cli_house.run(
        "oauth", "set-app", made.slug, "--client-id", made.app["client_id"], "--secret-file", str(file)
    )
    assert f"http://127.0.0.1:{cli_house.port}/oauth/callback" in shown.stdout.splitlines()
    assert made.app["client_secret"] not in shown.stdout + shown.stderr
    yield made
    made.stop()


def consent(link: str, button: str) -> httpx.Response:
    """A person with a browser: the provider's page, one of its buttons, and back."""
    with httpx.Client(follow_redirects=True, timeout=30) as browser:
        page = browser.get(link)
        while found := re.search(r"<form.*?</form>", page.text, re.DOTALL):
            form = found.group()
            inputs = [dict(re.findall(r'(\w+)="([^"]*)"', tag)) for tag in re.findall(r"<input[^>]*>", form)]
            fields = {
                unescape(each["name"]): unescape(each.get("value", "")) for each in inputs if "name" in each
            }
            buttons = [
                dict(re.findall(r'(\w+)="([^"]*)"', tag)) for tag in re.findall(r"<button[^>]*>", form)
            ]
            pressed = next((each for each in buttons if button in each.get("value", "")), None)
            fields |= {pressed["name"]: pressed["value"]} if pressed else {}
            action = re.search(r'action="([^"]*)"', form)
            assert action is not None
            page = browser.post(urljoin(str(page.url), unescape(action.group(1))), data=fields)
        return page


def link_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("http"):
            return line.strip()
    raise AssertionError(process.communicate())


def connections(house: CliHouse, tenant: str) -> list[str]:
    found = house.json("connections", tenant)["connections"]
    return [f"{each['driver']} {each['status']}" for each in found]


def test_connect_when_a_person_consents_then_the_waiting_command_puts_it_to_use(
    cli_house: CliHouse, crm: Crm
) -> None:
    cli_house.run("tenants", "add", "consents")
    process = cli_house.start("connect", "consents", crm.slug, *crm.options())
    page = consent(link_of(process), "allow")
    assert page.status_code == 200 and "Connected" in page.text
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "in use" in out and "waiting for consent" in err, (out, err)
    assert connections(cli_house, "consents") == [f"{crm.slug} active"]
    assert crm.app["client_secret"] not in out + err
    assert cli_house.json("test", "consents")["ok"]


def test_connect_when_the_person_denies_then_fails_with_the_reason(cli_house: CliHouse, crm: Crm) -> None:
    cli_house.run("tenants", "add", "denies")
    process = cli_house.start("connect", "denies", crm.slug, *crm.options())
    assert "Not connected" in consent(link_of(process), "deny").text
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "insufficient_scope" in err and "Traceback" not in err
    assert connections(cli_house, "denies") == []


def test_connect_when_not_waiting_then_test_and_activate_finish_it(cli_house: CliHouse, crm: Crm) -> None:
    cli_house.run("tenants", "add", "later")
    link = cli_house.json("connect", "later", crm.slug, *crm.options(), "--no-wait")
    consent(link["url"], "allow")
    assert cli_house.json("test", "later", link["flow_id"])["ok"]
    assert connections(cli_house, "later") == [f"{crm.slug} not_connected"]
    assert cli_house.json("activate", "later", link["flow_id"])["status"] == "active"
    assert connections(cli_house, "later") == [f"{crm.slug} active"]


def test_connect_when_interrupted_while_waiting_then_says_how_to_go_on(cli_house: CliHouse, crm: Crm) -> None:
    cli_house.run("tenants", "add", "stops")
    process = cli_house.start("connect", "stops", crm.slug, *crm.options())
    link = link_of(process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "the link stays good" in err and "Traceback" not in err
    assert "Connected" in consent(link, "allow").text
    credential = re.search(r"crmbridge activate stops (\S+)", err)
    assert credential is not None
    cli_house.run("activate", "stops", credential.group(1))


def test_apps_when_removed_then_connect_names_the_command_that_sets_one(
    cli_house: CliHouse, crm: Crm
) -> None:
    listed: dict[str, Any] = cli_house.json("oauth", "apps")
    assert [each["driver"] for each in listed["apps"]] == [crm.slug]
    cli_house.run("oauth", "remove-app", crm.slug)
    try:
        cli_house.run("tenants", "add", "appless")
        shown = cli_house.run("connect", "appless", crm.slug, *crm.options(), code=1)
        assert f"crmbridge oauth set-app {crm.slug}" in shown.stderr
    finally:
        file = str(cli_house.folder / "client.secret")
        name = crm.app["client_id"]
        cli_house.run("oauth", "set-app", crm.slug, "--client-id", name, "--secret-file", file)


def test_gate_when_shut_recorded_and_closed_then_calls_are_kept_back_accordingly(
    cli_house: CliHouse,
) -> None:
    crm = Crm(cli_house, first_driver(behind_a_gate))
    try:
        cli_house.run("tenants", "add", "clinic", "--vertical", "clinic")
        shown = cli_house.run("connect", "clinic", crm.slug, *crm.options(), code=1)
        assert "gate_closed" in shown.stderr and "crmbridge tenants gate" in shown.stderr
        gate = ("tenants", "gate", "clinic")
        baa = ("--baa-reference", "DOC-7", "--baa-signatory", "Dr. Ann", "--baa-signed-on", "2026-01-05")
        assert "is shut" in cli_house.run(*gate, *baa).stdout
        opened = cli_house.json(*gate, "--reviewer", "Bo", "--reviewed-on", "2026-01-06")
        assert opened["is_open"] and opened["baa_reference"] == "DOC-7"
        cli_house.run("connect", "clinic", crm.slug, *crm.options())
        assert "is shut" in cli_house.run(*gate, "--close").stdout
        assert "gate_closed" in cli_house.run("test", "clinic", code=1).stderr
        assert cli_house.json(*gate)["is_closed"]
        refused = cli_house.run(*gate, "--baa-signed-on", "5 May", code=1)
        assert "validation_error" in refused.stderr and "baa_signed_on" in refused.stderr
    finally:
        crm.stop()


def test_connect_when_a_link_is_wanted_then_one_for_the_tenants_admin(cli_house: CliHouse) -> None:
    cli_house.run("tenants", "add", "guest", "--name", "Guest")
    made = json.loads(cli_house.run("connect", "guest", "odoo", "--link", "--hours", "2", "--json").stdout)
    assert made["url"].startswith(f"http://127.0.0.1:{cli_house.port}/connect/")
    page = httpx.get(made["url"])
    assert page.status_code == 200 and "Guest" in page.text
    spoken = cli_house.run("connect", "guest", "odoo", "--link", "--set", "url=https://guest.example")
    assert "/connect/" in spoken.stdout
    refused = cli_house.run("connect", "guest", "odoo", "--link", "--hours", "999", code=None)
    assert refused.returncode != 0 and "168" in refused.stdout + refused.stderr
