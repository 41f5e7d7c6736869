"""What Toast's refusals mean.

Sources: ErrorMessage and the statuses of the published specifications, the developer guide on errors and rate limits.
The status in the body may be a text, its codes are in no catalogue, ``errors`` nests the same shape, and ``fieldName``
is said to be unused.
"""

from __future__ import annotations

import re
from typing import Any

from crmbridge.core.errors import AuthError, CrmError, FieldError, Fix, Unavailable, ValidationError
from crmbridge.core.operations import Outcome
from crmbridge.core.wire import HttpResponse
from crmbridge.toolkit import failures, limits

__all__ = ["CONNECT", "error_of"]

CONNECT = Fix(
    "grant_access",
    "Let the restaurant connect your partner client in Toast Web, and ask Toast for the scopes; "
    "Standard API access can only read.",
)
_STATUSES = {
    403: failures.StatusRule(error=AuthError, subcode="insufficient_scope", fix=CONNECT),
    415: failures.StatusRule(error=ValidationError),
}
# "Client closed the request": whether a write was done is not told.
_CLOSED = {
    True: failures.StatusRule(error=Unavailable, outcome=Outcome.UNKNOWN, retry_safe=False),
    False: failures.StatusRule(error=Unavailable, outcome=Outcome.NOT_APPLIED, retry_safe=True),
}
_GUID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"


def error_of(response: HttpResponse, *, provider: str, operation: str, is_write: bool) -> CrmError | None:
    """The error of an answer; None for a success."""
    if 200 <= response.status < 300:
        return None
    said = _said(response)
    nested = [one for one in said.get("errors") or () if isinstance(one, dict)][:5]
    words = [str(one["message"]) for one in (said, *nested) if isinstance(one.get("message"), str)]
    error = failures.error_for_status(
        response,
        provider=provider,
        operation=operation,
        is_write=is_write,
        overrides=_STATUSES | {499: _CLOSED[is_write]},
        message="; ".join(dict.fromkeys(words)),
        provider_code=str(said.get("code") or ""),
        fields=tuple(
            FieldError(re.sub(r"[^\w.]", "", one["fieldName"])[:80], str(one.get("message") or "is refused"))
            for one in (said, *nested)
            if isinstance(one.get("fieldName"), str) and one["fieldName"]
        ),
    )
    if re.fullmatch(_GUID, str(said.get("requestId"))):
        error.provider_facts["provider_request_id"] = said["requestId"]
    if response.status == 429 and error.retry_after_seconds is None:
        told = limits.read_limits(response.headers, prefix="x-toast-ratelimit")
        error.retry_after_seconds = told.reset_seconds or None
    return error


def _said(response: HttpResponse) -> dict[str, Any]:
    tree = failures.tree_or_none(response)
    return tree if isinstance(tree, dict) and isinstance(tree.get("errors") or [], list) else {}
