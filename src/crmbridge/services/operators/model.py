"""Operators, their roles and sessions."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from crmbridge.core.errors import AuthError, Fix

__all__ = ["Identity", "OidcRefused", "Operator", "Role", "Session", "SignInRefused", "SignedIn"]


class Role(StrEnum):
    """What an operator may do; each role may all that the ones before it may.

    ``auditor`` reads. ``operator`` connects CRMs and steers writes and incidents. ``admin`` also makes API keys and
    operators.
    """

    AUDITOR = "auditor"
    OPERATOR = "operator"
    ADMIN = "admin"

    def allows(self, needed: Role) -> bool:
        """True when this role may do what ``needed`` may do."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


class SignInRefused(AuthError):
    """No sign-in; whether the name, the password or a pause is the reason is not told."""

    http_status = 401
    default_fix = Fix(
        "sign_in_again",
        "Check both and try again. After five failures in a row each further try must wait, up to 15 minutes. An admin "
        "can set a new password: `crmbridge operators password EMAIL`.",
    )


_AGAIN = "Start the sign-in again."
_ASK = (
    "Ask an admin: each operator is added here first, with the e-mail address that the sign-in service knows."
)
_TELL = "Tell whoever runs this server; the reason stands in the audit log."
# What the visitor reads, by the reason that the audit log keeps. All others are an answer that cannot be trusted.
_WORDS = {
    **dict.fromkeys(
        ("no_flow", "flow_expired", "flow_used", "other_browser", "wrong_state"),
        (
            "This sign-in was not started in this browser, was used already, or is older than ten minutes.",
            _AGAIN,
        ),
    ),
    "denied": ("The sign-in was broken off at the sign-in service.", _AGAIN),
    "provider_refused": ("The sign-in service refused.", _TELL),
    "code_refused": ("The sign-in service did not confirm this sign-in.", _AGAIN),
    "client_refused": ("The sign-in service does not accept this server.", _TELL),
    "nobody": ("Nobody may sign in here with this identity.", _ASK),
    "email_unverified": (
        "The sign-in service has not verified your e-mail address.",
        "Verify it there first.",
    ),
}


class OidcRefused(SignInRefused):
    """No sign-in by OpenID Connect. ``reason`` is a fixed word for the audit log, never a value of the provider."""

    def __init__(self, reason: str, *, operator_id: UUID | None = None) -> None:
        message, hint = _WORDS.get(reason, ("The answer of the sign-in service cannot be trusted.", _TELL))
        super().__init__(message, subcode="invalid_credentials", fix=Fix("sign_in_again", hint))
        self.reason = reason
        self.operator_id = operator_id


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who a provider says that somebody is. ``subject`` is ``ISSUER SUBJECT``; ``email`` may be empty."""

    subject: str
    email: str
    is_verified: bool


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """A person who may sign in, without the password's hash. ``email`` is in lower case."""

    id: UUID
    email: str
    name: str
    role: Role
    created_by: str
    created_at: datetime
    password_changed_at: datetime
    disabled_at: datetime | None
    locked_until: datetime | None
    signed_in_at: datetime | None

    @property
    def actor(self) -> str:
        """How the audit log names this person: by id, as names are personal data."""
        return f"operator:{self.id}"


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A sign-in that holds: not expired, not idle too long, and of an operator who is not disabled."""

    id: UUID
    operator: Operator
    created_at: datetime
    expires_at: datetime


class SignedIn(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a sign-in. ``token`` goes into the browser's cookie and is kept nowhere else."""

    token: str
    session: Session
