"""Holds a driver, its emulator and its fixtures against the vendor's own OpenAPI files.

    python tools/spec_check.py --driver SLUG --spec FILE [--spec FILE ...] [--json]

Runs the driver's contract in-process, records what it sends and what the emulator answers, and validates both, and
the folder's fixtures, with the files. The files are the vendors' and are not kept here: fetch them yourself. Known
differences between a file and the wire stand in ``tools/spec_differences.toml`` with their reasons.

Exit code: 0 all agrees, 1 findings, 2 the check could not be made.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tomllib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # so that `python tools/spec_check.py` finds tools.openapi

from tools.openapi.documents import Document, SpecProblem, load_document  # noqa: E402
from tools.openapi.judging import Finding, Judge  # noqa: E402
from tools.openapi.traffic import Exchange, contracts_of, record  # noqa: E402

from crmbridge.core.errors import CrmError  # noqa: E402

DIFFERENCES = Path(__file__).parent / "spec_differences.toml"


@dataclass
class Outcome:
    """What one check found. ``rows``: operation → answers by status."""

    driver: str
    rows: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    findings: Counter[Finding] = field(default_factory=Counter)
    known: Counter[Finding] = field(default_factory=Counter)
    fixtures: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Nothing was found, and something was looked at."""
        return not self.findings and not self.broken and bool(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "driver": self.driver,
            "agrees": self.agrees,
            "operations": {name: dict(row) for name, row in sorted(self.rows.items())},
            "fixtures": self.fixtures,
            "findings": [_row(finding, count) for finding, count in sorted(self.findings.items())],
            "known_differences": [_row(finding, count) for finding, count in sorted(self.known.items())],
            "unused_patterns": self.unused,
            "passed_over": self.passed_over,
            "broken_cases": self.broken,
        }

    def to_text(self) -> str:
        """A table of operations, then fixtures and findings."""
        bad = Counter(finding.operation for finding in self.findings.elements())
        width = max((len(name) for name in self.rows), default=9)
        lines = [f"{self.driver} against the given files", f"{'operation':{width}}  calls  findings  answers"]
        for name, row in sorted(self.rows.items()):
            answers = " ".join(f"{status}x{count}" for status, count in sorted(row.items()))
            lines.append(f"{name:{width}}  {row.total():5}  {bad[name]:8}  {answers}")
        lines += [f"fixture {name}: {kind}" for name, kind in sorted(self.fixtures.items())]
        lines += [f"known ({count}x) {finding}" for finding, count in sorted(self.known.items())]
        lines += [f"FOUND ({count}x) {finding}" for finding, count in sorted(self.findings.items())]
        lines += [f"the contract is broken: {text}" for text in self.broken]
        lines += [f"unused pattern of a known difference: {pattern}" for pattern in self.unused]
        lines += [f"passed over, for the file is broken there: {text}" for text in self.passed_over]
        told = "agrees" if self.agrees else f"{len(self.findings)} kinds of findings"
        return "\n".join([*lines, f"{sum(row.total() for row in self.rows.values())} exchanges: {told}"])


def _row(finding: Finding, count: int) -> dict[str, Any]:
    return {
        "side": finding.side,
        "operation": finding.operation,
        "status": finding.status,
        "where": finding.where,
        "problem": finding.problem,
        "count": count,
    }


def check(
    driver: str, documents: list[Document], patterns: list[str], *, strict_null: bool = False
) -> Outcome:
    """Runs all contracts of the driver. Raises NotConfigured, SpecProblem."""
    outcome, judge = Outcome(driver), Judge(documents, strict_null=strict_null)
    contracts = contracts_of(driver)
    used: set[str] = set()

    def note(finding: Finding) -> None:
        texts = finding.key, str(finding)
        fitting = [one for one in patterns if any(fnmatchcase(text, one) for text in texts)]
        used.update(fitting)
        (outcome.known if fitting else outcome.findings)[finding] += 1

    judged: dict[int, tuple[str, list[Finding]]] = {}

    def keep(exchange: Exchange) -> None:
        mark = hash(exchange.mark())  # most exchanges of a contract are like another one
        name, findings = judged[mark] = judged.get(mark) or judge.exchange(exchange)
        told = "none" if exchange.status == 0 else str(exchange.status)
        outcome.rows[name]["fault" if exchange.is_fault else told] += 1
        for finding in set(findings):
            note(finding)

    for contract in contracts:
        report = asyncio.run(record(contract, keep))
        outcome.broken += [f"{one.name}: {one.message}" for one in report.results if one.verdict == "failed"]
    for path in sorted(_folder(contracts[0]).glob("fixtures/*.json")):
        outcome.fixtures[path.stem], findings = judge.fixture(path.stem, json.loads(path.read_bytes()))
        for finding in findings:
            note(finding)
    outcome.passed_over = sorted(text for document in documents for text in document.problems)
    outcome.unused = [pattern for pattern in patterns if pattern not in used]
    return outcome


def _folder(contract: type[Any]) -> Path:
    file = import_module(contract.driver.__module__).__file__
    return Path(file or ".").parent


def known_differences(driver: str, path: Path = DIFFERENCES) -> list[str]:
    """The patterns of one driver. Raises SpecProblem for a difference without a reason."""
    if not path.exists():
        return []
    rows = tomllib.loads(path.read_text(encoding="utf-8")).get(driver, [])
    for row in rows:
        if not row.get("reason"):
            raise SpecProblem(f"{path.name}: the difference {row.get('match')!r} needs a reason")
    return [row["match"] for row in rows]


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--driver", required=True, help="a slug, or module:Class of a driver or a contract")
    parser.add_argument(
        "--spec", required=True, action="append", type=Path, help="an OpenAPI 3.0 or 3.1 file"
    )
    parser.add_argument("--allow", action="append", default=[], help="a pattern of findings to pass over")
    parser.add_argument("--strict-null", action="store_true", help="a null must be declared, not only absent")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    given = parser.parse_args(arguments)
    try:
        documents = [load_document(path) for path in given.spec]
        patterns = [*known_differences(given.driver), *given.allow]
        outcome = check(given.driver, documents, patterns, strict_null=given.strict_null)
    except (SpecProblem, CrmError) as error:
        print(f"cannot check: {error}", file=sys.stderr)
        return 2
    print(json.dumps(outcome.to_dict(), indent=1) if given.json else outcome.to_text())
    return 0 if outcome.agrees else 1


if __name__ == "__main__":
    sys.exit(main())
