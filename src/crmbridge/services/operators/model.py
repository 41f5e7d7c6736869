"""Operators, their roles and sessions."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from crmbridge.core.errors import AuthError, Fix

__all__ = ["Operator", "Role", "Session", "SignInRefused", "SignedIn"]


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
