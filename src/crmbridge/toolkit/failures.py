"""From HTTP answers and transport failures to the one tree of errors, without guessing an outcome.

The status table follows RFC 9110 section 15 and RFC 6585 (429); ``Retry-After`` follows RFC 9110 section
10.2.3. A driver overrides a status with a :class:`StatusRule` where its provider means something else.

The rule of outcomes for a write: never sent = ``not_applied`` and safe to repeat; sent, and the answer is
missing, a 5xx or unreadable = ``unknown`` and not safe to repeat; a 4xx = ``not_applied``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from crmbridge.core.errors import (
    AuthError,
    Conflict,
    CrmError,
    EgressRefused,
    FieldError,
    Fix,
    NotFound,
    RateLimited,
    Unavailable,
    UnexpectedResponse,
    ValidationError,
)
from crmbridge.core.operations import Outcome
from crmbridge.core.wire import HttpResponse, TransportFailure, TransportFault

__all__ = [
    "StatusRule",
    "error_for_failure",
    "error_for_status",
    "parse_json",
    "provider_words",
    "redact",
    "retry_after_seconds",
    "tree_or_none",
]

MAX_WORDS = 300
MAX_RETRY_AFTER_SECONDS = 86_400.0
_SCANNED = 4_000


class StatusRule(msgspec.Struct, frozen=True, kw_only=True):
    """What one HTTP status means at one provider.

    ``outcome`` and ``retry_safe`` None: by the rule of this module. A 5xx that is known to have done nothing
    is ``StatusRule(error=Unavailable, outcome=Outcome.NOT_APPLIED, retry_safe=True)``.
    """

    error: type[CrmError]
    subcode: str = ""
    outcome: Outcome | None = None
    retry_safe: bool | None = None
    fix: Fix | None = None


_STATUSES: dict[int, tuple[StatusRule, str]] = {
    400: (StatusRule(error=ValidationError), "refused the content"),
    401: (StatusRule(error=AuthError, subcode="invalid_credentials"), "does not accept the credential"),
    403: (StatusRule(error=AuthError, subcode="insufficient_scope"), "denies this call to the credential"),
    404: (StatusRule(error=NotFound), "has no such record"),
    409: (StatusRule(error=Conflict), "reports a conflict with an existing record"),
    410: (StatusRule(error=NotFound), "says that the record is gone"),
    412: (StatusRule(error=Conflict), "reports that the record has changed meanwhile"),
    413: (StatusRule(error=ValidationError), "says that the request is too large"),
    422: (StatusRule(error=ValidationError), "refused the content"),
    429: (StatusRule(error=RateLimited), "asks for fewer calls"),
}
_SERVER_ERROR = (StatusRule(error=Unavailable), "has a server error")
_OTHER = (StatusRule(error=UnexpectedResponse), "answered an unexpected status")

# RFC 9110: the server says that it did not act.
_RETRY_WITHOUT_EFFECT = frozenset({421, 425, 429})

_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-correlation-id", "x-trace-id", "x-amzn-requestid")


def error_for_status(
    response: HttpResponse,
    *,
    provider: str,
    operation: str,
    is_write: bool,
    overrides: Mapping[int, StatusRule] | None = None,
    message: str = "",
    provider_code: str = "",
    fields: tuple[FieldError, ...] = (),
    existing_remote_id: str = "",
    redactor: Callable[[str], str] | None = None,
) -> CrmError:
    """The error that an answer other than success stands for. Never raises.

    ``message`` and ``provider_code`` are the provider's own words where the driver knows better than the
    usual places (:func:`provider_words`); they and the texts of ``fields`` are redacted and capped at 300
    characters here. ``redactor`` is ``auth.redactor(access)``, which also knows the secrets.
    """
    hide = redactor or redact
    status = response.status
    default, phrase = _STATUSES.get(status, _SERVER_ERROR if status >= 500 else _OTHER)
    rule = (overrides or {}).get(status, default)
    words = hide(message or provider_words(response))
    facts: dict[str, Any] = {"http_status": status}
    if words:
        facts["provider_message"] = words
    if provider_code:
        facts["provider_code"] = hide(provider_code)[:80]
    if request_id := _request_id(response):
        facts["provider_request_id"] = request_id
    outcome, retry_safe = _effect(status, is_write)
    return rule.error(
        f"{provider} {phrase} (HTTP {status}){': ' + words if words else '.'}",
        subcode=rule.subcode,
        provider=provider,
        operation=operation,
        outcome=outcome if rule.outcome is None else rule.outcome,
        retry_safe=retry_safe if rule.retry_safe is None else rule.retry_safe,
        retry_after_seconds=retry_after_seconds(response.headers),
        fix=rule.fix,
        fields=tuple(_hidden(field, hide) for field in fields),
        existing_remote_id=existing_remote_id,
        provider_facts=facts,
    )


def error_for_failure(
    failure: TransportFailure, *, provider: str, operation: str, is_write: bool
) -> CrmError:
    """The error that a missing answer stands for. ``failure.was_sent`` decides the outcome of a write."""
    is_unknown = is_write and failure.was_sent
    kind: type[CrmError] = Unavailable
    retry_safe = not is_unknown
    fix: Fix | None = None
    if failure.fault is TransportFault.REFUSED_BY_POLICY:
        kind, retry_safe = EgressRefused, False
    elif failure.fault is TransportFault.TOO_LARGE:
        kind = UnexpectedResponse
        fix = Fix("narrow", "Ask for fewer records or fields at a time.")
    elif failure.fault is TransportFault.NAME_NOT_FOUND:
        fix = Fix("check_address", "Check the host name in the address of the CRM.")
    elif failure.fault is TransportFault.TLS:
        fix = Fix("check_certificate", "Check the certificate of the CRM's server and its name.")
    return kind(
        f"{provider}: {redact(failure.message)}",
        provider=provider,
        operation=operation,
        outcome=Outcome.UNKNOWN if is_unknown else Outcome.NOT_APPLIED,
        retry_safe=retry_safe,
        fix=fix,
        provider_facts={"fault": failure.fault.value, "was_sent": failure.was_sent},
    )


def parse_json(
    response: HttpResponse,
    *,
    provider: str,
    operation: str,
    is_write: bool = False,
    expect: type | tuple[type, ...] | None = None,
) -> Any:
    """The tree of a successful answer. ``expect`` is ``dict``, ``list`` or both.

    Raises UnexpectedResponse for HTML, an empty body, broken or too deep JSON, and a wrong outermost type;
    for a write the outcome is then unknown.
    """
    try:
        tree = response.json()
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError):
        problem = "broken JSON"
        start = response.body[:512].lstrip().lower()
        if not response.body.strip():
            problem = "an empty body"
        elif start.startswith(b"<") or "html" in response.header("content-type").lower():
            problem = "a web page or XML instead of JSON"
    else:
        if expect is None or isinstance(tree, expect):
            return tree
        problem = f"JSON of another shape ({_shape(tree)})"
    facts: dict[str, Any] = {
        "http_status": response.status,
        "content_type": redact(response.header("content-type"))[:80],
        "bytes": len(response.body),
    }
    if request_id := _request_id(response):
        facts["provider_request_id"] = request_id
    raise UnexpectedResponse(
        f"{provider} answered {problem} (HTTP {response.status}).",
        provider=provider,
        operation=operation,
        outcome=Outcome.UNKNOWN if is_write else Outcome.NOT_APPLIED,
        retry_safe=not is_write,
        provider_facts=facts,
    )


def tree_or_none(response: HttpResponse) -> Any:
    """The JSON tree of an answer that may be a refusal; None for an empty body, HTML or garbage."""
    try:
        return response.json() if response.body else None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def retry_after_seconds(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """``Retry-After`` as seconds from ``now`` (Unix time), 0 to one day; None when absent or unreadable.

    Header names are expected in lower case.
    """
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text, re.ASCII):
        seconds = float(text)
    else:
        try:
            from email.utils import parsedate_to_datetime  # rarely needed, and long to load

            when = parsedate_to_datetime(text).timestamp()
        except (TypeError, ValueError, OverflowError, IndexError):
            return None
        seconds = when - (time.time() if now is None else now)
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def provider_words(response: HttpResponse) -> str:
    """The provider's message from the usual places of a JSON error body, unredacted; empty when none.

    Looks for ``message``, ``error_description``, ``detail``, ``title``, ``error`` and ``errors[0]`` (RFC
    9457, RFC 6749 section 5.2 and common practice). Only small bodies are read.
    """
    if not response.body or len(response.body) > 262_144:
        return ""
    return _words(tree_or_none(response), depth=3)


def _words(tree: Any, depth: int) -> str:
    if isinstance(tree, str):
        return tree[:_SCANNED]
    if depth and isinstance(tree, list):
        return _words(tree[0], depth - 1) if tree else ""
    if depth and isinstance(tree, dict):
        for name in ("message", "error_description", "detail", "title", "error", "errors"):
            if found := _words(tree.get(name), depth - 1):
                return found
    return ""


_EMAIL = re.compile(r"[^\s@<>\"'(),;:]{1,64}@[^\s@<>\"'(),;:]{1,255}")
_TOKEN_PREFIXED = re.compile(
    r"(?i)\b((?:bearer|basic)\s{1,4}|(?:token|api[-_ ]?key|password|secret)[\"']?\s{0,4}[:=]\s{0,4}[\"']?)"
    r"[^\s\"',;]{4,}"
)
_LONG_TOKEN = re.compile(r"(?<![A-Za-z0-9_+/=.-])(?=[A-Za-z0-9_+/=.-]*\d)[A-Za-z0-9_+/=.-]{24,}")
_PHONE = re.compile(r"(?<![\w.])[+(]?\d(?:[\s().\-/]{0,2}\d){6,18}(?!\w)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """One line of at most 300 characters without e-mail addresses, phone-like digit runs, tokens or secrets.

    ``secrets`` are texts to hide wherever they stand (those of fewer than four characters are left, they
    would hide ordinary words).
    """
    text = text[:_SCANNED]
    for secret in sorted((item for item in secrets if len(item) >= 4), key=len, reverse=True):
        text = text.replace(secret, "[secret]")
    text = _CONTROL.sub(" ", text)
    text = _EMAIL.sub("[email]", text)
    text = _TOKEN_PREFIXED.sub(r"\1[secret]", text)
    text = _LONG_TOKEN.sub("[token]", text)
    text = _PHONE.sub("[number]", text).strip()
    return text if len(text) <= MAX_WORDS else text[: MAX_WORDS - 1] + "…"


def _effect(status: int, is_write: bool) -> tuple[Outcome, bool]:
    """What is known of the effect, and whether the same call may be sent again."""
    if not is_write:
        return Outcome.NOT_APPLIED, status >= 500 or status in _RETRY_WITHOUT_EFFECT or status == 408
    if status in _RETRY_WITHOUT_EFFECT:
        return Outcome.NOT_APPLIED, True
    if 400 <= status < 500 and status != 408:
        return Outcome.NOT_APPLIED, False
    return Outcome.UNKNOWN, False


def _hidden(field: FieldError, hide: Callable[[str], str]) -> FieldError:
    return FieldError(field.field[:200], hide(field.message), hide(field.provider_code)[:80])


def _request_id(response: HttpResponse) -> str:
    """The provider's id of this call: letters, digits and dashes only, so that it cannot carry a person."""
    for name in _REQUEST_ID_HEADERS:
        value = response.header(name)
        if value and re.fullmatch(r"[A-Za-z0-9._:/+=-]{1,128}", value):
            return value
    return ""


def _shape(tree: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(tree), "a number")
