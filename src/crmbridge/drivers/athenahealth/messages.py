"""What athenahealth's refusals mean: a 200 may be one, and the gateway answers plain texts."""

from __future__ import annotations

from typing import Any

from crmbridge.core.errors import (
    AuthError,
    Conflict,
    CrmError,
    FieldError,
    Fix,
    NotFound,
    RateLimited,
    ValidationError,
)
from crmbridge.core.operations import Outcome
from crmbridge.core.wire import HttpResponse
from crmbridge.toolkit import failures

__all__ = ["error_of", "first"]

_TAKEN = ("not available", "already frozen")
_OVER_RATE = ("Developer Over Qps", "Developer Over Rate")
_STATUSES = {401: failures.StatusRule(error=AuthError, subcode="invalid_credentials")}
_SLOT_TAKEN = failures.StatusRule(
    error=Conflict,
    outcome=Outcome.NOT_APPLIED,
    retry_safe=True,
    fix=Fix("choose_time", "The slot was taken meanwhile; offer another time."),
)
_REFUSED = failures.StatusRule(error=ValidationError, outcome=Outcome.NOT_APPLIED, retry_safe=False)


def error_of(response: HttpResponse, *, provider: str, operation: str, is_write: bool) -> CrmError | None:
    """``error`` and ``detailedmessage``, ``missingfields``; a 200 with ``success: false`` or ``errormessage``; the
    gateway's plain texts. A 401 is a dead token or a practice that is not granted: one new token tells."""
    tree = first(failures.tree_or_none(response))
    is_fine = 200 <= response.status < 300
    words = " ".join(
        str(tree[name]) for name in ("error", "detailedmessage", "errormessage") if tree.get(name)
    )
    if is_fine and not words and str(tree.get("success")).lower() != "false":  # booleans may be texts
        return None
    if not tree and not response.body.lstrip().startswith((b"<", b"{", b"[", b'"')):
        words = response.body[:200].decode(errors="replace")
    names = tree.get("missingfields") or tree.get("fields") or ()
    overrides = dict(_STATUSES)
    if any(text in words for text in _TAKEN):
        overrides[response.status] = _SLOT_TAKEN
    elif is_fine:
        overrides[response.status] = _REFUSED
    elif response.status == 403 and words.startswith(_OVER_RATE):  # the retired gateway's 429
        overrides[403] = failures.StatusRule(error=RateLimited)
    elif "does not exist in that department" in words:
        overrides[400] = failures.StatusRule(error=NotFound)
    return failures.error_for_status(
        response,
        provider=provider,
        operation=operation,
        is_write=is_write,
        overrides=overrides,
        message=words,
        fields=tuple(FieldError(str(name)[:80], "is required") for name in names if isinstance(name, str)),
    )


def first(tree: Any) -> dict[str, Any]:
    """The object, or the one object of a list; empty for anything else."""
    found = tree[0] if isinstance(tree, list) and tree else tree
    return found if isinstance(found, dict) else {}
