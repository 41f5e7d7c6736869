"""Token renewals in metrics and traces."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.e2e.acme.house import AcmeHouse

from crmbridge.metrics import REGISTRY

pytestmark = pytest.mark.postgres


def renewals(result: str) -> float:
    """Of all drivers."""
    return sum(
        sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == "crmbridge_token_renewals_total" and sample.labels["result"] == result
    )


async def test_renewal_when_it_works_and_when_the_grant_is_dead_then_both_are_told(
    acme: AcmeHouse, spans: InMemorySpanExporter
) -> None:
    await acme.connected()
    renewed, revoked = renewals("renewed"), renewals("revoked")
    acme.acme.expire_access()
    spans.clear()
    assert (await acme.recent()).status_code == 200
    assert renewals("renewed") == renewed + 1
    by_name = {span.name: span for span in spans.get_finished_spans()}
    renewal, call = by_name["token renewal"], by_name["provider call"]
    assert call.context and renewal.parent and renewal.parent.span_id == call.context.span_id
    assert set(renewal.attributes or {}) == {"crmbridge.driver"} and renewal.status.is_unset

    acme.acme.expire_access()
    acme.acme.refresh.clear()
    spans.clear()
    refused = await acme.recent()
    assert refused.json()["subcode"] == "refresh_failed"
    assert renewals("revoked") == revoked + 1 and renewals("renewed") == renewed + 1
    (renewal,) = [span for span in spans.get_finished_spans() if span.name == "token renewal"]
    assert not renewal.status.is_ok and renewal.status.description and not renewal.events
