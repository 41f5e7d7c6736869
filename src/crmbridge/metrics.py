"""Metrics of this process, for Prometheus. Each process counts and serves its own; nothing is shared.

Labels come from closed sets: drivers, objects, operations, outcomes, states, error codes, kinds. Never a tenant, an
id, or anything that a person or a provider wrote. What is read from the tables at each scrape stands in ``GAUGES``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

__all__ = [
    "CONTENT_TYPE",
    "GAUGES",
    "LABELS",
    "REGISTRY",
    "MetricFact",
    "Reading",
    "describe_metrics",
    "note_accepted",
    "note_attempt",
    "note_clock_leap",
    "note_egress_refusal",
    "note_flush",
    "note_provider_call",
    "note_refusal",
    "note_renewal",
    "note_replayed",
    "note_settled",
    "note_step",
    "render",
]

CONTENT_TYPE = CONTENT_TYPE_LATEST
# A second series for each counter, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

# Every label that a metric of ours may have; a test looks for others.
LABELS = frozenset(
    {"budget", "code", "driver", "kind", "object", "operation", "outcome", "result", "source", "state"}
    | {"status", "step", "version"}
)
_SOURCES = frozenset({"api", "console", "import", "mcp"})
_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_SLOW = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class _Tally:
    """A histogram without labels for the hot path: a third of the library's cost, because only the thread of the event
    loop observes and reads it, so it needs no locks."""

    _labelnames: tuple[str, ...] = ()

    def __init__(self, name: str, help: str, *, buckets: Sequence[float]) -> None:
        self._name = name
        self._help = help
        self._bounds = buckets
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0
        REGISTRY.register(self)

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def describe(self) -> Iterator[Metric]:
        yield HistogramMetricFamily(self._name, self._help)

    def collect(self) -> Iterator[Metric]:
        counted, buckets = 0, []
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            counted += count
            buckets.append((floatToGoString(bound), counted))  # type: ignore[no-untyped-call]
        yield HistogramMetricFamily(self._name, self._help, buckets=buckets, sum_value=self._sum)


_ACCEPTED = Counter(
    "crmbridge_writes_accepted",
    "Writes taken in durably.",
    ["object", "operation", "source"],
    registry=REGISTRY,
)
_REPLAYED = Counter(
    "crmbridge_writes_replayed",
    "Requests that repeated a known idempotency key and got the first answer.",
    registry=REGISTRY,
)
_ACCEPT_SECONDS = _Tally(
    "crmbridge_accept_seconds",
    "From the call of accept to its commit, without any waiting for the CRM.",
    buckets=_FAST,
)
_FLUSH_WRITES = _Tally(
    "crmbridge_flush_writes",
    "Writes that shared one commit.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 500),
)
_FLUSH_SECONDS = _Tally("crmbridge_flush_seconds", "One group commit, begin to commit.", buckets=_FAST)
_PROVIDER_CALLS = Counter(
    "crmbridge_provider_calls",
    "Operations asked of a CRM, by outcome (`ok` for reads, `mixed` for a batch) and first error code.",
    ["driver", "object", "operation", "outcome", "code"],
    registry=REGISTRY,
)
_PROVIDER_REQUESTS = Counter(
    "crmbridge_provider_requests",
    "HTTP requests sent to a CRM; one operation may be several.",
    ["driver"],
    registry=REGISTRY,
)
_PROVIDER_SECONDS = Histogram(
    "crmbridge_provider_seconds",
    "One operation at a CRM, waiting for the rate budget included.",
    ["driver", "operation"],
    buckets=_SLOW,
    registry=REGISTRY,
)
_ATTEMPTS = Counter(
    "crmbridge_attempts",
    "Tries of single targets: `send`, or `look_up` of an effect that is unknown.",
    ["driver", "kind", "outcome"],
    registry=REGISTRY,
)
_SETTLED = Counter(
    "crmbridge_targets_settled",
    "Targets that delivery brought to an end: `applied`, `parked`, `dead_letter`.",
    ["driver", "object", "operation", "state"],
    registry=REGISTRY,
)
_STEPS = Counter(
    "crmbridge_target_steps",
    "Targets that a person moved: redrive, discard, cancel.",
    ["step"],
    registry=REGISTRY,
)
_RENEWALS = Counter(
    "crmbridge_token_renewals",
    "Token renewals: `renewed`, or the fault (revoked, misconfigured, throttled, transient).",
    ["driver", "result"],
    registry=REGISTRY,
)
_REFUSALS = Counter(
    "crmbridge_http_refusals",
    "Requests to our API that were answered with an error.",
    ["code", "status"],
    registry=REGISTRY,
)
_EGRESS_REFUSALS = Counter(
    "crmbridge_egress_refusals",
    "Outbound requests refused by our own policy: an inside address, a header that could re-frame a request.",
    registry=REGISTRY,
)
_CLOCK_LEAPS = Counter(
    "crmbridge_database_clock_leaps",
    "How often the database's clock leapt against this process's own, by more than a second.",
    registry=REGISTRY,
)

# name: (help, labels). Read when somebody asks, from content-free tables and from this process.
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "crmbridge_build": ("Always 1; the label tells the version.", ("version",)),
    "crmbridge_database_up": ("1 when the tables behind the gauges could be read, else 0.", ()),
    "crmbridge_lanes_due": ("Lanes with something due that nobody works on and nothing holds back.", ()),
    "crmbridge_lanes_held_back": ("Lanes with something due that wait after failures.", ()),
    "crmbridge_lanes_paused": ("Lanes paused by a person.", ()),
    "crmbridge_lanes_leased": ("Lanes that some worker has in hand.", ()),
    "crmbridge_lane_oldest_waiting_seconds": ("How long the lane that waits longest has waited.", ()),
    "crmbridge_jobs": (
        "Jobs of the engine: `queued` (delayed ones included) or `running`.",
        ("kind", "state"),
    ),
    "crmbridge_jobs_oldest_seconds": ("Age of the oldest queued job.", ("kind",)),
    "crmbridge_incidents_open": (
        "Incidents that are not resolved: `open` or `acknowledged`.",
        ("kind", "state"),
    ),
    "crmbridge_budget_remaining_ratio": (
        "Least share left of a provider's rate budget among the connections this process used lately.",
        ("driver", "budget"),
    ),
    "crmbridge_worker_late_seconds": ("How late the worker of this process is; absent without one.", ()),
}


class Reading(NamedTuple):
    """One value of a gauge; ``labels`` in the order in which ``GAUGES`` names them."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


