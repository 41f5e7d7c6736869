"""The one tree of errors. Programs act on ``code`` and ``subcode``, never on text.

CrmError
├── AuthError            auth_error            refresh_failed, insufficient_scope, invalid_credentials,
│                                              expired, revoked
├── RateLimited          rate_limited
├── ValidationError      validation_error      (one FieldError per field)
├── NotFound             not_found
├── Conflict             conflict              (carries the existing remote id)
├── Unsupported          unsupported           delete_unsupported, operation_unsupported, object_unsupported,
│                                              driver_unavailable
├── Unavailable          unavailable
├── UnexpectedResponse   unexpected_response
├── NotConfigured        not_configured        oauth_app_missing, oauth_app_refused
├── GateClosed           gate_closed
└── EgressRefused        egress_refused
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from crmbridge.core.operations import Outcome

__all__ = [
    "AuthError",
    "Conflict",
    "CrmError",
    "EgressRefused",
    "FieldError",
    "Fix",
    "GateClosed",
    "NotConfigured",
    "NotFound",
    "RateLimited",
    "Unavailable",
    "UnexpectedResponse",
    "Unsupported",
    "ValidationError",
]

_FOLLOW_UP = "I'll have someone follow up with you on that."


class Fix(msgspec.Struct, frozen=True):
    """What to do next. ``action`` is a stable word for programs, ``hint`` a sentence for people."""

    action: str
    hint: str


class FieldError(msgspec.Struct, frozen=True):
    """One field's problem. ``field`` is a slot (``lead.email``) or, unmapped, the provider's own name."""

    field: str
    message: str
    provider_code: str = ""


class CrmError(Exception):
    """Base of all errors of crmbridge.

    ``outcome`` says what is known of the effect of the call at the provider; it is never guessed.
    ``retry_safe`` is true when the same call may be sent again without a second effect.
    ``retry_after_seconds`` is the provider's own wish, if it told one.
    ``provider_facts`` are redacted facts for the operator (HTTP status, provider code, request id): no
    personal data, no secrets, no bodies.
    """

    code: ClassVar[str] = "unavailable"
    http_status: int = 502
    default_fix: ClassVar[Fix] = Fix("retry_later", "Try again later.")
    default_sentence: ClassVar[str] = _FOLLOW_UP
    default_outcome: ClassVar[Outcome] = Outcome.NOT_APPLIED
    default_retry_safe: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        subcode: str = "",
        provider: str = "",
        operation: str = "",
        outcome: Outcome | None = None,
        retry_safe: bool | None = None,
        retry_after_seconds: float | None = None,
        fix: Fix | None = None,
        fields: tuple[FieldError, ...] = (),
        existing_remote_id: str = "",
        provider_facts: Mapping[str, Any] | None = None,
        say_to_customer: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.subcode = subcode
        self.provider = provider
        self.operation = operation
        self.outcome = self.default_outcome if outcome is None else outcome
        self.retry_safe = self.default_retry_safe if retry_safe is None else retry_safe
        self.retry_after_seconds = retry_after_seconds
        self.fix = fix or self.default_fix
        self.fields = fields
        self.existing_remote_id = existing_remote_id
        self.provider_facts: dict[str, Any] = dict(provider_facts or {})
        self.say_to_customer = say_to_customer or self.default_sentence
        self.request_id = ""
        self.audit_id = ""

    @property
    def full_code(self) -> str:
        """``code/subcode``, or ``code`` alone."""
        return f"{self.code}/{self.subcode}" if self.subcode else self.code

    def to_dict(self) -> dict[str, Any]:
        """The fields of design section 5, ready for JSON. Safe to show: redacted by construction."""
        answer: dict[str, Any] = {
            "code": self.code,
            "subcode": self.subcode,
            "message": self.message,
            "provider": self.provider,
            "operation": self.operation,
            "outcome": self.outcome.value,
            "retry_safe": self.retry_safe,
            "retry_after_seconds": self.retry_after_seconds,
            "fix": {"action": self.fix.action, "hint": self.fix.hint},
            "say_to_customer": self.say_to_customer,
            "request_id": self.request_id,
            "audit_id": self.audit_id,
            "provider_facts": self.provider_facts,
        }
        if self.fields:
            answer["fields"] = [msgspec.to_builtins(field) for field in self.fields]
        if self.existing_remote_id:
            answer["existing_remote_id"] = self.existing_remote_id
        return answer

    def __str__(self) -> str:
        return f"{self.full_code}: {self.message}"


class AuthError(CrmError):
    """The provider does not accept the credential, or it lacks a right."""

    code = "auth_error"
    default_fix = Fix("reconnect", "Check the credential at the provider, then connect this CRM again.")


class RateLimited(CrmError):
    """The provider asks for fewer calls. Nothing was done."""

    code = "rate_limited"
    http_status = 429
    default_retry_safe = True
    default_fix = Fix(
        "retry_later", "Wait as long as retry_after_seconds says; a queued write waits by itself."
    )


class ValidationError(CrmError):
    """The content is refused, by us or by the provider. ``fields`` names each field and its problem."""

    code = "validation_error"
    http_status = 422
    default_fix = Fix("correct_fields", "Correct the named fields and send the write again with a new key.")


class NotFound(CrmError):
    """The record (or the tenant, or the object) is not there."""

    code = "not_found"
    http_status = 404
    default_fix = Fix("check_id", "Check the id; the record may have been deleted in the CRM.")


class Conflict(CrmError):
    """The record exists already, or an idempotency key was used with another body."""

    code = "conflict"
    http_status = 409
    default_fix = Fix("use_existing", "Update the existing record, or send an upsert.")


class Unsupported(CrmError):
    """Declared as not possible; refused before a socket opened."""

    code = "unsupported"
    http_status = 422
    default_fix = Fix("choose_other", "See the compatibility matrix for what this provider can do.")


class Unavailable(CrmError):
    """The provider cannot be reached, is down, or answered with a server error."""

    code = "unavailable"
    http_status = 503
    default_fix = Fix(
        "retry_later", "The provider is down or unreachable; a queued write is retried by itself."
    )


class UnexpectedResponse(CrmError):
    """The provider answered something it should not: HTML for JSON, a 200 that is an error, a wrong shape."""

    code = "unexpected_response"
    default_outcome = Outcome.UNKNOWN
    default_fix = Fix(
        "report", "Check the address of the CRM; if it is right, report this with the request id."
    )


class NotConfigured(CrmError):
    """There is nothing to call: no connection, no active credential, or a setting is missing."""

    code = "not_configured"
    http_status = 409
    default_fix = Fix("connect", "Connect a CRM for this tenant first: `crmbridge connect` or the console.")


class GateClosed(CrmError):
    """The PHI gate is closed: no recorded BAA, or no compliance review."""

    code = "gate_closed"
    http_status = 403
    default_fix = Fix(
        "open_gate", "Record the BAA and the compliance review: `crmbridge tenants gate TENANT`."
    )


class EgressRefused(CrmError):
    """The address is private, link-local, loopback, a metadata service, or not an http(s) URL."""

    code = "egress_refused"
    http_status = 422
    default_fix = Fix(
        "allow_address",
        "Use a public https address; an operator can allow a private network in CRMBRIDGE_EGRESS_ALLOW.",
    )
