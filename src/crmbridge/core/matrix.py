"""The compatibility matrix: what the manifest of a driver comes to in one row, derived in one place.

The docs, ``GET /api/drivers`` and ``crmbridge drivers`` all tell these facts.
"""

from __future__ import annotations

import msgspec

from crmbridge.core.manifest import AuthKind, Manifest
from crmbridge.core.operations import DeleteLevel, Operation
from crmbridge.core.records import Object

__all__ = ["AUTH_WORDS", "MatrixRow", "matrix_row", "operations_of"]

AUTH_WORDS: dict[AuthKind, str] = {
    AuthKind.OAUTH_CODE: "OAuth 2.0 (code)",
    AuthKind.CLIENT_CREDENTIALS: "OAuth 2.0 (client credentials)",
    AuthKind.API_KEY: "form (API key)",
    AuthKind.BEARER: "form (bearer key)",
    AuthKind.BASIC: "form (user and password)",
    AuthKind.HMAC: "signed with a shared secret",
    AuthKind.SIGN_IN: "form (sign-in)",
    AuthKind.NONE: "form",
}
"""The auth kinds for people."""

_READ = (Operation.GET, Operation.LIST, Operation.SEARCH, Operation.LOOKUP)
_WRITE = (Operation.CREATE, Operation.UPDATE, Operation.UPSERT)


class MatrixRow(msgspec.Struct, frozen=True, kw_only=True):
    """One driver in the matrix.

    ``refreshable``: tokens end, and crmbridge gets new ones by itself, so that nobody signs in again;
    ``renewal`` says it for people.
    ``read`` and ``write``: canonical objects with at least one usable operation of that sort. ``delete`` and
    ``erase``: delete level → objects among these, ``unsupported`` included. ``largest_batch``: most records in one
    provider call, 1 without batches. ``verified_against``: ``spec``, ``recording`` or ``live``, and against
    what; empty for a driver that refuses everything.
    """

    slug: str
    display_name: str
    is_available: bool
    auth: str
    refreshable: bool
    renewal: str
    read: tuple[str, ...]
    write: tuple[str, ...]
    delete: dict[str, tuple[str, ...]]
    erase: dict[str, tuple[str, ...]]
    largest_batch: int
    verified_against: str

    def delete_text(self) -> str:
        """The delete levels for people: one word, or each level with its objects."""
        return _levels_text(self.delete)

    def erase_text(self) -> str:
        """The same of the privacy delete."""
        return _levels_text(self.erase)


def matrix_row(manifest: Manifest) -> MatrixRow:
    """The row of a driver, from its manifest alone."""
    is_available = not manifest.why_unavailable
    note = f": {manifest.verification_note}" if manifest.verification_note else ""
    renewal = _renewal(manifest)
    read, write = _able(manifest, _READ), _able(manifest, _WRITE)
    batches = [most for spec in manifest.objects.values() for most in spec.batch.values()]
    return MatrixRow(
        slug=manifest.slug,
        display_name=manifest.display_name,
        is_available=is_available,
        auth=AUTH_WORDS[manifest.auth.kind],
        refreshable=renewal.startswith("yes"),
        renewal=renewal,
        read=read,
        write=write,
        delete=_levels(manifest, Operation.DELETE, {*read, *write}),
        erase=_levels(manifest, Operation.ERASE, {*read, *write}),
        largest_batch=max(batches, default=1),
        verified_against=f"{manifest.verification.value}{note}" if is_available else "",
    )


def operations_of(obj: Object) -> list[Operation]:
    """The operations that make sense for an object: a look-up is of customers."""
    return [each for each in Operation if each is not Operation.LOOKUP or obj is Object.CUSTOMER]


def _renewal(manifest: Manifest) -> str:
    kind = manifest.auth.kind
    if manifest.why_unavailable:
        return "–"
    if kind is AuthKind.OAUTH_CODE:
        return "yes, by refresh token"
    if kind in (AuthKind.CLIENT_CREDENTIALS, AuthKind.SIGN_IN) and manifest.auth.access_seconds:
        return "yes, by signing in anew"
    return "n/a, long-lived"


def _able(manifest: Manifest, operations: tuple[Operation, ...]) -> tuple[str, ...]:
    return tuple(
        obj.value
        for obj in Object
        if any(manifest.supports(obj, operation).is_usable for operation in operations)
    )


def _levels(manifest: Manifest, operation: Operation, used: set[str]) -> dict[str, tuple[str, ...]]:
    """Levels from the furthest reaching to none, each with those objects that can be read or written."""
    levels: dict[str, list[str]] = {level.value: [] for level in DeleteLevel}
    for obj, spec in manifest.objects.items():
        if obj.value not in used:
            continue
        level = spec.delete_level if operation is Operation.DELETE else spec.erase_level
        is_usable = manifest.supports(obj, operation).is_usable
        levels[level.value if is_usable else DeleteLevel.UNSUPPORTED.value].append(obj.value)
    return {level: tuple(objects) for level, objects in levels.items() if objects}


def _levels_text(levels: dict[str, tuple[str, ...]]) -> str:
    words = {level: level.replace("_", "-") for level in levels}
    if len(levels) == 1:
        return next(iter(words.values()))
    return "; ".join(f"{words[level]}: {', '.join(objects)}" for level, objects in levels.items()) or "–"
