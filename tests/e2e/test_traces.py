"""Traces through the whole house: one trace from the request to the CRM, and nobody's name in it."""

from __future__ import annotations

import io
import json

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from crmbridge import tracing

from .conftest import House
from .test_metrics import CANARY, TOLD, WAIT

pytestmark = pytest.mark.postgres

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


def named(kept: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in kept.get_finished_spans() if span.name == name]


def trace_of(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}"


async def test_trace_when_a_caller_waits_then_from_his_request_to_the_crm(
    house: House, spans: InMemorySpanExporter
) -> None:
    await house.tenant("acme")
    await house.connect("acme", "odoo")
    spans.clear()
    body = {"fields": CANARY, "idempotency_key": "k1"}
    made = await house.call("POST", "/api/tenants/acme/records/lead", json=body, headers={**WAIT, **PARENT})
    assert made.status_code == 201, made.text
    (request,) = named(spans, "http")
    assert trace_of(request) == TRACE and request.parent is not None and request.parent.is_remote
    assert dict(request.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/api/tenants/{tenant}/records/{object_name}",
        "http.response.status_code": 201,
    }
    (flush,) = named(spans, "flush")
    assert [f"{one.context.trace_id:032x}" for one in flush.links] == [TRACE]
    assert (flush.attributes or {})["crmbridge.writes"] == 1
    (drain,) = named(spans, "drain batch")
    (call,) = named(spans, "provider call")
    assert trace_of(drain) == trace_of(call) == TRACE
    assert call.parent is not None and drain.context and call.parent.span_id == drain.context.span_id
    told = dict(call.attributes or {})
    assert told["crmbridge.requests"] in range(1, 10)
    assert {name: told[name] for name in told if name != "crmbridge.requests"} == {
        "crmbridge.driver": "odoo",
        "crmbridge.object": "lead",
        "crmbridge.operation": "create",
        "crmbridge.records": 1,
        "crmbridge.outcome": "applied",
        "http.response.status_code": 200,
    }


async def test_trace_when_the_crm_refuses_then_the_code_and_no_message(
    house: House, spans: InMemorySpanExporter
) -> None:
    await house.tenant("acme")
    await house.connect("acme", "rest_api")
    spans.clear()
    read = await house.call("GET", "/api/tenants/acme/records/lead/999999", headers=PARENT)
    assert read.status_code == 404
    (call,) = named(spans, "provider call")
    assert trace_of(call) == TRACE
    assert call.status.status_code is StatusCode.ERROR and call.status.description == "not_found"
    (request,) = named(spans, "http")
    assert (request.attributes or {})["http.response.status_code"] == 404
    assert "999999" not in request.to_json() + call.to_json()


async def test_spans_when_persons_were_written_then_nothing_of_them(
    house: House, spans: InMemorySpanExporter
) -> None:
    await house.tenant("quackenbush-motors")
    await house.connect("quackenbush-motors", "odoo")
    base = "/api/tenants/quackenbush-motors"
    body = {"fields": CANARY, "idempotency_key": "zephyrine"}
    hostile = {"traceparent": "00-canary-zephyrine-01", "tracestate": "canary=zephyrine"}
    made = await house.call("POST", f"{base}/records/lead", json=body, headers={**WAIT, **hostile})
    assert made.status_code == 201, made.text
    assert (await house.call("POST", f"{base}/lookup", json={"email": CANARY["email"]})).is_success
    await house.call("GET", f"{base}/records/lead/zephyrine.q@canary.example")
    await house.call("GET", "/canary/zephyrine?mephisto=765%204321")
    await house.call("POST", f"{base}/records/lead?quackenbush=1", json=body)
    await house.call("CANARY", f"{base}/records/quackenbush", json=body)
    found = spans.get_finished_spans()
    assert {span.name for span in found} >= {"http", "flush", "drain batch", "provider call"}
    allowed = {name if "." in name else f"crmbridge.{name}" for name in tracing.ATTRIBUTES}
    for span in found:
        text = span.to_json().lower()
        for word in (*TOLD, "motors", made.json()["write_id"]):
            assert word not in text, (word, text)
        assert set(span.attributes or {}) <= allowed and not span.events


@pytest.mark.parametrize("is_traced", [True, False])
async def test_trace_id_when_the_caller_sent_one_then_on_the_log_lines_of_his_request(
    house: House,
    out: io.StringIO,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    is_traced: bool,
) -> None:
    """With a tracer and without one; the line is that of a failure of ours, which tells no person either."""
    if is_traced:
        request.getfixturevalue("spans")

    person = " ".join((CANARY["first_name"], CANARY["last_name"]))

    async def breaks(*args: object, **rest: object) -> None:
        raise RuntimeError(person)

    await house.tenant("acme")
    await house.connect("acme", "rest_api")
    monkeypatch.setattr(house.services.delivery, "accept", breaks)
    body = {"fields": CANARY, "idempotency_key": "k1"}
    failed = await house.call("POST", "/api/tenants/acme/records/lead", json=body, headers=PARENT)
    assert failed.status_code == 500
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    (event,) = [event for event in events if event["event"] == "request.failed"]
    assert event["trace_id"] == TRACE and event["request_id"] == failed.json()["request_id"]
    assert event["route"] == "/api/tenants/{tenant}/records/{object_name}"
    assert not [word for word in TOLD if word in out.getvalue().lower()]
