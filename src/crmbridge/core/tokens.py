"""What a token endpoint's refusal means. The classes decide whether a tenant is disconnected: one alone does."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["TokenFault"]


class TokenFault(StrEnum):
    """Why no token came.

    ``revoked``: the grant is dead, a person must consent again. ``misconfigured``: our client id, secret, redirect
    address or scopes are refused; the grant may be well. ``throttled``: too many token calls. ``transient``: try
    again later with the same refresh token.
    """

    REVOKED = "revoked"
    MISCONFIGURED = "misconfigured"
    THROTTLED = "throttled"
    TRANSIENT = "transient"
