"""Master keys and where they come from: an environment variable, a file, or (the seam) a key service."""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
import stat
import tempfile
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crmbridge.core.errors import Fix, NotConfigured
from crmbridge.core.secret import Secret
from crmbridge.services.vault.keys import KEY_BYTES, new_key, unwrap_key, wrap_key
from crmbridge.settings import Settings

__all__ = [
    "EnvKeyProvider",
    "FileKeyProvider",
    "KeyProvider",
    "MasterKeyMissing",
    "new_master_key",
    "provider_from",
    "write_master_key_file",
]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_HOW = "Make one with `crmbridge keys init` and set CRMBRIDGE_MASTER_KEY or CRMBRIDGE_MASTER_KEY_FILE to it."


class MasterKeyMissing(NotConfigured):
    """No usable master key, so nothing can be sealed or opened; crmbridge does not start without one."""

    http_status = 500
    default_fix = Fix("make_master_key", _HOW)


class KeyProvider(Protocol):
    """Wraps and unwraps keys; the master key itself may live elsewhere (a cloud KMS, Vault Transit).

    ``current_id`` names the master key that wraps now, ``ids`` all that can unwrap, the current one first.
    """

    @property
    def current_id(self) -> str: ...

    @property
    def ids(self) -> tuple[str, ...]: ...

    async def wrap(self, key: bytes, aad: bytes) -> bytes:
        """Wrap under the current master key, bound to ``aad``."""
        ...

    async def unwrap(self, key_id: str, wrapped: bytes, aad: bytes) -> bytes:
        """Raises SealBroken, or MasterKeyMissing for an id that is not in ``ids``."""
        ...


class _LocalKeys:
    """Master keys held in this process."""

    def __init__(self, text: str, source: str) -> None:
        self._keys = _parse(text, source)
        self._source = source

    def __repr__(self) -> str:
        return f"{type(self).__name__}(ids={self.ids!r})"

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._keys)

    @property
    def current_id(self) -> str:
        return self.ids[0]

    async def wrap(self, key: bytes, aad: bytes) -> bytes:
        return wrap_key(self._keys[self.current_id], key, aad)

    async def unwrap(self, key_id: str, wrapped: bytes, aad: bytes) -> bytes:
        master = self._keys.get(key_id)
        if master is None:
            raise MasterKeyMissing(
                f"Keys in the database are wrapped by master key {key_id!r}, which {self._source} does not hold "
                f"(it holds {', '.join(self.ids)}).",
                fix=Fix(
                    "restore_master_key", f"Add {key_id}:... to {self._source} again, after the current key."
                ),
            )
        return unwrap_key(master, wrapped, aad)


class EnvKeyProvider(_LocalKeys):
    """Master keys from a text ``id:base64,id:base64``: the first is current, the others only unwrap."""

    def __init__(self, text: Secret, source: str = "CRMBRIDGE_MASTER_KEY") -> None:
        super().__init__(text.open(), source)


class FileKeyProvider(_LocalKeys):
    """Master keys from a file, one ``id:base64`` a line (``#`` begins a comment).

    Raises MasterKeyMissing when the file is not there, or when anyone but its owner may read or write it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(_read_private(path), str(path))


def provider_from(settings: Settings) -> KeyProvider:
    """The provider the settings name. Raises MasterKeyMissing, with the command that makes a key."""
    if settings.master_key_file is not None:
        return FileKeyProvider(settings.master_key_file)
    if settings.master_key:
        return EnvKeyProvider(settings.master_key)
    raise MasterKeyMissing(
        "There is no master key. Credentials and waiting writes are never kept in plain text, so crmbridge does not "
        f"start. {_HOW}"
    )


def new_master_key() -> str:
    """A new ``id:base64`` of 256 random bits under a random id. Show it once; losing it loses all that it wraps."""
    return f"k{secrets.token_hex(4)}:{base64.b64encode(new_key()).decode()}"


def write_master_key_file(path: Path, *, rotate: bool = False) -> str:
    """Write a new master key to ``path`` (mode 0600) and return its id.

    ``rotate`` puts it before the keys that the file holds; without it an existing file is refused
    (FileExistsError), because writing over a master key destroys all that it wraps. The change is atomic.
    """
    fresh = new_master_key()
    kept = _read_private(path) if rotate else ""
    if kept:
        _parse(kept, str(path))
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".master-", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(f"{fresh}\n{kept}")
            file.flush()
            os.fsync(file.fileno())
        if rotate:
            Path(name).replace(path)
        else:
            os.link(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
    return fresh.partition(":")[0]


def _read_private(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(65536)
    except FileNotFoundError:
        raise MasterKeyMissing(f"The master key file {path} does not exist. {_HOW}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise MasterKeyMissing(
            f"The master key file {path} cannot be read ({type(error).__name__})."
        ) from None
    if mode & 0o077:
        raise MasterKeyMissing(
            f"The master key file {path} has mode {mode:04o}: others than its owner may use it.",
            fix=Fix("protect_file", f"Run `chmod 600 {path}`."),
        )
    return text


def _parse(text: str, source: str) -> dict[str, AESGCM]:
    entries = [line.partition("#")[0].split(",") for line in text.splitlines()]
    keys: dict[str, AESGCM] = {}
    for entry in (part.strip() for line in entries for part in line):
        if not entry:
            continue
        key_id, colon, encoded = entry.partition(":")
        number = len(keys) + 1
        if not colon or _ID.fullmatch(key_id) is None:
            raise _unusable(source, number, "is not written as id:base64", f"{len(entry)} characters")
        if key_id in keys:
            raise _unusable(source, number, f"has the id {key_id} again", "each id once")
        try:
            raw = base64.b64decode(encoded.replace("-", "+").replace("_", "/"), validate=True)
        except (binascii.Error, ValueError):
            raise _unusable(
                source, number, "is not base64", f"{len(encoded)} characters after the id"
            ) from None
        if len(raw) != KEY_BYTES:
            raise _unusable(
                source, number, "has the wrong length", f"{len(raw)} bytes instead of {KEY_BYTES}"
            )
        keys[key_id] = AESGCM(raw)
    if not keys:
        raise MasterKeyMissing(f"{source} holds no master key. {_HOW}")
    return keys


def _unusable(source: str, number: int, what: str, shape: str) -> MasterKeyMissing:
    return MasterKeyMissing(f"Master key {number} of {source} {what} ({shape}). {_HOW}")
