"""Drivers of other packages: found by their entry point, never in the way of ours, clear when broken."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from crmbridge import drivers
from crmbridge.api import catalogue
from crmbridge.cli.main import build
from crmbridge.cli.processes import Processes
from crmbridge.conformance.run import contract_for, run_contract
from crmbridge.core.errors import NotConfigured
from crmbridge.core.records import Object
from crmbridge.core.verticals import Vertical
from crmbridge.toolkit.fieldmap import load_fields

SOURCE = Path(drivers.__file__).parents[2]
DRIVER = """
from crmbridge.core.manifest import Auth, AuthKind, Call, Manifest, ObjectSpec, Setting
from crmbridge.core.operations import FULL, Operation
from crmbridge.core.records import Object
from crmbridge.toolkit.rest import RestDriver


class Bellhop(RestDriver):
    MANIFEST = Manifest(
        slug="bellhop",
        display_name="Bellhop",
        api_version="1",
        pages=("https://bellhop.example/api",),
        read_on="2026-11-25",
        auth=Auth(kind=AuthKind.BEARER, secret="token"),
        settings=(
            Setting(name="url", label="Address", help="Where it is."),
            Setting(name="token", label="Token", help="Its token.", is_secret=True),
        ),
        base_url="{url}",
        objects={
            Object.CUSTOMER: ObjectSpec(
                native="guest", path="/guests", operations={Operation.GET: FULL, Operation.CREATE: FULL}
            )
        },
        test_call=Call(method="GET", path="/me", result="name"),
    )
"""
EMULATOR = """
from crmbridge.emulation import Emulator, route


class BellhopEmulator(Emulator):
    slug = "bellhop"

    def settings(self):
        return {"url": self.base_url}

    def secrets(self):
        return {"token": self.secret("token")}

    def authenticate(self, call):
        if call.headers.get("authorization") != f"Bearer {self.secret('token')}":
            return self.answer({"message": "who are you?"}, 401)
        return None

    @route("GET", "/me")
    def me(self, call):
        return self.answer({"name": "Bellhop of Example"})

    @route("POST", "/guests")
    def create(self, call):
        if not isinstance(call.json, dict) or "mail" not in call.json:
            return self.answer({"message": "mail is missing"}, 422)
        row = self.store.numbered("guests").insert(call.json)
        return self.answer({"id": row.id, **row.fields}, 201)

    @route("GET", "/guests/{id}")
    def get_guest(self, call):
        text = call.params["id"]
        row = self.store.numbered("guests").get(int(text)) if text.isdigit() else None
        return self.answer({"id": row.id, **row.fields}) if row else self.answer({"message": "no guest"}, 404)
"""
CONTRACT = """
from crmbridge.conformance import DriverContract
from crmbridge.core.records import Object
from bellhop_crm.driver import Bellhop
from bellhop_crm.emulator import BellhopEmulator


class TestBellhop(DriverContract):
    driver = Bellhop
    emulator = BellhopEmulator
    samples = {Object.CUSTOMER: {"email": "mei.lin@example.com", "first_name": "Mei"}}
