"""What Zoho's refusals mean, by their code rather than by their status.

Pages: https://www.zoho.com/crm/developer/docs/api/v8/status-codes.html (read 2026-11-25). One envelope, ``code``,
``details``, ``message``, ``status``, stands alone, or once per record in ``data``. Statuses differ between versions
(400, 202, 207, even 200 for a batch with a bad row), so an unknown code alone is judged by its status.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from crmbridge.core.errors import (
    AuthError,
    Conflict,
    CrmError,
    FieldError,
    Fix,
    NotFound,
    RateLimited,
    Unavailable,
    UnexpectedResponse,
)
from crmbridge.core.operations import Outcome
from crmbridge.core.wire import HttpResponse
from crmbridge.toolkit.failures import StatusRule, error_for_status, tree_or_none
from crmbridge.toolkit.limits import LimitReading

__all__ = ["ROW_STATUSES", "SCOPES", "error_of", "read_credits", "row_error"]

ROW_STATUSES = (400, 403, 404, 409, 412)
"""Statuses of whole answers that hold a row per record; anything else with these is an error as usual."""

SCOPES = {
    "search": "ZohoCRM.coql.READ",
    "list": "ZohoCRM.coql.READ",
    "lookup": "ZohoCRM.coql.READ",
    "describe": "ZohoCRM.settings.fields.READ",
    "prepare": "ZohoCRM.settings.fields.CREATE",
    "erase": "ZohoCRM.settings.recycle_bin.DELETE",
    "test": "ZohoCRM.org.READ",
}
"""The scope that an operation needs beside ``ZohoCRM.modules.ALL``: Zoho does not name the one that is missing."""

_GRANT = Fix("grant_right", "Give the connected user the right in Zoho CRM: profile, role, field permission.")
_EDITION = Fix("check_edition", "Check whether the organisation's edition of Zoho CRM has this feature.")
_NO_RIGHT = StatusRule(error=AuthError, subcode="insufficient_scope", fix=_GRANT)
_NO_FEATURE = StatusRule(error=AuthError, subcode="insufficient_scope", fix=_EDITION)
_EXPIRED = StatusRule(error=AuthError, subcode="expired")
_CODES: dict[str, tuple[int, StatusRule | None]] = {
    "INVALID_TOKEN": (401, _EXPIRED),
    "INVALID_OAUTHTOKEN": (401, _EXPIRED),
    "AUTHENTICATION_FAILURE": (401, _EXPIRED),
    "OAUTH_SCOPE_MISMATCH": (403, StatusRule(error=AuthError, subcode="insufficient_scope")),
    "NO_PERMISSION": (403, _NO_RIGHT),
    "AUTHORIZATION_FAILED": (403, _NO_RIGHT),
    "API_NOT_SUPPORTED": (403, _NO_FEATURE),
    "FEATURE_NOT_ENABLED": (403, _NO_FEATURE),
    # A wrong address is no missing record: a delete must not take it for one.
    "INVALID_URL_PATTERN": (404, StatusRule(error=UnexpectedResponse, outcome=Outcome.NOT_APPLIED)),
    "TOO_MANY_REQUESTS": (429, None),
    "DUPLICATE_DATA": (409, None),
    "AMBIGUITY_DURING_PROCESSING": (409, None),
    "ALREADY_MODIFIED": (412, None),
    "RECORD_MODIFIED": (412, None),
    "DEPENDENT_SERVICE_ERROR": (503, StatusRule(error=Unavailable)),
    "INTERNAL_ERROR": (500, None),
    "INTERNAL_SERVER_ERROR": (500, None),
    "BAD_GATEWAY": (502, None),
    "SERVICE_UNAVAILABLE": (503, None),
    "INVALID_DATA": (400, None),
    "MANDATORY_NOT_FOUND": (400, None),
}
_DAY_PAUSE, _MOMENT_PAUSE = 900.0, 10.0
_CODE = re.compile(r"[A-Z][A-Z0-9_]{1,79}")
_NAME = re.compile(r"[A-Za-z$][\w.$\[\]]{0,119}", re.ASCII)
_ID = re.compile(r"[0-9]{1,20}", re.ASCII)
_NO_SUCH_ID = "the id given seems to be invalid"
_ARRAYS = ("data", "fields", "layouts", "modules", "org", "users", "recycle_bin")


def read_credits(response: HttpResponse) -> LimitReading:
    """Credits left of the rolling 24 hours; Zoho tells them once half of them are used."""
    text = response.header("x-api-credits-remaining").strip()
    if re.fullmatch(r"\d{1,12}", text, re.ASCII):
        return LimitReading(remaining=int(text))
    return LimitReading()


def error_of(
    response: HttpResponse, *, operation: str, is_write: bool, hide: Callable[[str], str]
) -> CrmError | None:
    """The error that a whole answer is: every status from 400 on, unless it has rows; a 2xx that says so."""
    if response.status < 400 and not response.body.lstrip()[:200].startswith(
        (b'{"code"', b'{"status":"error"')
    ):
        return None
    tree = _tree(response)
    rows = tree.get("data")
    if response.status in ROW_STATUSES and isinstance(rows, list) and rows and all(map(_is_envelope, rows)):
        return None
    problem = tree
    if not _is_envelope(problem):
        rows = next((tree[name] for name in _ARRAYS if isinstance(tree.get(name), list)), [])
        problem = next((one for one in rows if _is_envelope(one)), {})
    if response.status < 400 and problem.get("status") != "error":
        return None
    return _made(response, problem, operation, is_write, hide, max(response.status, 400))


def row_error(
    problem: Mapping[str, Any], *, operation: str, hide: Callable[[str], str], known_id: str = ""
) -> CrmError:
    """The error of one refused row. Refused rows changed nothing, but for Zoho's own failures.

    ``known_id`` is the id that the row was for: a refusal of that id is a NotFound.
    """
    error = _made(HttpResponse(status=400), problem, operation, True, hide, 400)
    if known_id and _is_of_id(problem):
        return NotFound(
            "The record is not there, or deleted already.",
            provider="zoho",
            operation=operation,
            provider_facts=error.provider_facts,
        )
    return error


def _made(
    response: HttpResponse,
    problem: Mapping[str, Any],
    operation: str,
    is_write: bool,
    hide: Callable[[str], str],
    status: int,
) -> CrmError:
    code, details = _code(problem), problem.get("details")
    details = details if isinstance(details, dict) else {}
    status, rule = _CODES.get(code, (status, None))
    if code == "INVALID_DATA" and "resource_path_index" in details and _says_no_such_id(problem):
        status = 404
    said = problem.get("message")
    error = error_for_status(
        HttpResponse(status=status, headers=response.headers, body=b"" if problem else response.body),
        provider="zoho",
        operation=operation,
        is_write=is_write,
        overrides={status: rule} if rule else None,
        message=said if isinstance(said, str) else "",
        provider_code=code,
        fields=_fields(problem, details, code) if status in (400, 409) else (),
        existing_remote_id=_existing(details) if status == 409 else "",
        redactor=hide,
    )
    error.provider_facts["http_status"] = response.status
    if isinstance(error, Conflict):
        _name_module(error, details)
    if code == "OAUTH_SCOPE_MISMATCH":
        scope = SCOPES.get(operation, "ZohoCRM.modules.ALL")
        error.fix = Fix("reconnect", f"Connect Zoho CRM again and consent to the scope {scope}.")
        error.provider_facts["scope"] = scope
    if code == "NO_PERMISSION" and isinstance(named := details.get("permissions"), list):
        words = [str(one) for one in named[:5] if re.fullmatch(r"[\w ]{1,80}", str(one))]
        error.provider_facts["permissions"] = ", ".join(words)
    if isinstance(error, RateLimited):
        left = read_credits(response)
        if left.remaining is not None:
            error.provider_facts["credits_remaining"] = left.remaining
        if error.retry_after_seconds is None:
            # Zoho sends no Retry-After: credits come back over a day, calls in flight end within seconds.
            error.retry_after_seconds = _DAY_PAUSE if left.is_exhausted else _MOMENT_PAUSE
    if status >= 500 and is_write and error.outcome is not Outcome.UNKNOWN:
        error.outcome, error.retry_safe = Outcome.UNKNOWN, False
    return error


def _tree(response: HttpResponse) -> dict[str, Any]:
    if not response.body or len(response.body) > 1_048_576:
        return {}
    tree = tree_or_none(response)
    return tree if isinstance(tree, dict) else {}


def _is_envelope(one: Any) -> bool:
    return isinstance(one, dict) and bool(_code(one))


def _code(problem: Mapping[str, Any]) -> str:
    value = problem.get("code")
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""


def _says_no_such_id(problem: Mapping[str, Any]) -> bool:
    return _NO_SUCH_ID in str(problem.get("message", "")).lower()


def _is_of_id(problem: Mapping[str, Any]) -> bool:
    """Whether a row is refused because of its own id, not of a lookup's."""
    details = problem.get("details")
    name = details.get("api_name") if isinstance(details, dict) else None
    return _code(problem) == "INVALID_DATA" and (name == "id" or (name is None and _says_no_such_id(problem)))


