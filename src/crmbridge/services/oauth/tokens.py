"""Texts in addresses: sixteen bytes of a tenant's id, then 32 random ones. The id tells whose rows to look among."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from uuid import UUID

from crmbridge.services.oauth.model import FlowRefused

__all__ = ["hashed", "named_token", "tenant_in"]

_NAMED = re.compile(r"[A-Za-z0-9_-]{64}")


def named_token(tenant_id: UUID) -> str:
    """A new one, 64 characters that need no escape in a URL."""
    return base64.urlsafe_b64encode(tenant_id.bytes + secrets.token_bytes(32)).decode()


def tenant_in(text: str) -> UUID:
    """Whose it is. Anybody can write an id there; without the random part it finds nothing. Raises FlowRefused."""
    try:
        if _NAMED.fullmatch(text):
            return UUID(bytes=base64.urlsafe_b64decode(text)[:16])
    except (binascii.Error, ValueError):
        pass
    raise FlowRefused("This link is not one of ours.")


def hashed(text: str) -> bytes:
    """What is kept: 256 random bits need no slow hash and no salt."""
    return hashlib.sha256(text.encode()).digest()
