"""docs/reference/retries.md: it tells of every write of every driver, and only what the code does."""

from __future__ import annotations

import re

import pytest
from tools.reference import retries
from tools.reference.retries import anchor, retries_page

from crmbridge.conformance.run import contract_for
from crmbridge.core.errors import RateLimited, ValidationError
from crmbridge.core.manifest import (
    Auth,
    AuthKind,
    Idempotency,
    IdempotencyKind,
    LookUp,
    Manifest,
    ObjectSpec,
)
from crmbridge.core.operations import FULL, Operation, Outcome
from crmbridge.core.records import Object, WriteResult
from crmbridge.drivers import DRIVERS, load
from crmbridge.services.delivery.lane.outcome import backoff_seconds, judge
from crmbridge.services.delivery.model import Limits


@pytest.fixture(scope="module")
def page() -> str:
    return retries_page()


def section_of(page: str, slug: str) -> str:
    name = load(slug).MANIFEST.display_name
    return page.split(f"\n### {name}\n", 1)[1].split("\n### ", 1)[0]


def rows_of(section: str, columns: int) -> list[list[str]]:
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return [row for row in rows if len(row) == columns and row[0] not in ("Objects", "What comes", "---")]


@pytest.mark.parametrize("slug", sorted(DRIVERS))
def test_page_when_made_then_every_write_of_the_driver_stands_in_it_once(page: str, slug: str) -> None:
    manifest = contract_for(slug).manifest()
    told = [
        (obj, operation)
        for row in rows_of(section_of(page, slug), 5)
        if row[0].split(", ")[0] in {obj.value for obj in Object}
        for obj in row[0].split(", ")
        for operation in row[1].split(", ")
    ]
    expected = [
        (obj.value, operation.value)
        for obj in manifest.objects
        for operation in Operation
        if operation.is_write and manifest.supports(obj, operation).is_usable and not manifest.why_unavailable
    ]
    assert sorted(told) == sorted(expected)


@pytest.mark.parametrize("slug", sorted(slug for slug in DRIVERS if not load(slug).MANIFEST.why_unavailable))
def test_page_when_made_then_every_failure_was_tried_and_has_an_end(page: str, slug: str) -> None:
    section = section_of(page, slug)
    for name, _, _ in retries._FAULTS:
        assert f"| {name} | " in section
    for row in rows_of(section, 5):
        if row[0].startswith("429"):
            assert row[2:4] == ["`rate_limited`", "not_applied"] and row[4].startswith("sent again")
        if row[0].startswith("time-out"):
            assert row[3] == "unknown" and row[4].startswith("looked up after")
        if row[0].startswith("no connection"):
            assert row[3] == "not_applied" and row[4].startswith("sent again")
        if row[0].startswith("422"):
            assert row[4] == "**dead letter**"
        if row[0] == retries._RENEWED:
            assert row[2] == "`auth_error/insufficient_scope`"


def test_page_when_a_write_has_no_means_then_it_says_parked(page: str) -> None:
    for slug in DRIVERS:
        manifest = contract_for(slug).manifest()
        has_none = any(
            manifest.look_up(obj, operation) is LookUp.NONE
            for obj in manifest.objects
            for operation in Operation
            if operation.is_write and manifest.supports(obj, operation).is_usable
        )
        lines = [line for line in section_of(page, slug).splitlines() if " | nothing | " in line]
        assert bool(lines) is has_none and all("**parked**" in line for line in lines)


def test_page_when_made_then_its_numbers_are_those_of_the_code(page: str) -> None:
    limits = Limits()
    text = " ".join(page.split())
    assert f"**Back-off**: {limits.retry_base_seconds:g} s, 2 s, 4 s" in text
    assert f"{limits.retry_cap_seconds / 60:g} min, and no more" in text
    assert f"failed {limits.alone_after} times travels alone" in text
    assert f"failed {limits.most_attempts} times while" in text
    assert f"After {limits.overdue_seconds / 3600:g} h an incident" in text
    assert f"still fails {limits.look_up_seconds / 86_400:g} days" in text


def test_page_when_made_then_each_driver_page_links_to_its_part(page: str) -> None:
    from tools.reference.drivers import driver_page

    headings = {anchor(name) for name in re.findall(r"^### (.+)$", page, re.MULTILINE)}
    for slug in DRIVERS:
        if not load(slug).MANIFEST.why_unavailable:
            linked = re.findall(r"\(\.\./retries\.md#([^)]+)\)", driver_page(slug))
            assert len(linked) == 1 and linked[0] in headings


def test_page_when_the_code_changes_then_it_changes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(retry_base_seconds=7, look_up_seconds=4 * 86_400.0)
    monkeypatch.setattr(retries, "_LIMITS", limits)
    text = retries._introduction()
    assert "**Back-off**: 7 s, 14 s" in text and "still fails 4 days" in text


def test_judge_when_retry_after_is_longer_than_the_back_off_then_kept_else_the_back_off() -> None:
    limits = Limits()
    for asked, failures in ((120.0, 0), (1.0, 7)):
        result = WriteResult(outcome=Outcome.NOT_APPLIED, error=RateLimited("x", retry_after_seconds=asked))
        verdict = judge(result, attempt=1, lane_failures=failures, limits=limits, lag=0.0, jitter=1.0)
        assert verdict.pause_seconds == max(asked, backoff_seconds(failures + 1, limits, 1.0))
    refused = WriteResult(outcome=Outcome.NOT_APPLIED, error=ValidationError("x"))
    assert not judge(refused, attempt=1, lane_failures=0, limits=limits, lag=0.0, jitter=1.0).delay_seconds


def declared(kind: IdempotencyKind, *reads: Operation, **more: LookUp) -> Manifest:
    writes = [operation for operation in Operation if operation.is_write]
    spec = ObjectSpec(
        native="contacts",
        operations=dict.fromkeys((*writes, *reads), FULL),
        idempotency=Idempotency(kind=kind, field="ref"),
        look_ups={Operation(name): means for name, means in more.items()},
    )
    return Manifest(
        slug="acme",
        display_name="Acme",
        api_version="1",
        pages=(),
        read_on="2026-11-25",
        auth=Auth(kind=AuthKind.NONE),
        objects={Object.CUSTOMER: spec},
    )


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (declared(IdempotencyKind.KEY_SENT), "key_sent key_sent key_sent key_sent key_sent"),
        (declared(IdempotencyKind.NONE), "none none none none none"),
        (
            declared(IdempotencyKind.MARK, Operation.GET, Operation.SEARCH),
            "mark record match record record",
        ),
        (declared(IdempotencyKind.EXTERNAL_ID, Operation.SEARCH), "external_id none match none none"),
        (
            declared(IdempotencyKind.NONE, Operation.GET, upsert=LookUp.REPEAT, update=LookUp.NONE),
            "none none repeat record record",
        ),
    ],
)
def test_look_up_when_nothing_is_declared_then_by_what_the_object_can_read(
    manifest: Manifest, expected: str
) -> None:
    told = [manifest.look_up(Object.CUSTOMER, operation) for operation in Operation if operation.is_write]
    assert " ".join(means.value for means in told) == expected
    assert manifest.look_up(Object.CUSTOMER, Operation.GET) is LookUp.NONE
    assert manifest.look_up(Object.DEAL, Operation.CREATE) is LookUp.NONE
