"""Status table, outcomes, Retry-After, redaction, JSON reading."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.core.errors import (
    AuthError,
    Conflict,
    CrmError,
    EgressRefused,
    FieldError,
    NotFound,
    RateLimited,
    Unavailable,
    UnexpectedResponse,
    ValidationError,
)
from crmbridge.core.operations import Outcome
from crmbridge.core.wire import HttpResponse, TransportFailure, TransportFault
from crmbridge.toolkit.failures import (
    StatusRule,
    error_for_failure,
    error_for_status,
    parse_json,
    provider_words,
    redact,
    retry_after_seconds,
)


def _error(status: int, *, is_write: bool = True, **more: object) -> CrmError:
    response = HttpResponse.of_json(status, {"message": "no"}, {"X-Request-Id": "r-1"})
    return error_for_status(response, provider="acme", operation="create", is_write=is_write, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "kind", "full_code", "outcome", "retry_safe"),
    [
        (400, ValidationError, "validation_error", Outcome.NOT_APPLIED, False),
        (401, AuthError, "auth_error/invalid_credentials", Outcome.NOT_APPLIED, False),
        (403, AuthError, "auth_error/insufficient_scope", Outcome.NOT_APPLIED, False),
        (404, NotFound, "not_found", Outcome.NOT_APPLIED, False),
        (408, UnexpectedResponse, "unexpected_response", Outcome.UNKNOWN, False),
        (409, Conflict, "conflict", Outcome.NOT_APPLIED, False),
        (410, NotFound, "not_found", Outcome.NOT_APPLIED, False),
        (418, UnexpectedResponse, "unexpected_response", Outcome.NOT_APPLIED, False),
        (422, ValidationError, "validation_error", Outcome.NOT_APPLIED, False),
        (429, RateLimited, "rate_limited", Outcome.NOT_APPLIED, True),
        (500, Unavailable, "unavailable", Outcome.UNKNOWN, False),
        (503, Unavailable, "unavailable", Outcome.UNKNOWN, False),
        (302, UnexpectedResponse, "unexpected_response", Outcome.UNKNOWN, False),
    ],
)
def test_error_for_status_when_write_then_code_outcome_and_retry(
    status: int, kind: type[CrmError], full_code: str, outcome: Outcome, retry_safe: bool
) -> None:
    error = _error(status)
    assert type(error) is kind
    assert (error.full_code, error.outcome, error.retry_safe) == (full_code, outcome, retry_safe)
    assert (error.provider, error.operation) == ("acme", "create")
    assert error.provider_facts == {
        "http_status": status,
        "provider_message": "no",
        "provider_request_id": "r-1",
    }


@pytest.mark.parametrize(("status", "retry_safe"), [(500, True), (503, True), (408, True), (404, False)])
def test_error_for_status_when_read_then_nothing_was_applied(status: int, retry_safe: bool) -> None:
    error = _error(status, is_write=False)
    assert (error.outcome, error.retry_safe) == (Outcome.NOT_APPLIED, retry_safe)


def test_error_for_status_when_driver_overrides_then_its_rule_holds() -> None:
    rules = {
        503: StatusRule(error=Unavailable, outcome=Outcome.NOT_APPLIED, retry_safe=True),
        403: StatusRule(error=RateLimited),
    }
    busy = _error(503, overrides=rules)
    assert (busy.outcome, busy.retry_safe) == (Outcome.NOT_APPLIED, True)
    assert type(_error(403, overrides=rules)) is RateLimited
    assert _error(500, overrides=rules).outcome is Outcome.UNKNOWN


def test_error_for_status_when_provider_quotes_a_person_then_redacted_everywhere() -> None:
    response = HttpResponse.of_json(
        422, {"message": "jane@example.com (+971 50 123 4567) exists" + "x " * 500}
    )
    error = error_for_status(
        response,
        provider="acme",
        operation="create",
        is_write=True,
        fields=(FieldError("lead.email", "jane@example.com is taken", "DUP"),),
        provider_code="jane@example.com",
    )
    shown = str(error.to_dict())
    assert "jane" not in shown and "4567" not in shown
    assert len(error.provider_facts["provider_message"]) <= 300
    assert error.fields[0] == FieldError("lead.email", "[email] is taken", "DUP")


def test_error_for_status_when_request_id_holds_odd_signs_then_left_out() -> None:
    response = HttpResponse.of_json(500, {}, {"X-Request-Id": "jane@example.com"})
    error = error_for_status(response, provider="acme", operation="get", is_write=False)
    assert "provider_request_id" not in error.provider_facts


@pytest.mark.parametrize(
    ("fault", "was_sent", "kind"),
    [
        (TransportFault.REFUSED_BY_POLICY, False, EgressRefused),
        (TransportFault.NAME_NOT_FOUND, False, Unavailable),
        (TransportFault.CONNECT_FAILED, False, Unavailable),
        (TransportFault.TLS, False, Unavailable),
        (TransportFault.CUT, True, Unavailable),
        (TransportFault.TIMEOUT, True, Unavailable),
        (TransportFault.TOO_LARGE, True, UnexpectedResponse),
    ],
)
@pytest.mark.parametrize("is_write", [True, False])
def test_error_for_failure_when_any_fault_then_outcome_is_never_guessed(
    fault: TransportFault, was_sent: bool, kind: type[CrmError], is_write: bool
) -> None:
    failure = TransportFailure(fault, "crm.example.com: gone.", was_sent=was_sent)
    error = error_for_failure(failure, provider="acme", operation="create", is_write=is_write)
    assert type(error) is kind
    unknown = is_write and was_sent
    assert error.outcome is (Outcome.UNKNOWN if unknown else Outcome.NOT_APPLIED)
    assert error.retry_safe is (not unknown and fault is not TransportFault.REFUSED_BY_POLICY)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("1.5", 1.5),
        ("999999999", 86_400.0),
        ("Sun, 22 Nov 2026 10:00:30 GMT", 30.0),
        ("Sun, 22 Nov 2026 09:59:30 GMT", 0.0),
        ("", None),
        ("-5", None),
        ("soon", None),
        ("٣", None),
        ("1e9", None),
        ("Sun, 99 Foo 2026 99:99:99 GMT", None),
    ],
)
def test_retry_after_when_seconds_or_date_then_seconds_from_now(text: str, seconds: float | None) -> None:
    assert retry_after_seconds({"retry-after": text}, now=1795341600.0) == seconds


@given(st.text(max_size=60))
def test_retry_after_when_any_text_then_none_or_within_a_day(text: str) -> None:
    seconds = retry_after_seconds({"retry-after": text})
    assert seconds is None or 0 <= seconds <= 86_400


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (b"<html><body>Sign in</body></html>", "text/html", "a web page or XML"),
        (b"  \n", "application/json", "an empty body"),
        (b"", "application/json", "an empty body"),
        (b'{"a":', "application/json", "broken JSON"),
        (b"\xff\xfe", "application/json", "broken JSON"),
        (b"[" * 200_000, "application/json", "broken JSON"),
        (b"[1]", "application/json", "another shape (a list)"),
        (b'"x"', "application/json", "another shape (a text)"),
        (b"null", "application/json", "another shape (null)"),
        (b"1", "application/json", "another shape (a number)"),
    ],
)
def test_parse_json_when_not_what_was_asked_then_unexpected_response(
    body: bytes, content_type: str, words: str
) -> None:
    response = HttpResponse(status=200, headers={"content-type": content_type}, body=body)
    for is_write in (True, False):
        with pytest.raises(UnexpectedResponse) as caught:
            parse_json(response, provider="acme", operation="get", is_write=is_write, expect=dict)
        assert words in caught.value.message
        assert caught.value.outcome is (Outcome.UNKNOWN if is_write else Outcome.NOT_APPLIED)
        assert caught.value.retry_safe is not is_write


def test_parse_json_when_json_is_labelled_as_text_then_read() -> None:
    response = HttpResponse(status=200, headers={"content-type": "text/plain"}, body=b'{"a": 1}')
    assert parse_json(response, provider="acme", operation="get", expect=dict) == {"a": 1}


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"message": "m"}, "m"),
        ({"error": {"message": "m"}}, "m"),
        ({"error": "invalid_grant", "error_description": "d"}, "d"),
        ({"errors": [{"detail": "d"}]}, "d"),
        ([{"message": "m", "errorCode": "X"}], "m"),
        ({"title": "t", "detail": "d"}, "d"),
        ({"ok": False}, ""),
        ([], ""),
        (7, ""),
    ],
)
def test_provider_words_when_usual_shapes_then_the_message(tree: object, words: str) -> None:
    assert provider_words(HttpResponse.of_json(400, tree)) == words


@pytest.mark.parametrize(
    ("text", "gone", "kept"),
    [
        ("Contact jane.doe+x@mail.example.com exists", "jane", "exists"),
        ("call +971 50 123 4567 now", "4567", "now"),
        ("call (04) 123-4567 now", "4567", "now"),
        ("call 0501234567 now", "0501234567", "now"),
        ("Authorization: Bearer abcdef123 was refused", "abcdef123", "refused"),
        ("api_key=hushhush is wrong", "hushhush", "wrong"),
        ('{"password": "hush1"}', "hush1", "password"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0.c2lnbmF0dXJl expired", "eyJ", "expired"),
        ("my-secret-value failed", "my-secret-value", "failed"),
        ("line one\r\nline two", "\n", "line two"),
    ],
)
def test_redact_when_personal_or_secret_then_hidden(text: str, gone: str, kept: str) -> None:
    shown = redact(text, ["my-secret-value"])
    assert gone not in shown
    assert kept in shown


@pytest.mark.parametrize(
    "text", ["password must be longer", "Property budget_aed does not exist", "HTTP 422 in 2026"]
)
def test_redact_when_harmless_then_unaltered(text: str) -> None:
    assert redact(text) == text


@given(st.text(max_size=5_000), st.lists(st.text(max_size=30), max_size=3))
def test_redact_when_any_text_then_one_short_line_without_the_secrets(text: str, secrets: list[str]) -> None:
    shown = redact(text, secrets)
    assert len(shown) <= 300
    assert not re.search(r"[\x00-\x1f\x7f]", shown)


def test_redact_when_text_is_hostile_then_fast() -> None:
    import time

    for piece in ("a@", "+1 ", "1-", "bearer ", "a1", "password=", "((((1", "1.."):
        started = time.process_time()
        redact(piece * 100_000)
        assert time.process_time() - started < 5
