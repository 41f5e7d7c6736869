"""Runs the contract without pytest: ``crmbridge conformance <driver>`` and outside projects use this."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from enum import StrEnum
from importlib import import_module
from typing import Any

import msgspec

from crmbridge.conformance.cases import Case, ContractBroken, NotApplicable
from crmbridge.conformance.contract import DriverContract, LiveContract
from crmbridge.conformance.harness import Harness
from crmbridge.core.driver import CrmDriver
from crmbridge.core.errors import CrmError, Fix, NotConfigured
from crmbridge.emulation import Emulator

__all__ = [
    "CaseResult",
    "LiveTarget",
    "Report",
    "Verdict",
    "contract_for",
    "run_contract",
    "run_contract_class",
]

_CASE_SECONDS = 60.0


class Verdict(StrEnum):
    """What became of one case. ``gap`` is an expected failure, ``skipped`` one that cannot apply."""

    PASSED = "passed"
    FAILED = "failed"
    GAP = "gap"
    SKIPPED = "skipped"


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """One case; ``message`` says why unless it passed."""

    name: str
    topic: str
    verdict: Verdict
    message: str = ""
    seconds: float = 0.0


class LiveTarget(msgspec.Struct, kw_only=True):
    """A credential of a test account at the real provider; records made there are deleted again."""

    settings: dict[str, str]
    secrets: dict[str, str]
    egress_allow: tuple[str, ...] = ()


class Report(msgspec.Struct, kw_only=True):
    """All results of one run. ``target`` is ``emulator`` or ``live``."""

    driver: str
    target: str
    results: list[CaseResult]
    left_behind: list[tuple[str, str]] = []

    @property
    def is_kept(self) -> bool:
        """True when nothing failed and something passed."""
        verdicts = [result.verdict for result in self.results]
        return Verdict.FAILED not in verdicts and Verdict.PASSED in verdicts

    @property
    def failed_topics(self) -> set[str]:
        """Topics with at least one failed case."""
        return {result.topic for result in self.results if result.verdict is Verdict.FAILED}

    def topics(self) -> dict[str, dict[str, int]]:
        """Topic → verdict → count, in the order of the run."""
        table: dict[str, dict[str, int]] = {}
        for result in self.results:
            row = table.setdefault(result.topic, {verdict.value: 0 for verdict in Verdict})
            row[result.verdict.value] += 1
        return table

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "driver": self.driver,
            "target": self.target,
            "is_kept": self.is_kept,
            "topics": self.topics(),
            "results": msgspec.to_builtins(self.results),
            "left_behind": [list(pair) for pair in self.left_behind],
        }

    def to_text(self) -> str:
        """A table topic x verdict, then one line per failure and gap."""
        names = [verdict.value for verdict in Verdict]
        lines = [f"{self.driver} against {self.target}", f"{'topic':14}" + "".join(f"{n:>9}" for n in names)]
        for topic, row in self.topics().items():
            lines.append(f"{topic:14}" + "".join(f"{row[name]:>9}" for name in names))
        for result in self.results:
            if result.verdict in (Verdict.FAILED, Verdict.GAP):
                lines.append(f"{result.verdict.value} {result.name}: {result.message}")
        for obj, remote_id in self.left_behind:
            lines.append(f"left behind: {obj} {remote_id}")
        return "\n".join(lines)


def run_contract(target: str, live: LiveTarget | None = None) -> Report:
    """Runs all topics for a registered slug, or ``module:Class`` of a driver or a contract.

    Raises NotConfigured when there is no such driver. Not for use inside a running event loop: await
    :func:`run_contract_class` there.
    """
    return asyncio.run(run_contract_class(contract_for(target, live), target="live" if live else "emulator"))


async def run_contract_class(contract: type[Harness], *, target: str = "emulator") -> Report:
    """Runs all cases of a contract class, one after the other."""
    results = [await _run_case(contract, case) for case in contract.cases]
    left: list[tuple[str, str]] = list(getattr(contract, "left_behind", []))
    return Report(driver=contract.manifest().slug, target=target, results=results, left_behind=left)


def contract_for(target: str, live: LiveTarget | None = None) -> type[Harness]:
    """The contract of a driver: the one in its folder where that is present, else one with general samples."""
    found = _load(target)
    if isinstance(found, type) and issubclass(found, Harness):
        contract = found
    else:
        driver, emulator = found
        contract = _own_contract(driver) or _general_contract(driver, emulator)
    if live is None:
        return contract
    stated: Mapping[str, Any] = {
        name: getattr(contract, name)
        for name in (
            "driver",
            "samples",
            "changes",
            "gaps",
            "vertical",
            "region",
            "linked",
            "refused",
            "missing_id",
        )
    }
    settings = {
        "live_settings": live.settings,
        "live_secrets": live.secrets,
        "egress_allow": live.egress_allow,
    }
    names = {"fixed_texts": contract.fixed_texts, "field_map": contract.field_map, "left_behind": []}
    return type(f"Live{contract.driver.__name__}", (LiveContract,), {**stated, **settings, **names})


def _load(target: str) -> Any:
    if ":" not in target:
        from crmbridge.drivers import load, load_emulator

        return load(target), load_emulator(target)
    module, _, name = target.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise NotConfigured(
            f"{target!r} cannot be loaded: {error}",
            fix=Fix("choose_driver", "Name a registered driver, or module:Class of a driver or a contract."),
        ) from None
    if isinstance(found, type) and issubclass(found, CrmDriver):
        return found, _emulator_beside(found)
    return found


def _emulator_beside(driver: type[CrmDriver]) -> type[Emulator] | None:
    name = f"{driver.__module__.rpartition('.')[0]}.emulator"
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None
    emulator: type[Emulator] | None = getattr(module, f"{driver.__name__}Emulator", None)
    return emulator


def _own_contract(driver: type[CrmDriver]) -> type[Harness] | None:
    """The contract beside the driver, in ``test_<folder>``, ``test_<slug>`` or ``contract``.

    Our wheels hold no tests, so it may be absent. A package that wants ``crmbridge conformance`` to use its
    samples and gaps where it is installed without its tests puts the contract into ``contract.py``.
    """
    folder = driver.__module__.rpartition(".")[0]
    names = (f"test_{folder.rpartition('.')[2]}", f"test_{driver.MANIFEST.slug}", "contract")
    for name in dict.fromkeys(names):
        try:
            module = import_module(f"{folder}.{name}")
        except ImportError:
            continue
        for member in vars(module).values():
            if (
                isinstance(member, type)
                and issubclass(member, Harness)
                and member.__dict__.get("driver") is driver
            ):
                return member
    return None


def _general_contract(driver: type[CrmDriver], emulator: type[Emulator] | None) -> type[Harness]:
    return type(f"Test{driver.__name__}", (DriverContract,), {"driver": driver, "emulator": emulator})


async def _run_case(contract: type[Harness], case: Case) -> CaseResult:
    began = time.perf_counter()
    verdict, message = Verdict.PASSED, ""
    try:
        async with asyncio.timeout(_CASE_SECONDS):
            await case.run(contract())
    except NotApplicable as reason:
        verdict, message = Verdict.SKIPPED, str(reason)
    except ContractBroken as broken:
        verdict, message = Verdict.FAILED, str(broken)
    except CrmError as error:
        verdict, message = Verdict.FAILED, f"unexpected {error}"
    except Exception as error:
        verdict, message = Verdict.FAILED, f"{type(error).__name__}: {error}"
    if case.gap and verdict is Verdict.FAILED:
        verdict, message = Verdict.GAP, case.gap
    elif case.gap and verdict is Verdict.PASSED:
        verdict, message = Verdict.FAILED, f"this gap passes now: delete it ({case.gap})"
    seconds = time.perf_counter() - began
    return CaseResult(name=case.name, topic=case.topic, verdict=verdict, message=message, seconds=seconds)
