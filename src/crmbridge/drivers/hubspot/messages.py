"""What HubSpot's refusals mean, by body as well as by status.

Page: https://developers.hubspot.com/docs/api/error-handling (read 2026-11-22), which says that every field of an error
is optional. Codes of values other than PROPERTY_DOESNT_EXIST and INVALID_INTEGER come from published client code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from crmbridge.core.errors import CrmError, FieldError, Fix, RateLimited, Unavailable
from crmbridge.core.operations import Outcome
from crmbridge.core.wire import HttpResponse
from crmbridge.toolkit.failures import StatusRule, error_for_status, tree_or_none

__all__ = ["context_of", "error_of"]

_CONFLICTS = frozenset({"CONFLICTING_UNIQUE_VALUE", "STORAGE_UNIQUE_CONFLICT"})
_STATUSES = {
    "VALIDATION_ERROR": 400,
    "INVALID_AUTHENTICATION": 401,
    "EXPIRED_AUTHENTICATION": 401,
    "MISSING_SCOPES": 403,
    "OBJECT_NOT_FOUND": 404,
    "CONFLICT": 409,
    "RATE_LIMITS": 429,
    "INTERNAL_ERROR": 500,
}
_NOTHING_DONE = StatusRule(error=Unavailable, outcome=Outcome.NOT_APPLIED, retry_safe=True)
_RULES = {
    423: _NOTHING_DONE,  # the account is locked for two seconds after heavy writes
    477: _NOTHING_DONE,  # the account moves to another data centre, for up to a day; Retry-After says how long
}
_EXISTING = re.compile(r"Existing ID:\s*(\d{1,20})|(\d{1,20}) already has that value")
_SCOPES_IN_PROSE = re.compile(r"requires? (?:one|all) of \[([^\]]{1,500})\]")
_MAX_PROBLEMS = 50


def error_of(
    response: HttpResponse,
    *,
    operation: str,
    is_write: bool,
    hide: Callable[[str], str],
    facts: Mapping[str, str],
    problem: Mapping[str, Any] | None = None,
) -> CrmError:
    """The error of an answer, or of one row (``problem``) of a batch answer that went well on the whole."""
    tree = problem if problem is not None else _tree(response)
    category = _said(tree, "category")
    message = _said(tree, "message")
    problems = _problems(tree, message)
    status = _STATUSES.get(category, 400) if problem is not None else response.status
    if status == 400 and any(code in _CONFLICTS for _, _, code in problems):
        status = 409  # a property with unique values: a 400 at HubSpot, other than a contact's e-mail
    error = error_for_status(
        HttpResponse(status=status, headers=response.headers, body=b""),
        provider="hubspot",
        operation=operation,
        is_write=is_write,
        overrides=_RULES,
        message=message.partition(": [")[0],
        provider_code=_said(tree, "policyName") or category,
        fields=tuple(FieldError(name, text, code) for name, text, code in problems if name),
        existing_remote_id=_existing(tree, message) if status == 409 else "",
        redactor=hide,
    )
    correlation = _said(tree, "correlationId")
    if re.fullmatch(r"[A-Za-z0-9-]{1,64}", correlation):
        error.provider_facts["provider_request_id"] = correlation
    _refine(error, status, category, tree, message, response, facts)
    return error


def _refine(
    error: CrmError,
    status: int,
    category: str,
    tree: Mapping[str, Any],
    message: str,
    response: HttpResponse,
    facts: Mapping[str, str],
) -> None:
    if status == 401 and category == "EXPIRED_AUTHENTICATION":
        error.subcode = "expired"
    elif status == 403 and (scopes := _scopes(tree, message)):
        error.provider_facts["missing_scopes"] = scopes
        error.fix = Fix("grant_scopes", f"Connect HubSpot again and grant: {', '.join(scopes)}.")
    elif status == 423 and error.retry_after_seconds is None:
        error.retry_after_seconds = 2.0
    elif isinstance(error, RateLimited) and error.retry_after_seconds is None:
        error.retry_after_seconds = _pause(tree, message, response, facts)


def _pause(
    tree: Mapping[str, Any], message: str, response: HttpResponse, facts: Mapping[str, str]
) -> float | None:
    """HubSpot documents no Retry-After on a 429: the window of the policy that was broken, or midnight over there."""
    policy = f"{_said(tree, 'policyName')} {message}".lower()
    if "daily" in policy:
        try:
            now = datetime.now(ZoneInfo(facts.get("time_zone", "") or "UTC"))
        except (KeyError, ValueError, OSError):
            now = datetime.now(UTC)
        midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        return max((midnight.astimezone(UTC) - now.astimezone(UTC)).total_seconds(), 1.0)
    if "ten_secondly" in policy:
        window = response.header("x-hubspot-ratelimit-interval-milliseconds")
        return int(window) / 1000 if re.fullmatch(r"[1-9]\d{0,6}", window) else 10.0
    return 1.0 if "secondly" in policy else None


def _tree(response: HttpResponse) -> Mapping[str, Any]:
    """The error's object; empty for pages and for everything else (HubSpot has answered HTML with a 404)."""
    tree = tree_or_none(response)
    return tree if isinstance(tree, dict) else {}


