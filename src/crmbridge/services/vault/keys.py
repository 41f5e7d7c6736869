"""Sealing: AES-256-GCM with keys that are already unwrapped. No database, no master key.

Binary forms (all integers big-endian; ``nonce`` 12 random bytes, ``tag`` the last 16 bytes of a ciphertext)::

    direct     01 | key version u16 | nonce | ciphertext+tag
    enveloped  02 | key version u16 | nonce | wrapped data key (32+16) | nonce | ciphertext+tag
    wrapped    03 | nonce | ciphertext+tag                                    (a key under the master key)

The associated data of every ciphertext begins with those first bytes and the owner of the key, then comes what the
caller binds (:func:`credential_aad`, :func:`write_aad`). So a row that is altered, moved to another tenant, row or
version, or given another form does not open: :class:`SealBroken`.

Limits. Random 96-bit nonces allow 2**32 seals per key before a repeat becomes likelier than 2**-32: a tenant's key
reaches that after four thousand million writes; a credential has a key of its own. GCM does not commit to its key,
which matters where an attacker can choose among keys: here the row names exactly one key, it is random and never a
password, and no reader tries several.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import NoReturn
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crmbridge.core.errors import Fix, NotConfigured

__all__ = [
    "KEY_BYTES",
    "SealBroken",
    "SealingKeys",
    "TenantKeys",
    "bound",
    "credential_aad",
    "new_key",
    "unwrap_key",
    "wrap_key",
    "write_aad",
]

KEY_BYTES = 32
_NONCE = 12
_TAG = 16
_DIRECT, _ENVELOPED, _WRAPPED = 1, 2, 3
_HEADER = struct.Struct(">BH")
_WRAPPED_DATA_KEY = KEY_BYTES + _TAG


class SealBroken(NotConfigured):
    """What was sealed does not open: altered, moved from another row, or sealed with a key that is not here."""

    http_status = 500
    default_fix = Fix(
        "restore_row", "Restore the row from a backup, or enter the credential again: `crmbridge connect`."
    )


def new_key() -> bytes:
    """32 random bytes."""
    return os.urandom(KEY_BYTES)


def bound(*parts: str | int | UUID | bytes) -> bytes:
    """The parts as one unambiguous byte text: each with its length, so that no two lists give the same bytes."""
    joined = bytearray()
    for part in parts:
        if isinstance(part, str):
            raw = part.encode()
        elif isinstance(part, bytes):
            raw = part
        else:
            raw = part.bytes if isinstance(part, UUID) else str(part).encode()
        joined += len(raw).to_bytes(4, "big")
        joined += raw
    return bytes(joined)


def _bound_text(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(4, "big") + raw


# Kinds are words of this program, a handful.
_bound_kind = lru_cache(maxsize=64)(_bound_text)

# ``bound`` of the same parts, spelled out: these are asked for at each call of a provider and each accept.
_CREDENTIAL = _bound_text("credential")
_WRITE = _bound_text("write")
_OF_UUID = (16).to_bytes(4, "big")


def credential_aad(tenant_id: UUID, driver: str, credential_id: UUID, row_version: int) -> bytes:
    """What a credential is bound to. A new ``row_version`` needs a new seal."""
    return b"".join(
        (
            _CREDENTIAL,
            _OF_UUID,
            tenant_id.bytes,
            _bound_text(driver),
            _OF_UUID,
            credential_id.bytes,
            _bound_text(str(row_version)),
        )
    )


def write_aad(tenant_id: UUID, write_id: UUID) -> bytes:
    """What the sealed fields of a write are bound to."""
    return b"".join((_WRITE, _OF_UUID, tenant_id.bytes, _OF_UUID, write_id.bytes))


def wrap_key(master: AESGCM, key: bytes, aad: bytes) -> bytes:
    """A key under a master key; 61 bytes for a key of 32."""
    nonce = os.urandom(_NONCE)
    return bytes((_WRAPPED,)) + nonce + master.encrypt(nonce, key, bytes((_WRAPPED,)) + aad)


def unwrap_key(master: AESGCM, wrapped: bytes, aad: bytes) -> bytes:
    """Raises :class:`SealBroken`."""
    if len(wrapped) < 1 + _NONCE + _TAG or wrapped[0] != _WRAPPED:
        raise SealBroken("A wrapped key has an unknown form.")
    return _decrypt(master, wrapped[1 : 1 + _NONCE], wrapped[1 + _NONCE :], wrapped[:1] + aad)


def _decrypt(cipher: AESGCM, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    try:
        return cipher.decrypt(nonce, ciphertext, aad)
    except InvalidTag:
        raise SealBroken(
            "A sealed value does not open: it was altered, moved, or sealed with another key."
        ) from None


class SealingKeys:
    """The unwrapped keys of one owner: data keys by version (the active one seals), and the index key.

    Nothing here can be printed, pickled or compared. Python cannot wipe memory: the bytes live until collected.
    """

    __slots__ = ("_active", "_data", "_index", "_owner", "_parts")

    def __init__(self, owner: bytes, data: Mapping[int, bytes], active: int, index: bytes) -> None:
        self._owner = owner
        self._data = {version: AESGCM(key) for version, key in data.items()}
        self._active = active
        self._index = hmac.new(index, digestmod=hashlib.sha256)
        self._parts = bound(owner)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys are not serialised")

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        """Seal under the active data key; 31 bytes longer than ``plaintext``."""
        header = _HEADER.pack(_DIRECT, self._active)
        nonce = os.urandom(_NONCE)
        return header + nonce + self._data[self._active].encrypt(nonce, plaintext, header + self._owner + aad)

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """The inverse of :meth:`seal`. Raises :class:`SealBroken`."""
        cipher, header = self._cipher(sealed, _DIRECT)
        start = _HEADER.size + _NONCE
        return _decrypt(cipher, sealed[_HEADER.size : start], sealed[start:], header + self._owner + aad)

    def seal_enveloped(self, plaintext: bytes, aad: bytes) -> bytes:
        """Seal under a fresh data key that the active key wraps; 91 bytes longer than ``plaintext``."""
        header = _HEADER.pack(_ENVELOPED, self._active)
        full_aad = header + self._owner + aad
        outer, inner, data_key = os.urandom(_NONCE), os.urandom(_NONCE), new_key()
        wrapped = self._data[self._active].encrypt(outer, data_key, full_aad)
        return header + outer + wrapped + inner + AESGCM(data_key).encrypt(inner, plaintext, full_aad)

    def open_enveloped(self, sealed: bytes, aad: bytes) -> bytes:
        """The inverse of :meth:`seal_enveloped`. Raises :class:`SealBroken`."""
        cipher, header = self._cipher(sealed, _ENVELOPED)
        full_aad = header + self._owner + aad
        key_at = _HEADER.size + _NONCE
        nonce_at = key_at + _WRAPPED_DATA_KEY
        text_at = nonce_at + _NONCE
        if len(sealed) < text_at + _TAG:
            raise SealBroken("A sealed value is cut short.")
        data_key = _decrypt(cipher, sealed[_HEADER.size : key_at], sealed[key_at:nonce_at], full_aad)
        return _decrypt(AESGCM(data_key), sealed[nonce_at:text_at], sealed[text_at:], full_aad)

    def hash(self, kind: str, text: str) -> bytes:
        """32 bytes: HMAC-SHA-256 of ``text`` under the index key. The same text of another kind hashes apart.

        The caller normalises (e-mail to lower case, phone to E.164) first.
        """
        # A hash begun for each kind would be a little quicker, and twice the memory of a tenant.
        keyed = self._index.copy()
        keyed.update(self._parts + _bound_kind(kind) + _bound_text(text))
        return keyed.digest()

    def _cipher(self, sealed: bytes, form: int) -> tuple[AESGCM, bytes]:
        if len(sealed) < _HEADER.size + _NONCE + _TAG:
            raise SealBroken("A sealed value is cut short.")
        header = bytes(sealed[: _HEADER.size])
        found, version = _HEADER.unpack(header)
        if found != form:
            raise SealBroken("A sealed value has another form than this column holds.")
        cipher = self._data.get(version)
        if cipher is None:
            raise SealBroken(
                f"A value was sealed with key version {version}, which is not here or was destroyed."
            )
        return cipher, header


class TenantKeys(SealingKeys):
    """The unwrapped keys of one tenant."""

    __slots__ = ("tenant_id",)

    def __init__(self, tenant_id: UUID, data: Mapping[int, bytes], active: int, index: bytes) -> None:
        super().__init__(bound("tenant", tenant_id), data, active, index)
        self.tenant_id = tenant_id