class MetricFact(NamedTuple):
    """One row of the metrics table in docs/howto/monitor.md. ``name`` as it is asked for in a query."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str


# The hot path: `labels()` costs more than the counting, so what it answers is kept.
@lru_cache(maxsize=512)
def _accepted(obj: str, operation: str, source: str) -> Counter:
    return _ACCEPTED.labels(obj, operation, source if source in _SOURCES else "other")


@lru_cache(maxsize=2048)
def _provider_calls(driver: str, obj: str, operation: str, outcome: str, code: str) -> Counter:
    return _PROVIDER_CALLS.labels(driver, obj, operation, outcome, code)


@lru_cache(maxsize=512)
def _provider_seconds(driver: str, operation: str) -> Histogram:
    return _PROVIDER_SECONDS.labels(driver, operation)


@lru_cache(maxsize=128)
def _provider_requests(driver: str) -> Counter:
    return _PROVIDER_REQUESTS.labels(driver)


@lru_cache(maxsize=512)
def _attempts(driver: str, kind: str, outcome: str) -> Counter:
    return _ATTEMPTS.labels(driver, kind, outcome)


@lru_cache(maxsize=1024)
def _settled(driver: str, obj: str, operation: str, state: str) -> Counter:
    return _SETTLED.labels(driver, obj, operation, state)


def note_accepted(obj: str, operation: str, source: str, seconds: float) -> None:
    """One write is durable, ``seconds`` after accept was called."""
    _accepted(obj, operation, source).inc()
    _ACCEPT_SECONDS.observe(seconds)


def note_replayed() -> None:
    """A known key came again."""
    _REPLAYED.inc()


def note_flush(writes: int, seconds: float) -> None:
    """One group commit."""
    _FLUSH_WRITES.observe(writes)
    _FLUSH_SECONDS.observe(seconds)


def note_provider_call(
    *, driver: str, obj: str, operation: str, outcome: str, code: str, requests: int, seconds: float
) -> None:
    """One operation at a CRM has ended."""
    _provider_calls(driver, obj, operation, outcome, code).inc()
    _provider_seconds(driver, operation).observe(seconds)
    if requests:
        _provider_requests(driver).inc(requests)


def note_attempt(driver: str, kind: str, outcome: str, count: int = 1) -> None:
    """Targets were sent or looked up once more."""
    _attempts(driver, kind, outcome).inc(count)


def note_settled(driver: str, obj: str, operation: str, state: str, count: int = 1) -> None:
    """Targets reached a state that delivery does not leave by itself."""
    _settled(driver, obj, operation, state).inc(count)


def note_step(step: str, count: int) -> None:
    """A person moved targets."""
    _STEPS.labels(step).inc(count)


def note_renewal(driver: str, result: str) -> None:
    """A token was asked for."""
    _RENEWALS.labels(driver, result).inc()


def note_refusal(code: str, status: int) -> None:
    """The API answered with an error."""
    _REFUSALS.labels(code, str(status)).inc()


def note_clock_leap() -> None:
    """The database's clock was set, or this process stood still."""
    _CLOCK_LEAPS.inc()


def note_egress_refusal() -> None:
    """A request did not leave."""
    _EGRESS_REFUSALS.inc()


class _Readings:
    """A collector of what was just read."""

    def __init__(self, readings: Iterable[Reading]) -> None:
        self._readings = list(readings)

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Any] = {}
        for name, value, labels in self._readings:
            if name not in families:
                families[name] = GaugeMetricFamily(name, GAUGES[name][0], labels=GAUGES[name][1])
            families[name].add_metric(labels, value)
        yield from families.values()


def render(readings: Iterable[Reading]) -> bytes:
    """The text exposition of all metrics of this process and these gauges."""
    now = CollectorRegistry()
    now.register(_Readings(readings))
    return generate_latest(REGISTRY) + generate_latest(now)


def describe_metrics() -> list[MetricFact]:
    """Our metrics by name, without those of the Python process."""
    facts = []
    for metric in (
        *(_ACCEPTED, _REPLAYED, _ACCEPT_SECONDS, _FLUSH_WRITES, _FLUSH_SECONDS, _PROVIDER_CALLS),
        *(_PROVIDER_REQUESTS, _PROVIDER_SECONDS, _ATTEMPTS, _SETTLED, _STEPS, _RENEWALS, _REFUSALS),
        *(_EGRESS_REFUSALS, _CLOCK_LEAPS),
    ):
        family = next(iter(metric.describe()))
        suffix = "_total" if family.type == "counter" else ""
        labels = tuple(metric._labelnames)
        facts.append(MetricFact(family.name + suffix, family.type, labels, family.documentation))
    facts += [MetricFact(name, "gauge", labels, text) for name, (text, labels) in GAUGES.items()]
    return sorted(facts)
