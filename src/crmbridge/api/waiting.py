"""From a body to a write's intent, and from what delivery knows of it to the HTTP answer."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from litestar import Response

from crmbridge.api.bodies import RecordBody
from crmbridge.core.errors import FieldError, ValidationError
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object
from crmbridge.services.connections.model import Intent
from crmbridge.services.delivery.model import Accepted, TargetState

__all__ = [
    "Answer",
    "accepted_answer",
    "answer_accepted",
    "idempotency_key_of",
    "record_intent",
    "seconds_to_wait",
]

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


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP answer to an accepted write, its body encoded."""

    status: int
    body: bytes
    headers: dict[str, str] = {}
    media_type: str = "application/json"


def accepted_answer(accepted: Accepted, operation: Operation, waited: bool, request_id: str) -> Answer:
    """202 while it is under way; 201/200 once applied; the error's own status when the CRM refused it.

    Of several targets the first is the primary's, and the status speaks of it; the body shows how each stands.
    """
    if not waited:
        return Answer(status=202, body=msgspec.json.encode(accepted))
    headers = {"Preference-Applied": "wait"}
    leading = accepted.targets[0]
    if leading.state is TargetState.APPLIED:
        is_new = operation in (Operation.CREATE, Operation.UPSERT)
        return Answer(status=201 if is_new else 200, body=msgspec.json.encode(accepted), headers=headers)
    if leading.state is TargetState.DEAD_LETTER:
        error = leading.error or {}
        status = _STATUS_OF_CODE.get(str(error.get("code")), 502)
        refused = {
            "type": f"urn:crmbridge:error:{error.get('code', 'unavailable')}",
            "title": str(error.get("code", "unavailable")).replace("_", " "),
            "status": status,
            "detail": error.get("message", "The CRM refused the write."),
            **error,
            "request_id": request_id,
            **msgspec.to_builtins(accepted),
        }
        return Answer(
            status=status,
            body=msgspec.json.encode(refused),
            headers=headers,
            media_type="application/problem+json",
        )
    return Answer(status=202, body=msgspec.json.encode(accepted), headers=headers)


def answer_accepted(accepted: Accepted, operation: Operation, waited: bool, request_id: str) -> Response[Any]:
    """The same as the framework's response."""
    answer = accepted_answer(accepted, operation, waited, request_id)
    return Response(
        answer.body, status_code=answer.status, headers=answer.headers, media_type=answer.media_type
    )


def record_intent(obj: Object, data: RecordBody) -> Intent:
    """What the body of a create or upsert asks for."""
    return Intent(
        object=obj,
        operation=Operation.UPSERT if data.match else Operation.CREATE,
        fields=data.fields,
        links=data.links,
        match=data.match,
        provider_extra=data.provider_extra,
    )