"""

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package into a folder on ``sys.path``, as an installer would: modules and a .dist-info."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def put(package: str, entries: str, modules: dict[str, str], *, version: str = "2.1") -> Path:
        for name, text in modules.items():
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_text(text, encoding="utf-8")
        info = site / f"{package.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[crmbridge.drivers]\n{entries}\n")
        drivers.forget()
        return site

    drivers.forget()
    yield put
    monkeypatch.undo()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("bellhop_crm", "broken_crm")]:
        del sys.modules[name]
    drivers.forget()


@pytest.fixture
def bellhop(install: Install) -> Path:
    return install(
        "bellhop-crm",
        "bellhop = bellhop_crm.driver:Bellhop",
        {
            "bellhop_crm/__init__.py": "",
            "bellhop_crm/driver.py": DRIVER,
            "bellhop_crm/emulator.py": EMULATOR,
            "bellhop_crm/contract.py": CONTRACT,
            "bellhop_crm/fields.toml": '[customer]\nfirst_name = "given"\nemail = "mail"\n',
        },
    )


def broken(
    install: Install, text: str = "import no_such_module\n", value: str = "broken_crm.driver:X"
) -> None:
    install("broken-crm", f"brokn = {value}", {"broken_crm/__init__.py": "", "broken_crm/driver.py": text})


def test_outside_driver_when_installed_then_listed_loaded_and_with_its_emulator_and_fields(
    bellhop: Path,
) -> None:
    assert drivers.slugs() == sorted([*drivers.DRIVERS, "bellhop"])
    assert drivers.outside() == {"bellhop": "bellhop-crm 2.1"} and drivers.problems() == []
    driver = drivers.load("bellhop")
    assert driver.MANIFEST.display_name == "Bellhop" and drivers.load("bellhop") is driver
    assert drivers.load_emulator("bellhop").__name__ == "BellhopEmulator"  # type: ignore[union-attr]
    rules = load_fields(driver).rules(Object.CUSTOMER, Vertical.GENERAL)
    assert {rule.slot: rule.path for rule in rules} == {"first_name": "given", "email": "mail"}


def test_outside_driver_when_its_contract_is_run_then_with_its_own_samples_and_kept(bellhop: Path) -> None:
    assert contract_for("bellhop").samples[Object.CUSTOMER]["first_name"] == "Mei"
    report = run_contract("bellhop")
    assert report.driver == "bellhop" and report.is_kept, report.to_text()
    assert {"connection", "round_trip", "failures", "secrecy"} <= {
        result.topic for result in report.results if result.verdict == "passed"
    }


def test_outside_driver_when_it_has_a_test_module_then_its_contract_is_taken_first(bellhop: Path) -> None:
    named = CONTRACT.replace("class TestBellhop", "class TestByItsTests")
    (bellhop / "bellhop_crm" / "test_bellhop.py").write_text(named)
    assert contract_for("bellhop").__name__ == "TestByItsTests"


def test_conformance_command_when_outside_driver_is_broken_in_a_promise_then_red(bellhop: Path) -> None:
    done = _conformance(bellhop, "bellhop")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bellhop (emulator)" in done.stdout
    emulator = bellhop / "bellhop_crm" / "emulator.py"
    emulator.write_text(EMULATOR.replace("insert(call.json)", "insert({'mail': 'lost'})"))
    done = _conformance(bellhop, "bellhop")
    assert done.returncode == 1 and "FAILED" in done.stdout


def _conformance(site: Path, slug: str) -> subprocess.CompletedProcess[str]:
    code = "from crmbridge.app import main; main()"
    environment = {
        "PYTHONPATH": f"{site}:{SOURCE}",
        "PATH": "",
        "COLUMNS": "120",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", code, "conformance", slug],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_catalogue_when_outside_driver_is_installed_then_names_its_package(bellhop: Path) -> None:
    entries = {entry["slug"]: entry for entry in catalogue.drivers()["drivers"]}
    assert entries["bellhop"]["package"] == "bellhop-crm 2.1" and entries["bellhop"]["write"] == ["customer"]
    assert entries["odoo"]["package"] == "crmbridge"


def test_registry_when_a_slug_is_ours_then_no_package_is_read(install: Install) -> None:
    drivers.load("opentable")
    drivers.load_emulator("rest_api")
    assert drivers._scan.cache_info().currsize == 0
    with pytest.raises(NotConfigured):
        drivers.load("unheard_of")
    assert drivers._scan.cache_info().currsize == 1


def test_clash_when_a_package_takes_our_name_then_ours_is_used_and_the_package_is_named(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("bad-crm", "odoo = bellhop_crm.driver:Bellhop", {"bellhop_crm/__init__.py": ""})
    with caplog.at_level(logging.WARNING):
        assert drivers.load("odoo").__module__ == "crmbridge.drivers.odoo.driver"
        assert drivers.slugs() == sorted(drivers.DRIVERS)
    told = "The driver 'odoo' of bad-crm 2.1 is left aside: crmbridge has a driver of that name itself"
    assert drivers.problems()[0].startswith(told) and told in caplog.text
    assert catalogue.drivers()["problems"] == drivers.problems()


def test_clash_when_two_packages_bring_a_slug_then_the_first_by_name_is_used_and_both_are_named(
    bellhop: Path, install: Install
) -> None:
    install("zz-crm", "bellhop = zz_crm.driver:Bellhop", {})
    assert drivers.outside() == {"bellhop": "bellhop-crm 2.1"}
    assert "zz-crm 2.1" in drivers.problems()[0] and "bellhop-crm 2.1 brings" in drivers.problems()[0]


@pytest.mark.parametrize(
    "entry", ["Bell-Hop = bellhop_crm.driver:Bellhop", "bellhop = bellhop_crm.driver", "bellhop = a-b:C"]
)
def test_entry_point_when_malformed_then_left_aside_with_the_reason(install: Install, entry: str) -> None:
    install("bad-crm", entry, {})
    assert drivers.outside() == {}
    assert len(drivers.problems()) == 1 and "bad-crm 2.1 is left aside" in drivers.problems()[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def broken(:\n", "SyntaxError"),
        ("raise RuntimeError('no licence')\n", "RuntimeError: no licence"),
        ("Y = 1\n", "AttributeError"),
        ("class X: ...\n", "is no subclass of crmbridge.core.driver.CrmDriver"),
        ("from crmbridge.core.driver import CrmDriver\nclass X(CrmDriver): ...\n", "has no MANIFEST"),
        (DRIVER.replace("class Bellhop", "class X"), "declares the slug 'bellhop'"),
    ],
)
def test_load_when_the_package_is_broken_then_not_configured_names_it_and_the_cause(
    install: Install, text: str, told: str
) -> None:
    broken(install, text)
    with pytest.raises(NotConfigured) as caught:
        drivers.load("brokn")
    message = caught.value.message
    assert message.startswith("The driver 'brokn' of the package broken-crm 2.1 cannot be loaded: ")
    assert told in message and "Traceback" not in message
    assert "broken-crm" in caught.value.fix.hint


def test_load_emulator_when_it_is_absent_then_none_and_when_broken_then_told(bellhop: Path) -> None:
    emulator = bellhop / "bellhop_crm" / "emulator.py"
    emulator.unlink()
    assert drivers.load_emulator("bellhop") is None
    for text, told in (
        ("import no_such_module\n", "its emulator: "),
        ("X = 1\n", "no class BellhopEmulator"),
    ):
        emulator.write_text(text)
        drivers.forget()
        sys.modules.pop("bellhop_crm.emulator", None)
        with pytest.raises(NotConfigured, match=f"package bellhop-crm 2.1 cannot be loaded: .*{told}"):
            drivers.load_emulator("bellhop")


def test_catalogue_when_a_package_is_broken_then_it_says_so_and_the_others_are_there(
    install: Install,
) -> None:
    broken(install)
    entries = {entry["slug"]: entry for entry in catalogue.drivers()["drivers"]}
    assert set(drivers.DRIVERS) < set(entries)
    assert entries["brokn"]["available"] is False
    assert "broken-crm 2.1 cannot be loaded" in entries["brokn"]["why_unavailable"]


def _invoke(*arguments: str) -> Result:
    def never(*arguments: object, **keywords: object) -> None:
        raise AssertionError("not in this test")

    app = build(Processes(serve=never, work=never, services=never, command=()))  # type: ignore[arg-type]
    return CliRunner().invoke(app, ["conformance", *arguments])


def test_conformance_command_when_a_package_is_broken_then_one_block_and_no_stack(install: Install) -> None:
    broken(install)
    shown = _invoke("brokn")
    assert shown.exit_code != 0
    told = " ".join(shown.stderr.split())
    assert "broken-crm 2.1 cannot be loaded" in told and "Traceback" not in shown.output


def test_conformance_command_when_all_and_one_package_is_broken_then_the_others_are_tried(
    bellhop: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(install)
    monkeypatch.setattr(drivers, "slugs", lambda: ["brokn", "bellhop"])
    shown = _invoke("--all")
    assert shown.exit_code == 1
    assert "bellhop (emulator)" in shown.stdout and "broken-crm 2.1 cannot be loaded" in shown.stderr


def test_conformance_command_when_live_and_named_by_its_class_then_its_settings_are_known(
    bellhop: Path,
) -> None:
    shown = _invoke(
        "bellhop_crm.driver:Bellhop",
        "--live",
        "--set",
        "url=http://127.0.0.1:9",
        "--set",
        "token=t0k3n-of-a-test",
    )
    assert shown.exit_code == 1 and "bellhop (live)" in shown.stdout
    assert "t0k3n" not in shown.output
