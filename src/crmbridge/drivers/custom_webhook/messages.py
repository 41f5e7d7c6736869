"""What a receiver's answers mean: a plain 2xx is an acknowledgement, a web page is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from crmbridge.core.errors import AuthError, CrmError, FieldError, Fix, NotConfigured
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.wire import HttpResponse
from crmbridge.toolkit.failures import StatusRule, error_for_status, parse_json, tree_or_none

__all__ = ["answer_of", "error_of"]

# What a status means when it comes from a receiver rather than from a CRM.
_MOVED = StatusRule(
    error=NotConfigured,
    outcome=Outcome.NOT_APPLIED,
    retry_safe=True,
    fix=Fix("correct_url", "The receiver redirects, which is not followed: enter its final address."),
)
_WRONG_PLACE = StatusRule(
    error=NotConfigured,
    fix=Fix("correct_url", "Nothing takes webhooks at this address: check the receiver's URL."),
)
_REFUSED = StatusRule(
    error=AuthError,
    subcode="invalid_credentials",
    fix=Fix("share_secret", "Give the receiver the current signing secret, or set previous_secret."),
)
_STATUSES = {
    **dict.fromkeys((300, 301, 302, 303, 304, 305, 307, 308), _MOVED),
    401: _REFUSED,
    403: _REFUSED,
    405: _WRONG_PLACE,
    410: StatusRule(
        error=NotConfigured,
        subcode="endpoint_gone",
        fix=Fix("correct_url", "The receiver says it is gone for good (410): enter a new address."),
    ),
}
_ON_NEW = {**_STATUSES, 404: _WRONG_PLACE}  # with a remote id, 404 means the record


def error_of(
    response: HttpResponse,
    *,
    provider: str,
    operation: str,
    is_write: bool,
    obj: str,
    names_record: bool,
    id_text: Callable[[Any], str],
    redactor: Callable[[str], str],
) -> CrmError:
    """The receiver's no. Its JSON may hold ``message``, ``errors`` (slot → text) and ``remote_id``.

    Sending again is safe whatever became of it: the webhook-id tells of a repeat.
    """
    tree = tree_or_none(response)
    tree = tree if isinstance(tree, dict) else {}
    errors = tree.get("errors")
    pairs = list(errors.items())[:50] if isinstance(errors, dict) else []
    error = error_for_status(
        response,
        provider=provider,
        operation=operation,
        is_write=is_write,
        overrides=_STATUSES if names_record else _ON_NEW,
        fields=tuple(FieldError(f"{obj}.{slot}", str(text)) for slot, text in pairs),
        existing_remote_id=id_text(tree.get("remote_id")) if response.status == 409 else "",
        redactor=redactor,
    )
    error.retry_safe = error.retry_safe or error.outcome is Outcome.UNKNOWN
    return error


def answer_of(response: HttpResponse, provider: str, operation: Operation) -> dict[str, Any]:
    """The JSON object of a 2xx; empty for an empty body or a plain text such as ``ok``.

    A web page is no acknowledgement: a login or parking page answers 200 to anything.
    """
    start = response.body[:200].lstrip().lower()
    is_page = start.startswith(b"<") or "html" in response.header("content-type").lower()
    if not start or not (is_page or response.is_json or start.startswith((b"{", b"["))):
        return {}
    try:
        tree = parse_json(response, provider=provider, operation=operation.value, is_write=True)
    except CrmError as error:
        error.retry_safe = True
        error.fix = Fix("answer_json", "Let the receiver answer 2xx with JSON or an empty body, no web page.")
        raise
    return tree if isinstance(tree, dict) else {}
