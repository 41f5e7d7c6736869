"""What Salesforce's refusals mean, by error code rather than by status.

Pages: REST API Developer Guide, "Status Codes and Error Responses"; SOAP API Developer Guide, "Core Data Types"
(StatusCode); read 2026-11-22. Codes stay texts: new ones appear with every release, and an unknown one is judged by
its HTTP status. A row of a batch has ``statusCode`` where a whole answer has ``errorCode``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from crmbridge.core.errors import AuthError, CrmError, FieldError, Fix, RateLimited, Unavailable
from crmbridge.core.operations import Outcome
from crmbridge.core.wire import HttpResponse
from crmbridge.toolkit.failures import StatusRule, error_for_status, tree_or_none
from crmbridge.toolkit.limits import LimitReading

__all__ = ["error_of", "is_governor_limit", "read_usage", "row_error"]

_NOTHING_DONE = StatusRule(error=Unavailable, outcome=Outcome.NOT_APPLIED, retry_safe=True)
_GRANT = Fix(
    "grant_right",
    "Give the connected user the right in Salesforce: profile or permission set, object and field access.",
)
_NO_RIGHT = StatusRule(error=AuthError, subcode="insufficient_scope", fix=_GRANT)
_EXPIRED = StatusRule(error=AuthError, subcode="expired")
_CODES: dict[str, tuple[int, StatusRule | None]] = {
    "INVALID_SESSION_ID": (401, _EXPIRED),
    "INVALID_AUTH_HEADER": (401, _EXPIRED),
    "REQUEST_LIMIT_EXCEEDED": (429, None),
    "DUPLICATES_DETECTED": (409, None),
    "DUPLICATE_VALUE": (409, None),
    "DUPLICATE_EXTERNAL_ID": (409, None),
    "INSUFFICIENT_ACCESS": (403, _NO_RIGHT),
    "INSUFFICIENT_ACCESS_OR_READONLY": (403, _NO_RIGHT),
    "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY": (403, _NO_RIGHT),
    "CANNOT_DELETE_MANAGED_OBJECT": (403, _NO_RIGHT),
    "FEATURENOTENABLED": (403, _NO_RIGHT),
    "FUNCTIONALITY_NOT_ENABLED": (403, _NO_RIGHT),
    "API_DISABLED_FOR_ORG": (403, _NO_RIGHT),
    "API_CURRENTLY_DISABLED": (403, _NO_RIGHT),
    "FORBIDDEN": (403, _NO_RIGHT),
    "NOT_FOUND": (404, None),
    "ENTITY_IS_DELETED": (404, None),
    "UNABLE_TO_LOCK_ROW": (503, _NOTHING_DONE),
    "QUERY_TIMEOUT": (503, _NOTHING_DONE),
}
# In a row these say that this row alone was rolled back; as a whole answer their status decides.
_ROW_CODES = frozenset({"UNKNOWN_EXCEPTION", "INTERNAL_SERVER_ERROR", "SERVER_UNAVAILABLE"})
# 401s that no new token cures (from published client code).
_NOT_RENEWABLE = ("not valid for use with the REST API", "not attached to Agent")
_TEXTS = {
    "Bad_OAuth_Token": (401, _EXPIRED),
    "Missing_OAuth_Token": (401, StatusRule(error=AuthError, subcode="invalid_credentials")),
    "Wrong_Org": (401, StatusRule(error=AuthError, subcode="invalid_credentials")),
}
_DAY_PAUSE, _MOMENT_PAUSE = 900.0, 10.0
_EXISTING = re.compile(r"record with id:? ?([A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?)(?![A-Za-z0-9])")
_COLUMN = re.compile(r"No such column '([A-Za-z][\w.]{0,79})'")
_REQUIRED = re.compile(r"Required fields are missing: \[([^\]]{1,500})\]")
# The value stands there cut short, so that nobody could recognise and hide it.
_CUT_VALUE = re.compile(r"(data value too large: ).*?(?=\(max length=|$)", re.DOTALL)
_FIELD = re.compile(r"[A-Za-z][\w.]{0,79}")
_USAGE = re.compile(r"(?<![\w-])api-usage=(\d{1,12})/(\d{1,12})")
_GOVERNOR = ("LimitException", "Too many SOQL queries", "CPU time limit")
_MOST_PROBLEMS = 50


def read_usage(response: HttpResponse) -> LimitReading:
    """The org's calls of the last 24 hours, from ``Sforce-Limit-Info: api-usage=18/5000``."""
    found = _USAGE.search(response.header("sforce-limit-info")[:400])
    if found is None:
        return LimitReading()
    used, limit = int(found[1]), int(found[2])
    return LimitReading(limit=limit, remaining=max(0, limit - used))


def error_of(
    response: HttpResponse, *, operation: str, is_write: bool, hide: Callable[[str], str]
) -> CrmError | None:
    """The error of an answer that says one; None where only the status speaks (a maintenance page)."""
    if response.status == 300:
        fix = Fix("narrow_match", "Merge the records in Salesforce, or make the external-id field unique.")
        problem = {"errorCode": "DUPLICATE_EXTERNAL_ID", "message": "several records have this external id"}
        error = _made(response, [problem], operation, is_write, hide, 300)
        error.fix = fix
        return error
    problems = _problems(response)
    if not problems:
        text = response.body[:40].decode("ascii", "replace").strip()
        if response.status == 420:  # edge routing failed: nothing reached the org
            return _status(response, 420, _NOTHING_DONE, operation, is_write, hide, "routing failed", "")
        if text in _TEXTS:
            status, rule = _TEXTS[text]
            return _status(response, status, rule, operation, is_write, hide, text, text)
        return None
    return _made(response, problems, operation, is_write, hide, response.status)


