"""Passwords as argon2id hashes (RFC 9106), worked on beside the event loop, two at a time: each takes 64 MiB."""

from __future__ import annotations

import asyncio
import secrets

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

__all__ = ["Passwords"]

_MOST_AT_ONCE = 2


class Passwords:
    """Hashes and checks. ``hasher`` is for tests, which need not be slow."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._gate = asyncio.Semaphore(_MOST_AT_ONCE)
        self._nobodys = ""

    async def hash(self, password: str) -> str:
        """A new hash with its own salt."""
        async with self._gate:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def is_right(self, password_hash: str, password: str) -> bool:
        """Whether the password is the one. Without a hash (nobody has this name) the same work is done, for nothing."""
        if not self._nobodys:
            self._nobodys = await self.hash(secrets.token_urlsafe(32))
        async with self._gate:
            right = await asyncio.to_thread(self._verify, password_hash or self._nobodys, password)
        return right and bool(password_hash)

    def is_outdated(self, password_hash: str) -> bool:
        """Whether it was made with weaker parameters than today's."""
        return self._hasher.check_needs_rehash(password_hash)

    def _verify(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (VerificationError, InvalidHashError, UnicodeEncodeError):
            return False
