"""Spans: their own words only, a parent from the request, and next to nothing without a tracer."""

from __future__ import annotations

import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, StatusCode

from crmbridge import tracing
from crmbridge.core.errors import NotConfigured, RateLimited

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def context_of(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def only(kept: InMemorySpanExporter) -> ReadableSpan:
    (span,) = kept.get_finished_spans()
    return span


def test_span_when_there_is_no_tracer_then_nothing_happens_and_it_is_cheap() -> None:
    assert not tracing.is_on() and tracing.link() is None
    least = 1.0
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(2_000):
            with tracing.span("flush", is_root=True, writes=3) as span:
                span.set(outcome="applied")
        least = min(least, (time.perf_counter() - began) / 2_000)
    assert least < 20e-6  # measured: below 1 µs


def test_span_when_an_attribute_is_not_declared_then_left_out(spans: InMemorySpanExporter) -> None:
    with tracing.span("provider call", driver="odoo", email="layla@example.com") as span:
        span.set(url="https://h/?email=layla@example.com", http__response__status_code=200)
    assert dict(only(spans).attributes or {}) == {
        "crmbridge.driver": "odoo",
        "http.response.status_code": 200,
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [(RateLimited("slow down, Layla"), "rate_limited"), (ValueError("Layla"), "ValueError")],
)
def test_span_when_the_work_fails_then_its_code_and_not_its_message(
    spans: InMemorySpanExporter, error: Exception, code: str
) -> None:
    with pytest.raises(type(error)), tracing.span("drain batch"):
        raise error
    span = only(spans)
    assert span.status.status_code is StatusCode.ERROR and span.status.description == code
    assert span.events == () and "Layla" not in span.to_json()


def test_span_when_the_request_brings_a_parent_then_its_child(spans: InMemorySpanExporter) -> None:
    with tracing.span("http", headers={"traceparent": PARENT}), tracing.span("provider call"):
        pass
    inner, outer = spans.get_finished_spans()
    assert outer.parent is not None and f"{outer.parent.span_id:016x}" == "b7ad6b7169203331"
    assert inner.parent is not None and inner.parent.span_id == context_of(outer).span_id
    assert f"{context_of(inner).trace_id:032x}" == TRACE


def test_span_when_it_works_for_several_then_a_root_with_links(spans: InMemorySpanExporter) -> None:
    with tracing.span("http", headers={"traceparent": PARENT}):
        links = [tracing.link(), *[tracing.link()] * 50, None]
        with tracing.span("flush", is_root=True, links=links, writes=51):
            pass
    flush, _ = spans.get_finished_spans()
    assert flush.parent is None and len(flush.links) == tracing.MOST_LINKS
    assert f"{flush.links[0].context.trace_id:032x}" == TRACE


def test_traceparent_when_well_formed_then_its_trace_id() -> None:
    assert tracing.trace_id_in(PARENT.encode()) == TRACE
    assert tracing.trace_id_in(f"cc-{TRACE}-b7ad6b7169203331-01-what-the-future-brings".encode()) == TRACE


@pytest.mark.parametrize(
    "header",
    [
        "",
        f"ff-{TRACE}-b7ad6b7169203331-01",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-b7ad6b7169203331-01",
        f"00-{TRACE}-b7ad6b7169203331-01-{'x' * 500}",
        f"00-{TRACE}-b7ad6b7169203331",
    ],
)
def test_traceparent_when_malformed_then_none(header: str) -> None:
    assert tracing.trace_id_in(header.encode()) == ""


@given(st.binary(max_size=300))
def test_traceparent_when_hostile_then_hexadecimal_or_none(header: bytes) -> None:
    found = tracing.trace_id_in(header)
    assert found == "" or (len(found) == 32 and int(found, 16) > 0)


def test_start_when_the_sdk_is_not_installed_then_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(NotConfigured, match="CRMBRIDGE_TRACES") as caught:
        tracing.start()
    assert "crmbridge[otel]" in caught.value.fix.hint
    assert not tracing.is_on()
