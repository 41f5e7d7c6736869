"""Errors as problem+json (RFC 9457), with the fields of the error tree. Never a stack trace, never a secret."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException
from litestar.exceptions import ValidationException as BadBody

from crmbridge import metrics
from crmbridge.api.authentication import request_id_of
from crmbridge.core.errors import CrmError, NotFound, ValidationError
from crmbridge.core.errors import FieldError as Field

__all__ = ["EXCEPTION_HANDLERS", "TooLarge", "problem"]

_log = structlog.get_logger("crmbridge.api")
_MEDIA_TYPE = "application/problem+json"


class TooLarge(ValidationError):
    """The request body is over the limit."""

    http_status = 413


def problem(error: CrmError, request_id: str, **extra: Any) -> Response[Any]:
    """One error as a response; Retry-After is set when the error knows it."""
    error.request_id = error.request_id or request_id
    metrics.note_refusal(error.code, error.http_status)
    body = {
        "type": f"urn:crmbridge:error:{error.code}" + (f":{error.subcode}" if error.subcode else ""),
        "title": error.code.replace("_", " "),
        "status": error.http_status,
        "detail": error.message,
        **error.to_dict(),
        **extra,
    }
    headers = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_seconds)))
    if error.http_status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="crmbridge"'
    return Response(body, status_code=error.http_status, headers=headers, media_type=_MEDIA_TYPE)


def _on_crm_error(request: Request[Any, Any, Any], error: CrmError) -> Response[Any]:
    return problem(error, request_id_of(request.scope))


def _on_bad_body(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    """Litestar's own complaint about a body or a parameter: name the place, drop the rest."""
    places = error.extra if isinstance(error.extra, list) else []
    fields = tuple(Field(str(item.get("key", "body")), str(item.get("message", ""))) for item in places)
    if not fields:
        cause = error.__cause__ or error
        text = str(cause) if isinstance(cause, msgspec.MsgspecError) else "not valid JSON for this call"
        fields = (Field("body", text[:300]),)
    refusal = ValidationError(
        "The request cannot be read: " + "; ".join(f"{f.field}: {f.message}" for f in fields)
    )
    refusal.fields = fields
    return problem(refusal, request_id_of(request.scope))


def _on_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    if error.status_code == HTTPStatus.NOT_FOUND:
        return problem(NotFound("There is no such address."), request_id_of(request.scope))
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        limit = request.app.request_max_body_size
        return problem(TooLarge(f"The body is larger than {limit} bytes."), request_id_of(request.scope))
    if error.status_code == HTTPStatus.BAD_REQUEST:
        return _on_bad_body(request, error)
    refusal = ValidationError(HTTPStatus(error.status_code).phrase)
    refusal.http_status = error.status_code
    return problem(refusal, request_id_of(request.scope))


def _on_anything(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    request_id = request_id_of(request.scope)
    metrics.note_refusal("internal", 500)
    _log.error(
        "request.failed",
        kind=type(error).__name__,
        route=request.scope.get("path_template", ""),
        exc_info=error,
    )
    body = {
        "type": "urn:crmbridge:error:internal",
        "title": "internal error",
        "status": 500,
        "detail": "Something failed on our side; the log has it under this request id.",
        "code": "internal",
        "outcome": "unknown",
        "retry_safe": False,
        "request_id": request_id,
        "fix": {"action": "report", "hint": "Report the request id to whoever runs this server."},
    }
    return Response(body, status_code=500, media_type=_MEDIA_TYPE or MediaType.JSON)


EXCEPTION_HANDLERS: Any = {
    CrmError: _on_crm_error,
    BadBody: _on_bad_body,
    HTTPException: _on_http_exception,
    Exception: _on_anything,
}
