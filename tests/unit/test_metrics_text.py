"""Metrics: closed sets of labels, a text that Prometheus reads, and documents that name what exists."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from crmbridge import metrics
from crmbridge.core.wire import HttpRequest, TransportFailure
from crmbridge.metrics import GAUGES, LABELS, REGISTRY, MetricFact, Reading, describe_metrics, render
from crmbridge.toolkit.egress import Egress, EgressPolicy

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "docs" / "operations" / "grafana-dashboard.json"
GUIDE = ROOT / "docs" / "howto" / "monitor.md"
NAME = re.compile(r"\bcrmbridge_[a-z_]+\b")


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def series_names(fact: MetricFact) -> set[str]:
    if fact.type != "histogram":
        return {fact.name}
    return {f"{fact.name}{suffix}" for suffix in ("_bucket", "_sum", "_count")}


def row(fact: MetricFact) -> str:
    labels = ", ".join(f"`{label}`" for label in fact.labels) or "none"
    return f"| `{fact.name}` | {fact.type} | {labels} | {fact.help} |"


def test_metrics_when_described_then_named_by_the_rules_and_labels_come_from_the_closed_set() -> None:
    facts = describe_metrics()
    assert len(facts) > 20
    for fact in facts:
        assert NAME.fullmatch(fact.name) and fact.help.endswith((".", ")"))
        assert set(fact.labels) <= LABELS, fact
        assert fact.name.endswith("_total") == (fact.type == "counter"), fact


def test_text_when_rendered_then_prometheus_reads_every_gauge() -> None:
    readings = [Reading(name, 2.5, tuple("x" for _ in labels)) for name, (_, labels) in GAUGES.items()]
    families = {family.name: family for family in text_string_to_metric_families(render(readings).decode())}
    for name, (_, labels) in GAUGES.items():
        (sample,) = families[name].samples
        assert sample.value == 2.5 and sample.labels == dict.fromkeys(labels, "x")
    assert not [name for name in families if name.endswith("_created")]


def test_accept_seconds_when_observed_then_buckets_add_up_as_prometheus_wants() -> None:
    def told() -> dict[str, float]:
        text = render([]).decode()
        (family,) = [f for f in text_string_to_metric_families(text) if f.name == "crmbridge_flush_writes"]
        return {sample.labels.get("le", sample.name): sample.value for sample in family.samples}

    before = told()
    for writes in (1, 2, 3, 500, 501):
        metrics.note_flush(writes, 0.001)
    grown = {name: count - before[name] for name, count in told().items()}
    assert (grown["1.0"], grown["2.0"], grown["4.0"], grown["256.0"]) == (1, 2, 3, 3)
    assert (grown["500.0"], grown["+Inf"]) == (4, 5)
    assert (grown["crmbridge_flush_writes_count"], grown["crmbridge_flush_writes_sum"]) == (5, 1007)


def test_source_when_it_is_none_of_ours_then_other() -> None:
    before = value("crmbridge_writes_accepted_total", object="lead", operation="create", source="other")
    for source in ("layla@example.com", "+971501234567"):
        metrics.note_accepted("lead", "create", source, 0.001)
    after = value("crmbridge_writes_accepted_total", object="lead", operation="create", source="other")
    assert after - before == 2
    assert b"layla" not in render([]) and b"97150" not in render([])


def test_accept_when_counted_then_a_few_microseconds() -> None:
    """What one accept pays: its own counting, and a flush of its own in the worst case."""
    least = 1.0
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(2_000):
            metrics.note_accepted("lead", "create", "api", 0.004)
            metrics.note_flush(1, 0.004)
        least = min(least, (time.perf_counter() - began) / 2_000)
    assert least < 20e-6  # measured: below 2 µs; the limit leaves room for a busy machine


async def test_egress_when_an_address_is_refused_then_counted() -> None:
    refused: list[int] = []
    egress = Egress(EgressPolicy(), on_refused=lambda: refused.append(1))
    for url in ("http://127.0.0.1:1/", "https://169.254.169.254/latest"):
        with pytest.raises(TransportFailure):
            await egress.send(HttpRequest(method="GET", url=url))
    await egress.close()
    assert len(refused) == 2


def test_command_line_when_asked_for_help_then_neither_metrics_nor_traces_are_loaded() -> None:
    code = (
        "import sys, crmbridge, crmbridge.app, crmbridge.cli.main\n"
        "print([m for m in ('prometheus_client', 'opentelemetry') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def queries(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for name, inner in node.items():
            if name in ("expr", "definition") and isinstance(inner, str):
                yield inner
            else:
                yield from queries(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from queries(inner)


def test_dashboard_when_read_then_every_query_names_series_that_exist() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    known = {name for fact in describe_metrics() for name in series_names(fact)}
    labels = {fact.name: set(fact.labels) for fact in describe_metrics()}
    found = list(queries(dashboard))
    assert len(found) >= 15
    for query in found:
        names = NAME.findall(query)
        assert names and set(names) <= known, query
        # Labels that are grouped by or matched belong to a metric of the query, or are Prometheus' own.
        used = {
            label.strip()
            for group in re.findall(r"\bby \(([^)]*)\)", query)
            for label in group.split(",")
            if label.strip()
        } | set(re.findall(r"([a-z_]+)(?:=~|!~|!=|=)\"", query))
        allowed = {"le", "instance", "job"} | set().union(
            *(
                labels.get(re.sub(r"_(bucket|sum|count)$", "", name), labels.get(name, set()))
                for name in names
            )
        )
        assert used <= allowed, query
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    shown = {name for query in found for name in NAME.findall(query)}
    for fact in describe_metrics():
        assert shown & series_names(fact), f"{fact.name} is on no panel"


def test_guide_when_read_then_its_table_is_what_the_code_declares() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if line.startswith("| `crmbridge_")]
    wanted = [row(fact) for fact in describe_metrics()]
    assert table == wanted, "the table should be:\n" + "\n".join(wanted)


def test_guide_when_its_alerts_are_read_then_they_name_series_that_exist() -> None:
    import yaml

    known = {name for fact in describe_metrics() for name in series_names(fact)}
    blocks = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)
    rules = [
        rule
        for block in blocks
        for group in (yaml.safe_load(block) or {}).get("groups", [])
        for rule in group["rules"]
    ]
    assert len(rules) >= 8
    for rule in rules:
        names = set(NAME.findall(rule["expr"]))
        assert (names and names <= known) or rule["expr"].startswith("up{"), rule
        assert rule["annotations"]["summary"]