def _said(tree: Mapping[str, Any], name: str) -> str:
    value = tree.get(name)
    return value if isinstance(value, str) else ""


def context_of(tree: Mapping[str, Any], name: str) -> list[str]:
    """The texts under one name of an error's ``context``; none for every other shape."""
    context = tree.get("context")
    found = context.get(name) if isinstance(context, dict) else None
    return [str(item) for item in found if isinstance(item, (str, int))] if isinstance(found, list) else []


def _errors(tree: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = tree.get("errors")
    listed: list[Any] = found if isinstance(found, list) else []
    return [one for one in listed[:_MAX_PROBLEMS] if isinstance(one, dict)]


def _problems(tree: Mapping[str, Any], message: str) -> list[tuple[str, str, str]]:
    """(property, text, code) from ``errors``, and from the list that stands inside the message itself."""
    found = []
    for one in [tree, *_errors(tree)]:
        code = _said(one, "code")
        found += [(name, _said(one, "message"), code) for name in context_of(one, "propertyName")]
        if code in _CONFLICTS:
            found.append(("", _said(one, "message"), code))
    start = message.find("[{")
    if start >= 0:
        try:
            listed = msgspec.json.decode(message[start : message.rindex("]") + 1].encode())
        except (msgspec.MsgspecError, ValueError):
            listed = []
        for one in listed[:_MAX_PROBLEMS] if isinstance(listed, list) else []:
            if isinstance(one, dict):
                found.append((_said(one, "name"), _said(one, "message"), _said(one, "error")))
    known: dict[str, tuple[str, str, str]] = {}
    for name, text, code in found:
        known.setdefault(name, (name, text.partition(": [")[0], code))
    return list(known.values())


def _existing(tree: Mapping[str, Any], message: str) -> str:
    """The record that is in the way; HubSpot tells it in prose, or in the context of a batch's row."""
    for name in ("existingId", "existingObjectId"):
        for one in [tree, *_errors(tree)]:
            if ids := [item for item in context_of(one, name) if re.fullmatch(r"\d{1,20}", item)]:
                return ids[0]
    texts = [message, *(_said(one, "message") for one in _errors(tree))]
    for text in texts:
        if matched := _EXISTING.search(text):
            return matched[1] or matched[2]
    return ""


def _scopes(tree: Mapping[str, Any], message: str) -> list[str]:
    named: list[str] = []
    for one in [tree, *_errors(tree)]:
        named += context_of(one, "requiredGranularScopes") + context_of(one, "requiredScopes")
    if not named and (prose := _SCOPES_IN_PROSE.search(message)):
        named = [part.strip() for part in prose[1].split(",")]
    return [scope for scope in dict.fromkeys(named) if re.fullmatch(r"[a-z][a-z0-9._-]{2,80}", scope)][:20]