def _fields(problem: Mapping[str, Any], details: Mapping[str, Any], code: str) -> tuple[FieldError, ...]:
    """The field that an error names, with the limit it breaks."""
    name = details.get("api_name") or details.get("param_name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return ()
    said = problem.get("message")
    words = [said if isinstance(said, str) and said else "is refused"]
    if isinstance(kind := details.get("expected_data_type"), str) and re.fullmatch(r"[\w ]{1,40}", kind):
        words.append(f"expected is {kind}")
    if isinstance(most := details.get("maximum_length"), int) and not isinstance(most, bool):
        words.append(f"at most {most} characters")
    return (FieldError(name, "; ".join(words), code),)


def _existing(details: Mapping[str, Any]) -> str:
    """The record in the way: ``duplicate_record`` since v4, ``id`` before."""
    record = details.get("duplicate_record")
    found = record.get("id") if isinstance(record, dict) else details.get("id")
    return found if isinstance(found, str) and _ID.fullmatch(found) else ""


def _name_module(error: Conflict, details: Mapping[str, Any]) -> None:
    record = details.get("duplicate_record")
    module = record.get("module") if isinstance(record, dict) else None
    name = module.get("api_name") if isinstance(module, dict) else None
    if isinstance(name, str) and _NAME.fullmatch(name):
        error.provider_facts["existing_module"] = name