def row_error(
    problems: Any, *, operation: str, hide: Callable[[str], str], response: HttpResponse | None = None
) -> CrmError:
    """The error of one refused row of a batch: ``success`` was false, so this row is certainly not applied."""
    listed = (
        [one for one in problems[:_MOST_PROBLEMS] if isinstance(one, dict)]
        if isinstance(problems, list)
        else []
    )
    error = _made(response or HttpResponse(status=200), listed or [{}], operation, True, hide, 200)
    error.outcome = Outcome.NOT_APPLIED
    return error


def is_governor_limit(error: Exception | None) -> bool:
    """Whether a row fell with its whole transaction (Apex limits): fewer rows at a time may pass."""
    if not isinstance(error, CrmError):
        return False
    words = str(error.provider_facts.get("provider_message", ""))
    return any(text in words for text in _GOVERNOR)


def _made(
    response: HttpResponse,
    problems: Sequence[Mapping[str, Any]],
    operation: str,
    is_write: bool,
    hide: Callable[[str], str],
    status: int,
) -> CrmError:
    first = problems[0]
    code, message = _code(first), _said(first, "message")
    rule: StatusRule | None = None
    if code in _CODES:
        status, rule = _CODES[code]
    elif status in (200, 300):
        status, rule = (503, _NOTHING_DONE) if code in _ROW_CODES else (400, None)
    if code == "NOT_FOUND" and "external ID field" in message:
        status = 400
    if status == 401 and any(text in message for text in _NOT_RENEWABLE):
        status, rule = 403, _NO_RIGHT
    error = _status(
        response, status, rule, operation, is_write, hide, message, code, _fields(problems), _existing(first)
    )
    if isinstance(error, RateLimited) and error.retry_after_seconds is None:
        # No Retry-After: the rolling day frees itself by and by, calls in flight within seconds.
        error.retry_after_seconds = _DAY_PAUSE if "TotalRequests" in message else _MOMENT_PAUSE
    usage = read_usage(response)
    if isinstance(error, RateLimited) and usage.limit is not None:
        error.provider_facts["daily_calls"] = {"limit": usage.limit, "remaining": usage.remaining}
    return error


def _status(
    response: HttpResponse,
    status: int,
    rule: StatusRule | None,
    operation: str,
    is_write: bool,
    hide: Callable[[str], str],
    message: str,
    code: str,
    fields: tuple[FieldError, ...] = (),
    existing: str = "",
) -> CrmError:
    return error_for_status(
        HttpResponse(status=status, headers=response.headers),
        provider="salesforce",
        operation=operation,
        is_write=is_write,
        overrides={status: rule} if rule else None,
        message=message,
        provider_code=code,
        fields=fields if status == 400 else (),
        existing_remote_id=existing if status == 409 else "",
        redactor=hide,
    )


def _problems(response: HttpResponse) -> list[Mapping[str, Any]]:
    """The entries of an error body: an array, or the single object of the OAuth and bulk services."""
    if response.status < 400 or len(response.body) > 262_144:
        return []
    tree = tree_or_none(response)
    listed = tree if isinstance(tree, list) else [tree]
    return [one for one in listed[:_MOST_PROBLEMS] if isinstance(one, dict) and _code(one)]


def _code(problem: Mapping[str, Any]) -> str:
    for name in ("errorCode", "statusCode", "exceptionCode"):
        value = problem.get(name)
        if isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{1,79}", value):
            return value
    return ""


def _said(problem: Mapping[str, Any], name: str) -> str:
    value = problem.get(name)
    return _CUT_VALUE.sub(r"\1[value] ", value) if isinstance(value, str) else ""


def _fields(problems: Sequence[Mapping[str, Any]]) -> tuple[FieldError, ...]:
    found: dict[str, FieldError] = {}
    for one in problems:
        message, code = _said(one, "message"), _code(one)
        listed = one.get("fields")
        names = [str(name) for name in listed] if isinstance(listed, list) else []
        names += _COLUMN.findall(message)
        for missing in _REQUIRED.findall(message):
            names += [part.strip() for part in missing.split(",")]
        for name in names:
            if _FIELD.fullmatch(name):
                found.setdefault(name, FieldError(name, message, code))
    return tuple(found.values())[:_MOST_PROBLEMS]


def _existing(problem: Mapping[str, Any]) -> str:
    """The record in the way: of a duplicate rule (the key is misspelt by older versions), or named in prose."""
    for name in ("duplicateResult", "duplicateResut"):
        rule = problem.get(name)
        matches = rule.get("matchResults") if isinstance(rule, dict) else None
        for match in matches if isinstance(matches, list) else ():
            records = match.get("matchRecords") if isinstance(match, dict) else None
            for one in records if isinstance(records, list) else ():
                record = one.get("record") if isinstance(one, dict) else None
                found = record.get("Id") if isinstance(record, dict) else None
                if isinstance(found, str) and re.fullmatch(r"[A-Za-z0-9]{15,18}", found):
                    return found
    prose = _EXISTING.search(_said(problem, "message"))
    return prose[1] if prose else ""
