"""From what delivery knows of a write to the HTTP answer: accepted, done, or refused."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from litestar import Response

from crmbridge.core.errors import FieldError, ValidationError
from crmbridge.core.operations import Operation
from crmbridge.services.delivery.model import Accepted, TargetState

__all__ = ["answer_accepted", "idempotency_key_of", "seconds_to_wait"]

MOST_SECONDS = 30.0
_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,4})(?:$|[,;\s])")
_STATUS_OF_CODE = {
    "auth_error": 502,
    "rate_limited": 429,
    "validation_error": 422,
    "not_found": 404,
    "conflict": 409,
    "unsupported": 422,
    "not_configured": 409,
    "gate_closed": 403,
    "egress_refused": 422,
}


def seconds_to_wait(prefer: str) -> float:
    """``Prefer: wait=2`` (RFC 7240) as seconds, at most 30; 0 without it or with ``respond-async``."""
    found = _WAIT.search(prefer)
    if found is None or "respond-async" in prefer:
        return 0.0
    return min(float(found.group(1)), MOST_SECONDS)


def idempotency_key_of(header: str, in_body: str) -> str:
    """The key from the header or the body. Raises ValidationError when both are given and differ."""
    if header and in_body and header != in_body:
        problem = FieldError("idempotency_key", "differs from the Idempotency-Key header; send one of them")
        raise ValidationError("Two idempotency keys in one request.", fields=(problem,))
    return header or in_body


def answer_accepted(accepted: Accepted, operation: Operation, waited: bool, request_id: str) -> Response[Any]:
    """202 while it is under way; 201/200 once applied; the error's own status when the CRM refused it."""
    body: dict[str, Any] = msgspec.to_builtins(accepted)
    headers = {"Preference-Applied": "wait"} if waited else {}
    states = {target.state for target in accepted.targets}
    if waited and states == {TargetState.APPLIED}:
        is_new = operation in (Operation.CREATE, Operation.UPSERT)
        return Response(body, status_code=201 if is_new else 200, headers=headers)
    if waited and TargetState.DEAD_LETTER in states:
        error = next(t.error for t in accepted.targets if t.state is TargetState.DEAD_LETTER) or {}
        status = _STATUS_OF_CODE.get(str(error.get("code")), 502)
        refused = {
            "type": f"urn:crmbridge:error:{error.get('code', 'unavailable')}",
            "title": str(error.get("code", "unavailable")).replace("_", " "),
            "status": status,
            "detail": error.get("message", "The CRM refused the write."),
            **error,
            "request_id": request_id,
            **body,
        }
        return Response(refused, status_code=status, headers=headers, media_type="application/problem+json")
    return Response(body, status_code=202, headers=headers)
