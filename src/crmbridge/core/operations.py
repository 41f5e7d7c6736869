"""Operation and Support: the two axes of the compatibility matrix."""

from __future__ import annotations

from enum import StrEnum

import msgspec

__all__ = [
    "COMPOSED",
    "FULL",
    "LIMITED",
    "NEVER",
    "NOT_YET",
    "DeleteLevel",
    "Operation",
    "Outcome",
    "Support",
    "SupportLevel",
]


class Operation(StrEnum):
    """What can be asked of one object of one provider. The value is what tables, URLs and docs show."""

    DESCRIBE = "describe"
    LOOKUP = "lookup"
    SEARCH = "search"
    GET = "get"
    LIST = "list"
    CREATE = "create"
    UPDATE = "update"
    UPSERT = "upsert"
    DELETE = "delete"
    ERASE = "erase"
    CHANGES = "changes"

    @property
    def is_write(self) -> bool:
        """True for what changes the CRM: only delivery retries these, and never blindly."""
        return self in _WRITES


_WRITES = frozenset(
    {Operation.CREATE, Operation.UPDATE, Operation.UPSERT, Operation.DELETE, Operation.ERASE},
)


class SupportLevel(StrEnum):
    """The five honest answers to "can it do that?"."""

    FULL = "full"
    COMPOSED = "composed"
    LIMITED = "limited"
    NOT_YET = "not_yet"
    NEVER = "never"


class Support(msgspec.Struct, frozen=True, kw_only=True):
    """A driver's declared answer for one operation on one object.

    ``reason`` is one sentence for people: how it is composed, how it is limited, or why not.
    ``link`` points to the provider's page that proves a NEVER. ``fix`` is the way out of a refusal in one sentence:
    the setting to change or, for a delete, the task of the person who does it by hand.
    """

    level: SupportLevel
    reason: str = ""
    link: str = ""
    fix: str = ""

    @property
    def is_usable(self) -> bool:
        """True when a call may leave; false answers are refused before a socket opens."""
        return self.level in (SupportLevel.FULL, SupportLevel.COMPOSED, SupportLevel.LIMITED)


FULL = Support(level=SupportLevel.FULL)


def COMPOSED(how: str) -> Support:
    """Works, built from other calls, costlier than one call. ``how`` names them."""
    return Support(level=SupportLevel.COMPOSED, reason=how)


def LIMITED(why: str) -> Support:
    """Works for part of what the name promises. ``why`` names the part that does not."""
    return Support(level=SupportLevel.LIMITED, reason=why)


def NOT_YET(why: str = "not built yet", fix: str = "") -> Support:
    """Our debt: the provider could, we do not. The default for anything undeclared."""
    return Support(level=SupportLevel.NOT_YET, reason=why, fix=fix)


def NEVER(why: str, link: str, fix: str = "") -> Support:
    """The provider's fact: it cannot. The link proves it."""
    return Support(level=SupportLevel.NEVER, reason=why, link=link, fix=fix)


class DeleteLevel(StrEnum):
    """How far a delete reached. ``UNSUPPORTED`` is only declared; the call raises ``delete_unsupported``."""

    HARD = "hard"
    SOFT = "soft"
    REDACTED = "redacted"
    PASS_THROUGH = "pass_through"  # noqa: S105 - a delete level, no password
    UNSUPPORTED = "unsupported"


class Outcome(StrEnum):
    """What is known of the effect of one attempt at the provider."""

    APPLIED = "applied"
    NOT_APPLIED = "not_applied"
    UNKNOWN = "unknown"
