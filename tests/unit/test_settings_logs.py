"""Logs: what must never reach them does not."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.core.secret import Secret
from crmbridge.logs import bind_request, configure_logs, get_logger, mask, mask_tree


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("mail jane.doe+x@example.co.uk now", "mail [email] now"),
        ("call +971 50 123 4567.", "call [phone]."),
        ("call (555) 010-1234", "call [phone]"),
        ("call 5550101234", "call [phone]"),
        ("key crmb_live_AbC-123_x", "key [token]"),
        ("Authorization: Bearer abcdef123456", "Authorization: [token]"),
        ("jwt eyJhbGciOi.eyJzdWIi.c2ln", "jwt [token]"),
        ("pat-na1-11111111-2222-3333-4444-555555555555", "[token]"),
        ("x 0123456789abcdef0123456789abcdef", "x [token]"),
        ("GET https://h.example.com/a?email=j@x.io#f", "GET https://h.example.com/a?[query]"),
        ("postgresql://u:pw@db:5432/crm", "postgresql://[token]@db:5432/crm"),
        ("https://h.example.com/contacts/jane@x.io", "https://h.example.com/contacts/[email]"),
    ],
)
def test_mask_when_text_holds_it_then_replaced(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "write 0190b5a4-7c1e-7abc-8def-0123456789ab accepted",
        "at 2026-11-22T23:34:00.123Z",
        "from 192.168.100.200:8700",
        "drained 100 writes in 12 ms",
        "crmbridge_services_delivery_service_drain_all_lanes",
        "/home/jo/.local/share/crmbridge",
    ],
)
def test_mask_when_text_is_ours_then_kept(text: str) -> None:
    assert mask(text) == text


@given(st.text(max_size=30), st.emails(), st.text(max_size=30))
def test_mask_when_any_address_stands_anywhere_then_gone(before: str, address: str, after: str) -> None:
    assert address not in mask(f"{before} {address} {after}")


def test_mask_when_text_is_huge_and_hostile_then_quick_and_cut() -> None:
    for unit in ("a", "1 ", "+1", "a@", "x://", "a-", "(", "eyJ", "a.", "1.", "Bearer "):
        begun = time.process_time()
        assert len(mask(unit * 500_000)) < 5 * 8_000
        assert time.process_time() - begun < 0.5


def test_mask_tree_when_values_are_odd_then_nothing_inside_is_shown() -> None:
    class Customer:
        def __repr__(self) -> str:
            return "Customer(jane@example.com)"

    tree = mask_tree(
        {"a": Customer(), "b": b"secret", "c": [Secret("s3")], "d": ValueError("jane@example.com")}
    )
    assert tree == {"a": "<Customer>", "b": "<6 bytes>", "c": ["***"], "d": "ValueError: [email]"}


def test_event_when_logged_then_secrets_and_persons_are_masked(out: io.StringIO) -> None:
    get_logger("t").info(
        "sent to jane@example.com",
        key=Secret("s3cret"),
        api_key="abc",
        access_token="abc",
        nested={"to": ["+971501234567"], "password": "pw"},
        first_name="Jane",
        write_id=str(uuid4()),
        writes=1234567890,
    )
    (event,) = lines(out)
    assert event["event"] == "sent to [email]"
    assert event["key"] == event["api_key"] == event["access_token"] == "***"
    assert event["nested"] == {"to": ["[phone]"], "password": "***"}
    assert event["first_name"] == "[personal]"
    assert len(event["write_id"]) == 36
    assert event["writes"] == 1234567890
    assert event["level"] == "info"
    assert event["logger"] == "t"


@pytest.mark.parametrize("format", ["json", "console"])
def test_traceback_when_logged_then_no_locals_and_no_persons(out: io.StringIO, format: str) -> None:
    configure_logs(format, "debug", out)
    password = "hunter2" + "-in-a-local"
    try:
        raise ValueError(f"no such customer jane@example.com ({len(password)})")
    except ValueError:
        get_logger("t").exception("failed")
    assert "hunter2" not in out.getvalue().replace('password = "hunter2"', "")
    assert "jane@" not in out.getvalue()
    assert "ValueError" in out.getvalue()


def test_standard_library_logger_when_used_then_masked_the_same_way(out: io.StringIO) -> None:
    logging.getLogger("asyncpg").warning("lost %s", "jane@example.com")
    (event,) = lines(out)
    assert event["event"] == "lost [email]"
    assert event["logger"] == "asyncpg"
    assert event["level"] == "warning"


def test_event_when_it_holds_line_breaks_and_escapes_then_one_line(out: io.StringIO) -> None:
    configure_logs("console", "debug", out)
    get_logger("t").info("a\nFAKE error\x1b[31m", provider="b\r\nFAKE")
    assert len(out.getvalue().splitlines()) == 1
    assert "\x1b" not in out.getvalue()


async def test_request_id_when_bound_then_on_every_event_of_its_tasks_only(out: io.StringIO) -> None:
    log = get_logger("t")

    async def work(name: str) -> None:
        with bind_request(name):
            await asyncio.sleep(0)
            log.info("in")

    await asyncio.gather(work("r1"), work("r2"))
    log.info("out")
    assert sorted(str(event.get("request_id")) for event in lines(out) if event["logger"] == "t") == [
        "None",
        "r1",
        "r2",
    ]


def test_request_id_when_hostile_then_masked(out: io.StringIO) -> None:
    with bind_request("jane@example.com"):
        get_logger("t").info("x")
    assert lines(out)[0]["request_id"] == "[email]"


def test_level_when_info_then_debug_is_silent(out: io.StringIO) -> None:
    configure_logs("json", "info", out)
    get_logger("t").debug("x")
    assert out.getvalue() == ""


def test_traceback_when_its_message_repeats_what_somebody_sent_then_withheld(out: io.StringIO) -> None:
    person = " ".join(("Layla", "Haddad"))

    def read(fields: dict[str, str]) -> int:
        return int(fields["last_name"])

    try:
        try:
            read({"last_name": person})
        except ValueError:
            raise KeyError(person) from None
    except KeyError:
        get_logger("t").exception("failed")
    logging.getLogger("asyncpg").error("lost", exc_info=ValueError(person))
    try:
        raise ExceptionGroup(person, [RuntimeError(person)])
    except ExceptionGroup:
        get_logger("t").exception("failed")
    assert person not in out.getvalue()
    first, second, third = (event["exception"] for event in lines(out))
    assert first.endswith("KeyError: message withheld") and "raise KeyError" in first
    assert second.endswith("ValueError: message withheld")
    assert "RuntimeError: message withheld" in third


def test_traceback_when_the_error_is_ours_or_about_our_code_then_its_message_is_told(
    out: io.StringIO,
) -> None:
    from crmbridge.core.errors import NotConfigured

    for error in (NotConfigured("There is no master key."), AttributeError("no attribute 'sned'")):
        try:
            raise ValueError("a person") from error
        except ValueError:
            get_logger("t").exception("failed")
    told = [event["exception"] for event in lines(out)]
    assert "which came of" in told[0] and "There is no master key." in told[0]
    assert "no attribute 'sned'" in told[1]


def test_trace_id_when_a_span_is_current_then_on_every_event(out: io.StringIO) -> None:
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

    context = SpanContext(0xA1, 0xB2, is_remote=False, trace_flags=TraceFlags(1))
    get_logger("t").info("before")
    with use_span(NonRecordingSpan(context)):
        get_logger("t").info("within")
        logging.getLogger("asyncpg").warning("within")
    before, *within = lines(out)
    assert "trace_id" not in before
    assert [(event["trace_id"], event["span_id"]) for event in within] == [
        ("000000000000000000000000000000a1", "00000000000000b2")
    ] * 2
